/* One history: built from a seed, run event by event, checked as it goes. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define SHORT_COPIES_FROM                                                                          \
	101000000	   /* in a quarter of the seeds: those before keep their meaning           \
			    */
#define RECOVERED_MS 20000 /* from the end of a long recovery to a primary again */

void sim_at(
	struct sim *s, int64_t at_ms, enum sim_kind kind, int node, int64_t a, int64_t b, void *ptr)
{
	heap_push(&s->heap, (struct sim_event){ .at_ms = at_ms,
				    .kind = (uint16_t)kind,
				    .node = (int8_t)node,
				    .a = a,
				    .b = b,
				    .ptr = ptr });
}

void sim_at_proc(struct sim *s, int64_t at_ms, enum sim_kind kind, int node, enum sim_proc proc,
	int64_t a, int64_t b, void *ptr)
{
	heap_push(&s->heap, (struct sim_event){ .at_ms = at_ms,
				    .kind = (uint16_t)kind,
				    .node = (int8_t)node,
				    .proc = (int8_t)proc,
				    .incarnation = s->nodes[node].procs[proc].incarnation,
				    .a = a,
				    .b = b,
				    .ptr = ptr });
}

const struct settings *sim_settings(const struct sim *s, int64_t version)
{
	return version >= 1 && version <= s->settings_count ? &s->settings[version] : NULL;
}

const struct settings *sim_config_now(const struct sim *s)
{
	return &s->settings[s->settings_count];
}

static void choose_settings(struct sim *s, struct rng *r)
{
	struct settings *set = &s->settings[1];
	s->settings_count = 1;
	*set = (struct settings){ .ttl_ms = 30000,
		.loop_wait_ms = 10000,
		.retry_timeout_ms = 10000,
		.maximum_lag_on_failover = 1048576,
		.maximum_lag_on_syncnode = -1,
		.primary_start_timeout_ms = 300000,
		.sync_node_count = 1,
		.member_slots_ttl_ms = 1800000,
		.use_slots = true,
		.use_pg_rewind = true,
		.watchdog_margin_ms = 5000 };
	set->tags = (struct tags){ .failover_priority = 1, .sync_priority = 1 };
	if (sim_chance(r, 300)) {
		set->ttl_ms = 20000;
		set->loop_wait_ms = 2000;
		set->retry_timeout_ms = 3000;
	} else if (sim_chance(r, 150)) {
		set->ttl_ms = 3000;
		set->loop_wait_ms = 1000;
		set->retry_timeout_ms = 1000;
	}
	set->sync_mode = (enum sync_mode)rng_below(r, 3);
	set->sync_strict = sim_chance(r, 250);
	set->sync_node_count = 1 + (int)rng_below(r, 2);
	set->failsafe_mode = sim_chance(r, 300);
	set->check_timeline = sim_chance(r, 300);
	if (sim_chance(r, 300))
		set->maximum_lag_on_failover = 4096;
	set->remove_on_rewind_failure = true;
	set->remove_on_diverged = true;
	if (sim_chance(r, 200))
		set->primary_start_timeout_ms = sim_chance(r, 500) ? 0 : 30000;
	if (sim_chance(r, 200))
		set->primary_race_backoff_ms = 15000;
	if (sim_chance(r, 200))
		set->primary_stop_timeout_ms = 5000;
}

static void choose_cluster(struct sim *s, struct rng *r)
{
	static const unsigned sizes[] = { 1, 2, 3, 3, 3, 3, 5, 5, 5, 7 };
	s->cfg.member_count = sizes[rng_below(r, 10)];
	s->cfg.duration_ms = 600000;
	s->cfg.heal_ms = 420000;
	s->cfg.loss_per_mille = sim_chance(r, 400) ? (unsigned)rng_below(r, 60) : 0;
	s->cfg.dup_per_mille = sim_chance(r, 400) ? (unsigned)rng_below(r, 60) : 0;
	s->cfg.unanswered_per_mille = sim_chance(r, 300) ? (unsigned)rng_below(r, 50) : 0;
	bool skew = sim_chance(r, 500);
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		node_init(s, (int)i);
		struct sim_node *n = &s->nodes[i];
		n->clock_offset_ms = 1000000 + (skew ? sim_range(r, 0, 100000000) : 0);
		n->clock_ppm = skew ? (int)sim_range(r, -1000, 1000) : 0;
		n->wall_offset_ms = skew ? sim_range(r, -3000, 3000) : 0;
		if (s->cfg.member_count > 2 && sim_chance(r, 60)) {
			n->tags.nofailover = true;
			n->tags.failover_priority = 0;
		}
	}
	/* Somebody must be able to lead. */
	s->nodes[0].tags.nofailover = false;
	s->nodes[0].tags.failover_priority = 1;
}

/* Keeps the heap, the arena and the buffers of an earlier history. */
static void clear(struct sim *s)
{
	struct sim_heap heap = s->heap;
	struct arena arena = s->arena;
	struct sim_event *kept[SIM_NODES][PROC_COUNT];
	unsigned capacity[SIM_NODES][PROC_COUNT];
	bool trace = s->trace, record = s->record;
	for (int i = 0; i < SIM_NODES; i++)
		for (int p = 0; p < PROC_COUNT; p++) {
			kept[i][p] = s->nodes[i].procs[p].kept;
			capacity[i][p] = s->nodes[i].procs[p].kept_capacity;
		}
	memset(s, 0, sizeof(*s));
	s->heap = heap;
	s->heap.count = 0;
	s->heap.next_seq = 0;
	s->arena = arena;
	arena_reset(&s->arena);
	s->trace = trace;
	s->record = record;
	for (int i = 0; i < SIM_NODES; i++)
		for (int p = 0; p < PROC_COUNT; p++) {
			s->nodes[i].procs[p].kept = kept[i][p];
			s->nodes[i].procs[p].kept_capacity = capacity[i][p];
		}
}

void sim_build(struct sim *s, uint64_t seed, const struct sim_fault_mask *drop)
{
	struct rng plan;
	clear(s);
	s->seed = seed;
	rng_seed(&plan, seed);
	rng_seed(&s->rng, seed ^ 0x5deece66d1234567u);
	choose_cluster(s, &plan);
	choose_settings(s, &plan);
	faults_plan(s, &plan);
	s->cfg.short_copies = seed >= SHORT_COPIES_FROM && seed % 4 == 0;
	if (drop)
		sim_drop_faults(s, drop);
}

void sim_drop_faults(struct sim *s, const struct sim_fault_mask *drop)
{
	for (unsigned i = 0; i < s->faults.count; i++)
		if (drop->bits & (1ull << i))
			s->faults.list[i].at_ms = -1;
}

static void begin(struct sim *s)
{
	check_init(s);
	dcs_init(s);
	pg_init_cluster(s);
	if (!s->cfg.empty)
		dcs_put_config(s, 1);
	check_init(s);
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if (topo_absent(s, (int)i))
			boot_wipe(s, (int)i);
		else
			node_power(s, (int)i, true);
	for (unsigned i = 0; i < s->faults.count; i++) {
		const struct sim_fault *f = &s->faults.list[i];
		if (f->at_ms < 0)
			continue;
		sim_at(s, f->at_ms, EV_FAULT, -1, i, 1, NULL);
		if (f->for_ms && f->at_ms + f->for_ms < s->cfg.heal_ms)
			sim_at(s, f->at_ms + f->for_ms, EV_FAULT, -1, i, 0, NULL);
	}
	remote_begin(s);
	sim_at(s, 1000, EV_CLIENT, -1, 0, 0, NULL);
	sim_at(s, s->cfg.heal_ms, EV_HEAL, -1, 0, 0, NULL);
	sim_at(s, s->cfg.duration_ms, EV_END, -1, 0, 0, NULL);
}

static void client(struct sim *s)
{
	for (int i = 0; i < (int)s->cfg.member_count; i++)
		if (pg_accepts_writes(s, i) && !s->nodes[i].pg.unpublished &&
			sim_chance(&s->rng, 800))
			pg_client_write(s, i);
	sim_at(s, s->now_ms + sim_range(&s->rng, 100, 500), EV_CLIENT, -1, 0, 0, NULL);
}

/* B of ha 12.2, with room for the time-outs that are under way when the last fault ends. */
static int64_t liveness_bound_ms(const struct sim *s)
{
	const struct settings *set = sim_config_now(s);
	return set->ttl_ms + 2 * set->loop_wait_ms + 2 * set->retry_timeout_ms +
	       set->primary_race_backoff_ms + 20000;
}

static void outside(struct sim *s, struct sim_event *ev)
{
	switch (ev->kind) {
	case EV_OP_ARRIVES:
	case EV_SESSION:
	case EV_WATCH_SEND: store_event(s, ev); break;
	case EV_CLIENT: client(s); break;
	case EV_REMOTE: remote_event(s, ev); break;
	case EV_FAULT: fault_event(s, (unsigned)ev->a, ev->b == 1); break;
	case EV_HEAL:
		s->healed = true;
		faults_heal(s);
		sim_at(s, s->now_ms + liveness_bound_ms(s), EV_CHECK, -1, 0, 0, NULL);
		break;
	case EV_CHECK: {
		int leader = dcs_leader_node(s);
		/* A recovery or a slow promotion that began before the heal takes its time. */
		enum pg_phase phase = leader >= 0 ? s->nodes[leader].pg.phase : PGP_NONE;
		bool recovers = leader >= 0 &&
				s->now_ms < s->nodes[leader].pg.recovers_until_ms + RECOVERED_MS;
		if ((phase == PGP_RECOVERY || phase == PGP_PROMOTING || recovers) &&
			s->now_ms < s->cfg.duration_ms - 40000)
			sim_at(s, s->now_ms + 10000, EV_CHECK, -1, 0, 0, NULL);
		else
			check_alive(s);
		break;
	}
	case EV_END:
		check_at_end(s);
		s->ended = true;
		break;
	default: break;
	}
}

void sim_run(struct sim *s)
{
	struct sim_event ev;
	begin(s);
	while (!s->ended && heap_pop(&s->heap, &ev)) {
		if (ev.at_ms > s->now_ms)
			s->now_ms = ev.at_ms;
		s->events++;
		if (ev.node < 0)
			outside(s, &ev);
		else
			node_event(s, &ev);
	}
}

void sim_free(struct sim *s)
{
	heap_done(&s->heap);
	arena_done(&s->arena);
	for (int i = 0; i < SIM_NODES; i++)
		for (int p = 0; p < PROC_COUNT; p++)
			free(s->nodes[i].procs[p].kept);
}
