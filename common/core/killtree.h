/* Kill PostgreSQL: the postmaster and everything that descends from it (DESIGN 2, The fence). Used
 * by the fence of supervisor and dead-man, and by worker, files and api when they see both
 * enforcers gone.
 *
 * Two ways to find the processes: down from the postmaster while it lives (its children cannot be
 * reaped while it is stopped, so their pids stay theirs), and by the life file, which all of them
 * hold open: that finds those whose parent has died. Allocates nothing; every list is bounded and
 * says when it overflowed. No clock but for the wait of at most KILLTREE_STOP_WAIT_MS until the
 * postmaster has stopped. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define KILLTREE_PIDS 8192 /* processes of one PostgreSQL that one pass can list */
#define KILLTREE_SEEN                                                                              \
	32768 /* hash of the pids that were signalled; a power of two, over 2 x PIDS */
#define KILLTREE_PASSES	      16 /* passes until nothing new is found */
#define KILLTREE_STOP_WAIT_MS 20

struct killtree_target {
	pid_t root;	/* the postmaster; 0 = gone, only holders of the life file are looked for */
	int root_pidfd; /* -1 = none: root is signalled by number, so it must be proven by the
			   caller */
	dev_t life_dev; /* the life file; life_ino 0 = not known */
	ino_t life_ino;
	uid_t uid; /* who runs PostgreSQL */
	gid_t gid;
	/* Its real path where somebody else started the postmaster, which then holds no life file:
	 * what runs as postgres in that directory counts as a holder. NULL = the file alone counts.
	 * Borrowed. */
	const char *data_dir;
	bool any_holder; /* a job: whoever has the file (its output) open counts, lock or not */
	bool as_user;	 /* we are root: look at /proc with the file system ids of uid and gid */
};

struct killtree_report {
	unsigned found;	    /* processes besides the root, zombies not counted */
	unsigned signalled; /* SIGKILL is pending on so many */
	unsigned denied;    /* could not be signalled: another user's */
	unsigned passes;
	int64_t backends_us; /* from the start until SIGKILL was pending on every child of the root
			      */
	bool root_signalled;
	bool root_stopped; /* the stop was seen before the list was made */
	bool overflow;	   /* more processes than KILLTREE_PIDS */
	bool unsettled;	   /* the last pass still found new ones */
	int first_errno;   /* of the first thing that went wrong, 0 = nothing did */
	pid_t first_denied;
};

/* Scratch memory. About 300 KiB: part of the process struct, locked and touched before it is
 * needed. */
struct killtree {
	pid_t pids[KILLTREE_PIDS];
	uint64_t starts[KILLTREE_PIDS]; /* what proves later that the pid is still the process that
					   was listed */
	unsigned count;
	pid_t seen[KILLTREE_SEEN];
	_Alignas(8) char dents[16384];
	_Alignas(8) char dents_fd[16384];
	char text[8192];
};

/* Steps 1 to 3: stop the root, list and kill until a pass finds nothing new, kill the root. The
 * list holds what descends from the root and, with by_holders, what holds the life file. With a
 * life file the children of the root are killed before the rest is listed; a grandchild that is
 * lost by that is found by killtree_kill_holders. Without one (a job) the whole tree is listed
 * first. */
void killtree_run(struct killtree *kt, const struct killtree_target *t, bool by_holders,
	struct killtree_report *out);
/* Only the holders of the life file's shared lock: found and killed. Not the calling process
 * itself, nor those in spare[] (a supervisor that forks the postmaster holds it for an instant).
 * Returns how many live ones there were. */
unsigned killtree_kill_holders(struct killtree *kt, const struct killtree_target *t,
	const pid_t *spare, unsigned spare_count, struct killtree_report *out);
/* killtree_run and then holders until none is left; sleeps 5 ms between passes. For worker, files
 * and api when both enforcers are gone: they have nothing else to do any more. True when nothing
 * was left. */
bool killtree_run_blocking(struct killtree *kt, const struct killtree_target *t,
	int64_t deadline_ms, struct killtree_report *out);

/* What /proc/<pid>/stat says. */
struct killtree_stat {
	pid_t ppid;
	char state;
	uint64_t start_ticks; /* since boot: pid and this name one process */
};
/* 0, or -1 with errno (ESRCH: no such process). */
int killtree_stat(pid_t pid, struct killtree_stat *out);
