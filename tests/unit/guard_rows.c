/* Tables for guard_step: one row is one event at one time and what must follow. Between rows the
 * runner ticks at every wake_at_ms, as the loops of supervisor and dead-man do. Times are
 * milliseconds after the start; ttl is 30 s, so the margin is 1.5 s: the supervisor fences at lease
 * - 1500, the dead-man at lease - 750. Included by the tests that have such tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/guard.h"

#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* rows name what they set */

#define T0  1000000
#define TTL 30000

/* Flags that a row names; the others come and go with every interval. */
#define WATCHED                                                                                    \
	(GUARD_REFUSED | GUARD_FENCE | GUARD_SWEEP | GUARD_STOP_FAST | GUARD_ASK_PROOF |           \
		GUARD_REPLACE_PEER | GUARD_END_FILES | GUARD_THAWED | GUARD_WALL_JUMP |            \
		GUARD_LEAVE)
#define HOLD (1u << 30) /* the answer waits for the dead-man */

enum act {
	RUN = 100, /* tick until that time; `want` has come in between, no more and no less */
	LEASE,	   /* a: sent at, b: lease until (0 none), n: policy, kind: pause_enforce */
	PROOF,	   /* a: at, n: kind, gen */
	STATE,	   /* dead-man: what a supervisor that has these fields would send: a: lease, n:
		      pm_state, kind, gen */
	FREEZE,	   /* no tick until the next row */
	QUIET,	   /* the other enforcer sends nothing from now on */
	FEEDS,	   /* a: so many keepalives since the last FEEDS */
	WATCHDOG,  /* a: level expected */
	LINE,	   /* a: lifeline expected */
	PM,	   /* n: pm_state expected */
	WALL,	   /* the wall clock jumps by a */
};

struct row {
	int64_t at;
	int act; /* enum act, or enum guard_event_kind */
	uint32_t want;
	int64_t a, b;
	uint32_t n, kind;
	uint64_t gen;
	const char *reason;
};

struct run {
	struct guard g;
	struct guard_actions last;
	int64_t now, wall_offset;
	uint32_t seen;
	unsigned feeds;
	bool quiet;
	const char *name;
	unsigned row;
	uint64_t seq;
	const char *reason;
};

static void step(struct run *r, struct guard_event *ev)
{
	ev->wall_offset_ms = r->wall_offset;
	r->last = guard_step(&r->g, ev, r->now);
	r->seen |= r->last.flags & WATCHED;
	if (r->last.flags & (GUARD_FENCE | GUARD_STOP_FAST | GUARD_REFUSED))
		r->reason = r->last.reason;
	if (r->last.flags & GUARD_WD_FEED)
		r->feeds++;
}

static void tick(struct run *r)
{
	if (!r->quiet && r->g.peer_alive) {
		struct guard_event seen = { .kind = GUARD_EV_PEER_SEEN,
			.acked_seq = r->g.state_seq };
		step(r, &seen);
	}
	struct guard_event ev = { .kind = GUARD_EV_TICK };
	step(r, &ev);
}

static void run_until(struct run *r, int64_t at)
{
	while (r->last.wake_at_ms <= at) {
		if (r->last.wake_at_ms > r->now)
			r->now = r->last.wake_at_ms;
		tick(r);
		if (r->last.wake_at_ms <= r->now)
			r->last.wake_at_ms = r->now + 1;
	}
	r->now = at;
}

static void fail_row(const struct run *r, const char *what, int64_t got, int64_t want)
{
	char text[256];
	snprintf(text, sizeof(text), "%s, row %u: %s is %" PRIx64 ", expected %" PRIx64 " (%s)",
		r->name, r->row, what, (uint64_t)got, (uint64_t)want,
		r->reason != NULL ? r->reason : "");
	fail_msg("%s", text);
}

static void check(const struct run *r, const char *what, int64_t got, int64_t want)
{
	if (got != want)
		fail_row(r, what, got, want);
}

static int64_t abs_time(int64_t t)
{
	return t != 0 ? T0 + t : 0;
}

static void do_event(struct run *r, const struct row *w)
{
	struct guard_event ev = { .kind = (enum guard_event_kind)w->act,
		.generation = w->gen,
		.pm_kind = w->kind,
		.lease_until_ms = abs_time(w->a),
		.deadline_ms = w->b != 0 ? abs_time(w->b) : r->now + 5000,
		.timeout_ms = w->a,
		.peer_fencing = w->n,
		.acked_seq = (uint64_t)w->a };
	struct msg_lease lease = { .seq = ++r->seq,
		.sent_at_ms = abs_time(w->a),
		.lease_until_ms = abs_time(w->b),
		.ttl_ms = w->gen != 0 ? (int64_t)w->gen : TTL,
		.policy = w->n,
		.pause_enforce = w->kind,
		.wall_offset_ms = r->wall_offset };
	struct msg_proof proof = { .generation = w->gen, .at_ms = abs_time(w->a), .kind = w->n };
	struct msg_dm_state state = { .seq = ++r->seq,
		.sent_at_ms = r->now,
		.lease_until_ms = abs_time(w->a),
		.proof_until_ms = abs_time(w->b),
		.ttl_ms = TTL,
		.generation = w->gen,
		.pm_state = w->n,
		.kind = w->kind };
	if (w->act == LEASE) {
		ev = (struct guard_event){ .kind = GUARD_EV_LEASE, .lease = &lease };
	} else if (w->act == PROOF) {
		ev = (struct guard_event){ .kind = GUARD_EV_PROOF, .proof = &proof };
	} else if (w->act == STATE) {
		ev = (struct guard_event){ .kind = GUARD_EV_STATE, .state = &state };
	}
	r->seen = 0;
	step(r, &ev);
	check(r, "flags", (r->seen & WATCHED) | (r->last.hold_seq != 0 ? HOLD : 0), w->want);
	r->seen = 0;
}

static void do_row(struct run *r, const struct row *w)
{
	switch (w->act) {
	case FREEZE: r->now = T0 + w->at; return;
	case QUIET: r->quiet = true; return;
	case WALL: r->wall_offset += w->a; return;
	case RUN:
		run_until(r, T0 + w->at);
		check(r, "flags of the ticks", r->seen, w->want);
		r->seen = 0;
		return;
	case FEEDS:
		check(r, "keepalives", r->feeds, w->a);
		r->feeds = 0;
		return;
	case WATCHDOG: check(r, "watchdog", r->last.watchdog, w->a); return;
	case LINE: check(r, "lifeline", r->last.lifeline_armed, w->a); return;
	case PM: check(r, "state", r->g.pm_state, w->n); return;
	default:
		if (r->now < T0 + w->at)
			run_until(r, T0 + w->at);
		do_event(r, w);
	}
}

static void run_rows(const char *name, enum guard_role role, const struct row *rows, unsigned count)
{
	struct run r = { .name = name, .now = T0, .wall_offset = 1700000000000 };
	struct guard_event peer = { .kind = GUARD_EV_PEER_NEW };
	guard_init(&r.g, role, r.now);
	step(&r, &peer);
	for (r.row = 0; r.row < count; r.row++) {
		r.reason = NULL;
		do_row(&r, &rows[r.row]);
		if (rows[r.row].reason != NULL &&
			(r.reason == NULL || strstr(r.reason, rows[r.row].reason) == NULL))
			fail_row(&r, rows[r.row].reason, 0, 1);
	}
}

#define ROWS(role, ...)                                                                            \
	do {                                                                                       \
		(void)state;                                                                       \
		static const struct row rows[] = { __VA_ARGS__ };                                  \
		run_rows(__func__, role, rows, sizeof(rows) / sizeof(rows[0]));                    \
	} while (0)
#define SUP GUARD_SUPERVISOR
#define DM  GUARD_DEADMAN

/* A lease sent at 0 and a primary of generation 1 that runs under it. */
#define LEADER                                                                                     \
	{ 5, LEASE, 0, .a = 1, .b = 30000 },                                                       \
		{ 10, GUARD_EV_START, HOLD, .a = 30000, .kind = PG_START_PRIMARY, .gen = 1 },      \
	{                                                                                          \
		20, GUARD_EV_GATE, 0, .a = 30000, .gen = 1                                         \
	}
#define STANDBY                                                                                    \
	{ 0, LEASE, 0, .a = 0 }, { 10, GUARD_EV_START, HOLD, .kind = PG_START_STANDBY, .gen = 1 }, \
	{                                                                                          \
		20, GUARD_EV_GATE, 0, .gen = 1                                                     \
	}
