/* Who is at his post, as others can see it: read locks on the lock file of the run-time directory,
 * a byte for the dead-men and one for the helpers of each supervisor. The kernel takes a lock back
 * when its holder dies, whatever the reason, so this needs no message that could be lost. Any of
 * our processes. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

/* A dead-man is on duty; the supervisor holds the same file with flock. The descriptor that holds
 * it until it is closed; -1 and errno: it could not be had. */
int duty_enforce(const char *lock_path);
/* One is, the caller included. A file that cannot be asked is held by nobody, here and below. */
bool duty_enforced(const char *lock_path);
/* A helper of this supervisor would notice the end of the enforcers. As duty_enforce. */
int duty_watch(const char *lock_path, pid_t supervisor);
/* A helper of another supervisor would. Those of the same one do not count: they may be ending, or
 * be stopped, with the locks still theirs. supervisor 0: a helper of any. */
bool duty_watched(const char *lock_path, pid_t but_of_supervisor);
