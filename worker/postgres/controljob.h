/* pg_controldata for versions whose pg_control pgregent-files does not read itself (before 13,
 * after 18). Worker process; a sequence. What it cannot prove stays unknown, with the reason in the
 * log. */
#pragma once
#include "worker/postgres/pgctx.h"

struct seq_control {
	struct co co;
	struct pgctx *p;
	struct pg_files files; /* as files answered; its control is filled in */
};
static inline bool control_job_due(const struct pg_files *f)
{
	return f->control.fault == PG_CONTROL_VERSION_UNKNOWN;
}
/* Result false: not known; files.control.fault says VERSION_UNKNOWN or CRC. */
void seq_control_step(struct co *co);
/* The same, with files asked first. Result false: they did not answer; files.control.valid tells
 * of the rest. */
void seq_control_read_step(struct co *co);
/* The program's two outputs into control, which holds what files could read. Pure. */
MUST_USE enum err_code control_job_take(
	const char *out, const char *errors, struct pg_control *control, struct err *err);
