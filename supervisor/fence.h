/* The fence (DESIGN 2): kill PostgreSQL at once, then prove that nothing of it is left. Supervisor
 * and dead-man. fence_start does the killing itself (bounded: at most 20 ms for the stop of the
 * postmaster, then passes over /proc); the proof is made by fence_step from the loop, since a
 * process in uninterruptible sleep may take its time. Allocates nothing, waits for nothing else. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/killtree.h"

enum fence_phase {
	FENCE_IDLE = 0,
	FENCE_KILLING, /* not every process has its SIGKILL yet */
	FENCE_KILLED,  /* SIGKILL is pending on all that were found; the proof is not in */
	FENCE_PROVEN,  /* the life file could be locked: nothing is left */
};

struct fence {
	enum fence_phase phase;
	uint64_t generation;
	struct killtree_target target;
	int life_fd; /* borrowed; the open file description must not be the one that the postmaster
			inherited */
	pid_t spare[2]; /* the other enforcer, which holds the life file too; 0 = none */
	int64_t started_ms;
	int64_t next_ms; /* call fence_step then; 0 = nothing to do */
	int64_t pause_ms;
	int64_t reported_ms;
	struct killtree_report last;
	struct killtree *scratch; /* borrowed */
};

void fence_init(struct fence *f, struct killtree *scratch);
/* A postmaster that lives (target.root != 0), or the rest of one that has ended (root 0). Does the
 * killing and the first try of the proof. A fence that is at work for the same generation goes on
 * with it. */
void fence_start(struct fence *f, const struct killtree_target *target, uint64_t generation,
	int life_fd, const char *reason, int64_t now_ms);
/* The root has ended (pidfd, or reaped): its number must not be signalled any more. */
void fence_root_gone(struct fence *f);
/* Goes on at next_ms. Returns the phase. */
enum fence_phase fence_step(struct fence *f, int64_t now_ms);
/* Nobody holds the shared lock of a postmaster. */
bool fence_life_is_free(int life_fd);
/* After FENCE_PROVEN, or when another generation exists: idle again. */
void fence_done(struct fence *f);
