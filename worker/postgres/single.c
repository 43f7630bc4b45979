/* PostgreSQL in single-user mode, which ends what a recovery left open (ha 6.6). Worker process. */
#include <errno.h>
#include <inttypes.h>
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
#define OPTIONS_MAX 16384	      /* postmaster.opts */
#define LIST_MAX    (4 * 1024 * 1024) /* of pg_wal: 100,000 names */

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

static uint32_t standby_timeline(const struct pg_control *c)
{
	if (!c->valid ||
		(c->state != PG_DB_SHUTDOWNED_IN_RECOVERY && c->state != PG_DB_IN_ARCHIVE_RECOVERY))
		return 0;
	return c->min_recovery_tli > c->checkpoint_tli ? c->min_recovery_tli : c->checkpoint_tli;
}

/* A standby: recovery as from an archive that has nothing more. It goes to the end of what is there
 * and of the timeline that was replayed, not of the latest one that the walreceiver has heard of,
 * and begins another. */
static void add_recovery(struct argv *a, const struct seq_crash *s)
{
	/* Its own settings may delay, stop or end recovery in other ways. */
	static const char *const settings[] = { "hot_standby=off",
		"recovery_end_command=", "archive_cleanup_command=", "restore_command=false",
		"recovery_min_apply_delay=0" };
	unsigned n = s->p->major >= 12 ? ARRAY_LEN(settings) : 1;
	for (unsigned i = 0; i < n; i++)
		argv_setting(a, settings[i]);
	if (s->p->major >= 12) {
		char target[64];
		snprintf(target, sizeof(target), "recovery_target_timeline=%" PRIu32, s->tli);
		argv_setting(a, target);
	}
}

static void recovery_file(struct seq_crash *s)
{
	static const char name[] = "recovery.signal";
	if (s->p->major >= 12) {
		co_files(&s->co, FILES_CREATE_EMPTY, 0, 0, 0, name, sizeof(name), FILES_MS);
		return;
	}
	char conf[128];
	int n = snprintf(conf, sizeof(conf),
		"recovery.conf%crestore_command = 'false'\nrecovery_target_timeline = '%" PRIu32
		"'\n",
		0, s->tli);
	co_files(&s->co, FILES_WRITE_ATOMIC, 0600, 0, 0, conf, (size_t)n, FILES_MS);
}

static void run_single(struct seq_crash *s)
{
	struct co *co = &s->co;
	const struct pgctx *p = s->p;
	struct argv argv = ARGV_INIT;
	struct host_cmd cmd = HOST_CMD_INIT;
	char program[LIMIT_PATH], conf[LIMIT_PATH * 2];
	bool ok = pgctx_program(p, "postgres", program, sizeof(program)) &&
		  str_format(conf, sizeof(conf), "%s/%s.conf", p->config_dir, p->conf_name);
	if (!co->ok)
		log_warning("postmaster.opts: %s", co->note);
	argv_single(&argv, program, p->data_dir, conf, co->ok ? buf_str(&co->data) : "");
	if (s->tli != 0)
		add_recovery(&argv, s);
	argv_single_end(&argv);
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
	s->tli = standby_timeline(&s->control.files.control);
	if (s->tli != 0) {
		/* Never started as it is, but rewound (X42): its timeline would look later than the
		 * leader's in the next election. */
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
	if (s->tli != 0) {
		recovery_file(s);
		CO_WAIT(co);
		if (!co->ok)
			CO_RETURN(co, false, "signal for recovery: %s", co->note);
	}
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	read_options(co);
	CO_WAIT(co);
	run_single(s);
	CO_WAIT(co);
ended:
	if (!co->ok)
		CO_RETURN(co, false, "crash recovery failed exit_code=%d: %s", co->exit_code,
			co->note);
	log_info("crash recovery finished");
	CO_END(co);
}

/* ---- what the timeline of its own leaves behind ---- */

/* The number that a segment or a history file begins with; 0: it is neither. */
static uint32_t timeline_of(const char *name)
{
	size_t digits = strspn(name, "0123456789ABCDEF");
	char eight[9];
	uint32_t tli;
	bool wal = digits == 24 || (digits == 8 && strcmp(name + 8, ".history") == 0);
	if (!wal || !str_copy_n(eight, sizeof(eight), name, 8) ||
		sscanf(eight, "%8" SCNx32, &tli) != 1)
		return 0;
	return tli;
}

/* The next entry of s->names that is to be removed, from s->at on. */
static const char *next_left(struct seq_forget_timeline *s)
{
	while (s->at < s->names.len) {
		const char *entry = s->names.data + s->at;
		s->at += strlen(entry) + 1;
		if (entry[0] == 'f' && timeline_of(entry + 1) == s->tli)
			return entry + 1;
	}
	return NULL;
}

/* The source's own WAL is there by now: does it know that number, or a later one? */
static bool known_to_source(const struct seq_forget_timeline *s)
{
	for (size_t at = 0; at < s->names.len; at += strlen(s->names.data + at) + 1) {
		const char *name = s->names.data + at + 1;
		uint32_t tli = timeline_of(name);
		if (tli > s->tli || (tli == s->tli && name[8] == '.'))
			return true;
	}
	return false;
}

void seq_forget_timeline_step(struct co *co)
{
	struct seq_forget_timeline *s = (struct seq_forget_timeline *)co;
	const char *dir = archive_wal_dir(s->p);
	CO_BEGIN(co);
	s->at = 0;
	co_files(co, FILES_LIST, 0, 0, 0, dir, strlen(dir) + 1, FILES_MS);
	CO_WAIT(co);
	s->names = (struct buf)BUF_INIT(LIST_MAX);
	buf_add(&s->names, co->data.data, co->data.len);
	if (!co->ok || s->names.failed) {
		buf_done(&s->names);
		CO_RETURN(co, false, "%s: %s", dir, co->ok ? "too many files" : co->note);
	}
	for (s->left = known_to_source(s) ? NULL : next_left(s); s->left != NULL;
		s->left = next_left(s)) {
		char path[LIMIT_NAME];
		int n = snprintf(path, sizeof(path), "%s/%s", dir, s->left);
		co_files(co, FILES_REMOVE, 0, 0, 0, path, (size_t)n + 1, FILES_MS);
		CO_WAIT(co);
		if (!co->ok)
			log_warning(
				"segment of timeline %" PRIu32 " is left: %s", s->tli, co->note);
	}
	buf_done(&s->names);
	CO_END(co);
}
