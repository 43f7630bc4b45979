/* common/config/local and env: files, directories, the environment, precedence, what a start
 * checks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config/env.h"
#include "common/config/local.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_local.XXXXXX");
	clearenv();
	return mkdtemp(dir) == NULL;
}

static void put(const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void drop(const char *name)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
}

static int teardown(void **state)
{
	static const char *const names[] = { "a.yml", "b.yaml", ".c.yml", "d.txt", "list.yml" };
	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		drop(names[i]);
	return rmdir(dir);
}

/* Each variable alone: the tree that it makes. */
static void test_variables(void **state)
{
	(void)state;
	static const struct {
		const char *entry, *tree;
	} rows[] = {
		{ "PATRONI_SCOPE=010", "{scope: '010'}" },
		{ "PATRONI_SCOPE=", "{}" },
		{ "PATRONI_LOG_FORMAT=%(message)s", "{log: {format: '%(message)s'}}" },
		{ "PATRONI_LOG_FORMAT=message, levelname",
			"{log: {format: [message, levelname]}}" },
		{ "PATRONI_LOG_FORMAT=- a\n- b: c", "{log: {format: [a, {b: c}]}}" },
		{ "PATRONI_LOG_MODE=0644", "{log: {mode: 420}}" },
		{ "PATRONI_LOG_FILE_NUM=x", "{}" },
		{ "PATRONI_LOGLEVEL=DEBUG", "{log: {level: DEBUG}}" },
		{ "PATRONI_LOG_DATEFMT=%H", "{log: {dateformat: '%H'}}" },
		{ "PATRONI_LOG_STATIC_FIELDS=app: x, n: 1",
			"{log: {static_fields: {app: x, n: 1}}}" },
		{ "PATRONI_LOG_LOGGERS={patroni.ha: DEBUG}",
			"{log: {loggers: {patroni.ha: DEBUG}}}" },
		{ "PATRONI_LOG_DEDUPLICATE_HEARTBEAT_LOGS=on",
			"{log: {deduplicate_heartbeat_logs: true}}" },
		{ "PATRONI_RESTAPI_ALLOWLIST=a,b", "{restapi: {allowlist: [a, b]}}" },
		{ "PATRONI_RESTAPI_ALLOWLIST_INCLUDE_MEMBERS=No",
			"{restapi: {allowlist_include_members: false}}" },
		{ "PATRONI_RESTAPI_HTTP_EXTRA_HEADERS=X-A: b",
			"{restapi: {http_extra_headers: {X-A: b}}}" },
		{ "PATRONI_RESTAPI_THREAD_POOL_SIZE=9", "{restapi: {thread_pool_size: 9}}" },
		{ "PATRONI_CTL_PASSWORD=p", "{ctl: {authentication: {password: p}}}" },
		{ "PATRONI_CTL_INSECURE=maybe", "{}" },
		{ "PATRONI_POSTGRESQL_BIN_IS_READY=x",
			"{postgresql: {bin_name: {pg_isready: x}}}" },
		{ "PATRONI_POSTGRESQL_DATABASE=d", "{postgresql: {database: d}}" },
		{ "PATRONI_REWIND_SSLMODE=require",
			"{postgresql: {authentication: {rewind: {sslmode: require}}}}" },
		{ "PATRONI_RAFT_MIN_TIMEOUT=.5", "{raft: {min_timeout: 0.5}}" },
		{ "PATRONI_RAFT_PARTNER_ADDRS=a:1,b:2", "{raft: {partner_addrs: ['a:1', 'b:2']}}" },
		{ "PATRONI_ETCD3_HOSTS='h:1','h:2'", "{etcd3: {hosts: ['h:1', 'h:2']}}" },
		{ "PATRONI_ETCD3_HOSTS=h:1, x]", "{}" },
		{ "PATRONI_ETCD3_USERNAME=u", "{}" },
		{ "PATRONI_ETCD_PORT=tcp://10.0.0.1:2379", "{}" },
		{ "PATRONI_ETCD_HOST=", "{etcd: {host: ''}}" },
		{ "PATRONI_CONSUL_SCHEME=https", "{consul: {scheme: https}}" },
		{ "PATRONI_ZOOKEEPER_USE_SSL=false", "{zookeeper: {use_ssl: false}}" },
		{ "PATRONI_KUBERNETES_LABELS={a: b}", "{kubernetes: {labels: {a: b}}}" },
		{ "PATRONI_KUBERNETES_RETRIABLE_HTTP_CODES=401, 403",
			"{kubernetes: {retriable_http_codes: [401, 403]}}" },
		{ "PATRONI_CITUS_GROUP=1", "{citus: {group: 1}}" },
		{ "PATRONI_CITUS_HOST=x", "{}" },
		{ "PATRONI_NONSENSE=1", "{}" },
		{ "PATRONI_TTL=1", "{}" },
		{ "OTHER=1", "{}" },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = ERR_INIT;
		char *block[] = { (char *)rows[i].entry, NULL };
		json_auto_t *tree = env_tree(block);
		json_auto_t *want = yaml_read(rows[i].tree, strlen(rows[i].tree), &err);
		if (!json_equal(tree, want))
			fail_msg("%s: %s", rows[i].entry, json_dumps(tree, 0));
	}
}

static void test_variables_together(void **state)
{
	(void)state;
	char *block[] = { "PATRONI_ETCD3_PASSWORD=p", "PATRONI_ETCD3_USERNAME=u",
		"PATRONI_ETCD3_HOST=h", "PATRONI_LOGLEVEL=DEBUG", "PATRONI_LOG_LEVEL=ERROR", NULL };
	json_auto_t *tree = env_tree(block);
	assert_string_equal(json_path_str(tree, "etcd3.username"), "u");
	assert_string_equal(json_path_str(tree, "etcd3.password"), "p");
	assert_string_equal(json_path_str(tree, "log.level"), "ERROR");
}

static void test_directory(void **state)
{
	(void)state;
	struct local_config c;
	struct err err = ERR_INIT;
	bool changed = false;
	put("a.yml", "scope: 010\nname: yes\nlog: {level: INFO, dir: /x}\nlist: [1, 2]\nttl: 5\n");
	put("b.yaml", "log: {level: ERROR}\nlist: [3]\nttl: null\n");
	put(".c.yml", "scope: hidden\n");
	put("d.txt", "scope: text\n");
	assert_int_equal(setenv("PATRONI_LOG_LEVEL", "DEBUG", 1), 0);
	assert_int_equal(local_load(&c, dir, &err), ERR_OK);
	unsetenv("PATRONI_LOG_LEVEL");
	assert_string_equal(json_path_str(c.tree, "scope"), "010");
	assert_string_equal(json_path_str(c.tree, "name"), "yes");
	assert_string_equal(json_path_str(c.tree, "log.level"), "DEBUG");
	assert_string_equal(json_path_str(c.tree, "log.dir"), "/x");
	assert_int_equal(json_array_size(json_object_get(c.tree, "list")), 1);
	assert_null(json_object_get(c.tree, "ttl"));
	/* A variable that has gone meanwhile still counts. */
	assert_int_equal(local_reload(&c, &changed, &err), ERR_OK);
	assert_false(changed);
	put("b.yaml", "log: {level: WARNING}\n");
	assert_int_equal(local_reload(&c, &changed, &err), ERR_OK);
	assert_true(changed);
	assert_string_equal(json_path_str(c.tree, "log.level"), "DEBUG");
	put("b.yaml", "log: [\n");
	assert_int_equal(local_reload(&c, &changed, &err), ERR_PARSE);
	assert_string_equal(json_path_str(c.tree, "scope"), "010");
	local_done(&c);
}

static void test_sources(void **state)
{
	(void)state;
	struct local_config c;
	struct err err = ERR_INIT;
	char path[128];
	assert_int_equal(setenv("PATRONI_CONFIGURATION", "{scope: whole}", 1), 0);
	assert_int_equal(setenv("PATRONI_NAME", "n", 1), 0);
	assert_int_equal(local_load(&c, NULL, &err), ERR_OK);
	assert_string_equal(json_path_str(c.tree, "scope"), "whole");
	assert_null(json_object_get(c.tree, "name"));
	local_done(&c);
	assert_int_equal(setenv("PATRONI_CONFIGURATION", "[1]", 1), 0);
	assert_int_equal(local_load(&c, NULL, &err), ERR_PARSE);
	local_done(&c);
	unsetenv("PATRONI_CONFIGURATION");
	assert_int_equal(local_load(&c, "/nonexistent", &err), ERR_OK);
	assert_string_equal(json_path_str(c.tree, "name"), "n");
	assert_true(c.from_env);
	local_done(&c);
	unsetenv("PATRONI_NAME");
	put("list.yml", "- a\n");
	snprintf(path, sizeof(path), "%s/list.yml", dir);
	assert_int_equal(local_load(&c, path, &err), ERR_PARSE);
	assert_non_null(strstr(err.text, "invalid config file"));
	local_done(&c);
	drop("list.yml");
}

#define GOOD                                                                                       \
	"scope: s, name: n, restapi: {listen: 'h:1'}, etcd3: {host: h}, postgresql: {listen: h,"   \
	" data_dir: d, authentication: {replication: {username: r}}}"

static void test_check(void **state)
{
	(void)state;
	static const struct {
		const char *text, *finding; /* NULL: none */
	} rows[] = {
		{ "{" GOOD "}", NULL },
		{ "{}", "Config is empty." },
		{ "{name: n}", "scope is not defined.; restapi.listen is not defined." },
		{ "{" GOOD ", restapi: {listen: h}}", "restapi.listen h: host:port is allowed" },
		{ "{" GOOD ", restapi: {listen: 'h:x'}}", "restapi.listen h:x: host:port" },
		{ "{" GOOD ", restapi: {listen: 'h:1', authentication: {username: u}}}",
			"restapi.authentication needs username and password" },
		{ "{" GOOD ", postgresql: {listen: 'h:x', data_dir: d}}",
			"postgresql.listen h:x: host[:port] is allowed" },
		{ "{" GOOD ", postgresql: {listen: h, data_dir: d, authentication: {superuser: "
		  "{username: null}, replication: {username: r}}}}",
			"postgresql.authentication.superuser.username: a text is needed" },
		{ "{" GOOD ", postgresql: {listen: h, data_dir: d, authentication: {superuser: "
		  "{username: u}}}}",
			"postgresql.authentication.replication.username is not defined." },
		{ "{" GOOD ", postgresql: {listen: h, data_dir: d, superuser: {username: u}, "
		  "replication: {username: r}}}",
			NULL },
		{ "{" GOOD ", citus: {group: 0}}", "citus" },
		{ "{" GOOD ", name: __patroni_strict_sync_replica_placeholder__}", "reserved" },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct local_config c;
		struct err err = ERR_INIT;
		assert_int_equal(setenv("PATRONI_CONFIGURATION", rows[i].text, 1), 0);
		assert_int_equal(local_load(&c, NULL, &err), ERR_OK);
		enum err_code rc = local_check(&c, &err);
		assert_int_equal(rc, rows[i].finding == NULL ? ERR_OK : ERR_INVAL);
		if (rows[i].finding != NULL && strstr(err.text, rows[i].finding) == NULL)
			fail_msg("%s: %s", rows[i].text, err.text);
		local_done(&c);
	}
	unsetenv("PATRONI_CONFIGURATION");
}

static void test_legacy(void **state)
{
	(void)state;
	struct local_config c;
	struct err err = ERR_INIT;
	assert_int_equal(setenv("PATRONI_CONFIGURATION",
				 "{postgresql: {name: old, superuser: {username: s}, replication: "
				 "{username: r}, pg_rewind: {username: w}}, zookeeper: {exhibitor: "
				 "{port: 1}}}",
				 1),
		0);
	assert_int_equal(local_load(&c, NULL, &err), ERR_OK);
	unsetenv("PATRONI_CONFIGURATION");
	assert_string_equal(json_path_str(c.tree, "name"), "old");
	assert_string_equal(
		json_path_str(c.tree, "postgresql.authentication.superuser.username"), "w");
	assert_string_equal(
		json_path_str(c.tree, "postgresql.authentication.replication.username"), "r");
	assert_true(json_is_true(json_path(c.tree, "postgresql.use_pg_rewind")));
	assert_int_equal(json_integer_value(json_path(c.tree, "exhibitor.port")), 1);
	local_done(&c);
}

static void test_split_address(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host;
		int port; /* -1: not understood */
	} rows[] = { { "127.0.0.1", "127.0.0.1", 5432 }, { "a,b:5400", "a,b", 5400 },
		{ "[::1]:5432", "::1", 5432 }, { "[::1],127.0.0.1:5", "::1,127.0.0.1", 5 },
		{ "::1", "::1", 5432 }, { "[::1]", "::1", 5432 }, { "h:", "", -1 },
		{ "h:x", "", -1 }, { ":80", "", 80 }, { "*:80", "*", 80 } };
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		char host[64];
		int port;
		bool ok = local_split_address(rows[i].text, 5432, host, sizeof(host), &port);
		assert_int_equal(ok, rows[i].port >= 0);
		if (!ok)
			continue;
		assert_string_equal(host, rows[i].host);
		assert_int_equal(port, rows[i].port);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_variables),
		cmocka_unit_test(test_variables_together),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_legacy),
		cmocka_unit_test(test_split_address),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
