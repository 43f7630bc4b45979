/* The model of the tasks that rewrite a data directory: pg_rewind and its check, clones, crash
 * recovery in single-user mode. Small machines like those of sim_task.c. */
#include "tests/sim/sim.h"

static bool source_ready(struct sim *s, int node, int from)
{
	if (from < 0 || from == node)
		return false;
	const struct sim_pg *p = &s->nodes[from].pg;
	return s->nodes[from].on && !s->nodes[from].vm_paused && !p->hung && !p->frozen &&
	       net_open(s, node, from) && net_open(s, from, node) &&
	       (p->phase == PGP_PRIMARY || p->phase == PGP_STANDBY);
}

static int leader_in_sight(const struct sim *s, int node)
{
	const struct sim_worker *w = &s->nodes[node].w;
	return w->snap && w->snap->c.leader_present ? sim_index(w->snap->c.leader) : -1;
}

/* ha 6.3, by timeline numbers and switch points, as the real check has to do it. */
static enum ha_rewind_state rewind_verdict(struct sim *s, int node, int leader)
{
	const struct sim_pg *p = &s->nodes[node].pg, *l = &s->nodes[leader].pg;
	bool in_recovery = true;
	uint64_t lsn = p->replay_lsn;
	if (p->phase == PGP_NONE) {
		if (p->control == PG_DB_SHUTDOWNED) {
			in_recovery = false;
			lsn = p->checkpoint_lsn;
		} else if (p->control != PG_DB_SHUTDOWNED_IN_RECOVERY &&
			   p->control != PG_DB_IN_ARCHIVE_RECOVERY) {
			return REWIND_CHECK;
		} else {
			lsn = p->lsn;
		}
	}
	if (in_recovery && lsn < p->needs_lsn)
		lsn = p->needs_lsn;
	int64_t mine = s->branches[p->branch].tli, theirs = s->branches[l->branch].tli;
	if (mine > theirs)
		return REWIND_NEED;
	if (mine == theirs)
		return REWIND_NOT_NEED;
	struct history_row rows[SIM_HISTORY];
	unsigned count = view_history(s, leader, rows);
	for (unsigned i = 0; i < count; i++) {
		if (rows[i].timeline != mine)
			continue;
		if (in_recovery)
			return lsn > rows[i].lsn ? REWIND_NEED : REWIND_NOT_NEED;
		if (lsn >= rows[i].lsn)
			return REWIND_NEED;
		return p->lsn != rows[i].lsn ? REWIND_NEED : REWIND_NOT_NEED;
	}
	return REWIND_NEED;
}

void copy_rewind_check(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	if (node_clock(s, node) - t->since_ms < 60)
		return;
	int leader = t->target == SIM_REMOTE ? SIM_REMOTE : leader_in_sight(s, node);
	n->w.rewind_result = REWIND_CHECK;
	if (source_ready(s, node, leader) && s->nodes[leader].pg.phase == PGP_PRIMARY)
		n->w.rewind_result = rewind_verdict(s, node, leader);
	n->w.rewind_twin = n->w.rewind_result != REWIND_CHECK && topo_twin(s, node, leader);
	if (n->w.rewind_twin)
		n->w.rewind_result = REWIND_CHECK;
	sim_log(s, node, "rewind check against %s: %s", sim_name(leader),
		n->w.rewind_result == REWIND_NEED	? "needed"
		: n->w.rewind_result == REWIND_NOT_NEED ? "not needed"
							: "cannot tell");
	task_finish(s, node, TASK_RESULT_TRUE);
}

void copy_rewind(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	int leader = t->target >= 0 ? t->target : leader_in_sight(s, node);
	if (t->step == 0) {
		t->step = 1;
		if (!task_stopped(s, node))
			task_ask_stop(s, node, PG_STOP_FAST);
	}
	if (!task_stopped(s, node))
		return;
	if (t->step == 1) {
		t->step = 2;
		t->until_ms = node_clock(s, node) + sim_range(&s->rng, 200, 3000);
		if (source_ready(s, node, leader) && s->nodes[leader].pg.phase == PGP_PRIMARY)
			marks_rewind_begins(s, node);
	}
	if (!source_ready(s, node, leader) || s->nodes[leader].pg.phase != PGP_PRIMARY) {
		task_finish(s, node, TASK_RESULT_NONE); /* the leader went away: asked again */
		return;
	}
	if (node_clock(s, node) < t->until_ms)
		return;
	if (!n->pg.can_rewind || n->rewind_fails) {
		marks_rewind_failed(s, node, t->flag);
		task_finish(s, node, TASK_RESULT_FALSE);
		return;
	}
	marks_rewind_done(s, node, leader);
	task_finish(s, node, TASK_RESULT_TRUE);
}

void copy_clone(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	/* Without a source only from a backup (K3). */
	int from = t->kind == TASK_BOOTSTRAP_STANDBY_LEADER ? SIM_REMOTE
		   : t->target >= 0			    ? t->target
							    : SIM_BACKUP;
	t->target = (int8_t)from;
	if (t->step == 3) {
		int how = task_started(s, node);
		if (how)
			task_finish(s, node, how > 0 ? TASK_RESULT_TRUE : TASK_RESULT_FALSE);
		return;
	}
	if (t->step == 0) {
		t->step = 1;
		if (!task_stopped(s, node))
			task_ask_stop(s, node, PG_STOP_IMMEDIATE);
	}
	if (!task_stopped(s, node))
		return;
	n->w.state = PG_STATE_CREATING_REPLICA;
	if (!source_ready(s, node, from)) {
		if (t->step == 2)
			marks_clone_failed(s, node);
		task_finish(s, node, TASK_RESULT_FALSE);
		return;
	}
	if (t->step == 1) {
		t->step = 2;
		t->until_ms = node_clock(s, node) + sim_range(&s->rng, 500, 8000) + n->clone_ms;
		marks_clone_begins(s, node);
		if (t->kind == TASK_BOOTSTRAP_STANDBY_LEADER)
			n->pg.mark = PG_MARK_BOOTSTRAP;
	}
	if (node_clock(s, node) < t->until_ms)
		return;
	if (n->clone_fails) {
		marks_clone_failed(s, node);
		task_finish(s, node, TASK_RESULT_FALSE);
		return;
	}
	marks_clone_done(s, node, from);
	n->w.role = PG_ROLE_REPLICA;
	n->w.state = PG_STATE_STOPPED;
	if (t->kind == TASK_BOOTSTRAP_STANDBY_LEADER) {
		n->pg.mark = PG_MARK_ROLES;
		n->w.role = PG_ROLE_STANDBY_LEADER;
		n->w.following = SIM_REMOTE;
		n->w.follow_known = true;
		task_ask_start(s, node, PG_START_STANDBY);
		t->step = 3;
		return;
	}
	task_finish(s, node, TASK_RESULT_TRUE);
}

void task_crash_recovered(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	if (n->pg.control != PG_DB_SHUTDOWNED_IN_RECOVERY) {
		n->pg.checkpoint_lsn = n->pg.lsn;
		n->pg.checkpoint_tli = s->branches[n->pg.branch].tli;
		n->pg.lsn += 120;
		n->pg.replay_lsn = n->pg.lsn;
	}
	n->pg.standby_signal = false;
	n->pg.control = PG_DB_SHUTDOWNED;
}

void copy_crash_recovery(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_task *t = &n->w.task;
	if (t->step == 0) {
		t->step = 1;
		t->until_ms =
			node_clock(s, node) + sim_range(&s->rng, 100, 1500) + n->pg.recovery_ms;
		n->pg.recovers_until_ms = s->now_ms + 2000 + n->pg.recovery_ms;
	}
	if (node_clock(s, node) < t->until_ms)
		return;
	if (n->pg.damaged || n->pg.lsn < n->pg.needs_lsn || !task_stopped(s, node)) {
		task_finish(s, node, TASK_RESULT_FALSE);
		return;
	}
	task_crash_recovered(s, node);
	task_finish(s, node, TASK_RESULT_TRUE);
}
