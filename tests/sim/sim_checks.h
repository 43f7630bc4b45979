/* The invariants of ha 12, looked at when the thing that could break them happens. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/model/ha_plan.h"
#include "tests/sim/sim_pg.h"

/* What a node decides again and again (sim_rules.c). */
#define SIM_DEEDS 16
struct sim_deed {
	uint64_t effect, epoch;
	int64_t since_ms;
	unsigned count;
};
struct sim_habit {
	struct sim_deed deeds[SIM_DEEDS];
	unsigned quiet_deeds, changes;
	char rule[16];
};

struct sim_checks {
	bool violated;
	char what[16]; /* "S1" */
	char text[240];
	int64_t at_ms;
	int64_t last_ack_ms[SIM_NODES], last_any_ack_ms;
	int64_t pause_began_ms, pause_ended_ms;
	int64_t mode_changed_ms; /* synchronous_mode or _strict */
	int64_t site_changed_ms; /* became a standby cluster, or is one no longer */
	int64_t sync_changed_ms; /* on or off */
	int64_t key_since_ms;	 /* the leader key was won; a change of lease does not count */
	int64_t key_changes_ms;
	unsigned key_changes; /* since then */
	bool paused, strict;
	enum sync_mode mode;  /* paused, strict, mode: of the last configuration */
	int manual_candidate; /* -1 */
	int64_t manual_ms;
	int64_t hand_ms[SIM_NODES];  /* a restart or reinitialisation was asked of it */
	int64_t raced_ms[SIM_NODES]; /* it asked for the key, and knew of no pause */
	int8_t handed_to;      /* the key was given away for this candidate; -1 = for nobody */
	int16_t handed_branch; /* ... by the one that wrote this */
	bool manual_lossy;     /* a failover: data loss is the operator's */
	int8_t won_by_hand;    /* the key was won by such a one, whatever was asked for since; -1 */
	int8_t not_promised;   /* S8: who won the key while /sync named another alone; -1 */
	int64_t max_tli;
	bool liveness_exempt; /* a fault that cannot heal by itself happened */
	unsigned quiet_tasks, quiet_promotions;
	bool quiet;
	bool timeline_reused, store_lost;
	bool dir_lost;	   /* what was acknowledged may exist nowhere any more */
	bool init_removed; /* by an operator */
	int64_t longest_outage_ms;
	uint64_t fact_epoch; /* grows with each fault, order and change of leader */
	struct sim_habit habits[SIM_NODES];
	uint64_t trace_hash; /* of everything decided: the same seed gives the same */
};

/* Over all histories of one run of the program. */
struct sim_coverage {
	uint64_t timelines_reused, lost_by_reuse;
};
extern struct sim_coverage sim_coverage;

/* sim_rules.c */
void rules_decided(struct sim *s, int node, const struct ha_plan *plan);
void rules_new_fact(struct sim *s);
void rules_news_for(struct sim *s, int node); /* although nothing happens any more */
unsigned rules_print(void);		      /* returns how many of the table never decided */

void check_init(struct sim *s);
void check_ack(struct sim *s, int node, uint64_t lsn, bool sync);
void check_promoted(struct sim *s, int node, int16_t branch);
void check_started_primary(struct sim *s, int node);
void check_promote_signal(struct sim *s, int node);
void check_task(struct sim *s, int node, const struct ha_action *a); /* begins */
void check_release(struct sim *s, int node);
void check_acquired(struct sim *s, int node, enum dcs_op_kind kind);
void check_plan(struct sim *s, int node, const struct ha_plan *plan);
void check_config_changed(struct sim *s);
void check_manual(struct sim *s, int leader, int candidate);
void check_sync_written(struct sim *s);
void check_exit(struct sim *s, int node, int code);
void check_alive(struct sim *s); /* liveness, when the bound after the heal is over */
void check_at_end(struct sim *s);
__attribute__((format(printf, 3, 4))) void violation(
	struct sim *s, const char *what, const char *fmt, ...);
