/* Who is at his post, as others can see it: read locks on the lock file of the run-time directory,
 * one byte for each kind. The kernel takes a lock back when its holder dies, whatever the reason,
 * so this needs no message that could be lost. Any of our processes. */
#pragma once
#include <stdbool.h>

enum duty {
	DUTY_ENFORCER, /* a dead-man; the supervisor holds the same file with flock */
	DUTY_WATCHER,  /* a helper that would notice the end of the enforcers */
};

/* The descriptor that holds it until it is closed; -1 and errno: it could not be had. */
int duty_take(const char *lock_path, enum duty duty);
/* Somebody has it, the caller included. A file that cannot be asked is held by nobody. */
bool duty_held(const char *lock_path, enum duty duty);
