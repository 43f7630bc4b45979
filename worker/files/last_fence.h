/* The end of a files process that sees supervisor and dead-man gone (DESIGN 1): nobody is left to
 * enforce the lease, so PostgreSQL is killed here, by the fence's own code. Run by pgregent-files.
 */
#pragma once
#include <stdbool.h>

/* What is needed later, looked up while disks still answer. Both directories from WELCOME. */
void last_fence_prepare(const char *data_dir, const char *runtime_dir);
/* Another supervisor has taken over: it holds the lock in the run-time directory. */
bool last_fence_other_supervisor(void);
/* Kill whatever holds the life file and the postmaster of the data directory. Blocks for some
 * seconds at most. */
void last_fence_run(void);
