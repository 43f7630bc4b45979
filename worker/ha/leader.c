/* Rules of a cluster that has a leader (E), and of the node that holds the key (G). Pure. */
#include "worker/ha/step.h"

#define PROMOTE_AGAIN_MS 1000

/* The reference's "lock update succeeded": the keeper renews on its own timer, so this is a look at
 * what it proved. */
bool lock_usable(const struct step *s)
{
	if (!s->has_lock)
		return false;
	return s->v->lock == LOCK_HELD ||
	       (s->v->lock == LOCK_UNCERTAIN && s->v->now_ms < s->v->gentle_at_ms);
}

/* 4.4: pg_rewind from here is safe only after a checkpoint on this timeline. */
static void checkpoint_step(struct step *s)
{
	if (!s->primary || !s->v->sql->valid || s->m->rewind_state == REWIND_CHECKPOINT)
		return;
	if (s->v->control_timeline > 0 && s->v->control_timeline == s->v->sql->timeline)
		s->m->rewind_state = REWIND_CHECKPOINT;
	else if (!s->v->checkpoint_running)
		plan_add(s, HA_CHECKPOINT);
}

bool leader_after_handover(struct step *s)
{
	checkpoint_step(s);
	if (s->standby)
		return follow(s, FOLLOW_STANDBY_LEADER);
	return act_primary(s, ACT_HAD_LOCK);
}

bool rule_leader_exists(struct step *s)
{
	if (!s->has_lock) {
		s->m->detaching = false;
		bool mine = str_eq(s->leader, s->v->name);
		if (mine && s->v->lock == LOCK_LOST && !s->primary)
			return plan_done(s, "E5",
				"not promoting because failed to update leader lock in DCS");
		return follow(s, FOLLOW_NO_LOCK);
	}
	if (s->paused && pause_lock_not_primary(s))
		return true;
	if (handover_leader(s, POLL_HANDOVER))
		return true;
	return leader_after_handover(s);
}

/* ---- G ---- */

static bool no_watchdog(struct step *s)
{
	s->plan->log_level = HA_LOG_ERROR;
	if (s->primary) {
		handover_remove(s);
		plan_demote(s, DEMOTE_IMMEDIATE);
		return plan_done(s, "G1", "Demoting self because watchdog could not be activated");
	}
	if (handover_void(s))
		return true;
	plan_add(s, HA_RELEASE);
	s->plan->verdict = VERDICT_DROP;
	return plan_done(s, "G1", "Not promoting self because watchdog could not be activated");
}

/* 4.5. What exactly is written stands in the local history file, which the executor reads. */
static void history_step(struct step *s)
{
	int64_t tli = my_timeline(s);
	if (tli <= 0)
		return;
	const struct cluster *c = s->c;
	bool write;
	if (tli == 1) {
		write = c->history_count > 0;
	} else {
		const struct history_row *last =
			c->history_count > 0 ? &c->history[c->history_count - 1] : NULL;
		write = !c->history_present || !c->history_valid || last == NULL ||
			last->timeline != tli - 1 || last->time[0] == '\0';
	}
	if (write)
		plan_add(s, HA_WRITE_HISTORY);
}

static bool leader_reason(struct step *s, enum act_why why)
{
	if (why == ACT_ACQUIRED)
		return plan_done(s, "C2", "acquired session lock as a leader");
	return plan_done(s, "E4", "no action. I am (%s), the leader with the lock", s->v->name);
}

/* The end of G3 and G4, also when it comes after writes of /sync. */
bool act_primary_done(struct step *s, enum act_why why)
{
	return leader_reason(s, why);
}

/* A PostgreSQL that was told to promote may still do it: it is stopped before the key goes (S2),
 * and before anything is waited for. A request that would be served by that (X72) is removed beside
 * it. */
static bool give_back(struct step *s, const char *rule, const char *why)
{
	if (s->v->promote_sent && s->pg_there) {
		handover_remove(s);
		plan_demote(s, DEMOTE_IMMEDIATE);
	} else if (handover_void(s)) {
		return true;
	} else {
		plan_add(s, HA_RELEASE);
		s->plan->verdict = VERDICT_DROP;
	}
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, rule, "%s", why);
}

/* X56: a standby on a timeline that has ended is as far as it may go, or not there yet; its
 * upstream, the old primary with a tail that the history left behind, may come back at any moment,
 * also between the last look and the moment in which the startup process sees the promotion (S9).
 * So it follows nobody before it is promoted. */
static bool detach(struct step *s)
{
	const struct ha_view *v = s->v;
	bool restart = v->recovery_settings_differ && v->recovery_needs_restart;
	s->m->detaching = false;
	if (race_timeline_end(s) == 0)
		return false;
	if (v->follow_known && v->following[0] == '\0' && !restart)
		return false;
	s->m->detaching = true;
	struct ha_action *a =
		restart ? plan_task(s, TASK_CHANGE_CONNINFO) : plan_add(s, HA_FOLLOW_RELOAD);
	a->role = PG_ROLE_REPLICA;
	plan_wake(s, v->now_ms + 100);
	return plan_done(s, "X56",
		"following nobody before the promotion: timeline %d has ended, and %s may have "
		"more of it than the cluster",
		(int)my_timeline(s), v->following[0] != '\0' ? v->following : "its upstream");
}

/* The end of G5: everything that must be true before the promotion is. */
bool promote_now(struct step *s)
{
	enum act_why why = (enum act_why)s->m->stage_arg[0];
	/* S3: not on a lease that is only hoped for. */
	if (s->v->lock != LOCK_HELD)
		return plan_done(s, "X10", "not promoting while the leader key is not confirmed");
	if (failsafe_word_forbids(s))
		return give_back(s, "X17",
			"releasing the leader key instead of promoting: another member may run as "
			"primary in failsafe mode with our consent");
	/* X44: what was true when the key was asked for need not be now. Until it is told otherwise
	 * a standby streams from the old upstream, which may be the old primary with a tail that
	 * the history of the cluster left behind (S9). The task looks again after pre_promote. */
	if (race_diverged(s))
		return give_back(s, "X44",
			"releasing the leader key instead of promoting: my wal position is past "
			"the end of my timeline in the history of the cluster");
	if (detach(s))
		return true;
	/* X47: the supervisor said no, or did not answer. What it waits for (the next renewal)
	 * takes its time, and each try runs pre_promote again. */
	int64_t again_ms = s->m->promote_refused_ms + PROMOTE_AGAIN_MS;
	if (s->m->promote_refused_ms != 0 && s->v->now_ms < again_ms) {
		plan_wake(s, again_ms);
		return plan_done(s, "X47", "the promotion was not permitted yet, trying again");
	}
	s->m->failsafe_active_until_ms = 0;
	s->m->last_timeline = 0;
	s->m->promote_refused_ms = 0;
	s->m->rewind_state = REWIND_INITIAL;
	s->m->promote_result = TASK_RESULT_NONE;
	struct ha_action *a = plan_task(s, TASK_PROMOTE);
	a->timeout_ms = s->set->loop_wait_ms;
	a->lsn = race_timeline_end(s);
	if (why == ACT_ACQUIRED)
		return plan_done(s, "G5", "promoted self to leader by acquiring session lock");
	return plan_done(s, "G5", "promoted self to leader because I had the session lock");
}

/* X18: an acquire without an answer may be carried out much later, also after the end of the worker
 * that sent it. The decision behind it is as old: others may have led and acknowledged since (S4,
 * S5). A standby that finds itself with such a key gives it back and races for it on today's facts;
 * if it is ahead of all, it wins. */
/* X51: nor does a request that stayed on the way until its answer came at the last moment. Whoever
 * led meanwhile wrote /sync before its first acknowledgement (5.6 R), so a promise that moved since
 * the decision tells. What this node wrote itself, with the key, names itself. */
static bool promise_moved(const struct step *s)
{
	int64_t version = s->c->sync_key_exists ? s->c->sync_version : -1;
	return s->m->race_decided && s->sync != SYNC_OFF && version != s->m->race_sync_version &&
	       !str_eq(s->c->sync_leader, s->v->name);
}

static bool stray_key(struct step *s)
{
	bool decided = s->m->lock_won && !promise_moved(s);
	if (decided || s->primary || s->paused || !s->v->sql->valid)
		return false;
	return give_back(s, "X18",
		"releasing the leader key: no decision of mine stands behind it any more");
}

/* X70: the supervisor took the order after the task had stopped waiting for its answer, and while
 * PostgreSQL did not answer it counted as a primary. It answers again, in recovery, and nobody has
 * made the promote file: what G3 would wait for has never begun (V1). */
static bool promotion_forgotten(const struct step *s)
{
	return s->v->sql->valid && !s->paused && !s->v->task_promote_committed;
}

static bool act_armed(struct step *s, enum act_why why)
{
	/* S2: never under a PostgreSQL that became primary all the same. */
	if (!s->paused && !s->primary && s->m->promote_result == TASK_RESULT_FALSE) {
		if (handover_void(s))
			return true;
		plan_note(s, HA_LOG_WARNING,
			"Releasing the leader key voluntarily because the pre-promote script "
			"failed");
		s->m->released_ms = s->v->now_ms;
		s->m->promote_result = TASK_RESULT_NONE;
		return give_back(
			s, "G2", "Promotion cancelled because the pre-promote script failed");
	}
	if (stray_key(s))
		return true;
	if (s->primary) {
		s->m->race_decided = false;
		plan_set_role(s, PG_ROLE_PRIMARY);
		s->m->demoted = 0;
		s->m->demoted_ms = 0;
		history_step(s);
		return sync_step(s, why) || act_primary_done(s, why);
	}
	if ((s->v->role == PG_ROLE_PRIMARY || s->v->role == PG_ROLE_PROMOTED) &&
		!promotion_forgotten(s))
		return sync_step(s, why) || act_primary_done(s, why);
	if (!s->v->sql->valid)
		return plan_done(s, "X10", "not promoting while PostgreSQL does not answer");
	s->m->stage_arg[0] = (int)why;
	return sync_prepromote(s) || promote_now(s);
}

bool act_primary(struct step *s, enum act_why why)
{
	if (s->paused || s->set->watchdog_mode == WATCHDOG_OFF || s->v->watchdog_armed)
		return act_armed(s, why);
	if (s->set->watchdog_mode == WATCHDOG_AUTOMATIC) {
		plan_add(s, HA_WATCHDOG_ARM); /* its failure is a warning of the executor's */
		return act_armed(s, why);
	}
	s->m->stage_arg[0] = (int)why;
	plan_add(s, HA_WATCHDOG_ARM);
	return plan_await(s, STAGE_WATCHDOG, AWAIT_WATCHDOG, 2000, "G1");
}

bool stage_watchdog(struct step *s)
{
	if (!s->has_lock)
		return cycle_run(s);
	if (s->r->outcome != HA_OUT_OK)
		return no_watchdog(s);
	return act_armed(s, (enum act_why)s->m->stage_arg[0]);
}
