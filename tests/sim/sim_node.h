/* A node: its processes (supervisor, dead-man, worker, api), their messages, the worker's state. */
#pragma once
#include "common/model/ha_plan.h"
#include "supervisor/guard.h"
#include "tests/sim/sim_pg.h"
#include "worker/ha/keeper_rules.h"

enum sim_proc { PROC_NONE = 0, PROC_SUP, PROC_DM, PROC_WORKER, PROC_API, PROC_COUNT };

struct sim_process {
	bool alive, frozen;
	uint32_t incarnation;
	int64_t backoff_ms;
	struct sim_event *kept; /* what waits for a stopped process, in order */
	unsigned kept_count, kept_capacity;
};

/* Between processes of a node, and between members (polls). */
enum sim_message_kind {
	SM_LEASE = 1,
	SM_PROOF,
	SM_START,
	SM_STOP,
	SM_PROMOTE,
	SM_FENCE,
	SM_PONG, /* to the supervisor */
	SM_ACK,
	SM_ANSWER,
	SM_ASK_PROOF,
	SM_SILENT, /* to the worker */
	SM_STATE,
	SM_DM_ACK,
	SM_PING, /* enforcers */
	SM_POLL,
	SM_FAILSAFE, /* members */
};
struct sim_message {
	enum sim_message_kind kind;
	uint32_t id;
	int8_t from;
	uint32_t from_incarnation;
	bool ok;
	uint64_t generation, seq;
	int64_t deadline_ms, until_ms;
	uint32_t mode;
	const char *text;
	union {
		struct msg_lease lease;
		struct msg_proof proof;
		struct msg_dm_state state;
		struct ha_peer peer;
	};
};

/* Supervisor or dead-man: guard_step and what it asked for. */
struct sim_enforcer {
	struct guard guard;
	bool fencing;
	int64_t wake_at_ms; /* local; of the tick that is on its way */
	struct {
		struct sim_message *msg;
		uint64_t seq;
	} held[8]; /* answers that wait for the dead-man */
	unsigned held_count;
	int64_t stop_deadline_ms; /* of the postmaster's stop, local; 0 none */
};

enum req_use { REQ_NONE = 0, REQ_KEEPER, REQ_AWAIT, REQ_READ, REQ_FIRE };
struct sim_request {
	uint32_t id;
	enum req_use use;
	enum keeper_op op;
	uint32_t epoch;
	enum dcs_op_kind kind;
	int64_t sent_local_ms;
};
#define SIM_REQUESTS 24

struct sim_task {
	enum ha_task kind;
	uint32_t serial;
	int step;
	int64_t since_ms, until_ms;
	enum ha_demote_mode demote;
	enum pg_role role;
	int8_t target;
	int64_t timeout_ms;
	int64_t release_until_ms;
	bool release_asked, promote_committed, released, answered, refused, flag, confirmed, was_up;
	int quorum;
	uint32_t names;
	uint32_t request_id;
	uint64_t generation, lsn_limit;
	enum pg_stop_mode stop_mode; /* asked for; 0 none */
	int64_t stop_asked_ms, stop_timeout_ms;
};

/* A member that runs the reference's rules (sim_patroni.c). */
struct sim_patroni {
	int state;
	uint32_t serial;
	int64_t began_ms; /* of this loop */
	bool stepping_down;
};

struct sim_worker {
	struct sim_patroni pat;
	struct ha_memory memory;
	struct ha_plan plan;
	struct keeper keeper;
	struct sim_snapshot *snap; /* last seen; NULL before the first */
	int64_t known_revision, read_at_ms, store_failing_ms;
	uint32_t session, old_session, next_id;
	int64_t store_ttl_ms; /* told to the store: lease of that length */
	bool session_asked;
	struct sim_request requests[SIM_REQUESTS];
	/* the turn */
	bool stepping; /* a plan is being carried out, or its answer is awaited */
	bool turn_wanted, cycle_read;
	unsigned pc;
	uint32_t blocked_on; /* message id that the plan waits for; 0 none */
	uint32_t await_serial;
	struct ha_result result;
	int64_t next_turn_ms; /* local */
	uint64_t turn_serial;
	int64_t turn_at_ms; /* true time; 0 = none is scheduled */
	int64_t keeper_tick_ms;
	/* in-memory facts of execute */
	enum pg_role role;
	enum pg_state state;
	int64_t state_since_ms;
	int8_t following;
	bool follow_known, callbacks_called, checkpoint_done, checkpoint_running;
	enum ha_rewind_state rewind_result;
	struct sim_task task;
	enum ha_task task_ended;
	enum ha_task_result task_result;
	struct ha_request request;
	struct ha_peer peers[SIM_NODES];
	unsigned peer_count, peers_open;
	int64_t peers_asked_ms, peers_asked_true_ms;
	uint32_t poll_serial;
	bool failsafe_all_ok;
	int8_t failsafe_leader;
	int64_t failsafe_last_ms, failsafe_ttl_ms;
	int64_t proof_sent_ms;
	uint64_t settings_version, member_hash;
	int64_t member_ms, member_new_ms; /* written last; with something new */
	bool rewind_twin, recovery_differs, shown_nofailover;
	uint64_t probing_generation, probed_generation; /* asked; answered, well or badly */
	int64_t probed_at_ms;
	uint64_t lease_seq;
};

/* What a worker leaves for the next one on its page (X74). */
struct sim_heir {
	bool there;
	int64_t version, emptied;
	uint64_t settings_version; /* patroni.dynamic.json has it by then */
	struct failsafe_member map[SIM_NODES], sent[SIM_NODES];
	unsigned map_count, sent_count;
	struct cluster c; /* as the next one sees it, before it has seen the store */
};

struct sim_node {
	int index;
	struct sim_heir heir;
	bool on, vm_paused, removed;
	bool patroni; /* runs the reference's rules */
	bool watchdog_armed, watchdog_broken, slots_copied;
	enum ha_task orphan; /* a job whose worker died; sim_marks.c */
	int orphan_from;
	int64_t orphan_until_ms;
	int64_t watchdog_broken_ms; /* since when, or when it was mended */
	uint64_t cached_config;	    /* patroni.dynamic.json */
	int64_t clock_offset_ms, wall_offset_ms;
	int clock_ppm;
	struct tags tags;
	bool start_fails; /* a setting that is wrong, a port that is taken */
	bool pre_promote_fails, replay_stuck, shutdown_done;
	bool rewind_fails;
	bool files_slow;  /* nobody can read or write the data directory */
	int64_t probe_ms; /* PostgreSQL takes so long to answer a new worker */
	bool initdb_fails, post_bootstrap_fails, clone_fails;
	int64_t initdb_ms, post_bootstrap_ms;
	int64_t given_up_ms; /* true time: the worker ended with an error, started again later */
	int64_t rules_stopped_ms; /* no turn until then, whatever the rest of the worker does */
	int64_t last_paused_ms;	  /* an acknowledgement while its own agent was in pause, or the end
				     of that */
	int64_t config_behind_ms; /* the newest configuration was not in force then: it was learnt,
				     or a commit acknowledged without it */
	int64_t nofailover_ms;	  /* since when tagged */
	int64_t resumed_ms;	  /* true time of the last thaw; 0 = never */
	int64_t pre_promote_ms, clone_ms;
	struct sim_process procs[PROC_COUNT];
	struct sim_enforcer sup, dm;
	struct sim_pg pg;
	enum exit_class exit_class;
	int64_t failsafe_round_ttl_ms;
	int64_t failsafe_round_ms; /* truth: when the last round that all accepted was sent */
	struct sim_worker w;
};

/* Clocks. */
int64_t node_clock(const struct sim *s, int node);
int64_t node_when(
	const struct sim *s, int node, int64_t local_ms); /* the true time of a local one */

/* sim_node.c: life of processes */
void node_init(struct sim *s, int node);
void node_power(struct sim *s, int node, bool on);
void node_vm_pause(struct sim *s, int node, bool on);
void node_kill(struct sim *s, int node, enum sim_proc proc);
void node_freeze(struct sim *s, int node, enum sim_proc proc, bool on);
void node_event(struct sim *s, struct sim_event *ev); /* every event that belongs to a node */
bool node_deliverable(struct sim *s, struct sim_event *ev);
/* sim_sup.c: the enforcers */
void sup_start(struct sim *s, int node);
void sup_event(struct sim *s, const struct sim_event *ev);
void dm_start(struct sim *s, int node);
void dm_event(struct sim *s, const struct sim_event *ev);
void enforcers_peer_gone(struct sim *s, int node, enum sim_proc gone);
/* sim_worker.c */
void worker_start(struct sim *s, int node);
const struct cluster *worker_cluster(const struct sim_node *n); /* as its worker knows it */
void worker_event(struct sim *s, const struct sim_event *ev);
void node_turn_soon(struct sim *s, int node, int64_t in_ms);
void worker_snapshot(struct sim *s, int node, struct sim_snapshot *snap);
void worker_unblock(struct sim *s, int node);
void worker_to_sup(struct sim *s, int node, struct sim_message m);
void worker_keeper(struct sim *s, int node, struct keeper_event ev);
const struct settings *worker_settings(const struct sim *s, int node);
/* sim_view.c */
void view_build(struct sim *s, int node, struct ha_view *v, const struct ha_result *result);
unsigned view_history(const struct sim *s, int node, struct history_row rows[SIM_HISTORY]);
/* sim_exec.c */
void exec_plan(struct sim *s, int node);
void exec_answer(struct sim *s, int node, enum ha_outcome outcome, int64_t version);
void exec_write_status(struct sim *s, int node);
void exec_write_history(struct sim *s, int node);
/* sim_store.c: requests of the worker to the store */
uint32_t store_submit(struct sim *s, int node, struct sim_op *op, struct sim_request req,
	int64_t deadline_ms, bool other);
struct sim_op *store_op(struct sim *s, int node, enum dcs_op_kind kind);
void store_event(struct sim *s, const struct sim_event *ev);
void store_read(struct sim *s, int node, enum req_use use);
/* sim_task.c */
void task_start(struct sim *s, int node, const struct ha_action *a);
void task_event(struct sim *s, const struct sim_event *ev);
/* ... for tasks that live elsewhere */
void task_request_done(struct sim *s, int node);
void task_finish(struct sim *s, int node, enum ha_task_result result);
void task_ask_start(struct sim *s, int node, uint32_t kind);
void task_ask_stop(struct sim *s, int node, enum pg_stop_mode mode);
int task_started(struct sim *s, int node);
bool task_stopped(const struct sim *s, int node);
/* sim_copy.c: tasks that rewrite the data directory */
void copy_rewind_check(struct sim *s, int node);
void copy_rewind(struct sim *s, int node);
void copy_clone(struct sim *s, int node);
void copy_crash_recovery(struct sim *s, int node);
void task_cancel(struct sim *s, int node);
void task_message(struct sim *s, int node, const struct sim_message *m);
void task_postmaster(struct sim *s, int node);
void task_crash_recovered(struct sim *s, int node);
/* sim_marks.c */
void marks_worker_gone(struct sim *s, int node);
void marks_node_off(struct sim *s, int node);
void marks_clone_begins(struct sim *s, int node);
void marks_clone_done(struct sim *s, int node, int from);
void marks_clone_failed(struct sim *s, int node);
void marks_rewind_begins(struct sim *s, int node);
void marks_rewind_done(struct sim *s, int node, int from);
void marks_rewind_failed(struct sim *s, int node, bool remove);
bool marks_take_over(struct sim *s, int node, struct sim_task *t);
void marks_view(struct sim *s, int node, struct pg_files *f, struct ha_view *v);
void marks_check_spawn(struct sim *s, int node);
/* sim_peer.c */
void peer_poll(struct sim *s, int node, const struct ha_action *a, bool failsafe);
void peer_event(struct sim *s, const struct sim_event *ev);
