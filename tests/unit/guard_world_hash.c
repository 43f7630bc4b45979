/* The fingerprint of a world. Part of guard_world.c, which includes it. */

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
	n->promise_seq = n->promise_seq != 0 ? base - n->promise_seq + 1 : 0;
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
	d->sweep = d->sweep != 0 ? w->last_generation - d->sweep + 1 : 0;
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
		&n.s.exit_of, &n.s.sweep, &n.pg.generation, &n.proof_generation, &n.promote_token };
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
