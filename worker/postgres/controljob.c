/* pg_controldata as a job. See controljob.h. */
#include "worker/postgres/controljob.h"

#include <inttypes.h>
#include <string.h>

#include "common/core/log.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/controldata.h"

#define JOB_MS	 5000
#define FILES_MS 30000

/* It prints numbers also when the checksum is wrong: a file that the server is just writing, one
 * that is damaged, or one of another version than the program's. Before 12 it says so between the
 * lines. */
static bool doubts(const char *text)
{
	return strstr(text, "CRC") != NULL || strstr(text, "WARNING") != NULL ||
	       strstr(text, "warning:") != NULL;
}

enum err_code control_job_take(
	const char *out, const char *errors, struct pg_control *control, struct err *err)
{
	struct pg_control c = { .read_at_ms = control->read_at_ms };
	if (doubts(out) || doubts(errors)) {
		control->fault = PG_CONTROL_CRC;
		return err_set(err, ERR_PARSE, 0,
			"pg_controldata does not vouch for what it read: %.200s",
			errors[0] != '\0' ? errors : "checksum");
	}
	enum err_code rc = controldata_parse(out, &c, err);
	if (rc != ERR_OK)
		return rc;
	/* These two we can read ourselves in every version. */
	if (c.control_version != control->control_version || c.system_id != control->system_id)
		return err_set(err, ERR_PARSE, 0,
			"pg_controldata says version %" PRIu32 " and system %" PRIu64
			", the file %" PRIu32 " and %" PRIu64,
			c.control_version, c.system_id, control->control_version,
			control->system_id);
	c.fault = PG_CONTROL_GOOD;
	*control = c;
	return ERR_OK;
}

static void run(struct seq_control *s)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	char program[LIMIT_PATH];
	bool ok = pgctx_program(s->p, "pg_controldata", program, sizeof(program));
	host_cmd_arg(&cmd, program);
	host_cmd_arg(&cmd, s->p->data_dir);
	host_cmd_env(&cmd, "LC_ALL", "C");
	host_cmd_env(&cmd, "LANG", "C");
	if (ok)
		co_job(&s->co, "pg_controldata", &cmd, JOB_KEEP_STDOUT | JOB_DIES_WITH_US, JOB_MS,
			1000);
	else
		co_wake(&s->co, co_ticket(&s->co), false, "path of pg_controldata is too long");
	host_cmd_done(&cmd);
}

/* Once for each state of things, not once a second. */
static void tell(const struct pg_control *c, const char *why)
{
	static uint32_t told_version;
	static bool told_good;
	if (c->control_version == told_version && c->valid == told_good)
		return;
	told_version = c->control_version;
	told_good = c->valid;
	if (c->valid)
		log_info("pg_control of version %" PRIu32 " is read by pg_controldata",
			c->control_version);
	else
		log_error("pg_control of version %" PRIu32 " cannot be read: %s",
			c->control_version, why);
}

static enum err_code take(struct seq_control *s, struct err *err)
{
	struct co *co = &s->co;
	enum err_code rc =
		co->ok ? control_job_take(buf_str(&co->data), co->note, &s->files.control, err)
		       : err_set(err, ERR_STATE, 0, "pg_controldata exit_code=%d: %s",
				 co->exit_code, co->note);
	tell(&s->files.control, err->text);
	return rc;
}

void seq_control_step(struct co *co)
{
	struct seq_control *s = (struct seq_control *)co;
	CO_BEGIN(co);
	if (!control_job_due(&s->files))
		CO_RETURN(co, s->files.control.valid, "read");
	run(s);
	CO_WAIT(co);
	struct err err = ERR_INIT;
	enum err_code rc = take(s, &err);
	CO_RETURN(co, rc == ERR_OK, "%s", rc == ERR_OK ? "read" : err.text);
	CO_END(co);
}

void seq_control_read_step(struct co *co)
{
	struct seq_control *s = (struct seq_control *)co;
	CO_BEGIN(co);
	memset(&s->files, 0, sizeof(s->files));
	co_files(co, FILES_PROBE, 0, 0, 0, NULL, 0, FILES_MS);
	CO_WAIT(co);
	if (!co->ok || co->data.len != sizeof(s->files))
		CO_RETURN(co, false, "%s", co->note);
	memcpy(&s->files, co->data.data, sizeof(s->files));
	if (control_job_due(&s->files)) {
		run(s);
		CO_WAIT(co);
		struct err err = ERR_INIT;
		if (take(s, &err) != ERR_OK)
			CO_RETURN(co, true, "pg_control is not known: %s", err.text);
	}
	CO_END(co);
}
