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
