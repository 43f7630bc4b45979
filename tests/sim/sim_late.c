/* What comes late, and what is asked for later: watches that lag, a data directory that nobody can
 * read for a while, the first answer of PostgreSQL to a new worker, scheduled restarts and
 * switchovers; and a store that lost everything. */
#include <string.h>

#include "tests/sim/sim.h"

/* ---- facts ---- */

/* The first question to a postmaster is under way: nothing is known of it yet, neither that it
 * answers nor that it does not. */
bool late_unanswered(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_worker *w = &n->w;
	if (n->pg.phase == PGP_NONE || w->probed_generation == n->pg.generation)
		return false;
	int64_t now = node_clock(s, node);
	if (w->probing_generation != n->pg.generation) {
		w->probing_generation = n->pg.generation;
		w->probed_at_ms = now + n->probe_ms;
		if (n->probe_ms)
			node_turn_soon(s, node, n->probe_ms);
	}
	if (now < w->probed_at_ms)
		return true;
	w->probed_generation = n->pg.generation;
	return false;
}

/* ---- schedules ---- */

int64_t late_wall_us(const struct sim *s, int node)
{
	return (1000000000000 + s->now_ms + s->nodes[node].wall_offset_ms) * 1000;
}

static int64_t due_us(const struct sim *s, uint32_t arg)
{
	return (1000000000000 + s->now_ms + (int64_t)(arg % 1000) * 1000) * 1000;
}

static void schedule_restart(struct sim *s, const struct sim_fault *f)
{
	struct sim_node *n = &s->nodes[f->hit];
	if (!n->on || !n->procs[PROC_WORKER].alive)
		return;
	struct ha_request *r = &n->w.request;
	r->scheduled_restart = true;
	r->scheduled_restart_unmet = f->arg / 1000 % 2;
	r->scheduled_restart_at_wall_us = due_us(s, f->arg);
	r->scheduled_restart_start_us = (n->pg.started_ms + 1000000) * 1000;
	node_turn_soon(s, f->hit, 1);
}

static void schedule_switchover(struct sim *s, const struct sim_fault *f)
{
	int leader = dcs_leader_node(s);
	if (leader < 0)
		return;
	bool bad = f->arg / 1000 % 2;
	dcs_put_schedule(
		s, leader, f->hit != leader ? f->hit : -1, bad ? 0 : due_us(s, f->arg), bad);
}

/* V6: what was scheduled has happened or was removed. */
static void check_schedules(struct sim *s)
{
	const struct cluster *c = &s->dcs.now.c;
	int64_t late_us = (sim_config_now(s)->loop_wait_ms * 3 + 60000) * 1000;
	int64_t due = (1000000000000 + s->now_ms) * 1000 - late_us;
	if (c->failover_present && (c->failover_schedule_bad ||
					   (c->failover_scheduled && c->failover_at_wall_us < due)))
		violation(s, "V6", "a scheduled switchover was neither made nor removed");
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		const struct ha_request *r = &s->nodes[i].w.request;
		if (s->nodes[i].procs[PROC_WORKER].alive && r->scheduled_restart &&
			r->scheduled_restart_at_wall_us < due)
			violation(s, "V6",
				"the scheduled restart of %s was neither made nor removed",
				sim_name((int)i));
	}
}

/* ---- a store that lost everything ---- */

static void lose_store(struct sim *s, bool sessions)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if (s->nodes[i].procs[PROC_WORKER].alive)
			s->nodes[i].cached_config = s->nodes[i].w.settings_version;
	/* What /sync promised is gone with it (S4, S8 of the contract name this case). */
	for (unsigned i = 0; i < s->branch_count; i++)
		s->branches[i].acked_sync_lsn = 0;
	s->checks.sync_changed_ms = s->checks.mode_changed_ms = s->now_ms;
	s->checks.store_lost = true;
	dcs_lose_all(s, sessions);
}

/* S12: the scope of a cluster that runs does not become another's. */
void late_check_published(struct sim *s, int node, int sysid)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if ((int)i != node && pg_accepts_writes(s, (int)i) &&
			s->nodes[i].pg.sysid != sysid && !s->nodes[i].pg.unpublished &&
			s->checks.store_lost)
			violation(s, "S12",
				"%s makes a new cluster of the scope in which %s is primary",
				sim_name(node), sim_name((int)i));
}

/* Whoever starts as a replica of a cluster that the store does not know waits for its primary
 * (A15). If there is none any more, people have to say which cluster it was. */
static void put_init_back(struct sim *s)
{
	if (!s->checks.store_lost || s->dcs.now.c.init_present || dcs_leader_node(s) >= 0)
		return;
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if (s->nodes[i].pg.sysid && !s->nodes[i].pg.dir_empty) {
			sim_log(s, (int)i, "operator: puts /initialize back");
			dcs_put_init(s, s->nodes[i].pg.sysid);
			return;
		}
}

/* ---- the driver ---- */

void late_fault(struct sim *s, const struct sim_fault *f, bool begin)
{
	struct sim_node *n = &s->nodes[f->hit];
	switch (f->kind) {
	case FAULT_WATCH_SLOW:
		s->dcs.watch_slow_ms[f->hit] = begin ? 1 + (int64_t)(f->arg % 5000) : 0;
		break;
	case FAULT_FILES_SLOW: n->files_slow = begin; break;
	case FAULT_PROBE_SLOW: n->probe_ms = begin ? 1 + (int64_t)(f->arg % 5000) : 0; break;
	case FAULT_OP_SCHEDULE_RESTART: schedule_restart(s, f); break;
	case FAULT_OP_SCHEDULE_SWITCHOVER: schedule_switchover(s, f); break;
	case FAULT_STORE_LOST: lose_store(s, f->arg & 1); break;
	case FAULT_STORE_HOLDS:
		s->net.held[f->hit].until_ms = begin ? s->now_ms + f->for_ms : 0;
		s->net.held[f->hit].kinds = f->arg;
		break;
	case FAULT_RULES_STOP: n->rules_stopped_ms = begin ? s->now_ms + f->for_ms : 0; break;
	default: break;
	}
}

void late_heal(struct sim *s)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		s->dcs.watch_slow_ms[i] = 0;
		s->nodes[i].files_slow = false;
		s->nodes[i].probe_ms = 0;
		s->nodes[i].rules_stopped_ms = 0;
	}
	put_init_back(s);
}

void late_check_end(struct sim *s)
{
	check_schedules(s);
	if (s->checks.store_lost && !s->cfg.empty && boot_sysid(s) != 1)
		violation(s, "S12", "the scope belongs to another cluster at the end");
}

/* The faults of a history stay; some of these come to them. */
void late_profile(struct sim *s, uint64_t seed)
{
	static const enum sim_fault_kind kinds[] = { FAULT_WATCH_SLOW, FAULT_FILES_SLOW,
		FAULT_PROBE_SLOW, FAULT_OP_SCHEDULE_RESTART, FAULT_OP_SCHEDULE_SWITCHOVER,
		FAULT_KILL_WORKER, FAULT_PG_CRASH, FAULT_STORE_REVOKES };
	struct rng r;
	rng_seed(&r, seed ^ 0x1b873593cc9e2d51u);
	for (unsigned n = 1 + (unsigned)rng_below(&r, 6); n && s->faults.count < SIM_FAULTS; n--) {
		struct sim_fault *f = &s->faults.list[s->faults.count++];
		*f = (struct sim_fault){ .hit = -1,
			.kind = kinds[rng_below(&r, sizeof(kinds) / sizeof(kinds[0]))],
			.at_ms = sim_range(&r, 30000, s->cfg.heal_ms - 60000),
			.node = sim_chance(&r, 400) ? -1
						    : (int8_t)rng_below(&r, s->cfg.member_count) };
		f->arg = (uint32_t)rng_next(&r);
		if (f->kind <= FAULT_PROBE_SLOW && f->kind >= FAULT_WATCH_SLOW)
			f->for_ms = sim_range(&r, 5000, 90000);
		if (f->kind == FAULT_OP_SCHEDULE_RESTART || f->kind == FAULT_OP_SCHEDULE_SWITCHOVER)
			f->arg = (uint32_t)rng_below(&r, 50) + (sim_chance(&r, 100) ? 1000 : 0);
	}
	if (sim_chance(&r, 250) && s->faults.count + 2 < SIM_FAULTS) {
		int64_t at = sim_range(&r, 40000, s->cfg.heal_ms - 100000);
		s->faults.list[s->faults.count++] = (struct sim_fault){ .hit = -1,
			.kind = FAULT_STORE_LOST,
			.at_ms = at,
			.node = 0,
			.arg = (uint32_t)rng_next(&r) };
		s->faults.list[s->faults.count++] = (struct sim_fault){ .hit = -1,
			.kind = FAULT_KILL_WORKER,
			.at_ms = at + sim_range(&r, 10, 30000),
			.node = (int8_t)rng_below(&r, s->cfg.member_count) };
	}
}
