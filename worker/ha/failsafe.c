/* The store does not answer (J), and failsafe mode (ha 9.4). Pure.
 * Without failsafe mode PostgreSQL stays up as long as the lease allows a gentle end: the demotion
 * starts at gentle_at, not at the first error. With it every other member is asked first; one
 * missing answer ends in the same demotion, at once. */
#include "worker/ha/step.h"

/* An answer takes up to two tries of 2 s; the round must be over when the gentle demotion has to
 * begin. */
#define FAILSAFE_ROUND_MS 4500
#define FAILSAFE_AGAIN_MS 1000 /* X75: a helper of a member that ended is there again by then */

/* A standby that hears from its leader by POST keeps following it although the store shows no key.
 * On the primary itself nothing is injected: with the store back and its key expired it races for
 * it like anybody (D4). X23: a word counts for the ttl that it was asked with, whatever the ttl and
 * the mode are by now: whoever asked for it cannot hear of a change. */
static bool word_given(const struct step *s)
{
	const struct ha_view *v = s->v;
	return v->failsafe_leader[0] != '\0' && !str_eq(v->failsafe_leader, v->name) &&
	       v->now_ms - v->failsafe_last_ms < v->failsafe_ttl_ms;
}

/* X71: a change of failsafe_mode reaches everybody but the primary that lost the store, so it is
 * the map in the store, not the mode, that says whether a primary may stand on it. A leader that
 * sees the mode off empties it, by compare-and-swap, and never stands on the version that it asked
 * to be emptied. A leader of the reference leaves it there. It reads the mode before it writes its
 * member key, once in each of its loops, so once it has written that key some times after the mode
 * went off, it knows. That it still leads in our view proves nothing: the watch may be late. */
#define LED_TTLS   3
#define LED_WRITES 3

static bool map_there(const struct step *s)
{
	return s->c->failsafe_present && s->c->failsafe_count > 0;
}

static bool map_counts(const struct step *s)
{
	if (!map_there(s))
		return false;
	return s->set->failsafe_mode || s->failsafe_void == 0 ||
	       s->failsafe_void != s->c->failsafe_version;
}

/* This version may be an empty map by now. */
static bool asked_to_empty(const struct step *s)
{
	return s->m->failsafe_emptied != 0 && s->m->failsafe_emptied == s->c->failsafe_version;
}

static void look_at_leader(struct step *s)
{
	struct ha_memory *m = s->m;
	const struct member *leader = cluster_leader_peek(s->c);
	m->lock_was_held |= s->v->lock == LOCK_HELD;
	if (s->set->failsafe_mode)
		m->failsafe_void = 0;
	bool led = !s->set->failsafe_mode && map_there(s) && s->v->c_fresh &&
		   s->v->store != STORE_FAILING && !cluster_unlocked(s->c) && leader != NULL &&
		   leader->is_patroni;
	if (!led || !str_eq(m->failsafe_led, leader->name) || m->failsafe_led_ms == 0) {
		m->failsafe_led_ms = led ? s->v->now_ms : 0;
		m->failsafe_led_version = led ? leader->version_no : 0;
		m->failsafe_led_writes = 0;
		memcpy(m->failsafe_led, led ? leader->name : "", led ? LIMIT_NAME : 1);
		return;
	}
	if (leader->version_no == m->failsafe_led_version)
		return;
	m->failsafe_led_version = leader->version_no;
	m->failsafe_led_writes++;
	if (m->failsafe_led_writes >= LED_WRITES &&
		s->v->now_ms - m->failsafe_led_ms >= LED_TTLS * m->ttl_most_ms)
		m->failsafe_void = s->c->failsafe_version;
}

void failsafe_looked(struct step *s)
{
	look_at_leader(s);
	s->failsafe_void = s->m->failsafe_void;
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
	return map_counts(s) && !in_map(s, name);
}

/* X13: a word given to a failsafe round is remembered by the incarnation that gave it. For one ttl
 * after its start a member of the map acts as if it had given one: the primary may still stand on
 * it, out of everybody's sight (S1 l). A map of me alone asked nobody else. */
bool failsafe_promise_forgotten(struct step *s)
{
	int64_t until_ms = s->m->started_ms + s->m->ttl_most_ms;
	if (!map_counts(s) || s->v->now_ms >= until_ms)
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
	s->m->failsafe_again_ms = 0;
	s->m->failsafe_active_until_ms = s->m->failsafe_round_ms + s->m->failsafe_round_ttl_ms;
	plan_add(s, HA_FAILSAFE_HOLD)->until_ms = s->m->failsafe_active_until_ms;
	return hold_by_failsafe(s);
}

static bool asking_again(struct step *s)
{
	plan_wake(s, s->m->failsafe_again_ms);
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, "X75", "not all members accept failsafe mode, asking once more");
}

/* X75: what was promised last still holds. Once, and only if the answers come before the gentle
 * deadline: a member whose worker is just being replaced need not cost the primary. */
static bool ask_again(struct step *s)
{
	int64_t at_ms = s->v->now_ms + FAILSAFE_AGAIN_MS;
	if (s->m->failsafe_again_ms != 0 || s->v->lease_until_ms <= 0 ||
		at_ms + FAILSAFE_ROUND_MS > s->v->gentle_at_ms)
		return false;
	s->m->failsafe_again_ms = at_ms;
	return asking_again(s);
}

static bool demote_for_store(struct step *s)
{
	s->m->failsafe_again_ms = 0;
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
static void map_written(struct step *s)
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

#define EMPTY_AGAIN_MS 5000

/* The leader's write of /failsafe (E3). After X71 asked for an empty map, that request may still
 * arrive: only a new version, which its compare-and-swap does not know, ends it. */
void failsafe_map_step(struct step *s)
{
	struct ha_memory *m = s->m;
	if (s->set->failsafe_mode) {
		struct ha_action *a = plan_add(s, HA_WRITE_FAILSAFE);
		a->flag = asked_to_empty(s);
		map_written(s);
		return;
	}
	if (!map_there(s) ||
		(asked_to_empty(s) && s->v->now_ms - m->failsafe_emptied_ms < EMPTY_AGAIN_MS))
		return;
	m->failsafe_emptied = s->c->failsafe_version;
	m->failsafe_emptied_ms = s->v->now_ms;
	plan_add(s, HA_EMPTY_FAILSAFE)->version = s->c->failsafe_version;
	plan_note(s, HA_LOG_INFO,
		"failsafe mode is off: emptying /failsafe, which keeps others from the race "
		"rule=X71");
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
	if (!s->set->failsafe_mode || !map_there(s) || !in_map(s, s->v->name))
		return false;
	if (asked_to_empty(s) || !m->lock_was_held)
		return false; /* X71: by us, or by the incarnation before us */
	if (m->failsafe_again_ms > s->v->now_ms)
		return asking_again(s);
	if (m->failsafe_again_ms == 0 && m->failsafe_active_until_ms > s->v->now_ms &&
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

/* X74: a worker that begins while the store is away has nothing but what the one before it left:
 * the map, and whoever it may name by a write that is on its way. With that it goes on as the other
 * would have, and in time: its own count of the store's silence has only begun. */
bool failsafe_heir_acts(struct step *s)
{
	if (!s->m->lock_was_held || !s->set->failsafe_mode || !s->primary || s->paused ||
		s->v->lock != LOCK_UNCERTAIN)
		return false;
	int64_t at_ms = s->v->gentle_at_ms - FAILSAFE_ROUND_MS;
	if (at_ms > s->v->now_ms)
		plan_wake(s, at_ms);
	return store_fails(s);
}

bool failsafe_bequeathed(const struct ha_view *v, const struct ha_memory *m)
{
	return m->lock_was_held && v->set->failsafe_mode && v->c->failsafe_present &&
	       v->c->failsafe_count > 0 &&
	       (v->role == PG_ROLE_PRIMARY || v->role == PG_ROLE_PROMOTED);
}

void failsafe_inherit(struct ha_memory *m, int64_t emptied_version)
{
	m->lock_was_held = true;
	m->failsafe_emptied = emptied_version;
}

bool failsafe_inherit_sent(
	struct ha_memory *m, const char *name, const char *api_url, int64_t now_ms)
{
	unsigned i = m->failsafe_sent_count;
	if (i == LIMIT_MEMBERS || !str_copy(m->failsafe_sent[i].name, LIMIT_NAME, name) ||
		!str_copy(m->failsafe_sent[i].api_url, LIMIT_URL, api_url))
		return false;
	m->failsafe_sent[i].sent_ms = now_ms;
	m->failsafe_sent_count++;
	return true;
}

static bool primary_cut_off(struct step *s)
{
	sync_keep_strict(s);
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
	return ask_again(s) || demote_for_store(s);
}
