/* What /sync promised must hold whatever changed since: the mode (X28, X29), the store that does
 * not answer (X27), who may lead at all (X26), and the way to the promotion (X44). */
#include "tests/unit/ha_fixture.h"

#include "worker/ha/sync_state.h"

static void sender(struct fx *f, const char *name, const char *state, uint64_t lsn)
{
	struct pg_walsender *w = &f->senders[f->sql.walsender_count++];
	memset(w, 0, sizeof(*w));
	FX_SET(w->application_name, name);
	FX_SET(w->sync_state, state);
	w->write_lsn = w->flush_lsn = w->replay_lsn = lsn;
}

static void promised(struct fx *f, const char *leader, int quorum, const char *one, const char *two)
{
	f->c.sync_key_exists = true;
	f->c.sync_version = 3;
	FX_SET(f->c.sync_leader, leader);
	f->c.sync_quorum = quorum;
	FX_SET(f->voters[0], one);
	FX_SET(f->voters[1], two);
	f->c.sync_voter_count = (one[0] != '\0') + (two[0] != '\0');
}

static struct fx *leader(const char *ssn, int quorum, uint64_t c_lsn)
{
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->set.sync_mode = SYNC_PRIORITY;
	f->set.sync_node_count = 2;
	FX_SET(f->sql.synchronous_standby_names, ssn);
	promised(f, "a", quorum, "b", "c");
	sender(f, "b", "sync", 1000);
	sender(f, "c", "sync", c_lsn);
	return f;
}

static struct fx *racer(
	enum sync_mode mode, const char *sync_leader, int quorum, const char *one, const char *two)
{
	struct fx *f = fx_new();
	fx_pg(f, 'R');
	fx_leader(f, "");
	f->set.sync_mode = mode;
	promised(f, sync_leader, quorum, one, two);
	return f;
}

static bool wins(struct fx *f)
{
	fx_run(f);
	bool won = fx_find(f, HA_ACQUIRE) != NULL;
	free(f);
	return won;
}

/* X28: priority mode, but the leader left "one vote of these two". */
static void test_votes_outlive_the_mode(void **state)
{
	(void)state;
	assert_false(wins(racer(SYNC_PRIORITY, "b", 1, "a", "c")));
	struct fx *f = racer(SYNC_PRIORITY, "b", 1, "a", "c");
	fx_peer(f, "c", 1000);
	assert_true(wins(f));
	assert_true(wins(racer(SYNC_PRIORITY, "b", 0, "a", "c")));
	assert_true(wins(racer(SYNC_OFF, "b", 1, "a", "c")));
}

static void expect_write(struct fx *f, const char *voters, int quorum)
{
	fx_run(f);
	const struct ha_action *write = fx_find(f, HA_WRITE_SYNC);
	assert_non_null(write);
	/* the last one counts */
	for (unsigned i = 0; i < f->action_count; i++)
		write = f->actions[i].kind == HA_WRITE_SYNC ? &f->actions[i] : write;
	assert_string_equal(f->names[write - f->actions], voters);
	assert_int_equal(write->quorum, quorum);
	free(f);
}

/* ... and the votes go once each of them has all. */
static void test_votes_end(void **state)
{
	(void)state;
	struct fx *f = leader("2 (b,c)", 1, 1000);
	expect_write(f, "b,c", 0);
	f = leader("2 (b,c)", 0, 1000);
	fx_run(f);
	assert_null(fx_find(f, HA_WRITE_SYNC));
	free(f);
}

/* X29: c was ready under ANY 1, or is a voter among two, and lacks what b confirmed since. */
static void test_ready_anew(void **state)
{
	(void)state;
	struct fx *f = leader("2 (b,c)", 0, 900);
	promised(f, "a", 0, "", "");
	FX_SET(f->m.last_ssn, "ANY 1 (b,c)");
	FX_SET(f->m.ready[0], "b");
	FX_SET(f->m.ready[1], "c");
	f->m.ready_count = 2;
	expect_write(f, "b", 0);
	expect_write(leader("2 (b,c)", 1, 900), "b", 0);
	/* A voter without votes has all: it stays through a restart of the worker. */
	f = leader("2 (b,c)", 0, 900);
	fx_run(f);
	assert_null(fx_find(f, HA_WRITE_SYNC));
	free(f);
	/* ANY 2 of two is no less than priority. */
	f = leader("2 (b,c)", 0, 900);
	promised(f, "a", 0, "b", "");
	FX_SET(f->m.last_ssn, "ANY 2 (b,c)");
	FX_SET(f->m.ready[0], "c");
	f->m.ready_count = 1;
	expect_write(f, "b,c", 0);
}

/* X27: the placeholder goes out before anything that may have to wait for the store. */
static void test_strict_first(void **state)
{
	(void)state;
	enum sync_mode modes[] = { SYNC_PRIORITY, SYNC_QUORUM };
	for (unsigned i = 0; i < 2; i++) {
		struct fx *f = leader("", 0, 1000);
		promised(f, "", 0, "", "");
		f->c.sync_key_exists = false;
		f->set.sync_mode = modes[i];
		f->set.sync_strict = true;
		f->write_sync = HA_OUT_UNKNOWN;
		fx_run(f);
		const struct ha_action *set = fx_find(f, HA_SET_SSN),
				       *write = fx_find(f, HA_WRITE_SYNC);
		assert_true(set != NULL && write != NULL && set < write);
		assert_true(set->ssn.placeholder && set->ssn.n == 1 && set->name_count == 0);
		f->set.sync_strict = false;
		f->m.ssn_asked_hash = 0;
		fx_run(f);
		set = fx_find(f, HA_SET_SSN);
		assert_true(set == NULL || !set->ssn.placeholder);
		free(f);
	}
}

static void map(struct fx *f, const char *one, const char *two)
{
	f->set.failsafe_mode = true;
	f->c.failsafe_present = true;
	f->c.failsafe_count = 2;
	FX_SET(f->failsafe[0].name, one);
	FX_SET(f->failsafe[1].name, two);
}

static void request(struct fx *f, const char *leader_name, const char *candidate)
{
	f->c.failover_present = f->c.failover_key_exists = true;
	FX_SET(f->c.failover_leader, leader_name);
	FX_SET(f->c.failover_candidate, candidate);
}

/* X26: b is ahead and a voter, but it may not lead. */
static void test_barred_peer(void **state)
{
	(void)state;
	for (int barred = 0; barred < 2; barred++) {
		struct fx *f = racer(SYNC_QUORUM, "c", 0, "a", "b");
		map(f, "a", barred ? "c" : "b");
		fx_peer(f, "b", 5000);
		assert_int_equal(wins(f), barred);
		/* One vote short: it is not made up for. */
		f = racer(SYNC_QUORUM, "c", 1, "a", "b");
		map(f, "a", barred ? "c" : "b");
		fx_peer(f, "b", 5000);
		assert_false(wins(f));
		/* The same by its timeline; a member of the reference shows no tag in any mode. */
		static const enum sync_mode modes[] = { SYNC_QUORUM, SYNC_PRIORITY, SYNC_OFF };
		for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
			f = racer(modes[i], "c", 0, "a", "b");
			f->set.check_timeline = barred;
			f->sql.timeline = 2;
			f->c.history_count = 1;
			f->history[0] = (struct history_row){ .timeline = 1, .lsn = 6000 };
			fx_peer(f, "b", 5000);
			assert_int_equal(wins(f), barred);
		}
		/* A switchover whose leader died waits for nobody who cannot follow it. */
		f = racer(SYNC_QUORUM, "a", 0, "b", "");
		map(f, "a", barred ? "c" : "b");
		request(f, "a", "");
		fx_peer(f, "b", 1000);
		assert_int_equal(wins(f), barred);
		/* ... or is on a branch that ended before. */
		f = racer(SYNC_QUORUM, "a", 0, "b", "");
		f->sql.timeline = 2;
		f->c.history_count = 1;
		f->history[0] = (struct history_row){ .timeline = 1, .lsn = 900 };
		request(f, "a", "");
		fx_peer(f, "b", barred ? 901 : 900);
		assert_int_equal(wins(f), barred);
		f = racer(SYNC_QUORUM, "c", 0, "a", "b");
		map(f, "a", barred ? "c" : "b");
		request(f, "c", "b");
		fx_peer(f, "b", 1000);
		assert_int_equal(wins(f), barred);
	}
}

/* X44: the key is ours, the position went past the end of the timeline since. */
static void test_dead_end(void **state)
{
	(void)state;
	for (uint64_t end = 999; end <= 1000; end++) {
		struct fx *f = fx_new();
		fx_pg(f, 'R');
		fx_leader(f, "a");
		fx_lock(f, LOCK_HELD);
		f->c.history_count = 1;
		f->history[0] = (struct history_row){ .timeline = 1, .lsn = end };
		fx_run(f);
		const struct ha_action *task = fx_task(f);
		if (end == 999) {
			assert_null(task);
			assert_string_equal(f->plan.rule, "X44");
			assert_non_null(fx_find(f, HA_RELEASE));
			assert_int_equal(f->plan.verdict, VERDICT_DROP);
		} else {
			assert_non_null(task);
			assert_int_equal(task->task, TASK_PROMOTE);
			assert_int_equal(task->lsn, 1000); /* not from past there */
		}
		free(f);
	}
}

/* X51: while the request for the key was on its way, c led and acknowledged. */
static void another_led(struct fx *f)
{
	if (fx_find(f, HA_ACQUIRE) == NULL || str_eq(f->c.sync_leader, "c"))
		return;
	FX_SET(f->c.sync_leader, "c");
	f->c.sync_version++;
}

static void test_late_key(void **state)
{
	(void)state;
	for (int moved = 0; moved < 2; moved++) {
		struct fx *f = racer(SYNC_PRIORITY, "b", 0, "a", "c");
		f->on_plan = moved ? another_led : NULL;
		fx_run(f);
		assert_non_null(fx_find(f, HA_ACQUIRE));
		assert_string_equal(f->plan.rule, moved ? "X18" : "G5");
		assert_true((fx_find(f, HA_RELEASE) != NULL) == (moved == 1));
		assert_true((fx_task(f) == NULL) == (moved == 1));
		free(f);
	}
	/* C was older than the key: /sync refuses the first write, and the next cycle sees why. */
	struct fx *f = racer(SYNC_PRIORITY, "b", 0, "a", "c");
	f->write_sync = HA_OUT_CONFLICT;
	fx_run(f);
	assert_null(fx_task(f));
	FX_SET(f->c.sync_leader, "c");
	f->c.sync_version++;
	f->write_sync = HA_OUT_OK;
	fx_run(f);
	assert_null(fx_task(f));
	assert_string_equal(f->plan.rule, "X18");
	free(f);
}

/* X52: the mode changes while peers are asked; in priority mode a stranger needs no votes, but may
 * not run at all (D10). */
static void to_priority(struct fx *f)
{
	if (fx_find(f, HA_POLL_PEERS) != NULL)
		f->set.sync_mode = SYNC_PRIORITY;
}

static void test_mode_changes_in_a_poll(void **state)
{
	(void)state;
	for (int changes = 0; changes < 2; changes++) {
		struct fx *f = racer(SYNC_QUORUM, "b", 0, "c", "");
		fx_peer(f, "c", 1000);
		f->on_plan = changes ? to_priority : NULL;
		assert_int_equal(wins(f), !changes);
	}
}

/* X53 */
static void test_no_copy_before_promotion(void **state)
{
	(void)state;
	for (int promoted = 0; promoted < 2; promoted++) {
		struct fx *f = fx_new();
		fx_pg(f, 'E');
		fx_leader(f, "b");
		FX_SET(f->members[1].role, promoted ? "primary" : "replica");
		f->members[2].tags.clonefrom = true;
		fx_run(f);
		assert_string_equal(f->plan.rule, "K2");
		assert_true((fx_task(f) != NULL) == (promoted == 1));
		free(f);
	}
}

/* X67: refused, or fenced under a lease that we hold good. */
static void test_lease_is_proven_anew(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) {
		struct fx *f = fx_new();
		fx_pg(f, how < 2 ? 'R' : 'd');
		fx_leader(f, how % 2 ? "b" : "a");
		fx_lock(f, how % 2 ? LOCK_NONE : LOCK_HELD);
		f->v.task_ended = how < 2 ? TASK_PROMOTE : TASK_NONE;
		f->v.task_result = TASK_RESULT_NONE;
		f->v.proc = how < 2 ? f->v.proc : PG_PROC_FENCING;
		fx_run(f);
		assert_int_equal(fx_find(f, HA_RENEW) != NULL, how % 2 == 0);
		f->v.task_ended = TASK_NONE;
		fx_run(f);
		assert_null(fx_find(f, HA_RENEW));
		free(f);
	}
}

/* X63: strict mode needs no store to let nothing through. */
static void test_strict_without_a_store(void **state)
{
	(void)state;
	for (int kind = 0; kind < 4; kind++) {
		int strict = kind & 1;
		struct fx *f = leader("", 0, 1000);
		f->set.sync_strict = strict == 1;
		if (kind < 2)
			f->v.store = STORE_FAILING;
		else
			fx_lock(f, LOCK_UNCERTAIN); /* only renewals go unanswered */
		fx_run(f);
		const struct ha_action *set = fx_find(f, HA_SET_SSN);
		assert_int_equal(set != NULL, strict);
		if (strict)
			assert_true(set->ssn.placeholder);
		assert_null(fx_find(f, HA_WRITE_SYNC));
		free(f);
	}
}

/* X54: the store is asked once in loop_wait while it counts as failing. */
static void test_failing_store_is_asked(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_replica(f);
	for (int i = 0; i < 4; i++) {
		f->v.store = i == 3 ? STORE_OK : STORE_FAILING;
		fx_run(f);
		assert_true((fx_find(f, HA_REREAD) != NULL) == (i == 0 || i == 2));
		f->v.now_ms += i == 0 ? f->set.loop_wait_ms - 1 : f->set.loop_wait_ms;
	}
	free(f);
}

/* X57: c is named and healthy, or could take over from me, and nobody leads. */
static void test_left_for_a_while(void **state)
{
	(void)state;
	const struct {
		const char *leader, *candidate;
		int64_t since_ms, version;
		bool wins;
	} rows[] = {
		{ "b", "c", FX_NOW - 29999, 5, false },
		{ "b", "c", FX_NOW - 30000, 5, true },
		{ "b", "c", FX_NOW - 30000, 4, false }, /* another request */
		{ "a", "", FX_NOW - 59999, 5, false },
		{ "a", "", FX_NOW - 60000, 5, true },
		{ "a", "c", FX_NOW - 30000, 5, true },
	};
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fx *f = racer(SYNC_OFF, "", 0, "", "");
		request(f, rows[i].leader, rows[i].candidate);
		f->c.failover_version = 5;
		fx_peer(f, "c", 1000);
		f->m.left_to_version = rows[i].version;
		f->m.left_to_ms = rows[i].since_ms;
		assert_int_equal(wins(f), rows[i].wins);
	}
	struct fx *f = fx_new();
	fx_as_replica(f);
	f->m.left_to_ms = 1;
	fx_run(f);
	assert_int_equal(f->m.left_to_ms, 0);
	free(f);
}

/* X58: I led when the request was made, b led after me. */
static void test_led_last(void **state)
{
	(void)state;
	for (int last = 0; last < 2; last++) {
		struct fx *f = racer(SYNC_QUORUM, last ? "a" : "b", 1, last ? "b" : "a", "c");
		request(f, "a", "");
		assert_int_equal(wins(f), last);
	}
	struct fx *f = racer(SYNC_QUORUM, "b", 1, "a", "c");
	request(f, "a", "");
	fx_peer(f, "c", 1000);
	assert_true(wins(f));
	f = racer(SYNC_OFF, "", 0, "", "");
	request(f, "a", "");
	f->c.history_count = 1;
	f->history[0] = (struct history_row){ .timeline = 1, .lsn = 999 };
	assert_false(wins(f));
}

/* X59: the candidate alone is not enough votes; c answers, or it is waited for, or it was. */
static void test_asks_the_voters_first(void **state)
{
	(void)state;
	const struct {
		bool c_answers, waited;
		bool steps_down, clears;
	} rows[] = {
		{ true, false, true, false },
		{ false, false, false, false },
		{ false, true, false, true },
	};
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fx *f = leader("ANY 1 (b,c)", 1, 1000);
		f->set.sync_mode = SYNC_QUORUM;
		f->set.sync_node_count = 1;
		request(f, "a", "b");
		f->c.failover_version = 5;
		f->m.stream_wait_version = 5;
		f->m.stream_wait_ms = rows[i].waited ? FX_NOW - 10000 : 0;
		fx_peer(f, "b", 1000);
		if (rows[i].c_answers)
			fx_peer(f, "c", 900);
		fx_run(f);
		assert_int_equal(strcmp(f->plan.rule, "E-M") == 0, rows[i].steps_down);
		assert_int_equal(fx_find(f, HA_CLEAR_FAILOVER) != NULL, rows[i].clears);
		free(f);
	}
}

/* X68: a vote from a later timeline is none; X20: the last leader knows by its own history file
 * that the other's branch has ended. */
static void test_later_timeline(void **state)
{
	(void)state;
	static struct history_row mine[] = { { .timeline = 1, .lsn = 900 } };
	for (int later = 0; later < 2; later++) {
		struct fx *f = racer(SYNC_QUORUM, "b", 1, "a", "c");
		fx_peer(f, "c", 800);
		f->peers[0].timeline = later ? 2 : 1;
		assert_int_equal(wins(f), !later);
	}
	for (int known = 0; known < 3; known++) {
		struct fx *f =
			racer(SYNC_QUORUM, known < 2 ? "a" : "c", 1, known < 2 ? "c" : "a", "b");
		f->sql.timeline = 2;
		fx_peer(f, "b", 5000);
		fx_peer(f, "c", 1000);
		f->peers[1].timeline = 2;
		f->v.local_history = mine;
		f->v.local_history_count = 1;
		f->v.local_history_tli = known > 0 ? 2 : 1;
		assert_int_equal(wins(f), known == 1);
	}
}

/* X69: in pause, too, a switchover does not promote whom /sync does not name. */
static void test_named_in_pause(void **state)
{
	(void)state;
	for (int voter = 0; voter < 2; voter++) {
		struct fx *f = racer(SYNC_PRIORITY, "b", 0, voter ? "a" : "c", "");
		f->set.pause = true;
		request(f, "b", "a");
		assert_int_equal(wins(f), voter);
	}
}

/* The vote of the one that gave way counts when others have led since. */
static void test_vote_of_the_former(void **state)
{
	(void)state;
	for (int answers = 0; answers < 2; answers++) {
		struct fx *f = racer(SYNC_QUORUM, "c", 1, "a", "b");
		request(f, "b", "a");
		if (answers)
			fx_peer(f, "b", 1000);
		assert_int_equal(wins(f), answers);
	}
}

/* X56 */
static void test_follows_nobody_first(void **state)
{
	(void)state;
	struct fx *f = racer(SYNC_OFF, "", 0, "", "");
	f->c.history_count = 1;
	f->history[0] = (struct history_row){ .timeline = 1, .lsn = 2000 };
	FX_SET(f->v.following, "b");
	fx_run(f);
	assert_string_equal(f->plan.rule, "X56");
	assert_non_null(fx_find(f, HA_FOLLOW_RELOAD));
	assert_string_equal(fx_find(f, HA_FOLLOW_RELOAD)->target, "");
	assert_null(fx_task(f));
	f->v.following[0] = '\0';
	f->v.recovery_settings_differ = f->v.recovery_needs_restart = true; /* before 13 */
	fx_run(f);
	assert_int_equal(fx_task(f)->task, TASK_CHANGE_CONNINFO);
	f->v.recovery_settings_differ = f->v.recovery_needs_restart = false;
	fx_run(f);
	assert_int_equal(fx_task(f)->task, TASK_PROMOTE);
	assert_int_equal(fx_task(f)->lsn, 2000);
	free(f);
}

/* In pause, too, where a leader that is no primary gives its key back (E2): this one is about to
 * be. */
static void test_follows_nobody_first_in_pause(void **state)
{
	(void)state;
	struct fx *f = racer(SYNC_OFF, "", 0, "", "");
	f->set.pause = true;
	f->c.failover_key_exists = f->c.failover_present = true;
	FX_SET(f->c.failover_candidate, "a");
	f->c.history_count = 1;
	f->history[0] = (struct history_row){ .timeline = 1, .lsn = 2000 };
	FX_SET(f->v.following, "b");
	fx_run(f);
	fx_expect(f, "X56");
	f->c.failover_key_exists = f->c.failover_present = false;
	f->c.failover_candidate[0] = '\0';
	fx_run(f);
	fx_expect(f, "X56");
	f->v.following[0] = '\0';
	fx_run(f);
	assert_null(fx_find(f, HA_RELEASE));
	fx_expect_task(f, TASK_PROMOTE);
	free(f);
}

/* X55: a frozen PostgreSQL has no position, so its member does not race, not for a switchover
 * either. */
static void test_no_race_without_an_answer(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct fx *f = racer(SYNC_OFF, "", 0, "", "");
		f->sql.valid = i < 2;
		if (i % 2 == 1) {
			f->c.failover_key_exists = f->c.failover_present = true;
			FX_SET(f->c.failover_leader, "b");
		}
		assert_true(wins(f) == (i < 2));
	}
}

/* H4 with no server: the role of before is no reason to cut a job short that works on its
 * directory; while one runs it is. */
static void test_jobs_on_the_directory_go_on(void **state)
{
	(void)state;
	static const enum ha_task tasks[] = { TASK_REWIND, TASK_CRASH_RECOVERY, TASK_CLONE,
		TASK_REINIT, TASK_RESTART };
	for (unsigned i = 0; i < ARRAY_LEN(tasks); i++) {
		struct fx *f = fx_new();
		fx_pg(f, tasks[i] == TASK_RESTART ? 'P' : 'D');
		fx_leader(f, "b");
		f->v.task = tasks[i];
		fx_run(f);
		const struct ha_action *t = fx_task(f);
		bool demoted = t != NULL && t->task == TASK_DEMOTE;
		assert_true(demoted == (tasks[i] == TASK_RESTART));
		free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_votes_outlive_the_mode),
		cmocka_unit_test(test_votes_end),
		cmocka_unit_test(test_ready_anew),
		cmocka_unit_test(test_strict_first),
		cmocka_unit_test(test_barred_peer),
		cmocka_unit_test(test_dead_end),
		cmocka_unit_test(test_late_key),
		cmocka_unit_test(test_mode_changes_in_a_poll),
		cmocka_unit_test(test_no_copy_before_promotion),
		cmocka_unit_test(test_failing_store_is_asked),
		cmocka_unit_test(test_lease_is_proven_anew),
		cmocka_unit_test(test_strict_without_a_store),
		cmocka_unit_test(test_left_for_a_while),
		cmocka_unit_test(test_later_timeline),
		cmocka_unit_test(test_named_in_pause),
		cmocka_unit_test(test_led_last),
		cmocka_unit_test(test_asks_the_voters_first),
		cmocka_unit_test(test_vote_of_the_former),
		cmocka_unit_test(test_follows_nobody_first),
		cmocka_unit_test(test_follows_nobody_first_in_pause),
		cmocka_unit_test(test_no_race_without_an_answer),
		cmocka_unit_test(test_jobs_on_the_directory_go_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
