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
 * - hold_seq != 0: the answer to this event may leave only when guard_synced(g, hold_seq), that is
 * when the dead-man has acknowledged the state that contains it; or it is refused when its deadline
 * passes.
 * - FENCE and SWEEP run until the caller reports GUARD_EV_KILLED (SIGKILL is pending on every
 * process that the passes found) and GUARD_EV_PROVEN (lock on the life file). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/ipc_msgs.h"
#include "common/core/limits.h"

#define GUARD_ADOPT_GRACE_MS                                                                       \
	5000			    /* adopted without a dead-man: lease, proof or pause must come \
				     */
#define GUARD_ORPHAN_GRACE_MS 10000 /* dead-man without a supervisor; never past the lease */
#define GUARD_TTL_DEFAULT_MS  30000 /* windows of a standby before any report named a ttl */
#define GUARD_THAW_MS	      500   /* a deadline seen this late: we were frozen, not busy */
#define GUARD_PEER_MISSED     3	    /* silent for that many intervals: killed and replaced */

enum guard_role { GUARD_SUPERVISOR = 1, GUARD_DEADMAN = 2 };

/* How far the standby exemption has run out. */
enum guard_late { GUARD_LATE_NO = 0, GUARD_LATE_ASKED = 1, GUARD_LATE_STOPPED = 2 };

struct guard {
	uint32_t role; /* enum guard_role */
	/* The lease, as last accepted. lease_until_ms 0 = none. */
	uint32_t policy;	/* enum lease_policy */
	uint32_t pause_enforce; /* the lease is kept up in pause */
	uint64_t lease_seq;
	int64_t sent_at_ms;
	int64_t lease_until_ms;
	int64_t ttl_ms;		/* 0 = no report yet */
	int64_t wall_offset_ms; /* lowest wall - boot since the renewal was sent; 0 = not known */
	uint32_t voided;	/* wall clock jumped: nothing new rests on this lease */
	/* The postmaster. */
	uint32_t pm_state; /* enum pg_proc_state */
	uint32_t kind;	   /* enum pg_start_kind; 0 = adopted, not proven yet */
	uint64_t generation;
	uint64_t ended_generation; /* proven gone: no later message makes it alive again */
	uint32_t promote_sent;
	uint32_t shutdown_proven;
	uint32_t killed; /* FENCING: nothing of it can acknowledge a write any more */
	uint32_t late;	 /* enum guard_late */
	int64_t started_at_ms;
	int64_t stopped_at_ms; /* told to stop; 0 = not */
	int64_t proof_at_ms;
	int64_t proof_until_ms; /* 0 = no exemption */
	int64_t grace_until_ms; /* adopted, or pause just ended: permitted until then; 0 = none */
	/* The other enforcer. */
	uint32_t peer_alive;
	uint32_t peer_fencing;
	int64_t peer_seen_ms;
	int64_t peer_send_ms;	 /* when the next message to it is due */
	int64_t orphan_until_ms; /* dead-man: fence when no supervisor came; 0 = has one */
	uint64_t state_seq;	 /* of the replicated state: counts its changes */
	uint64_t acked_seq;	 /* what the dead-man has acknowledged */
	/* Watchdog: timeout read back, 0 = not in use. */
	int64_t wd_timeout_ms;
	int64_t wd_fed_ms;
	/* The wake-up asked for last: how late it comes tells a thaw. */
	int64_t wake_at_ms;
};

enum guard_event_kind {
	GUARD_EV_TICK = 1, /* wake_at_ms reached, or the wall clock was set; wall_offset_ms */
	GUARD_EV_LEASE, /* lease: MSG_LEASE. Accept or refuse; hold_seq when it shortens the lease
			 */
	GUARD_EV_PROOF, /* proof: MSG_PROOF. Accept or refuse */
	GUARD_EV_START, /* generation (new), pm_kind, lease_until_ms, deadline_ms. Accept, then fork
			 */
	GUARD_EV_GATE,	/* generation, lease_until_ms, deadline_ms; hold_seq of START is synced.
			   Accept: open the gate. Refuse: kill the child, report GUARD_EV_EXIT */
	GUARD_EV_ADOPT, /* generation (new): a running postmaster, proven ours, no dead-man knew it
			 */
	GUARD_EV_EXIT,	/* generation: the postmaster (or the child at the gate) has ended */
	GUARD_EV_STOP,	/* generation, deadline_ms. Accept, then signal */
	GUARD_EV_PROMOTE,     /* generation, lease_until_ms, deadline_ms. Accept, hold_seq */
	GUARD_EV_SIGNAL,      /* generation, deadline_ms, lease_until_ms (0 = rests on none) */
	GUARD_EV_FENCE_ORDER, /* generation: mode KILL, or the last stop time-out passed */
	GUARD_EV_KILLED,      /* generation: SIGKILL is pending on all of it */
	GUARD_EV_PROVEN,      /* generation: the life file could be locked */
	GUARD_EV_PEER_NEW,  /* supervisor: a dead-man is ready; dead-man: a supervisor connected */
	GUARD_EV_PEER_SEEN, /* a message came; acked_seq and peer_fencing of MSG_DM_ACK */
	GUARD_EV_PEER_DEAD, /* its socket or pidfd says so */
	GUARD_EV_STATE, /* state: MSG_DM_STATE. Dead-man: follow it. New supervisor: inherit it */
	GUARD_EV_WATCHDOG, /* timeout_ms: read back after opening; 0 = closed, or mode off */
};

struct guard_event {
	enum guard_event_kind kind;
	uint32_t pm_kind; /* enum pg_start_kind */
	uint32_t peer_fencing;
	uint64_t generation;
	uint64_t acked_seq;
	int64_t deadline_ms;
	int64_t lease_until_ms;
	int64_t timeout_ms;
	int64_t wall_offset_ms; /* wall - boot clock, with every event; 0 = not known */
	const struct msg_lease *lease;
	const struct msg_proof *proof;
	const struct msg_dm_state *state;
};

enum guard_flag {
	GUARD_REFUSED = 1u << 0, /* the event was not accepted; `reason` */
	GUARD_FENCE = 1u << 1,	 /* kill PostgreSQL now; `reason` */
	GUARD_SWEEP =
		1u
		<< 2, /* the postmaster is gone: kill what is left of it, prove that it is gone */
	GUARD_STOP_FAST = 1u << 3, /* SIGINT to the postmaster; `reason` */
	GUARD_ASK_PROOF = 1u << 4, /* MSG_PROOF_WANTED to the worker, deadline = ask_until_ms */
	GUARD_SEND_STATE =
		1u
		<< 5, /* MSG_DM_STATE (or, from the dead-man, MSG_DM_ACK) to the other enforcer */
	GUARD_REPLACE_PEER =
		1u << 6, /* supervisor: kill the dead-man if it still runs, start a new one */
	GUARD_WD_FEED = 1u << 7,   /* one keepalive */
	GUARD_END_FILES = 1u << 8, /* a promotion was ordered of this generation: end pgregent-files
				      before a new start, so that a promote file cannot come late */
	GUARD_THAWED = 1u << 9,	   /* for the log */
	GUARD_WALL_JUMP = 1u << 10, /* for the log: the lease was cut short */
	GUARD_LEAVE = 1u << 11, /* dead-man: no supervisor and no postmaster, nothing left to do */
};

enum guard_watchdog {
	GUARD_WD_CLOSED = 0, /* disarm and close */
	GUARD_WD_ARMED = 1,  /* open if its mode wants it; fed by GUARD_WD_FEED alone */
};

struct guard_actions {
	uint32_t flags;
	const char *reason; /* static text: why refused, or why fenced or stopped; never NULL */
	int64_t wake_at_ms; /* call again at this time at the latest */
	int64_t ask_until_ms;
	int64_t fence_at_ms; /* when this process fences if nothing else comes; 0 = nothing to
				fence, INT64_MAX = never */
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
const char *guard_event_name(enum guard_event_kind kind);
