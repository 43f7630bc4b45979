/* pgctx_check_recovery: when a difference of recovery settings asks for a reload or a restart, and
 * that neither is asked for without end (ha 11.7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "worker/postgres/pgctx.h"

#define CONF "\"/data/postgresql.conf\""
#define ROWS(command, context, pending)                                                            \
	"[[\"primary_conninfo\",\"user=replicator host=h1 port=5432 application_name=n1 "          \
	"sslmode=prefer gssencmode=prefer channel_binding=prefer\",\"sighup\"," CONF ",false],"    \
	"[\"recovery_target_timeline\",\"latest\",\"postmaster\"," CONF ",false],"                 \
	"[\"restore_command\",\"" command "\",\"" context "\"," CONF "," pending "]]"

static struct settings set;
static struct pgctx p;
static struct pg_sql facts;
static const struct pg_target target = {
	.kind = TARGET_MEMBER, .name = "n2", .host = "h1", .port = "5432"
};

static void check(const char *rows, bool differ, bool restart)
{
	bool d, r;
	facts.recovery_json = (char *)rows;
	pgctx_check_recovery(&p, &facts, &target, &d, &r);
	assert_int_equal(d, differ);
	assert_int_equal(r, restart);
}

static void test_check(void **state)
{
	(void)state;
	json_auto_t *pg = json_pack("{s:s,s:{s:{s:s}},s:{s:s}}", "listen", "127.0.0.1:5432",
		"authentication", "replication", "username", "replicator", "recovery_conf",
		"restore_command", "wanted");
	assert_non_null(pg);
	p = (struct pgctx){ .pg = pg,
		.set = &set,
		.major = 13,
		.role = PG_ROLE_REPLICA,
		.follow_known = true,
		.name = "n1",
		.data_dir = "/data",
		.config_dir = "/data",
		.conf_name = "postgresql" };
	facts = (struct pg_sql){ .valid = true, .in_recovery = true };
	check(ROWS("wanted", "postmaster", "false"), false, false);
	check(NULL, false, false);
	check("not a list", false, false);
	/* Differs: a reload first; a restart when the server says that it waits for one. */
	check(ROWS("old", "postmaster", "false"), true, false);
	check(ROWS("old", "postmaster", "true"), true, true);
	check(ROWS("old", "sighup", "true"), true, false);
	/* A mark alone is nothing: another setting may have it. */
	check(ROWS("wanted", "postmaster", "true"), false, false);
	/* A standby's affair alone, and of one that we configured. */
	facts.in_recovery = false;
	check(ROWS("old", "sighup", "false"), false, false);
	facts.in_recovery = true;
	p.follow_known = false;
	check(ROWS("old", "sighup", "false"), false, false);
}

static void test_no_loop(void **state)
{
	(void)state;
	json_auto_t *pg = json_pack("{s:s,s:{s:{s:s}},s:{s:s}}", "listen", "127.0.0.1:5432",
		"authentication", "replication", "username", "replicator", "recovery_conf",
		"restore_command", "wanted");
	p.pg = pg;
	p.follow_known = true;
	int reloads = 0;
	for (int i = 0; i < 20; i++) {
		bool d, r;
		facts.recovery_json = (char *)ROWS("old", "postmaster", "false");
		facts.asked_at_ms = clock_boot_ms() + 5000; /* long after the reload */
		pgctx_check_recovery(&p, &facts, &target, &d, &r);
		assert_false(r);
		reloads += d;
		if (d)
			pgctx_recovery_reloaded(&p);
	}
	assert_int_equal(reloads, 3);
	/* Other values in force, or other ones wanted: tried again. */
	check(ROWS("older", "postmaster", "false"), true, false);
	pgctx_recovery_reloaded(&p);
	/* The answer may be older than the effect of the reload. */
	facts.asked_at_ms = p.reloaded_ms + 1;
	check(ROWS("older", "postmaster", "false"), false, false);
	/* All is well once, and the count begins anew. */
	check(ROWS("wanted", "postmaster", "false"), false, false);
	check(ROWS("older", "postmaster", "false"), true, false);
}

/* Before 12 only the receiver shows a difference, and a restart is all that helps: once for each.
 */
static void test_before_12(void **state)
{
	(void)state;
	json_auto_t *pg = json_pack("{s:s,s:{s:{s:s}}}", "listen", "127.0.0.1:5432",
		"authentication", "replication", "username", "replicator");
	p.pg = pg;
	p.major = 11;
	p.follow_known = true;
	facts = (struct pg_sql){ .valid = true, .in_recovery = true };
	check(NULL, false, false);
	assert_true(str_copy(facts.receiver_conninfo, sizeof(facts.receiver_conninfo),
		"user=replicator host=other port=5432 application_name=n1 sslmode=prefer"));
	check(NULL, true, true);
	check(NULL, true, true);
	pgctx_recovery_restarted(&p);
	check(NULL, false, false);
	/* Another difference is another restart. */
	assert_true(str_copy(facts.receiver_conninfo, sizeof(facts.receiver_conninfo),
		"user=replicator host=third port=5432 application_name=n1 sslmode=prefer"));
	check(NULL, true, true);
	assert_true(str_copy(facts.receiver_conninfo, sizeof(facts.receiver_conninfo),
		"user=replicator host=h1 port=5432 application_name=n1 sslmode=prefer"));
	check(NULL, false, false);
}

/* Of several remote hosts one is asked after the other; a single port is every host's. */
static void test_one_host(void **state)
{
	(void)state;
	static const struct {
		const char *hosts, *ports;
		unsigned turn;
		const char *host, *port;
	} rows[] = {
		{ "a", "5432", 0, "a", "5432" },
		{ "a", "5432", 7, "a", "5432" },
		{ "a,bb,c", "1,22,3", 0, "a", "1" },
		{ "a,bb,c", "1,22,3", 1, "bb", "22" },
		{ "a,bb,c", "1,22,3", 5, "c", "3" },
		{ "a,bb", "5432", 3, "bb", "5432" },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pg_target t = { .kind = TARGET_REMOTE };
		assert_true(str_copy(t.host, sizeof(t.host), rows[i].hosts));
		assert_true(str_copy(t.port, sizeof(t.port), rows[i].ports));
		pgctx_one_host(&t, rows[i].turn);
		assert_string_equal(t.host, rows[i].host);
		assert_string_equal(t.port, rows[i].port);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_host),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_no_loop),
		cmocka_unit_test(test_before_12),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
