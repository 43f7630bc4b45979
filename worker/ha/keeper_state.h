/* Between keeper_rules.c, which changes the keeper, and keeper_state.c, which reads it. Pure. */
#pragma once
#include "worker/ha/keeper_rules.h"

static inline int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static inline int64_t max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* The primary stands on a failsafe round, which lasts longer than the lease. */
bool keeper_in_failsafe(const struct keeper *k);
int64_t keeper_renew_interval_ms(const struct keeper *k);
/* Without an answer for three of these the lock is in doubt; the first repeat comes after one. */
int64_t keeper_first_gap_ms(const struct keeper *k);
uint32_t keeper_policy(const struct keeper *k); /* POLICY_... of a report made now */
bool keeper_may_renew(const struct keeper *k, int64_t now_ms);
bool keeper_may_resend(const struct keeper *k, int64_t now_ms);
bool keeper_report_open(const struct keeper *k);
