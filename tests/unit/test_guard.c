/* guard_step, by tables: one row is one event at one time and what must follow. Between rows the
 * runner ticks at every wake_at_ms, as the loops of supervisor and dead-man do. Times are
 * milliseconds after the start; ttl is 30 s, so the margin is 1.5 s: the supervisor fences at lease
 * - 1500, the dead-man at lease - 750. */
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

/* ---- the lease --------------------------------------------------------------------------------
 */

static void test_lease_ends(void **state)
{
	ROWS(SUP, LEADER, { 28499, RUN, 0 }, { 28500, RUN, GUARD_FENCE, .reason = "spent" },
		{ 28500, PM, .n = PG_PROC_FENCING },
		{ 28501, LEASE, GUARD_REFUSED, .a = 28500, .b = 0, .reason = "fence" },
		{ 28510, GUARD_EV_KILLED, 0, .gen = 1 }, { 28511, LEASE, HOLD, .a = 28500, .b = 0 },
		{ 28512, GUARD_EV_START, GUARD_REFUSED, .kind = PG_START_STANDBY, .gen = 2,
			.reason = "not proven" },
		{ 28520, GUARD_EV_PROVEN, 0, .gen = 1 }, { 28520, PM, .n = PG_PROC_NONE },
		{ 28530, GUARD_EV_START, HOLD, .kind = PG_START_STANDBY, .gen = 2 });
}

static void test_lease_renewed(void **state)
{
	ROWS(SUP, LEADER, { 10000, LEASE, 0, .a = 9990, .b = 39990 }, { 38489, RUN, 0 },
		{ 38490, RUN, GUARD_FENCE, .reason = "spent" });
}

static void test_lease_refused(void **state)
{
	ROWS(SUP, { 100, LEASE, 0, .a = 50, .b = 30050 },
		{ 100, LEASE, GUARD_REFUSED, .a = 101, .b = 30101, .reason = "future" },
		{ 200, LEASE, GUARD_REFUSED, .a = 49, .b = 30049, .reason = "before" },
		{ 200, LEASE, GUARD_REFUSED, .a = 200, .b = 30201, .reason = "longer" },
		{ 200, LEASE, GUARD_REFUSED, .a = 200, .b = 30200, .n = 3, .reason = "policy" },
		{ 200, LEASE, GUARD_REFUSED, .a = 200, .b = 400200, .gen = 400000,
			.reason = "ttl" },
		{ 200, LEASE, GUARD_REFUSED, .a = 200, .b = 2200, .gen = 2999, .reason = "ttl" },
		{ 200, LEASE, 0, .a = 200, .b = 30200 });
}

/* Found by fuzzing the sockets: a distance to a time at the end of the numbers is none. */
static void test_times_that_no_clock_shows(void **state)
{
	(void)state;
	struct guard g;
	static const int64_t no_times[] = { INT64_MIN, INT64_MIN + 5, INT64_MAX };
	for (unsigned i = 0; i < sizeof(no_times) / sizeof(no_times[0]); i++) {
		struct msg_lease m = { .seq = 5,
			.sent_at_ms = T0,
			.lease_until_ms = T0 + TTL,
			.ttl_ms = TTL,
			.wall_offset_ms = no_times[i] };
		struct msg_dm_state st = { .seq = 1, .wall_offset_ms = no_times[i] };
		struct guard_event lease = {
			.kind = GUARD_EV_LEASE, .lease = &m, .wall_offset_ms = 1
		};
		struct guard_event state_ev = {
			.kind = GUARD_EV_STATE, .state = &st, .wall_offset_ms = 1
		};
		guard_init(&g, SUP, T0);
		assert_int_not_equal(guard_step(&g, &lease, T0).flags & GUARD_REFUSED, 0);
		guard_init(&g, DM, T0);
		assert_int_not_equal(guard_step(&g, &state_ev, T0).flags & GUARD_REFUSED, 0);
		st.wall_offset_ms = 0;
		st.proof_until_ms = no_times[i];
		assert_int_not_equal(guard_step(&g, &state_ev, T0).flags & GUARD_REFUSED, 0);
	}
}

static void test_lease_sequence(void **state)
{
	(void)state;
	struct guard g;
	struct msg_lease m = {
		.seq = 5, .sent_at_ms = T0, .lease_until_ms = T0 + TTL, .ttl_ms = TTL
	};
	struct guard_event ev = { .kind = GUARD_EV_LEASE, .lease = &m };
	guard_init(&g, SUP, T0);
	assert_int_equal(guard_step(&g, &ev, T0).flags & GUARD_REFUSED, 0);
	assert_int_equal(guard_step(&g, &ev, T0).flags & GUARD_REFUSED, GUARD_REFUSED);
	assert_int_equal(guard_lease_fence_ms(&g), T0 + TTL - 1500);
	g.role = DM;
	assert_int_equal(guard_lease_fence_ms(&g), T0 + TTL - 750);
	assert_int_equal(guard_margin_ms(3000), 1000);
	assert_int_equal(guard_margin_ms(60000), 3000);
	assert_int_equal(guard_peer_interval_ms(3000), 200);
	assert_int_equal(guard_peer_interval_ms(15000), 1000);
	assert_int_equal(guard_peer_interval_ms(60000), 2000);
}

static void test_release(void **state)
{
	ROWS(SUP, LEADER,
		{ 1000, LEASE, GUARD_REFUSED, .a = 1000, .b = 0, .reason = "stop it first" },
		{ 2000, GUARD_EV_STOP, 0, .gen = 1 },
		{ 2100, LEASE, GUARD_REFUSED, .a = 2100, .b = 0, .reason = "stop it first" },
		{ 2200, PROOF, 0, .a = 2150, .n = PROOF_SHUTDOWN_CONTROL, .gen = 1 },
		{ 2300, LEASE, HOLD, .a = 2300, .b = 0 }, { 90000, RUN, 0 },
		{ 90000, GUARD_EV_EXIT, GUARD_SWEEP, .gen = 1 },
		{ 90001, GUARD_EV_PROVEN, 0, .gen = 1 });
}

static void test_release_after_exit(void **state)
{
	ROWS(SUP, LEADER, { 1000, GUARD_EV_EXIT, GUARD_SWEEP, .gen = 1 },
		{ 1001, LEASE, GUARD_REFUSED, .a = 1000, .b = 0, .reason = "fence" },
		{ 1002, GUARD_EV_PROVEN, 0, .gen = 1 }, { 1003, LEASE, HOLD, .a = 1003, .b = 0 });
}

static void test_lease_shortened(void **state)
{
	ROWS(SUP, LEADER, { 1000, LEASE, HOLD, .a = 900, .b = 10900, .gen = 10000 },
		{ 9899, RUN, 0 }, { 9900, RUN, GUARD_FENCE });
}

/* ---- starting ---------------------------------------------------------------------------------
 */

static void test_start_primary(void **state)
{
	ROWS(SUP,
		{ 0, GUARD_EV_START, GUARD_REFUSED, .a = 30000, .kind = PG_START_PRIMARY, .gen = 1,
			.reason = "no lease" },
		{ 10, LEASE, 0, .a = 5, .b = 30005 },
		{ 20, GUARD_EV_START, GUARD_REFUSED, .a = 30006, .kind = PG_START_PRIMARY, .gen = 1,
			.reason = "not in force" },
		{ 20, GUARD_EV_START, GUARD_REFUSED, .a = 30005, .b = 20, .kind = PG_START_PRIMARY,
			.gen = 1, .reason = "deadline" },
		{ 20, GUARD_EV_START, GUARD_REFUSED, .a = 30005, .kind = 7, .gen = 1,
			.reason = "kind" },
		{ 30, GUARD_EV_START, HOLD, .a = 30005, .kind = PG_START_PRIMARY, .gen = 1 },
		{ 40, GUARD_EV_START, GUARD_REFUSED, .a = 30005, .kind = PG_START_PRIMARY, .gen = 2,
			.reason = "exists" },
		{ 50, GUARD_EV_GATE, GUARD_REFUSED, .a = 30005, .gen = 2, .reason = "generation" },
		{ 50, GUARD_EV_GATE, 0, .a = 30005, .gen = 1 },
		{ 60, GUARD_EV_GATE, GUARD_REFUSED, .a = 30005, .gen = 1, .reason = "gate" });
}

static void test_start_after_renewal(void **state)
{
	/* The keeper renewed between decision and request: the older report is still unspent. */
	ROWS(SUP, { 5, LEASE, 0, .a = 1, .b = 30000 }, { 5000, LEASE, 0, .a = 5000, .b = 35000 },
		{ 5010, GUARD_EV_START, HOLD, .a = 30000, .kind = PG_START_PRIMARY, .gen = 1 });
}

static void test_gate_after_thaw(void **state)
{
	/* Yesterday's work: the lease went while the child waited, and while everything was frozen.
	 */
	ROWS(SUP, { 5, LEASE, 0, .a = 1, .b = 30000 },
		{ 10, GUARD_EV_START, HOLD, .a = 30000, .b = 90000, .kind = PG_START_PRIMARY,
			.gen = 1 },
		{ 40000, FREEZE },
		{ 40000, GUARD_EV_GATE, GUARD_REFUSED | GUARD_THAWED, .a = 30000, .b = 90000,
			.gen = 1, .reason = "spent" },
		{ 40000, GUARD_EV_EXIT, GUARD_SWEEP, .gen = 1 });
}

static void test_generations(void **state)
{
	ROWS(SUP, LEADER, { 30, GUARD_EV_STOP, GUARD_REFUSED, .gen = 2, .reason = "generation" },
		{ 30, GUARD_EV_SIGNAL, GUARD_REFUSED, .gen = 0, .reason = "generation" },
		{ 30, GUARD_EV_SIGNAL, 0, .gen = 1 },
		{ 30, GUARD_EV_SIGNAL, GUARD_REFUSED, .b = 29, .gen = 1, .reason = "deadline" },
		{ 30, PROOF, GUARD_REFUSED, .a = 25, .n = PROOF_RECOVERY_SQL, .gen = 2,
			.reason = "generation" },
		{ 30, GUARD_EV_EXIT, GUARD_REFUSED, .gen = 2, .reason = "generation" },
		{ 40, GUARD_EV_EXIT, GUARD_SWEEP, .gen = 1 }, { 50, GUARD_EV_PROVEN, 0, .gen = 1 },
		{ 60, GUARD_EV_START, GUARD_REFUSED, .kind = PG_START_STANDBY, .gen = 1,
			.reason = "not new" });
}

/* ---- standby ----------------------------------------------------------------------------------
 */

static void test_standby_proofs(void **state)
{
	/* Proof until 15020; asked until 30020; stopped; fenced 5 s (ttl/6) after that. */
	ROWS(SUP, STANDBY, { 15019, RUN, 0 }, { 15020, RUN, GUARD_ASK_PROOF },
		{ 20000, PROOF, 0, .a = 16000, .n = PROOF_RECOVERY_SQL, .gen = 1 },
		{ 30999, RUN, 0 }, { 31000, RUN, GUARD_ASK_PROOF }, { 45999, RUN, 0 },
		{ 46000, RUN, GUARD_STOP_FAST, .reason = "not proven" },
		{ 46000, PM, .n = PG_PROC_STOPPING }, { 50999, RUN, 0 },
		{ 51000, RUN, GUARD_FENCE, .reason = "not stopped" });
}

static void test_standby_under_a_lease(void **state)
{
	/* A standby leader: the lease alone is enough, proofs are asked for all the same. */
	ROWS(SUP, STANDBY, { 14000, LEASE, 0, .a = 14000, .b = 44000 },
		{ 42000, RUN, GUARD_ASK_PROOF }, { 42499, RUN, 0 }, { 42500, RUN, GUARD_FENCE });
}

static void test_proof_refused(void **state)
{
	ROWS(SUP, LEADER,
		{ 100, PROOF, GUARD_REFUSED, .a = 90, .n = PROOF_RECOVERY_SQL, .gen = 1,
			.reason = "primary" },
		{ 100, PROOF, GUARD_REFUSED, .a = 101, .n = PROOF_RECOVERY_SQL, .gen = 1,
			.reason = "time" },
		{ 100, PROOF, GUARD_REFUSED, .a = 10, .n = PROOF_RECOVERY_SQL, .gen = 1,
			.reason = "time" },
		{ 100, PROOF, GUARD_REFUSED, .a = 90, .n = 9, .gen = 1, .reason = "kind" },
		{ 100, PROOF, GUARD_REFUSED, .a = 90, .n = PROOF_SHUTDOWN_CONTROL, .gen = 1,
			.reason = "told to stop" },
		{ 200, GUARD_EV_STOP, 0, .gen = 1 },
		{ 210, PROOF, GUARD_REFUSED, .a = 199, .n = PROOF_SHUTDOWN_CONTROL, .gen = 1,
			.reason = "told to stop" },
		{ 28500, RUN, GUARD_FENCE });
}

static void test_standby_releases(void **state)
{
	ROWS(SUP, STANDBY, { 100, LEASE, 0, .a = 100, .b = 30100 },
		{ 200, LEASE, HOLD, .a = 200, .b = 0 });
}

/* ---- promotion --------------------------------------------------------------------------------
 */

static void test_promote(void **state)
{
	ROWS(SUP, STANDBY,
		{ 100, GUARD_EV_PROMOTE, GUARD_REFUSED, .a = 30100, .gen = 1,
			.reason = "no lease" },
		{ 100, GUARD_EV_SIGNAL, GUARD_REFUSED, .a = 30100, .gen = 1,
			.reason = "no promotion" },
		{ 110, LEASE, 0, .a = 100, .b = 30100 },
		{ 120, GUARD_EV_PROMOTE, GUARD_REFUSED, .a = 30100, .b = 119, .gen = 1,
			.reason = "deadline" },
		{ 120, GUARD_EV_PROMOTE, HOLD, .a = 30100, .gen = 1 },
		{ 130, GUARD_EV_SIGNAL, 0, .a = 30100, .gen = 1 },
		/* The exemption is gone for good, whatever is seen. */
		{ 140, PROOF, GUARD_REFUSED, .a = 135, .n = PROOF_RECOVERY_SQL, .gen = 1,
			.reason = "promotion" },
		{ 150, LEASE, GUARD_REFUSED, .a = 150, .b = 0, .reason = "stop it first" },
		{ 28599, RUN, 0 },
		{ 28600, RUN, GUARD_FENCE | GUARD_END_FILES, .reason = "spent" });
}

static void test_promote_then_exit(void **state)
{
	ROWS(SUP, STANDBY, { 100, LEASE, 0, .a = 100, .b = 30100 },
		{ 120, GUARD_EV_PROMOTE, HOLD, .a = 30100, .gen = 1 },
		{ 130, GUARD_EV_EXIT, GUARD_SWEEP | GUARD_END_FILES, .gen = 1 });
}

static void test_promote_late(void **state)
{
	ROWS(SUP, STANDBY, { 100, LEASE, 0, .a = 100, .b = 14000 },
		{ 12600, GUARD_EV_PROMOTE, GUARD_REFUSED, .a = 14000, .b = 20000, .gen = 1,
			.reason = "spent" });
}

/* ---- pause, failsafe --------------------------------------------------------------------------
 */

static void test_pause(void **state)
{
	ROWS(SUP, LEADER, { 20, LINE, .a = 1 },
		{ 1000, LEASE, HOLD, .a = 1000, .b = 0, .n = POLICY_PAUSED },
		{ 1000, LINE, .a = 0 }, { 1000, WATCHDOG, .a = GUARD_WD_CLOSED },
		{ 200000, RUN, 0 },
		/* Resumed without a lease: a grace to stop it in good order, then the fence. */
		{ 200000, LEASE, HOLD, .a = 200000, .b = 0 }, { 200000, LINE, .a = 1 },
		{ 204999, RUN, 0 }, { 205000, RUN, GUARD_FENCE, .reason = "no lease" });
}

static void test_pause_resumed_with_lease(void **state)
{
	ROWS(SUP, LEADER, { 1000, LEASE, HOLD, .a = 1000, .b = 0, .n = POLICY_PAUSED },
		{ 200000, LEASE, HOLD, .a = 200000, .b = 230000 }, { 228499, RUN, 0 },
		{ 228500, RUN, GUARD_FENCE });
}

static void test_pause_enforced(void **state)
{
	ROWS(SUP, LEADER, { 1000, LEASE, 0, .a = 1000, .b = 31000, .n = POLICY_PAUSED, .kind = 1 },
		{ 29499, RUN, 0 }, { 29500, RUN, GUARD_FENCE });
}

static void test_failsafe(void **state)
{
	ROWS(SUP, LEADER, { 20000, LEASE, 0, .a = 19000, .b = 49000, .n = POLICY_FAILSAFE },
		{ 47499, RUN, 0 }, { 47500, RUN, GUARD_FENCE });
}

/* ---- adoption, the other enforcer -------------------------------------------------------------
 */

static void test_adopt(void **state)
{
	ROWS(SUP, { 0, GUARD_EV_ADOPT, 0, .gen = 4 }, { 4999, RUN, 0 },
		{ 5000, RUN, GUARD_FENCE, .reason = "no lease" });
}

static void test_adopt_rescued(void **state)
{
	ROWS(SUP, { 0, GUARD_EV_ADOPT, 0, .gen = 4 },
		{ 4000, LEASE, 0, .a = 3900, .b = 6900, .gen = 3000 }, { 5899, RUN, 0 },
		{ 5900, RUN, GUARD_FENCE });
}

static void test_adopt_proven(void **state)
{
	ROWS(SUP, { 0, GUARD_EV_ADOPT, 0, .gen = 4 },
		{ 4000, PROOF, 0, .a = 3900, .n = PROOF_RECOVERY_SQL, .gen = 4 }, { 18899, RUN, 0 },
		{ 18900, RUN, GUARD_ASK_PROOF });
}

static void test_peer_silent(void **state)
{
	ROWS(SUP, LEADER, { 1000, QUIET }, { 5999, RUN, 0 }, { 6100, RUN, GUARD_REPLACE_PEER },
		{ 6100, GUARD_EV_PEER_NEW, 0 }, { 7000, GUARD_EV_PEER_DEAD, GUARD_REPLACE_PEER });
}

static void test_peer_fences(void **state)
{
	ROWS(SUP, LEADER, { 100, GUARD_EV_PEER_SEEN, 0, .n = 1, .gen = 9 },
		{ 100, GUARD_EV_PEER_SEEN, GUARD_FENCE, .n = 1, .gen = 1, .reason = "dead-man" },
		{ 110, GUARD_EV_PEER_SEEN, 0, .n = 1, .gen = 1 });
}

static void test_hold(void **state)
{
	(void)state;
	struct guard g;
	struct guard_event peer = { .kind = GUARD_EV_PEER_NEW };
	struct guard_event start = { .kind = GUARD_EV_START,
		.pm_kind = PG_START_STANDBY,
		.generation = 1,
		.deadline_ms = T0 + 1000 };
	struct guard_event seen = { .kind = GUARD_EV_PEER_SEEN };
	struct guard_event dead = { .kind = GUARD_EV_PEER_DEAD };
	struct guard_event exited = { .kind = GUARD_EV_EXIT, .generation = 1 };
	guard_init(&g, SUP, T0);
	guard_step(&g, &peer, T0);
	struct guard_actions a = guard_step(&g, &start, T0);
	assert_true(a.hold_seq > 0);
	assert_true(a.flags & GUARD_SEND_STATE);
	assert_false(guard_synced(&g, a.hold_seq));
	seen.acked_seq = a.hold_seq - 1;
	guard_step(&g, &seen, T0);
	assert_false(guard_synced(&g, a.hold_seq));
	seen.acked_seq = a.hold_seq + 1; /* from the future: not believed */
	guard_step(&g, &seen, T0);
	assert_false(guard_synced(&g, a.hold_seq));
	seen.acked_seq = a.hold_seq;
	guard_step(&g, &seen, T0);
	assert_true(guard_synced(&g, a.hold_seq));
	assert_int_equal(guard_held(&g, 1, a.hold_seq, T0 + 1000, T0), GUARD_HOLD_GO);
	assert_int_equal(guard_held(&g, 1, a.hold_seq, T0 + 1000, T0 + 1000), GUARD_HOLD_REFUSE);
	assert_int_equal(guard_held(&g, 2, a.hold_seq, T0 + 1000, T0), GUARD_HOLD_REFUSE);
	guard_step(&g, &dead, T0);
	assert_false(guard_synced(&g, a.hold_seq));
	assert_int_equal(guard_held(&g, 1, a.hold_seq, T0 + 1000, T0), GUARD_HOLD_WAIT);
	guard_step(&g, &exited, T0);
	assert_int_equal(guard_held(&g, 1, a.hold_seq, T0 + 1000, T0), GUARD_HOLD_REFUSE);
	assert_int_equal(guard_held(&g, 0, a.hold_seq, 0, T0), GUARD_HOLD_WAIT);
}

/* ---- clocks -----------------------------------------------------------------------------------
 */

static void test_thaw_with_renewal(void **state)
{
	/* Frozen past the deadline; the renewal waits in the socket: read first, no fence. */
	ROWS(SUP, LEADER, { 35000, FREEZE }, { 35000, LEASE, GUARD_THAWED, .a = 25000, .b = 55000 },
		{ 53499, RUN, 0 }, { 53500, RUN, GUARD_FENCE });
}

static void test_thaw_without_renewal(void **state)
{
	ROWS(SUP, LEADER, { 35000, FREEZE },
		{ 35000, RUN, GUARD_THAWED | GUARD_FENCE, .reason = "spent" });
}

static void test_thaw_standby(void **state)
{
	/* Its windows begin again; nothing could have promoted it but us. */
	ROWS(SUP, STANDBY, { 300000, FREEZE }, { 300001, RUN, GUARD_THAWED | GUARD_ASK_PROOF },
		{ 314999, RUN, 0 }, { 315000, RUN, GUARD_STOP_FAST });
}

static void test_thaw_peer(void **state)
{
	/* A dead-man that was frozen with us is not silent. */
	ROWS(SUP, LEADER, { 1000, RUN, 0 }, { 1000, QUIET }, { 20000, FREEZE },
		{ 20001, RUN, GUARD_THAWED }, { 25999, RUN, 0 },
		{ 26000, RUN, GUARD_REPLACE_PEER });
}

static void test_wall_jump(void **state)
{
	/* 10 s ahead: the lease ends 10 s earlier, and nothing new rests on it. */
	ROWS(SUP, LEADER, { 1000, WALL, .a = 10000 }, { 3000, RUN, GUARD_WALL_JUMP },
		{ 3000, GUARD_EV_EXIT, GUARD_SWEEP, .gen = 1 },
		{ 3001, GUARD_EV_PROVEN, 0, .gen = 1 },
		{ 3002, GUARD_EV_START, GUARD_REFUSED, .a = 20000, .kind = PG_START_PRIMARY,
			.gen = 2, .reason = "void" },
		{ 3003, LEASE, 0, .a = 3000, .b = 33000 },
		{ 3004, GUARD_EV_START, HOLD, .a = 33000, .kind = PG_START_PRIMARY, .gen = 2 });
}

static void test_wall_jump_fences(void **state)
{
	ROWS(SUP, LEADER, { 1000, WALL, .a = 10000 }, { 18499, RUN, GUARD_WALL_JUMP },
		{ 18500, RUN, GUARD_FENCE, .reason = "wall clock" });
}

static void test_wall_drift(void **state)
{
	/* Back, then ahead again by as much and a little: measured from the lowest. Small steps are
	 * not jumps. */
	ROWS(SUP, LEADER, { 100, WALL, .a = 1400 }, { 3000, RUN, 0 }, { 3000, WALL, .a = -10000 },
		{ 6000, RUN, 0 }, { 6000, WALL, .a = 9000 }, { 9000, RUN, GUARD_WALL_JUMP });
}

/* ---- watchdog ---------------------------------------------------------------------------------
 */

static void test_watchdog(void **state)
{
	/* timeout 25 s: fed while lease - now >= 25 s, that is until 5000, every 2 s. */
	ROWS(SUP, { 0, WATCHDOG, .a = GUARD_WD_CLOSED }, LEADER,
		{ 20, WATCHDOG, .a = GUARD_WD_ARMED }, { 100, GUARD_EV_WATCHDOG, 0, .a = 25000 },
		{ 4900, RUN, 0 }, { 4900, FEEDS, .a = 3 }, { 12000, RUN, 0 },
		{ 12000, FEEDS, .a = 0 }, { 12000, LEASE, 0, .a = 12000, .b = 42000 },
		{ 12001, RUN, 0 }, { 12001, FEEDS, .a = 1 },
		{ 12002, GUARD_EV_WATCHDOG, 0, .a = 0 }, { 16000, RUN, 0 },
		{ 16000, FEEDS, .a = 0 },
		{ 16000, WATCHDOG, .a = GUARD_WD_ARMED } /* level stays: a lease is held */);
}

static void test_watchdog_closes(void **state)
{
	ROWS(SUP, LEADER, { 28500, RUN, GUARD_FENCE }, { 28500, WATCHDOG, .a = GUARD_WD_ARMED },
		{ 28501, GUARD_EV_KILLED, 0, .gen = 1 }, { 28502, LEASE, HOLD, .a = 28500, .b = 0 },
		{ 28502, WATCHDOG, .a = GUARD_WD_CLOSED });
}

static void test_watchdog_fits(void **state)
{
	(void)state;
	assert_true(guard_watchdog_fits(29000, 30000));
	assert_false(guard_watchdog_fits(29001, 30000));
	assert_false(guard_watchdog_fits(0, 30000));
}

/* ---- the dead-man -----------------------------------------------------------------------------
 */

#define DM_LEADER                                                                                  \
	{                                                                                          \
		10, STATE, 0, .a = 30000, .n = PG_PROC_RUNNING, .kind = PG_START_PRIMARY, .gen = 1 \
	}

static void test_dm_lease(void **state)
{
	ROWS(DM, DM_LEADER, { 10, LINE, .a = 1 }, { 29249, RUN, 0 },
		{ 29250, RUN, GUARD_FENCE, .reason = "spent" },
		/* An earlier message does not make it alive again. */
		{ 29260, STATE, 0, .a = 60000, .n = PG_PROC_RUNNING, .kind = PG_START_PRIMARY,
			.gen = 1 },
		{ 29260, PM, .n = PG_PROC_FENCING }, { 29270, GUARD_EV_PROVEN, 0, .gen = 1 },
		{ 29280, STATE, 0, .a = 60000, .n = PG_PROC_RUNNING, .kind = PG_START_PRIMARY,
			.gen = 1 },
		{ 29280, PM, .n = PG_PROC_NONE },
		{ 29290, STATE, GUARD_REFUSED, .a = 60000, .n = PG_PROC_RUNNING, .gen = 0,
			.reason = "older" },
		{ 29290, STATE, 0, .a = 60000, .n = PG_PROC_RUNNING, .kind = PG_START_PRIMARY,
			.gen = 2 },
		{ 29290, PM, .n = PG_PROC_RUNNING });
}

static void test_dm_shorter_lease(void **state)
{
	ROWS(DM, DM_LEADER,
		{ 20, STATE, 0, .a = 20000, .n = PG_PROC_RUNNING, .kind = PG_START_PRIMARY,
			.gen = 1 },
		{ 19249, RUN, 0 }, { 19250, RUN, GUARD_FENCE, .reason = "spent" });
}

static void test_dm_malformed(void **state)
{
	ROWS(DM, { 10, STATE, GUARD_REFUSED, .a = 30000, .n = 9, .gen = 1, .reason = "malformed" },
		{ 10, STATE, GUARD_REFUSED, .a = 900000, .n = PG_PROC_RUNNING, .gen = 1,
			.reason = "malformed" },
		{ 10, STATE, GUARD_REFUSED, .a = 30000, .n = PG_PROC_RUNNING, .kind = 3, .gen = 1,
			.reason = "malformed" });
}

static void test_dm_orphan(void **state)
{
	ROWS(DM, DM_LEADER, { 1000, GUARD_EV_PEER_DEAD, 0 }, { 10999, RUN, 0 },
		{ 11000, RUN, GUARD_FENCE, .reason = "no supervisor" },
		{ 11001, GUARD_EV_PROVEN, 0, .gen = 1 }, { 11002, RUN, GUARD_LEAVE });
}

static void test_dm_orphan_never_past_the_lease(void **state)
{
	ROWS(DM, DM_LEADER, { 25000, GUARD_EV_PEER_DEAD, 0 }, { 29249, RUN, 0 },
		{ 29250, RUN, GUARD_FENCE, .reason = "spent" });
}

static void test_dm_orphan_rescued(void **state)
{
	/* The successor connects at the end of the grace, gets it once more, and its first state
	 * ends it. */
	ROWS(DM, DM_LEADER, { 1000, GUARD_EV_PEER_DEAD, 0 }, { 10990, GUARD_EV_PEER_NEW, 0 },
		{ 20980, RUN, 0 },
		{ 20985, STATE, 0, .a = 50000, .n = PG_PROC_RUNNING, .kind = PG_START_PRIMARY,
			.gen = 1 },
		{ 49249, RUN, 0 }, { 49250, RUN, GUARD_FENCE });
}

static void test_dm_standby(void **state)
{
	/* Proof until 15000, asked until 30000, stopped until 35000 by the supervisor; the dead-man
	 * half a margin on. */
	ROWS(DM,
		{ 10, STATE, 0, .b = 15000, .n = PG_PROC_RUNNING, .kind = PG_START_STANDBY,
			.gen = 1 },
		{ 35749, RUN, 0 }, { 35750, RUN, GUARD_FENCE });
}

static void test_dm_joins(void **state)
{
	ROWS(DM, DM_LEADER,
		{ 20, STATE, GUARD_FENCE, .a = 30000, .n = PG_PROC_FENCING,
			.kind = PG_START_PRIMARY, .gen = 1 });
}

static void test_dm_exit(void **state)
{
	ROWS(DM, DM_LEADER, { 20, GUARD_EV_EXIT, GUARD_SWEEP, .gen = 1 }, { 60000, RUN, 0 });
}

static void test_dm_leaves(void **state)
{
	ROWS(DM, { 10, STATE, 0 }, { 20, GUARD_EV_PEER_DEAD, 0 }, { 21, RUN, GUARD_LEAVE });
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lease_ends),
		cmocka_unit_test(test_lease_renewed),
		cmocka_unit_test(test_lease_refused),
		cmocka_unit_test(test_times_that_no_clock_shows),
		cmocka_unit_test(test_lease_sequence),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_release_after_exit),
		cmocka_unit_test(test_lease_shortened),
		cmocka_unit_test(test_start_primary),
		cmocka_unit_test(test_start_after_renewal),
		cmocka_unit_test(test_gate_after_thaw),
		cmocka_unit_test(test_generations),
		cmocka_unit_test(test_standby_proofs),
		cmocka_unit_test(test_standby_under_a_lease),
		cmocka_unit_test(test_proof_refused),
		cmocka_unit_test(test_standby_releases),
		cmocka_unit_test(test_promote),
		cmocka_unit_test(test_promote_then_exit),
		cmocka_unit_test(test_promote_late),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_pause_resumed_with_lease),
		cmocka_unit_test(test_pause_enforced),
		cmocka_unit_test(test_failsafe),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_rescued),
		cmocka_unit_test(test_adopt_proven),
		cmocka_unit_test(test_peer_silent),
		cmocka_unit_test(test_peer_fences),
		cmocka_unit_test(test_hold),
		cmocka_unit_test(test_thaw_with_renewal),
		cmocka_unit_test(test_thaw_without_renewal),
		cmocka_unit_test(test_thaw_standby),
		cmocka_unit_test(test_thaw_peer),
		cmocka_unit_test(test_wall_jump),
		cmocka_unit_test(test_wall_jump_fences),
		cmocka_unit_test(test_wall_drift),
		cmocka_unit_test(test_watchdog),
		cmocka_unit_test(test_watchdog_closes),
		cmocka_unit_test(test_watchdog_fits),
		cmocka_unit_test(test_dm_lease),
		cmocka_unit_test(test_dm_shorter_lease),
		cmocka_unit_test(test_dm_malformed),
		cmocka_unit_test(test_dm_orphan),
		cmocka_unit_test(test_dm_orphan_never_past_the_lease),
		cmocka_unit_test(test_dm_orphan_rescued),
		cmocka_unit_test(test_dm_standby),
		cmocka_unit_test(test_dm_joins),
		cmocka_unit_test(test_dm_exit),
		cmocka_unit_test(test_dm_leaves),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
