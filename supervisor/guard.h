/* guard_step: who may let PostgreSQL write, until when, and what follows when that ends (DESIGN 1
 * and 2). One pure function for the supervisor, the dead-man and the simulator: no I/O, no clock,
 * no allocation, no globals. All it remembers is struct guard, all it wants done is in struct
 * guard_actions.
 *
 * Contract of the caller
 * - Calls it with every event below and at wake_at_ms; `now` is clock_boot_ms() read just before
 * the call.
 * - Reads all messages that are waiting before it reports GUARD_EV_TICK: a process that was frozen
 * wakes with a spent lease in its state and the renewed one in its socket.
 * - Carries out every flag that it gets; flags come once, levels (watchdog, lifeline_armed) with
 * each call.
 * - hold_seq != 0: the answer to this event may leave only when guard_held() says GO, that is when
 * the dead-man has acknowledged the state that contains it. At its REFUSE the answer is a refusal.
 * - FENCE and SWEEP run until the caller reports GUARD_EV_KILLED (SIGKILL is pending on every
 * process that the passes found) and GUARD_EV_PROVEN (lock on the life file). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/ipc_msgs.h"
#include "supervisor/guard_state.h"

enum guard_event_kind {
	/* wake_at_ms is reached, or the wall clock was set. */
	GUARD_EV_TICK = 1,
	/* lease: MSG_LEASE. Accept or refuse; hold_seq when it shortens the lease. */
	GUARD_EV_LEASE,
	/* proof: MSG_PROOF. Accept or refuse. */
	GUARD_EV_PROOF,
	/* generation (a new one), pm_kind, lease_until_ms, deadline_ms. Accept: fork; hold_seq. */
	GUARD_EV_START,
	/* generation, lease_until_ms, deadline_ms, when the start is acknowledged. Accept: open the
	 * gate. Refuse: kill the child and report GUARD_EV_EXIT. */
	GUARD_EV_GATE,
	/* generation (a new one): a running postmaster, proven ours, that no dead-man knew. */
	GUARD_EV_ADOPT,
	/* generation: the postmaster, or the child at the gate, has ended. */
	GUARD_EV_EXIT,
	/* generation, deadline_ms. Accept: signal. */
	GUARD_EV_STOP,
	/* generation, lease_until_ms, deadline_ms. Accept; hold_seq. */
	GUARD_EV_PROMOTE,
	/* generation, deadline_ms, lease_until_ms (0 = rests on none). Accept: signal. */
	GUARD_EV_SIGNAL,
	/* generation: mode KILL, or the last stop time-out passed. */
	GUARD_EV_FENCE_ORDER,
	/* generation: SIGKILL is pending on all of it. */
	GUARD_EV_KILLED,
	/* generation: the life file could be locked. */
	GUARD_EV_PROVEN,
	/* Supervisor: a dead-man is ready. Dead-man: a supervisor has connected. */
	GUARD_EV_PEER_NEW,
	/* A message of the other enforcer; acked_seq, generation and peer_fencing of MSG_DM_ACK. */
	GUARD_EV_PEER_SEEN,
	/* Its socket or pidfd says so. */
	GUARD_EV_PEER_DEAD,
	/* state: MSG_DM_STATE. Dead-man: follow it. New supervisor: inherit it. */
	GUARD_EV_STATE,
	/* timeout_ms: read back after opening; 0 = closed, or mode off. */
	GUARD_EV_WATCHDOG,
};

struct guard_event {
	enum guard_event_kind kind;
	uint32_t pm_kind; /* enum pg_start_kind */
	uint32_t peer_fencing;
	uint64_t generation;
	uint64_t acked_seq;
	int64_t peer_at_ms; /* when the other one said so; 0 = now */
	int64_t deadline_ms;
	int64_t lease_until_ms;
	int64_t timeout_ms;
	int64_t wall_offset_ms; /* wall - boot clock, with every event; 0 = not known */
	const struct msg_lease *lease;
	const struct msg_proof *proof;
	const struct msg_dm_state *state;
};

enum guard_flag {
	/* The event was not accepted; `reason`. */
	GUARD_REFUSED = 1u << 0,
	/* Kill PostgreSQL now; `reason`. */
	GUARD_FENCE = 1u << 1,
	/* The postmaster is gone: kill what is left of it, prove that nothing is. */
	GUARD_SWEEP = 1u << 2,
	/* SIGINT to the postmaster; `reason`. */
	GUARD_STOP_FAST = 1u << 3,
	/* MSG_PROOF_WANTED to the worker, until ask_until_ms. */
	GUARD_ASK_PROOF = 1u << 4,
	/* Supervisor: MSG_DM_STATE to every dead-man that is connected. */
	GUARD_SEND_STATE = 1u << 5,
	/* Supervisor: kill the dead-man if it still runs, start a new one. */
	GUARD_REPLACE_PEER = 1u << 6,
	/* One keepalive. */
	GUARD_WD_FEED = 1u << 7,
	/* A promotion was ordered of this generation: end pgregent-files before a new start, so
	 * that the promote file cannot come late and promote the next one. */
	GUARD_END_FILES = 1u << 8,
	/* For the log: we were frozen; the wall clock cut the lease short. */
	GUARD_THAWED = 1u << 9,
	GUARD_WALL_JUMP = 1u << 10,
	/* Dead-man: no supervisor and no postmaster, nothing left to do. */
	GUARD_LEAVE = 1u << 11,
};

enum guard_watchdog {
	GUARD_WD_CLOSED = 0, /* disarm and close */
	/* Open if its mode wants it and guard_watchdog_may_open; fed by GUARD_WD_FEED alone. */
	GUARD_WD_ARMED = 1,
};

struct guard_actions {
	uint32_t flags;
	const char *reason; /* static text: why refused, or why fenced or stopped; never NULL */
	int64_t wake_at_ms; /* call again at this time at the latest */
	int64_t ask_until_ms;
	/* When this process fences if nothing else comes; 0 = nothing to fence, INT64_MAX = never.
	 */
	int64_t fence_at_ms;
	uint64_t hold_seq;
	enum guard_watchdog watchdog;
	bool lifeline_armed; /* the kernel kills the postmaster when both enforcers are gone */
};

void guard_init(struct guard *g, enum guard_role role, int64_t now_ms);
struct guard_actions guard_step(struct guard *g, const struct guard_event *ev, int64_t now_ms);
/* When this process would fence a primary under the lease in force, for MSG_LEASE_ACK; 0 = no
 * lease. */
int64_t guard_lease_fence_ms(const struct guard *g);
/* The dead-man knows the state of that number. */
bool guard_synced(const struct guard *g, uint64_t seq);
/* An answer that is held until the dead-man knows. generation: of the promotion or start that
 * waits; 0 for a report of the lease. A promotion whose postmaster has ended meanwhile must not be
 * answered with OK: the file would promote the next one. */
enum guard_hold { GUARD_HOLD_WAIT, GUARD_HOLD_GO, GUARD_HOLD_REFUSE };
enum guard_hold guard_held(const struct guard *g, uint64_t generation, uint64_t seq,
	int64_t deadline_ms, int64_t now_ms);
/* The replicated part, for MSG_DM_STATE; pid is the caller's to fill. */
void guard_export(const struct guard *g, int64_t now_ms, struct msg_dm_state *out);
/* DESIGN 2, Deadlines. */
int64_t guard_margin_ms(int64_t ttl_ms);
int64_t guard_peer_interval_ms(int64_t ttl_ms);
/* The watchdog may be armed with this timeout (DESIGN 2, Watchdog). */
bool guard_watchdog_fits(int64_t timeout_ms, int64_t ttl_ms);
/* It may be opened now. Opening starts it as feeding does, so the same rule holds: it must bite
 * before the lease has passed. */
bool guard_watchdog_may_open(const struct guard *g, int64_t timeout_ms, int64_t now_ms);
const char *guard_event_name(enum guard_event_kind kind);
