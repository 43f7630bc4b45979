/* A new cluster: initdb, first start, roles (ha 8.1, 8.3). Worker process. */
#include "worker/postgres/bootstrap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/params.h"
#include "worker/postgres/render.h"

#define ACQUIRE_PAUSE_MS 200
#define FILES_MS	 30000
#define SET_ASIDE_MS	 3600000
#define INITDB_MS	 0 /* no limit: a slow disk may take long, and cancel ends it */

static void remove_path(struct co *co, const char *path)
{
	co_files(co, FILES_REMOVE, 0, 0, 0, path, strlen(path) + 1, FILES_MS);
}

void mark_data_dir(struct co *co, enum pg_mark mark)
{
	co_files(co, FILES_MARK, 0, 0, mark, NULL, 0, FILES_MS);
}

static void write_pwfile(struct seq_bootstrap *s, const char *password)
{
	AUTO(buf) tail = BUF_INIT(LIMIT_CONNINFO * 2);
	buf_add(&tail, s->pwfile, strlen(s->pwfile) + 1);
	buf_addf(&tail, "%s\n", password);
	co_files(&s->co, FILES_WRITE_ATOMIC, 0600, 0, 0, tail.data, tail.len, FILES_MS);
}

static const char *method_command(const struct pgctx *p, const char **out_method)
{
	const char *method = json_path_str(p->bootstrap, "method");
	*out_method = method;
	if (method == NULL || strcmp(method, "initdb") == 0)
		return NULL;
	return json_path_str(json_object_get(p->bootstrap, method), "command");
}

/* What the method says of recovery: a reload meanwhile must not take it away. NULL: no method, or
 * the cluster is made. */
static void take_recovery(struct pgctx *p, const char *method)
{
	const json_t *section = method != NULL ? json_object_get(p->bootstrap, method) : NULL;
	json_t *conf = json_object_get(section, "recovery_conf");
	json_decref(p->custom_recovery);
	p->custom_recovery = json_is_object(conf) ? json_incref(conf) : NULL;
	p->custom_bootstrap = method != NULL;
	p->keep_recovery = p->custom_recovery == NULL &&
			   json_truthy(json_object_get(section, "keep_existing_recovery_conf"));
}

static void run_initdb(struct seq_bootstrap *s)
{
	struct pgctx *p = s->p;
	struct host_cmd cmd = HOST_CMD_INIT;
	struct argv argv = ARGV_INIT;
	AUTO(buf) notes = BUF_INIT(LIMIT_CONNINFO);
	char program[LIMIT_PATH];
	const char *pwfile = pgctx_auth(p, "superuser", "password") != NULL ? s->pwfile : NULL;
	bool ok = pgctx_program(p, "initdb", program, sizeof(program)) &&
		  argv_initdb(&argv, program, p->data_dir, json_object_get(p->bootstrap, "initdb"),
			  pgctx_auth(p, "superuser", "username"), pwfile, &notes);
	render_log_notes(&notes);
	host_cmd_take(&cmd, &argv);
	if (ok)
		co_job(&s->co, "initdb", &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, INITDB_MS, 1000);
	else
		co_wake(&s->co, co_ticket(&s->co), false,
			notes.len > 0 ? buf_str(&notes) : "path of initdb is too long");
	host_cmd_done(&cmd);
}

static void run_method(struct seq_bootstrap *s, const char *method)
{
	struct pgctx *p = s->p;
	struct host_cmd cmd = HOST_CMD_INIT;
	struct argv argv = ARGV_INIT;
	AUTO(buf) notes = BUF_INIT(LIMIT_CONNINFO);
	bool ok = argv_custom_bootstrap(
		&argv, json_object_get(p->bootstrap, method), p->scope, p->data_dir, &notes);
	host_cmd_take(&cmd, &argv);
	if (ok)
		co_job(&s->co, "bootstrap", &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0, 10000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, buf_str(&notes));
	host_cmd_done(&cmd);
}

static void append_hba(struct seq_bootstrap *s, const json_t *lines)
{
	AUTO(buf) tail = BUF_INIT(LIMIT_IPC_FRAME - 512);
	buf_adds(&tail, "pg_hba.conf");
	buf_add(&tail, "", 1);
	buf_adds(&tail, "\n");
	for (size_t i = 0; i < json_array_size(lines); i++) {
		const char *line = json_string_value(json_array_get(lines, i));
		if (line != NULL)
			buf_addf(&tail, "%s\n", line);
	}
	co_files(&s->co, FILES_APPEND, 0, 0, 0, tail.data, tail.len, FILES_MS);
}

static void backup_configs(struct co *co, const struct pgctx *p, enum files_op op)
{
	static const char names[] =
		"postgresql.conf\0postgresql.base.conf\0pg_hba.conf\0pg_ident.conf";
	AUTO(buf) tail = BUF_INIT(LIMIT_PATH * 2);
	buf_add(&tail, p->config_dir, strlen(p->config_dir) + 1);
	buf_add(&tail, names, sizeof(names));
	co_files(co, op, 0, 0, 0, tail.data, tail.len, FILES_MS);
}

/* Files of a copy that would promote it at once, or make it recover in another way than we are
 * told. With recovery settings of its own that are kept, only the first; NULL after the last. */
static const char *left_behind(const struct pgctx *p, unsigned n)
{
	static const char *const names[] = { "promote", "recovery.conf", "recovery.signal",
		"standby.signal" };
	return n < (p->keep_recovery ? 1 : ARRAY_LEN(names)) ? names[n] : NULL;
}

void seq_bootstrap_step(struct co *co)
{
	struct seq_bootstrap *s = (struct seq_bootstrap *)co;
	struct pgctx *p = s->p;
	const char *method = NULL;
	const char *command = method_command(p, &method);
	const char *password = pgctx_auth(p, "superuser", "password");
	CO_BEGIN(co);
	p->bootstrapping = true;
	take_recovery(p, command != NULL ? method : NULL);
	pgctx_set_role(p, PG_ROLE_UNINITIALIZED);
	pgctx_set_state(p, command != NULL ? PG_STATE_CUSTOM_BOOTSTRAP : PG_STATE_INITDB);
	if (!str_format(s->pwfile, sizeof(s->pwfile), "%s/initdb.pw", p->h->welcome.runtime_dir))
		CO_RETURN(co, false, "run-time directory is too long");
	if (s->resume)
		goto made;
	if (co_job_adopt(co, command != NULL ? "bootstrap" : "initdb")) {
		CO_WAIT(co);
		goto ended;
	}
	if (s->set_aside) {
		log_warning(
			"what an interrupted bootstrap left is renamed to %s.failed", p->data_dir);
		co_files(co, FILES_RENAME_FAILED, 0, 0, 0, NULL, 0, SET_ASIDE_MS);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "data directory is not set aside: %s", co->note);
	}
	mark_data_dir(co, PG_MARK_BOOTSTRAP);
	CO_WAIT(co);
	if (!co->ok)
		log_warning("an interrupted bootstrap will not be recognised: %s", co->note);
	if (command != NULL) {
		run_method(s, method);
		CO_WAIT(co);
	} else {
		if (password != NULL) {
			write_pwfile(s, password);
			CO_WAIT(co);
			if (!co->ok)
				CO_RETURN(co, false, "password file: %s", co->note);
		}
		run_initdb(s);
		CO_WAIT(co);
	}
ended:
	if (!co->ok) {
		snprintf(p->last_error, sizeof(p->last_error), "%s", co->note);
		log_error(
			"%s failed: %s", command != NULL ? "custom bootstrap" : "initdb", co->note);
		pgctx_set_state(p, command != NULL ? PG_STATE_CUSTOM_BOOTSTRAP_FAILED
						   : PG_STATE_INITDB_FAILED);
	}
	if (command == NULL && password != NULL) {
		s->start.still_starting = co->ok; /* remembered over the next wait */
		remove_path(co, s->pwfile);
		CO_WAIT(co);
		if (!s->start.still_starting)
			CO_RETURN(co, false, "initdb failed: %s", p->last_error);
	} else if (!co->ok) {
		CO_RETURN(co, false, "bootstrap failed: %s", p->last_error);
	}
	if (json_array_size(json_object_get(p->bootstrap, "pg_hba")) > 0 && command == NULL &&
		json_array_size(json_object_get(p->pg, "pg_hba")) == 0) {
		append_hba(s, json_object_get(p->bootstrap, "pg_hba"));
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "pg_hba.conf: %s", co->note);
	}
	if (command != NULL) {
		/* A copy of a member may have its configuration in the backups alone. */
		backup_configs(co, p, FILES_RESTORE_CONFIGS);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "configuration files: %s", co->note);
		for (s->file = 0; left_behind(p, s->file) != NULL; s->file++) {
			remove_path(co, left_behind(p, s->file));
			CO_WAIT(co);
			if (!co->ok)
				CO_RETURN(co, false, "%s: %s", left_behind(p, s->file), co->note);
		}
	}
	backup_configs(co, p, FILES_BACKUP_CONFIGS);
	CO_WAIT(co);
	/* From here on the directory is worth something: roles come next, and L4 removes the mark.
	 */
	mark_data_dir(co, PG_MARK_ROLES);
	CO_WAIT(co);
	if (!co->ok)
		log_warning("an interrupted bootstrap will not be recognised: %s", co->note);
made:
	/* PostgreSQL runs as a primary only under the lease (DESIGN 2): the key is taken before the
	 * first start. */
	/* Not at the first refusal: the key may be that of our own first life, which the keeper is
	 * taking over just now, or the answer was lost. After a ttl it is somebody else's. */
	s->acquire_until_ms = clock_boot_ms() + p->set->ttl_ms;
	for (;;) {
		s->acquire(co, co_ticket(co), s->arg);
		CO_WAIT(co);
		if (co->ok)
			break;
		if (co->cancelled || clock_boot_ms() >= s->acquire_until_ms)
			CO_RETURN(co, false, "leader key: %s", co->note);
		co_sleep(co, ACQUIRE_PAUSE_MS);
		CO_WAIT(co);
	}
	s->start = (struct seq_start){ .p = p,
		.role = PG_ROLE_PRIMARY,
		.bootstrap = command != NULL,
		/* An archive may take long to replay; the plan waits for its end (L2). */
		.timeout_ms = p->custom_recovery != NULL || p->keep_recovery
				      ? 0
				      : p->set->primary_start_timeout_ms,
		.lease_until_ms = s->lease_until(s->arg) };
	co_call(co, &s->start.co, seq_start_step);
	CO_WAIT(co);
	CO_RETURN(co, co->ok, "%s", co->note);
	CO_END(co);
}

/* ---- roles
 * ---------------------------------------------------------------------------------------- */

static void add_literal(struct buf *b, const char *text)
{
	/* standard_conforming_strings may be off: a backslash needs the E form. */
	if (strchr(text, '\\') != NULL)
		buf_adds(b, " E");
	buf_adds(b, "'");
	for (; *text != '\0'; text++) {
		if (*text == '\'' || *text == '\\')
			buf_add(b, text, 1);
		buf_add(b, text, 1);
	}
	buf_adds(b, "'");
}

static void add_ident(struct buf *b, const char *text)
{
	buf_adds(b, "\"");
	for (; *text != '\0'; text++) {
		if (*text == '"')
			buf_adds(b, "\"");
		buf_add(b, text, 1);
	}
	buf_adds(b, "\"");
}

static void role_sql(struct buf *b, const char *user, const char *password, const char *options)
{
	AUTO(buf) body = BUF_INIT(LIMIT_CONNINFO * 2);
	buf_adds(&body, "BEGIN SET local synchronous_commit = 'local'; PERFORM * FROM "
			"pg_catalog.pg_authid WHERE rolname = ");
	add_literal(&body, user);
	for (int i = 0; i < 2; i++) {
		buf_adds(&body, i == 0 ? "; IF FOUND THEN ALTER ROLE " : "; ELSE CREATE ROLE ");
		add_ident(&body, user);
		buf_addf(&body, " WITH %s LOGIN", options);
		if (password != NULL) {
			buf_adds(&body, " PASSWORD ");
			add_literal(&body, password);
		}
	}
	buf_adds(&body, "; END IF; END;");
	/* Nothing of the password may reach a log. */
	buf_adds(b, "SET log_statement TO none; SET log_min_duration_statement TO -1;"
		    " SET log_min_error_statement TO 'log'; DO ");
	add_literal(b, buf_str(&body));
	b->failed |= body.failed;
}

static const char grants_sql[] =
	"SET local synchronous_commit = 'local'; GRANT EXECUTE ON FUNCTION "
	"pg_catalog.pg_ls_dir(text, boolean, boolean), pg_catalog.pg_stat_file(text, boolean), "
	"pg_catalog.pg_read_binary_file(text), "
	"pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO ";

/* Statement number n of the list; false = no such. */
static bool user_sql(const struct pgctx *p, unsigned n, struct buf *b)
{
	const char *super = pgctx_auth(p, "superuser", "username"),
		   *rewind = pgctx_auth(p, "rewind", "username");
	const char *repl = pgctx_auth(p, "replication", "username");
	bool own_rewind = rewind != NULL && !str_eq(rewind, super) && p->major >= 11;
	switch (n) {
	case 0:
		if (super != NULL && pgctx_auth(p, "superuser", "password") != NULL)
			role_sql(b, super, pgctx_auth(p, "superuser", "password"), "SUPERUSER");
		return true;
	case 1: return true; /* the script */
	case 2:
		if (repl != NULL && !str_eq(repl, super))
			role_sql(b, repl, pgctx_auth(p, "replication", "password"), "REPLICATION");
		return true;
	case 3:
		if (own_rewind && !str_eq(rewind, repl))
			role_sql(b, rewind, pgctx_auth(p, "rewind", "password"), "");
		return true;
	case 4:
		if (own_rewind) {
			buf_adds(b, "BEGIN; ");
			buf_adds(b, grants_sql);
			add_ident(b, rewind);
			buf_adds(b, "; COMMIT");
		}
		return true;
	default: return false;
	}
}

static const char *script_of(const struct pgctx *p)
{
	const char *t = json_path_str(p->bootstrap, "post_bootstrap");
	return t != NULL ? t : json_path_str(p->bootstrap, "post_init");
}

static void run_script(struct seq_post_bootstrap *s)
{
	struct pgctx *p = s->p;
	struct host_cmd cmd = HOST_CMD_INIT;
	const char *user = pgctx_auth(p, "superuser", "username");
	bool ok = control_split(&cmd, script_of(p));
	if (p->local_host[0] == '/')
		host_cmd_argf(&cmd, "postgres://%s%s:%s/%s?host=%s", user != NULL ? user : "",
			user != NULL ? "@" : "", p->local_port, p->database, p->local_host);
	else
		host_cmd_argf(&cmd, "postgres://%s%s%s:%s/%s", user != NULL ? user : "",
			user != NULL ? "@" : "", p->local_host, p->local_port, p->database);
	host_cmd_env(&cmd, "PGPASSFILE", p->pgpass);
	host_cmd_env(&cmd, "PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
	if (ok)
		co_job(&s->co, "post_bootstrap", &cmd, JOB_LOG_OUTPUT | JOB_DIES_WITH_US, 0, 10000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "cannot be split into words");
	host_cmd_done(&cmd);
}

static void write_passfile(struct seq_post_bootstrap *s)
{
	static struct conninfo c;
	struct pgctx *p = s->p;
	AUTO(buf) tail = BUF_INIT(LIMIT_CONNINFO * 2);
	memset(&c, 0, sizeof(c));
	bool ok = conninfo_set(&c, "host", p->local_host) &&
		  conninfo_set(&c, "port", p->local_port) &&
		  conninfo_set(&c, "user", pgctx_auth(p, "superuser", "username")) &&
		  conninfo_set(&c, "password", pgctx_auth(p, "superuser", "password"));
	buf_add(&tail, p->pgpass, strlen(p->pgpass) + 1);
	if (!ok || !conninfo_pgpass(&c, &tail))
		co_wake(&s->co, co_ticket(&s->co), false, "no password is configured");
	else
		co_files(&s->co, FILES_WRITE_ATOMIC, 0600, 0, 0, tail.data, tail.len, FILES_MS);
}

static void run_user(struct seq_post_bootstrap *s)
{
	AUTO(buf) sql = BUF_INIT(LIMIT_CONNINFO * 4);
	user_sql(s->p, s->user, &sql);
	if (sql.len == 0 || sql.failed)
		co_wake(&s->co, co_ticket(&s->co), !sql.failed, "statement is too long");
	else
		co_sql(&s->co, &s->p->sql, buf_str(&sql), NULL, 0, 30000);
}

/* ---- the end of a custom bootstrap
 * ---------------------------------------------------------------------------------------- */

static bool hba_moves(const struct pgctx *p)
{
	return json_truthy(params_get(json_object_get(p->pg, "parameters"), "hba_file"));
}

static void remove_config(struct co *co, const struct pgctx *p, const char *name)
{
	char path[LIMIT_PATH * 2];
	if (str_format(path, sizeof(path), "%s/%s", p->config_dir, name))
		remove_path(co, path);
	else
		co_wake(co, co_ticket(co), false, "path is too long");
}

/* pg_hba.conf held trust for us alone: the original comes back where we write none, the recovery
 * settings go. A moved hba_file, or hot_standby that was off, needs a restart. */
static void seq_own_step(struct co *co)
{
	struct seq_own *s = (struct seq_own *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	remove_config(co, p, "pg_hba.conf");
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "pg_hba.conf: %s", co->note);
	backup_configs(co, p, FILES_RESTORE_CONFIGS);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "configuration files: %s", co->note);
	for (s->file = 0; left_behind(p, s->file) != NULL; s->file++) {
		remove_path(co, left_behind(p, s->file));
		CO_WAIT(co);
		if (!co->ok)
			log_warning("%s: %s", left_behind(p, s->file), co->note);
	}
	if (!hba_moves(p) && json_object_size(p->pending_restart) == 0) {
		s->u.reload = (struct seq_reload){ .p = p, .force = true };
		co_call(co, &s->u.reload.co, seq_reload_step);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "%s", co->note);
		if (json_object_size(p->pending_restart) == 0) {
			backup_configs(co, p, FILES_BACKUP_CONFIGS);
			CO_WAIT(co);
			CO_RETURN(co, true, "done");
		}
	}
	log_info("restart: the new cluster's settings differ from those of its bootstrap");
	memset(&s->u, 0, sizeof(s->u));
	s->u.stop = (struct seq_stop){ .p = p, .mode = PG_STOP_FAST, .no_callback = true };
	co_call(co, &s->u.stop.co, seq_stop_step);
	CO_WAIT(co);
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	memset(&s->u, 0, sizeof(s->u));
	s->u.start = (struct seq_start){ .p = p,
		.role = PG_ROLE_PRIMARY,
		.timeout_ms = p->set->primary_start_timeout_ms,
		.lease_until_ms = s->lease_until(s->arg) };
	co_call(co, &s->u.start.co, seq_start_step);
	CO_WAIT(co);
	CO_RETURN(co, co->ok, "%s", co->note);
	CO_END(co);
}

void seq_post_bootstrap_step(struct co *co)
{
	struct seq_post_bootstrap *s = (struct seq_post_bootstrap *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->own.p = p;
	s->own.lease_until = s->lease_until;
	s->own.arg = s->arg;
	if (json_object_get(p->bootstrap, "users") != NULL)
		log_error("bootstrap.users is not supported any more: nothing is created; use "
			  "post_bootstrap");
	pgctx_params_local(p, &p->sql, "0");
	for (s->user = 0; s->user <= 4; s->user++) {
		if (s->user == 1 && script_of(p) != NULL) {
			write_passfile(s);
			CO_WAIT(co);
			/* An earlier worker's script may still run, or have ended unheard. */
			if (!co_job_adopt(co, "post_bootstrap"))
				run_script(s);
			CO_WAIT(co);
		} else if (s->user != 1) {
			run_user(s);
			CO_WAIT(co);
		} else {
			continue;
		}
		if (!co->ok)
			CO_RETURN(co, false, "post_bootstrap: %s", co->note);
	}
	s->custom = p->custom_bootstrap;
	p->bootstrapping = false;
	take_recovery(p, NULL);
	if (!s->custom)
		CO_RETURN(co, true, "done");
	co_call(co, &s->own.co, seq_own_step);
	CO_WAIT(co);
	CO_RETURN(co, co->ok, "%s", co->note);
	CO_END(co);
}
