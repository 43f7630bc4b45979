/* See guard_world.h. Included by the tests that use it, so that it can be built together with a
 * mutated guard. */
#include "tests/unit/guard_world.h"

#include <stddef.h>
#include <string.h>

static const char *const move_names[MV_COUNT] = {
	[MV_TIME_NEXT] = "time passes to the next deadline",
	[MV_TIME_THIRD] = "ttl/3 passes",
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
	if (!held && w->pg.line_armed)
		kill_pg(w, w->pg.generation); /* the backends by a helper */
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

static void sup_acts(struct world *w, const struct guard_event *ev, const struct guard_actions *a)
{
	w->s.wake_at_ms = a->wake_at_ms;
	w->s.fence_at_ms = a->fence_at_ms;
	if (a->lifeline_armed != w->s.line_level && pg_exists(w)) {
		w->s.line_level = a->lifeline_armed;
		w->pg.line_armed = a->lifeline_armed;
	}
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
		struct guard_event proven = { .kind = GUARD_EV_PROVEN,
			.generation = w->s.g.generation };
		kill_pg(w, w->s.g.generation);
		w->s.gate_generation = 0;
		sup_step(w, &killed);
		sup_step(w, &proven);
		w->s.exit_of = 0;
	}
}

static void sup_step(struct world *w, struct guard_event *ev)
{
	struct guard_actions a = guard_step(&w->s.g, ev, w->now_ms);
	sup_acts(w, ev, &a);
}

static void sup_lease(struct world *w, struct w_order *o)
{
	o->ev.lease = &o->lease;
	struct guard_actions a = guard_step(&w->s.g, &o->ev, w->now_ms);
	if (!(a.flags & GUARD_REFUSED)) {
		if (w->s.g.policy == POLICY_PAUSED)
			w->promise = 0;
		/* After a pause the promise begins again with a lease, or with nothing that has a
		 * grace. */
		else if (o->lease.lease_until_ms > w->now_ms || w->s.g.grace_until_ms == 0)
			w->promise = 1;
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
	struct guard_actions a = guard_step(&w->s.g, &o->ev, w->now_ms);
	if (!(a.flags & GUARD_REFUSED)) {
		w->s.gate_generation = o->ev.generation;
		w->s.gate_seq = a.hold_seq;
		w->s.gate_deadline_ms = o->ev.deadline_ms;
		w->s.gate_lease_ms = o->ev.lease_until_ms;
		w->s.line_level = 2; /* a new pipe: not set yet */
		w->pg = (struct w_pg){ .generation = o->ev.generation, .at_gate = 1 };
	}
	sup_acts(w, &o->ev, &a);
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
		struct guard_actions a = guard_step(&w->s.g, &o->ev, w->now_ms);
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
		struct guard_actions a = guard_step(&w->s.g, &o->ev, w->now_ms);
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
	struct guard_actions a = guard_step(&s->g, &ev, w->now_ms);
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

static void sup_reads(struct world *w)
{
	struct w_supervisor *s = &w->s;
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
	struct guard_actions a = guard_step(&d->g, ev, w->now_ms);
	d->wake_at_ms = a.wake_at_ms;
	d->fence_at_ms = a.fence_at_ms;
	if (d->has_pg != 0 && d->has_pg == w->pg.generation && d->has_pg == d->g.generation &&
		a.lifeline_armed != d->line_level && pg_exists(w)) {
		d->line_level = a.lifeline_armed;
		w->pg.line_armed = a.lifeline_armed;
	}
	if (a.flags & (GUARD_FENCE | GUARD_SWEEP)) {
		struct guard_event killed = { .kind = GUARD_EV_KILLED,
			.generation = d->g.generation };
		struct guard_event proven = { .kind = GUARD_EV_PROVEN,
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
		dm_step(w, d, &killed);
		dm_step(w, d, &proven);
	}
	if (a.flags & GUARD_LEAVE) {
		d->life = W_DEAD;
		check_lifeline(w);
	}
}

static void dm_reads(struct world *w, int i)
{
	struct w_deadman *d = &w->d[i];
	if (d->exit_of != 0) {
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

static void pass_time(struct world *w, int64_t until_ms)
{
	while (!world_broken(w)) {
		all_tick(w);
		if (w->now_ms >= until_ms)
			break;
		int64_t at = earlier(next_wake_of(w), until_ms);
		w->now_ms = at > w->now_ms ? at : w->now_ms + 1;
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

/* ---- the moves of the worker ----------------------------------------------------------- */

static bool order(struct world *w, struct w_order *o)
{
	if (w->s.life == W_RUNS) {
		sup_takes(w, o);
		sup_synced(w);
		return true;
	}
	if (w->s.life == W_DEAD || w->s.queued == W_QUEUE)
		return false;
	w->s.queue[w->s.queued++] = *o;
	return true;
}

static bool report(struct world *w, int64_t sent_ms, int64_t until_ms, enum lease_policy policy)
{
	struct w_order o = { .ev.kind = GUARD_EV_LEASE };
	o.lease = (struct msg_lease){ .seq = ++w->lease_seq,
		.sent_at_ms = sent_ms,
		.lease_until_ms = until_ms,
		.ttl_ms = W_TTL_MS,
		.policy = policy };
	w->told_until_ms = until_ms;
	w->zero_acked = 0;
	w->s.zero_seq = 0;
	return order(w, &o);
}

static bool renew(struct world *w, bool failsafe)
{
	if (w->has_renewal && w->renewal_sent_ms == w->now_ms)
		return false;
	w->store_until_ms = w->now_ms + W_TTL_MS;
	w->renewal_sent_ms = w->now_ms;
	w->renewal_failsafe = failsafe;
	w->has_renewal = 1;
	w->zero_acked = 0;
	w->s.zero_seq = 0;
	return true;
}

static bool order_start(struct world *w, enum pg_start_kind kind)
{
	struct w_order o = { .ev = { .kind = GUARD_EV_START, .pm_kind = kind } };
	if (pg_exists(w) && w->s.life == W_RUNS)
		return false; /* refused in any case: not worth a move */
	o.ev.generation = ++w->last_generation;
	o.ev.deadline_ms = w->now_ms + 1000;
	o.ev.lease_until_ms = kind == PG_START_PRIMARY ? w->told_until_ms : 0;
	return order(w, &o);
}

static bool order_pg(struct world *w, enum guard_event_kind kind)
{
	struct w_order o = { .ev = { .kind = kind, .generation = w->pg.generation } };
	if (!w->pg.postmaster || (kind == GUARD_EV_STOP && w->pg.stopping))
		return false;
	o.ev.deadline_ms = w->now_ms + 1000;
	o.ev.lease_until_ms = kind == GUARD_EV_PROMOTE ? w->told_until_ms : 0;
	return order(w, &o);
}

static bool send_proof(struct world *w, enum proof_kind kind, uint64_t generation, int64_t at_ms)
{
	struct w_order o = { .ev.kind = GUARD_EV_PROOF };
	o.proof = (struct msg_proof){ .generation = generation, .at_ms = at_ms, .kind = kind };
	return order(w, &o);
}

static bool worker_move(struct world *w, enum w_move move)
{
	switch (move) {
	case MV_RENEW: return renew(w, false);
	case MV_FAILSAFE: return renew(w, true);
	case MV_REPORT:
		if (!w->has_renewal)
			return false;
		w->has_renewal = 0;
		return report(w, w->renewal_sent_ms, w->renewal_sent_ms + W_TTL_MS,
			w->renewal_failsafe ? POLICY_FAILSAFE : POLICY_ENFORCE);
	case MV_REPORT_ZERO: w->has_renewal = 0; return report(w, w->now_ms, 0, POLICY_ENFORCE);
	case MV_REPORT_PAUSED: w->has_renewal = 0; return report(w, w->now_ms, 0, POLICY_PAUSED);
	case MV_RELEASE:
		if (!w->zero_acked || w->has_renewal || w->store_until_ms <= w->now_ms)
			return false;
		w->store_until_ms = w->now_ms;
		return true;
	case MV_START_PRIMARY: return order_start(w, PG_START_PRIMARY);
	case MV_START_STANDBY: return order_start(w, PG_START_STANDBY);
	case MV_PROMOTE: return !w->pg.primary && order_pg(w, GUARD_EV_PROMOTE);
	case MV_STOP: return order_pg(w, GUARD_EV_STOP);
	case MV_PROMOTE_FILE:
		/* Late, even: the process that makes it may have been frozen after its last look at
		 * the clock. The next generation removes an old file when it starts, not one that
		 * comes later. */
		if (w->promote_token == 0 || !w->pg.postmaster || w->pg.promote_file)
			return false;
		w->promote_token = 0;
		w->pg.promote_file = 1;
		return true;
	case MV_PROOF_TAKE:
		if (!w->pg.postmaster || w->pg.primary ||
			(w->has_proof && w->proof_at_ms == w->now_ms))
			return false;
		w->has_proof = 1;
		w->proof_at_ms = w->now_ms;
		w->proof_generation = w->pg.generation;
		return true;
	case MV_PROOF_SEND:
		if (!w->has_proof)
			return false;
		w->has_proof = 0;
		return send_proof(w, PROOF_RECOVERY_SQL, w->proof_generation, w->proof_at_ms);
	case MV_PROOF_SHUTDOWN:
		return w->pg.postmaster && w->pg.shut_down &&
		       send_proof(w, PROOF_SHUTDOWN_CONTROL, w->pg.generation, w->now_ms);
	default: return false;
	}
}

static bool pg_move(struct world *w, enum w_move move)
{
	struct w_pg *p = &w->pg;
	switch (move) {
	case MV_PG_PROMOTES:
		if (!p->postmaster || !p->promote_file || p->primary)
			return false;
		p->primary = 1;
		return true;
	case MV_PG_SHUT_DOWN:
		if (!p->postmaster || !p->stopping || p->shut_down)
			return false;
		p->shut_down = 1;
		return true;
	case MV_PG_EXITS:
		if (!p->postmaster || !p->stopping)
			return false;
		pg_dead(w);
		pg_ended(w);
		return true;
	case MV_PG_CRASHES:
		if (!p->postmaster || w->faults > 3)
			return false;
		w->faults++;
		p->postmaster = 0;
		pg_ended(w);
		return true;
	default: return false;
	}
}

/* ---- faults ---------------------------------------------------------------------------- */

static bool sup_new(struct world *w)
{
	struct w_supervisor *s = &w->s;
	int heir = -1;
	if (s->life != W_DEAD)
		return false;
	/* The name of the socket leads to a dead-man that has the state. */
	for (int i = 0; i < W_DEADMEN; i++) {
		if (w->d[i].life == W_FROZEN)
			return false; /* it would wait for the answer */
		if (w->d[i].life == W_RUNS && w->d[i].has_state)
			heir = i;
	}
	*s = (struct w_supervisor){ .life = W_RUNS, .line_level = 2 };
	guard_init(&s->g, GUARD_SUPERVISOR, w->now_ms);
	w->promote_token = 0; /* the old helpers are gone before new ones start */
	w->zero_acked = 0;
	if (heir >= 0) {
		struct w_deadman *d = &w->d[heir];
		struct msg_dm_state state;
		struct guard_event dm_ev = { .kind = GUARD_EV_PEER_NEW };
		struct guard_event ev = { .kind = GUARD_EV_STATE, .state = &state };
		struct guard_event peer = { .kind = GUARD_EV_PEER_NEW };
		dm_reads(w, heir);
		if (d->life != W_RUNS)
			return false;
		d->connected = 1;
		dm_step(w, d, &dm_ev);
		guard_export(&d->g, w->now_ms, &state);
		s->peer = (uint8_t)heir;
		sup_step(w, &ev);
		sup_step(w, &peer);
		if (pg_exists(w) && !w->pg.postmaster)
			s->exit_of = w->pg.generation;
	} else if (pg_exists(w)) {
		struct guard_event ev = { .kind = GUARD_EV_ADOPT,
			.generation = ++w->last_generation };
		w->pg.generation = ev.generation;
		w->pg.line_armed = 0;
		if (w->promise)
			return false; /* the lifeline has killed it: cannot be */
		sup_step(w, &ev);
	}
	/* All earlier worker state is gone with the old worker; the key is moved to a new lease
	 * first. */
	w->has_renewal = w->has_proof = 0;
	w->told_until_ms = 0;
	return true;
}

static bool sup_move(struct world *w, enum w_move move)
{
	struct w_supervisor *s = &w->s;
	switch (move) {
	case MV_SUP_READS:
		if (s->life != W_RUNS)
			return false;
		sup_reads(w);
		return true;
	case MV_SUP_DIES: {
		/* Allowed with both dead (the kernel acts), not with a frozen dead-man left alone.
		 */
		bool frozen = w->d[0].life == W_FROZEN || w->d[1].life == W_FROZEN;
		if (s->life == W_DEAD || w->faults > 3 || (frozen && !any_dm_enforces(w)))
			return false;
		w->faults++;
		if (w->pg.at_gate)
			kill_pg(w, w->pg.generation);
		*s = (struct w_supervisor){ 0 };
		for (int i = 0; i < W_DEADMEN; i++)
			w->d[i].sup_died |= w->d[i].life != W_DEAD && w->d[i].connected;
		check_lifeline(w);
		return true;
	}
	case MV_SUP_FREEZES:
		if (s->life != W_RUNS || w->faults > 3 || !any_dm_enforces(w))
			return false;
		w->faults++;
		s->life = W_FROZEN;
		return true;
	case MV_SUP_THAWS:
		if (s->life != W_FROZEN)
			return false;
		s->life = W_RUNS;
		sup_tick(w);
		return true;
	case MV_SUP_NEW: return sup_new(w);
	case MV_DM_NEW: {
		int free_slot = w->d[0].life == W_DEAD ? 0 : w->d[1].life == W_DEAD ? 1 : -1;
		struct guard_event ev = { .kind = GUARD_EV_PEER_NEW };
		/* A replacement, or the new one of a hand-over: never a third. */
		if (s->life != W_RUNS || free_slot < 0)
			return false;
		w->d[free_slot] =
			(struct w_deadman){ .life = W_RUNS, .connected = 1, .line_level = 2 };
		guard_init(&w->d[free_slot].g, GUARD_DEADMAN, w->now_ms);
		w->d[free_slot].g.peer_alive = 1;
		w->d[free_slot].wake_at_ms = w->now_ms;
		s->peer = (uint8_t)free_slot;
		s->peer_died = 0;
		s->peer_pg = 0;
		sup_step(w, &ev);
		return true;
	}
	case MV_DM_END_OLD: {
		struct w_deadman *old = &w->d[1 - s->peer];
		if (s->life != W_RUNS || old->life == W_DEAD || !old->connected || old->end_sent ||
			!guard_synced(&s->g, s->g.state_seq) ||
			(s->g.pm_state != PG_PROC_NONE && s->peer_pg != s->g.generation))
			return false;
		old->end_sent = 1;
		return true;
	}
	default: return false;
	}
}

static bool dm_move(struct world *w, int i, enum w_move base)
{
	struct w_deadman *d = &w->d[i];
	switch (base) {
	case MV_DM0_READS:
		if (d->life != W_RUNS ||
			(!d->has_inbox && !d->end_sent && !d->sup_died && d->exit_of == 0))
			return false;
		dm_reads(w, i);
		return true;
	case MV_DM0_DIES:
		if (d->life == W_DEAD || w->faults > 3 ||
			(w->s.life == W_FROZEN && !dm_is_enforcer(w, 1 - i)) ||
			(w->s.life == W_DEAD && w->d[1 - i].life == W_FROZEN))
			return false;
		w->faults++;
		d->life = W_DEAD;
		d->has_ack = 0;
		if (w->s.life != W_DEAD && w->s.peer == i)
			w->s.peer_died = 1;
		check_lifeline(w);
		return true;
	case MV_DM0_FREEZES:
		if (d->life != W_RUNS || w->faults > 3 ||
			(w->s.life != W_RUNS && !dm_is_enforcer(w, 1 - i)))
			return false;
		w->faults++;
		d->life = W_FROZEN;
		return true;
	case MV_DM0_THAWS:
		if (d->life != W_FROZEN)
			return false;
		d->life = W_RUNS;
		dm_tick(w, i);
		return true;
	default: return false;
	}
}

bool world_move(struct world *w, enum w_move move)
{
	switch (move) {
	case MV_TIME_NEXT: return pass_to_next(w);
	case MV_TIME_THIRD: pass_time(w, w->now_ms + W_TTL_MS / 3); return true;
	case MV_PG_PROMOTES:
	case MV_PG_SHUT_DOWN:
	case MV_PG_EXITS:
	case MV_PG_CRASHES: return pg_move(w, move);
	case MV_SUP_READS:
	case MV_SUP_DIES:
	case MV_SUP_FREEZES:
	case MV_SUP_THAWS:
	case MV_SUP_NEW:
	case MV_DM_NEW:
	case MV_DM_END_OLD: return sup_move(w, move);
	case MV_DM0_READS:
	case MV_DM0_DIES:
	case MV_DM0_FREEZES:
	case MV_DM0_THAWS: return dm_move(w, 0, move);
	case MV_DM1_READS: return dm_move(w, 1, MV_DM0_READS);
	case MV_DM1_DIES: return dm_move(w, 1, MV_DM0_DIES);
	case MV_DM1_FREEZES: return dm_move(w, 1, MV_DM0_FREEZES);
	case MV_DM1_THAWS: return dm_move(w, 1, MV_DM0_THAWS);
	default: return worker_move(w, move);
	}
}

void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->now_ms = W_T0;
	w->promise = 1;
	w->s.life = W_RUNS;
	w->s.line_level = 2;
	guard_init(&w->s.g, GUARD_SUPERVISOR, w->now_ms);
	/* A store that has forgotten us, a supervisor and a dead-man that know each other. */
	world_move(w, MV_DM_NEW);
	world_move(w, MV_DM0_READS);
	world_move(w, MV_SUP_READS);
}

/* ---- two states are the same when only the clock and the counters differ ------------------------
 */

static void relate(int64_t *at_ms, int64_t now_ms)
{
	if (*at_ms == 0 || *at_ms == INT64_MAX)
		return;
	int64_t rel = *at_ms - now_ms;
	*at_ms = rel < -8 * W_TTL_MS ? -8 * W_TTL_MS : rel == 0 ? INT64_MIN : rel;
}

static void relate_guard(struct guard *g, const struct world *w)
{
	int64_t *const times[] = { &g->sent_at_ms, &g->lease_until_ms, &g->started_at_ms,
		&g->stopped_at_ms, &g->proof_at_ms, &g->proof_until_ms, &g->grace_until_ms,
		&g->peer_seen_ms, &g->peer_send_ms, &g->orphan_until_ms, &g->wake_at_ms };
	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		relate(times[i], w->now_ms);
	g->lease_seq = w->lease_seq - g->lease_seq;
	g->generation = w->last_generation - g->generation;
	g->ended_generation = w->last_generation - g->ended_generation;
}

static void relate_seqs(struct world *n, uint64_t base)
{
	n->s.g.acked_seq = base - n->s.g.acked_seq;
	n->s.g.state_seq = base - n->s.g.state_seq;
	n->s.gate_seq = n->s.gate_seq != 0 ? base - n->s.gate_seq + 1 : 0;
	n->s.promote_seq = n->s.promote_seq != 0 ? base - n->s.promote_seq + 1 : 0;
	n->s.zero_seq = n->s.zero_seq != 0 ? base - n->s.zero_seq + 1 : 0;
	for (int i = 0; i < W_DEADMEN; i++) {
		struct w_deadman *d = &n->d[i];
		d->g.state_seq = base - d->g.state_seq;
		d->ack_seq = d->has_ack ? base - d->ack_seq : 0;
		d->inbox.seq = d->has_inbox ? base - d->inbox.seq : 0;
	}
}

static void relate_deadman(struct w_deadman *d, const struct world *w)
{
	if (d->life == W_DEAD) {
		memset(d, 0, sizeof(*d));
		return;
	}
	relate_guard(&d->g, w);
	relate(&d->wake_at_ms, w->now_ms);
	d->fence_at_ms = 0;
	if (!d->has_inbox) {
		memset(&d->inbox, 0, sizeof(d->inbox));
		d->inbox_pg = 0;
	}
	int64_t *const times[] = { &d->inbox.now_ms, &d->inbox.sent_at_ms, &d->inbox.lease_until_ms,
		&d->inbox.started_at_ms, &d->inbox.stopped_at_ms, &d->inbox.proof_at_ms,
		&d->inbox.proof_until_ms, &d->inbox.grace_until_ms };
	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		relate(times[i], w->now_ms);
	d->inbox.lease_seq = w->lease_seq - d->inbox.lease_seq;
	d->inbox.generation = w->last_generation - d->inbox.generation;
	d->inbox_pg = d->inbox_pg != 0 ? w->last_generation - d->inbox_pg + 1 : 0;
	d->has_pg = d->has_pg != 0 ? w->last_generation - d->has_pg + 1 : 0;
	d->exit_of = d->exit_of != 0 ? w->last_generation - d->exit_of + 1 : 0;
	if (!d->has_ack)
		d->ack_fencing = 0;
	d->ack_pg = d->has_ack && d->ack_pg != 0 ? w->last_generation - d->ack_pg + 1 : 0;
}

uint64_t world_hash(const struct world *w)
{
	struct world n = *w;
	uint64_t base = w->s.g.state_seq;
	for (int i = 0; i < W_DEADMEN; i++) {
		relate_deadman(&n.d[i], w);
		if (w->d[i].g.state_seq > base)
			base = w->d[i].g.state_seq;
	}
	relate_guard(&n.s.g, w);
	relate_seqs(&n, base);
	relate(&n.s.wake_at_ms, w->now_ms);
	n.s.fence_at_ms = 0;
	relate(&n.s.gate_deadline_ms, w->now_ms);
	relate(&n.s.gate_lease_ms, w->now_ms);
	relate(&n.s.promote_deadline_ms, w->now_ms);
	for (int i = 0; i < w->s.queued; i++) {
		struct w_order *o = &n.s.queue[i];
		int64_t *const times[] = { &o->lease.sent_at_ms, &o->lease.lease_until_ms,
			&o->proof.at_ms, &o->ev.deadline_ms, &o->ev.lease_until_ms };
		for (unsigned t = 0; t < sizeof(times) / sizeof(times[0]); t++)
			relate(times[t], w->now_ms);
		o->lease.seq = w->lease_seq - o->lease.seq;
		o->ev.generation = w->last_generation - o->ev.generation;
		o->proof.generation = w->last_generation - o->proof.generation;
		o->ev.lease = NULL;
		o->ev.proof = NULL;
	}
	uint64_t *const gens[] = { &n.s.gate_generation, &n.s.promote_generation, &n.s.peer_pg,
		&n.s.exit_of, &n.pg.generation, &n.proof_generation, &n.promote_token };
	for (unsigned i = 0; i < sizeof(gens) / sizeof(gens[0]); i++)
		*gens[i] = *gens[i] != 0 ? w->last_generation - *gens[i] + 1 : 0;
	relate(&n.store_until_ms, w->now_ms);
	if (w->store_until_ms <= w->now_ms)
		n.store_until_ms = INT64_MIN;
	relate(&n.renewal_sent_ms, w->now_ms);
	relate(&n.told_until_ms, w->now_ms);
	relate(&n.proof_at_ms, w->now_ms);
	if (!w->has_renewal)
		n.renewal_sent_ms = n.renewal_failsafe = 0;
	if (!w->has_proof) {
		n.proof_at_ms = 0;
		n.proof_generation = 0;
	}
	if (!pg_exists(w))
		n.pg = (struct w_pg){ 0 };
	n.now_ms = 0;
	n.lease_seq = n.last_generation = 0;
	uint64_t h = 0x9e3779b97f4a7c15u;
	const uint64_t *p = (const uint64_t *)&n;
	for (unsigned i = 0; i < sizeof(n) / 8; i++) {
		h = (h ^ p[i]) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	return h;
}
