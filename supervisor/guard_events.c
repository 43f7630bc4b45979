/* What each event changes in the state of guard.h, and when it is refused. Pure, as all of
 * guard_step; deadlines are looked at in guard.c alone. A refusal leaves the state as it was. */
#include "supervisor/guard_rules.h"

#include <stddef.h>

#include "common/core/clock.h"

/* A request rests on a lease that is in force and not spent. One that names an older report of the
 * same lease is as good while it is itself unspent: the keeper may have renewed between decision
 * and request. */
static const char *lease_unfit(const struct guard *g, int64_t lease_until_ms, int64_t now_ms)
{
	if (!is_enforced(g))
		return NULL;
	if (g->lease_until_ms <= 0 || lease_until_ms <= 0)
		return "no lease is in force";
	if (g->voided)
		return "the lease is void since the wall clock jumped";
	if (lease_until_ms > g->lease_until_ms)
		return "rests on a lease that is not in force";
	if (now_ms >= lease_until_ms - guard_margin_ms(ttl_of(g)))
		return "the lease is spent";
	return NULL;
}

static const char *order_unfit(const struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	if (ev->generation == 0 || ev->generation != g->generation)
		return "another generation of the postmaster";
	if (now_ms >= ev->deadline_ms)
		return "the deadline of the request has passed";
	return NULL;
}

/* ---- lease and proof ------------------------------------------------------------------- */

/* No clock is there: its sum with another would not be a number. */
static bool is_no_time(int64_t ms)
{
	return ms > GUARD_TIME_MAX_MS || ms < -GUARD_TIME_MAX_MS;
}

static const char *lease_malformed(const struct guard *g, const struct msg_lease *m, int64_t now_ms)
{
	if (m->policy > POLICY_PAUSED)
		return "unknown policy";
	if (m->ttl_ms < LIMIT_TTL_MIN_MS || m->ttl_ms > LIMIT_LEASE_MS)
		return "ttl out of range";
	if (is_no_time(m->sent_at_ms) || is_no_time(m->wall_offset_ms))
		return "a time that no clock shows";
	if (m->seq <= g->lease_seq)
		return "sequence number was used before";
	if (m->sent_at_ms > now_ms)
		return "send time lies in the future";
	if (m->sent_at_ms < g->sent_at_ms)
		return "send time lies before that of the previous report";
	if (m->lease_until_ms < 0 || m->lease_until_ms > m->sent_at_ms + m->ttl_ms)
		return "lease is longer than the ttl in force";
	return NULL;
}

/* Giving the lease up while something may still write would let the next owner start beside it. */
static const char *release_unsafe(const struct guard *g, const struct msg_lease *m)
{
	bool enforced_after = m->policy != POLICY_PAUSED || m->pause_enforce;
	if (m->lease_until_ms > 0 || g->lease_until_ms == 0 || !is_enforced(g) || !enforced_after)
		return NULL;
	if (is_live(g) && !is_exempt_standby(g) && !g->shutdown_proven)
		return "PostgreSQL may still write: stop it first";
	if (g->pm_state == PG_PROC_FENCING && !g->killed)
		return "the fence has not killed every process yet";
	return NULL;
}

static const char *take_lease(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out)
{
	const struct msg_lease *m = ev->lease;
	const char *why = lease_malformed(g, m, now_ms);
	if (why == NULL)
		why = release_unsafe(g, m);
	if (why == NULL && m->lease_until_ms > 0 && m->wall_offset_ms != 0 &&
		ev->wall_offset_ms != 0 &&
		ev->wall_offset_ms - m->wall_offset_ms > guard_margin_ms(m->ttl_ms))
		why = "the wall clock jumped since the renewal was sent";
	if (why != NULL)
		return why;
	bool was_enforced = is_enforced(g);
	bool shorter = m->lease_until_ms < g->lease_until_ms;
	g->policy = m->policy;
	g->pause_enforce = m->pause_enforce != 0;
	g->lease_seq = m->seq;
	g->sent_at_ms = m->sent_at_ms;
	g->lease_until_ms = m->lease_until_ms;
	/* A shorter interval counts from now: the other enforcer could not know of it before. */
	if (guard_peer_interval_ms(m->ttl_ms) < guard_peer_interval_ms(ttl_of(g))) {
		g->peer_seen_ms = now_ms;
		g->peer_send_ms = now_ms;
	}
	g->ttl_ms = m->ttl_ms;
	g->wall_offset_ms = m->wall_offset_ms;
	g->voided = 0;
	/* With a lease its own end counts, not that of a grace. What ran in pause without one gets
	 * a grace: it was outside the promise until now, and the worker shall stop it in good
	 * order. */
	if (m->lease_until_ms > now_ms)
		g->grace_until_ms = 0;
	else if (!was_enforced && is_enforced(g) && is_live(g) && !is_exempt_standby(g))
		g->grace_until_ms = now_ms + GUARD_ADOPT_GRACE_MS;
	/* A shorter lease must be known to both enforcers before the worker acts on the answer. */
	if (shorter || was_enforced != is_enforced(g))
		out->hold_seq = 1;
	return NULL;
}

static const char *take_shutdown_proof(struct guard *g, const struct msg_proof *m)
{
	/* Before it was told to stop, `shut down` in pg_control is what the last run left behind.
	 */
	if (g->pm_state != PG_PROC_STOPPING || g->stopped_at_ms == 0 || m->at_ms < g->stopped_at_ms)
		return "not told to stop before the proof";
	g->shutdown_proven = 1;
	g->grace_until_ms = 0;
	return NULL;
}

static const char *take_proof(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	const struct msg_proof *m = ev->proof;
	if (m->generation != g->generation || !is_live(g))
		return "another generation of the postmaster";
	if (m->at_ms > now_ms || m->at_ms < g->started_at_ms || m->at_ms < g->proof_at_ms)
		return "time of the proof is not after the previous one and before now";
	if (m->kind == PROOF_SHUTDOWN_CONTROL)
		return take_shutdown_proof(g, m);
	if (m->kind != PROOF_RECOVERY_SQL && m->kind != PROOF_RECOVERY_CONTROL)
		return "unknown kind of proof";
	if (g->kind == PG_START_PRIMARY)
		return "started as a primary: only the lease counts";
	if (g->promote_sent)
		return "a promotion was ordered: only the lease counts";
	g->kind = PG_START_STANDBY;
	g->proof_at_ms = m->at_ms;
	g->proof_until_ms = m->at_ms + ttl_of(g) / 2;
	g->grace_until_ms = 0;
	if (g->proof_until_ms > now_ms)
		g->late = GUARD_LATE_NO;
	return NULL;
}

/* ---- the postmaster -------------------------------------------------------------------- */

/* Of one that is gone only what it was stays known: its generation, kind, and that a promotion was
 * ordered of it. */
static void forget_postmaster(struct guard *g)
{
	g->shutdown_proven = 0;
	g->killed = 0;
	g->late = GUARD_LATE_NO;
	g->started_at_ms = 0;
	g->stopped_at_ms = 0;
	g->proof_at_ms = 0;
	g->proof_until_ms = 0;
	g->grace_until_ms = 0;
}

static void new_postmaster(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	forget_postmaster(g);
	g->generation = ev->generation;
	g->kind = ev->pm_kind;
	g->promote_sent = 0;
	g->started_at_ms = now_ms;
}

static const char *take_start(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out)
{
	if (g->pm_state == PG_PROC_FENCING)
		return "the end of the last postmaster is not proven yet";
	if (g->pm_state != PG_PROC_NONE)
		return "a postmaster exists";
	if (ev->generation <= g->generation)
		return "the generation is not new";
	if (now_ms >= ev->deadline_ms)
		return "the deadline of the request has passed";
	if (ev->pm_kind != PG_START_PRIMARY && ev->pm_kind != PG_START_STANDBY)
		return "unknown kind of start";
	const char *why =
		ev->pm_kind == PG_START_PRIMARY ? lease_unfit(g, ev->lease_until_ms, now_ms) : NULL;
	if (why != NULL)
		return why;
	new_postmaster(g, ev, now_ms);
	g->pm_state = PG_PROC_STARTING;
	if (g->kind == PG_START_STANDBY)
		g->proof_until_ms = now_ms + ttl_of(g) / 2;
	out->hold_seq = 1;
	return NULL;
}

static const char *take_gate(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	const char *why = order_unfit(g, ev, now_ms);
	if (why == NULL && g->pm_state != PG_PROC_STARTING)
		why = "no postmaster waits at the gate";
	if (why == NULL && g->kind == PG_START_PRIMARY)
		why = lease_unfit(g, ev->lease_until_ms, now_ms);
	if (why != NULL)
		return why;
	g->pm_state = PG_PROC_RUNNING;
	g->started_at_ms = now_ms;
	if (g->kind == PG_START_STANDBY)
		g->proof_until_ms = now_ms + ttl_of(g) / 2;
	return NULL;
}

static const char *take_adopt(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	if (g->pm_state != PG_PROC_NONE)
		return "a postmaster exists";
	if (ev->generation <= g->generation)
		return "the generation is not new";
	new_postmaster(g, ev, now_ms);
	g->kind = 0;
	g->pm_state = PG_PROC_RUNNING;
	g->grace_until_ms = now_ms + GUARD_ADOPT_GRACE_MS;
	return NULL;
}

static const char *take_promote(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out)
{
	const char *why = order_unfit(g, ev, now_ms);
	if (why == NULL && (g->pm_state != PG_PROC_RUNNING || g->kind != PG_START_STANDBY))
		why = "no running standby";
	if (why == NULL)
		why = lease_unfit(g, ev->lease_until_ms, now_ms);
	if (why != NULL)
		return why;
	/* For good: the file may be made late, by a process that was frozen, so the exemption never
	 * returns. */
	g->promote_sent = 1;
	g->late = GUARD_LATE_NO;
	out->hold_seq = 1;
	return NULL;
}

static const char *take_signal(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	const char *why = order_unfit(g, ev, now_ms);
	if (why == NULL && g->pm_state != PG_PROC_RUNNING && g->pm_state != PG_PROC_STOPPING)
		why = "no postmaster runs";
	if (why == NULL && ev->lease_until_ms != 0 && !g->promote_sent)
		why = "no promotion was ordered";
	if (why == NULL && ev->lease_until_ms != 0)
		why = lease_unfit(g, ev->lease_until_ms, now_ms);
	return why;
}

static const char *take_stop(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	const char *why = order_unfit(g, ev, now_ms);
	if (why == NULL && !is_live(g))
		why = "no postmaster runs";
	if (why != NULL)
		return why;
	if (g->stopped_at_ms == 0)
		g->stopped_at_ms = now_ms;
	g->pm_state = PG_PROC_STOPPING;
	return NULL;
}

static const char *take_exit(
	struct guard *g, const struct guard_event *ev, struct guard_actions *out)
{
	if (ev->generation != g->generation || g->pm_state == PG_PROC_NONE)
		return "another generation of the postmaster";
	if (!is_live(g))
		return NULL; /* the fence is at work and goes on to its proof */
	/* A backend that never waits outlives its postmaster and goes on acknowledging. */
	out->flags |= GUARD_SWEEP | (g->promote_sent ? GUARD_END_FILES : 0);
	g->pm_state = PG_PROC_FENCING;
	g->killed = 0;
	return NULL;
}

static const char *take_fence_event(
	struct guard *g, const struct guard_event *ev, struct guard_actions *out)
{
	if (ev->generation != g->generation)
		return "another generation of the postmaster";
	if (ev->kind == GUARD_EV_FENCE_ORDER) {
		if (!is_live(g))
			return "no postmaster runs";
		guard_fence(g, out, "ordered, or a stop took too long");
		return NULL;
	}
	if (g->pm_state != PG_PROC_FENCING)
		return "no fence is at work";
	g->killed = 1;
	if (ev->kind == GUARD_EV_PROVEN) {
		g->pm_state = PG_PROC_NONE;
		g->ended_generation = g->generation;
		forget_postmaster(g);
	}
	return NULL;
}

/* ---- the other enforcer ---------------------------------------------------------------- */

static void take_peer_dead(struct guard *g, int64_t now_ms, struct guard_actions *out)
{
	bool was_alive = g->peer_alive;
	g->peer_alive = 0;
	g->acked_seq = 0;
	if (g->role == GUARD_SUPERVISOR)
		out->flags |= GUARD_REPLACE_PEER;
	else if (was_alive || g->orphan_until_ms == 0)
		g->orphan_until_ms = now_ms + GUARD_ORPHAN_GRACE_MS;
	/* The proof was the supervisor's to find: now it is ours, or nobody ever says that the end
	 * is proven. */
	if (g->role == GUARD_DEADMAN && g->pm_state == PG_PROC_FENCING)
		out->flags |= GUARD_SWEEP;
}

static void take_peer_new(struct guard *g, int64_t now_ms, struct guard_actions *out)
{
	g->peer_alive = 1;
	g->peer_seen_ms = now_ms;
	g->peer_send_ms = clock_grid_ms(now_ms, guard_peer_interval_ms(ttl_of(g)));
	g->peer_fencing = 0;
	g->acked_seq = 0;
	/* A successor that has connected gets the whole grace once more; only its first state ends
	 * it. */
	if (g->orphan_until_ms > 0)
		g->orphan_until_ms = now_ms + GUARD_ORPHAN_GRACE_MS;
	if (g->role == GUARD_SUPERVISOR)
		out->flags |= GUARD_SEND_STATE;
}

static void take_peer_seen(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out)
{
	/* An answer may have waited to be read. */
	int64_t seen_ms = ev->peer_at_ms > 0 ? min64(ev->peer_at_ms, now_ms) : now_ms;
	g->peer_seen_ms = max64(g->peer_seen_ms, seen_ms);
	if (g->role != GUARD_SUPERVISOR)
		return;
	if (ev->acked_seq <= g->state_seq && ev->acked_seq > g->acked_seq)
		g->acked_seq = ev->acked_seq;
	g->peer_fencing = ev->peer_fencing;
	if (ev->peer_fencing && ev->generation == g->generation && is_live(g))
		guard_fence(g, out, "the dead-man has begun to fence");
}

static bool state_malformed(const struct msg_dm_state *s)
{
	const int64_t times[] = { s->sent_at_ms, s->lease_until_ms, s->wall_offset_ms,
		s->started_at_ms, s->stopped_at_ms, s->proof_at_ms, s->proof_until_ms,
		s->grace_until_ms };
	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (is_no_time(times[i]))
			return true;
	return s->policy > POLICY_PAUSED || s->pm_state > PG_PROC_FENCING ||
	       s->kind > PG_START_STANDBY || s->lease_until_ms < 0 || s->ttl_ms < 0 ||
	       s->ttl_ms > LIMIT_LEASE_MS || s->lease_until_ms > s->sent_at_ms + LIMIT_LEASE_MS;
}

static const char *take_state(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out)
{
	const struct msg_dm_state *s = ev->state;
	if (state_malformed(s))
		return "malformed state";
	if (s->seq < g->state_seq || s->generation < g->generation)
		return "an older state";
	bool same = s->generation == g->generation;
	bool was_fencing = same && g->pm_state == PG_PROC_FENCING;
	g->policy = s->policy;
	g->pause_enforce = s->pause_enforce;
	g->lease_seq = s->lease_seq;
	g->sent_at_ms = s->sent_at_ms;
	g->lease_until_ms = s->lease_until_ms;
	g->ttl_ms = s->ttl_ms;
	g->wall_offset_ms = s->wall_offset_ms;
	g->voided = s->voided;
	g->kind = s->kind;
	g->generation = s->generation;
	g->promote_sent = s->promote_sent;
	g->shutdown_proven = s->shutdown_proven;
	g->started_at_ms = s->started_at_ms;
	g->stopped_at_ms = s->stopped_at_ms;
	g->proof_at_ms = s->proof_at_ms;
	g->proof_until_ms = s->proof_until_ms;
	g->grace_until_ms = s->grace_until_ms;
	g->state_seq = s->seq;
	g->late = GUARD_LATE_NO;
	/* What this process has begun to kill is not alive again because an earlier message says
	 * so. */
	if (s->generation <= g->ended_generation) {
		g->pm_state = PG_PROC_NONE;
	} else if (!was_fencing || s->pm_state == PG_PROC_NONE) {
		g->pm_state = s->pm_state;
		g->killed = s->killed;
	}
	if (g->pm_state == PG_PROC_FENCING && !was_fencing && !g->killed)
		guard_fence(g, out, "the other enforcer has begun to fence");
	else if (g->pm_state == PG_PROC_FENCING && !was_fencing && g->role == GUARD_SUPERVISOR)
		out->flags |= GUARD_SWEEP; /* killed before our time; the proof is ours to find */
	if (g->role == GUARD_DEADMAN) {
		g->peer_alive = 1;
		g->peer_seen_ms = now_ms;
		g->orphan_until_ms = 0;
	}
	return NULL;
}

/* ---- the table ------------------------------------------------------------------------- */

const char *guard_take_event(
	struct guard *g, const struct guard_event *ev, int64_t now_ms, struct guard_actions *out)
{
	switch (ev->kind) {
	case GUARD_EV_TICK: return NULL; /* by the step itself */
	case GUARD_EV_LEASE: return take_lease(g, ev, now_ms, out);
	case GUARD_EV_PROOF: return take_proof(g, ev, now_ms);
	case GUARD_EV_START: return take_start(g, ev, now_ms, out);
	case GUARD_EV_GATE: return take_gate(g, ev, now_ms);
	case GUARD_EV_ADOPT: return take_adopt(g, ev, now_ms);
	case GUARD_EV_EXIT: return take_exit(g, ev, out);
	case GUARD_EV_STOP: return take_stop(g, ev, now_ms);
	case GUARD_EV_PROMOTE: return take_promote(g, ev, now_ms, out);
	case GUARD_EV_SIGNAL: return take_signal(g, ev, now_ms);
	case GUARD_EV_FENCE_ORDER:
	case GUARD_EV_KILLED:
	case GUARD_EV_PROVEN: return take_fence_event(g, ev, out);
	case GUARD_EV_PEER_NEW: take_peer_new(g, now_ms, out); return NULL;
	case GUARD_EV_PEER_SEEN: take_peer_seen(g, ev, now_ms, out); return NULL;
	case GUARD_EV_PEER_DEAD: take_peer_dead(g, now_ms, out); return NULL;
	case GUARD_EV_STATE: return take_state(g, ev, now_ms, out);
	case GUARD_EV_WATCHDOG:
		g->wd_timeout_ms = max64(0, ev->timeout_ms);
		g->wd_fed_ms = 0;
		return NULL;
	}
	return "unknown event";
}
