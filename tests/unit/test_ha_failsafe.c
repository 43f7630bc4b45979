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
	for (int kind = 0; kind < 4; kind++) {
		struct fx *f = with_map("b", "c", false);
		fx_pg(f, 'R');
		fx_peer(f, "b", 900);
		fx_peer(f, "c", 900);
		fx_leader(f, "b");
		f->members[1].is_patroni = kind != 1;
		f->members[1].is_pgregent = kind == 1;
		fx_run(f);
		f->v.now_ms += 3 * f->set.ttl_ms - (kind == 2 ? 1 : 0);
		fx_run(f);
		if (kind == 3)
			f->c.failsafe_version++; /* another map */
		assert_int_equal(races(f), kind == 0);
		if (kind == 0) {
			f->set.failsafe_mode = true;
			assert_false(races(f));
		}
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
