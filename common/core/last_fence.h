/* The end of a worker, files or api process that sees supervisor and dead-man gone (DESIGN 1):
 * nobody is left to enforce the lease, so PostgreSQL is killed here, by the fence's own code. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "common/core/err.h"

/* What is needed later, looked up while disks still answer. Both directories from WELCOME; sup_fd:
 * the supervisor's socket. */
void last_fence_prepare(const char *data_dir, const char *runtime_dir, int sup_fd);
/* The caller has met a dead-man, and will notice its end: others that wait may go. */
void last_fence_on_duty(void);
/* The caller's supervisor and dead-man are gone. True: no other one enforces, so the caller must.
 * While others do, they are watched from here until a helper of theirs does that, which may take as
 * long as the start of a new supervisor: blocks, so whatever others need is let go of before. */
MUST_USE bool last_fence_due(void);
/* The postmaster of a data directory, 0 = none. */
typedef pid_t (*last_fence_root_fn)(const char *data_dir);
/* Kill whatever holds the life file and the postmaster of the data directory. root NULL: looked for
 * in /proc alone, by name and working directory, for those who do not touch the data directory.
 * Blocks for some seconds at most. */
void last_fence_run(last_fence_root_fn root);
