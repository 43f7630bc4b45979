/* How many moves it takes at least until PostgreSQL writes while the store may give the lease away.
 * Part of guard_world.c, which includes it.
 *
 * What it is for: a state that n moves have reached and from which at least b more are needed leads
 * to no example of n + b - 1 moves, so a search that is bounded by a depth need not go on from it.
 * Nothing is taken for the same that is not, nothing is left out.
 *
 * Why it is right: it knows the rules of the world alone, never those of guard_step, so that a
 * mistake in those cannot hide itself. What it counts are moves that cannot be one another: an
 * order of the worker, a file made, a promotion, a start of a supervisor or a dead-man, time.
 * Whatever one move might do at once is counted once: time opens a gate, brings an acknowledgement
 * and ends the lease. And it is tried: the search looks at every move that it makes whether the
 * bound fell by more than one, and fails if so; a bound that ends at 0 exactly where something is
 * broken, and falls by one at most with every move, is never larger than the way that is left. */

static bool is_queued(const struct world *w, enum guard_event_kind kind)
{
	for (unsigned i = 0; i < w->s.queued; i++)
		if (w->s.queue[i].ev.kind == kind)
			return true;
	return false;
}

/* After a pause only a report begins the promise again; one in the queue is read with others. */
static unsigned report_needed(const struct world *w)
{
	return !w->promise && w->promise_seq == 0 && !is_queued(w, GUARD_EV_LEASE);
}

/* The dead-man whose acknowledgement opens the gate cannot give it as things are. */
static unsigned peer_needed(const struct world *w)
{
	const struct w_deadman *d = &w->d[w->s.peer];
	return d->life != W_RUNS || !d->connected;
}

/* No process of PostgreSQL: a supervisor that runs, a dead-man that answers, an order, the gate. */
static unsigned bound_without_pg(const struct world *w)
{
	unsigned start_and_gate = 2 + report_needed(w);
	if (w->extra & W_FOREIGN)
		return 2; /* somebody else starts it, a report begins the promise */
	if (w->s.life == W_RUNS)
		return start_and_gate + peer_needed(w);
	if (w->s.life == W_FROZEN) /* what waits in its queue is carried out by the thaw itself */
		return start_and_gate + !is_queued(w, GUARD_EV_START);
	return start_and_gate + 1 + (w->d[0].life != W_RUNS && w->d[1].life != W_RUNS);
}

static unsigned at_most(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned world_bound(const struct world *w)
{
	const struct w_pg *p = &w->pg;
	const struct w_deadman *d = &w->d[w->s.peer];
	unsigned lapse = w->store_until_ms > w->now_ms; /* time, or a release */
	unsigned report = report_needed(w);
	unsigned promise = w->promise ? 0 : report ? 1 : !lapse;
	/* What runs ends, another is started, let through the gate. A report is not counted: a
	 * mistake in guard_step may let it end PostgreSQL as well. */
	unsigned anew = is_queued(w, GUARD_EV_START) ? 2 : 3;
	bool standby = p->postmaster && !p->primary;
	if (pg_writes(w))
		return lapse + promise;
	if (standby && p->promote_file)
		return at_most(1 + lapse + promise, anew);
	if (standby && w->promote_token)
		return at_most(2 + lapse + promise, anew);
	if (p->at_gate && w->s.g.kind == PG_START_PRIMARY)
		return 1 + report + (peer_needed(w) && !(d->has_ack && d->ack_pg == p->generation));
	if (pg_exists(w))
		return anew; /* or as many: ordered, file made, promoted */
	return bound_without_pg(w);
}
