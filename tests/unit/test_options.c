/* worker/options: the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "worker/options.h"

static const struct {
	const char *argv[6];
	bool ok;
	enum option_mode mode;
	bool ignore, print;
	const char *dsn, *config;
} rows[] = {
	{ { "x" }, true, MODE_RUN, false, false, NULL, NULL },
	{ { "x", "f.yml" }, true, MODE_RUN, false, false, NULL, "f.yml" },
	{ { "x", "--validate-config", "-ip", "f" }, true, MODE_VALIDATE, true, true, NULL, "f" },
	{ { "x", "--val", "--pri" }, true, MODE_VALIDATE, false, true, NULL, NULL },
	{ { "x", "--generate-c", "--dsn", "a=b" }, true, MODE_GENERATE, false, false, "a=b", NULL },
	{ { "x", "--generate-config", "--d=a" }, true, MODE_GENERATE, false, false, "a", NULL },
	{ { "x", "--generate-sample-config", "o" }, true, MODE_GENERATE_SAMPLE, false, false, NULL,
		"o" },
	{ { "x", "--version", "--validate-config" }, true, MODE_VERSION, false, false, NULL, NULL },
	{ { "x", "--validate-config", "-h" }, true, MODE_HELP, false, false, NULL, NULL },
	{ { "x", "--launch", "f" }, true, MODE_LAUNCH, false, false, NULL, "f" },
	{ { "x", "--", "-f" }, true, MODE_RUN, false, false, NULL, "-f" },
	{ { "x", "--generate" }, false, MODE_RUN, false, false, NULL, NULL },
	{ { "x", "--validate-config", "--generate-config" }, false, MODE_RUN, false, false, NULL,
		NULL },
	{ { "x", "--validate-config=1" }, false, MODE_RUN, false, false, NULL, NULL },
	{ { "x", "--dsn" }, false, MODE_RUN, false, false, NULL, NULL },
	{ { "x", "--nonsense" }, false, MODE_RUN, false, false, NULL, NULL },
	{ { "x", "-x" }, false, MODE_RUN, false, false, NULL, NULL },
	{ { "x", "a", "b" }, false, MODE_RUN, false, false, NULL, NULL },
};

static void test_rows(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct options o;
		struct err err = ERR_INIT;
		int argc = 0;
		while (argc < 6 && rows[i].argv[argc] != NULL)
			argc++;
		enum err_code rc = options_parse(&o, argc, (char **)rows[i].argv, &err);
		assert_int_equal(rc == ERR_OK, rows[i].ok);
		if (rc != ERR_OK) {
			assert_true(err.text[0] != '\0');
			continue;
		}
		assert_int_equal(o.mode, rows[i].mode);
		assert_int_equal(o.ignore_listen_port, rows[i].ignore);
		assert_int_equal(o.print, rows[i].print);
		assert_true((o.dsn == NULL) == (rows[i].dsn == NULL));
		assert_true(o.dsn == NULL || strcmp(o.dsn, rows[i].dsn) == 0);
		assert_true((o.config == NULL) == (rows[i].config == NULL));
		assert_true(o.config == NULL || strcmp(o.config, rows[i].config) == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
