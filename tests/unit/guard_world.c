/* See guard_world.h. Included by the tests that use it, so that it can be built together with a
 * mutated guard. */
#include "tests/unit/guard_world.h"

#include <stddef.h>
#include <string.h>

static const char *const move_names[MV_COUNT] = {
	[MV_TIME_NEXT] = "time passes to the next deadline",
	[MV_TIME_THIRD] = "ttl/3 passes (ttl/6 under a watchdog)",
	[MV_RENEW] = "worker renews",
	[MV_FAILSAFE] = "failsafe round of the worker succeeds",
	[MV_REPORT] = "worker reports the renewal",
	[MV_REPORT_ZERO] = "worker reports lease 0",
	[MV_RELEASE] = "worker releases the key",
	[MV_REPORT_PAUSED] = "worker reports pause",
	[MV_START_PRIMARY] = "worker orders a primary",
	[MV_START_STANDBY] = "worker orders a standby",
	[MV_PROMOTE] = "worker orders the promotion",
	[MV_PROMOTE_FILE] = "files creates the promote file",
	[MV_PG_PROMOTES] = "PostgreSQL promotes",
	[MV_STOP] = "worker orders the stop",
	[MV_PG_SHUT_DOWN] = "PostgreSQL writes `shut down`",
	[MV_PG_EXITS] = "PostgreSQL exits",
	[MV_PG_CRASHES] = "the postmaster dies, a backend goes on",
	[MV_PROOF_TAKE] = "worker sees recovery",
	[MV_PROOF_SEND] = "worker sends the proof",
	[MV_PROOF_SHUTDOWN] = "worker sends the proof of shutdown",
	[MV_SUP_READS] = "supervisor reads",
	[MV_SUP_DIES] = "supervisor dies",
	[MV_SUP_FREEZES] = "supervisor freezes",
	[MV_SUP_THAWS] = "supervisor thaws",
	[MV_SUP_NEW] = "a new supervisor starts",
	[MV_DM0_READS] = "dead-man 0 reads",
	[MV_DM1_READS] = "dead-man 1 reads",
	[MV_DM0_DIES] = "dead-man 0 dies",
	[MV_DM1_DIES] = "dead-man 1 dies",
	[MV_DM0_FREEZES] = "dead-man 0 freezes",
	[MV_DM1_FREEZES] = "dead-man 1 freezes",
	[MV_DM0_THAWS] = "dead-man 0 thaws",
	[MV_DM1_THAWS] = "dead-man 1 thaws",
	[MV_DM_NEW] = "a new dead-man starts",
	[MV_DM_END_OLD] = "the supervisor ends the old dead-man",
	[MV_STATE_LOST] = "the last state to the dead-man is lost (queue full)",
	[MV_WALL_JUMPS] = "the machine stands still unseen, the wall clock jumps",
	[MV_KILL] = "a stop takes too long: the fence is ordered",
	[MV_PG_FOREIGN] = "somebody else starts a primary, which is adopted",
	[MV_OVERTAKES] = "the last order overtakes the one before it",
};

const char *world_move_name(enum w_move move)
{
	return move_names[move];
}

/* ---- PostgreSQL and the kernel --------------------------------------------------------- */

static bool pg_exists(const struct world *w)
{
	return w->pg.at_gate || w->pg.postmaster || w->pg.backends;
}

static bool pg_writes(const struct world *w)
{
	return w->pg.backends && w->pg.primary && !w->pg.shut_down;
}

bool world_broken(const struct world *w)
{
	return w->promise && pg_writes(w) && w->now_ms >= w->store_until_ms;
}

bool world_stuck(const struct world *w)
{
	if (w->s.life == W_RUNS && w->s.g.pm_state == PG_PROC_FENCING &&
		w->s.sweep != w->s.g.generation)
		return true;
	for (int i = 0; i < W_DEADMEN; i++) {
		const struct w_deadman *d = &w->d[i];
		/* With a supervisor, the proof may be that one's to find. */
		if (d->life == W_RUNS && !d->connected && !d->sup_died &&
			d->g.pm_state == PG_PROC_FENCING && d->sweep != d->g.generation)
			return true;
	}
	return false;
}

static void pg_dead(struct world *w)
{
	w->pg.at_gate = w->pg.postmaster = w->pg.backends = 0;
}

static void pg_ended(struct world *w)
{
	if (w->s.life != W_DEAD && w->s.g.generation == w->pg.generation)
		w->s.exit_of = w->pg.generation;
	for (int i = 0; i < W_DEADMEN; i++)
		if (w->d[i].life != W_DEAD && w->d[i].has_pg == w->pg.generation)
			w->d[i].exit_of = w->pg.generation;
}

static void kill_pg(struct world *w, uint64_t generation)
{
	if (!pg_exists(w) || w->pg.generation != generation)
		return;
	pg_dead(w);
	pg_ended(w);
}

/* An enforcer has died: the write end of the lifeline may be closed now. */
static void check_lifeline(struct world *w)
{
	bool held = w->s.life != W_DEAD;
	for (int i = 0; i < W_DEADMEN; i++)
		held |= w->d[i].life != W_DEAD && w->d[i].has_pg == w->pg.generation;
	if (!held && (w->pg.line_armed || w->pg.foreign))
		kill_pg(w, w->pg.generation); /* the backends by a helper */
}

static struct guard_actions step(const struct world *w, struct guard *g, struct guard_event *ev)
{
	ev->wall_offset_ms = w->wall_ms;
	return guard_step(g, ev, w->now_ms);
}

/* ---- the supervisor -------------------------------------------------------------------- */

static void sup_step(struct world *w, struct guard_event *ev);

static void sup_send(struct world *w)
{
	for (int i = 0; i < W_DEADMEN; i++) {
		struct w_deadman *d = &w->d[i];
		if (d->life == W_DEAD || !d->connected)
			continue;
		guard_export(&w->s.g, w->now_ms, &d->inbox);
		d->inbox_pg = w->s.g.pm_state == PG_PROC_NONE ? 0 : w->s.g.generation;
		d->has_inbox = 1;
	}
}

/* As dispatch.c does it: opening starts the device, so it is opened only when it might be fed. */
static void sup_watchdog(struct world *w, const struct guard_actions *a)
{
	struct guard_event ev = { .kind = GUARD_EV_WATCHDOG };
	if (a->flags & GUARD_WD_FEED)
		w->bite_at_ms = w->now_ms + W_BITE_MS;
	if (a->watchdog == GUARD_WD_ARMED && !w->device_open &&
		guard_watchdog_may_open(&w->s.g, W_BITE_MS, w->now_ms)) {
		w->device_open = 1;
		w->bite_at_ms = w->now_ms + W_BITE_MS;
		ev.timeout_ms = W_BITE_MS;
		sup_step(w, &ev);
	} else if (a->watchdog == GUARD_WD_CLOSED && w->device_open) {
		w->device_open = 0;
		w->bite_at_ms = 0;
		sup_step(w, &ev);
	}
}

static void sup_acts(struct world *w, const struct guard_event *ev, const struct guard_actions *a)
{
	w->s.wake_at_ms = a->wake_at_ms;
	w->s.fence_at_ms = a->fence_at_ms;
	if (pg_exists(w) && !w->pg.foreign)
		w->pg.line_armed = a->lifeline_armed;
	if (a->flags & GUARD_END_FILES)
		w->promote_token = 0;
	if (a->flags & GUARD_SEND_STATE)
		sup_send(w);
	if (a->flags & GUARD_REPLACE_PEER) {
		/* Killed, not merely let go: SIGKILL works on a frozen process. */
		struct w_deadman *d = &w->d[w->s.peer];
		if (ev->kind != GUARD_EV_PEER_DEAD && d->life != W_DEAD) {
			d->life = W_DEAD;
			w->s.peer_died = 0;
		}
	}
	if (a->flags & GUARD_STOP_FAST)
		w->pg.stopping = 1;
	if (a->flags & (GUARD_FENCE | GUARD_SWEEP)) {
		struct guard_event killed = { .kind = GUARD_EV_KILLED,
			.generation = w->s.g.generation };
		w->s.sweep = w->s.g.generation;
		kill_pg(w, w->s.g.generation);
		w->s.gate_generation = 0;
		sup_step(w, &killed);
	}
	if (w->extra & W_WATCHDOG)
		sup_watchdog(w, a);
}

static void sup_step(struct world *w, struct guard_event *ev)
{
	struct guard_actions a = step(w, &w->s.g, ev);
	sup_acts(w, ev, &a);
}

static void sup_lease(struct world *w, struct w_order *o)
{
	o->ev.lease = &o->lease;
	struct guard_actions a = step(w, &w->s.g, &o->ev);
	if (!(a.flags & GUARD_REFUSED)) {
		if (w->s.g.policy == POLICY_PAUSED)
			w->promise = 0, w->promise_seq = 0;
		/* After a pause the promise begins again with a lease, or with nothing that has a
		 * grace. */
		else if (!w->promise &&
			 (o->lease.lease_until_ms > w->now_ms || w->s.g.grace_until_ms == 0))
			w->promise_seq = w->s.g.state_seq;
		/* The worker waits for the answer to its last report. */
		if (o->lease.lease_until_ms == 0 && o->lease.seq == w->lease_seq &&
			w->s.g.policy != POLICY_PAUSED) {
			w->s.zero_seq = a.hold_seq;
			w->zero_acked = a.hold_seq == 0;
		}
	}
	sup_acts(w, &o->ev, &a);
}

static void sup_start(struct world *w, struct w_order *o)
{
	o->ev.generation = w->last_generation + 1;
	struct guard_actions a = step(w, &w->s.g, &o->ev);
	if (!(a.flags & GUARD_REFUSED)) {
		w->last_generation++;
		w->s.gate_generation = o->ev.generation;
		w->s.gate_seq = a.hold_seq;
		w->s.gate_deadline_ms = o->ev.deadline_ms;
		w->s.gate_lease_ms = o->ev.lease_until_ms;
		w->pg = (struct w_pg){ .generation = o->ev.generation, .at_gate = 1 };
	}
	sup_acts(w, &o->ev, &a);
}

/* The promise begins again as after a pause: with a lease that both enforcers know. */
static bool sup_adopts(struct world *w)
{
	struct guard_event ev = { .kind = GUARD_EV_ADOPT, .generation = w->last_generation + 1 };
	if (!(w->extra & W_FOREIGN) || pg_exists(w) || w->s.life != W_RUNS ||
		w->s.g.pm_state != PG_PROC_NONE)
		return false;
	w->last_generation++;
	w->promise = 0;
	w->promise_seq = 0;
	w->pg = (struct w_pg){ .generation = ev.generation,
		.postmaster = 1,
		.backends = 1,
		.primary = 1,
		.foreign = 1 };
	sup_step(w, &ev);
	return true;
}

static void sup_takes(struct world *w, struct w_order *o)
{
	switch (o->ev.kind) {
	case GUARD_EV_LEASE: sup_lease(w, o); return;
	case GUARD_EV_START: sup_start(w, o); return;
	case GUARD_EV_PROOF:
		o->ev.proof = &o->proof;
		sup_step(w, &o->ev);
		return;
	case GUARD_EV_PROMOTE: {
		struct guard_actions a = step(w, &w->s.g, &o->ev);
		if (!(a.flags & GUARD_REFUSED)) {
			w->s.promote_seq = a.hold_seq;
			w->s.promote_generation = o->ev.generation;
			w->s.promote_deadline_ms = o->ev.deadline_ms;
			if (a.hold_seq == 0)
				w->promote_token = o->ev.generation;
		}
		sup_acts(w, &o->ev, &a);
		return;
	}
	case GUARD_EV_STOP: {
		struct guard_actions a = step(w, &w->s.g, &o->ev);
		if (!(a.flags & GUARD_REFUSED))
			w->pg.stopping = 1;
		sup_acts(w, &o->ev, &a);
		return;
	}
	default: sup_step(w, &o->ev);
	}
}

/* What waited for the dead-man's acknowledgement. */
static void sup_synced(struct world *w)
{
	struct w_supervisor *s = &w->s;
	if (s->promote_seq != 0) {
		enum guard_hold hold = guard_held(&s->g, s->promote_generation, s->promote_seq,
			s->promote_deadline_ms, w->now_ms);
		if (hold == GUARD_HOLD_GO)
			w->promote_token = s->promote_generation;
		if (hold != GUARD_HOLD_WAIT)
			s->promote_seq = s->promote_generation = 0;
	}
	if (w->promise_seq != 0 && guard_synced(&s->g, w->promise_seq)) {
		w->promise = 1;
		w->promise_seq = 0;
	}
	if (s->zero_seq != 0 && guard_synced(&s->g, s->zero_seq)) {
		w->zero_acked = 1;
		s->zero_seq = 0;
	}
	if (s->gate_generation == 0 || !guard_synced(&s->g, s->gate_seq) ||
		s->peer_pg != s->gate_generation)
		return;
	struct guard_event ev = { .kind = GUARD_EV_GATE,
		.generation = s->gate_generation,
		.deadline_ms = s->gate_deadline_ms,
		.lease_until_ms = s->gate_lease_ms };
	struct guard_actions a = step(w, &s->g, &ev);
	s->gate_generation = 0;
	if (a.flags & GUARD_REFUSED) {
		kill_pg(w, ev.generation);
	} else {
		w->pg.at_gate = 0;
		w->pg.postmaster = w->pg.backends = 1;
		w->pg.primary = s->g.kind == PG_START_PRIMARY;
	}
	sup_acts(w, &ev, &a);
}

/* Two were left behind by a supervisor, and one of them has its successor. The acknowledgements
 * that count are those of a third one, which the two slots of this world do not show: it has the
 * name of the socket before it gives the first of them, and the other one leaves when it sees that.
 */
static void supersede(struct world *w, int i)
{
	struct w_deadman *d = &w->d[i];
	if (d->life == W_DEAD || d->connected)
		return;
	d->superseded = 1;
	if (d->life != W_RUNS)
		return;
	d->life = W_DEAD;
	check_lifeline(w);
}

static void sup_reads_peers(struct world *w)
{
	struct w_supervisor *s = &w->s;
	for (int i = 0; i < W_DEADMEN; i++) {
		struct w_deadman *d = &w->d[i];
		if (!d->has_ack)
			continue;
		d->has_ack = 0;
		struct guard_event ev = { .kind = GUARD_EV_PEER_SEEN,
			.generation = d->ack_pg,
			.peer_fencing = d->ack_fencing };
		/* The old one of a hand-over may still fence, but what counts is what the new one
		 * knows. */
		if (i == s->peer) {
			ev.acked_seq = d->ack_seq;
			s->peer_pg = d->ack_pg;
			supersede(w, 1 - i);
		}
		sup_step(w, &ev);
	}
	if (s->peer_died) {
		struct guard_event ev = { .kind = GUARD_EV_PEER_DEAD };
		s->peer_died = 0;
		s->peer_pg = 0;
		sup_step(w, &ev);
	}
}

static void sup_proves(struct world *w)
{
	struct guard_event proven = { .kind = GUARD_EV_PROVEN, .generation = w->s.sweep };
	if (w->s.sweep == 0)
		return;
	w->s.sweep = 0;
	w->s.exit_of = 0;
	sup_step(w, &proven);
}

static void sup_reads(struct world *w)
{
	struct w_supervisor *s = &w->s;
	sup_proves(w);
	if (s->exit_of != 0) {
		struct guard_event ev = { .kind = GUARD_EV_EXIT, .generation = s->exit_of };
		s->exit_of = 0;
		if (s->g.pm_state != PG_PROC_NONE)
			sup_step(w, &ev);
	}
	for (unsigned i = 0; i < s->queued; i++)
		sup_takes(w, &s->queue[i]);
	s->queued = 0;
	memset(s->queue, 0, sizeof(s->queue));
	sup_reads_peers(w);
	sup_synced(w);
}

static void sup_tick(struct world *w)
{
	struct guard_event ev = { .kind = GUARD_EV_TICK };
	sup_reads(w);
	if (w->now_ms >= w->s.wake_at_ms)
		sup_step(w, &ev);
}

/* ---- the dead-men ---------------------------------------------------------------------- */

static void dm_step(struct world *w, struct w_deadman *d, struct guard_event *ev)
{
	struct guard_actions a = step(w, &d->g, ev);
	d->wake_at_ms = a.wake_at_ms;
	d->fence_at_ms = a.fence_at_ms;
	if (d->has_pg != 0 && d->has_pg == w->pg.generation && d->has_pg == d->g.generation &&
		a.lifeline_armed != d->line_level && pg_exists(w) && !w->pg.foreign) {
		d->line_level = a.lifeline_armed;
		w->pg.line_armed = a.lifeline_armed;
	}
	if (a.flags & (GUARD_FENCE | GUARD_SWEEP)) {
		struct guard_event killed = { .kind = GUARD_EV_KILLED,
			.generation = d->g.generation };
		if ((a.flags & GUARD_FENCE) && ev->kind != GUARD_EV_STATE) {
			d->fenced = 1;
			d->has_ack = d->connected;
			d->ack_fencing = 1;
			d->ack_pg = d->has_pg;
			d->ack_seq = d->has_state ? d->g.state_seq : 0;
		}
		if (d->has_pg == d->g.generation)
			kill_pg(w, d->g.generation);
		d->exit_of = 0;
		d->sweep = d->g.generation;
		dm_step(w, d, &killed);
	}
	if (a.flags & GUARD_LEAVE) {
		d->life = W_DEAD;
		check_lifeline(w);
	}
}

static void dm_reads(struct world *w, int i)
{
	struct w_deadman *d = &w->d[i];
	if (d->superseded) {
		d->life = W_DEAD;
		check_lifeline(w);
		return;
	}
	if (d->sweep != 0) {
		struct guard_event proven = { .kind = GUARD_EV_PROVEN, .generation = d->sweep };
		d->sweep = 0;
		dm_step(w, d, &proven);
	}
	if (d->life == W_RUNS && d->exit_of != 0) {
		struct guard_event ev = { .kind = GUARD_EV_EXIT, .generation = d->exit_of };
		d->exit_of = 0;
		if (d->g.pm_state != PG_PROC_NONE && d->g.generation == ev.generation)
			dm_step(w, d, &ev);
	}
	if (d->has_inbox) {
		struct guard_event ev = { .kind = GUARD_EV_STATE, .state = &d->inbox };
		d->has_inbox = 0;
		if (d->inbox_pg != d->has_pg) {
			d->line_level = 2;
			d->fenced = 0;
		}
		d->has_pg = d->inbox_pg;
		dm_step(w, d, &ev);
		d->has_state = 1;
		d->has_ack = d->connected;
		d->ack_seq = d->g.state_seq;
		d->ack_pg = d->has_pg;
		d->ack_fencing = d->fenced;
	}
	if (d->end_sent) {
		d->life = W_DEAD;
		check_lifeline(w);
		return;
	}
	if (d->sup_died) {
		struct guard_event ev = { .kind = GUARD_EV_PEER_DEAD };
		d->sup_died = 0;
		d->connected = 0;
		dm_step(w, d, &ev);
	}
}

static void dm_tick(struct world *w, int i)
{
	struct guard_event ev = { .kind = GUARD_EV_TICK };
	dm_reads(w, i);
	if (w->d[i].life == W_RUNS && w->now_ms >= w->d[i].wake_at_ms)
		dm_step(w, &w->d[i], &ev);
}

/* It can enforce what there is: told so by a supervisor, and it holds the process. */
static bool dm_is_enforcer(const struct world *w, int i)
{
	const struct w_deadman *d = &w->d[i];
	return d->life == W_RUNS && d->has_state && !d->end_sent &&
	       (!pg_exists(w) || w->pg.at_gate || d->has_pg == w->pg.generation);
}

static bool any_dm_enforces(const struct world *w)
{
	return dm_is_enforcer(w, 0) || dm_is_enforcer(w, 1);
}

/* ---- time ------------------------------------------------------------------------------ */

static void all_tick(struct world *w)
{
	if (w->s.life == W_RUNS)
		sup_tick(w);
	for (int i = 0; i < W_DEADMEN; i++)
		if (w->d[i].life == W_RUNS)
			dm_tick(w, i);
	/* The answers of the dead-men reach the supervisor before its next deadline. */
	if (w->s.life == W_RUNS)
		sup_reads(w);
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t next_wake_of(const struct world *w)
{
	int64_t at = INT64_MAX;
	if (w->s.life == W_RUNS)
		at = earlier(at, w->s.wake_at_ms);
	for (int i = 0; i < W_DEADMEN; i++)
		if (w->d[i].life == W_RUNS)
			at = earlier(at, w->d[i].wake_at_ms);
	return at;
}

/* The watchdog resets the machine. */
static void reset_machine(struct world *w)
{
	pg_dead(w);
	w->pg.line_armed = 0;
	w->s = (struct w_supervisor){ 0 };
	memset(w->d, 0, sizeof(w->d));
	w->bite_at_ms = 0;
	w->device_open = 0;
	w->promote_token = 0;
	w->has_renewal = w->has_proof = w->zero_acked = 0;
	w->promise_seq = 0;
}

static void pass_time(struct world *w, int64_t until_ms)
{
	while (!world_broken(w)) {
		all_tick(w);
		if (w->now_ms >= until_ms)
			break;
		int64_t at = earlier(next_wake_of(w), until_ms);
		if (w->bite_at_ms != 0)
			at = earlier(at, w->bite_at_ms);
		w->now_ms = at > w->now_ms ? at : w->now_ms + 1;
		if (w->bite_at_ms != 0 && w->now_ms >= w->bite_at_ms)
			reset_machine(w);
	}
}

static void consider(int64_t *best, int64_t at_ms, int64_t now_ms)
{
	if (at_ms > now_ms && at_ms < *best)
		*best = at_ms;
}

static bool pass_to_next(struct world *w)
{
	int64_t at = INT64_MAX;
	consider(&at, w->store_until_ms, w->now_ms);
	consider(&at, w->bite_at_ms, w->now_ms);
	if (w->s.life == W_RUNS)
		consider(&at, w->s.fence_at_ms, w->now_ms);
	for (int i = 0; i < W_DEADMEN; i++)
		if (w->d[i].life == W_RUNS)
			consider(&at, w->d[i].fence_at_ms, w->now_ms);
	if (at == INT64_MAX || at > w->now_ms + 4 * W_TTL_MS)
		return false;
	pass_time(w, at);
	return true;
}

#include "tests/unit/guard_world_moves.c"

#include "tests/unit/guard_world_hash.c"

#include "tests/unit/guard_world_bound.c"
