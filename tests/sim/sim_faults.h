/* What goes wrong in a history, and what operators do: a list made from the seed, or written by a
 * scenario. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define SIM_FAULTS 48

/* As a block: formatted it wanders to the right with each addition. */
/* clang-format off */
#define FAULT_LIST(X) \
	X(KILL_WORKER) X(KILL_SUPERVISOR) X(KILL_DEADMAN) X(KILL_API) X(STOP_WORKER) \
	X(STOP_SUPERVISOR) X(STOP_DEADMAN) X(STOP_API) X(NODE_OFF) X(VM_PAUSE) X(PG_CRASH) \
	X(PG_HANG) X(PG_FREEZE) X(PG_STUCK_STOP) X(PG_SLOW_RECOVERY) X(PG_SLOW_PROMOTE) \
	X(PG_SLOW_ARCHIVE) X(PG_LAG) X(STORE_DOWN) X(STORE_CUT) X(STORE_NO_ANSWERS) \
	X(STORE_SLOW) X(STORE_LOSSY) X(STORE_LEADER) X(NET_ISOLATE) X(NET_SPLIT) X(NET_ONE_WAY) \
	X(NET_LOSSY) X(WATCH_STALL) X(WALL_STEP) X(PRE_PROMOTE_FAILS) X(PRE_PROMOTE_SLOW) \
	X(REWIND_FAILS) X(CLONE_SLOW) X(DIR_LOST) X(REPLAY_PAUSED) X(OP_PAUSE) X(OP_SWITCHOVER) \
	X(OP_SWITCHOVER_ANY) X(OP_FAILOVER) X(OP_RESTART) X(OP_REINIT) X(OP_TTL) \
	X(OP_SYNC_MODE) X(OP_NODE_COUNT) X(OP_STRICT) X(OP_FAILSAFE) X(OP_NOFAILOVER) \
	X(OP_SHUTDOWN) X(INITDB_SLOW) X(INITDB_FAILS) X(POST_BOOTSTRAP_SLOW) \
	X(POST_BOOTSTRAP_FAILS) X(CLONE_FAILS) X(OP_REMOVE_MEMBER) X(WATCHDOG_BROKEN) \
	X(DIR_FOREIGN) X(DIR_DAMAGED) X(OP_ADD_MEMBER) X(STORE_REVOKES) X(WATCH_SLOW) \
	X(FILES_SLOW) X(PROBE_SLOW) X(OP_SCHEDULE_RESTART) X(OP_SCHEDULE_SWITCHOVER) \
	X(STORE_LOST) X(STORE_HOLDS) X(RULES_STOP) X(OP_DEMOTE_CLUSTER) X(OP_PROMOTE_CLUSTER) \
	X(REMOTE_DOWN) X(REMOTE_FAILOVER) X(REMOTE_CUT) X(PG_NO_START)
/* clang-format on */

enum sim_fault_kind {
#define X(name) FAULT_##name,
	FAULT_LIST(X)
#undef X
		FAULT_KINDS,
	/* What comes later is planned by streams of its own: seeds keep their meaning. */
	FAULT_PLANNED = FAULT_OP_SHUTDOWN + 1,
};

struct sim_fault {
	enum sim_fault_kind kind;
	int64_t at_ms, for_ms; /* for_ms 0: an instant */
	int8_t node;	       /* -1: whoever leads then */
	int8_t hit;	       /* who it was; -1 = it did not begin */
	uint32_t arg;
};

struct sim_faults {
	struct sim_fault list[SIM_FAULTS];
	unsigned count;
};
/* Faults left out of a history while a failing one is shrunk. */
struct sim_fault_mask {
	uint64_t bits;
};

struct sim;
struct rng;
const char *fault_name(enum sim_fault_kind kind);
struct settings;
/* A new version of the dynamic configuration. */
void faults_change_config(
	struct sim *s, void (*edit)(struct settings *set, uint32_t arg), uint32_t arg);
void faults_plan(struct sim *s, struct rng *r);
void fault_event(struct sim *s, unsigned index, bool begin);
/* Ends every fault that is still on, also those that last for ever. */
void faults_heal(struct sim *s);
