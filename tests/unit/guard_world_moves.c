/* What the worker, PostgreSQL and faults may do at any time: the moves of guard_world.h. Part of
 * guard_world.c, which includes it. */

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
		.wall_offset_ms = until_ms > 0 ? w->renewal_wall_ms : w->wall_ms,
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
	w->renewal_wall_ms = w->wall_ms;
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
	case MV_RENEW: return !w->store_away && renew(w, false);
	case MV_FAILSAFE: return w->store_away && renew(w, true);
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
	case MV_KILL: return (w->extra & W_KILL) && order_pg(w, GUARD_EV_FENCE_ORDER);
	case MV_OVERTAKES: {
		struct w_order *q = w->s.queue, first = q[0];
		if (!(w->extra & W_LATE) || w->s.queued < W_QUEUE)
			return false;
		q[0] = q[1];
		q[1] = first;
		return true;
	}
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
		if (!p->postmaster)
			return false;
		p->postmaster = 0;
		pg_ended(w);
		return true;
	default: return false;
	}
}

/* ---- faults ---------------------------------------------------------------------------- */

/* Once, and not so shortly before the end that nobody could look in between. */
static bool wall_jumps(struct world *w)
{
	int64_t look_ms = 2 * guard_peer_interval_ms(W_TTL_MS);
	bool granted = w->store_until_ms > w->now_ms;
	if (!(w->extra & W_WALL) || w->wall_ms != W_WALL_MS ||
		(granted && w->store_until_ms - W_JUMP_MS <= w->now_ms + look_ms))
		return false;
	w->wall_ms += W_JUMP_MS;
	if (granted)
		w->store_until_ms -= W_JUMP_MS;
	return true;
}

/* Nobody who enforces need run: the device runs. */
static bool is_watched(const struct world *w)
{
	return w->bite_at_ms != 0;
}

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
	w->promise_seq = 0;
	*s = (struct w_supervisor){ .life = W_RUNS };
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

static bool dm_new(struct world *w)
{
	struct w_supervisor *s = &w->s;
	int free_slot = w->d[0].life == W_DEAD ? 0 : w->d[1].life == W_DEAD ? 1 : -1;
	struct guard_event ev = { .kind = GUARD_EV_PEER_NEW };
	/* A replacement, or the new one of a hand-over: never a third. */
	if (s->life != W_RUNS || free_slot < 0)
		return false;
	w->d[free_slot] = (struct w_deadman){ .life = W_RUNS, .connected = 1, .line_level = 2 };
	guard_init(&w->d[free_slot].g, GUARD_DEADMAN, w->now_ms);
	w->d[free_slot].g.peer_alive = 1;
	w->d[free_slot].wake_at_ms = w->now_ms;
	s->peer = (uint8_t)free_slot;
	s->peer_died = 0;
	s->peer_pg = 0;
	sup_step(w, &ev);
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
		if (s->life == W_DEAD || (frozen && !any_dm_enforces(w) && !is_watched(w)))
			return false;
		w->device_open = 0; /* and nothing said to the device: it goes on */
		if (w->pg.at_gate)
			kill_pg(w, w->pg.generation);
		*s = (struct w_supervisor){ 0 };
		/* The connection goes with it: a successor neither sends nor reads on it. What
		 * was sent before is still read. */
		for (int i = 0; i < W_DEADMEN; i++) {
			w->d[i].sup_died |= w->d[i].life != W_DEAD && w->d[i].connected;
			w->d[i].connected = w->d[i].has_ack = 0;
		}
		check_lifeline(w);
		return true;
	}
	case MV_SUP_FREEZES:
		if (s->life != W_RUNS || (!any_dm_enforces(w) && !is_watched(w)))
			return false;
		s->life = W_FROZEN;
		return true;
	case MV_SUP_THAWS:
		if (s->life != W_FROZEN)
			return false;
		s->life = W_RUNS;
		sup_tick(w);
		return true;
	case MV_SUP_NEW: return sup_new(w);
	case MV_DM_NEW: return dm_new(w);
	case MV_DM_END_OLD: {
		struct w_deadman *old = &w->d[1 - s->peer];
		if (s->life != W_RUNS || old->life == W_DEAD || !old->connected || old->end_sent ||
			!guard_synced(&s->g, s->g.state_seq) ||
			(s->g.pm_state != PG_PROC_NONE && s->peer_pg != s->g.generation))
			return false;
		old->end_sent = 1;
		return true;
	}
	case MV_STATE_LOST:
		/* Not the one that brings the descriptors: without them the gate stays shut. */
		if (s->life == W_DEAD || !w->d[s->peer].has_inbox)
			return false;
		w->d[s->peer].has_inbox = 0;
		return true;
	default: return false;
	}
}

static bool dm_move(struct world *w, int i, enum w_move base)
{
	struct w_deadman *d = &w->d[i];
	switch (base) {
	case MV_DM0_READS:
		if (d->life != W_RUNS || (!d->has_inbox && !d->end_sent && !d->sup_died &&
						 d->exit_of == 0 && d->sweep == 0))
			return false;
		dm_reads(w, i);
		return true;
	case MV_DM0_DIES:
		if (d->life == W_DEAD ||
			(!is_watched(w) &&
				((w->s.life == W_FROZEN && !dm_is_enforcer(w, 1 - i)) ||
					(w->s.life == W_DEAD && w->d[1 - i].life == W_FROZEN))))
			return false;
		d->life = W_DEAD;
		d->has_ack = 0;
		if (w->s.life != W_DEAD && w->s.peer == i)
			w->s.peer_died = 1;
		check_lifeline(w);
		return true;
	case MV_DM0_FREEZES:
		if (d->life != W_RUNS ||
			(w->s.life != W_RUNS && !dm_is_enforcer(w, 1 - i) && !is_watched(w)))
			return false;
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
	case MV_TIME_THIRD:
		/* A device that is fed too late shows in shorter steps only. */
		pass_time(w, w->now_ms + W_TTL_MS / (w->extra & W_WATCHDOG ? 6 : 3));
		return true;
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
	case MV_DM_END_OLD:
	case MV_STATE_LOST: return sup_move(w, move);
	case MV_DM0_READS:
	case MV_DM0_DIES:
	case MV_DM0_FREEZES:
	case MV_DM0_THAWS: return dm_move(w, 0, move);
	case MV_WALL_JUMPS: return wall_jumps(w);
	case MV_PG_FOREIGN: return sup_adopts(w);
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
	guard_init(&w->s.g, GUARD_SUPERVISOR, w->now_ms);
	/* A store that has forgotten us, a supervisor and a dead-man that know each other. */
	world_move(w, MV_DM_NEW);
	world_move(w, MV_DM0_READS);
	world_move(w, MV_SUP_READS);
}
