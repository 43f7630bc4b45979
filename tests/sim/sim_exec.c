/* The model of worker/execute: a plan's actions, one after the other, become effects. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

static uint32_t mask_of(const struct ha_plan *plan, const struct ha_action *a)
{
	uint32_t mask = 0;
	for (unsigned i = 0; i < a->name_count; i++) {
		int n = sim_index(plan->names[a->name_first + i]);
		if (n >= 0)
			mask |= 1u << n;
	}
	return mask;
}

static void submit(struct sim *s, int node, struct sim_op *op, bool awaited)
{
	struct sim_worker *w = &s->nodes[node].w;
	const struct settings *set = worker_settings(s, node);
	int64_t deadline =
		awaited ? w->plan.await_deadline_ms : node_clock(s, node) + set->retry_timeout_ms;
	store_submit(s, node, op, (struct sim_request){ .use = awaited ? REQ_AWAIT : REQ_FIRE },
		deadline, false);
}

static void write_status(struct sim *s, int node, uint64_t lsn)
{
	struct sim_node *n = &s->nodes[node];
	if (!lsn && (n->pg.phase != PGP_PRIMARY || n->pg.hung))
		return;
	struct sim_op *op = store_op(s, node, DCS_SET_STATUS);
	op->leader_only = true;
	op->lsn = lsn ? lsn : n->pg.lsn;
	submit(s, node, op, false);
}

static void write_failsafe(struct sim *s, int node, bool equal_too)
{
	const struct sim_worker *w = &s->nodes[node].w;
	struct sim_op *op = store_op(s, node, DCS_SET_FAILSAFE);
	op->leader_only = true;
	op->names = 1u << node;
	for (unsigned i = 0; w->snap && i < w->snap->c.member_count; i++)
		op->names |= 1u << sim_index(w->snap->c.members[i].name);
	uint32_t had = 0;
	for (unsigned i = 0; w->snap && i < w->snap->c.failsafe_count; i++)
		had |= 1u << sim_index(w->snap->c.failsafe[i].name);
	if (had == op->names && !equal_too) {
		arena_give(&s->arena, ARENA_OP, op);
		return;
	}
	submit(s, node, op, false);
}

static void empty_failsafe(struct sim *s, int node, int64_t version)
{
	struct sim_op *op = store_op(s, node, DCS_SET_FAILSAFE);
	op->leader_only = true;
	op->names = 0;
	op->version = version;
	submit(s, node, op, false);
}

static void write_history(struct sim *s, int node)
{
	struct sim_op *op = store_op(s, node, DCS_SET_HISTORY);
	op->leader_only = true;
	op->history = arena_take(&s->arena, ARENA_OTHER, sizeof(struct history_row) * SIM_HISTORY);
	op->history_count = view_history(s, node, op->history);
	submit(s, node, op, false);
}

void exec_write_status(struct sim *s, int node)
{
	write_status(s, node, 0);
}

void exec_write_history(struct sim *s, int node)
{
	write_history(s, node);
}

static uint64_t hash_bytes(const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t h = 1469598103934665603u;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	return h;
}

static void touch_member(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_worker *w = &n->w;
	struct sim_op *op = store_op(s, node, DCS_TOUCH_MEMBER);
	struct member *m = &op->member;
	struct ha_view v;
	view_build(s, node, &v, NULL);
	snprintf(m->name, sizeof(m->name), "%s", sim_name(node));
	snprintf(m->conn_url, sizeof(m->conn_url), "postgres://%s:5432/postgres", m->name);
	snprintf(m->api_url, sizeof(m->api_url), "http://%s:8008/patroni", m->name);
	snprintf(m->state, sizeof(m->state), "%s", pg_state_word(w->state));
	snprintf(m->role, sizeof(m->role), "%s",
		w->role == PG_ROLE_PROMOTED ? "primary" : pg_role_word(w->role));
	m->is_pgregent = true;
	m->tags = n->tags;
	w->shown_nofailover = ha_effective_nofailover(&v, &w->memory);
	m->tags.nofailover |= w->shown_nofailover;
	m->tags.nosync |= ha_effective_nosync(&v, &w->memory);
	m->checkpoint_pending = v.lock == LOCK_HELD && w->memory.rewind_state != REWIND_CHECKPOINT;
	if (w->task.kind == TASK_NONE && v.sql->valid) {
		m->timeline = v.sql->timeline;
		m->xlog_location = pg_sql_position(v.sql) &
				   ~0xfffffull; /* the key is not written for every commit */
		if (n->pg.streaming)
			snprintf(m->replication_state, sizeof(m->replication_state), "%s",
				"streaming");
	}
	uint64_t hash = hash_bytes(m->state, sizeof(m->state)) ^
			hash_bytes(m->role, sizeof(m->role)) * 3 ^
			hash_bytes(&m->tags, sizeof(m->tags)) * 5 ^ (uint64_t)m->timeline * 977 ^
			m->xlog_location ^ (uint64_t)m->checkpoint_pending << 60 ^
			(uint64_t)n->pg.streaming << 61;
	const struct member *seen = w->snap ? cluster_member_peek(&w->snap->c, m->name) : NULL;
	int64_t now = node_clock(s, node);
	/* As the real one: compared with what the store says, so that a write that was lost is
	 * made again; a little later, because the answer takes its time. */
	bool there = seen &&
		     (now - w->member_new_ms < 2000 || (strcmp(seen->role, m->role) == 0 &&
							       strcmp(seen->state, m->state) == 0 &&
							       seen->timeline == m->timeline));
	/* Equal: only the session is kept alive, and not at every event. */
	if (there && hash == w->member_hash &&
		now - w->member_ms < worker_settings(s, node)->ttl_ms / 3) {
		arena_give(&s->arena, ARENA_OP, op);
		return;
	}
	op->suppressed = there && hash == w->member_hash;
	w->member_new_ms = op->suppressed ? w->member_new_ms : now;
	w->member_hash = hash;
	w->member_ms = now;
	submit(s, node, op, false);
}

static void write_sync(struct sim *s, int node, const struct ha_action *a, bool awaited)
{
	struct sim_op *op =
		store_op(s, node, a->kind == HA_WRITE_SYNC ? DCS_SET_SYNC : DCS_DELETE_SYNC);
	op->leader_only = true;
	op->version = a->version;
	op->quorum = a->quorum;
	op->names = mask_of(&s->nodes[node].w.plan, a);
	submit(s, node, op, awaited);
}

static void write_failover(struct sim *s, int node, const struct ha_action *a)
{
	const struct sim_worker *w = &s->nodes[node].w;
	struct sim_op *op = store_op(s, node, DCS_SET_FAILOVER);
	op->version = a->version;
	if (a->kind == HA_REWRITE_FAILOVER && w->snap)
		op->failover_candidate = (int8_t)sim_index(w->snap->c.failover_candidate);
	submit(s, node, op, false);
}

static void set_ssn(struct sim *s, int node, const struct ha_action *a)
{
	struct sim_ssn ssn = { .set = a->ssn.managed && (a->ssn.n > 0 || a->ssn.placeholder),
		.n = a->ssn.n,
		.quorum = a->ssn.quorum,
		.placeholder = a->ssn.placeholder };
	if (ssn.set)
		ssn.names = mask_of(&s->nodes[node].w.plan, a);
	pg_set_ssn(s, node, ssn);
}

static void follow(struct sim *s, int node, const struct ha_action *a)
{
	struct sim_worker *w = &s->nodes[node].w;
	w->following = (int8_t)remote_target(a->target);
	w->follow_known = true;
	w->role = a->role ? a->role : PG_ROLE_REPLICA;
	pg_follow(s, node, w->following);
}

static void stop_pg(struct sim *s, int node, const struct ha_action *a)
{
	struct sim_node *n = &s->nodes[node];
	if (n->sup.guard.pm_state == PG_PROC_NONE)
		return;
	struct sim_message m = { .kind = SM_STOP,
		.generation = n->sup.guard.generation,
		.mode = a->stop_mode ? a->stop_mode : PG_STOP_FAST,
		.until_ms = a->timeout_ms,
		.deadline_ms = node_clock(s, node) + 5000 };
	worker_to_sup(s, node, m); /* nobody waits for it: the rules look again */
}

static void order_keeper(struct sim *s, int node, const struct ha_action *a)
{
	struct sim_worker *w = &s->nodes[node].w;
	int64_t deadline =
		w->plan.await != AWAIT_NONE
			? w->plan.await_deadline_ms
			: node_clock(s, node) + worker_settings(s, node)->retry_timeout_ms;
	struct keeper_event ev = { .deadline_ms = deadline };
	ev.kind = a->kind == HA_ACQUIRE	  ? KEEPER_ACQUIRE
		  : a->kind == HA_RELEASE ? KEEPER_RELEASE
					  : KEEPER_TAKE;
	if (a->kind == HA_ACQUIRE && !worker_settings(s, node)->pause)
		s->checks.raced_ms[node] = s->now_ms;
	if (a->kind == HA_ACQUIRE && a->flag)
		ev.leader_version = a->version;
	if (a->kind == HA_RELEASE && a->lsn)
		write_status(s, node, a->lsn);
	if (a->kind == HA_RELEASE)
		w->blocked_on = 1; /* the rest of the plan, and the next decision, come after it */
	worker_keeper(s, node, ev);
}

static void plain_store(struct sim *s, int node, const struct ha_action *a, bool awaited)
{
	enum dcs_op_kind kind = a->kind == HA_WRITE_INIT    ? DCS_INIT_SET
				: a->kind == HA_RACE_INIT   ? DCS_INIT_RACE
				: a->kind == HA_CANCEL_INIT ? DCS_INIT_CANCEL
				: a->kind == HA_REREAD	    ? DCS_READ
							    : DCS_SET_CONFIG;
	struct sim_op *op = store_op(s, node, kind);
	op->create = a->create;
	op->leader_only = kind == DCS_INIT_SET && a->flag;
	op->version = kind == DCS_INIT_SET ? a->version : 0;
	op->sysid = s->nodes[node].pg.sysid;
	op->config = s->nodes[node].w.settings_version;
	submit(s, node, op, awaited);
}

static void postgres_action(struct sim *s, int node, const struct ha_action *a)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_worker *w = &n->w;
	switch (a->kind) {
	case HA_STOP_PG: stop_pg(s, node, a); break;
	case HA_FOLLOW_RELOAD: follow(s, node, a); break;
	case HA_SET_ROLE: w->role = a->role; break;
	case HA_SET_STATE:
		w->state = a->state;
		w->state_since_ms = node_clock(s, node);
		break;
	case HA_SET_SSN: set_ssn(s, node, a); break;
	case HA_RESUME_REPLAY: n->replay_stuck = false; break;
	case HA_POKE_WAL:
		if (n->pg.phase == PGP_PRIMARY) {
			n->pg.lsn += 64;
			wal_send_all(s, node);
		}
		break;
	case HA_CHECKPOINT:
		w->checkpoint_done = true;
		n->pg.checkpoint_tli = s->branches[n->pg.branch].tli;
		break;
	case HA_CALLBACK: w->callbacks_called = true; break;
	case HA_FENCE:
		worker_to_sup(s, node,
			(struct sim_message){
				.kind = SM_FENCE, .generation = n->sup.guard.generation });
		break;
	case HA_RENAME_FAILED: boot_rename_failed(s, node); break;
	case HA_CLEAR_MARK: n->pg.mark = PG_MARK_NONE; break;
	case HA_EXIT:
		check_exit(s, node, a->code);
		if (a->code)
			n->given_up_ms = s->now_ms + 10000;
		node_kill(s, node, PROC_WORKER);
		break;
	case HA_SHUTDOWN_DONE: n->shutdown_done = true; break;
	default: break;
	}
}

static void store_action(struct sim *s, int node, const struct ha_action *a, bool awaited)
{
	switch (a->kind) {
	case HA_ACQUIRE:
	case HA_TAKE_LEADER:
	case HA_RELEASE: order_keeper(s, node, a); break;
	case HA_WRITE_STATUS: write_status(s, node, a->lsn); break;
	case HA_WRITE_FAILSAFE: write_failsafe(s, node, a->flag); break;
	case HA_EMPTY_FAILSAFE: empty_failsafe(s, node, a->version); break;
	case HA_WRITE_HISTORY: write_history(s, node); break;
	case HA_TOUCH_MEMBER: touch_member(s, node); break;
	case HA_WRITE_SYNC:
	case HA_DELETE_SYNC: write_sync(s, node, a, awaited); break;
	case HA_CLEAR_FAILOVER:
	case HA_REWRITE_FAILOVER: write_failover(s, node, a); break;
	case HA_FAILSAFE_HOLD:
		if (worker_cluster(&s->nodes[node])->failsafe_count <= 1) {
			s->nodes[node].failsafe_round_ms = s->now_ms; /* nobody else to ask */
			s->nodes[node].failsafe_round_ttl_ms = worker_settings(s, node)->ttl_ms;
		}
		worker_keeper(s, node,
			(struct keeper_event){ .kind = KEEPER_FAILSAFE,
				.at_ms = a->until_ms - worker_settings(s, node)->ttl_ms });
		break;
	case HA_RENEW: worker_keeper(s, node, (struct keeper_event){ .kind = KEEPER_DOUBT }); break;
	default: plain_store(s, node, a, awaited); break;
	}
}

static void one(struct sim *s, int node, const struct ha_action *a, bool awaited)
{
	struct sim_worker *w = &s->nodes[node].w;
	switch (a->kind) {
	case HA_NOP:
	case HA_SYNC_SLOTS:
	case HA_FORGET_SLOTS:
	case HA_WAIT: break;
	case HA_DROP_SCHEDULED_RESTART: w->request.scheduled_restart = false; break;
	case HA_REQUEST_REFUSED: task_request_done(s, node); break;
	case HA_WATCHDOG_OFF: topo_watchdog_off(s, node); break;
	case HA_WATCHDOG_ARM: {
		int answer = topo_watchdog_arm(s, node);
		if (awaited)
			sim_at_proc(s, s->now_ms + 1, EV_AWAIT, node, PROC_WORKER, w->await_serial,
				answer, NULL);
		break;
	}
	case HA_POLL_PEERS:
	case HA_FAILSAFE_ROUND: peer_poll(s, node, a, a->kind == HA_FAILSAFE_ROUND); break;
	case HA_TASK_START: task_start(s, node, a); break;
	case HA_TASK_CANCEL: task_cancel(s, node); break;
	case HA_RENAME_FAILED:
	case HA_CLEAR_MARK:
	case HA_STOP_PG:
	case HA_FOLLOW_RELOAD:
	case HA_SET_ROLE:
	case HA_SET_STATE:
	case HA_SET_SSN:
	case HA_RESUME_REPLAY:
	case HA_POKE_WAL:
	case HA_CHECKPOINT:
	case HA_CALLBACK:
	case HA_FENCE:
	case HA_EXIT:
	case HA_SHUTDOWN_DONE: postgres_action(s, node, a); break;
	default: store_action(s, node, a, awaited); break;
	}
}

void exec_plan(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	uint32_t incarnation = s->nodes[node].procs[PROC_WORKER].incarnation;
	if (!w->stepping)
		return;
	while (w->pc < w->plan.count) {
		if (w->blocked_on)
			return;
		const struct ha_action *a = &w->plan.actions[w->pc++];
		bool awaited = w->plan.await != AWAIT_NONE && w->pc == w->plan.count;
		if (awaited) {
			w->await_serial++;
			sim_at_proc(s, node_when(s, node, w->plan.await_deadline_ms) + 5, EV_AWAIT,
				node, PROC_WORKER, w->await_serial, 0, NULL);
		}
		uint64_t turns = s->turns;
		one(s, node, a, awaited);
		if (turns != s->turns || !s->nodes[node].procs[PROC_WORKER].alive ||
			incarnation != s->nodes[node].procs[PROC_WORKER].incarnation)
			return; /* answered at once, or gone */
	}
	worker_unblock(s, node);
}
