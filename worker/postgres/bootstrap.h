/* A new cluster (ha 8.1 to 8.3) and a new replica (ha 8.4), pg_rewind (ha 6): sequences. */
#pragma once
#include "worker/postgres/archive.h"
#include "worker/postgres/control.h"

/* initdb, first configuration, then start as primary under the lease that `lease` obtains. */
struct seq_bootstrap {
	struct co co;
	struct pgctx *p;
	/* Ask for the leader key; wakes co with the result (co_wake). */
	void (*acquire)(struct co *co, uint32_t ticket, void *arg);
	int64_t (*lease_until)(void *arg);
	void *arg;
	bool resume;	/* initdb ended in an earlier life: go on with the leader key */
	bool set_aside; /* what an earlier life left in the data directory is renamed first */
	/* private */
	int64_t acquire_until_ms;
	struct seq_start start;
	char pwfile[LIMIT_PATH];
	unsigned file;
};
void seq_bootstrap_step(struct co *co);

/* A cluster that a command made becomes ours. */
struct seq_own {
	struct co co;
	struct pgctx *p;
	int64_t (*lease_until)(void *arg);
	void *arg;
	unsigned file;
	union {
		struct seq_reload reload;
		struct seq_stop stop;
		struct seq_start start;
	} u;
};

/* Roles, scripts, grants after the first start. */
struct seq_post_bootstrap {
	struct co co;
	struct pgctx *p;
	int64_t (*lease_until)(void *arg);
	void *arg;
	/* private */
	unsigned user;
	bool custom;
	struct seq_own own;
};
void seq_post_bootstrap_step(struct co *co);

/* Remember what is being done with the data directory (enum pg_mark): durable when it is answered.
 */
void mark_data_dir(struct co *co, enum pg_mark mark);

struct seq_clone {
	struct co co;
	struct pgctx *p;
	struct pg_target source; /* TARGET_NONE: methods that need no leader */
	struct pg_target follow; /* whom to stream from afterwards */
	bool from_leader;	 /* pg_basebackup only */
	bool stop_first;	 /* reinit */
	enum pg_role role;
	enum pg_mark mark; /* of the directory while it is filled */
	/* private */
	size_t method, method_count;
	int attempt;
	bool use_basebackup, keep_data;
	struct seq_stop stop;
	struct seq_start start;
	char connstring[LIMIT_CONNINFO];
};
void seq_clone_step(struct co *co);

/* ha 6.3: is a rewind needed? out_state: REWIND_NEED, NOT_NEED, or CHECK when it cannot be told (as
 * numbers of the model). */
struct seq_rewind_check {
	struct co co;
	struct pgctx *p;
	struct pg_target leader;
	const char *hostaddr; /* numeric */
	/* local facts */
	int64_t local_timeline;
	uint64_t local_lsn;
	bool in_recovery, was_shutdown;
	int out_state; /* -1 cannot tell, 0 not needed, 1 needed, 3 needed, but pg_rewind cannot */
	int64_t leader_timeline;
	bool other_branch;
	struct buf leader_history; /* the caller ends it */
	struct pgc repl;	   /* replication connection; the caller inits and ends it */
};
void seq_rewind_check_step(struct co *co);

/* pg_rewind itself, until it ends for another reason than a segment that restore_command brings. */
struct seq_rewind_run {
	struct co co;
	struct pgctx *p;
	struct pg_target leader;
	bool adopted;		      /* it runs already, begun by an earlier worker */
	bool touched;		      /* result: it may have changed the data directory */
	bool unneeded, same_timeline; /* what it says of a run that had nothing to do */
	/* private */
	struct seq_setting setting;
	bool good;
	char restore[LIMIT_CONNINFO], missing[25], fetched_name[25], failure[480];
	unsigned fetched;
};
void seq_rewind_run_step(struct co *co);

/* Single-user crash recovery (ha 6.6). The directory of a standby is marked before: it is good for
 * pg_rewind only. */
struct seq_crash {
	struct co co;
	struct pgctx *p;
	/* private */
	struct seq_archive archive;
	struct seq_control control;
	unsigned file;
};
void seq_crash_step(struct co *co);

struct seq_rewind {
	struct co co;
	struct pgctx *p;
	struct pg_target leader;
	const char *hostaddr;
	bool leader_checkpointed; /* its member key has no checkpoint_after_promote */
	bool ready;		  /* false result: try again later, nothing was tried */
	bool check_again; /* false result: the check (6.3) and pg_rewind do not agree (X76) */
	/* private */
	struct seq_stop stop;
	struct seq_archive archive;
	struct seq_control control;
	struct seq_crash crash;
	struct seq_rewind_run run;
	bool remove_failed, marked, recovered;
	char failure[480];
};
void seq_rewind_step(struct co *co);
