/* PostgreSQL is down (rules B), what is left of a demotion, and the rewind step (ha 6.5). Pure. */
#include "worker/ha/step.h"

#define RELEASE_AGAIN_MS 1000

/* The states of pg_control in which a primary was not shut down cleanly. */
static bool control_unclean(const struct step *s)
{
	const struct pg_control *k = &s->v->files->control;
	return k->valid && (k->state == PG_DB_IN_PRODUCTION || k->state == PG_DB_SHUTDOWNING ||
				   k->state == PG_DB_IN_CRASH_RECOVERY);
}

/* CR() of B4: one single-user run between two start attempts, and only where its clean end is of
 * use. */
static bool crash_recovery(struct step *s, const char *rule)
{
	if (s->m->crash_recovery_started_ms != 0 || !(s->unlocked || s->v->can_rewind))
		return false;
	s->m->crash_recovery_started_ms = s->v->now_ms;
	plan_task(s, TASK_CRASH_RECOVERY);
	return plan_done(s, rule, "doing crash recovery in a single user mode");
}

/* A node that the check and the rewind connect to: the remote member, or a leader with an address.
 */
static bool rewind_source(const struct step *s, char out[static LIMIT_NAME])
{
	/* A standby cluster may be fed by an archive alone: nobody to ask then. */
	if (s->standby)
		return s->set->standby_host[0] != '\0' &&
		       str_copy(out, LIMIT_NAME, HA_TARGET_REMOTE);
	if (s->unlocked || s->leader[0] == '\0' || str_eq(s->leader, s->v->name) ||
		s->leader_conn_url[0] == '\0')
		return false;
	return str_copy(out, LIMIT_NAME, s->leader);
}

/* A new leader is in recovery until it was promoted, and cannot tell where its timeline begins: its
 * member key says when (6.3). */
static bool source_is_primary(const struct step *s)
{
	const struct member *m = s->standby ? NULL : cluster_member_peek(s->c, s->leader);
	return m == NULL || str_eq(m->role, "primary") || str_eq(m->role, "master");
}

/* The reference keeps the state CHECK when it could not tell and asks again in its next cycle; ours
 * are more frequent. */
static bool check_due(const struct step *s)
{
	return s->m->rewind_state == REWIND_CHECK && source_is_primary(s) &&
	       (s->m->rewind_checked_ms == 0 ||
		       s->v->now_ms - s->m->rewind_checked_ms >= s->set->loop_wait_ms);
}

/* 6.5, for F6 and B7. True = a task was started. */
bool rewind_step(struct step *s)
{
	char source[LIMIT_NAME];
	bool open = s->m->rewind_state == REWIND_CHECK || s->m->rewind_state == REWIND_NEED;
	if (!open || !rewind_allowed(s) || !rewind_source(s, source))
		return false;
	const char *shown = s->standby ? "the remote member" : s->leader;
	bool fits;
	if (check_due(s)) {
		fits = str_copy(plan_task(s, TASK_REWIND_CHECK)->target, LIMIT_NAME, source);
		INVARIANT(fits);
		return plan_done(s, "6.3", "checking whether this node diverged from %s", shown);
	}
	bool twin = s->m->rewind_twin && s->m->rewind_state == REWIND_CHECK;
	if (s->m->rewind_state != REWIND_NEED && !twin)
		return false;
	if (twin && !(s->set->remove_on_diverged && !s->standby)) {
		/* X43: as a standby it would append the leader's records to others. */
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(s, "X43",
			"own timeline has the number of %s's but another history, which pg_rewind "
			"cannot mend: reinitialize this member (pgregentctl reinit)",
			shown);
	}
	int64_t again_ms = s->m->task_failed_ms[1] + s->set->loop_wait_ms;
	if (s->m->task_failed_ms[1] != 0 && s->v->now_ms < again_ms) {
		plan_wake(s, again_ms);
		return plan_done(s, "6.5",
			"pg_rewind is needed but was not possible, trying again in %d seconds",
			(int)((again_ms - s->v->now_ms + 999) / 1000));
	}
	if (s->v->can_rewind && !twin) {
		const struct pg_control *k = &s->v->files->control;
		if (!s->pg_there && k->valid && k->state == PG_DB_IN_ARCHIVE_RECOVERY &&
			crash_recovery(s, "6.5"))
			return true;
		struct ha_action *a = plan_task(s, TASK_REWIND);
		a->flag = s->set->remove_on_rewind_failure || s->set->remove_on_diverged;
		fits = str_copy(a->target, LIMIT_NAME, source);
		INVARIANT(fits);
		return plan_done(s, "6.5", "running pg_rewind from %s", shown);
	}
	if (s->set->remove_on_diverged && !s->standby) {
		/* X65: nobody can be copied before the new leader is promoted (X53), and a copy
		 * that failed is not begun again at once: what there was is gone by then. */
		again_ms = s->m->task_failed_ms[0] + s->set->loop_wait_ms;
		bool failed = s->m->task_failed_ms[0] != 0 && s->v->now_ms < again_ms;
		if (failed)
			plan_wake(s, again_ms);
		if (failed || !source_is_primary(s))
			return plan_done(s, "X65",
				"this node has to be made anew from %s, waiting until that is "
				"possible",
				shown);
		struct ha_action *a = plan_task(s, TASK_REINIT);
		a->stop_mode = PG_STOP_IMMEDIATE;
		a->timeout_ms = s->set->retry_timeout_ms;
		if (!clone_source(s, false, a->target)) {
			fits = str_copy(a->target, LIMIT_NAME, source);
			INVARIANT(fits);
		}
		return plan_done(s, "6.5", "reinitializing due to diverged timelines");
	}
	return false;
}

/* Start in recovery. B8, and the end of every demotion. */
static bool start_in_recovery(struct step *s, enum ha_task task, enum pg_role role,
	const char *target, int64_t timeout_ms)
{
	struct ha_action *a = plan_task(s, task);
	a->role = role;
	a->timeout_ms = timeout_ms;
	bool fits = str_copy(a->target, LIMIT_NAME, target);
	INVARIANT(fits);
	s->m->demoted = 0;
	s->m->demoted_ms = 0;
	return true;
}

static void drop_ssn(struct step *s)
{
	if (s->sync == SYNC_OFF)
		return;
	plan_add(s, HA_SET_SSN)->ssn = (struct ha_ssn){ .managed = true };
}

/* B7: unless the rewind was executed, or the check was already made since this postmaster ended. */
static bool check_wanted(const struct step *s)
{
	switch (s->m->rewind_state) {
	case REWIND_SUCCESS:
	case REWIND_FAILED:
	case REWIND_CHECK: return false;
	case REWIND_NOT_NEED: return s->m->rewind_checked_generation != s->v->generation;
	case REWIND_INITIAL:
	case REWIND_CHECKPOINT:
	case REWIND_NEED: break;
	}
	return true;
}

/* X78: the reference decides once a loop_wait; ours is told of the failure at once, and a check
 * that could not be made (A11) does not keep it from the next start. */
static bool start_failed_lately(struct step *s)
{
	int64_t again_ms = s->m->start_failed_ms + s->set->loop_wait_ms;
	if (s->m->start_failed_ms == 0 || s->v->now_ms >= again_ms)
		return false;
	plan_wake(s, again_ms);
	return plan_done(s, "X78", "failed to start postgres, trying again in %d seconds",
		(int)((again_ms - s->v->now_ms + 999) / 1000));
}

/* B6 to B8. */
static bool recover_as_standby(struct step *s)
{
	char target[LIMIT_NAME] = "";
	enum pg_role role = PG_ROLE_REPLICA;
	const char *rule = "B8", *reason = "starting as a secondary";
	if (s->has_lock && !s->standby) {
		/* B6: it starts read-only and promotes in the next cycle (E), never straight into
		 * writing. */
		s->m->rewind_state = REWIND_INITIAL;
		rule = "B6";
		reason = "starting as readonly because i had the session lock";
	} else {
		if (check_wanted(s))
			rewind_trigger(s);
		if (rewind_step(s) || start_failed_lately(s))
			return true;
		if (s->has_lock) {
			role = PG_ROLE_STANDBY_LEADER;
			reason = "starting as a standby leader because i had the session lock";
		} else if (s->standby && s->unlocked) {
			reason = "trying to follow a remote member because standby cluster is "
				 "unhealthy";
		}
		if (s->standby && s->unlocked) {
			bool fits = str_copy(target, sizeof(target), HA_TARGET_REMOTE);
			INVARIANT(fits);
		} else if (!follow_target(s, target)) {
			target[0] = '\0';
		}
		drop_ssn(s);
	}
	s->m->recovering = true;
	/* With the lock the start is watched by I3 against primary_start_timeout, not by the task.
	 */
	start_in_recovery(s, TASK_RESTART_AFTER_FAILURE, role, target,
		s->has_lock ? s->set->primary_start_timeout_ms : 0);
	return plan_done(s, rule, "%s", reason);
}

bool stage_recover(struct step *s)
{
	/* B5 wants C as it is now; without an answer the start has to wait, except that a standby
	 * needs no store. */
	return recover_as_standby(s);
}

/* B2 to B5. */
static bool recover(struct step *s, int64_t timeout_ms)
{
	const struct pg_files *f = s->v->files;
	const struct pg_control *k = &f->control;
	bool stopped_as_primary =
		k->valid &&
		(k->state == PG_DB_IN_PRODUCTION || k->state == PG_DB_IN_CRASH_RECOVERY ||
			k->state == PG_DB_SHUTDOWNING || k->state == PG_DB_SHUTDOWNED);
	bool crashed = s->v->state == PG_STATE_CRASHED || s->v->state == PG_STATE_RUNNING ||
		       s->v->state == PG_STATE_STARTING;
	if (timeout_ms > 0 && stopped_as_primary && crashed && s->v->role == PG_ROLE_PRIMARY &&
		!f->standby_signal && !f->recovery_signal && !s->standby &&
		s->v->lock == LOCK_HELD) {
		struct ha_action *a = plan_task(s, TASK_START_PRIMARY);
		a->role = PG_ROLE_PRIMARY;
		a->timeout_ms = timeout_ms;
		s->m->recovering = true;
		return plan_done(s, "B2", "starting primary after failure");
	}
	if (s->v->watchdog_armed)
		plan_add(s, HA_WATCHDOG_OFF);
	if (control_unclean(s)) {
		if (f->major >= 15 && f->backup_label)
			plan_note(s, HA_LOG_INFO,
				"Skipping single-user crash recovery because backup_label exists "
				"rule=B4");
		else if (crash_recovery(s, "B4"))
			return true;
	}
	return plan_reread(s, STAGE_RECOVER, "B5");
}

bool crashed_polled(struct step *s, bool possible)
{
	if (!possible)
		return recover(s, 0);
	if (handover_void(s))
		return true;
	plan_note(s, HA_LOG_INFO, "Primary crashed. Failing over.");
	plan_add(s, HA_WATCHDOG_OFF);
	plan_demote(s, DEMOTE_IMMEDIATE);
	return plan_done(s, "B1", "stopped PostgreSQL to fail over after a crash");
}

bool rule_crashed(struct step *s)
{
	if (!s->has_lock || !lock_usable(s))
		return recover(s, 0);
	if (s->set->primary_start_timeout_ms == 0) {
		if (failover_ask(s, POLL_CRASHED, false))
			return true;
		return recover(s, 0);
	}
	return recover(s, s->set->primary_start_timeout_ms);
}

/* X6: a clean stop for a switchover ended and no standby has its last record. Giving the key away
 * now would let a candidate that misses acknowledged commits be promoted by name (S15); this node
 * has everything, so it goes on as the primary. */
static bool undo_handover(struct step *s)
{
	if (s->c->failover_present) {
		struct ha_action *a = plan_add(s, HA_CLEAR_FAILOVER);
		a->version = s->c->failover_version;
	}
	struct ha_action *a = plan_task(s, TASK_START_PRIMARY);
	a->role = PG_ROLE_PRIMARY;
	a->timeout_ms = s->set->primary_start_timeout_ms;
	s->m->recovering = true;
	s->m->demoted = 0;
	s->m->demoted_ms = 0;
	s->m->rewind_state = REWIND_INITIAL;
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, "X6",
		"%s: no member received the shutdown checkpoint, continuing as the leader",
		handover_word(s));
}

/* The rest of a demotion (4.2 rows 7 to 11): who leads now, and start as its standby. */
bool rule_after_demotion(struct step *s)
{
	enum ha_demote_mode mode = s->m->demoted;
	if (mode == 0 || mode == DEMOTE_SHUTDOWN)
		return false;
	/* X30: a standby of nobody would look to the next worker like the end of a bootstrap that
	 * is still to come. */
	if (s->m->bootstrapping && !s->m->publish_tried &&
		s->m->promote_result == TASK_RESULT_FALSE) {
		s->plan->verdict = VERDICT_DROP;
		return plan_done(
			s, "X30", "the bootstrap has failed, waiting for DCS to give its key back");
	}
	if (s->m->demoted_ms == 0)
		s->m->demoted_ms = s->v->now_ms;
	bool releases = mode == DEMOTE_GRACEFUL || mode == DEMOTE_IMMEDIATE;
	if (mode == DEMOTE_GRACEFUL && s->has_lock && lock_usable(s) &&
		s->v->files->control.valid && s->v->files->control.state == PG_DB_SHUTDOWNED)
		return undo_handover(s);
	if (releases && s->has_lock) {
		/* The task ended without its release; the key must not stay with a node that
		 * stepped down. Not at every look: the answer takes its time (X48). */
		int64_t again_ms = s->m->release_again_ms;
		s->plan->verdict = VERDICT_DROP;
		if (again_ms != 0 && s->v->now_ms < again_ms) {
			plan_wake(s, again_ms);
			return plan_done(s, "X7", "waiting for the end of the leader key");
		}
		if (handover_void(s))
			return true;
		plan_add(s, HA_RELEASE);
		s->m->release_again_ms = s->v->now_ms + RELEASE_AGAIN_MS;
		return plan_done(s, "X7", "released leader key after demotion");
	}
	bool leads = s->standby && s->has_lock;
	if (mode == DEMOTE_OFFLINE || s->v->store == STORE_FAILING) {
		drop_ssn(s);
		/* Who leads is not known, but where the remote primary is. */
		start_in_recovery(s, TASK_FOLLOW_AFTER_DEMOTION,
			leads ? PG_ROLE_STANDBY_LEADER : PG_ROLE_REPLICA,
			standby_target(s) ? HA_TARGET_REMOTE : "", 0);
		return plan_done(s, "4.2", "starting after demotion");
	}
	int64_t until_ms = s->m->demoted_ms + 2000;
	if (releases && s->unlocked && s->v->now_ms < until_ms) {
		/* Others get two seconds to take the key, so that the first start already follows
		 * them. */
		plan_wake(s, until_ms);
		return plan_done(s, "4.2", "waiting for a new leader after demotion");
	}
	if (control_unclean(s) && s->v->can_rewind &&
		!(s->v->files->major >= 15 && s->v->files->backup_label) && crash_recovery(s, "B4"))
		return true;
	if (rewind_step(s))
		return true;
	char target[LIMIT_NAME];
	if (!follow_target(s, target))
		target[0] = '\0';
	drop_ssn(s);
	start_in_recovery(s, TASK_FOLLOW_AFTER_DEMOTION,
		leads ? PG_ROLE_STANDBY_LEADER : PG_ROLE_REPLICA, target, 0);
	return plan_done(s, "4.2", "starting after demotion");
}
