/* What people and schedules ask of this node: the end of the agent (ha 1.15), restart (N),
 * reinitialise (O). Pure. */
#include "worker/ha/step.h"

#include <inttypes.h>

/* ---- schedules (1.14) ---- */

/* Wall time as text; civil calendar from days, without the C library's time zones. */
static void iso_time(int64_t wall_us, char out[static 40])
{
	int64_t sec = wall_us / 1000000, days = sec / 86400, rest = sec % 86400;
	int64_t z = days + 719468, era = z / 146097, doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	int64_t month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
	bool fits = str_format(out, 40, "%04d-%02d-%02dT%02d:%02d:%02d+00:00", (int)year,
		(int)month, (int)(doy - (153 * mp + 2) / 5 + 1), (int)(rest / 3600),
		(int)(rest / 60 % 60), (int)(rest % 60));
	INVARIANT(fits);
}

/* R: a timer is armed where the reference sleeps inside its cycle. */
enum due schedule_due(struct step *s, const char *what, int64_t at_wall_us, bool bad)
{
	if (s->paused)
		return DUE_NO;
	if (bad || at_wall_us <= 0) {
		plan_note(s, HA_LOG_WARNING, "Incorrect value of scheduled_at for %s", what);
		return DUE_STALE;
	}
	char at[40];
	iso_time(at_wall_us, at);
	int64_t delta_ms = (at_wall_us - s->v->wall_us) / 1000;
	if (delta_ms > s->set->loop_wait_ms) {
		plan_note(s, HA_LOG_INFO, "Awaiting %s at %s (in %" PRId64 " seconds)", what, at,
			delta_ms / 1000);
		return DUE_NO;
	}
	if (delta_ms < -(s->set->loop_wait_ms + s->set->loop_wait_ms / 2) / 1000 * 1000) {
		plan_note(s, HA_LOG_WARNING, "Found a stale %s value, cleaning up: %s", what, at);
		return DUE_STALE;
	}
	if (delta_ms > 0) {
		plan_wake(s, s->v->now_ms + delta_ms);
		return DUE_NO;
	}
	plan_note(s, HA_LOG_INFO, "Manual scheduled %s at %s", what, at);
	return DUE_NOW;
}

/* ---- while_not_sync (1.14) ---- */

bool ha_effective_nosync(const struct ha_view *view, const struct ha_memory *memory)
{
	return view->set->tags.nosync || memory->disable_sync_until_ms != 0;
}

/* A synchronous standby that stops holds up commits; first it asks not to be one. Bounded, and
 * never a reason not to stop. */
bool wait_not_sync(struct step *s)
{
	if (s->has_lock || s->primary || s->sync == SYNC_OFF || s->set->tags.nosync || s->paused ||
		s->v->store == STORE_FAILING)
		return false;
	if (s->m->disable_sync_until_ms == 0)
		s->m->disable_sync_until_ms = s->v->now_ms + 2 * s->set->loop_wait_ms;
	if (!cluster_sync_is_voter(s->c, s->v->name) || s->v->now_ms >= s->m->disable_sync_until_ms)
		return false;
	plan_wake(s, s->v->now_ms + 2000 < s->m->disable_sync_until_ms
			     ? s->v->now_ms + 2000
			     : s->m->disable_sync_until_ms);
	return plan_done(s, "N1", "Waiting for primary to release us from synchronous standby");
}

/* ---- the end of the agent (1.15) ---- */

static bool shutdown_done(struct step *s, bool leave)
{
	plan_add(s, HA_SHUTDOWN_DONE)->flag = leave;
	s->plan->verdict = leave && s->has_lock ? VERDICT_HOLD : VERDICT_DROP;
	if (leave)
		return plan_done(s, "1.15",
			"Leader key is not deleted and Postgresql is not stopped due paused state");
	return plan_done(s, "1.15", "PostgreSQL is stopped, the agent ends");
}

/* X72: the key goes at the end of the stop whether anybody has the last record or not; by name it
 * would be taken by one that has not (S15). */
static bool removes_switchover(struct step *s)
{
	return s->has_lock && lock_usable(s) && s->v->store == STORE_OK && handover_void(s);
}

bool rule_shutdown(struct step *s)
{
	if (!s->v->request.shutdown)
		return false;
	s->m->shutdown_seen = true;
	if (s->v->task == TASK_DEMOTE && s->m->demoted == DEMOTE_SHUTDOWN &&
		s->v->lock == LOCK_LOST && s->primary)
		return false; /* H4: no time for a gentle stop any more */
	if (s->v->task != TASK_NONE) {
		handover_late(s);
		if (s->v->task != TASK_DEMOTE)
			plan_add(s, HA_TASK_CANCEL);
		return plan_done(
			s, "1.15", "shutting down, %s in progress", ha_task_word(s->v->task));
	}
	if (s->paused || s->m->join_aborted) {
		if (s->v->watchdog_armed)
			plan_add(s, HA_WATCHDOG_OFF);
		return shutdown_done(s, true);
	}
	if (s->pg_there) {
		if (wait_not_sync(s) || removes_switchover(s))
			return true;
		struct ha_action *a = plan_demote(s, DEMOTE_SHUTDOWN);
		a->flag = true; /* nobody can be asked to go on as primary here */
		a->timeout_ms = s->sync != SYNC_OFF ? s->set->primary_stop_timeout_ms : 0;
		if (s->has_lock)
			failover_names(s, a);
		return plan_done(s, "1.15", "shutting down, stopping PostgreSQL");
	}
	if (s->v->proc == PG_PROC_FENCING)
		return plan_done(s, "X4", "waiting for the proof that PostgreSQL was killed");
	if (removes_switchover(s))
		return true;
	if (s->has_lock)
		plan_add(s, HA_RELEASE);
	return shutdown_done(s, false);
}

/* ---- O ---- */

static bool refuse(struct step *s, enum ha_task task, const char *rule, const char *text)
{
	plan_add(s, HA_REQUEST_REFUSED)->task = task;
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, rule, "%s", text);
}

bool rule_reinit(struct step *s)
{
	if (!s->v->request.reinit)
		return false;
	return plan_reread(s, STAGE_REINIT, "O");
}

bool stage_reinit(struct step *s)
{
	if (!s->v->request.reinit)
		return cycle_run(s);
	if (s->r->outcome != HA_OUT_OK)
		return refuse(s, TASK_REINIT, "O", "DCS is not accessible, can not reinitialize");
	if (s->unlocked)
		return refuse(s, TASK_REINIT, "O", "Cluster has no leader, can not reinitialize");
	if (s->has_lock || str_eq(s->leader, s->v->name))
		return refuse(s, TASK_REINIT, "O", "I am the leader, can not reinitialize");
	if (s->v->task != TASK_NONE && !s->v->request.reinit_force) {
		char text[96];
		bool fits = str_format(
			text, sizeof(text), "%s already in progress", ha_task_word(s->v->task));
		INVARIANT(fits);
		return refuse(s, TASK_REINIT, "O", text);
	}
	struct ha_action *a = plan_task(s, TASK_REINIT);
	a->force = s->v->request.reinit_force;
	a->flag = s->v->request.reinit_from_leader;
	a->stop_mode = PG_STOP_IMMEDIATE;
	a->timeout_ms = s->set->retry_timeout_ms;
	if (!clone_source(s, s->v->request.reinit_from_leader, a->target)) {
		s->plan->count--;
		return refuse(
			s, TASK_REINIT, "O", "leader has no address yet, can not reinitialize");
	}
	return plan_done(s, "O", "reinitialize started");
}

/* ---- N ---- */

static bool restart_now(struct step *s, int64_t timeout_ms, const char *rule)
{
	if (wait_not_sync(s))
		return true;
	struct ha_action *a = plan_task(s, TASK_RESTART);
	a->role = s->v->role;
	a->timeout_ms = timeout_ms > 0 ? timeout_ms : s->set->primary_start_timeout_ms;
	s->m->start_timeout_ms = a->timeout_ms;
	s->m->recovering = true;
	return plan_done(s, rule, "restart initiated");
}

/* N3: only with a leader, as the reference looks at it after E. */
static bool scheduled_restart(struct step *s)
{
	const struct ha_request *r = &s->v->request;
	if (!r->scheduled_restart || s->unlocked)
		return false;
	if (r->scheduled_restart_start_us != 0 && s->v->postmaster_start_us != 0 &&
		r->scheduled_restart_start_us != s->v->postmaster_start_us) {
		plan_note(s, HA_LOG_INFO,
			"Cancelling scheduled restart: postgres restart has already happened");
		plan_add(s, HA_DROP_SCHEDULED_RESTART);
		return false;
	}
	/* It was due, and waits only to be no synchronous standby any more: that takes longer than
	 * a time may be in the past. */
	if (s->m->disable_sync_until_ms != 0 && !s->paused &&
		s->m->restart_due_wall_us == r->scheduled_restart_at_wall_us)
		return true;
	enum due due = schedule_due(s, "restart", r->scheduled_restart_at_wall_us, false);
	/* Its conditions are those of the moment when it is due, and it has that one chance. */
	bool unmet = due == DUE_NOW && r->scheduled_restart_unmet;
	if (unmet)
		plan_note(s, HA_LOG_WARNING,
			"Scheduled restart: restart conditions are not satisfied");
	if (due == DUE_STALE || unmet)
		plan_add(s, HA_DROP_SCHEDULED_RESTART);
	if (due != DUE_NOW || unmet)
		return false;
	s->m->restart_due_wall_us = r->scheduled_restart_at_wall_us;
	return true;
}

/* In pause what is down stays down, but for a restart that was asked for by hand. Never as a
 * primary: its key is given up by the same rule, and there may be another one by now. */
bool restart_while_down(struct step *s)
{
	if (!s->v->request.restart)
		return false;
	if (s->v->role == PG_ROLE_PRIMARY || s->has_lock)
		return false;
	/* pg_rewind may have been cut in the middle: nothing starts in that directory before
	 * another one went through. */
	if (s->m->rewind_state == REWIND_NEED)
		return !rewind_allowed(s) &&
		       refuse(s, TASK_RESTART, "N1", "pg_rewind is needed first, can not restart");
	return restart_now(s, s->v->request.restart_timeout_ms, "N1");
}

bool rule_restart(struct step *s)
{
	if (s->v->request.restart)
		return restart_now(s, s->v->request.restart_timeout_ms, "N1");
	if (s->v->request.scheduled_restart_due || scheduled_restart(s))
		return restart_now(s, s->v->request.scheduled_restart_timeout_ms, "N3");
	/* Whatever it was that wanted no synchronous standby here has been withdrawn. */
	s->m->disable_sync_until_ms = 0;
	return false;
}
