/* X71: who may stand on the map of failsafe mode, and whom it keeps from the race, when the mode is
 * switched off and on. */
#include "tests/unit/ha_fixture.h"

#define MAP_VERSION 40

static struct fx *with_map(const char *one, const char *two, bool mode)
{
	struct fx *f = fx_new();
	f->set.failsafe_mode = mode;
	f->m.ttl_most_ms = f->set.ttl_ms;
	f->c.failsafe_present = true;
	f->c.failsafe_count = 2;
	f->c.failsafe_version = MAP_VERSION;
	FX_SET(f->failsafe[0].name, one);
	FX_SET(f->failsafe[1].name, two);
	return f;
}

static struct fx *leader(bool mode)
{
	struct fx *f = with_map("a", "b", mode);
	fx_as_leader(f);
	return f;
}

static void cut_off(struct fx *f)
{
	f->v.store = STORE_FAILING;
	f->failsafe_ok = true;
	fx_lock(f, LOCK_UNCERTAIN);
	fx_run(f);
}

static bool decided(const struct fx *f, const char *rule)
{
	return strcmp(f->plan.rule, rule) == 0;
}

/* A leader that sees the mode off empties the map that it saw, and asks again when nothing came of
 * it. */
static void test_map_is_emptied(void **state)
{
	(void)state;
	struct fx *f = leader(false);
	fx_run(f);
	const struct ha_action *a = fx_find(f, HA_EMPTY_FAILSAFE);
	assert_non_null(a);
	assert_int_equal(a->version, MAP_VERSION);
	assert_null(fx_find(f, HA_WRITE_FAILSAFE));
	f->v.now_ms += 1000;
	fx_run(f);
	assert_null(fx_find(f, HA_EMPTY_FAILSAFE));
	f->v.now_ms += 5000;
	fx_run(f);
	assert_non_null(fx_find(f, HA_EMPTY_FAILSAFE));
	f->c.failsafe_version++;
	f->c.failsafe_count = 0;
	f->v.now_ms += 6000;
	fx_run(f);
	assert_null(fx_find(f, HA_EMPTY_FAILSAFE));
	free(f);
}

static void test_only_the_leader_empties(void **state)
{
	(void)state;
	struct fx *f = with_map("a", "b", false);
	fx_pg(f, 'R');
	fx_leader(f, "b");
	fx_run(f);
	assert_null(fx_find(f, HA_EMPTY_FAILSAFE));
	free(f);
	f = leader(false);
	fx_lock(f, LOCK_UNCERTAIN);
	fx_run(f);
	assert_null(fx_find(f, HA_EMPTY_FAILSAFE));
	free(f);
}

/* Switched on again: the request to empty it may still arrive, so that version carries nobody, and
 * is replaced although it reads the same. */
static void test_never_on_a_map_to_be_emptied(void **state)
{
	(void)state;
	struct fx *f = leader(false);
	fx_run(f);
	f->set.failsafe_mode = true;
	cut_off(f);
	assert_true(decided(f, "J2"));
	free(f);
	f = leader(false);
	fx_run(f);
	f->set.failsafe_mode = true;
	fx_run(f);
	const struct ha_action *a = fx_find(f, HA_WRITE_FAILSAFE);
	assert_non_null(a);
	assert_true(a->flag);
	f->c.failsafe_version++;
	fx_run(f);
	a = fx_find(f, HA_WRITE_FAILSAFE);
	assert_non_null(a);
	assert_false(a->flag);
	cut_off(f);
	assert_true(decided(f, "J1"));
	free(f);
}

/* The worker before this one may have asked: until the key is on our own lease its request can
 * still arrive. */
static void test_not_before_the_key_is_ours(void **state)
{
	(void)state;
	for (int held = 0; held < 2; held++) {
		struct fx *f = leader(true);
		f->m.lock_was_held = false;
		fx_lock(f, held ? LOCK_HELD : LOCK_UNCERTAIN);
		fx_run(f);
		cut_off(f);
		assert_true(decided(f, held ? "J1" : "J2"));
		free(f);
	}
}

static bool races(struct fx *f)
{
	fx_leader(f, "");
	f->action_count = 0;
	fx_run(f);
	return fx_find(f, HA_ACQUIRE) != NULL;
}

/* Whoever is not in it stays out while it is there, with the mode off too. */
static void test_map_counts_without_the_mode(void **state)
{
	(void)state;
	struct fx *f = with_map("b", "c", false);
	fx_pg(f, 'R');
	fx_peer(f, "b", 900);
	fx_peer(f, "c", 900);
	assert_false(races(f));
	assert_non_null(strstr(f->notes, "delete that key"));
	f->c.failsafe_count = 0;
	assert_true(races(f));
	free(f);
}

/* A leader of the reference leaves the map there; while it leads with the mode off it stands on
 * none. */
static void test_led_by_the_reference(void **state)
{
	(void)state;
	for (int kind = 0; kind < 5; kind++) {
		struct fx *f = with_map("b", "c", false);
		fx_pg(f, 'R');
		fx_peer(f, "b", 900);
		fx_peer(f, "c", 900);
		fx_leader(f, "b");
		f->members[1].is_patroni = kind != 1;
		f->members[1].is_pgregent = kind == 1;
		fx_run(f);
		int64_t whole = 3 * f->set.ttl_ms - (kind == 2 ? 1 : 0);
		for (int i = 0; i < 3; i++) {
			f->v.now_ms += whole / 3;
			/* What is only seen to lead may have lost the store long ago. */
			f->members[1].version_no += kind == 4 && i == 2 ? 0 : 1;
			fx_run(f);
		}
		if (kind == 3)
			f->c.failsafe_version++; /* another map */
		/* The tag that others see says the same. */
		assert_int_equal(!ha_effective_nofailover(&f->v, &f->m), kind == 0);
		assert_int_equal(races(f), kind == 0);
		if (kind == 0) {
			f->set.failsafe_mode = true;
			assert_false(races(f));
		}
		free(f);
	}
}

/* A worker that begins while the store is away. */
static struct fx *heir(int64_t emptied)
{
	struct fx *f = with_map("a", "b", true);
	fx_pg(f, 'P');
	fx_leader(f, "");
	f->c.member_count = 0;
	f->c.init_present = false;
	f->v.c_fresh = false;
	f->m.lock_was_held = false;
	fx_lock(f, LOCK_UNCERTAIN);
	failsafe_inherit(&f->m, emptied);
	assert_true(failsafe_inherit_sent(&f->m, "c", "http://c", f->v.now_ms));
	return f;
}

/* It waits for the store, and asks the members in time for the lease that it found. */
static void test_heir_goes_on(void **state)
{
	(void)state;
	struct fx *f = heir(0);
	f->failsafe_ok = true;
	fx_run(f);
	assert_true(decided(f, "X0"));
	assert_int_equal(f->plan.next_run_ms, f->v.gentle_at_ms - 4500);
	f->v.now_ms = f->plan.next_run_ms;
	f->action_count = 0;
	fx_run(f);
	assert_true(decided(f, "J1"));
	assert_non_null(fx_find(f, HA_FAILSAFE_HOLD));
	/* Whoever may be named by a write that the one before it sent is asked, too. */
	const struct ha_action *a = fx_find(f, HA_FAILSAFE_ROUND);
	assert_non_null(a);
	assert_int_equal(a->name_count, 1);
	free(f);
}

/* Nothing that says who may be in /failsafe, or the one before it had asked for an empty one. */
static void test_heir_of_nothing(void **state)
{
	(void)state;
	for (int kind = 0; kind < 4; kind++) {
		struct fx *f = heir(kind == 0 ? MAP_VERSION : 0);
		f->failsafe_ok = true;
		if (kind == 1)
			f->m.lock_was_held = false;
		if (kind == 2)
			f->c.failsafe_present = false;
		if (kind == 3)
			f->set.failsafe_mode = false;
		f->v.store = STORE_FAILING;
		fx_run(f);
		assert_true(decided(f, "J2"));
		assert_null(fx_find(f, HA_FAILSAFE_ROUND));
		free(f);
	}
}

static void test_what_is_left(void **state)
{
	(void)state;
	for (int kind = 0; kind < 5; kind++) {
		struct fx *f = leader(true);
		f->m.lock_was_held = kind != 1;
		f->set.failsafe_mode = kind != 2;
		f->c.failsafe_count = kind == 3 ? 0 : 2;
		f->v.role = kind == 4 ? PG_ROLE_REPLICA : PG_ROLE_PRIMARY;
		assert_int_equal(failsafe_bequeathed(&f->v, &f->m), kind == 0);
		free(f);
	}
}

/* One member did not say yes: asked once more while the lease lasts, then it ends (X75). */
static void test_asked_once_more(void **state)
{
	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		struct fx *f = leader(true);
		cut_off(f);
		assert_true(decided(f, "J1"));
		f->v.now_ms += 10000;
		f->failsafe_ok = false;
		fx_lock(f, LOCK_UNCERTAIN);
		if (kind == 2) /* the answers would come too late */
			f->v.gentle_at_ms = f->v.now_ms + 5499;
		fx_run(f);
		assert_true(decided(f, kind == 2 ? "J2" : "X75"));
		if (kind == 2) {
			free(f);
			continue;
		}
		assert_int_equal(f->plan.next_run_ms, f->v.now_ms + 1000);
		f->v.now_ms += 500;
		fx_run(f);
		assert_true(decided(f, "X75"));
		f->v.now_ms += 500;
		f->failsafe_ok = kind == 0;
		fx_run(f);
		assert_true(decided(f, kind == 0 ? "J1" : "J2"));
		free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map_is_emptied),
		cmocka_unit_test(test_only_the_leader_empties),
		cmocka_unit_test(test_never_on_a_map_to_be_emptied),
		cmocka_unit_test(test_not_before_the_key_is_ours),
		cmocka_unit_test(test_map_counts_without_the_mode),
		cmocka_unit_test(test_led_by_the_reference),
		cmocka_unit_test(test_heir_goes_on),
		cmocka_unit_test(test_heir_of_nothing),
		cmocka_unit_test(test_what_is_left),
		cmocka_unit_test(test_asked_once_more),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
