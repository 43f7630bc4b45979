/* What one decision sees: a value, built by worker/observe (or by the simulator), read by
 * worker/ha. Everything in it is borrowed for the duration of the ha_step call. Times are boot-time
 * milliseconds. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/model/cluster.h"
#include "common/model/pgstate.h"
#include "common/model/settings.h"

/* The keeper's state of the leader key, never the snapshot's: DESIGN 2. */
enum ha_lock {
	LOCK_NONE = 0, /* not ours: never acquired, released, or proven lost and already told to the
			  supervisor */
	LOCK_HELD,     /* renewed in time, acknowledged by the supervisor */
	LOCK_UNCERTAIN, /* renewals are not answered; lease_until still counts */
	LOCK_LOST,	/* proof: a compare failed, or somebody else's key */
};

/* Is the store readable? */
enum ha_store {
	STORE_OK = 0,  /* the snapshot is current (watch alive, or just read) */
	STORE_FAILING, /* reads or writes went unanswered for retry_timeout: the DCS-error path (J)
			*/
};

/* One polled peer (ha 3.2). */
struct ha_peer {
	char name[LIMIT_NAME];
	bool answered;	   /* a valid document came within 2 s */
	bool in_recovery;  /* false also when its role says primary */
	uint64_t position; /* max(received, replayed) */
	int64_t timeline;  /* 0 = not given */
	bool nofailover;   /* from the tags of the ANSWER */
	int failover_priority;
	bool watchdog_failed;
};

/* The one background task (ha 1.16). Names for REST in ha_task_word(). */
enum ha_task {
	TASK_NONE = 0,
	TASK_BOOTSTRAP, /* initdb or custom method, then start */
	TASK_BOOTSTRAP_STANDBY_LEADER,
	TASK_CLONE,
	TASK_POST_BOOTSTRAP,
	TASK_CRASH_RECOVERY,
	TASK_REWIND,
	TASK_REINIT,
	TASK_START_PRIMARY,
	TASK_RESTART_AFTER_FAILURE, /* follow(): write recovery settings and start */
	TASK_CHANGE_CONNINFO,	    /* follow() with restart */
	TASK_PROMOTE,
	TASK_DEMOTE, /* every mode: stop, release where the mode says so, start as standby */
	TASK_FOLLOW_AFTER_DEMOTION,
	TASK_RESTART,
	TASK_COPY_SLOTS,
	TASK_REWIND_CHECK, /* ha 6.3: asks the leader; result in pg.rewind_check */
	TASK_COUNT,
};
const char *ha_task_word(enum ha_task task); /* "restart", "reinitialize", "promote", ... for
						"<task> already in progress" */

enum ha_task_result {
	TASK_RESULT_NONE = 0,
	TASK_RESULT_TRUE,
	TASK_RESULT_FALSE,
	TASK_RESULT_CANCELLED
};

enum ha_demote_mode {
	DEMOTE_OFFLINE = 1, /* store away: fast stop, key untouched, start without a target */
	DEMOTE_GRACEFUL,    /* checkpoint, fast stop, release as soon as a standby has the shutdown
			       checkpoint */
	DEMOTE_IMMEDIATE,   /* immediate stop, release afterwards */
	DEMOTE_IMMEDIATE_NOLOCK, /* immediate stop; the key is not ours */
	DEMOTE_CLUSTER,		 /* becomes a standby leader */
	DEMOTE_SHUTDOWN, /* the agent ends: fast stop, release as graceful (also of a standby: only
			    the stop) */
};
/* What TASK_DEMOTE does: stop, role := demoted, release where the mode says so. Starting again is
 * another decision (TASK_FOLLOW_AFTER_DEMOTION), because it needs the cluster as it is then.
 * Graceful and shutdown: pg_control says "shut down" (the postmaster may be gone by then) => poll
 * action.names (position >= the shutdown checkpoint) for at most 3 s, release at once when one has
 * it. Result TRUE = stopped, and released if the mode releases; FALSE = stopped, but nobody
 * confirmed the shutdown checkpoint and action.flag (release regardless) was not set, so the key is
 * still ours: ha_step decides (X5, S15). */

enum ha_rewind_state {
	REWIND_INITIAL = 0,
	REWIND_CHECKPOINT,
	REWIND_CHECK,
	REWIND_NEED,
	REWIND_NOT_NEED,
	REWIND_SUCCESS,
	REWIND_FAILED,
};

/* A restart, reinitialise, ... asked for by REST or ctl, accepted by worker/requests, waiting for
 * the decision. Levels, not edges: a flag stays until a plan carries the task that it asks for, or
 * HA_REQUEST_REFUSED. */
struct ha_request {
	bool restart;		    /* an immediate restart (ha N1), conditions already matched */
	int64_t restart_timeout_ms; /* 0 = primary_start_timeout */
	bool scheduled_restart_due; /* decided elsewhere; usually the fields below are set instead
				     */
	bool scheduled_restart; /* one is stored (ha N2); its conditions are matched when it is due
				 */
	bool scheduled_restart_unmet; /* its conditions (role, version, pending) do not hold now */
	int64_t scheduled_restart_at_wall_us;
	int64_t scheduled_restart_start_us; /* postmaster start time when it was stored */
	int64_t scheduled_restart_timeout_ms;
	bool reinit, reinit_force, reinit_from_leader;
	bool shutdown; /* the supervisor wants us to end (SIGTERM): ha 1.15 */
};

/* The result of the operation that the last plan waited for (ha_plan.await). */
enum ha_outcome { HA_OUT_NONE = 0, HA_OUT_OK, HA_OUT_CONFLICT, HA_OUT_DENIED, HA_OUT_UNKNOWN };
struct ha_result {
	bool present; /* this call answers memory.awaiting */
	enum ha_outcome outcome;
	int64_t version;  /* of a written key */
	bool failsafe_ok; /* AWAIT_FAILSAFE: all members accepted */
			  /* AWAIT_PEERS: answers are in view.peers */
};

struct ha_view {
	int64_t now_ms;
	int64_t wall_us; /* schedules only */
	char name[LIMIT_NAME];
	char system_id[32]; /* local data directory's, "" = unknown */
	const struct settings *set;

	/* the store */
	enum ha_store store;
	const struct cluster *c; /* last snapshot; never NULL: empty before the first read */
	bool c_fresh;		 /* C was read at least once */

	/* my lease */
	enum ha_lock lock;
	bool lock_busy;		/* the keeper acquires, adopts or releases right now */
	int64_t lease_until_ms; /* 0 = none */
	int64_t gentle_at_ms;	/* lease_until - fence_margin - ttl/6: gentle demotion at the latest
				 */
	int64_t store_failing_since_ms; /* first unanswered operation; 0 = none */

	/* local PostgreSQL */
	enum pg_proc_state proc;
	uint64_t generation; /* of the postmaster */
	int64_t proc_started_at_ms;
	bool promote_sent;	    /* to this generation */
	enum exit_class exit_class; /* of the last postmaster that ended */
	enum pg_role role;   /* in-memory role: kept by worker/execute, the contract's P.role */
	enum pg_state state; /* in-memory state word; running/starting/crashed/... */
	int64_t state_since_ms;
	const struct pg_sql *sql;
	const struct pg_files *files;
	bool can_rewind;	       /* ha 6.2, learnt beforehand */
	bool recovery_settings_differ; /* ha 11.7: wanted for the target below differ from what is
					  set */
	bool recovery_needs_restart;
	char following[LIMIT_NAME];	      /* target the last follow() wrote; "" = none */
	bool follow_known;		      /* following is meaningful */
	bool watchdog_armed, watchdog_failed; /* failed: mode required and unusable */
	bool callbacks_called;		      /* ha cb_called */
	int64_t control_timeline; /* of pg_control, for the checkpoint-after-promote step; 0 unknown
				   */
	bool checkpoint_running, checkpoint_done; /* the task of ha 4.4 */
	enum pg_db_state shutdown_state; /* convenience copy of files->control.state when valid */
	enum ha_rewind_state rewind_check_result; /* outcome of the last TASK_REWIND_CHECK: CHECK =
						     could not tell */
	struct history_row
		*local_history; /* <tli>.history of the local timeline, ascending; may be NULL */
	unsigned local_history_count;
	int64_t local_history_tli; /* the timeline it was read for */
	int64_t next_history_tli;  /* of a standby cluster: the timeline after that of C's leader,
				      when  its history file is here; else 0 */
	int64_t postmaster_start_us;
	bool orphan_job;	  /* a job of an earlier worker works on the data directory */
	enum ha_task orphan_task; /* the task that takes it over, TASK_NONE without one */
	/* The check found our timeline number begun twice: pg_rewind would see no difference (X43).
	 */
	bool rewind_twin;
	bool rewind_check_again; /* TASK_REWIND ended: it does not agree with the check (X76) */
	unsigned slots_to_copy;	 /* logical slots that HA_SYNC_SLOTS found to be copied from the
				    leader (ha 7.4-7) */

	/* the background task */
	enum ha_task task; /* running one */
	int64_t task_since_ms;
	enum ha_task task_ended; /* ended since the last call, TASK_NONE = none */
	enum ha_task_result task_result;
	bool task_promote_committed; /* TASK_PROMOTE: the promote file was made (no way back but a
					stop) */
	bool task_released_key;	     /* TASK_DEMOTE released the key already */

	/* peers polled by the last AWAIT_PEERS */
	const struct ha_peer *peers;
	unsigned peer_count;
	int64_t peers_asked_at_ms;

	/* failsafe (ha 9.4) */
	char failsafe_leader[LIMIT_NAME]; /* last sender of POST /failsafe, "" = none */
	char failsafe_conn_url[LIMIT_URL], failsafe_api_url[LIMIT_URL];
	int64_t failsafe_last_ms; /* when it came */
	int64_t failsafe_ttl_ms;  /* how long the word given to it counts */

	struct ha_request request;
};
