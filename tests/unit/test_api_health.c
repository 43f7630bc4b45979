/* The health checks against the table of situations (rest 4.5), and the finer rules around it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/health.h"
#include "common/core/err.h"

/* The rows name a usual member and then what is different. */
#pragma GCC diagnostic ignored "-Woverride-init"

#define LEADER                                                                                     \
	.cluster_present = true, .mem_role = PG_ROLE_PRIMARY, .mem_state = PG_STATE_RUNNING,       \
	.query_ok = true, .last_lsn = 1000
#define REPLICA                                                                                    \
	.cluster_present = true, .mem_role = PG_ROLE_REPLICA, .mem_state = PG_STATE_RUNNING,       \
	.query_ok = true, .in_recovery = true, .last_lsn = 1000, .received_lsn = 1000,             \
	.replayed_lsn = 1000, .latest_end_lsn = 1000, .max_lag_on_failover = 1048576
#define STREAMING .replication_state = "streaming"

static const struct {
	const char *what;
	struct health_facts f;
	bool noloadbalance;
	const char *codes; /* pri ldr sl rep ro syn asy quo ros roq hea rea */
} table[] = {
	{ "leader", { LEADER, .lease_valid = true }, false, "110010001111" },
	{ "leader, postgres down",
		{ .cluster_present = true,
			.mem_role = PG_ROLE_PRIMARY,
			.mem_state = PG_STATE_STOPPED,
			.lease_valid = true },
		false, "110010001101" },
	{ "leader in failsafe, C null",
		{ LEADER, .cluster_present = false, .lease_valid = true, .failsafe_active = true },
		false, "110010000011" },
	{ "async replica", { REPLICA, STREAMING }, false, "000110100011" },
	{ "sync standby", { REPLICA, STREAMING, .sync_standby = true }, false, "000111001011" },
	{ "quorum standby", { REPLICA, STREAMING, .quorum_standby = true }, false, "000110010111" },
	{ "noloadbalance", { REPLICA, STREAMING }, true, "000000000011" },
	{ "noloadbalance sync", { REPLICA, STREAMING, .sync_standby = true }, true,
		"000000000011" },
	{ "archive recovery", { REPLICA, .replication_state = "in archive recovery" }, false,
		"000110100010" },
	{ "replica starting", { REPLICA, STREAMING, .mem_state = PG_STATE_STARTING }, false,
		"000000000000" },
	{ "replica stopped",
		{ .cluster_present = true,
			.mem_role = PG_ROLE_REPLICA,
			.mem_state = PG_STATE_STOPPED },
		false, "000000000000" },
	{ "replica, query failed",
		{ .cluster_present = true,
			.mem_role = PG_ROLE_REPLICA,
			.mem_state = PG_STATE_RUNNING },
		false, "000000000000" },
	{ "replica, C null", { REPLICA, STREAMING, .cluster_present = false }, false,
		"000110000011" },
	{ "standby leader",
		{ REPLICA, STREAMING, .mem_role = PG_ROLE_STANDBY_LEADER, .standby_cluster = true,
			.lease_valid = true },
		false, "011010001111" },
	{ "replica of a standby cluster", { REPLICA, STREAMING, .standby_cluster = true }, false,
		"000110100011" },
	{ "paused, C null, primary", { LEADER, .cluster_present = false, .paused = true }, false,
		"110010000010" },
	{ "primary without lock", { LEADER }, false, "000000000010" },
};

static void test_table(void **state)
{
	static const char *const paths[] = { "/primary", "/leader", "/standby-leader", "/replica",
		"/read-only", "/sync", "/async", "/quorum", "/read-only-sync", "/read-only-quorum",
		"/health" };
	const struct health_query q = { 0 };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		struct health_facts f = table[i].f;
		json_auto_t *tags = json_pack("{s:b}", "noloadbalance", table[i].noloadbalance);
		char got[13] = "";
		f.filter_tags = tags;
		for (unsigned p = 0; p < ARRAY_LEN(paths); p++)
			got[p] = health_check(paths[p], &f, &q) == 200 ? '1' : '0';
		got[11] = health_readiness(&f, &q) == 200 ? '1' : '0';
		if (strcmp(got, table[i].codes) != 0)
			fail_msg("%s: %s, expected %s", table[i].what, got, table[i].codes);
	}
}

static void test_paths(void **state)
{
	static const struct {
		const char *path;
		unsigned leader, replica, sync;
	} rows[] = { { "/", 200, 503, 503 }, { "/master", 200, 503, 503 },
		{ "/read-write", 200, 503, 503 }, { "/myreplica", 503, 200, 200 },
		{ "/replica/x", 503, 200, 200 }, { "/standby_leader", 503, 503, 503 },
		{ "/foo", 503, 503, 503 }, { "/synchronous", 503, 503, 200 },
		{ "/asynchronous", 503, 200, 503 }, { "/sync/", 503, 503, 503 },
		{ "/read-only-synchronous", 200, 503, 200 }, { "/unhealthy", 200, 200, 200 },
		{ "/liveness", 503, 503, 503 }, { "/Primary", 503, 503, 503 } };
	struct health_facts leader = { LEADER, .lease_valid = true };
	struct health_facts replica = { REPLICA, STREAMING };
	struct health_facts sync = { REPLICA, STREAMING, .sync_standby = true };
	const struct health_query q = { 0 };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(health_check(rows[i].path, &leader, &q), rows[i].leader);
		assert_int_equal(health_check(rows[i].path, &replica, &q), rows[i].replica);
		assert_int_equal(health_check(rows[i].path, &sync, &q), rows[i].sync);
	}
	assert_true(health_leader_question("/"));
	assert_true(health_leader_question("/x-leader"));
	assert_false(health_leader_question("/replica"));
	assert_false(health_leader_question("/read-only"));
}

static void test_lag(void **state)
{
	struct health_facts f = { REPLICA, STREAMING, .last_lsn = 5000, .replayed_lsn = 3000 };
	(void)state;
	static const struct {
		bool given;
		int64_t lag;
		unsigned status;
	} rows[] = { { false, 0, 200 }, { true, 2000, 200 }, { true, 1999, 503 }, { true, 0, 503 },
		{ true, INT64_MAX, 200 }, { true, INT64_MIN, 503 }, { true, -1, 503 } };
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct health_query q = { .lag_given = rows[i].given, .lag = rows[i].lag };
		assert_int_equal(health_check("/replica", &f, &q), rows[i].status);
	}
	/* The receiver knows better than the store. */
	f.latest_end_lsn = 9000;
	struct health_query q = { .lag_given = true, .lag = 5999 };
	assert_int_equal(health_check("/replica", &f, &q), 503);
	q.lag = 6000;
	assert_int_equal(health_check("/replica", &f, &q), 200);
	/* Nothing known of the leader: not lagging. Also positions of a huge distance do not
	 * overflow. */
	f.latest_end_lsn = f.last_lsn = 0;
	q.lag = 0;
	assert_int_equal(health_check("/replica", &f, &q), 200);
	f.last_lsn = UINT64_MAX;
	q.lag = INT64_MAX;
	assert_int_equal(health_check("/replica", &f, &q), 503);
}

static void test_filters(void **state)
{
	json_auto_t *tags = json_pack("{s:s, s:i, s:b, s:f, s:f, s:n, s:[i, s], s:{s:b}}", "zone",
		"eu", "weight", 5, "clonefrom", 1, "whole", 1.0, "small", 5e-7, "nothing", "list",
		1, "Ab", "map", "X", 0);
	struct health_facts f = { REPLICA, STREAMING, .filter_tags = tags };
	struct health_facts leader = { LEADER, .lease_valid = true, .filter_tags = tags };
	static const struct {
		const char *name, *value;
		unsigned status;
	} rows[] = { { "zone", "eu", 200 }, { "zone", "EU", 503 }, { "weight", "5", 200 },
		{ "weight", "6", 503 }, { "clonefrom", "true", 200 }, { "clonefrom", "True", 503 },
		{ "whole", "1.0", 200 }, { "whole", "1", 503 }, { "small", "5e-07", 200 },
		{ "nothing", "none", 503 }, { "nothing", "", 503 }, { "list", "[1, 'ab']", 200 },
		{ "map", "{'x': false}", 200 }, { "absent", "x", 503 } };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct health_query q = { .tag_count = 1,
			.tags = { { rows[i].name, rows[i].value } } };
		assert_int_equal(health_check("/replica", &f, &q), rows[i].status);
		assert_int_equal(health_check("/health", &leader, &q), rows[i].status);
		assert_int_equal(health_check("/read-only", &leader, &q), rows[i].status);
		assert_int_equal(health_check("/primary", &leader, &q), 200);
	}
	struct health_query q = { .replication_state = "streaming" };
	assert_int_equal(health_check("/replica", &f, &q), 200);
	q.replication_state = "Streaming";
	assert_int_equal(health_check("/replica", &f, &q), 503);
}

static void test_liveness(void **state)
{
	struct health_facts f = { .now_ms = 40000,
		.next_cycle_ms = 10000,
		.ttl_ms = 30000,
		.mem_role = PG_ROLE_REPLICA };
	(void)state;
	assert_int_equal(health_liveness(&f), 200); /* 2 x ttl */
	f.mem_role = PG_ROLE_PRIMARY;
	assert_int_equal(health_liveness(&f), 200); /* postmaster not alive: still 2 x ttl */
	f.postmaster_alive = true;
	assert_int_equal(health_liveness(&f), 503);
	f.now_ms--;
	assert_int_equal(health_liveness(&f), 200);
	f.now_ms = 1000000;
	f.paused = true;
	assert_int_equal(health_liveness(&f), 200);
}

static void test_readiness(void **state)
{
	struct health_facts f = { REPLICA, STREAMING, .last_lsn = 3000000, .received_lsn = 2500000,
		.replayed_lsn = 100 };
	struct health_query q = { 0 };
	(void)state;
	assert_int_equal(health_readiness(&f, &q), 503);
	q.mode_write = true;
	assert_int_equal(health_readiness(&f, &q), 200);
	q.lag_given = true;
	q.lag = 499999;
	assert_int_equal(health_readiness(&f, &q), 503);
	q.lag = 500000;
	assert_int_equal(health_readiness(&f, &q), 200);
	f.cluster_present = false;
	f.latest_end_lsn = 0;
	assert_int_equal(health_readiness(&f, &q), 503);
	f.failsafe_active = true;
	assert_int_equal(health_readiness(&f, &q), 200);
}

static void test_words(void **state)
{
	struct health_facts f = { .mem_role = PG_ROLE_DEMOTED, .mem_state = PG_STATE_RUNNING };
	(void)state;
	assert_string_equal(health_state_word(&f), "unknown");
	f.not_asked = true;
	assert_string_equal(health_state_word(&f), "running");
	assert_int_equal(health_role(&f), PG_ROLE_DEMOTED);
	f.query_ok = true;
	assert_int_equal(health_role(&f), PG_ROLE_PRIMARY);
	f.in_recovery = true;
	assert_int_equal(health_role(&f), PG_ROLE_REPLICA);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_table),
		cmocka_unit_test(test_paths), cmocka_unit_test(test_lag),
		cmocka_unit_test(test_filters), cmocka_unit_test(test_liveness),
		cmocka_unit_test(test_readiness), cmocka_unit_test(test_words) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
