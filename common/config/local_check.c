/* What every start checks of the local configuration: much less than --validate-config, whose
 * findings are often harmless. See local_check in local.h. */
#include <string.h>

#include "common/config/local.h"
#include "common/core/buf.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"

static void add(struct buf *found, const char *fmt, ...) PRINTF(2, 3);
static void add(struct buf *found, const char *fmt, ...)
{
	va_list ap;
	if (found->len > 0)
		buf_adds(found, "; ");
	va_start(ap, fmt);
	buf_addv(found, fmt, ap);
	va_end(ap);
}

static void check_required(const json_t *tree, struct buf *found)
{
	static const char *const required[] = { "scope", "name", "restapi.listen",
		"postgresql.listen", "postgresql.data_dir" };
	for (unsigned i = 0; i < ARRAY_LEN(required); i++) {
		const char *v = json_path_str(tree, required[i]);
		if (v == NULL || v[0] == '\0')
			add(found, "%s is not defined.", required[i]);
	}
}

static void check_name(const json_t *tree, struct buf *found)
{
	static const char *const names[] = { "name", "scope", "namespace" };
	if (str_eq(json_path_str(tree, "name"), "__patroni_strict_sync_replica_placeholder__"))
		add(found, "name __patroni_strict_sync_replica_placeholder__ is reserved");
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		const char *v = json_path_str(tree, names[i]);
		if (v != NULL && strlen(v) >= LIMIT_NAME)
			add(found, "%s %.40s... is longer than %d bytes", names[i], v,
				LIMIT_NAME - 1);
	}
}

static void check_addresses(const json_t *tree, struct buf *found)
{
	static const struct {
		const char *path;
		int port; /* -1: one is needed */
	} rows[] = { { "restapi.listen", -1 }, { "restapi.connect_address", -1 },
		{ "postgresql.listen", 5432 }, { "postgresql.connect_address", 5432 },
		{ "postgresql.proxy_address", 5432 } };
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		const json_t *v = json_path(tree, rows[i].path);
		const char *text = json_string_value(v);
		char host[LIMIT_URL];
		int port = 0;
		if (v == NULL || json_is_null(v) || (text != NULL && text[0] == '\0'))
			continue;
		if (text == NULL ||
			!local_split_address(text, rows[i].port, host, sizeof(host), &port) ||
			port < 0)
			add(found, "%s %s: host%s is allowed", rows[i].path,
				text != NULL ? text : "(not a text)",
				rows[i].port < 0 ? ":port" : "[:port]");
	}
}

static void check_users(const json_t *tree, struct buf *found)
{
	static const char *const pairs[] = { "restapi.authentication", "ctl.authentication" };
	static const char *const users[] = { "superuser", "replication", "rewind" };
	for (unsigned i = 0; i < ARRAY_LEN(pairs); i++) {
		const json_t *a = json_path(tree, pairs[i]);
		if (json_is_object(a) && (json_object_get(a, "username") != NULL) !=
						 (json_object_get(a, "password") != NULL))
			add(found, "%s needs username and password, or neither", pairs[i]);
	}
	const json_t *auth = json_path(tree, "postgresql.authentication");
	if (auth != NULL && !json_is_null(auth) && !json_is_object(auth))
		add(found, "postgresql.authentication is not a dictionary");
	for (unsigned i = 0; i < ARRAY_LEN(users); i++) {
		const json_t *u = json_object_get(auth, users[i]);
		const json_t *name = json_object_get(u, "username");
		if (u != NULL && (!json_is_object(u) || (name != NULL && !json_is_string(name))))
			add(found, "postgresql.authentication.%s.username: a text is needed",
				users[i]);
	}
	if (json_is_object(auth) && json_path_str(auth, "replication.username") == NULL)
		add(found, "postgresql.authentication.replication.username is not defined.");
}

static void check_store(const json_t *tree, struct buf *found)
{
	static const char *const stores[] = { "consul", "etcd", "etcd3", "exhibitor", "kubernetes",
		"raft", "zookeeper" };
	bool any = false;
	for (unsigned i = 0; i < ARRAY_LEN(stores); i++)
		any |= json_object_get(tree, stores[i]) != NULL;
	if (!any)
		add(found,
			"Can not find suitable configuration of distributed configuration store: "
			"one of consul, etcd, etcd3, exhibitor, kubernetes, raft, zookeeper is "
			"needed");
	/* Its keys stand elsewhere in the store: going on would found a second cluster there. */
	if (json_object_get(tree, "citus") != NULL && json_truthy(json_object_get(tree, "citus")))
		add(found, "citus: Citus clusters are not built yet");
}

enum err_code local_check(const struct local_config *c, struct err *err)
{
	AUTO(buf) found = BUF_INIT(65536);
	if (json_object_size(c->tree) == 0)
		return err_set(err, ERR_INVAL, 0, "Config is empty.");
	check_required(c->tree, &found);
	check_name(c->tree, &found);
	check_addresses(c->tree, &found);
	check_users(c->tree, &found);
	check_store(c->tree, &found);
	if (found.len > 0 || found.failed)
		return err_set(err, ERR_INVAL, 0, "%s", buf_str(&found));
	return ERR_OK;
}
