/* Diverged or not, pg_rewind, single-user crash recovery (ha 6). Worker process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/bootstrap.h"
#include "worker/postgres/branch.h"
#include "worker/postgres/render.h"
#include "worker/postgres/waldump.h"

#define FILES_MS  30000
#define SQL_MS	  5000
#define REMOVE_MS (24 * 3600 * 1000LL)

/* ---- check
 * ---------------------------------------------------------------------------------------- */

static void decide(struct seq_rewind_check *s, const char *history)
{
	uint64_t lsn = 0;
	if (!branch_switch_point(history, s->local_timeline, &lsn)) {
		s->out_state = 1; /* the leader's history does not know our timeline */
	} else if (s->in_recovery) {
		s->out_state = s->local_lsn > lsn;
	} else {
		/* At or past the fork: diverged. Before it, a clean end exactly at the fork needs
		 * the record's end. */
		s->out_state = s->local_lsn >= lsn ? 1 : 2;
	}
	char a[20], b[20];
	str_from_lsn(s->local_lsn, a);
	str_from_lsn(lsn, b);
	log_info("rewind check: local timeline=%lld lsn=%s in_recovery=%d switchpoint=%s leader "
		 "timeline=%lld",
		(long long)s->local_timeline, a, s->in_recovery, b, (long long)s->leader_timeline);
}

static void run_waldump(struct seq_rewind_check *s)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	char program[LIMIT_PATH], lsn[20];
	bool ok = pgctx_program(s->p, "pg_waldump", program, sizeof(program));
	str_from_lsn(s->local_lsn, lsn);
	host_cmd_arg(&cmd, program);
	host_cmd_argf(&cmd, "--path=%s/pg_wal", s->p->data_dir);
	host_cmd_argf(&cmd, "--timeline=%lld", (long long)s->local_timeline);
	host_cmd_argf(&cmd, "--start=%s", lsn);
	host_cmd_arg(&cmd, "--limit=2");
	host_cmd_env(&cmd, "LC_ALL", "C");
	if (ok)
		co_job(&s->co, "pg_waldump", &cmd, JOB_KEEP_STDOUT, 30000, 1000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "path of pg_waldump is too long");
	host_cmd_done(&cmd);
}

static bool replication_params(struct seq_rewind_check *s)
{
	struct pgctx *p = s->p;
	struct pgc_params c = { .count = 0 };
	bool ok = pgctx_params_remote(p, &s->repl, "replication", s->hostaddr, s->leader.host,
			  s->leader.port) &&
		  pgc_params_copy(&c, &s->repl.params) &&
		  pgc_params_set(&c, "replication", "true") &&
		  pgc_params_set(&c, "options", NULL) && pgc_configure(&s->repl, &c);
	pgc_params_done(&c);
	return ok;
}

/* After FILES_HISTORY: is our timeline another branch than the leader's of that number? PostgreSQL
 * never removes history files, so a missing one (someone cleaned up) proves nothing: as the
 * reference, which never compares, we then trust the numbers. */
static void other_branch(struct seq_rewind_check *s)
{
	static struct history_row rows[LIMIT_HISTORY];
	size_t n = s->co.data.len / sizeof(rows[0]);
	s->other_branch = false;
	if (!s->co.ok || n > LIMIT_HISTORY) {
		log_warning("own history of timeline %lld cannot be compared: %s",
			(long long)s->local_timeline, s->co.ok ? "too long" : s->co.note);
		return;
	}
	if (n > 0)
		memcpy(rows, s->co.data.data, n * sizeof(rows[0]));
	s->other_branch =
		!branch_same(rows, (unsigned)n, buf_str(&s->leader_history), s->local_timeline);
	if (s->other_branch)
		log_error("timeline %lld was begun twice: ours has another history than the "
			  "leader's",
			(long long)s->local_timeline);
}

/* After pg_waldump: a clean end exactly at the fork is no divergence. */
static void end_of_checkpoint(struct seq_rewind_check *s)
{
	uint64_t lsn = 0;
	bool found = branch_switch_point(buf_str(&s->leader_history), s->local_timeline, &lsn);
	uint64_t end = waldump_checkpoint_end(buf_str(&s->co.data), s->co.note, s->local_lsn);
	s->out_state = !found || end != lsn;
	log_info("rewind check: end of the shutdown checkpoint %s the fork",
		s->out_state ? "is not" : "is");
}

void seq_rewind_check_step(struct co *co)
{
	struct seq_rewind_check *s = (struct seq_rewind_check *)co;
	struct pgctx *p = s->p;
	char sql[64];
	CO_BEGIN(co);
	s->out_state = -1;
	if (s->local_timeline == 0)
		CO_RETURN(co, false, "local timeline is not known");
	if (!pgctx_params_remote(
		    p, &p->remote, "rewind", s->hostaddr, s->leader.host, s->leader.port) ||
		!replication_params(s))
		CO_RETURN(co, false, "connection parameters");
	co_sql(co, &p->remote, "SELECT pg_catalog.pg_is_in_recovery()", NULL, 0, SQL_MS);
	CO_WAIT(co);
	if (!co->ok || PQntuples(co->res) != 1)
		CO_RETURN(co, false, "leader: %s", co->note);
	if (PQgetvalue(co->res, 0, 0)[0] == 't' && s->leader.kind != TARGET_REMOTE)
		CO_RETURN(co, false, "leader is still in recovery");
	co_sql(co, &s->repl, "IDENTIFY_SYSTEM", NULL, 0, SQL_MS);
	CO_WAIT(co);
	if (!co->ok || PQntuples(co->res) != 1 ||
		!str_to_i64(PQgetvalue(co->res, 0, 1), &s->leader_timeline))
		CO_RETURN(co, false, "leader: IDENTIFY_SYSTEM: %s", co->note);
	buf_reset(&s->leader_history);
	if (s->leader_timeline > 1 && s->local_timeline <= s->leader_timeline) {
		snprintf(sql, sizeof(sql), "TIMELINE_HISTORY %lld", (long long)s->leader_timeline);
		co_sql(co, &s->repl, sql, NULL, 0, SQL_MS);
		CO_WAIT(co);
		if (!co->ok || PQntuples(co->res) != 1)
			CO_RETURN(co, false, "leader: TIMELINE_HISTORY: %s", co->note);
		buf_adds(&s->leader_history, PQgetvalue(co->res, 0, 1));
		if (s->leader_history.failed)
			CO_RETURN(co, false, "leader: TIMELINE_HISTORY over %zu bytes",
				s->leader_history.max);
	}
	if (s->local_timeline > 1 && s->local_timeline <= s->leader_timeline) {
		co_files(co, FILES_HISTORY, 0, 0, (uint64_t)s->local_timeline, NULL, 0, FILES_MS);
		CO_WAIT(co);
		if (!co->ok && co->sys_errno != ENOENT)
			CO_RETURN(co, false, "own timeline history: %s", co->note);
		other_branch(s);
	}
	if (s->local_timeline > s->leader_timeline) {
		s->out_state = 1;
	} else if (s->other_branch) {
		/* Two promotions gave the same number. pg_rewind finds the common ancestor when the
		 * numbers differ now; when they are equal it calls the servers the same, and the
		 * receiver would append the leader's records to ours. Only a new copy helps then.
		 */
		s->out_state = s->local_timeline == s->leader_timeline ? 3 : 1;
	} else if (s->local_timeline == s->leader_timeline) {
		s->out_state = 0;
	} else {
		decide(s, buf_str(&s->leader_history));
		if (s->out_state == 2 && s->was_shutdown) {
			run_waldump(s);
			CO_WAIT(co);
			end_of_checkpoint(s);
		} else if (s->out_state == 2) {
			s->out_state = 1;
		}
	}
	if (s->out_state == 3)
		CO_RETURN(co, true, "same timeline number as the leader, but another history");
	log_info("rewind is %sneeded", s->out_state == 1 ? "" : "not ");
	CO_END(co);
}

/* ---- rewind
 * --------------------------------------------------------------------------------------- */

static void run_rewind(struct seq_rewind *s)
{
	static const char *const forbidden[] = { "target-pgdata", "source-pgdata", "source-server",
		"write-recovery-conf", "dry-run", "restore-target-wal", "config-file",
		"no-ensure-shutdown", "version", "help", NULL };
	struct pgctx *p = s->p;
	struct host_cmd cmd = HOST_CMD_INIT;
	struct err err = ERR_INIT;
	static struct conninfo c;
	static const char *const words[] = { "sslmode", "sslcert", "sslkey", "sslpassword",
		"sslrootcert", "sslcrl" };
	char program[LIMIT_PATH];
	AUTO(buf) dsn = BUF_INIT(LIMIT_CONNINFO);
	memset(&c, 0, sizeof(c));
	bool ok = pgctx_program(p, "pg_rewind", program, sizeof(program)) &&
		  conninfo_set(&c, "host", s->leader.host) &&
		  conninfo_set(&c, "port", s->leader.port) &&
		  conninfo_set(&c, "dbname", p->database) &&
		  conninfo_set(&c, "user", pgctx_auth(p, "rewind", "username"));
	for (unsigned i = 0; ok && i < ARRAY_LEN(words); i++)
		ok = conninfo_set(&c, words[i], pgctx_auth(p, "rewind", words[i]));
	conninfo_format(&c, p->major, &dsn);
	host_cmd_arg(&cmd, program);
	host_cmd_arg(&cmd, "-D");
	host_cmd_arg(&cmd, p->data_dir);
	host_cmd_arg(&cmd, "--source-server");
	host_cmd_arg(&cmd, buf_str(&dsn));
	const json_t *restore = json_path(p->pg, "parameters.restore_command");
	if (restore == NULL)
		restore = json_path(p->pg, "recovery_conf.restore_command");
	if (json_truthy(restore) && p->major >= 13)
		host_cmd_arg(&cmd, "--restore-target-wal");
	if (render_options(json_object_get(p->pg, "rewind"), "postgresql.rewind", forbidden, false,
		    &cmd, &err) != ERR_OK)
		log_error("%s", err.text);
	host_cmd_env(&cmd, "PGPASSFILE", p->pgpass);
	host_cmd_env(&cmd, "LC_ALL", "C");
	host_cmd_env(&cmd, "PGOPTIONS", "-c statement_timeout=0");
	if (ok)
		co_job(&s->co, "pg_rewind", &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0, 10000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "command line is too long");
	host_cmd_done(&cmd);
}

static void write_passfile(struct seq_rewind *s)
{
	static struct conninfo c;
	AUTO(buf) tail = BUF_INIT(LIMIT_CONNINFO * 2);
	memset(&c, 0, sizeof(c));
	bool ok = conninfo_set(&c, "host", s->leader.host) &&
		  conninfo_set(&c, "port", s->leader.port) &&
		  conninfo_set(&c, "user", pgctx_auth(s->p, "rewind", "username")) &&
		  conninfo_set(&c, "password", pgctx_auth(s->p, "rewind", "password"));
	buf_add(&tail, s->p->pgpass, strlen(s->p->pgpass) + 1);
	if (!ok || !conninfo_pgpass(&c, &tail))
		co_wake(&s->co, co_ticket(&s->co), true, "no password");
	else
		co_files(&s->co, FILES_WRITE_ATOMIC, 0600, 0, 0, tail.data, tail.len, FILES_MS);
}

void seq_rewind_step(struct co *co)
{
	struct seq_rewind *s = (struct seq_rewind *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->ready = true;
	if (!pgctx_params_remote(
		    p, &p->remote, "rewind", s->hostaddr, s->leader.host, s->leader.port))
		CO_RETURN(co, false, "connection parameters");
	if (co_job_adopt(co, "pg_rewind")) {
		CO_WAIT(co);
		goto ended;
	}
	if (p->h->pg.state != PG_PROC_NONE) {
		s->stop = (struct seq_stop){ .p = p, .mode = PG_STOP_FAST };
		co_call(co, &s->stop.co, seq_stop_step);
		CO_WAIT(co);
	}
	if (!s->leader_checkpointed && s->leader.kind == TARGET_MEMBER) {
		s->ready = false;
		CO_RETURN(co, false, "waiting for checkpoint on %s before rewind", s->leader.name);
	}
	co_sql(co, &p->remote, "SELECT pg_catalog.pg_is_in_recovery()", NULL, 0, SQL_MS);
	CO_WAIT(co);
	if (!co->ok || PQntuples(co->res) != 1 || PQgetvalue(co->res, 0, 0)[0] == 't') {
		s->ready = false;
		CO_RETURN(co, false, "leader cannot serve a rewind: %s",
			co->ok ? "it is in recovery" : co->note);
	}
	write_passfile(s);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "passfile: %s", co->note);
	mark_data_dir(co, PG_MARK_REWIND);
	CO_WAIT(co);
	if (!co->ok)
		log_warning("an interrupted pg_rewind will not be recognised: %s", co->note);
	log_info("running pg_rewind from %s", s->leader.name);
	run_rewind(s);
	CO_WAIT(co);
ended:
	if (co->ok) {
		mark_data_dir(co, PG_MARK_NONE);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "mark of the data directory: %s", co->note);
		CO_RETURN(co, true, "pg_rewind succeeded");
	}
	/* Its line before the first change; a process that was killed may have said nothing. */
	s->touched = co->exit_code < 0 ||
		     strstr(buf_str(&co->data), "rewinding from last common checkpoint") != NULL;
	log_error("pg_rewind failed exit_code=%d: %s", co->exit_code, co->note);
	if (!s->touched) {
		mark_data_dir(co, PG_MARK_NONE);
		CO_WAIT(co);
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	/* A leader that went away meanwhile is no verdict on this directory. */
	co_sql(co, &p->remote, "SELECT 1", NULL, 0, SQL_MS);
	CO_WAIT(co);
	if (!co->ok) {
		s->ready = false;
		CO_RETURN(co, false, "leader went away during pg_rewind");
	}
	if (s->remove_failed) {
		log_warning("pg_rewind failed: the data directory is removed as configured");
		mark_data_dir(co, PG_MARK_REPLACING);
		CO_WAIT(co);
		co_files(co, FILES_REMOVE_DATA_DIR, 0, 0, 0, NULL, 0, REMOVE_MS);
		CO_WAIT(co);
		if (co->ok) {
			mark_data_dir(co, PG_MARK_NONE);
			CO_WAIT(co);
		}
	}
	CO_RETURN(co, false, "pg_rewind failed");
	CO_END(co);
}

/* ---- single-user crash recovery
 * ------------------------------------------------------------------- */

static void remove_file(struct co *co, const char *name)
{
	co_files(co, FILES_REMOVE, 0, 0, 0, name, strlen(name) + 1, FILES_MS);
}

void seq_crash_step(struct co *co)
{
	struct seq_crash *s = (struct seq_crash *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	if (co_job_adopt(co, "crash recovery")) {
		CO_WAIT(co);
		goto ended;
	}
	remove_file(co, "standby.signal");
	CO_WAIT(co);
	remove_file(co, "recovery.signal");
	CO_WAIT(co);
	{
		struct host_cmd cmd = HOST_CMD_INIT;
		char program[LIMIT_PATH];
		bool ok = pgctx_program(p, "postgres", program, sizeof(program));
		host_cmd_arg(&cmd, program);
		host_cmd_arg(&cmd, "--single");
		host_cmd_arg(&cmd, "-D");
		host_cmd_arg(&cmd, p->data_dir);
		host_cmd_argf(&cmd, "--config-file=%s/%s.conf", p->config_dir, p->conf_name);
		host_cmd_arg(&cmd, "-c");
		host_cmd_arg(&cmd, "archive_mode=on");
		host_cmd_arg(&cmd, "-c");
		host_cmd_arg(&cmd, "archive_command=false");
		host_cmd_arg(&cmd, "template1");
		if (ok)
			co_job(co, "crash recovery", &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0, 1000);
		else
			co_wake(co, co_ticket(co), false, "path of postgres is too long");
		host_cmd_done(&cmd);
	}
	CO_WAIT(co);
ended:
	if (!co->ok)
		CO_RETURN(co, false, "crash recovery failed exit_code=%d: %s", co->exit_code,
			co->note);
	log_info("crash recovery finished");
	CO_END(co);
}
