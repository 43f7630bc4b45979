/* What each index of a writer's scalars means (shm.h). Times are boot-time milliseconds, 0 = none.
 * Indexes are only added at the end: readers and writers may be of different builds during an
 * upgrade. */
#pragma once

/* Written by the supervisor. */
enum shm_sup_scalar {
	SUP_AT_MS = 0, /* last write: an old one means a frozen supervisor */
	SUP_PID,
	SUP_WORKER_PID, /* 0 = not running */
	SUP_FILES_PID,
	SUP_API_PID,
	SUP_DEADMAN_PID,
	SUP_WORKER_READY,
	SUP_WORKER_RESTARTS,
	SUP_FILES_RESTARTS,
	SUP_API_RESTARTS,
	SUP_DEADMAN_RESTARTS,
	SUP_PG_PID,   /* 0 = none */
	SUP_PG_STATE, /* enum pg_proc_state */
	SUP_PG_GENERATION,
	SUP_PG_KIND, /* enum pg_start_kind, 0 = adopted */
	SUP_PG_STARTED_MS,
	SUP_PG_PROMOTE_SENT,
	SUP_LEASE_UNTIL_MS, /* the enforced lease */
	SUP_LEASE_TTL_MS,
	SUP_POLICY, /* enum lease_policy */
	SUP_PAUSE_ENFORCE,
	SUP_PROOF_UNTIL_MS, /* standby exemption */
	SUP_FENCE_AT_MS, /* when we fence if nothing else comes; 0 = nothing to fence, INT64_MAX =
			    never */
	SUP_FENCES,	 /* fences carried out by this supervisor */
	SUP_WATCHDOG_ARMED,
	SUP_WATCHDOG_TIMEOUT_MS,
	SUP_DEADMAN_ACKED, /* the dead-man knows our newest state */
	SUP_JOBS_RUNNING,
	SUP_ENDING, /* we were told to stop */
	SUP_SCALAR_COUNT,
};

/* Written by the worker, read by api. Sent with MSG_PAGE as soon as it is made; a reader keeps the
 * page of the worker before until WRK_COMPLETE is set. What is not known is 0. */
enum shm_worker_scalar {
	WRK_AT_MS = 0, /* last write */
	WRK_COMPLETE,  /* scalars and documents have all been written once; set last */
	WRK_PID,
	WRK_LEASE_UNTIL_MS, /* the worker's belief; zeroed on release and loss */
	WRK_LOCK_HELD,	    /* the leader key is ours by our own lease */
	WRK_ROLE,	    /* enum pg_role, in memory */
	WRK_STATE,	    /* enum pg_state, in memory */
	WRK_PAUSED,	    /* G says pause */
	WRK_TTL_MS,
	WRK_LOOP_WAIT_MS,
	WRK_NEXT_CYCLE_MS,   /* planned start of the next HA cycle (/liveness) */
	WRK_DCS_LAST_SEEN_S, /* wall clock, seconds since 1970 of the last full read; 0 = never */
	WRK_CLUSTER_READ_MS, /* C: read (or proven current) at; 0 = the last full read failed: C is
				null */
	WRK_POSTMASTER_ALIVE,
	WRK_FAILSAFE_UNTIL_MS, /* failsafe activity counts until then */
	WRK_FAILSAFE_MODE,     /* enabled in G */
	WRK_SYNC_MODE,	       /* enum sync_mode, as configured in G */
	WRK_STANDBY_CLUSTER,   /* G is a standby cluster */
	WRK_WATCHDOG_FAILED,
	WRK_PENDING_RESTART,
	WRK_MAX_LAG_ON_FAILOVER,      /* bytes, G */
	WRK_PRIMARY_START_TIMEOUT_MS, /* G; the default of a restart's timeout */
	WRK_LAST_LSN,		      /* optime of the /status key of C, 0 = none */
	WRK_LOGS_LOST,		      /* log lines lost in the agent */
	WRK_SCALAR_COUNT,
};

/* Documents of the worker's page, JSON. Length 0 = there is none (key absent or not valid). at_ms =
 * when it was read or made. */
enum shm_worker_doc {
	/* The snapshot of the cluster: {"leader": "<name>"|null, "sync": {"leader": .., "voters":
	 * [..], "quorum": n}|null, "failover": {"leader","member","scheduled_at"}|null, "last_lsn":
	 * n, "members": [{"name": .., "data": <value of the member key>}, ...] sorted by name}.
	 * Other groups of a Citus cluster: "other_api_urls": ["..."] (for the allowlist). */
	DOC_CLUSTER = 0,
	DOC_CONFIG,  /* dynamic configuration as stored: an object */
	DOC_HISTORY, /* value of the history key: an array of rows */
	/* This member's part of the status document: {"tags": {effective tags}, "filter_tags":
	 * {configured tags without the false built-ins; absent = tags},
	 * "database_system_identifier", "pending_restart_reason": {..}, "scheduled_restart": {..}};
	 * every key may be absent. */
	DOC_MEMBER,
	DOC_FAILSAFE, /* last seen /failsafe key: {"<member>": "<api_url>"} */
	/* Not JSON, for the next worker alone: lines "name address ...", the last good addresses.
	 */
	DOC_NAMES,
	/* For the next worker alone (X74), "" = nothing: {"version": n, "emptied": n, "map": {name:
	 * url}, "sent": {name: url}}. */
	DOC_HEIR,
	DOC_WORKER_COUNT,
};
