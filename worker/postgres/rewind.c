/* Diverged or not, what stands around pg_rewind (ha 6.3 to 6.5). Worker process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/archive.h"
#include "worker/postgres/bootstrap.h"
#include "worker/postgres/branch.h"
#include "worker/postgres/waldump.h"

#define FILES_MS  30000
#define SQL_MS	  5000
#define REMOVE_MS (24 * 3600 * 1000LL)
#define CHECKPOINT_MS                                                                              \
	3600000 /* a checkpoint of a large remote server; the task can be cancelled meanwhile */

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

/* Members say in their keys that they have made their checkpoint; a remote primary does not. The
 * superuser makes one there, a rewind user only looks whether there is one. */
static bool may_checkpoint(const struct pgctx *p)
{
	return str_eq(pgctx_auth(p, "rewind", "username"), pgctx_auth(p, "superuser", "username"));
}

static const char looked_sql[] =
	"SELECT ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name("
	"pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int = timeline_id "
	"FROM pg_catalog.pg_control_checkpoint()";

/* What has to be ended first, as pg_rewind wants a server that was shut down. X76: and before 16 it
 * takes the timeline of the last checkpoint for that of the server. A standby that has replayed the
 * first records of a timeline, but not its first checkpoint, is one timeline further: "source and
 * target cluster are on the same timeline", and nothing is rewound. */
static bool recovery_to_end(const struct seq_rewind *s)
{
	const struct pg_control *c = &s->control.files.control;
	bool further = s->p->major < 16 && c->state == PG_DB_SHUTDOWNED_IN_RECOVERY &&
		       c->min_recovery_tli > c->checkpoint_tli;
	return c->valid && (c->state == PG_DB_IN_ARCHIVE_RECOVERY || further);
}

/* After pg_rewind found nothing to do. */
static bool believed(struct seq_rewind *s)
{
	/* An earlier run was interrupted, maybe after its first write: whoever the leader is by
	 * now, the directory is between two states (X42). */
	if (s->marked) {
		snprintf(s->failure, sizeof(s->failure),
			"it has nothing to rewind from %s in a directory that an interrupted run "
			"left",
			s->leader.name);
		return false;
	}
	/* The leader has changed its timeline since the check, or a number was used twice (X43). */
	if (s->run.same_timeline) {
		s->ready = false;
		s->check_again = true;
		snprintf(s->failure, sizeof(s->failure),
			"it finds the timeline of %s here, the check did not", s->leader.name);
		return false;
	}
	return true; /* an ancestor */
}

void seq_rewind_step(struct co *co)
{
	struct seq_rewind *s = (struct seq_rewind *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->ready = s->marked = true;
	s->check_again = s->recovered = s->run.touched = false;
	if (!pgctx_params_remote(
		    p, &p->remote, "rewind", s->hostaddr, s->leader.host, s->leader.port))
		CO_RETURN(co, false, "connection parameters");
	s->run.adopted = host_job_there(p->h, "pg_rewind");
	if (s->run.adopted)
		goto run;
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
	if (s->leader.kind == TARGET_REMOTE) {
		s->ready = false;
		if (may_checkpoint(p)) {
			co_sql(co, &p->remote, "SET statement_timeout = 0", NULL, 0, SQL_MS);
			CO_WAIT(co);
			co_sql(co, &p->remote, "CHECKPOINT", NULL, 0, CHECKPOINT_MS);
			CO_WAIT(co);
			if (!co->ok)
				CO_RETURN(co, false, "checkpoint on the remote primary: %s",
					co->note);
		} else {
			co_sql(co, &p->remote, looked_sql, NULL, 0, SQL_MS);
			CO_WAIT(co);
			if (!co->ok || PQntuples(co->res) != 1)
				CO_RETURN(
					co, false, "timeline of the remote primary: %s", co->note);
			if (PQgetvalue(co->res, 0, 0)[0] != 't')
				CO_RETURN(co, false,
					"the remote primary has not made its checkpoint yet");
		}
		s->ready = true;
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	/* The segments of the old timeline may be nowhere else: the new primary has recycled its
	 * own copies, and pg_rewind removes ours. */
	s->archive.p = p;
	co_call(co, &s->archive.co, seq_archive_step);
	CO_WAIT(co);
	if (!co->ok && !co->cancelled)
		log_error("segments of the old timeline are not archived: %s", co->note);
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	s->control.p = p;
	co_call(co, &s->control.co, seq_control_read_step);
	CO_WAIT(co);
	if (!co->ok) {
		s->ready = false;
		CO_RETURN(co, false, "pg_control: %s", co->note);
	}
	s->marked = s->control.files.mark == PG_MARK_REWIND;
	mark_data_dir(co, PG_MARK_REWIND);
	CO_WAIT(co);
	if (!co->ok)
		log_warning("an interrupted pg_rewind will not be recognised: %s", co->note);
	if (recovery_to_end(s)) {
		log_info("recovery is ended in single-user mode before pg_rewind rule=X76");
		s->crash.p = p;
		s->recovered = true;
		co_call(co, &s->crash.co, seq_crash_step);
		CO_WAIT(co);
		if (!co->ok) {
			s->ready = false;
			CO_RETURN(co, false, "before pg_rewind: %s", co->note);
		}
	}
run:
	s->run.p = p;
	s->run.leader = s->leader;
	co_call(co, &s->run.co, seq_rewind_run_step);
	CO_WAIT(co);
	if (co->ok && (!s->run.unneeded || believed(s))) {
		mark_data_dir(co, PG_MARK_NONE);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "mark of the data directory: %s", co->note);
		CO_RETURN(co, true, "pg_rewind succeeded");
	}
	if (!co->ok)
		snprintf(s->failure, sizeof(s->failure), "%s", co->note);
	/* Between two states, or with records of its own at the end: seq_crash. */
	if (!s->run.touched && !s->marked && !s->recovered) {
		mark_data_dir(co, PG_MARK_NONE);
		CO_WAIT(co);
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	if (s->check_again)
		CO_RETURN(co, false, "pg_rewind: %s", s->failure);
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
	CO_RETURN(co, false, "pg_rewind failed: %s", s->failure);
	CO_END(co);
}
