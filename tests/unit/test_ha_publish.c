/* A bootstrap whose last writes go unanswered (X45, X46, X49), and what is not tried at every look
 * (X47, X48): found by the simulator. */
#include "tests/unit/ha_fixture.h"

static struct fx *publishing(void)
{
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->m.bootstrapping = true;
	f->m.promote_result = TASK_RESULT_TRUE;
	f->c.init_present = true;
	f->c.init_version = 77;
	f->c.init[0] = '\0';
	return f;
}

/* X49 */
static void test_write_names_the_revision(void **state)
{
	(void)state;
	struct fx *f = publishing();
	fx_run(f);
	fx_expect(f, "L4");
	const struct ha_action *init = fx_find(f, HA_WRITE_INIT);
	assert_non_null(init);
	assert_false(init->create);
	assert_true(init->flag);
	assert_int_equal(init->version, 77);
	free(f);
}

/* X45 */
static void test_published_is_not_failed(void **state)
{
	(void)state;
	struct fx *f = publishing();
	f->m.publish_tried = true;
	FX_SET(f->c.init, f->v.system_id);
	fx_pg(f, 'd');
	fx_run(f);
	fx_expect(f, "X45");
	assert_false(f->m.bootstrapping);
	assert_null(fx_find(f, HA_CANCEL_INIT));
	assert_null(fx_find(f, HA_RENAME_FAILED));
	assert_null(fx_find(f, HA_EXIT));
	free(f);
}

/* X45, and the directory that could say which cluster it was is gone. Another's identifier is no
 * reason to go on, and not ours to remove. */
static void test_published_and_lost(void **state)
{
	(void)state;
	static const struct {
		const char *init, *rule;
		bool lost, cancels;
	} rows[] = {
		{ FX_SYSID, "X45", true, false },
		{ "", "L1", true, true },
		{ "7000000000000000009", "X45", true, false },
		{ "7000000000000000009", "L1", false, false },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct fx *f = publishing();
		f->m.publish_tried = true;
		FX_SET(f->c.init, rows[i].init);
		fx_pg(f, rows[i].lost ? 'E' : 'd');
		fx_run(f);
		if (strcmp(f->plan.rule, rows[i].rule) != 0)
			fail_msg("row %u: %s", i, f->plan.rule);
		assert_int_equal(fx_find(f, HA_CANCEL_INIT) != NULL, rows[i].cancels);
		assert_int_equal(f->m.bootstrapping, rows[i].cancels && f->m.bootstrapping);
		free(f);
	}
}

/* X45 of a standby leader, whose server runs on while it has lost the key. */
static void test_published_and_led_by_another(void **state)
{
	(void)state;
	for (int named = 0; named < 2; named++) {
		struct fx *f = publishing();
		f->set.standby_cluster = true;
		FX_SET(f->set.standby_host, "remote");
		fx_pg(f, 'R');
		f->v.role = PG_ROLE_STANDBY_LEADER;
		fx_leader(f, "b");
		fx_lock(f, LOCK_LOST);
		f->m.publish_tried = true;
		FX_SET(f->c.init, named ? f->v.system_id : "");
		f->take = HA_OUT_CONFLICT;
		fx_run(f);
		fx_expect(f, named ? "X45" : "L4");
		assert_int_equal(f->m.bootstrapping, !named);
		assert_int_equal(fx_find(f, HA_TAKE_LEADER) == NULL, named);
		free(f);
	}
}

static void test_unpublished_has_failed(void **state)
{
	(void)state;
	struct fx *f = publishing();
	f->m.publish_tried = true;
	fx_pg(f, 'd');
	fx_run(f);
	fx_expect(f, "L1");
	assert_non_null(fx_find(f, HA_CANCEL_INIT));
	free(f);
}

/* X46 */
static void test_no_clone_of_a_failed_one(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'E');
	f->c.init_present = false;
	f->c.init[0] = '\0';
	fx_leader(f, "b");
	fx_run(f);
	fx_expect(f, "K2");
	assert_null(fx_task(f));
	free(f);
}

/* X47 */
static void test_refused_promotion(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_replica(f);
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	f->m.lock_won = true;
	fx_run(f);
	fx_expect(f, "G5");
	f->v.task_ended = TASK_PROMOTE;
	f->v.task_result = TASK_RESULT_NONE;
	fx_run(f);
	fx_expect(f, "X47");
	assert_null(fx_task(f));
	assert_int_equal(f->plan.verdict, VERDICT_HOLD);
	assert_true(f->plan.next_run_ms > f->v.now_ms);
	f->v.task_ended = TASK_NONE;
	f->v.now_ms = f->plan.next_run_ms;
	fx_run(f);
	fx_expect(f, "G5");
	free(f);
}

/* X48 */
static void test_release_is_paced(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	fx_pg(f, 'd');
	f->m.demoted = DEMOTE_IMMEDIATE;
	fx_run(f);
	fx_expect(f, "X7");
	assert_non_null(fx_find(f, HA_RELEASE));
	fx_run(f);
	fx_expect(f, "X7");
	assert_null(fx_find(f, HA_RELEASE));
	assert_int_equal(f->plan.verdict, VERDICT_DROP);
	f->v.now_ms = f->plan.next_run_ms;
	fx_run(f);
	assert_non_null(fx_find(f, HA_RELEASE));
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_names_the_revision),
		cmocka_unit_test(test_published_is_not_failed),
		cmocka_unit_test(test_published_and_lost),
		cmocka_unit_test(test_published_and_led_by_another),
		cmocka_unit_test(test_unpublished_has_failed),
		cmocka_unit_test(test_no_clone_of_a_failed_one),
		cmocka_unit_test(test_refused_promotion),
		cmocka_unit_test(test_release_is_paced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
