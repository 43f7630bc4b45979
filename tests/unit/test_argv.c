/* worker/postgres/argv and conf_write: command lines and file texts, word by word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "worker/postgres/argv.h"
#include "worker/postgres/conf_write.h"

static json_t *js(const char *text)
{
	json_error_t e;
	json_t *v = json_loads(text, JSON_DECODE_ANY, &e);
	if (v == NULL)
		fail_msg("%s: %s", text, e.text);
	return v;
}

/* The words, joined with |. */
static void assert_words(struct argv *a, const char *expected)
{
	AUTO(buf) joined = BUF_INIT(65536);
	size_t at = 0;
	for (unsigned i = 0; i < a->count; i++) {
		buf_addf(&joined, "%s%s", i > 0 ? "|" : "", a->bytes.data + at);
		at += strlen(a->bytes.data + at) + 1;
	}
	assert_int_equal(at, a->bytes.len);
	assert_string_equal(buf_str(&joined), expected);
	argv_done(a);
}

static void test_split(void **state)
{
	(void)state;
	static const struct {
		const char *text, *words;
	} rows[] = {
		{ "a b  c", "a|b|c" },
		{ " 'a b' \"c \\\" d\" e\\ f ", "a b|c \" d|e f" },
		{ "a'b'\"c\"", "abc" },
		{ "\"a\\b\" 'a\\b'", "a\\b|a\\b" },
		{ "'' x", "|x" },
		{ "", "" },
		{ "$HOME `x` ;", "$HOME|`x`|;" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct argv a = ARGV_INIT;
		assert_true(argv_split(&a, rows[i].text));
		assert_words(&a, rows[i].words);
	}
	static const char *const bad[] = { "'a", "\"a", "a\\" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct argv a = ARGV_INIT;
		assert_false(argv_split(&a, bad[i]));
		argv_done(&a);
	}
}

static void test_options(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		bool ok;
		const char *words;
	} rows[] = {
		{ "{\"foo\": \"bar\", \"off\": false, \"e\": \"\"}", true, "--foo=bar" },
		{ "[\"yes\", {\"foo\": \"bar baz\"}, {\"q\": \"'bar baz'\"}]", true,
			"--yes|--foo=bar baz|--q=bar baz" },
		{ "[{\"q\": \"\\\"a\\\" \\\"b\\\"\"}, {\"u\": \"it's\"}]", true,
			"--q=\"a\" \"b\"|--u=it's" },
		{ "[\"pgdata\", \"ok\"]", false, "--ok" },
		{ "[{\"pgdata\": \"/x\"}]", false, "" },
		{ "[{\"a\": \"1\", \"b\": \"2\"}, {\"c\": 3}, 4]", false, "" },
		{ "{\"max-rate\": 100}", false, "" },
		{ "\"text\"", false, "" },
		{ "null", true, "" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct argv a = ARGV_INIT;
		AUTO(buf) notes = BUF_INIT(4096);
		json_auto_t *o = js(rows[i].json);
		assert_int_equal(argv_options(&a, "tool", o, "pgdata\0", &notes), rows[i].ok);
		assert_int_equal(notes.len > 0, !rows[i].ok);
		assert_words(&a, rows[i].words);
	}
}

static void test_programs(void **state)
{
	(void)state;
	struct argv a = ARGV_INIT;
	AUTO(buf) notes = BUF_INIT(4096);
	json_auto_t *params = js("{\"port\": \"5433\", \"work_mem\": \"1MB\", \"Max_Connections\": "
				 "100, \"wal_log_hints\": true,"
				 " \"listen_addresses\": \"a,b\", \"wal_keep_size\": \"128MB\", "
				 "\"cluster_name\": \"c d\"}");
	argv_postmaster(&a, "/bin/postgres", "/data", "/etc/postgresql.conf", params);
	assert_words(&a, "/bin/postgres|-D|/data|--config-file=/etc/"
			 "postgresql.conf|--listen_addresses=a,b|--port=5433|"
			 "--cluster_name=c d|--max_connections=100|--wal_log_hints=True");
	a = (struct argv)ARGV_INIT;
	json_auto_t *initdb = js("[{\"encoding\": \"UTF8\"}, \"data-checksums\"]");
	assert_true(argv_initdb(&a, "initdb", "/data", initdb, "postgres", "/tmp/pw", &notes));
	assert_words(&a, "initdb|--encoding=UTF8|--data-checksums|--username=postgres|--pwfile=/"
			 "tmp/pw|/data");
	a = (struct argv)ARGV_INIT;
	json_auto_t *bad = js("[\"nosync\"]");
	assert_false(argv_initdb(&a, "initdb", "/data", bad, NULL, NULL, &notes));
	argv_done(&a);
	a = (struct argv)ARGV_INIT;
	json_auto_t *backup = js("[{\"compress\": \"gzip\"}, \"verbose\", {\"max-rate\": "
				 "\"100M\"}, {\"host\": \"x\"}]");
	argv_basebackup(&a, "pg_basebackup", "/data", "host=h user=u", backup, 150004, &notes);
	assert_words(&a, "pg_basebackup|--pgdata=/data|-X|stream|--dbname=host=h "
			 "user=u|--verbose|--max-rate=100M");
	a = (struct argv)ARGV_INIT;
	json_auto_t *server = js("{\"compress\": \"server-gzip\"}");
	argv_basebackup(&a, "b", "/d", "x", server, 150000, &notes);
	assert_words(&a, "b|--pgdata=/d|-X|stream|--dbname=x|--compress=server-gzip");
	a = (struct argv)ARGV_INIT;
	argv_basebackup(&a, "b", "/d", "x", server, 140000, &notes);
	assert_words(&a, "b|--pgdata=/d|-X|stream|--dbname=x");
	a = (struct argv)ARGV_INIT;
	json_auto_t *rewind = js("[\"progress\", \"dry-run\"]");
	argv_rewind(
		&a, "pg_rewind", "/data", "host=h", rewind, true, "/etc/postgresql.conf", &notes);
	assert_words(&a, "pg_rewind|--restore-target-wal|--config-file=/etc/postgresql.conf|-D|/"
			 "data|--source-server|host=h|"
			 "--progress");
	a = (struct argv)ARGV_INIT;
	argv_single(&a, "postgres", "/data", "/etc/p.conf",
		"/usr/bin/postgres \"-D\" \"/data\" \"--port=5432\" \"--cluster_name=a b\" "
		"\"--archive_mode=off\" \"--config-file=/old.conf\" \"-i\"\n");
	assert_words(&a,
		"postgres|--single|-D|/data|--config-file=/etc/p.conf|-c|archive_command=false|"
		"-c|archive_mode=on|-c|cluster_name=a b|-c|port=5432|template1");
	a = (struct argv)ARGV_INIT;
	argv_single(&a, "postgres", "/data", "/etc/p.conf", "");
	assert_words(&a,
		"postgres|--single|-D|/data|--config-file=/etc/p.conf|-c|archive_command=false|"
		"-c|archive_mode=on|template1");
}

static void test_scripts(void **state)
{
	(void)state;
	struct argv a = ARGV_INIT;
	AUTO(buf) notes = BUF_INIT(4096);
	json_auto_t *section = js("{\"command\": \"/bin/restore 'x y'\", \"keep_data\": true, "
				  "\"n\": 3, \"no_leader\": 1}");
	assert_true(argv_clone_method(&a, "barman", section, "demo", "/data", "host=h", &notes));
	assert_words(&a, "/bin/restore|x "
			 "y|--keep_data=True|--n=3|--no_leader=1|--scope=demo|--role=replica|--"
			 "datadir=/data|"
			 "--connstring=host=h");
	a = (struct argv)ARGV_INIT;
	json_object_set_new(section, "no_params", json_true());
	assert_true(argv_clone_method(&a, "barman", section, "demo", "/data", "host=h", &notes));
	assert_words(&a, "/bin/restore|x y|--n=3");
	a = (struct argv)ARGV_INIT;
	assert_true(argv_clone_method(&a, "wal_e", NULL, "demo", "/data", "", &notes));
	assert_words(&a, "wal_e|--scope=demo|--role=replica|--datadir=/data|--connstring=");
	a = (struct argv)ARGV_INIT;
	json_auto_t *boot = js("{\"command\": \"c\", \"recovery_conf\": {}, \"scope\": \"no\", "
			       "\"time\": \"now\"}");
	assert_true(argv_custom_bootstrap(&a, boot, "demo", "/data", &notes));
	assert_words(&a, "c|--scope=demo|--datadir=/data|--time=now");
	a = (struct argv)ARGV_INIT;
	assert_true(argv_script(&a, "sudo /vip.sh", "on_role_change\0primary\0demo", 27, &notes));
	assert_words(&a, "sudo|/vip.sh|on_role_change|primary|demo");
	a = (struct argv)ARGV_INIT;
	assert_false(argv_script(&a, " ", NULL, 0, &notes));
	assert_false(argv_script(&a, "'x", NULL, 0, &notes));
	argv_done(&a);
	AUTO(buf) out = BUF_INIT(4096);
	argv_archive_command(
		"cp %p /a/%f %r %% %x %", "/data/pg_wal", "000000010000000000000002", &out);
	assert_string_equal(buf_str(&out),
		"cp /data/pg_wal/000000010000000000000002 /a/000000010000000000000002 "
		"000000010000000000000001 % %x %");
}

static bool listed(void *arg, const char *name)
{
	(void)arg;
	return strcmp(name, "new_setting") == 0;
}

static void test_conf(void **state)
{
	(void)state;
	AUTO(buf) out = BUF_INIT(65536);
	AUTO(buf) notes = BUF_INIT(65536);
	json_auto_t *params = js(
		"{\"work_mem\": \"1kB\", \"archive_timeout\": \"1h\", \"jit\": \"maybe\", "
		"\"TimeZone\": \"UTC\","
		" \"archive_command\": \"cp '%p' \\\\x\", \"new_setting\": 1, \"bad_setting\": 1,"
		" \"restore_command\": \"x\", \"a.b\": \"c\", \"x = 1\\ny\": 1, "
		"\"log_line_prefix\": \"a\\nb\"}");
	struct conf_env e = { .version = 150004,
		.include = "postgresql.base.conf",
		.hba_file = "/data/pg_hba.conf",
		.ident_file = "/data/pg_ident.conf",
		.listed = listed };
	assert_true(conf_write_main(&e, params, "primary_conninfo = 'x'\n", &out, &notes));
	assert_string_equal(buf_str(&out),
		"# Do not edit this file manually!\n# It will be overwritten by Patroni!\n"
		"include 'postgresql.base.conf'\n\n"
		"TimeZone = 'UTC'\n"
		"a.b = 'c'\n"
		"archive_command = 'cp ''%p'' \\\\x'\n"
		"archive_timeout = '1h'\n"
		"new_setting = '1'\n"
		"work_mem = '64'\n"
		"hba_file = '/data/pg_hba.conf'\n"
		"ident_file = '/data/pg_ident.conf'\n"
		"\n# recovery.conf\nprimary_conninfo = 'x'\n");
	assert_non_null(
		strstr(buf_str(&notes), "Removing unexpected parameter=bad_setting value=1"));
	assert_non_null(strstr(buf_str(&notes), "jit"));
	assert_non_null(strstr(buf_str(&notes), "work_mem is too low"));
	assert_true(conf_is_ours(buf_str(&out), out.len));
	assert_false(conf_is_ours("# x", 3));
	/* A custom bootstrap forces our hba file; otherwise the user's stands. */
	json_auto_t *hba = js("{\"hba_file\": \"/u\", \"ident_file\": \"/i\"}");
	buf_reset(&out);
	e.custom_bootstrap = true;
	assert_true(conf_write_main(&e, hba, "", &out, &notes));
	assert_non_null(
		strstr(buf_str(&out), "\nident_file = '/i'\nhba_file = '/data/pg_hba.conf'\n"));
	assert_null(strstr(buf_str(&out), "'/u'"));
	buf_reset(&out);
	e.custom_bootstrap = false;
	assert_true(conf_write_main(&e, hba, "", &out, &notes));
	assert_non_null(strstr(buf_str(&out), "hba_file = '/u'\nident_file = '/i'\n"));
	assert_null(strstr(buf_str(&out), "/data/"));
}

static void test_lists(void **state)
{
	(void)state;
	AUTO(buf) out = BUF_INIT(4096);
	json_auto_t *pg = js("{\"pg_hba\": [\"local all all trust\", 1], \"pg_hba_replica\": "
			     "[\"x\"], \"pg_ident\": []}");
	assert_true(conf_write_lines(conf_role_list(pg, "pg_hba", "primary"), &out));
	assert_string_equal(buf_str(&out),
		"# Do not edit this file manually!\n# It will be overwritten by Patroni!\n"
		"local all all trust\n");
	buf_reset(&out);
	assert_true(conf_write_lines(conf_role_list(pg, "pg_hba", "replica"), &out));
	assert_non_null(strstr(buf_str(&out), "\nx\n"));
	assert_false(conf_write_lines(conf_role_list(pg, "pg_ident", NULL), &out));
	assert_false(conf_write_lines(conf_role_list(pg, "none", "replica"), &out));
	buf_reset(&out);
	conf_write_bootstrap_hba("repl", NULL, (const char *const[]){ "127.0.0.1" }, 1, &out);
	assert_non_null(strstr(buf_str(&out),
		"\nlocal\treplication\trepl\t\ttrust\nlocal\tall\tall\t\ttrust\n"
		"host\treplication\trepl\t127.0.0.1/32\ttrust\nhost\tall\tall\t127.0.0.1/"
		"32\ttrust\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_conf),
		cmocka_unit_test(test_lists),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
