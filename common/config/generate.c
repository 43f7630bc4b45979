/* The generated configuration as a tree and as text. See generate.h. */
#include "common/config/generate.h"

#include <string.h>

#include "common/config/value.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

#define WIDTH 80

static json_t *address_of(const char *address, int port)
{
	return address == NULL		      ? json_sprintf(GENERATE_UNKNOWN ":%d", port)
	       : strchr(address, ':') != NULL ? json_sprintf("[%s]:%d", address, port)
					      : json_sprintf("%s:%d", address, port);
}

static json_t *dynamic_defaults(void)
{
	return json_pack("{s:i,s:i,s:i,s:{s:b,s:{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:s,s:s}}}",
		"loop_wait", 10, "retry_timeout", 10, "ttl", 30, "postgresql", "use_slots", 1,
		"parameters", "hot_standby", "on", "max_connections", 100,
		"max_locks_per_transaction", 64, "max_prepared_transactions", 0,
		"max_replication_slots", 10, "max_wal_senders", 10, "max_worker_processes", 8,
		"track_commit_timestamp", "off", "wal_log_hints", "on");
}

json_t *generate_template(const json_t *env_tree, const char *host, const char *address)
{
	json_t *config = json_pack("{s:s,s:s,s:{s:o,s:o},s:{s:s,s:s,s:s,s:s,s:i},"
				   "s:{s:s,s:o,s:o,s:s,s:{s:{s:s,s:s},s:{s:s,s:s}}},"
				   "s:{s:i,s:i,s:b,s:b,s:b},s:{s:o}}",
		"scope", GENERATE_UNKNOWN, "name", host != NULL ? host : GENERATE_UNKNOWN,
		"restapi", "connect_address", address_of(address, 8008), "listen",
		address_of(address, 8008), "log", "type", "plain", "level", "INFO",
		"traceback_level", "ERROR", "format", "%(asctime)s %(levelname)s: %(message)s",
		"max_queue_size", 1000, "postgresql", "data_dir", GENERATE_UNKNOWN,
		"connect_address", address_of(address, 5432), "listen", address_of(address, 5432),
		"bin_dir", "", "authentication", "superuser", "username", "postgres", "password",
		GENERATE_UNKNOWN, "replication", "username", "replicator", "password",
		GENERATE_UNKNOWN, "tags", "failover_priority", 1, "sync_priority", 1,
		"noloadbalance", 0, "clonefrom", 1, "nostream", 0, "bootstrap", "dcs",
		dynamic_defaults());
	if (config != NULL)
		json_patch(config, env_tree);
	return config;
}

bool generate_sample(json_t *config, int32_t version)
{
	const char *method = version >= 100000 ? "scram-sha-256" : "md5";
	json_t *pg = json_object_get(config, "postgresql");
	json_t *auth = json_object_get(pg, "authentication");
	json_t *dcs_pg = json_path(config, "bootstrap.dcs.postgresql");
	json_t *params = json_object_get(dcs_pg, "parameters");
	const char *user = json_path_str(auth, "replication.username");
	const char *hints = json_string_value(json_object_get(params, "wal_log_hints"));
	bool on = false;
	bool rewind = hints != NULL && value_parse_bool(hints, &on) && on;
	bool ok = json_object_set_new(pg, "parameters",
			  json_pack("{s:s}", "password_encryption", method)) == 0 &&
		  json_object_set_new(pg, "pg_hba",
			  json_pack("[o,o]", json_sprintf("host all all all %s", method),
				  json_sprintf("host replication %s all %s",
					  user != NULL ? user : "replicator", method))) == 0 &&
		  json_object_set_new(params,
			  version < 130000 ? "wal_keep_segments" : "wal_keep_size",
			  version < 130000 ? json_integer(8) : json_string("128MB")) == 0 &&
		  json_object_set_new(params, "wal_level",
			  json_string(version < 90600 ? "hot_standby" : "replica")) == 0 &&
		  json_object_set_new(dcs_pg, "use_pg_rewind", json_boolean(rewind)) == 0;
	if (version < 110000)
		return ok;
	/* A rewind user of the environment keeps what it has. */
	json_t *given = json_object_get(auth, "rewind");
	if (given == NULL)
		return ok && json_object_set_new(auth, "rewind",
				     json_pack("{s:s,s:s}", "username", "rewind_user", "password",
					     GENERATE_UNKNOWN)) == 0;
	return ok &&
	       (json_object_get(given, "password") != NULL ||
		       json_object_set_new(given, "password", json_string(GENERATE_UNKNOWN)) == 0);
}

/* ---- text
 * ------------------------------------------------------------------------------------------ */

/* {name: value} in block style, each line behind the prefix. */
static void add_block(struct buf *out, const char *prefix, const char *name, json_t *value)
{
	AUTO(buf) text = BUF_INIT(LIMIT_CONFIG_FILE);
	json_auto_t *map = json_pack("{s:O}", name, value);
	if (map == NULL || !yaml_write_wide(map, WIDTH, &text)) {
		out->failed = true;
		return;
	}
	for (const char *p = buf_str(&text); *p != '\0';) {
		size_t n = strcspn(p, "\n");
		buf_addf(out, "%s%.*s\n", prefix, (int)n, p);
		p += n + (p[n] == '\n');
	}
}

static void add_section(struct buf *out, const json_t *config, const char *name)
{
	json_t *v = json_object_get(config, name);
	if (v == NULL)
		return;
	if (json_is_object(v))
		buf_adds(out, "\n");
	add_block(out, "", name, v);
}

static void add_bootstrap(struct buf *out, const json_t *dcs)
{
	static const char *const first[] = { "loop_wait", "retry_timeout", "ttl" };
	buf_adds(out,
		"\n# Read only while the cluster has no configuration in the store: later changes\n"
		"# in this section have no effect.\n"
		"bootstrap:\n"
		"  # Becomes <store>:/<namespace>/<scope>/config when the cluster is initialized; "
		"all\n"
		"  # members use it. Change it afterwards with `patronictl edit-config`.\n"
		"  dcs:\n");
	for (unsigned i = 0; i < ARRAY_LEN(first); i++) {
		json_t *v = json_object_get(dcs, first[i]);
		if (v != NULL)
			add_block(out, "    ", first[i], v);
	}
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)dcs, key, v)
	{
		bool done = false;
		for (unsigned i = 0; i < ARRAY_LEN(first); i++)
			done |= strcmp(key, first[i]) == 0;
		if (!done)
			add_block(out, "    ", key, v);
	}
}

bool generate_text(const json_t *config, struct buf *out)
{
	static const char *const before[] = { "scope", "namespace", "name", "log", "restapi", "ctl",
		"citus", "consul", "etcd", "etcd3", "exhibitor", "kubernetes", "raft",
		"zookeeper" };
	static const char *const after[] = { "postgresql", "watchdog", "tags" };
	for (unsigned i = 0; i < ARRAY_LEN(before); i++)
		add_section(out, config, before[i]);
	const json_t *dcs = json_path(config, "bootstrap.dcs");
	if (json_is_object(dcs))
		add_bootstrap(out, dcs);
	for (unsigned i = 0; i < ARRAY_LEN(after); i++)
		add_section(out, config, after[i]);
	/* The reference ends without a line break. */
	while (!out->failed && out->len > 0 && out->data[out->len - 1] == '\n')
		out->data[--out->len] = '\0';
	return !out->failed;
}
