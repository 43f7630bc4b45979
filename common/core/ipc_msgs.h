/* All messages between our processes, in one list: name, sender, receiver, payload, tail.
 * Payloads have fixed widths, no pointers and no padding; sizes are asserted below. Times are
 * boot-time milliseconds (clock_boot_ms), the same clock in all processes of a machine. */
#pragma once
#include <stdint.h>

enum ipc_role {
	ROLE_NONE = 0,
	ROLE_SUPERVISOR,
	ROLE_DEADMAN,
	ROLE_WORKER,
	ROLE_FILES,
	ROLE_API,
	ROLE_CTL, /* pgregentctl on the local socket */
	ROLE_COUNT,
};

/* A pair that more than one role may send: checked by the receiver against this mask. */
#define RM(r)	   (1u << (r))
#define RM_HELPERS (RM(ROLE_WORKER) | RM(ROLE_FILES) | RM(ROLE_API))

/* ---- policies, modes, classes -------------------------------------------------------------------
 */

enum lease_policy {
	POLICY_ENFORCE = 0, /* PostgreSQL needs the lease, or an exemption */
	POLICY_FAILSAFE =
		1, /* the store is away, every member agreed: lease_until = round sent + ttl */
	POLICY_PAUSED = 2, /* maintenance mode: not enforced */
};

enum pg_start_kind {
	PG_START_PRIMARY = 1, /* may write as soon as it runs: needs the lease from its fork on */
	PG_START_STANDBY = 2, /* exempt while proven in recovery */
	PG_START_SINGLE = 3, /* postgres --single for crash recovery: no network, no clients; a job,
				not here */
};

enum pg_stop_mode { PG_STOP_SMART = 1, PG_STOP_FAST = 2, PG_STOP_IMMEDIATE = 3, PG_STOP_KILL = 4 };

enum pg_proc_state {
	PG_PROC_NONE = 0,     /* no postmaster, proven */
	PG_PROC_STARTING = 1, /* forked, waits at the gate */
	PG_PROC_RUNNING = 2,  /* executed, or adopted */
	PG_PROC_STOPPING = 3, /* told to stop */
	PG_PROC_FENCING = 4,  /* the fence runs, or its proof is not in yet */
};

enum exit_class {
	EXIT_CLASS_NONE = 0,
	EXIT_CLASS_CODE = 1,	/* exited with status n */
	EXIT_CLASS_SIGNAL = 2,	/* killed by signal n */
	EXIT_CLASS_UNKNOWN = 3, /* not our child: pg_control alone tells */
	EXIT_CLASS_FENCED = 4,	/* killed by our fence */
};

enum proof_kind {
	PROOF_RECOVERY_SQL = 1,	    /* pg_is_in_recovery() was true */
	PROOF_RECOVERY_CONTROL = 2, /* pg_control: in archive recovery | shut down in recovery,
				       standby.signal present */
	PROOF_SHUTDOWN_CONTROL = 3, /* told to stop, pg_control: shut down */
};

enum answer_code { ANSWER_OK = 0, ANSWER_REFUSED = 1, ANSWER_FAILED = 2, ANSWER_TIMEOUT = 3 };

/* ---- payloads -----------------------------------------------------------------------------------
 */

/* First message of a helper; `proto` must be IPC_VERSION. `ready` in MSG_READY arms its PING watch.
 */
struct msg_hello {
	uint32_t proto;
	int32_t pid;
	char version[32];
};
struct msg_ping {
	int64_t sent_at_ms;
};
/* A refusal or failure in words, and the outcome of a request (id of the header). */
struct msg_answer {
	uint32_t code; /* enum answer_code */
	uint32_t pad;
	char text[248];
};

/* What the supervisor tells a helper at its start: everything it needs besides its command line. */
enum upgrade_end {
	UPGRADE_NONE = 0,
	UPGRADE_DONE,	     /* executed in place by the program before it */
	UPGRADE_ROLLED_BACK, /* the program before it, as the new one did not come up */
};
struct msg_welcome {
	int64_t now_ms;
	uint64_t incarnation; /* of this helper, counts from 1 */
	uint64_t lease_seq;   /* last accepted report, so that a new worker continues */
	int64_t lease_until_ms;
	uint32_t policy;
	uint32_t adopted;     /* this supervisor took over a running postmaster */
	uint32_t in_handover; /* taken over from a predecessor */
	uint32_t is_pid1;
	int64_t started_ms; /* the program that runs as supervisor now, boot time */
	uint32_t upgrade;   /* how it came to run: enum upgrade_end */
	uint32_t pad;
	char data_dir[1024];
	char runtime_dir[1024]; /* <base>/<scope>.<name> */
	char scope[128];
	char name[128];
};
/* A socket to another process (one descriptor): `role` is at the other end. Replaces an earlier
 * one. Sent to both ends whenever one of them starts. The dead-man's socket is for noticing its end
 * (DESIGN 1). */
struct msg_peer {
	uint32_t role;
	uint32_t pad;
	uint64_t incarnation;
};
/* A shared page (one descriptor), written by `role`. The supervisor keeps the last one of each
 * writer and gives it to every reader at its start. */
struct msg_page {
	uint32_t role;
	uint32_t pad;
	uint64_t incarnation;
};

/* Worker -> supervisor: the lease, and the policy under which it is enforced (DESIGN 2, Reports).
 * sent_at_ms is the time just before the renewal was SENT; lease_until_ms = sent_at_ms + min(ttl,
 * answered TTL); 0 = no lease (release, loss). Refused: sent_at in the future or before the
 * previous one, lease longer than LIMIT_LEASE_MS. Answer: MSG_LEASE_ACK with the same seq. */
struct msg_lease {
	uint64_t seq; /* counts up over all incarnations of the worker */
	int64_t sent_at_ms;
	int64_t lease_until_ms;
	int64_t ttl_ms;	 /* in force; the margins follow from it */
	uint32_t policy; /* enum lease_policy */
	uint32_t pause_enforce;
	int64_t wall_offset_ms; /* wall clock - boot clock at sent_at: a jump voids the lease */
};
struct msg_lease_ack {
	uint64_t seq;
	uint32_t accepted;
	uint32_t pad;
	int64_t fence_at_ms; /* supervisor's deadline that is now in force, 0 = none */
	char reason[104];    /* why not */
};
/* Worker -> supervisor: this generation of the postmaster was proven harmless at at_ms. */
struct msg_proof {
	uint64_t generation;
	int64_t at_ms; /* just before the question was asked */
	uint32_t kind; /* enum proof_kind */
	uint32_t pad;
};
/* Supervisor -> worker: a proof is due (late): ask again. */
struct msg_proof_wanted {
	uint64_t generation;
	int64_t deadline_ms;
};

/* Start the postmaster. Tail: argc in decimal, the argv strings, then the environment strings
 * ("K=V"), each zero-terminated. Refused past deadline_ms, when a postmaster exists, or (PRIMARY)
 * when lease_until_ms is not the lease in force or is spent. Answer: MSG_ANSWER, then MSG_PG_EVENT.
 */
struct msg_pg_start {
	int64_t deadline_ms;
	int64_t lease_until_ms; /* the lease this rests on; standby: 0 */
	uint32_t kind;		/* enum pg_start_kind */
	uint32_t umask;
	char cwd[1024]; /* "" = data directory */
};
/* mode as pg_ctl; after timeout_ms (0 = never) the next harder mode, at last the fence. */
struct msg_pg_stop {
	uint64_t generation;
	int64_t deadline_ms; /* of this order, not of the stop */
	int64_t timeout_ms;
	uint32_t mode; /* enum pg_stop_mode */
	uint32_t pad;
};
/* SIGHUP, or SIGUSR1 after the promote file was made. */
struct msg_pg_signal {
	uint64_t generation;
	int64_t deadline_ms;
	int64_t lease_until_ms; /* for SIGUSR1 after PG_PROMOTE; else 0 */
	int32_t signo;
	uint32_t pad;
};
/* Before the promote file is made: the standby exemption of this generation ends, the lease is in
 * force. Answer OK: the file may be made, until deadline_ms at the latest. */
struct msg_pg_promote {
	uint64_t generation;
	int64_t deadline_ms;
	int64_t lease_until_ms;
};
/* Supervisor -> files: read postmaster.pid. The directory that we hold locked, 0 0 = none: it may
 * not have existed when we started, or have been made anew since. */
struct msg_pmpid_read {
	uint64_t locked_dev;
	uint64_t locked_ino;
};
/* Files -> supervisor, in answer to MSG_PMPID_READ: what postmaster.pid says. pid 0 and file_id 0 =
 * no such file; pid 0 with a file_id = a file without a usable pid (empty, cut off). A file that
 * cannot be read: MSG_ANSWER, FAILED. One descriptor when it is another directory than the
 * supervisor holds: the data directory, locked; REFUSED when another supervisor has it. */
struct msg_pmpid {
	int64_t start_time_s; /* line 3 */
	int32_t pid;	      /* as in the file; negative = single-user */
	uint32_t port;
	uint64_t file_id;    /* inode and mtime hash: removal names the file that was read */
	uint64_t locked_dev; /* of the descriptor */
	uint64_t locked_ino;
	char data_dir[1024];
};
/* Answer: MSG_ANSWER; REFUSED when it is another file by now (read it again). */
struct msg_pmpid_remove {
	uint64_t file_id;
	int32_t pid;
	uint32_t pad;
};
/* The state of the postmaster, whenever it changes and at a worker's start. */
struct msg_pg_event {
	uint64_t generation; /* 0 = there was none yet */
	int64_t at_ms;
	int64_t started_at_ms;
	int32_t pid;	/* 0 = none */
	uint32_t state; /* enum pg_proc_state */
	uint32_t kind;	/* enum pg_start_kind it was started with; adopted: 0 */
	uint32_t is_child;
	uint32_t promote_sent;
	uint32_t exit_class; /* of the last one that ended */
	int32_t exit_code;
	uint32_t stop_mode; /* last stop mode sent, 0 = none */
	uint32_t unproven;  /* a postmaster.pid names a live process that could not be proven ours:
			       `text` */
	uint32_t pad;
	char text[120];
};

/* A job: a bounded child program. Tail as in msg_pg_start. Ended by SIGTERM, then (grace_ms later)
 * SIGSTOP and SIGKILL of the whole tree. */
struct msg_job_start {
	int64_t deadline_ms; /* 0 = none */
	uint32_t grace_ms;   /* between TERM and KILL on cancel or deadline */
	uint32_t flags;	     /* enum job_flags */
	char name[32];	     /* for logs: "pg_basebackup", "on_role_change" */
	char cwd[1024];
};
enum job_flags {
	JOB_LOG_OUTPUT = 1u << 0,   /* lines of its output go to the log as well */
	JOB_STDERR_ONLY = 1u << 1,  /* only stderr is kept */
	JOB_KEEP_STDOUT = 1u << 2,  /* stdout and stderr in rings of their own */
	JOB_DIES_WITH_US = 1u << 3, /* killed when the supervisor ends: the next one begins it anew,
				       and never beside it */
	JOB_DATA_DIR = 1u << 4, /* fills or changes the data directory: nobody else may meanwhile.
				   Dies with us as well */
};
struct msg_job_id {
	uint64_t job; /* = header id of MSG_JOB_START */
};
struct msg_job_event {
	uint64_t job;
	int64_t at_ms;
	int32_t pid;
	uint32_t running; /* 1 started, 0 ended */
	uint32_t exit_class;
	int32_t exit_code;
	uint32_t cancelled;
	uint32_t timed_out;
	uint32_t flags; /* enum job_flags it was started with */
	uint32_t pad;
	char name[32];
};
/* Answer to MSG_JOB_OUTPUT_GET; tail = the last bytes of its output (at most LIMIT_JOB_OUTPUT). */
struct msg_job_output {
	uint64_t job;
	uint32_t
		total_bytes; /* ever printed; more than the tail means that the beginning is lost */
	uint32_t stream;     /* 1 stdout (or both), 2 stderr */
};

struct msg_watchdog_config {
	uint32_t mode;	 /* 0 off, 1 automatic, 2 required */
	uint32_t driver; /* 0 none, 1 Linux device, 2 testing (a FIFO) */
	int64_t timeout_ms;
	char device[256];
};
struct msg_watchdog_state {
	uint32_t usable; /* device present, writable, timing possible */
	uint32_t armed;
	int64_t timeout_ms; /* read back */
	char text[120];
};
/* A signal or request from outside, for the worker to carry out. */
struct msg_order {
	uint32_t kind; /* enum order_kind */
	uint32_t pad;
	int64_t deadline_ms;
};
enum order_kind {
	ORDER_RELOAD = 1,   /* SIGHUP */
	ORDER_SHUTDOWN = 2, /* SIGTERM, SIGINT, SIGQUIT: stop PostgreSQL (not in pause), release,
			       MSG_SHUTDOWN_DONE */
};
struct msg_shutdown_done {
	uint32_t leave_postgres; /* pause: PostgreSQL goes on without us */
	uint32_t exit_code;
};
struct msg_notify {
	char text[128]; /* a line for sd_notify; READY=1, RELOADING=1, STATUS=... */
};
struct msg_upgrade {
	char path[1024]; /* "" = the same file */
};

/* Supervisor <-> dead-man; the protocol stands at the top of supervisor/deadman.c. */
struct msg_dm_state {
	uint64_t seq; /* guard.state_seq: what an MSG_DM_ACK acknowledges */
	uint64_t lease_seq;
	int64_t now_ms; /* of the sender */
	int64_t sent_at_ms;
	int64_t lease_until_ms;
	int64_t ttl_ms;
	int64_t wall_offset_ms;
	uint64_t generation;
	int64_t started_at_ms;
	int64_t stopped_at_ms; /* told to stop; 0 = not */
	int64_t proof_at_ms;
	int64_t proof_until_ms; /* standby exemption, 0 = none */
	int64_t grace_until_ms; /* 0 = none */
	uint32_t policy;	/* enum lease_policy */
	uint32_t pause_enforce;
	uint32_t voided;
	uint32_t pm_state; /* enum pg_proc_state */
	uint32_t kind;	   /* enum pg_start_kind */
	uint32_t promote_sent;
	uint32_t shutdown_proven;
	uint32_t killed;
	int32_t postmaster_pid; /* 0 = none */
	uint32_t is_child;	/* of the supervisor that wrote this */
};
/* With the descriptors that fd_mask names, in the order of enum dm_fd. Replaces all earlier ones.
 */
struct msg_dm_postmaster {
	uint64_t generation; /* 0 = no postmaster: what was held is let go */
	int32_t pid;
	uint32_t fd_mask; /* bits 1 << enum dm_fd */
};
enum dm_fd {
	DM_FD_PIDFD = 0,  /* of the postmaster */
	DM_FD_LIFE = 1,	  /* the life file, an open file description that holds no lock */
	DM_FD_LINE_R = 2, /* lifeline, read end: the same open file description that the postmaster
			     inherited */
	DM_FD_LINE_W = 3, /* lifeline, write end: open in supervisor and dead-man alone */
	DM_FD_COUNT = 4,
};
struct msg_dm_ack {
	uint64_t seq;	     /* of the last MSG_DM_STATE, 0 = none yet */
	uint64_t generation; /* of the postmaster whose pidfd is held, 0 = none */
	int64_t now_ms;
	uint32_t fencing; /* this dead-man fences, or has fenced, that generation */
	uint32_t pad;
};

/* Worker <-> files: requests below the data directory; see worker/files/files_msgs.h for the
 * operations. Tail of a request: zero-terminated strings (paths, content); of an answer: what the
 * operation returns. */
struct msg_files_req {
	uint32_t op; /* enum files_op */
	uint32_t mode;
	int64_t offset;
	int64_t max_bytes;
	uint64_t arg;
};
struct msg_files_answer {
	uint32_t op;
	uint32_t code; /* enum answer_code */
	int32_t sys_errno;
	uint32_t more; /* the answer continues in the next message with the same id */
	int64_t value;
};

/* API <-> worker. Tail: JSON body (request) or body (answer). */
struct msg_api_req {
	uint32_t kind; /* enum api_kind */
	uint32_t flags;
	int64_t deadline_ms;
};
enum api_kind {
	API_PG_FACTS = 1, /* run the status query now; tails of all kinds: api_contract.h */
	API_CONFIG_PATCH,
	API_CONFIG_PUT,
	API_SWITCHOVER,
	API_FAILOVER,
	API_SWITCHOVER_DELETE,
	API_RESTART,
	API_RESTART_DELETE,
	API_RELOAD,
	API_REINITIALIZE,
	API_FAILSAFE, /* POST /failsafe */
	API_CITUS,
	API_SIGTERM,
	API_UPGRADE,	  /* local socket only */
	API_STATUS_LOCAL, /* local socket only: what `pgregentctl` shows of this agent */
};
/* A body that no frame holds comes in a descriptor instead of a tail (bigtail.h). */
struct msg_api_answer {
	uint32_t status;  /* HTTP */
	uint32_t content; /* enum api_content */
	int64_t lsn;	  /* header `lsn` of POST /failsafe, -1 = none */
};
enum api_content { API_TEXT = 0, API_JSON = 1, API_PAGE = 2 };
/* Worker -> api: the restapi section (JSON tail): listen, connect_address, TLS file names,
 * authentication, allowlist, headers, server_tokens. Sent at start and on each change. */
struct msg_api_settings {
	uint64_t serial;
};
/* Api -> worker: listening (or why not). */
struct msg_api_state {
	uint64_t serial;
	uint32_t listening;
	uint32_t pad;
	char text[240];
};

/* ---- the list: X(name, senders, receivers, payload struct, tail allowed)
 * ---------------------------- */

#define MSG_NO_PAYLOAD struct msg_empty
struct msg_empty {
	uint64_t zero;
};

#define MSG_LIST(X)                                                                                \
	X(HELLO, RM_HELPERS | RM(ROLE_DEADMAN), RM(ROLE_SUPERVISOR), struct msg_hello, 0)          \
	X(WELCOME, RM(ROLE_SUPERVISOR), RM_HELPERS, struct msg_welcome, 0)                         \
	X(READY, RM_HELPERS | RM(ROLE_DEADMAN), RM(ROLE_SUPERVISOR), struct msg_ping, 0)           \
	X(PING, RM_HELPERS | RM(ROLE_DEADMAN) | RM(ROLE_SUPERVISOR),                               \
		RM_HELPERS | RM(ROLE_DEADMAN) | RM(ROLE_SUPERVISOR), struct msg_ping, 0)           \
	X(ANSWER, RM(ROLE_SUPERVISOR) | RM_HELPERS, RM(ROLE_SUPERVISOR) | RM_HELPERS,              \
		struct msg_answer, 0)                                                              \
	X(PEER, RM(ROLE_SUPERVISOR), RM_HELPERS | RM(ROLE_DEADMAN), struct msg_peer, 0)            \
	X(PAGE, RM(ROLE_SUPERVISOR) | RM(ROLE_WORKER) | RM(ROLE_API),                              \
		RM(ROLE_SUPERVISOR) | RM_HELPERS, struct msg_page, 0)                              \
	X(LEASE, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_lease, 0)                        \
	X(LEASE_ACK, RM(ROLE_SUPERVISOR), RM(ROLE_WORKER), struct msg_lease_ack, 0)                \
	X(PROOF, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_proof, 0)                        \
	X(PROOF_WANTED, RM(ROLE_SUPERVISOR), RM(ROLE_WORKER), struct msg_proof_wanted, 0)          \
	X(PG_START, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_pg_start, 1)                  \
	X(PG_STOP, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_pg_stop, 0)                    \
	X(PG_SIGNAL, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_pg_signal, 0)                \
	X(PG_PROMOTE, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_pg_promote, 0)              \
	X(PG_EVENT, RM(ROLE_SUPERVISOR), RM(ROLE_WORKER), struct msg_pg_event, 0)                  \
	X(PMPID_READ, RM(ROLE_SUPERVISOR), RM(ROLE_FILES), struct msg_pmpid_read, 0)               \
	X(PMPID, RM(ROLE_FILES), RM(ROLE_SUPERVISOR), struct msg_pmpid, 0)                         \
	X(PMPID_REMOVE, RM(ROLE_SUPERVISOR), RM(ROLE_FILES), struct msg_pmpid_remove, 0)           \
	X(JOB_START, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_job_start, 1)                \
	X(JOB_CANCEL, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_job_id, 0)                  \
	X(JOB_EVENT, RM(ROLE_SUPERVISOR), RM(ROLE_WORKER), struct msg_job_event, 0)                \
	X(JOB_OUTPUT_GET, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_job_id, 0)              \
	X(JOB_OUTPUT, RM(ROLE_SUPERVISOR), RM(ROLE_WORKER), struct msg_job_output, 1)              \
	X(JOB_FORGET, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_job_id, 0)                  \
	X(WATCHDOG_CONFIG, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_watchdog_config, 0)    \
	X(WATCHDOG_STATE, RM(ROLE_SUPERVISOR), RM(ROLE_WORKER), struct msg_watchdog_state, 0)      \
	X(ORDER, RM(ROLE_SUPERVISOR), RM_HELPERS, struct msg_order, 0)                             \
	X(SHUTDOWN_DONE, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_shutdown_done, 0)        \
	X(NOTIFY, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_notify, 0)                      \
	X(UPGRADE, RM(ROLE_WORKER), RM(ROLE_SUPERVISOR), struct msg_upgrade, 0)                    \
	X(DM_STATE, RM(ROLE_SUPERVISOR) | RM(ROLE_DEADMAN),                                        \
		RM(ROLE_SUPERVISOR) | RM(ROLE_DEADMAN), struct msg_dm_state, 0)                    \
	X(DM_POSTMASTER, RM(ROLE_SUPERVISOR) | RM(ROLE_DEADMAN),                                   \
		RM(ROLE_SUPERVISOR) | RM(ROLE_DEADMAN), struct msg_dm_postmaster, 0)               \
	X(DM_ACK, RM(ROLE_DEADMAN), RM(ROLE_SUPERVISOR), struct msg_dm_ack, 0)                     \
	X(DM_TAKEOVER, RM(ROLE_SUPERVISOR), RM(ROLE_DEADMAN), MSG_NO_PAYLOAD, 0)                   \
	X(DM_END, RM(ROLE_SUPERVISOR), RM(ROLE_DEADMAN), MSG_NO_PAYLOAD, 0)                        \
	X(FILES_REQ, RM(ROLE_WORKER), RM(ROLE_FILES), struct msg_files_req, 1)                     \
	X(FILES_ANSWER, RM(ROLE_FILES), RM(ROLE_WORKER), struct msg_files_answer, 1)               \
	X(API_REQ, RM(ROLE_API), RM(ROLE_WORKER), struct msg_api_req, 1)                           \
	X(API_ANSWER, RM(ROLE_WORKER), RM(ROLE_API), struct msg_api_answer, 1)                     \
	X(API_SETTINGS, RM(ROLE_WORKER), RM(ROLE_API), struct msg_api_settings, 1)                 \
	X(API_STATE, RM(ROLE_API), RM(ROLE_WORKER), struct msg_api_state, 0)                       \
	/* One descriptor: lines of the log go there from now on; none: to standard error again.   \
	 */                                                                                        \
	X(LOG, RM(ROLE_WORKER) | RM(ROLE_SUPERVISOR),                                              \
		RM(ROLE_SUPERVISOR) | RM(ROLE_FILES) | RM(ROLE_API) | RM(ROLE_DEADMAN),            \
		MSG_NO_PAYLOAD, 0)

enum msg_type {
	MSG_NONE = 0,
#define X(name, from, to, payload, tail) MSG_##name,
	MSG_LIST(X)
#undef X
		MSG_COUNT,
};

#define X(name, from, to, payload, tail)                                                           \
	_Static_assert(                                                                            \
		sizeof(payload) % 8 == 0, "payload of " #name " must have no trailing padding");
MSG_LIST(X)
#undef X
