/* worker/postgres/waldump and controldata: texts of several versions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "worker/postgres/controldata.h"
#include "worker/postgres/waldump.h"

#define SHUTDOWN_15                                                                                \
	"rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/0182E220, prev "   \
	"0/0182E1E8, "                                                                             \
	"desc: CHECKPOINT_SHUTDOWN redo 0/182E220; tli 1; prev tli 1; fpw true; xid 0:724; oid "   \
	"13757; multi 1; "                                                                         \
	"offset 0; oldest xid 717 in DB 1; oldest multi 1 in DB 1; oldest/newest commit "          \
	"timestamp xid: 0/0; "                                                                     \
	"oldest running xid 0; shutdown\n"
#define SWITCH_15                                                                                  \
	"rmgr: XLOG        len (rec/tot):     24/    24, tx:          0, lsn: 0/0182E1E8, prev "   \
	"0/0182E1B0, "                                                                             \
	"desc: SWITCH \n"

static void test_records(void **state)
{
	(void)state;
	struct waldump_record r;
	assert_true(waldump_record(SHUTDOWN_15, &r));
	assert_string_equal(r.rmgr, "XLOG");
	assert_int_equal(r.lsn, 0x182e220);
	assert_int_equal(r.prev, 0x182e1e8);
	assert_true(waldump_is_shutdown_checkpoint(&r, 0x182e220));
	assert_false(waldump_is_shutdown_checkpoint(&r, 0x182e228));
	assert_false(waldump_is_switch(&r, 0x182e220));
	assert_true(waldump_record(SWITCH_15, &r));
	assert_true(waldump_is_switch(&r, 0x182e1e8));
	assert_false(waldump_is_shutdown_checkpoint(&r, 0x182e1e8));
	/* 10 prints bkp in between, old ones "xlog switch". */
	assert_true(waldump_record(
		"rmgr: XLOG        len (rec/tot):     24/    24, tx: 0, lsn: 0/0182E1E8, prev "
		"0/0182E1B0, bkp: 0000, desc: xlog switch\n",
		&r));
	assert_true(waldump_is_switch(&r, 0x182e1e8));
	static const char *const bad[] = { "", "\n", "rmgr: XLOG",
		"rmgr: XLOG len (rec/tot): 1/ 1, tx: 0, lsn: 0/1, desc: x",
		"rmgr: XLOG len (rec/tot): 1/ 1, tx: 0, lsn: , prev 0/1, desc: x",
		"pg_waldump: fatal: could not find a valid record after 0/1" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(waldump_record(bad[i], &r));
}

static void test_checkpoint_end(void **state)
{
	(void)state;
	static const struct {
		const char *out, *err;
		uint64_t end;
	} rows[] = {
		{ SHUTDOWN_15,
			"pg_waldump: fatal: error in WAL record at 0/182E220: invalid record "
			"length at 0/182E298: "
			"wanted 24, got 0\n",
			0x182e298 },
		{ SHUTDOWN_15,
			"pg_waldump: error: error in WAL record at 0/182E220: invalid record "
			"length at 0/182E298: "
			"expected at least 24, got 0\n",
			0x182e298 },
		/* another record follows: not the last one */
		{ SHUTDOWN_15 SWITCH_15, "", 0 },
		{ SHUTDOWN_15, "", 0 },
		{ "",
			"pg_waldump: fatal: error in WAL record at 0/182E220: invalid record "
			"length at 0/182E298: wanted 24, got 0\n",
			0 },
		/* of another record */
		{ SHUTDOWN_15,
			"pg_waldump: fatal: error in WAL record at 0/182E228: invalid record "
			"length at 0/182E298: wanted 24, "
			"got 0\n",
			0 },
		/* a recycled segment holds old bytes behind it */
		{ SHUTDOWN_15,
			"pg_waldump: fatal: error in WAL record at 0/182E220: record with "
			"incorrect prev-link 0/1 at "
			"0/182E298\n",
			0 },
		{ SHUTDOWN_15,
			"pg_waldump: fatal: error in WAL record at 0/182E220: invalid record "
			"length at ",
			0 },
		{ SHUTDOWN_15, "a\nb\n", 0 },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(
			waldump_checkpoint_end(rows[i].out, rows[i].err, 0x182e220), rows[i].end);
}

static void test_missing_segment(void **state)
{
	(void)state;
	char name[25];
	assert_true(waldump_missing_segment(
		"pg_rewind: servers diverged\npg_rewind: error: could not open file "
		"\"/data/pg_wal/0000000A00006AA100000068\": No such file or directory\n",
		name));
	assert_string_equal(name, "0000000A00006AA100000068");
	static const char *const none[] = { "", "could not open file \"",
		"could not open file \"x\": no",
		"could not open file \"/data/pg_wal/0000000A00006AA10000006\": No such file",
		"could not open file \"/data/base/00000000A00006AA100000068\": No such file",
		"could not open file \"/data/pg_wal/0000000g00006AA100000068\": No such file" };
	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		assert_false(waldump_missing_segment(none[i], name));
}

#define CONTROL_15                                                                                 \
	"pg_control version number:            1300\nDatabase system identifier:           "       \
	"7230104962017001234\n"                                                                    \
	"Database cluster state:               shut down in recovery\n"                            \
	"Latest checkpoint location:           0/3000060\nLatest checkpoint's REDO location:    "  \
	"0/3000028\n"                                                                              \
	"Latest checkpoint's TimeLineID:       2\nMinimum recovery ending location:     "          \
	"0/5000000\n"                                                                              \
	"Min recovery ending loc's timeline:   2\nBytes per WAL segment:                "          \
	"16777216\n"

static void test_controldata(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct pg_control c = { 0 };
	assert_int_equal(controldata_parse(CONTROL_15 "Current max_connections setting:      150\n"
						      "wal_log_hints setting:                on\n",
				 &c, &err),
		ERR_OK);
	assert_int_equal(c.state, PG_DB_SHUTDOWNED_IN_RECOVERY);
	assert_int_equal(c.min_recovery_lsn, 0x5000000);
	assert_int_equal(c.max_connections, 150);
	assert_true(c.wal_log_hints);
	c.valid = false;
	assert_int_equal(
		controldata_parse("pg_control version number: 1300\n", &c, &err), ERR_PARSE);
	assert_false(c.valid);
	assert_non_null(strstr(err.text, "Database system identifier"));
	assert_int_equal(controldata_parse("", &c, &err), ERR_PARSE);
	char v[8];
	assert_false(controldata_get(CONTROL_15, "Database", v, sizeof(v)));
	assert_false(controldata_get(CONTROL_15, "Database system identifier", v, sizeof(v)));
	enum pg_db_state s;
	assert_false(controldata_state("running", &s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records),
		cmocka_unit_test(test_checkpoint_end),
		cmocka_unit_test(test_missing_segment),
		cmocka_unit_test(test_controldata),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
