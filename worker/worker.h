/* The worker's process struct and what its parts do for each other. One thread, one loop (DESIGN
 * 4): events in, decisions pure (worker/ha), effects out. Included by worker/[a-z]*.c only. */
#pragma once
#include <jansson.h>

#include "common/core/ipc.h"
#include "common/core/log.h"
#include "common/core/loop.h"
#include "common/core/rng.h"
#include "common/core/shm.h"
#include "common/dcs/dcs.h"
#include "common/ext/http.h"
#include "common/model/ha_plan.h"
#include "common/model/ha_view.h"
#include "worker/declog.h"
#include "worker/ha/keeper_rules.h"
#include "worker/ha/slots_plan.h"
#include "worker/postgres/controljob.h"
#include "worker/postgres/host.h"
#include "worker/postgres/pgctx.h"
#include "worker/postgres/probe.h"

/* What the turn waits for before it may decide. */
struct turn {
	bool wanted;	/* something happened: decide as soon as the facts are in */
	bool gathering; /* facts were asked for, not all are in */
	bool facts_in;
	bool sql_due, files_due;
	int64_t gather_until_ms;
	int64_t next_run_ms;	 /* planned start of the next cycle */
	struct ha_result result; /* of the awaited operation */
	int64_t view_at_ms;	 /* when the view of the running cycle was taken */
	char why[64];
	struct loop_timer timer;
	uint64_t await_id; /* of the store operation that is awaited */
	int64_t last_cycle_ms;
};

/* A restart that was scheduled (ha N2). */
struct scheduled_restart {
	bool set;
	int64_t at_wall_us;
	char schedule[64];
	int64_t postmaster_start_us;
	char role[20], postgres_version[20];
	int64_t timeout_ms;
	bool restart_pending;
};

/* A REST request that waits for the end of something. */
#define WAITERS_MAX 32
struct waiter {
	uint64_t id; /* of the API_REQ; 0 = free */
	enum api_kind kind;
	int64_t since_ms, until_ms, next_ms;
	char leader[LIMIT_NAME], candidate[LIMIT_NAME];
	char from[LIMIT_NAME]; /* leader as given: a switchover */
	int64_t at_wall_us, version;
	bool sent, scheduled;
	struct worker *w;
};

/* Questions to peers that are on their way together. */
struct peer_round {
	uint32_t serial;
	bool running, failsafe, failsafe_ok;
	struct ha_peer peers[LIMIT_PEERS];
	unsigned count, due;
	int64_t asked_at_ms;
	void (*done)(struct worker *w, void *arg);
	/* Beside it, may be NULL: called after each answer; true ends the round. */
	bool (*heard)(struct worker *w, void *arg);
	void *arg;
	struct loop_timer nobody; /* nobody could be asked: the end comes from the loop, too */
};

struct failsafe_record {
	int64_t last_ms, ttl_ms; /* the word counts from last_ms for ttl_ms */
	char name[LIMIT_NAME], conn_url[LIMIT_URL], api_url[LIMIT_URL];
	json_t *slots; /* owned */
};

struct worker {
	struct loop loop;
	struct http *http;
	struct rng rng;
	int sup_fd, deadman_fd, api_fd;
	int64_t reported_ttl_ms; /* that the supervisor was told; 0 = none */
	pid_t parent;		 /* the supervisor that started us */
	bool sup_gone;
	bool deadman_farewell; /* it left in order, or is about to */
	struct ipc_rx rx;
	struct msg_welcome welcome;
	struct shm page;
	struct loop_timer ping_timer;
	bool shutdown_asked, shutdown_answered, shutdown_said, shutdown_leave;
	bool shutdown_scripts;		  /* callbacks still run */
	struct loop_timer shutdown_timer; /* they, or the member key's last write, have this long */
	bool watchdog_awaited, watchdog_wanted, watchdog_known;

	/* configuration */
	json_t *dynamic; /* raw dynamic document in force; owned, never NULL once started */
	bool dynamic_from_store;
	int64_t dynamic_version; /* modify version it came from */
	bool cache_dirty;	 /* patroni.dynamic.json is to be written */
	struct settings set;
	json_t *tags; /* effective tags as published; owned */
	bool all_pgregent;

	/* log.dir (logfile.c) */
	struct {
		char dir[LIMIT_PATH]; /* "" = standard error */
		int fd;		      /* to the process that writes the file; -1 = none */
		bool starting;
		int64_t again_ms;
	} logfile;

	/* store */
	struct dcs *dcs;
	struct cluster *c;		/* last snapshot; never NULL */
	uint64_t c_serial, c_published; /* of snapshots: the one in c, the one on the page */
	bool c_fresh, watch_current, name_checked;
	int64_t store_failing_ms; /* first unanswered operation in a row; 0 = answers */
	int64_t store_ok_ms;	  /* last time that an operation was answered, or the watch alive */
	int64_t mended_version;	  /* of the leader key, whose value somebody else wrote */
	uint64_t names_generation; /* of the addresses that the page has */
	char *heir;		   /* owned; what DOC_HEIR has */
	int64_t last_seen_s;
	struct loop_timer store_timer;
	bool read_running;
	void (*on_status)(struct worker *w);
	bool touch_running, touch_again; /* the member key is written; it has changed meanwhile */
	void (*on_touched)(struct worker *w); /* nothing of it is under way any more */
	bool failover_running;
	int64_t failover_version, failover_unknown_ms; /* of the last write without an answer */
	bool wants_members; /* no leader, or a switchover runs: member keys matter at once */
	char backend[16];

	struct keeper keeper;
	struct loop_timer keeper_timer;
	int64_t unacked_since_ms;
	bool sup_silent;
	int64_t store_ttl_ms; /* what the store was told; a shorter one follows the supervisor's
				 (keeper rules) */
	bool lease_reported;
	enum keeper_op awaited_op; /* the turn waits for the end of this one */
	void (*on_keeper_done)(struct worker *w, enum keeper_op op,
		enum ha_outcome outcome); /* a task waits; or NULL */

	/* PostgreSQL */
	struct host host;
	struct probe probe;
	struct pg_files files;
	bool files_asked, history_asked, pg_seen, control_runs;
	uint64_t upgrade_id;	    /* request that waits for the supervisor's word; 0 = none */
	struct seq_control control; /* pg_controldata, where files cannot read pg_control */
	int64_t files_asked_ms, history_asked_tli;
	uint32_t seen_state;
	struct pgctx pg; /* what the sequences of worker/postgres need */
	char system_id[32];
	int64_t last_proof_ms;
	uint64_t last_proof_generation;
	uint64_t seen_generation;
	bool pg_adopted_checked;
	struct history_row *history; /* local history file; owned */
	unsigned history_count;
	int64_t history_tli;
	unsigned remote_turn; /* which of several remote hosts is asked next for a rewind */
	bool next_history_asked;
	int64_t next_history_tli, next_history_asked_tli; /* F5: found, asked for */
	bool poke_due;					  /* HA_POKE_WAL waits for the connection */
	bool checkpoint_running, checkpoint_done;
	uint64_t checkpoint_generation;
	struct pgc checkpoint_conn;
	bool recovery_differs, recovery_needs_restart;

	/* decisions */
	struct ha_memory mem;
	struct ha_view view;
	struct ha_plan plan;
	struct turn turn;
	struct declog declog;
	char last_reason[480];
	struct ha_request request;
	struct scheduled_restart scheduled;
	char restart_text[200];

	/* the background task */
	enum ha_task task, task_ended;
	enum ha_task_result task_result;
	int64_t task_since_ms;
	bool task_released;
	struct ha_action task_next; /* a forced start waits for the end of the cancelled one */
	bool task_next_set;
	enum ha_rewind_state rewind_check_result;
	bool rewind_twin, rewind_check_again;

	struct peer_round round; /* the rules ask */
	struct peer_round aside; /* a task or a request of api asks */
	bool reload_again, name_check_running, slots_again, config_loud, ready_sent, cache_asked;
	struct msg_watchdog_config watchdog_sent;
	uint32_t retain_generation;
	char api_url[LIMIT_URL];
	int64_t pid;
	struct failsafe_record failsafe;

	/* what was published last */
	json_t *member_published;
	struct waiter waiters[WAITERS_MAX];
	struct loop_timer waiter_timer;
	uint64_t api_serial;
	json_t *api_sent;
	int exit_code;
	bool setting_aside;	   /* HA_RENAME_FAILED is under way */
	struct ha_action exit_due; /* HA_EXIT that waits for its end */
};

/* link.c: supervisor, dead-man, api */
MUST_USE enum err_code link_hello(
	struct worker *w, struct err *err); /* HELLO, waits for WELCOME (bounded) */
MUST_USE enum err_code link_start(struct worker *w, struct err *err); /* READY, PING timer */
enum err_code link_send(struct worker *w, enum msg_type type, uint64_t id, const void *payload,
	const void *tail, size_t tail_len, const int *fds, int fd_count);
void link_notify(struct worker *w, const char *text);

/* config.c */
MUST_USE enum err_code config_start(struct worker *w, const char *path, struct err *err);
void config_reload(struct worker *w);	    /* SIGHUP, POST /reload */
void config_take_dynamic(struct worker *w); /* after a snapshot: C.config may have changed */
void config_apply(struct worker *w);	    /* settings from local tree and dynamic document */
void config_load_cache(struct worker *w);
void config_save_cache(struct worker *w);
const json_t *config_tree(const struct worker *w); /* local tree: file and environment */
void config_send_api(struct worker *w);
void config_watchdog(struct worker *w, struct msg_watchdog_config *out);
void config_pg_changed(struct worker *w); /* a server was found running: render and reload */

/* logfile.c */
void logfile_apply(struct worker *w); /* the log section is new or was read again */
void logfile_check(struct worker *w); /* often: has the writer gone? */

/* store.c */
MUST_USE enum err_code store_start(struct worker *w, struct err *err);
void store_reconfigure(struct worker *w);
void store_answered(struct worker *w, enum dcs_outcome outcome); /* for the failing-since clock */
void store_submit(struct worker *w, const struct dcs_op *op);	 /* fire and forget, logged */
void store_status(struct worker *w, const char *value);
void store_touch(struct worker *w, const char *value); /* the member key, one at a time */
void store_failover(struct worker *w, const char *value, int64_t version); /* the same */
void store_complain(struct worker *w, const struct dcs_event *e);
void store_reread(struct worker *w); /* turn awaits it */
void store_take_snapshot(struct worker *w, struct cluster *c);
void store_take_read(struct worker *w, struct cluster *c); /* unless the watch has a newer one */

/* keeper.c */
void keeper_start(struct worker *w);
void keeper_event(struct worker *w, const struct keeper_event *ev);
void keeper_config(struct worker *w);
void keeper_ack(struct worker *w, const struct msg_lease_ack *ack);

/* turn.c */
void turn_want(struct worker *w, const char *why); /* decide soon */
/* A log line that may repeat: once in loop_wait. */
void turn_note(struct worker *w, enum log_level level, const char *fmt, ...) PRINTF(3, 4);
void turn_facts(struct worker *w); /* a fact came in */
void turn_result(struct worker *w, enum ha_outcome outcome, int64_t version);
void turn_start(struct worker *w);

/* observe.c */
void observe_ask(struct worker *w);	       /* SQL and files facts for the next decision */
void observe_build(struct worker *w);	       /* w->view */
void observe_keep_proving(struct worker *w);   /* a standby's proof is due every ttl/2 */
bool observe_unproven(const struct worker *w); /* a standby runs without a fresh proof */
/* Files that were read while PostgreSQL stops: the proof that it writes no more, if they are one.
 */
void observe_shut_down(struct worker *w, const struct pg_files *f);
void observe_on_pg(struct host *h, void *arg);
void observe_on_probe(struct probe *p, void *arg);

/* execute.c */
void execute_plan(struct worker *w);
void execute_watchdog_state(struct worker *w);	      /* MSG_WATCHDOG_STATE came */
bool execute_watchdog_failed(const struct worker *w); /* required, asked for, not usable */
void execute_exit_due(struct worker *w);	      /* the data directory was set aside */

/* task.c */
void task_start(struct worker *w, const struct ha_action *a);
void task_cancel(struct worker *w);
void task_reload(struct worker *w, bool force); /* write configuration, reload when it changed */
void worker_set_state(struct worker *w, enum pg_state state);
void worker_set_role(struct worker *w, enum pg_role role);
void worker_callback(struct worker *w, enum ha_callback cb, enum pg_role role);
/* Whom a name stands for, and where it is now; false = no address. */
struct pg_target;
bool task_target_of(struct worker *w, const char *name, struct pg_target *out);
void task_follow_reload(struct worker *w, const struct ha_action *a);
void task_set_ssn(struct worker *w, const struct ha_ssn *ssn, const char (*names)[LIMIT_NAME],
	unsigned count);
void task_rename_failed(struct worker *w);
void task_clear_mark(struct worker *w);

/* slots.c */
void slots_sync(struct worker *w);
void slots_feedback(struct worker *w); /* hot_standby_feedback is forced on, or no more */
void slots_said_leader(struct worker *w, const json_t *slots); /* with its failsafe word */
void slots_said_member(struct worker *w, const char *member, int64_t lsn); /* answer to ours */
void slots_retain_seen(const char *name, int64_t now_ms);
json_t *slots_retain(struct worker *w); /* list for /status, NULL = keep what is there */

/* slots_logical.c */
struct seq_copy_slots;
void slots_logical_sync(struct worker *w, const struct slots_in *in, const struct slots_plan *plan);
unsigned slots_to_copy(const struct worker *w);
void slots_copy_begin(struct worker *w, struct seq_copy_slots *s); /* which ones */
void slots_copy_ended(struct worker *w);
void slots_promoting(void);

/* peers.c */
void peers_poll(struct worker *w, const char (*names)[LIMIT_NAME], unsigned count);
/* Not for the rules: `done` finds the answers in w->aside. False: one such round is running. */
bool peers_ask_aside(struct worker *w, const char (*names)[LIMIT_NAME], unsigned count,
	void (*done)(struct worker *, void *), bool (*heard)(struct worker *, void *), void *arg);
void peers_failsafe_round(struct worker *w, const char (*more)[LIMIT_NAME], unsigned more_count);
void peers_check_name(struct worker *w); /* once, before the first turn (ha 1.15) */
void peers_request(struct worker *w, struct http_request *req);

/* publish.c */
enum err_code publish_start(struct worker *w, struct err *err);
void publish_lease(struct worker *w);		  /* the lease scalars only */
void publish_page(struct worker *w);		  /* scalars and documents */
void publish_take_over(struct worker *w, int fd); /* the page of the worker before; borrowed */
void publish_member(struct worker *w);		  /* the member key, when it changed */
/* True: a write is on its way; w->on_status is called when it has ended. */
bool publish_status(struct worker *w, uint64_t release_lsn);
void publish_failsafe(struct worker *w, bool equal_too);
void publish_history(struct worker *w);
json_t *publish_tags(const struct worker *w);
json_t *publish_slots(struct worker *w); /* name -> LSN of a primary; NULL when not known */

/* heir.c */
struct shm;
void heir_leave(struct worker *w); /* after each decision, before it is carried out (X74) */
void heir_take(struct worker *w, const struct shm *page); /* of the worker before */
bool heir_stands(const struct worker *w); /* something was taken, and the store not read yet */

/* requests.c */
void requests_message(struct worker *w, const struct ipc_msg *m); /* API_REQ */
/* local.c: the local socket alone */
void local_status(struct worker *w, uint64_t id);
void local_upgrade(struct worker *w, uint64_t id);
void requests_answer(
	struct worker *w, uint64_t id, unsigned status, enum api_content content, const char *body);
void requests_lasting_facts(
	const struct worker *w, json_t *out);	     /* what a role answer may repeat */
void requests_facts(struct worker *w);		     /* the fact query was answered */
bool requests_schedule_fits(const struct worker *w); /* conditions of the stored restart */
void requests_progress(struct worker *w);	     /* after each snapshot: waiting switchovers */
void requests_taken(struct worker *w, enum ha_task task); /* a plan started what was asked for */
/* requests_handover.c */
struct waiter *requests_wait(struct worker *w, uint64_t id, enum api_kind kind);
void requests_arm(struct worker *w); /* the next waiter whose time is up */
void requests_handover(struct worker *w, uint64_t id, enum api_kind kind, const json_t *body);
void requests_handover_delete(struct worker *w, uint64_t id);
void requests_change_config(
	struct worker *w, uint64_t id, const json_t *body, bool put); /* requests_config.c */
char *json_python_of(const char *text); /* compact text to the REST form; freed by the caller */
void requests_refused(struct worker *w, enum ha_task task, const char *why);
void requests_restart_done(struct worker *w, bool ok, const char *text);
