/* The model of the one background task: each is a small machine that is looked at every few
 * milliseconds. */
#include <string.h>

#include "tests/sim/sim.h"

#define POLL_MS		  20
#define PG_CTL_TIMEOUT_MS 60000
#define PROMOTE_ORDER_MS  3000 /* the promote file must exist by then */
#define STOP_ANSWER_MS	  5000 /* an order to the supervisor waits so long for its answer */

static struct sim_task *task_of(struct sim *s, int node)
{
	return &s->nodes[node].w.task;
}

static void finish(struct sim *s, int node, enum ha_task_result result)
{
	struct sim_worker *w = &s->nodes[node].w;
	sim_log(s, node, "task %s ended: %s", ha_task_word(w->task.kind),
		result == TASK_RESULT_TRUE    ? "true"
		: result == TASK_RESULT_FALSE ? "false"
		: result == TASK_RESULT_NONE  ? "none"
					      : "cancelled");
	/* What took long, and is over, is news. */
	if (node_clock(s, node) - w->task.since_ms > 20000)
		rules_news_for(s, node);
	w->task_ended = w->task.kind;
	w->task_result = result;
	w->task.kind = TASK_NONE;
	w->task.serial++;
	node_turn_soon(s, node, 0);
}

static void ask_stop(struct sim *s, int node, enum pg_stop_mode mode, int64_t timeout_ms)
{
	struct sim_node *n = &s->nodes[node];
	n->w.task.generation = n->sup.guard.generation;
	n->w.task.stop_mode = mode;
	n->w.task.stop_timeout_ms = timeout_ms;
	n->w.task.stop_asked_ms = node_clock(s, node);
	worker_to_sup(s, node,
		(struct sim_message){ .kind = SM_STOP,
			.generation = n->sup.guard.generation,
			.mode = mode,
			.until_ms = timeout_ms,
			.deadline_ms = node_clock(s, node) + STOP_ANSWER_MS });
	if (n->w.state == PG_STATE_RUNNING || n->w.state == PG_STATE_STARTING)
		n->w.state = PG_STATE_STOPPING;
}

/* An order that the supervisor did not take in its time is given again. */
static void ask_stop_again(struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	const struct sim_task *t = &n->w.task;
	bool taken = n->sup.guard.pm_state != PG_PROC_STARTING &&
		     n->sup.guard.pm_state != PG_PROC_RUNNING;
	if (t->stop_mode && !taken && t->generation == n->sup.guard.generation &&
		node_clock(s, node) >= t->stop_asked_ms + STOP_ANSWER_MS)
		ask_stop(s, node, t->stop_mode, t->stop_timeout_ms);
}

static bool stopped(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	return n->sup.guard.pm_state == PG_PROC_NONE && n->pg.phase == PGP_NONE;
}

static void ask_start(struct sim *s, int node, uint32_t kind)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	t->answered = t->refused = false;
	t->request_id = ++n->w.next_id;
	n->pg.upstream = n->w.following;
	worker_to_sup(s, node,
		(struct sim_message){ .kind = SM_START,
			.id = t->request_id,
			.mode = kind,
			.until_ms = kind == PG_START_PRIMARY ? n->w.keeper.acked_until_ms : 0,
			.deadline_ms = node_clock(s, node) + 2000 });
	n->w.state = PG_STATE_STARTING;
	n->w.state_since_ms = node_clock(s, node);
	n->w.checkpoint_done = false;
	t->until_ms = node_clock(s, node) + 3000;
}

/* 1 runs, 0 not yet, -1 did not start, -2 takes too long */
static int started(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	int64_t now = node_clock(s, node);
	if (!t->answered)
		return now > t->until_ms ? -1 : 0;
	if (t->refused)
		return -1;
	if (n->pg.phase == PGP_STANDBY || n->pg.phase == PGP_PRIMARY)
		return 1;
	if (n->pg.phase == PGP_NONE)
		return -1;
	int64_t limit = t->timeout_ms ? t->timeout_ms
			: t->kind == TASK_RESTART
				? worker_settings(s, node)->primary_start_timeout_ms
				: 0;
	return now - t->since_ms > (limit ? limit : PG_CTL_TIMEOUT_MS) ? -2 : 0;
}

static void start_ended(struct sim *s, int node, int how)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (how > 0)
		w->callbacks_called = true;
	if (how == -1)
		w->state = PG_STATE_START_FAILED;
	finish(s, node,
		how > 0	    ? TASK_RESULT_TRUE
		: how == -1 ? TASK_RESULT_FALSE
			    : TASK_RESULT_NONE);
}

static void run_start(struct sim *s, int node, uint32_t kind, bool stop_first)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	switch (t->step) {
	case 0:
		if (n->pg.phase != PGP_NONE && !stop_first) {
			finish(s, node, TASK_RESULT_TRUE);
			return;
		}
		t->step = 1;
		if (!stopped(s, node))
			ask_stop(s, node, PG_STOP_FAST,
				worker_settings(s, node)->primary_stop_timeout_ms);
		/* fall through */
	case 1:
		if (!stopped(s, node))
			return;
		if (t->kind == TASK_RESTART || t->kind == TASK_START_PRIMARY) {
			bool primary = t->kind == TASK_START_PRIMARY || !n->pg.standby_signal;
			kind = primary ? PG_START_PRIMARY : PG_START_STANDBY;
			n->w.role = primary ? PG_ROLE_PRIMARY
					    : PG_ROLE_REPLICA; /* as the data directory says */
		} else {
			n->w.following = t->target;
			n->w.follow_known = true;
			n->w.recovery_differs = false;
			n->w.role = t->role == PG_ROLE_STANDBY_LEADER ? t->role : PG_ROLE_REPLICA;
		}
		ask_start(s, node, kind);
		t->step = 2;
		return;
	default: {
		int how = started(s, node);
		if (how)
			start_ended(s, node, how);
	}
	}
}

/* ---- promote ---- */

static void run_promote(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	int64_t now = node_clock(s, node);
	switch (t->step) {
	case 0:
		if (now - t->since_ms < n->pre_promote_ms)
			return;
		if (n->pre_promote_fails) {
			finish(s, node, TASK_RESULT_FALSE);
			return;
		}
		if (t->lsn_limit && n->pg.lsn > t->lsn_limit) { /* X44 */
			finish(s, node, TASK_RESULT_NONE);
			return;
		}
		t->request_id = ++n->w.next_id;
		t->generation = n->sup.guard.generation;
		t->until_ms = now + PROMOTE_ORDER_MS;
		worker_to_sup(s, node,
			(struct sim_message){ .kind = SM_PROMOTE,
				.id = t->request_id,
				.generation = t->generation,
				.until_ms = n->w.keeper.acked_until_ms,
				.deadline_ms = t->until_ms });
		t->step = 1;
		return;
	case 1:
		if (!t->answered && now < t->until_ms + 1000)
			return;
		if (!t->answered || t->refused || now >= t->until_ms) {
			finish(s, node, TASK_RESULT_NONE); /* false is the script's "no" alone */
			return;
		}
		t->promote_committed = true;
		pg_promote_file(s, node);
		n->w.role = PG_ROLE_PROMOTED;
		t->step = 2;
		return;
	default:
		if (n->pg.phase == PGP_PRIMARY) {
			n->w.role = PG_ROLE_PRIMARY;
			n->w.follow_known = false;
			n->w.checkpoint_done = false;
			n->w.callbacks_called = true;
			finish(s, node, TASK_RESULT_TRUE);
		} else if (n->pg.phase == PGP_NONE ||
			   now - t->since_ms >
				   n->pre_promote_ms + worker_settings(s, node)->loop_wait_ms) {
			finish(s, node, TASK_RESULT_TRUE); /* "under way": G3 looks on */
		}
	}
}

/* ---- demote ---- */

/* A demoted cluster's leader leads on: with archiving it keeps the key. */
static bool releases(enum ha_demote_mode mode)
{
	return mode == DEMOTE_GRACEFUL || mode == DEMOTE_IMMEDIATE || mode == DEMOTE_SHUTDOWN;
}

static bool polite(enum ha_demote_mode mode)
{
	return mode == DEMOTE_GRACEFUL || mode == DEMOTE_SHUTDOWN;
}

/* Somebody may have its last word, and take over. */
static bool asks_peers(const struct sim *s, enum ha_demote_mode mode)
{
	return polite(mode) || (mode == DEMOTE_CLUSTER && !s->cfg.archiving && s->cfg.remote);
}

/* Asked over the network, as 3.6 does it. */
static bool confirmed(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	int have = 0;
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		const struct sim_node *o = &s->nodes[i];
		if (!(n->w.task.names & (1u << i)) || !o->on || !o->procs[PROC_API].alive ||
			o->procs[PROC_API].frozen)
			continue;
		if (net_open(s, node, (int)i) && net_open(s, (int)i, node) &&
			o->pg.phase == PGP_STANDBY && !o->pg.hung &&
			branch_contains(s, o->pg.branch, o->pg.lsn, n->pg.branch, n->pg.lsn))
			have++;
	}
	return have >= (n->w.task.quorum > 1 ? n->w.task.quorum : 1);
}

static void release_key(struct sim *s, int node, uint64_t lsn)
{
	struct sim_worker *w = &s->nodes[node].w;
	int64_t deadline = node_clock(s, node) + worker_settings(s, node)->retry_timeout_ms;
	if (lsn) {
		struct sim_op *op = store_op(s, node, DCS_SET_STATUS);
		op->leader_only = true;
		op->lsn = lsn;
		store_submit(s, node, op, (struct sim_request){ .use = REQ_FIRE }, deadline, false);
	}
	w->task.release_asked = true;
	w->task.release_until_ms = deadline + 500;
	worker_keeper(
		s, node, (struct keeper_event){ .kind = KEEPER_RELEASE, .deadline_ms = deadline });
}

static void shut_down_seen(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_message m = { .kind = SM_PROOF };
	m.proof = (struct msg_proof){ .generation = n->pg.generation,
		.at_ms = node_clock(s, node),
		.kind = n->pg.control == PG_DB_SHUTDOWNED ? PROOF_SHUTDOWN_CONTROL
							  : PROOF_RECOVERY_CONTROL };
	worker_to_sup(s, node, m);
}

static void demote_ended(struct sim *s, int node)
{
	struct sim_task *t = task_of(s, node);
	bool hold = polite(t->demote) && !t->confirmed && !t->flag && !t->release_asked;
	if (releases(t->demote) && !t->release_asked && !hold)
		release_key(s, node, polite(t->demote) ? s->nodes[node].pg.checkpoint_lsn : 0);
	/* It ends when the key is given away, not before: the rules would take it back. */
	if (t->release_asked && !t->released && node_clock(s, node) < t->release_until_ms)
		return;
	finish(s, node, hold ? TASK_RESULT_FALSE : TASK_RESULT_TRUE);
}

static void run_demote(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	int64_t now = node_clock(s, node);
	if (t->step == 0) {
		bool hard = t->demote == DEMOTE_IMMEDIATE || t->demote == DEMOTE_IMMEDIATE_NOLOCK;
		t->was_up = !stopped(s, node);
		if (t->was_up)
			ask_stop(s, node, hard ? PG_STOP_IMMEDIATE : PG_STOP_FAST,
				t->timeout_ms ? t->timeout_ms
				: hard	      ? 5000
					      : 0);
		t->step = 1;
		return;
	}
	bool clean =
		n->pg.control == PG_DB_SHUTDOWNED || n->pg.control == PG_DB_SHUTDOWNED_IN_RECOVERY;
	if ((n->pg.phase == PGP_SHUT || (stopped(s, node) && clean && t->was_up)) && t->step == 1) {
		t->step = 2;
		t->until_ms = now + 3000;
		n->w.role = PG_ROLE_DEMOTED;
		if (n->pg.phase == PGP_SHUT)
			shut_down_seen(s, node);
	}
	if (t->step == 2 && asks_peers(s, t->demote) && !t->confirmed && confirmed(s, node)) {
		t->confirmed = true;
		if (!t->release_asked)
			release_key(s, node, n->pg.checkpoint_lsn);
	}
	if (!stopped(s, node) ||
		(t->step == 2 && asks_peers(s, t->demote) && !t->confirmed && now < t->until_ms))
		return;
	n->w.role = PG_ROLE_DEMOTED;
	n->w.state = PG_STATE_STOPPED;
	n->w.follow_known = false;
	demote_ended(s, node);
}

/* ---- the driver ---- */

static void run(struct sim *s, int node)
{
	switch (task_of(s, node)->kind) {
	case TASK_START_PRIMARY: run_start(s, node, PG_START_PRIMARY, false); break;
	case TASK_RESTART: run_start(s, node, PG_START_STANDBY, true); break;
	case TASK_RESTART_AFTER_FAILURE:
	case TASK_FOLLOW_AFTER_DEMOTION: run_start(s, node, PG_START_STANDBY, false); break;
	case TASK_CHANGE_CONNINFO: run_start(s, node, PG_START_STANDBY, true); break;
	case TASK_PROMOTE: run_promote(s, node); break;
	case TASK_DEMOTE: run_demote(s, node); break;
	case TASK_REWIND: copy_rewind(s, node); break;
	case TASK_REWIND_CHECK: copy_rewind_check(s, node); break;
	case TASK_CLONE:
	case TASK_BOOTSTRAP_STANDBY_LEADER:
	case TASK_REINIT: copy_clone(s, node); break;
	case TASK_CRASH_RECOVERY: copy_crash_recovery(s, node); break;
	case TASK_COPY_SLOTS: topo_copy_slots(s, node); break;
	default: boot_task(s, node); break;
	}
}

void task_finish(struct sim *s, int node, enum ha_task_result result)
{
	finish(s, node, result);
}

void task_ask_start(struct sim *s, int node, uint32_t kind)
{
	ask_start(s, node, kind);
}

void task_ask_stop(struct sim *s, int node, enum pg_stop_mode mode)
{
	ask_stop(s, node, mode, mode == PG_STOP_IMMEDIATE ? 5000 : 0);
}

bool task_stopped(const struct sim *s, int node)
{
	return stopped(s, node);
}

int task_started(struct sim *s, int node)
{
	return started(s, node);
}

static void again(struct sim *s, int node)
{
	struct sim_task *t = task_of(s, node);
	if (t->kind)
		sim_at_proc(s, s->now_ms + POLL_MS, EV_TASK, node, PROC_WORKER, t->serial, 0, NULL);
}

/* A schedule stays: the next look finds that the server was restarted. */
void task_request_done(struct sim *s, int node)
{
	struct ha_request *r = &s->nodes[node].w.request;
	r->restart = r->reinit = r->reinit_force = r->reinit_from_leader = false;
	r->restart_timeout_ms = 0;
}

void task_start(struct sim *s, int node, const struct ha_action *a)
{
	struct sim_worker *w = &s->nodes[node].w;
	struct sim_task *t = &w->task;
	if (t->kind && !a->force)
		return;
	uint32_t serial = t->serial + 1;
	if (t->kind) /* abandoned */
		sim_log(s, node, "task %s abandoned", ha_task_word(t->kind));
	*t = (struct sim_task){ .kind = a->task,
		.serial = serial,
		.since_ms = node_clock(s, node),
		.demote = a->demote,
		.role = a->role,
		.timeout_ms = a->timeout_ms,
		.lsn_limit = a->lsn,
		.flag = a->flag,
		.quorum = a->quorum,
		.target = (int8_t)(a->target[0] ? remote_target(a->target) : -1) };
	for (unsigned i = 0; i < a->name_count; i++) {
		int n = sim_index(w->plan.names[a->name_first + i]);
		t->names |= n >= 0 ? 1u << n : 0;
	}
	check_task(s, node, a);
	if (t->kind == TASK_RESTART || t->kind == TASK_REINIT)
		task_request_done(s, node);
	sim_log(s, node, "task %s starts%s%s", ha_task_word(t->kind),
		t->target >= 0 ? " target=" : "", t->target >= 0 ? sim_name(t->target) : "");
	marks_take_over(s, node, t);
	again(s, node);
}

void task_cancel(struct sim *s, int node)
{
	struct sim_task *t = task_of(s, node);
	/* A promotion has no way back once its file exists; what ends is the wait for it. */
	if (t->kind)
		finish(s, node, TASK_RESULT_CANCELLED);
}

void task_event(struct sim *s, const struct sim_event *ev)
{
	struct sim_task *t = task_of(s, ev->node);
	if (!t->kind || (uint32_t)ev->a != t->serial)
		return;
	/* Whatever a task does but to stop PostgreSQL needs the data directory. */
	if (s->nodes[ev->node].files_slow && t->kind != TASK_DEMOTE) {
		again(s, ev->node);
		return;
	}
	ask_stop_again(s, ev->node);
	run(s, ev->node);
	again(s, ev->node);
}

void task_message(struct sim *s, int node, const struct sim_message *m)
{
	struct sim_task *t = task_of(s, node);
	if (!t->kind || m->id != t->request_id)
		return;
	t->answered = true;
	t->refused = !m->ok;
}
