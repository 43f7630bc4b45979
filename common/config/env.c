/* Environment variables to a configuration tree. See env.h. */
#include "common/config/env.h"

#include <ctype.h>
#include <string.h>

#include "common/config/value.h"
#include "common/core/buf.h"
#include "common/core/limits.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

enum conv { CONV_TEXT, CONV_INT, CONV_REAL, CONV_BOOL, CONV_LIST, CONV_MAP, CONV_FORMAT };

/* Named variables (config 2.2): text after PATRONI_, dotted key, converter. */
static const struct {
	const char *name, *path;
	enum conv conv;
} named[] = {
	{ "NAME", "name", CONV_TEXT },
	{ "NAMESPACE", "namespace", CONV_TEXT },
	{ "SCOPE", "scope", CONV_TEXT },
	{ "THREAD_POOL_SIZE", "thread_pool_size", CONV_TEXT },
	{ "THREAD_STACK_SIZE", "thread_stack_size", CONV_TEXT },
	{ "LOGLEVEL", "log.level", CONV_TEXT },
	{ "LOGFORMAT", "log.format", CONV_FORMAT },
	{ "LOG_DATEFMT", "log.dateformat", CONV_TEXT },
	{ "LOG_TYPE", "log.type", CONV_TEXT },
	{ "LOG_LEVEL", "log.level", CONV_TEXT },
	{ "LOG_TRACEBACK_LEVEL", "log.traceback_level", CONV_TEXT },
	{ "LOG_DATEFORMAT", "log.dateformat", CONV_TEXT },
	{ "LOG_DIR", "log.dir", CONV_TEXT },
	{ "LOG_FORMAT", "log.format", CONV_FORMAT },
	{ "LOG_STATIC_FIELDS", "log.static_fields", CONV_MAP },
	{ "LOG_LOGGERS", "log.loggers", CONV_MAP },
	{ "LOG_MAX_QUEUE_SIZE", "log.max_queue_size", CONV_INT },
	{ "LOG_FILE_SIZE", "log.file_size", CONV_INT },
	{ "LOG_FILE_NUM", "log.file_num", CONV_INT },
	{ "LOG_MODE", "log.mode", CONV_INT },
	{ "LOG_DEDUPLICATE_HEARTBEAT_LOGS", "log.deduplicate_heartbeat_logs", CONV_BOOL },
	{ "RESTAPI_LISTEN", "restapi.listen", CONV_TEXT },
	{ "RESTAPI_CONNECT_ADDRESS", "restapi.connect_address", CONV_TEXT },
	{ "RESTAPI_CERTFILE", "restapi.certfile", CONV_TEXT },
	{ "RESTAPI_KEYFILE", "restapi.keyfile", CONV_TEXT },
	{ "RESTAPI_KEYFILE_PASSWORD", "restapi.keyfile_password", CONV_TEXT },
	{ "RESTAPI_CAFILE", "restapi.cafile", CONV_TEXT },
	{ "RESTAPI_CIPHERS", "restapi.ciphers", CONV_TEXT },
	{ "RESTAPI_VERIFY_CLIENT", "restapi.verify_client", CONV_TEXT },
	{ "RESTAPI_SERVER_TOKENS", "restapi.server_tokens", CONV_TEXT },
	{ "RESTAPI_HTTP_EXTRA_HEADERS", "restapi.http_extra_headers", CONV_MAP },
	{ "RESTAPI_HTTPS_EXTRA_HEADERS", "restapi.https_extra_headers", CONV_MAP },
	{ "RESTAPI_ALLOWLIST", "restapi.allowlist", CONV_LIST },
	{ "RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "restapi.allowlist_include_members", CONV_BOOL },
	{ "RESTAPI_REQUEST_QUEUE_SIZE", "restapi.request_queue_size", CONV_INT },
	{ "RESTAPI_THREAD_POOL_SIZE", "restapi.thread_pool_size", CONV_INT },
	{ "RESTAPI_USERNAME", "restapi.authentication.username", CONV_TEXT },
	{ "RESTAPI_PASSWORD", "restapi.authentication.password", CONV_TEXT },
	{ "CTL_USERNAME", "ctl.authentication.username", CONV_TEXT },
	{ "CTL_PASSWORD", "ctl.authentication.password", CONV_TEXT },
	{ "CTL_CACERT", "ctl.cacert", CONV_TEXT },
	{ "CTL_CERTFILE", "ctl.certfile", CONV_TEXT },
	{ "CTL_KEYFILE", "ctl.keyfile", CONV_TEXT },
	{ "CTL_KEYFILE_PASSWORD", "ctl.keyfile_password", CONV_TEXT },
	{ "CTL_INSECURE", "ctl.insecure", CONV_BOOL },
	{ "POSTGRESQL_LISTEN", "postgresql.listen", CONV_TEXT },
	{ "POSTGRESQL_CONNECT_ADDRESS", "postgresql.connect_address", CONV_TEXT },
	{ "POSTGRESQL_PROXY_ADDRESS", "postgresql.proxy_address", CONV_TEXT },
	{ "POSTGRESQL_CONFIG_DIR", "postgresql.config_dir", CONV_TEXT },
	{ "POSTGRESQL_DATA_DIR", "postgresql.data_dir", CONV_TEXT },
	{ "POSTGRESQL_PGPASS", "postgresql.pgpass", CONV_TEXT },
	{ "POSTGRESQL_BIN_DIR", "postgresql.bin_dir", CONV_TEXT },
	{ "POSTGRESQL_BIN_PG_CTL", "postgresql.bin_name.pg_ctl", CONV_TEXT },
	{ "POSTGRESQL_BIN_INITDB", "postgresql.bin_name.initdb", CONV_TEXT },
	{ "POSTGRESQL_BIN_PG_CONTROLDATA", "postgresql.bin_name.pg_controldata", CONV_TEXT },
	{ "POSTGRESQL_BIN_PG_BASEBACKUP", "postgresql.bin_name.pg_basebackup", CONV_TEXT },
	{ "POSTGRESQL_BIN_POSTGRES", "postgresql.bin_name.postgres", CONV_TEXT },
	{ "POSTGRESQL_BIN_PG_ISREADY", "postgresql.bin_name.pg_isready", CONV_TEXT },
	{ "POSTGRESQL_BIN_IS_READY", "postgresql.bin_name.pg_isready", CONV_TEXT },
	{ "POSTGRESQL_BIN_PG_REWIND", "postgresql.bin_name.pg_rewind", CONV_TEXT },
	{ "RAFT_DATA_DIR", "raft.data_dir", CONV_TEXT },
	{ "RAFT_SELF_ADDR", "raft.self_addr", CONV_TEXT },
	{ "RAFT_PASSWORD", "raft.password", CONV_TEXT },
	{ "RAFT_BIND_ADDR", "raft.bind_addr", CONV_TEXT },
	{ "RAFT_PARTNER_ADDRS", "raft.partner_addrs", CONV_LIST },
	{ "RAFT_APPEND_ENTRIES_PERIOD", "raft.append_entries_period", CONV_REAL },
	{ "RAFT_MIN_TIMEOUT", "raft.min_timeout", CONV_REAL },
	{ "RAFT_MAX_TIMEOUT", "raft.max_timeout", CONV_REAL },
	{ "RAFT_CONNECTION_TIMEOUT", "raft.connection_timeout", CONV_REAL },
	{ "RAFT_CONNECTION_RETRY_TIME", "raft.connection_retry_time", CONV_REAL },
	{ "RAFT_LEADER_FALLBACK_TIMEOUT", "raft.leader_fallback_timeout", CONV_REAL },
};

static const char *const auth_keys[] = { "username", "password", "sslmode", "sslcert", "sslkey",
	"sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "gssencmode", "channel_binding",
	"sslnegotiation" };

/* Generic rule (config 2.3). */
static const struct {
	const char *suffix;
	enum conv conv;
} generic[] = {
	{ "HOST", CONV_TEXT },
	{ "PROTOCOL", CONV_TEXT },
	{ "SRV", CONV_TEXT },
	{ "SRV_SUFFIX", CONV_TEXT },
	{ "URL", CONV_TEXT },
	{ "PROXY", CONV_TEXT },
	{ "CACERT", CONV_TEXT },
	{ "CERT", CONV_TEXT },
	{ "KEY", CONV_TEXT },
	{ "TOKEN", CONV_TEXT },
	{ "DC", CONV_TEXT },
	{ "CONSISTENCY", CONV_TEXT },
	{ "SCHEME", CONV_TEXT },
	{ "SERVICE_CHECK_INTERVAL", CONV_TEXT },
	{ "SERVICE_CHECK_TLS_SERVER_NAME", CONV_TEXT },
	{ "NAMESPACE", CONV_TEXT },
	{ "CONTEXT", CONV_TEXT },
	{ "SCOPE_LABEL", CONV_TEXT },
	{ "ROLE_LABEL", CONV_TEXT },
	{ "POD_IP", CONV_TEXT },
	{ "KEY_PASSWORD", CONV_TEXT },
	{ "USE_SSL", CONV_BOOL },
	{ "GROUP", CONV_TEXT },
	{ "DATABASE", CONV_TEXT },
	{ "LEADER_LABEL_VALUE", CONV_TEXT },
	{ "FOLLOWER_LABEL_VALUE", CONV_TEXT },
	{ "STANDBY_LEADER_LABEL_VALUE", CONV_TEXT },
	{ "TMP_ROLE_LABEL", CONV_TEXT },
	{ "PORT", CONV_INT },
	{ "HOSTS", CONV_LIST },
	{ "PORTS", CONV_LIST },
	{ "CHECKS", CONV_LIST },
	{ "SERVICE_TAGS", CONV_LIST },
	{ "RETRIABLE_HTTP_CODES", CONV_LIST },
	{ "LABELS", CONV_MAP },
	{ "SET_ACLS", CONV_MAP },
	{ "AUTH_DATA", CONV_MAP },
	{ "BOOTSTRAP_LABELS", CONV_MAP },
	{ "USE_PROXIES", CONV_BOOL },
	{ "REGISTER_SERVICE", CONV_BOOL },
	{ "USE_ENDPOINTS", CONV_BOOL },
	{ "BYPASS_API_SERVICE", CONV_BOOL },
	{ "VERIFY", CONV_BOOL },
};

static json_t *convert_yaml(const char *text, char open, char close_)
{
	struct err err = ERR_INIT;
	AUTO(buf) b = BUF_INIT(LIMIT_CONFIG_FILE);
	const char *p = text + strspn(text, " \t");
	bool as_is = open == '[' ? (*p == '-' || strchr(p, '[') != NULL) : *p == '{';
	if (as_is)
		buf_adds(&b, text);
	else
		buf_addf(&b, "%c%s%c", open, text, close_);
	json_t *v = yaml_read(buf_str(&b), b.len, &err);
	if (v == NULL || (open == '[' ? !json_is_array(v) : !json_is_object(v))) {
		log_error("environment: %s is no %s: %s", text, open == '[' ? "list" : "map",
			err.text);
		json_decref(v);
		return NULL;
	}
	return v;
}

static json_t *convert(const char *text, enum conv conv)
{
	int64_t i;
	double d;
	bool b;
	switch (conv) {
	case CONV_TEXT: return json_string(text);
	case CONV_INT: return value_parse_int(text, NULL, &i) ? json_integer(i) : NULL;
	case CONV_REAL: return value_parse_real(text, NULL, &d) ? json_real(d) : NULL;
	case CONV_BOOL: return value_parse_bool(text, &b) ? json_boolean(b) : NULL;
	case CONV_LIST: return convert_yaml(text, '[', ']');
	case CONV_MAP: return convert_yaml(text, '{', '}');
	case CONV_FORMAT:
		return strstr(text, "%(") != NULL ? json_string(text)
						  : convert_yaml(text, '[', ']');
	}
	return NULL;
}

/* Set "a.b.c"; takes v. */
static void set_path(json_t *root, const char *path, json_t *v)
{
	json_t *at = root;
	if (v == NULL)
		return;
	for (;;) {
		size_t n = strcspn(path, ".");
		char key[LIMIT_NAME];
		if (!str_copy_n(key, sizeof(key), path, n)) {
			json_decref(v);
			return;
		}
		if (path[n] == '\0') {
			json_object_set_new(at, key, v);
			return;
		}
		json_t *next = json_object_get(at, key);
		if (!json_is_object(next)) {
			next = json_object();
			json_object_set_new(at, key, next);
		}
		at = next;
		path += n + 1;
	}
}

/* The old spellings give way to the new ones. */
static bool is_old_spelling(const char *name)
{
	return strcmp(name, "LOGLEVEL") == 0 || strcmp(name, "LOGFORMAT") == 0 ||
	       strcmp(name, "LOG_DATEFMT") == 0;
}

static bool set_user(json_t *tree, const char *name, const char *value)
{
	static const char *const users[][2] = { { "SUPERUSER_", "superuser" },
		{ "REPLICATION_", "replication" }, { "REWIND_", "rewind" } };
	for (unsigned u = 0; u < ARRAY_LEN(users); u++) {
		if (!str_starts(name, users[u][0]))
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(auth_keys); k++) {
			char path[128];
			if (!str_eq_nocase(name + strlen(users[u][0]), auth_keys[k]))
				continue;
			if (value[0] != '\0' &&
				str_format(path, sizeof(path), "postgresql.authentication.%s.%s",
					users[u][1], auth_keys[k]))
				set_path(tree, path, json_string(value));
			return true;
		}
	}
	return false;
}

static bool set_named(json_t *tree, const char *name, const char *value)
{
	for (unsigned i = 0; i < ARRAY_LEN(named); i++) {
		if (strcmp(name, named[i].name) != 0)
			continue;
		if (value[0] != '\0' &&
			!(is_old_spelling(name) && json_path(tree, named[i].path) != NULL))
			set_path(tree, named[i].path, convert(value, named[i].conv));
		return true;
	}
	return set_user(tree, name, value);
}

static bool set_generic(json_t *tree, const char *name, const char *value)
{
	const char *cut = strchr(name, '_');
	char word[LIMIT_NAME], path[2 * LIMIT_NAME];
	if (cut == NULL || !str_copy_n(word, sizeof(word), name, (size_t)(cut - name)))
		return false;
	for (char *p = word; *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	for (unsigned i = 0; i < ARRAY_LEN(generic); i++) {
		if (strcmp(cut + 1, generic[i].suffix) != 0)
			continue;
		char key[64];
		if (!str_copy(key, sizeof(key), generic[i].suffix))
			return false;
		for (char *p = key; *p != '\0'; p++)
			*p = (char)tolower((unsigned char)*p);
		enum conv conv = generic[i].conv;
		bool citus = strcmp(word, "citus") == 0;
		if (citus && strcmp(key, "group") != 0 && strcmp(key, "database") != 0)
			return true;
		if (citus && strcmp(key, "group") == 0)
			conv = CONV_INT;
		if (str_format(path, sizeof(path), "%s.%s", word, key))
			set_path(tree, path, convert(value, conv));
		return true;
	}
	return false;
}

/* PATRONI_<name>=<value> of one entry; false: another variable. */
static bool split(const char *entry, char *name, size_t name_len, const char **out_value)
{
	const char *eq = strchr(entry, '=');
	if (!str_starts(entry, "PATRONI_") || eq == NULL ||
		!str_copy_n(name, name_len, entry + 8, (size_t)(eq - entry - 8)))
		return false;
	*out_value = eq + 1;
	return true;
}

/* The user and password of etcd count only when its section got something else (config 2.2). */
static void set_etcd_user(json_t *tree, const char *name, const char *value)
{
	static const char *const rows[][3] = { { "ETCD_USERNAME", "etcd", "username" },
		{ "ETCD_PASSWORD", "etcd", "password" }, { "ETCD3_USERNAME", "etcd3", "username" },
		{ "ETCD3_PASSWORD", "etcd3", "password" } };
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		json_t *section = json_object_get(tree, rows[i][1]);
		if (strcmp(name, rows[i][0]) == 0 && section != NULL && value[0] != '\0')
			json_object_set_new(section, rows[i][2], json_string(value));
	}
}

json_t *env_tree(char **environ_block)
{
	json_t *tree = json_object();
	char name[LIMIT_NAME];
	const char *value;
	/* Old spellings see the new ones; the users of etcd see its section. */
	for (int pass = 0; pass < 3; pass++) {
		for (char **e = environ_block; *e != NULL; e++) {
			if (!split(*e, name, sizeof(name), &value))
				continue;
			if (pass == 2)
				set_etcd_user(tree, name, value);
			else if (is_old_spelling(name) == (pass == 1) &&
				 !set_named(tree, name, value))
				set_generic(tree, name, value);
		}
	}
	return tree;
}
