/* What the next decision sees: facts asked of PostgreSQL and of pgregent-files, and the view made
 * of them, of the snapshot and of the keeper (DESIGN 4). Worker process; also gives the supervisor
 * its proofs that a standby is one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/control.h"
#include "worker/worker.h"

#define FACTS_MS 60000 /* a slow disk: the answer still counts when it comes */

static bool has_postmaster(const struct worker *w)
{
	return w->host.pg.state == PG_PROC_RUNNING || w->host.pg.state == PG_PROC_STOPPING;
}

static void send_proof(struct worker *w, enum proof_kind kind, int64_t at_ms)
{
	struct msg_proof m = { .generation = w->host.pg.generation, .at_ms = at_ms, .kind = kind };
	struct keeper_event proof = { .kind = KEEPER_PROOF };
	link_send(w, MSG_PROOF, 0, &m, NULL, 0, NULL, 0);
	w->last_proof_ms = at_ms;
	w->last_proof_generation = m.generation;
	keeper_event(w, &proof); /* after the proof: what waits for it is sent behind it */
}

/* ---- files
 * --------------------------------------------------------------------------------------- */

static void on_history(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	(void)h;
	w->history_asked = false;
	if (r->code != ANSWER_OK)
		return;
	size_t n = r->data_len / sizeof(struct history_row);
	struct history_row *rows = malloc(n * sizeof(*rows) + 1);
	if (rows == NULL)
		return;
	memcpy(rows, r->data, n * sizeof(*rows));
	free(w->history);
	w->history = rows;
	w->history_count = (unsigned)n;
	w->history_tli = w->history_asked_tli;
	turn_want(w, "history file");
}

static void ask_history(struct worker *w)
{
	int64_t tli = w->probe.facts.valid     ? w->probe.facts.timeline
		      : w->files.control.valid ? w->files.control.checkpoint_tli
					       : 0;
	if (tli <= 1 || tli == w->history_tli || w->history_asked)
		return;
	w->history_asked = true;
	w->history_asked_tli = tli;
	host_files(
		&w->host, FILES_HISTORY, 0, 0, 0, (uint64_t)tli, NULL, 0, FACTS_MS, on_history, w);
}

/* Told to stop, and "shut down" in pg_control: it writes no more, whatever it was before. */
void observe_shut_down(struct worker *w, const struct pg_files *f)
{
	if (w->host.pg.state == PG_PROC_STOPPING && f->control.valid &&
		f->control.state == PG_DB_SHUTDOWNED)
		send_proof(w, PROOF_SHUTDOWN_CONTROL, f->read_at_ms);
}

static void on_next_history(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	(void)h;
	w->next_history_asked = false;
	if (r->code != ANSWER_OK)
		return;
	w->next_history_tli = w->next_history_asked_tli;
	turn_want(w, "next timeline");
}

/* F5: the walreceiver fetches the history files of its sender before it finds that it cannot stream
 * from it. So the file of a timeline that our leader is not on tells of a remote primary that was
 * replaced, also by one that lacks the end of what we have. */
static void ask_next_history(struct worker *w)
{
	const struct member *leader = cluster_leader_peek(w->c);
	if (!w->set.standby_cluster || leader == NULL || leader->timeline <= 0 ||
		w->next_history_tli == leader->timeline + 1 || w->next_history_asked)
		return;
	w->next_history_asked = true;
	w->next_history_asked_tli = leader->timeline + 1;
	host_files(&w->host, FILES_HISTORY, 0, 0, 0, (uint64_t)w->next_history_asked_tli, NULL, 0,
		FACTS_MS, on_next_history, w);
}

/* A standby that takes no connections yet is proven by pg_control (DESIGN 2, Reports). */
static void prove_by_control(struct worker *w, int64_t at_ms)
{
	const struct pg_files *f = &w->files;
	if (!has_postmaster(w) || w->probe.facts.valid || !f->control.valid)
		return;
	observe_shut_down(w, f);
	if (w->host.pg.promote_sent)
		return;
	/* Somebody told it to promote: pg_control will say so only when it has. */
	bool recovery = (f->control.state == PG_DB_IN_ARCHIVE_RECOVERY ||
				f->control.state == PG_DB_SHUTDOWNED_IN_RECOVERY) &&
			!f->promote;
	if (recovery && f->standby_signal)
		send_proof(w, PROOF_RECOVERY_CONTROL, at_ms);
}

static void take_files(struct worker *w, const struct pg_files *f)
{
	w->files = *f;
	w->files.valid = true;
	w->pg.major = w->probe.major = w->files.major;
	if (w->files.control.valid && w->files.control.system_id != 0)
		snprintf(w->system_id, sizeof(w->system_id), "%llu",
			(unsigned long long)w->files.control.system_id);
	else if (w->files.dir_empty || !w->files.dir_exists)
		w->system_id[0] = '\0';
	prove_by_control(w, w->files.read_at_ms);
}

static void files_told(struct worker *w)
{
	w->files_asked = false;
	w->turn.files_due = false;
	turn_facts(w);
}

static void on_control(struct co *co, void *arg)
{
	struct worker *w = arg;
	(void)co;
	w->control_runs = false;
	take_files(w, &w->control.files);
	files_told(w);
}

static void on_files(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	struct pg_files f;
	if (r->code == ANSWER_OK && r->data_len == sizeof(f)) {
		memcpy(&f, r->data, sizeof(f));
		f.read_at_ms = w->files_asked_ms;
		/* Not yet told: pg_controldata knows the rest. A second answer beside a running one
		 * is dropped: what the program says would be dated later than it looked. */
		if (control_job_due(&f)) {
			if (w->control_runs)
				return;
			w->control_runs = true;
			w->control.p = &w->pg;
			w->control.files = f;
			co_start(&w->control.co, h, seq_control_step, on_control, w);
			return;
		}
		take_files(w, &f);
	} else if (r->code != ANSWER_TIMEOUT) {
		turn_note(w, LOG_WARNING, "data directory: %s", r->text);
		w->files.valid = false;
	}
	files_told(w);
}

static void ask_files(struct worker *w)
{
	if (w->files_asked)
		return;
	w->files_asked = true;
	w->files_asked_ms = clock_boot_ms();
	host_files(&w->host, FILES_PROBE, 0, 0, 0, 0, NULL, 0, FACTS_MS, on_files, w);
}

/* ---- PostgreSQL
 * ---------------------------------------------------------------------------------- */

/* Whatever was said of its start: it runs. */
static void accepts_connections(struct worker *w)
{
	enum pg_state state = w->pg.state;
	if (w->pg.accept_due) /* its task has ended before */
		control_accepted(&w->pg);
	else if (state == PG_STATE_STARTING || state == PG_STATE_START_FAILED ||
		 state == PG_STATE_RESTART_FAILED)
		worker_set_state(w, PG_STATE_RUNNING);
}

void observe_on_probe(struct probe *p, void *arg)
{
	struct worker *w = arg;
	const struct pg_sql *f = &p->facts;
	if (f->valid) {
		if (f->in_recovery && !w->host.pg.promote_sent)
			send_proof(w, PROOF_RECOVERY_SQL, f->asked_at_ms);
		if (w->task == TASK_NONE)
			accepts_connections(w);
		if (!w->pg_seen) {
			/* Adopted, or found by a new worker: its role is what it says. */
			w->pg_seen = true;
			if (w->pg.role != PG_ROLE_STANDBY_LEADER || !f->in_recovery)
				worker_set_role(
					w, f->in_recovery ? PG_ROLE_REPLICA : PG_ROLE_PRIMARY);
			worker_set_state(w, PG_STATE_RUNNING);
			config_pg_changed(w);
		}
	} else if (f->failed_since_ms != 0 && has_postmaster(w)) {
		/* No connection: pg_control may still prove a standby. */
		ask_files(w);
	}
	requests_facts(w);
	w->turn.sql_due = false;
	turn_facts(w);
}

void observe_on_pg(struct host *h, void *arg)
{
	struct worker *w = arg;
	const struct msg_pg_event *e = &h->pg;
	static const char *const states[] = { "none", "starting", "running", "stopping",
		"fencing" };
	if (e->state != w->seen_state || e->generation != w->seen_generation)
		log_info("postmaster %s pid=%d generation=%llu%s%s",
			e->state < 5 ? states[e->state] : "?", e->pid,
			(unsigned long long)e->generation, e->text[0] != '\0' ? " " : "", e->text);
	w->seen_state = e->state;
	if (e->generation != w->seen_generation) {
		w->seen_generation = e->generation;
		w->checkpoint_running = w->checkpoint_done = false;
		w->next_history_tli = 0; /* a rewind may have removed the file */
		/* What a task starts, the task follows. A postmaster that was only found, or that
		 * comes into sight during a check, is nobody's. */
		w->pg_seen = w->task != TASK_NONE && w->task != TASK_REWIND_CHECK && e->kind != 0;
		w->pg.accept_due = w->pg.accept_due && w->pg_seen;
	}
	bool runs = e->state == PG_PROC_RUNNING || e->state == PG_PROC_STOPPING;
	probe_set_generation(&w->probe, runs ? e->generation : 0);
	if (runs && !w->pg_seen && w->pg.state != PG_STATE_STARTING)
		worker_set_state(w, PG_STATE_STARTING);
	w->files.valid = w->files.valid && runs;
	co_pg_changed(h);
	turn_want(w, "postmaster");
	publish_page(w);
}

bool observe_unproven(const struct worker *w)
{
	return has_postmaster(w) && w->host.pg.kind != PG_START_PRIMARY &&
	       !w->host.pg.promote_sent &&
	       (w->last_proof_generation != w->host.pg.generation ||
		       clock_boot_ms() - w->last_proof_ms >= w->set.ttl_ms / 4);
}

void observe_keep_proving(struct worker *w)
{
	if (observe_unproven(w))
		probe_ask(&w->probe);
}

void observe_ask(struct worker *w)
{
	w->turn.sql_due =
		has_postmaster(w) && w->probe.conn.params.count > 0 && w->probe.generation != 0;
	/* With a running server the disk is not waited for: a stalled one must not cost a decision.
	 */
	w->turn.files_due = !has_postmaster(w) || !w->files.valid;
	ask_files(w);
	if (w->turn.sql_due) {
		w->probe.want_slots = w->set.use_slots;
		probe_ask(&w->probe);
	}
	ask_history(w);
	ask_next_history(w);
}

/* ---- the view
 * ------------------------------------------------------------------------------------ */

static void view_store(struct worker *w, struct ha_view *v)
{
	bool failing = w->store_failing_ms != 0 &&
		       v->now_ms - w->store_failing_ms >= w->set.retry_timeout_ms;
	v->store = failing ? STORE_FAILING : STORE_OK;
	v->store_failing_since_ms = w->store_failing_ms;
	v->c = w->c;
	v->c_fresh = w->c_fresh;
	v->lock = keeper_lock(&w->keeper, v->now_ms);
	v->lock_busy = keeper_busy(&w->keeper);
	v->lease_until_ms = keeper_lease_until_ms(&w->keeper);
	v->gentle_at_ms = keeper_gentle_ms(&w->keeper);
}

static enum ha_task orphan_task(const char *job)
{
	if (str_eq(job, "initdb") || str_eq(job, "bootstrap"))
		return TASK_BOOTSTRAP;
	if (str_eq(job, "pg_rewind"))
		return TASK_REWIND;
	if (str_eq(job, "crash recovery"))
		return TASK_CRASH_RECOVERY;
	return TASK_CLONE;
}

static void view_pg(struct worker *w, struct ha_view *v)
{
	const char *job = host_orphan_peek(&w->host);
	v->orphan_job = job != NULL;
	v->orphan_task = job != NULL ? orphan_task(job) : TASK_NONE;
	const struct msg_pg_event *e = &w->host.pg;
	v->proc = (enum pg_proc_state)e->state;
	v->generation = e->generation;
	v->proc_started_at_ms = e->started_at_ms;
	v->promote_sent = e->promote_sent;
	v->exit_class = (enum exit_class)e->exit_class;
	v->role = w->pg.role;
	v->state = w->pg.state;
	v->state_since_ms = w->pg.state_since_ms;
	v->sql = &w->probe.facts;
	v->files = &w->files;
	v->can_rewind = w->set.use_pg_rewind && w->files.control.valid &&
			(w->files.control.wal_log_hints || w->files.control.checksum_version != 0);
	v->control_timeline = w->files.control.valid ? w->files.control.checkpoint_tli : 0;
	v->shutdown_state = w->files.control.state;
	v->checkpoint_running = w->checkpoint_running;
	v->checkpoint_done = w->checkpoint_done;
	v->callbacks_called = w->pg.callbacks_called;
	v->rewind_check_result = w->rewind_check_result;
	v->rewind_twin = w->rewind_twin;
	v->rewind_check_again = w->rewind_check_again;
	v->local_history = w->history;
	v->local_history_count = w->history_count;
	v->local_history_tli = w->history_tli;
	v->next_history_tli = w->next_history_tli;
	v->postmaster_start_us = w->probe.facts.start_time_us;
	memcpy(v->system_id, w->system_id, sizeof(v->system_id));
	memcpy(v->following, w->pg.following, sizeof(v->following));
	v->follow_known = w->pg.follow_known;
	v->recovery_settings_differ = w->recovery_differs;
	v->recovery_needs_restart = w->recovery_needs_restart;
	v->watchdog_armed = w->host.watchdog.armed;
	v->watchdog_failed = execute_watchdog_failed(w);
}

void observe_build(struct worker *w)
{
	struct ha_view *v = &w->view;
	memset(v, 0, sizeof(*v));
	v->now_ms = clock_boot_ms();
	v->wall_us = clock_wall_us();
	memcpy(v->name, w->welcome.name, sizeof(v->name));
	v->set = &w->set;
	view_store(w, v);
	/* Where the one we follow is now: its address may have changed, its name has not. */
	struct pg_target target;
	if (w->c == NULL || w->pg.following[0] == '\0' ||
		!task_target_of(w, w->pg.following, &target))
		target = w->pg.target;
	pgctx_check_recovery(
		&w->pg, &w->probe.facts, &target, &w->recovery_differs, &w->recovery_needs_restart);
	view_pg(w, v);
	slots_feedback(w);
	v->slots_to_copy = slots_to_copy(w);
	v->task = w->task;
	v->task_since_ms = w->task_since_ms;
	v->task_ended = w->task_ended;
	v->task_result = w->task_result;
	v->task_promote_committed = w->pg.promote_committed;
	v->task_released_key = w->task_released;
	v->peers = w->round.peers;
	v->peer_count = w->round.count;
	v->peers_asked_at_ms = w->round.asked_at_ms;
	if (w->failsafe.last_ms != 0) {
		memcpy(v->failsafe_leader, w->failsafe.name, sizeof(v->failsafe_leader));
		memcpy(v->failsafe_conn_url, w->failsafe.conn_url, sizeof(v->failsafe_conn_url));
		memcpy(v->failsafe_api_url, w->failsafe.api_url, sizeof(v->failsafe_api_url));
		v->failsafe_last_ms = w->failsafe.last_ms;
		v->failsafe_ttl_ms = w->failsafe.ttl_ms;
	}
	v->request = w->request;
	if (w->scheduled.set) {
		v->request.scheduled_restart = true;
		v->request.scheduled_restart_unmet = !requests_schedule_fits(w);
		v->request.scheduled_restart_at_wall_us = w->scheduled.at_wall_us;
		v->request.scheduled_restart_start_us = w->scheduled.postmaster_start_us;
		v->request.scheduled_restart_timeout_ms = w->scheduled.timeout_ms;
	}
}
