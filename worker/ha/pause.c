/* What changes while the cluster is paused (ha 9.5). Pure. */
#include "worker/ha/step.h"

/* A4: people may do anything to PostgreSQL in a pause, so its end forgets what was concluded
 * before. */
bool pause_changed(struct step *s)
{
	if (s->paused) {
		if (s->v->watchdog_armed)
			plan_add(s, HA_WATCHDOG_OFF);
		s->m->was_paused = true;
		return false;
	}
	if (!s->m->was_paused)
		return false;
	s->m->was_paused = false;
	s->m->rewind_state = REWIND_INITIAL;
	plan_add(s, HA_FORGET_SLOTS);
	return true;
}

/* A14 in pause: the key is given back although PostgreSQL runs on; pause is outside the promise (S2
 * names this case), and the data that is written is another cluster's (S11). */
bool pause_sysid_mismatch(struct step *s)
{
	plan_note(s, HA_LOG_WARNING,
		"system ID has changed while in paused mode. The agent will exit when resuming "
		"unless system ID is "
		"reset: %s != %s",
		s->c->init, s->v->system_id);
	if (!s->has_lock)
		return false;
	plan_add(s, HA_RELEASE);
	s->plan->verdict = VERDICT_DROP;
	return plan_done(s, "A14", "released leader key voluntarily due to the system ID mismatch");
}

/* A16 in pause: what is down stays down, except for the end of a manual switchover. */
bool pause_not_running(struct step *s)
{
	if (s->m->demoted != 0 && s->m->demoted != DEMOTE_SHUTDOWN)
		return false;
	if (restart_while_down(s))
		return true;
	if (s->v->state != PG_STATE_STOPPED)
		plan_add(s, HA_SET_STATE)->state = PG_STATE_STOPPED;
	if (s->has_lock) {
		plan_add(s, HA_RELEASE);
		s->plan->verdict = VERDICT_DROP;
		return plan_done(s, "A16", "removed leader lock because postgres is not running");
	}
	bool rewinding =
		(s->m->rewind_state == REWIND_CHECK || s->m->rewind_state == REWIND_NEED) &&
		rewind_allowed(s);
	if (s->m->rewind_state == REWIND_SUCCESS || rewinding)
		return false;
	return plan_done(s, "A16", "postgres is not running");
}

/* E1, E2. */
bool pause_lock_not_primary(struct step *s)
{
	if (s->primary)
		return false;
	if (s->c->failover_present && str_eq(s->c->failover_candidate, s->v->name))
		return plan_done(s, "E1", "waiting to become primary after promote...");
	/* X56: a failover by hand that was won goes on when nobody is followed any more. */
	if (s->standby || s->m->detaching)
		return false;
	plan_add(s, HA_RELEASE);
	s->plan->verdict = VERDICT_DROP;
	return plan_done(s, "E2", "removed leader lock because postgres is not running as primary");
}

/* F3. */
bool pause_follow(struct step *s, bool have_target, bool *out_decided)
{
	bool rewinding =
		(s->m->rewind_state == REWIND_CHECK || s->m->rewind_state == REWIND_NEED) &&
		rewind_allowed(s);
	*out_decided = false;
	if (!s->unlocked && rewinding)
		return false;
	if (s->primary) {
		plan_set_role(s, PG_ROLE_PRIMARY);
		*out_decided = plan_done(s, "F3", "continue to run as primary without lock");
		return true;
	}
	if (s->v->role != PG_ROLE_STANDBY_LEADER)
		plan_set_role(s, PG_ROLE_REPLICA);
	if (!have_target)
		*out_decided = plan_done(s, "F3", "no action. I am (%s)", s->v->name);
	return true;
}
