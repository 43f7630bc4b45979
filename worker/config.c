/* Configuration of the worker: local tree and dynamic document to settings, and what follows from a
 * change (config 3). Worker process. */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/config/dynamic.h"
#include "common/config/local.h"
#include "common/config/logging.h"
#include "common/config/value.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/decode.h"
#include "common/ext/json.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/params.h"
#include "worker/worker.h"

static struct local_config local;
static json_t *pg_section; /* effective; borrowed by w->pg */

const json_t *config_tree(const struct worker *w)
{
	(void)w;
	return local.tree;
}

static bool all_pgregent(const struct worker *w)
{
	for (unsigned i = 0; w->c != NULL && i < w->c->member_count; i++) {
		if (w->c->members[i].is_patroni &&
			strcmp(w->c->members[i].name, w->welcome.name) != 0)
			return false;
	}
	return true;
}

/* The log section; what is wrong with it is told, and the format in force stays. */
static enum err_code apply_log(struct err *err)
{
	AUTO(buf) notes = BUF_INIT(16384);
	enum err_code rc = logging_apply(json_object_get(local.tree, "log"), &notes, err);
	if (notes.len > 0)
		log_warning("%s", buf_str(&notes));
	return rc;
}

/* Where we connect to our own server (config 5.4). */
static void local_host(
	const struct pgctx *p, const char *by_socket, const char *tcp, char out[static LIMIT_URL])
{
	snprintf(out, LIMIT_URL, "%s", tcp);
	if (!dynamic_bool(p->pg, by_socket, false))
		return;
	const char *dirs = json_string_value(
		params_get(json_object_get(p->pg, "parameters"), "unix_socket_directories"));
	size_t n = dirs != NULL ? strcspn(dirs, ",") : 0;
	if (dirs == NULL)
		snprintf(out, LIMIT_URL, "/var/run/postgresql");
	else if (dirs[0] == '/' && n < LIMIT_URL)
		snprintf(out, LIMIT_URL, "%.*s", (int)n, dirs);
}

static void local_address(struct pgctx *p, const char *listen)
{
	char hosts[LIMIT_URL], first[LIMIT_URL];
	int port;
	if (!local_split_address(listen, 5432, hosts, sizeof(hosts), &port))
		return;
	snprintf(p->local_port, sizeof(p->local_port), "%d", port);
	bool loop = false;
	const char *s = hosts;
	first[0] = '\0';
	while (*s != '\0') {
		size_t n = strcspn(s, ",");
		char one[LIMIT_URL];
		if (str_copy_n(one, sizeof(one), s, n)) {
			loop |= strcmp(one, "*") == 0 || strcmp(one, "localhost") == 0 ||
				strcmp(one, "0.0.0.0") == 0 || strcmp(one, "127.0.0.1") == 0;
			if (first[0] == '\0')
				memcpy(first, one, sizeof(first));
		}
		s += n + (s[n] == ',');
	}
	const char *tcp = loop ? "localhost" : first;
	local_host(p, "use_unix_socket", tcp, p->local_host);
	local_host(p, "use_unix_socket_repl", tcp, p->local_repl_host);
}

static void address_url(
	char *out, size_t len, const char *scheme, const char *address, int port, const char *path)
{
	char host[LIMIT_URL];
	int p;
	out[0] = '\0';
	if (address == NULL || !local_split_address(address, port, host, sizeof(host), &p))
		return;
	char *comma = strchr(host, ',');
	if (comma != NULL)
		*comma = '\0';
	bool v6 = strchr(host, ':') != NULL;
	if (!str_format(out, len, "%s://%s%s%s:%d/%s", scheme, v6 ? "[" : "", host, v6 ? "]" : "",
		    p, path))
		log_error("address %s is too long", address);
}

static void absolute(char *out, size_t len, const char *path)
{
	char cwd[PATH_MAX];
	if (path[0] == '/' || getcwd(cwd, sizeof(cwd)) == NULL) {
		if (!str_copy(out, len, path))
			out[0] = '\0';
	} else if (!str_format(out, len, "%s/%s", cwd, path)) {
		out[0] = '\0';
	}
}

static void fill_pgctx(struct worker *w)
{
	struct pgctx *p = &w->pg;
	const json_t *pg = pg_section;
	const char *listen = json_path_str(local.tree, "postgresql.listen");
	const char *text = json_path_str(pg, "bin_dir");
	p->pg = pg;
	p->bootstrap = json_object_get(local.tree, "bootstrap");
	p->standby = w->set.standby_cluster ? json_object_get(w->dynamic, "standby_cluster") : NULL;
	p->set = &w->set;
	memcpy(p->name, w->welcome.name, sizeof(p->name));
	memcpy(p->scope, w->welcome.scope, sizeof(p->scope));
	memcpy(p->data_dir, w->welcome.data_dir, sizeof(p->data_dir));
	if (text == NULL || !str_copy(p->bin_dir, sizeof(p->bin_dir), text))
		p->bin_dir[0] = '\0';
	text = json_path_str(pg, "config_dir");
	absolute(p->config_dir, sizeof(p->config_dir), text != NULL ? text : p->data_dir);
	text = json_path_str(pg, "database");
	snprintf(p->database, sizeof(p->database), "%s", text != NULL ? text : "postgres");
	text = json_path_str(pg, "config_base_name");
	snprintf(p->conf_name, sizeof(p->conf_name), "%s", text != NULL ? text : "postgresql");
	text = json_path_str(pg, "pgpass");
	const struct passwd *pw = text == NULL ? getpwuid(geteuid()) : NULL;
	char path[LIMIT_PATH];
	snprintf(path, sizeof(path), "%s%s",
		text != NULL ? text
		: pw != NULL ? pw->pw_dir
			     : "/tmp",
		text != NULL ? "" : "/pgpass");
	absolute(p->pgpass, sizeof(p->pgpass), path);
	local_address(p, listen);
	text = json_path_str(local.tree, "postgresql.connect_address");
	address_url(p->conn_url, sizeof(p->conn_url), "postgres", text != NULL ? text : listen,
		5432, p->database);
	address_url(p->proxy_url, sizeof(p->proxy_url), "postgres",
		json_path_str(local.tree, "postgresql.proxy_address"), 5432, p->database);
	const char *rest = json_path_str(local.tree, "restapi.connect_address");
	const char *cert = json_path_str(local.tree, "restapi.certfile");
	address_url(w->api_url, sizeof(w->api_url),
		cert != NULL && cert[0] != '\0' ? "https" : "http",
		rest != NULL ? rest : json_path_str(local.tree, "restapi.listen"), 8008, "patroni");
	pgctx_params_local(p, &w->probe.conn, "2000");
	pgctx_params_local_repl(p, &w->probe.repl);
}

/* parameters: defaults, what is accepted of the dynamic ones, the local ones over them
 * (config 4.2). */
static void merge_parameters(struct worker *w, json_t *pg)
{
	struct err err = ERR_INIT;
	json_t *merged = NULL;
	AUTO(buf) notes = BUF_INIT(16384);
	if (params_merge(json_path(w->dynamic, "postgresql.parameters"),
		    json_path(local.tree, "postgresql.parameters"), &merged, &notes,
		    &err) != ERR_OK) {
		log_error("postgresql.parameters: %s", err.text);
		return;
	}
	if (notes.len > 0 && w->config_loud)
		log_warning("%s", buf_str(&notes));
	json_object_set_new(pg, "parameters", merged);
}

void config_apply(struct worker *w)
{
	struct err err = ERR_INIT;
	w->all_pgregent = all_pgregent(w);
	if (dynamic_settings(w->dynamic, local.tree, w->all_pgregent, w->config_loud, &w->set,
		    &err) != ERR_OK &&
		w->config_loud)
		log_error("%s: the timings in force stay", err.text);
	json_t *pg = dynamic_postgresql(w->dynamic, local.tree);
	if (pg == NULL) {
		log_error("configuration: no memory");
		return;
	}
	merge_parameters(w, pg);
	json_decref(pg_section);
	pg_section = pg;
	fill_pgctx(w);
	w->config_loud = false;
	if (w->dcs != NULL) {
		store_reconfigure(w);
		keeper_config(w);
	}
	if (w->watchdog_wanted) {
		struct msg_watchdog_config m;
		config_watchdog(w, &m);
		link_send(w, MSG_WATCHDOG_CONFIG, 0, &m, NULL, 0, NULL, 0);
	}
}

void config_watchdog(struct worker *w, struct msg_watchdog_config *out)
{
	const json_t *wd = json_object_get(local.tree, "watchdog");
	const char *device = json_path_str(wd, "device"), *driver = json_path_str(wd, "driver");
	memset(out, 0, sizeof(*out));
	out->mode = w->set.watchdog_mode;
	out->driver = driver == NULL || strcmp(driver, "default") == 0 ? 1
		      : strcmp(driver, "testing") == 0		       ? 2
								       : 0;
	out->timeout_ms = w->set.watchdog_margin_ms < 0 ? w->set.ttl_ms / 2
							: w->set.ttl_ms - w->set.watchdog_margin_ms;
	if (!str_copy(out->device, sizeof(out->device), device != NULL ? device : "/dev/watchdog"))
		log_error("watchdog.device is too long: %s", device);
}

/* ---- dynamic document
 * ------------------------------------------------------------------------------- */

static void on_cache(struct host *h, const struct host_reply *r, void *arg)
{
	(void)h;
	(void)arg;
	if (r->code != ANSWER_OK)
		log_warning("patroni.dynamic.json: %s", r->text);
}

static void save_cache(struct worker *w)
{
	AUTO_FREE char *text = json_compact(w->dynamic);
	AUTO(buf) tail = BUF_INIT(LIMIT_IPC_FRAME - 256);
	buf_add(&tail, "patroni.dynamic.json", sizeof("patroni.dynamic.json"));
	if (text != NULL)
		buf_adds(&tail, text);
	if (w->pg.role == PG_ROLE_UNINITIALIZED || !w->cache_dirty || text == NULL || tail.failed)
		return;
	w->cache_dirty = false;
	host_files(&w->host, FILES_WRITE_ATOMIC, 0, 0, 0, FILES_F_IF_CHANGED, tail.data, tail.len,
		30000, on_cache, w);
}

void config_save_cache(struct worker *w)
{
	save_cache(w);
}

static void adopt_document(struct worker *w, json_t *take)
{
	bool paused = w->set.pause;
	json_decref(w->dynamic);
	w->dynamic = take;
	w->cache_dirty = true;
	w->config_loud = true;
	config_apply(w);
	if (paused != w->set.pause)
		log_info("cluster management is %s", w->set.pause ? "paused" : "resumed");
	task_reload(w, false);
	save_cache(w);
}

void config_take_dynamic(struct worker *w)
{
	struct err err;
	const struct cluster *c = w->c;
	bool members_changed = all_pgregent(w) != w->all_pgregent;
	if (c->config_valid &&
		(c->config_version != w->dynamic_version || !w->dynamic_from_store)) {
		json_t *doc = json_read(c->config_json, strlen(c->config_json), &err);
		w->dynamic_version = c->config_version;
		bool empty = json_object_size(doc) == 0;
		if (doc != NULL && !(empty && !w->dynamic_from_store) &&
			(!w->dynamic_from_store || !json_same(doc, w->dynamic))) {
			w->dynamic_from_store = true;
			adopt_document(w, doc);
			return;
		}
		w->dynamic_from_store |= !empty;
		json_decref(doc);
	}
	if (members_changed) {
		w->config_loud = true;
		config_apply(w);
	}
}

static void on_cached(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	struct err err = ERR_INIT;
	(void)h;
	if (r->code != ANSWER_OK || w->dynamic_from_store)
		return;
	json_t *doc = json_read(r->data, r->data_len, &err);
	if (!json_is_object(doc)) {
		log_warning("patroni.dynamic.json: %s", doc == NULL ? err.text : "not an object");
		json_decref(doc);
		return;
	}
	log_info("dynamic configuration is taken from patroni.dynamic.json until the store gives "
		 "one");
	json_decref(w->dynamic);
	w->dynamic = doc;
	config_apply(w);
}

void config_load_cache(struct worker *w)
{
	static const char path[] = "patroni.dynamic.json";
	host_files(&w->host, FILES_READ, 0, 0, 0, 0, path, sizeof(path), 30000, on_cached, w);
}

/* ---- start, reload
 * ---------------------------------------------------------------------------------- */

enum err_code config_start(struct worker *w, const char *path, struct err *err)
{
	enum err_code rc = local_load(&local, path, err);
	if (rc == ERR_OK)
		rc = local_check(&local, err);
	if (rc != ERR_OK)
		return rc;
	rc = apply_log(err);
	if (rc != ERR_OK)
		return rc;
	const json_t *initial = json_path(local.tree, "bootstrap.dcs");
	w->dynamic = json_is_object(initial) ? json_deep_copy(initial) : json_object();
	if (w->dynamic == NULL)
		return err_set(err, ERR_NOMEM, 0, "configuration");
	dynamic_warn_tags(json_object_get(local.tree, "tags"));
	w->config_loud = true;
	config_apply(w);
	return ERR_OK;
}

void config_reload(struct worker *w)
{
	struct err err = ERR_INIT;
	bool changed = false;
	char text[128];
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld",
		(long long)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
	link_notify(w, text);
	if (local_reload(&local, &changed, &err) != ERR_OK)
		log_error("Failed to reload config_file=%s: %s", local.path, err.text);
	else if (!changed)
		log_info("No local configuration items changed.");
	if (changed) {
		if (apply_log(&err) != ERR_OK)
			log_error("%s: the log settings in force stay", err.text);
		logfile_apply(w);
		dynamic_warn_tags(json_object_get(local.tree, "tags"));
		w->config_loud = true;
	}
	config_apply(w);
	config_send_api(w);
	task_reload(w, true);
	publish_member(w);
	link_notify(w, "READY=1");
	turn_want(w, "reload");
}

void config_pg_changed(struct worker *w)
{
	/* A server that was found running gets our files; nothing changes when they are what it
	 * has. */
	if (w->set.pause)
		return;
	task_reload(w, false);
}

void config_send_api(struct worker *w)
{
	if (w->api_fd < 0 || !w->name_checked)
		return;
	const json_t *rest = json_object_get(local.tree, "restapi");
	json_auto_t *o = rest != NULL ? json_deep_copy(rest) : json_object();
	struct err err = ERR_INIT;
	json_object_set_new(o, "scope", json_string(w->welcome.scope));
	json_object_set_new(o, "name", json_string(w->welcome.name));
	json_object_set_new(o, "version", json_string(PGREGENT_VERSION));
	json_object_set_new(o, "patroni_version", json_string("4.1.4"));
	json_object_set_new(o, "ttl", json_integer(w->set.ttl_ms / 1000));
	json_object_set_new(o, "loop_wait", json_integer(w->set.loop_wait_ms / 1000));
	if (json_object_get(local.tree, "log") != NULL)
		json_object_set(o, "log", json_object_get(local.tree, "log"));
	AUTO_FREE char *text = json_compact(o);
	struct msg_api_settings m = { .serial = ++w->api_serial };
	if (text == NULL || ipc_send(w->api_fd, MSG_API_SETTINGS, 0, &m, text, strlen(text), NULL,
				    0, &err) != ERR_OK)
		log_error("settings for api: %s", err.text);
}
