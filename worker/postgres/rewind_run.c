/* pg_rewind, and the segments that it finds missing (ha 6.4, rows 5 to 7). Worker process. */
#include <stdio.h>
#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/bootstrap.h"
#include "worker/postgres/conninfo.h"
#include "worker/postgres/render.h"

#define FILES_MS  30000
#define CLEAR_MS  600000
#define FETCH_MAX 65536 /* segments of one rewind: 1 TiB of WAL; each costs a run of pg_rewind */

static bool config_inside(const struct pgctx *p)
{
	return strcmp(p->config_dir, p->data_dir) == 0 && strcmp(p->conf_name, "postgresql") == 0;
}

/* pg_rewind asks the server's files for restore_command: from 15 on wherever they are. */
static bool restores_itself(const struct pgctx *p)
{
	return p->major >= 15 || (p->major >= 13 && config_inside(p));
}

/* We bring the segments that it does not find. */
static bool fetches(const struct seq_rewind_run *s)
{
	return s->restore[0] != '\0' && !restores_itself(s->p);
}

static bool source_conninfo(const struct seq_rewind_run *s, struct buf *out)
{
	static const char *const words[] = { "sslmode", "sslcert", "sslkey", "sslpassword",
		"sslrootcert", "sslcrl", "sslcrldir", "gssencmode", "channel_binding",
		"sslnegotiation" };
	static struct conninfo c; /* large */
	const struct pgctx *p = s->p;
	memset(&c, 0, sizeof(c));
	bool ok = conninfo_set(&c, "host", s->leader.host) &&
		  conninfo_set(&c, "port", s->leader.port) &&
		  conninfo_set(&c, "dbname", p->database) &&
		  conninfo_set(&c, "user", pgctx_auth(p, "rewind", "username")) &&
		  conninfo_set(&c, "krbsrvname", json_path_str(p->pg, "krbsrvname"));
	for (unsigned i = 0; ok && i < ARRAY_LEN(words); i++)
		ok = conninfo_set(&c, words[i], pgctx_auth(p, "rewind", words[i]));
	if (ok && p->major >= 10 && strchr(s->leader.host, ',') != NULL)
		ok = conninfo_set(&c, "target_session_attrs", "read-write");
	conninfo_format(&c, p->major, out);
	return ok && !out->failed;
}

static void run_rewind(struct seq_rewind_run *s)
{
	struct pgctx *p = s->p;
	struct host_cmd cmd = HOST_CMD_INIT;
	struct argv argv = ARGV_INIT;
	char program[LIMIT_PATH], conf[LIMIT_PATH * 2];
	AUTO(buf) dsn = BUF_INIT(LIMIT_CONNINFO);
	AUTO(buf) notes = BUF_INIT(LIMIT_CONNINFO);
	bool ok = pgctx_program(p, "pg_rewind", program, sizeof(program)) &&
		  str_format(conf, sizeof(conf), "%s/%s.conf", p->config_dir, p->conf_name) &&
		  source_conninfo(s, &dsn);
	if (ok)
		argv_rewind(&argv, program, p->data_dir, buf_str(&dsn),
			json_object_get(p->pg, "rewind"),
			s->restore[0] != '\0' && restores_itself(p), config_inside(p) ? NULL : conf,
			&notes);
	render_log_notes(&notes);
	host_cmd_take(&cmd, &argv);
	host_cmd_env(&cmd, "PGPASSFILE", p->pgpass);
	host_cmd_env(&cmd, "LC_ALL", "C");
	host_cmd_env(&cmd, "PGOPTIONS", "-c statement_timeout=0");
	log_info("running pg_rewind from %s%s",
		s->leader.kind == TARGET_REMOTE ? s->leader.host : s->leader.name,
		s->restore[0] != '\0' ? " with restore_command" : "");
	if (ok)
		/* restore_command runs where the server would run it. */
		co_job_in(&s->co, "pg_rewind", &cmd, p->data_dir, JOB_LOG_OUTPUT | JOB_DATA_DIR, 0,
			10000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "command line is too long");
	host_cmd_done(&cmd);
}

static void write_passfile(struct seq_rewind_run *s)
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

/* Before 12 the server does not know it as a setting. */
static void restore_of_section(struct seq_rewind_run *s)
{
	const char *text = json_path_str(s->p->pg, "recovery_conf.restore_command");
	if (text != NULL && !str_copy(s->restore, sizeof(s->restore), text))
		log_error("recovery_conf.restore_command: over %zu bytes, not used",
			sizeof(s->restore) - 1);
}

static void take_restore(struct seq_rewind_run *s)
{
	if (!s->co.ok || !str_copy(s->restore, sizeof(s->restore), s->setting.value))
		log_warning("pg_rewind without restore_command: %s", s->co.note);
}

/* Which segment to fetch before the next run; false: none, the failure stands. One that was fetched
 * and is missing again would be missing for ever. */
static bool segment_to_fetch(struct seq_rewind_run *s)
{
	if (!archive_missing_segment(buf_str(&s->co.data), s->missing))
		return false;
	if (strcmp(s->missing, s->fetched_name) == 0 || s->fetched >= FETCH_MAX) {
		log_error("segment %s was fetched, and pg_rewind does not find it", s->missing);
		return false;
	}
	return true;
}

static void look(struct seq_rewind_run *s)
{
	/* Its line before the first change; a process that was killed may have said nothing. */
	s->touched |= s->co.exit_code < 0 ||
		      strstr(buf_str(&s->co.data), "rewinding from last common checkpoint") != NULL;
	s->missing[0] = '\0';
	s->unneeded = strstr(buf_str(&s->co.data), "no rewind required") != NULL;
	s->same_timeline = strstr(buf_str(&s->co.data), "on the same timeline") != NULL;
	s->good = s->co.ok;
	if (s->good)
		return;
	log_error("pg_rewind failed exit_code=%d: %s", s->co.exit_code, s->co.note);
	snprintf(s->failure, sizeof(s->failure), "%s", s->co.note);
	if (s->co.cancelled || !segment_to_fetch(s))
		s->missing[0] = '\0';
}

void seq_rewind_run_step(struct co *co)
{
	static const char slots[] = "pg_replslot";
	struct seq_rewind_run *s = (struct seq_rewind_run *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	s->touched = s->good = s->unneeded = s->same_timeline = false;
	s->fetched = 0;
	s->restore[0] = s->fetched_name[0] = '\0';
	if (s->adopted && co_job_adopt(co, "pg_rewind")) {
		CO_WAIT(co);
		look(s);
		if (s->good || s->missing[0] == '\0')
			goto ended;
	}
	write_passfile(s);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "passfile: %s", co->note);
	if (p->major >= 12) {
		s->setting.p = p;
		s->setting.name = "restore_command";
		co_call(co, &s->setting.co, seq_setting_step);
		CO_WAIT(co);
		take_restore(s);
	} else {
		restore_of_section(s);
	}
	if (s->missing[0] != '\0' && !fetches(s))
		goto ended;
	do {
		if (s->missing[0] != '\0') {
			archive_fetch(co, p, s->restore, s->missing);
			CO_WAIT(co);
			if (!co->ok)
				CO_RETURN(co, false,
					"segment %s, which pg_rewind needs, is not fetched: %s",
					s->missing, co->note);
			memcpy(s->fetched_name, s->missing, sizeof(s->fetched_name));
			s->fetched++;
		}
		if (co->cancelled)
			CO_RETURN(co, false, "cancelled");
		run_rewind(s);
		CO_WAIT(co);
		look(s);
	} while (!s->good && s->missing[0] != '\0' && fetches(s));
ended:
	if (!s->good)
		CO_RETURN(co, false, "pg_rewind failed: %s", s->failure);
	if (p->major != 0 && p->major < 11) {
		/* It copies the source's slots. */
		co_files(co, FILES_CLEAR_DIR, 0, 0, 0, slots, sizeof(slots), CLEAR_MS);
		CO_WAIT(co);
		if (!co->ok)
			log_warning("pg_replslot is not cleared: %s", co->note);
	}
	CO_END(co);
}
