/* worker/postgres/params: table A, what is ours, the computed set, comparison. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "worker/postgres/params.h"

static json_t *js(const char *text)
{
	json_error_t e;
	json_t *v = json_loads(text, JSON_DECODE_ANY, &e);
	if (v == NULL)
		fail_msg("%s: %s", text, e.text);
	return v;
}

static void test_table(void **state)
{
	(void)state;
	/* The rows of one name must not overlap: the first that fits would hide the other. */
	for (unsigned i = 0; i < param_table_count; i++) {
		const struct param_row *a = &param_table[i];
		assert_true(a->until == 0 || a->from < a->until);
		assert_true(a->min <= a->max);
		for (unsigned j = i + 1; j < param_table_count; j++) {
			const struct param_row *b = &param_table[j];
			if (strcmp(a->name, b->name) != 0)
				continue;
			if (!((a->until != 0 && a->until <= b->from) ||
				    (b->until != 0 && b->until <= a->from)))
				fail_msg("%s", a->name);
		}
	}
	assert_true(param_table_count > 430);
	assert_int_equal(param_recovery_table_count, 18);
	assert_true(params_is_recovery("Restore_Command"));
	assert_false(params_is_recovery("work_mem"));
}

static void test_check(void **state)
{
	(void)state;
	static const struct {
		const char *name, *value;
		int32_t version;
		bool recovery;
		enum param_verdict verdict;
		const char *text; /* NULL: not looked at */
		const char *note; /* part of it */
	} rows[] = {
		{ "work_mem", "\"64kB\"", 150000, false, PARAM_KEEP, "64kB", "" },
		{ "WORK_MEM", "\"1MB\"", 150000, false, PARAM_KEEP, "1MB", "" },
		{ "work_mem", "1", 150000, false, PARAM_KEEP, "64", "too low, increasing to 64kB" },
		{ "shared_buffers", "\"100TB\"", 150000, false, PARAM_KEEP, "1073741823",
			"too big, decreasing" },
		{ "work_mem", "\"64KB\"", 150000, false, PARAM_DROP, NULL,
			"Removing integer parameter=work_mem" },
		{ "fsync", "true", 150000, false, PARAM_KEEP, "True", "" },
		{ "fsync", "\"maybe\"", 150000, false, PARAM_DROP, NULL, "invalid value=maybe" },
		{ "fsync", "null", 150000, false, PARAM_DROP, NULL, "None" },
		{ "wal_level", "\"LOGICAL\"", 150000, false, PARAM_KEEP, "LOGICAL", "" },
		{ "wal_level", "\"hot_standby\"", 150000, false, PARAM_DROP, NULL, "enum" },
		{ "wal_level", "\"hot_standby\"", 90500, false, PARAM_KEEP, "hot_standby", "" },
		{ "archive_mode", "\"always\"", 150000, false, PARAM_KEEP, "always", "" },
		{ "archive_mode", "true", 150000, false, PARAM_KEEP, "True", "" },
		{ "archive_mode", "\"often\"", 150000, false, PARAM_DROP, NULL, "often" },
		{ "default_transaction_isolation", "\"repeatable read\"", 150000, false, PARAM_KEEP,
			NULL, "" },
		{ "ssl_max_protocol_version", "\"\"", 150000, false, PARAM_KEEP, "", "" },
		{ "ssl_min_protocol_version", "\"\"", 150000, false, PARAM_DROP, NULL, "" },
		{ "seq_page_cost", "1.5", 150000, false, PARAM_KEEP, "1.5", "" },
		{ "geqo_selection_bias", "1", 150000, false, PARAM_KEEP, "1.5", "too low" },
		{ "checkpoint_completion_target", "\"0.9\"", 150000, false, PARAM_KEEP, "0.9", "" },
		{ "max_wal_size", "\"1GB\"", 90500, false, PARAM_KEEP, "1GB", "" },
		{ "io_combine_limit", "64", 170000, false, PARAM_KEEP, "32", "too big" },
		{ "io_combine_limit", "64", 180000, false, PARAM_KEEP, "64", "" },
		{ "io_combine_limit", "64", 160000, false, PARAM_ASK, "64", "" },
		{ "allow_in_place_tablespaces", "true", 100021, false, PARAM_ASK, NULL, "" },
		{ "allow_in_place_tablespaces", "true", 100022, false, PARAM_KEEP, NULL, "" },
		{ "no_such_setting", "1", 150000, false, PARAM_ASK, "1", "" },
		{ "pg_stat_statements.max", "10", 150000, false, PARAM_KEEP, "10", "" },
		{ "archive_command", "null", 150000, false, PARAM_DROP, NULL, "" },
		{ "archive_command", "\"cp %p 'x'\"", 150000, false, PARAM_KEEP, "cp %p 'x'", "" },
		{ "restore_command", "\"x\"", 150000, false, PARAM_DROP, NULL, "" },
		{ "restore_command", "\"x\"", 150000, true, PARAM_KEEP, "x", "" },
		{ "recovery_target", "\"\"", 150000, true, PARAM_KEEP, "", "" },
		{ "recovery_target_action", "\"run\"", 150000, true, PARAM_DROP, NULL, "enum" },
		{ "recovery_min_apply_delay", "\"5min\"", 150000, true, PARAM_KEEP, "5min", "" },
		{ "standby_mode", "\"on\"", 150000, true, PARAM_ASK, NULL, "" },
		{ "track_activity_query_size", "\"1kB\"", 150000, false, PARAM_KEEP, "1kB", "" },
		{ "shared_preload_libraries", "[]", 150000, false, PARAM_KEEP, "[]", "" },
		{ "max_connections", "1e9", 150000, false, PARAM_KEEP, "262143", "too big" },
		{ "max_pred_locks_per_relation", "-2147483648", 150000, false, PARAM_KEEP,
			"-2147483648", "" },
	};
	AUTO(buf) text = BUF_INIT(4096);
	AUTO(buf) note = BUF_INIT(4096);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		json_auto_t *v = js(rows[i].value);
		enum param_verdict got = params_check(
			rows[i].name, v, rows[i].version, rows[i].recovery, &text, &note);
		if (got != rows[i].verdict)
			fail_msg("%s=%s: verdict %d, %s", rows[i].name, rows[i].value, got,
				buf_str(&note));
		if (rows[i].text != NULL)
			assert_string_equal(buf_str(&text), rows[i].text);
		if (strstr(buf_str(&note), rows[i].note) == NULL)
			fail_msg("%s=%s: note %s", rows[i].name, rows[i].value, buf_str(&note));
		if (rows[i].note[0] == '\0' && got == PARAM_KEEP)
			assert_string_equal(buf_str(&note), "");
	}
}

static void test_merge(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	json_auto_t *dynamic = js(
		"{\"MAX_connections\": \"200\", \"max_wal_senders\": 2, \"wal_level\": \"Logical\","
		"\"hot_standby\": \"off\", \"port\": 1, \"work_mem\": \"4MB\", \"wal_keep_size\": "
		"\"1GB\","
		"\"max_worker_processes\": \"8MB\", \"fsync\": true}");
	json_auto_t *local =
		js("{\"max_connections\": 5000, \"Work_Mem\": \"8MB\", \"jit\": \"off\"}");
	AUTO(buf) notes = BUF_INIT(4096);
	json_t *out;
	assert_int_equal(params_merge(dynamic, local, &out, &notes, &err), ERR_OK);
	json_auto_t *set = out;
	assert_int_equal(json_integer_value(params_get(set, "max_connections")), 200);
	assert_int_equal(json_integer_value(params_get(set, "max_wal_senders")), 10);
	assert_int_equal(json_integer_value(params_get(set, "max_worker_processes")), 8);
	assert_string_equal(json_string_value(params_get(set, "wal_level")), "Logical");
	assert_string_equal(json_string_value(params_get(set, "hot_standby")), "on");
	assert_string_equal(json_string_value(params_get(set, "wal_keep_size")), "1GB");
	assert_string_equal(json_string_value(params_get(set, "work_mem")), "8MB");
	assert_string_equal(json_string_value(params_get(set, "jit")), "off");
	assert_true(json_is_null(params_get(set, "port")));
	assert_non_null(strstr(buf_str(&notes),
		"postgresql parameter max_wal_senders=2 failed validation, defaulting to 10\n"));
	assert_non_null(strstr(buf_str(&notes), "postgresql parameter port=1 failed validation"));
	json_auto_t *bad = js("[1]");
	assert_int_equal(params_merge(NULL, bad, &out, &notes, &err), ERR_INVAL);
}

static void compute(const char *pg_text, struct params_env env, json_t **set, json_t **recovery)
{
	struct err err = ERR_INIT;
	AUTO(buf) notes = BUF_INIT(4096);
	json_auto_t *pg = js(pg_text);
	env.scope = "demo";
	env.config_dir = "/etc/pg";
	if (env.listen == NULL)
		env.listen = "0.0.0.0:5433";
	if (params_compute(pg, &env, set, recovery, &notes, &err) != ERR_OK)
		fail_msg("%s", err.text);
}

static const char *text(const json_t *set, const char *name)
{
	static char out[4096];
	AUTO(buf) b = BUF_INIT(4096);
	json_t *v = params_get(set, name);
	if (v == NULL)
		return "(none)";
	params_text(v, &b);
	assert_true(str_copy(out, sizeof(out), buf_str(&b)));
	return out;
}

static void test_compute(void **state)
{
	(void)state;
	json_t *s, *r;
	compute("{\"parameters\": {\"wal_level\": \"hot_standby\", \"max_connections\": 100, "
		"\"hba_file\": \"my.conf\","
		" \"synchronous_standby_names\": \"*\"}, \"recovery_conf\": {\"restore_command\": "
		"\"a\"},"
		" \"parameters_primary\": {\"work_mem\": \"1MB\", \"max_connections\": 7}}",
		(struct params_env){ .major = 15, .overlay = "parameters_primary" }, &s, &r);
	assert_string_equal(text(s, "cluster_name"), "demo");
	assert_string_equal(text(s, "listen_addresses"), "0.0.0.0");
	assert_string_equal(text(s, "port"), "5433");
	assert_string_equal(text(s, "wal_level"), "replica");
	assert_string_equal(text(s, "wal_keep_size"), "128MB");
	assert_string_equal(text(s, "wal_keep_segments"), "(none)");
	assert_string_equal(text(s, "hba_file"), "/etc/pg/my.conf");
	assert_string_equal(text(s, "synchronous_standby_names"), "*");
	assert_string_equal(text(s, "work_mem"), "1MB");
	assert_string_equal(text(s, "max_connections"), "100");
	assert_string_equal(text(r, "restore_command"), "a");
	json_decref(s);
	json_decref(r);
	/* Managed names replace the user's; recovery settings move and replace the map. */
	compute("{\"parameters\": {\"synchronous_standby_names\": \"x\", \"Restore_command\": "
		"\"b\", \"trigger_file\": \"t\","
		" \"wal_keep_segments\": 4}, \"recovery_conf\": {\"recovery_end_command\": \"a\"}}",
		(struct params_env){
			.major = 15, .sync_mode = true, .ssn = "a", .hot_standby_feedback = true },
		&s, &r);
	assert_string_equal(text(s, "synchronous_standby_names"), "a");
	assert_string_equal(text(s, "restore_command"), "(none)");
	assert_string_equal(text(s, "hot_standby_feedback"), "on");
	assert_string_equal(text(s, "wal_keep_size"), "64MB");
	assert_string_equal(text(r, "restore_command"), "b");
	assert_string_equal(text(r, "recovery_end_command"), "(none)");
	assert_string_equal(text(r, "promote_trigger_file"), "t");
	json_decref(s);
	json_decref(r);
	compute("{\"parameters\": {\"synchronous_standby_names\": \"x\"}}",
		(struct params_env){ .major = 15, .sync_mode = true }, &s, &r);
	assert_string_equal(text(s, "synchronous_standby_names"), "(none)");
	json_decref(s);
	json_decref(r);
	compute("{\"parameters\": {}}",
		(struct params_env){ .major = 12,
			.sync_mode = true,
			.sync_strict_primary = true,
			.listen = "[::1],127.0.0.1:5" },
		&s, &r);
	assert_string_equal(text(s, "synchronous_standby_names"),
		"__patroni_strict_sync_replica_placeholder__");
	assert_string_equal(text(s, "listen_addresses"), "::1,127.0.0.1");
	assert_string_equal(text(s, "port"), "5");
	assert_string_equal(text(s, "wal_keep_segments"), "8");
	json_decref(s);
	json_decref(r);
	compute("{\"parameters\": {\"shared_preload_libraries\": \"a, citus ,b\", "
		"\"max_connections\": 50,"
		" \"max_prepared_transactions\": 0}}",
		(struct params_env){ .major = 15, .citus = true }, &s, &r);
	assert_string_equal(text(s, "shared_preload_libraries"), "citus,a,b");
	assert_string_equal(text(s, "max_prepared_transactions"), "100");
	assert_string_equal(text(s, "wal_level"), "logical");
	assert_string_equal(text(s, "citus.local_hostname"), "localhost");
	json_decref(s);
	json_decref(r);
	json_auto_t *pg = js("{}");
	struct err err = ERR_INIT;
	AUTO(buf) notes = BUF_INIT(64);
	struct params_env env = { .major = 15, .scope = "s", .config_dir = "/", .listen = "h:x" };
	assert_int_equal(params_compute(pg, &env, &s, &r, &notes, &err), ERR_INVAL);
}

static void test_floor(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	json_auto_t *set =
		js("{\"max_connections\": 100, \"max_wal_senders\": \"10\", "
		   "\"max_worker_processes\": 8,"
		   " \"max_prepared_transactions\": 0, \"max_locks_per_transaction\": 64}");
	struct pg_control c = { .valid = true,
		.max_connections = 300,
		.max_wal_senders = 10,
		.max_worker_processes = 4,
		.max_prepared_xacts = 5,
		.max_locks_per_xact = 64 };
	json_t *d;
	assert_int_equal(params_floor(set, &c, 15, &d, &err), ERR_OK);
	json_auto_t *diff = d;
	assert_string_equal(text(set, "max_connections"), "300");
	assert_string_equal(text(set, "max_prepared_transactions"), "5");
	assert_string_equal(text(set, "max_worker_processes"), "8");
	assert_int_equal(json_object_size(diff), 2);
	json_t *row = json_object_get(diff, "max_connections");
	assert_string_equal(json_string_value(json_object_get(row, "old_value")), "300");
	assert_string_equal(json_string_value(json_object_get(row, "new_value")), "100");
}

static void test_compare(void **state)
{
	(void)state;
	assert_true(params_equal("bool", NULL, "on", "True"));
	assert_false(params_equal("bool", NULL, "on", "x"));
	assert_true(params_equal("enum", NULL, "remote_write", "REMOTE_WRITE"));
	assert_false(params_equal("string", NULL, "remote_write", "REMOTE_WRITE"));
	assert_true(params_equal("real", NULL, "1e-06", "0.000001"));
	assert_false(params_equal("integer", "MB", "6GB", "6GB"));
	assert_true(params_equal("integer", "16384kB", "64", " 0x400 MB "));
	assert_true(params_equal("integer", "2MB", "524288", "1TB"));
	assert_true(params_equal("integer", "8kB", "16384", "128MB"));
	static const struct {
		const char *value, *type, *unit, *text;
	} rows[] = { { "5", "integer", "ms", "5ms" }, { "4.2", "real", "ms", "4200us" },
		{ "on", "bool", NULL, "on" }, { "", "integer", "256MB", "" },
		{ "16384", "integer", "8kB", "128MB" }, { "1025", "integer", "kB", "1025kB" },
		{ "1024", "integer", "kB", "1MB" }, { "0", "integer", "kB", "0" },
		{ "7", "integer", NULL, "7" }, { "3600", "integer", "s", "1h" },
		{ "2.5", "real", "ms", "2500us" }, { "-1", "integer", "kB", "-1kB" } };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO(buf) out = BUF_INIT(64);
		params_pretty(rows[i].value, rows[i].type, rows[i].unit, &out);
		assert_string_equal(buf_str(&out), rows[i].text);
	}
	assert_int_equal(params_auto_wal_buffers(16384, 16777216, 8192), 512);
	assert_int_equal(params_auto_wal_buffers(16, 16777216, 8192), 8);
	assert_int_equal(params_auto_wal_buffers(1 << 20, 16777216, 8192), 2048);
}

static void test_text(void **state)
{
	(void)state;
	static const char *const rows[][2] = { { "1.0", "1.0" }, { "1e16", "1e+16" },
		{ "0.1", "0.1" }, { "1e-5", "1e-05" }, { "100000.5", "100000.5" },
		{ "0.0001", "0.0001" }, { "false", "False" }, { "null", "None" },
		{ "[1, \"a\", null]", "[1, 'a', None]" }, { "-3", "-3" } };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		json_auto_t *v = js(rows[i][0]);
		AUTO(buf) out = BUF_INIT(256);
		params_text(v, &out);
		assert_string_equal(buf_str(&out), rows[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_compute),
		cmocka_unit_test(test_floor),
		cmocka_unit_test(test_compare),
		cmocka_unit_test(test_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
