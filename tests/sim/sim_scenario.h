/* Scenarios: small text files, one for each item of ha 12.3, run with several seeds; and the corpus
 * of seeds that once failed.
 *
 *   members 3                 ttl 30  loop_wait 10  retry_timeout 10   (seconds)
 *   sync off|priority|quorum  strict 0|1  node_count N  failsafe 0|1  check_timeline 0|1
 *   start_timeout S  race_backoff S  stop_timeout S  end S  heal S  max_lag BYTES
 *   watchdog required|automatic|off    replicatefrom NODE NODE    nofailover NODE
 *   empty 0|1 (no cluster yet)  bootstrap 0|1 (members could make one)  custom 0|1 (from a backup)
 *   standby 0|1  remote 0|1  archiving 0|1    no_leader 0|1 (replicas from a backup)
 *   short_copies 0|1 (what was rewound needs WAL of its leader)
 *   logical_slots 0|1    patroni NODE (it runs the reference's rules; asynchronous clusters only)
 *   fault KIND at S [for S] [on NODE|leader] [arg N]
 *   expect no_failover | failover | promotions N (at most) | outage S (acknowledged commits) */
/* Also: priority NODE N (failover_priority), expect leader NODE (at the end). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/model/settings.h"
#include "tests/sim/sim_faults.h"
#include "tests/sim/sim_clock.h"
#include "tests/sim/sim_dcs.h"

#define SCENARIO_DIR   "tests/sim/scenarios"
#define CORPUS_FILE    "tests/sim/corpus.txt"
#define SCENARIO_SEEDS 6

struct sim;
struct sim_scenario {
	char name[128];
	unsigned member_count, loss_per_mille, dup_per_mille;
	uint32_t nofailover, patroni;
	uint8_t priority[SIM_NODES]; /* failover_priority; 0 = 1, the default */
	char upstream[SIM_NODES];    /* replicatefrom: a member's letter */
	struct settings set;
	int64_t heal_ms, end_ms;
	uint64_t first_seed;
	bool empty; /* no cluster yet */
	bool logical_slots, short_copies;
	bool remote, archiving; /* another site; a demoted leader keeps its key */
	struct sim_fault faults[SIM_FAULTS];
	unsigned fault_count;
	int promotions_min, promotions_max; /* -1 = not judged; the first election counts as one */
	char leader;			    /* who leads at the end; 0 = not judged */
	int64_t outage_max_ms;		    /* 0 = not judged */
	bool no_hand;			    /* nobody had to remove /initialize (V10) */
	unsigned sync_names;		    /* synchronous standbys at the end; 0 = not judged */
};

struct run;
typedef bool (*scenario_fn)(struct run *r, uint64_t seed, const struct sim_scenario *scenario);
typedef bool (*corpus_fn)(struct run *r, uint64_t seed, const struct sim_scenario *none);

/* False, with a line on stderr that names the file, the line and what is wrong. */
bool scenario_read(const char *path, struct sim_scenario *out);
void scenario_apply(struct sim *s, const struct sim_scenario *scenario);
void scenario_judge(struct sim *s, const struct sim_scenario *scenario);
/* True: every run of every file passed. */
bool scenario_each(struct sim *s, const char *dir, scenario_fn fn, struct run *r);
bool corpus_each(const char *path, corpus_fn fn, struct run *r);
