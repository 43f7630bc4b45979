/* Facts that many rules share, and the building of a plan. Runs in the worker and in the simulator;
 * pure: no I/O, no clock, no allocation, no static state. */
#include "worker/ha/step.h"

#include <stdarg.h>
#include <stdio.h>

/* A postmaster that is being fenced is neither up nor provably gone: rules that start one must wait
 * for the proof. */
static bool postmaster_there(const struct ha_view *v)
{
	return v->proc == PG_PROC_STARTING || v->proc == PG_PROC_RUNNING ||
	       v->proc == PG_PROC_STOPPING;
}

/* In doubt it is a primary: a postmaster that got the promote signal, or whose role was primary
 * when it stopped answering. */
static bool taken_for_primary(const struct ha_view *v)
{
	if (!postmaster_there(v))
		return false;
	if (v->sql->valid)
		return !v->sql->in_recovery;
	if (v->role == PG_ROLE_PRIMARY || v->role == PG_ROLE_PROMOTED || v->promote_sent)
		return true;
	return v->files->valid && v->files->control.valid &&
	       v->files->control.state == PG_DB_IN_PRODUCTION && !v->files->standby_signal &&
	       !v->files->recovery_signal;
}

void step_init(struct step *s, const struct ha_view *v, struct ha_memory *m,
	const struct ha_result *r, struct ha_plan *plan)
{
	memset(s, 0, sizeof(*s));
	s->v = v;
	s->set = v->set;
	s->c = v->c;
	s->r = r;
	s->m = m;
	s->plan = plan;
	s->leader_conn_url = "";
	s->paused = v->set->pause;
	s->standby = v->set->standby_cluster;
	s->sync = settings_sync_mode(v->set);
	s->sync_active = s->sync != SYNC_OFF && v->c->sync_leader[0] != '\0';
	/* X28: the mode is what is wanted, /sync is what was promised. A leader that hears of a
	 * change late, or cannot write, leaves a promise of the old mode: one with a quorum says
	 * "among so many", never "each voter has all" (S4, S7). Without one both modes read alike.
	 */
	s->quorum_active = s->sync_active && (s->sync == SYNC_QUORUM || v->c->sync_quorum > 0);
	s->pg_there = postmaster_there(v);
	s->primary = taken_for_primary(v);
	s->starting = s->pg_there &&
		      (v->state == PG_STATE_STARTING || v->state == PG_STATE_BOOTSTRAP_STARTING);
	s->unlocked = cluster_unlocked(v->c);
	bool held = v->lock == LOCK_HELD || v->lock == LOCK_UNCERTAIN;
	if (!s->unlocked) {
		memcpy(s->leader, v->c->leader, sizeof(s->leader));
		const struct member *leader = cluster_leader_peek(v->c);
		if (leader != NULL)
			s->leader_conn_url = leader->conn_url;
		s->has_lock = held && str_eq(s->leader, v->name);
	} else if (held) {
		/* The keeper's proof is newer than the snapshot: the key was made a moment ago. */
		s->has_lock = true;
		s->unlocked = false;
		memcpy(s->leader, v->name, sizeof(s->leader));
	} else {
		failsafe_inject(s);
	}
}

struct ha_action *plan_add(struct step *s, enum ha_action_kind kind)
{
	INVARIANT(s->plan->count < LIMIT_PLAN_ACTIONS);
	struct ha_action *a = &s->plan->actions[s->plan->count++];
	memset(a, 0, sizeof(*a));
	a->kind = kind;
	a->name_first = (uint16_t)s->plan->name_count;
	return a;
}

/* Names of one action stand together, so they are added before the next action that has names. */
bool plan_name(struct step *s, struct ha_action *a, const char *name)
{
	unsigned max = sizeof(s->plan->names) / sizeof(s->plan->names[0]);
	if (s->plan->name_count >= max)
		return false;
	INVARIANT(a->name_first + a->name_count == s->plan->name_count);
	if (!str_copy(s->plan->names[s->plan->name_count], LIMIT_NAME, name))
		return false;
	s->plan->name_count++;
	a->name_count++;
	return true;
}

/* A line that does not fit is cut: it is text for people. */
static void print_cut(char *dst, size_t size, const char *fmt, va_list ap)
{
	if (vsnprintf(dst, size, fmt, ap) < 0)
		dst[0] = '\0';
}

void plan_note(struct step *s, int level, const char *fmt, ...)
{
	unsigned max = sizeof(s->plan->notes) / sizeof(s->plan->notes[0]);
	if (s->plan->note_count >= max)
		return;
	va_list ap;
	va_start(ap, fmt);
	print_cut(s->plan->notes[s->plan->note_count], sizeof(s->plan->notes[0]), fmt, ap);
	va_end(ap);
	s->plan->note_level[s->plan->note_count++] = level;
}

bool plan_done(struct step *s, const char *rule, const char *fmt, ...)
{
	char text[400];
	va_list ap;
	va_start(ap, fmt);
	print_cut(text, sizeof(text), fmt, ap);
	va_end(ap);
	bool fits = str_copy(s->plan->rule, sizeof(s->plan->rule), rule);
	INVARIANT(fits);
	fits = str_format(s->plan->reason, sizeof(s->plan->reason), "%s%s rule=%s",
		s->paused ? "PAUSE: " : "", text, rule);
	INVARIANT(fits);
	if (s->plan->log_level == 0)
		s->plan->log_level = HA_LOG_INFO;
	s->plan->await = AWAIT_NONE;
	s->m->stage = STAGE_START;
	s->m->stage_count = 0;
	s->m->awaiting = AWAIT_NONE;
	return true;
}

bool plan_await(
	struct step *s, enum ha_stage stage, enum ha_await await, int64_t wait_ms, const char *rule)
{
	s->m->stage = (uint16_t)stage;
	s->m->stage_count++;
	s->m->awaiting = await;
	s->m->await_deadline_ms = s->v->now_ms + wait_ms;
	s->m->stage_pg = s->pg_there;
	s->m->stage_generation = s->v->generation;
	s->m->stage_lost = s->v->lock == LOCK_LOST;
	s->m->stage_failing = s->v->store == STORE_FAILING;
	s->m->stage_paused = s->paused;
	bool fits = str_copy(s->m->stage_rule, sizeof(s->m->stage_rule), rule) &&
		    str_copy(s->plan->rule, sizeof(s->plan->rule), rule);
	INVARIANT(fits);
	s->plan->await = await;
	s->plan->await_deadline_ms = s->m->await_deadline_ms;
	return true;
}

bool plan_reread(struct step *s, enum ha_stage stage, const char *rule)
{
	plan_add(s, HA_REREAD);
	return plan_await(s, stage, AWAIT_REREAD, s->set->retry_timeout_ms, rule);
}

struct ha_action *plan_task(struct step *s, enum ha_task task)
{
	struct ha_action *a = plan_add(s, HA_TASK_START);
	a->task = task;
	return a;
}

struct ha_action *plan_demote(struct step *s, enum ha_demote_mode mode)
{
	struct ha_action *a = plan_task(s, TASK_DEMOTE);
	a->demote = mode;
	a->force = mode != DEMOTE_GRACEFUL && mode != DEMOTE_CLUSTER;
	a->stop_mode = mode == DEMOTE_IMMEDIATE || mode == DEMOTE_IMMEDIATE_NOLOCK
			       ? PG_STOP_IMMEDIATE
			       : PG_STOP_FAST;
	s->m->demoted = mode;
	s->m->demoted_ms = 0;
	bool fits = str_copy(s->m->demoted_for, LIMIT_NAME, s->c->failover_candidate);
	INVARIANT(fits);
	if (mode != DEMOTE_SHUTDOWN)
		rewind_trigger(s);
	/* What is released after the stop is renewed until then (1.15 R); what is lost or out of
	 * reach is not. */
	bool renew = mode != DEMOTE_OFFLINE && mode != DEMOTE_IMMEDIATE_NOLOCK && s->has_lock;
	s->plan->verdict = renew ? VERDICT_HOLD : VERDICT_DROP;
	return a;
}

void plan_wake(struct step *s, int64_t at_ms)
{
	if (s->plan->next_run_ms == 0 || at_ms < s->plan->next_run_ms)
		s->plan->next_run_ms = at_ms;
}

void plan_set_role(struct step *s, enum pg_role role)
{
	if (s->v->role == role)
		return;
	plan_add(s, HA_SET_ROLE)->role = role;
}

uint64_t my_position(const struct step *s)
{
	return s->v->sql->valid ? pg_sql_position(s->v->sql) : 0;
}

int64_t my_timeline(const struct step *s)
{
	return s->v->sql->valid ? s->v->sql->timeline : 0;
}

bool is_nofailover(const struct step *s)
{
	return s->set->tags.nofailover;
}

bool rewind_allowed(const struct step *s)
{
	return s->v->can_rewind || s->set->remove_on_diverged;
}

void rewind_trigger(struct step *s)
{
	if (!rewind_allowed(s) || s->m->rewind_state == REWIND_NEED)
		return;
	s->m->rewind_state = REWIND_CHECK;
	s->m->rewind_checked_ms = 0;
}
