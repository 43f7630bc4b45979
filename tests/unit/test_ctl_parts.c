/* ctl: command line, table, diff. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/ext/json.h"
#include "ctl/args.h"
#include "ctl/diff.h"
#include "ctl/table.h"

static const struct opt opts[] = { { 'e', "extended", NULL, false, NULL, "" },
	{ 't', "timestamp", NULL, false, NULL, "" }, { 'f', "format", NULL, true, "json|tsv", "" },
	{ 0, "leader", "primary", true, NULL, "" }, { 0, NULL, NULL, false, NULL, NULL } };

static enum err_code parse(struct args *a, struct err *err, int n, const char *const *argv)
{
	return args_read(a, opts, false, n, (char *const *)argv, err);
}

static void test_args(void **state)
{
	(void)state;
	static struct args a;
	struct err err = ERR_INIT;
	const char *mixed[] = { "x", "-et", "--primary=n1", "y", "-fjson", "--", "-z" };
	assert_int_equal(parse(&a, &err, 7, mixed), ERR_OK);
	assert_true(args_has(&a, "extended") && args_has(&a, "timestamp"));
	assert_string_equal(args_value(&a, "leader"), "n1");
	assert_string_equal(args_value(&a, "format"), "json");
	assert_int_equal(a.word_count, 3);
	assert_string_equal(a.words[2], "-z");
	const char *short_name[] = { "--form", "json" };
	assert_int_equal(parse(&a, &err, 2, short_name), ERR_INVAL);
	const char *choice[] = { "-f", "xml" };
	assert_int_equal(parse(&a, &err, 2, choice), ERR_INVAL);
	const char *missing[] = { "--leader" };
	assert_int_equal(parse(&a, &err, 1, missing), ERR_INVAL);
}

static void test_table(void **state)
{
	(void)state;
	static const struct table_column columns[] = { { "Cluster", NULL, false },
		{ "Member", "Member", false }, { "TL", "TL", true }, { "Tags", "Tags", false } };
	json_t *rows = json_pack(
		"[[s,s,i,s],[s,s,s,{s:b}]]", "c", "n\xc3\xa9", 5, "", "c", "b", "", "nosync", 1);
	struct table t = { columns, 4, rows, " Cluster: c ", true };
	struct buf out = BUF_INIT(10000);
	assert_true(table_write(&t, TABLE_PRETTY, &out));
	assert_string_equal(buf_str(&out), "+ Cluster: c -+--------------+\n"
					   "| Member | TL | Tags         |\n"
					   "+--------+----+--------------+\n"
					   "| n\xc3\xa9     |  5 |              |\n"
					   "| b      |    | nosync: true |\n"
					   "+--------+----+--------------+\n");
	buf_reset(&out);
	assert_true(table_write(&t, TABLE_JSON, &out));
	assert_string_equal(buf_str(&out),
		"[{\"Cluster\": \"c\", \"Member\": \"n\\u00e9\", \"TL\": 5}, "
		"{\"Cluster\": \"c\", \"Member\": \"b\", \"Tags\": {\"nosync\": true}}]\n");
	buf_reset(&out);
	assert_true(table_write(&t, TABLE_TSV, &out));
	assert_string_equal(buf_str(&out),
		"Cluster\tMember\tTL\tTags\nc\tn\xc3\xa9\t5\t\nc\tb\t\t{nosync: true}\n");
	buf_done(&out);
	json_decref(rows);
}

static void test_json_as_python(void **state)
{
	(void)state;
	/* The text of an escape that somebody wrote is no escape: its letters stay. */
	json_t *v = json_string("\x7f\xc3\x89\\u00C9");
	char *text = json_python(v);
	assert_string_equal(text, "\"\\u007f\\u00c9\\\\u00C9\"");
	free(text);
	json_decref(v);
	v = json_pack("[f,f,f]", 1.1, 0.3, 4.0);
	text = json_python(v);
	assert_string_equal(text, "[1.1, 0.3, 4.0]");
	free(text);
	json_decref(v);
	v = json_real(0.1 + 0.2); /* not to be had with fewer digits */
	text = json_python(v);
	assert_string_equal(text, "0.30000000000000004");
	free(text);
	json_decref(v);
}

static void test_diff(void **state)
{
	(void)state;
	struct buf out = BUF_INIT(10000);
	assert_true(diff_write("a\nb\nc\nd\ne\nttl: 30\n", "a\nb\nc\nd\ne\nttl: 20\nx: 1\n", &out));
	assert_string_equal(buf_str(&out),
		"--- \n+++ \n@@ -3,4 +3,5 @@\n c\n d\n e\n-ttl: 30\n+ttl: 20\n+x: 1\n");
	buf_reset(&out);
	assert_true(diff_write("", "a\n", &out));
	assert_string_equal(buf_str(&out), "--- \n+++ \n@@ -0,0 +1 @@\n+a\n");
	buf_reset(&out);
	assert_true(diff_write("1\n2\n3\n4\n5\n6\n7\n8\n9\n", "0\n2\n3\n4\n5\n6\n7\n8\n0\n", &out));
	assert_string_equal(buf_str(&out),
		"--- \n+++ \n@@ -1,4 +1,4 @@\n-1\n+0\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n"
		"-9\n+0\n");
	buf_done(&out);
}

int main(void)
{
	setlocale(LC_CTYPE, "C.UTF-8");
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_json_as_python),
		cmocka_unit_test(test_args), cmocka_unit_test(test_table),
		cmocka_unit_test(test_diff) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
