/* The local configuration. See local.h. */
#include "common/config/local.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config/env.h"
#include "common/core/limits.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

/* ---- files
 * ---------------------------------------------------------------------------------------- */

/* Names and secrets are texts, whatever YAML takes them for: 010, on, 1_0 (config 8 #21). */
static const char *const text_keys[] = { "scope", "name", "namespace", "username", "password",
	NULL };

static enum err_code add_file(json_t *tree, const char *path, struct err *err)
{
	json_auto_t *doc = yaml_read_file_texts(path, text_keys, err);
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

/* Spellings from before 1.0 that the reference still reads (config 1.8). */
static void legacy(json_t *tree)
{
	static const char *const users[][2] = { { "superuser", "superuser" },
		{ "replication", "replication" } };
	json_t *pg = json_object_get(tree, "postgresql");
	if (json_object_get(tree, "name") == NULL && json_object_get(pg, "name") != NULL)
		json_object_set(tree, "name", json_object_get(pg, "name"));
	json_t *old = json_path(tree, "zookeeper.exhibitor");
	if (old != NULL && json_object_get(tree, "exhibitor") == NULL)
		json_object_set(tree, "exhibitor", old);
	if (!json_is_object(pg) || json_object_get(pg, "authentication") != NULL)
		return;
	json_t *auth = json_object();
	for (unsigned i = 0; i < ARRAY_LEN(users); i++) {
		if (json_object_get(pg, users[i][0]) != NULL)
			json_object_set(auth, users[i][1], json_object_get(pg, users[i][0]));
	}
	const json_t *rewind = json_object_get(pg, "pg_rewind");
	if (json_object_size(auth) > 0) {
		if (json_is_object(rewind))
			json_object_set(auth, "superuser", (json_t *)rewind);
		json_object_set_new(pg, "use_pg_rewind", json_boolean(rewind != NULL));
		json_object_set(pg, "authentication", auth);
	}
	json_decref(auth);
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
	legacy(tree);
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
		c->tree = yaml_read_texts(whole, strlen(whole), text_keys, err);
		if (c->tree == NULL)
			return err_wrap(err, "PATRONI_CONFIGURATION");
		if (!json_is_object(c->tree))
			return err_set(err, ERR_PARSE, 0, "PATRONI_CONFIGURATION is no mapping");
		legacy(c->tree);
		return ERR_OK;
	}
	c->env = env_tree(environ);
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
