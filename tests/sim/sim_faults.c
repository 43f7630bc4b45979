/* The faults and operators of the simulator. Each has a beginning and, mostly, an end; what it hit
 * is remembered. */
#include "tests/sim/sim_faults.h"

#include <string.h>

#include "tests/sim/sim.h"

static const char *const names[FAULT_KINDS] = {
#define X(name) #name,
	FAULT_LIST(X)
#undef X
};

const char *fault_name(enum sim_fault_kind kind)
{
	return kind < FAULT_KINDS ? names[kind] : "?";
}

/* Bits of the processes that are down or stopped: both enforcers at once is outside the promise
 * (DESIGN 8). */
static bool enforcer_ok(const struct sim *s, int node, enum sim_proc proc)
{
	const struct sim_process *o = &s->nodes[node].procs[proc == PROC_SUP ? PROC_DM : PROC_SUP];
	const struct sim_process *p = &s->nodes[node].procs[proc];
	return o->alive && !o->frozen && p->alive && !p->frozen && !s->nodes[node].vm_paused;
}

void faults_change_config(
	struct sim *s, void (*edit)(struct settings *set, uint32_t arg), uint32_t arg)
{
	if (s->settings_count + 1 >= SIM_SETTINGS)
		return;
	struct settings *next = &s->settings[++s->settings_count];
	*next = s->settings[s->settings_count - 1];
	edit(next, arg);
	sim_log(s, -1,
		"config: ttl %" PRId64 " loop_wait %" PRId64
		" sync %d strict %d count %d failsafe %d pause %d",
		next->ttl_ms / 1000, next->loop_wait_ms / 1000, next->sync_mode, next->sync_strict,
		next->sync_node_count, next->failsafe_mode, next->pause);
	dcs_put_config(s, s->settings_count);
}

static void edit_pause(struct settings *set, uint32_t arg)
{
	set->pause = arg != 0;
}
static void edit_ttl(struct settings *set, uint32_t arg)
{
	static const int64_t ttl[] = { 20000, 30000, 60000, 10000 };
	static const int64_t wait[] = { 5000, 10000, 10000, 2000 };
	static const int64_t retry[] = { 5000, 10000, 10000, 3000 };
	set->ttl_ms = ttl[arg % 4];
	set->loop_wait_ms = wait[arg % 4];
	set->retry_timeout_ms = retry[arg % 4];
}
static void edit_sync(struct settings *set, uint32_t arg)
{
	set->sync_mode = (enum sync_mode)(arg % 3);
}
static void edit_count(struct settings *set, uint32_t arg)
{
	set->sync_node_count = 1 + (int)(arg % 3);
}
static void edit_strict(struct settings *set, uint32_t arg)
{
	set->sync_strict = arg % 2;
}
static void edit_failsafe(struct settings *set, uint32_t arg)
{
	set->failsafe_mode = arg % 2;
}

static void cut_members(struct sim *s, uint32_t side, bool on)
{
	for (int i = 0; i < SIM_NODES; i++)
		for (int j = 0; j < SIM_NODES; j++)
			if (i != j && ((side >> i) & 1) != ((side >> j) & 1))
				net_cut(s, i, j, on);
}

static bool process_fault(struct sim *s, struct sim_fault *f, bool begin)
{
	int node = f->hit;
	switch (f->kind) {
	case FAULT_KILL_WORKER: node_kill(s, node, PROC_WORKER); return true;
	case FAULT_KILL_API: node_kill(s, node, PROC_API); return true;
	case FAULT_KILL_SUPERVISOR:
	case FAULT_KILL_DEADMAN: {
		enum sim_proc proc = f->kind == FAULT_KILL_SUPERVISOR ? PROC_SUP : PROC_DM;
		if (enforcer_ok(s, node, proc))
			node_kill(s, node, proc);
		return true;
	}
	case FAULT_STOP_WORKER: node_freeze(s, node, PROC_WORKER, begin); return true;
	case FAULT_STOP_API: node_freeze(s, node, PROC_API, begin); return true;
	case FAULT_STOP_SUPERVISOR:
	case FAULT_STOP_DEADMAN: {
		enum sim_proc proc = f->kind == FAULT_STOP_SUPERVISOR ? PROC_SUP : PROC_DM;
		if (!begin || enforcer_ok(s, node, proc))
			node_freeze(s, node, proc, begin);
		return true;
	}
	case FAULT_NODE_OFF: node_power(s, node, !begin); return true;
	case FAULT_VM_PAUSE: node_vm_pause(s, node, begin); return true;
	default: return false;
	}
}

static bool leads_elsewhere(const struct sim *s, int node)
{
	int leader = dcs_leader_node(s);
	return leader >= 0 && leader != node && pg_accepts_writes(s, leader);
}

static bool pg_fault(struct sim *s, struct sim_fault *f, bool begin)
{
	struct sim_node *n = &s->nodes[f->hit];
	int64_t ms = f->for_ms;
	switch (f->kind) {
	case FAULT_PG_CRASH: pg_kill(s, f->hit, EXIT_CLASS_SIGNAL, "crash"); return true;
	case FAULT_PG_HANG:
		n->pg.hung = begin;
		pg_deaf(s, f->hit);
		return true;
	case FAULT_PG_FREEZE:
		if (begin)
			n->pg.frozen = true;
		else
			pg_thaw(s, f->hit);
		pg_deaf(s, f->hit);
		return true;
	case FAULT_PG_STUCK_STOP:
		if (begin)
			n->pg.stuck = true;
		else
			pg_thaw(s, f->hit);
		return true;
	case FAULT_PG_SLOW_RECOVERY:
		n->pg.recovery_ms = begin ? ms : 0;
		if (begin)
			pg_kill(s, f->hit, EXIT_CLASS_SIGNAL, "crash, long recovery ahead");
		return true;
	case FAULT_PG_SLOW_PROMOTE: n->pg.promote_ms = begin ? ms : 0; return true;
	case FAULT_PG_SLOW_ARCHIVE:
		n->pg.archive_ms = ms;
		if (!begin)
			pg_archive_done(s, f->hit);
		return true;
	case FAULT_PG_LAG: n->pg.lag_ms = begin ? (int64_t)(f->arg % 20000) : 0; return true;
	case FAULT_PRE_PROMOTE_FAILS: n->pre_promote_fails = begin; return true;
	case FAULT_PRE_PROMOTE_SLOW: n->pre_promote_ms = begin ? ms : 0; return true;
	case FAULT_REWIND_FAILS: n->rewind_fails = begin; return true;
	case FAULT_CLONE_SLOW: n->clone_ms = begin ? ms : 0; return true;
	case FAULT_REPLAY_PAUSED: n->replay_stuck = begin; return true;
	case FAULT_DIR_LOST:
		pg_kill(s, f->hit, EXIT_CLASS_SIGNAL, "data directory lost");
		n->pg.dir_empty = true;
		n->pg.sysid = 0;
		s->checks.dir_lost = true;
		/* Whoever had everything may be gone; what remains may be too old to lead, by
		 * design. */
		s->checks.liveness_exempt |= settings_sync_mode(sim_config_now(s)) != SYNC_OFF ||
					     !leads_elsewhere(s, f->hit);
		return true;
	default: return false;
	}
}

static void net_fault(struct sim *s, struct sim_fault *f, bool begin)
{
	int node = f->hit;
	switch (f->kind) {
	case FAULT_STORE_DOWN: s->dcs.down = begin; break;
	case FAULT_STORE_CUT:
		net_cut(s, node, SIM_STORE, begin);
		net_cut(s, SIM_STORE, node, begin);
		break;
	case FAULT_STORE_NO_ANSWERS: net_cut(s, SIM_STORE, node, begin); break;
	case FAULT_STORE_SLOW:
		s->net.slow_ms[SIM_STORE] = begin ? (int64_t)(f->arg % 3000) : 0;
		break;
	case FAULT_STORE_LOSSY:
		s->net.loss_per_mille[SIM_STORE] = begin ? 100 + f->arg % 600 : 0;
		break;
	case FAULT_STORE_LEADER: dcs_leader_change(s); break;
	case FAULT_NET_ISOLATE:
		cut_members(s, 1u << node, begin);
		net_cut(s, node, SIM_STORE, begin);
		net_cut(s, SIM_STORE, node, begin);
		net_cut(s, node, SIM_REMOTE, begin);
		net_cut(s, SIM_REMOTE, node, begin);
		break;
	case FAULT_NET_SPLIT: cut_members(s, f->arg, begin); break;
	case FAULT_NET_ONE_WAY:
		for (int i = 0; i < SIM_NODES; i++)
			if (i != node)
				net_cut(s, f->arg & 1 ? node : i, f->arg & 1 ? i : node, begin);
		break;
	case FAULT_NET_LOSSY: s->net.loss_per_mille[node] = begin ? 100 + f->arg % 500 : 0; break;
	case FAULT_WATCH_STALL:
		s->dcs.watch_stalled_ms[node] = begin ? s->now_ms + f->for_ms : 0;
		break;
	case FAULT_WALL_STEP:
		s->nodes[node].wall_offset_ms += ((int64_t)(f->arg % 120000) - 60000);
		break;
	default: break;
	}
}

static void operator(struct sim *s, struct sim_fault *f, bool begin)
{
	int node = f->hit, leader = dcs_leader_node(s);
	struct ha_request *req = &s->nodes[node].w.request;
	switch (f->kind) {
	case FAULT_OP_PAUSE: faults_change_config(s, edit_pause, begin); break;
	case FAULT_OP_SWITCHOVER:
	case FAULT_OP_SWITCHOVER_ANY:
		if (leader >= 0)
			dcs_put_failover(s, leader,
				f->kind == FAULT_OP_SWITCHOVER && node != leader ? node : -1);
		break;
	case FAULT_OP_FAILOVER: dcs_put_failover(s, -1, node); break;
	case FAULT_OP_RESTART:
		s->checks.hand_ms[node] = s->now_ms;
		req->restart = true;
		node_turn_soon(s, node, 1);
		break;
	case FAULT_OP_REINIT:
		s->checks.hand_ms[node] = s->now_ms;
		req->reinit = true;
		req->reinit_force = f->arg & 1;
		node_turn_soon(s, node, 1);
		break;
	case FAULT_OP_TTL: faults_change_config(s, edit_ttl, f->arg); break;
	case FAULT_OP_SYNC_MODE: faults_change_config(s, edit_sync, f->arg); break;
	case FAULT_OP_NODE_COUNT: faults_change_config(s, edit_count, f->arg); break;
	case FAULT_OP_STRICT: faults_change_config(s, edit_strict, f->arg); break;
	case FAULT_OP_FAILSAFE: faults_change_config(s, edit_failsafe, f->arg); break;
	case FAULT_OP_NOFAILOVER:
		s->nodes[node].tags.nofailover = begin;
		s->nodes[node].nofailover_ms = s->now_ms;
		s->nodes[node].tags.failover_priority = begin ? 0 : 1;
		break;
	case FAULT_OP_SHUTDOWN: /* the agent stops in good order and comes back later */
		if (begin) {
			req->shutdown = true;
			node_turn_soon(s, node, 1);
		} else {
			node_power(s, node, false);
			node_power(s, node, true);
		}
		break;
	default: break;
	}
}

void fault_event(struct sim *s, unsigned index, bool begin)
{
	struct sim_fault *f = &s->faults.list[index];
	rules_new_fact(s);
	if (begin) {
		int leader = dcs_leader_node(s);
		f->hit = f->node >= 0 ? f->node : (int8_t)leader;
		if (f->hit < 0)
			f->hit = (int8_t)(f->arg % s->cfg.member_count);
		sim_log(s, f->hit, "FAULT %u %s for %" PRId64 " ms arg %u", index,
			fault_name(f->kind), f->for_ms, f->arg);
	} else if (f->hit < 0) {
		return;
	} else {
		sim_log(s, f->hit, "fault %u %s ends", index, fault_name(f->kind));
	}
	if (f->kind == FAULT_PG_NO_START)
		s->nodes[f->hit].start_fails = begin;
	else if (f->kind >= FAULT_OP_DEMOTE_CLUSTER)
		remote_fault(s, f, begin);
	else if (f->kind >= FAULT_WATCH_SLOW)
		late_fault(s, f, begin);
	else if (f->kind >= FAULT_WATCHDOG_BROKEN)
		topo_fault(s, f, begin);
	else if (f->kind >= FAULT_PLANNED)
		boot_fault(s, f, begin);
	else if (f->kind >= FAULT_OP_PAUSE)
		operator(s, f, begin);
	else if (!process_fault(s, f, begin) && !pg_fault(s, f, begin))
		net_fault(s, f, begin);
	if (!begin)
		f->hit = -1;
}

void faults_heal(struct sim *s)
{
	for (unsigned i = 0; i < s->faults.count; i++)
		if (s->faults.list[i].hit >= 0 && s->faults.list[i].for_ms)
			fault_event(s, i, false);
	s->dcs.down = false;
	memset(&s->net, 0, sizeof(s->net));
	s->cfg.loss_per_mille = s->cfg.dup_per_mille = s->cfg.unanswered_per_mille = 0;
	for (int i = 0; i < (int)s->cfg.member_count; i++) {
		struct sim_node *n = &s->nodes[i];
		s->dcs.watch_stalled_ms[i] = 0;
		node_vm_pause(s, i, false);
		for (int p = 1; p < PROC_COUNT; p++)
			node_freeze(s, i, (enum sim_proc)p, false);
		n->pg.hung = false;
		pg_thaw(s, i);
		pg_deaf(s, i);
		node_power(s, i, true);
	}
	boot_heal(s);
	topo_heal(s);
	late_heal(s);
	remote_heal(s);
	if (sim_config_now(s)->pause)
		faults_change_config(s, edit_pause, 0);
	sim_log(s, -1, "HEAL: every fault has ended");
}

static bool is_instant(enum sim_fault_kind k)
{
	switch (k) {
	case FAULT_KILL_WORKER:
	case FAULT_KILL_SUPERVISOR:
	case FAULT_KILL_DEADMAN:
	case FAULT_KILL_API:
	case FAULT_PG_CRASH:
	case FAULT_STORE_LEADER:
	case FAULT_STORE_REVOKES:
	case FAULT_WALL_STEP:
	case FAULT_DIR_LOST:
	case FAULT_OP_SWITCHOVER:
	case FAULT_OP_SWITCHOVER_ANY:
	case FAULT_OP_FAILOVER:
	case FAULT_OP_RESTART:
	case FAULT_OP_REINIT:
	case FAULT_OP_TTL:
	case FAULT_OP_SYNC_MODE:
	case FAULT_OP_NODE_COUNT:
	case FAULT_OP_STRICT:
	case FAULT_OP_REMOVE_MEMBER:
	case FAULT_DIR_FOREIGN:
	case FAULT_DIR_DAMAGED:
	case FAULT_OP_ADD_MEMBER:
	case FAULT_OP_FAILSAFE: return true;
	default: return false;
	}
}

/* Troubles that matter together: a standby is behind or out of sight when the leader goes. */
static void plan_pair(struct sim *s, struct rng *r)
{
	static const enum sim_fault_kind first[] = { FAULT_PG_LAG, FAULT_NET_SPLIT, FAULT_NODE_OFF,
		FAULT_NET_ISOLATE, FAULT_STORE_LOSSY, FAULT_OP_SWITCHOVER_ANY, FAULT_STORE_SLOW };
	static const enum sim_fault_kind then[] = { FAULT_NODE_OFF, FAULT_NET_ISOLATE,
		FAULT_PG_CRASH, FAULT_KILL_WORKER, FAULT_OP_SWITCHOVER_ANY, FAULT_STORE_CUT };
	int64_t at = sim_range(r, 40000, s->cfg.heal_ms - 100000);
	struct sim_fault a = { .hit = -1,
		.kind = first[rng_below(r, 7)],
		.at_ms = at,
		.node = (int8_t)rng_below(r, s->cfg.member_count),
		.arg = (uint32_t)rng_next(r) };
	struct sim_fault b = { .hit = -1,
		.kind = then[rng_below(r, 6)],
		.at_ms = at + sim_range(r, 50, 25000),
		.node = -1,
		.arg = (uint32_t)rng_next(r) };
	a.for_ms = is_instant(a.kind) ? 0 : sim_range(r, 20000, 90000);
	b.for_ms = is_instant(b.kind) ? 0 : sim_range(r, 5000, 90000);
	s->faults.list[s->faults.count++] = a;
	s->faults.list[s->faults.count++] = b;
}

void faults_plan(struct sim *s, struct rng *r)
{
	for (unsigned pairs = (unsigned)rng_below(r, 4); pairs; pairs--)
		plan_pair(s, r);
	unsigned count = (unsigned)rng_below(r, 12);
	int64_t last = s->cfg.heal_ms - 5000, at = 30000;
	for (unsigned i = 0; i < count; i++) {
		struct sim_fault *f = &s->faults.list[s->faults.count];
		*f = (struct sim_fault){ .hit = -1 };
		f->kind = (enum sim_fault_kind)rng_below(r, FAULT_PLANNED);
		/* Troubles come in bunches: often the next one hits while the last is being dealt
		 * with. */
		at = sim_chance(r, 550) ? at + sim_range(r, 0, 15000) : sim_range(r, 30000, last);
		f->at_ms = at > last ? last : at;
		f->node = sim_chance(r, 550) ? -1 : (int8_t)rng_below(r, s->cfg.member_count);
		f->arg = (uint32_t)rng_next(r);
		int64_t ttl = s->settings[1].ttl_ms;
		f->for_ms = is_instant(f->kind)	 ? 0
			    : sim_chance(r, 500) ? sim_range(r, 200, ttl / 2)
						 : sim_range(r, ttl / 2, ttl * 5 / 2);
		s->faults.count++;
	}
}
