/* Start, stop, follow, promote, reload: sequences on the local server. Worker process; everything
 * that blocks is asked of the supervisor or of pgregent-files. See control.h. */
#include "worker/postgres/control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/conf_write.h"
#include "worker/postgres/probe.h"
#include "worker/postgres/render.h"
#include "worker/postgres/sync_names.h"

#define FILES_MS       30000
#define START_ORDER_MS 10000 /* a start that the supervisor did not carry out by then is void */
/* Between looks at a server that starts or stops: whoever waits for the role wants to know at once,
 * but a recovery of hours need not be asked ten times a second. */
#define POLL_FIRST_MS	 20
#define POLL_SOON_MS	 100
#define POLL_SOON_TRIES	 100
#define POLL_LAST_MS	 500
#define DEFAULT_START_MS 60000 /* pg_ctl_timeout */

/* ---- small things
 * -------------------------------------------------------------------------------- */

bool control_split(struct host_cmd *cmd, const char *text)
{
	struct argv argv = ARGV_INIT;
	bool ok = argv_split(&argv, text) && !argv_failed(&argv);
	if (ok)
		host_cmd_take(cmd, &argv);
	argv_done(&argv);
	return ok;
}

static const char *hook_text(const struct pgctx *p, const char *key)
{
	const char *t = json_string_value(json_object_get(p->pg, key));
	return t != NULL && t[0] != '\0' ? t : NULL;
}

static void start_hook(struct co *co, const char *key, const char *text, int64_t timeout_ms)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	if (!control_split(&cmd, text)) {
		co_wake(co, co_ticket(co), false, "cannot be split into words");
		log_error("postgresql.%s: cannot be split into words: %s", key, text);
	} else {
		co_job(co, key, &cmd, JOB_LOG_OUTPUT | JOB_DIES_WITH_US, timeout_ms, 1000);
	}
	host_cmd_done(&cmd);
}

static bool postmaster_gone(const struct pgctx *p)
{
	return p->h->pg.state == PG_PROC_NONE;
}

/* The last one removed its lock files itself. */
static bool exited_cleanly(const struct pgctx *p)
{
	return p->h->pg.generation != 0 && p->h->pg.exit_class == EXIT_CLASS_CODE &&
	       p->h->pg.exit_code == 0;
}

/* ---- start
 * ---------------------------------------------------------------------------------------- */

static int64_t start_limit(const struct seq_start *s)
{
	if (s->timeout_ms != 0)
		return s->timeout_ms;
	json_t *t = json_object_get(s->p->pg, "pg_ctl_timeout");
	if (json_is_number(t))
		return json_number_value(t) > 0 ? (int64_t)(json_number_value(t) * 1000)
						: INT64_MAX / 4;
	return DEFAULT_START_MS;
}

static int64_t poll_ms(unsigned tries)
{
	if (tries > POLL_SOON_TRIES)
		return POLL_LAST_MS;
	int64_t ms = POLL_FIRST_MS << (tries < 3 ? tries : 3);
	return ms < POLL_SOON_MS ? ms : POLL_SOON_MS;
}

static void order_start(struct seq_start *s)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	struct err err = ERR_INIT;
	if (render_postmaster(s->p, s->role, &s->files.control, &cmd, &err) != ERR_OK)
		co_wake(&s->co, co_ticket(&s->co), false, err.text);
	else
		co_pg_start(&s->co,
			s->role == PG_ROLE_PRIMARY ? PG_START_PRIMARY : PG_START_STANDBY,
			s->lease_until_ms, &cmd, clock_boot_ms() + START_ORDER_MS);
	host_cmd_done(&cmd);
}

void control_accepted(struct pgctx *p)
{
	p->accept_due = false;
	pgctx_set_state(p, PG_STATE_RUNNING);
	if (p->callback_pending == 0)
		control_callback(p, "on_start", p->role);
	else if (p->callback_pending == 1)
		control_callback(p, "on_restart", p->role);
	p->callback_pending = 0;
	/* The copies are of the files that the command left, until it is ours. */
	if (p->bootstrapping && p->custom_bootstrap)
		return;
	static const char names[] =
		"postgresql.conf\0postgresql.base.conf\0pg_hba.conf\0pg_ident.conf";
	AUTO(buf) tail = BUF_INIT(LIMIT_PATH * 2);
	buf_add(&tail, p->config_dir, strlen(p->config_dir) + 1);
	buf_add(&tail, names, sizeof(names));
	host_files(
		p->h, FILES_BACKUP_CONFIGS, 0, 0, 0, 0, tail.data, tail.len, FILES_MS, NULL, NULL);
}

void seq_start_step(struct co *co)
{
	struct seq_start *s = (struct seq_start *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->still_starting = p->accept_due = false;
	if (!postmaster_gone(p)) {
		pgctx_set_state(p, PG_STATE_STARTING);
		CO_RETURN(co, true, "a postmaster is there already");
	}
	pgctx_set_role(p, s->role);
	pgctx_set_state(p, s->bootstrap ? PG_STATE_BOOTSTRAP_STARTING : PG_STATE_STARTING);
	json_decref(p->pending_restart);
	p->pending_restart = NULL;
	s->control.p = p;
	co_call(co, &s->control.co, seq_control_read_step);
	CO_WAIT(co);
	if (!co->ok)
		goto failed;
	s->files = s->control.files;
	p->major = s->files.major;
	co_files(co, FILES_CHECK_DATA_DIR, 0, 0, 0, NULL, 0, FILES_MS);
	CO_WAIT(co);
	if (!co->ok)
		goto failed;
	s->render = (struct seq_render){ .p = p,
		.role = s->role,
		.target = s->target,
		.for_start = true,
		.control = &s->files.control,
		.signal_file =
			s->role == PG_ROLE_PRIMARY ? render_custom_signal(p) : "standby.signal" };
	co_call(co, &s->render.co, seq_render_step);
	CO_WAIT(co);
	if (!co->ok || co->cancelled)
		goto failed;
	/* One that is started under a lease has no time for it, and had its server on this node a
	 * moment ago. */
	if (!exited_cleanly(p) && s->lease_until_ms == 0) {
		/* After the files are written: it asks PostgreSQL what stands in them. */
		s->sockets = (struct seq_sockets){ .p = p };
		co_call(co, &s->sockets.co, seq_sockets_step);
		CO_WAIT(co);
		if (co->cancelled)
			goto failed;
	}
	s->until_ms = clock_boot_ms() + start_limit(s);
	s->generation = p->h->pg.generation;
	order_start(s);
	CO_WAIT(co);
	if (!co->ok)
		goto failed;
	s->tries = 0;
	p->follow_known = s->role != PG_ROLE_PRIMARY;
	/* The supervisor said yes: its event with the new generation is on the way or here. */
	while (!p->probe->facts.valid || p->probe->generation == 0 ||
		p->h->pg.generation == s->generation) {
		if (p->h->pg.generation != s->generation && postmaster_gone(p)) {
			snprintf(co->note, sizeof(co->note), "postmaster ended class=%u code=%d",
				p->h->pg.exit_class, p->h->pg.exit_code);
			goto failed;
		}
		p->accept_due = true;
		if (co->cancelled)
			CO_RETURN(co, false, "cancelled");
		if (clock_boot_ms() >= s->until_ms) {
			s->still_starting = s->timeout_ms == 0;
			CO_RETURN(co, s->still_starting, "still starting");
		}
		probe_ask(p->probe);
		co_wait_pg(co, clock_boot_ms() + poll_ms(s->tries++));
		CO_WAIT(co);
	}
	control_accepted(p);
	CO_RETURN(co, true, "accepts connections");
failed:
	p->accept_due = false;
	pgctx_set_state(p, PG_STATE_START_FAILED);
	snprintf(p->last_error, sizeof(p->last_error), "%s", co->note);
	log_error("start of PostgreSQL failed: %s", co->note);
	CO_RETURN(co, false, "start failed: %s", p->last_error);
	CO_END(co);
}

/* ---- stop
 * ----------------------------------------------------------------------------------------- */

static void on_control(struct seq_stop *s)
{
	const struct pg_control *c = &s->control.files.control;
	if (!c->valid || c->state != PG_DB_SHUTDOWNED || s->shutdown_seen)
		return;
	s->shutdown_seen = true;
	s->shutdown_lsn = c->checkpoint_lsn;
	if (!postmaster_gone(s->p) && s->on_shutdown != NULL)
		s->on_shutdown(s, s->shutdown_lsn, s->arg);
}

/* The answer of files; true: pg_controldata has to be asked as well. */
static bool take_files(struct seq_stop *s)
{
	s->control.p = s->p;
	memset(&s->control.files, 0, sizeof(s->control.files));
	if (s->co.ok && s->co.data.len == sizeof(s->control.files))
		memcpy(&s->control.files, s->co.data.data, sizeof(s->control.files));
	return control_job_due(&s->control.files);
}

void seq_stop_step(struct co *co)
{
	struct seq_stop *s = (struct seq_stop *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->shutdown_seen = false;
	if (postmaster_gone(p)) {
		pgctx_set_state(p, PG_STATE_STOPPED);
		CO_RETURN(co, true, "not running");
	}
	if (s->checkpoint && s->mode != PG_STOP_IMMEDIATE && p->state != PG_STATE_STARTING) {
		/* A stop after a checkpoint has little left to write: the outage is shorter. */
		pgctx_params_local(p, &p->sql, "0");
		co_sql(co, &p->sql, "CHECKPOINT", NULL, 0,
			s->timeout_ms != 0 ? s->timeout_ms : 3600000);
		CO_WAIT(co);
		if (!co->ok)
			log_warning("checkpoint before the stop: %s", co->note);
	}
	pgctx_set_state(p, PG_STATE_STOPPING);
	if (hook_text(p, "before_stop") != NULL && s->mode != PG_STOP_IMMEDIATE) {
		start_hook(co, "before_stop", hook_text(p, "before_stop"), p->set->ttl_ms);
		CO_WAIT(co);
		if (!co->ok)
			log_warning("before_stop: %s", co->note);
	}
	/* The connections of our own would hold back a smart stop. */
	pgc_close(&p->sql);
	s->ordered = false;
	while (!postmaster_gone(p)) {
		/* A supervisor that was stopped refuses what has become too old meanwhile: nobody
		 * stops PostgreSQL then unless the order is given again. */
		if (!s->ordered) {
			co_pg_stop(co, s->mode, s->timeout_ms);
			CO_WAIT(co);
			s->ordered = co->ok;
			if (postmaster_gone(p))
				break;
			if (!s->ordered)
				log_warning("stop order: %s (asked again)", co->note);
		}
		co_files(co, FILES_PROBE, 0, 0, 0, NULL, 0, 1000);
		CO_WAIT(co);
		if (take_files(s)) {
			co_call(co, &s->control.co, seq_control_step);
			CO_WAIT(co);
		}
		on_control(s);
		if (postmaster_gone(p))
			break;
		co_wait_pg(co, clock_boot_ms() + (s->ordered ? 100 : 1000));
		CO_WAIT(co);
	}
	/* The last word of pg_control, for whoever asked for it. */
	if (!s->shutdown_seen) {
		co_files(co, FILES_PROBE, 0, 0, 0, NULL, 0, 5000);
		CO_WAIT(co);
		if (take_files(s)) {
			co_call(co, &s->control.co, seq_control_step);
			CO_WAIT(co);
		}
		on_control(s);
	}
	pgctx_set_state(p, PG_STATE_STOPPED);
	if (!s->no_callback)
		control_callback(p, "on_stop", p->role);
	CO_END(co);
}

/* ---- follow
 * --------------------------------------------------------------------------------------- */

static bool role_changes(const struct pgctx *p, enum pg_role to)
{
	bool follower = p->role == PG_ROLE_REPLICA || p->role == PG_ROLE_STANDBY_LEADER;
	return p->callbacks_called &&
	       (p->role == PG_ROLE_PRIMARY || p->role == PG_ROLE_DEMOTED ||
		       p->role == PG_ROLE_PROMOTED || (follower && p->role != to));
}

static void remember_target(struct seq_follow *s)
{
	s->p->target = s->target;
	s->p->follow_known = true;
	const char *name = s->target.kind == TARGET_NONE ? "" : s->target.name;
	if (!str_copy(s->p->following, sizeof(s->p->following), name))
		s->p->following[0] = '\0';
}

void seq_follow_step(struct co *co)
{
	struct seq_follow *s = (struct seq_follow *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->change_role = role_changes(p, s->role);
	if (s->reload_only && !postmaster_gone(p)) {
		remember_target(s);
		pgctx_set_role(p, s->role);
		s->u.render = (struct seq_render){ .p = p,
			.role = s->role,
			.target = s->target,
			.signal_file = p->major < 12 ? NULL : "standby.signal" };
		co_call(co, &s->u.render.co, seq_render_step);
		CO_WAIT(co);
		if (co->ok) {
			co_pg_signal(co, SIGHUP, 0);
			CO_WAIT(co);
		}
		if (s->change_role)
			control_callback(p, "on_role_change", s->role);
		if (!co->ok) {
			p->follow_known = false; /* once more in the next cycle */
			CO_RETURN(co, false, "%s", co->note);
		}
		pgctx_recovery_reloaded(p);
		CO_RETURN(co, true, "reloaded");
	}
	if (!postmaster_gone(p)) {
		if (p->follow_known)
			pgctx_recovery_restarted(p);
		s->u.stop = (struct seq_stop){
			.p = p, .mode = PG_STOP_FAST, .checkpoint = true, .no_callback = true
		};
		co_call(co, &s->u.stop.co, seq_stop_step);
		CO_WAIT(co);
		if (p->callback_pending == 0)
			p->callback_pending = 1;
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	remember_target(s);
	/* on_role_change replaces on_start and on_restart. */
	if (s->change_role)
		p->callback_pending = 2;
	memset(&s->u, 0, sizeof(s->u));
	s->u.start = (struct seq_start){
		.p = p, .role = s->role, .target = s->target, .timeout_ms = s->timeout_ms
	};
	if (s->change_role)
		control_callback(p, "on_role_change", s->role);
	co_call(co, &s->u.start.co, seq_start_step);
	CO_WAIT(co);
	CO_RETURN(co, co->ok, "%s", co->note);
	CO_END(co);
}

/* ---- promote
 * -------------------------------------------------------------------------------------- */

#define PROMOTE_ORDER_MS 3000 /* the promote file must exist by then, or the order is void */

static bool fresh(const struct pgctx *p, int64_t asked_ms)
{
	return p->probe->facts.valid && p->probe->facts.asked_at_ms >= asked_ms;
}

/* X56: the upstream was taken away; its walreceiver ends when the startup process has read that. */
static bool cut_off(const struct pgctx *p, int64_t asked_ms)
{
	return fresh(p, asked_ms) && !p->probe->facts.receiver_streaming;
}

void seq_promote_step(struct co *co)
{
	struct seq_promote *s = (struct seq_promote *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->refused_by_script = false;
	p->promote_committed = false;
	if (hook_text(p, "pre_promote") != NULL) {
		/* No limit of its own: the lease is renewed meanwhile, and a lost lease cancels the
		 * task. */
		start_hook(co, "pre_promote", hook_text(p, "pre_promote"), 0);
		CO_WAIT(co);
		if (!co->ok) {
			s->refused_by_script = !co->cancelled;
			CO_RETURN(co, false, "pre_promote: %s", co->note);
		}
	}
	/* X44: while pre_promote ran, WAL may have come from an upstream that is a dead end. */
	s->asked_ms = clock_boot_ms();
	while (s->lsn_limit != 0 && !co->cancelled && !cut_off(p, s->asked_ms)) {
		if (postmaster_gone(p) || clock_boot_ms() >= s->asked_ms + PROMOTE_ORDER_MS)
			CO_RETURN(co, false,
				"PostgreSQL still streams, or does not tell its wal position");
		probe_ask(p->probe);
		co_wait_pg(co, clock_boot_ms() + 50);
		CO_WAIT(co);
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	if (s->lsn_limit != 0 && pg_sql_position(&p->probe->facts) > s->lsn_limit)
		CO_RETURN(co, false, "the wal position is past the end of the timeline");
	co_pg_promote(co, s->lease_until(s->arg), clock_boot_ms() + PROMOTE_ORDER_MS);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "promotion refused: %s", co->note);
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	/* From here on the file may exist: there is no way back but a stop (DESIGN 2). */
	p->promote_committed = true;
	co_files(co, FILES_CREATE_EMPTY, 0, 0, 0, "promote", sizeof("promote"), PROMOTE_ORDER_MS);
	CO_WAIT(co);
	if (!co->ok) {
		log_error("promote file: %s: PostgreSQL is stopped", co->note);
		co_pg_stop(co, PG_STOP_IMMEDIATE, 5000);
		CO_WAIT(co);
		CO_RETURN(co, false, "the promote file could not be made");
	}
	co_pg_signal(co, SIGUSR1, s->lease_until(s->arg));
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "promotion signal refused: %s", co->note);
	pgctx_set_role(p, PG_ROLE_PROMOTED);
	control_callback(p, "on_role_change", PG_ROLE_PRIMARY);
	s->until_ms = clock_boot_ms() + s->wait_ms;
	while (clock_boot_ms() < s->until_ms && !co->cancelled && !postmaster_gone(p)) {
		probe_ask(p->probe);
		co_wait_pg(co, clock_boot_ms() + 50);
		CO_WAIT(co);
		if (p->probe->facts.valid && !p->probe->facts.in_recovery) {
			pgctx_set_role(p, PG_ROLE_PRIMARY);
			p->follow_known = false;
			p->following[0] = '\0';
			CO_RETURN(co, true, "promoted");
		}
	}
	/* Not yet: the next cycles see it (G3, G4). */
	CO_RETURN(co, true, "promotion under way");
	CO_END(co);
}

/* ---- reload
 * --------------------------------------------------------------------------------------- */

static void ask_pending(struct co *co, struct pgctx *p)
{
	AUTO(buf) sql = BUF_INIT(4096);
	render_pending_sql(&sql);
	co_sql(co, &p->sql, buf_str(&sql), NULL, 0, 3000);
}

void seq_reload_step(struct co *co)
{
	struct seq_reload *s = (struct seq_reload *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	if (postmaster_gone(p))
		CO_RETURN(co, true, "not running");
	s->render = (struct seq_render){ .p = p,
		.role = p->role == PG_ROLE_PROMOTED ? PG_ROLE_PRIMARY : p->role,
		.target = p->target };
	co_call(co, &s->render.co, seq_render_step);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "%s", co->note);
	if (!s->render.changed && !s->force)
		CO_RETURN(
			co, true, "No PostgreSQL configuration items changed, nothing to reload.");
	co_pg_signal(co, SIGHUP, 0);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "reload: %s", co->note);
	if (!s->no_callback)
		control_callback(p, "on_reload", p->role);
	co_sleep(co, 1000);
	CO_WAIT(co);
	pgctx_params_local(p, &p->sql, "2000");
	ask_pending(co, p);
	CO_WAIT(co);
	if (co->ok)
		render_take_pending(p, co->res);
	CO_END(co);
}
