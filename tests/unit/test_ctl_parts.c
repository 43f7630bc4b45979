/* ctl: command line, table, diff. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/ext/json.h"
#include "common/ext/yaml.h"
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

/* What edit-config writes for the editor must read back as the same value, with our reader and with
 * others (YAML 1.1): numbers keep their point, and text that looks like a date or a number keeps
 * its quotes. */
static void test_yaml_values(void **state)
{
	(void)state;
	static const struct {
		const char *json, *yaml;
	} rows[] = { { "100.0", "100.0" }, { "1e-7", "1.0e-07" }, { "1e100", "1.0e+100" },
		{ "1e16", "1.0e+16" }, { "123456789000000.0", "123456789000000.0" },
		{ "1.5", "1.5" }, { "0.0001", "0.0001" }, { "0.00001", "1.0e-05" },
		{ "-20.0", "-20.0" }, { "12.25e20", "1.225e+21" },
		{ "\"2030-01-01T00:00:00+00:00\"", "'2030-01-01T00:00:00+00:00'" },
		{ "\"2030-01-01\"", "'2030-01-01'" }, { "\"2030-01\"", "2030-01" },
		{ "\"2030-01-01x\"", "2030-01-01x" }, { "\"2030\"", "'2030'" }, { "\"=\"", "'='" },
		{ "\"<<\"", "'<<'" }, { "\".inf\"", "'.inf'" }, { "\".NaN\"", "'.NaN'" },
		{ "\"1e5\"", "1e5" }, { "\"off\"", "'off'" } };
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct err err = ERR_INIT;
		struct buf out = BUF_INIT(1000), want = BUF_INIT(1000);
		char text[100];
		snprintf(text, sizeof(text), "{\"k\": %s}", rows[i].json);
		json_t *v = json_read(text, strlen(text), NULL);
		assert_true(yaml_write(v, &out));
		buf_addf(&want, "k: %s\n", rows[i].yaml);
		assert_string_equal(buf_str(&out), buf_str(&want));
		json_t *back = yaml_read(buf_str(&out), out.len, &err);
		assert_true(json_equal(v, back));
		json_decref(v);
		json_decref(back);
		buf_done(&out);
		buf_done(&want);
	}
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
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_json_as_python),
		cmocka_unit_test(test_args), cmocka_unit_test(test_table),
		cmocka_unit_test(test_diff), cmocka_unit_test(test_yaml_values) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
