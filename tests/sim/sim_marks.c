/* What a death leaves half done: the mark beside the data directory (pg_files.mark) and the job
 * that goes on without its worker. The model of worker/files/mark.h and of the jobs that are taken
 * over. Also the two tasks whose interruption matters: clone and pg_rewind. */
#include "tests/sim/sim.h"

static bool is_job(const struct sim_task *t)
{
	switch (t->kind) {
	case TASK_CLONE:
	case TASK_BOOTSTRAP_STANDBY_LEADER:
	case TASK_REINIT:
	case TASK_REWIND: return t->step == 2;
	case TASK_CRASH_RECOVERY: return t->step == 1;
	default: return false;
	}
}

/* All of them copy. */
static enum ha_task kind_of_job(enum ha_task kind)
{
	return kind == TASK_REINIT || kind == TASK_BOOTSTRAP_STANDBY_LEADER ? TASK_CLONE : kind;
}

/* The worker is gone, its job is not. */
void marks_worker_gone(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	const struct sim_task *t = &n->w.task;
	if (!is_job(t))
		return;
	n->orphan = kind_of_job(t->kind);
	n->orphan_from = t->target;
	n->orphan_until_ms = node_when(s, node, t->until_ms);
	sim_log(s, node, "the job of %s goes on without its worker", ha_task_word(n->orphan));
}

/* Everything ends with the node. */
void marks_node_off(struct sim *s, int node)
{
	s->nodes[node].orphan = TASK_NONE;
	s->nodes[node].w.task.kind = TASK_NONE;
}

static bool readable(const struct sim *s, int node, int from)
{
	if (from < 0 || from == node)
		return false;
	const struct sim_node *o = &s->nodes[from];
	return o->on && !o->vm_paused && !o->pg.hung && !o->pg.frozen && net_open(s, node, from) &&
	       net_open(s, from, node) &&
	       (o->pg.phase == PGP_PRIMARY || o->pg.phase == PGP_STANDBY);
}

static void take_over_files(struct sim *s, int node, int from)
{
	struct sim_pg *p = &s->nodes[node].pg;
	const struct sim_pg *src = &s->nodes[from].pg;
	bool rewound = p->sysid == src->sysid && !p->damaged;
	int16_t common;
	uint64_t from_lsn =
		rewound ? branch_common(s, p->branch, p->lsn, src->branch, src->lsn, &common) : 0;
	p->branch = src->branch;
	p->lsn = p->needs_lsn = src->lsn;
	/* A copy brings the WAL that it needs. */
	if (s->cfg.short_copies && rewound && !s->nodes[node].patroni && from_lsn < src->lsn)
		p->lsn = from_lsn + rng_below(&s->rng, src->lsn - from_lsn + 1);
	p->replay_lsn = p->lsn;
	p->checkpoint_lsn = src->checkpoint_lsn;
	p->checkpoint_tli = src->checkpoint_tli;
	p->control = PG_DB_IN_ARCHIVE_RECOVERY;
	p->standby_signal = true;
	p->wounded = p->damaged = false;
}

void marks_clone_begins(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_pg *p = &n->pg;
	p->dir_exists = true;
	p->dir_empty = p->wounded = p->backup_label = false;
	p->damaged = true; /* pg_control comes last */
	p->sysid = 0;
	p->needs_lsn = 0;
	p->mark = PG_MARK_COPYING;
	n->slots_copied = false;
}

void marks_clone_done(struct sim *s, int node, int from)
{
	struct sim_pg *p = &s->nodes[node].pg;
	take_over_files(s, node, from);
	p->sysid = s->nodes[from].pg.sysid;
	p->ssn_file = (struct sim_ssn){ 0 };
	p->mark = PG_MARK_NONE;
}

/* A copy that failed is removed. */
void marks_clone_failed(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	p->dir_empty = true;
	p->damaged = false;
	p->mark = PG_MARK_NONE;
}

void marks_rewind_begins(struct sim *s, int node)
{
	s->nodes[node].pg.mark = PG_MARK_REWIND;
	s->nodes[node].pg.wounded = true;
}

void marks_rewind_done(struct sim *s, int node, int from)
{
	take_over_files(s, node, from);
	s->nodes[node].pg.mark = PG_MARK_NONE;
	s->nodes[node].pg.backup_label = true;
}

/* With a healthy leader: the directory goes, if that is wanted (6.4-10). */
void marks_rewind_failed(struct sim *s, int node, bool remove)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (remove) {
		boot_wipe(s, node);
		return;
	}
	p->mark = PG_MARK_NONE; /* it said no before it touched anything */
	p->wounded = false;
}

static void orphan_ends(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	enum ha_task job = n->orphan;
	enum pg_mark mark = n->pg.mark;
	bool good = readable(s, node, n->orphan_from) && sim_chance(&s->rng, 600);
	n->orphan = TASK_NONE;
	sim_log(s, node, "the job of %s ended without its worker%s", ha_task_word(job),
		job == TASK_CRASH_RECOVERY || good ? "" : ", not at its end");
	if (job == TASK_CLONE && good) {
		marks_clone_done(s, node, n->orphan_from);
		n->pg.mark = mark; /* nobody was left to take it away */
	} else if (job == TASK_REWIND && good) {
		marks_rewind_done(s, node, n->orphan_from);
		n->pg.mark = PG_MARK_REWIND;
	} else if (job == TASK_CRASH_RECOVERY) {
		task_crash_recovered(s, node);
	}
}

/* True: the task goes on with the job that is there. */
bool marks_take_over(struct sim *s, int node, struct sim_task *t)
{
	struct sim_node *n = &s->nodes[node];
	if (n->orphan == TASK_NONE || s->now_ms >= n->orphan_until_ms)
		return false;
	enum ha_task kind = kind_of_job(t->kind);
	if (kind != n->orphan) {
		if (t->kind != TASK_DEMOTE && t->kind != TASK_REWIND_CHECK)
			violation(s, "S20", "%s begins %s while %s of an earlier worker runs",
				sim_name(node), ha_task_word(t->kind), ha_task_word(n->orphan));
		return false;
	}
	t->until_ms = node_clock(s, node) + n->orphan_until_ms - s->now_ms;
	t->step = t->kind == TASK_CRASH_RECOVERY ? 1 : 2;
	if (kind != TASK_CRASH_RECOVERY)
		t->target = (int8_t)n->orphan_from;
	n->orphan = TASK_NONE;
	return true;
}

void marks_view(struct sim *s, int node, struct pg_files *f, struct ha_view *v)
{
	struct sim_node *n = &s->nodes[node];
	if (n->orphan && s->now_ms >= n->orphan_until_ms)
		orphan_ends(s, node);
	f->mark = f->valid ? n->pg.mark : PG_MARK_NONE;
	f->backup_label = f->valid && n->pg.backup_label;
	v->orphan_job = n->orphan != TASK_NONE;
	v->orphan_task = n->orphan;
}

/* What must never run: a directory between two states. */
void marks_check_spawn(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	if (n->pg.wounded)
		violation(s, "S9", "%s starts in a directory that pg_rewind left half done",
			sim_name(node));
	if (n->orphan && s->now_ms < n->orphan_until_ms)
		violation(s, "S20", "%s starts PostgreSQL while %s works on its directory",
			sim_name(node), ha_task_word(n->orphan));
	n->pg.backup_label = false;
}
