/* Members that differ: a watchdog that is required and breaks, cascading standbys, logical slots
 * that have to be copied, members that join late, data directories of another cluster. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

#define FOREIGN_SYSID 900 /* of clusters that are none of ours */

/* ---- watchdog ---- */

/* Answers HA_WATCHDOG_ARM: 1 = it runs, 2 = it cannot. */
int topo_watchdog_arm(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	n->watchdog_armed = !n->watchdog_broken;
	return n->watchdog_armed ? 1 : 2;
}

void topo_watchdog_off(struct sim *s, int node)
{
	s->nodes[node].watchdog_armed = false;
}

static bool watchdog_failed(const struct sim *s, int node)
{
	return s->nodes[node].watchdog_broken &&
	       worker_settings(s, node)->watchdog_mode == WATCHDOG_REQUIRED;
}

void topo_view(const struct sim *s, int node, struct ha_view *v)
{
	const struct sim_node *n = &s->nodes[node];
	v->watchdog_armed = n->watchdog_armed;
	v->watchdog_failed = watchdog_failed(s, node);
	v->rewind_twin = n->w.rewind_twin;
	bool standby = n->pg.phase == PGP_STANDBY && n->pg.streaming;
	v->slots_to_copy = s->cfg.logical_slots && standby && !n->slots_copied;
}

void topo_peer(const struct sim *s, int node, struct ha_peer *p)
{
	p->watchdog_failed = watchdog_failed(s, node);
}

/* S13: who cannot be watched wins no election that nobody ordered. */
void topo_check_promoted(struct sim *s, int node, bool ordered)
{
	const struct sim_node *n = &s->nodes[node];
	if (watchdog_failed(s, node) && !n->watchdog_armed && !ordered &&
		s->now_ms - n->watchdog_broken_ms > 60000)
		violation(s, "S13", "%s requires a watchdog that is broken and was promoted",
			sim_name(node));
}

/* ---- slots ---- */

/* Copies need PostgreSQL stopped for a moment (ha 7.5). */
void topo_copy_slots(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	switch (t->step) {
	case 0:
		if (n->pg.phase == PGP_PRIMARY)
			violation(s, "S17", "%s stops its primary to copy slots", sim_name(node));
		task_ask_stop(s, node, PG_STOP_FAST);
		t->step = 1;
		return;
	case 1:
		if (n->pg.phase != PGP_NONE)
			return;
		n->slots_copied = true;
		task_ask_start(s, node, PG_START_STANDBY);
		t->step = 2;
		return;
	default: {
		int how = task_started(s, node);
		if (how)
			task_finish(s, node, how > 0 ? TASK_RESULT_TRUE : TASK_RESULT_FALSE);
	}
	}
}

/* ---- divergence ---- */

/* The histories of the two, up to the timeline of this node: the same rows? (X43) */
bool topo_twin(const struct sim *s, int node, int leader)
{
	struct history_row mine[SIM_HISTORY], theirs[SIM_HISTORY];
	unsigned a = view_history(s, node, mine), b = view_history(s, leader, theirs);
	int64_t tli = s->branches[s->nodes[node].pg.branch].tli;
	for (unsigned i = 0; i < a && i < b; i++)
		if (theirs[i].timeline < tli && mine[i].timeline == theirs[i].timeline &&
			mine[i].lsn != theirs[i].lsn)
			return true;
	return false;
}

/* ---- members that come, directories that are not ours ---- */

static void replace_dir(struct sim *s, int node, int sysid)
{
	struct sim_pg *p = &s->nodes[node].pg;
	pg_kill(s, node, EXIT_CLASS_SIGNAL, "data directory replaced");
	p->sysid = sysid;
	sim_log(s, node, "operator: puts a data directory of %s here",
		sysid ? "another cluster" : "no cluster at all");
	/* Whoever had everything may be gone, as with a lost directory. */
	int leader = dcs_leader_node(s);
	s->checks.liveness_exempt |= settings_sync_mode(sim_config_now(s)) != SYNC_OFF ||
				     leader < 0 || leader == node || !pg_accepts_writes(s, leader);
}

bool topo_absent(const struct sim *s, int node)
{
	for (unsigned i = 0; i < s->faults.count; i++) {
		const struct sim_fault *f = &s->faults.list[i];
		if (f->kind == FAULT_OP_ADD_MEMBER && f->node == node && f->at_ms >= 0)
			return true;
	}
	return false;
}

void topo_fault(struct sim *s, const struct sim_fault *f, bool begin)
{
	struct sim_node *n = &s->nodes[f->hit];
	switch (f->kind) {
	case FAULT_WATCHDOG_BROKEN:
		n->watchdog_broken = begin;
		n->watchdog_broken_ms = s->now_ms;
		if (begin)
			n->watchdog_armed = false;
		break;
	case FAULT_DIR_FOREIGN: replace_dir(s, f->hit, FOREIGN_SYSID + f->hit); break;
	case FAULT_DIR_DAMAGED: replace_dir(s, f->hit, 0); break;
	case FAULT_OP_ADD_MEMBER: node_power(s, f->hit, true); break;
	case FAULT_STORE_REVOKES: dcs_revoke_all(s); break;
	default: break;
	}
}

/* What is of no cluster, or of another, only an operator can clear away. */
void topo_heal(struct sim *s)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		struct sim_node *n = &s->nodes[i];
		n->watchdog_broken = false;
		if (!n->pg.dir_empty && (n->pg.sysid == 0 || n->pg.sysid >= FOREIGN_SYSID) &&
			!n->pg.damaged && n->w.task.kind == TASK_NONE && !s->cfg.empty) {
			sim_log(s, (int)i, "operator: removes the data directory");
			pg_kill(s, (int)i, EXIT_CLASS_SIGNAL, "data directory removed");
			boot_wipe(s, (int)i);
		}
	}
}

static enum sim_fault_kind topo_kind(struct rng *r)
{
	static const enum sim_fault_kind kinds[] = { FAULT_WATCHDOG_BROKEN, FAULT_WATCHDOG_BROKEN,
		FAULT_DIR_FOREIGN, FAULT_DIR_DAMAGED, FAULT_OP_ADD_MEMBER, FAULT_OP_REMOVE_MEMBER,
		FAULT_KILL_WORKER, FAULT_PG_CRASH, FAULT_OP_SWITCHOVER_ANY, FAULT_OP_REINIT };
	return kinds[rng_below(r, sizeof(kinds) / sizeof(kinds[0]))];
}

static void plan_one(
	struct sim *s, enum sim_fault_kind kind, int64_t at_ms, int64_t for_ms, int node)
{
	if (s->faults.count < SIM_FAULTS)
		s->faults.list[s->faults.count++] = (struct sim_fault){ .hit = -1,
			.kind = kind,
			.at_ms = at_ms,
			.for_ms = for_ms,
			.node = (int8_t)node,
			.arg = 1 };
}

/* A worker dies while its job rewrites the data directory, maybe twice, maybe the node with it. */
static void plan_interrupted(struct sim *s, struct rng *r)
{
	int node = (int)rng_below(r, s->cfg.member_count);
	int64_t at = sim_range(r, 30000, s->cfg.heal_ms - 200000);
	if (sim_chance(r, 500)) {
		plan_one(s, FAULT_OP_REINIT, at, 0, node);
		plan_one(s, FAULT_CLONE_SLOW, at, 30000, node);
	} else { /* it leads, is cut off and comes back with a tail of its own */
		plan_one(s, FAULT_OP_FAILOVER, at, 0, node);
		plan_one(s, FAULT_NET_ISOLATE, at + 20000, 70000, node);
		at += 90000;
	}
	for (int i = 0; i < 3; i++) {
		at += sim_range(r, 200, 4000);
		if (sim_chance(r, 800))
			plan_one(s, FAULT_KILL_WORKER, at, 0, node);
		else
			plan_one(s, FAULT_NODE_OFF, at, sim_range(r, 500, 20000), node);
	}
}

/* The faults of a history stay; its members differ from the start. */
void topo_profile(struct sim *s, uint64_t seed)
{
	struct rng r;
	struct settings *set = &s->settings[1];
	rng_seed(&r, seed ^ 0x3c6ef372fe94f82au);
	set->watchdog_mode = sim_chance(&r, 500)   ? WATCHDOG_REQUIRED
			     : sim_chance(&r, 500) ? WATCHDOG_AUTOMATIC
						   : WATCHDOG_OFF;
	s->cfg.logical_slots = sim_chance(&r, 400);
	if (sim_chance(&r, 300))
		set->remove_on_diverged = set->remove_on_rewind_failure = false;
	for (unsigned i = 1; s->cfg.member_count > 2 && i < s->cfg.member_count; i++)
		if (sim_chance(&r, 300))
			snprintf(s->nodes[i].tags.replicatefrom,
				sizeof(s->nodes[i].tags.replicatefrom), "%s",
				sim_name((int)rng_below(&r, i))); /* no circles */
	if (sim_chance(&r, 500))
		plan_interrupted(s, &r);
	for (unsigned n = (unsigned)rng_below(&r, 5); n && s->faults.count < SIM_FAULTS; n--) {
		struct sim_fault *f = &s->faults.list[s->faults.count++];
		*f = (struct sim_fault){ .hit = -1,
			.kind = topo_kind(&r),
			.at_ms = sim_range(&r, 30000, s->cfg.heal_ms - 60000),
			.node = (int8_t)rng_below(&r, s->cfg.member_count),
			.arg = (uint32_t)rng_next(&r) };
		if (f->kind == FAULT_WATCHDOG_BROKEN)
			f->for_ms = sim_range(&r, 5000, 150000);
		if (f->kind == FAULT_OP_ADD_MEMBER && f->node == 0)
			f->kind = FAULT_KILL_WORKER; /* somebody must have been there */
	}
}
