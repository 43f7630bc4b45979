/* guard_step, by tables (guard_rows.c): adoption, the two enforcers, clocks, the watchdog. */
#include "tests/unit/guard_rows.c"

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

/* The supervisor reads an answer when it is awake: it counts from when it was given, and never
 * takes a later one back. */
static void test_peer_answer_that_waited(void **state)
{
	(void)state;
	struct guard g;
	struct guard_event peer = { .kind = GUARD_EV_PEER_NEW };
	struct guard_event seen = { .kind = GUARD_EV_PEER_SEEN, .peer_at_ms = T0 + 1000 };
	struct guard_event older = { .kind = GUARD_EV_PEER_SEEN, .peer_at_ms = T0 + 500 };
	struct guard_event later = { .kind = GUARD_EV_PEER_SEEN, .peer_at_ms = T0 + 99999 };
	struct guard_event tick = { .kind = GUARD_EV_TICK };
	guard_init(&g, SUP, T0);
	guard_step(&g, &peer, T0);
	for (int64_t at = 100; at < 7000; at += 100) {
		if (at == 2000)
			guard_step(&g, &seen, T0 + at);
		if (at == 4000)
			guard_step(&g, &older, T0 + at);
		assert_false(guard_step(&g, &tick, T0 + at).flags & GUARD_REPLACE_PEER);
	}
	struct guard copy = g;
	assert_true(guard_step(&g, &tick, T0 + 7000).flags & GUARD_REPLACE_PEER);
	guard_step(&copy, &later, T0 + 6900); /* a time to come is now */
	for (int64_t at = 6900; at < 12900; at += 100)
		assert_false(guard_step(&copy, &tick, T0 + at).flags & GUARD_REPLACE_PEER);
	assert_true(guard_step(&copy, &tick, T0 + 12900).flags & GUARD_REPLACE_PEER);
}

/* At multiples of the interval, a little earlier when we are awake anyhow; never later than one
 * interval. */
static void test_peer_told_together_with_the_rest(void **state)
{
	(void)state;
	struct guard g;
	struct guard_event peer = { .kind = GUARD_EV_PEER_NEW };
	struct guard_event tick = { .kind = GUARD_EV_TICK };
	int64_t interval = guard_peer_interval_ms(GUARD_TTL_DEFAULT_MS);
	int64_t start = 10 * interval + 700, last = start;
	unsigned sent = 0;
	guard_init(&g, SUP, start);
	guard_step(&g, &peer, start);
	for (int64_t at = start; at < start + 10 * interval; at++) {
		struct guard_event seen = { .kind = GUARD_EV_PEER_SEEN };
		guard_step(&g, &seen, at);
		struct guard_actions a = guard_step(&g, &tick, at);
		if (!(a.flags & GUARD_SEND_STATE))
			continue;
		assert_true(at - last <= interval);
		assert_int_equal((at + GUARD_PEER_EARLY_MS) % interval, 0);
		assert_int_equal(a.wake_at_ms % interval, 0); /* asked for: the multiple itself */
		last = at;
		sent++;
	}
	assert_int_equal(sent, 10);
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

/* Opening starts the device: it must bite before the lease has passed, as after a keepalive. */
static void test_watchdog_may_open(void **state)
{
	(void)state;
	struct guard g = { .lease_until_ms = T0 + 25000 };
	assert_true(guard_watchdog_may_open(&g, 25000, T0));
	assert_false(guard_watchdog_may_open(&g, 25000, T0 + 1));
	g.lease_until_ms = 0;
	assert_false(guard_watchdog_may_open(&g, 25000, T0));
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
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_rescued),
		cmocka_unit_test(test_adopt_proven),
		cmocka_unit_test(test_peer_silent),
		cmocka_unit_test(test_peer_fences),
		cmocka_unit_test(test_hold),
		cmocka_unit_test(test_peer_answer_that_waited),
		cmocka_unit_test(test_peer_told_together_with_the_rest),
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
		cmocka_unit_test(test_watchdog_may_open),
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
