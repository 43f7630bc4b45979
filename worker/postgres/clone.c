/* A new replica: remove what is there, copy, start as a standby (ha 8.4). Worker process. */
#include <stdio.h>
#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/bootstrap.h"
#include "worker/postgres/render.h"

#define FILES_MS	    30000
#define REMOVE_MS	    (24 * 3600 * 1000LL) /* a large directory on a slow disk */
#define BASEBACKUP_TRIES    2
#define BASEBACKUP_PAUSE_MS 5000

static const json_t *methods_of(const struct seq_clone *s)
{
	const json_t *m = s->source.kind == TARGET_REMOTE
				  ? json_object_get(s->p->standby, "create_replica_methods")
				  : NULL;
	if (!json_is_array(m))
		m = json_object_get(s->p->pg, "create_replica_methods");
	if (!json_is_array(m))
		m = json_object_get(s->p->pg, "create_replica_method");
	return json_is_array(m) ? m : NULL;
}

static const char *method_name(const struct seq_clone *s)
{
	if (s->from_leader || methods_of(s) == NULL)
		return s->method == 0 ? "basebackup" : NULL;
	return json_string_value(json_array_get(methods_of(s), s->method));
}

/* As the supervisor knows it: that is how a later worker finds it again. */
static const char *job_name(const struct seq_clone *s)
{
	return strcmp(method_name(s), "basebackup") == 0 ? "pg_basebackup" : method_name(s);
}

static bool method_flag(const struct seq_clone *s, const char *flag)
{
	const json_t *section = json_object_get(s->p->pg, method_name(s));
	return json_truthy(json_object_get(section, flag));
}

/* Connection string of the source without a password; the passfile goes beside it. */
static bool connstring(struct seq_clone *s, struct buf *pass)
{
	static struct conninfo c;
	struct pgctx *p = s->p;
	static const char *const words[] = { "sslmode", "sslcert", "sslkey", "sslpassword",
		"sslrootcert", "sslcrl", "gssencmode", "channel_binding" };
	s->connstring[0] = '\0';
	if (s->source.kind == TARGET_NONE)
		return true;
	memset(&c, 0, sizeof(c));
	bool ok = conninfo_set(&c, "dbname", p->database) &&
		  conninfo_set(&c, "host", s->source.host) &&
		  conninfo_set(&c, "port", s->source.port) &&
		  conninfo_set(&c, "user", pgctx_auth(p, "replication", "username"));
	for (unsigned i = 0; ok && i < ARRAY_LEN(words); i++)
		ok = conninfo_set(&c, words[i], pgctx_auth(p, "replication", words[i]));
	AUTO(buf) text = BUF_INIT(LIMIT_CONNINFO);
	conninfo_format(&c, p->major != 0 ? p->major : 15, &text);
	ok = ok && !text.failed && str_copy(s->connstring, sizeof(s->connstring), buf_str(&text));
	const char *password = pgctx_auth(p, "replication", "password");
	if (ok && password != NULL)
		ok = conninfo_set(&c, "password", password) && conninfo_pgpass(&c, pass);
	return ok;
}

static void write_passfile(struct seq_clone *s)
{
	AUTO(buf) tail = BUF_INIT(LIMIT_CONNINFO * 2);
	AUTO(buf) pass = BUF_INIT(LIMIT_CONNINFO);
	bool ok = connstring(s, &pass);
	buf_add(&tail, s->p->pgpass, strlen(s->p->pgpass) + 1);
	buf_add(&tail, pass.data, pass.len);
	if (!ok)
		co_wake(&s->co, co_ticket(&s->co), false, "connection string is too long");
	else if (pass.len == 0)
		co_wake(&s->co, co_ticket(&s->co), true, "");
	else
		co_files(&s->co, FILES_WRITE_ATOMIC, 0600, 0, 0, tail.data, tail.len, FILES_MS);
}

static void run_basebackup(struct seq_clone *s)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	struct argv argv = ARGV_INIT;
	AUTO(buf) notes = BUF_INIT(LIMIT_CONNINFO);
	char program[LIMIT_PATH];
	bool ok = pgctx_program(s->p, "pg_basebackup", program, sizeof(program));
	if (ok)
		argv_basebackup(&argv, program, s->p->data_dir, s->connstring,
			json_object_get(s->p->pg, "basebackup"), s->p->major * 10000, &notes);
	render_log_notes(&notes);
	host_cmd_take(&cmd, &argv);
	host_cmd_env(&cmd, "PGPASSFILE", s->p->pgpass);
	if (ok)
		co_job(&s->co, "pg_basebackup", &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0, 10000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "path of pg_basebackup is too long");
	host_cmd_done(&cmd);
}

static void run_method(struct seq_clone *s)
{
	const char *name = method_name(s);
	struct host_cmd cmd = HOST_CMD_INIT;
	struct argv argv = ARGV_INIT;
	AUTO(buf) notes = BUF_INIT(LIMIT_CONNINFO);
	bool ok = argv_clone_method(&argv, name, json_object_get(s->p->pg, name), s->p->scope,
		s->p->data_dir, s->connstring, &notes);
	render_log_notes(&notes);
	host_cmd_take(&cmd, &argv);
	host_cmd_env(&cmd, "PGPASSFILE", s->p->pgpass);
	if (ok)
		co_job(&s->co, name, &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0, 10000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "command cannot be split into words");
	host_cmd_done(&cmd);
}

static void restore_configs(struct seq_clone *s)
{
	static const char names[] =
		"postgresql.conf\0postgresql.base.conf\0pg_hba.conf\0pg_ident.conf";
	AUTO(buf) tail = BUF_INIT(LIMIT_PATH * 2);
	buf_add(&tail, s->p->config_dir, strlen(s->p->config_dir) + 1);
	buf_add(&tail, names, sizeof(names));
	co_files(&s->co, FILES_RESTORE_CONFIGS, 0, 0, 0, tail.data, tail.len, FILES_MS);
}

static void remove_data(struct co *co)
{
	co_files(co, FILES_REMOVE_DATA_DIR, 0, 0, 0, NULL, 0, REMOVE_MS);
}

void seq_clone_step(struct co *co)
{
	struct seq_clone *s = (struct seq_clone *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	if (s->stop_first) {
		s->stop = (struct seq_stop){
			.p = p, .mode = PG_STOP_IMMEDIATE, .timeout_ms = p->set->retry_timeout_ms
		};
		co_call(co, &s->stop.co, seq_stop_step);
		CO_WAIT(co);
	}
	pgctx_set_role(p, PG_ROLE_UNINITIALIZED);
	pgctx_set_state(p, PG_STATE_CREATING_REPLICA);
	for (s->method = 0; method_name(s) != NULL; s->method++) {
		if (co_job_adopt(co, job_name(s))) {
			CO_WAIT(co);
			if (co->ok)
				goto copied;
			log_error("replica method %s of an earlier worker failed: %s",
				method_name(s), co->note);
			break;
		}
	}
	for (s->method = 0; !co->cancelled && method_name(s) != NULL; s->method++) {
		s->use_basebackup = strcmp(method_name(s), "basebackup") == 0;
		s->keep_data = !s->use_basebackup && method_flag(s, "keep_data");
		if (s->source.kind == TARGET_NONE &&
			(s->use_basebackup || !method_flag(s, "no_leader")))
			continue;
		for (s->attempt = 0; s->attempt < (s->use_basebackup ? BASEBACKUP_TRIES : 1);
			s->attempt++) {
			if (s->attempt > 0) {
				co_sleep(co, BASEBACKUP_PAUSE_MS);
				CO_WAIT(co);
			}
			/* While it is removed, or restored over what is there, pg_control may look
			 * whole. */
			mark_data_dir(co, PG_MARK_REPLACING);
			CO_WAIT(co);
			if (!co->ok)
				log_warning(
					"an interrupted copy will not be recognised: %s", co->note);
			if (!s->keep_data) {
				remove_data(co);
				CO_WAIT(co);
				if (!co->ok)
					log_error("removal of the data directory: %s", co->note);
				mark_data_dir(co, s->mark);
				CO_WAIT(co);
			}
			if (co->cancelled)
				break;
			write_passfile(s);
			CO_WAIT(co);
			if (!co->ok)
				log_error("passfile: %s", co->note);
			log_info("creating replica method=%s source=%s", method_name(s),
				s->source.kind == TARGET_NONE	  ? "none"
				: s->source.kind == TARGET_REMOTE ? s->source.host
								  : s->source.name);
			if (s->use_basebackup)
				run_basebackup(s);
			else
				run_method(s);
			CO_WAIT(co);
			if (co->ok)
				goto copied;
			log_error("replica method %s failed: %s", method_name(s), co->note);
			if (co->cancelled)
				break;
		}
		if (co->cancelled)
			break;
	}
	if (!s->keep_data) {
		remove_data(co);
		CO_WAIT(co);
		if (co->ok) {
			mark_data_dir(co, PG_MARK_NONE);
			CO_WAIT(co);
		}
	}
	pgctx_set_state(p, PG_STATE_STOPPED);
	CO_RETURN(co, false, "failed to bootstrap replica: no method succeeded");
copied:
	restore_configs(s);
	CO_WAIT(co);
	co_files(co, FILES_REMOVE, 0, 0, 0, "promote", sizeof("promote"), FILES_MS);
	CO_WAIT(co);
	mark_data_dir(co, s->mark == PG_MARK_BOOTSTRAP ? PG_MARK_ROLES : PG_MARK_NONE);
	CO_WAIT(co);
	if (!co->ok)
		/* It would be taken for half a copy at the next start. */
		CO_RETURN(co, false, "mark of the data directory: %s", co->note);
	pgctx_set_state(p, PG_STATE_STOPPED);
	p->target = s->follow;
	p->follow_known = true;
	if (!str_copy(p->following, sizeof(p->following),
		    s->follow.kind == TARGET_NONE ? "" : s->follow.name))
		p->following[0] = '\0';
	s->start = (struct seq_start){ .p = p, .role = s->role, .target = s->follow };
	co_call(co, &s->start.co, seq_start_step);
	CO_WAIT(co);
	CO_RETURN(co, co->ok, "%s", co->note);
	CO_END(co);
}
