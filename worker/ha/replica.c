/* Rules of a node that must not be primary (F): whom to follow, how to change it, when to check for
 * divergence. Pure. */
#include "worker/ha/step.h"
#include "worker/ha/upstream.h"

/* F2. A member that is named by replicatefrom but gone gives way to the leader; so does a circle of
 * such names. */
bool follow_target(const struct step *s, char out[static LIMIT_NAME])
{
	const struct tags *t = &s->set->tags;
	const char *name = NULL;
	const char *named = upstream_named(s->c, s->leader, s->v->name, t->replicatefrom);
	out[0] = '\0';
	if (t->nostream)
		return false;
	if (standby_target(s))
		name = HA_TARGET_REMOTE;
	else if (named[0] != '\0')
		name = named;
	else if (!s->unlocked && s->leader[0] != '\0')
		name = s->leader;
	if (name == NULL || str_eq(name, s->v->name))
		return false;
	return str_copy(out, LIMIT_NAME, name);
}

static const struct {
	const char *rule, *demoted, *follow;
} follow_words[] = {
	[FOLLOW_NO_LOCK] = { "E6",
		"demoting self because I do not have the lock and I was a leader", NULL },
	[FOLLOW_LOST_RACE] = { "C3", "demoted self after trying and failing to obtain lock",
		"following new leader after trying and failing to obtain lock" },
	[FOLLOW_NOT_ALLOWED] = { "C4", "demoting self because I am not allowed to become primary",
		"following a different leader because I am not allowed to promote" },
	[FOLLOW_NOT_HEALTHIEST] = { "C5", "demoting self because i am not the healthiest node",
		"following a different leader because i am not the healthiest node" },
	[FOLLOW_STANDBY_LEADER] = { "E4", "cannot be a real primary in standby cluster", NULL },
	[FOLLOW_STANDBY_PROMOTED] = { "C2", "cannot be a real primary in standby cluster",
		"promoted self to a standby leader by acquiring session lock" },
};

static bool follow_reason(struct step *s, enum follow_why why)
{
	const char *rule = follow_words[why].rule;
	if (follow_words[why].follow != NULL)
		return plan_done(s, rule, "%s", follow_words[why].follow);
	if (why == FOLLOW_STANDBY_LEADER && s->v->role == PG_ROLE_STANDBY_LEADER)
		return plan_done(s, rule, "no action. I am (%s), the standby leader with the lock",
			s->v->name);
	if (why == FOLLOW_STANDBY_LEADER)
		return plan_done(s, rule,
			"promoted self to a standby leader because i had the session lock");
	return plan_done(s, rule, "no action. I am (%s), a secondary, and following a %s (%s)",
		s->v->name, s->standby ? "standby leader" : "leader", s->leader);
}

/* F4: a primary that must not be one. */
static bool follow_demote(struct step *s, enum follow_why why)
{
	if (s->standby)
		return standby_demote(s, why == FOLLOW_NO_LOCK
						 ? "cannot be a real primary in a standby cluster"
						 : follow_words[why].demoted);
	plan_demote(s, DEMOTE_IMMEDIATE_NOLOCK);
	return plan_done(s, follow_words[why].rule, "%s", follow_words[why].demoted);
}

/* F10, changed settings: a restart is a task, a reload is done at once; the origin of what was
 * streamed may have changed. */
static void change_target(struct step *s, const char *target, enum pg_role role)
{
	struct ha_action *a = s->v->recovery_needs_restart ? plan_task(s, TASK_CHANGE_CONNINFO)
							   : plan_add(s, HA_FOLLOW_RELOAD);
	a->role = role;
	bool fits = str_copy(a->target, LIMIT_NAME, target);
	INVARIANT(fits);
	rewind_trigger(s);
}

bool target_has_address(const struct step *s, const char *target)
{
	if (str_eq(target, HA_TARGET_REMOTE))
		return true;
	if (s->injected && str_eq(target, s->leader))
		return s->leader_conn_url[0] != '\0';
	const struct member *m = cluster_member_peek(s->c, target);
	return m != NULL && m->conn_url[0] != '\0';
}

void follow_while_starting(struct step *s)
{
	char target[LIMIT_NAME];
	if (s->standby && follow_target(s, target) &&
		(!s->v->follow_known || !str_eq(target, s->v->following)))
		change_target(s, target, PG_ROLE_STANDBY_LEADER);
}

/* F5: a history file tells of a timeline after the one that our leader is on. It stays there until
 * the leader's key shows the new timeline, so that it is looked at once a loop_wait. */
static bool remote_moved_on(struct step *s)
{
	int64_t next = s->m->leader_timeline + 1;
	if (!s->standby || s->m->leader_timeline <= 0 || s->v->next_history_tli != next ||
		s->m->rewind_state == REWIND_CHECK)
		return false;
	if (s->m->next_checked_tli == next &&
		s->v->now_ms - s->m->next_checked_ms < s->set->loop_wait_ms)
		return false;
	s->m->next_checked_tli = next;
	s->m->next_checked_ms = s->v->now_ms;
	return true;
}

/* F5 to F11. */
static bool follow_as_standby(struct step *s, enum follow_why why, const char *target)
{
	if (remote_moved_on(s))
		rewind_trigger(s); /* F5 */
	if (rewind_step(s))	   /* F6 */
		return true;
	if (!s->paused && s->v->sql->valid && s->v->sql->server_version >= 140000 &&
		s->v->sql->replay_paused)
		plan_add(s, HA_RESUME_REPLAY); /* F7 */
	/* X77: it cannot lead, and what it waits for may still come: from the remote primary of a
	 * cluster that is none of a standby any more, or from a leader that comes back. */
	if (s->starting && target[0] == '\0' && s->v->following[0] != '\0' &&
		!s->set->tags.nostream)
		return follow_reason(s, why);
	bool remote = str_eq(target, HA_TARGET_REMOTE);
	enum pg_role role =
		remote && s->has_lock ? PG_ROLE_STANDBY_LEADER : PG_ROLE_REPLICA; /* F8 */
	if (s->standby && role == PG_ROLE_REPLICA &&
		(target[0] == '\0' || !target_has_address(s, target)))
		return plan_done(s, "F9", "continue following the old known standby leader");
	bool differs = !s->v->follow_known || !str_eq(s->v->following, target) ||
		       s->v->recovery_settings_differ;
	if (differs) {
		if (!remote &&
			upstream_is_circle(s->c, s->leader, s->v->name, s->set->tags.replicatefrom))
			plan_note(s, HA_LOG_WARNING,
				"replicatefrom leads from %s by way of %s back to itself: "
				"following the leader rule=F2",
				s->v->name, s->set->tags.replicatefrom);
		change_target(s, target, role);
	} else {
		if (role == PG_ROLE_STANDBY_LEADER && s->v->role != role) {
			plan_set_role(s, role);
			struct ha_action *a = plan_add(s, HA_CALLBACK);
			a->callback = CB_ON_ROLE_CHANGE;
			a->role = role;
		}
		if (s->m->last_timeline > 0 && s->m->last_timeline < s->m->leader_timeline &&
			s->m->rewind_state != REWIND_CHECK &&
			(s->m->behind_checked_tli != s->m->leader_timeline ||
				s->v->now_ms - s->m->behind_checked_ms >= s->set->loop_wait_ms)) {
			s->m->behind_checked_tli = s->m->leader_timeline;
			s->m->behind_checked_ms = s->v->now_ms;
			rewind_trigger(s);
			if (rewind_step(s))
				return true;
		}
	}
	return follow_reason(s, why);
}

static bool follow_now(struct step *s, enum follow_why why)
{
	char target[LIMIT_NAME];
	bool have_target = follow_target(s, target);
	if (s->paused) {
		bool decided = false;
		if (pause_follow(s, have_target, &decided) && decided)
			return true;
	} else if (s->primary) {
		return follow_demote(s, why); /* F4 */
	}
	return follow_as_standby(s, why, have_target ? target : "");
}

/* F1: the callers that acted on a C of before an answer want it fresh. A node that found itself not
 * eligible reads again too, because the one that was has often taken the key by then, and following
 * nobody would cut a stream for nothing. */
bool follow(struct step *s, enum follow_why why)
{
	bool leads = why == FOLLOW_STANDBY_LEADER || why == FOLLOW_STANDBY_PROMOTED;
	if (why == FOLLOW_NO_LOCK || leads || (s->primary && !s->paused))
		return follow_now(s, why);
	s->m->stage_arg[0] = (int)why;
	return plan_reread(s, STAGE_FOLLOW, follow_words[why].rule);
}

bool stage_follow(struct step *s)
{
	enum follow_why why = (enum follow_why)s->m->stage_arg[0];
	INVARIANT((unsigned)why < sizeof(follow_words) / sizeof(follow_words[0]));
	if (s->r->outcome != HA_OUT_OK)
		return plan_done(s, "J3", "DCS is not accessible");
	/* The fresh C may have put the key into our hands or named us: then this is no follower any
	 * more. */
	if (s->has_lock)
		return cycle_run(s);
	return follow_now(s, why);
}
