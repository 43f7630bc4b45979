/* The simulated PostgreSQL: a data directory with its lineage, a postmaster, replication, commits
 * that wait. */
#pragma once
#include "common/model/pgstate.h"
#include "tests/sim/sim_dcs.h"

#define SIM_BRANCHES 128
#define SIM_WAITING  64

/* A stretch of WAL with one writer. The number of a timeline may repeat, a branch never does. */
struct sim_branch {
	int16_t parent; /* -1 */
	int8_t node;	/* who promoted */
	int64_t tli;
	uint64_t start_lsn;
	uint64_t acked_lsn, acked_sync_lsn; /* highest that a client was told, in total and with a
					       standby's word */
	int64_t born_ms;
};

struct sim_commit {
	uint64_t lsn;
	int64_t at_ms;
};

enum pg_phase {
	PGP_NONE = 0,
	PGP_RECOVERY, /* starting: rejects connections */
	PGP_STANDBY,
	PGP_PROMOTING,
	PGP_PRIMARY,
	PGP_STOPPING, /* backends are gone, the checkpoint is being written */
	PGP_SHUT,     /* pg_control says shut down; archives or sends, then exits */
};

struct sim_ssn {
	bool set, quorum, placeholder;
	int n;
	uint32_t names;
};

struct sim_pg {
	/* data directory */
	bool dir_exists, dir_empty, standby_signal, can_rewind, damaged;
	enum pg_mark mark;
	bool wounded; /* pg_rewind began and did not end */
	bool backup_label;
	int sysid;	  /* 0 = none */
	bool pitr;	  /* restored by a custom bootstrap: it ends its recovery by itself */
	bool fresh;	  /* initdb's: the next start finds no standby.signal, whatever is asked */
	bool unpublished; /* initialize does not name it yet: no client comes here */
	int16_t branch;
	uint64_t lsn, replay_lsn, checkpoint_lsn;
	uint64_t needs_lsn; /* its pages rest on WAL up to here: before that nobody is let in */
	int64_t checkpoint_tli;
	enum pg_db_state control;
	int8_t upstream; /* as written; -1 none */
	struct sim_ssn ssn_file;
	/* process */
	enum pg_phase phase;
	uint64_t generation;
	uint32_t kind; /* enum pg_start_kind */
	int64_t started_ms, phase_ms;
	bool hung;   /* answers no statement; its clients go on */
	bool frozen; /* SIGSTOP: nobody is answered */
	bool promote_file;
	bool stuck; /* a fast shutdown does not end */
	enum pg_stop_mode stop_mode;
	int64_t first_ack_ms, last_ack_ms;
	int64_t deaf_since_ms; /* 0 = it answers */
	/* primary */
	struct sim_ssn ssn;
	struct {
		bool connected;
		uint64_t flush;
		bool known;
	} standby[SIM_NODES];
	struct sim_commit waiting[SIM_WAITING];
	unsigned waiting_count;
	/* standby */
	bool streaming;
	bool looks;	       /* in recovery still: it has replayed what it has, and streams */
	int16_t heard_branch;  /* whose history files it fetched last; 0 none */
	uint64_t arriving_lsn; /* sent to us, under way; 0 none */
	/* knobs of faults */
	int64_t recovery_ms, promote_ms, stop_ms, archive_ms, lag_ms;
	int64_t recovers_until_ms; /* the long recovery that is running, by the true clock */
};

void pg_init_cluster(struct sim *s);
/* Process control: by the supervisor, a fence, a crash. */
void pg_spawn(struct sim *s, int node, uint32_t kind);
void pg_stop(struct sim *s, int node, enum pg_stop_mode mode);
void pg_kill(struct sim *s, int node, enum exit_class class, const char *why);
void pg_thaw(struct sim *s, int node);
void pg_deaf(struct sim *s, int node); /* nothing can be set in it meanwhile */
void pg_promote_file(struct sim *s, int node);
/* A standby in recovery has replayed what it has, or has got more. */
void pg_consistent(struct sim *s, int node);
void pg_archive_done(struct sim *s, int node);
void pg_readopted(struct sim *s, int node);
void pg_event(struct sim *s, const struct sim_event *ev);
void pg_set_ssn(struct sim *s, int node, struct sim_ssn ssn);
void pg_follow(struct sim *s, int node, int upstream);
/* Clients. */
void pg_client_write(struct sim *s, int node);
bool pg_accepts_writes(const struct sim *s, int node);
/* Lineage. */
bool branch_contains(const struct sim *s, int16_t branch, uint64_t lsn, int16_t of, uint64_t upto);
bool pg_can_stream(const struct sim *s, int standby, int upstream);
/* Where two lineages part: the last position that both have. */
uint64_t branch_common(const struct sim *s, int16_t x, uint64_t x_lsn, int16_t y, uint64_t y_lsn,
	int16_t *out_branch);
uint64_t pg_position(const struct sim_pg *p);
static inline int64_t pg_tli(const struct sim_branch *all, const struct sim_pg *p)
{
	return all[p->branch].tli;
}

/* sim_wal.c */
void wal_event(struct sim *s, const struct sim_event *ev);
void wal_send_all(struct sim *s, int node);
bool wal_senders_behind(const struct sim *s, int node);
void wal_release_waiting(struct sim *s, int node);
