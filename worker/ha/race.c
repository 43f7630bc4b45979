/* No leader (C): may this node take the key (D), and what happens when it tries (C2 to C5). Pure.
 */
#include "worker/ha/step.h"

/* ---- who is asked, and what the answers mean (3.2 to 3.4) ---- */

void poll_begin(struct step *s, enum poll_use use, struct ha_action **out)
{
	s->m->poll_sync = s->sync;
	s->m->poll_quorum = s->quorum_active;
	s->m->poll_sync_version = s->c->sync_version;
	s->m->poll_failover_version = s->c->failover_version;
	s->m->stage_arg[0] = (int)use;
	*out = plan_add(s, HA_POLL_PEERS);
}

/* X52: who was asked, and whether this node may run at all (D7, D10), was decided under one mode,
 * one /sync and one request. The answers are read under the same, or they are asked for again: a
 * non-voter that needed votes would need none after a change to priority mode (S4). */
bool poll_outdated(const struct step *s)
{
	return s->m->poll_sync != s->sync || s->m->poll_quorum != s->quorum_active ||
	       s->m->poll_sync_version != s->c->sync_version ||
	       s->m->poll_failover_version != s->c->failover_version;
}

bool race_wants(const struct step *s, const char *name, const char *api_url, bool nofailover)
{
	if (str_eq(name, s->v->name) || api_url[0] == '\0')
		return false;
	return !nofailover || (s->quorum_active && cluster_sync_matches(s->c, name));
}

/* Where my timeline ended, as /history tells it; 0 = it did not. */
uint64_t race_timeline_end(const struct step *s)
{
	int64_t tli = my_timeline(s);
	if (s->standby || tli == 0 || tli >= cluster_timeline(s->c))
		return 0;
	for (unsigned i = 0; i < s->c->history_count; i++) {
		if (s->c->history[i].timeline == tli)
			return s->c->history[i].lsn;
	}
	return 0;
}

/* 3.3 R: /history proves that this node's last records are on a branch that ended before them (S9,
 * S10, S5c). A standby counts as diverged only by what it holds beyond the fork: replaying up to it
 * is what every standby does. */
bool race_diverged(const struct step *s)
{
	uint64_t end = race_timeline_end(s);
	return end != 0 && my_position(s) > end;
}

static bool lagging(const struct step *s, uint64_t position)
{
	if (s->c->last_lsn <= position)
		return false;
	return s->c->last_lsn - position > (uint64_t)s->set->maximum_lag_on_failover;
}

/* X73: I took over, as /sync says, and was lost before I was promoted: /status is my predecessor's.
 * What it asks for was not asked of me then (a request by hand goes without the lag rule), and by
 * /sync nobody else may lead (V1). */
static bool took_over(const struct step *s)
{
	const struct cluster *c = s->c;
	if (!s->sync_active || !str_eq(c->sync_leader, s->v->name) || c->sync_voter_count > 0 ||
		c->history_count == 0 || my_timeline(s) != cluster_timeline(c))
		return false;
	const char *led = c->history[c->history_count - 1].new_leader;
	return led[0] != '\0' && !str_eq(led, s->v->name);
}

bool race_self_ok(struct step *s, bool with_lag)
{
	int64_t tli = my_timeline(s), cluster_tli = cluster_timeline(s->c);
	if (with_lag && lagging(s, my_position(s)) && !took_over(s)) {
		plan_note(s, HA_LOG_INFO, "My wal position exceeds maximum replication lag");
		return false;
	}
	if (race_diverged(s)) {
		plan_note(s, HA_LOG_WARNING,
			"My wal position is past the end of timeline %d in the history of the "
			"cluster",
			(int)tli);
		return false;
	}
	if (s->standby || !s->set->check_timeline)
		return true;
	if (tli == 0)
		plan_note(s, HA_LOG_INFO, "Can not figure out my timeline");
	else if (tli < cluster_tli)
		plan_note(s, HA_LOG_INFO, "My timeline %d is behind last known cluster timeline %d",
			(int)tli, (int)cluster_tli);
	return tli != 0 && tli >= cluster_tli;
}

static bool peer_limited(const struct ha_peer *p)
{
	return !p->answered || p->nofailover || p->watchdog_failed;
}

static bool past_the_end(const struct step *s, int64_t timeline, uint64_t position)
{
	for (unsigned i = 0; i < s->c->history_count; i++) {
		if (s->c->history[i].timeline == timeline)
			return position > s->c->history[i].lsn;
	}
	return false;
}

/* X26: a voter cannot show the tag by which others know that it disqualifies itself (3.3 R), its
 * word is needed, and a member of the reference that check_timeline keeps out shows none. But
 * whoever holds the votes without it, or is named by /sync, has every acknowledged commit, so that
 * it is ahead is no reason to wait for one that may never lead (V1). */
bool race_peer_barred(const struct step *s, const struct ha_peer *p)
{
	if (failsafe_excludes(s, p->name))
		return true;
	if (s->standby || p->timeline <= 0 || p->timeline >= cluster_timeline(s->c))
		return false;
	return s->set->check_timeline || past_the_end(s, p->timeline, p->position);
}

/* One answer at a position that is not ahead of ours: does it stand in the way, or vote? */
static bool peer_level(struct step *s, const struct ha_peer *p, const char *former, int *votes)
{
	bool voter = s->quorum_active && cluster_sync_matches(s->c, p->name);
	int mine = s->set->tags.failover_priority;
	bool lower = p->position == my_position(s) && mine < p->failover_priority;
	if (lower && former[0] != '\0' && str_eq(former, p->name)) {
		plan_note(s, HA_LOG_INFO,
			"Ignoring former leader %s having priority %d higher than this nodes %d "
			"priority",
			former, p->failover_priority, mine);
		lower = false;
	}
	if (lower && race_peer_barred(s, p))
		lower = false;
	if (lower && (!s->quorum_active || voter)) {
		plan_note(s, HA_LOG_INFO,
			"%s has equally tolerable WAL position and priority %d, while this node "
			"has priority %d",
			p->name, p->failover_priority, mine);
		return false;
	}
	if (voter) {
		plan_note(s, HA_LOG_INFO, "Got quorum vote from %s", p->name);
		(*votes)++;
	}
	return true;
}

/* X20: /sync names me as the last who led. Nobody can have acknowledged anything after
 * me, so a peer whose last records are on a branch that ended before mine began is not ahead,
 * however far that branch went; to wait for it would be to wait for ever, because S9 keeps it from
 * leading itself (V1). Elsewhere the position alone counts: a timeline that is reported too old
 * must not hide commits that only that peer has. */
static bool peer_on_dead_end(const struct step *s, const struct ha_peer *p)
{
	const struct ha_view *v = s->v;
	int64_t tli = my_timeline(s);
	if (!s->quorum_active || !str_eq(s->c->sync_leader, v->name) || p->timeline <= 0 ||
		p->timeline >= tli || tli < cluster_timeline(s->c))
		return false;
	/* What I led may be missing in /history, if the store went away before it was written; my
	 * own history file says where it began. */
	for (unsigned i = 0; v->local_history_tli == tli && i < v->local_history_count; i++) {
		if (v->local_history[i].timeline == p->timeline)
			return p->position > v->local_history[i].lsn;
	}
	return past_the_end(s, p->timeline, p->position);
}

/* X68: a position counts among those of one history. Whoever is on a later timeline than mine
 * followed somebody who was promoted after the last of my records, and may hold what was
 * acknowledged there, however far my own branch went on alone: that is no vote for me (S4).
 * Without a quorum there are no votes: whoever /sync names has everything, and two that wait for
 * each other, one by timeline and one by position, would wait for ever (V1). */
static bool peer_ahead(struct step *s, const struct ha_peer *p)
{
	if (s->quorum_active && p->timeline > my_timeline(s)) {
		plan_note(s, HA_LOG_INFO, "Timeline %d of %s is later than my timeline %d rule=X68",
			(int)p->timeline, p->name, (int)my_timeline(s));
		return true;
	}
	if (p->position > my_position(s)) {
		plan_note(
			s, HA_LOG_INFO, "Wal position of %s is ahead of my wal position", p->name);
		return true;
	}
	return false;
}

bool race_health(struct step *s, const char *former)
{
	int votes = s->quorum_active && cluster_sync_matches(s->c, s->v->name) ? 0 : -1;
	unsigned ahead = 0;
	if (s->sync_active)
		former = s->c->sync_leader;
	for (unsigned i = 0; i < s->peer_count; i++) {
		const struct ha_peer *p = &s->v->peers[i];
		if (peer_limited(p))
			continue;
		if (!p->in_recovery) {
			plan_note(s, HA_LOG_WARNING, "Primary (%s) is still alive", p->name);
			return false;
		}
		if (peer_on_dead_end(s, p)) {
			plan_note(s, HA_LOG_INFO,
				"Timeline %d of %s ended before its wal position rule=X20",
				(int)p->timeline, p->name);
			continue;
		}
		if (peer_ahead(s, p)) {
			ahead++;
			if (race_peer_barred(s, p))
				plan_note(s, HA_LOG_INFO, "%s may not lead rule=X26", p->name);
			else if (!s->sync_active || !str_eq_nocase(s->c->sync_leader, p->name))
				return false;
			else
				plan_note(s, HA_LOG_INFO,
					"Ignoring the former leader being ahead of us");
		} else if (p->position > 0 && !peer_level(s, p, former, &votes)) {
			return false;
		}
	}
	if (!s->quorum_active || votes >= s->c->sync_quorum)
		return true;
	if (ahead == 0 && str_eq(s->c->sync_leader, s->v->name))
		return true;
	plan_note(s, HA_LOG_INFO, "not enough quorum votes: %d, needed: %d", votes < 0 ? 0 : votes,
		s->c->sync_quorum);
	return false;
}

/* ---- D: is this node eligible? ---- */

/* D4: a primary without the key takes it back, unless another led meanwhile. */
static enum may primary_may(struct step *s)
{
	if (s->paused)
		return !s->c->init_present || str_eq(s->c->init, s->v->system_id) ? MAY_YES
										  : MAY_NO;
	int64_t tli = my_timeline(s);
	if (tli < cluster_timeline(s->c)) {
		plan_note(s, HA_LOG_WARNING,
			"My timeline %d is behind last known cluster timeline %d", (int)tli,
			(int)cluster_timeline(s->c));
		return MAY_NO;
	}
	/* S10 R: a running primary whose timeline is unknown cannot prove that it is not behind. */
	return tli > 0 ? MAY_YES : MAY_NO;
}

static bool known_later(const struct step *s, const char *name)
{
	return cluster_member_peek(s->c, name) != NULL;
}

/* D11: the members of the healthy time, of the failsafe map and of now; the later entry of a name
 * wins. */
static enum may ask_all_known(struct step *s)
{
	struct ha_action *a;
	const struct cluster *c = s->c;
	bool failsafe = s->set->failsafe_mode && c->failsafe_present;
	poll_begin(s, POLL_RACE, &a);
	for (unsigned i = 0; i < c->member_count; i++) {
		const struct member *p = &c->members[i];
		if (race_wants(s, p->name, p->api_url, p->tags.nofailover) &&
			(!s->sync_active || cluster_sync_matches(c, p->name)))
			plan_name(s, a, p->name);
	}
	for (unsigned i = 0; failsafe && i < c->failsafe_count; i++) {
		const struct failsafe_member *p = &c->failsafe[i];
		if (!known_later(s, p->name) && race_wants(s, p->name, p->api_url, false) &&
			(!s->sync_active || cluster_sync_matches(c, p->name)))
			plan_name(s, a, p->name);
	}
	for (unsigned i = 0; i < s->m->old_member_count; i++) {
		bool later = known_later(s, s->m->old_members[i].name);
		for (unsigned k = 0; failsafe && !later && k < c->failsafe_count; k++)
			later = str_eq(c->failsafe[k].name, s->m->old_members[i].name);
		if (!later &&
			race_wants(s, s->m->old_members[i].name, s->m->old_members[i].api_url,
				s->m->old_members[i].nofailover) &&
			(!s->sync_active || cluster_sync_matches(c, s->m->old_members[i].name)))
			plan_name(s, a, s->m->old_members[i].name);
	}
	if (a->name_count == 0) {
		s->plan->count--;
		return race_health(s, s->m->old_leader) ? MAY_YES : MAY_NO;
	}
	plan_await(s, STAGE_POLL, AWAIT_PEERS, 2500, "D11");
	return MAY_AWAIT;
}

static enum may standby_may(struct step *s)
{
	if (s->paused || is_nofailover(s))
		return MAY_NO; /* D5, D6 */
	if (failsafe_promise_forgotten(s))
		return MAY_NO;
	/* D9. X16: before D7, not after it. Whoever is not in the map is not asked by a primary in
	 * failsafe mode, so nothing, not even a manual request, may make it one (S1, S18). */
	if (failsafe_excludes(s, s->v->name)) {
		const char *advice = ", and failsafe mode was switched off without a leader that "
				     "could empty it: once none of its members runs "
				     "PostgreSQL, delete that key";
		plan_note(s, HA_LOG_INFO,
			"not taking part in the race: this member is not in /failsafe%s rule=D9",
			s->set->failsafe_mode ? "" : advice);
		return MAY_NO;
	}
	/* X55: before D7 too. One whose PostgreSQL does not answer has no position that could be
	 * compared; it would win a switchover, name itself alone in /failsafe and give the key back
	 * (V1). */
	if (!s->v->sql->valid) {
		plan_note(s, HA_LOG_INFO,
			"not taking part in the race: PostgreSQL does not answer rule=X55");
		return MAY_NO;
	}
	if (s->c->failover_present) { /* D7 */
		if (s->c->failover_leader[0] != '\0' && s->sync_active &&
			!cluster_sync_matches(s->c, s->v->name))
			return MAY_NO;
		enum may may = handover_no_leader(s);
		return may == MAY_GO_ON ? MAY_NO : may;
	}
	if (s->v->watchdog_failed && s->set->watchdog_mode == WATCHDOG_REQUIRED) {
		plan_note(s, HA_LOG_WARNING, "Watchdog device is not usable");
		return MAY_NO; /* D8 */
	}
	if (s->sync_active && !s->quorum_active && !cluster_sync_matches(s->c, s->v->name))
		return MAY_NO; /* D10 */
	return race_self_ok(s, true) ? ask_all_known(s) : MAY_NO;
}

static enum may eligible(struct step *s)
{
	if (s->m->released_ms != 0 && s->v->now_ms - s->m->released_ms < s->set->ttl_ms) {
		plan_note(s, HA_LOG_INFO,
			"backoff: skip leader race after pre_promote script failure and releasing "
			"the "
			"lock voluntarily");
		plan_wake(s, s->m->released_ms + s->set->ttl_ms);
		return MAY_NO; /* D1 */
	}
	if (s->paused && !is_nofailover(s) && s->c->failover_present && !s->c->failover_scheduled) {
		enum may may = handover_no_leader(s); /* D2 */
		if (may != MAY_GO_ON)
			return may;
	}
	if (s->starting)
		return MAY_NO; /* D3 */
	return s->primary ? primary_may(s) : standby_may(s);
}

/* ---- C ---- */

/* C1: the old primary may only have lost its agent; while its WAL still flows it is better left to
 * live. */
static bool race_backoff(struct step *s)
{
	const struct settings *set = s->set;
	if (s->paused || s->standby || s->c->failover_candidate[0] != '\0' ||
		set->primary_race_backoff_ms <= 0 || s->m->prev_lsn == 0)
		return false;
	if (s->m->race_backoff_ms == 0)
		s->m->race_backoff_ms = s->v->now_ms;
	int64_t left = s->m->race_backoff_ms + set->primary_race_backoff_ms - s->v->now_ms;
	bool moved = left > 0 && s->v->sql->receiver_streaming && my_position(s) > s->m->prev_lsn;
	if (!moved && left <= set->primary_race_backoff_ms - set->loop_wait_ms)
		return false;
	plan_wake(s, s->v->now_ms + (left < set->loop_wait_ms ? left : set->loop_wait_ms));
	return plan_done(s, "C1",
		"My (%s) wal position moved since last heart beat loop, %d seconds until leader "
		"race",
		s->v->name, (int)((left + 500) / 1000));
}

/* C4, C5. */
static bool not_eligible(struct step *s)
{
	bool nofailover = is_nofailover(s);
	enum follow_why why = nofailover ? FOLLOW_NOT_ALLOWED : FOLLOW_NOT_HEALTHIEST;
	if (s->c->failover_candidate[0] == '\0' && (!nofailover || s->paused))
		return follow(s, why);
	/* The new leader of a manual action need not be ahead of this node, and a nofailover node
	 * may be ahead of all. */
	rewind_trigger(s);
	if (s->m->race_wait_ms == 0)
		s->m->race_wait_ms = s->v->now_ms;
	int64_t until_ms = s->m->race_wait_ms + 2000;
	if (s->primary || s->v->now_ms >= until_ms)
		return follow(s, why);
	plan_wake(s, until_ms);
	return plan_done(s, "C4", "%s",
		nofailover ? "following a different leader because I am not allowed to promote"
			   : "following a different leader because i am not the healthiest node");
}

bool race_answer(struct step *s, bool yes)
{
	if (!yes)
		return not_eligible(s);
	s->m->race_decided = true;
	s->m->race_sync_version = s->c->sync_key_exists ? s->c->sync_version : -1;
	plan_add(s, HA_ACQUIRE);
	return plan_await(s, STAGE_ACQUIRE, AWAIT_DCS, s->set->retry_timeout_ms, "C2");
}

bool rule_no_leader(struct step *s)
{
	if (!s->unlocked)
		return false;
	if (race_backoff(s))
		return true;
	enum may may = eligible(s);
	return may == MAY_AWAIT || race_answer(s, may == MAY_YES);
}

bool race_polled(struct step *s, enum poll_use use)
{
	INVARIANT(use == POLL_RACE);
	/* A leader appeared, or PostgreSQL is another thing than when the question was asked. */
	if (!s->unlocked || s->primary || s->starting || s->paused || poll_outdated(s))
		return cycle_run(s);
	return race_answer(s, race_self_ok(s, true) && race_health(s, s->m->old_leader));
}

/* C2: what the key of a manual action is for is done now. */
static void acquired_failover_key(struct step *s)
{
	if (!s->c->failover_key_exists || !s->c->failover_present)
		return;
	bool keep = s->paused && s->c->failover_leader[0] != '\0' &&
		    s->c->failover_candidate[0] != '\0';
	plan_note(s, HA_LOG_INFO, "%s failover key after acquiring leader lock...",
		keep ? "Updating" : "Cleaning up");
	struct ha_action *a = plan_add(s, keep ? HA_REWRITE_FAILOVER : HA_CLEAR_FAILOVER);
	a->version =
		s->c->failover_version; /* CAS: a request that came in between is another one */
}

bool stage_acquire(struct step *s)
{
	switch (s->r->outcome) {
	case HA_OUT_OK: break;
	case HA_OUT_CONFLICT:
	case HA_OUT_DENIED: return follow(s, FOLLOW_LOST_RACE);
	case HA_OUT_NONE:
	case HA_OUT_UNKNOWN:
		/* It may be ours all the same: then C will show my name, and X2 takes it over. */
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(s, "J3", "DCS is not accessible");
	}
	if (!s->has_lock)
		return cycle_run(s); /* won and lost again already */
	s->m->lock_won = true;
	acquired_failover_key(s);
	if (s->standby)
		return follow(s, FOLLOW_STANDBY_PROMOTED);
	return act_primary(s, ACT_ACQUIRED);
}

/* ---- what peers and readers are told ---- */

bool ha_effective_nofailover(const struct ha_view *view, const struct ha_memory *memory)
{
	if (view->set->tags.nofailover)
		return true;
	struct step s;
	step_init(&s, view, NULL, NULL, NULL); /* facts only: none of what follows writes */
	if (s.has_lock || s.primary || s.quorum_active)
		return false;
	s.failsafe_void = memory->failsafe_void;
	if (memory->released_ms != 0 && view->now_ms - memory->released_ms < view->set->ttl_ms)
		return true; /* D1 */
	if (failsafe_excludes(&s, view->name) || race_diverged(&s))
		return true;
	return view->set->check_timeline && !s.standby && my_timeline(&s) > 0 &&
	       my_timeline(&s) < cluster_timeline(view->c);
}
