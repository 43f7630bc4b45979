/* The simulated store: linearizable keys, sessions that expire on its own clock, watches that lag.
 */
#pragma once
#include "common/dcs/dcs.h"
#include "tests/sim/sim_clock.h"

#define SIM_NODES    7
#define SIM_HISTORY  64
#define SIM_SESSIONS 256

struct sim;

/* One immutable snapshot, shared by everybody who saw that revision. */
struct sim_snapshot {
	struct cluster c;
	struct member members[SIM_NODES];
	struct failsafe_member failsafe[SIM_NODES];
	char voters[SIM_NODES][LIMIT_NAME];
	struct history_row history[SIM_HISTORY];
	unsigned refs;
};

struct sim_session {
	int8_t node;
	bool alive, used; /* used: granted once; a spent one never lives again */
	int64_t ttl_ms, expires_ms;
};

/* A request as it travels. */
struct sim_op {
	enum dcs_op_kind kind;
	int8_t node;
	uint32_t incarnation; /* of the worker that sent it */
	uint32_t id;
	uint32_t session;
	uint32_t old_session; /* of the ttl before; a renewal moves the key from it */
	int64_t sent_ms;      /* by the store's clock: the truth */
	int64_t sent_local_ms;
	int64_t ttl_ms, version;
	bool create, leader_only;
	int sysid;	 /* initialize */
	uint64_t config; /* version of the settings that are written */
	bool suppressed; /* an equal value: only the session lives on */
	uint64_t lsn;	 /* status */
	int quorum;
	uint32_t names;				    /* voters or failsafe members: bit per node */
	int8_t failover_leader, failover_candidate; /* -1 none */
	int64_t failover_at_us;			    /* 0: at once */
	bool failover_bad;			    /* a time that nobody can read */
	struct member member;
	struct history_row *history;
	unsigned history_count;
	/* answer */
	enum dcs_outcome outcome;
	int64_t new_version, revision, lease_ttl_ms;
	bool lease_gone, answered, again;
	struct sim_snapshot *snapshot;
};

struct sim_dcs {
	struct sim_snapshot now;     /* the truth; refs unused */
	struct sim_snapshot *latest; /* copy of it, made when first asked for */
	struct sim_session sessions[SIM_SESSIONS];
	uint32_t session_count;
	uint32_t leader_session;
	uint32_t member_session[SIM_NODES];
	bool member_present[SIM_NODES];
	bool down;
	bool watch_pending[SIM_NODES];
	int64_t watch_stalled_ms[SIM_NODES]; /* nothing is sent before that */
	int64_t watch_slow_ms[SIM_NODES];    /* so much later than it was sent */
	int64_t leader_since_ms, revoked_ms;
	unsigned leader_changes;
	int64_t sync_off_ms; /* when /sync was deleted last */
};

void dcs_init(struct sim *s);
/* The client chooses its lease id; the first request that carries it grants it. 0 = table full. */
uint32_t dcs_session_new(struct sim *s, int node);
/* A request arrives: changes keys, fills the answer part of `op`. */
void dcs_apply(struct sim *s, struct sim_op *op);
void dcs_session_expire(struct sim *s, uint32_t session);
/* etcd issue 15247: a store's leader that was frozen goes on and revokes what it takes for spent.
 */
void dcs_revoke_all(struct sim *s);
/* A new store leader gives every session its whole ttl again. */
void dcs_leader_change(struct sim *s);
struct sim_snapshot *dcs_snapshot(struct sim *s); /* a reference */
void snapshot_drop(struct sim *s, struct sim_snapshot *snap);
/* The truth that the checks rest on: the key is held by a live session of that node. */
bool dcs_lease_of(const struct sim *s, int node);
int dcs_leader_node(const struct sim *s); /* -1 = free */
/* ctl: plain writes of an operator. */
void dcs_put_config(struct sim *s, int64_t version);
/* ctl: one member key, or /initialize, is deleted. */
void dcs_remove_member(struct sim *s, int node);
void dcs_clear_init(struct sim *s);
/* ... with a time; 0 and bad: one that nobody can read */
void dcs_put_schedule(struct sim *s, int leader, int candidate, int64_t at_us, bool bad);
void dcs_put_init(struct sim *s, int sysid);
/* Every key is gone; with the leases, or without. */
void dcs_lose_all(struct sim *s, bool sessions);
void dcs_put_failover(struct sim *s, int leader, int candidate);
