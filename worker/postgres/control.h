/* Sequences that change the local server: write its configuration, start, stop, restart, reload,
 * follow, promote (ha 4.3, 11.2, 11.3, 11.7). Each is a struct that begins with struct co; see
 * co.h. */
#pragma once
#include "worker/postgres/controljob.h"
#include "worker/postgres/pgctx.h"
#include "worker/postgres/render.h"
#include "worker/postgres/sockets.h"

/* Write postgresql.conf, HBA, ident, passfile and signal files for a role and a target. Result true
 * = written; `changed` tells whether postgresql.conf, HBA or ident are different now. */
struct seq_render {
	struct co co;
	struct pgctx *p;
	enum pg_role role;
	struct pg_target target;
	bool for_start; /* role not primary: pg_control's floor applies (config 4.9) */
	const struct pg_control *control;
	bool changed, is_users;
	struct render_texts texts;
	const char *signal_file;
};
void seq_render_step(struct co *co);

struct seq_start {
	struct co co;
	struct pgctx *p;
	enum pg_role role;
	struct pg_target target;
	int64_t timeout_ms;	/* 0 = pg_ctl_timeout, and then "still starting" is no failure */
	int64_t lease_until_ms; /* role primary: the lease it rests on */
	bool bootstrap;		/* state "starting after custom bootstrap" */
	bool still_starting;	/* result: not failed, but not accepting either */
	/* private */
	struct seq_render render;
	struct pg_files files;
	struct seq_control control;
	struct seq_sockets sockets;
	int64_t until_ms;
	uint64_t generation;
	unsigned tries;
};
void seq_start_step(struct co *co);

struct seq_stop {
	struct co co;
	struct pgctx *p;
	enum pg_stop_mode mode;
	bool checkpoint;
	int64_t timeout_ms; /* 0 = none */
	bool no_callback;   /* within a restart */
	/* Called once when pg_control says "shut down" (not: in recovery) while the postmaster
	 * still runs. */
	void (*on_shutdown)(struct seq_stop *s, uint64_t checkpoint_lsn, void *arg);
	void *arg;
	bool shutdown_seen;
	uint64_t shutdown_lsn;
	/* private */
	bool had_postmaster, ordered;
	struct seq_control control;
	int64_t look_ms;
};
void seq_stop_step(struct co *co);

/* Write recovery settings for a target; reload or start or restart (ha 11.7 follow()). */
struct seq_follow {
	struct co co;
	struct pgctx *p;
	enum pg_role role;
	struct pg_target target;
	int64_t timeout_ms;
	bool reload_only;
	/* private */
	bool change_role;
	union {
		struct seq_start start;
		struct seq_stop stop;
		struct seq_render render;
	} u;
};
void seq_follow_step(struct co *co);

struct seq_promote {
	struct co co;
	struct pgctx *p;
	/* The lease at the moment of asking; 0 = lost. */
	int64_t (*lease_until)(void *arg);
	void *arg;
	int64_t wait_ms;	/* for "in production": loop_wait */
	uint64_t lsn_limit;	/* X44: not from past there; 0 = none */
	bool refused_by_script; /* pre_promote said no */
	/* private */
	int64_t until_ms, asked_ms;
};
void seq_promote_step(struct co *co);

/* Rewrite configuration and reload; marks pending restarts (config 4.6). */
struct seq_reload {
	struct co co;
	struct pgctx *p;
	bool force; /* SIGHUP: reload even if nothing changed */
	bool no_callback;
	struct seq_render render;
};
void seq_reload_step(struct co *co);

/* PostgreSQL accepts connections after a start: state, pending callback, copies of its
 * configuration (ha 11.2). By the start itself, or by whoever sees it when that did not wait so
 * long (X77). */
void control_accepted(struct pgctx *p);
/* One callback script (ha 10): a new one ends the running one. */
void control_callback(struct pgctx *p, const char *event, enum pg_role role);
/* Calls fn once when no script runs any more. False: none does. */
bool control_callbacks_await(void (*fn)(void *arg), void *arg);
/* Shell-split a command line into argv (config 1: cmd); false: unbalanced quotes or too long. */
MUST_USE bool control_split(struct host_cmd *cmd, const char *text);
