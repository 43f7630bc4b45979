/* worker/ha: a node that has to follow, over several cycles: starts, rewinds, a standby cluster's
 * leader. */
#include "tests/unit/ha_fixture.h"

/* X76: pg_rewind does not agree with the check, which is made anew: a start would be the end of it.
 */
static void test_rewind_disagrees(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'd');
	fx_leader(f, "b");
	f->v.can_rewind = true;
	f->m.rewind_state = REWIND_NEED;
	f->files.control.state = PG_DB_SHUTDOWNED_IN_RECOVERY;
	fx_run(f);
	fx_expect_task(f, TASK_REWIND);
	f->v.rewind_check_again = true;
	fx_task_ends(f, TASK_REWIND, TASK_RESULT_NONE);
	fx_run(f);
	fx_expect_task(f, TASK_REWIND_CHECK);
	f->v.rewind_check_again = false;
	f->v.rewind_check_result = REWIND_CHECK;
	f->v.rewind_twin = true;
	fx_task_ends(f, TASK_REWIND_CHECK, TASK_RESULT_TRUE);
	fx_run(f);
	fx_expect(f, "X43");
	assert_null(fx_task(f));
	free(f);
}

/* The key of a standby cluster's bootstrap, and no race since: its leader is the one to promote. */
static void test_standby_cluster_promoted(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'R');
	fx_lock(f, LOCK_HELD);
	f->set.standby_cluster = true;
	FX_SET(f->set.standby_host, "remote");
	FX_SET(f->v.following, HA_TARGET_REMOTE);
	f->v.role = PG_ROLE_STANDBY_LEADER;
	f->m.lock_won = false;
	fx_run(f);
	fx_expect(f, "E4");
	f->set.standby_cluster = false;
	fx_run(f);
	fx_expect_task(f, TASK_PROMOTE);
	assert_null(fx_find(f, HA_RELEASE));
	free(f);
}

/* 'a' is started as a standby of `following` and does not accept connections. */
static struct fx *starting(enum ha_task task, const char *following)
{
	struct fx *f = fx_new();
	fx_pg(f, 'd');
	f->v.proc = PG_PROC_RUNNING;
	f->v.state = PG_STATE_STARTING;
	f->sql.failed_since_ms = FX_NOW - 1;
	f->v.task = task;
	fx_leader(f, "b");
	FX_SET(f->v.following, following);
	return f;
}

/* "a" leads a standby cluster, and its server is down. */
static struct fx *standby_leader_down(void)
{
	struct fx *f = fx_new();
	fx_pg(f, 'd');
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	f->set.standby_cluster = true;
	FX_SET(f->set.standby_host, "remote");
	return f;
}

/* X77: the WAL that a start waits for is with somebody whom it has not to follow any more. */
static void test_start_outdated(void **state)
{
	(void)state;
	static const struct {
		enum ha_task task;
		const char *following, *leader;
		bool remote, ends;
	} rows[] = {
		{ TASK_RESTART_AFTER_FAILURE, "b", "b", false, false },
		{ TASK_RESTART_AFTER_FAILURE, "c", "b", false, true },
		{ TASK_FOLLOW_AFTER_DEMOTION, "c", "b", false, true },
		{ TASK_CHANGE_CONNINFO, "c", "b", false, true },
		{ TASK_CLONE, "c", "b", false, true },
		{ TASK_REINIT, "", "b", false, true },
		/* nobody to follow instead: what is followed may come back */
		{ TASK_RESTART_AFTER_FAILURE, "b", "", false, false },
		/* no leader in a standby cluster: each follows the remote primary */
		{ TASK_RESTART_AFTER_FAILURE, "b", "", true, true },
		{ TASK_RESTART_AFTER_FAILURE, "b", "b", true, false },
		{ TASK_RESTART_AFTER_FAILURE, HA_TARGET_REMOTE, "", true, false },
		/* these wait for another end */
		{ TASK_RESTART, "c", "b", false, false },
		{ TASK_REWIND, "c", "b", false, false },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct fx *f = starting(rows[i].task, rows[i].following);
		fx_leader(f, rows[i].leader);
		FX_SET(f->v.following, rows[i].following);
		f->set.standby_cluster = rows[i].remote;
		FX_SET(f->set.standby_host, rows[i].remote ? "remote" : "");
		fx_run(f);
		if ((fx_find(f, HA_TASK_CANCEL) != NULL) != rows[i].ends)
			fail_msg("row %u: %s %s", i, f->plan.rule, f->plan.reason);
		fx_expect(f, rows[i].ends ? "X77" : "H5");
		free(f);
	}
}

/* What is not there yet, or has no address, is no reason; neither is anything in pause. */
static void test_start_goes_on(void **state)
{
	(void)state;
	struct fx *f = starting(TASK_RESTART_AFTER_FAILURE, "c");
	f->members[1].conn_url[0] = '\0';
	fx_run(f);
	fx_expect(f, "H5");
	free(f);
	static const enum pg_proc_state not_yet[] = { PG_PROC_NONE, PG_PROC_STARTING };
	for (unsigned i = 0; i < ARRAY_LEN(not_yet); i++) {
		f = starting(TASK_RESTART_AFTER_FAILURE, "c");
		f->v.proc = not_yet[i];
		fx_run(f);
		fx_expect(f, "H5");
		free(f);
	}
	f = starting(TASK_CHANGE_CONNINFO, "c");
	f->v.state = PG_STATE_STOPPING;
	fx_run(f);
	fx_expect(f, "H5");
	free(f);
	f = starting(TASK_RESTART_AFTER_FAILURE, "c");
	f->set.pause = true;
	fx_run(f);
	fx_expect(f, "H5");
	free(f);
}

/* After the wait the server, still starting, is told whom to follow: by a reload, or by a restart
 * where it would not hear of it. */
static void test_start_is_redirected(void **state)
{
	(void)state;
	for (int restart = 0; restart < 2; restart++) {
		struct fx *f = starting(TASK_RESTART_AFTER_FAILURE, "b");
		fx_leader(f, "");
		FX_SET(f->v.following, "b");
		f->set.standby_cluster = true;
		FX_SET(f->set.standby_host, "remote");
		f->m.rewind_state = REWIND_SUCCESS;
		f->m.recovering = true;
		f->v.can_rewind = true;
		f->v.recovery_needs_restart = restart;
		fx_run(f);
		fx_expect(f, "X77");
		fx_task_ends(f, TASK_RESTART_AFTER_FAILURE, TASK_RESULT_CANCELLED);
		fx_run(f);
		const struct ha_action *a = restart ? fx_task(f) : fx_find(f, HA_FOLLOW_RELOAD);
		assert_non_null(a);
		if (restart)
			fx_expect_task(f, TASK_CHANGE_CONNINFO);
		assert_string_equal(a->target, HA_TARGET_REMOTE);
		assert_null(fx_find(f, HA_ACQUIRE));
		free(f);
	}
}

/* X77: without anybody to follow, a server that starts keeps whom it has; one that runs is cut off.
 */
static void test_start_keeps_its_upstream(void **state)
{
	(void)state;
	static const char *const rules[] = { "C5", "C5", "C4" };
	for (unsigned kind = 0; kind < ARRAY_LEN(rules); kind++) {
		struct fx *f = starting(TASK_NONE, HA_TARGET_REMOTE);
		fx_leader(f, "");
		FX_SET(f->v.following, HA_TARGET_REMOTE);
		f->m.rewind_state = REWIND_INITIAL;
		if (kind == 1)
			f->set.tags.nostream = true;
		if (kind == 2) {
			fx_pg(f, 'R');
			f->set.tags.nofailover = true;
			f->m.race_wait_ms = f->v.now_ms - 2000; /* C4: two seconds for the others */
		}
		fx_run(f);
		fx_expect(f, rules[kind]);
		const struct ha_action *a = fx_find(f, HA_FOLLOW_RELOAD);
		if ((a == NULL) != (kind == 0))
			fail_msg("row %u: %s %s", kind, f->plan.rule, f->plan.reason);
		if (a != NULL)
			assert_string_equal(a->target, "");
		free(f);
	}
}

/* The leader of a standby cluster whose server starts without an upstream: its store was away when
 * it was started. */
static void test_standby_leader_starts(void **state)
{
	(void)state;
	struct fx *f = starting(TASK_FOLLOW_AFTER_DEMOTION, "");
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	FX_SET(f->v.following, "");
	f->v.role = PG_ROLE_STANDBY_LEADER;
	f->set.standby_cluster = true;
	FX_SET(f->set.standby_host, "remote");
	fx_run(f);
	fx_expect(f, "X77");
	fx_task_ends(f, TASK_FOLLOW_AFTER_DEMOTION, TASK_RESULT_CANCELLED);
	fx_run(f);
	fx_expect(f, "I5");
	assert_string_equal(fx_find(f, HA_FOLLOW_RELOAD)->target, HA_TARGET_REMOTE);
	assert_int_equal(fx_find(f, HA_FOLLOW_RELOAD)->role, PG_ROLE_STANDBY_LEADER);
	FX_SET(f->v.following, HA_TARGET_REMOTE);
	fx_run(f);
	fx_expect(f, "I5");
	assert_null(fx_find(f, HA_FOLLOW_RELOAD));
	/* The reload failed. */
	f->v.follow_known = false;
	fx_run(f);
	assert_non_null(fx_find(f, HA_FOLLOW_RELOAD));
	free(f);
	/* A leader that starts read-only (B6) follows nobody. */
	f = starting(TASK_RESTART_AFTER_FAILURE, "");
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	FX_SET(f->v.following, "");
	FX_SET(f->set.tags.replicatefrom, "c");
	fx_run(f);
	fx_expect(f, "H2");
	free(f);
	/* Not started without one: where the remote primary is does not stand in the store alone.
	 */
	f = standby_leader_down();
	f->v.store = STORE_FAILING;
	f->m.demoted = DEMOTE_CLUSTER;
	f->m.rewind_state = REWIND_SUCCESS;
	fx_run(f);
	fx_expect_task(f, TASK_FOLLOW_AFTER_DEMOTION);
	assert_string_equal(fx_task(f)->target, HA_TARGET_REMOTE);
	assert_int_equal(fx_task(f)->role, PG_ROLE_STANDBY_LEADER);
	free(f);
}

/* X78: a start that fails at once is not repeated at once, whatever keeps the check from being
 * made. */
static void test_start_fails(void **state)
{
	(void)state;
	for (int checking = 0; checking < 2; checking++) {
		struct fx *f = fx_new();
		fx_pg(f, 'd');
		fx_leader(f, "b");
		f->v.can_rewind = checking;
		f->m.rewind_state = checking ? REWIND_CHECK : REWIND_SUCCESS;
		f->m.rewind_checked_ms = f->v.now_ms;
		fx_run(f);
		fx_expect_task(f, TASK_RESTART_AFTER_FAILURE);
		f->v.now_ms += 15;
		fx_task_ends(f, TASK_RESTART_AFTER_FAILURE, TASK_RESULT_FALSE);
		f->m.rewind_checked_ms = f->v.now_ms;
		int64_t failed_ms = f->v.now_ms;
		fx_run(f);
		fx_expect(f, checking ? "X78" : "A11");
		assert_null(fx_task(f));
		f->v.now_ms += 15;
		fx_run(f);
		fx_expect(f, "X78");
		assert_null(fx_task(f));
		assert_true(f->plan.next_run_ms <= failed_ms + f->set.loop_wait_ms);
		f->v.now_ms = failed_ms + f->set.loop_wait_ms;
		f->m.rewind_checked_ms = f->v.now_ms;
		fx_run(f);
		fx_expect_task(f, TASK_RESTART_AFTER_FAILURE);
		free(f);
	}
}

/* The leader of a standby cluster as well; one that pg_rewind has mended is started at once. */
static void test_start_fails_elsewhere(void **state)
{
	(void)state;
	struct fx *f = standby_leader_down();
	f->v.can_rewind = true;
	f->m.recovering = true;
	f->m.rewind_state = REWIND_CHECK;
	f->m.rewind_checked_ms = f->v.now_ms;
	fx_task_ends(f, TASK_RESTART_AFTER_FAILURE, TASK_RESULT_FALSE);
	fx_run(f);
	fx_expect(f, "X78");
	assert_null(fx_task(f));
	f->v.now_ms += 10;
	fx_task_ends(f, TASK_REWIND, TASK_RESULT_TRUE);
	fx_run(f);
	fx_expect_task(f, TASK_RESTART_AFTER_FAILURE);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rewind_disagrees),
		cmocka_unit_test(test_standby_cluster_promoted),
		cmocka_unit_test(test_start_outdated),
		cmocka_unit_test(test_start_goes_on),
		cmocka_unit_test(test_start_is_redirected),
		cmocka_unit_test(test_start_keeps_its_upstream),
		cmocka_unit_test(test_standby_leader_starts),
		cmocka_unit_test(test_start_fails),
		cmocka_unit_test(test_start_fails_elsewhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
