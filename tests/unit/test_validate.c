/* common/config/validate: findings of the table, line by line; programs; generated configurations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/config/generate.h"
#include "common/config/program.h"
#include "common/config/validate.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

static char dir[64]; /* with programs that only exist, and a postgres that says 15 */

static void write_file(const char *name, const char *text, mode_t mode)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static int setup(void **state)
{
	static const char *const programs[] = { "pg_ctl", "initdb", "pg_controldata",
		"pg_basebackup", "pg_isready" };
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_validate.XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	for (unsigned i = 0; i < ARRAY_LEN(programs); i++)
		write_file(programs[i], "#!/bin/sh\n", 0755);
	write_file(
		"postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 15.4 (Debian 15.4-1)'\n", 0755);
	write_file("old", "#!/bin/sh\necho 'postgres (PostgreSQL) 9.6.24'\n", 0755);
	write_file("beta", "#!/bin/sh\necho 'postgres (PostgreSQL) 18beta1'\n", 0755);
	write_file("mute", "#!/bin/sh\nexit 3\n", 0755);
	write_file("plain", "", 0644);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char *argv[] = { "rm", "-rf", dir, NULL };
	pid_t pid = fork();
	if (pid == 0) {
		execv("/bin/rm", argv);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, NULL, 0) != pid;
}

/* A configuration without a fault; what a test changes is patched over it. */
static json_t *whole(const char *patch)
{
	struct err err = ERR_INIT;
	char text[2048];
	snprintf(text, sizeof(text),
		"{name: a, scope: b, restapi: {listen: '127.0.0.1:1', connect_address: 'h:1'},"
		" etcd3: {url: 'http://h:1'}, postgresql: {listen: '127.0.0.1:1',"
		" connect_address: 'h', data_dir: %s/none, bin_dir: %s, authentication:"
		" {superuser: {username: u}, replication: {username: r}}}}",
		dir, dir);
	json_t *tree = yaml_read(text, strlen(text), &err);
	json_auto_t *more = yaml_read(patch, strlen(patch), &err);
	assert_non_null(tree);
	assert_non_null(more);
	json_patch(tree, more);
	return tree;
}

static void expect(const char *patch, const char *findings)
{
	AUTO(buf) out = BUF_INIT(65536);
	json_auto_t *tree = whole(patch);
	AUTO(buf) warnings = BUF_INIT(65536);
	unsigned n = validate_tree(tree, false, &out, &warnings), lines = 0;
	for (const char *p = buf_str(&out); *p != '\0'; p++)
		lines += *p == '\n';
	assert_string_equal(buf_str(&out), findings);
	assert_int_equal(n, lines);
}

static void test_types(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{ "{}", "" },
		{ "{unknown: {key: 1}, log: {unknown: 1}}", "" },
		{ "{scope: []}", "scope [] is not a string\n" },
		{ "{scope: null}", "scope  is not defined.\n" },
		{ "{name: __patroni_strict_sync_replica_placeholder__}",
			"name __patroni_strict_sync_replica_placeholder__ didn't pass validation: "
			"Node 'name' can't be set to "
			"'__patroni_strict_sync_replica_placeholder__'\n" },
		{ "{thread_pool_size: 4}", "thread_pool_size 4 didn't pass validation: Wrong value "
					   "(allowed: an integer, at least 5)\n" },
		{ "{thread_pool_size: '9'}", "thread_pool_size 9 is not an integer\n" },
		{ "{thread_pool_size: true}",
			"thread_pool_size True didn't pass validation: Wrong value "
			"(allowed: an integer, at least 5)\n" },
		{ "{thread_stack_size: 524288}", "" },
		{ "{thread_stack_size: 70000}",
			"thread_stack_size 70000 didn't pass validation: Wrong value (allowed: an "
			"integer, at least 65536, a multiple of 65536)\n" },
		{ "{log: {level: info}}",
			"log.level info didn't pass validation: Wrong value (allowed: DEBUG, INFO, "
			"WARN, WARNING, ERROR, FATAL, CRITICAL)\n" },
		{ "{log: {traceback_level: debug, max_queue_size: true, type: json}}", "" },
		{ "{log: {file_num: '4', loggers: []}}",
			"log.file_num 4 is not an integer\nlog.loggers [] is not a dictionary\n" },
		{ "{log: {format: [a, {b: c}]}}", "" },
		{ "{log: {format: [a, {b: 1}]}}",
			"log.format ['a', {'b': 1}] didn't pass validation: each item should be a "
			"string or a dictionary with string values\n" },
		{ "{ctl: {insecure: 'yes'}}", "ctl.insecure yes is not a boolean\n" },
		{ "{restapi: {authentication: {username: x}}}",
			"restapi.authentication.password  is not defined.\n" },
		{ "{restapi: {allowlist: [], server_tokens: MINIMAL}}",
			"restapi.allowlist [] is an empty list\n" },
		{ "{restapi: {allowlist: [a, 1]}}", "restapi.allowlist.1 1 is not a string\n" },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		expect(rows[i][0], rows[i][1]);
}

/* Lower than Patroni takes it: no error, but said. */
static void test_low_times(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{ "{bootstrap: {dcs: {ttl: 20, retry_timeout: 3}}}", "" },
		{ "{bootstrap: {dcs: {ttl: 3}}}",
			"bootstrap.dcs.ttl 3: warning: only while every member is pgregent; a "
			"Patroni "
			"member uses 20 instead and its --validate-config refuses this file\n" },
		{ "{bootstrap: {dcs: {retry_timeout: 2}}}",
			"bootstrap.dcs.retry_timeout 2: warning: only while every member is "
			"pgregent; "
			"a Patroni member uses 3 instead and its --validate-config refuses this "
			"file\n" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO(buf) out = BUF_INIT(65536);
		AUTO(buf) warnings = BUF_INIT(65536);
		json_auto_t *tree = whole(rows[i][0]);
		assert_int_equal(validate_tree(tree, true, &out, &warnings), 0);
		assert_string_equal(buf_str(&warnings), rows[i][1]);
	}
}

static void test_dynamic(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{ "{bootstrap: {}}", "bootstrap.dcs  is not defined.\n" },
		{ "{bootstrap: {dcs: {ttl: '20', member_slots_ttl: 5min}}}", "" },
		{ "{bootstrap: {dcs: {ttl: 19, retry_timeout: 1}}}", "" },
		{ "{bootstrap: {dcs: {ttl: 2, retry_timeout: 0}}}",
			"bootstrap.dcs.ttl 2 didn't pass validation: Wrong value (allowed: an "
			"integer, at least 3)\n"
			"bootstrap.dcs.retry_timeout 0 didn't pass validation: Wrong value "
			"(allowed: "
			"an integer, at least 1)\n" },
		{ "{bootstrap: {dcs: {ttl: null}}}",
			"bootstrap.dcs.ttl None didn't pass validation: Wrong value (allowed: an "
			"integer, at least 3)\n" },
		{ "{bootstrap: {dcs: {maximum_lag_on_failover: 10MB}}}",
			"bootstrap.dcs.maximum_lag_on_failover 10MB didn't pass validation: Wrong "
			"value (allowed: an integer, at least 0)\n" },
		{ "{bootstrap: {dcs: {synchronous_mode: Quorum}}}", "" },
		{ "{bootstrap: {dcs: {synchronous_mode: two}}}",
			"bootstrap.dcs.synchronous_mode two didn't pass validation: invalid value "
			"for synchronous_mode (allowed: on, off, quorum)\n" },
		{ "{bootstrap: {dcs: {standby_cluster: {primary_slot_name: x}}}}",
			"bootstrap.dcs.standby_cluster.host  is not defined.\n"
			"bootstrap.dcs.standby_cluster.port  is not defined.\n"
			"bootstrap.dcs.standby_cluster.restore_command  is not defined.\n" },
		{ "{bootstrap: {dcs: {standby_cluster: {port: 65536}}}}",
			"bootstrap.dcs.standby_cluster.port 65536 didn't pass validation: Wrong "
			"value (allowed: an integer, at most 65535)\n" },
		{ "{bootstrap: {dcs: {postgresql: {parameters: {max_connections: 0}}}}}",
			"bootstrap.dcs.postgresql.parameters.max_connections 0 didn't pass "
			"validation: Wrong value (allowed: an integer, at least 1, at most "
			"262143)\n" },
		{ "{bootstrap: {dcs: {}, initdb: [a, {b: c}, 3]}}",
			"bootstrap.initdb.2 3 is not a string\nbootstrap.initdb.2 3 is not a "
			"dictionary\n" },
		{ "{tags: {nofailover: true, failover_priority: 0}}",
			"tags  Multiple of ('nofailover', 'failover_priority') provided\n" },
		{ "{tags: {nofailover: 1, sync_priority: -1}}",
			"tags.nofailover 1 is not a boolean\ntags.sync_priority -1 didn't pass "
			"validation: Wrong value (allowed: an integer, at least 0)\n" },
		{ "{watchdog: {mode: false, safety_margin: -1}}", "" },
		{ "{watchdog: {mode: on}}",
			"watchdog.mode True didn't pass validation: Wrong value "
			"(allowed: off, automatic, required)\n" },
		{ "{citus: {database: x, group: '0'}}", "citus.group 0 is not an integer\n" },
		{ "{kubernetes: {labels: {a: b}, pod_ip: '::1', ports: [{name: x, port: 70000}]}}",
			"kubernetes.ports.0.port {'name': 'x', 'port': 70000} didn't pass "
			"validation: Wrong value (allowed: an integer, at most 65535)\n" },
		{ "{raft: {self_addr: 'h:1', partner_addrs: [], min_timeout: 0}}",
			"raft.min_timeout 0 didn't pass validation: Wrong value (allowed: a "
			"number, above 0)\n" },
		{ "{etcd3: null}",
			"consul  is not defined.\netcd  is not defined.\netcd3  is not defined.\n"
			"exhibitor  is not defined.\nkubernetes  is not defined.\nraft  is not "
			"defined.\nzookeeper  is not defined.\n" },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		expect(rows[i][0], rows[i][1]);
}

static void test_addresses(void **state)
{
	(void)state;
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	char patch[256], found[256];
	AUTO(buf) out = BUF_INIT(65536);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_return_code(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	assert_return_code(listen(fd, 5), 0);
	int port = ntohs(at.sin_port);
	snprintf(patch, sizeof(patch), "{restapi: {listen: '127.0.0.1:%d'}}", port);
	snprintf(found, sizeof(found),
		"restapi.listen 127.0.0.1:%d didn't pass validation: Port %d is already in use.\n",
		port, port);
	expect(patch, found);
	json_auto_t *tree = whole(patch);
	AUTO(buf) warnings = BUF_INIT(65536);
	assert_int_equal(validate_tree(tree, true, &out, &warnings), 0);
	snprintf(
		patch, sizeof(patch), "{etcd3: {hosts: '127.0.0.1:%d, 127.0.0.1:%d'}}", port, port);
	expect(patch, "");
	close(fd);
	snprintf(patch, sizeof(patch), "{etcd3: {hosts: ['127.0.0.1:%d']}}", port);
	snprintf(found, sizeof(found),
		"etcd3.hosts.0 127.0.0.1:%d didn't pass validation: 127.0.0.1:%d is not "
		"reachable\n",
		port, port);
	expect(patch, found);
	expect("{postgresql: {listen: '*,a:5'}}",
		"postgresql.listen *,a:5 didn't pass validation: expecting '*' alone\n");
	expect("{postgresql: {listen: 'a:x'}}",
		"postgresql.listen a:x didn't pass validation: contains a wrong value\n");
	expect("{postgresql: {proxy_address: '[::1]:5'}}",
		"postgresql.proxy_address [::1]:5 didn't pass validation: must not contain "
		"\"127.0.0.1\", \"0.0.0.0\", \"*\", \"::1\", \"localhost\"\n");
}

static void expect_dir(const char *key, const char *value, const char *message)
{
	char patch[512], found[1024];
	snprintf(patch, sizeof(patch), "{postgresql: {%s: '%s/%s'}}", key, dir, value);
	snprintf(found, sizeof(found), "postgresql.%s %s/%s didn't pass validation: %s\n", key, dir,
		value, message);
	expect(patch, message[0] != '\0' ? found : "");
}

static void test_data_dir(void **state)
{
	(void)state;
	char path[256];
	snprintf(path, sizeof(path), "%s/pg", dir);
	assert_return_code(mkdir(path, 0700), 0);
	expect_dir("data_dir", "plain", "is not a directory");
	write_file("pg/.hidden", "", 0600);
	expect_dir("data_dir", "pg", "");
	write_file("pg/x", "", 0600);
	expect_dir("data_dir", "pg", "doesn't look like a valid data directory");
	write_file("pg/PG_VERSION", "14\n", 0600);
	expect_dir("data_dir", "pg",
		"data dir for the cluster is not empty, but doesn't contain \"pg_wal\" directory");
	snprintf(path, sizeof(path), "%s/pg/pg_wal", dir);
	assert_return_code(mkdir(path, 0700), 0);
	expect_dir("data_dir", "pg",
		"data_dir directory postgresql version (14) doesn't match with 'postgres "
		"--version' "
		"output (15)");
	write_file("pg/PG_VERSION", "15\n", 0600);
	expect_dir("data_dir", "pg", "");
}

static void test_programs(void **state)
{
	(void)state;
	static const struct {
		const char *program, *major;
		int32_t number;
	} rows[] = { { "postgres", "15", 150000 }, { "old", "9.6", 90600 },
		{ "beta", "18", 180000 } };
	struct err err = ERR_INIT;
	char major[32], found[512];
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(
			program_version(dir, rows[i].program, major, sizeof(major), &err), ERR_OK);
		assert_string_equal(major, rows[i].major);
		assert_int_equal(program_version_number(major), rows[i].number);
	}
	assert_int_equal(program_version(dir, "mute", major, sizeof(major), &err), ERR_STATE);
	assert_int_equal(program_version(dir, "plain", major, sizeof(major), &err), ERR_NOTFOUND);
	snprintf(found, sizeof(found),
		"postgresql.bin_name.initdb plain didn't pass validation: does not contain 'plain' "
		"in '%s'\npostgresql.bin_dir  does not contain 'plain' in '%s'\n",
		dir, dir);
	expect("{postgresql: {bin_name: {initdb: plain}}}", found);
	expect("{postgresql: {bin_dir: /nonexistent}}",
		"postgresql.bin_dir  Directory '/nonexistent' does not exist.\n");
}

static void test_generate(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	AUTO(buf) text = BUF_INIT(65536);
	AUTO(buf) out = BUF_INIT(65536);
	json_auto_t *env = json_pack("{s:s,s:{s:s},s:{s:{s:{s:s}}}}", "scope", "s1", "etcd3",
		"host", "h:1", "postgresql", "authentication", "replication", "username", "r1");
	json_auto_t *config = generate_template(env, "node", "::1");
	assert_true(generate_sample(config, 150000));
	assert_true(generate_text(config, &text));
	assert_true(text.data[text.len - 1] != '\n');
	json_auto_t *back = yaml_read(buf_str(&text), text.len, &err);
	assert_true(json_equal(back, config));
	assert_string_equal(json_path_str(back, "scope"), "s1");
	assert_string_equal(json_path_str(back, "restapi.listen"), "[::1]:8008");
	assert_string_equal(json_path_str(back, "postgresql.data_dir"), GENERATE_UNKNOWN);
	assert_string_equal(
		json_string_value(json_array_get(json_path(back, "postgresql.pg_hba"), 1)),
		"host replication r1 all scram-sha-256");
	assert_string_equal(
		json_path_str(back, "bootstrap.dcs.postgresql.parameters.wal_keep_size"), "128MB");
	assert_string_equal(
		json_path_str(back, "postgresql.authentication.rewind.username"), "rewind_user");
	assert_non_null(strstr(buf_str(&text), "    loop_wait: 10\n    retry_timeout: 10\n    "
					       "ttl: 30\n    postgresql:\n"));
	json_auto_t *none = generate_template(NULL, NULL, NULL);
	assert_true(generate_sample(none, 90500));
	assert_string_equal(json_path_str(none, "bootstrap.dcs.postgresql.parameters.wal_level"),
		"hot_standby");
	assert_null(json_path(none, "postgresql.authentication.rewind"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_dynamic),
		cmocka_unit_test(test_low_times),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_data_dir),
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_generate),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
