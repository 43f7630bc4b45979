/* The store does not answer (J), and failsafe mode (ha 9.4). Pure.
 * Without failsafe mode PostgreSQL stays up as long as the lease allows a gentle end: the demotion
 * starts at gentle_at, not at the first error. With it every other member is asked first; one
 * missing answer ends in the same demotion, at once. */
#include "worker/ha/step.h"

/* An answer takes up to two tries of 2 s; the round must be over when the gentle demotion has to
 * begin. */
#define FAILSAFE_ROUND_MS 4500

/* A standby that hears from its leader by POST keeps following it although the store shows no key.
 * On the primary itself nothing is injected: with the store back and its key expired it races for
 * it like anybody (D4). */
static bool word_given(const struct step *s)
{
	const struct ha_view *v = s->v;
	return v->failsafe_leader[0] != '\0' && !str_eq(v->failsafe_leader, v->name) &&
	       v->now_ms - v->failsafe_last_ms < v->failsafe_ttl_ms;
}

/* X23: a change of the configuration reaches everybody but the primary that lost the store. So a
 * word counts for the ttl it was asked with, whatever ttl and failsafe_mode are now, and who is not
 * in the map stays out for as long after it learnt that the mode was switched off. */
static bool mode_counts(const struct step *s)
{
	return s->set->failsafe_mode ||
	       (s->m != NULL && s->m->failsafe_off_ms != 0 &&
		       s->v->now_ms - s->m->failsafe_off_ms < s->m->ttl_most_ms);
}

void failsafe_mode_seen(struct step *s)
{
	struct ha_memory *m = s->m;
	if (s->set->failsafe_mode) {
		m->failsafe_was_on = true;
		m->failsafe_off_ms = 0;
	} else if (m->failsafe_was_on && m->failsafe_off_ms == 0) {
		m->failsafe_off_ms = s->v->now_ms;
	}
}

void failsafe_inject(struct step *s)
{
	const struct ha_view *v = s->v;
	if (!word_given(s))
		return;
	s->injected = true;
	s->unlocked = false;
	memcpy(s->leader, v->failsafe_leader, sizeof(s->leader));
	s->leader_conn_url = v->failsafe_conn_url;
}

static bool in_map(const struct step *s, const char *name)
{
	for (unsigned i = 0; i < s->c->failsafe_count; i++) {
		if (str_eq(s->c->failsafe[i].name, name))
			return true;
	}
	return false;
}

/* D9. An empty or broken map excludes nobody. */
bool failsafe_excludes(const struct step *s, const char *name)
{
	return mode_counts(s) && s->c->failsafe_present && s->c->failsafe_count > 0 &&
	       !in_map(s, name);
}

/* X13: a word given to a failsafe round is remembered by the incarnation that gave it. For one ttl
 * after its start a member of the map acts as if it had given one: the primary may still stand on
 * it, out of everybody's sight (S1 l). A map of me alone asked nobody else. */
bool failsafe_promise_forgotten(struct step *s)
{
	int64_t until_ms = s->m->started_ms + s->m->ttl_most_ms;
	if (!mode_counts(s) || !s->c->failsafe_present || s->v->now_ms >= until_ms)
		return false;
	if (!in_map(s, s->v->name) || s->c->failsafe_count == 1)
		return false; /* D9 */
	plan_wake(s, until_ms);
	plan_note(s, HA_LOG_INFO,
		"waiting for one ttl after the start, a failsafe round may have been accepted "
		"before it rule=X13");
	return true;
}

/* X17: an acquire that the store took late can make the key ours after we told a primary in
 * failsafe mode that it may go on. The word counts: it was given later than the key was asked for
 * (S1, S18). */
bool failsafe_word_forbids(struct step *s)
{
	return word_given(s) || failsafe_promise_forgotten(s);
}

static int64_t round_interval_ms(const struct step *s)
{
	int64_t third = s->set->ttl_ms / 3;
	return s->set->loop_wait_ms < third ? s->set->loop_wait_ms : third;
}

static bool hold_by_failsafe(struct step *s)
{
	plan_wake(s, s->m->failsafe_round_ms + round_interval_ms(s));
	/* The answers said how far cascading standbys are. */
	if (s->v->sql->valid && s->v->task == TASK_NONE)
		plan_add(s, HA_SYNC_SLOTS);
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, "J1",
		"continue to run as a leader because failsafe mode is enabled and all members are "
		"accessible");
}

static bool round_accepted(struct step *s)
{
	s->m->failsafe_active_until_ms = s->m->failsafe_round_ms + s->m->failsafe_round_ttl_ms;
	plan_add(s, HA_FAILSAFE_HOLD)->until_ms = s->m->failsafe_active_until_ms;
	return hold_by_failsafe(s);
}

static bool demote_for_store(struct step *s)
{
	s->m->failsafe_active_until_ms = 0;
	plan_note(s, HA_LOG_INFO, "demoting self because DCS is not accessible and I was a leader");
	plan_demote(s, DEMOTE_OFFLINE);
	s->plan->log_level = HA_LOG_ERROR;
	return plan_done(s, "J2", "demoted self because DCS is not accessible and I was a leader");
}

/* X21: no request is carried out later than that after it was sent. */
#define FAILSAFE_WRITE_MS 60000

static void sent_to(struct step *s, const struct member *p)
{
	struct ha_memory *m = s->m;
	unsigned i = 0;
	while (i < m->failsafe_sent_count && !str_eq(m->failsafe_sent[i].name, p->name))
		i++;
	if (i == LIMIT_MEMBERS)
		return; /* not reached: no more than that are kept below */
	memcpy(m->failsafe_sent[i].name, p->name, LIMIT_NAME);
	memcpy(m->failsafe_sent[i].api_url, p->api_url, LIMIT_URL);
	m->failsafe_sent[i].sent_ms = s->v->now_ms;
	if (i == m->failsafe_sent_count)
		m->failsafe_sent_count++;
}

/* X21: whoever is in /failsafe may win a race, so a round that leaves one of them out proves
 * nothing (S18). What the store holds can be newer than what this node has seen of it: its own
 * write, unanswered. So whoever was in a map that was sent lately is asked too. */
void failsafe_written(struct step *s)
{
	struct ha_memory *m = s->m;
	unsigned kept = 0;
	for (unsigned i = 0; i < m->failsafe_sent_count; i++) {
		if (s->v->now_ms - m->failsafe_sent[i].sent_ms < FAILSAFE_WRITE_MS &&
			cluster_member_peek(s->c, m->failsafe_sent[i].name) == NULL)
			m->failsafe_sent[kept++] = m->failsafe_sent[i];
	}
	m->failsafe_sent_count = kept;
	for (unsigned i = 0; i < s->c->member_count; i++) {
		if (s->c->members[i].api_url[0] != '\0' &&
			!str_eq(s->c->members[i].name, s->v->name))
			sent_to(s, &s->c->members[i]);
	}
}

static bool mapped(const struct step *s, const char *name)
{
	return in_map(s, name) || str_eq(name, s->v->name);
}

/* Beside the map: C's members, for a predecessor's write, and those of our own writes. */
static void name_unmapped(struct step *s, struct ha_action *a)
{
	const struct ha_memory *m = s->m;
	for (unsigned i = 0; i < s->c->member_count; i++) {
		const struct member *p = &s->c->members[i];
		if (p->api_url[0] != '\0' && !mapped(s, p->name))
			plan_name(s, a, p->name);
	}
	for (unsigned i = 0; i < m->failsafe_sent_count; i++) {
		const char *name = m->failsafe_sent[i].name;
		if (!mapped(s, name) && cluster_member_peek(s->c, name) == NULL)
			plan_name(s, a, name);
	}
}

/* J1. True = decided. */
static bool failsafe_round(struct step *s)
{
	struct ha_memory *m = s->m;
	if (!s->set->failsafe_mode || !s->c->failsafe_present || !in_map(s, s->v->name))
		return false;
	if (m->failsafe_active_until_ms > s->v->now_ms &&
		s->v->now_ms - m->failsafe_round_ms < round_interval_ms(s))
		return hold_by_failsafe(s);
	m->failsafe_round_ms = s->v->now_ms;
	m->failsafe_round_ttl_ms = s->set->ttl_ms;
	struct ha_action *a = plan_add(s, HA_FAILSAFE_ROUND);
	name_unmapped(s, a);
	if (s->c->failsafe_count == 1 && a->name_count == 0) {
		s->plan->count--;
		return round_accepted(s);
	}
	return plan_await(s, STAGE_FAILSAFE, AWAIT_FAILSAFE, FAILSAFE_ROUND_MS, "J1");
}

/* Does the lease still allow to go on? A primary without any lease has nothing to wait for. */
static bool lease_allows(const struct step *s)
{
	return s->v->lease_until_ms > 0 && s->v->now_ms < s->v->gentle_at_ms;
}

static bool store_fails(const struct step *s)
{
	if (s->v->store == STORE_FAILING)
		return true;
	if (s->v->lock != LOCK_UNCERTAIN)
		return false;
	/* Renewals go unanswered although reads do not: the round must end before the gentle
	 * deadline. */
	int64_t ahead_ms = s->set->failsafe_mode ? FAILSAFE_ROUND_MS : 0;
	return s->v->now_ms >= s->v->gentle_at_ms - ahead_ms;
}

/* The deadline may fall between two cycles; whoever holds the key is asked again in time. */
void failsafe_wake(struct step *s)
{
	int64_t at_ms = s->v->gentle_at_ms - (s->set->failsafe_mode ? FAILSAFE_ROUND_MS : 0);
	if (s->has_lock && s->primary && !s->paused && at_ms > s->v->now_ms)
		plan_wake(s, at_ms);
}

/* X63: strict mode needs no store to be kept (S6). PostgreSQL may have been started, or be in a
 * long recovery, since before the mode was switched on; its first commits as a primary would be
 * acknowledged by nobody else. A setting that lets nothing through breaks no promise (X27). */
static void keep_strict(struct step *s)
{
	if (s->sync == SYNC_OFF || !s->set->sync_strict || !s->v->sql->valid ||
		s->v->sql->in_recovery || s->v->sql->synchronous_standby_names[0] != '\0')
		return;
	plan_note(s, HA_LOG_WARNING,
		"strict mode: no commit is acknowledged before a standby is named rule=X63");
	plan_add(s, HA_SET_SSN)->ssn = (struct ha_ssn){
		.managed = true, .quorum = s->sync == SYNC_QUORUM, .n = 1, .placeholder = true
	};
}

static bool primary_cut_off(struct step *s)
{
	keep_strict(s);
	if (s->v->lock == LOCK_HELD && lease_allows(s)) {
		/* Only reads fail; the key is proven ours, and that is what counts. */
		plan_wake(s, s->v->gentle_at_ms);
		return plan_done(s, "J4", "DCS is not accessible");
	}
	if (failsafe_round(s))
		return true;
	bool wait = lease_allows(s) && !s->set->failsafe_mode;
	if (!wait)
		return demote_for_store(s);
	plan_wake(s, s->v->gentle_at_ms);
	s->plan->log_level = HA_LOG_ERROR;
	return plan_done(s, "J2", "DCS is not accessible, demotion in %d seconds",
		(int)((s->v->gentle_at_ms - s->v->now_ms + 999) / 1000));
}

/* X54: while it counts as failing nothing is written, and a watch that never broke has nothing to
 * tell when nobody writes. A primary in failsafe mode whose key is gone would go on by the others'
 * word for ever, and they would follow it (V1): so the store is asked. */
static void ask_store(struct step *s)
{
	if (s->v->store != STORE_FAILING ||
		s->v->now_ms - s->m->store_asked_ms < s->set->loop_wait_ms)
		return;
	s->m->store_asked_ms = s->v->now_ms;
	plan_add(s, HA_REREAD); /* not waited for: its answer is a reason for the next cycle */
}

bool rule_store_failing(struct step *s)
{
	if (!store_fails(s))
		return false;
	ask_store(s);
	s->plan->log_level = HA_LOG_ERROR;
	bool stopping = s->v->task == TASK_DEMOTE;
	if (!s->paused && s->primary && !stopping)
		return primary_cut_off(s);
	if (!s->paused && s->v->task == TASK_PROMOTE && !lease_allows(s)) {
		plan_demote(s, DEMOTE_OFFLINE); /* S3: it may be writable the next moment */
		return plan_done(
			s, "J2", "demoted self because DCS is not accessible and I was a leader");
	}
	s->plan->log_level = 0; /* what goes on as ever is no error */
	if (!s->pg_there && s->v->task == TASK_NONE && s->v->proc != PG_PROC_FENCING &&
		!s->paused && (rule_rewind_interrupted(s) || rule_after_demotion(s)))
		return true;
	s->plan->log_level = HA_LOG_ERROR;
	if (s->pg_there && s->v->task == TASK_NONE && s->set->failsafe_mode && !s->primary &&
		s->v->sql->valid)
		plan_add(s, HA_SYNC_SLOTS);
	return plan_done(s, s->pg_there ? "J3" : "J4", "DCS is not accessible");
}

bool stage_failsafe(struct step *s)
{
	if (!store_fails(s) || !s->primary || s->paused || s->v->task == TASK_DEMOTE)
		return cycle_run(s);
	if (s->r->failsafe_ok)
		return round_accepted(s);
	return demote_for_store(s);
}
