/* The simulator's command line: histories from seeds and scenarios; a failing one is shrunk, told
 * and can be replayed. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_scenario.h"

/* What `make test` runs besides corpus and scenarios: a range that is clean, because fresh seeds
 * still fail about once in 10,000 histories (tests/sim/OPEN.md). --fresh takes seeds that nobody
 * has run before. */
#define SHORT_FIRST_SEED 30005001ull
#define SHORT_SEEDS	 4500u

struct run {
	struct sim *sim;
	bool stop_at_first;
	char first[280]; /* the first violation */
	uint64_t passed, failed, events, turns, acks, promotions;
	bool quiet;
};

static double seconds(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool async_only; /* --async: histories without synchronous replication */

static bool all_rules; /* --all-rules: a rule that never decided is a failure */
/* How a history from a seed begins. */
enum profile {
	PROFILE_PLAIN,
	PROFILE_EMPTY,
	PROFILE_TOPOLOGY,
	PROFILE_LATE,
	PROFILE_SITES,
	PROFILE_MIXED,
	PROFILE_COUNT
};
static const struct {
	const char *name, *option;
	void (*apply)(struct sim *s, uint64_t seed);
} profiles[PROFILE_COUNT] = {
	[PROFILE_PLAIN] = { "plain", "", NULL },
	[PROFILE_EMPTY] = { "empty", "--empty", boot_profile },		 /* without a cluster */
	[PROFILE_TOPOLOGY] = { "topology", "--topology", topo_profile }, /* members that differ */
	[PROFILE_LATE] = { "late", "--late", late_profile },	   /* late facts, a lost store */
	[PROFILE_SITES] = { "sites", "--sites", remote_profile },  /* standby clusters, backups */
	[PROFILE_MIXED] = { "mixed", "--mixed", patroni_profile }, /* beside the reference */
};
static enum profile chosen_profile;

static bool one(struct sim *s, uint64_t seed, const struct sim_scenario *scenario,
	const struct sim_fault_mask *drop)
{
	sim_build(s, seed, NULL);
	if (profiles[chosen_profile].apply && !scenario)
		profiles[chosen_profile].apply(s, seed);
	if (drop && !scenario)
		sim_drop_faults(s, drop);
	if (async_only) {
		s->settings[1].sync_mode = SYNC_OFF;
		for (unsigned i = 0; i < s->faults.count; i++)
			if (s->faults.list[i].kind == FAULT_OP_SYNC_MODE)
				s->faults.list[i].at_ms = -1;
	}
	if (scenario) {
		scenario_apply(s, scenario);
		if (drop)
			sim_drop_faults(s, drop);
	}
	sim_run(s);
	if (scenario && !s->checks.violated)
		scenario_judge(s, scenario);
	return !s->checks.violated;
}

/* Leave out fault after fault as long as the same invariant still breaks. */
static struct sim_fault_mask shrink(
	struct sim *s, uint64_t seed, const struct sim_scenario *scenario)
{
	struct sim_fault_mask drop = { 0 };
	char what[16];
	memcpy(what, s->checks.what, sizeof(what));
	unsigned count = s->faults.count;
	for (int round = 0; round < 2; round++)
		for (unsigned i = 0; i < count; i++) {
			struct sim_fault_mask attempt = { drop.bits | (1ull << i) };
			if (attempt.bits == drop.bits)
				continue;
			if (!one(s, seed, scenario, &attempt) && strcmp(s->checks.what, what) == 0)
				drop = attempt;
		}
	return drop;
}

static void tell(struct sim *s, uint64_t seed, const struct sim_scenario *scenario,
	const struct sim_fault_mask *drop)
{
	const struct settings *set = &s->settings[1];
	printf("FAILED seed %llu%s%s: %s at %.3f s: %s\n", (unsigned long long)seed,
		scenario ? " scenario " : "", scenario ? scenario->name : "", s->checks.what,
		(double)s->checks.at_ms / 1000, s->checks.text);
	printf("  %u members, ttl %d loop_wait %d retry_timeout %d, sync mode %d strict %d count "
	       "%d, failsafe %d, "
	       "check_timeline %d\n",
		s->cfg.member_count, (int)(set->ttl_ms / 1000), (int)(set->loop_wait_ms / 1000),
		(int)(set->retry_timeout_ms / 1000), set->sync_mode, set->sync_strict,
		set->sync_node_count, set->failsafe_mode, set->check_timeline);
	for (unsigned i = 0; i < s->faults.count; i++) {
		const struct sim_fault *f = &s->faults.list[i];
		if (!(drop->bits & (1ull << i)) && f->at_ms >= 0)
			printf("  fault %u: %s at %.3f s for %.3f s on %s arg %u\n", i,
				fault_name(f->kind), (double)f->at_ms / 1000,
				(double)f->for_ms / 1000,
				f->node < 0 ? "the leader" : sim_name(f->node), f->arg);
	}
	printf("  replay: make sim SEED=%llu%s%s   shrunk: %s --seed %llu --drop %llx -v\n",
		(unsigned long long)seed, scenario ? " SCENARIO=" : "",
		scenario ? scenario->name : "", scenario ? "" : profiles[chosen_profile].option,
		(unsigned long long)seed, (unsigned long long)drop->bits);
}

static bool history(struct run *r, uint64_t seed, const struct sim_scenario *scenario)
{
	struct sim *s = r->sim;
	if (r->stop_at_first && r->failed)
		return false;
	bool ok = one(s, seed, scenario, NULL);
	r->events += s->events;
	r->turns += s->turns;
	r->acks += s->acks;
	r->promotions += s->promotions;
	if (ok) {
		r->passed++;
		return true;
	}
	if (!r->failed)
		snprintf(r->first, sizeof(r->first), "%s: %s", s->checks.what, s->checks.text);
	r->failed++;
	if (!r->quiet && r->failed <= 5) {
		struct sim_fault_mask drop = shrink(s, seed, scenario);
		trace_begin(s);
		one(s, seed, scenario, &drop);
		tell(s, seed, scenario, &drop);
		trace_end(s);
	} else if (!r->quiet) {
		printf("FAILED seed %llu%s%s: %s %s\n", (unsigned long long)seed,
			scenario ? " scenario " : "", scenario ? scenario->name : "",
			s->checks.what, s->checks.text);
	}
	fflush(stdout);
	return false;
}

static int finish(struct run *r, double began)
{
	double took = seconds() - began;
	unsigned unreached = rules_print();
	printf("%llu events, %llu decisions, %llu acknowledged commits, %llu promotions, %.0f "
	       "histories a minute\n",
		(unsigned long long)r->events, (unsigned long long)r->turns,
		(unsigned long long)r->acks, (unsigned long long)r->promotions,
		(double)(r->passed + r->failed) * 60 / (took > 0.01 ? took : 0.01));
	printf("sim: %llu passed, %llu failed\n", (unsigned long long)r->passed,
		(unsigned long long)r->failed);
	const char *file = getenv("RESULT_FILE");
	FILE *out = file ? fopen(file, "a") : NULL;
	if (out) {
		fprintf(out, "%llu %llu\n", (unsigned long long)r->passed,
			(unsigned long long)r->failed);
		fclose(out);
	}
	if (all_rules && unreached)
		printf("sim: FAILED, %u rules of the table never decided\n", unreached);
	return r->failed || (all_rules && unreached) ? 1 : 0;
}

/* Every scenario, the corpus, then fresh seeds until their number or the time is used up. The first
 * of them is printed: --from repeats the run. */
static int run_short(struct run *r, double budget_s, uint64_t from)
{
	double began = seconds();
	uint64_t seed = from ? from : SHORT_FIRST_SEED;
	printf("base seed %llu\n", (unsigned long long)seed); /* known, whatever happens below */
	fflush(stdout);
	scenario_each(r->sim, SCENARIO_DIR, (scenario_fn)history, r);
	corpus_each(CORPUS_FILE, (corpus_fn)history, r);
	uint64_t fixed = r->passed + r->failed;
	for (unsigned i = 0; i < SHORT_SEEDS && seconds() - began < budget_s && r->failed < 50; i++)
		history(r, seed + i, NULL);
	printf("base seed %llu (again: --short --from %llu): %llu fresh histories after %llu of "
	       "scenarios and corpus\n",
		(unsigned long long)seed, (unsigned long long)seed,
		(unsigned long long)(r->passed + r->failed - fixed), (unsigned long long)fixed);
	return finish(r, began);
}

static int run_long(struct run *r, uint64_t count, uint64_t from)
{
	double began = seconds();
	for (uint64_t i = from; i < from + count; i++) {
		history(r, i, NULL);
		if ((i - from + 1) % 1000 == 0) {
			printf("at %llu: %llu failed (resume with --from %llu)\n",
				(unsigned long long)i, (unsigned long long)r->failed,
				(unsigned long long)(i + 1));
			fflush(stdout);
		}
	}
	return finish(r, began);
}

/* Everything, from every beginning; a rule of the table that never decided is a failure, too. */
static int run_nightly(struct run *r, uint64_t count, uint64_t from)
{
	double began = seconds();
	all_rules = true;
	scenario_each(r->sim, SCENARIO_DIR, (scenario_fn)history, r);
	corpus_each(CORPUS_FILE, (corpus_fn)history, r);
	for (int profile = PROFILE_PLAIN; profile < PROFILE_COUNT && r->failed < 50; profile++) {
		chosen_profile = (enum profile)profile;
		for (uint64_t i = 0; i < count / PROFILE_COUNT && r->failed < 50; i++)
			history(r, from + i, NULL);
		printf("profile %s from %llu: %llu failed so far\n", profiles[profile].name,
			(unsigned long long)from, (unsigned long long)r->failed);
		fflush(stdout);
	}
	return finish(r, began);
}

/* Runs it twice: the same seed must give the same history to the last event. */
static int run_seed(
	struct run *r, uint64_t seed, const struct sim_scenario *scenario, uint64_t drop_bits)
{
	struct sim_fault_mask drop = { drop_bits };
	bool ok = one(r->sim, seed, scenario, &drop);
	uint64_t hash = r->sim->checks.trace_hash, events = r->sim->events;
	if (!ok)
		tell(r->sim, seed, scenario, &drop);
	r->sim->trace = false;
	one(r->sim, seed, scenario, &drop);
	if (hash != r->sim->checks.trace_hash || events != r->sim->events) {
		printf("NOT DETERMINISTIC: %llu and %llu events\n", (unsigned long long)events,
			(unsigned long long)r->sim->events);
		return 2;
	}
	printf("%s: %llu events, %llu acknowledged, hash %016llx\n", ok ? "passed" : "failed",
		(unsigned long long)events, (unsigned long long)r->sim->acks,
		(unsigned long long)hash);
	return ok ? 0 : 1;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: sim --short [--from SEED | --fresh] [--seconds N] | --long N "
		"[--from SEED] | "
		"--nightly N [--from SEED] |\n"
		"  --seed SEED [--drop HEX] [--scenario FILE] [--async] [-v] | "
		"--until-caught N [--from SEED]\n"
		"  [--empty | --topology | --late | --sites | --mixed] how histories begin; "
		"[--all-rules] unreached "
		"rules fail\n");
	return 2;
}

/* For mutations: how many histories until the first violation; count from every beginning. */
static int until_caught(struct run *r, uint64_t count, uint64_t from)
{
	r->quiet = r->stop_at_first = true;
	bool caught = !scenario_each(r->sim, SCENARIO_DIR, (scenario_fn)history, r);
	caught = caught || !corpus_each(CORPUS_FILE, (corpus_fn)history, r);
	for (int p = PROFILE_PLAIN; p < PROFILE_COUNT && !caught; p++) {
		chosen_profile = (enum profile)p;
		for (uint64_t i = from; i < from + count && !caught; i++)
			caught = !history(r, i, NULL);
	}
	if (caught)
		printf("caught after %llu by %s\n", (unsigned long long)(r->passed + r->failed),
			r->first);
	else
		printf("SURVIVED %llu histories\n", (unsigned long long)r->passed);
	return caught ? 0 : 1;
}

static bool profile_named(const char *option)
{
	for (int i = PROFILE_PLAIN + 1; i < PROFILE_COUNT; i++)
		if (strcmp(profiles[i].option, option) == 0) {
			chosen_profile = (enum profile)i;
			return true;
		}
	return false;
}

int main(int argc, char **argv)
{
	struct run r = { .sim = calloc(1, sizeof(struct sim)) };
	struct sim_scenario scenario, *chosen = NULL;
	uint64_t count = 0, from = 0, seed = 0, drop = 0;
	double budget = 150;
	char mode = 0;
	if (!r.sim)
		return 2;
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (strcmp(arg, "-v") == 0)
			r.sim->trace = true;
		else if (strcmp(arg, "--async") == 0)
			async_only = true;
		else if (profile_named(arg))
			continue;
		else if (strcmp(arg, "--fresh") == 0)
			from = (uint64_t)time(NULL) * 1000003;
		else if (strcmp(arg, "--all-rules") == 0)
			all_rules = true;
		else if (strcmp(arg, "--short") == 0)
			mode = 's';
		else if (!value)
			return usage();
		else if (strcmp(arg, "--long") == 0)
			mode = 'l', count = strtoull(value, NULL, 10), i++;
		else if (strcmp(arg, "--nightly") == 0)
			mode = 'n', count = strtoull(value, NULL, 10), i++;
		else if (strcmp(arg, "--until-caught") == 0)
			mode = 'c', count = strtoull(value, NULL, 10), i++;
		else if (strcmp(arg, "--from") == 0)
			from = strtoull(value, NULL, 10), i++;
		else if (strcmp(arg, "--seconds") == 0)
			budget = strtod(value, NULL), i++;
		else if (strcmp(arg, "--seed") == 0)
			mode = 'r', seed = strtoull(value, NULL, 10), i++;
		else if (strcmp(arg, "--drop") == 0)
			drop = strtoull(value, NULL, 16), i++;
		else if (strcmp(arg, "--scenario") == 0 && scenario_read(value, &scenario))
			chosen = &scenario, i++;
		else
			return usage();
	}
	int rc = mode == 's'   ? run_short(&r, budget, from)
		 : mode == 'l' ? run_long(&r, count, from ? from : 1)
		 : mode == 'n' ? run_nightly(&r, count, from ? from : 1)
		 : mode == 'c' ? until_caught(&r, count, from ? from : 1)
		 : mode == 'r' ? run_seed(&r, seed, chosen, drop)
			       : usage();
	sim_free(r.sim);
	free(r.sim);
	trace_free();
	return rc;
}
