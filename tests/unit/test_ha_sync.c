/* worker/ha/sync: priority and quorum machines against a model of PostgreSQL's setting and of
 * /sync; parsing of the setting; what is written before a promotion. The promise of /sync is
 * checked after every single write. */
#include "tests/unit/ha_fixture.h"
#include "worker/ha/sync_state.h"

/* ---- the setting as text ---- */

struct ssn_row {
	const char *text;
	bool ok;
	int quorum, n;
	const char *names; /* comma separated */
};

static void test_ssn(void **state)
{
	(void)state;
	static const struct ssn_row rows[] = {
		{ "", true, 0, 0, "" },
		{ "  ", true, 0, 0, "" },
		{ "b", true, 0, 1, "b" },
		{ "a,b", true, 0, 1, "a,b" },
		{ "2 (a,b)", true, 0, 2, "a,b" },
		{ "FIRST 2 (\"x-1\" , b)", true, 0, 2, "x-1,b" },
		{ "any 1(a,B)", true, 1, 1, "a,B" },
		{ "ANY 1 (\"q\"\"r\")", true, 1, 1, "q\"r" },
		{ "first", true, 0, 1, "first" },
		{ "any", true, 0, 1, "any" },
		{ "*", true, 0, 1, SSN_PLACEHOLDER },
		{ "ANY 2 (a, *)", true, 1, 2, SSN_PLACEHOLDER },
		{ SSN_PLACEHOLDER, true, 0, 1, "" },
		{ "ANY 1 (" SSN_PLACEHOLDER ")", true, 1, 1, "" },
		{ "a,A,b", true, 0, 1, "a,b" },
		{ "a b", false, 0, 0, "" },
		{ "a,", false, 0, 0, "" },
		{ "ANY 1 (a", false, 0, 0, "" },
		{ "ANY 1 (a) b", false, 0, 0, "" },
		{ "\"a", false, 0, 0, "" },
		{ "1 ()", false, 0, 0, "" },
		{ "2", false, 0, 0, "" },
	};
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		static struct ssn ssn;
		char names[256] = "";
		bool ok = ssn_parse(rows[i].text, &ssn);
		for (unsigned k = 0; k < ssn.count; k++) {
			fx_append(names, sizeof(names), k > 0 ? "," : "");
			fx_append(names, sizeof(names), ssn.names[k]);
		}
		if (ok != rows[i].ok || ssn.quorum != rows[i].quorum || ssn.n != rows[i].n ||
			strcmp(names, rows[i].names) != 0)
			fail_msg("\"%s\": ok %d quorum %d n %d names %s", rows[i].text, ok,
				ssn.quorum, ssn.n, names);
	}
}

/* ---- PostgreSQL ---- */

static bool in_list(const char *list, const char *name)
{
	size_t len = strlen(name);
	for (const char *p = list; p != NULL && *p != '\0';
		p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		if (strncmp(p, name, len) == 0 && (p[len] == ',' || p[len] == '\0'))
			return true;
	}
	return false;
}

static void sender(struct fx *f, const char *name, uint64_t lsn)
{
	struct pg_walsender *w = &f->senders[f->sql.walsender_count++];
	memset(w, 0, sizeof(*w));
	FX_SET(w->application_name, name);
	FX_SET(w->sync_state, "async");
	w->write_lsn = w->flush_lsn = w->replay_lsn = lsn;
}

/* A reload: the setting is reported, and walsenders show what they are under it. */
static void apply_ssn(struct fx *f, const struct ha_action *a, const char *names)
{
	char text[600] = "";
	if (a->ssn.managed && (a->ssn.n > 0 || a->name_count > 0)) {
		assert_true(a->ssn.n >= 1); /* ANY 0 keeps PostgreSQL from starting */
		assert_true(a->ssn.placeholder || a->ssn.n <= (int)a->name_count);
		assert_true(str_format(text, sizeof(text), "%s%d (%s)", a->ssn.quorum ? "ANY " : "",
			a->ssn.n, a->ssn.placeholder ? SSN_PLACEHOLDER : names));
	}
	FX_SET(f->sql.synchronous_standby_names, text);
	for (unsigned i = 0; i < f->sql.walsender_count; i++) {
		struct pg_walsender *w = &f->senders[i];
		bool listed = in_list(names, w->application_name);
		FX_SET(w->sync_state, !listed ? "async" : a->ssn.quorum ? "quorum" : "sync");
	}
}

static void check_promise(struct fx *f)
{
	static struct ssn ssn;
	assert_true(ssn_parse(f->sql.synchronous_standby_names, &ssn));
	if (strcmp(f->c.sync_leader, "a") != 0 || f->c.sync_voter_count == 0)
		return;
	if (f->set.sync_mode == SYNC_PRIORITY) {
		/* S7: every voter is in the set, and all of the set must confirm. */
		for (unsigned i = 0; i < f->c.sync_voter_count; i++) {
			bool found = false;
			for (unsigned k = 0; k < ssn.count; k++)
				found |= strcmp(ssn.names[k], f->voters[i]) == 0;
			assert_true(found);
		}
		assert_int_equal(ssn.n, ssn.count);
	}
}

/* Cycles until nothing is asked any more; false = not within the bound. */
static bool settle(struct fx *f, unsigned cycles_max)
{
	for (unsigned i = 0; i < cycles_max; i++) {
		bool active = false;
		fx_run(f);
		for (unsigned k = 0; k < f->action_count; k++) {
			const struct ha_action *a = &f->actions[k];
			if (a->kind == HA_SET_SSN) {
				apply_ssn(f, a, f->names[k]);
				active = true;
			}
			active |= a->kind == HA_WRITE_SYNC || a->kind == HA_POKE_WAL;
			check_promise(f);
		}
		if (!active)
			return true;
		f->v.now_ms += 250;
		fx_lock(f, LOCK_HELD);
	}
	return false;
}

static void expect(
	struct fx *f, const char *ssn, const char *leader, int quorum, const char *voters)
{
	char text[300] = "";
	for (unsigned i = 0; i < f->c.sync_voter_count; i++) {
		fx_append(text, sizeof(text), i > 0 ? "," : "");
		fx_append(text, sizeof(text), f->voters[i]);
	}
	assert_string_equal(f->sql.synchronous_standby_names, ssn);
	assert_string_equal(f->c.sync_leader, leader);
	assert_int_equal(f->c.sync_quorum, quorum);
	assert_string_equal(text, voters);
}

static struct fx *leader(enum sync_mode mode)
{
	struct fx *f = fx_new();
	fx_as_leader(f);
	f->set.sync_mode = mode;
	return f;
}

/* ---- priority ---- */

static void test_priority(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	assert_true(settle(f, 10));
	expect(f, "", "a", 0, "");
	sender(f, "b", 1000);
	sender(f, "c", 1001);
	assert_true(settle(f, 10));
	expect(f, "1 (c)", "a", 0, "c");
	f->set.sync_node_count = 2;
	assert_true(settle(f, 10));
	expect(f, "2 (b,c)", "a", 0, "b,c");
	/* c goes: out of /sync first, then out of the setting. */
	f->sql.walsender_count = 1;
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	/* A higher sync_priority takes the place. */
	f->set.sync_node_count = 1;
	sender(f, "c", 1000);
	f->members[2].tags.sync_priority = 2;
	assert_true(settle(f, 10));
	expect(f, "1 (c)", "a", 0, "c");
	f->members[2].tags.nosync = true;
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	f->sql.walsender_count = 0;
	assert_true(settle(f, 10));
	expect(f, "", "a", 0, "");
	free(f);
}

/* A standby that does not confirm yet is set but not promised; the cycle is run again soon. */
static void test_priority_waits(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	sender(f, "b", 500); /* behind the flush position of 1000 */
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "");
	assert_true(f->plan.next_run_ms > 0 && f->plan.next_run_ms <= f->v.now_ms + 2000);
	f->senders[0].flush_lsn = 1000;
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	free(f);
}

static void test_priority_strict(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	f->set.sync_strict = true;
	fx_run(f);
	const struct ha_action *a = fx_find(f, HA_SET_SSN);
	assert_non_null(a);
	assert_true(a->ssn.placeholder);
	assert_non_null(
		strstr(f->notes, "No active replication connections from Patroni members and "
				 "synchronous_mode_strict is requested"));
	f->m.ssn_asked_hash = 0; /* this test dropped that action */
	assert_true(settle(f, 10));
	expect(f, "1 (" SSN_PLACEHOLDER ")", "a", 0, "");
	sender(f, "b", 1000);
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	/* It goes: strict keeps the setting and the promise. */
	f->sql.walsender_count = 0;
	assert_true(settle(f, 10));
	assert_string_equal(f->sql.synchronous_standby_names, "1 (b)");
	free(f);
}

/* A leader that took over finds the old promise and makes it its own before anything else. */
static void test_priority_foreign(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	f->c.sync_key_exists = true;
	FX_SET(f->c.sync_leader, "b");
	FX_SET(f->voters[0], "a");
	f->c.sync_voter_count = 1;
	sender(f, "b", 1000);
	fx_run(f);
	const struct ha_action *a = fx_find(f, HA_WRITE_SYNC);
	assert_non_null(a);
	assert_int_equal(a->name_count, 0);
	f->m.ssn_asked_hash = 0; /* this test dropped that action */
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	free(f);
}

static void test_conflict(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	f->write_sync = HA_OUT_CONFLICT;
	sender(f, "b", 1000);
	fx_run(f);
	assert_non_null(fx_find(f, HA_WRITE_SYNC));
	assert_null(fx_find(f, HA_SET_SSN));
	assert_string_equal(f->plan.rule, "E4");
	free(f);
}

static void test_off(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_OFF);
	f->c.sync_key_exists = true;
	f->c.sync_version = 4;
	FX_SET(f->c.sync_leader, "a");
	fx_run(f);
	const struct ha_action *del = fx_find(f, HA_DELETE_SYNC), *set = fx_find(f, HA_SET_SSN);
	assert_true(del != NULL && set != NULL && del < set);
	assert_int_equal(del->version, 4);
	assert_false(set->ssn.managed);
	free(f);
}

/* replicatefrom a node that streams from here: not a candidate; lag: neither; the last one stays
 * when nobody else is there. */
static void test_candidates(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	sender(f, "b", 1000);
	sender(f, "c", 1000);
	FX_SET(f->members[2].tags.replicatefrom, "b");
	f->members[1].tags.sync_priority = 0;
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	f->members[2].tags.replicatefrom[0] = '\0';
	f->set.maximum_lag_on_syncnode = 100;
	f->senders[1].flush_lsn = 800;
	f->members[2].tags.sync_priority = 9;
	assert_true(settle(f, 10));
	expect(f, "1 (b)", "a", 0, "b");
	f->senders[1].flush_lsn = 950;
	f->senders[1].write_lsn = 1;
	assert_true(settle(f, 10));
	assert_string_equal(f->sql.synchronous_standby_names, "1 (c)");
	free(f);
}

/* ---- quorum ---- */

static void test_quorum_machine(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_QUORUM);
	assert_true(settle(f, 20));
	expect(f, "", "a", 0, "");
	sender(f, "b", 1000);
	assert_true(settle(f, 20));
	expect(f, "ANY 1 (b)", "a", 0, "b");
	sender(f, "c", 1000);
	assert_true(settle(f, 20));
	expect(f, "ANY 1 (b,c)", "a", 1, "b,c");
	f->set.sync_node_count = 2;
	assert_true(settle(f, 20));
	expect(f, "ANY 2 (b,c)", "a", 0, "b,c");
	f->sql.walsender_count = 1;
	assert_true(settle(f, 20));
	expect(f, "ANY 1 (b)", "a", 0, "b");
	f->sql.walsender_count = 0;
	assert_true(settle(f, 20));
	expect(f, "", "a", 0, "");
	free(f);
}

static void test_priority_to_quorum(void **state)
{
	(void)state;
	struct fx *f = leader(SYNC_PRIORITY);
	sender(f, "b", 1000);
	sender(f, "c", 1000);
	f->set.sync_node_count = 2;
	assert_true(settle(f, 20));
	expect(f, "2 (b,c)", "a", 0, "b,c");
	f->set.sync_mode = SYNC_QUORUM;
	f->set.sync_node_count = 1;
	assert_true(settle(f, 20));
	expect(f, "ANY 1 (b,c)", "a", 1, "b,c");
	f->set.sync_mode = SYNC_PRIORITY;
	assert_true(settle(f, 20));
	assert_int_equal(f->c.sync_quorum, 0);
	assert_int_equal(f->c.sync_voter_count, 1);
	free(f);
}

/* ---- before a promotion ---- */

static struct fx *candidate(enum sync_mode mode, const char *leader_name, int quorum,
	const char *voter1, const char *voter2)
{
	struct fx *f = fx_new();
	fx_pg(f, 'R');
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	f->set.sync_mode = mode;
	f->c.sync_key_exists = true;
	f->c.sync_version = 3;
	FX_SET(f->c.sync_leader, leader_name);
	f->c.sync_quorum = quorum;
	FX_SET(f->voters[0], voter1);
	FX_SET(f->voters[1], voter2);
	f->c.sync_voter_count = (voter1[0] != '\0') + (voter2[0] != '\0');
	return f;
}

static void expect_before_promotion(
	struct fx *f, int n, const char *ssn_names, const char *voters, int quorum)
{
	fx_run(f);
	assert_string_equal(f->plan.rule, "G5");
	const struct ha_action *task = fx_task(f), *write = fx_find(f, HA_WRITE_SYNC),
			       *set = fx_find(f, HA_SET_SSN);
	assert_true(task != NULL && write != NULL && set != NULL);
	assert_int_equal(task->task, TASK_PROMOTE);
	assert_true(set < task && write < task);
	assert_int_equal(set->ssn.n, n);
	assert_string_equal(f->names[set - f->actions], ssn_names);
	assert_string_equal(f->names[write - f->actions], voters);
	assert_int_equal(write->quorum, quorum);
	free(f);
}

static void test_prepromote(void **state)
{
	(void)state;
	expect_before_promotion(candidate(SYNC_PRIORITY, "b", 0, "a", ""), 0, "", "", 0);
	struct fx *f = candidate(SYNC_PRIORITY, "b", 0, "a", "c");
	f->set.sync_strict = true;
	expect_before_promotion(f, 2, "b,c", "b,c", 0);
	/* Three nodes, q 1, n 1 on the old leader: the new one needs one of the two others. */
	expect_before_promotion(candidate(SYNC_QUORUM, "b", 1, "a", "c"), 1, "b,c", "b,c", 1);
	/* Not a member: it needed a vote more, so it asks for one more. */
	expect_before_promotion(candidate(SYNC_QUORUM, "b", 0, "c", ""), 2, "b,c", "b,c", 0);
}

static void test_prepromote_refused(void **state)
{
	(void)state;
	struct fx *f = candidate(SYNC_QUORUM, "b", 1, "a", "c");
	f->write_sync = HA_OUT_CONFLICT;
	fx_run(f);
	assert_null(fx_task(f));
	assert_non_null(strstr(f->plan.reason,
		"Postponing promotion because synchronous replication state was updated"));
	f->write_sync = HA_OUT_UNKNOWN;
	fx_run(f);
	assert_null(fx_task(f));
	free(f);
}

/* ---- the race (3.4, D10) ---- */

static struct fx *racer(enum sync_mode mode, const char *leader_name, int quorum,
	const char *voter1, const char *voter2)
{
	struct fx *f = candidate(mode, leader_name, quorum, voter1, voter2);
	fx_leader(f, "");
	fx_lock(f, LOCK_NONE);
	return f;
}

static bool wins(struct fx *f)
{
	fx_run(f);
	bool won = fx_find(f, HA_ACQUIRE) != NULL;
	free(f);
	return won;
}

static void test_race(void **state)
{
	(void)state;
	assert_false(wins(racer(SYNC_PRIORITY, "b", 0, "c", "")));
	assert_true(wins(racer(SYNC_PRIORITY, "b", 0, "a", "")));
	/* quorum 1 of {a, c}: a voter needs one vote, and c gives it when it is not ahead. */
	assert_false(wins(racer(SYNC_QUORUM, "b", 1, "a", "c")));
	struct fx *f = racer(SYNC_QUORUM, "b", 1, "a", "c");
	fx_peer(f, "c", 1000);
	assert_true(wins(f));
	f = racer(SYNC_QUORUM, "b", 1, "a", "c");
	fx_peer(f, "c", 1001);
	assert_false(wins(f));
	/* The former leader is ahead but does not stand in the way; nor does it vote. */
	f = racer(SYNC_QUORUM, "b", 1, "a", "c");
	fx_peer(f, "b", 5000);
	assert_false(wins(f));
	f = racer(SYNC_QUORUM, "b", 1, "a", "c");
	fx_peer(f, "b", 5000);
	fx_peer(f, "c", 1000);
	assert_true(wins(f));
	/* A node outside of the voters needs one vote more. */
	f = racer(SYNC_QUORUM, "b", 0, "c", "");
	assert_false(wins(f));
	f = racer(SYNC_QUORUM, "b", 0, "c", "");
	fx_peer(f, "c", 1000);
	assert_true(wins(f));
	/* The former leader itself, alone, nobody ahead. */
	assert_true(wins(racer(SYNC_QUORUM, "a", 1, "b", "c")));
	f = racer(SYNC_QUORUM, "a", 1, "b", "c");
	fx_peer(f, "b", 1001);
	assert_false(wins(f));
}

static void test_effective_tags(void **state)
{
	(void)state;
	struct fx *f = fx_new();
	fx_as_replica(f);
	assert_false(ha_effective_nofailover(&f->v, &f->m));
	f->m.released_ms = f->v.now_ms - 1;
	assert_true(ha_effective_nofailover(&f->v, &f->m));
	f->m.released_ms = 0;
	f->c.history_count = 1;
	f->history[0] = (struct history_row){ .timeline = 1, .lsn = 999 };
	assert_true(ha_effective_nofailover(&f->v, &f->m));
	f->history[0].lsn = 1000;
	assert_false(ha_effective_nofailover(&f->v, &f->m));
	f->set.check_timeline = true;
	assert_true(ha_effective_nofailover(&f->v, &f->m));
	f->set.sync_mode = SYNC_QUORUM;
	FX_SET(f->c.sync_leader, "b");
	assert_false(ha_effective_nofailover(&f->v, &f->m)); /* its vote is needed */
	assert_false(ha_effective_nosync(&f->v, &f->m));
	f->m.disable_sync_until_ms = 5;
	assert_true(ha_effective_nosync(&f->v, &f->m));
	free(f);
}

/* X73: a took over for a request by hand, behind by more than the lag rule allows, and was lost
 * before it was promoted. By /sync nobody else may lead. */
static void test_took_over_and_was_lost(void **state)
{
	(void)state;
	static const struct {
		const char *led, *sync_leader;
		unsigned voters;
		int64_t timeline;
		bool wins;
	} rows[] = {
		{ "c", "a", 0, 2, true },
		{ "a", "a", 0, 2, false }, /* /status is its own: it lost something since */
		{ "", "a", 0, 2, false }, { "c", "b", 0, 2, false },
		{ "c", "a", 1, 2, false }, /* b has everything */
		{ "c", "a", 0, 3, false }, /* it was promoted */
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct fx *f = fx_new();
		fx_pg(f, 'R');
		f->set.sync_mode = SYNC_PRIORITY;
		f->c.sync_key_exists = true;
		FX_SET(f->c.sync_leader, rows[i].sync_leader);
		FX_SET(f->voters[0], "b");
		f->c.sync_voter_count = rows[i].voters;
		f->c.history_count = 1;
		f->history[0] = (struct history_row){ .timeline = 1, .lsn = 500 };
		FX_SET(f->history[0].new_leader, rows[i].led);
		f->sql.timeline = rows[i].timeline;
		f->c.status_present = true;
		f->c.last_lsn = 1000 + (uint64_t)f->set.maximum_lag_on_failover + 1;
		fx_peer(f, "b", 1000);
		fx_peer(f, "c", 1000);
		fx_run(f);
		assert_int_equal(fx_find(f, HA_ACQUIRE) != NULL, rows[i].wins);
		free(f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_took_over_and_was_lost),
		cmocka_unit_test(test_ssn),
		cmocka_unit_test(test_priority),
		cmocka_unit_test(test_priority_waits),
		cmocka_unit_test(test_priority_strict),
		cmocka_unit_test(test_priority_foreign),
		cmocka_unit_test(test_conflict),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_candidates),
		cmocka_unit_test(test_quorum_machine),
		cmocka_unit_test(test_priority_to_quorum),
		cmocka_unit_test(test_prepromote),
		cmocka_unit_test(test_prepromote_refused),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_effective_tags),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
