/* Is the process that postmaster.pid names our postmaster? Proven, or refused with the reason;
 * never guessed. */
#pragma once
#include <stdint.h>

#include "common/core/ipc_msgs.h"
#include "supervisor/privs.h"

enum adopt_verdict {
	ADOPT_NONE,	/* no file */
	ADOPT_STALE,	/* the file is left over: nobody, or proven to be somebody else */
	ADOPT_OURS,	/* *out_pidfd holds it */
	ADOPT_UNPROVEN, /* alive, and neither proven ours nor proven not: *out_why */
};

/* What /proc says of a process. Filled by adopt_look, judged by adopt_judge (pure). */
struct adopt_facts {
	bool alive;
	bool related; /* ourselves, our parent, or a helper or job of ours */
	bool exe_known, exe_is_postgres;
	bool cwd_known, cwd_is_data_dir;
	bool start_known;
	int64_t start_s; /* wall clock, seconds since 1970 */
};

enum adopt_verdict adopt_judge(
	const struct msg_pmpid *file, const struct adopt_facts *f, const char **out_why);
/* Look and judge. data_dir is canonical. The pidfd is the caller's when ADOPT_OURS. */
enum adopt_verdict adopt_prove(const struct privs *p, const struct msg_pmpid *file,
	const char *data_dir, bool related, int *out_pidfd, const char **out_why);
