/* The end of a worker, files or api process that sees supervisor and dead-man gone (DESIGN 1):
 * nobody is left to enforce the lease, so PostgreSQL is killed here, by the fence's own code. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

/* What is needed later, looked up while disks still answer. Both directories from WELCOME. */
void last_fence_prepare(const char *data_dir, const char *runtime_dir);
/* Another supervisor has taken over: it holds the lock in the run-time directory. */
bool last_fence_other_supervisor(void);
/* The postmaster of a data directory, 0 = none. */
typedef pid_t (*last_fence_root_fn)(const char *data_dir);
/* Kill whatever holds the life file and the postmaster of the data directory. root NULL: looked for
 * in /proc alone, by name and working directory, for those who do not touch the data directory.
 * Blocks for some seconds at most. */
void last_fence_run(last_fence_root_fn root);
