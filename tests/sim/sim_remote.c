/* What is outside of the cluster: the primary that a standby cluster follows, a backup that
 * replicas can be made from without a leader, the server that a custom bootstrap restores. The
 * first two are nodes without processes, at the ends of links like members. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

#define REMOTE_SYSID 1
#define TAIL_MAX     4096 /* what a remote failover loses at most */
#define BACKUP_MS    60000

static struct sim_pg *remote_pg(struct sim *s)
{
	return &s->nodes[SIM_REMOTE].pg;
}

int remote_target(const char *name)
{
	return strcmp(name, HA_TARGET_REMOTE) == 0 ? SIM_REMOTE : sim_index(name);
}

static void remote_on(struct sim *s, bool on)
{
	struct sim_node *n = &s->nodes[SIM_REMOTE];
	if (n->on == on || (on && n->pg.phase == PGP_NONE))
		return;
	n->on = on;
	n->pg.generation++;
	memset(n->pg.standby, 0, sizeof(n->pg.standby));
	sim_log(s, -1, "remote primary %s", on ? "is there" : "goes away");
	if (on)
		sim_at(s, s->now_ms + 100, EV_PG_TICK, SIM_REMOTE, (int64_t)n->pg.generation, 0,
			NULL);
}

static void remote_branch(struct sim *s, int16_t parent, uint64_t lsn)
{
	struct sim_pg *p = remote_pg(s);
	INVARIANT(s->branch_count < SIM_BRANCHES);
	int16_t b = (int16_t)s->branch_count++;
	s->branches[b] = (struct sim_branch){ .parent = parent,
		.node = -1,
		.tli = s->branches[parent].tli + 1,
		.start_lsn = lsn,
		.born_ms = s->now_ms };
	/* Ours may have begun that timeline, too, or their number: as with any number that is used
	 * twice (README.md). */
	if (s->branches[b].tli <= s->checks.max_tli)
		s->checks.timeline_reused = s->checks.liveness_exempt = true;
	if (s->branches[b].tli > s->checks.max_tli)
		s->checks.max_tli = s->branches[b].tli;
	*p = (struct sim_pg){ .dir_exists = true,
		.can_rewind = true,
		.sysid = REMOTE_SYSID,
		.branch = b,
		.lsn = lsn + 256,
		.replay_lsn = lsn + 256,
		.checkpoint_lsn = lsn,
		.checkpoint_tli = s->branches[b].tli,
		.control = PG_DB_IN_PRODUCTION,
		.upstream = -1,
		.phase = PGP_PRIMARY,
		.generation = p->generation };
	s->nodes[SIM_REMOTE].on = false;
	remote_on(s, true);
	sim_log(s, -1, "remote primary: timeline %" PRId64 " from %" PRIX64, s->branches[b].tli,
		lsn);
}

static uint64_t less_a_tail(struct sim *s, int16_t branch, uint64_t lsn)
{
	uint64_t tail = sim_chance(&s->rng, 500) ? rng_below(&s->rng, TAIL_MAX) : 0;
	uint64_t first = s->branches[branch].start_lsn + 256;
	return lsn > first + tail ? lsn - tail : lsn;
}

/* The other site, a standby of ours until now, is promoted by its people. What it lacks is lost by
 * their order. */
static void remote_takes_over(struct sim *s)
{
	const struct sim_pg *best = NULL;
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		const struct sim_pg *p = &s->nodes[i].pg;
		if (p->dir_empty || p->sysid != REMOTE_SYSID)
			continue;
		if (!best || s->branches[p->branch].tli > s->branches[best->branch].tli ||
			(p->branch == best->branch && p->lsn > best->lsn))
			best = p;
	}
	if (!best || !sim_config_now(s)->standby_cluster)
		return;
	remote_branch(s, best->branch, less_a_tail(s, best->branch, best->lsn));
	for (unsigned i = 0; i < s->branch_count; i++)
		s->branches[i].acked_lsn = s->branches[i].acked_sync_lsn = 0;
}

static void edit_standby(struct settings *set, uint32_t arg)
{
	set->standby_cluster = arg != 0;
	snprintf(set->standby_host, sizeof(set->standby_host), "%s", arg ? "remote" : "");
}

void remote_fault(struct sim *s, const struct sim_fault *f, bool begin)
{
	struct sim_pg *p = remote_pg(s);
	switch (f->kind) {
	case FAULT_OP_DEMOTE_CLUSTER:
		if (sim_config_now(s)->standby_cluster)
			break;
		faults_change_config(s, edit_standby, 1);
		s->checks.site_changed_ms = s->now_ms;
		sim_at(s, s->now_ms + 1000 * (int64_t)(f->arg % 120), EV_REMOTE, -1, 1, 0, NULL);
		break;
	case FAULT_OP_PROMOTE_CLUSTER:
		if (!sim_config_now(s)->standby_cluster)
			break;
		faults_change_config(s, edit_standby, 0);
		s->checks.site_changed_ms = s->now_ms;
		remote_on(s, false);
		/* One that was being rewound from it has nothing left. */
		for (unsigned i = 0; i < s->cfg.member_count; i++)
			s->checks.liveness_exempt |= s->nodes[i].pg.wounded;
		p->phase = PGP_NONE;
		break;
	case FAULT_REMOTE_DOWN: remote_on(s, !begin); break;
	case FAULT_REMOTE_FAILOVER:
		if (s->nodes[SIM_REMOTE].on)
			remote_branch(s, p->branch, less_a_tail(s, p->branch, p->lsn));
		break;
	case FAULT_REMOTE_CUT:
		net_cut(s, f->hit, SIM_REMOTE, begin);
		net_cut(s, SIM_REMOTE, f->hit, begin);
		break;
	default: break;
	}
}

/* A copy, and the archive that goes with it: as old as the last time that this ran. */
static void take_backup(struct sim *s)
{
	int leader = dcs_leader_node(s);
	struct sim_node *b = &s->nodes[SIM_BACKUP];
	if (leader < 0 || !pg_accepts_writes(s, leader))
		return;
	const struct sim_pg *p = &s->nodes[leader].pg;
	b->pg = (struct sim_pg){ .dir_exists = true,
		.sysid = p->sysid,
		.branch = p->branch,
		.lsn = p->lsn,
		.checkpoint_lsn = p->checkpoint_lsn,
		.checkpoint_tli = p->checkpoint_tli,
		.upstream = -1,
		.phase = PGP_STANDBY };
	b->on = true;
}

/* a: 0 = the remote clients write, a backup is due; 1 = the remote site is promoted */
void remote_event(struct sim *s, const struct sim_event *ev)
{
	struct sim_pg *p = remote_pg(s);
	if (ev->a == 1) {
		remote_takes_over(s);
		return;
	}
	if (s->nodes[SIM_REMOTE].on && p->phase == PGP_PRIMARY) {
		p->lsn += 8 * (1 + rng_below(&s->rng, 200));
		p->replay_lsn = p->lsn;
		wal_send_all(s, SIM_REMOTE);
	}
	if (s->cfg.backup && s->now_ms / BACKUP_MS != (s->now_ms - 700) / BACKUP_MS)
		take_backup(s);
	sim_at(s, s->now_ms + 700, EV_REMOTE, -1, 0, 0, NULL);
}

void remote_begin(struct sim *s)
{
	if (!s->cfg.remote && !s->cfg.backup)
		return;
	struct sim_pg *p = remote_pg(s);
	if (s->settings[1].standby_cluster) {
		*p = (struct sim_pg){ .dir_exists = true,
			.can_rewind = true,
			.sysid = REMOTE_SYSID,
			.lsn = 0x3000400,
			.replay_lsn = 0x3000400,
			.checkpoint_lsn = 0x3000028,
			.checkpoint_tli = 1,
			.control = PG_DB_IN_PRODUCTION,
			.upstream = -1,
			.phase = PGP_PRIMARY };
		s->sysids = REMOTE_SYSID;
		remote_on(s, true);
	}
	s->checks.site_changed_ms = INT64_MIN / 4;
	sim_at(s, 700, EV_REMOTE, -1, 0, 0, NULL);
}

void remote_heal(struct sim *s)
{
	if (s->cfg.remote && sim_config_now(s)->standby_cluster)
		remote_on(s, true);
}

/* ---- invariants (ha 9.1, S16) ---- */

/* After that long each node has heard of the section, or lost its lease, and stopped writing. */
static bool site_settled(const struct sim *s)
{
	return s->now_ms - s->checks.site_changed_ms > 2 * sim_config_now(s)->ttl_ms + 60000;
}

void remote_check_ack(struct sim *s, int node)
{
	bool known = worker_settings(s, node) && worker_settings(s, node)->standby_cluster;
	/* In pause it runs on as what it is (F3); its end is news like the section itself. */
	if (known && worker_settings(s, node)->pause)
		s->checks.site_changed_ms = s->now_ms;
	if (s->cfg.remote && sim_config_now(s)->standby_cluster && known && site_settled(s))
		violation(
			s, "S16", "%s acknowledges a commit in a standby cluster", sim_name(node));
}

void remote_check_promoted(struct sim *s, int node)
{
	/* Its own settings: what it was promoted for may be older than what the store says now. */
	if (s->cfg.remote && sim_config_now(s)->standby_cluster && site_settled(s) &&
		!s->nodes[node].pg.pitr)
		violation(s, "S16", "%s is promoted in a standby cluster", sim_name(node));
}

bool remote_stands_by(const struct sim *s)
{
	return sim_config_now(s)->standby_cluster;
}

/* V1 and V7 of a standby cluster: its leader streams from the remote primary, and has what that one
 * wrote. */
void remote_check_alive(struct sim *s, int leader)
{
	const struct sim_pg *p = &s->nodes[leader].pg, *r = remote_pg(s);
	if (!s->nodes[SIM_REMOTE].on)
		return;
	if (p->phase != PGP_STANDBY || p->upstream != SIM_REMOTE || !p->streaming)
		violation(s, "V1", "standby leader %s does not stream from the remote primary",
			sim_name(leader));
	else if (!branch_contains(s, r->branch, r->lsn, p->branch, p->lsn))
		violation(s, "S9", "standby leader %s holds what the remote primary does not",
			sim_name(leader));
	else if (r->lsn - p->lsn > 64 * 1600)
		violation(s, "V7", "standby leader %s is far behind the remote primary",
			sim_name(leader));
}

/* ---- the profile ---- */

static void add(struct sim *s, enum sim_fault_kind kind, int64_t at_ms, int64_t for_ms, int node,
	uint32_t arg)
{
	if (s->faults.count < SIM_FAULTS)
		s->faults.list[s->faults.count++] = (struct sim_fault){ .hit = -1,
			.kind = kind,
			.at_ms = at_ms,
			.for_ms = for_ms,
			.node = (int8_t)node,
			.arg = arg };
}

static void plan_remote(struct sim *s, struct rng *r)
{
	static const enum sim_fault_kind kinds[] = { FAULT_REMOTE_DOWN, FAULT_REMOTE_FAILOVER,
		FAULT_REMOTE_CUT, FAULT_OP_SWITCHOVER_ANY, FAULT_PG_CRASH, FAULT_KILL_WORKER,
		FAULT_OP_REMOVE_MEMBER };
	for (unsigned n = 1 + (unsigned)rng_below(r, 4); n; n--) {
		enum sim_fault_kind kind = kinds[rng_below(r, sizeof(kinds) / sizeof(kinds[0]))];
		int64_t at = sim_range(r, 40000, s->cfg.heal_ms - 60000);
		bool lasts = kind == FAULT_REMOTE_DOWN || kind == FAULT_REMOTE_CUT;
		add(s, kind, at, lasts ? sim_range(r, 1000, 60000) : 0,
			sim_chance(r, 500) ? -1 : (int)rng_below(r, s->cfg.member_count),
			(uint32_t)rng_next(r));
	}
}

static void plan_lost_dirs(struct sim *s, struct rng *r)
{
	int64_t at = sim_range(r, 80000, s->cfg.heal_ms - 120000);
	add(s, FAULT_NODE_OFF, at, sim_range(r, 30000, 120000), -1, 0);
	add(s, FAULT_DIR_LOST, at + sim_range(r, 0, 30000), 0,
		(int)rng_below(r, s->cfg.member_count), 0);
	add(s, FAULT_OP_NOFAILOVER, at - 20000, 150000, (int)rng_below(r, s->cfg.member_count), 0);
}

/* The faults of a history stay. */
void remote_profile(struct sim *s, uint64_t seed)
{
	struct rng r;
	rng_seed(&r, seed ^ 0x589965cc75374cc3u);
	struct settings *set = &s->settings[1];
	unsigned kind = (unsigned)rng_below(&r, 100);
	s->cfg.archiving = sim_chance(&r, 500);
	if (kind < 40) { /* a standby cluster, maybe made one now, maybe promoted one day */
		s->cfg.remote = true;
		edit_standby(set, 1);
		if (sim_chance(&r, 300))
			boot_profile(s, seed);
		plan_remote(s, &r);
		if (sim_chance(&r, 400))
			add(s, FAULT_OP_PROMOTE_CLUSTER,
				sim_range(&r, 60000, s->cfg.heal_ms - 100000), 0, -1, 0);
	} else if (kind < 70) { /* becomes one, maybe not for ever */
		s->cfg.remote = true;
		int64_t at = sim_range(&r, 40000, 200000);
		add(s, FAULT_OP_DEMOTE_CLUSTER, at, 0, -1, (uint32_t)rng_below(&r, 60));
		if (sim_chance(&r, 400))
			add(s, FAULT_OP_PROMOTE_CLUSTER,
				sim_range(&r, at + 5000, s->cfg.heal_ms - 60000), 0, -1, 0);
		plan_remote(s, &r);
	} else if (kind < 85) { /* replicas can be made without a leader */
		s->cfg.backup = set->no_leader_methods = true;
		plan_lost_dirs(s, &r);
	} else { /* restored from somebody else's backup */
		set->custom_bootstrap = true;
		boot_profile(s, seed);
	}
}
