/* Clusters that do not exist yet: initdb, the race for /initialize, what goes wrong in between, and
 * the operator who clears away what was killed in the middle. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define CUSTOM_SYSID 77 /* of the cluster whose backup a custom bootstrap restores */
#define BASE	     7000000000000000000ull

int boot_sysid(const struct sim *s)
{
	const struct cluster *c = &s->dcs.now.c;
	return cluster_init_valid(c) ? (int)(strtoull(c->init, NULL, 10) - BASE) : 0;
}

void boot_wipe(struct sim *s, int node)
{
	s->nodes[node].slots_copied = false;
	s->nodes[node].orphan = TASK_NONE;
	struct sim_pg *p = &s->nodes[node].pg;
	p->dir_exists = p->dir_empty = true;
	p->sysid = 0;
	p->mark = PG_MARK_NONE;
	p->wounded = p->backup_label = false;
	p->checkpoint_lsn = 0;
	p->pitr = false;
	p->heard_branch = 0;
	p->standby_signal = p->fresh = p->unpublished = p->damaged = false;
	p->ssn_file = (struct sim_ssn){ 0 };
}

void boot_empty(struct sim *s)
{
	s->sysids = 0;
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		boot_wipe(s, (int)i);
}

void boot_rename_failed(struct sim *s, int node)
{
	if (s->nodes[node].pg.phase != PGP_NONE)
		violation(s, "L1", "%s moves its data directory while PostgreSQL runs in it",
			sim_name(node));
	boot_wipe(s, node);
}

/* What initdb leaves: a cluster that nobody else has. */
static void initdb_done(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	INVARIANT(s->branch_count < SIM_BRANCHES);
	int16_t b = (int16_t)s->branch_count++;
	s->branches[b] = (struct sim_branch){
		.parent = -1, .node = (int8_t)node, .tli = 1, .born_ms = s->now_ms
	};
	p->dir_empty = false;
	p->fresh = p->unpublished = true;
	p->sysid = ++s->sysids;
	p->branch = b;
	p->lsn = p->replay_lsn = 0x1000000;
	p->checkpoint_lsn = 0x1000000;
	p->checkpoint_tli = 1;
	p->control = PG_DB_SHUTDOWNED;
	if (worker_settings(s, node)->custom_bootstrap) {
		p->pitr = true;
		p->sysid = CUSTOM_SYSID; /* whoever restores it */
		p->control = PG_DB_IN_ARCHIVE_RECOVERY;
	}
}

/* As the real one: PostgreSQL runs as a primary only under the lease. */
static void take_key(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	int64_t now = node_clock(s, node), most = worker_settings(s, node)->retry_timeout_ms;
	if (keeper_lock(&n->w.keeper, now) != LOCK_HELD)
		worker_keeper(s, node,
			(struct keeper_event){ .kind = KEEPER_ACQUIRE, .deadline_ms = now + most });
	n->w.task.until_ms = now + most + 500;
	n->w.task.step = 2;
}

static void run_bootstrap(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	int64_t now = node_clock(s, node);
	switch (t->step) {
	case 0:
		if (t->flag) { /* initdb had ended: on with the first start */
			n->pg.fresh = true;
			take_key(s, node);
			return;
		}
		n->w.role = PG_ROLE_UNINITIALIZED;
		n->w.state = PG_STATE_INITDB;
		n->pg.dir_exists = true;
		n->pg.dir_empty = false; /* half of one, until it is done */
		n->pg.sysid = 0;
		n->pg.needs_lsn = 0;
		n->pg.damaged = true;
		n->pg.mark = PG_MARK_BOOTSTRAP;
		t->until_ms = now + sim_range(&s->rng, 500, 4000) + n->initdb_ms;
		t->step = 1;
		return;
	case 1:
		if (now < t->until_ms)
			return;
		if (n->initdb_fails) {
			n->w.state = PG_STATE_INITDB_FAILED;
			task_finish(s, node, TASK_RESULT_FALSE);
			return;
		}
		n->pg.damaged = false;
		initdb_done(s, node);
		n->pg.mark = PG_MARK_ROLES;
		take_key(s, node);
		return;
	case 2:
		if (keeper_lock(&n->w.keeper, now) == LOCK_HELD && n->w.keeper.acked_until_ms) {
			task_ask_start(s, node, PG_START_PRIMARY);
			t->step = 3;
		} else if (now >= t->until_ms) {
			task_finish(s, node, TASK_RESULT_FALSE);
		}
		return;
	default: {
		int how = task_started(s, node);
		if (how)
			task_finish(s, node, how > 0 ? TASK_RESULT_TRUE : TASK_RESULT_FALSE);
	}
	}
}

static void run_post_bootstrap(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	int64_t now = node_clock(s, node);
	if (t->step == 0) {
		t->step = 1;
		t->until_ms = now + sim_range(&s->rng, 50, 1500) + n->post_bootstrap_ms;
	}
	bool up = n->pg.phase == PGP_PRIMARY && !n->pg.hung && !n->pg.frozen;
	if (up && now < t->until_ms)
		return;
	task_finish(s, node, up && !n->post_bootstrap_fails ? TASK_RESULT_TRUE : TASK_RESULT_FALSE);
}

void boot_task(struct sim *s, int node)
{
	switch (s->nodes[node].w.task.kind) {
	case TASK_BOOTSTRAP: run_bootstrap(s, node); break;
	case TASK_POST_BOOTSTRAP: run_post_bootstrap(s, node); break;
	default: /* no other task lives here */ task_finish(s, node, TASK_RESULT_FALSE); break;
	}
}

void boot_fault(struct sim *s, const struct sim_fault *f, bool begin)
{
	struct sim_node *n = &s->nodes[f->hit];
	switch (f->kind) {
	case FAULT_INITDB_SLOW: n->initdb_ms = begin ? f->for_ms : 0; break;
	case FAULT_INITDB_FAILS: n->initdb_fails = begin; break;
	case FAULT_POST_BOOTSTRAP_SLOW: n->post_bootstrap_ms = begin ? f->for_ms : 0; break;
	case FAULT_POST_BOOTSTRAP_FAILS: n->post_bootstrap_fails = begin; break;
	case FAULT_CLONE_FAILS: n->clone_fails = begin; break;
	case FAULT_OP_REMOVE_MEMBER: dcs_remove_member(s, f->hit); break;
	default: break;
	}
}

static bool somebody_bootstraps(const struct sim *s)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if (s->nodes[i].procs[PROC_WORKER].alive && s->nodes[i].w.memory.bootstrapping)
			return true;
	return false;
}

/* A bootstrap that was killed leaves its mark, as everywhere: the operator removes it, and the data
 * directories of clusters that never came to be. */
void boot_heal(struct sim *s)
{
	if (!s->cfg.empty || somebody_bootstraps(s))
		return;
	if (s->dcs.now.c.init_present && !boot_sysid(s)) {
		sim_log(s, -1, "operator: removes /initialize");
		s->checks.init_removed = true;
		dcs_clear_init(s);
	}
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		struct sim_pg *p = &s->nodes[i].pg;
		if (p->dir_empty || (p->sysid == boot_sysid(s) && !p->damaged))
			continue;
		sim_log(s, (int)i, "operator: removes the data directory");
		pg_kill(s, (int)i, EXIT_CLASS_SIGNAL, "data directory removed");
		boot_wipe(s, (int)i);
	}
}

/* At the end there is one cluster, and everybody is of it. */
void boot_check_end(struct sim *s)
{
	int cluster = boot_sysid(s);
	if (!cluster)
		violation(s, "INIT", "/initialize does not name a cluster at the end%s",
			s->dcs.now.c.init_present ? ": left dangling" : "");
	for (unsigned i = 0; i < s->cfg.member_count && s->cfg.empty && cluster; i++)
		if (s->nodes[i].pg.sysid != cluster)
			violation(s, "S11", "%s has a cluster of its own at the end",
				sim_name((int)i));
}

/* The faults of a history stay; its beginning gets some that hit a bootstrap. */
void boot_profile(struct sim *s, uint64_t seed)
{
	static const enum sim_fault_kind kinds[] = { FAULT_INITDB_SLOW, FAULT_INITDB_FAILS,
		FAULT_POST_BOOTSTRAP_SLOW, FAULT_POST_BOOTSTRAP_FAILS, FAULT_CLONE_FAILS,
		FAULT_KILL_WORKER, FAULT_KILL_SUPERVISOR, FAULT_NODE_OFF, FAULT_STORE_CUT,
		FAULT_STORE_NO_ANSWERS, FAULT_PG_CRASH, FAULT_OP_REMOVE_MEMBER, FAULT_CLONE_SLOW };
	struct rng r;
	rng_seed(&r, seed ^ 0x7f4a7c15b0074b00u);
	s->cfg.empty = true;
	s->settings[1].have_bootstrap = true;
	for (unsigned n = (unsigned)rng_below(&r, 5); n && s->faults.count < SIM_FAULTS; n--) {
		struct sim_fault *f = &s->faults.list[s->faults.count++];
		*f = (struct sim_fault){ .hit = -1,
			.kind = kinds[rng_below(&r, sizeof(kinds) / sizeof(kinds[0]))],
			.at_ms = sim_range(&r, 10, 20000),
			.node = (int8_t)rng_below(&r, s->cfg.member_count),
			.arg = (uint32_t)rng_next(&r) };
		bool instant = f->kind == FAULT_KILL_WORKER || f->kind == FAULT_KILL_SUPERVISOR ||
			       f->kind == FAULT_PG_CRASH || f->kind == FAULT_OP_REMOVE_MEMBER;
		f->for_ms = instant ? 0 : sim_range(&r, 1000, 60000);
	}
}
