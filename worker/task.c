/* The one background task: from a decision to a sequence, and its end back to the rules. Worker
 * process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/ha/upstream.h"
#include "worker/postgres/archive.h"
#include "worker/postgres/bootstrap.h"
#include "worker/postgres/slot_copy.h"
#include "worker/postgres/sync_names.h"
#include "worker/task_demote.h"
#include "worker/worker.h"

/* All tasks share one place: one runs at a time. */
static struct {
	struct worker *w;
	struct seq_start start;
	struct seq_stop stop;
	struct seq_follow follow;
	struct seq_promote promote;
	struct seq_bootstrap bootstrap;
	struct seq_post_bootstrap post;
	struct seq_clone clone;
	struct seq_rewind_check check;
	struct seq_rewind rewind;
	struct seq_crash crash;
	struct seq_copy_slots copy;
	char hostaddr[64];
	struct co *running;
	struct ha_action action;
	uint32_t dns_ticket;
} t;

/* Sequences outside of the task: reload of settings, a new target by reload. */
static struct seq_reload reload_seq;
static struct seq_follow follow_reload_seq;

void worker_set_state(struct worker *w, enum pg_state state)
{
	pgctx_set_state(&w->pg, state);
}

void worker_set_role(struct worker *w, enum pg_role role)
{
	pgctx_set_role(&w->pg, role);
}

void worker_callback(struct worker *w, enum ha_callback cb, enum pg_role role)
{
	static const char *const names[] = { "", "on_start", "on_stop", "on_restart",
		"on_role_change", "on_reload" };
	if (cb != CB_NONE && (unsigned)cb < ARRAY_LEN(names))
		control_callback(&w->pg, names[cb], role);
}

/* ---- targets
 * -------------------------------------------------------------------------------------- */

bool task_target_of(struct worker *w, const char *name, struct pg_target *out)
{
	memset(out, 0, sizeof(*out));
	if (name[0] == '\0')
		return true;
	if (strcmp(name, HA_TARGET_REMOTE) == 0) {
		out->kind = TARGET_REMOTE;
		return str_copy(out->name, sizeof(out->name), name) &&
		       str_copy(out->host, sizeof(out->host), w->set.standby_host) &&
		       str_copy(out->port, sizeof(out->port),
			       w->set.standby_port[0] != '\0' ? w->set.standby_port : "5432");
	}
	const struct member *m = cluster_member_peek(w->c, name);
	const char *url = m != NULL ? m->conn_url : "";
	if (m == NULL && str_eq(name, w->failsafe.name))
		url = w->failsafe.conn_url;
	out->kind = TARGET_MEMBER;
	if (!str_copy(out->name, sizeof(out->name), name) ||
		!pgctx_parse_url(url, out->host, sizeof(out->host), out->port, sizeof(out->port))) {
		memset(out, 0, sizeof(*out));
		return false;
	}
	return true;
}

/* ---- end of a task
 * -------------------------------------------------------------------------------- */

static enum ha_task_result result_of(struct worker *w, const struct co *co)
{
	if (co->cancelled)
		return TASK_RESULT_CANCELLED;
	switch (w->task) {
	case TASK_PROMOTE:
		/* FALSE is the script's "no" alone; anything else leaves the next try to the rules.
		 */
		return t.promote.refused_by_script ? TASK_RESULT_FALSE
		       : co->result_ok		   ? TASK_RESULT_TRUE
						   : TASK_RESULT_NONE;
	case TASK_REWIND:
		return co->result_ok	? TASK_RESULT_TRUE
		       : t.rewind.ready ? TASK_RESULT_FALSE
					: TASK_RESULT_NONE;
	case TASK_RESTART:
	case TASK_START_PRIMARY:
		return !co->result_ok		? TASK_RESULT_FALSE
		       : t.start.still_starting ? TASK_RESULT_NONE
						: TASK_RESULT_TRUE;
	default: return co->result_ok ? TASK_RESULT_TRUE : TASK_RESULT_FALSE;
	}
}

static void on_done(struct co *co, void *arg)
{
	struct worker *w = arg;
	enum ha_task ended = w->task;
	w->task_result = result_of(w, co);
	if (ended == TASK_REWIND_CHECK) {
		pgc_done(&t.check.repl);
		buf_done(&t.check.leader_history);
		w->rewind_twin = t.check.out_state == 3;
		w->rewind_check_result = t.check.out_state == 1	  ? REWIND_NEED
					 : t.check.out_state == 0 ? REWIND_NOT_NEED
								  : REWIND_CHECK;
	}
	w->rewind_check_again = ended == TASK_REWIND && t.rewind.check_again;
	/* Of several remote hosts one is the primary. */
	if ((ended == TASK_REWIND_CHECK && w->rewind_check_result == REWIND_CHECK) ||
		(ended == TASK_REWIND && !co->result_ok))
		w->remote_turn++;
	log_line(co->result_ok ? LOG_INFO : LOG_WARNING,
		"task %s ended after_ms=%lld result=%s: %s", ha_task_word(ended),
		(long long)(clock_boot_ms() - w->task_since_ms), co->result_ok ? "ok" : "failed",
		co->result_text);
	w->task = TASK_NONE;
	w->task_ended = ended;
	t.running = NULL;
	w->on_keeper_done = NULL;
	w->pg.bootstrapping = w->pg.bootstrapping && ended == TASK_BOOTSTRAP && co->result_ok;
	if (ended == TASK_POST_BOOTSTRAP) {
		bool force = w->reload_again;
		w->reload_again = false;
		task_reload(w, force);
	}
	if (ended == TASK_COPY_SLOTS)
		slots_copy_ended(w);
	if (ended == TASK_RESTART)
		requests_restart_done(w, co->result_ok && !t.start.still_starting,
			t.start.still_starting ? "postgres is still starting" : "restart failed");
	if (ended == TASK_BOOTSTRAP || ended == TASK_CLONE || ended == TASK_REINIT ||
		ended == TASK_PROMOTE)
		w->pg_seen = true;
	if (w->task_next_set) {
		w->task_next_set = false;
		struct ha_action next = w->task_next;
		task_start(w, &next);
	}
	turn_want(w, "task ended");
	publish_member(w);
	publish_page(w);
}

static void start(struct worker *w, struct co *co, co_fn step)
{
	t.running = co;
	co_start(co, &w->host, step, on_done, w);
}

static void fail_now(struct worker *w, const char *why);
static void failed_step(struct co *co)
{
	co_finish(co, false, "%s", co->result_text);
}

static void fail_now(struct worker *w, const char *why)
{
	static struct co none;
	if (none.active)
		return;
	start(w, &none, failed_step);
	snprintf(none.result_text, sizeof(none.result_text), "%s", why);
}

/* ---- bootstrap's leader key
 * ----------------------------------------------------------------------- */

static void on_acquired(struct worker *w, enum keeper_op op, enum ha_outcome outcome)
{
	if (op != KEEPER_OP_ACQUIRE)
		return;
	w->on_keeper_done = NULL;
	co_wake(&t.bootstrap.co, t.dns_ticket, outcome == HA_OUT_OK,
		outcome == HA_OUT_CONFLICT ? "somebody else holds it"
					   : "the store did not confirm it");
}

static void acquire_for_bootstrap(struct co *co, uint32_t ticket, void *arg)
{
	struct worker *w = arg;
	switch (keeper_key_of(&w->keeper, clock_boot_ms())) {
	case KEEPER_KEY_MINE:
		/* An interrupted bootstrap: the key of its first life was moved to our lease (X2).
		 */
		co_wake(co, ticket, true, "");
		return;
	case KEEPER_KEY_WAIT: co_wake(co, ticket, false, "being taken over"); return;
	case KEEPER_KEY_ASK: break;
	}
	if (w->watch_current && !cluster_unlocked(w->c)) {
		/* The view is current: the store would say no, each time. */
		co_wake(co, ticket, false, "somebody else holds it");
		return;
	}
	t.dns_ticket = ticket;
	w->on_keeper_done = on_acquired;
	struct keeper_event ev = { .kind = KEEPER_ACQUIRE,
		.deadline_ms = clock_boot_ms() + w->set.retry_timeout_ms };
	keeper_event(w, &ev);
}

static int64_t lease_until(void *arg)
{
	struct worker *w = arg;
	return keeper_lock(&w->keeper, clock_boot_ms()) == LOCK_HELD ? w->keeper.acked_until_ms : 0;
}

/* ---- tasks that talk to the leader
 * ---------------------------------------------------------------- */

static void on_leader_address(const struct dns_answer *a, void *arg)
{
	struct worker *w = arg;
	if (w->task != TASK_REWIND && w->task != TASK_REWIND_CHECK && w->task != TASK_COPY_SLOTS)
		return;
	if (a->count == 0) {
		fail_now(w, "the leader's name cannot be resolved");
		return;
	}
	memcpy(t.hostaddr, a->addrs[0], sizeof(t.hostaddr));
	if (w->task == TASK_REWIND)
		start(w, &t.rewind.co, seq_rewind_step);
	else if (w->task == TASK_COPY_SLOTS)
		start(w, &t.copy.co, seq_copy_slots_step);
	else
		start(w, &t.check.co, seq_rewind_check_step);
}

static void local_position(struct worker *w, struct seq_rewind_check *s)
{
	const struct pg_sql *f = &w->probe.facts;
	const struct pg_control *c = &w->files.control;
	if (f->valid) {
		s->local_timeline = f->timeline;
		s->local_lsn = f->in_recovery ? f->replay_lsn : f->flush_lsn;
		s->in_recovery = f->in_recovery;
		return;
	}
	if (!w->files.valid || !c->valid)
		return;
	bool recovery =
		c->state == PG_DB_SHUTDOWNED_IN_RECOVERY || c->state == PG_DB_IN_ARCHIVE_RECOVERY;
	if (recovery && c->min_recovery_lsn != 0 && c->min_recovery_tli != 0) {
		s->in_recovery = true;
		s->local_timeline = c->min_recovery_tli;
		s->local_lsn = c->min_recovery_lsn;
	} else if (recovery || c->state == PG_DB_SHUTDOWNED) {
		s->was_shutdown = true;
		s->local_timeline = c->checkpoint_tli;
		s->local_lsn = c->checkpoint_lsn;
	}
}

static void start_with_leader(struct worker *w, const struct ha_action *a)
{
	struct pg_target leader;
	const char *name = a->target[0] != '\0' ? a->target : w->c->leader;
	if (a->task == TASK_REWIND)
		t.rewind = (struct seq_rewind){ .ready = false }; /* nothing was tried so far */
	if (!task_target_of(w, name, &leader) || leader.kind == TARGET_NONE) {
		fail_now(w, "the leader has no address");
		return;
	}
	if (leader.kind == TARGET_REMOTE)
		pgctx_one_host(&leader, w->remote_turn);
	if (a->task == TASK_REWIND) {
		const struct member *m = cluster_member_peek(w->c, leader.name);
		t.rewind = (struct seq_rewind){ .p = &w->pg,
			.leader = leader,
			.hostaddr = t.hostaddr,
			.leader_checkpointed = m != NULL && !m->checkpoint_pending,
			.remove_failed =
				w->set.remove_on_rewind_failure || w->set.remove_on_diverged };
	} else if (a->task == TASK_COPY_SLOTS) {
		t.copy = (struct seq_copy_slots){
			.p = &w->pg, .leader = leader, .hostaddr = t.hostaddr
		};
		slots_copy_begin(w, &t.copy);
	} else {
		t.check = (struct seq_rewind_check){ .p = &w->pg,
			.leader = leader,
			.hostaddr = t.hostaddr,
			.out_state = -1,
			.leader_history = BUF_INIT(LIMIT_HISTORY * 128) };
		pgc_init(&t.check.repl, &w->loop, "leader replication");
		local_position(w, &t.check);
	}
	dns_lookup(http_dns(w->http), leader.host, on_leader_address, w);
}

/* ---- start
 * ---------------------------------------------------------------------------------------- */

static void start_clone(struct worker *w, const struct ha_action *a, bool reinit)
{
	struct pg_target source;
	bool remote = a->task == TASK_BOOTSTRAP_STANDBY_LEADER;
	if (!task_target_of(w, remote ? HA_TARGET_REMOTE : a->target, &source)) {
		fail_now(w, "the source has no address");
		return;
	}
	t.clone = (struct seq_clone){ .p = &w->pg,
		.source = source,
		.follow = source,
		.from_leader = reinit && a->flag,
		.stop_first = reinit,
		.mark = a->task == TASK_BOOTSTRAP_STANDBY_LEADER ? PG_MARK_BOOTSTRAP
								 : PG_MARK_COPYING,
		.role = remote ? PG_ROLE_STANDBY_LEADER : PG_ROLE_REPLICA };
	/* Cloned from a replica: stream from whom the rules say, usually the leader. */
	const char *upstream =
		upstream_named(w->c, w->c->leader, w->welcome.name, w->set.tags.replicatefrom);
	if (upstream[0] == '\0')
		upstream = w->c->leader;
	struct pg_target follow;
	if (source.kind == TARGET_MEMBER && upstream[0] != '\0' &&
		task_target_of(w, upstream, &follow))
		t.clone.follow = follow;
	start(w, &t.clone.co, seq_clone_step);
}

static void start_follow(struct worker *w, const struct ha_action *a)
{
	t.follow = (struct seq_follow){ .p = &w->pg,
		.role = a->role == PG_ROLE_STANDBY_LEADER ? a->role : PG_ROLE_REPLICA,
		.timeout_ms = a->timeout_ms };
	if (!task_target_of(w, a->target, &t.follow.target))
		log_warning("%s has no address: starting without an upstream", a->target);
	start(w, &t.follow.co, seq_follow_step);
}

/* Restart in the present role: fast stop after a checkpoint, start, on_restart (ha N1). */
static void restart_step(struct co *co)
{
	struct worker *w = t.w;
	CO_BEGIN(co);
	pgctx_set_state(&w->pg, PG_STATE_RESTARTING);
	t.stop = (struct seq_stop){
		.p = &w->pg, .mode = PG_STOP_FAST, .checkpoint = true, .no_callback = true
	};
	co_call(co, &t.stop.co, seq_stop_step);
	CO_WAIT(co);
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	w->pg.callback_pending = 1;
	bool primary = w->pg.role == PG_ROLE_PRIMARY || w->pg.role == PG_ROLE_PROMOTED;
	t.start = (struct seq_start){ .p = &w->pg,
		.role = primary ? PG_ROLE_PRIMARY : w->pg.role,
		.target = w->pg.target,
		.timeout_ms = t.action.timeout_ms != 0 ? t.action.timeout_ms
						       : w->set.primary_start_timeout_ms,
		.lease_until_ms = primary ? lease_until(w) : 0 };
	co_call(co, &t.start.co, seq_start_step);
	CO_WAIT(co);
	if (!co->ok)
		pgctx_set_state(&w->pg, PG_STATE_RESTART_FAILED);
	CO_RETURN(co, co->ok, "%s", co->note);
	CO_END(co);
}

static void start_primary(struct worker *w, const struct ha_action *a)
{
	t.start = (struct seq_start){ .p = &w->pg,
		.role = PG_ROLE_PRIMARY,
		.timeout_ms = a->timeout_ms,
		.lease_until_ms = lease_until(w) };
	start(w, &t.start.co, seq_start_step);
}

void task_start(struct worker *w, const struct ha_action *a)
{
	static struct co restart_co;
	t.w = w;
	if (w->task != TASK_NONE) {
		if (!a->force) {
			log_error("task %s is refused: %s runs", ha_task_word(a->task),
				ha_task_word(w->task));
			return;
		}
		w->task_next = *a;
		w->task_next_set = true;
		task_cancel(w);
		return;
	}
	requests_taken(w, a->task);
	w->task = a->task;
	w->task_since_ms = clock_boot_ms();
	w->task_result = TASK_RESULT_NONE;
	w->pg.promote_committed = false;
	t.action = *a;
	log_info("task %s begins rule=%s", ha_task_word(a->task), w->plan.rule);
	switch (a->task) {
	case TASK_BOOTSTRAP:
		t.bootstrap = (struct seq_bootstrap){ .p = &w->pg,
			.resume = a->flag,
			.set_aside = a->create,
			.acquire = acquire_for_bootstrap,
			.lease_until = lease_until,
			.arg = w };
		start(w, &t.bootstrap.co, seq_bootstrap_step);
		break;
	case TASK_POST_BOOTSTRAP:
		t.post = (struct seq_post_bootstrap){
			.p = &w->pg, .lease_until = lease_until, .arg = w
		};
		start(w, &t.post.co, seq_post_bootstrap_step);
		break;
	case TASK_BOOTSTRAP_STANDBY_LEADER:
	case TASK_CLONE: start_clone(w, a, false); break;
	case TASK_REINIT: start_clone(w, a, true); break;
	case TASK_CRASH_RECOVERY:
		t.crash = (struct seq_crash){ .p = &w->pg };
		start(w, &t.crash.co, seq_crash_step);
		break;
	case TASK_REWIND:
	case TASK_REWIND_CHECK:
	case TASK_COPY_SLOTS: start_with_leader(w, a); break;
	case TASK_START_PRIMARY: start_primary(w, a); break;
	case TASK_RESTART_AFTER_FAILURE:
	case TASK_CHANGE_CONNINFO:
	case TASK_FOLLOW_AFTER_DEMOTION: start_follow(w, a); break;
	case TASK_PROMOTE:
		slots_promoting();
		t.promote = (struct seq_promote){ .p = &w->pg,
			.lease_until = lease_until,
			.arg = w,
			.wait_ms = w->set.loop_wait_ms,
			.lsn_limit = a->lsn };
		start(w, &t.promote.co, seq_promote_step);
		break;
	case TASK_DEMOTE: start(w, demote_prepare(w, a), demote_step); break;
	case TASK_RESTART: start(w, &restart_co, restart_step); break;
	default: fail_now(w, "this task is not built yet"); break;
	}
	publish_member(w);
}

void task_cancel(struct worker *w)
{
	if (t.running != NULL) {
		log_info("task %s is cancelled", ha_task_word(w->task));
		co_cancel(t.running);
	}
}

/* ---- beside the task
 * ------------------------------------------------------------------------------ */

static void on_follow_reload(struct co *co, void *arg)
{
	struct worker *w = arg;
	if (!co->result_ok)
		log_warning("new upstream: %s", co->result_text);
	probe_ask(&w->probe);
}

void task_follow_reload(struct worker *w, const struct ha_action *a)
{
	if (co_busy(&follow_reload_seq.co))
		return;
	struct pg_target target;
	if (!task_target_of(w, a->target, &target)) {
		log_warning("%s has no address: the upstream stays", a->target);
		return;
	}
	follow_reload_seq = (struct seq_follow){
		.p = &w->pg, .role = a->role, .target = target, .reload_only = true
	};
	co_start(&follow_reload_seq.co, &w->host, seq_follow_step, on_follow_reload, w);
}

static void on_reload(struct co *co, void *arg)
{
	struct worker *w = arg;
	if (!co->result_ok)
		log_warning("reload of PostgreSQL: %s", co->result_text);
	probe_ask(&w->probe);
	publish_member(w);
	publish_page(w);
	if (w->reload_again) {
		w->reload_again = false;
		task_reload(w, false);
	}
}

void task_reload(struct worker *w, bool force)
{
	if (co_busy(&reload_seq.co)) {
		w->reload_again = true;
		return;
	}
	/* A new cluster is left alone until it is whole; what changed meanwhile is caught up. */
	if (w->task == TASK_BOOTSTRAP || w->task == TASK_POST_BOOTSTRAP) {
		w->reload_again = true;
		return;
	}
	/* A sequence that starts the server writes the configuration itself. */
	if (w->host.pg.state != PG_PROC_RUNNING)
		return;
	reload_seq = (struct seq_reload){ .p = &w->pg, .force = force };
	co_start(&reload_seq.co, &w->host, seq_reload_step, on_reload, w);
}

void task_set_ssn(
	struct worker *w, const struct ha_ssn *ssn, const char (*names)[LIMIT_NAME], unsigned count)
{
	AUTO(buf) text = BUF_INIT(sizeof(w->pg.ssn) - 1);
	bool was_managed = w->pg.ssn_managed;
	char was[sizeof(w->pg.ssn)];
	memcpy(was, w->pg.ssn, sizeof(was));
	w->pg.ssn_known = true;
	if (!ssn->managed) {
		w->pg.ssn_managed = false;
		w->pg.ssn[0] = '\0';
	} else {
		static const char star[1][LIMIT_NAME] = { "*" };
		bool ok = true;
		if (ssn->placeholder)
			ok = sync_names_write(star, 1, ssn->n > 0 ? ssn->n : 1, ssn->quorum,
				w->probe.facts.server_version, &text);
		else if (count > 0)
			ok = sync_names_write(names, count, ssn->n, ssn->quorum,
				w->probe.facts.server_version, &text);
		if (!ok || !str_copy(w->pg.ssn, sizeof(w->pg.ssn), buf_str(&text))) {
			log_error("synchronous_standby_names: the list is too long");
			return;
		}
		w->pg.ssn_managed = true;
	}
	/* The same again is no news, unless the server shows something else (edited by hand, reload
	 * failed). */
	bool differs = ssn->managed && w->probe.facts.valid &&
		       strcmp(w->probe.facts.synchronous_standby_names, w->pg.ssn) != 0;
	if (was_managed == w->pg.ssn_managed && strcmp(was, w->pg.ssn) == 0 && !differs)
		return;
	log_info("synchronous_standby_names = '%s'%s", w->pg.ssn,
		ssn->managed ? "" : " (the user's own)");
	task_reload(w, false);
}

static void on_mark_cleared(struct host *h, const struct host_reply *r, void *arg)
{
	(void)h;
	(void)arg;
	if (r->code != ANSWER_OK)
		log_warning("mark of the data directory is not removed: %s", r->text);
}

void task_clear_mark(struct worker *w)
{
	host_files(&w->host, FILES_MARK, 0, 0, 0, PG_MARK_NONE, NULL, 0, 30000, on_mark_cleared, w);
	w->files.mark = PG_MARK_NONE; /* until the next look */
}

static void on_set_aside(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	(void)h;
	w->setting_aside = false;
	if (r->code == ANSWER_OK)
		task_clear_mark(w);
	else
		/* The mark stays: the next start knows what the directory is. */
		log_error("data directory is not set aside: %s", r->text);
	execute_exit_due(w);
}

void task_rename_failed(struct worker *w)
{
	w->setting_aside = true;
	host_files(&w->host, FILES_RENAME_FAILED, 0, 0, 0, 0, NULL, 0, 60000, on_set_aside, w);
}
