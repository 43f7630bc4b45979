/* Routes, query strings, the guard, settings, metrics, cipher words. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <cmocka.h>

#include "api/auth.h"
#include "api/documents.h"
#include "api/metrics.h"
#include "api/routes.h"
#include "api/tls.h"
#include "common/core/str.h"

static void test_routes(void **state)
{
	static const struct {
		const char *verb, *path;
		enum route_kind kind;
	} rows[] = { { "GET", "/", ROUTE_HEALTH }, { "GET", "/config", ROUTE_CONFIG },
		{ "GET", "/config/x", ROUTE_CONFIG }, { "GET", "/configx", ROUTE_HEALTH },
		{ "GET", "/Config", ROUTE_HEALTH }, { "HEAD", "/liveness", ROUTE_HEALTH },
		{ "OPTIONS", "/patroni", ROUTE_HEALTH }, { "GET", "/liveness", ROUTE_LIVENESS },
		{ "POST", "/", ROUTE_UNSUPPORTED }, { "DELETE", "/config", ROUTE_UNSUPPORTED },
		{ "PATCH", "/config", ROUTE_ACTION }, { "BREW", "/config", ROUTE_UNSUPPORTED },
		{ "POST", "/switchover", ROUTE_ACTION }, { "GET", "/switchover", ROUTE_HEALTH },
		{ "get", "/", ROUTE_UNSUPPORTED } };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(route_find(rows[i].verb, rows[i].path)->kind, rows[i].kind);
	assert_true(route_find("POST", "/mpp")->guarded);
	assert_false(route_find("POST", "/failsafe")->by_members);
	assert_true(route_find("POST", "/restart")->by_members);
	assert_true(route_find("POST", "/upgrade")->local_only);
	assert_false(route_find("GET", "/metrics")->guarded);
}

static void test_target(void **state)
{
	static const struct {
		const char *target, *path;
	} rows[] = { { "/", "/" }, { "///config?x", "/config" }, { "/a//b#f", "/a//b" },
		{ "?lag=1", "/" }, { "http://h:1/replica?lag=1", "/replica" }, { "*", "*" },
		{ "http://h", "/" } };
	char path[64], scratch[512];
	struct health_query q;
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		assert_true(route_path(rows[i].target, path, sizeof(path)));
		assert_string_equal(path, rows[i].path);
	}
	assert_true(route_query(
		"/r?lag=1MB&lag=5&replication_state=in+archive%20recovery&mode=write&tag_a="
		"&tag_b%63=%2b1&tag_bc=no&x",
		scratch, &q));
	assert_true(q.lag_given);
	assert_int_equal(q.lag, 1048576);
	assert_string_equal(q.replication_state, "in archive recovery");
	assert_true(q.mode_write);
	assert_int_equal(q.tag_count, 1);
	assert_string_equal(q.tags[0].name, "bc");
	assert_string_equal(q.tags[0].value, "+1");
	assert_true(route_query("/r?lag=1kb&lag=", scratch, &q));
	assert_false(q.lag_given);
	assert_true(route_query("/r?lag=%00%zz%4", scratch, &q));
	assert_false(q.lag_given);
}

static void read_settings(struct api_settings *s, const char *more)
{
	char text[2048];
	struct err err = ERR_INIT;
	snprintf(text, sizeof(text),
		"{\"scope\":\"s\",\"name\":\"n\",\"version\":\"0.1\",\"patroni_version\":\"4.1.4\","
		"\"listen\":\"127.0.0.1:8008\"%s}",
		more);
	if (settings_read(s, text, strlen(text), &err) != ERR_OK)
		fail_msg("%s", err.text);
}

static void peer(struct auth_request *r, const char *addr)
{
	struct sockaddr_in four = { .sin_family = AF_INET };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
	if (inet_pton(AF_INET, addr, &four.sin_addr) == 1)
		assert_true(auth_addr((struct sockaddr *)&four, r->addr));
	else if (inet_pton(AF_INET6, addr, &six.sin6_addr) == 1)
		assert_true(auth_addr((struct sockaddr *)&six, r->addr));
	else
		fail_msg("%s", addr);
}

static void test_auth(void **state)
{
	static const struct {
		const char *settings, *addr, *authorization;
		bool tls, certificate, members_count;
		unsigned status;
		const char *text;
	} rows[] = {
		{ "", "9.9.9.9", NULL, false, false, true, 0, "" },
		{ ",\"auth\":\"u:p\"", "9.9.9.9", NULL, false, false, true, 401,
			"no auth header received" },
		{ ",\"auth\":\"u:p\"", "9.9.9.9", "Basic dTpw", false, false, true, 0, "" },
		{ ",\"auth\":\"u:p\"", "9.9.9.9", "basic dTpw", false, false, true, 401,
			"not authenticated" },
		{ ",\"auth\":\"u:p\"", "9.9.9.9", "Basic dTpwdTpw", false, false, true, 401,
			"not authenticated" },
		{ ",\"auth\":\"u:p\"", "9.9.9.9", "Basic ", false, false, true, 401,
			"not authenticated" },
		{ ",\"authentication\":{\"username\":\"u\",\"password\":\"p\"}", "9.9.9.9",
			"Basic dTpw", false, false, true, 0, "" },
		{ ",\"allowlist\":[\"10.1.0.0/16\"]", "10.1.200.3", NULL, false, false, true, 0,
			"" },
		{ ",\"allowlist\":[\"10.1.0.0/16\"]", "::ffff:10.1.200.3", NULL, false, false, true,
			0, "" },
		{ ",\"allowlist\":[\"10.1.0.0/16\"]", "10.2.0.1", NULL, false, false, true, 403,
			"Access is denied" },
		{ ",\"allowlist\":[\"fe80::/10\"]", "fe9f::1", NULL, false, false, true, 0, "" },
		{ ",\"allowlist\":[\"no.such.name\"]", "9.9.9.9", NULL, false, false, true, 403,
			"Access is denied" },
		{ ",\"allowlist_include_members\":true", "10.0.0.7", NULL, false, false, true, 0,
			"" },
		{ ",\"allowlist_include_members\":\"on\"", "10.0.0.8", NULL, false, false, true,
			403, "Access is denied" },
		{ ",\"allowlist_include_members\":true", "10.0.0.8", NULL, false, false, false, 0,
			"" },
		{ ",\"certfile\":\"c\",\"verify_client\":\"optional\"", "9.9.9.9", NULL, true,
			false, true, 403, "client certificate required" },
		{ ",\"certfile\":\"c\",\"verify_client\":\"Required\"", "9.9.9.9", NULL, true, true,
			true, 0, "" },
	};
	struct net member;
	struct auth_nets none = { 0 };
	(void)state;
	assert_true(net_parse("10.0.0.7", &member));
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct api_settings s = { 0 };
		struct auth_request r = { .tls = rows[i].tls,
			.certificate = rows[i].certificate,
			.members_count = rows[i].members_count,
			.authorization = rows[i].authorization };
		struct auth_nets members = { &member, 1 };
		read_settings(&s, rows[i].settings);
		peer(&r, rows[i].addr);
		struct auth_answer a = auth_check(&s, &r, none, members);
		if (a.status != rows[i].status ||
			(a.status != 0 && strcmp(a.text, rows[i].text) != 0))
			fail_msg("row %u: %u %s", i, a.status, a.status != 0 ? a.text : "");
		/* The local socket asks who it is, nothing else. */
		r.local = true;
		assert_int_equal(auth_check(&s, &r, none, members).status, 403);
		r.local_trusted = true;
		assert_int_equal(auth_check(&s, &r, none, members).status, 0);
		settings_free(&s);
	}
}

static void test_settings_errors(void **state)
{
	static const char *const bad[] = { "\"listen\":\"x\"", "\"listen\":\"h:0\"",
		"\"listen\":\"h:70000\"", "\"allowlist\":5", "\"allowlist\":[7]",
		"\"authentication\":{\"username\":\"u\"}",
		"\"http_extra_headers\":{\"a\":\"b\\r\\nc\"}",
		"\"http_extra_headers\":{\"a b\":\"c\"}" };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		char text[512];
		struct api_settings s = { 0 };
		struct err err = ERR_INIT;
		snprintf(text, sizeof(text),
			"{\"listen\":\"h:1\",\"scope\":\"s\",\"name\":\"n\",\"version\":\"0\","
			"\"patroni_version\":\"4\",%s}",
			bad[i]);
		if (settings_read(&s, text, strlen(text), &err) == ERR_OK)
			fail_msg("accepted: %s", bad[i]);
		assert_non_null(strstr(err.text, "restapi."));
		assert_null(s.raw);
	}
	struct net n;
	assert_false(net_parse("1.2.3.4/33", &n));
	assert_false(net_parse("1.2.3", &n));
	assert_false(net_parse("::/129", &n));
	assert_true(net_parse("0.0.0.0/0", &n));
	uint8_t six[16] = { 0xfe, 0x80 };
	assert_false(net_holds(&n, six));
}

static const char *sample_of(const char *text, const char *name, char *out, size_t len)
{
	char key[128];
	snprintf(key, sizeof(key), "\n%s{scope=\"s\",name=\"n\"} ", name);
	const char *p = strstr(text, key);
	if (p == NULL)
		return "absent";
	p += strlen(key);
	assert_true(str_copy_n(out, len, p, strcspn(p, "\n")));
	return out;
}

static void test_metrics(void **state)
{
	static const struct {
		const char *name, *value;
	} rows[] = { { "patroni_version", "040104" }, { "patroni_postgres_running", "1" },
		{ "patroni_postmaster_start_time", "1724873966.352526" },
		{ "patroni_primary", "0" }, { "patroni_replica", "1" },
		{ "patroni_sync_standby", "1" }, { "patroni_xlog_received_location", "20" },
		{ "patroni_xlog_replayed_location", "10" },
		{ "patroni_xlog_replayed_timestamp", "0" }, { "patroni_postgres_streaming", "1" },
		{ "patroni_postgres_in_archive_recovery", "0" },
		{ "patroni_postgres_server_version", "150020" },
		{ "patroni_postgres_timeline", "0" }, { "patroni_failsafe_member", "1" },
		{ "patroni_postgres_state", "5" }, { "patroni_failover_priority", "7" } };
	char value[64];
	AUTO(buf) out = BUF_INIT(64 * 1024);
	json_auto_t *d = json_pack("{s:s, s:s, s:s, s:i, s:{s:i, s:i, s:n, s:b}, s:b, s:n, s:s}",
		"state", "running", "postmaster_start_time", "2024-08-28 19:39:26.352526+00:00",
		"role", "replica", "server_version", 150020, "xlog", "received_location", 20,
		"replayed_location", 10, "replayed_timestamp", "paused", 0, "sync_standby", 1,
		"timeline", "replication_state", "streaming");
	json_auto_t *tags = json_pack("{s:i}", "failover_priority", 7);
	struct metrics_input in = { .status = d,
		.patroni_version = "4.1.4",
		.scope = "s",
		.name = "n",
		.state = 5,
		.failsafe_member = true,
		.tags = tags };
	(void)state;
	assert_non_null(d);
	metrics_write(&in, &out);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		assert_string_equal(sample_of(buf_str(&out), rows[i].name, value, sizeof(value)),
			rows[i].value);
	assert_non_null(strstr(buf_str(&out), "# TYPE patroni_xlog_location counter\n"));
	assert_non_null(strstr(buf_str(&out), "\n# Values: 0=initdb, 1=initdb_failed, "));
	assert_int_equal(buf_str(&out)[out.len - 1], '\n');
	/* Without an answer of PostgreSQL both vanish. */
	json_object_del(d, "server_version");
	buf_reset(&out);
	metrics_write(&in, &out);
	assert_string_equal(
		sample_of(buf_str(&out), "patroni_postgres_streaming", value, sizeof(value)),
		"absent");
}

static void test_ciphers(void **state)
{
	static const struct {
		const char *list, *has, *lacks;
	} rows[] = { { NULL, "NORMAL:-VERS-ALL", "+RSA" },
		{ "HIGH:!aNULL:!MD5", ":+AES-256-CBC", "MD5" },
		{ "ECDHE+AESGCM", ":+ECDHE-RSA:+AES-256-GCM:+AES-128-GCM", "CBC" },
		{ "ECDHE-RSA-AES128-GCM-SHA256", ":+ECDHE-RSA:+AES-128-GCM", "AES-256" },
		{ "AES256-SHA", ":+RSA:+AES-256-CBC", "ECDHE" },
		{ "ECDHE-ECDSA-CHACHA20-POLY1305", ":+ECDHE-ECDSA:+CHACHA20-POLY1305",
			"+ECDHE-RSA" },
		{ "HIGH:!kRSA:!SHA1:@STRENGTH", ":+DHE-RSA:", ":+RSA" } };
	char out[TLS_PRIORITIES_MAX];
	struct err err = ERR_INIT;
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		if (tls_priorities(rows[i].list, out, &err) != ERR_OK)
			fail_msg("%s: %s", rows[i].list, err.text);
		if (strstr(out, rows[i].has) == NULL || strstr(out, rows[i].lacks) != NULL)
			fail_msg("%s: %s", rows[i].list, out);
	}
	assert_int_equal(tls_priorities("HIGH:WAT", out, &err), ERR_INVAL);
	assert_non_null(strstr(err.text, "\"WAT\""));
	assert_int_equal(tls_priorities("RC4", out, &err), ERR_INVAL);
}

static void test_cluster(void **state)
{
	json_auto_t *c = json_pack("{s:s, s:{s:s, s:[s]}, s:i, s:{s:s, s:s}, s:[{s:s, s:{s:s}}, "
				   "{s:s, s:{s:s, s:i, s:b}}]}",
		"leader", "a", "sync", "leader", "a", "voters", "B", "last_lsn", 100, "failover",
		"scheduled_at", "2026-02-01T10:00:00+00:00", "leader", "a", "members", "name", "a",
		"data", "conn_url", "postgres://[::1]:6432/postgres", "name", "b", "data", "state",
		"running", "receive_lsn", 90, "pending_restart", 1);
	struct cluster_view view = {
		.cluster = c, .paused = true, .sync = SYNC_PRIORITY, .scope = "demo"
	};
	(void)state;
	assert_non_null(c);
	json_auto_t *d = document_cluster(&view);
	AUTO_FREE char *text = json_dumps(d, JSON_ENSURE_ASCII);
	assert_string_equal(text,
		"{\"members\": [{\"name\": \"a\", \"role\": \"leader\", \"state\": \"\", "
		"\"api_url\": null, "
		"\"host\": \"::1\", \"port\": 6432}, {\"name\": \"b\", \"role\": \"sync_standby\", "
		"\"state\": \"running\", \"api_url\": null, \"pending_restart\": true, "
		"\"receive_lsn\": \"0/5A\", \"receive_lag\": 10, \"replay_lsn\": \"unknown\", "
		"\"replay_lag\": \"unknown\", \"lsn\": \"unknown\", \"lag\": \"unknown\"}], "
		"\"pause\": true, \"scheduled_switchover\": {\"at\": "
		"\"2026-02-01T10:00:00+00:00\", "
		"\"from\": \"a\"}, \"scope\": \"demo\"}");
}

/* An answer that did not wait: what lasts is in it, a position is not. */
static void test_status_not_asked(void **state)
{
	struct view v;
	(void)state;
	view_init(&v);
	v.docs[DOC_MEMBER].json = json_pack("{s:i, s:i, s:s, s:i}", "timeline", 3, "server_version",
		150020, "postmaster_start_time", "2026-02-01 10:00:00+00:00", "xlog", 5);
	struct health_facts f = { .mem_role = PG_ROLE_PRIMARY,
		.mem_state = PG_STATE_RUNNING,
		.not_asked = true,
		.lease_valid = true };
	static struct api_settings settings;
	json_auto_t *d = document_status(&v, &f, NULL, &settings);
	assert_int_equal(json_integer_value(json_object_get(d, "timeline")), 3);
	assert_int_equal(json_integer_value(json_object_get(d, "server_version")), 150020);
	assert_string_equal(json_string_value(json_object_get(d, "postmaster_start_time")),
		"2026-02-01 10:00:00+00:00");
	assert_null(json_object_get(d, "xlog"));
	/* Asked in vain, or not running: nothing is known. */
	f.not_asked = false;
	json_auto_t *silent = document_status(&v, &f, NULL, &settings);
	assert_null(json_object_get(silent, "timeline"));
	f.not_asked = true;
	f.mem_state = PG_STATE_STOPPED;
	json_auto_t *stopped = document_status(&v, &f, NULL, &settings);
	assert_null(json_object_get(stopped, "timeline"));
	assert_null(json_object_get(stopped, "logger_records_lost"));
	f.logs_lost = 7;
	json_auto_t *lost = document_status(&v, &f, NULL, &settings);
	assert_int_equal(json_integer_value(json_object_get(lost, "logger_records_lost")), 7);
	assert_non_null(json_object_get(lost, "logger_queue_size"));
	view_done(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_routes),
		cmocka_unit_test(test_target), cmocka_unit_test(test_auth),
		cmocka_unit_test(test_settings_errors), cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_ciphers), cmocka_unit_test(test_cluster),
		cmocka_unit_test(test_status_not_asked) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
