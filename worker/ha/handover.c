/* Switchover and failover requests: as the leader sees them (E-M), as the others see them when it
 * has gone (D-M), and whether anybody could take over at all (3.6). Pure. */
#include "worker/ha/step.h"

const char *handover_word(const struct step *s)
{
	if (!s->c->failover_present)
		return "failover";
	return s->c->failover_leader[0] != '\0' ? "switchover" : "manual failover";
}

static const char *bare_word(const struct step *s)
{
	return s->c->failover_leader[0] != '\0' ? "switchover" : "failover";
}

/* ---- 3.6 ---- */

/* X19: a switchover promises that nothing acknowledged is lost (S15), and the leader may have died
 * before it found out whether the candidate has everything. With a voter's word for each commit
 * (priority) every candidate that D7 lets pass has it; with a quorum's word only the votes can
 * tell, so the candidate must win them like anybody, and whoever is ahead of it does not wait for
 * it. A failover names its target without a leader: that one is the operator's word. */
static bool votes_wanted(const struct step *s)
{
	return s->quorum_active && s->c->failover_leader[0] != '\0';
}

/* X59: so before a leader stops for a candidate by name, it asks the voters too. Stopped for one
 * that cannot win, the cluster would have no leader until the others no longer wait (X57). */
static bool vote_asked(const struct step *s, const struct member *p)
{
	const struct cluster *c = s->c;
	return !s->unlocked && c->failover_present && c->failover_candidate[0] != '\0' &&
	       votes_wanted(s) && cluster_sync_is_voter(c, p->name) &&
	       !str_eq(p->name, s->v->name) && p->api_url[0] != '\0';
}

static bool votes_short(const struct step *s)
{
	unsigned votes = 0, need = (unsigned)s->c->sync_quorum + 1;
	if (s->unlocked || !s->c->failover_present || s->c->failover_candidate[0] == '\0' ||
		!votes_wanted(s))
		return false;
	for (unsigned i = 0; i < s->peer_count; i++) {
		const struct ha_peer *p = &s->v->peers[i];
		if (p->answered && p->in_recovery && cluster_sync_is_voter(s->c, p->name))
			votes++;
	}
	return votes < need;
}

static bool may_take_over(const struct step *s, const struct member *p, bool exclude_candidate)
{
	const struct cluster *c = s->c;
	const char *candidate = c->failover_present ? c->failover_candidate : "";
	if (str_eq(p->name, s->v->name) || p->tags.nofailover || p->api_url[0] == '\0')
		return false;
	/* X26: D9 keeps it from the race. A leader is not stopped by that, its map names all. */
	if (s->unlocked && failsafe_excludes(s, p->name))
		return false;
	if (candidate[0] != '\0') {
		bool named = str_eq(p->name, candidate);
		if (exclude_candidate ? named : !named)
			return false;
	}
	bool any = c->failover_present && c->failover_leader[0] == '\0';
	return !s->sync_active || any || cluster_sync_is_voter(c, p->name);
}

bool failover_ask(struct step *s, enum poll_use use, bool exclude_candidate)
{
	struct ha_action *a;
	bool any = false;
	poll_begin(s, use, &a);
	s->m->stage_arg[1] = exclude_candidate;
	for (unsigned i = 0; i < s->c->member_count; i++) {
		bool able = may_take_over(s, &s->c->members[i], exclude_candidate);
		any |= able;
		if (able || vote_asked(s, &s->c->members[i]))
			plan_name(s, a, s->c->members[i].name);
	}
	if (!any) {
		s->plan->name_count = a->name_first;
		s->plan->count--;
		plan_note(s, HA_LOG_WARNING, "%s: candidates list is empty", handover_word(s));
		return false;
	}
	return plan_await(s, STAGE_POLL, AWAIT_PEERS, 2500, "3.6");
}

static unsigned needed_votes(const struct step *s, bool exclude_candidate)
{
	bool named =
		s->c->failover_present && s->c->failover_candidate[0] != '\0' && !exclude_candidate;
	return s->quorum_active && !named ? (unsigned)s->c->sync_quorum + 1 : 1;
}

static bool peer_can(struct step *s, const struct ha_peer *p)
{
	const char *limit = NULL;
	if (!p->answered)
		limit = "not reachable";
	else if (p->nofailover)
		limit = "not allowed to promote";
	else if (p->watchdog_failed)
		limit = "not watchdog capable";
	else if (s->unlocked && race_peer_barred(s, p))
		limit = "on a branch that may not lead rule=X26";
	if (limit != NULL) {
		plan_note(s, HA_LOG_INFO, "Member %s is %s", p->name, limit);
		return false;
	}
	if (s->c->last_lsn > p->position &&
		s->c->last_lsn - p->position > (uint64_t)s->set->maximum_lag_on_failover) {
		plan_note(s, HA_LOG_INFO, "Member %s exceeds maximum replication lag", p->name);
		return false;
	}
	int64_t cluster_tli = cluster_timeline(s->c);
	if (s->set->check_timeline && (p->timeline == 0 || p->timeline < cluster_tli)) {
		plan_note(s, HA_LOG_INFO,
			"Timeline %d of member %s is behind the cluster timeline %d",
			(int)p->timeline, p->name, (int)cluster_tli);
		return false;
	}
	return true;
}

bool failover_possible(struct step *s, bool exclude_candidate)
{
	unsigned able = 0;
	for (unsigned i = 0; i < s->peer_count; i++) {
		const struct member *m = cluster_member_peek(s->c, s->v->peers[i].name);
		/* The request may have changed while the answers were under way. */
		if (m != NULL && may_take_over(s, m, exclude_candidate) &&
			peer_can(s, &s->v->peers[i]))
			able++;
	}
	unsigned need = needed_votes(s, exclude_candidate);
	if (able > 0 && able < need)
		plan_note(s, HA_LOG_INFO, "Quorum requirement %d can not be reached",
			s->c->sync_quorum);
	bool voteless = votes_short(s);
	if (voteless)
		plan_note(s, HA_LOG_INFO, "%s: %s would not get the votes it needs rule=X59",
			handover_word(s), s->c->failover_candidate);
	return able >= need && !voteless;
}

void failover_names(struct step *s, struct ha_action *a)
{
	for (unsigned i = 0; i < s->c->member_count; i++) {
		if (may_take_over(s, &s->c->members[i], false))
			plan_name(s, a, s->c->members[i].name);
	}
	a->quorum = (int)needed_votes(s, false);
}

/* ---- E-M ---- */

static void clear_key(struct step *s)
{
	plan_note(s, HA_LOG_INFO, "Cleaning up failover key");
	plan_add(s, HA_CLEAR_FAILOVER)->version = s->c->failover_version;
}

/* X72: a switchover to somebody by name counts on a leader that stopped cleanly for it. One that
 * gives its key back for another reason may have what the candidate lacks (S15): the request goes
 * before the key does, if the store lets it go within a loop_wait. */
bool handover_remove(struct step *s)
{
	const struct cluster *c = s->c;
	if (!c->failover_present || s->paused || c->failover_candidate[0] == '\0' ||
		!str_eq(c->failover_leader, s->v->name) ||
		str_eq(c->failover_candidate, s->v->name))
		return false;
	plan_add(s, HA_CLEAR_FAILOVER)->version = c->failover_version;
	return true;
}

/* True = decided, it is still there. */
bool handover_void(struct step *s)
{
	struct ha_memory *m = s->m;
	if (m->void_version != s->c->failover_version || m->void_since_ms == 0) {
		m->void_version = s->c->failover_version;
		m->void_since_ms = s->v->now_ms;
	}
	if (s->v->now_ms - m->void_since_ms >= s->set->loop_wait_ms || !handover_remove(s))
		return false;
	plan_wake(s, m->void_since_ms + s->set->loop_wait_ms);
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, "X72",
		"%s: removing the request, the leader key is given back for another reason",
		handover_word(s));
}

/* A stop is for those who were asked for when it began: whoever is named later, even if the last
 * record goes to somebody else, would be given the key by its name. */
void handover_late(struct step *s)
{
	struct ha_memory *m = s->m;
	const struct cluster *c = s->c;
	bool asked = m->void_version == c->failover_version && m->void_since_ms != 0 &&
		     s->v->now_ms - m->void_since_ms < s->set->loop_wait_ms;
	if (s->v->task != TASK_DEMOTE || !s->has_lock || !lock_usable(s) || asked ||
		str_eq(c->failover_candidate, m->demoted_for) || !handover_remove(s))
		return;
	m->void_version = c->failover_version;
	m->void_since_ms = s->v->now_ms;
	plan_note(s, HA_LOG_WARNING,
		"%s: removing the request for %s, PostgreSQL is stopping for another reason "
		"already rule=X72",
		handover_word(s), c->failover_candidate);
}

/* "Switchover", as the reference begins these lines. */
static const char *title_word(const struct step *s)
{
	return s->c->failover_leader[0] != '\0' ? "Switchover" : "Manual Failover";
}

/* X50: a candidate that lost its connection a moment ago (the primary was restarted, its
 * walreceiver sleeps wal_retrieve_retry_interval) cannot receive the shutdown checkpoint; stopping
 * now is an outage that ends with X6. One that streams from another standby, or from the archive
 * alone, is not seen here: after the wait it is tried all the same. */
#define STREAMING_WAIT_MS 10000

static bool nobody_streams(const struct step *s)
{
	const struct cluster *c = s->c;
	if (c->failover_leader[0] == '\0' || s->standby || !s->primary || !s->v->sql->valid)
		return false;
	bool any = false;
	for (unsigned i = 0; i < c->member_count; i++) {
		const struct member *m = &c->members[i];
		if (!may_take_over(s, m, false))
			continue;
		if (m->tags.replicatefrom[0] != '\0')
			return false;
		any = true;
		for (unsigned k = 0; k < s->v->sql->walsender_count; k++) {
			if (str_eq(s->v->sql->walsenders[k].application_name, m->name))
				return false;
		}
	}
	return any;
}

static bool wait_a_moment(struct step *s, const char *what, int64_t again_ms)
{
	struct ha_memory *m = s->m;
	if (m->stream_wait_version != s->c->failover_version || m->stream_wait_ms == 0) {
		m->stream_wait_version = s->c->failover_version;
		m->stream_wait_ms = s->v->now_ms;
		plan_note(s, HA_LOG_INFO, "%s: %s yet, waiting up to %d seconds for it",
			handover_word(s), what, STREAMING_WAIT_MS / 1000);
	}
	if (s->v->now_ms - m->stream_wait_ms >= STREAMING_WAIT_MS)
		return false;
	plan_wake(s, s->v->now_ms + again_ms);
	return true;
}

static bool wait_for_streaming(struct step *s)
{
	return nobody_streams(s) && wait_a_moment(s, "no candidate streams from me", 250);
}

static bool step_down(struct step *s)
{
	struct ha_action *a = plan_demote(s, DEMOTE_GRACEFUL);
	/* A failover names its target without asking whether it has everything; a switchover
	 * promises not to lose (S15). */
	a->flag = s->c->failover_leader[0] == '\0' || s->standby;
	a->timeout_ms = s->sync != SYNC_OFF ? s->set->primary_stop_timeout_ms : 0;
	failover_names(s, a);
	return plan_done(s, "E-M", "%s: demoting myself", handover_word(s));
}

bool handover_leader(struct step *s, enum poll_use use)
{
	const struct cluster *c = s->c;
	if (!c->failover_present || (s->paused && !s->primary))
		return false;
	/* X11: a leader that is not primary yet is promoted first. It may hold acknowledged commits
	 * that no candidate has, and only the clean stop of a primary shows whether one received
	 * them (S15). */
	if (!s->primary && !s->starting && !s->standby)
		return false;
	if (c->failover_scheduled || c->failover_schedule_bad) {
		enum due due = schedule_due(
			s, bare_word(s), c->failover_at_wall_us, c->failover_schedule_bad);
		if (due == DUE_STALE)
			clear_key(s);
		if (due != DUE_NOW)
			return false;
	}
	bool mine = c->failover_leader[0] == '\0' || str_eq(c->failover_leader, s->v->name);
	if (!mine) {
		plan_note(s, HA_LOG_WARNING, "%s: leader name does not match: %s != %s",
			handover_word(s), c->failover_leader, s->v->name);
	} else if (str_eq(c->failover_candidate, s->v->name)) {
		plan_note(s, HA_LOG_WARNING, "%s: I am already the leader, no need to %s",
			handover_word(s), bare_word(s));
	} else if (c->failover_candidate[0] == '\0' && s->paused) {
		plan_note(s, HA_LOG_WARNING,
			"%s is possible only to a specific candidate in a paused state",
			title_word(s));
	} else if (wait_for_streaming(s)) {
		return false;
	} else if (failover_ask(s, use, false)) {
		return true;
	} else {
		plan_note(s, HA_LOG_WARNING, "%s: no healthy members found, %s is not possible",
			handover_word(s), bare_word(s));
	}
	clear_key(s);
	return false;
}

/* The answers of E-M's question: step down, or clear the key and go on as E4. */
bool handover_leader_polled(struct step *s, bool possible)
{
	if (!s->has_lock || !lock_usable(s) || !s->c->failover_present || s->v->task != TASK_NONE)
		return cycle_run(s);
	if (possible)
		return step_down(s);
	/* X59: a voter that was just started, or that lags, is heard or dropped in a moment. */
	if (votes_short(s) && wait_a_moment(s, "the votes for the candidate are not there", 1000))
		return leader_after_handover(s);
	plan_note(s, HA_LOG_WARNING, "%s: no healthy members found, %s is not possible",
		handover_word(s), bare_word(s));
	clear_key(s);
	return leader_after_handover(s);
}

/* ---- D-M ---- */

/* R: whoever led when the request was made is not asked, because it is the one that gave way. But
 * others may have led since (the request outlives a leader that could not remove it), and then it
 * is a voter like any other: without its word the votes may never be enough (V1). */
static bool vote_counts(const struct step *s, const char *name)
{
	return s->quorum_active && cluster_sync_is_voter(s->c, name) &&
	       !str_eq_nocase(s->c->sync_leader, name);
}

/* X57: whoever is named, or might take over, may be healthy in every answer and still not lead: its
 * votes are not there, its store, its watchdog or its script say no. It has one ttl for it, the
 * others after it another; then it goes by the votes and the health of all who are left, as if
 * nobody had been named. Nothing is given up by that: who may lead is decided as in any race (V1,
 * V5). */
static bool left_long_enough(struct step *s, int turns)
{
	struct ha_memory *m = s->m;
	if (m->left_to_ms == 0 || m->left_to_version != s->c->failover_version) {
		m->left_to_version = s->c->failover_version;
		m->left_to_ms = s->v->now_ms;
	}
	if (s->v->now_ms - m->left_to_ms < turns * s->set->ttl_ms)
		return false;
	plan_note(s, HA_LOG_WARNING,
		"%s: nobody took the leader key for %d seconds, no longer waiting rule=X57",
		handover_word(s), (int)((s->v->now_ms - m->left_to_ms) / 1000));
	return true;
}

/* X58: that I was the leader when the request was made does not mean that nobody led since. With a
 * quorum only /sync tells who was the last, and anybody else needs the votes (S4). */
static bool led_last(const struct step *s)
{
	return str_eq(s->c->failover_leader, s->v->name) &&
	       (!s->quorum_active || str_eq(s->c->sync_leader, s->v->name));
}

/* The last part: I was not the leader (or nobody was named), and it goes by health without the lag
 * rule. */
static enum may manual_race(struct step *s)
{
	const struct cluster *c = s->c;
	struct ha_action *a;
	if (!race_self_ok(s, false))
		return MAY_NO;
	poll_begin(s, POLL_MANUAL_RACE, &a);
	for (unsigned i = 0; i < c->member_count; i++) {
		const struct member *p = &c->members[i];
		if (!(str_eq(p->name, c->failover_leader) && !vote_counts(s, p->name)) &&
			race_wants(s, p->name, p->api_url, p->tags.nofailover) &&
			(!s->sync_active || cluster_sync_is_voter(c, p->name)))
			plan_name(s, a, p->name);
	}
	if (a->name_count == 0) {
		s->plan->count--;
		return race_health(s, "") ? MAY_YES : MAY_NO;
	}
	plan_await(s, STAGE_POLL, AWAIT_PEERS, 2500, "D-M");
	return MAY_AWAIT;
}

/* No candidate, or the named one cannot. */
static enum may manual_rest(struct step *s, bool candidate_failed)
{
	if (!led_last(s))
		return manual_race(s);
	if (race_diverged(s))
		return MAY_NO; /* S9 */
	if (failover_ask(s, POLL_MANUAL_LEADER, candidate_failed))
		return MAY_AWAIT;
	return MAY_YES; /* the only healthy one */
}

enum may handover_no_leader(struct step *s)
{
	const struct cluster *c = s->c;
	const char *candidate = c->failover_candidate;
	if (candidate[0] == '\0')
		return s->paused ? MAY_NO : manual_rest(s, false);
	if (str_eq(candidate, s->v->name)) {
		if (votes_wanted(s))
			return manual_race(s);
		/* X69: in pause (D2) nobody asked D7 whether I have what was acknowledged (S15). */
		if (s->c->failover_leader[0] != '\0' && s->sync_active &&
			!cluster_sync_matches(s->c, s->v->name))
			return MAY_NO;
		return race_diverged(s) && !s->quorum_active
			       ? MAY_NO
			       : MAY_YES; /* S9, as peers see it by its tag */
	}
	const struct member *target = cluster_member_peek(c, candidate);
	if (s->paused) {
		if (target != NULL || !s->primary)
			return MAY_NO;
		plan_note(s, HA_LOG_WARNING,
			"%s: removing failover key because failover candidate is not running",
			handover_word(s));
		plan_add(s, HA_CLEAR_FAILOVER)->version = c->failover_version;
		return MAY_GO_ON;
	}
	/* R: only while /sync names somebody. Switched on just before the leader died it names
	 * nobody: then nothing was promised, and a candidate that cannot (S9) would keep all others
	 * back for ever (V5). */
	if (s->sync_active && s->sync == SYNC_PRIORITY && !cluster_sync_matches(c, s->v->name))
		return MAY_NO;
	/* R: D7 keeps a candidate outside of /sync from taking over; to leave it to that one all
	 * the same would leave the cluster without a leader for ever (V5). */
	bool barred = (c->failover_leader[0] != '\0' && s->sync_active &&
			      !cluster_sync_matches(c, candidate)) ||
		      failsafe_excludes(s, candidate); /* X26 */
	if (target == NULL || target->api_url[0] == '\0' || barred)
		return manual_rest(s, true);
	struct ha_action *a;
	poll_begin(s, POLL_MANUAL_TARGET, &a);
	plan_name(s, a, candidate);
	plan_await(s, STAGE_POLL, AWAIT_PEERS, 2500, "D-M");
	return MAY_AWAIT;
}

static enum may target_polled(struct step *s)
{
	const struct ha_peer *p = NULL;
	for (unsigned i = 0; i < s->peer_count; i++) {
		if (str_eq(s->v->peers[i].name, s->c->failover_candidate))
			p = &s->v->peers[i];
	}
	bool behind = p != NULL && p->answered && votes_wanted(s) && p->position < my_position(s);
	if (behind) {
		char its[20], mine[20];
		str_from_lsn(p->position, its);
		str_from_lsn(my_position(s), mine);
		plan_note(s, HA_LOG_WARNING, "%s: member %s is behind me: %s < %s",
			handover_word(s), p->name, its, mine);
		return manual_rest(s, true);
	}
	/* X26. A failover without a leader is the operator's word, whatever its target lacks. */
	bool barred = p != NULL && votes_wanted(s) && race_peer_barred(s, p);
	bool fit = p != NULL && p->answered && !p->nofailover && !p->watchdog_failed && !barred;
	if (fit && left_long_enough(s, 1))
		return manual_rest(s, true);
	if (fit) {
		plan_note(s, HA_LOG_INFO, "%s: to %s, i am %s", handover_word(s), p->name,
			s->v->name);
		return MAY_NO;
	}
	plan_note(s, HA_LOG_WARNING, "%s: member %s is %s", handover_word(s),
		s->c->failover_candidate,
		p == NULL || !p->answered ? "not reachable"
		: p->nofailover || barred ? "not allowed to promote"
					  : "not watchdog capable");
	return manual_rest(s, true);
}

/* I was the leader. Others could take over: they are left to it, for a while. */
static enum may leader_polled(struct step *s)
{
	if (!failover_possible(s, s->m->stage_arg[1] != 0))
		return MAY_YES;
	return left_long_enough(s, 2) ? manual_race(s) : MAY_NO;
}

bool handover_no_leader_polled(struct step *s, enum poll_use use)
{
	if (!s->unlocked || s->primary || s->starting || !s->c->failover_present ||
		poll_outdated(s))
		return cycle_run(s);
	enum may may = MAY_NO;
	if (use == POLL_MANUAL_TARGET)
		may = target_polled(s);
	else if (use == POLL_MANUAL_LEADER)
		may = leader_polled(s);
	else if (race_self_ok(s, false))
		may = race_health(s, "") ? MAY_YES : MAY_NO;
	return may == MAY_AWAIT || race_answer(s, may == MAY_YES);
}
