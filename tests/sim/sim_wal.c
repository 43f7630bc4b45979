/* Replication and clients of the simulated PostgreSQL: WAL on its way, confirmations, commits that
 * wait. */
#include <string.h>

#include "tests/sim/sim.h"

#define CONNECT_MS 700 /* a standby looks for its upstream that often */

static bool sends(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	return n->on && !n->vm_paused && !n->pg.frozen &&
	       (n->pg.phase == PGP_PRIMARY || n->pg.phase == PGP_STANDBY ||
		       n->pg.phase == PGP_STOPPING);
}

static bool receives(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	return n->on && !n->vm_paused && !n->pg.frozen &&
	       (n->pg.phase == PGP_STANDBY || n->pg.phase == PGP_PROMOTING ||
		       (n->pg.phase == PGP_RECOVERY && n->pg.looks));
}

static void wal_send(struct sim *s, int from, int to)
{
	struct sim_pg *u = &s->nodes[from].pg, *p = &s->nodes[to].pg;
	if (!p->streaming || p->upstream != from || p->arriving_lsn || p->lsn >= u->lsn)
		return;
	int64_t delay = net_delay(s, from, to);
	if (delay < 0)
		delay = 200; /* sent again by TCP; a cut link is noticed by the tick */
	p->arriving_lsn = u->lsn;
	sim_at(s, s->now_ms + delay + p->lag_ms, EV_PG_WAL, to, (int64_t)u->lsn,
		(int64_t)u->generation, NULL);
}

void wal_send_all(struct sim *s, int node)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if ((int)i != node)
			wal_send(s, node, (int)i);
}

bool wal_senders_behind(const struct sim *s, int node)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		const struct sim_pg *p = &s->nodes[i].pg;
		if (s->nodes[node].pg.standby[i].connected && p->streaming && p->upstream == node &&
			receives(s, (int)i) && net_open(s, node, (int)i) &&
			p->lsn < s->nodes[node].pg.lsn)
			return true;
	}
	return false;
}

static void hang_up(struct sim *s, int standby)
{
	struct sim_pg *p = &s->nodes[standby].pg;
	if (!p->streaming)
		return;
	p->streaming = false;
	p->arriving_lsn = 0;
	sim_log(s, standby, "postgres: no longer streams from %s", sim_name(p->upstream));
}

/* The sender forgets a standby whose connection broke. */
static void notice_gone(struct sim *s, int node)
{
	struct sim_pg *u = &s->nodes[node].pg;
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		const struct sim_pg *p = &s->nodes[i].pg;
		if (u->standby[i].connected && (!p->streaming || p->upstream != node))
			u->standby[i].connected = false;
	}
}

static void tick(struct sim *s, int node, int64_t generation)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if ((uint64_t)generation != p->generation || p->phase == PGP_NONE)
		return;
	sim_at(s, s->now_ms + CONNECT_MS + (int64_t)rng_below(&s->rng, 100), EV_PG_TICK, node,
		generation, 0, NULL);
	notice_gone(s, node);
	if (!receives(s, node))
		return;
	/* What was received is replayed to its end, also after the upstream has gone. */
	if (!s->nodes[node].replay_stuck)
		p->replay_lsn = p->lsn;
	int u = p->upstream;
	bool can = u >= 0 && sends(s, u) && net_open(s, node, u) && net_open(s, u, node) &&
		   pg_can_stream(s, node, u);
	/* The history files come first, also from one that it then cannot stream from. */
	if (u == SIM_REMOTE && !p->streaming && sends(s, u) && net_open(s, node, u) &&
		net_open(s, u, node) && p->sysid == s->nodes[u].pg.sysid)
		p->heard_branch = s->nodes[u].pg.branch;
	if (p->streaming && (!can || !s->nodes[u].pg.standby[node].connected))
		hang_up(s, node);
	/* A startup process that has seen the promote file starts no walreceiver any more
	 * (WaitForWALToBecomeAvailable looks for it first); one that streams goes on while WAL is
	 * left to replay. */
	if (!p->streaming && can && p->phase != PGP_PROMOTING &&
		s->nodes[u].pg.phase != PGP_STOPPING) {
		p->streaming = true;
		s->nodes[u].pg.standby[node].connected = true;
		s->nodes[u].pg.standby[node].flush = p->lsn;
		sim_log(s, node, "postgres: streams from %s at %" PRIX64, sim_name(u), p->lsn);
		node_turn_soon(s, u, 50);
	}
	if (p->streaming)
		wal_send(s, u, node);
}

static bool satisfied(const struct sim_pg *p, uint64_t lsn)
{
	const struct sim_ssn *n = &p->ssn;
	if (!n->set)
		return true;
	int have = 0;
	for (int i = 0; i < SIM_NODES; i++)
		if ((n->names & (1u << i)) && p->standby[i].connected && p->standby[i].flush >= lsn)
			have++;
	return !n->placeholder && have >= n->n;
}

void wal_release_waiting(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (!pg_accepts_writes(s, node))
		return;
	unsigned kept = 0;
	for (unsigned i = 0; i < p->waiting_count; i++) {
		if (satisfied(p, p->waiting[i].lsn))
			check_ack(s, node, p->waiting[i].lsn, p->ssn.set);
		else
			p->waiting[kept++] = p->waiting[i];
	}
	p->waiting_count = kept;
}

void pg_set_ssn(struct sim *s, int node, struct sim_ssn ssn)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (memcmp(&p->ssn_file, &ssn, sizeof(ssn)) == 0)
		return;
	p->ssn_file = ssn;
	if (p->phase == PGP_NONE)
		return;
	sim_log(s, node, "postgres: synchronous_standby_names %s n=%d names=%02x%s",
		ssn.quorum ? "ANY" : "priority", ssn.n, ssn.names,
		ssn.placeholder ? " placeholder"
		: ssn.set	? ""
				: " (none)");
	p->ssn = ssn;
	wal_release_waiting(s, node);
}

void pg_follow(struct sim *s, int node, int upstream)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->upstream == upstream)
		return;
	hang_up(s, node);
	p->upstream = (int8_t)upstream;
}

static void arrives(struct sim *s, const struct sim_event *ev)
{
	struct sim_pg *p = &s->nodes[ev->node].pg;
	uint64_t lsn = p->arriving_lsn;
	if (!p->streaming || !lsn || (uint64_t)ev->a != lsn)
		return;
	p->arriving_lsn = 0;
	int u = p->upstream;
	if (!receives(s, ev->node) || !net_open(s, u, ev->node) || !pg_can_stream(s, ev->node, u))
		return;
	/* A standby learns the sender's timelines on the way. */
	p->branch = s->nodes[u].pg.branch;
	p->lsn = lsn;
	if (!s->nodes[ev->node].replay_stuck)
		p->replay_lsn = lsn;
	if (p->phase == PGP_RECOVERY) {
		pg_consistent(s, ev->node);
		node_turn_soon(s, ev->node, 2);
	}
	int64_t delay = net_delay(s, ev->node, u);
	if (delay >= 0)
		sim_at(s, s->now_ms + delay, EV_PG_FEEDBACK, u, (int64_t)lsn, ev->node, NULL);
	wal_send(s, u, ev->node);
	wal_send_all(s, ev->node);
}

static void feedback(struct sim *s, const struct sim_event *ev)
{
	struct sim_pg *u = &s->nodes[ev->node].pg;
	int from = (int)ev->b;
	if (!u->standby[from].connected)
		return;
	if ((uint64_t)ev->a > u->standby[from].flush)
		u->standby[from].flush = (uint64_t)ev->a;
	if (u->waiting_count)
		wal_release_waiting(s, ev->node);
}

void wal_event(struct sim *s, const struct sim_event *ev)
{
	if (ev->kind == EV_PG_TICK)
		tick(s, ev->node, ev->a);
	else if (ev->kind == EV_PG_WAL)
		arrives(s, ev);
	else
		feedback(s, ev);
}

void pg_client_write(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (!pg_accepts_writes(s, node))
		return;
	s->commits++;
	p->lsn += 8 * (1 + rng_below(&s->rng, 200));
	p->replay_lsn = p->lsn;
	wal_send_all(s, node);
	if (!p->ssn.set) {
		check_ack(s, node, p->lsn, false);
		return;
	}
	if (p->waiting_count == SIM_WAITING)
		p->waiting_count =
			SIM_WAITING / 2; /* clients gave up: cancelled, not acknowledged */
	p->waiting[p->waiting_count++] = (struct sim_commit){ .lsn = p->lsn, .at_ms = s->now_ms };
}
