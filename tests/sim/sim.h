/* One simulated cluster: its configuration, its nodes, the store, the network, the faults, the
 * checker's memory. */
#pragma once
#include <inttypes.h>
#include <stdio.h>

#include "common/core/invariant.h"
#include "tests/sim/sim_checks.h"
#include "tests/sim/sim_dcs.h"
#include "tests/sim/sim_faults.h"
#include "tests/sim/sim_net.h"
#include "tests/sim/sim_node.h"
#include "tests/sim/sim_pg.h"

enum sim_kind {
	/* store */
	EV_OP_ARRIVES = 1, /* ptr op; a: copy number */
	EV_OP_ANSWER,	   /* ptr op, at the worker */
	EV_OP_DEADLINE,	   /* a: request id, at the worker */
	EV_SESSION,	   /* a: session: may have run out */
	EV_WATCH_SEND,	   /* a: node */
	EV_WATCH,	   /* ptr snapshot, at the worker */
	/* local messages */
	EV_SUP_MSG,    /* ptr sim_message, worker -> supervisor */
	EV_WORKER_MSG, /* ptr sim_message, supervisor -> worker */
	EV_DM_MSG,     /* ptr sim_message, supervisor <-> dead-man */
	EV_GUARD_TICK, /* a: wake_at (local) */
	EV_PEER_PING,  /* supervisor or dead-man: say that you live */
	EV_KILLED,     /* b: generation; SIGKILL reached everything */
	EV_PROVEN,
	EV_PROC_START,	/* a: proc */
	EV_PROC_SILENT, /* a: proc; a stopped helper is noticed */
	/* worker */
	EV_TURN, /* a: not before this turn number */
	EV_KEEPER,
	EV_AWAIT,	 /* deadline of an awaited operation; a: serial */
	EV_PEER_REQUEST, /* ptr sim_message, at api of the peer */
	EV_PEER_ANSWER,	 /* ptr sim_message, at the worker */
	EV_TASK,	 /* a: task serial */
	EV_EXEC,	 /* go on with the plan */
	EV_PROOF,	 /* prove once more that this is a standby */
	/* PostgreSQL */
	EV_PG_PHASE,	/* a: generation; b: phase to enter */
	EV_PG_WAL,	/* at the standby; a: lsn; b: generation of the sender */
	EV_PG_FEEDBACK, /* at the primary; a: lsn; b: standby */
	EV_PG_TICK,	/* connect, notice broken links */
	EV_PG_EXIT,	/* a: generation; b: exit class; the supervisor sees it */
	/* outside */
	EV_REMOTE, /* a: 0 = its clients write, 1 = it is promoted */
	EV_CLIENT,
	EV_FAULT, /* a: index; b: 1 begins, 0 ends */
	EV_HEAL,
	EV_CHECK,
	EV_END,
};

struct sim_config {
	unsigned member_count;
	bool mixed_clocks, has_watchdog;
	bool logical_slots; /* every standby has to copy some */
	bool remote;	    /* another site is there: it leads us, or is led */
	bool backup;	    /* one is taken now and then */
	bool archiving;	    /* a cluster that is demoted keeps its leader */
	bool empty;	    /* begins without a cluster: somebody has to make one */
	bool short_copies;  /* what is rewound is consistent only with WAL of its leader */
	int64_t duration_ms, heal_ms;
	unsigned loss_per_mille, dup_per_mille, unanswered_per_mille;
	int64_t net_delay_ms;
};

#define SIM_SETTINGS 16 /* versions of the dynamic configuration in one history */

struct sim {
	uint64_t seed;
	int64_t now_ms;
	bool trace, record, ended;
	struct rng rng; /* of the run; the plan of faults has its own */
	struct sim_heap heap;
	struct arena arena;
	struct sim_config cfg;
	struct settings settings[SIM_SETTINGS]; /* by version; 0 unused */
	unsigned settings_count;
	struct sim_dcs dcs;
	struct sim_net net;
	struct sim_node nodes[SIM_ENDS]; /* members; SIM_REMOTE and SIM_BACKUP have no processes */
	struct sim_branch branches[SIM_BRANCHES];
	unsigned branch_count;
	uint64_t next_generation;
	int sysids; /* given to clusters so far */
	struct sim_faults faults;
	struct sim_checks checks;
	bool healed;
	uint64_t events, turns, commits, acks, promotions;
};

/* sim_run.c */
void sim_build(struct sim *s, uint64_t seed, const struct sim_fault_mask *drop);
void sim_drop_faults(struct sim *s, const struct sim_fault_mask *drop);
void sim_run(struct sim *s);
void sim_free(struct sim *s);
void sim_at(struct sim *s, int64_t at_ms, enum sim_kind kind, int node, int64_t a, int64_t b,
	void *ptr);
void sim_at_proc(struct sim *s, int64_t at_ms, enum sim_kind kind, int node, enum sim_proc proc,
	int64_t a, int64_t b, void *ptr);
const struct settings *sim_settings(const struct sim *s, int64_t version); /* NULL = none */
const struct settings *sim_config_now(const struct sim *s);

/* sim_boot.c: empty clusters, members that are removed */
void boot_empty(struct sim *s);
void boot_profile(struct sim *s, uint64_t seed);
void boot_wipe(struct sim *s, int node);
void boot_task(struct sim *s, int node);
void boot_fault(struct sim *s, const struct sim_fault *f, bool begin);
void boot_heal(struct sim *s);
void boot_rename_failed(struct sim *s, int node);
int boot_sysid(const struct sim *s); /* of the cluster as /initialize says; 0 = none */
void boot_check_end(struct sim *s);

/* sim_topology.c: members that differ */
void topo_profile(struct sim *s, uint64_t seed);
void topo_fault(struct sim *s, const struct sim_fault *f, bool begin);
void topo_heal(struct sim *s);
bool topo_absent(const struct sim *s, int node); /* joins later */
void topo_view(const struct sim *s, int node, struct ha_view *v);
void topo_peer(const struct sim *s, int node, struct ha_peer *p);
int topo_watchdog_arm(struct sim *s, int node);
void topo_watchdog_off(struct sim *s, int node);
void topo_copy_slots(struct sim *s, int node);
bool topo_twin(const struct sim *s, int node, int leader);
void topo_check_promoted(struct sim *s, int node, bool ordered);

/* sim_late.c: what comes late, or is asked for later; a store that lost everything */
void late_profile(struct sim *s, uint64_t seed);
void late_fault(struct sim *s, const struct sim_fault *f, bool begin);
void late_heal(struct sim *s);
bool late_unanswered(struct sim *s, int node);
int64_t late_wall_us(const struct sim *s, int node);
void late_check_published(struct sim *s, int node, int sysid);
void late_check_end(struct sim *s);

/* sim_remote.c: the remote primary of a standby cluster, backups */
void remote_profile(struct sim *s, uint64_t seed);
void remote_begin(struct sim *s);
void remote_event(struct sim *s, const struct sim_event *ev);
void remote_fault(struct sim *s, const struct sim_fault *f, bool begin);
void remote_heal(struct sim *s);
int remote_target(const char *name); /* of a member, or HA_TARGET_REMOTE */
void remote_check_ack(struct sim *s, int node);
void remote_check_promoted(struct sim *s, int node);
bool remote_stands_by(const struct sim *s);
void remote_check_alive(struct sim *s, int leader);

/* sim_patroni.c: members that run the reference's rules */
void patroni_profile(struct sim *s, uint64_t seed);
void patroni_start(struct sim *s, int node);
void patroni_event(struct sim *s, const struct sim_event *ev);
void patroni_answer(struct sim *s, int node, struct sim_request req, enum ha_outcome outcome,
	const struct sim_op *op);
void patroni_polled(struct sim *s, int node);

/* Timeline of a replay; costs nothing when it is off. */
#define sim_log(s, node, ...)                                                                      \
	do {                                                                                       \
		if ((s)->trace || (s)->record)                                                     \
			sim_print(s, node, __VA_ARGS__);                                           \
	} while (0)
__attribute__((format(printf, 3, 4))) void sim_print(
	const struct sim *s, int node, const char *fmt, ...);
/* sim_trace.c: what is recorded is told member by member. */
void trace_begin(struct sim *s);
void trace_end(struct sim *s);
void trace_free(void);
static inline const char *sim_name(int node)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g" };
	return node >= 0 && node < SIM_NODES ? names[node]
	       : node == SIM_REMOTE	     ? "remote"
	       : node == SIM_BACKUP	     ? "backup"
					     : "-";
}
static inline int sim_index(const char *name)
{
	return name[0] >= 'a' && name[0] < 'a' + SIM_NODES && name[1] == '\0' ? name[0] - 'a' : -1;
}
