/* Keys and values of the store: what the reference writes, legacy forms, and garbage in every key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/buf.h"
#include "common/core/rng.h"
#include "common/dcs/decode.h"

static struct cluster *one(const char *key, const char *value)
{
	struct dcs_kv kv = { .key = (char *)key,
		.value = (char *)value,
		.value_len = strlen(value),
		.version = 7,
		.session = "42" };
	struct cluster *c = decode_cluster(&kv, 1, 9, 1000);
	assert_non_null(c);
	return c;
}

static void test_empty(void **state)
{
	(void)state;
	struct cluster *c = decode_cluster(NULL, 0, 9, 1000);
	assert_non_null(c);
	assert_true(cluster_unlocked(c));
	assert_false(c->init_present || c->config_present || c->status_present ||
		     c->failover_present || c->sync_key_exists || c->history_present ||
		     c->failsafe_present);
	assert_int_equal(c->revision, 9);
	cluster_free(c);
}

static void test_member(void **state)
{
	(void)state;
	struct cluster *c =
		one("members/pg1", "{\"conn_url\":\"postgres://10.0.0.1:5432/"
				   "postgres\",\"api_url\":\"http://10.0.0.1:8008/patroni\","
				   "\"state\":\"running\",\"role\":\"master\",\"version\":\"4.1."
				   "4\",\"xlog_location\":83886408,"
				   "\"replay_lsn\":\"83886400\",\"timeline\":3,\"checkpoint_after_"
				   "promote\":false,\"new\":{\"x\":[]},"
				   "\"tags\":{\"nofailover\":true,\"failover_priority\":2,"
				   "\"replicatefrom\":\"pg2\"}}");
	assert_int_equal(c->member_count, 1);
	const struct member *m = &c->members[0];
	assert_string_equal(m->name, "pg1");
	assert_string_equal(m->role, "primary");
	assert_string_equal(m->session, "42");
	assert_int_equal(m->version_no, 7);
	assert_int_equal(m->xlog_location, 83886408);
	assert_int_equal(m->replay_lsn, 83886400);
	assert_true(
		m->checkpoint_pending && m->tags.nofailover && !m->is_pgregent && m->is_patroni);
	assert_int_equal(m->tags.failover_priority, 0);
	assert_string_equal(m->tags.replicatefrom, "pg2");
	cluster_free(c);

	c = one("members/old",
		"postgres://10.0.0.1:5432/postgres?application_name=http://10.0.0.1:8008/patroni");
	assert_string_equal(c->members[0].conn_url, "postgres://10.0.0.1:5432/postgres");
	assert_string_equal(c->members[0].api_url, "http://10.0.0.1:8008/patroni");
	cluster_free(c);

	static const char *const broken[] = { "", "{", "[]", "1", "null", "\"x\"",
		"{\"state\":1,\"tags\":[1]}", "{\"xlog_location\":-5,\"timeline\":\"x\"}",
		"{\"xlog_location\":1e300}", "{\"timeline\":-1e300,\"replay_lsn\":[]}" };
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		c = one("members/pg1", broken[i]);
		assert_int_equal(c->member_count, 1);
		assert_string_equal(c->members[0].name, "pg1");
		assert_int_equal(c->members[0].tags.failover_priority, 1);
		assert_false(c->members[0].is_patroni);
		cluster_free(c);
	}
	c = one("members/a/b", "{}");
	assert_int_equal(c->member_count, 0);
	cluster_free(c);
}

static void test_leader(void **state)
{
	(void)state;
	struct cluster *c = one("leader", "pg1");
	assert_true(c->leader_present);
	assert_string_equal(c->leader, "pg1");
	assert_string_equal(c->leader_session, "42");
	assert_int_equal(c->leader_version, 7);
	cluster_free(c);
	/* A name that no member can have still means that the lock is taken. */
	char longer[4 * LIMIT_NAME];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	c = one("leader", longer);
	assert_false(cluster_unlocked(c));
	cluster_free(c);
	c = one("leader", "");
	assert_true(c->leader_present && cluster_unlocked(c));
	cluster_free(c);
}

static void test_status(void **state)
{
	(void)state;
	struct cluster *c = one("status", "{\"optime\":83886408,\"slots\":{\"a\":1,\"b\":\"2\"},"
					  "\"retain_slots\":[\"a\",5,\"c\"]}");
	assert_int_equal(c->last_lsn, 83886408);
	assert_int_equal(c->slot_count, 2);
	assert_int_equal(c->retain_count, 2);
	cluster_free(c);
	c = one("status", "83886408");
	assert_int_equal(c->last_lsn, 83886408);
	cluster_free(c);
	c = one("status",
		"{\"optime\":5,\"slots\":\"{\\\"a\\\":1}\",\"retain_slots\":\"[\\\"a\\\"]\"}");
	assert_int_equal(c->slot_count, 1);
	assert_int_equal(c->retain_count, 1);
	cluster_free(c);
	c = one("status", "{\"optime\":{},\"slots\":[1],\"retain_slots\":{\"a\":1}}");
	assert_true(c->last_lsn == 0 && c->slot_count == 0 && c->retain_count == 0);
	cluster_free(c);
	c = one("optime/leader", "99");
	assert_int_equal(c->last_lsn, 99);
	cluster_free(c);
	struct dcs_kv both[] = { { .key = "optime/leader", .value = "99", .value_len = 2 },
		{ .key = "status", .value = "{\"optime\":5}", .value_len = 12 } };
	c = decode_cluster(both, 2, 1, 1);
	assert_int_equal(c->last_lsn, 5);
	cluster_free(c);
}

static void test_failover(void **state)
{
	(void)state;
	static const struct {
		const char *value, *leader, *candidate;
		bool present, scheduled, bad;
	} rows[] = {
		{ "{}", "", "", false, false, false },
		{ "", "", "", false, false, false },
		{ "[]", "", "", false, false, false },
		{ "a:b", "a", "b", true, false, false },
		{ ":b", "", "b", true, false, false },
		{ "{\"leader\":\"a\",\"member\":\"b\"}", "a", "b", true, false, false },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"2026-01-01T10:00:00+02:00\"}", "a", "",
			true, true, false },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"2026-01-01T10:00:00\"}", "a", "", true,
			true, true },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"soon\"}", "a", "", true, true, true },
		{ "{\"leader\":\"a\",\"scheduled_at\":5}", "a", "", true, true, true },
		{ "{\"leader\":5,\"member\":[]}", "", "", false, false, false },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cluster *c = one("failover", rows[i].value);
		assert_true(c->failover_key_exists);
		assert_int_equal(c->failover_version, 7);
		assert_string_equal(c->failover_leader, rows[i].leader);
		assert_string_equal(c->failover_candidate, rows[i].candidate);
		assert_int_equal(c->failover_present, rows[i].present);
		assert_int_equal(c->failover_scheduled, rows[i].scheduled);
		assert_int_equal(c->failover_schedule_bad, rows[i].bad);
		cluster_free(c);
	}
	int64_t us = 0;
	bool no_zone = false;
	assert_true(decode_time("1970-01-01T02:00:01.5+02:00", &us, &no_zone));
	assert_int_equal(us, 1500000);
}

static void test_sync(void **state)
{
	(void)state;
	struct cluster *c =
		one("sync", "{\"leader\":\"pg1\",\"quorum\":1,\"sync_standby\":\"pg3,pg2\"}");
	assert_string_equal(c->sync_leader, "pg1");
	assert_int_equal(c->sync_quorum, 1);
	assert_int_equal(c->sync_voter_count, 2);
	assert_string_equal(c->sync_voters[0], "pg2");
	cluster_free(c);
	static const char *const empty[] = { "", "{}", "[]", "x",
		"{\"leader\":null,\"sync_standby\":\"a\"}", "{\"leader\":5}",
		"{\"sync_standby\":\"a\"}" };
	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
		c = one("sync", empty[i]);
		assert_true(c->sync_key_exists && c->sync_leader[0] == '\0' &&
			    c->sync_voter_count == 0);
		assert_int_equal(c->sync_version, 7); /* kept for compare-and-swap */
		cluster_free(c);
	}
	const char voters[2][LIMIT_NAME] = { "pg2", "pg3" };
	char *text = encode_sync("pg1", 1, voters, 2);
	assert_string_equal(text, "{\"leader\":\"pg1\",\"quorum\":1,\"sync_standby\":\"pg2,pg3\"}");
	free(text);
}

/* What is too long to be kept is refused, never shortened: fewer voters or members to ask would be
 * a weaker promise. */
static void test_lists_over_the_limits(void **state)
{
	(void)state;
	AUTO(buf) text = BUF_INIT(2 * LIMIT_DCS_VALUE);
	AUTO(buf) map = BUF_INIT(1 << 20);
	for (int i = 0; i <= LIMIT_MEMBERS; i++) {
		buf_addf(&text, "%sm%03d",
			i > 0 ? "," : "{\"leader\":\"l\",\"quorum\":2,\"sync_standby\":\"", i);
		buf_addf(&map, "%s\"m%03d\":\"http://127.0.0.1:1/patroni\"", i > 0 ? "," : "{", i);
	}
	buf_adds(&text, "\"}");
	buf_adds(&map, "}");
	struct cluster *c = one("sync", buf_str(&text));
	assert_string_equal(c->sync_leader, "l");
	assert_int_equal(c->sync_voter_count, 0);
	assert_true(c->sync_quorum >= LIMIT_MEMBERS);
	cluster_free(c);
	c = one("failsafe", buf_str(&map));
	assert_false(c->failsafe_present);
	assert_int_equal(c->failsafe_count, 0);
	cluster_free(c);
	char name[LIMIT_NAME + 1];
	memset(name, 'n', LIMIT_NAME);
	name[LIMIT_NAME] = '\0';
	buf_reset(&text);
	buf_addf(&text, "{\"leader\":\"l\",\"quorum\":1,\"sync_standby\":\"a,%s,b\"}", name);
	c = one("sync", buf_str(&text));
	assert_int_equal(c->sync_voter_count, 0);
	assert_true(c->sync_quorum >= LIMIT_MEMBERS);
	cluster_free(c);
	buf_reset(&text);
	buf_addf(&text, "{\"a\":\"http://127.0.0.1:1/patroni\",\"%s\":\"x\"}", name);
	c = one("failsafe", buf_str(&text));
	assert_false(c->failsafe_present);
	cluster_free(c);
	c = one("sync", "{\"leader\":\"l\",\"quorum\":1000000,\"sync_standby\":\"a,b\"}");
	assert_int_equal(c->sync_voter_count, 2);
	assert_true(c->sync_quorum >= LIMIT_MEMBERS);
	cluster_free(c);
	buf_reset(&text);
	for (unsigned i = 0; i <= LIMIT_DCS_VALUE; i++)
		buf_adds(&text, "x");
	c = one("sync", buf_str(&text));
	assert_true(c->sync_key_exists && c->sync_version == 7);
	cluster_free(c);
}

static void test_history(void **state)
{
	(void)state;
	struct cluster *c =
		one("history", "[[1,67108960,\"no recovery target specified\","
			       "\"2026-01-01T10:00:00.123456+00:00\",\"pg2\"],[2,67109000,\"x\"]]");
	assert_true(c->history_valid);
	assert_int_equal(c->history_count, 2);
	assert_string_equal(c->history[0].new_leader, "pg2");
	assert_int_equal(cluster_timeline(c), 3);
	cluster_free(c);
	c = one("history", "[]");
	assert_int_equal(cluster_timeline(c), 1);
	cluster_free(c);
	static const char *const broken[] = { "", "{}", "[1]", "[[]]", "[[\"1\",2]]", "[[1]]",
		"x" };
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		c = one("history", broken[i]);
		assert_int_equal(cluster_timeline(c), 0);
		cluster_free(c);
	}
}

static void test_config_and_failsafe(void **state)
{
	(void)state;
	struct cluster *c = one("config", "{\"ttl\": 20}");
	assert_true(c->config_valid && c->config_version == 7);
	cluster_free(c);
	c = one("config", "{\"ttl\": 20");
	assert_true(c->config_present && !c->config_valid && c->config_version == 0);
	cluster_free(c);
	c = one("failsafe", "{\"pg1\":\"http://10.0.0.1:8008/patroni\",\"pg2\":5}");
	assert_int_equal(c->failsafe_count, 2);
	cluster_free(c);
	c = one("failsafe", "[\"pg1\"]");
	assert_false(c->failsafe_present);
	cluster_free(c);
}

static void test_same(void **state)
{
	(void)state;
	assert_true(decode_same("{\"a\":1,\"b\":[1,\"x\"]}", "{\"b\":[1,\"x\"],\"a\":\"1\"}"));
	assert_false(decode_same("{\"b\":[1,\"x\"]}", "{\"b\":[\"1\",\"x\"]}"));
	assert_false(decode_same("{\"a\":1}", "{\"a\":1,\"b\":null}"));
	assert_false(decode_same("{\"a\":1}", "{\"a\":2}"));
	assert_false(decode_same(NULL, "{}"));
}

static const char *const keys[] = { "leader", "initialize", "config", "status", "optime/leader",
	"failover", "sync", "history", "failsafe", "members/pg1", "members/", "members/a/b", "",
	"/", "unknown" };

/* Garbage, truncated, nested and huge values in every key of the scope: no crash, and the others
 * stay readable. */
static void test_garbage(void **state)
{
	(void)state;
	static const char good[] =
		"{\"leader\":\"a\",\"optime\":5,\"slots\":{\"s\":1},\"sync_standby\":\"a,b\","
		"\"scheduled_at\":\"2026-01-01T10:00:00+00:00\",\"tags\":{\"nosync\":\"off\"}}";
	size_t huge_len = LIMIT_DCS_VALUE + 10;
	char *huge = malloc(huge_len + 1);
	struct rng r;
	rng_seed(&r, 4711);
	for (unsigned n = 0; n < 4000; n++) {
		const char *key = keys[rng_below(&r, sizeof(keys) / sizeof(keys[0]))];
		char value[sizeof(good)];
		memcpy(value, good, sizeof(good));
		size_t len = rng_below(&r, sizeof(good));
		value[len] = '\0';
		for (unsigned k = 0; len > 0 && k < n % 5; k++)
			value[rng_below(&r, len)] = (char)rng_below(&r, 256);
		struct dcs_kv kvs[] = {
			{ .key = (char *)key, .value = value, .value_len = len, .version = 1 },
			{ .key = "members/ok", .value = "{\"state\":\"running\"}", .value_len = 19 }
		};
		struct cluster *c = decode_cluster(kvs, 2, 1, 1);
		assert_non_null(cluster_member_peek(c, "ok"));
		struct cluster *copy = cluster_clone(c);
		cluster_free(c);
		cluster_free(copy);
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		static const char fills[] = "[{\"1x";
		for (size_t k = 0; k < sizeof(fills) - 1; k++) {
			memset(huge, fills[k], huge_len);
			huge[huge_len] = '\0';
			struct dcs_kv kv = {
				.key = (char *)keys[i], .value = huge, .value_len = huge_len
			};
			cluster_free(decode_cluster(&kv, 1, 1, 1));
			huge[3000] = '\0';
			kv.value_len = 3000;
			cluster_free(decode_cluster(&kv, 1, 1, 1));
		}
	}
	free(huge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_member),
		cmocka_unit_test(test_leader),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_failover),
		cmocka_unit_test(test_sync),
		cmocka_unit_test(test_lists_over_the_limits),
		cmocka_unit_test(test_history),
		cmocka_unit_test(test_config_and_failsafe),
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_garbage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
