/* Request bodies: exact codes and texts (rest 8, 9, 10), and timestamps. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "api/timestamp.h"
#include "api/validate.h"
#include "common/ext/json.h"

/* 2026-01-01 00:00:00 UTC */
#define NOW_US 1767225600000000

#define NO_PARSE                                                                                   \
	"Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO "    \
	"8601"

static json_t *parse(const char *text)
{
	struct err err = ERR_INIT;
	json_t *v = json_read(text, strlen(text), &err);
	assert_non_null(v);
	return v;
}

static const char three[] =
	"{\"leader\": \"a\", \"sync\": {\"leader\": \"a\", \"voters\": [\"B\"]}, \"members\": ["
	"{\"name\": \"a\", \"data\": {\"api_url\": \"u\"}}, {\"name\": \"b\", \"data\": "
	"{\"api_url\": \"u\"}}, "
	"{\"name\": \"c\", \"data\": {\"api_url\": \"u\"}}]}";
static const char alone[] = "{\"leader\": \"a\", \"sync\": null, \"members\": [{\"name\": \"a\", "
			    "\"data\": {\"api_url\": \"u\"}}, "
			    "{\"name\": \"b\", \"data\": {}}]}";

static void test_switchover(void **state)
{
	static const struct {
		const char *body;
		bool failover, paused;
		enum sync_mode sync;
		const char *cluster;
		unsigned status;
		const char *text; /* forward on success */
	} rows[] = {
		{ "{\"leader\":\"a\"}", true, false, SYNC_OFF, three, 400,
			"Failover could be performed only to a specific candidate" },
		{ "{\"candidate\":\"b\"}", false, false, SYNC_OFF, three, 400,
			"Switchover could be performed only from a specific leader" },
		{ "{\"candidate\":\"b\",\"scheduled_at\":\"x\"}", true, false, SYNC_OFF, three, 400,
			"Failover can't be scheduled" },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"x\"}", false, true, SYNC_OFF, three, 400,
			"Can't schedule switchover in the paused state" },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"x\"}", false, false, SYNC_OFF, three, 422,
			NO_PARSE },
		{ "{\"leader\":\"a\",\"scheduled_at\":5}", false, false, SYNC_OFF, three, 422,
			NO_PARSE },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"2026-02-01T10:00\"}", false, false,
			SYNC_OFF, three, 400,
			"Timezone information is mandatory for the scheduled switchover" },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"2025-02-01T10:00Z\"}", false, false,
			SYNC_OFF, three, 422, "Cannot schedule switchover in the past" },
		{ "{\"leader\":\"a\"}", false, true, SYNC_OFF, three, 400,
			"Switchover is possible only to a specific candidate in a paused state" },
		{ "{\"leader\":\"a\",\"candidate\":\"a\"}", false, false, SYNC_OFF, three, 400,
			"Switchover target and source are the same" },
		{ "{\"leader\":\"a\",\"candidate\":\"a\",\"scheduled_at\":\"2026-02-01T10:00Z\"}",
			false, false, SYNC_OFF, three, 400,
			"Switchover target and source are the same" },
		{ "{\"leader\":\"z\",\"candidate\":\"b\"}", false, false, SYNC_OFF, three, 412,
			"leader name does not match" },
		{ "{\"leader\":\"a\",\"candidate\":\"c\"}", false, false, SYNC_PRIORITY, three, 412,
			"candidate name does not match with sync_standby" },
		{ "{\"leader\":\"a\",\"candidate\":\"c\"}", false, false, SYNC_QUORUM, three, 0,
			"{\"leader\":\"a\",\"candidate\":\"c\"}" },
		{ "{\"candidate\":\"c\"}", true, false, SYNC_PRIORITY, three, 0,
			"{\"candidate\":\"c\"}" },
		{ "{\"leader\":\"a\",\"candidate\":\"c\"}", true, false, SYNC_PRIORITY, three, 412,
			"candidate name does not match with sync_standby" },
		{ "{\"leader\":\"a\",\"candidate\":\"x\"}", false, false, SYNC_OFF, three, 412,
			"candidate does not exists" },
		{ "{\"leader\":\"a\"}", false, false, SYNC_PRIORITY, alone, 412,
			"switchover is not possible: can not find sync_standby" },
		{ "{\"leader\":\"a\"}", false, false, SYNC_OFF, alone, 412,
			"switchover is not possible: cluster does not have members except leader" },
		{ "{\"leader\":\"a\"}", false, false, SYNC_OFF, three, 0, "{\"leader\":\"a\"}" },
		{ "{\"leader\":\"a\",\"member\":\"b\",\"candidate\":null,\"x\":1}", false, false,
			SYNC_PRIORITY, three, 0, "{\"leader\":\"a\",\"candidate\":\"b\"}" },
		{ "{\"leader\":\"a\",\"scheduled_at\":\"2026-02-01 10:00:01.5+0230\"}", false,
			false, SYNC_OFF, alone, 0,
			"{\"leader\":\"a\",\"scheduled_at\":\"2026-02-01T10:00:01.500000+02:"
			"30\"}" },
		{ "{\"leader\":[1]}", false, false, SYNC_OFF, three, 400,
			"leader must be the name of a member, a string" },
	};
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		json_auto_t *body = parse(rows[i].body);
		json_auto_t *cluster = parse(rows[i].cluster);
		struct validate_env env = { NOW_US, rows[i].paused, rows[i].sync, cluster };
		struct verdict v = { 0 };
		validate_switchover(body, rows[i].failover, &env, &v);
		AUTO_FREE char *forward = v.forward != NULL ? json_compact(v.forward) : NULL;
		json_decref(v.forward);
		if (v.status != rows[i].status ||
			strcmp(v.status != 0 ? v.text : forward, rows[i].text) != 0)
			fail_msg("row %u: %u %s, expected %u %s", i, v.status,
				v.status != 0 ? v.text : forward, rows[i].status, rows[i].text);
	}
}

static void test_restart(void **state)
{
	static const struct {
		const char *body;
		bool paused;
		unsigned status;
		const char *text;
	} rows[] = {
		{ "{}", false, 0, "{}" },
		{ "{\"schedule\":\"x\"}", true, 500, "Can't schedule restart in the paused state" },
		{ "{\"role\":\"x\",\"schedule\":\"y\"}", false, 400,
			"PostgreSQL role should be either primary, standby_leader, or replica" },
		{ "{\"schedule\":\"y\",\"role\":\"x\"}", false, 422, NO_PARSE },
		{ "{\"schedule\":\"2026-02-01T10:00\"}", false, 400,
			"Timezone information is mandatory for the scheduled restart" },
		{ "{\"schedule\":\"2025-02-01T10:00+00\"}", false, 422,
			"Cannot schedule restart in the past" },
		{ "{\"role\":\"master\"}", false, 400,
			"PostgreSQL role should be either primary, standby_leader, or replica" },
		{ "{\"postgres_version\":\"9.6\"}", false, 400,
			"Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 9.6" },
		{ "{\"postgres_version\":\"15\"}", false, 400,
			"Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 15" },
		{ "{\"postgres_version\":\"a.b\"}", false, 400, "Invalid PostgreSQL version: a.b" },
		{ "{\"postgres_version\":\"x\"}", false, 400, "Invalid PostgreSQL version: x" },
		{ "{\"postgres_version\":\"1.2.3.4\"}", false, 400,
			"Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: 1.2.3.4" },
		{ "{\"postgres_version\":\"9.6.24\"}", false, 0,
			"{\"postgres_version\":\"9.6.24\"}" },
		{ "{\"timeout\":0}", false, 400, "Timeout should be a positive number of seconds" },
		{ "{\"timeout\":\"400ms\"}", false, 400,
			"Timeout should be a positive number of seconds" },
		{ "{\"timeout\":\"x\"}", false, 400,
			"Timeout should be a positive number of seconds" },
		{ "{\"timeout\":\"2min\",\"restart_pending\":false}", false, 0,
			"{\"timeout\":120,\"restart_pending\":false}" },
		{ "{\"force\":true}", false, 400,
			"Unknown filter for the scheduled restart: force" },
		{ "{\"schedule\":\"2026-02-01T10:00Z\",\"role\":\"replica\"}", false, 0,
			"{\"schedule\":\"2026-02-01T10:00:00+00:00\",\"role\":\"replica\"}" },
	};
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		json_auto_t *body = parse(rows[i].body);
		struct validate_env env = { NOW_US, rows[i].paused, SYNC_OFF, NULL };
		struct verdict v = { 0 };
		validate_restart(body, &env, &v);
		AUTO_FREE char *forward = v.forward != NULL ? json_compact(v.forward) : NULL;
		json_decref(v.forward);
		if (v.status != rows[i].status ||
			strcmp(v.status != 0 ? v.text : forward, rows[i].text) != 0)
			fail_msg("row %u: %u %s, expected %u %s", i, v.status,
				v.status != 0 ? v.text : forward, rows[i].status, rows[i].text);
	}
}

static void test_object(void **state)
{
	static const struct {
		const char *body;
		bool has_length, optional;
		unsigned status;
	} rows[] = { { "{\"a\":1}", true, false, 0 }, { "{\"a\":1}", false, false, 411 },
		{ "{}", true, false, 400 }, { "{}", true, true, 0 }, { "", true, true, 0 },
		{ "", true, false, 400 }, { "", false, true, 0 }, { "[1]", true, true, 400 },
		{ "{", true, true, 400 }, { "{} x", true, true, 400 } };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		json_t *out = NULL;
		struct verdict v = { 0 };
		bool ok = validate_object(rows[i].body, strlen(rows[i].body), rows[i].has_length,
			rows[i].optional, &out, &v);
		assert_int_equal(ok, rows[i].status == 0);
		assert_int_equal(v.status, rows[i].status);
		assert_true(ok || v.page);
		json_decref(out);
	}
}

static void test_others(void **state)
{
	struct verdict v = { 0 };
	(void)state;
	json_auto_t *a = parse("{\"force\":\"on\",\"from-leader\":true}");
	validate_reinitialize(a, &v);
	assert_true(json_is_true(json_object_get(v.forward, "force")));
	assert_true(json_is_true(json_object_get(v.forward, "from_leader")));
	json_decref(v.forward);
	v = (struct verdict){ 0 };
	json_auto_t *b =
		parse("{\"name\":\"a\",\"conn_url\":\"b\",\"api_url\":\"c\",\"slots\":{\"s\":1}}");
	validate_failsafe(b, &v);
	assert_int_equal(v.status, 0);
	assert_int_equal(json_object_size(v.forward), 4);
	json_decref(v.forward);
	v = (struct verdict){ 0 };
	json_object_del(b, "conn_url");
	validate_failsafe(b, &v);
	assert_int_equal(v.status, 400);
	assert_string_equal(v.text, "conn_url is required and must be a string");
}

static void test_timestamp(void **state)
{
	static const struct {
		const char *text;
		bool ok, zone;
		int64_t wall_us;
		const char *iso;
	} rows[] = {
		{ "1970-01-01T00:00Z", true, true, 0, "1970-01-01T00:00:00+00:00" },
		{ "2024-02-29 12:30:45.25-05:30", true, true, 1709229645250000,
			"2024-02-29T12:30:45.250000-05:30" },
		{ "2024-08-28 19:39:26.352526+00:00", true, true, 1724873966352526,
			"2024-08-28T19:39:26.352526+00:00" },
		{ "2024-08-28T19:39", true, false, 1724873940000000, "2024-08-28T19:39:00+00:00" },
		{ "2023-02-29T00:00Z", false, false, 0, "" },
		{ "2023-13-01T00:00Z", false, false, 0, "" },
		{ "2023-01-01T24:00Z", false, false, 0, "" },
		{ "2023-01-01T10:00+1", false, false, 0, "" },
		{ "2023-01-01T10:00Zx", false, false, 0, "" },
		{ "2023-01-01", false, false, 0, "" },
		{ "", false, false, 0, "" },
	};
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct timestamp t = { 0 };
		char iso[40];
		assert_int_equal(timestamp_parse(rows[i].text, &t), rows[i].ok);
		if (!rows[i].ok)
			continue;
		assert_int_equal(t.wall_us, rows[i].wall_us);
		assert_int_equal(t.has_zone, rows[i].zone);
		timestamp_iso(&t, iso);
		assert_string_equal(iso, rows[i].iso);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_switchover),
		cmocka_unit_test(test_restart), cmocka_unit_test(test_object),
		cmocka_unit_test(test_others), cmocka_unit_test(test_timestamp) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
