/* Liveness (ha 12.2): what must be true some time after the last fault, and at the end; and where
 * only an operator can help. */
#include <string.h>

#include "tests/sim/sim.h"
#include "tests/sim/sim_checks.h"

static bool voters_out_of_the_map(const struct sim *s)
{
	const struct cluster *c = &s->dcs.now.c;
	unsigned there = 0;
	for (unsigned i = 0; i < c->sync_voter_count; i++) {
		for (unsigned k = 0; k < c->failsafe_count; k++)
			there += strcmp(c->sync_voters[i], c->failsafe[k].name) == 0;
	}
	return c->failsafe_present && there < c->sync_voter_count;
}

/* No data, or pages that rest on WAL which only another site has, while nobody follows that any
 * more. */
static bool nobody_consistent(const struct sim *s)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		const struct sim_pg *p = &s->nodes[i].pg;
		if (!p->dir_empty && (p->lsn >= p->needs_lsn || p->upstream == SIM_REMOTE))
			return false;
	}
	return true;
}

/* What it needs may still come until its start takes too long (I3). */
static bool leader_still_starts(const struct sim *s, int leader)
{
	const struct sim_pg *p = &s->nodes[leader].pg;
	return p->phase == PGP_RECOVERY && p->looks &&
	       s->now_ms - p->started_ms < sim_config_now(s)->primary_start_timeout_ms;
}

/* With check_timeline a member of the reference on an ended timeline does not lead, and one that
 * could lets it go first: its position is higher. */
static bool reference_waits(const struct sim *s)
{
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if (s->nodes[i].patroni && sim_config_now(s)->check_timeline &&
			s->branches[s->nodes[i].pg.branch].tli < cluster_timeline(&s->dcs.now.c))
			return true;
	return false;
}

/* A failover by hand (no votes were asked for) to one that was lost before it was promoted, and
 * those who could outvote it are not in its map (D9): whoever ordered that has to say what is to be
 * lost. So has whoever promotes a cluster none of whose members can be opened. */
static bool left_to_the_operator(const struct sim *s)
{
	if (reference_waits(s))
		return true;
	return s->checks.won_by_hand >= 0 && settings_sync_mode(sim_config_now(s)) == SYNC_QUORUM &&
	       voters_out_of_the_map(s);
}

void check_alive(struct sim *s)
{
	int leader = dcs_leader_node(s);
	s->checks.quiet = true;
	s->checks.liveness_exempt |=
		nobody_consistent(s) ||
		(leader < 0 ? left_to_the_operator(s) : leader_still_starts(s, leader));
	if (s->checks.liveness_exempt)
		return;
	if (leader < 0)
		violation(s, "V1", "no leader %" PRId64 " s after the heal",
			(s->now_ms - s->cfg.heal_ms) / 1000);
	else if (remote_stands_by(s))
		remote_check_alive(s, leader);
	else if (!pg_accepts_writes(s, leader))
		violation(s, "V1", "leader %s does not accept writes %" PRId64 " s after the heal",
			sim_name(leader), (s->now_ms - s->cfg.heal_ms) / 1000);
}

/* 4.5: what others take for the history of the cluster (D4, S9, S10) is that of its leader. */
static void check_history_at_end(struct sim *s, int leader)
{
	struct history_row rows[SIM_HISTORY];
	const struct cluster *c = &s->dcs.now.c;
	if (sim_config_now(s)->standby_cluster || s->nodes[leader].patroni)
		return; /* the history is the remote primary's */
	unsigned count = view_history(s, leader, rows);
	if (count && (c->history_count == 0 ||
			     c->history[c->history_count - 1].timeline != rows[count - 1].timeline))
		violation(s, "S10", "/history does not name timeline %" PRId64 " of %s",
			rows[count - 1].timeline, sim_name(leader));
}

void check_at_end(struct sim *s)
{
	if (s->checks.violated || s->checks.liveness_exempt)
		return;
	boot_check_end(s);
	late_check_end(s);
	int leader = dcs_leader_node(s);
	if (s->checks.quiet_promotions || leader < 0) {
		violation(s, "QUIET", "the leader changed although nothing happened");
		return;
	}
	check_history_at_end(s, leader);
	bool waits_by_design = s->cfg.member_count == 1 && sim_config_now(s)->sync_strict;
	if (remote_stands_by(s))
		remote_check_alive(s, leader);
	else if (s->now_ms - s->checks.last_any_ack_ms > 5000 && !waits_by_design)
		violation(s, "V7", "no commit was acknowledged for %" PRId64 " s at the end",
			(s->now_ms - s->checks.last_any_ack_ms) / 1000);
	const struct cluster *c = &s->dcs.now.c;
	if (c->failover_present && !c->failover_scheduled && !c->failover_schedule_bad)
		violation(s, "V5", "a request from %s to %s is still there at the end",
			c->failover_leader, c->failover_candidate);
	if (s->checks.quiet_tasks > 2 * s->cfg.member_count)
		violation(s, "QUIET", "%u tasks started although nothing happened",
			s->checks.quiet_tasks);
	for (int i = 0; i < (int)s->cfg.member_count; i++)
		if (i != leader && !s->nodes[i].pg.streaming && s->nodes[i].on)
			violation(s, "V3", "%s does not stream at the end (phase %d)", sim_name(i),
				s->nodes[i].pg.phase);
}
