/* Private to worker/ha: what the rules share while one call of ha_step runs. A rule returns true
 * when it decided: the plan is then complete, or ends with an awaited operation and memory.stage
 * names the rule that takes its answer. Every cycle starts from the facts again, so a stage may be
 * given up at any moment: nothing safe rests on its end. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/core/invariant.h"
#include "common/core/str.h"
#include "common/model/ha_plan.h"
#include "common/model/ha_view.h"

struct step {
	const struct ha_view *v;
	const struct settings *set;
	const struct cluster *c;
	const struct ha_result *r;
	struct ha_memory *m;
	struct ha_plan *plan;
	/* facts that many rules ask for */
	char leader[LIMIT_NAME]; /* C's leader, or the injected one of failsafe mode (ha 9.4); "" =
				    unlocked */
	const char *leader_conn_url; /* never NULL */
	bool unlocked, injected;
	bool has_lock;	      /* by the keeper's proof; see step_init */
	bool paused, standby; /* standby: this is a standby cluster */
	bool pg_there;	      /* a postmaster exists */
	bool primary;	      /* PostgreSQL is, or must be taken for, a primary */
	bool starting;
	int64_t failsafe_void; /* X71: version of the map in /failsafe that nobody can stand on */
	enum sync_mode sync;
	bool sync_active, quorum_active;
	unsigned peer_count; /* answers in view.peers that this stage asked for; 0 elsewhere */
};

/* What the stage that was awaited goes on with. */
enum ha_stage {
	STAGE_START = 0,
	STAGE_ADOPT,	    /* X2: leader key in my name moved to my lease */
	STAGE_CONFIRM_LOST, /* X3: C names another while the keeper holds the key: read again */
	STAGE_POLL,	    /* peers were asked; stage_arg[0] = enum poll_use */
	STAGE_ACQUIRE,
	STAGE_FOLLOW,	  /* F1: C was read again; stage_arg[0] = enum follow_why */
	STAGE_RECOVER,	  /* B5: C was read again */
	STAGE_WATCHDOG,	  /* G1; stage_arg[0] = enum act_why */
	STAGE_SYNC,	  /* G3: /sync was written; stage_arg[0] = enum act_why, [1] = step */
	STAGE_PREPROMOTE, /* G5 */
	STAGE_FAILSAFE,	  /* J1 */
	STAGE_INIT_RACE,  /* K1 */
	STAGE_BOOT_WATCHDOG,
	STAGE_BOOT_LEADER,    /* L4 */
	STAGE_BOOT_CANCEL,    /* L1: initialize was removed */
	STAGE_BOOT_PUBLISHED, /* X45: C was read again */
	STAGE_REINIT,	      /* O: C was read again */
	STAGE_COUNT,
};

enum poll_use {
	POLL_RACE = 1,	     /* D11 */
	POLL_MANUAL_TARGET,  /* D-M: the named candidate */
	POLL_MANUAL_LEADER,  /* D-M: I was the leader: is somebody else able? */
	POLL_MANUAL_RACE,    /* D-M: health check among the rest */
	POLL_HANDOVER,	     /* E-M from E4 */
	POLL_HANDOVER_START, /* E-M from I5 */
	POLL_START_TIMEOUT,  /* I3 */
	POLL_CRASH_TASK,     /* H1 */
	POLL_CRASHED,	     /* B1 */
};

enum act_why { ACT_HAD_LOCK = 0, ACT_ACQUIRED };

enum follow_why {
	FOLLOW_NO_LOCK = 0, /* E6 */
	FOLLOW_LOST_RACE,   /* C3 */
	FOLLOW_NOT_ALLOWED, /* C4, nofailover */
	FOLLOW_NOT_HEALTHIEST,
	FOLLOW_STANDBY_LEADER,	 /* E4 in a standby cluster */
	FOLLOW_STANDBY_PROMOTED, /* C2 in a standby cluster */
};

/* step.c: facts, plan building */
void step_init(struct step *s, const struct ha_view *v, struct ha_memory *m,
	const struct ha_result *r, struct ha_plan *plan);
struct ha_action *plan_add(struct step *s, enum ha_action_kind kind);
bool plan_name(struct step *s, struct ha_action *a, const char *name);
void plan_note(struct step *s, int level, const char *fmt, ...) PRINTF(3, 4);
/* The cycle ends here, with this reason. Always true. */
bool plan_done(struct step *s, const char *rule, const char *fmt, ...) PRINTF(3, 4);
/* The cycle goes on when the answer to the last action is there. Always true. */
bool plan_await(struct step *s, enum ha_stage stage, enum ha_await await, int64_t wait_ms,
	const char *rule);
bool plan_reread(struct step *s, enum ha_stage stage, const char *rule);
struct ha_action *plan_task(struct step *s, enum ha_task task);
/* Task DEMOTE with the verdict that its mode needs. */
struct ha_action *plan_demote(struct step *s, enum ha_demote_mode mode);
void plan_wake(struct step *s, int64_t at_ms); /* next_run at the latest then */
void plan_set_role(struct step *s, enum pg_role role);
uint64_t my_position(const struct step *s);
int64_t my_timeline(const struct step *s); /* 0 = unknown */
bool is_nofailover(const struct step *s);
/* Rewind or removal of a diverged directory is allowed (ha 6.2). */
bool rewind_allowed(const struct step *s);
void rewind_trigger(struct step *s);

/* decide.c */
bool cycle_run(struct step *s);	   /* A, from the start */
bool finish_cycle(struct step *s); /* A18, A19 */

/* crash.c: B and 6.5 */
bool rule_after_demotion(struct step *s);
bool rule_crashed(struct step *s);
bool stage_recover(struct step *s);
bool crashed_polled(struct step *s, bool possible);
bool rewind_step(struct step *s);

/* race.c: C, D */
bool rule_no_leader(struct step *s);
bool stage_acquire(struct step *s);
bool race_polled(struct step *s, enum poll_use use);
bool race_answer(struct step *s, bool yes); /* C2 or C4, C5 */
bool race_self_ok(
	struct step *s, bool with_lag); /* 3.4 rows 1 and 2, and the divergence test of 3.3 */
uint64_t race_timeline_end(const struct step *s);
bool race_diverged(const struct step *s);
bool race_peer_barred(const struct step *s, const struct ha_peer *p); /* X26 */
bool race_health(struct step *s, const char *former);		      /* 3.4 rows 3 to 5 */
/* Does 3.4 want to hear this one? */
bool race_wants(const struct step *s, const char *name, const char *api_url, bool nofailover);
/* Start a poll: names are added to *out. */
void poll_begin(struct step *s, enum poll_use use, struct ha_action **out);
bool poll_outdated(const struct step *s); /* X52 */

/* handover.c: E-M, D-M, 3.6 */
bool handover_leader(struct step *s, enum poll_use use); /* E-M: true = decided */
bool handover_leader_polled(struct step *s, bool possible);
enum may { MAY_NO = 0, MAY_YES, MAY_GO_ON, MAY_AWAIT };
enum may handover_no_leader(struct step *s); /* D-M */
bool handover_no_leader_polled(struct step *s, enum poll_use use);
/* 3.6; true = asked, false = nobody to ask (impossible). */
bool failover_ask(struct step *s, enum poll_use use, bool exclude_candidate);
bool failover_possible(struct step *s, bool exclude_candidate);
bool handover_void(struct step *s);   /* X72 */
bool handover_remove(struct step *s); /* X72, not waited for; true = there was one */
void handover_late(struct step *s);   /* X72, while a demotion runs */
const char *handover_word(const struct step *s);
/* Names that may take over, for the early release of a clean stop; fills .names and .quorum. */
void failover_names(struct step *s, struct ha_action *a);

/* leader.c: E, G */
bool rule_leader_exists(struct step *s);
bool leader_after_handover(struct step *s); /* E4 after E-M said nothing */
bool act_primary(struct step *s, enum act_why why);
bool stage_watchdog(struct step *s);
bool act_primary_done(struct step *s, enum act_why why);
bool lock_usable(const struct step *s); /* the reference's "lock update succeeded" */

/* replica.c: F */
bool follow(struct step *s, enum follow_why why);
bool stage_follow(struct step *s);

/* F2. False = none; out may be HA_TARGET_REMOTE. */
bool follow_target(const struct step *s, char out[static LIMIT_NAME]);
/* X77 with the lock: a standby leader that does not accept connections yet is told where the remote
 * primary is, like anybody else by F10. */
void follow_while_starting(struct step *s);
/* Can it be followed now? The remote primary always: its address is in the configuration. */
bool target_has_address(const struct step *s, const char *target);

/* task.c: H, I */
bool rule_task_running(struct step *s);
bool task_crash_polled(struct step *s, bool possible);
bool rule_starting(struct step *s);
bool starting_polled(struct step *s, enum poll_use use, bool possible);
void task_ended(struct step *s);

/* failsafe.c: J */
bool rule_store_failing(struct step *s);
bool stage_failsafe(struct step *s);
void failsafe_wake(struct step *s);
void failsafe_map_step(struct step *s);				/* E3, X71 */
bool failsafe_excludes(const struct step *s, const char *name); /* D9 */
bool failsafe_promise_forgotten(struct step *s);		/* X13 */
bool failsafe_word_forbids(struct step *s);			/* X17 */
void failsafe_inject(struct step *s);
void failsafe_looked(struct step *s);	 /* X71 */
bool failsafe_heir_acts(struct step *s); /* X74 */

/* bootstrap_plan.c: K, L */
bool bootstrap_empty(struct step *s);
bool stage_init_race(struct step *s);
bool rule_bootstrapping(struct step *s);
bool stage_boot_cancel(struct step *s);
bool stage_boot_published(struct step *s);
/* interrupted.c: what a death left half done */
bool bootstrap_open(const struct step *s); /* `initialize` is there and empty, nothing ever led */
bool bootstrap_unfinished(const struct step *s); /* ... and this may be its directory */
bool data_dir_unfinished(const struct step *s);	 /* no server: to be made anew */
bool bootstrap_unclaimed(struct step *s);	 /* empty key, a whole directory, no mark */
bool rule_resume(struct step *s);
bool rule_interrupted(struct step *s);
bool rule_orphan_job(struct step *s);
bool rule_rewind_interrupted(struct step *s);
bool stage_boot_watchdog(struct step *s);
bool stage_boot_leader(struct step *s);
/* Clone source of K2: true = found. */
bool clone_source(const struct step *s, bool from_leader, char out[static LIMIT_NAME]);

/* pause.c */
bool pause_changed(struct step *s);	     /* A4 */
bool pause_sysid_mismatch(struct step *s);   /* A14 */
bool pause_not_running(struct step *s);	     /* A16 */
bool pause_lock_not_primary(struct step *s); /* E1, E2 */
bool pause_follow(struct step *s, bool have_target, bool *out_decided);

/* standby.c */
bool standby_demote(struct step *s, const char *reason);
bool standby_target(const struct step *s); /* the remote member is the one to follow */

/* requests.c: N, O, shutdown */
bool rule_shutdown(struct step *s);
bool rule_reinit(struct step *s);
bool stage_reinit(struct step *s);
bool restart_while_down(struct step *s); /* N1 in pause */
bool rule_restart(struct step *s);
enum due { DUE_NO = 0, DUE_NOW, DUE_STALE };
enum due schedule_due(struct step *s, const char *what, int64_t at_wall_us, bool bad);
/* while_not_sync: true = still waiting to be released from the voters. */
bool wait_not_sync(struct step *s);

/* sync.c: 5.2 to 5.6 */
bool sync_step(struct step *s, enum act_why why); /* true = awaits */
void sync_keep_strict(struct step *s);		  /* X63 */
bool stage_sync(struct step *s);
bool sync_prepromote(struct step *s); /* true = awaits or postponed */
bool stage_prepromote(struct step *s);
bool promote_now(struct step *s); /* leader.c: the end of G5 */
