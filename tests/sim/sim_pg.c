/* The simulated PostgreSQL: lineage, processes, promotion. Replication and clients are in
 * sim_wal.c. */
#include "tests/sim/sim_pg.h"

#include <string.h>

#include "tests/sim/sim.h"

uint64_t pg_position(const struct sim_pg *p)
{
	return p->lsn;
}

/* Does (branch, lsn) hold the WAL of `of` up to `upto`? */
bool branch_contains(const struct sim *s, int16_t branch, uint64_t lsn, int16_t of, uint64_t upto)
{
	while (branch >= 0) {
		if (branch == of)
			return upto <= lsn;
		if (s->branches[branch].start_lsn < lsn)
			lsn = s->branches[branch].start_lsn;
		branch = s->branches[branch].parent;
	}
	return false;
}

bool pg_can_stream(const struct sim *s, int standby, int upstream)
{
	const struct sim_pg *p = &s->nodes[standby].pg, *u = &s->nodes[upstream].pg;
	return p->sysid == u->sysid && branch_contains(s, u->branch, u->lsn, p->branch, p->lsn);
}

uint64_t branch_common(const struct sim *s, int16_t x, uint64_t x_lsn, int16_t y, uint64_t y_lsn,
	int16_t *out_branch)
{
	for (int16_t b = x; b >= 0; b = s->branches[b].parent) {
		uint64_t lsn = y_lsn;
		for (int16_t o = y; o >= 0; o = s->branches[o].parent) {
			if (o == b) {
				*out_branch = b;
				return lsn < x_lsn ? lsn : x_lsn;
			}
			if (s->branches[o].start_lsn < lsn)
				lsn = s->branches[o].start_lsn;
		}
		if (s->branches[b].start_lsn < x_lsn)
			x_lsn = s->branches[b].start_lsn;
	}
	*out_branch = -1;
	return 0;
}

void pg_init_cluster(struct sim *s)
{
	s->branch_count = 1;
	s->branches[0] = (struct sim_branch){ .parent = -1, .node = -1, .tli = 1 };
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		struct sim_pg *p = &s->nodes[i].pg;
		*p = (struct sim_pg){ .dir_exists = true,
			.standby_signal = true,
			.can_rewind = true,
			.sysid = 1,
			.lsn = 0x3000000,
			.replay_lsn = 0x3000000,
			.checkpoint_lsn = 0x2000028,
			.checkpoint_tli = 1,
			.control = PG_DB_SHUTDOWNED_IN_RECOVERY,
			.upstream = -1 };
	}
	s->sysids = 1;
	if (s->cfg.empty)
		boot_empty(s);
}

static void enter(struct sim *s, int node, enum pg_phase phase)
{
	struct sim_pg *p = &s->nodes[node].pg;
	p->phase = phase;
	p->phase_ms = s->now_ms;
}

static void later(struct sim *s, int node, int64_t in_ms, enum pg_phase phase)
{
	sim_at(s, s->now_ms + in_ms, EV_PG_PHASE, node, (int64_t)s->nodes[node].pg.generation,
		phase, NULL);
}

bool pg_accepts_writes(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	return n->on && !n->vm_paused && n->pg.phase == PGP_PRIMARY && !n->pg.frozen;
}

void pg_spawn(struct sim *s, int node, uint32_t kind)
{
	struct sim_pg *p = &s->nodes[node].pg;
	p->generation = s->nodes[node].sup.guard.generation;
	marks_check_spawn(s, node);
	if (p->fresh)
		kind = PG_START_PRIMARY;
	p->fresh = false;
	p->kind = kind;
	p->started_ms = s->now_ms;
	p->promote_file = p->hung = p->frozen = p->stuck = p->streaming = p->looks = false;
	p->arriving_lsn = 0;
	p->waiting_count = 0;
	p->stop_mode = 0;
	p->first_ack_ms = p->last_ack_ms = 0;
	p->standby_signal = kind == PG_START_STANDBY;
	p->replay_lsn = p->lsn;
	p->ssn = p->ssn_file;
	memset(p->standby, 0, sizeof(p->standby));
	bool inconsistent = kind == PG_START_PRIMARY && p->lsn < p->needs_lsn;
	if (p->damaged || p->dir_empty || !p->dir_exists || inconsistent ||
		s->nodes[node].start_fails) {
		sim_log(s, node, "postgres: cannot start");
		enter(s, node, PGP_RECOVERY);
		sim_at(s, s->now_ms + 30, EV_PG_PHASE, node, (int64_t)p->generation, PGP_NONE,
			NULL);
		return;
	}
	enter(s, node, PGP_RECOVERY);
	int64_t ms = sim_range(&s->rng, 50, 800) + p->recovery_ms;
	p->recovers_until_ms = s->now_ms + ms;
	p->recovery_ms = 0;
	if (kind == PG_START_PRIMARY)
		p->control =
			p->control == PG_DB_SHUTDOWNED ? PG_DB_STARTUP : PG_DB_IN_CRASH_RECOVERY;
	else
		p->control = PG_DB_IN_ARCHIVE_RECOVERY;
	later(s, node, ms, kind == PG_START_PRIMARY && !p->pitr ? PGP_PRIMARY : PGP_STANDBY);
	sim_at(s, s->now_ms + ms + 1, EV_PG_TICK, node, (int64_t)p->generation, 0, NULL);
	sim_log(s, node, "postgres: starts as %s, timeline %" PRId64 " lsn %" PRIX64,
		kind == PG_START_PRIMARY ? "primary" : "standby", s->branches[p->branch].tli,
		p->lsn);
}

/* The process is gone; the supervisor hears of it as its parent. */
static void ended(struct sim *s, int node, enum exit_class class)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_pg *p = &n->pg;
	if (p->phase == PGP_NONE)
		return;
	enter(s, node, PGP_NONE);
	p->waiting_count = 0;
	p->streaming = false;
	n->exit_class = class;
	sim_at_proc(
		s, s->now_ms + 1, EV_PG_EXIT, node, PROC_SUP, (int64_t)p->generation, class, NULL);
}

void pg_kill(struct sim *s, int node, enum exit_class class, const char *why)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->phase == PGP_NONE)
		return;
	sim_log(s, node, "postgres: killed (%s)", why);
	/* pg_control says already what it says: in production, in archive recovery, shut down. */
	ended(s, node, class);
}

void pg_stop(struct sim *s, int node, enum pg_stop_mode mode)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->phase == PGP_NONE || p->stop_mode >= mode)
		return;
	p->stop_mode = mode;
	sim_log(s, node, "postgres: %s stop",
		mode == PG_STOP_FAST	? "fast"
		: mode == PG_STOP_SMART ? "smart"
					: "immediate");
	if (mode >= PG_STOP_IMMEDIATE) {
		later(s, node, 5, PGP_NONE);
		return;
	}
	if (p->frozen)
		return;
	/* Until the backends are gone, clients may still be told of their commits. */
	if (!p->stuck)
		later(s, node, sim_range(&s->rng, 2, 100) + p->stop_ms, PGP_STOPPING);
}

/* It hangs or is frozen, or no longer. A mode that was changed while it could not be told, or so
 * shortly before that it was not told yet (one ttl is allowed), is as good as changed now. */
void pg_deaf(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	bool deaf = p->hung || p->frozen;
	if (p->deaf_since_ms &&
		s->checks.mode_changed_ms + sim_config_now(s)->ttl_ms > p->deaf_since_ms)
		s->nodes[node].config_behind_ms = s->now_ms;
	if (!deaf)
		p->deaf_since_ms = 0;
	else if (!p->deaf_since_ms)
		p->deaf_since_ms = s->now_ms;
}

/* What was sent to a stopped process arrives when it goes on. */
void pg_thaw(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	bool held = p->frozen || p->stuck;
	p->frozen = p->stuck = false;
	if (held && p->stop_mode && p->phase != PGP_NONE && p->phase < PGP_STOPPING)
		later(s, node, 50, PGP_STOPPING);
}

void pg_promote_file(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	check_promote_signal(s, node);
	p->promote_file = true;
	if (p->phase != PGP_STANDBY)
		return;
	enter(s, node, PGP_PROMOTING);
	later(s, node, sim_range(&s->rng, 30, 600) + p->promote_ms, PGP_PRIMARY);
}

/* It has replayed what it has: without the rest it goes on looking for that. */
void pg_consistent(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->phase != PGP_RECOVERY || p->stop_mode || (p->kind == PG_START_PRIMARY && !p->pitr))
		return;
	p->looks = true;
	if (p->lsn < p->needs_lsn)
		return;
	enter(s, node, PGP_STANDBY);
	if (p->promote_file)
		pg_promote_file(s, node);
	else if (p->pitr)
		later(s, node, sim_range(&s->rng, 500, 20000), PGP_PROMOTING);
}

/* A new branch: the number is one more than the highest that this node has heard of. */
static void promoted(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	INVARIANT(s->branch_count < SIM_BRANCHES);
	int16_t b = (int16_t)s->branch_count++;
	s->branches[b] = (struct sim_branch){ .parent = p->branch,
		.node = (int8_t)node,
		.tli = s->branches[p->branch].tli + 1,
		.start_lsn = p->lsn,
		.born_ms = s->now_ms };
	s->promotions++;
	p->branch = b;
	p->standby_signal = false;
	p->streaming = false;
	p->control = PG_DB_IN_PRODUCTION;
	memset(p->standby, 0, sizeof(p->standby));
	sim_log(s, node, "postgres: promoted, timeline %" PRId64 " from %" PRIX64,
		s->branches[b].tli, p->lsn);
	check_promoted(s, node, b);
	p->lsn += 256;
}

static void become_primary(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	bool by_promotion = p->phase == PGP_PROMOTING;
	if (p->stop_mode)
		return;
	enter(s, node, PGP_PRIMARY);
	p->replay_lsn = p->lsn;
	if (by_promotion)
		promoted(s, node);
	else
		check_started_primary(s, node);
	p->control = PG_DB_IN_PRODUCTION;
	/* Its end-of-recovery or first regular checkpoint makes the new timeline visible in
	 * pg_control. */
	p->checkpoint_lsn = p->lsn;
	p->checkpoint_tli = s->branches[p->branch].tli;
	p->promote_ms = 0;
	p->pitr = false;
}

static void stopping(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->phase == PGP_NONE || p->phase >= PGP_STOPPING)
		return;
	bool primary = p->phase == PGP_PRIMARY;
	bool recovery = p->phase == PGP_RECOVERY || !primary;
	enter(s, node, PGP_STOPPING);
	p->waiting_count = 0; /* cancelled: their clients are not told of success */
	if (!recovery) {
		p->checkpoint_lsn = p->lsn;
		p->checkpoint_tli = s->branches[p->branch].tli;
		p->lsn += 120;
		wal_send_all(s, node);
	}
	later(s, node, sim_range(&s->rng, 10, 200) + p->stop_ms, PGP_SHUT);
	p->stop_ms = 0;
}

static void shut(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->phase != PGP_STOPPING)
		return;
	/* PostgreSQL waits until its walsenders sent everything to whoever is connected. */
	if (wal_senders_behind(s, node) && s->now_ms - p->phase_ms < 60000) {
		later(s, node, 20, PGP_SHUT);
		return;
	}
	enter(s, node, PGP_SHUT);
	p->control = p->standby_signal && !p->promote_file ? PG_DB_SHUTDOWNED_IN_RECOVERY
							   : PG_DB_SHUTDOWNED;
	later(s, node, 2 + p->archive_ms, PGP_NONE);
	p->archive_ms = 0;
	node_turn_soon(s, node, 0);
}

/* What hung in the archiver goes through; a stop that waited for it ends. */
void pg_archive_done(struct sim *s, int node)
{
	s->nodes[node].pg.archive_ms = 0;
	if (s->nodes[node].pg.phase == PGP_SHUT)
		later(s, node, 2, PGP_NONE);
}

static void phase_event(struct sim *s, int node, enum pg_phase phase)
{
	struct sim_pg *p = &s->nodes[node].pg;
	switch (phase) {
	case PGP_STANDBY: pg_consistent(s, node); break;
	case PGP_PRIMARY:
		if (p->phase == PGP_PROMOTING || p->phase == PGP_RECOVERY)
			become_primary(s, node);
		break;
	case PGP_PROMOTING: /* the end of what a custom bootstrap restored */
		if (p->phase == PGP_STANDBY && p->pitr && !p->stop_mode) {
			enter(s, node, PGP_PROMOTING);
			later(s, node, sim_range(&s->rng, 30, 600), PGP_PRIMARY);
		}
		break;
	case PGP_STOPPING: stopping(s, node); break;
	case PGP_SHUT: shut(s, node); break;
	case PGP_NONE:
		if (p->stop_mode >= PG_STOP_IMMEDIATE && p->phase != PGP_SHUT)
			pg_kill(s, node, EXIT_CLASS_CODE, "immediate stop");
		else
			ended(s, node, EXIT_CLASS_CODE);
		break;
	default: break;
	}
	node_turn_soon(s, node, 2);
}

void pg_event(struct sim *s, const struct sim_event *ev)
{
	struct sim_node *n = &s->nodes[ev->node];
	struct sim_pg *p = &n->pg;
	if (ev->kind == EV_PG_WAL || ev->kind == EV_PG_FEEDBACK || ev->kind == EV_PG_TICK) {
		wal_event(s, ev);
		return;
	}
	if ((uint64_t)ev->a != p->generation || p->phase == PGP_NONE)
		return;
	/* A stopped process does nothing but can be killed. */
	if ((n->vm_paused || (p->frozen && ev->b != PGP_NONE)) && n->on) {
		sim_at(s, s->now_ms + 100, EV_PG_PHASE, ev->node, ev->a, ev->b, NULL);
		return;
	}
	phase_event(s, ev->node, (enum pg_phase)ev->b);
}

/* A new supervisor knows it by another number: the events that are on their way would be void. */
void pg_readopted(struct sim *s, int node)
{
	struct sim_pg *p = &s->nodes[node].pg;
	enum pg_phase next = p->phase == PGP_RECOVERY
				     ? (p->kind == PG_START_PRIMARY ? PGP_PRIMARY : PGP_STANDBY)
			     : p->phase == PGP_PROMOTING ? PGP_PRIMARY
			     : p->phase == PGP_STOPPING	 ? PGP_SHUT
			     : p->phase == PGP_SHUT	 ? PGP_NONE
							 : p->phase;
	if (next != p->phase)
		later(s, node, 100, next);
	sim_at(s, s->now_ms + 1, EV_PG_TICK, node, (int64_t)p->generation, 0, NULL);
}
