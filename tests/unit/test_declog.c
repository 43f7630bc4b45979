/* Which decisions are logged: changes at once, the same again once in loop_wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "worker/declog.h"

#define WAIT 10000

struct row {
	int64_t at_ms;
	const char *owner, *reason;
	bool logged;
};

static void play(const struct row *rows)
{
	struct declog d = { 0 };
	for (; rows->reason != NULL; rows++) {
		bool got = declog_decision(&d, rows->owner, rows->reason, rows->at_ms, WAIT);
		if (got != rows->logged)
			print_error("at %lld: %s\n", (long long)rows->at_ms, rows->reason);
		assert_int_equal(got, rows->logged);
	}
}

static void test_decisions(void **state)
{
	(void)state;
	static const struct row same[] = {
		{ 1000, "n0", "no action rule=E4", true },
		{ 1010, "n0", "no action rule=E4", false },
		{ 5000, "n0", "no action rule=E4", false },
		{ 10400, "n0", "no action rule=E4", true }, /* a cycle that came a little early */
		{ 11000, "n0", "no action rule=E4", false },
		{ 20400, "n0", "no action rule=E4", true },
		{ 0, NULL, NULL, false },
	};
	static const struct row changed[] = {
		{ 1000, "n0", "following a leader (n0) rule=F9", true },
		{ 1010, "None", "following a leader (n0) rule=F9",
			true }, /* the owner is part of it */
		{ 1020, "None", "following a leader (n1) rule=F9",
			true }, /* so is a name's digit */
		{ 1030, "None", "following a leader (n1) rule=F9", false },
		{ 0, NULL, NULL, false },
	};
	static const struct row counting[] = {
		{ 1000, "n0", "starting up, 29 seconds until timeout rule=I5", true },
		{ 2000, "n0", "starting up, 28 seconds until timeout rule=I5", false },
		{ 3000, "n0", "starting up, 9 seconds until timeout rule=I5", false },
		{ 3010, "n0", "starting up, 9 seconds until failover rule=I5", true },
		{ 0, NULL, NULL, false },
	};
	play(same);
	play(changed);
	play(counting);
}

static unsigned flood(unsigned kinds, int64_t for_ms)
{
	struct declog d = { 0 };
	unsigned logged = 0;
	for (int64_t at_ms = 1000; at_ms < 1000 + for_ms; at_ms += 10) {
		char text[64];
		snprintf(text, sizeof(text), "decision x%u", (unsigned)(at_ms / 10 % kinds));
		logged += declog_decision(&d, "n0", text, at_ms, WAIT);
	}
	return logged;
}

/* Whatever comes and goes, a bounded number of lines is left; and never none. */
static void test_flood(void **state)
{
	(void)state;
	assert_int_equal(flood(1, WAIT / 2), 1);
	unsigned two = flood(2, WAIT / 2);
	assert_in_range(two, 3, 2 * DECLOG_TURNS);
	assert_in_range(flood(2, 6 * WAIT), 6, 7 * 2 * DECLOG_TURNS);
	assert_in_range(flood(3, 6 * WAIT), 6, 7 * 3 * DECLOG_TURNS);
}

static void test_notes(void **state)
{
	(void)state;
	struct declog d = { 0 };
	assert_true(declog_note(&d, "Member n1 is not reachable", 1000, WAIT));
	assert_true(declog_note(&d, "Member n2 is not reachable", 1000, WAIT));
	assert_false(declog_note(&d, "Member n1 is not reachable", 1200, WAIT));
	assert_false(declog_note(&d, "Member n2 is not reachable", 9000, WAIT));
	/* a note in between is no decision, and the other way round */
	assert_true(declog_decision(&d, "n0", "no action", 1000, WAIT));
	assert_false(declog_decision(&d, "n0", "no action", 1300, WAIT));
	assert_true(declog_note(&d, "Member n1 is not reachable", 11100, WAIT));
	/* more different lines than places: each is new again, none is lost */
	for (unsigned i = 0; i < 3 * DECLOG_LINES; i++) {
		char text[32];
		snprintf(text, sizeof(text), "line x%u", i);
		assert_true(declog_note(&d, text, 12000 + i, WAIT));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_decisions),
		cmocka_unit_test(test_flood), cmocka_unit_test(test_notes) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
