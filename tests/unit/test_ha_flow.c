/* worker/ha over several cycles: what one decision leaves in the memory for the next. */
#include "tests/unit/ha_fixture.h"

static void peer_ready(struct fx *f)
{
	fx_peer(f, "b", 1000);
	fx_peer(f, "c", 1000);
}

static void switch_key(struct fx *f, const char *leader, const char *candidate)
{
	f->c.failover_present = f->c.failover_key_exists = true;
	f->c.failover_version = 5;
	FX_SET(f->c.failover_leader, leader);
	FX_SET(f->c.failover_candidate, candidate);
}

/* The old leader's side of a switchover, from the key to its start as a standby. */
static void test_switchover(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->v.can_rewind = true;
	switch_key(f, "a", "b");
	fx_streams(f, "b");
	peer_ready(f);
	fx_run(f);
	fx_expect(f, "E-M");
	const struct ha_action *demote = fx_task(f);
	assert_int_equal(demote->demote, DEMOTE_GRACEFUL);
	assert_false(demote->flag); /* nobody confirmed: not released */
	assert_string_equal(f->names[demote - f->actions], "b");
	f->v.task = TASK_DEMOTE;
	fx_run(f);
	fx_expect(f, "H2");
	assert_int_equal(f->plan.verdict, VERDICT_HOLD);
	/* Stopped and released; the snapshot still shows the old key: it is not taken back. */
	fx_task_ends(f, TASK_DEMOTE, TASK_RESULT_TRUE);
	fx_pg(f, 'd');
	f->v.role = PG_ROLE_DEMOTED;
	f->v.system_id[0] = '\0';
	FX_SET(f->v.system_id, FX_SYSID);
	f->files.control.state = PG_DB_SHUTDOWNED;
	fx_lock(f, LOCK_NONE);
	fx_run(f);
	fx_expect(f, "X2");
	assert_null(fx_find(f, HA_ACQUIRE));
	fx_leader(f, "");
	fx_run(f);
	fx_expect(f, "4.2"); /* two seconds for the others */
	assert_null(fx_task(f));
	assert_true(f->plan.next_run_ms > f->v.now_ms && f->plan.next_run_ms <= f->v.now_ms + 2000);
	fx_leader(f, "b");
	fx_run(f);
	fx_expect_task(f, TASK_REWIND_CHECK);
	f->v.rewind_check_result = REWIND_NOT_NEED;
	fx_task_ends(f, TASK_REWIND_CHECK, TASK_RESULT_TRUE);
	fx_run(f);
	fx_expect_task(f, TASK_FOLLOW_AFTER_DEMOTION);
	assert_string_equal(fx_task(f)->target, "b");
	free(f);
}

static void test_switchover_needs_rewind(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'd');
	fx_leader(f, "b");
	f->v.can_rewind = true;
	f->m.demoted = DEMOTE_IMMEDIATE_NOLOCK;
	f->m.rewind_state = REWIND_CHECK;
	fx_run(f);
	fx_expect_task(f, TASK_REWIND_CHECK);
	f->v.rewind_check_result = REWIND_NEED;
	fx_task_ends(f, TASK_REWIND_CHECK, TASK_RESULT_TRUE);
	f->files.control.state = PG_DB_SHUTDOWNED_IN_RECOVERY;
	fx_run(f);
	fx_expect_task(f, TASK_REWIND);
	/* The leader had no checkpoint yet: not this time, and not in a busy loop. */
	fx_task_ends(f, TASK_REWIND, TASK_RESULT_NONE);
	fx_run(f);
	fx_expect(f, "6.5");
	assert_null(fx_task(f));
	f->v.now_ms += f->set.loop_wait_ms;
	fx_run(f);
	fx_expect_task(f, TASK_REWIND);
	fx_task_ends(f, TASK_REWIND, TASK_RESULT_TRUE);
	fx_run(f);
	fx_expect_task(f, TASK_FOLLOW_AFTER_DEMOTION);
	free(f);
}

static void test_bootstrap(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'E');
	fx_leader(f, "");
	f->c.init_present = f->c.config_present = false;
	f->c.init[0] = '\0';
	f->c.history_present = false;
	fx_run(f);
	fx_expect_task(f, TASK_BOOTSTRAP);
	f->c.init_present = true;
	f->v.task = TASK_BOOTSTRAP;
	fx_run(f);
	fx_expect(f, "H5");
	fx_task_ends(f, TASK_BOOTSTRAP, TASK_RESULT_TRUE);
	fx_pg(f, 'P');
	FX_SET(f->v.system_id, FX_SYSID);
	f->files.dir_empty = false;
	f->v.callbacks_called = false;
	fx_run(f);
	fx_expect_task(f, TASK_POST_BOOTSTRAP);
	fx_task_ends(f, TASK_POST_BOOTSTRAP, TASK_RESULT_TRUE);
	f->set.sync_mode = SYNC_PRIORITY;
	f->set.sync_strict = true;
	fx_run(f);
	fx_expect(f, "L4");
	const struct ha_action *init = fx_find(f, HA_WRITE_INIT),
			       *take = fx_find(f, HA_TAKE_LEADER);
	assert_true(init != NULL && take != NULL && init < take);
	assert_true(fx_find(f, HA_SET_SSN)->ssn.placeholder);
	assert_int_equal(fx_find(f, HA_CALLBACK)->callback, CB_ON_START);
	assert_false(f->m.bootstrapping);
	free(f);
}

static void test_bootstrap_fails(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'd');
	fx_leader(f, "");
	f->m.bootstrapping = true;
	f->c.init[0] = '\0';
	fx_task_ends(f, TASK_BOOTSTRAP, TASK_RESULT_FALSE);
	fx_run(f);
	fx_expect(f, "L1");
	assert_non_null(fx_find(f, HA_CANCEL_INIT));
	assert_non_null(fx_find(f, HA_RENAME_FAILED));
	assert_int_equal(fx_find(f, HA_EXIT)->code, 1);
	free(f);
}

/* X30: its primary stops, and the cluster that never was is cleared away. */
static void test_bootstrap_demoted(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'R');
	fx_leader(f, "");
	f->m.bootstrapping = true;
	f->c.init[0] = '\0';
	fx_task_ends(f, TASK_DEMOTE, TASK_RESULT_TRUE);
	fx_run(f);
	fx_expect(f, "L1");
	assert_null(fx_find(f, HA_EXIT));
	fx_pg(f, 'd');
	/* The key stays until the store is there again, and nothing is started meanwhile. */
	f->m.demoted = DEMOTE_OFFLINE;
	f->v.store = STORE_FAILING;
	fx_run(f);
	fx_expect(f, "X30");
	assert_null(fx_task(f));
	f->v.store = STORE_OK;
	f->m.demoted = 0;
	fx_run(f);
	assert_non_null(fx_find(f, HA_RENAME_FAILED));
	assert_non_null(fx_find(f, HA_EXIT));
	free(f);
}

static void test_clone_again(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'E');
	fx_leader(f, "b");
	fx_run(f);
	fx_expect_task(f, TASK_CLONE);
	fx_task_ends(f, TASK_CLONE, TASK_RESULT_FALSE);
	fx_run(f);
	assert_null(fx_task(f));
	assert_true(f->plan.next_run_ms == f->v.now_ms + f->set.loop_wait_ms);
	f->v.now_ms += f->set.loop_wait_ms;
	fx_run(f);
	fx_expect_task(f, TASK_CLONE);
	free(f);
}

/* The store goes away and comes back while the key still carries my name. */
static void test_store_away(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	fx_run(f);
	assert_true(f->plan.next_run_ms ==
		    f->v.gentle_at_ms); /* asked again in time, whatever loop_wait is */
	f->v.store = STORE_FAILING;
	fx_lock(f, LOCK_UNCERTAIN);
	fx_run(f);
	fx_expect(f, "J2");
	assert_null(fx_task(f));
	assert_true(f->plan.next_run_ms == f->v.gentle_at_ms);
	f->v.now_ms = f->v.gentle_at_ms;
	fx_run(f);
	assert_int_equal(fx_task(f)->demote, DEMOTE_OFFLINE);
	assert_int_equal(f->plan.verdict, VERDICT_DROP);
	f->v.task = TASK_DEMOTE;
	fx_run(f);
	fx_expect(f, "J3");
	fx_task_ends(f, TASK_DEMOTE, TASK_RESULT_TRUE);
	fx_pg(f, 'd');
	fx_run(f);
	fx_expect_task(f, TASK_FOLLOW_AFTER_DEMOTION);
	assert_string_equal(fx_task(f)->target, "");
	fx_task_ends(f, TASK_FOLLOW_AFTER_DEMOTION, TASK_RESULT_TRUE);
	fx_pg(f, 'R');
	f->v.store = STORE_OK;
	fx_lock(f, LOCK_HELD);
	fx_run(f);
	fx_expect_task(f, TASK_PROMOTE);
	free(f);
}

/* Failsafe: a round each interval, and one bad answer ends it. */
static void test_failsafe_rounds(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->set.failsafe_mode = true;
	f->c.failsafe_present = true;
	f->c.failsafe_count = 2;
	FX_SET(f->failsafe[0].name, "a");
	FX_SET(f->failsafe[1].name, "b");
	f->v.store = STORE_FAILING;
	fx_lock(f, LOCK_UNCERTAIN);
	f->failsafe_ok = true;
	fx_run(f);
	fx_expect(f, "J1");
	const struct ha_action *hold = fx_find(f, HA_FAILSAFE_HOLD);
	assert_true(hold->until_ms == f->v.now_ms + f->set.ttl_ms);
	/* ha J1: the round's answers move the slots of cascading standbys. */
	assert_non_null(fx_find(f, HA_SYNC_SLOTS));
	f->v.now_ms += 5000;
	fx_run(f);
	fx_expect(f, "J1");
	assert_null(fx_find(f, HA_FAILSAFE_ROUND));
	f->v.now_ms += 5000;
	f->failsafe_ok = false;
	fx_run(f);
	assert_non_null(fx_find(f, HA_FAILSAFE_ROUND));
	fx_expect(f, "J2");
	assert_int_equal(fx_task(f)->demote, DEMOTE_OFFLINE);
	free(f);
}

static void lose_lock(struct fx *f)
{
	fx_leader(f, "b");
	fx_lock(f, LOCK_LOST);
}

/* The lock is lost while an answer is awaited: the stage is given up and X1 acts in the same call.
 */
static void test_lost_in_stage(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->set.watchdog_mode = WATCHDOG_REQUIRED;
	ha_step(&f->v, &f->m, NULL, &f->plan);
	assert_int_equal(f->plan.await, AWAIT_WATCHDOG);
	lose_lock(f);
	struct ha_result r = { .present = true, .outcome = HA_OUT_OK };
	ha_step(&f->v, &f->m, &r, &f->plan);
	fx_expect(f, "X1");
	free(f);
}

/* A crash while the question of a switchover is open: not a switchover any more. */
static void test_crash_in_stage(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	switch_key(f, "a", "b");
	fx_streams(f, "b");
	ha_step(&f->v, &f->m, NULL, &f->plan);
	assert_int_equal(f->plan.await, AWAIT_PEERS);
	fx_pg(f, 'D');
	fx_peer(f, "b", 1000);
	f->v.peers = f->peers;
	f->v.peer_count = 1;
	struct ha_result r = { .present = true, .outcome = HA_OUT_OK };
	ha_step(&f->v, &f->m, &r, &f->plan);
	fx_expect(f, "B2");
	free(f);
}

static void stays(struct fx *f)
{
	fx_leader(f, "a");
	f->c.leader_version++;
}

/* A key that always changes before it can be taken over: the cycle ends all the same. */
static void test_stage_bound(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'P');
	fx_leader(f, "a");
	f->acquire = HA_OUT_CONFLICT;
	f->on_reread = stays;
	fx_run(f);
	fx_expect(f, "X2");
	assert_true(f->stages <= 8);
	assert_int_equal(f->m.stage, 0);
	free(f);
}

static void pauses(struct fx *f)
{
	f->set.pause = true;
}

/* B5 asks for the cluster as it is now, and the answer tells of a pause: nothing starts any more.
 */
static void test_pause_meets_a_start(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'd');
	fx_leader(f, "b");
	f->on_reread = pauses;
	fx_run(f);
	fx_expect(f, "A16");
	assert_null(fx_find(f, HA_TASK_START));
	assert_true(f->stages >= 1);
	free(f);
}

static void test_foreign_key_was_old(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	fx_leader(f, "c");
	f->on_reread = stays;
	fx_run(f);
	fx_expect(f, "E4");
	assert_int_equal(f->plan.verdict, VERDICT_HOLD);
	free(f);
}

/* A write of /sync without an answer is made void before the setting may shrink (S7). */
static void test_sync_unknown(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->set.sync_mode = SYNC_PRIORITY;
	f->c.sync_key_exists = true;
	f->c.sync_version = 3;
	FX_SET(f->c.sync_leader, "a");
	FX_SET(f->voters[0], "b");
	f->c.sync_voter_count = 1;
	FX_SET(f->sql.synchronous_standby_names, "b");
	f->write_sync = HA_OUT_UNKNOWN;
	fx_run(f); /* b is gone: /sync must shrink, and nobody answers */
	assert_non_null(fx_find(f, HA_WRITE_SYNC));
	assert_null(fx_find(f, HA_SET_SSN));
	f->write_sync = HA_OUT_OK;
	fx_run(f);
	const struct ha_action *first = fx_find(f, HA_WRITE_SYNC);
	assert_string_equal(f->names[first - f->actions], "b"); /* the same again */
	const struct ha_action *set = fx_find(f, HA_SET_SSN);
	assert_true(set != NULL && set > first);
	assert_int_equal(f->c.sync_voter_count, 0);
	free(f);
}

static void test_manual_to_async(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'R');
	fx_leader(f, "");
	f->set.sync_mode = SYNC_PRIORITY;
	FX_SET(f->c.sync_leader, "b");
	FX_SET(f->voters[0], "a");
	f->c.sync_voter_count = 1;
	switch_key(f, "b", "c"); /* c is no voter: D7 keeps it out, so it is not waited for */
	fx_peer(f, "c", 1000);
	fx_run(f);
	assert_non_null(fx_find(f, HA_ACQUIRE));
	free(f);
}

static void test_leader_not_primary_yet(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_pg(f, 'R');
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	switch_key(f, "a", "b");
	fx_streams(f, "b");
	peer_ready(f);
	fx_run(f);
	fx_expect_task(f, TASK_PROMOTE);
	free(f);
}

static void test_resume(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->set.pause = true;
	f->v.watchdog_armed = true;
	fx_run(f);
	assert_non_null(fx_find(f, HA_WATCHDOG_OFF));
	f->set.pause = false;
	f->v.watchdog_armed = false;
	f->v.control_timeline = 0;
	fx_run(f);
	assert_non_null(fx_find(f, HA_FORGET_SLOTS));
	assert_non_null(fx_find(f, HA_CHECKPOINT)); /* 4.4 again */
	fx_run(f);
	assert_null(fx_find(f, HA_FORGET_SLOTS));
	free(f);
}

static void test_slots_and_callback(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_replica(f);
	f->v.callbacks_called = false;
	f->v.slots_to_copy = 1;
	fx_run(f);
	fx_expect(f, "A18");
	fx_expect_task(f, TASK_COPY_SLOTS);
	assert_int_equal(fx_find(f, HA_CALLBACK)->callback, CB_ON_START);
	f->v.task = TASK_COPY_SLOTS;
	fx_run(f);
	fx_expect(f, "H5");
	free(f);
}

static void test_restart_of_voter(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_replica(f);
	f->set.sync_mode = SYNC_PRIORITY;
	FX_SET(f->c.sync_leader, "b");
	FX_SET(f->voters[0], "A"); /* names in sync code have no case */
	f->c.sync_voter_count = 1;
	f->v.request.restart = true;
	fx_run(f);
	assert_null(fx_task(f));
	assert_true(ha_effective_nosync(&f->v, &f->m));
	f->v.now_ms += 2 * f->set.loop_wait_ms; /* nobody released it: bounded */
	fx_run(f);
	fx_expect_task(f, TASK_RESTART);
	f->v.request.restart = false;
	fx_task_ends(f, TASK_RESTART, TASK_RESULT_TRUE);
	fx_run(f);
	assert_false(ha_effective_nosync(&f->v, &f->m));
	free(f);
}

/* The wait for the release takes longer than a schedule may be in the past (1.5 loop_wait), and
 * what is withdrawn meanwhile leaves nothing behind: a standby that nobody may wait for holds up
 * strict mode. */
static void test_scheduled_restart_of_voter(void **state)
{
	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		struct fx *f = fx_new();
		fx_as_replica(f);
		f->set.sync_mode = SYNC_PRIORITY;
		FX_SET(f->c.sync_leader, "b");
		FX_SET(f->voters[0], "a");
		f->c.sync_voter_count = 1;
		f->v.request.scheduled_restart = true;
		f->v.request.scheduled_restart_at_wall_us = f->v.wall_us - 1000000;
		fx_run(f);
		fx_expect(f, "N1");
		assert_true(ha_effective_nosync(&f->v, &f->m));
		f->v.now_ms += 2 * f->set.loop_wait_ms;
		f->v.wall_us += 2 * f->set.loop_wait_ms * 1000;
		if (kind == 1)
			f->v.request.scheduled_restart = false;
		if (kind == 2) /* another time instead */
			f->v.request.scheduled_restart_at_wall_us =
				f->v.wall_us + 3600 * INT64_C(1000000);
		fx_run(f);
		if (kind == 0) {
			fx_expect_task(f, TASK_RESTART);
		} else {
			fx_expect(f, "E6");
			assert_null(fx_task(f));
			assert_false(ha_effective_nosync(&f->v, &f->m));
		}
		free(f);
	}
}

/* Random facts: whatever the view says, a call ends in a decision, within the bounds, and never
 * starts a task and releases the key while PostgreSQL may write. */
static void test_any_facts(void **state)
{
	(void)state;
	uint64_t seed = 88172645463325252u;
	struct fx *f = fx_new();
	for (unsigned i = 0; i < 60000; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		uint64_t x = seed;
		static const char *const names[] = { "", "a", "b", "c" };
		fx_pg(f, "PRDdSE"[x % 6]);
		if (f->v.system_id[0] == '\0' && (x >> 3 & 7))
			FX_SET(f->v.system_id, FX_SYSID);
		f->files.dir_empty = (x >> 6 & 63) == 0;
		fx_leader(f, names[x >> 12 & 3]);
		fx_lock(f, (enum ha_lock)(x >> 14 & 3));
		f->v.store = (x >> 16 & 7) == 0 ? STORE_FAILING : STORE_OK;
		f->set.pause = (x >> 19 & 7) == 0;
		f->set.sync_mode = (enum sync_mode)((x >> 22) % 3);
		f->set.failsafe_mode = x >> 24 & 1;
		f->set.standby_cluster = (x >> 25 & 7) == 0;
		f->v.can_rewind = x >> 28 & 1;
		f->c.failover_present = (x >> 29 & 7) == 0;
		FX_SET(f->c.failover_leader, names[x >> 32 & 3]);
		FX_SET(f->c.failover_candidate, names[x >> 34 & 3]);
		FX_SET(f->c.sync_leader, names[x >> 36 & 3]);
		f->v.task = (x >> 38 & 7) == 0 ? (enum ha_task)((x >> 41) % TASK_COUNT) : TASK_NONE;
		f->v.task_ended =
			f->v.task == TASK_NONE ? (enum ha_task)((x >> 41) % TASK_COUNT) : TASK_NONE;
		f->v.task_result = (enum ha_task_result)(x >> 46 & 3);
		f->v.request.shutdown = (x >> 48 & 63) == 0;
		f->v.request.restart = (x >> 50 & 31) == 0;
		f->v.request.reinit = (x >> 51 & 31) == 0;
		f->acquire = f->write_sync = f->reread = (enum ha_outcome)(1 + (x >> 56 & 3));
		f->peer_count = 0;
		fx_peer(f, "b", 900 + (x >> 58 & 1) * 200);
		f->v.now_ms += 1 + (int64_t)(x >> 40 & 8191);
		fx_run(f);
		bool running = f->v.proc != PG_PROC_NONE,
		     writes = running && !f->sql.in_recovery && f->sql.valid;
		if (fx_find(f, HA_RELEASE) != NULL && writes && !f->set.pause &&
			f->v.store == STORE_OK)
			fail_msg("%u: key released while PostgreSQL writes: %s", i, f->plan.reason);
		if (f->plan.verdict == VERDICT_HOLD && fx_find(f, HA_RELEASE) != NULL &&
			!f->v.request.shutdown)
			fail_msg("%u: released and held: %s", i, f->plan.reason);
	}
	free(f);
}

/* A fence without its proof: the key is kept for a moment, then left to run out (V2, S2). */
static void test_fence_without_proof(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_leader(f);
	fx_pg(f, 'D');
	f->v.proc = PG_PROC_FENCING;
	fx_run(f);
	fx_expect(f, "X4");
	assert_int_equal(f->plan.verdict, VERDICT_HOLD);
	f->v.now_ms += f->set.ttl_ms;
	fx_lock(f, LOCK_HELD);
	fx_run(f);
	assert_int_equal(f->plan.verdict, VERDICT_DROP);
	assert_null(fx_find(f, HA_RELEASE));
	assert_null(fx_find(f, HA_TOUCH_MEMBER)); /* it may share the leader key's session */
	f->v.proc = PG_PROC_NONE;
	fx_run(f);
	assert_int_equal(f->m.fencing_ms, 0);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switchover),
		cmocka_unit_test(test_switchover_needs_rewind),
		cmocka_unit_test(test_bootstrap),
		cmocka_unit_test(test_bootstrap_fails),
		cmocka_unit_test(test_bootstrap_demoted),
		cmocka_unit_test(test_clone_again),
		cmocka_unit_test(test_store_away),
		cmocka_unit_test(test_failsafe_rounds),
		cmocka_unit_test(test_lost_in_stage),
		cmocka_unit_test(test_crash_in_stage),
		cmocka_unit_test(test_stage_bound),
		cmocka_unit_test(test_foreign_key_was_old),
		cmocka_unit_test(test_pause_meets_a_start),
		cmocka_unit_test(test_sync_unknown),
		cmocka_unit_test(test_manual_to_async),
		cmocka_unit_test(test_leader_not_primary_yet),
		cmocka_unit_test(test_resume),
		cmocka_unit_test(test_slots_and_callback),
		cmocka_unit_test(test_restart_of_voter),
		cmocka_unit_test(test_scheduled_restart_of_voter),
		cmocka_unit_test(test_fence_without_proof),
		cmocka_unit_test(test_any_facts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
