/* What a death left half done: a bootstrap (initialize is empty), a directory that was being
 * filled, a job that outlived its worker. The witness is the mark beside the data directory
 * (pg_files.mark): the store alone cannot tell whose bootstrap an empty key is, and pg_control
 * alone cannot tell a whole directory from half of initdb. Pure. */
#include "worker/ha/step.h"

static bool marked(const struct pg_files *f)
{
	return f->valid && (f->mark == PG_MARK_ROLES || f->mark == PG_MARK_BOOTSTRAP);
}

bool bootstrap_open(const struct step *s)
{
	const struct pg_files *f = s->v->files;
	/* A key emptied by hand in a cluster that has a /status is repaired as A6 says. */
	return s->c->init_present && s->c->init[0] == '\0' && (marked(f) || !s->c->status_present);
}

/* X61: a bootstrap leaves its mark before it fills the directory. A primary without one is of a
 * complete cluster, whose store lost everything while an empty member began a new one: it says so
 * (A6). To end that bootstrap here would run post_bootstrap on a cluster in use, and set its data
 * aside if that failed. */
bool bootstrap_unfinished(const struct step *s)
{
	const struct pg_files *f = s->v->files;
	return bootstrap_open(s) && (!f->valid || marked(f) || !s->primary);
}

bool data_dir_unfinished(const struct step *s)
{
	const struct pg_files *f = s->v->files;
	if (!f->valid || s->pg_there)
		return false;
	switch (f->mark) {
	case PG_MARK_REPLACING:
	case PG_MARK_BOOTSTRAP: return true;
	case PG_MARK_COPYING: return !f->control.valid || s->v->orphan_job;
	case PG_MARK_ROLES: return !cluster_init_valid(s->c);
	case PG_MARK_REWIND: /* a server, if a wounded one: X42 */
	case PG_MARK_NONE:
	case PG_MARK_COUNT: break;
	}
	return false;
}

/* X30, as the next worker sees it: its primary had to stop, and was started as a standby by
 * somebody who did not know of the bootstrap. What a custom method restores may be a standby of its
 * own. */
static bool started_again(const struct step *s)
{
	return !s->primary && s->v->files->standby_signal &&
	       (!s->set->custom_stands_by || s->v->follow_known);
}

/* X40: the leader key is mine, initialize is empty, PostgreSQL runs: an earlier worker took the key
 * for the first start and died before L4. Its roles may be missing, so post_bootstrap runs (again):
 * each of its steps can be repeated. */
bool rule_resume(struct step *s)
{
	/* A standby leader takes the key last; its roles come from the remote primary. */
	bool mine =
		s->standby ? s->unlocked && s->v->files->valid && s->v->files->mark == PG_MARK_ROLES
			   : s->has_lock && s->v->lock == LOCK_HELD;
	if (s->m->bootstrapping || !mine || !s->pg_there || s->v->task != TASK_NONE ||
		!marked(s->v->files) || !bootstrap_open(s))
		return false;
	s->m->bootstrapping = true;
	s->m->init_cancelled = s->m->publish_tried = false;
	s->m->promote_result = s->standby	  ? TASK_RESULT_TRUE
			       : started_again(s) ? TASK_RESULT_FALSE
						  : TASK_RESULT_NONE;
	plan_note(s, HA_LOG_WARNING, "going on with an interrupted bootstrap rule=X40");
	return false; /* L says how */
}

static bool bootstrap_again(struct step *s, bool resume)
{
	s->m->bootstrapping = true;
	s->m->init_cancelled = s->m->publish_tried = false;
	s->m->promote_result = TASK_RESULT_NONE;
	struct ha_action *a =
		plan_task(s, s->standby ? TASK_BOOTSTRAP_STANDBY_LEADER : TASK_BOOTSTRAP);
	a->flag = resume;
	a->create = !resume && s->v->files->dir_exists && !s->v->files->dir_empty;
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, "X40",
		resume ? "going on with an interrupted bootstrap after initdb"
		       : "beginning an interrupted bootstrap anew");
}

/* X40 without a postmaster. The key stays as it is, so that nobody begins beside us. A custom
 * method cannot be resumed: how far its recovery came is not known. */
bool rule_interrupted(struct step *s)
{
	const struct pg_files *f = s->v->files;
	/* The copy was whole: PostgreSQL took it. */
	if (f->valid && s->pg_there && f->mark == PG_MARK_COPYING && s->v->sql->valid)
		plan_add(s, HA_CLEAR_MARK);
	if (!f->valid || s->pg_there || s->paused || !bootstrap_open(s) ||
		(f->dir_exists && !f->dir_readable) || !(s->unlocked || s->has_lock) ||
		s->v->store == STORE_FAILING)
		return false;
	bool empty = !f->dir_exists || f->dir_empty;
	if (f->mark == PG_MARK_BOOTSTRAP || (f->mark == PG_MARK_ROLES && empty))
		return bootstrap_again(s, false);
	if (f->mark == PG_MARK_ROLES)
		return bootstrap_again(s, !s->set->custom_bootstrap && !s->standby);
	return false;
}

bool bootstrap_unclaimed(struct step *s)
{
	s->plan->log_level = HA_LOG_ERROR;
	return plan_done(s, "X40",
		"initialize key is empty: a bootstrap was interrupted, and nothing says that this "
		"data directory is its complete result; waiting for the member that began it. If "
		"there is none, remove the cluster's keys (pgregentctl remove) and, if this data "
		"directory is not wanted, remove it too");
}

/* X41: two programs must not work on one directory. */
bool rule_orphan_job(struct step *s)
{
	if (!s->v->orphan_job || s->pg_there)
		return false;
	if (s->v->orphan_task == TASK_CRASH_RECOVERY) {
		s->m->crash_recovery_started_ms = s->v->now_ms;
		plan_task(s, TASK_CRASH_RECOVERY);
		return plan_done(s, "X41", "taking over the crash recovery of an earlier worker");
	}
	if (s->v->orphan_task == TASK_REWIND && !s->unlocked && s->leader_conn_url[0] != '\0' &&
		!str_eq(s->leader, s->v->name)) {
		s->m->rewind_state = REWIND_NEED;
		bool fits = str_copy(plan_task(s, TASK_REWIND)->target, LIMIT_NAME, s->leader);
		INVARIANT(fits);
		return plan_done(s, "X41", "taking over pg_rewind of an earlier worker");
	}
	if (s->v->orphan_task == TASK_CLONE && data_dir_unfinished(s) && !s->paused && !s->unlocked)
		return false; /* K2 takes it over */
	return plan_done(s, "X41",
		"waiting for the end of a job that an earlier worker began on the data directory");
}

/* X42: pg_rewind was interrupted after it began, so the directory is neither the old nor the new
 * state, although pg_control still shows the old one. It is rewound again or copied anew, never
 * started. */
bool rule_rewind_interrupted(struct step *s)
{
	const struct pg_files *f = s->v->files;
	if (!f->valid || f->mark != PG_MARK_REWIND || s->m->rewind_state == REWIND_SUCCESS)
		return false;
	/* Its last step is to set this state beside a backup_label; it wants a cleanly stopped
	 * server, so no earlier run of PostgreSQL left both. */
	if (f->control.valid && f->control.state == PG_DB_IN_ARCHIVE_RECOVERY && f->backup_label) {
		plan_add(s, HA_CLEAR_MARK);
		s->m->rewind_state = REWIND_SUCCESS;
		return false;
	}
	s->plan->log_level = HA_LOG_WARNING;
	if (s->has_lock && handover_void(s))
		return true;
	if (s->has_lock) {
		plan_add(s, HA_RELEASE);
		s->plan->verdict = VERDICT_DROP;
		return plan_done(s, "X42",
			"released leader key: an interrupted pg_rewind left "
			"the data directory between two states");
	}
	bool again = s->m->rewind_state != REWIND_FAILED && rewind_allowed(s);
	if (again) {
		s->m->rewind_state = REWIND_NEED;
		if (rewind_step(s))
			return true;
		if (s->v->can_rewind)
			return plan_done(s, "X42",
				"an interrupted pg_rewind must be repeated: waiting for a leader");
	}
	s->plan->log_level = HA_LOG_ERROR;
	return plan_done(s, "X42",
		"an interrupted pg_rewind left the data directory between two states and cannot be "
		"repeated: reinitialize this member (pgregentctl reinit)");
}
