/* The checker: safety at every event that matters, liveness after the heal. */
#include "tests/sim/sim_checks.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

#define SETTLE_MS                                                                                  \
	60000 /* after a mode was switched on or off the two sides may disagree so long            \
	       */

void check_init(struct sim *s)
{
	memset(&s->checks, 0, sizeof(s->checks));
	for (int i = 0; i < SIM_NODES; i++)
		s->checks.last_ack_ms[i] = -1;
	s->checks.manual_candidate = s->checks.handed_to = -1;
	s->checks.won_by_hand = s->checks.not_promised = -1;
	s->checks.manual_ms = s->checks.pause_ended_ms = INT64_MIN / 4;
	s->checks.pause_began_ms = INT64_MIN / 4;
	s->checks.mode_changed_ms = s->checks.sync_changed_ms = INT64_MIN / 4;
	const struct settings *set = sim_settings(s, s->settings_count);
	s->checks.mode = set ? settings_sync_mode(set) : SYNC_OFF;
	s->checks.strict = set && set->sync_strict;
	s->checks.max_tli = 1;
	s->checks.trace_hash = 1469598103934665603u;
}

void violation(struct sim *s, const char *what, const char *fmt, ...)
{
	if (s->checks.violated)
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(s->checks.text, sizeof(s->checks.text), fmt, ap);
	va_end(ap);
	s->checks.violated = true;
	s->checks.at_ms = s->now_ms;
	snprintf(s->checks.what, sizeof(s->checks.what), "%s", what);
	s->ended = true;
	sim_log(s, -1, "VIOLATION %s: %s", what, s->checks.text);
}

static void mix(struct sim *s, uint64_t v)
{
	s->checks.trace_hash = (s->checks.trace_hash ^ v) * 1099511628211u;
}

/* Pause is outside the promise, and so is the moment in which it ends. */
static bool in_pause(const struct sim *s)
{
	const struct settings *set = sim_config_now(s);
	return (set && set->pause) || s->now_ms - s->checks.pause_ended_ms < SETTLE_MS;
}

/* ... as far as this node has heard of it. */
static bool node_in_pause(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	if (in_pause(s) || worker_settings(s, node)->pause || n->sup.guard.policy == POLICY_PAUSED)
		n->last_paused_ms = s->now_ms;
	return n->last_paused_ms && s->now_ms - n->last_paused_ms < SETTLE_MS;
}

static bool settled(const struct sim *s)
{
	return s->now_ms - s->checks.sync_changed_ms > SETTLE_MS && !in_pause(s);
}

static bool lease_or_failsafe(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	/* What was under way when a suspended node went on is answered before anybody can act
	 * (ha 2.5). */
	if (dcs_lease_of(s, node) || (n->resumed_ms && s->now_ms - n->resumed_ms <= 150))
		return true;
	return n->failsafe_round_ms >= 0 &&
	       s->now_ms <= n->failsafe_round_ms + n->failsafe_round_ttl_ms;
}

static unsigned bits(uint32_t v)
{
	return (unsigned)__builtin_popcount(v);
}

static uint32_t voters(const struct sim *s)
{
	const struct cluster *c = &s->dcs.now.c;
	uint32_t mask = 0;
	for (unsigned i = 0; i < c->sync_voter_count; i++)
		mask |= 1u << sim_index(c->sync_voters[i]);
	return mask;
}

/* S7: what is acknowledged now is on enough of those who may be elected: any quorum + 1 of leader
 * and voters meet any n of the names. Without a quorum that is the priority rule (voters within the
 * names, all of them must confirm). It goes by what /sync says, not by the mode of the moment,
 * because that is how those who are elected read it (X28). */
static void check_sync_promise(struct sim *s, int node)
{
	const struct settings *set = sim_config_now(s);
	const struct cluster *c = &s->dcs.now.c;
	const struct sim_ssn *n = &s->nodes[node].pg.ssn;
	uint32_t v = voters(s), me = 1u << node;
	if (!settled(s) || settings_sync_mode(set) == SYNC_OFF ||
		strcmp(c->sync_leader, sim_name(node)) != 0 || !v)
		return;
	if (!n->set) {
		violation(s, "S7", "%s acknowledges alone while /sync names voters %02x",
			sim_name(node), v);
		return;
	}
	if (bits(v | me | n->names) > (unsigned)(c->sync_quorum + n->n + 1))
		violation(s, "S7", "promise of %s: voters %02x q=%d, names %02x n=%d",
			sim_name(node), v, c->sync_quorum, n->names, n->n);
}

/* S6 begins when the mode has reached PostgreSQL. The store is the only way to the agent, and a
 * setting the only way to PostgreSQL: one that cannot be told yet goes on as before, and what it
 * acknowledges alone nobody was promised. After that the worker has one ttl: if it is frozen or
 * killed, the lease ends by then. */
static bool strict_in_force(struct sim *s, int node)
{
	const struct settings *set = sim_config_now(s);
	struct sim_node *n = &s->nodes[node];
	int64_t changed_ms = s->checks.mode_changed_ms;
	int64_t since_ms = n->config_behind_ms > changed_ms ? n->config_behind_ms : changed_ms;
	/* deaf before it could be told */
	bool deaf = n->pg.deaf_since_ms && since_ms + set->ttl_ms > n->pg.deaf_since_ms;
	/* ... or being stopped, which hangs: it takes no new session */
	deaf |= n->pg.stuck && n->pg.stop_mode;
	if (worker_settings(s, node) != set || deaf)
		n->config_behind_ms = since_ms = s->now_ms;
	/* ... and one that was starting when it came is told when it is up. */
	if (since_ms >= n->pg.started_ms && n->pg.phase_ms > since_ms)
		since_ms = n->pg.phase_ms;
	return settings_sync_mode(set) != SYNC_OFF && set->sync_strict && !in_pause(s) &&
	       s->now_ms - since_ms > set->ttl_ms;
}

/* The store took back what it had promised. Who can hear of it knows at once; who is cut off, slow
 * or down just then goes on as the store said. Until then only another's key counts, and for the
 * latter not even that. */
static bool word_broken(const struct sim *s, bool *out_deaf)
{
	int64_t at = s->dcs.revoked_ms, ttl = 0;
	*out_deaf = false;
	if (!at)
		return false;
	for (unsigned v = 1; v <= s->settings_count; v++)
		if (s->settings[v].ttl_ms > ttl)
			ttl = s->settings[v].ttl_ms;
	bool calm = !s->cfg.loss_per_mille && !s->cfg.unanswered_per_mille;
	for (unsigned i = 0; i < s->faults.count && calm; i++) {
		const struct sim_fault *f = &s->faults.list[i];
		bool it = f->kind == FAULT_STORE_REVOKES || f->kind == FAULT_STORE_LOST;
		calm = it || f->at_ms < 0 || f->at_ms > s->now_ms ||
		       f->at_ms + f->for_ms < at - 5000;
	}
	*out_deaf = !calm && s->now_ms - at <= ttl;
	/* /failsafe kept others from the race; a primary that stands on it cannot know. */
	for (unsigned i = 0; i < s->cfg.member_count && s->checks.store_lost; i++) {
		const struct sim_node *n = &s->nodes[i];
		*out_deaf |= n->failsafe_round_ms > 0 &&
			     s->now_ms <= n->failsafe_round_ms + n->failsafe_round_ttl_ms;
	}
	/* It asks once for the key that has vanished (KEEPER_REGAINING), and stops within 150 ms
	 * when it hears that another has it. */
	int64_t regain_ms = ttl / 10 < KEEPER_REGAIN_MS ? ttl / 10 : KEEPER_REGAIN_MS;
	if (s->dcs.now.c.leader_present && s->dcs.leader_since_ms >= at)
		return *out_deaf || s->now_ms - s->dcs.leader_since_ms <= 150;
	return *out_deaf || s->now_ms - at <= regain_ms + 150;
}

void check_ack(struct sim *s, int node, uint64_t lsn, bool sync)
{
	struct sim_pg *p = &s->nodes[node].pg;
	struct sim_branch *b = &s->branches[p->branch];
	struct sim_checks *k = &s->checks;
	s->acks++;
	remote_check_ack(s, node);
	if (!p->first_ack_ms)
		p->first_ack_ms = s->now_ms;
	bool paused = node_in_pause(s, node);
	bool thawed = s->nodes[node].resumed_ms && s->now_ms - s->nodes[node].resumed_ms <= 150;
	bool deaf, revoked = word_broken(s, &deaf);
	if (!paused && !revoked && !s->nodes[node].patroni && !lease_or_failsafe(s, node))
		violation(s, "S1", "%s acknowledges a commit without the lease (key: %s)",
			sim_name(node), sim_name(dcs_leader_node(s)));
	for (unsigned i = 0; i < s->cfg.member_count && !paused && !thawed && !deaf; i++)
		if ((int)i != node && k->last_ack_ms[i] >= p->first_ack_ms &&
			!s->nodes[i].patroni && !s->nodes[node].patroni)
			violation(s, "S1", "%s and %s acknowledge commits at the same time",
				sim_name(node), sim_name((int)i));
	if (k->last_any_ack_ms && s->now_ms - k->last_any_ack_ms > k->longest_outage_ms)
		k->longest_outage_ms = s->now_ms - k->last_any_ack_ms;
	if (paused)
		k->last_any_ack_ms = s->now_ms;
	if (deaf) { /* two may have written; from its end on it is judged anew */
		p->first_ack_ms = s->now_ms + 1;
		return;
	}
	if (thawed || paused)
		return; /* the last words of a thawed node, or what pause does not promise */
	k->last_ack_ms[node] = k->last_any_ack_ms = p->last_ack_ms = s->now_ms;
	if (lsn > b->acked_lsn)
		b->acked_lsn = lsn;
	/* What a store that lost /sync does not know, nobody who is elected can. */
	bool known = !k->store_lost || s->dcs.now.c.sync_key_exists;
	if (sync && known && lsn > b->acked_sync_lsn &&
		settings_sync_mode(sim_config_now(s)) != SYNC_OFF)
		b->acked_sync_lsn = lsn;
	check_sync_promise(s, node);
	if (!sync && strict_in_force(s, node))
		violation(s, "S6", "%s acknowledges alone in strict mode", sim_name(node));
}

/* S17: in pause (as this worker knows it) nothing is begun but what somebody asked for (9.5). What
 * is asked of one node may go on at another (a switchover), and takes its time. A key that was
 * asked for before it may come in it, and whoever was demoted or may need pg_rewind joins (A16). */
void check_task(struct sim *s, int node, const struct ha_action *a)
{
	static const bool by_itself[TASK_COUNT] = { [TASK_POST_BOOTSTRAP] = true,
		[TASK_CHANGE_CONNINFO] = true,
		[TASK_COPY_SLOTS] = true,
		[TASK_REWIND_CHECK] = true };
	const struct sim_node *n = &s->nodes[node];
	enum ha_rewind_state rewind = n->w.memory.rewind_state;
	bool joins = a->task == TASK_REWIND || a->task == TASK_FOLLOW_AFTER_DEMOTION ||
		     n->w.memory.demoted != 0 || rewind == REWIND_CHECK || rewind == REWIND_NEED ||
		     rewind == REWIND_SUCCESS;
	bool asked = s->now_ms - s->checks.manual_ms < 300000 ||
		     (s->checks.hand_ms[node] && s->now_ms - s->checks.hand_ms[node] < 300000);
	int64_t retry_ms = worker_settings(s, node)->retry_timeout_ms;
	/* With the answers of a slow store for the key, and for /sync after it. */
	bool raced = a->task == TASK_PROMOTE && s->checks.raced_ms[node] &&
		     s->now_ms - s->checks.raced_ms[node] < 3 * retry_ms;
	/* Or it has had the key since before, and /sync took several tries. */
	raced = raced || (a->task == TASK_PROMOTE && dcs_leader_node(s) == node &&
				 s->dcs.leader_since_ms <= s->checks.pause_began_ms);
	bool late = raced || s->now_ms - s->checks.pause_began_ms < retry_ms;
	/* X41: what an earlier worker began runs on. */
	bool goes_on = n->orphan == a->task;
	if (n->patroni || !worker_settings(s, node)->pause || by_itself[a->task] || asked || late ||
		joins || goes_on)
		return;
	violation(s, "S17", "%s begins in pause: %s", sim_name(node), ha_task_word(a->task));
}

/* What the operator ordered to be lost is not held against anybody. */
static void forget_acked(struct sim *s)
{
	for (unsigned i = 0; i < s->branch_count; i++)
		s->branches[i].acked_lsn = s->branches[i].acked_sync_lsn = 0;
}

static bool by_hand(const struct sim *s, int node)
{
	return s->checks.manual_candidate == node && s->now_ms - s->checks.manual_ms < 300000;
}

static bool by_word_of_the_operator(const struct sim *s, int node)
{
	return (by_hand(s, node) && s->checks.manual_lossy) || s->checks.won_by_hand == node;
}

static void check_nothing_lost(
	struct sim *s, int node, int16_t branch, uint64_t lsn, const char *how)
{
	for (int16_t i = 0; i < (int16_t)s->branch_count; i++) {
		uint64_t acked = s->branches[i].acked_sync_lsn;
		if (!acked || branch_contains(s, branch, lsn, i, acked))
			continue;
		if (s->checks.timeline_reused) { /* two histories under one number: see README.md */
			sim_coverage.lost_by_reuse++;
			forget_acked(s);
		} else
			violation(s, "S4",
				"%s %s at %" PRIX64 " without the acknowledged commit %" PRIX64
				" of timeline %" PRId64 " (%s)",
				sim_name(node), how, lsn, acked, s->branches[i].tli,
				sim_name(s->branches[i].node));
	}
}

/* S9: what is past the end of its timeline, as /history tells it, is a branch of its own and must
 * not lead. */
static void check_divergence(struct sim *s, int node, const struct sim_branch *b)
{
	const struct cluster *c = &s->dcs.now.c;
	/* A failover names its target whatever that one has; a switchover does not. */
	if (s->nodes[node].patroni)
		return; /* the reference is not judged */
	if (in_pause(s) || by_word_of_the_operator(s, node))
		return;
	for (unsigned i = 0; i < c->history_count; i++)
		if (c->history[i].timeline == b->tli - 1 && b->start_lsn > c->history[i].lsn)
			violation(s, "S9",
				"%s is promoted at %" PRIX64 " although timeline %" PRId64
				" ended at %" PRIX64,
				sim_name(node), b->start_lsn, b->tli - 1, c->history[i].lsn);
}

/* S14: what /status said is what an automatic election may at most be behind, by
 * maximum_lag_on_failover. */
static void check_lag(struct sim *s, int node, uint64_t lsn)
{
	const struct settings *set = sim_config_now(s);
	const struct cluster *c = &s->dcs.now.c;
	if (s->nodes[node].patroni)
		return; /* the reference is not judged */
	if (in_pause(s) || s->checks.manual_ms > s->now_ms - 300000 || !c->status_present)
		return;
	if (c->last_lsn > lsn && c->last_lsn - lsn > (uint64_t)set->maximum_lag_on_failover)
		violation(s, "S14", "%s promoted at %" PRIX64 ", /status says %" PRIX64,
			sim_name(node), lsn, c->last_lsn);
}

/* S15: the key was given to this one by name, so it has everything that was acknowledged, whatever
 * the mode. */
static void check_handed_over(struct sim *s, int node, const struct sim_branch *b)
{
	bool handed = s->checks.handed_to == node && !in_pause(s) && !s->checks.timeline_reused &&
		      !s->checks.dir_lost && !s->nodes[node].patroni;
	s->checks.handed_to = -1;
	for (int16_t i = 0; handed && i < (int16_t)s->branch_count; i++) {
		uint64_t acked = s->branches[i].acked_lsn;
		if (i == s->checks.handed_branch && acked &&
			!branch_contains(s, b->parent, b->start_lsn, i, acked))
			violation(s, "S15",
				"%s is promoted at %" PRIX64 " by a switchover, without the "
				"acknowledged commit %" PRIX64,
				sim_name(node), b->start_lsn, acked);
	}
}

void check_promoted(struct sim *s, int node, int16_t branch)
{
	const struct sim_branch *b = &s->branches[branch];
	const struct settings *set = sim_config_now(s);
	mix(s, (uint64_t)s->now_ms * 31 + (uint64_t)node);
	s->checks.quiet_promotions += s->checks.quiet;
	if (by_word_of_the_operator(s, node))
		forget_acked(s);
	/* A node that was suspended in the middle of a promotion ends it in the moment before its
	 * fence (ha 2.5). What it would acknowledge then is S1. */
	const struct sim_node *n = &s->nodes[node];
	bool last_words =
		n->resumed_ms && s->now_ms - n->resumed_ms <= 150 && !dcs_lease_of(s, node);
	if (settings_sync_mode(set) != SYNC_OFF && !last_words)
		check_nothing_lost(s, node, b->parent, b->start_lsn, "is promoted");
	/* A new cluster has no promises of before. */
	if (s->checks.not_promised == node && !s->nodes[node].patroni && !n->pg.unpublished)
		violation(s, "S8",
			"%s is promoted although /sync named another leader and nobody else",
			sim_name(node));
	check_handed_over(s, node, b);
	if (!last_words) {
		check_lag(s, node, b->start_lsn);
		check_divergence(s, node, b);
	}
	/* PostgreSQL takes the next number that its own node has not heard of. When a new leader
	 * dies before anybody followed it and before /history names its timeline, the number comes
	 * again, and 6.3 takes the two for one. Nobody who decides can see it; what is lost was
	 * bounded by S14 and S4. Counted and shown, not judged; a named weakness in
	 * tests/sim/README.md. */
	remote_check_promoted(s, node);
	bool first = s->nodes[node].pg.pitr; /* nobody else has it */
	if (b->tli <= s->checks.max_tli && !first) {
		sim_coverage.timelines_reused++;
		s->checks.timeline_reused = true;
		s->checks.liveness_exempt = true;
	}
	if (b->tli > s->checks.max_tli)
		s->checks.max_tli = b->tli;
	/* Elections are what the tag is about: one that had the key before it was tagged, and still
	 * has it, is promoted again after a crash or a fence like any other leader (B6, E4). */
	topo_check_promoted(s, node, by_hand(s, node) || in_pause(s) || s->nodes[node].patroni);
	bool old_tag = s->checks.key_since_ms - s->nodes[node].nofailover_ms > SETTLE_MS;
	if (s->nodes[node].tags.nofailover && old_tag && !s->nodes[node].patroni &&
		!by_hand(s, node) && !in_pause(s))
		violation(s, "S13", "%s is tagged nofailover and was promoted", sim_name(node));
	/* An interrupted bootstrap that goes on: nobody else has it, no client was there. */
	/* Or its key was refused by a revision that a stalled watch gave, and is repaired after it.
	 */
	bool own = (n->pg.unpublished || s->checks.store_lost ||
			   s->dcs.watch_stalled_ms[node] > s->now_ms) &&
		   !boot_sysid(s);
	if (s->nodes[node].pg.sysid != boot_sysid(s) && !own)
		violation(
			s, "S11", "%s belongs to another cluster and was promoted", sim_name(node));
}

void check_started_primary(struct sim *s, int node)
{
	const struct sim_pg *p = &s->nodes[node].pg;
	mix(s, (uint64_t)s->now_ms * 37 + (uint64_t)node);
	/* Without the lease it is about to be fenced, and what it acknowledges is S1. */
	if (settings_sync_mode(sim_config_now(s)) != SYNC_OFF && !in_pause(s) &&
		dcs_lease_of(s, node))
		check_nothing_lost(s, node, p->branch, p->lsn, "starts as primary");
}

void check_promote_signal(struct sim *s, int node)
{
	bool deaf;
	if (!node_in_pause(s, node) && !dcs_lease_of(s, node) && !s->nodes[node].patroni &&
		!word_broken(s, &deaf))
		violation(s, "S3", "%s promotes without the lease (key: %s)", sim_name(node),
			sim_name(dcs_leader_node(s)));
}

void check_release(struct sim *s, int node)
{
	const struct cluster *c = &s->dcs.now.c;
	bool mine = c->failover_present && strcmp(c->failover_leader, sim_name(node)) == 0 &&
		    !s->nodes[node].patroni;
	s->checks.handed_branch = s->nodes[node].pg.branch;
	s->checks.handed_to = mine ? (int8_t)sim_index(c->failover_candidate) : -1;
	if (pg_accepts_writes(s, node) && !node_in_pause(s, node) && !s->nodes[node].patroni)
		violation(s, "S2", "%s released the key while PostgreSQL accepts writes",
			sim_name(node));
}

/* S10: the key makes a leader of a primary that runs. /history says that its timeline is left. */
static void check_old_timeline(struct sim *s, int node)
{
	const struct cluster *c = &s->dcs.now.c;
	int64_t tli = s->branches[s->nodes[node].pg.branch].tli;
	const struct settings *set = worker_settings(s, node);
	if (s->nodes[node].patroni)
		return; /* the reference is not judged */
	if (!pg_accepts_writes(s, node) || (set && set->pause) || s->checks.timeline_reused)
		return;
	for (unsigned i = 0; i < c->history_count; i++)
		if (c->history[i].timeline >= tli)
			violation(s, "S10",
				"%s takes the key as a primary of timeline %" PRId64
				", which /history says has ended",
				sim_name(node), tli);
}

#define KEY_CHANGES_MAX	   8 /* in that time */
#define KEY_CHANGES_MAX_MS 5000

/* OSC: each owner of the key is a new fact, so the rules' own checker does not see it. */
static void check_key_changes(struct sim *s, int node)
{
	struct sim_checks *k = &s->checks;
	if (s->now_ms - k->key_changes_ms > KEY_CHANGES_MAX_MS) {
		k->key_changes_ms = s->now_ms;
		k->key_changes = 0;
	}
	if (++k->key_changes > KEY_CHANGES_MAX && !s->nodes[node].patroni)
		violation(s, "OSC", "the leader key was taken %u times within %" PRId64 " ms",
			k->key_changes, s->now_ms - k->key_changes_ms);
}

/* S8: without voters nobody but the last leader has what was acknowledged. With a quorum that one's
 * own vote tells that somebody else has it, too. */
static bool promised_to_another(const struct sim *s, int node)
{
	const struct cluster *c = &s->dcs.now.c;
	return settings_sync_mode(sim_config_now(s)) == SYNC_PRIORITY && settled(s) &&
	       c->sync_key_exists && c->sync_leader[0] != '\0' && c->sync_voter_count == 0 &&
	       strcmp(c->sync_leader, sim_name(node)) != 0 && !by_hand(s, node);
}

void check_acquired(struct sim *s, int node, enum dcs_op_kind kind)
{
	rules_new_fact(s);
	mix(s, (uint64_t)s->now_ms * 41 + (uint64_t)node * 7 + kind);
	if (kind != DCS_ADOPT) {
		s->checks.key_since_ms = s->now_ms;
		s->checks.won_by_hand =
			by_hand(s, node) && s->checks.manual_lossy ? (int8_t)node : -1;
		s->checks.not_promised = promised_to_another(s, node) ? (int8_t)node : -1;
		check_old_timeline(s, node);
		check_key_changes(s, node);
	}
}

void check_plan(struct sim *s, int node, const struct ha_plan *plan)
{
	rules_decided(s, node, plan);
	for (unsigned i = 0; i < plan->count; i++) {
		mix(s, plan->actions[i].kind);
		if (plan->actions[i].kind == HA_TASK_START &&
			plan->actions[i].task != TASK_COPY_SLOTS)
			s->checks.quiet_tasks += s->checks.quiet;
	}
	for (unsigned i = 0; i < plan->note_count; i++)
		sim_log(s, node, "  %s", plan->notes[i]);
	if (plan->await == AWAIT_NONE || plan->count)
		sim_log(s, node, "[%s] %s%s", plan->rule, plan->reason,
			plan->verdict == VERDICT_DROP ? " (drop)"
			: plan->await		      ? "..."
						      : "");
}

void check_config_changed(struct sim *s)
{
	const struct settings *set = sim_config_now(s);
	rules_new_fact(s);
	enum sync_mode mode = settings_sync_mode(set);
	if (mode != s->checks.mode || set->sync_strict != s->checks.strict)
		s->checks.mode_changed_ms = s->now_ms;
	if (s->checks.paused && !set->pause)
		s->checks.pause_ended_ms = s->now_ms;
	if (!s->checks.paused && set->pause)
		s->checks.pause_began_ms = s->now_ms;
	s->checks.paused = set->pause;
	/* Switched off or on: what the old mode promised is gone with /sync. Between its kinds
	 * nothing is forgotten. */
	if ((mode == SYNC_OFF) != (s->checks.mode == SYNC_OFF)) {
		s->checks.sync_changed_ms = s->now_ms;
		for (unsigned i = 0; i < s->branch_count; i++)
			s->branches[i].acked_sync_lsn = 0;
	}
	s->checks.mode = mode;
	s->checks.strict = set->sync_strict;
}

void check_manual(struct sim *s, int leader, int candidate)
{
	s->checks.manual_candidate = candidate;
	s->checks.manual_ms = s->now_ms;
	s->checks.manual_lossy = leader < 0;
}

void check_sync_written(struct sim *s)
{
	int leader = dcs_leader_node(s);
	if (leader >= 0)
		mix(s, (uint64_t)leader * 43 + (uint64_t)s->dcs.now.c.sync_quorum);
}

void check_exit(struct sim *s, int node, int code)
{
	int cluster = boot_sysid(s);
	/* A15 waits for the primary by coming back; just now that one may have written the key. */
	if (s->checks.store_lost && strcmp(s->nodes[node].w.plan.rule, "A15") == 0)
		return;
	if (code != 0 && cluster && s->nodes[node].pg.sysid == cluster && !in_pause(s))
		violation(s, "EXIT", "the worker of %s gave up with status %d: %s", sim_name(node),
			code, s->nodes[node].w.plan.reason);
}
