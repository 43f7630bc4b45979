/* Requests of a worker on their way to the store and back: delayed, lost, doubled, answered late or
 * not at all. */
#include <string.h>

#include "tests/sim/sim.h"

struct sim_op *store_op(struct sim *s, int node, enum dcs_op_kind kind)
{
	struct sim_op *op = arena_take(&s->arena, ARENA_OP, sizeof(*op));
	op->kind = kind;
	op->node = (int8_t)node;
	op->failover_leader = op->failover_candidate = -1;
	return op;
}

static struct sim_request *request_slot(struct sim_worker *w)
{
	struct sim_request *oldest = &w->requests[0];
	for (unsigned i = 0; i < SIM_REQUESTS; i++) {
		if (w->requests[i].use == REQ_NONE)
			return &w->requests[i];
		if (w->requests[i].use == REQ_FIRE &&
			(oldest->use != REQ_FIRE || w->requests[i].id < oldest->id))
			oldest = &w->requests[i];
	}
	return oldest;
}

uint32_t store_submit(struct sim *s, int node, struct sim_op *op, struct sim_request req,
	int64_t deadline_ms, bool other)
{
	struct sim_worker *w = &s->nodes[node].w;
	struct sim_request *slot = request_slot(w);
	(void)other; /* the store has one address here; a lost message is as good as a dead endpoint
		      */
	req.id = ++w->next_id;
	req.kind = op->kind;
	req.sent_local_ms = node_clock(s, node);
	*slot = req;
	op->id = req.id;
	op->incarnation = s->nodes[node].procs[PROC_WORKER].incarnation;
	op->session = w->session;
	op->sent_ms = s->now_ms;
	op->sent_local_ms = req.sent_local_ms;
	op->old_session = w->old_session;
	op->ttl_ms = w->store_ttl_ms;
	sim_at_proc(s, node_when(s, node, deadline_ms), EV_OP_DEADLINE, node, PROC_WORKER, req.id,
		0, NULL);
	int64_t delay = net_delay(s, node, SIM_STORE);
	if (delay < 0)
		return req.id;
	if (s->cfg.loss_per_mille && sim_chance(&s->rng, s->cfg.loss_per_mille))
		delay += sim_range(
			&s->rng, 1000, 20000); /* sent again by TCP, or stuck in a queue */
	if (s->net.held[node].until_ms > s->now_ms &&
		(!s->net.held[node].kinds || (s->net.held[node].kinds >> op->kind) & 1))
		delay += s->net.held[node].until_ms - s->now_ms;
	sim_at(s, s->now_ms + delay, EV_OP_ARRIVES, -1, 0, 0, op);
	if (s->cfg.dup_per_mille && sim_chance(&s->rng, s->cfg.dup_per_mille)) {
		struct sim_op *copy = arena_take(&s->arena, ARENA_OP, sizeof(*copy));
		*copy = *op;
		sim_at(s, s->now_ms + delay + sim_range(&s->rng, 1, 15000), EV_OP_ARRIVES, -1, 1, 0,
			copy);
	}
	return req.id;
}

static void arrives(struct sim *s, struct sim_op *op, bool copy)
{
	if (s->dcs.down)
		return;
	dcs_apply(s, op);
	if (copy) {
		snapshot_drop(s, op->snapshot);
		arena_give(&s->arena, ARENA_OP, op);
		return;
	}
	int64_t delay = net_delay(s, SIM_STORE, op->node);
	if (delay < 0 ||
		(s->cfg.unanswered_per_mille && sim_chance(&s->rng, s->cfg.unanswered_per_mille))) {
		snapshot_drop(s, op->snapshot);
		return;
	}
	sim_at_proc(s, s->now_ms + delay, EV_OP_ANSWER, op->node, PROC_WORKER, 0, 0, op);
	if (s->nodes[op->node].procs[PROC_WORKER].incarnation != op->incarnation)
		op->answered = true; /* asked by a predecessor */
}

static enum ha_outcome outcome_of(enum dcs_outcome o)
{
	return o == DCS_OK	   ? HA_OUT_OK
	       : o == DCS_CONFLICT ? HA_OUT_CONFLICT
	       : o == DCS_DENIED   ? HA_OUT_DENIED
				   : HA_OUT_UNKNOWN;
}

static void finish(
	struct sim *s, int node, struct sim_request req, enum ha_outcome outcome, struct sim_op *op)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (s->nodes[node].patroni) {
		patroni_answer(s, node, req, outcome, op);
		return;
	}
	switch (req.use) {
	case REQ_KEEPER:
		worker_keeper(s, node,
			(struct keeper_event){ .kind = KEEPER_ANSWER,
				.op = req.op,
				.epoch = req.epoch,
				.outcome = outcome,
				.sent_at_ms = req.sent_local_ms,
				.lease_ttl_ms = op ? op->lease_ttl_ms : 0,
				.version = op ? op->new_version : 0,
				.lease_gone = op && op->lease_gone });
		break;
	case REQ_READ:
	case REQ_AWAIT:
		if (op && op->snapshot)
			worker_snapshot(s, node, op->snapshot);
		if (req.use == REQ_AWAIT)
			exec_answer(s, node, outcome, op ? op->new_version : 0);
		else {
			w->cycle_read = false;
			node_turn_soon(s, node, 0);
		}
		break;
	case REQ_NONE:
	case REQ_FIRE: break;
	}
}

static struct sim_request take(struct sim_worker *w, uint32_t id)
{
	for (unsigned i = 0; i < SIM_REQUESTS; i++)
		if (w->requests[i].use != REQ_NONE && w->requests[i].id == id) {
			struct sim_request req = w->requests[i];
			w->requests[i].use = REQ_NONE;
			return req;
		}
	return (struct sim_request){ 0 };
}

/* The backend asks for a new lease by itself when the old one is gone, except for a renewal: there
 * it means loss. */
static bool again_with_new_lease(struct sim *s, int node, struct sim_op *op)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (!op->lease_gone || op->kind == DCS_RENEW || op->answered || op->again)
		return false;
	if (op->session == w->session)
		w->session = dcs_session_new(s, node);
	int64_t delay = net_delay(s, node, SIM_STORE);
	if (delay < 0)
		return false;
	op->again = true;
	op->lease_gone = false;
	op->session = w->session;
	op->ttl_ms = w->store_ttl_ms;
	op->sent_local_ms = node_clock(s, node);
	for (unsigned i = 0; i < SIM_REQUESTS; i++)
		if (w->requests[i].use != REQ_NONE && w->requests[i].id == op->id)
			w->requests[i].sent_local_ms = op->sent_local_ms;
	sim_at(s, s->now_ms + delay, EV_OP_ARRIVES, -1, 0, 0, op);
	return true;
}

static void answered(struct sim *s, int node, struct sim_op *op)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (again_with_new_lease(s, node, op))
		return;
	struct sim_request req = op->answered ? (struct sim_request){ 0 } : take(w, op->id);
	if (req.use != REQ_NONE) {
		w->store_failing_ms = 0;
		if (op->lease_gone && op->session == w->session)
			w->session = dcs_session_new(s, node);
		struct sim_snapshot *snap = op->snapshot;
		finish(s, node, req, outcome_of(op->outcome), op);
		(void)snap; /* worker_snapshot took its own reference */
	}
	snapshot_drop(s, op->snapshot);
	arena_give(&s->arena, ARENA_OP, op);
}

static void deadline(struct sim *s, int node, uint32_t id)
{
	struct sim_worker *w = &s->nodes[node].w;
	struct sim_request req = take(w, id);
	if (req.use == REQ_NONE)
		return;
	if (!w->store_failing_ms)
		w->store_failing_ms = req.sent_local_ms;
	/* The store counts as failing from then on: the rules want to know at once. */
	int64_t failing = w->store_failing_ms + worker_settings(s, node)->retry_timeout_ms;
	node_turn_soon(s, node, node_when(s, node, failing) - s->now_ms);
	finish(s, node, req, HA_OUT_UNKNOWN, NULL);
}

void store_read(struct sim *s, int node, enum req_use use)
{
	const struct settings *set = worker_settings(s, node);
	int64_t budget = set ? set->retry_timeout_ms : 10000;
	struct sim_op *op = store_op(s, node, DCS_READ);
	store_submit(s, node, op, (struct sim_request){ .use = use }, node_clock(s, node) + budget,
		false);
}

/* The watch sends what is there when it gets through; several changes may come as one. */
static void watch_send(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	if (!n->on || !n->procs[PROC_WORKER].alive) {
		s->dcs.watch_pending[node] = false; /* a new worker reads first */
		return;
	}
	int64_t delay = net_delay(s, SIM_STORE, node);
	delay += delay < 0 ? 0 : s->dcs.watch_slow_ms[node];
	if (delay < 0 || s->dcs.down || s->now_ms < s->dcs.watch_stalled_ms[node]) {
		sim_at(s, s->now_ms + 500, EV_WATCH_SEND, -1, node, 0, NULL);
		return;
	}
	s->dcs.watch_pending[node] = false;
	sim_at_proc(s, s->now_ms + delay, EV_WATCH, node, PROC_WORKER, 0, 0, dcs_snapshot(s));
}

void store_event(struct sim *s, const struct sim_event *ev)
{
	switch (ev->kind) {
	case EV_OP_ARRIVES: arrives(s, ev->ptr, ev->a == 1); break;
	case EV_SESSION: dcs_session_expire(s, (uint32_t)ev->a); break;
	case EV_WATCH_SEND: watch_send(s, (int)ev->a); break;
	case EV_OP_ANSWER: answered(s, ev->node, ev->ptr); break;
	case EV_OP_DEADLINE: deadline(s, ev->node, (uint32_t)ev->a); break;
	case EV_WATCH:
		worker_snapshot(s, ev->node, ev->ptr);
		snapshot_drop(s, ev->ptr);
		break;
	default: break;
	}
}
