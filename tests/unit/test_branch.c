/* Unit test of worker/postgres/branch.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/postgres/branch.h"

static const char leader[] = "1\t0/3000000\tno recovery target specified\n"
			     "\n"
			     "# a comment\n"
			     "2\t0/5000060\tno recovery target specified\n"
			     "4\t1/0\tafter LSN 1/0";

static void test_switch_point(void **state)
{
	(void)state;
	uint64_t lsn = 0;
	assert_true(branch_switch_point(leader, 1, &lsn) && lsn == 0x3000000);
	assert_true(branch_switch_point(leader, 4, &lsn) && lsn == 0x100000000);
	assert_false(branch_switch_point(leader, 3, &lsn));
	assert_false(branch_switch_point("", 1, &lsn));
	assert_false(branch_switch_point("1\tnonsense\tx\n", 1, &lsn));
	assert_true(lsn == 0x100000000);
}

static void test_same(void **state)
{
	const struct history_row two[] = { { .timeline = 1, .lsn = 0x416DF48 },
		{ .timeline = 2, .lsn = 0x4573120 } };
	(void)state;
	static const struct history_row one = { .timeline = 1, .lsn = 0x3000000 };
	struct history_row own[3] = { one, { .timeline = 2, .lsn = 0x5000060 },
		{ .timeline = 4, .lsn = 0x100000000 } };
	/* Timeline 5 of both; 4 and 2 on the way to it. */
	assert_true(branch_same(own, 3, leader, 5));
	/* As PostgreSQL writes them: an empty line before each row but the first. */
	assert_true(branch_same(two, 2,
		"1\t0/416DF48\tno recovery target specified\n\n"
		"2\t0/4573120\tno recovery target specified\n",
		3));
	assert_true(branch_same(own, 2, leader, 4));
	assert_true(branch_same(own, 1, leader, 2));
	assert_true(branch_same(NULL, 0, leader, 1));
	/* Another fork, by one record; one more fork; one less. */
	own[1].lsn += 8;
	assert_false(branch_same(own, 3, leader, 5));
	assert_false(branch_same(own, 2, leader, 4));
	assert_true(branch_same(own, 1, leader, 2));
	own[1] = (struct history_row){ .timeline = 3, .lsn = 0x5000060 };
	assert_false(branch_same(own, 3, leader, 5));
	assert_false(branch_same(&one, 1, leader, 5));
	own[1] = (struct history_row){ .timeline = 2, .lsn = 0x5000060 };
	assert_false(branch_same(own, 3, "1\t0/3000000\tx\n", 5));
	/* Forked straight from 1, twice. */
	assert_false(branch_same(&one, 1, "1\t0/2000000\tx\n", 2));
	assert_false(branch_same(&one, 1, "", 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switch_point),
		cmocka_unit_test(test_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
