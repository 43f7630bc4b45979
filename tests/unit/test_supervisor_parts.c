/* The supervisor's pure parts: who is our postmaster, command line, arguments of jobs, exit
 * classes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "supervisor/adopt.h"
#include "supervisor/handover.h"
#include "supervisor/job.h"
#include "supervisor/launch.h"

/* ---- adoption ---- */

static void test_adopt_judge(void **state)
{
	(void)state;
	const struct msg_pmpid none = { 0 }, file = { .pid = 100, .start_time_s = 1000 },
			       single = { .pid = -100, .start_time_s = 1000 };
	const struct {
		const char *name;
		const struct msg_pmpid *file;
		struct adopt_facts f;
		enum adopt_verdict want;
	} rows[] = {
		{ "no file", &none, { .alive = true }, ADOPT_NONE },
		{ "dead", &file, { .alive = false }, ADOPT_STALE },
		{ "our own helper has that number", &file, { .alive = true, .related = true },
			ADOPT_STALE },
		{ "all proven", &file,
			{ .alive = true,
				.exe_known = true,
				.exe_is_postgres = true,
				.cwd_known = true,
				.cwd_is_data_dir = true,
				.start_known = true,
				.start_s = 5000 },
			ADOPT_OURS },
		{ "another program", &file,
			{ .alive = true, .exe_known = true, .start_known = true, .start_s = 1000 },
			ADOPT_STALE },
		{ "postgres of another directory", &file,
			{ .alive = true,
				.exe_known = true,
				.exe_is_postgres = true,
				.cwd_known = true,
				.start_known = true,
				.start_s = 1000 },
			ADOPT_STALE },
		{ "only the start time, equal", &file,
			{ .alive = true, .start_known = true, .start_s = 1000 }, ADOPT_OURS },
		{ "only the start time, 3 s off", &file,
			{ .alive = true, .start_known = true, .start_s = 997 }, ADOPT_OURS },
		{ "only the start time, 4 s off", &file,
			{ .alive = true, .start_known = true, .start_s = 1004 }, ADOPT_UNPROVEN },
		{ "nothing can be read", &file, { .alive = true }, ADOPT_UNPROVEN },
		{ "postgres, directory unknown, start off", &file,
			{ .alive = true,
				.exe_known = true,
				.exe_is_postgres = true,
				.start_known = true,
				.start_s = 2000 },
			ADOPT_UNPROVEN },
		{ "single-user server", &single,
			{ .alive = true,
				.exe_known = true,
				.exe_is_postgres = true,
				.cwd_known = true,
				.cwd_is_data_dir = true },
			ADOPT_UNPROVEN },
		{ "single-user server, nothing readable but its time", &single,
			{ .alive = true, .start_known = true, .start_s = 1000 }, ADOPT_UNPROVEN },
		{ "single-user server that is gone", &single, { .alive = false }, ADOPT_STALE },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		const char *why = NULL;
		enum adopt_verdict got = adopt_judge(rows[i].file, &rows[i].f, &why);
		if (got != rows[i].want)
			fail_msg("%s: got %d, want %d", rows[i].name, got, rows[i].want);
		assert_non_null(why);
		assert_true((got == ADOPT_UNPROVEN) == (why[0] != '\0'));
	}
}

/* ---- command line ---- */

static void test_launch_args(void **state)
{
	(void)state;
	const struct {
		char *argv[6];
		enum launch_mode want;
		const char *config, *user, *data_dir, *runtime_dir;
	} rows[] = {
		{ { "p", "a.yml" }, LAUNCH_RUN, "a.yml", NULL, NULL, NULL },
		{ { "p" }, LAUNCH_RUN, NULL, NULL, NULL, NULL },
		{ { "p", "--user", "pg", "a.yml" }, LAUNCH_RUN, "a.yml", "pg", NULL, NULL },
		{ { "p", "--user=pg", "--data-dir=/d", "a.yml", "--runtime-dir=/r" }, LAUNCH_RUN,
			"a.yml", "pg", "/d", "/r" },
		{ { "p", "--user" }, LAUNCH_USAGE, NULL, NULL, NULL, NULL },
		{ { "p", "--user=" }, LAUNCH_USAGE, NULL, NULL, NULL, NULL },
		{ { "p", "--users", "x" }, LAUNCH_EXEC_WORKER, NULL, NULL, NULL, NULL },
		{ { "p", "--version" }, LAUNCH_EXEC_WORKER, NULL, NULL, NULL, NULL },
		{ { "p", "--validate-config", "a.yml" }, LAUNCH_EXEC_WORKER, NULL, NULL, NULL,
			NULL },
		{ { "p", "a.yml", "b.yml" }, LAUNCH_EXEC_WORKER, NULL, NULL, NULL, NULL },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct launch l;
		struct err err = ERR_INIT;
		int argc = 0;
		while (argc < 6 && rows[i].argv[argc] != NULL)
			argc++;
		enum launch_mode got = launch_args(&l, argc, (char **)rows[i].argv, &err);
		assert_int_equal(got, rows[i].want);
		assert_true((got == LAUNCH_USAGE) == (err.text[0] != '\0'));
		if (got != LAUNCH_RUN)
			continue;
		const char *have[] = { l.config, l.user, l.data_dir_option, l.runtime_dir_option };
		const char *want[] = { rows[i].config, rows[i].user, rows[i].data_dir,
			rows[i].runtime_dir };
		for (unsigned k = 0; k < 4; k++) {
			assert_true((have[k] == NULL) == (want[k] == NULL));
			if (want[k] != NULL)
				assert_string_equal(have[k], want[k]);
		}
	}
}

/* ---- arguments of jobs ---- */

static void test_args_parse(void **state)
{
	(void)state;
	static struct args a;
	struct err err = ERR_INIT;
	char *base[] = { "PATH=/bin", "HOME=/h", "X=1", NULL };
	static const char good[] = "2\0prog\0arg\0X=2\0XY=3";
	assert_int_equal(args_parse(&a, good, sizeof(good), base, &err), ERR_OK);
	assert_string_equal(a.argv[0], "prog");
	assert_string_equal(a.argv[1], "arg");
	assert_null(a.argv[2]);
	/* What is given replaces what is there; nothing is doubled. */
	const char *want[] = { "X=2", "XY=3", "PATH=/bin", "HOME=/h" };
	for (unsigned i = 0; i < 4; i++)
		assert_string_equal(a.envp[i], want[i]);
	assert_null(a.envp[4]);
	static const char *const bad[] = { "", "0", "2\0only", "x\0prog", "-1\0prog" };
	static const size_t lens[] = { 0, 2, 7, 7, 8 };
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_not_equal(args_parse(&a, bad[i], lens[i], base, &err), ERR_OK);
	/* No final zero. */
	assert_int_not_equal(args_parse(&a, "1\0prog", 6, base, &err), ERR_OK);
	/* One string more than the limit. */
	static char many[2 * (LIMIT_ARGS + 2)];
	memset(many, 0, sizeof(many));
	many[0] = '1';
	assert_int_not_equal(args_parse(&a, many, LIMIT_ARGS + 2, base, &err), ERR_OK);
}

static void test_exit_class(void **state)
{
	(void)state;
	struct exit_info e = exit_of_status(7 << 8);
	assert_true(e.cls == EXIT_CLASS_CODE && e.code == 7);
	e = exit_of_status(9);
	assert_true(e.cls == EXIT_CLASS_SIGNAL && e.code == 9);
	assert_string_equal(exit_class_name(EXIT_CLASS_FENCED), "fenced");
	assert_string_equal(exit_class_name(99), "?");
}

static void test_upgrade_check(void **state)
{
	(void)state;
	static const char good[] = "pgregent upgrade ok proto=1 version=0.1.0\n";
	assert_true(handover_check_ok(good, sizeof(good) - 1));
	assert_false(handover_check_ok(good, 5));
	static const char other[] = "pgregent upgrade ok proto=10 version=0.1.0\n";
	assert_false(handover_check_ok(other, sizeof(other) - 1));
	assert_false(handover_check_ok("", 0));
	assert_false(handover_check_ok("something else that is long enough to be it", 43));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_adopt_judge),
		cmocka_unit_test(test_launch_args),
		cmocka_unit_test(test_args_parse),
		cmocka_unit_test(test_exit_class),
		cmocka_unit_test(test_upgrade_check),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
