/* Inside guard_step: what guard.c and guard_events.c share. Nobody else includes it. */
#pragma once
#include "supervisor/guard.h"

#define NEVER INT64_MAX

static inline int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static inline int64_t max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static inline int64_t ttl_of(const struct guard *g)
{
	return g->ttl_ms > 0 ? g->ttl_ms : GUARD_TTL_DEFAULT_MS;
}

static inline bool is_enforced(const struct guard *g)
{
	return g->policy != POLICY_PAUSED || g->pause_enforce;
}

/* A process of this generation may be running and has not been killed. At the gate too: the
 * dead-man cannot know whether the gate was opened by a supervisor that died right after it. */
static inline bool is_live(const struct guard *g)
{
	return g->pm_state == PG_PROC_STARTING || g->pm_state == PG_PROC_RUNNING ||
	       g->pm_state == PG_PROC_STOPPING;
}

static inline bool is_exempt_standby(const struct guard *g)
{
	return g->kind == PG_START_STANDBY && !g->promote_sent && g->proof_until_ms > 0;
}

/* Kill it now; the reason is static text. */
void guard_fence(struct guard *g, struct guard_actions *out, const char *reason);
/* Applies one event. NULL, or why it is refused. */
const char *guard_take_event(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out);
