/* What one decision says: a bounded list of ordered actions, the reason with its rule, the memory
 * for the next call. ha_step(view, memory, result) -> plan is pure: no I/O, clock, log, allocation
 * or static state (style: pure core).
 *
 * A cycle of the reference (ha 1.3) may need answers in between (acquire the key, poll peers, write
 * /sync). Then the plan ends with exactly one awaited operation, plan.await names it, memory holds
 * the stage, and ha_step is called again when the answer (or its deadline) is there, with
 * result.present = true. Plans without await end the cycle. An urgent event (postmaster exit, lock
 * lost, task ended, request, snapshot without leader) during an awaited operation does not cut it
 * short: the call that brings the result sees the new facts. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"
#include "common/model/ha_view.h"

enum ha_action_kind {
	HA_NOP = 0,
	/* store: compare-and-swap on the leader key's lease (LEASE = own) where the holder writes
	 */
	HA_ACQUIRE, /* create the leader key with my lease. Await: OK | CONFLICT | DENIED | UNKNOWN.
		     * .flag (X2): the key carries my name but not my lease (a predecessor's): move
		     * it to my lease by compare-and-swap on .version. OK means that view.lock is
		     * LOCK_HELD from now on */
	HA_RELEASE, /* lease 0 reported and acknowledged first; status with .lsn if != 0; then
		       delete if mine */
	HA_WRITE_STATUS,   /* optime, slots, retain_slots of this moment (suppressed when equal) */
	HA_WRITE_FAILSAFE, /* the map of members (suppressed when equal, unless .flag) */
	HA_EMPTY_FAILSAFE, /* an empty map; CAS .version (X71) */
	HA_WRITE_INIT, /* initialize := own system id; .create: only if absent; .flag: only under my
			  leader key; .version CAS */
	HA_RACE_INIT,  /* create initialize = "". Await */
	HA_CANCEL_INIT,	     /* delete initialize */
	HA_WRITE_CONFIG,     /* own dynamic configuration. Await */
	HA_TAKE_LEADER,	     /* end of bootstrap: the leader key is mine: as held, or created. Await
			      */
	HA_CLEAR_FAILOVER,   /* {} ; .version CAS, 0 = unconditional */
	HA_REWRITE_FAILOVER, /* keep the candidate only (pause), CAS */
	HA_WRITE_SYNC,	  /* .names = voters, .quorum, leader = me; CAS .version (-1 = create only).
			     Await */
	HA_DELETE_SYNC,	  /* CAS .version */
	HA_WRITE_HISTORY, /* from the local history file, ha 4.5 */
	HA_TOUCH_MEMBER,  /* member key (suppressed when equal) */
	HA_REREAD,	  /* a fresh linearizable read of C. Await */
	/* questions */
	HA_POLL_PEERS,	   /* .names = members to ask (2 s, parallel); address: C's member, else
			    * memory.old_members,     else C's failsafe map. Await */
	HA_FAILSAFE_ROUND, /* POST /failsafe to all other entries, and to the members named (X21).
			      Await */
	HA_WAIT,	   /* nothing; call again at .until_ms. Await */
	/* PostgreSQL */
	HA_TASK_START,	  /* .task, with .demote | .target | .role | .timeout_ms | .flag */
	HA_TASK_CANCEL,	  /* the running task */
	HA_STOP_PG,	  /* .stop_mode, not as a task: A12 and shutdown */
	HA_FOLLOW_RELOAD, /* write recovery settings for .target and reload (no restart), role :=
			     .role */
	HA_SET_ROLE,	  /* in-memory role := .role */
	HA_SET_STATE,	  /* in-memory state := .state */
	HA_SET_SSN,  /* synchronous_standby_names := .quorum == -1 ? k (names) : ANY quorum (names);
			see .ssn */
	HA_POKE_WAL, /* a little WAL (txid_current with synchronous_commit off): standbys report
			anew (ha 5.3) */
	HA_RESUME_REPLAY, /* pg_wal_replay_resume() */
	HA_CHECKPOINT,	  /* background CHECKPOINT after promotion (ha 4.4) */
	HA_SYNC_SLOTS,	  /* ha 7.4 */
	HA_CALLBACK,	  /* .callback, role argument .role */
	HA_WATCHDOG_ARM,  /* Await: OK | DENIED */
	HA_WATCHDOG_OFF,
	HA_RENAME_FAILED, /* data directory to <dir>.failed (ha L1) */
	HA_FORGET_SLOTS,  /* reload the slot list next time */
	HA_FAILSAFE_HOLD, /* report POLICY_FAILSAFE with until = .until_ms (round sent + ttl) */
	HA_RENEW,	  /* prove the lease anew at once (X67) */
	HA_DROP_SCHEDULED_RESTART,
	HA_REQUEST_REFUSED, /* .task = TASK_RESTART | TASK_REINIT: forget the request; why is
			       plan.reason */
	HA_CLEAR_MARK, /* nothing is being done with the data directory any more (pg_files.mark) */
	HA_FENCE,      /* order the supervisor to fence now: doubt that nothing gentler ends */
	HA_EXIT,       /* .code; PostgreSQL is left (.flag) or stopped */
	HA_SHUTDOWN_DONE, /* answer to request.shutdown; .flag = leave PostgreSQL running */
	HA_ACTION_COUNT,
};

/* Levels of log lines: the numbers of enum log_level, which pure code may not include. */
#define HA_LOG_DEBUG	10
#define HA_LOG_INFO	20
#define HA_LOG_WARNING	30
#define HA_LOG_ERROR	40
#define HA_LOG_CRITICAL 50

enum ha_callback {
	CB_NONE = 0,
	CB_ON_START,
	CB_ON_STOP,
	CB_ON_RESTART,
	CB_ON_ROLE_CHANGE,
	CB_ON_RELOAD
};

struct ha_ssn {
	bool managed;	  /* false: the user's own setting applies */
	bool quorum;	  /* ANY n (names), also for one name */
	int n;		  /* how many must confirm; 0 with no names = setting removed */
	bool placeholder; /* strict and nobody: the placeholder name */
};

struct ha_action {
	enum ha_action_kind kind;
	enum ha_task task;
	enum ha_demote_mode demote;
	enum pg_role role;
	enum pg_state state;
	enum pg_stop_mode stop_mode;
	enum ha_callback callback;
	struct ha_ssn ssn;
	bool create, flag;
	bool force; /* TASK_START: a running task is abandoned (its job killed) and this one begins
		       when it is gone */
	int code;
	int quorum; /* WRITE_SYNC; TASK_DEMOTE: how many of .names must have the shutdown checkpoint
		     */
	int64_t version, until_ms, timeout_ms;
	uint64_t lsn;
	char target[LIMIT_NAME]; /* member to follow or clone; "" = none; "\1" = the remote member
				    of a standby cluster */
	uint16_t name_first, name_count; /* into plan.names */
};
#define HA_TARGET_REMOTE "\1"

enum ha_await {
	AWAIT_NONE = 0,
	AWAIT_DCS,
	AWAIT_PEERS,
	AWAIT_FAILSAFE,
	AWAIT_TIME,
	AWAIT_REREAD,
	AWAIT_WATCHDOG
};

/* May the keeper go on renewing? Fresh for 2 * loop_wait + retry_timeout at most (DESIGN 4). */
enum ha_verdict {
	VERDICT_NONE = 0, /* nothing to hold */
	VERDICT_HOLD,	  /* keep the leader key */
	VERDICT_DROP,	  /* stop renewing */
};

/* Explicit memory between calls (ha 1.2). Zero = fresh start. Plain data: the simulator copies it.
 */
struct ha_memory {
	/* stage of the running cycle */
	uint16_t stage; /* private to worker/ha; 0 = start of a cycle */
	enum ha_await awaiting;
	int64_t await_deadline_ms;
	char stage_rule[16];
	int stage_arg[4];
	int64_t started_ms;	     /* first call of this incarnation */
	int64_t ttl_most_ms;	     /* the longest ttl of this incarnation */
	int64_t failsafe_emptied;    /* X71: version of the map that was asked to be emptied */
	int64_t failsafe_emptied_ms; /* ... and when */
	/* By this incarnation, or by one before it that told all (X74): what may still be written
	 * as leader is known. */
	bool lock_was_held;
	int64_t failsafe_void;	       /* X71: version of a map that nobody can stand on */
	int64_t failsafe_led_ms;       /* ... a leader of the reference leads with the mode off
					  since then, 0 = none does */
	char failsafe_led[LIMIT_NAME]; /* ... this one */
	int64_t failsafe_led_version;  /* ... its member key as it was seen last */
	int failsafe_led_writes;       /* ... and how often that has changed since */
	int64_t failsafe_round_ttl_ms; /* the ttl that the last round was asked with */
	/* healthy time */
	char old_leader[LIMIT_NAME];
	struct {
		char name[LIMIT_NAME];
		char api_url[LIMIT_URL];
		bool nofailover;
		int failover_priority;
	} old_members[LIMIT_MEMBERS];
	unsigned old_member_count;
	bool rewind_twin;    /* X43: only a new copy helps, as long as this leader leads */
	bool init_cancelled; /* L1: initialize was removed */
	bool publish_tried;  /* L4 wrote initialize, unanswered: it may be there (X45) */
	bool detaching;	     /* X56 was planned, the promotion comes next */
	bool was_paused, recovering, bootstrapping, join_aborted, strict_warned;
	int64_t leader_timeline, last_timeline;
	uint64_t last_lsn, prev_lsn;
	enum ha_task_result promote_result;
	int64_t crash_recovery_started_ms, start_timeout_ms, race_backoff_ms, released_ms;
	int64_t start_failed_ms;	  /* of a standby; 0 = the last one did not fail (X78) */
	int64_t failsafe_active_until_ms; /* leader: own complete round */
	int64_t failsafe_again_ms;	  /* X75: a round failed, the next one begins then */
	enum ha_rewind_state rewind_state;
	int64_t store_failed_ms;
	bool demote_for_store; /* a J2 demotion was started */
	bool shutdown_seen;
	bool history_written;
	int64_t history_tli;
	/* synchronous replication (ha 5.3) */
	char last_ssn[4096];
	uint64_t primary_flush_lsn;
	char ready[LIMIT_SYNC_NAMES][LIMIT_NAME];
	unsigned ready_count;
	struct {
		bool running;
		int steps;
	} quorum_pass;
	/* working lists of the running stage: candidates polled, sync step, ... */
	int64_t schedule_logged_ms;
	uint64_t last_reason_hash;
	uint16_t stage_count; /* stages of this cycle so far: bounded */
	bool stage_pg;	      /* a postmaster was there when the stage began */
	/* The lock was lost, the store failed, pause was on already then. */
	bool stage_lost, stage_failing, stage_paused;
	uint64_t stage_generation;    /* ... this one */
	enum ha_demote_mode demoted;  /* a demotion was started and PostgreSQL was not started again
					 since; 0 = no */
	int64_t demoted_ms;	      /* when it ended; 0 = still runs */
	char demoted_for[LIMIT_NAME]; /* whom a switchover named when it began */
	uint64_t rewind_checked_generation; /* a check was made after this postmaster ended */
	int64_t rewind_checked_ms;	    /* last check that could not tell */
	int64_t sampled_ms;		    /* when last_lsn was taken */
	int64_t race_wait_ms;		    /* C4: since when others get time to take the lock */
	int64_t disable_sync_until_ms;	    /* "do not pick me" (while_not_sync): 0 = off */
	int64_t restart_due_wall_us;	    /* the schedule that this is for (N3) */
	bool reinit_force_cancelled;
	int64_t failsafe_round_ms; /* when the last round was sent */
	int64_t crash_task_ms;
	int64_t release_again_ms;   /* X48: the key of a demotion is not released again before */
	int64_t promote_refused_ms; /* X47: when the last promotion ended without one */
	int64_t retain_ms;
	int64_t void_version, void_since_ms; /* X72: a request that is being removed */
	int64_t sync_version;		     /* of /sync as written by this pass; 0 = as in C */
	char sync_leader[LIMIT_NAME];
	int sync_quorum;
	char sync_voters[LIMIT_SYNC_NAMES][LIMIT_NAME];
	unsigned sync_voter_count;
	bool sync_written; /* the sync_* fields are newer than C */
	int64_t sync_written_ms;
	/* X21: whom /failsafe may name by a write of ours that is still on its way */
	struct {
		char name[LIMIT_NAME];
		char api_url[LIMIT_URL];
		int64_t sent_ms;
	} failsafe_sent[LIMIT_MEMBERS];
	unsigned failsafe_sent_count;
	enum sync_mode poll_sync; /* X52: what peers were asked under */
	bool poll_quorum;
	int64_t poll_sync_version, poll_failover_version;
	int64_t store_asked_ms; /* X54 */
	bool race_decided; /* X51: the key was asked for and PostgreSQL has not led under it yet; */
	int64_t race_sync_version; /* ... /sync as that decision knew it, -1 = none */
	bool lock_won; /* X18: the key that is held now is ours by a decision, or PostgreSQL leads
			  under it */
	bool sync_unknown;	   /* a write of /sync went unanswered: it may still arrive (X12) */
	int64_t task_failed_ms[2]; /* last failed clone, rewind: not again before loop_wait */
	uint64_t ssn_asked_hash;   /* last synchronous_standby_names asked for, and when */
	int64_t ssn_asked_ms;
	int64_t last_cycle_ms;
	int64_t fencing_ms; /* since when the fence works or waits for its proof; 0 = it does not */
	int64_t held_ms;    /* when this incarnation was last seen to hold the leader key */
	int64_t behind_checked_tli,
		behind_checked_ms; /* F10: last check for this timeline of the leader */
	int64_t sync_wait_ms;	   /* quorum RESTART: not before */
	int64_t left_to_version,
		left_to_ms; /* X57: request that others are left to answer, since */
	int64_t next_checked_tli, next_checked_ms; /* F5: last check for this next timeline */
	int64_t stream_wait_version,
		stream_wait_ms; /* X50: request, and since when it waits; 0 = never */
};

struct ha_plan {
	struct ha_action actions[LIMIT_PLAN_ACTIONS];
	unsigned count;
	char names[LIMIT_MEMBERS * 3][LIMIT_NAME]; /* shared pool for action name lists */
	unsigned name_count;
	enum ha_await await;
	int64_t await_deadline_ms;
	enum ha_verdict verdict;
	char rule[16];	    /* "E4", "D-M", "X1" */
	char reason[480];   /* the contract's line of this cycle; "" while it waits */
	int log_level;	    /* enum log_level of the reason */
	char notes[8][400]; /* further lines (lag of a refused peer, ...) with their own level */
	int note_level[8];
	unsigned note_count;
	int64_t next_run_ms; /* call again at the latest; 0 = loop_wait as usual */
};

/* X74: what the next worker needs to stand in failsafe mode, should the store be away when it
 * begins. True: there is something to leave, /failsafe as in the view, failsafe_emptied, and
 * failsafe_sent. To be written down before the plan is carried out, and taken over before the first
 * step. */
bool failsafe_bequeathed(const struct ha_view *view, const struct ha_memory *memory);
void failsafe_inherit(struct ha_memory *memory, int64_t emptied_version);
/* False: it does not fit; nothing may be inherited then. */
MUST_USE bool failsafe_inherit_sent(
	struct ha_memory *memory, const char *name, const char *api_url, int64_t now_ms);

/* Self-disqualified from elections for a reason that peers cannot see (ha 3.3 R), or tagged so:
 * what the member key and /patroni show as nofailover. The same for nosync (ha 1.14
 * while_not_sync). */
bool ha_effective_nofailover(const struct ha_view *view, const struct ha_memory *memory);
bool ha_effective_nosync(const struct ha_view *view, const struct ha_memory *memory);

/* worker/ha/decide.c. memory is updated in place; plan is written whole. */
void ha_step(const struct ha_view *view, struct ha_memory *memory, const struct ha_result *result,
	struct ha_plan *plan);
