/* Supervisor and dead-man of a node: the real guard_step, and a model of what carries its actions
 * out. */
#include <string.h>

#include "tests/sim/sim.h"

static struct sim_message *message(struct sim *s, enum sim_message_kind kind)
{
	struct sim_message *m = arena_take(&s->arena, ARENA_MESSAGE, sizeof(*m));
	m->kind = kind;
	return m;
}

static int64_t ipc_ms(struct sim *s)
{
	return (int64_t)rng_below(&s->rng, 2);
}

static void to_worker(struct sim *s, int node, struct sim_message *m)
{
	sim_at_proc(s, s->now_ms + ipc_ms(s), EV_WORKER_MSG, node, PROC_WORKER, 0, 0, m);
}

static void to_other(struct sim *s, int node, bool is_dm, enum sim_message_kind kind)
{
	struct sim_node *n = &s->nodes[node];
	const struct guard *g = is_dm ? &n->dm.guard : &n->sup.guard;
	enum sim_proc other = is_dm ? PROC_SUP : PROC_DM;
	if (!n->procs[other].alive)
		return;
	struct sim_message *m = message(s, kind);
	if (kind == SM_STATE)
		guard_export(g, node_clock(s, node), &m->state);
	m->seq = g->state_seq;
	m->generation = g->generation;
	m->ok = g->pm_state == PG_PROC_FENCING;
	sim_at_proc(s, s->now_ms + ipc_ms(s), EV_DM_MSG, node, other, 0, 0, m);
}

static struct guard_actions step(struct sim *s, int node, bool is_dm, struct guard_event ev);

static void fence_begins(struct sim *s, int node, bool is_dm, bool sweep)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_enforcer *e = is_dm ? &n->dm : &n->sup;
	/* DESIGN 8: SIGKILL is pending on every backend at most 100 ms after the deadline. */
	int64_t ms = sweep ? 1 : sim_range(&s->rng, 1, 100);
	sim_at_proc(s, s->now_ms + ms, EV_KILLED, node, is_dm ? PROC_DM : PROC_SUP, 0,
		(int64_t)e->guard.generation, NULL);
}

static void carry_out(struct sim *s, int node, bool is_dm, const struct guard_actions *a)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_enforcer *e = is_dm ? &n->dm : &n->sup;
	if (a->flags & GUARD_FENCE) {
		sim_log(s, node, "%s fences: %s", is_dm ? "dead-man" : "supervisor", a->reason);
		fence_begins(s, node, is_dm, false);
	}
	if (a->flags & GUARD_SWEEP)
		fence_begins(s, node, is_dm, true);
	if (a->flags & GUARD_STOP_FAST)
		pg_stop(s, node, PG_STOP_FAST);
	if (a->flags & GUARD_ASK_PROOF)
		to_worker(s, node, message(s, SM_ASK_PROOF));
	if (a->flags & GUARD_SEND_STATE)
		to_other(s, node, is_dm, is_dm ? SM_DM_ACK : SM_STATE);
	if (a->flags & GUARD_REPLACE_PEER) {
		if (n->procs[PROC_DM].alive)
			node_kill(s, node, PROC_DM);
		sim_at(s, s->now_ms + sim_range(&s->rng, 5, 60), EV_PROC_START, node, PROC_DM, 0,
			NULL);
	}
	if (a->wake_at_ms != e->wake_at_ms) {
		e->wake_at_ms = a->wake_at_ms;
		int64_t at = node_when(s, node, a->wake_at_ms);
		sim_at_proc(s, at, EV_GUARD_TICK, node, is_dm ? PROC_DM : PROC_SUP, a->wake_at_ms,
			0, NULL);
	}
}

static struct guard_actions step(struct sim *s, int node, bool is_dm, struct guard_event ev)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_enforcer *e = is_dm ? &n->dm : &n->sup;
	ev.wall_offset_ms = 1000000000000 + n->wall_offset_ms;
	struct guard_actions a = guard_step(&e->guard, &ev, node_clock(s, node));
	carry_out(s, node, is_dm, &a);
	return a;
}

static void start_gate(struct sim *s, int node, struct sim_message *m);

/* The answer to an order leaves when the dead-man knows what it rests on. */
static void answer(struct sim *s, int node, struct sim_message *m)
{
	if (m->kind == SM_START && m->ok) {
		start_gate(s, node, m);
		return;
	}
	bool lease = m->kind == SM_LEASE;
	m->kind = lease ? SM_ACK : SM_ANSWER;
	to_worker(s, node, m);
}

static void answer_when_synced(
	struct sim *s, int node, struct sim_message *m, const struct guard_actions *a)
{
	struct sim_enforcer *e = &s->nodes[node].sup;
	m->ok = !(a->flags & GUARD_REFUSED);
	m->text = a->reason;
	if (m->ok && a->hold_seq && !guard_synced(&e->guard, a->hold_seq)) {
		if (e->held_count < 8) {
			e->held[e->held_count].msg = m;
			e->held[e->held_count++].seq = a->hold_seq;
			return;
		}
		m->ok = false;
	}
	if (!m->ok)
		sim_log(s, node, "supervisor refuses %d: %s", m->kind, a->reason);
	answer(s, node, m);
}

static void release_held(struct sim *s, int node)
{
	struct sim_enforcer *e = &s->nodes[node].sup;
	unsigned kept = 0;
	for (unsigned i = 0; i < e->held_count; i++) {
		if (guard_synced(&e->guard, e->held[i].seq)) {
			answer(s, node, e->held[i].msg);
		} else {
			e->held[kept] = e->held[i];
			kept++;
		}
	}
	e->held_count = kept;
}

static void start_gate(struct sim *s, int node, struct sim_message *m)
{
	struct guard_event ev = { .kind = GUARD_EV_GATE,
		.generation = m->generation,
		.lease_until_ms = m->until_ms,
		.deadline_ms = m->deadline_ms };
	struct guard_actions a = step(s, node, false, ev);
	m->kind = SM_ANSWER;
	m->ok = !(a.flags & GUARD_REFUSED);
	if (m->ok) {
		pg_spawn(s, node, m->mode);
	} else {
		sim_log(s, node, "supervisor keeps the gate shut: %s", a.reason);
		step(s, node, false,
			(struct guard_event){ .kind = GUARD_EV_EXIT, .generation = m->generation });
	}
	to_worker(s, node, m);
}

static void order(struct sim *s, int node, struct sim_message *m)
{
	struct sim_node *n = &s->nodes[node];
	struct guard_event ev = { .generation = m->generation,
		.deadline_ms = m->deadline_ms,
		.lease_until_ms = m->until_ms };
	struct guard_actions a;
	switch (m->kind) {
	case SM_LEASE:
		a = step(s, node, false,
			(struct guard_event){ .kind = GUARD_EV_LEASE, .lease = &m->lease });
		m->seq = m->lease.seq;
		answer_when_synced(s, node, m, &a);
		return;
	case SM_PROOF:
		step(s, node, false,
			(struct guard_event){ .kind = GUARD_EV_PROOF, .proof = &m->proof });
		return;
	case SM_START:
		ev.kind = GUARD_EV_START;
		ev.pm_kind = m->mode;
		ev.generation = m->generation = ++s->next_generation;
		a = step(s, node, false, ev);
		answer_when_synced(s, node, m, &a);
		return;
	case SM_PROMOTE:
		ev.kind = GUARD_EV_PROMOTE;
		a = step(s, node, false, ev);
		answer_when_synced(s, node, m, &a);
		return;
	case SM_STOP:
		if (m->mode >= PG_STOP_KILL) {
			step(s, node, false,
				(struct guard_event){ .kind = GUARD_EV_FENCE_ORDER,
					.generation = m->generation });
			return;
		}
		ev.kind = GUARD_EV_STOP;
		a = step(s, node, false, ev);
		if (!(a.flags & GUARD_REFUSED) && n->pg.generation == m->generation) {
			pg_stop(s, node, (enum pg_stop_mode)m->mode);
			if (m->until_ms) { /* the time-out: then the next harder mode */
				struct sim_message *next = message(s, SM_STOP);
				*next = *m;
				next->mode++;
				next->deadline_ms = INT64_MAX;
				sim_at_proc(s, s->now_ms + m->until_ms, EV_SUP_MSG, node, PROC_SUP,
					0, 0, next);
			}
		}
		return;
	case SM_FENCE:
		step(s, node, false,
			(struct guard_event){
				.kind = GUARD_EV_FENCE_ORDER, .generation = m->generation });
		return;
	default: return;
	}
}

static void enforcer_message(struct sim *s, int node, bool is_dm, const struct sim_message *m)
{
	if (m->kind == SM_STATE) {
		step(s, node, is_dm,
			(struct guard_event){ .kind = GUARD_EV_STATE, .state = &m->state });
		if (is_dm)
			to_other(s, node, true, SM_DM_ACK);
		return;
	}
	step(s, node, is_dm,
		(struct guard_event){ .kind = GUARD_EV_PEER_SEEN,
			.acked_seq = m->seq,
			.peer_fencing = m->ok,
			.generation = m->generation });
	if (!is_dm)
		release_held(s, node);
}

static void killed(struct sim *s, int node, bool is_dm, const struct sim_event *ev)
{
	struct sim_node *n = &s->nodes[node];
	if (n->pg.generation == (uint64_t)ev->b)
		pg_kill(s, node, EXIT_CLASS_FENCED, is_dm ? "dead-man's fence" : "fence");
	step(s, node, is_dm,
		(struct guard_event){ .kind = GUARD_EV_KILLED, .generation = (uint64_t)ev->b });
	sim_at_proc(s, s->now_ms + sim_range(&s->rng, 1, 15), EV_PROVEN, node,
		is_dm ? PROC_DM : PROC_SUP, 0, ev->b, NULL);
}

static void enforcer_event(struct sim *s, const struct sim_event *ev, bool is_dm)
{
	struct sim_node *n = &s->nodes[ev->node];
	struct sim_enforcer *e = is_dm ? &n->dm : &n->sup;
	int node = ev->node;
	switch (ev->kind) {
	case EV_DM_MSG:
		enforcer_message(s, node, is_dm, ev->ptr);
		arena_give(&s->arena, ARENA_MESSAGE, ev->ptr);
		break;
	case EV_GUARD_TICK:
		if (ev->a != e->wake_at_ms)
			break;
		e->wake_at_ms = 0;
		step(s, node, is_dm, (struct guard_event){ .kind = GUARD_EV_TICK });
		break;
	case EV_KILLED: killed(s, node, is_dm, ev); break;
	case EV_PROVEN:
		if (n->pg.phase != PGP_NONE && n->pg.generation == (uint64_t)ev->b)
			break;
		step(s, node, is_dm,
			(struct guard_event){
				.kind = GUARD_EV_PROVEN, .generation = (uint64_t)ev->b });
		if (!is_dm)
			node_turn_soon(s, node, 1);
		break;
	default: break;
	}
}

void sup_event(struct sim *s, const struct sim_event *ev)
{
	if (s->nodes[ev->node].patroni)
		return; /* there is none */
	switch (ev->kind) {
	case EV_SUP_MSG: order(s, ev->node, ev->ptr); break;
	case EV_PG_EXIT:
		sim_log(s, ev->node, "postmaster ended");
		step(s, ev->node, false,
			(struct guard_event){
				.kind = GUARD_EV_EXIT, .generation = (uint64_t)ev->a });
		node_turn_soon(s, ev->node, 1);
		break;
	default: enforcer_event(s, ev, false); break;
	}
}

void dm_event(struct sim *s, const struct sim_event *ev)
{
	enforcer_event(s, ev, true);
}

/* Both gone: the kernel kills the postmaster, the helpers kill what outlives it. Not in pause. */
static void lifeline(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	const struct guard *g = &n->sup.guard;
	if (g->policy == POLICY_PAUSED && !g->pause_enforce)
		return;
	pg_kill(s, node, EXIT_CLASS_UNKNOWN, "both enforcers are gone");
}

void enforcers_peer_gone(struct sim *s, int node, enum sim_proc gone)
{
	struct sim_node *n = &s->nodes[node];
	enum sim_proc other = gone == PROC_SUP ? PROC_DM : PROC_SUP;
	if (!n->procs[other].alive) {
		lifeline(s, node);
		return;
	}
	if (n->procs[other].frozen || n->vm_paused)
		return; /* the next tick notices */
	step(s, node, other == PROC_DM, (struct guard_event){ .kind = GUARD_EV_PEER_DEAD });
}

static void helpers(struct sim *s, int node)
{
	sim_at(s, s->now_ms + sim_range(&s->rng, 20, 200), EV_PROC_START, node, PROC_WORKER, 0,
		NULL);
	sim_at(s, s->now_ms + sim_range(&s->rng, 20, 100), EV_PROC_START, node, PROC_API, 0, NULL);
}

void sup_start(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	int64_t now = node_clock(s, node);
	memset(&n->sup, 0, sizeof(n->sup));
	guard_init(&n->sup.guard, GUARD_SUPERVISOR, now);
	if (n->procs[PROC_DM].alive && !n->procs[PROC_DM].frozen) {
		struct msg_dm_state state;
		guard_export(&n->dm.guard, now, &state);
		step(s, node, false,
			(struct guard_event){ .kind = GUARD_EV_STATE, .state = &state });
		step(s, node, true, (struct guard_event){ .kind = GUARD_EV_PEER_NEW });
		step(s, node, false, (struct guard_event){ .kind = GUARD_EV_PEER_NEW });
		/* What ended meanwhile is noticed by its pidfd. */
		if (n->pg.phase == PGP_NONE && n->sup.guard.pm_state != PG_PROC_NONE)
			sim_at_proc(s, s->now_ms + 1, EV_PG_EXIT, node, PROC_SUP,
				(int64_t)n->sup.guard.generation, EXIT_CLASS_UNKNOWN, NULL);
	} else {
		if (n->procs[PROC_DM].alive)
			node_kill(s, node, PROC_DM);
		if (n->pg.phase != PGP_NONE) {
			n->pg.generation = ++s->next_generation;
			sim_log(s, node, "postmaster adopted");
			pg_readopted(s, node);
			step(s, node, false,
				(struct guard_event){
					.kind = GUARD_EV_ADOPT, .generation = n->pg.generation });
		}
		sim_at(s, s->now_ms + sim_range(&s->rng, 5, 40), EV_PROC_START, node, PROC_DM, 0,
			NULL);
	}
	helpers(s, node);
	step(s, node, false, (struct guard_event){ .kind = GUARD_EV_TICK });
}

void dm_start(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	memset(&n->dm, 0, sizeof(n->dm));
	guard_init(&n->dm.guard, GUARD_DEADMAN, node_clock(s, node));
	if (n->procs[PROC_SUP].alive && !n->procs[PROC_SUP].frozen)
		step(s, node, false, (struct guard_event){ .kind = GUARD_EV_PEER_NEW });
}
