/* The model of worker/turn, keeper and publish: events in, ha_step and keeper_step in the middle,
 * effects out. */
#include <string.h>

#include "tests/sim/sim.h"

const struct settings *worker_settings(const struct sim *s, int node)
{
	return sim_settings(s, (int64_t)s->nodes[node].w.settings_version);
}

void worker_to_sup(struct sim *s, int node, struct sim_message m)
{
	if (!s->nodes[node].procs[PROC_SUP].alive)
		return;
	struct sim_message *copy = arena_take(&s->arena, ARENA_MESSAGE, sizeof(*copy));
	*copy = m;
	sim_at_proc(s, s->now_ms + (int64_t)rng_below(&s->rng, 2), EV_SUP_MSG, node, PROC_SUP, 0, 0,
		copy);
}

void node_turn_soon(struct sim *s, int node, int64_t in_ms)
{
	struct sim_node *n = &s->nodes[node];
	if (!n->on || !n->procs[PROC_WORKER].alive || n->patroni)
		return;
	int64_t at = s->now_ms + in_ms;
	if (n->w.turn_at_ms && n->w.turn_at_ms <= at)
		return;
	n->w.turn_at_ms = at;
	sim_at_proc(s, at, EV_TURN, node, PROC_WORKER, (int64_t)++n->w.turn_serial, 0, NULL);
}

/* ---- keeper ---- */

static enum dcs_op_kind dcs_kind(enum keeper_op op)
{
	switch (op) {
	case KEEPER_OP_ACQUIRE: return DCS_ACQUIRE;
	case KEEPER_OP_ADOPT: return DCS_ADOPT;
	case KEEPER_OP_RELEASE: return DCS_RELEASE;
	case KEEPER_OP_TAKE:
	case KEEPER_OP_RENEW:
	case KEEPER_OP_NONE: break;
	}
	return DCS_RENEW;
}

static void keeper_tick_at(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	int64_t next = keeper_next_ms(&w->keeper, node_clock(s, node));
	if (next == w->keeper_tick_ms)
		return;
	w->keeper_tick_ms = next;
	if (next < INT64_MAX)
		sim_at_proc(
			s, node_when(s, node, next), EV_KEEPER, node, PROC_WORKER, next, 0, NULL);
}

static void keeper_act(struct sim *s, int node, const struct keeper_action *a)
{
	struct sim_worker *w = &s->nodes[node].w;
	switch (a->kind) {
	case KEEPER_SEND: {
		struct sim_op *op = store_op(s, node, dcs_kind(a->op));
		op->version = a->version;
		struct sim_request req = { .use = REQ_KEEPER, .op = a->op, .epoch = a->epoch };
		store_submit(s, node, op, req, a->deadline_ms, a->other);
		break;
	}
	case KEEPER_REPORT: {
		struct sim_message m = { .kind = SM_LEASE };
		m.lease = (struct msg_lease){ .seq = a->seq,
			.sent_at_ms = a->sent_at_ms,
			.lease_until_ms = a->lease_until_ms,
			.ttl_ms = a->ttl_ms,
			.policy = a->policy,
			.pause_enforce = a->pause_enforce,
			.wall_offset_ms = 1000000000000 + s->nodes[node].wall_offset_ms };
		worker_to_sup(s, node, m);
		break;
	}
	case KEEPER_DONE:
		if (a->op == KEEPER_OP_RELEASE) {
			w->task.released |= w->task.kind == TASK_DEMOTE && w->task.release_asked;
			if (w->blocked_on) {
				w->blocked_on = 0;
				sim_at_proc(s, s->now_ms, EV_EXEC, node, PROC_WORKER, 0, 0, NULL);
			}
		} else if (w->stepping && w->plan.await == AWAIT_DCS) {
			exec_answer(s, node, a->outcome, a->version);
		}
		break;
	case KEEPER_SET_TTL:
		if (w->store_ttl_ms && w->store_ttl_ms != a->ttl_ms) {
			w->old_session = w->session;
			w->session = dcs_session_new(s, node);
		}
		w->store_ttl_ms = a->ttl_ms;
		break;
	case KEEPER_WAKE: node_turn_soon(s, node, 0); break;
	case KEEPER_PROVE:
		break; /* never asked: the proofs of a simulated pause are always fresh */
	}
}

void worker_keeper(struct sim *s, int node, struct keeper_event ev)
{
	struct sim_worker *w = &s->nodes[node].w;
	struct keeper_plan plan;
	keeper_step(&w->keeper, &ev, node_clock(s, node), &plan);
	for (unsigned i = 0; i < plan.count; i++)
		keeper_act(s, node, &plan.actions[i]);
	keeper_tick_at(s, node);
}

static void keeper_config(struct sim *s, int node)
{
	const struct settings *set = worker_settings(s, node);
	worker_keeper(s, node,
		(struct keeper_event){ .kind = KEEPER_CONFIG,
			.ttl_ms = set->ttl_ms,
			.loop_wait_ms = set->loop_wait_ms,
			.retry_timeout_ms = set->retry_timeout_ms,
			.paused = set->pause,
			.pause_enforce = set->pause_enforce });
}

/* ---- snapshot ---- */

void worker_snapshot(struct sim *s, int node, struct sim_snapshot *snap)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (w->snap && snap->c.revision < w->snap->c.revision)
		return; /* overtaken */
	w->read_at_ms = node_clock(s, node);
	w->store_failing_ms = 0;
	snap->refs++;
	bool leader = !w->snap || strcmp(w->snap->c.leader, snap->c.leader) != 0 ||
		      w->snap->c.failover_version != snap->c.failover_version ||
		      cluster_members_differ(&w->snap->c, &snap->c);
	snapshot_drop(s, w->snap);
	w->snap = snap;
	if (snap->c.config_valid && w->settings_version != (uint64_t)snap->c.config_version) {
		/* It may have been suspended since long before the others went on. */
		if (worker_settings(s, node)->pause)
			s->nodes[node].last_paused_ms = s->now_ms;
		w->settings_version = (uint64_t)snap->c.config_version;
		s->nodes[node].config_behind_ms = s->now_ms;
		keeper_config(s, node);
		leader = true;
	}
	char session[48], old[48];
	snprintf(session, sizeof(session), "s%u", w->session);
	snprintf(old, sizeof(old), "s%u", w->old_session);
	bool mine = strcmp(snap->c.leader, sim_name(node)) == 0;
	worker_keeper(s, node,
		(struct keeper_event){ .kind = KEEPER_SNAPSHOT,
			.leader_is_me = mine,
			.session_is_mine =
				mine && (strcmp(snap->c.leader_session, session) == 0 ||
						strcmp(snap->c.leader_session, old) == 0),
			.no_leader = !snap->c.leader_present,
			.leader_version = snap->c.leader_version,
			.revision = snap->c.revision });
	if (leader)
		node_turn_soon(s, node, 0);
}

/* ---- proofs ---- */

static void prove(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_pg *p = &n->pg;
	if (p->phase == PGP_NONE)
		return;
	struct sim_message m = { .kind = SM_PROOF };
	m.proof.generation = p->generation;
	m.proof.at_ms = node_clock(s, node);
	bool told = n->sup.guard.pm_state == PG_PROC_STOPPING;
	if (p->phase == PGP_SHUT && told && p->control == PG_DB_SHUTDOWNED)
		m.proof.kind = PROOF_SHUTDOWN_CONTROL;
	else if (p->phase == PGP_STANDBY && !p->hung && !p->frozen)
		m.proof.kind = PROOF_RECOVERY_SQL;
	else if (p->standby_signal && !p->promote_file &&
		 (p->control == PG_DB_IN_ARCHIVE_RECOVERY ||
			 p->control == PG_DB_SHUTDOWNED_IN_RECOVERY))
		m.proof.kind = PROOF_RECOVERY_CONTROL;
	else
		return;
	n->w.proof_sent_ms = m.proof.at_ms;
	worker_to_sup(s, node, m);
}

/* A timer of its own: a proof must not wait for the store. */
static void prove_again(struct sim *s, int node)
{
	prove(s, node);
	sim_at_proc(s, s->now_ms + worker_settings(s, node)->ttl_ms / 5, EV_PROOF, node,
		PROC_WORKER, 0, 0, NULL);
}

/* ---- the turn ---- */

static void leave_heir(struct sim *s, int node, const struct ha_view *v)
{
	const struct ha_memory *m = &s->nodes[node].w.memory;
	struct sim_heir *h = &s->nodes[node].heir;
	h->there = failsafe_bequeathed(v, m);
	if (!h->there)
		return;
	h->version = v->c->failsafe_version;
	h->settings_version = s->nodes[node].w.settings_version;
	h->emptied = m->failsafe_emptied;
	h->map_count = h->sent_count = 0;
	for (unsigned i = 0; i < v->c->failsafe_count && i < SIM_NODES; i++)
		h->map[h->map_count++] = v->c->failsafe[i];
	for (unsigned i = 0; i < m->failsafe_sent_count && i < SIM_NODES; i++) {
		struct failsafe_member *p = &h->sent[h->sent_count++];
		memcpy(p->name, m->failsafe_sent[i].name, sizeof(p->name));
		memcpy(p->api_url, m->failsafe_sent[i].api_url, sizeof(p->api_url));
	}
}

static void take_heir(struct sim *s, int node)
{
	struct ha_memory *m = &s->nodes[node].w.memory;
	struct sim_heir *h = &s->nodes[node].heir;
	h->c = (struct cluster){ 0 };
	if (!h->there)
		return;
	s->nodes[node].w.settings_version = h->settings_version;
	failsafe_inherit(m, h->emptied);
	for (unsigned i = 0; i < h->sent_count; i++) {
		bool fits = failsafe_inherit_sent(
			m, h->sent[i].name, h->sent[i].api_url, node_clock(s, node));
		INVARIANT(fits);
	}
	h->c.failsafe_present = true;
	h->c.failsafe = h->map;
	h->c.failsafe_count = h->map_count;
	h->c.failsafe_version = h->version;
}

const struct cluster *worker_cluster(const struct sim_node *n)
{
	return n->w.snap ? &n->w.snap->c : &n->heir.c;
}

static void run_step(struct sim *s, int node, const struct ha_result *result)
{
	struct sim_worker *w = &s->nodes[node].w;
	struct ha_view view;
	view_build(s, node, &view, result);
	w->task_ended = TASK_NONE;
	ha_step(&view, &w->memory, result, &w->plan);
	s->turns++;
	leave_heir(s, node, &view);
	check_plan(s, node, &w->plan);
	if (w->plan.await == AWAIT_NONE || w->plan.verdict != VERDICT_NONE)
		worker_keeper(s, node,
			(struct keeper_event){ .kind = KEEPER_VERDICT,
				.verdict = w->plan.verdict,
				.at_ms = view.now_ms });
	w->pc = 0;
	w->stepping = true;
	exec_plan(s, node);
}

static void schedule_next(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	const struct settings *set = worker_settings(s, node);
	int64_t now = node_clock(s, node);
	int64_t next = w->next_turn_ms > now ? w->next_turn_ms : now + set->loop_wait_ms;
	w->next_turn_ms = next;
	if (w->plan.next_run_ms && w->plan.next_run_ms < next)
		next = w->plan.next_run_ms;
	if (w->turn_wanted)
		next = now;
	w->turn_wanted = false;
	if (next <= now && w->plan.next_run_ms && w->plan.next_run_ms <= now)
		next = now + 10;
	node_turn_soon(s, node, node_when(s, node, next) - s->now_ms);
}

/* The plan was carried out: rest until the next reason to look. */
void worker_unblock(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (w->blocked_on)
		return;
	if (w->stepping && w->plan.await == AWAIT_NONE && w->pc >= w->plan.count) {
		w->stepping = false;
		schedule_next(s, node);
	}
}

void exec_answer(struct sim *s, int node, enum ha_outcome outcome, int64_t version)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (!w->stepping || w->plan.await == AWAIT_NONE)
		return;
	w->await_serial++;
	struct ha_result r = { .present = true,
		.outcome = outcome,
		.version = version,
		.failsafe_ok = w->failsafe_all_ok };
	run_step(s, node, &r);
}

static void turn(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	w->turn_at_ms = 0;
	if (w->stepping) {
		w->turn_wanted = true;
		return;
	}
	if (s->nodes[node].rules_stopped_ms > s->now_ms) {
		node_turn_soon(s, node, s->nodes[node].rules_stopped_ms - s->now_ms);
		return;
	}
	int64_t now = node_clock(s, node);
	if (now >= w->next_turn_ms && !w->cycle_read) {
		/* The beat of loop_wait: a fresh read, then the cycle. */
		w->cycle_read = true;
		w->next_turn_ms = now + worker_settings(s, node)->loop_wait_ms;
		store_read(s, node, REQ_READ);
		if (w->snap)
			return;
	}
	prove(s, node);
	run_step(s, node, &(struct ha_result){ 0 });
}

static void from_sup(struct sim *s, int node, struct sim_message *m)
{
	switch (m->kind) {
	case SM_ACK:
		worker_keeper(s, node,
			(struct keeper_event){
				.kind = KEEPER_ACK, .seq = m->seq, .accepted = m->ok });
		break;
	case SM_ASK_PROOF: prove(s, node); break;
	case SM_SILENT:
		if (!m->ok && !s->nodes[node].procs[PROC_SUP].frozen)
			break; /* it was heard again in time */
		worker_keeper(s, node,
			(struct keeper_event){ .kind = KEEPER_SUPERVISOR, .alive = m->ok });
		break;
	case SM_ANSWER: task_message(s, node, m); break;
	default: break;
	}
}

static void on_keeper_tick(struct sim *s, const struct sim_event *ev)
{
	struct sim_worker *w = &s->nodes[ev->node].w;
	if (ev->a != w->keeper_tick_ms)
		return;
	w->keeper_tick_ms = 0;
	worker_keeper(s, ev->node, (struct keeper_event){ .kind = KEEPER_TICK });
	/* The gentle demotion starts when it is due, not at the next beat. */
	int64_t gentle = keeper_gentle_ms(&w->keeper);
	if (gentle && node_clock(s, ev->node) >= gentle - 5000)
		node_turn_soon(s, ev->node, 0);
}

void worker_event(struct sim *s, const struct sim_event *ev)
{
	if (s->nodes[ev->node].patroni) {
		patroni_event(s, ev);
		return;
	}
	struct sim_worker *w = &s->nodes[ev->node].w;
	switch (ev->kind) {
	case EV_OP_ANSWER:
	case EV_OP_DEADLINE:
	case EV_WATCH: store_event(s, ev); break;
	case EV_TURN:
		if ((uint64_t)ev->a == w->turn_serial)
			turn(s, ev->node);
		break;
	case EV_KEEPER: on_keeper_tick(s, ev); break;
	case EV_AWAIT:
		if (w->stepping && ev->a == w->await_serial)
			exec_answer(s, ev->node,
				ev->b == 2				    ? HA_OUT_DENIED
				: ev->b == 1 || w->plan.await == AWAIT_TIME ? HA_OUT_OK
									    : HA_OUT_UNKNOWN,
				0);
		break;
	case EV_WORKER_MSG: from_sup(s, ev->node, ev->ptr); break;
	case EV_PROOF: prove_again(s, ev->node); break;
	case EV_TASK: task_event(s, ev); break;
	case EV_EXEC: exec_plan(s, ev->node); break;
	case EV_PEER_ANSWER:
	case EV_PEER_REQUEST: peer_event(s, ev); break;
	default: break;
	}
}

void worker_start(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_worker *w = &n->w;
	marks_worker_gone(s, node);
	snapshot_drop(s, w->snap);
	uint32_t next_id = w->next_id;
	memset(w, 0, sizeof(*w));
	w->next_id = next_id;
	w->session = dcs_session_new(s, node);
	w->settings_version = n->cached_config ? n->cached_config : 1;
	w->following = -1;
	w->failsafe_leader = -1;
	w->state = PG_STATE_STOPPED;
	w->role = n->pg.phase == PGP_PRIMARY ? PG_ROLE_PRIMARY : PG_ROLE_REPLICA;
	keeper_init(&w->keeper, n->sup.guard.lease_seq, n->sup.guard.lease_until_ms,
		node_clock(s, node));
	take_heir(s, node);
	s->dcs.watch_pending[node] = false;
	keeper_config(s, node);
	prove_again(s, node);
	node_turn_soon(s, node, 1);
}
