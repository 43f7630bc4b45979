/* The rules of the lease and the fence; see guard.h. Run by the supervisor, the dead-man and the
 * simulator. It must stay pure, and small enough to be read in one sitting: everything that
 * PostgreSQL may do rests on it.
 *
 * The shape: events (guard_events.c) change the state, a tick looks at the deadlines. No other
 * event fences because of a deadline, so that a thawed process reads the renewals that wait for it
 * before it judges. */
#include "supervisor/guard.h"

#include <string.h>

#include "common/core/clock.h"
#include "supervisor/guard_rules.h"

int64_t guard_margin_ms(int64_t ttl_ms)
{
	return max64(1000, ttl_ms / 20);
}

int64_t guard_peer_interval_ms(int64_t ttl_ms)
{
	return min64(max64(ttl_ms / 15, 200), 2000);
}

bool guard_watchdog_fits(int64_t timeout_ms, int64_t ttl_ms)
{
	return timeout_ms > 0 && timeout_ms <= ttl_ms - 1000;
}

bool guard_synced(const struct guard *g, uint64_t seq)
{
	return g->peer_alive && g->acked_seq >= seq;
}

enum guard_hold guard_held(const struct guard *g, uint64_t generation, uint64_t seq,
	int64_t deadline_ms, int64_t now_ms)
{
	if (generation != 0 &&
		(generation != g->generation || now_ms >= deadline_ms ||
			(g->pm_state != PG_PROC_STARTING && g->pm_state != PG_PROC_RUNNING)))
		return GUARD_HOLD_REFUSE;
	return guard_synced(g, seq) ? GUARD_HOLD_GO : GUARD_HOLD_WAIT;
}

int64_t guard_lease_fence_ms(const struct guard *g)
{
	if (g->lease_until_ms <= 0)
		return 0;
	/* The dead-man comes second, so that the two do not race in the ordinary case. */
	int64_t margin = guard_margin_ms(ttl_of(g));
	return g->lease_until_ms - (g->role == GUARD_DEADMAN ? margin / 2 : margin);
}

/* A late proof is asked for again for ttl/2; then the standby is stopped; this is how long it may
 * take. */
static int64_t standby_stop_ms(const struct guard *g)
{
	return g->proof_until_ms + ttl_of(g) / 2;
}

static int64_t standby_fence_ms(const struct guard *g)
{
	int64_t at = standby_stop_ms(g) + max64(1000, ttl_of(g) / 6);
	return g->role == GUARD_DEADMAN ? at + guard_margin_ms(ttl_of(g)) / 2 : at;
}

/* Until when PostgreSQL may run: the best of its permissions, cut by the end of the orphan's grace.
 */
static int64_t permitted_until(const struct guard *g)
{
	if (!is_enforced(g))
		return NEVER;
	int64_t until = max64(guard_lease_fence_ms(g), g->grace_until_ms);
	if (is_exempt_standby(g))
		until = max64(until, standby_fence_ms(g));
	if (g->shutdown_proven)
		until = NEVER;
	if (g->orphan_until_ms > 0)
		until = min64(until, g->orphan_until_ms);
	return until;
}

void guard_fence(struct guard *g, struct guard_actions *out, const char *reason)
{
	out->flags |= GUARD_FENCE | (g->promote_sent ? GUARD_END_FILES : 0);
	out->reason = reason;
	g->pm_state = PG_PROC_FENCING;
	g->killed = 0;
}

/* ---- clocks ---------------------------------------------------------------------------- */

/* We come much too late: we were frozen, perhaps together with the whole container. The lease has
 * no mercy, it is a promise to others; the bounds that only we count begin again. */
static void notice_thaw(struct guard *g, int64_t now_ms, struct guard_actions *out)
{
	if (g->wake_at_ms <= 0 || now_ms - g->wake_at_ms <= GUARD_THAW_MS)
		return;
	int64_t late_ms = now_ms - g->wake_at_ms;
	out->flags |= GUARD_THAWED;
	g->peer_seen_ms = now_ms;
	if (g->grace_until_ms > 0)
		g->grace_until_ms += late_ms;
	if (g->orphan_until_ms > 0)
		g->orphan_until_ms += late_ms;
	if (is_exempt_standby(g) && g->proof_until_ms < now_ms) {
		g->proof_until_ms = now_ms;
		g->late = GUARD_LATE_NO;
	}
	g->wake_at_ms = now_ms; /* once */
}

/* The wall clock ran ahead of the boot clock: time may have passed that the boot clock did not see
 * (a guest that was suspended). Nothing new rests on this lease, and it ends earlier by the whole
 * jump. */
static void notice_wall_jump(struct guard *g, int64_t wall_offset_ms, struct guard_actions *out)
{
	if (wall_offset_ms == 0 || g->wall_offset_ms == 0)
		return;
	int64_t jump_ms = wall_offset_ms - g->wall_offset_ms;
	if (jump_ms < 0)
		g->wall_offset_ms = wall_offset_ms;
	if (jump_ms <= guard_margin_ms(ttl_of(g)))
		return;
	g->wall_offset_ms = wall_offset_ms;
	if (g->lease_until_ms <= 0)
		return;
	g->lease_until_ms = max64(1, g->lease_until_ms - jump_ms);
	g->voided = 1;
	out->flags |= GUARD_WALL_JUMP;
}

/* ---- the tick -------------------------------------------------------------------------- */

static void tick_standby(struct guard *g, int64_t now_ms, struct guard_actions *out)
{
	if (g->role != GUARD_SUPERVISOR || !is_live(g) || !is_enforced(g) ||
		!is_exempt_standby(g) || g->shutdown_proven)
		return;
	if (g->late == GUARD_LATE_NO && now_ms >= g->proof_until_ms) {
		g->late = GUARD_LATE_ASKED;
		out->flags |= GUARD_ASK_PROOF;
		out->ask_until_ms = standby_stop_ms(g);
	}
	if (g->late == GUARD_LATE_ASKED && now_ms >= standby_stop_ms(g) &&
		now_ms >= guard_lease_fence_ms(g)) {
		g->late = GUARD_LATE_STOPPED;
		g->pm_state = PG_PROC_STOPPING;
		if (g->stopped_at_ms == 0)
			g->stopped_at_ms = now_ms;
		out->flags |= GUARD_STOP_FAST;
		out->reason = "not proven in recovery for a whole ttl";
	}
}

static void tick_peer(struct guard *g, int64_t now_ms, struct guard_actions *out)
{
	int64_t interval_ms = guard_peer_interval_ms(ttl_of(g));
	if (!g->peer_alive) {
		if (g->role == GUARD_DEADMAN && g->pm_state == PG_PROC_NONE)
			out->flags |= GUARD_LEAVE;
		return;
	}
	/* At multiples of the interval, as all that is periodic in a node: one wake-up for all. */
	if (now_ms + GUARD_PEER_EARLY_MS >= g->peer_send_ms) {
		g->peer_send_ms = clock_grid_ms(now_ms + GUARD_PEER_EARLY_MS, interval_ms);
		out->flags |= GUARD_SEND_STATE;
	}
	if (g->role == GUARD_SUPERVISOR &&
		now_ms >= g->peer_seen_ms + GUARD_PEER_MISSED * interval_ms) {
		g->peer_alive = 0;
		g->acked_seq = 0;
		out->flags |= GUARD_REPLACE_PEER;
		out->reason = "the dead-man is silent";
	}
}

bool guard_watchdog_may_open(const struct guard *g, int64_t timeout_ms, int64_t now_ms)
{
	return g->lease_until_ms - now_ms >= timeout_ms;
}

static bool watchdog_feedable(const struct guard *g, int64_t now_ms)
{
	return g->role == GUARD_SUPERVISOR && g->wd_timeout_ms > 0 && is_enforced(g) &&
	       g->lease_until_ms - now_ms >= g->wd_timeout_ms;
}

static int64_t watchdog_due_ms(const struct guard *g)
{
	return g->wd_fed_ms + min64(guard_peer_interval_ms(ttl_of(g)), g->wd_timeout_ms / 4);
}

static const char *fence_reason(const struct guard *g, int64_t now_ms)
{
	if (g->orphan_until_ms > 0 && now_ms >= g->orphan_until_ms)
		return "no supervisor took over";
	if (g->lease_until_ms > 0)
		return g->voided ? "the lease is spent: the wall clock jumped"
				 : "the lease is spent";
	if (g->proof_until_ms > 0)
		return "not proven in recovery, and not stopped in time";
	return "no lease, no proof";
}

static void tick(struct guard *g, int64_t now_ms, struct guard_actions *out)
{
	if (is_live(g) && now_ms >= permitted_until(g))
		guard_fence(g, out, fence_reason(g, now_ms));
	tick_standby(g, now_ms, out);
	tick_peer(g, now_ms, out);
	if (watchdog_feedable(g, now_ms) && now_ms >= watchdog_due_ms(g)) {
		g->wd_fed_ms = now_ms;
		out->flags |= GUARD_WD_FEED;
	}
}

/* ---- the step -------------------------------------------------------------------------- */

static int64_t next_wake(const struct guard *g, int64_t now_ms)
{
	int64_t wake = NEVER;
	if (is_live(g))
		wake = permitted_until(g);
	if (g->role == GUARD_SUPERVISOR && is_live(g) && is_enforced(g) && is_exempt_standby(g) &&
		!g->shutdown_proven) {
		if (g->late == GUARD_LATE_NO)
			wake = min64(wake, g->proof_until_ms);
		else if (g->late == GUARD_LATE_ASKED)
			wake = min64(wake, max64(standby_stop_ms(g), guard_lease_fence_ms(g)));
	}
	if (g->role == GUARD_SUPERVISOR && g->peer_alive) {
		wake = min64(wake, g->peer_send_ms);
		wake = min64(wake,
			g->peer_seen_ms + GUARD_PEER_MISSED * guard_peer_interval_ms(ttl_of(g)));
	} else if (g->role == GUARD_DEADMAN && !g->peer_alive && g->pm_state == PG_PROC_NONE) {
		wake = now_ms;
	}
	if (watchdog_feedable(g, now_ms))
		wake = min64(wake, watchdog_due_ms(g));
	/* Never asleep for long: a jump of the wall clock must be seen while the lease is young. As
	 * a rule the other one's message wakes us sooner. */
	wake = min64(wake, now_ms + 2 * guard_peer_interval_ms(ttl_of(g)));
	/* Never in the past: the next step would take its own lateness for a thaw. */
	return max64(wake, now_ms);
}

static enum guard_watchdog watchdog_level(const struct guard *g)
{
	if (g->role != GUARD_SUPERVISOR || !is_enforced(g))
		return GUARD_WD_CLOSED;
	bool dangerous = (is_live(g) && !is_exempt_standby(g) && !g->shutdown_proven) ||
			 (g->pm_state == PG_PROC_FENCING && !g->killed);
	return g->lease_until_ms > 0 || dangerous ? GUARD_WD_ARMED : GUARD_WD_CLOSED;
}

void guard_init(struct guard *g, enum guard_role role, int64_t now_ms)
{
	memset(g, 0, sizeof(*g));
	g->role = role;
	g->peer_seen_ms = now_ms;
}

void guard_export(const struct guard *g, int64_t now_ms, struct msg_dm_state *out)
{
	*out = (struct msg_dm_state){
		.seq = g->state_seq,
		.lease_seq = g->lease_seq,
		.now_ms = now_ms,
		.sent_at_ms = g->sent_at_ms,
		.lease_until_ms = g->lease_until_ms,
		.ttl_ms = g->ttl_ms,
		.wall_offset_ms = g->wall_offset_ms,
		.generation = g->generation,
		.started_at_ms = g->started_at_ms,
		.stopped_at_ms = g->stopped_at_ms,
		.proof_at_ms = g->proof_at_ms,
		.proof_until_ms = g->proof_until_ms,
		.grace_until_ms = g->grace_until_ms,
		.policy = g->policy,
		.pause_enforce = g->pause_enforce,
		.voided = g->voided,
		.pm_state = g->pm_state,
		.kind = g->kind,
		.promote_sent = g->promote_sent,
		.shutdown_proven = g->shutdown_proven,
		.killed = g->killed,
	};
}

/* What the dead-man enforces has changed. Its view of the wall clock follows by itself. */
static bool replicated_differs(const struct msg_dm_state *before, const struct guard *g)
{
	struct msg_dm_state after;
	guard_export(g, before->now_ms, &after);
	after.wall_offset_ms = before->wall_offset_ms;
	return memcmp(before, &after, sizeof(after)) != 0;
}

struct guard_actions guard_step(struct guard *g, const struct guard_event *ev, int64_t now_ms)
{
	struct guard_actions out = { .reason = "" };
	struct msg_dm_state before;
	guard_export(g, 0, &before);
	notice_thaw(g, now_ms, &out);
	notice_wall_jump(g, ev->wall_offset_ms, &out);
	const char *refused = guard_take_event(g, ev, now_ms, &out);
	if (ev->kind == GUARD_EV_TICK)
		tick(g, now_ms, &out);
	if (refused != NULL) {
		out.flags |= GUARD_REFUSED;
		out.reason = refused;
	}
	if (g->role == GUARD_SUPERVISOR && replicated_differs(&before, g)) {
		g->state_seq++;
		out.flags |= GUARD_SEND_STATE;
	}
	if (out.hold_seq != 0)
		out.hold_seq = g->state_seq;
	if (is_live(g))
		out.fence_at_ms = permitted_until(g);
	out.watchdog = watchdog_level(g);
	out.lifeline_armed = is_enforced(g) && is_live(g);
	out.wake_at_ms = next_wake(g, now_ms);
	/* What is due already is no thaw: it waits for the tick that follows the messages. */
	g->wake_at_ms = max64(out.wake_at_ms, now_ms);
	return out;
}

const char *guard_event_name(enum guard_event_kind kind)
{
	static const char *const names[] = {
		[GUARD_EV_TICK] = "tick",
		[GUARD_EV_LEASE] = "lease",
		[GUARD_EV_PROOF] = "proof",
		[GUARD_EV_START] = "start",
		[GUARD_EV_GATE] = "gate",
		[GUARD_EV_ADOPT] = "adopt",
		[GUARD_EV_EXIT] = "exit",
		[GUARD_EV_STOP] = "stop",
		[GUARD_EV_PROMOTE] = "promote",
		[GUARD_EV_SIGNAL] = "signal",
		[GUARD_EV_FENCE_ORDER] = "fence order",
		[GUARD_EV_KILLED] = "killed",
		[GUARD_EV_PROVEN] = "proven",
		[GUARD_EV_PEER_NEW] = "peer new",
		[GUARD_EV_PEER_SEEN] = "peer seen",
		[GUARD_EV_PEER_DEAD] = "peer dead",
		[GUARD_EV_STATE] = "state",
		[GUARD_EV_WATCHDOG] = "watchdog",
	};
	unsigned k = kind;
	return k < sizeof(names) / sizeof(names[0]) && names[k] != NULL ? names[k] : "?";
}
