/* common/config/dynamic: the timings that lease and fence rest on, from the document in the store
 * (reference config 3.4). Their minimums depend on who is a member of the scope. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/config/dynamic.h"
#include "common/core/buf.h"
#include "common/core/limits.h"
#include "common/ext/json.h"

static json_t *js(const char *text)
{
	json_error_t e;
	json_t *v = json_loads(text, 0, &e);
	if (v == NULL)
		fail_msg("%s: %s", text, e.text);
	return v;
}

static enum err_code take(const char *text, bool low, struct settings *s)
{
	struct err err = ERR_INIT;
	json_auto_t *doc = js(text);
	json_auto_t *local = json_object();
	return dynamic_settings(doc, local, low, false, s, &err);
}

struct row {
	const char *doc;
	bool low; /* every member is pgregent */
	int64_t ttl, loop_wait, retry_timeout;
};

static void test_timings(void **state)
{
	(void)state;
	static const struct row rows[] = {
		{ "{}", false, 30, 10, 10 },
		{ "{}", true, 30, 10, 10 },
		{ "{\"ttl\": 20, \"loop_wait\": 2, \"retry_timeout\": 3}", false, 20, 2, 3 },
		/* The least there is, alone and beside a member of the reference. */
		{ "{\"ttl\": 3, \"loop_wait\": 1, \"retry_timeout\": 1}", true, 3, 1, 1 },
		{ "{\"ttl\": 3, \"loop_wait\": 1, \"retry_timeout\": 1}", false, 20, 1, 3 },
		{ "{\"ttl\": 19, \"loop_wait\": 1, \"retry_timeout\": 2}", true, 19, 1, 2 },
		{ "{\"ttl\": 19, \"loop_wait\": 1, \"retry_timeout\": 2}", false, 20, 1, 3 },
		{ "{\"ttl\": 2, \"loop_wait\": 0, \"retry_timeout\": 0}", true, 3, 1, 1 },
		{ "{\"ttl\": 0, \"loop_wait\": 0, \"retry_timeout\": 0}", false, 20, 1, 3 },
		{ "{\"ttl\": -5, \"loop_wait\": -5, \"retry_timeout\": -5}", true, 3, 1, 1 },
		/* loop_wait + 2 * retry_timeout <= ttl */
		{ "{\"ttl\": 30, \"loop_wait\": 2, \"retry_timeout\": 20}", false, 30, 1, 14 },
		{ "{\"ttl\": 30, \"loop_wait\": 11, \"retry_timeout\": 10}", false, 30, 10, 10 },
		{ "{\"ttl\": 20, \"loop_wait\": 10, \"retry_timeout\": 9}", false, 20, 2, 9 },
		{ "{\"ttl\": 3, \"loop_wait\": 10, \"retry_timeout\": 10}", true, 3, 1, 1 },
		{ "{\"ttl\": 5, \"loop_wait\": 2, \"retry_timeout\": 2}", true, 5, 1, 2 },
		/* What the supervisor would refuse is cut here. */
		{ "{\"ttl\": 100000}", false, LIMIT_LEASE_MS / 1000, 10, 10 },
		{ "{\"ttl\": 25.9, \"loop_wait\": \"5\", \"retry_timeout\": \"6\"}", false, 25, 5,
			6 },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct settings s = { 0 };
		const struct row *r = &rows[i];
		if (take(r->doc, r->low, &s) != ERR_OK || s.ttl_ms != r->ttl * 1000 ||
			s.loop_wait_ms != r->loop_wait * 1000 ||
			s.retry_timeout_ms != r->retry_timeout * 1000)
			fail_msg("row %u %s: ttl %lld loop_wait %lld retry_timeout %lld", i, r->doc,
				(long long)s.ttl_ms, (long long)s.loop_wait_ms,
				(long long)s.retry_timeout_ms);
		assert_true(s.loop_wait_ms + 2 * s.retry_timeout_ms <= s.ttl_ms);
		settings_done(&s);
	}
}

/* No number: the timings in force stay, what else the document says holds (pause above all). */
static void test_no_number(void **state)
{
	(void)state;
	static const char *const docs[] = { "{\"ttl\": \"10s\", \"pause\": true}",
		"{\"ttl\": null, \"pause\": true}", "{\"loop_wait\": [], \"pause\": true}",
		"{\"retry_timeout\": {}, \"pause\": true}",
		"{\"retry_timeout\": \"\", \"pause\": true}" };
	for (unsigned i = 0; i < ARRAY_LEN(docs); i++) {
		struct settings s = { 0 };
		assert_int_equal(
			take("{\"ttl\": 22, \"loop_wait\": 4, \"retry_timeout\": 5}", false, &s),
			ERR_OK);
		assert_false(s.pause);
		if (take(docs[i], false, &s) != ERR_INVAL || !s.pause || s.ttl_ms != 22000 ||
			s.loop_wait_ms != 4000 || s.retry_timeout_ms != 5000)
			fail_msg("%s", docs[i]);
		settings_done(&s);
	}
	/* Where none were in force yet: the defaults. */
	struct settings s = { 0 };
	assert_int_equal(take("{\"ttl\": \"x\"}", true, &s), ERR_INVAL);
	assert_true(s.ttl_ms == 30000 && s.loop_wait_ms == 10000 && s.retry_timeout_ms == 10000);
	settings_done(&s);
}

static void test_pause_enforce(void **state)
{
	(void)state;
	struct settings s = { 0 };
	assert_int_equal(take("{\"pause\": true}", false, &s), ERR_OK);
	assert_true(s.pause && !s.pause_enforce);
	assert_int_equal(take("{\"pause\": \"on\", \"pause_enforce\": true}", false, &s), ERR_OK);
	assert_true(s.pause && s.pause_enforce);
	settings_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timings),
		cmocka_unit_test(test_no_number),
		cmocka_unit_test(test_pause_enforce),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
