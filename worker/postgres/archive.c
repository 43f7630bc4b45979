/* WAL segments of a stopped server. See archive.h. */
#include "worker/postgres/archive.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/argv.h"

#define FILES_MS   30000
#define SETTING_MS 20000
#define COMMAND_MS                                                                                 \
	(10 * 60000) /* one segment; a command that hangs for ever must not hold the node */
#define LOST_MAX_MS                                                                                \
	60000 /* failures may take so long altogether: an archive out of reach is no reason to     \
		 stay away for hours, one segment that it refuses at once is no reason to stop */

/* ---- settings of a stopped server ---- */

static void ask_setting(struct seq_setting *s)
{
	struct pgctx *p = s->p;
	struct host_cmd cmd = HOST_CMD_INIT;
	char program[LIMIT_PATH];
	bool ok = pgctx_program(p, "postgres", program, sizeof(program));
	host_cmd_arg(&cmd, program);
	host_cmd_arg(&cmd, "-D");
	host_cmd_arg(&cmd, p->data_dir);
	host_cmd_arg(&cmd, "-C");
	host_cmd_arg(&cmd, s->name);
	host_cmd_argf(&cmd, "--config-file=%s/%s.conf", p->config_dir, p->conf_name);
	host_cmd_env(&cmd, "LC_ALL", "C");
	if (ok)
		co_job(&s->co, "postgres -C", &cmd, JOB_KEEP_STDOUT | JOB_DIES_WITH_US,
			s->timeout_ms != 0 ? s->timeout_ms : SETTING_MS, 1000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "path of postgres is too long");
	host_cmd_done(&cmd);
}

void seq_setting_step(struct co *co)
{
	struct seq_setting *s = (struct seq_setting *)co;
	CO_BEGIN(co);
	s->value[0] = '\0';
	ask_setting(s);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "%s: postgres -C: %s", s->name, co->note);
	size_t n = co->data.len;
	const char *text = buf_str(&co->data);
	while (n > 0 && isspace((unsigned char)text[n - 1]))
		n--;
	if (!str_copy_n(s->value, sizeof(s->value), text, n))
		CO_RETURN(co, false, "%s: value over %zu bytes", s->name, sizeof(s->value) - 1);
	CO_END(co);
}

/* ---- commands on a segment ---- */

const char *archive_wal_dir(const struct pgctx *p)
{
	return p->major >= 10 ? "pg_wal" : "pg_xlog";
}

/* As the server runs it: by the shell, in the data directory, %p relative to it. */
static void run_command(struct co *co, const struct pgctx *p, const char *job, const char *command,
	const char *segment, uint32_t flags)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	AUTO(buf) line = BUF_INIT(LIMIT_CONNINFO * 2);
	argv_archive_command(command, archive_wal_dir(p), segment, &line);
	host_cmd_arg(&cmd, "/bin/sh");
	host_cmd_arg(&cmd, "-c");
	host_cmd_arg(&cmd, buf_str(&line));
	if (line.failed)
		co_wake(co, co_ticket(co), false, "command is too long");
	else
		co_job_in(co, job, &cmd, p->data_dir, flags, COMMAND_MS, 1000);
	host_cmd_done(&cmd);
}

void archive_fetch(
	struct co *co, const struct pgctx *p, const char *restore_command, const char *segment)
{
	log_info("fetching the missing segment %s by restore_command", segment);
	run_command(
		co, p, "restore_command", restore_command, segment, JOB_LOG_OUTPUT | JOB_DATA_DIR);
}

static bool is_segment(const char *s, size_t n)
{
	size_t hex = 0;
	while (hex < n && (isdigit((unsigned char)s[hex]) || (s[hex] >= 'A' && s[hex] <= 'F')))
		hex++;
	return n == 24 && hex == n;
}

bool archive_missing_segment(const char *output, char out[static 25])
{
	static const char mark[] = "could not open file \"";
	static const char *const dirs[] = { "/pg_wal/", "/pg_xlog/" };
	for (const char *p = output; (p = strstr(p, mark)) != NULL;) {
		p += sizeof(mark) - 1;
		const char *end = p + strcspn(p, "\"\n");
		if (end[0] != '"' || end[1] != ':' || end - p < 24 || !is_segment(end - 24, 24))
			continue;
		for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
			size_t n = strlen(dirs[i]);
			if ((size_t)(end - 24 - p) >= n && memcmp(end - 24 - n, dirs[i], n) == 0)
				return str_copy_n(out, 25, end - 24, 24);
		}
	}
	return false;
}

/* ---- archiving what waits ---- */

static void look_at_segment(struct seq_archive *s)
{
	char path[LIMIT_NAME];
	int n = snprintf(path, sizeof(path), "%s/%s", archive_wal_dir(s->p), s->segment);
	co_files(&s->co, FILES_STAT, 0, 0, 0, path, (size_t)n + 1, FILES_MS);
}

static bool segment_there(const struct seq_archive *s)
{
	struct files_stat st;
	if (!s->co.ok || s->co.data.len != sizeof(st))
		return false;
	memcpy(&st, s->co.data.data, sizeof(st));
	return st.mode != 0;
}

static bool take_names(struct seq_archive *s)
{
	s->at = 0;
	s->total = s->co.value;
	s->before = s->archived;
	s->skipped = s->failed = 0;
	buf_reset(&s->names);
	s->names.max = FILES_ARCHIVE_MAX * sizeof(s->segment);
	buf_add(&s->names, s->co.data.data, s->co.data.len);
	return !s->names.failed;
}

/* The next name into s->segment; false: all were tried. */
static bool next_segment(struct seq_archive *s)
{
	if (s->at >= s->names.len)
		return false;
	const char *name = s->names.data + s->at;
	size_t n = strnlen(name, s->names.len - s->at);
	s->at += n + 1;
	return str_copy_n(s->segment, sizeof(s->segment), name, n);
}

static void told(struct seq_archive *s)
{
	if (s->co.ok) {
		s->archived++;
		return;
	}
	s->failed++;
	s->lost_ms += clock_boot_ms() - s->began_ms;
	log_error("segment %s is not archived exit_code=%d: %s", s->segment, s->co.exit_code,
		s->co.note);
}

/* Which command, or none (command ""). */
static void use_mode(struct seq_archive *s)
{
	const char *mode = s->setting.value;
	s->command[0] = strcmp(mode, "on") == 0 || strcmp(mode, "always") == 0 ? '?' : '\0';
}

void seq_archive_step(struct co *co)
{
	struct seq_archive *s = (struct seq_archive *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->archived = 0;
	s->lost_ms = 0;
	/* Never two at a time: an earlier worker's command may still copy. */
	if (co_job_adopt(co, "archive_command"))
		CO_WAIT(co);
	s->setting.p = p;
	s->setting.name = "archive_mode";
	co_call(co, &s->setting.co, seq_setting_step);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "%s", co->note);
	use_mode(s);
	if (s->command[0] == '\0')
		CO_RETURN(co, true, "archive_mode is %s", s->setting.value);
	s->setting.name = "archive_command";
	co_call(co, &s->setting.co, seq_setting_step);
	CO_WAIT(co);
	if (!co->ok || !str_copy(s->command, sizeof(s->command), s->setting.value))
		CO_RETURN(co, false, "%s", co->note);
	do {
		co_files(co, FILES_ARCHIVE_LIST, 0, 0, 0, NULL, 0, FILES_MS);
		CO_WAIT(co);
		if (!co->ok && co->sys_errno == ENOENT)
			CO_RETURN(co, true, "no WAL directory");
		if (!co->ok || !take_names(s)) {
			buf_done(&s->names);
			CO_RETURN(co, false, "segments to archive: %s", co->note);
		}
		if (s->total > 0 && s->command[0] == '\0') {
			buf_done(&s->names);
			log_warning("%lld segments wait to be archived, but archive_command is "
				    "empty (an archive library works in a running server only)",
				(long long)s->total);
			CO_RETURN(co, true, "no archive_command");
		}
		while (!co->cancelled && s->lost_ms < LOST_MAX_MS && next_segment(s)) {
			look_at_segment(s);
			CO_WAIT(co);
			if (!segment_there(s)) {
				s->skipped++;
				log_warning("segment %s to be archived is not there: %s",
					s->segment, co->note);
				continue;
			}
			log_info("archiving segment %s before it can be lost", s->segment);
			s->began_ms = clock_boot_ms();
			run_command(co, p, "archive_command", s->command, s->segment,
				JOB_LOG_OUTPUT | JOB_DIES_WITH_US);
			CO_WAIT(co);
			if (co->ok) {
				co_files(co, FILES_ARCHIVE_DONE, 0, 0, 0, s->segment,
					strlen(s->segment) + 1, FILES_MS);
				CO_WAIT(co);
			}
			told(s);
		}
		/* More than one answer holds: the rest comes when these are out of the list. */
	} while (!co->cancelled && s->total > FILES_ARCHIVE_MAX && s->archived > s->before &&
		 s->lost_ms < LOST_MAX_MS);
	buf_done(&s->names);
	if (co->cancelled)
		CO_RETURN(co, false, "cancelled");
	s->total -= (int64_t)(s->archived - s->before) + s->skipped;
	if (s->total > 0)
		log_error("%lld segments are left that are not archived: those that no archive has "
			  "yet may be lost now",
			(long long)s->total);
	CO_RETURN(co, true, "%u segments archived", s->archived);
	CO_END(co);
}

/* ---- the last checkpoint ---- */

void archive_segment_name(char out[static 25], uint32_t tli, uint64_t lsn, uint32_t segment_size)
{
	uint64_t per_id = UINT64_C(0x100000000) / segment_size, n = lsn / segment_size;
	snprintf(out, 25, "%08X%08X%08X", tli, (uint32_t)(n / per_id), (uint32_t)(n % per_id));
}

static bool last_segment(struct seq_archive_last *s)
{
	struct pg_files f;
	if (!s->co.ok || s->co.data.len != sizeof(f))
		return false;
	memcpy(&f, s->co.data.data, sizeof(f));
	if (!f.control.valid || f.control.state != PG_DB_SHUTDOWNED ||
		f.control.wal_segment_size == 0)
		return false;
	archive_segment_name(s->segment, f.control.checkpoint_tli, f.control.checkpoint_redo,
		f.control.wal_segment_size);
	return true;
}

void seq_archive_last_step(struct co *co)
{
	struct seq_archive_last *s = (struct seq_archive_last *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->configured = false;
	s->setting.p = p;
	s->setting.name = "archive_mode";
	co_call(co, &s->setting.co, seq_setting_step);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "%s", co->note);
	if (!str_eq(s->setting.value, "on") && !str_eq(s->setting.value, "always"))
		CO_RETURN(co, true, "archive_mode is %s", s->setting.value);
	s->setting.name = "archive_command";
	co_call(co, &s->setting.co, seq_setting_step);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "%s", co->note);
	if (s->setting.value[0] == '\0')
		CO_RETURN(co, true, "no archive_command");
	s->configured = true;
	co_files(co, FILES_PROBE, 0, 0, 0, NULL, 0, FILES_MS);
	CO_WAIT(co);
	if (!last_segment(s))
		CO_RETURN(co, false, "pg_control does not name the last checkpoint's segment");
	log_info("archiving segment %s with the shutdown checkpoint", s->segment);
	run_command(co, p, "archive_command", s->setting.value, s->segment,
		JOB_LOG_OUTPUT | JOB_DATA_DIR);
	CO_WAIT(co);
	if (!co->ok)
		log_error(
			"Failed to archive WAL file %s with the shutdown checkpoint: exit_code=%d "
			"%s",
			s->segment, co->exit_code, co->note);
	CO_END(co);
}
