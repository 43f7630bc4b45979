/* What guard_step remembers, and its constants; see guard.h. Owned by the supervisor, the dead-man
 * or the simulated member that it belongs to; written by guard_step alone, read by anybody there.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/limits.h"

#define GUARD_ADOPT_GRACE_MS  5000  /* adopted, no dead-man: lease, proof or pause must come */
#define GUARD_ORPHAN_GRACE_MS 10000 /* dead-man without a supervisor; never past the lease */
#define GUARD_TTL_DEFAULT_MS  30000 /* windows of a standby before any report named a ttl */
#define GUARD_THAW_MS	      500   /* a deadline seen this late: we were frozen, not busy */
#define GUARD_PEER_MISSED     3	    /* silent for that many intervals: killed and replaced */
#define GUARD_PEER_EARLY_MS   5	    /* awake anyhow: a message that is due so soon leaves now */

#define GUARD_TIME_MAX_MS                                                                          \
	(INT64_C(1) << 52) /* 140,000 years: a time beyond it is a broken message */

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
