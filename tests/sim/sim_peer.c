/* Members that ask each other: GET /patroni in a race, POST /failsafe. Answered from the peer's api
 * process; what a hanging PostgreSQL does not tell is left out, so that such a peer counts as not
 * reachable. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

void peer_poll(struct sim *s, int node, const struct ha_action *a, bool failsafe)
{
	struct sim_worker *w = &s->nodes[node].w;
	uint32_t mask = 0;
	for (unsigned i = 0; i < a->name_count; i++) {
		int n = sim_index(w->plan.names[a->name_first + i]);
		mask |= n >= 0 && n != node ? 1u << n : 0;
	}
	const struct cluster *c = worker_cluster(&s->nodes[node]);
	for (unsigned i = 0; failsafe && i < c->failsafe_count; i++)
		mask |= 1u << sim_index(c->failsafe[i].name);
	mask &= ~(1u << node);
	w->peer_count = w->peers_open = 0;
	w->peers_asked_ms = node_clock(s, node);
	w->peers_asked_true_ms = s->now_ms;
	w->failsafe_all_ok = true;
	w->poll_serial++;
	for (int i = 0; i < SIM_NODES; i++) {
		if (!(mask & (1u << i)))
			continue;
		struct ha_peer *p = &w->peers[w->peer_count++];
		*p = (struct ha_peer){ 0 };
		snprintf(p->name, sizeof(p->name), "%s", sim_name(i));
		w->peers_open++;
		int64_t delay = net_delay(s, node, i);
		if (delay < 0)
			continue;
		struct sim_message *m = arena_take(&s->arena, ARENA_MESSAGE, sizeof(*m));
		m->kind = failsafe ? SM_FAILSAFE : SM_POLL;
		m->from = (int8_t)node;
		m->id = w->poll_serial;
		m->until_ms = worker_settings(s, node)->ttl_ms; /* "ttl" of POST /failsafe */
		m->from_incarnation = s->nodes[node].procs[PROC_WORKER].incarnation;
		sim_at_proc(s, s->now_ms + delay, EV_PEER_REQUEST, i,
			failsafe ? PROC_WORKER : PROC_API, 0, 0, m);
	}
	int64_t wait = w->peers_open ? 2000 : 1;
	sim_at_proc(
		s, s->now_ms + wait, EV_PEER_ANSWER, node, PROC_WORKER, w->poll_serial, 1, NULL);
}

static void answer_poll(struct sim *s, int node, struct ha_peer *p)
{
	const struct sim_node *n = &s->nodes[node];
	snprintf(p->name, sizeof(p->name), "%s", sim_name(node));
	p->nofailover = n->tags.nofailover || n->w.shown_nofailover;
	topo_peer(s, node, p);
	p->failover_priority = n->tags.nofailover ? 0 : n->tags.failover_priority;
	p->answered = !n->pg.hung && !n->pg.frozen &&
		      (n->pg.phase == PGP_STANDBY || n->pg.phase == PGP_PROMOTING ||
			      n->pg.phase == PGP_PRIMARY);
	if (!p->answered)
		return;
	p->in_recovery = n->pg.phase != PGP_PRIMARY && n->w.role != PG_ROLE_PROMOTED;
	p->position = n->pg.lsn;
	p->timeline = s->branches[n->pg.branch].tli;
}

static void answer_failsafe(struct sim *s, int node, int from, int64_t ttl_ms, struct ha_peer *p)
{
	struct sim_node *n = &s->nodes[node];
	const struct settings *set = worker_settings(s, node);
	snprintf(p->name, sizeof(p->name), "%s", sim_name(node));
	if (!set->failsafe_mode || (n->pg.phase == PGP_PRIMARY && n->w.role == PG_ROLE_PRIMARY) ||
		n->w.role == PG_ROLE_PROMOTED || n->w.task.kind == TASK_PROMOTE ||
		keeper_lease_until_ms(&n->w.keeper) > node_clock(s, node))
		return;
	p->answered = true;
	n->w.failsafe_leader = (int8_t)from;
	n->w.failsafe_last_ms = node_clock(s, node);
	n->w.failsafe_ttl_ms = set->ttl_ms;
	if (ttl_ms > n->w.failsafe_ttl_ms)
		n->w.failsafe_ttl_ms = ttl_ms;
}

static void request(struct sim *s, const struct sim_event *ev)
{
	struct sim_message *m = ev->ptr;
	if (m->kind == SM_POLL)
		answer_poll(s, ev->node, &m->peer);
	else
		answer_failsafe(s, ev->node, m->from, m->until_ms, &m->peer);
	int64_t delay = net_delay(s, ev->node, m->from);
	struct sim_process *asker = &s->nodes[m->from].procs[PROC_WORKER];
	if (delay >= 0 && asker->incarnation == m->from_incarnation)
		sim_at_proc(
			s, s->now_ms + delay, EV_PEER_ANSWER, m->from, PROC_WORKER, m->id, 0, m);
}

static void close_poll(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	bool failsafe = w->plan.await == AWAIT_FAILSAFE;
	for (unsigned i = 0; i < w->peer_count; i++)
		w->failsafe_all_ok &= w->peers[i].answered;
	w->poll_serial++;
	if (s->nodes[node].patroni) {
		patroni_polled(s, node);
		return;
	}
	if (failsafe && w->failsafe_all_ok) {
		s->nodes[node].failsafe_round_ms = w->peers_asked_true_ms;
		s->nodes[node].failsafe_round_ttl_ms = w->memory.failsafe_round_ttl_ms;
	}
	sim_log(s, node, "%s: %u of %u unanswered%s", failsafe ? "failsafe round" : "poll",
		w->peers_open, w->peer_count, failsafe && w->failsafe_all_ok ? ", all accept" : "");
	exec_answer(s, node, HA_OUT_OK, 0);
}

static void answer(struct sim *s, const struct sim_event *ev)
{
	struct sim_worker *w = &s->nodes[ev->node].w;
	if ((uint32_t)ev->a != w->poll_serial)
		return;
	if (ev->b == 1) {
		close_poll(s, ev->node);
		return;
	}
	const struct sim_message *m = ev->ptr;
	for (unsigned i = 0; i < w->peer_count; i++)
		if (strcmp(w->peers[i].name, m->peer.name) == 0)
			w->peers[i] = m->peer;
	if (w->peers_open && --w->peers_open == 0)
		close_poll(s, ev->node);
}

void peer_event(struct sim *s, const struct sim_event *ev)
{
	if (ev->kind == EV_PEER_REQUEST)
		request(s, ev);
	else
		answer(s, ev);
}
