/* The fingerprint of a world: the same for two worlds from which the same things can happen. Part
 * of guard_world.c, which includes it.
 *
 * What is left out, and why that is sound. The clock: only distances to it are compared. Numbers of
 * reports: a new one is above all before it. Times that can only be compared with something that is
 * not under way (a proof, a renewal, an order), or that are past for every comparison there is.
 * FAILSAFE: guard_step asks for PAUSED only. What the dead-man does not look at. Which of the two
 * slots holds the only dead-man. Numbers of states and generations keep their distances, since the
 * next one is one higher. */

static void relate(int64_t *at_ms, int64_t now_ms)
{
	if (*at_ms == 0 || *at_ms == INT64_MAX)
		return;
	int64_t rel = *at_ms - now_ms;
	*at_ms = rel < -8 * W_TTL_MS ? -8 * W_TTL_MS : rel == 0 ? INT64_MIN : rel;
}

/* Past is past: the exact time makes no difference any more. */
static void relate_deadline(int64_t *at_ms, int64_t now_ms)
{
	if (*at_ms != 0 && *at_ms <= now_ms)
		*at_ms = INT64_MIN;
	else
		relate(at_ms, now_ms);
}

static void only_whether(int64_t *at_ms)
{
	*at_ms = *at_ms != 0;
}

/* What may still arrive late: then the times that it is compared with count. */
struct under_way {
	bool proof, order, renewal;
};

static void relate_guard(struct guard *g, const struct world *w, struct under_way u)
{
	bool dm = g->role == GUARD_DEADMAN;
	bool exempt = g->kind == PG_START_STANDBY && !g->promote_sent;
	g->policy = g->policy == POLICY_PAUSED ? POLICY_PAUSED : POLICY_ENFORCE;
	g->lease_seq = 0;
	g->peer_fencing = 0;
	relate_deadline(&g->lease_until_ms, w->now_ms);
	relate(&g->grace_until_ms, w->now_ms);
	relate(&g->orphan_until_ms, w->now_ms);
	relate(&g->wake_at_ms, w->now_ms);
	relate(&g->wd_fed_ms, w->now_ms);
	g->wall_offset_ms = g->wall_offset_ms != 0 ? w->wall_ms - g->wall_offset_ms : 0;
	if (g->pm_state == PG_PROC_NONE)
		g->kind = g->promote_sent = 0;
	if (g->pm_state != PG_PROC_FENCING)
		g->killed = 0;
	if (u.renewal && !dm)
		relate(&g->sent_at_ms, w->now_ms);
	else
		g->sent_at_ms = 0;
	int64_t *const compared[] = { &g->started_at_ms, &g->stopped_at_ms, &g->proof_at_ms };
	for (unsigned i = 0; i < sizeof(compared) / sizeof(compared[0]); i++) {
		if (dm || !(u.proof || u.order))
			only_whether(compared[i]);
		else
			relate(compared[i], w->now_ms);
	}
	/* After asking, stopping and fencing a proof is as old as it can be. */
	if (!exempt)
		only_whether(&g->proof_until_ms);
	else if (g->proof_until_ms != 0 && g->proof_until_ms < w->now_ms - 2 * W_TTL_MS)
		g->proof_until_ms = 1;
	else
		relate(&g->proof_until_ms, w->now_ms);
	if (dm || !g->peer_alive) {
		g->peer_seen_ms = g->peer_send_ms = 0;
	} else {
		relate(&g->peer_seen_ms, w->now_ms);
		relate(&g->peer_send_ms, w->now_ms);
	}
}

static void relate_seqs(struct world *n, uint64_t base)
{
	if (n->s.life != W_DEAD) {
		n->s.g.acked_seq = base - n->s.g.acked_seq;
		n->s.g.state_seq = base - n->s.g.state_seq;
	}
	n->s.gate_seq = n->s.gate_seq != 0 ? base - n->s.gate_seq + 1 : 0;
	n->s.promote_seq = n->s.promote_seq != 0 ? base - n->s.promote_seq + 1 : 0;
	n->promise_seq = n->promise_seq != 0 ? base - n->promise_seq + 1 : 0;
	n->s.zero_seq = n->s.zero_seq != 0 ? base - n->s.zero_seq + 1 : 0;
	for (int i = 0; i < W_DEADMEN; i++) {
		struct w_deadman *d = &n->d[i];
		if (d->life == W_DEAD)
			continue;
		d->g.state_seq = base - d->g.state_seq;
		d->ack_seq = d->has_ack ? base - d->ack_seq : 0;
		d->inbox.seq = d->has_inbox ? base - d->inbox.seq : 0;
	}
}

static void relate_inbox(struct msg_dm_state *s, const struct world *w)
{
	bool exempt = s->kind == PG_START_STANDBY && !s->promote_sent;
	s->now_ms = s->sent_at_ms = 0;
	s->lease_seq = 0;
	s->policy = s->policy == POLICY_PAUSED ? POLICY_PAUSED : POLICY_ENFORCE;
	relate_deadline(&s->lease_until_ms, w->now_ms);
	s->wall_offset_ms = s->wall_offset_ms != 0 ? w->wall_ms - s->wall_offset_ms : 0;
	only_whether(&s->started_at_ms);
	only_whether(&s->stopped_at_ms);
	only_whether(&s->proof_at_ms);
	relate(&s->grace_until_ms, w->now_ms);
	if (exempt)
		relate(&s->proof_until_ms, w->now_ms);
	else
		only_whether(&s->proof_until_ms);
	if (s->pm_state == PG_PROC_NONE)
		s->kind = s->promote_sent = 0;
	if (s->pm_state != PG_PROC_FENCING)
		s->killed = 0;
}

static void relate_deadman(struct w_deadman *d, const struct world *w)
{
	if (d->life == W_DEAD) {
		memset(d, 0, sizeof(*d));
		return;
	}
	relate_guard(&d->g, w, (struct under_way){ 0 });
	relate(&d->wake_at_ms, w->now_ms);
	d->fence_at_ms = 0;
	if (d->has_inbox) {
		relate_inbox(&d->inbox, w);
	} else {
		memset(&d->inbox, 0, sizeof(d->inbox));
		d->inbox_pg = 0;
	}
	if (!d->has_ack) {
		d->ack_fencing = 0;
		d->ack_pg = 0;
	}
}

static uint64_t generation_age(uint64_t generation, const struct world *w)
{
	return generation != 0 ? w->last_generation - generation + 1 : 0;
}

static void relate_generations(struct world *n, const struct world *w)
{
	uint64_t *const here[] = { &n->s.g.generation, &n->s.g.ended_generation,
		&n->s.gate_generation, &n->s.promote_generation, &n->s.peer_pg, &n->s.exit_of,
		&n->s.sweep, &n->pg.generation, &n->proof_generation, &n->promote_token };
	for (unsigned i = 0; i < sizeof(here) / sizeof(here[0]); i++)
		*here[i] = generation_age(*here[i], w);
	for (int i = 0; i < W_DEADMEN; i++) {
		struct w_deadman *d = &n->d[i];
		uint64_t *const there[] = { &d->g.generation, &d->g.ended_generation, &d->has_pg,
			&d->inbox_pg, &d->inbox.generation, &d->exit_of, &d->sweep, &d->ack_pg };
		for (unsigned k = 0; k < sizeof(there) / sizeof(there[0]); k++)
			*there[k] = generation_age(*there[k], w);
	}
}

static void relate_order(struct w_order *o, const struct world *w)
{
	int64_t *const times[] = { &o->lease.sent_at_ms, &o->lease.lease_until_ms, &o->proof.at_ms,
		&o->ev.deadline_ms, &o->ev.lease_until_ms };
	for (unsigned t = 0; t < sizeof(times) / sizeof(times[0]); t++)
		relate(times[t], w->now_ms);
	if (o->lease.policy == POLICY_FAILSAFE)
		o->lease.policy = POLICY_ENFORCE;
	o->lease.seq = w->lease_seq - o->lease.seq;
	o->ev.generation = generation_age(o->ev.generation, w);
	o->proof.generation = generation_age(o->proof.generation, w);
	o->ev.lease = NULL;
	o->ev.proof = NULL;
}

static void relate_supervisor(struct world *n, const struct world *w)
{
	struct w_supervisor *s = &n->s;
	struct under_way u = { .proof = w->has_proof,
		.order = w->s.queued > 0,
		.renewal = w->has_renewal || w->s.queued > 0 };
	if (s->life == W_DEAD) {
		memset(s, 0, sizeof(*s));
		return;
	}
	relate_guard(&s->g, w, u);
	relate(&s->wake_at_ms, w->now_ms);
	s->fence_at_ms = 0;
	if (s->gate_generation == 0)
		s->gate_seq = 0, s->gate_deadline_ms = s->gate_lease_ms = 0;
	if (s->promote_seq == 0)
		s->promote_deadline_ms = 0, s->promote_generation = 0;
	relate_deadline(&s->gate_deadline_ms, w->now_ms);
	relate_deadline(&s->gate_lease_ms, w->now_ms);
	relate_deadline(&s->promote_deadline_ms, w->now_ms);
	for (int i = 0; i < w->s.queued; i++)
		relate_order(&s->queue[i], w);
}

static void relate_worker(struct world *n, const struct world *w)
{
	relate_deadline(&n->store_until_ms, w->now_ms);
	relate_deadline(&n->told_until_ms, w->now_ms);
	relate(&n->renewal_sent_ms, w->now_ms);
	relate(&n->bite_at_ms, w->now_ms);
	n->wall_ms -= W_WALL_MS;
	n->renewal_wall_ms = w->has_renewal ? w->wall_ms - w->renewal_wall_ms : 0;
	relate(&n->proof_at_ms, w->now_ms);
	n->renewal_failsafe = 0;
	if (!w->has_renewal)
		n->renewal_sent_ms = 0;
	if (!w->has_proof) {
		n->proof_at_ms = 0;
		n->proof_generation = 0;
	}
	if (!pg_exists(w))
		n->pg = (struct w_pg){ 0 };
}

/* The only dead-man stands in the first place. */
static void first_deadman(struct world *n)
{
	if (n->d[0].life != W_DEAD || n->d[1].life == W_DEAD)
		return;
	n->d[0] = n->d[1];
	memset(&n->d[1], 0, sizeof(n->d[1]));
	if (n->s.life != W_DEAD)
		n->s.peer = !n->s.peer;
}

/* Every step is one to one in the word that it takes and in what came before, so that nothing is
 * lost on the way; products folded to their half were, and a hundredth of the states with them. */
static uint64_t stir(uint64_t h, uint64_t word, uint64_t odd)
{
	h = (h ^ (word * odd)) * 0x9fb21c651e98df25u;
	return h ^ (h >> 29);
}

/* Two lanes, so that one multiplication need not wait for the other. */
static uint64_t mix(const void *bytes, size_t len, uint64_t h)
{
	const uint64_t *p = bytes;
	size_t words = len / 8, i = 0;
	uint64_t other = ~h;
	for (; i + 2 <= words; i += 2) {
		h = stir(h, p[i], 0xa0761d6478bd642fu);
		other = stir(other, p[i + 1], 0xe7037ed1a0b428dbu);
	}
	if (i < words)
		h = stir(h, p[i], 0x8ebc6af09c88c6e3u);
	return stir(stir(h, other, 0x589965cc75374cc3u), len, 0x1d8e4e27c47d124fu);
}

uint64_t world_hash(const struct world *w)
{
	struct world n = *w;
	uint64_t base = w->s.g.state_seq;
	for (int i = 0; i < W_DEADMEN; i++) {
		relate_deadman(&n.d[i], w);
		if (w->d[i].life != W_DEAD && w->d[i].g.state_seq > base)
			base = w->d[i].g.state_seq;
	}
	relate_supervisor(&n, w);
	relate_seqs(&n, base);
	relate_worker(&n, w);
	relate_generations(&n, w);
	first_deadman(&n);
	n.now_ms = 0;
	n.lease_seq = n.last_generation = 0;
	/* What is not there need not be read. */
	uint64_t h = mix(&n, offsetof(struct world, s.queue), 0x9e3779b97f4a7c15u);
	h = mix(n.s.queue, n.s.queued * sizeof(n.s.queue[0]), h);
	for (int i = 0; i < W_DEADMEN; i++)
		h = n.d[i].life == W_DEAD ? stir(h, 31, 1)
		    : n.d[i].has_inbox	  ? mix(&n.d[i], sizeof(n.d[i]), h)
					  : mix(&n.d[i], offsetof(struct w_deadman, inbox), h);
	return mix(&n.pg, sizeof(n.pg), h);
}
