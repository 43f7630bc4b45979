/* The dead-man's state and what it does with messages and events; the program around it is
 * deadman.c. Apart from it so that tests can drive it without a process. Allocates nothing. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/ipc.h"
#include "supervisor/fence.h"
#include "supervisor/guard.h"

struct dm {
	struct guard guard;
	struct fence fence;
	struct killtree scratch;
	struct ipc_rx rx;
	int conn_fd; /* the supervisor that is obeyed; -1 = none */
	pid_t conn_pid;
	int fds[DM_FD_COUNT]; /* of the postmaster; -1 = not held */
	uint64_t held_generation;
	pid_t held_pid;
	char held_dir[LIMIT_PATH]; /* where one works that somebody else started; "" = it has a life
				      file */
	bool root_gone;		   /* the pidfd said so: the number is not signalled any more */
	bool is_child;		   /* of the supervisor, as it last said */
	int peers[ROLE_COUNT];	   /* sockets to worker, files and api: their other ends notice our
				      death */
	enum fence_phase fence_told; /* to guard_step */
	uint64_t fenced_generation;  /* this process began it */
	int lifeline_state;	     /* -1 not known, 0 off, 1 armed */
	int64_t wake_at_ms;
	bool has_state; /* a supervisor has told what to enforce */
	bool ended;	/* MSG_DM_END, or nothing left to do */
	bool in_order;	/* and nobody need fence for it */
	/* Called before an acknowledgement leaves; NULL = nothing to do. */
	void (*before_ack)(const struct dm *d);
};

void dm_init(struct dm *d, int conn_fd, int64_t now_ms);
void dm_done(struct dm *d);
/* One event through guard_step, with its actions carried out. */
void dm_event(struct dm *d, struct guard_event *ev);
/* Reads at most 64 messages from the supervisor. Returns false when the connection ended: it is
 * closed. */
bool dm_read(struct dm *d);
/* The pidfd is readable. */
void dm_postmaster_gone(struct dm *d);
/* Deadlines that have passed; the fence goes on. now_ms: from before the messages were read, so
 * that one who was frozen after that does not judge by a time that later messages may have renewed.
 */
void dm_tick(struct dm *d, int64_t now_ms);
/* A successor has connected (its credentials are checked): obeyed from now on, told everything.
 * False: refused, since a supervisor is connected, and the descriptor stays the caller's. */
bool dm_take_successor(struct dm *d, int fd, pid_t pid);
