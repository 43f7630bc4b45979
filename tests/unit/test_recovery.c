/* worker/postgres/conninfo, recovery: wanted settings, their text, what differs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "worker/postgres/recovery.h"

static json_t *js(const char *text)
{
	json_error_t e;
	json_t *v = json_loads(text, JSON_DECODE_ANY, &e);
	if (v == NULL)
		fail_msg("%s: %s", text, e.text);
	return v;
}

static void test_conninfo(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool ok;
		const char *formatted;
	} rows[] = {
		{ " host = 'host' dbname = db\\ name requiressl=1 ", true,
			"dbname=db\\ name host=host sslmode=require" },
		{ "requiressl = 0\\", true, "sslmode=prefer" },
		{ "host=a foo = '", false, "" },
		{ "host=a foo = ", false, "" },
		{ "1", false, "" },
		{ "", true, "" },
		{ "postgresql://foo/postgres", true, "dbname=postgres host=foo" },
		{ "postgres://u%20x:p%40@h1:1,h2:2/d?sslmode=require&application_name=a%27b", true,
			"dbname=d user=u\\ x password=p@ host=h1,h2 port=1,2 sslmode=require "
			"application_name=a\\'b" },
		{ "postgres://[::1]:5433/d?ssl=true", true,
			"dbname=d host=::1 port=5433 sslmode=require" },
		{ "postgres://", true, "" },
		{ "postgres://h?x", false, "" },
		{ "user='it''s'", false, "" },
		{ "user='it\\'s' password=''", true, "user=it\\'s password=''" },
		{ "passfile=/p password=x", true, "passfile=/p" },
		{ "gssencmode=prefer channel_binding=prefer sslnegotiation=postgres host=h", true,
			"host=h gssencmode=prefer channel_binding=prefer" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct conninfo c;
		AUTO(buf) out = BUF_INIT(8192);
		if (conninfo_parse(rows[i].text, &c) != rows[i].ok)
			fail_msg("%s", rows[i].text);
		conninfo_format(&c, 15, &out);
		assert_string_equal(buf_str(&out), rows[i].formatted);
		/* What we write reads back the same. */
		struct conninfo again;
		assert_true(conninfo_parse(buf_str(&out), &again));
		assert_true(conninfo_covers(&c, &again, 15));
	}
}

static void test_pgpass(void **state)
{
	(void)state;
	static const struct {
		const char *conninfo, *lines;
	} rows[] = {
		{ "host=h port=5432 user=u password=p:\\\\x", "h:5432:*:u:p\\:\\\\x\n" },
		{ "password=p", "*:*:*:*:p\n" },
		{ "host='h1, h2' port=1 user=u password=p", "h1:1:*:u:p\nh2:1:*:u:p\n" },
		{ "host=/tmp port=1 user=u password=p", "/tmp:1:*:u:p\nlocalhost:1:*:u:p\n" },
		{ "host=::1 port=1 user=u password=p", "\\:\\:1:1:*:u:p\n" },
	};
	struct conninfo c;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO(buf) out = BUF_INIT(8192);
		assert_true(conninfo_parse(rows[i].conninfo, &c));
		assert_true(conninfo_pgpass(&c, &out));
		assert_string_equal(buf_str(&out), rows[i].lines);
	}
	AUTO(buf) none = BUF_INIT(64);
	assert_true(conninfo_parse("host=h", &c));
	assert_false(conninfo_pgpass(&c, &none));
}

static json_t *auth;

static struct recovery_env member(int32_t major)
{
	return (struct recovery_env){ .major = major,
		.name = "node-1",
		.database = "postgres",
		.pgpass = "/p/pgpass",
		.auth = auth,
		.use_slots = true,
		.from = RECOVERY_FROM_MEMBER,
		.from_name = "leader",
		.host = "10.0.0.1",
		.port = "5432",
		.dbname = "postgres" };
}

static void text_of(const struct recovery_env *e, struct buf *out, struct buf *pass)
{
	struct err err = ERR_INIT;
	struct recovery r;
	AUTO(buf) notes = BUF_INIT(8192);
	assert_int_equal(recovery_want(e, &r, &err), ERR_OK);
	recovery_write(&r, e->major, e->pgpass, out, pass, &notes);
	assert_string_equal(buf_str(&notes), "");
	recovery_done(&r);
}

static void test_write(void **state)
{
	(void)state;
	AUTO(buf) out = BUF_INIT(8192);
	AUTO(buf) pass = BUF_INIT(8192);
	struct recovery_env e = member(15);
	text_of(&e, &out, &pass);
	assert_string_equal(buf_str(&out),
		"primary_conninfo = 'dbname=postgres user=repl passfile=/p/pgpass host=10.0.0.1 "
		"port=5432 sslmode=prefer "
		"application_name=node-1 gssencmode=prefer channel_binding=prefer'\n"
		"primary_slot_name = 'node_1'\n"
		"recovery_target = ''\nrecovery_target_lsn = ''\nrecovery_target_name = "
		"''\nrecovery_target_time = ''\n"
		"recovery_target_timeline = 'latest'\nrecovery_target_xid = ''\n");
	assert_string_equal(buf_str(&pass), "10.0.0.1:5432:*:repl:it's\n");
	/* 17 knows sslnegotiation; without streaming no source, but the user's restore_command. */
	buf_reset(&out);
	buf_reset(&pass);
	e = member(17);
	text_of(&e, &out, &pass);
	assert_non_null(strstr(buf_str(&out), " channel_binding=prefer sslnegotiation=postgres'"));
	json_auto_t *conf =
		js("{\"restore_command\": \"cp 'x' %p\", \"recovery_target_time\": \"now\","
		   " \"primary_slot_name\": \"s\", \"Recovery_End_Command\": \"e\"}");
	e.conf = conf;
	e.nostream = true;
	buf_reset(&out);
	text_of(&e, &out, &pass);
	assert_null(strstr(buf_str(&out), "primary_"));
	assert_non_null(strstr(buf_str(&out), "restore_command = 'cp ''x'' %p'\n"));
	assert_non_null(strstr(buf_str(&out), "Recovery_End_Command = 'e'\n"));
	assert_non_null(strstr(buf_str(&out), "recovery_target_time = ''\n"));
	/* Itself: nobody. */
	e = member(15);
	e.from_name = "node-1";
	buf_reset(&out);
	text_of(&e, &out, &pass);
	assert_null(strstr(buf_str(&out), "primary_conninfo"));
	/* 11: recovery.conf, with the target left to the user, no passfile missing */
	e = member(11);
	buf_reset(&out);
	text_of(&e, &out, &pass);
	assert_non_null(strstr(buf_str(&out), "standby_mode = 'on'\n"));
	assert_null(strstr(buf_str(&out), "recovery_target_lsn"));
	assert_null(strstr(buf_str(&out), "gssencmode"));
}

static void test_remote(void **state)
{
	(void)state;
	AUTO(buf) out = BUF_INIT(8192);
	AUTO(buf) pass = BUF_INIT(8192);
	json_auto_t *standby =
		js("{\"restore_command\": \"r\", \"recovery_min_apply_delay\": \"5min\","
		   " \"archive_cleanup_command\": \"\"}");
	struct recovery_env e = member(15);
	e.from = RECOVERY_FROM_REMOTE;
	e.host = "a,b";
	e.slot = "Slot-X";
	e.standby = standby;
	text_of(&e, &out, &pass);
	assert_non_null(strstr(buf_str(&out), "target_session_attrs=read-write"));
	assert_non_null(strstr(buf_str(&out), "primary_slot_name = 'slot_x'\n"));
	assert_non_null(strstr(buf_str(&out), "restore_command = 'r'\n"));
	assert_non_null(strstr(buf_str(&out), "recovery_min_apply_delay = '5min'\n"));
	assert_null(strstr(buf_str(&out), "archive_cleanup_command"));
	/* A cascading member of that cluster restores, too, but applies without delay. */
	e = member(15);
	e.standby = standby;
	buf_reset(&out);
	text_of(&e, &out, &pass);
	assert_non_null(strstr(buf_str(&out), "restore_command = 'r'\n"));
	assert_null(strstr(buf_str(&out), "recovery_min_apply_delay"));
	e.from = RECOVERY_FROM_REMOTE;
	e.no_slot = true;
	buf_reset(&out);
	text_of(&e, &out, &pass);
	assert_null(strstr(buf_str(&out), "primary_slot_name"));
}

static void test_bootstrap_conf(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct recovery r;
	json_auto_t *pitr =
		js("{\"recovery_target_action\": \"promote\", \"restore_command\": \"x\"}");
	assert_int_equal(recovery_from_conf(pitr, 15, &r, &err), ERR_OK);
	assert_string_equal(recovery_signal_file(&r, 15), "recovery.signal");
	assert_string_equal(recovery_signal_file(&r, 11), "recovery.conf");
	recovery_done(&r);
	json_auto_t *standby =
		js("{\"standby_mode\": \"on\", \"pause_at_recovery_target\": false}");
	assert_int_equal(recovery_from_conf(standby, 15, &r, &err), ERR_OK);
	assert_string_equal(recovery_signal_file(&r, 15), "standby.signal");
	AUTO(buf) out = BUF_INIT(4096);
	AUTO(buf) pass = BUF_INIT(64);
	AUTO(buf) notes = BUF_INIT(64);
	recovery_write(&r, 15, "/p", &out, &pass, &notes);
	assert_string_equal(buf_str(&out), "recovery_target_action = 'promote'\n");
	recovery_done(&r);
	json_auto_t *bad = js("{\"primary_conninfo\": \"host\"}");
	assert_int_equal(recovery_from_conf(bad, 15, &r, &err), ERR_PARSE);
}

#define CONF "/data/postgresql.conf"
#define GOOD                                                                                       \
	"user=repl passfile=/p/pgpass host=10.0.0.1 port=5432 sslmode=prefer "                     \
	"application_name=node-1"
#define PASSLINE "10.0.0.1:5432:*:repl:it's\n"

static void test_compare(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		const char *name, *setting, *context, *file; /* one row beside the matching rest */
		const char *conninfo, *receiver, *receiver_slot, *passfile;
		bool no_signal, adopted, unread, starting;
		bool differs, restart;
	} rows[] = {
		{ .what = "same" },
		{ .what = "no signal file", .no_signal = true, .differs = true, .restart = true },
		{ .what = "unread", .unread = true, .differs = true, .restart = true },
		{ .what = "unread while starting", .unread = true, .starting = true },
		{ .what = "adopted", .adopted = true, .differs = true },
		{ .what = "other host",
			.conninfo = "user=repl passfile=/p/pgpass host=10.0.0.2 port=5432",
			.differs = true },
		{ .what = "no source", .conninfo = "", .differs = true },
		{ .what = "broken conninfo", .conninfo = "host", .differs = true },
		{ .what = "passfile of another",
			.passfile = "x:5432:*:repl:it's\n",
			.differs = true },
		{ .what = "passfile gone", .passfile = "", .differs = true },
		{ .what = "password of a masked receiver",
			.receiver = GOOD " dbname=replication fallback_application_name=x" },
		{ .what = "receiver elsewhere",
			.receiver = "user=repl passfile=/p/pgpass host=10.0.0.9 port=5432 "
				    "application_name=node-1",
			.differs = true },
		{ .what = "receiver without slot",
			.receiver = GOOD,
			.receiver_slot = "",
			.differs = true },
		{ .what = "slot",
			.name = "primary_slot_name",
			.setting = "x",
			.context = "sighup",
			.differs = true },
		{ .what = "sighup",
			.name = "restore_command",
			.setting = "x",
			.context = "sighup",
			.file = CONF,
			.differs = true },
		{ .what = "postmaster",
			.name = "restore_command",
			.setting = "x",
			.context = "postmaster",
			.file = CONF,
			.differs = true,
			.restart = true },
		{ .what = "the user's file",
			.name = "restore_command",
			.setting = "x",
			.context = "sighup",
			.file = "/data/postgresql.base.conf" },
		{ .what = "a target in the user's file",
			.name = "recovery_target_name",
			.setting = "x",
			.context = "postmaster",
			.file = "/data/postgresql.base.conf",
			.differs = true,
			.restart = true },
		{ .what = "no delay",
			.name = "recovery_min_apply_delay",
			.setting = "0",
			.context = "sighup" },
		{ .what = "delay",
			.name = "recovery_min_apply_delay",
			.setting = "1000",
			.context = "sighup",
			.file = CONF,
			.differs = true },
		{ .what = "not compared",
			.name = "recovery_target_inclusive",
			.setting = "off",
			.context = "postmaster" },
	};
	struct err err = ERR_INIT;
	struct recovery want;
	struct recovery_env e = member(15);
	assert_int_equal(recovery_want(&e, &want, &err), ERR_OK);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct recovery_row r[] = {
			{ "primary_conninfo", rows[i].conninfo != NULL ? rows[i].conninfo : GOOD,
				"sighup", CONF, false },
			{ "recovery_target_timeline", "latest", "postmaster", CONF, false },
			{ "recovery_target", "", "postmaster", NULL, false },
			{ rows[i].name != NULL ? rows[i].name : "primary_slot_name",
				rows[i].name != NULL ? rows[i].setting : "node_1", rows[i].context,
				rows[i].file, false },
		};
		struct recovery_state s = { .major = 15,
			.signal_there = !rows[i].no_signal,
			.starting = rows[i].starting,
			.adopted = rows[i].adopted,
			.conf_file = CONF,
			.auto_file = "/data/postgresql.auto.conf",
			.receiver_conninfo = rows[i].receiver,
			.receiver_slot =
				rows[i].receiver_slot != NULL ? rows[i].receiver_slot : "node_1",
			.passfile = rows[i].passfile != NULL ? rows[i].passfile : PASSLINE };
		struct recovery_verdict v;
		recovery_compare(&want, &s, rows[i].unread ? NULL : r, ARRAY_LEN(r), &v);
		if (v.differs != rows[i].differs || v.restart != rows[i].restart)
			fail_msg("%s: differs=%d restart=%d %s", rows[i].what, v.differs, v.restart,
				v.reason);
		assert_int_equal(v.reason[0] != '\0', v.differs);
		assert_null(strstr(v.reason, "it's"));
	}
	recovery_done(&want);
	/* 17 compares dbname as well. */
	e = member(17);
	assert_int_equal(recovery_want(&e, &want, &err), ERR_OK);
	struct recovery_row one = { "primary_conninfo", GOOD " gssencmode=prefer dbname=other",
		"sighup", CONF, false };
	struct recovery_state s = {
		.major = 17, .signal_there = true, .conf_file = CONF, .passfile = PASSLINE
	};
	struct recovery_verdict v;
	recovery_compare(&want, &s, &one, 1, &v);
	assert_true(v.differs);
	one.setting = GOOD " dbname=postgres";
	recovery_compare(&want, &s, &one, 1, &v);
	assert_false(v.differs);
	/* A mark of the server confirms a restart only where the value differs and needs one. */
	one.pending_restart = true;
	recovery_compare(&want, &s, &one, 1, &v);
	assert_false(v.differs || v.restart || v.confirmed);
	one = (struct recovery_row){ "restore_command", "old", "sighup", CONF, true };
	recovery_compare(&want, &s, &one, 1, &v);
	assert_true(v.differs && !v.restart && !v.confirmed);
	one.context = "postmaster";
	recovery_compare(&want, &s, &one, 1, &v);
	assert_true(v.differs && v.restart && v.confirmed);
	one.pending_restart = false;
	recovery_compare(&want, &s, &one, 1, &v);
	assert_true(v.differs && v.restart && !v.confirmed);
	recovery_done(&want);
}

static int setup(void **state)
{
	(void)state;
	auth = js("{\"username\": \"repl\", \"password\": \"it's\"}");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	json_decref(auth);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conninfo),
		cmocka_unit_test(test_pgpass),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_remote),
		cmocka_unit_test(test_bootstrap_conf),
		cmocka_unit_test(test_compare),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
