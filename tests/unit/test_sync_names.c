/* worker/postgres/sync_names: both directions, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "worker/postgres/sync_names.h"

static void test_parse(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool ok;
		enum ssn_type type;
		int num;
		bool star;
		const char *names; /* joined with | */
	} rows[] = {
		{ "", true, SSN_OFF, 0, false, "" },
		{ "   ", true, SSN_OFF, 0, false, "" },
		{ "FiRsT", true, SSN_PRIORITY, 1, false, "FiRsT" },
		{ "\"1\"", true, SSN_PRIORITY, 1, false, "1" },
		{ " a , b ", true, SSN_PRIORITY, 1, false, "a|b" },
		{ "ANY 4(\"a\",*,b)", true, SSN_QUORUM, 4, true, SYNC_PLACEHOLDER },
		{ "*", true, SSN_PRIORITY, 1, true, SYNC_PLACEHOLDER },
		{ "ANY 1(" SYNC_PLACEHOLDER ")", true, SSN_QUORUM, 1, false, "" },
		{ SYNC_PLACEHOLDER, true, SSN_PRIORITY, 1, false, "" },
		{ "2 (a,b)", true, SSN_PRIORITY, 2, false, "a|b" },
		{ "FIRST 2 (a,\"B-c\")", true, SSN_PRIORITY, 2, false, "a|B-c" },
		{ "\"a\"\"b\"", true, SSN_PRIORITY, 1, false, "a\"b" },
		{ "a,A", true, SSN_PRIORITY, 1, false, "a" },
		{ "any,first", true, SSN_PRIORITY, 1, false, "any|first" },
		{ "first_node,anyone", true, SSN_PRIORITY, 1, false, "first_node|anyone" },
		{ "ANY 1 ()", true, SSN_QUORUM, 1, false, "" },
		{ "1", false, 0, 0, false, "" },
		{ "a,", false, 0, 0, false, "" },
		{ "ANY 4(\"a\" b,\"c c\")", false, 0, 0, false, "" },
		{ "FIRST 4(\"a\",)", false, 0, 0, false, "" },
		{ "2 (,)", false, 0, 0, false, "" },
		{ "\"a", false, 0, 0, false, "" },
		{ "a;b", false, 0, 0, false, "" },
		{ "ANY 99999999999 (a)", false, 0, 0, false, "" },
		{ "2 (a) b", false, 0, 0, false, "" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		static struct sync_names s;
		if (sync_names_parse(rows[i].text, &s) != rows[i].ok)
			fail_msg("\"%s\"", rows[i].text);
		AUTO(buf) joined = BUF_INIT(4096);
		for (unsigned n = 0; n < s.count; n++)
			buf_addf(&joined, "%s%s", n > 0 ? "|" : "", s.names[n]);
		assert_int_equal(s.type, rows[i].type);
		assert_int_equal(s.num, rows[i].num);
		assert_int_equal(s.has_star, rows[i].star);
		assert_string_equal(buf_str(&joined), rows[i].names);
	}
}

static void test_write(void **state)
{
	(void)state;
	static const struct {
		const char *names[4];
		int num;
		bool quorum;
		int32_t version;
		const char *text; /* NULL: removed */
	} rows[] = {
		{ { NULL }, -1, false, 150000, NULL },
		{ { NULL }, 0, true, 150000, NULL },
		{ { "b" }, -1, false, 150000, "b" },
		{ { "b", "a" }, -1, false, 150000, "2 (a,b)" },
		{ { "b", "a" }, 1, false, 150000, "1 (a,b)" },
		{ { "node-1", "a" }, -1, false, 150000, "2 (a,\"node-1\")" },
		{ { "First" }, -1, false, 150000, "\"First\"" },
		{ { "1a" }, -1, false, 150000, "\"1a\"" },
		{ { "a\"b" }, -1, false, 150000, "\"a\"\"b\"" },
		{ { "a" }, 1, true, 150000, "ANY 1 (a)" },
		{ { "a", "b" }, 1, true, 90600, "1 (a,b)" },
		{ { "a", "b" }, 0, true, 150000, "ANY 1 (a,b)" },
		{ { "a", "b" }, 5, true, 150000, "ANY 2 (a,b)" },
		{ { NULL }, 1, false, 150000, SYNC_PLACEHOLDER },
		{ { NULL }, 2, true, 150000, "ANY 2 (" SYNC_PLACEHOLDER ")" },
		{ { "*" }, -1, false, 150000, SYNC_PLACEHOLDER },
		{ { "*" }, 1, true, 150000, "ANY 1 (" SYNC_PLACEHOLDER ")" },
		{ { "b", "a" }, -1, false, 90500, "a" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char names[4][LIMIT_NAME];
		unsigned count = 0;
		while (count < 4 && rows[i].names[count] != NULL) {
			snprintf(names[count], LIMIT_NAME, "%s", rows[i].names[count]);
			count++;
		}
		AUTO(buf) out = BUF_INIT(4096);
		bool set = sync_names_write((const char(*)[LIMIT_NAME])names, count, rows[i].num,
			rows[i].quorum, rows[i].version, &out);
		assert_int_equal(set, rows[i].text != NULL);
		if (set)
			assert_string_equal(buf_str(&out), rows[i].text);
		/* What we write we read. */
		static struct sync_names back;
		assert_true(sync_names_parse(buf_str(&out), &back));
	}
}

static void reads_the_setting_of_a_file(void **state)
{
	(void)state;
	char out[64];
	static const char text[] =
		"# head\nshared_buffers = '1'\n#synchronous_standby_names = 'x'\n"
		"synchronous_standby_names = 'a'\n"
		"synchronous_standby_names = 'ANY 1 (n1,\"it''s\")'\nz = '1'\n";
	assert_true(sync_names_of_conf(text, strlen(text), out, sizeof(out)));
	assert_string_equal(out, "ANY 1 (n1,\"it's\")");
	static const char none[] = "synchronous_standby_names_x = 'a'\n";
	assert_false(sync_names_of_conf(none, strlen(none), out, sizeof(out)));
	assert_string_equal(out, "");
	static const char cut[] = "synchronous_standby_names = 'a";
	assert_false(sync_names_of_conf(cut, strlen(cut), out, sizeof(out)));
	char small[4];
	static const char lengthy[] = "synchronous_standby_names = 'abcd'";
	assert_false(sync_names_of_conf(lengthy, strlen(lengthy), small, sizeof(small)));
	assert_string_equal(small, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_the_setting_of_a_file),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
