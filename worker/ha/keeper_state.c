/* What can be read off the keeper at a time: how the lock stands, whether renewing goes on, when to
 * look again (DESIGN 2). Changes nothing. Pure. */
#include "worker/ha/keeper_state.h"

bool keeper_verdict_holds(const struct keeper *k, int64_t now_ms)
{
	return k->verdict == VERDICT_HOLD &&
	       now_ms - k->verdict_at_ms <= 2 * k->loop_wait_ms + k->retry_timeout_ms;
}

int64_t keeper_gentle_of(int64_t lease_until_ms, int64_t ttl_ms)
{
	return lease_until_ms - settings_fence_margin_ms(ttl_ms) - ttl_ms / 6;
}

bool keeper_in_failsafe(const struct keeper *k)
{
	return k->failsafe_until_ms > k->lease_until_ms;
}

bool keeper_busy(const struct keeper *k)
{
	return k->phase == KEEPER_ACQUIRING || k->phase == KEEPER_ADOPTING ||
	       k->phase == KEEPER_REGAINING;
}

enum keeper_key keeper_key_of(const struct keeper *k, int64_t now_ms)
{
	enum ha_lock lock = keeper_lock(k, now_ms);
	if (lock == LOCK_HELD)
		return KEEPER_KEY_MINE;
	/* A new command supersedes the adoption of our own key, and asked again and again it would
	 * never end. */
	if (lock == LOCK_UNCERTAIN || keeper_busy(k) || k->phase == KEEPER_ZEROING ||
		k->phase == KEEPER_RELEASING)
		return KEEPER_KEY_WAIT;
	return KEEPER_KEY_ASK;
}

int64_t keeper_lease_until_ms(const struct keeper *k)
{
	return max64(k->lease_until_ms, k->failsafe_until_ms);
}

int64_t keeper_gentle_ms(const struct keeper *k)
{
	int64_t until = keeper_lease_until_ms(k);
	return until ? keeper_gentle_of(until, keeper_in_failsafe(k) ? k->ttl_ms : k->lease_ttl_ms)
		     : 0;
}

int64_t keeper_renew_interval_ms(const struct keeper *k)
{
	return min64(k->ttl_ms / 3, k->loop_wait_ms);
}

int64_t keeper_first_gap_ms(const struct keeper *k)
{
	return max64(min64(k->ttl_ms / 20, 300), 1);
}

uint32_t keeper_policy(const struct keeper *k)
{
	if (k->paused && !k->pause_enforce)
		return POLICY_PAUSED;
	return keeper_in_failsafe(k) ? POLICY_FAILSAFE : POLICY_ENFORCE;
}

/* Renewing goes on while the verdict is fresh and says hold, and somebody enforces what we renew.
 */
bool keeper_may_renew(const struct keeper *k, int64_t now_ms)
{
	if (k->phase != KEEPER_HOLDING && k->phase != KEEPER_ADOPTING)
		return false;
	/* Moving the key to a lease of a shorter ttl waits until the supervisor knows of that. */
	if (k->phase == KEEPER_ADOPTING && k->ttl_seq)
		return false;
	return keeper_verdict_holds(k, now_ms) && !k->supervisor_silent;
}

/* Quick repeats make sense until the gentle demotion must start; after that the ordinary beat is
 * enough. */
bool keeper_may_resend(const struct keeper *k, int64_t now_ms)
{
	int64_t gentle = keeper_gentle_ms(k);
	return k->unanswered_since_ms && k->resend_at_ms &&
	       (!gentle || now_ms < gentle || k->phase == KEEPER_ADOPTING);
}

/* A release goes on asking: the supervisor refuses lease 0 as long as PostgreSQL may still write.
 */
bool keeper_report_open(const struct keeper *k)
{
	bool zero_wanted = k->phase == KEEPER_ZEROING || k->lost;
	return (k->ack_seq != k->seq || zero_wanted) && !k->supervisor_silent;
}

int64_t keeper_next_ms(const struct keeper *k, int64_t now_ms)
{
	int64_t next = INT64_MAX;
	if (k->pending)
		next = min64(next, k->pending_deadline_ms);
	if (k->phase == KEEPER_REGAINING)
		next = min64(next, k->regain_until_ms);
	if (k->resume_at_ms)
		next = min64(next, k->resume_at_ms);
	if (keeper_report_open(k))
		next = min64(next, k->report_made_ms + KEEPER_ACK_WAIT_MS);
	if (keeper_may_renew(k, now_ms)) {
		next = min64(next, k->renew_at_ms);
		if (keeper_may_resend(k, now_ms))
			next = min64(next, k->resend_at_ms);
	}
	return max64(next, now_ms + 1);
}

enum ha_lock keeper_lock(const struct keeper *k, int64_t now_ms)
{
	switch (k->phase) {
	case KEEPER_START:
	case KEEPER_ADOPTING:
		return keeper_lease_until_ms(k) > now_ms || k->phase == KEEPER_ADOPTING
			       ? LOCK_UNCERTAIN
			       : LOCK_NONE;
	case KEEPER_HOLDING: {
		bool late = k->unanswered_since_ms &&
			    now_ms - k->unanswered_since_ms > 3 * keeper_first_gap_ms(k);
		if (k->acked_until_ms > now_ms && k->lease_until_ms > now_ms && !late)
			return LOCK_HELD;
		return LOCK_UNCERTAIN;
	}
	case KEEPER_REGAINING: return LOCK_UNCERTAIN;
	case KEEPER_IDLE: return k->lost ? LOCK_LOST : LOCK_NONE;
	case KEEPER_ACQUIRING:
	case KEEPER_ZEROING:
	case KEEPER_RELEASING: return LOCK_NONE;
	}
	return LOCK_NONE;
}
