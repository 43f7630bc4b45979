/* guard_step, by tables (guard_rows.c): the lease, starts, standbys, promotions, pause, failsafe.
 */
#include "tests/unit/guard_rows.c"

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

static void test_kill_ordered(void **state)
{
	ROWS(SUP, LEADER, { 1000, GUARD_EV_FENCE_ORDER, GUARD_REFUSED, .gen = 2 },
		{ 1001, GUARD_EV_FENCE_ORDER, GUARD_FENCE, .gen = 1, .reason = "ordered" },
		{ 1002, GUARD_EV_FENCE_ORDER, GUARD_REFUSED, .gen = 1 },
		{ 1003, LEASE, GUARD_REFUSED, .a = 1000, .b = 0, .reason = "fence" },
		{ 1004, GUARD_EV_KILLED, 0, .gen = 1 }, { 1005, LEASE, HOLD, .a = 1005, .b = 0 });
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
		cmocka_unit_test(test_kill_ordered),
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
