/* The local configuration. See local.h. */
#include "common/config/local.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config/value.h"
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

static bool set_named(json_t *tree, const char *name, const char *value)
{
	for (unsigned i = 0; i < ARRAY_LEN(named); i++) {
		if (strcmp(name, named[i].name) != 0)
			continue;
		/* The old spellings give way to the new one. */
		bool old = i >= 3 && i <= 5;
		if (value[0] != '\0' && (!old || json_path(tree, named[i].path) == NULL))
			set_path(tree, named[i].path, convert(value, named[i].conv));
		return true;
	}
	static const char *const users[] = { "SUPERUSER_", "REPLICATION_", "REWIND_" };
	for (unsigned u = 0; u < ARRAY_LEN(users); u++) {
		if (!str_starts(name, users[u]))
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(auth_keys); k++) {
			if (!str_eq_nocase(name + strlen(users[u]), auth_keys[k]))
				continue;
			char path[128];
			if (value[0] != '\0' &&
				str_format(path, sizeof(path), "postgresql.authentication.%s.%s",
					u == 0	 ? "superuser"
					: u == 1 ? "replication"
						 : "rewind",
					auth_keys[k]))
				set_path(tree, path, json_string(value));
			return true;
		}
	}
	return false;
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

json_t *local_env_tree(char **environ_block)
{
	json_t *tree = json_object();
	/* New spellings of log.* first, so that old ones see them; then everything in order. */
	for (int pass = 0; pass < 2; pass++) {
		for (char **e = environ_block; *e != NULL; e++) {
			const char *eq = strchr(*e, '=');
			char name[LIMIT_NAME];
			if (!str_starts(*e, "PATRONI_") || eq == NULL ||
				!str_copy_n(name, sizeof(name), *e + 8, (size_t)(eq - *e - 8)))
				continue;
			bool late = str_starts(name, "LOGLEVEL") || str_starts(name, "LOGFORMAT") ||
				    strcmp(name, "LOG_DATEFMT") == 0;
			if (late == (pass == 1) && !set_named(tree, name, eq + 1))
				set_generic(tree, name, eq + 1);
		}
	}
	/* The user and password of etcd count only when its section got something else
	 * (config 2.2). */
	static const char *const stores[] = { "etcd", "etcd3" };
	static const char *const upper[] = { "PATRONI_ETCD_", "PATRONI_ETCD3_" };
	for (unsigned i = 0; i < 2; i++) {
		json_t *s = json_object_get(tree, stores[i]);
		char name[64];
		for (int k = 0; s != NULL && k < 2; k++) {
			const char *v = str_format(name, sizeof(name), "%s%s", upper[i],
						k == 0 ? "USERNAME" : "PASSWORD")
						? getenv(name)
						: NULL;
			if (v != NULL && v[0] != '\0')
				json_object_set_new(
					s, k == 0 ? "username" : "password", json_string(v));
		}
	}
	return tree;
}

/* ---- files
 * ---------------------------------------------------------------------------------------- */

static enum err_code add_file(json_t *tree, const char *path, struct err *err)
{
	json_auto_t *doc = yaml_read_file(path, err);
	if (doc == NULL)
		return err->code;
	if (!json_is_object(doc))
		return err_set(err, ERR_PARSE, 0,
			"invalid config file %s: it does not contain a dict", path);
	json_patch(tree, doc);
	return ERR_OK;
}

static int yaml_files(const struct dirent *d)
{
	return d->d_name[0] != '.' && (str_ends(d->d_name, ".yml") || str_ends(d->d_name, ".yaml"));
}

static int byte_order(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static enum err_code read_path(const char *path, json_t *tree, struct err *err)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return err_set(err, ERR_SYS, errno, "%s", path);
	if (S_ISREG(st.st_mode))
		return add_file(tree, path, err);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_INVAL, 0, "invalid config path %s", path);
	struct dirent **list = NULL;
	int n = scandir(path, &list, yaml_files, byte_order);
	enum err_code rc = n < 0 ? err_set(err, ERR_SYS, errno, "%s", path) : ERR_OK;
	for (int i = 0; i < n; i++) {
		char file[LIMIT_PATH];
		if (rc == ERR_OK && str_format(file, sizeof(file), "%s/%s", path, list[i]->d_name))
			rc = add_file(tree, file, err);
		free(list[i]);
	}
	free(list);
	return rc;
}

/* Names that YAML may have taken for numbers or booleans stay texts (config 8 #21). */
static void text_keys(json_t *tree)
{
	static const char *const paths[] = { "scope", "name", "namespace",
		"postgresql.authentication.superuser.username",
		"postgresql.authentication.superuser.password",
		"postgresql.authentication.replication.username",
		"postgresql.authentication.replication.password",
		"postgresql.authentication.rewind.username",
		"postgresql.authentication.rewind.password", "restapi.authentication.username",
		"restapi.authentication.password" };
	for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
		json_t *v = json_path(tree, paths[i]);
		char text[LIMIT_CONNINFO];
		if (v == NULL || json_is_string(v) || json_is_null(v) ||
			!json_text(v, text, sizeof(text)))
			continue;
		set_path(tree, paths[i], json_string(text));
	}
}

static enum err_code build(struct local_config *c, json_t **out, struct err *err)
{
	json_t *tree = json_object();
	if (c->path[0] != '\0') {
		enum err_code rc = read_path(c->path, tree, err);
		if (rc != ERR_OK) {
			json_decref(tree);
			return rc;
		}
	}
	json_patch(tree, c->env);
	text_keys(tree);
	*out = tree;
	return ERR_OK;
}

enum err_code local_load(struct local_config *c, const char *path, struct err *err)
{
	extern char **environ;
	memset(c, 0, sizeof(*c));
	const char *whole = getenv("PATRONI_CONFIGURATION");
	bool exists = path != NULL && path[0] != '\0' && access(path, F_OK) == 0;
	if (path != NULL && path[0] != '\0' && !exists)
		log_warning("configuration %s does not exist: the environment alone is used", path);
	c->path = strdup(exists ? path : "");
	c->from_env = !exists;
	if (c->path == NULL)
		return err_set(err, ERR_NOMEM, 0, "configuration");
	if (!exists && whole != NULL && whole[0] != '\0') {
		c->env = json_object();
		c->tree = yaml_read(whole, strlen(whole), err);
		if (c->tree == NULL)
			return err_wrap(err, "PATRONI_CONFIGURATION");
		if (!json_is_object(c->tree))
			return err_set(err, ERR_PARSE, 0, "PATRONI_CONFIGURATION is no mapping");
		text_keys(c->tree);
		return ERR_OK;
	}
	c->env = local_env_tree(environ);
	return build(c, &c->tree, err);
}

enum err_code local_reload(struct local_config *c, bool *out_changed, struct err *err)
{
	*out_changed = false;
	if (c->from_env)
		return ERR_OK;
	json_t *tree = NULL;
	enum err_code rc = build(c, &tree, err);
	if (rc != ERR_OK)
		return rc;
	*out_changed = !json_same(c->tree, tree);
	json_decref(c->tree);
	c->tree = tree;
	return ERR_OK;
}

void local_done(struct local_config *c)
{
	free(c->path);
	json_decref(c->env);
	json_decref(c->tree);
	memset(c, 0, sizeof(*c));
}

enum err_code local_check(const struct local_config *c, struct err *err)
{
	static const char *const required[] = { "scope", "name", "restapi.listen",
		"postgresql.listen", "postgresql.data_dir" };
	AUTO(buf) found = BUF_INIT(sizeof(err->text));
	if (json_object_size(c->tree) == 0)
		return err_set(err, ERR_INVAL, 0, "Config is empty.");
	for (unsigned i = 0; i < ARRAY_LEN(required); i++) {
		const char *v = json_path_str(c->tree, required[i]);
		if (v == NULL || v[0] == '\0')
			buf_addf(&found, "%s%s is not defined.", found.len > 0 ? "; " : "",
				required[i]);
	}
	const char *name = json_path_str(c->tree, "name");
	if (str_eq(name, "__patroni_strict_sync_replica_placeholder__"))
		buf_addf(&found, "%sname: %s is reserved", found.len > 0 ? "; " : "", name);
	if (name != NULL && strlen(name) >= LIMIT_NAME)
		buf_addf(&found, "%sname is longer than %d bytes", found.len > 0 ? "; " : "",
			LIMIT_NAME - 1);
	static const char *const pairs[] = { "restapi.authentication", "ctl.authentication" };
	for (unsigned i = 0; i < ARRAY_LEN(pairs); i++) {
		const json_t *a = json_path(c->tree, pairs[i]);
		if (json_is_object(a) && (json_object_get(a, "username") != NULL) !=
						 (json_object_get(a, "password") != NULL))
			buf_addf(&found, "%s%s needs username and password, or neither",
				found.len > 0 ? "; " : "", pairs[i]);
	}
	if (found.len > 0)
		return err_set(err, ERR_INVAL, 0, "%s", buf_str(&found));
	return ERR_OK;
}

bool local_split_address(
	const char *text, int default_port, char *host, size_t host_len, int *out_port)
{
	const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
	size_t n = strlen(text);
	*out_port = default_port;
	/* A bare IPv6 address is a host. */
	bool bare6 = colon != NULL && strchr(text, ':') != colon && strchr(text, '[') == NULL &&
		     strchr(text, ',') == NULL;
	if (colon != NULL && (bracket == NULL || colon > bracket) && !bare6) {
		int64_t port;
		if (!str_to_i64(colon + 1, &port) || port < 0 || port > 65535)
			return false;
		*out_port = (int)port;
		n = (size_t)(colon - text);
	}
	char raw[LIMIT_URL];
	if (!str_copy_n(raw, sizeof(raw), text, n))
		return false;
	size_t k = 0;
	for (const char *p = raw; *p != '\0'; p++) {
		if (*p == '[' || *p == ']' || *p == ' ')
			continue;
		if (k + 1 >= host_len)
			return false;
		host[k++] = *p;
	}
	host[k] = '\0';
	return true;
}
