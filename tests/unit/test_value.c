/* common/config/value: booleans, numbers with units. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/config/value.h"

static void test_bool(void **state)
{
	(void)state;
	bool b = false;
	assert_true(value_parse_bool("oN", &b) && b);
	assert_true(value_parse_bool("TRUE", &b) && b);
	assert_true(value_parse_bool("0", &b) && !b);
	assert_true(value_parse_bool("No", &b) && !b);
	assert_false(value_parse_bool("", &b));
	assert_false(value_parse_bool("2", &b));
	assert_false(value_parse_bool("y", &b));
}

static void test_int(void **state)
{
	(void)state;
	static const struct {
		const char *text, *base;
		int64_t value; /* -999: not a number */
	} rows[] = { { "16MB", NULL, -999 }, { "1h", "s", 3600 }, { "1GB", "8kB", 131072 },
		{ "5S", "s", -999 }, { "1KB", "kB", -999 }, { "600us", "ms", 1 },
		{ "010", NULL, 8 }, { "08", NULL, -999 }, { "0644", NULL, 420 },
		{ "1e3", NULL, 1000 }, { "2.5", NULL, 2 }, { "1.5", NULL, 2 },
		{ "true", NULL, -999 }, { "", NULL, -999 }, { "5.", NULL, -999 }, { "1", NULL, 1 },
		{ " 0x400 MB ", "16384kB", 64 }, { "1MB", "kB", 1024 }, { "1000 ms", "s", 1 },
		{ "1TB", "GB", -999 }, { "nonsense", "kB", -999 }, { "6GB", "16MB", 384 },
		{ "4097.4kB", "kB", 4097 }, { "4097.5kB", "kB", 4098 }, { "1.5MB", "kB", 1536 },
		{ "-1", "kB", -1 }, { "+7", NULL, 7 }, { ".5", NULL, 0 },
		{ "99999999999999999999", NULL, -999 }, { "1MB", "ms", -999 },
		{ "1d", "min", 1440 }, { "0x", NULL, -999 }, { "1 2", NULL, -999 },
		{ "1MB", "0kB", -999 }, { "1e400", NULL, -999 }, { "7 ", NULL, 7 } };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t v = -999;
		bool ok = value_parse_int(rows[i].text, rows[i].base, &v);
		if (ok != (rows[i].value != -999) || v != rows[i].value)
			fail_msg("%s (%s): %lld", rows[i].text, rows[i].base ? rows[i].base : "-",
				(long long)v);
	}
}

static void test_real(void **state)
{
	(void)state;
	double v = -1;
	assert_true(value_parse_real(" +0.0005 ", NULL, &v) && v == 0.0005);
	assert_true(value_parse_real("0.0005ms", "ms", &v) && v == 0.0);
	assert_true(value_parse_real("0.00051ms", "ms", &v) && v == 0.001);
	assert_true(value_parse_real("1e-06", NULL, &v) && v == 0.000001);
	assert_true(value_parse_real("2s", "ms", &v) && v == 2000);
	assert_false(value_parse_real("0x10", NULL, &v));
	assert_false(value_parse_real("2s", NULL, &v));
	assert_false(value_parse_real("on", NULL, &v));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bool),
		cmocka_unit_test(test_int),
		cmocka_unit_test(test_real),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
