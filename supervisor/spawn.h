/* Fork and exec of one child, without allocation. A child is executed afresh, never merely forked.
 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "common/core/err.h"
#include "supervisor/privs.h"

#define SPAWN_FDS 8

/* A step in the child; NULL or its name when it failed (errno). Async-signal-safe. */
typedef const char *(*spawn_step)(const void *arg);

struct spawn {
	const char *path; /* NULL: argv[0], looked up in PATH */
	char *const *argv, *const *envp;
	const char *cwd;    /* NULL = stay */
	int fds[SPAWN_FDS]; /* become 0, 1, ...; -1 = /dev/null; all others are closed */
	int fd_count;
	int gate_fd; /* read end, -1 = none: exec waits for a byte; end of file ends the child */
	enum priv_kind kind;
	bool die_with_parent; /* killed when we end: what it does, the next supervisor begins anew
			       */
	mode_t umask;
	spawn_step before_user, after_user, after_gate; /* may be NULL */
	const void *arg;
};

/* The caller owns *out_pidfd (pass NULL when not wanted). Must be called with all signals that
 * matter blocked. */
MUST_USE enum err_code spawn_child(const struct privs *p, const struct spawn *s, pid_t *out_pid,
	int *out_pidfd, struct err *err);
