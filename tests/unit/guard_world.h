/* A small world around guard_step for the exhaustive search: store, worker, supervisor, two
 * dead-men (a hand-over has both), PostgreSQL, the lifeline of the kernel. Every choice that time,
 * faults and the worker have is a move.
 *
 * What it assumes, as DESIGN does: a running process reads its messages and acts on its deadlines
 * in time; at any instant supervisor or dead-man runs, or both are dead; a helper that still lives
 * kills the backends that outlive the postmaster when both are dead; the worker tells the truth
 * about renewals and proofs, but may say anything else at any time, late or never; a dead-man that
 * has not been told anything yet is no second enforcer; time that the boot clock does not see shows
 * on the wall clock, and leaves an enforcer that runs the time to look at it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "supervisor/guard.h"

#define W_TTL_MS  3000
#define W_DEADMEN 2
#define W_QUEUE	  2
#define W_T0	  1000000
#define W_WALL_MS INT64_C(1700000000000)
#define W_JUMP_MS 1100 /* just above the margin: the smallest that is noticed */
#define W_BITE_MS 2000 /* timeout of the watchdog: ttl - 1 s, the longest that is armed */

/* What a world has besides, each from a start of its own (test_guard_search.c): in all of them at
 * once the search would not come far. */
enum w_extra {
	W_WALL = 1,	/* the wall clock is known, and jumps once: time that the boot clock did
			   not see */
	W_KILL = 2,	/* stops by the fence, ordered or because a stop took too long */
	W_LATE = 4,	/* orders overtake each other on the way */
	W_FOREIGN = 16, /* somebody else starts a primary, which is adopted: outside the promise
			   until a lease is reported */
	W_WATCHDOG = 8, /* a watchdog device; with it all enforcers may freeze at once */
};

enum w_life { W_DEAD = 0, W_RUNS, W_FROZEN };

struct w_order {
	struct msg_lease lease;
	struct msg_proof proof;
	struct guard_event ev;
};

struct w_deadman {
	struct guard g;
	int64_t wake_at_ms, fence_at_ms;
	uint8_t life, connected, has_state, has_inbox, end_sent, sup_died, superseded, line_level;
	uint64_t has_pg; /* generation whose descriptors it holds */
	uint64_t inbox_pg;
	uint64_t exit_of; /* pidfd readable, not read yet */
	uint64_t sweep;	  /* its fence has killed, the proof comes when it looks again */
	uint8_t has_ack, ack_fencing, fenced;
	uint64_t ack_seq, ack_pg;
	struct msg_dm_state inbox; /* last: see world_hash */
};

struct w_supervisor {
	struct guard g;
	int64_t wake_at_ms, fence_at_ms;
	uint8_t life, peer, peer_died;
	uint64_t gate_generation, gate_seq; /* waits for the dead-man */
	int64_t gate_deadline_ms, gate_lease_ms;
	uint64_t promote_seq, promote_generation, zero_seq;
	int64_t promote_deadline_ms;
	uint64_t peer_pg; /* generation whose pidfd the dead-man acknowledged */
	uint64_t exit_of;
	uint64_t sweep;
	uint8_t queued;
	struct w_order queue[W_QUEUE]; /* last: see world_hash */
};

struct w_pg {
	uint64_t generation;
	uint8_t at_gate, postmaster, backends, primary, promote_file, stopping, shut_down,
		line_armed, foreign;
};

struct world {
	int64_t now_ms;
	uint64_t store_away; /* all renewals are rounds of failsafe */
	uint64_t extra;	     /* enum w_extra */
	int64_t wall_ms;     /* wall clock minus boot clock; 0 = not known */
	int64_t renewal_wall_ms;
	int64_t bite_at_ms; /* the watchdog resets the machine then; 0 = it does not run */
	uint64_t device_open;
	int64_t store_until_ms; /* the store may give the lease away from then on */
	uint64_t lease_seq, last_generation;
	uint8_t promise; /* pause ends it; with the dead-man's acknowledgement of its end it begins
			    again */
	uint64_t promise_seq;
	uint8_t has_renewal, renewal_failsafe, zero_acked, has_proof;
	int64_t renewal_sent_ms, told_until_ms, proof_at_ms;
	uint64_t proof_generation;
	uint64_t promote_token; /* generation: files may create the promote file */
	struct w_supervisor s;
	struct w_deadman d[W_DEADMEN];
	struct w_pg pg;
};

enum w_move {
	MV_TIME_NEXT, /* to the next instant at which something may end */
	MV_TIME_THIRD,
	MV_RENEW,
	MV_FAILSAFE,
	MV_REPORT,
	MV_REPORT_ZERO,
	MV_RELEASE,
	MV_REPORT_PAUSED,
	MV_START_PRIMARY,
	MV_START_STANDBY,
	MV_PROMOTE,
	MV_PROMOTE_FILE,
	MV_PG_PROMOTES,
	MV_STOP,
	MV_PG_SHUT_DOWN,
	MV_PG_EXITS,
	MV_PG_CRASHES,
	MV_PROOF_TAKE,
	MV_PROOF_SEND,
	MV_PROOF_SHUTDOWN,
	MV_SUP_READS,
	MV_SUP_DIES,
	MV_SUP_FREEZES,
	MV_SUP_THAWS,
	MV_SUP_NEW,
	MV_DM0_READS,
	MV_DM1_READS,
	MV_DM0_DIES,
	MV_DM1_DIES,
	MV_DM0_FREEZES,
	MV_DM1_FREEZES,
	MV_DM0_THAWS,
	MV_DM1_THAWS,
	MV_DM_NEW,
	MV_DM_END_OLD,
	MV_STATE_LOST,
	MV_WALL_JUMPS,
	MV_KILL,
	MV_OVERTAKES,
	MV_PG_FOREIGN,
	MV_COUNT,
};

void world_init(struct world *w);
/* False: the move is not possible here, w is as it was before only if the caller kept a copy. */
bool world_move(struct world *w, enum w_move move);
/* PostgreSQL may accept a write while the store may give the lease to another. */
bool world_broken(const struct world *w);
/* An enforcer waits for the end of a postmaster, and nobody looks for its proof: it would wait for
 * ever. */
bool world_stuck(const struct world *w);
uint64_t world_hash(const struct world *w);
/* At least so many moves until it is broken; 0 = it is. See guard_world_bound.c. */
unsigned world_bound(const struct world *w);
const char *world_move_name(enum w_move move);
