/* PostgreSQL in single-user mode, which ends what a recovery left open (ha 6.6). Worker process. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/archive.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/bootstrap.h"

#define FILES_MS    30000
#define CLEAR_MS    600000
#define OPTIONS_MAX 16384 /* postmaster.opts */

static void remove_file(struct co *co, const char *name)
{
	co_files(co, FILES_REMOVE, 0, 0, 0, name, strlen(name) + 1, FILES_MS);
}

/* What its last life was started with; not there or not readable: the configuration file alone. */
static void read_options(struct co *co)
{
	static const char name[] = "postmaster.opts";
	co_files(co, FILES_READ, 0, OPTIONS_MAX, FILES_F_PARTIAL, name, sizeof(name), FILES_MS);
}

static void clear_archive_status(struct co *co, const struct pgctx *p)
{
	char path[LIMIT_NAME];
	int n = snprintf(path, sizeof(path), "%s/archive_status", archive_wal_dir(p));
	co_files(co, FILES_CLEAR_DIR, 0, 0, 0, path, (size_t)n + 1, CLEAR_MS);
}

static bool was_standby(const struct pg_control *c)
{
	return c->valid &&
	       (c->state == PG_DB_SHUTDOWNED_IN_RECOVERY || c->state == PG_DB_IN_ARCHIVE_RECOVERY);
}

static void run_single(struct co *co, const struct pgctx *p)
{
	struct argv argv = ARGV_INIT;
	struct host_cmd cmd = HOST_CMD_INIT;
	char program[LIMIT_PATH], conf[LIMIT_PATH * 2];
	bool ok = pgctx_program(p, "postgres", program, sizeof(program)) &&
		  str_format(conf, sizeof(conf), "%s/%s.conf", p->config_dir, p->conf_name);
	if (!co->ok)
		log_warning("postmaster.opts: %s", co->note);
	argv_single(&argv, program, p->data_dir, conf, co->ok ? buf_str(&co->data) : "");
	host_cmd_take(&cmd, &argv);
	if (ok)
		co_job(co, "crash recovery", &cmd, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0, 1000);
	else
		co_wake(co, co_ticket(co), false, "path of postgres is too long");
	host_cmd_done(&cmd);
}

void seq_crash_step(struct co *co)
{
	static const char *const recovery_files[] = { "recovery.conf", "recovery.signal",
		"standby.signal" };
	struct seq_crash *s = (struct seq_crash *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	if (co_job_adopt(co, "crash recovery")) {
		CO_WAIT(co);
		goto ended;
	}
	s->archive.p = s->control.p = p;
	co_call(co, &s->archive.co, seq_archive_step);
	CO_WAIT(co);
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	if (!co->ok)
		log_error("segments that wait for the archive are not archived: %s", co->note);
	/* A segment marked done may be recycled by the checkpoint at the end, and pg_rewind needs
	 * it: without a mark, and with an archive that takes nothing, all stay. */
	clear_archive_status(co, p);
	CO_WAIT(co);
	if (!co->ok && co->sys_errno != ENOENT)
		log_warning("archive_status is not cleared: %s", co->note);
	co_call(co, &s->control.co, seq_control_read_step);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "pg_control: %s", co->note);
	if (was_standby(&s->control.files.control)) {
		/* Its own records stand at the end of the leader's timeline afterwards: rewound, or
		 * copied anew, but never started as it is (X42). */
		mark_data_dir(co, PG_MARK_REWIND);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "mark of the data directory: %s", co->note);
	}
	for (s->file = 0; s->file < ARRAY_LEN(recovery_files); s->file++) {
		remove_file(co, recovery_files[s->file]);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "%s: %s", recovery_files[s->file], co->note);
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	read_options(co);
	CO_WAIT(co);
	run_single(co, p);
	CO_WAIT(co);
ended:
	if (!co->ok)
		CO_RETURN(co, false, "crash recovery failed exit_code=%d: %s", co->exit_code,
			co->note);
	log_info("crash recovery finished");
	CO_END(co);
}
