/* The one background task: what its end means, and the rules while it runs (H) or while PostgreSQL
 * starts (I). Pure. */
#include "worker/ha/step.h"

const char *ha_task_word(enum ha_task task)
{
	static const char *const words[TASK_COUNT] = {
		[TASK_NONE] = "nothing",
		[TASK_BOOTSTRAP] = "bootstrap",
		[TASK_BOOTSTRAP_STANDBY_LEADER] = "bootstrap_standby_leader",
		[TASK_CLONE] = "bootstrap from a member",
		[TASK_POST_BOOTSTRAP] = "post_bootstrap",
		[TASK_CRASH_RECOVERY] = "doing crash recovery in a single user mode",
		[TASK_REWIND] = "running pg_rewind",
		[TASK_REINIT] = "reinitialize",
		[TASK_START_PRIMARY] = "starting primary after failure",
		[TASK_RESTART_AFTER_FAILURE] = "restarting after failure",
		[TASK_CHANGE_CONNINFO] = "changing primary_conninfo and restarting",
		[TASK_PROMOTE] = "promote",
		[TASK_DEMOTE] = "demote",
		[TASK_FOLLOW_AFTER_DEMOTION] = "starting after demotion",
		[TASK_RESTART] = "restart",
		[TASK_COPY_SLOTS] = "copy_logical_slots",
		[TASK_REWIND_CHECK] = "checking for divergence",
	};
	INVARIANT((unsigned)task < TASK_COUNT);
	return words[task];
}

static void rewind_check_ended(struct step *s)
{
	struct ha_memory *m = s->m;
	m->rewind_checked_ms = s->v->now_ms;
	if (!s->pg_there)
		m->rewind_checked_generation = s->v->generation;
	enum ha_rewind_state now = s->v->rewind_check_result;
	/* The state stays CHECK: the leader is asked again, it may be another one then. */
	m->rewind_twin = s->v->rewind_twin;
	if (m->rewind_state == REWIND_CHECK && (now == REWIND_NEED || now == REWIND_NOT_NEED))
		m->rewind_state = now;
}

static void rewind_ended(struct step *s, enum ha_task_result result)
{
	struct ha_memory *m = s->m;
	bool removes = s->set->remove_on_rewind_failure || s->set->remove_on_diverged;
	m->task_failed_ms[1] = result == TASK_RESULT_TRUE ? 0 : s->v->now_ms;
	if (result == TASK_RESULT_TRUE) {
		m->rewind_state = REWIND_SUCCESS;
		m->start_failed_ms = 0;		/* another directory */
	} else if (result == TASK_RESULT_FALSE) /* with removal the directory is gone: A12 clones */
		m->rewind_state = removes ? REWIND_INITIAL : REWIND_FAILED;
	else if (s->v->rewind_check_again) {
		/* X76: a start as a standby would append the leader's records to others. */
		m->rewind_state = REWIND_CHECK;
		m->rewind_checked_ms = 0;
	}
}

/* Called once for each end of a task, before anything is decided. */
void task_ended(struct step *s)
{
	struct ha_memory *m = s->m;
	enum ha_task_result result = s->v->task_result;
	switch (s->v->task_ended) {
	case TASK_REWIND_CHECK: rewind_check_ended(s); break;
	case TASK_REWIND: rewind_ended(s, result); break;
	case TASK_PROMOTE:
		/* FALSE = pre_promote forbade it; everything else leaves the next try to E4. */
		m->promote_result =
			result == TASK_RESULT_FALSE ? TASK_RESULT_FALSE : TASK_RESULT_NONE;
		m->promote_refused_ms = result == TASK_RESULT_NONE ? s->v->now_ms : 0;
		/* X67: the supervisor may have dropped a lease that we hold good (its wall clock
		 * jumped). Only a renewal puts it in force again; until the next regular one each
		 * try would be refused. */
		if (m->promote_refused_ms != 0 && s->has_lock)
			plan_add(s, HA_RENEW);
		break;
	case TASK_BOOTSTRAP:
		m->promote_result =
			result == TASK_RESULT_TRUE ? TASK_RESULT_NONE : TASK_RESULT_FALSE;
		break;
	case TASK_BOOTSTRAP_STANDBY_LEADER: /* its roles come from the remote primary: L4 next */
	case TASK_POST_BOOTSTRAP:
		m->promote_result =
			result == TASK_RESULT_TRUE ? TASK_RESULT_TRUE : TASK_RESULT_FALSE;
		break;
	case TASK_DEMOTE:
		/* X30: a new cluster whose primary had to stop before it was published came to
		 * nothing. As a standby of nobody it would wait for its own promotion for ever
		 * (L2), and everybody else for it. */
		if (m->bootstrapping)
			m->promote_result = TASK_RESULT_FALSE;
		if (m->demoted != 0)
			m->demoted_ms = s->v->now_ms;
		break;
	case TASK_CLONE:
	case TASK_REINIT:
		m->rewind_state = REWIND_INITIAL;
		m->task_failed_ms[0] = result == TASK_RESULT_TRUE ? 0 : s->v->now_ms;
		break;
	case TASK_RESTART_AFTER_FAILURE:
	case TASK_FOLLOW_AFTER_DEMOTION:
	case TASK_CHANGE_CONNINFO:
		m->start_failed_ms = result == TASK_RESULT_FALSE ? s->v->now_ms : 0;
		break;
	case TASK_RESTART: m->disable_sync_until_ms = 0; break;
	default: break;
	}
}

/* ---- H ---- */

static bool lock_updated(struct step *s)
{
	return plan_done(s, "H2", "updated leader lock during %s", ha_task_word(s->v->task));
}

/* H1: a crash recovery that takes longer than a failover may. */
static bool crash_task_late(struct step *s)
{
	if (s->v->task != TASK_CRASH_RECOVERY)
		return false;
	int64_t until_ms = s->m->crash_recovery_started_ms + s->set->primary_start_timeout_ms;
	if (s->v->now_ms < until_ms) {
		plan_wake(s, until_ms);
		return false;
	}
	return failover_ask(s, POLL_CRASH_TASK, false);
}

bool task_crash_polled(struct step *s, bool possible)
{
	if (s->v->task != TASK_CRASH_RECOVERY || !s->has_lock)
		return cycle_run(s);
	if (!possible)
		return lock_updated(s);
	if (handover_void(s))
		return true;
	plan_note(s, HA_LOG_INFO, "Demoting self because crash recovery is taking too long");
	plan_demote(s, DEMOTE_IMMEDIATE);
	return plan_done(s, "H1", "terminated crash recovery because of startup timeout");
}

/* H3, H4 and their R: up to the promote file a promotion is cancelled; after it only a stop of the
 * postmaster ends it (S3). */
static bool task_without_lock(struct step *s)
{
	enum ha_task task = s->v->task;
	if (task == TASK_PROMOTE && !s->v->task_promote_committed) {
		plan_add(s, HA_TASK_CANCEL);
		return plan_done(s, "H3", "lost leader before promote");
	}
	/* A job on the directory of a server that does not run has nothing to stop, whatever the
	 * role was; a pg_rewind that is cut short leaves the directory between two states (S9). */
	if (!s->pg_there && (task == TASK_REWIND || task == TASK_CRASH_RECOVERY ||
				    task == TASK_CLONE || task == TASK_REINIT))
		return false;
	bool writes = s->primary || task == TASK_PROMOTE || s->v->role == PG_ROLE_PRIMARY ||
		      s->v->role == PG_ROLE_PROMOTED;
	if (!writes)
		return false;
	if (task == TASK_DEMOTE) {
		/* A gentle stop may take its time only while the key is ours. */
		bool gentle = s->m->demoted == DEMOTE_GRACEFUL || s->m->demoted == DEMOTE_CLUSTER ||
			      s->m->demoted == DEMOTE_SHUTDOWN;
		if (!gentle || s->v->lock != LOCK_LOST)
			return false;
	}
	plan_note(s, HA_LOG_INFO, "Demoting primary during %s", ha_task_word(task));
	plan_demote(s, DEMOTE_IMMEDIATE_NOLOCK);
	return plan_done(s, "H4", "lost leader lock during %s", ha_task_word(task));
}

/* X77: a standby that is started waits for the WAL that makes it consistent, and that is with the
 * one it follows. Once it has to follow another, it may wait for ever: the wait ends, not the
 * server. */
static bool start_outdated(struct step *s)
{
	char target[LIMIT_NAME];
	bool start = s->v->task == TASK_RESTART_AFTER_FAILURE ||
		     s->v->task == TASK_FOLLOW_AFTER_DEMOTION ||
		     s->v->task == TASK_CHANGE_CONNINFO || s->v->task == TASK_CLONE ||
		     s->v->task == TASK_REINIT;
	/* The leader of any other cluster follows nobody, whatever its tags say. */
	if (s->has_lock && !s->standby)
		return false;
	/* Before the supervisor has said yes to it, the order would be taken for refused. */
	if (!start || !s->starting || s->v->proc != PG_PROC_RUNNING || s->primary || s->paused ||
		!follow_target(s, target) || str_eq(target, s->v->following) ||
		!target_has_address(s, target))
		return false;
	plan_add(s, HA_TASK_CANCEL);
	return plan_done(s, "X77", "it has to follow %s: no longer waiting for %s",
		str_eq(target, HA_TARGET_REMOTE) ? "the remote member" : target,
		s->v->following[0] != '\0' ? s->v->following : "nobody");
}

bool rule_task_running(struct step *s)
{
	if (s->v->task == TASK_NONE)
		return false;
	handover_late(s);
	if (s->has_lock && lock_usable(s))
		return crash_task_late(s) || start_outdated(s) || lock_updated(s);
	if (!s->m->bootstrapping && !s->paused && task_without_lock(s))
		return true;
	if (start_outdated(s))
		return true;
	if (s->unlocked)
		plan_note(s, HA_LOG_INFO, "not healthy enough for leader race");
	return plan_done(s, "H5", "%s in progress", ha_task_word(s->v->task));
}

/* ---- I ---- */

static int64_t start_left_ms(const struct step *s)
{
	int64_t timeout = s->m->start_timeout_ms > 0 ? s->m->start_timeout_ms
						     : s->set->primary_start_timeout_ms;
	return s->v->state_since_ms + timeout - s->v->now_ms;
}

static bool still_starting(struct step *s)
{
	int64_t left = start_left_ms(s);
	plan_wake(s, s->v->now_ms + left);
	return plan_done(s, "I5", "PostgreSQL is still starting up, %d seconds until timeout",
		(int)((left + 500) / 1000));
}

static bool start_timed_out(struct step *s)
{
	return plan_done(s, "I4",
		"primary start has timed out, but continuing to wait because failover is not "
		"possible");
}

bool starting_polled(struct step *s, enum poll_use use, bool possible)
{
	if (!s->starting || !s->has_lock || s->paused || s->v->task != TASK_NONE)
		return cycle_run(s);
	if (use == POLL_START_TIMEOUT) {
		if (!possible)
			return start_timed_out(s);
		if (handover_void(s))
			return true;
		plan_note(
			s, HA_LOG_INFO, "Demoting self because primary startup is taking too long");
		plan_demote(s, DEMOTE_IMMEDIATE);
		return plan_done(s, "I3", "stopped PostgreSQL because of startup timeout");
	}
	if (possible && s->c->failover_present)
		return handover_leader_polled(s, true);
	if (s->c->failover_present)
		plan_add(s, HA_CLEAR_FAILOVER)->version = s->c->failover_version;
	return still_starting(s);
}

bool rule_starting(struct step *s)
{
	if (!s->starting) {
		s->m->start_timeout_ms = 0;
		return false;
	}
	if (s->paused) {
		plan_add(s, HA_SET_STATE)->state = PG_STATE_RUNNING;
		s->starting = false;
		return false;
	}
	if (!s->has_lock) {
		plan_note(s, HA_LOG_INFO, "Still starting up as a standby.");
		return false;
	}
	follow_while_starting(s);
	if (start_left_ms(s) <= 0)
		return failover_ask(s, POLL_START_TIMEOUT, false) || start_timed_out(s);
	return handover_leader(s, POLL_HANDOVER_START) || still_starting(s);
}
