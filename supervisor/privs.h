/* Users, capabilities, scheduling: what the supervisor keeps, and what a child of each kind gets.
 * The functions named privs_child_* run between fork and exec: async-signal-safe, no allocation. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "common/core/err.h"
#include "common/core/limits.h"

#define LIMIT_GROUPS 64 /* supplementary groups of the target user; more are refused */

/* Owned by the process struct; filled before the loop, then read only. */
struct privs {
	bool root; /* we are root and children change their user */
	uid_t uid; /* of all children */
	gid_t gid;
	gid_t groups[LIMIT_GROUPS];
	int group_count;
	char user[LIMIT_NAME];
	char home[LIMIT_PATH];
	char shell[LIMIT_PATH];
	mode_t umask;	    /* as we were started */
	char oom_saved[16]; /* as we were started; "" = unknown */
	bool oom_lowered;
};

enum priv_kind {
	PRIV_HELPER,  /* our own: no_new_privs, empty bounding set, dies with us */
	PRIV_DEADMAN, /* the same, but it outlives us, and keeps the OOM score */
	PRIV_PLAIN,   /* job, postmaster: what an ordinary login of that user has */
};

/* Who the children are. user NULL: root runs them as "postgres", anybody else as himself. The
 * look-up runs in a child of at most 10 s, so that no NSS module is loaded here. */
MUST_USE enum err_code privs_lookup(struct privs *p, const char *user, struct err *err);
/* An error when an indispensable capability is missing. */
MUST_USE enum err_code privs_require(const struct privs *p, struct err *err);
/* Reduce the capabilities to what is needed; a log line for each that would be of use and is
 * missing. */
MUST_USE enum err_code privs_keep(const struct privs *p, struct err *err);
/* Real-time scheduling, locked memory, lowered OOM score: where allowed, a log line where not.
 * oom_saved: the score to give to children, "" = the present one. */
void privs_harden(struct privs *p, const char *oom_saved);

/* In the child: scheduling, OOM score, groups, user, capabilities. NULL, or the step that failed
 * (errno). */
const char *privs_child_become(const struct privs *p, enum priv_kind kind, pid_t parent);
