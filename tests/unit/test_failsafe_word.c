/* The body of POST /failsafe: a word that cannot be given as long as it is asked for is not given.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/core/str.h"
#include "worker/failsafe_word.h"

#define WHO                                                                                        \
	"\"name\":\"n0\",\"conn_url\":\"postgres://h:5432/postgres\",\"api_url\":\"http://h:8008/" \
	"patroni\""

static const struct {
	const char *what, *body;
	int64_t own_ttl_ms, ttl_ms; /* 0 = refused */
} rows[] = {
	{ "the reference sends no ttl", "{" WHO "}", 30000, 30000 },
	{ "the same", "{" WHO ",\"ttl\":30}", 30000, 30000 },
	{ "a longer one is the sender's", "{" WHO ",\"ttl\":60}", 30000, 60000 },
	{ "a shorter one is not believed", "{" WHO ",\"ttl\":10}", 30000, 30000 },
	{ "as long as can be given", "{" WHO ",\"ttl\":3600}", 30000, 3600000 },
	{ "longer than can be given", "{" WHO ",\"ttl\":3601}", 30000, 0 },
	{ "huge", "{" WHO ",\"ttl\":9223372036854775807}", 30000, 0 },
	{ "none", "{" WHO ",\"ttl\":0}", 30000, 0 },
	{ "negative", "{" WHO ",\"ttl\":-1}", 30000, 0 },
	{ "text", "{" WHO ",\"ttl\":\"60\"}", 30000, 0 },
	{ "real", "{" WHO ",\"ttl\":60.5}", 30000, 0 },
	{ "null", "{" WHO ",\"ttl\":null}", 30000, 0 },
	{ "no name", "{\"conn_url\":\"c\",\"api_url\":\"a\"}", 30000, 0 },
	{ "a name of another type", "{\"name\":1,\"conn_url\":\"c\",\"api_url\":\"a\"}", 30000, 0 },
	{ "no conn_url", "{\"name\":\"n0\",\"api_url\":\"a\"}", 30000, 0 },
	{ "no api_url", "{\"name\":\"n0\",\"conn_url\":\"c\"}", 30000, 0 },
};

static void test_words(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct failsafe_word w = { .ttl_ms = -7 };
		struct err err = ERR_INIT;
		json_auto_t *body = json_loads(rows[i].body, 0, NULL);
		assert_non_null(body);
		enum err_code rc = failsafe_word_read(body, rows[i].own_ttl_ms, &w, &err);
		if ((rc == ERR_OK) != (rows[i].ttl_ms != 0))
			fail_msg("%s: %s", rows[i].what, rc == ERR_OK ? "accepted" : err.text);
		/* Untouched when refused. */
		assert_int_equal(w.ttl_ms, rc == ERR_OK ? rows[i].ttl_ms : -7);
		assert_string_equal(w.name, rc == ERR_OK ? "n0" : "");
	}
}

static void test_long_name(void **state)
{
	(void)state;
	char name[LIMIT_NAME + 1];
	memset(name, 'x', LIMIT_NAME);
	name[LIMIT_NAME] = '\0';
	struct failsafe_word w = { .ttl_ms = -7 };
	struct err err = ERR_INIT;
	json_auto_t *body =
		json_pack("{s:s,s:s,s:s}", "name", name, "conn_url", "c", "api_url", "a");
	assert_int_equal(failsafe_word_read(body, 30000, &w, &err), ERR_LIMIT);
	assert_int_equal(w.ttl_ms, -7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_long_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
