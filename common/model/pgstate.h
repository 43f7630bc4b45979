/* What is known of the local PostgreSQL, as plain values: from the supervisor (process), from the
 * fact query (ha 11.6), from pgregent-files (pg_control, signal files). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/ipc_msgs.h"
#include "common/core/limits.h"

/* Roles and states are the contract's words (ha 11.1); pg_role_word/pg_state_word give them. */
enum pg_role {
	PG_ROLE_UNINITIALIZED = 0,
	PG_ROLE_REPLICA,
	PG_ROLE_PRIMARY,
	PG_ROLE_STANDBY_LEADER,
	PG_ROLE_DEMOTED,
	PG_ROLE_PROMOTED,
};
enum pg_state {
	PG_STATE_INITDB = 0,
	PG_STATE_INITDB_FAILED,
	PG_STATE_CUSTOM_BOOTSTRAP,
	PG_STATE_CUSTOM_BOOTSTRAP_FAILED,
	PG_STATE_CREATING_REPLICA,
	PG_STATE_RUNNING,
	PG_STATE_STARTING,
	PG_STATE_BOOTSTRAP_STARTING,
	PG_STATE_START_FAILED,
	PG_STATE_RESTARTING,
	PG_STATE_RESTART_FAILED,
	PG_STATE_STOPPING,
	PG_STATE_STOPPED,
	PG_STATE_STOP_FAILED,
	PG_STATE_CRASHED,
	PG_STATE_COUNT,
};
const char *pg_role_word(enum pg_role role);
const char *pg_state_word(enum pg_state state);

/* DBState of pg_control.h. */
enum pg_db_state {
	PG_DB_STARTUP = 0,
	PG_DB_SHUTDOWNED,
	PG_DB_SHUTDOWNED_IN_RECOVERY,
	PG_DB_SHUTDOWNING,
	PG_DB_IN_CRASH_RECOVERY,
	PG_DB_IN_ARCHIVE_RECOVERY,
	PG_DB_IN_PRODUCTION,
};

/* Why pg_control says nothing. VERSION_UNKNOWN: ask pg_controldata (a job). */
enum pg_control_fault {
	PG_CONTROL_GOOD = 0,
	PG_CONTROL_ABSENT,
	PG_CONTROL_UNREADABLE,
	PG_CONTROL_SHORT,
	PG_CONTROL_VERSION_UNKNOWN,
	PG_CONTROL_CRC,
};
const char *pg_control_fault_word(enum pg_control_fault fault);

struct pg_control {
	bool valid;		     /* read and its CRC is right */
	enum pg_control_fault fault; /* GOOD when valid */
	int64_t read_at_ms;
	uint64_t system_id;
	enum pg_db_state state;
	uint64_t checkpoint_lsn, checkpoint_redo, min_recovery_lsn;
	uint32_t checkpoint_tli, min_recovery_tli;
	bool wal_log_hints;
	uint32_t checksum_version;
	int32_t max_connections, max_prepared_xacts, max_locks_per_xact, max_worker_processes,
		max_wal_senders;
	uint32_t wal_segment_size;
	uint32_t control_version; /* pg_control_version: 1300, 1700, 1800 */
};

/* What was being done with the data directory when nobody was left to say how it ended. A word in a
 * file beside it (see worker/files/mark.h), written before the work begins: a directory that was
 * being filled must never be taken for a server. */
enum pg_mark {
	PG_MARK_NONE = 0,
	PG_MARK_REPLACING, /* removed, or restored over what was there: pg_control proves nothing */
	PG_MARK_COPYING, /* filled from nothing: whole when pg_control is there, which comes last */
	PG_MARK_BOOTSTRAP, /* initdb, custom script: not ended */
	PG_MARK_ROLES,	   /* initdb ended: roles are missing until the cluster is published (L4) */
	PG_MARK_REWIND,	   /* pg_rewind: between two states */
	PG_MARK_COUNT,
};

struct pg_files {
	bool valid; /* files answered */
	int64_t read_at_ms;
	bool dir_exists, dir_readable, dir_empty; /* empty: ha 1.3 A12 */
	bool standby_signal, recovery_signal, backup_label;
	bool promote;	    /* the file that tells a standby to promote is there */
	bool recovery_conf; /* before 12 */
	enum pg_mark mark;
	bool dir_mode_ok; /* own user, 0700 or 0750: PostgreSQL refuses anything else */
	int32_t major;	  /* PG_VERSION: 15; 0 = absent */
	struct pg_control control;
};

struct pg_walsender {
	int32_t pid;
	char application_name[LIMIT_NAME];
	char sync_state[12];			   /* async potential sync quorum */
	uint64_t write_lsn, flush_lsn, replay_lsn; /* 0 = null */
};

struct pg_slot {
	char name[LIMIT_SLOT_NAME];
	bool logical, active, temporary, failover, synced, invalidated;
	char database[LIMIT_SLOT_NAME], plugin[LIMIT_SLOT_NAME], wal_status[16];
	uint64_t restart_lsn, confirmed_flush_lsn;
	uint64_t xmin, catalog_xmin; /* 0 = null */
};

/* One answer of the fact query. */
struct pg_sql {
	bool valid;		 /* the last query was answered */
	int64_t asked_at_ms;	 /* just before it was sent */
	int64_t failed_since_ms; /* 0 = answers; else first failure in a row */
	bool rejecting; /* "the database system is starting up" and the like: alive, not ready */
	int32_t server_version; /* 150020 */
	bool in_recovery;
	int64_t timeline;   /* primary: of the current WAL file; standby: received or replayed, 0
			       unknown */
	uint64_t flush_lsn; /* primary */
	uint64_t replay_lsn, receive_lsn, written_lsn, latest_end_lsn; /* standby; 0 = null */
	bool replay_paused;
	bool receiver_streaming;
	char receiver_conninfo[LIMIT_CONNINFO];
	char receiver_slot[LIMIT_SLOT_NAME];
	bool has_restore_command;
	char synchronous_standby_names[4096];
	char synchronous_commit[16];
	struct pg_walsender
		*walsenders; /* streaming ones; owned by the probe, borrowed by readers */
	unsigned walsender_count;
	struct pg_slot *slots; /* owned by the probe */
	unsigned slot_count;
	bool slots_valid;
	int64_t start_time_us;	/* pg_postmaster_start_time() */
	int64_t replay_time_us; /* pg_last_xact_replay_timestamp(); 0 = null */
	char *recovery_json;	/* standby, 12+: rows [name, setting, context, sourcefile,
				   pending_restart]; owned by the probe */
	char *replication_json; /* walsenders as REST shows them; owned by the probe, NULL = none */
};

/* WAL position as the race counts it (ha 0). */
static inline uint64_t pg_sql_position(const struct pg_sql *s)
{
	if (!s->in_recovery)
		return s->flush_lsn;
	uint64_t received = s->written_lsn > s->receive_lsn ? s->written_lsn : s->receive_lsn;
	return received > s->replay_lsn ? received : s->replay_lsn;
}
