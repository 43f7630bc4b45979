/* Where the facts come from: the store of the configuration, or the agent on this node over its
 * socket (DESIGN 6). */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

#define SOCKET_WAIT_MS 15000

static const char *config_path(const struct ctl *c, char *buf, size_t len)
{
	const char *path = c->config_path;
	if (path == NULL)
		path = getenv("PATRONICTL_CONFIG_FILE");
	if (path != NULL && path[0] != '\0') {
		if (access(path, R_OK) != 0)
			fail("Provided config file %s not existing or no read rights. Check the "
			     "-c/--config-file parameter",
				path);
		return path;
	}
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	bool ok = xdg != NULL && xdg[0] != '\0'
			  ? str_format(buf, len, "%s/patroni/patronictl.yaml", xdg)
			  : str_format(buf, len, "%s/.config/patroni/patronictl.yaml",
				    home != NULL ? home : "");
	return ok && access(buf, R_OK) == 0 ? buf : NULL;
}

struct scheme {
	const char *name;
	int port;
};
static const struct scheme schemes[] = { { "etcd", 2379 }, { "etcd3", 2379 }, { "consul", 8500 },
	{ "zookeeper", 2181 }, { "exhibitor", 8181 } };

static void set_host(json_t *section, const char *scheme, const char *host, int port)
{
	char text[LIMIT_URL];
	bool v6 = strchr(host, ':') != NULL;
	if (!str_format(text, sizeof(text), "%s%s%s:%d", v6 ? "[" : "", host, v6 ? "]" : "", port))
		fail("Host name in --dcs-url is too long: %s", host);
	static const char *const other[] = { "url", "srv", "proxy", "host", "hosts", "port" };
	for (size_t i = 0; i < ARRAY_LEN(other); i++)
		(void)json_object_del(section, other[i]);
	if (strcmp(scheme, "zookeeper") == 0)
		(void)json_object_set_new(section, "hosts", json_pack("[s]", text));
	else if (strcmp(scheme, "exhibitor") == 0) {
		(void)json_object_set_new(section, "hosts", json_pack("[s]", host));
		(void)json_object_set_new(section, "port", json_integer(port));
	} else {
		(void)json_object_set_new(section, "host", json_string(text));
	}
}

/* [scheme://][host][:port][/namespace] over the file (ctl 2.3); settings of the same store stay
 * (ctl 9, 12). */
static void apply_dcs_url(struct ctl *c)
{
	const char *rest = c->dcs_url, *mark = strstr(rest, "://");
	char scheme[16] = "", address[LIMIT_URL], host[LIMIT_URL];
	if (mark != NULL) {
		if (!str_copy_n(scheme, sizeof(scheme), rest, (size_t)(mark - rest)))
			fail("Unknown dcs scheme: %.*s", (int)(mark - rest), rest);
		rest = mark + 3;
	}
	size_t len = strcspn(rest, "/");
	const char *space = rest + len;
	if (!str_copy_n(address, sizeof(address), rest, len))
		fail("--dcs-url is too long");
	const char *at = strrchr(address, '@');
	const char *place = at != NULL ? at + 1 : address;
	int port = -1;
	if (place[0] == ':') {
		char with_host[LIMIT_URL];
		if (!str_format(with_host, sizeof(with_host), "localhost%s", place) ||
			!local_split_address(with_host, -1, host, sizeof(host), &port))
			fail("--dcs-url: %s is not an address", place);
	} else if (place[0] == '\0') {
		put_copy(host, sizeof(host), "localhost");
	} else if (!local_split_address(place, -1, host, sizeof(host), &port)) {
		fail("--dcs-url: %s is not an address", place);
	}
	const struct scheme *s = NULL;
	for (size_t i = 0; i < ARRAY_LEN(schemes) && s == NULL; i++)
		if (scheme[0] != '\0' ? strcmp(scheme, schemes[i].name) == 0
				      : port == schemes[i].port)
			s = &schemes[i];
	if (s == NULL && scheme[0] != '\0')
		fail("Unknown dcs scheme: %s", scheme);
	/* Without a scheme the port decides; pgregent and etcd of today speak the v3 interface. */
	const char *name = s != NULL ? s->name : "etcd";
	if (scheme[0] == '\0' && strcmp(name, "etcd") == 0)
		name = json_object_get(c->tree, "etcd") == NULL ? "etcd3" : "etcd";
	json_t *section = json_deep_copy(json_object_get(c->tree, name));
	if (!json_is_object(section)) {
		json_decref(section);
		section = json_object();
	}
	set_host(section, name, host, port > 0 ? port : s != NULL ? s->port : 2379);
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		(void)json_object_del(c->tree, schemes[i].name);
	(void)json_object_set_new(c->tree, name, section);
	if (space[0] == '/' && space[1] != '\0')
		(void)json_object_set_new(c->tree, "namespace", json_string(space + 1));
}

/* Sockets <dir>/<scope>.<name>/api.sock. */
struct found {
	unsigned count;
	char path[LIMIT_PATH];
	struct buf all;
};

static void search_dir(const char *dir, const char *scope, struct found *f)
{
	DIR *d = opendir(dir);
	if (d == NULL)
		return;
	size_t n = scope != NULL ? strlen(scope) : 0;
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		char path[LIMIT_PATH];
		struct stat st;
		if (e->d_name[0] == '.' ||
			(n > 0 && (strncmp(e->d_name, scope, n) != 0 || e->d_name[n] != '.')) ||
			!str_format(path, sizeof(path), "%s/%s/api.sock", dir, e->d_name) ||
			stat(path, &st) != 0 || !S_ISSOCK(st.st_mode))
			continue;
		/* In a directory that everybody may write, only our own or root's counts. */
		if (st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0 &&
			str_starts(dir, "/tmp/"))
			continue;
		f->count++;
		put_copy(f->path, sizeof(f->path), path);
		buf_addf(&f->all, "%s%s", f->count > 1 ? ", " : "", path);
	}
	closedir(d);
}

static bool find_socket(struct ctl *c, const char *scope)
{
	struct found f = { .all = BUF_INIT(65536) };
	char first[LIMIT_PATH] = "", xdg[LIMIT_PATH] = "", tmp[64];
	const char *run = getenv("RUNTIME_DIRECTORY"), *base = getenv("XDG_RUNTIME_DIR");
	if (base != NULL && base[0] != '\0')
		put_format(xdg, sizeof(xdg), "%s/pgregent", base);
	put_format(tmp, sizeof(tmp), "/tmp/pgregent-%u", (unsigned)geteuid());
	if (run != NULL) /* systemd: a list with colons; the supervisor takes the first, too */
		put_format(first, sizeof(first), "%.*s", (int)strcspn(run, ":"), run);
	const char *dirs[] = { first, "/run/pgregent", xdg, tmp };
	for (size_t i = 0; i < ARRAY_LEN(dirs) && f.count == 0; i++)
		if (dirs[i][0] != '\0')
			search_dir(dirs[i], scope, &f);
	if (f.count > 1)
		fail("Several agents run on this host, name the cluster or use -c: %s",
			buf_str(&f.all));
	buf_done(&f.all);
	return f.count == 1 && str_copy(c->socket, sizeof(c->socket), f.path);
}

void source_open(struct ctl *c)
{
	struct err err = ERR_INIT;
	char buf[LIMIT_PATH], others[256];
	if (local_load(&c->local, config_path(c, buf, sizeof(buf)), &err) != ERR_OK)
		fail("%s", err.text);
	c->tree = json_is_object(c->local.tree) ? json_deep_copy(c->local.tree) : json_object();
	if (c->dcs_url != NULL)
		apply_dcs_url(c);
	c->store = dcs_choose(c->tree, c->backend, others, sizeof(others), &err) == ERR_OK;
	loop_init(&c->loop, http_loop_wait, &c->http);
	if (http_new(&c->http, &c->loop, &err) != ERR_OK)
		fail("%s", err.text);
}

void source_close(struct ctl *c)
{
	if (c->dcs != NULL)
		dcs_close(c->dcs);
	if (c->http != NULL)
		http_free(c->http);
	loop_done(&c->loop);
	local_done(&c->local);
	json_decref(c->tree);
}

int64_t source_timing_ms(const struct ctl *c, const char *key, int64_t def_ms)
{
	const json_t *v = json_object_get(c->tree, key);
	double s = json_number_value(v);
	return s > 0 && s < 86400 ? (int64_t)(s * 1000) : def_ms;
}

/* The store or the socket, whichever serves this scope. */
static void open_for(struct ctl *c, const char *scope)
{
	struct err err = ERR_INIT;
	if (!c->store) {
		if (c->socket[0] == '\0' && !find_socket(c, scope))
			fail("Can not find suitable configuration of distributed configuration "
			     "store\nAvailable implementations: etcd3\nNo agent's socket was found "
			     "on this host either");
		return;
	}
	if (c->dcs != NULL && strcmp(c->dcs_scope, scope) == 0)
		return;
	if (c->dcs != NULL)
		dcs_close(c->dcs);
	c->dcs = NULL;
	const char *ns = json_string_value(json_object_get(c->tree, "namespace"));
	const json_t *group = json_path(c->tree, "citus.group");
	struct dcs_config cfg = { .section = json_object_get(c->tree, c->backend),
		.ttl_ms = source_timing_ms(c, "ttl", 30000),
		.loop_wait_ms = source_timing_ms(c, "loop_wait", 10000),
		.retry_timeout_ms = source_timing_ms(c, "retry_timeout", 10000),
		.is_ctl = true,
		.citus_group = c->group >= 0		? c->group
			       : json_is_integer(group) ? (int)json_integer_value(group)
							: -1 };
	if (!str_copy(cfg.backend, sizeof(cfg.backend), c->backend) ||
		!str_copy(cfg.name, sizeof(cfg.name), "pgregentctl") ||
		!str_copy(cfg.scope, sizeof(cfg.scope), scope) ||
		!str_copy(cfg.namespace_, sizeof(cfg.namespace_), ns != NULL ? ns : "service") ||
		!str_copy(c->dcs_scope, sizeof(c->dcs_scope), scope))
		fail("Cluster name %s is longer than %d bytes", scope, LIMIT_NAME - 1);
	if (dcs_open(&c->dcs, &cfg, &c->loop, c->http, &err) != ERR_OK)
		fail("%s", err.text);
}

const char *source_scope(struct ctl *c, const char *word)
{
	if (word != NULL)
		return word;
	const char *scope = json_string_value(json_object_get(c->tree, "scope"));
	if (scope != NULL)
		return scope;
	if (c->store)
		fail("The cluster name is missing: give it as an argument, or set scope in the "
		     "configuration");
	return NULL; /* the socket's own */
}

void source_socket(struct ctl *c, const char *word)
{
	const char *scope =
		word != NULL ? word : json_string_value(json_object_get(c->tree, "scope"));
	if (c->socket[0] == '\0' && !find_socket(c, scope))
		fail("No agent%s%s was found on this host: this command goes over its local "
		     "socket, "
		     "below $RUNTIME_DIRECTORY, /run/pgregent, $XDG_RUNTIME_DIR/pgregent or "
		     "/tmp/pgregent-<uid>",
			scope != NULL ? " of cluster " : "", scope != NULL ? scope : "");
}

struct wait {
	struct dcs_event ev;
	bool done;
};

static void on_done(const struct dcs_event *ev, void *arg)
{
	struct wait *w = arg;
	w->ev = *ev;
	w->done = true;
}

static void submit(struct ctl *c, const struct dcs_op *op, struct wait *w)
{
	struct err err = ERR_INIT;
	/* The store ends every operation by its budget; this bound is for a fault in it. */
	int64_t end_ms = clock_boot_ms() + 3 * source_timing_ms(c, "retry_timeout", 10000) + 5000;
	(void)dcs_submit(c->dcs, op, on_done, w);
	while (!w->done) {
		if (loop_turn(&c->loop, 200, &err) != ERR_OK)
			fail("%s", err.text);
		if (!w->done && clock_boot_ms() > end_ms)
			fail("%s does not answer", c->backend);
	}
}

enum dcs_outcome source_write(
	struct ctl *c, enum dcs_op_kind kind, const char *value, int64_t version)
{
	struct wait w = { .done = false };
	if (c->dcs == NULL)
		fail("This needs the store: give its configuration with -c");
	submit(c, &(struct dcs_op){ .kind = kind, .value = value, .version = version }, &w);
	if (w.ev.outcome == DCS_DENIED)
		fail("%s refused the write: %s", c->backend, w.ev.text);
	if (w.ev.outcome == DCS_UNKNOWN)
		fail("%s did not confirm the write, it may have happened: %s", c->backend,
			w.ev.text);
	return w.ev.outcome;
}

static json_t *parse(const char *text)
{
	return text != NULL ? json_read(text, strlen(text), NULL) : NULL;
}

static void read_store(struct ctl *c, const char *scope, struct view *v)
{
	struct wait w = { .done = false };
	submit(c, &(struct dcs_op){ .kind = DCS_READ }, &w);
	if (w.ev.outcome != DCS_OK || w.ev.cluster == NULL)
		fail("Can not read cluster %s from %s: %s", scope, c->backend, w.ev.text);
	v->c = w.ev.cluster;
	v->config = v->c->config_valid ? parse(v->c->config_json) : NULL;
	v->config_version = v->c->config_version;
	v->history = v->c->history_valid ? parse(v->c->history_json) : NULL;
	v->doc = document_make(v->c, scope, v->config);
	put_copy(v->system_id, sizeof(v->system_id),
		!v->c->init_present  ? "uninitialized"
		: v->c->init[0] == 0 ? "initializing"
				     : v->c->init);
	if (!cluster_unlocked(v->c))
		put_copy(v->leader, sizeof(v->leader), v->c->leader);
}

/* A document over the socket; NULL when it is not there. */
static json_t *socket_get(struct ctl *c, const char *path, bool needed)
{
	struct answer a;
	rest_call(c, NULL, "GET", path, NULL, SOCKET_WAIT_MS, &a);
	json_t *doc =
		a.status != 0 && a.body != NULL ? json_read(a.body, strlen(a.body), NULL) : NULL;
	if (needed && (doc == NULL || a.status != 200))
		fail("The agent at %s gave no answer to GET %s: %ld %s", c->socket, path, a.status,
			a.body != NULL ? a.body : "");
	if (a.status >= 400 && strcmp(path, "/patroni") != 0) {
		json_decref(doc);
		doc = NULL;
	}
	answer_done(&a);
	return doc;
}

static void read_socket(struct ctl *c, const char *scope, struct view *v)
{
	v->doc = socket_get(c, "/cluster", true);
	v->config = socket_get(c, "/config", false);
	v->history = socket_get(c, "/history", false);
	json_t *own = socket_get(c, "/patroni", false);
	const char *real = json_path_str(v->doc, "scope");
	const char *id = json_path_str(own, "database_system_identifier");
	const char *name = json_path_str(own, "patroni.name");
	if (scope != NULL && real != NULL && strcmp(scope, real) != 0)
		fail("The agent at %s serves cluster %s, not %s", c->socket, real, scope);
	put_copy(v->scope, sizeof(v->scope), real != NULL ? real : "");
	put_copy(v->system_id, sizeof(v->system_id), id != NULL ? id : "initializing");
	put_copy(c->socket_member, sizeof(c->socket_member), name != NULL ? name : "");
	json_decref(own);
	size_t index;
	json_t *m;
	json_array_foreach(json_object_get(v->doc, "members"), index, m) if (member_is_leader(m))
		put_copy(v->leader, sizeof(v->leader), member_str(m, "name"));
}

void source_read(struct ctl *c, const char *scope, struct view *v)
{
	memset(v, 0, sizeof(*v));
	open_for(c, scope);
	if (scope != NULL && !str_copy(v->scope, sizeof(v->scope), scope))
		fail("Cluster name %s is longer than %d bytes", scope, LIMIT_NAME - 1);
	if (c->store)
		read_store(c, scope, v);
	else
		read_socket(c, scope, v);
	if (!json_is_array(v->history)) {
		json_decref(v->history);
		v->history = json_array();
	}
	if (v->doc == NULL)
		fail("no memory");
}

void source_done(struct view *v)
{
	json_decref(v->doc);
	json_decref(v->config);
	json_decref(v->history);
	cluster_free(v->c);
	memset(v, 0, sizeof(*v));
}
