/* From documents to settings. See dynamic.h. */
#include "common/config/dynamic.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/config/value.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"

bool dynamic_bool(const json_t *map, const char *key, bool def)
{
	const json_t *v = json_object_get(map, key);
	char text[64];
	bool b;
	if (v == NULL || json_is_null(v))
		return def;
	if (json_text(v, text, sizeof(text)) && value_parse_bool(text, &b))
		return b;
	return json_is_string(v) ? def : json_truthy(v);
}

/* parse_int without a unit; def when absent or not understood. */
static int64_t get_int(const json_t *map, const char *key, int64_t def, bool loud)
{
	const json_t *v = json_object_get(map, key);
	char text[64];
	int64_t n;
	if (v == NULL || json_is_null(v))
		return def;
	if (json_is_integer(v))
		return json_integer_value(v);
	if (json_text(v, text, sizeof(text)) && value_parse_int(text, NULL, &n))
		return n;
	if (loud)
		log_warning("dynamic configuration: %s: %s is no integer (units are not allowed), "
			    "%lld is used",
			key, json_is_string(v) ? json_string_value(v) : "value", (long long)def);
	return def;
}

/* ttl, loop_wait, retry_timeout: a value that cannot be converted refuses the document
 * (config 3.4). */
static enum err_code get_time(
	const json_t *doc, const char *key, int64_t def, int64_t *out, struct err *err)
{
	const json_t *v = json_object_get(doc, key);
	int64_t n;
	if (v == NULL)
		*out = def;
	else if (json_is_number(v))
		*out = (int64_t)json_number_value(v);
	else if (json_is_boolean(v))
		*out = json_is_true(v);
	else if (json_is_string(v) && str_to_i64(json_string_value(v), &n))
		*out = n;
	else
		return err_set(err, ERR_INVAL, 0,
			"dynamic configuration: %s: %s is no number of seconds", key,
			json_is_string(v) ? json_string_value(v) : "value");
	return ERR_OK;
}

static enum err_code timings(
	const json_t *doc, bool low, bool loud, struct settings *s, struct err *err)
{
	int64_t ttl, loop_wait, retry;
	enum err_code rc = get_time(doc, "ttl", 30, &ttl, err);
	if (rc == ERR_OK)
		rc = get_time(doc, "loop_wait", 10, &loop_wait, err);
	if (rc == ERR_OK)
		rc = get_time(doc, "retry_timeout", 10, &retry, err);
	if (rc != ERR_OK)
		return rc;
	int64_t min_ttl = low ? 3 : 20, min_retry = low ? 1 : 3;
	int64_t was[3] = { ttl, loop_wait, retry };
	ttl = ttl < min_ttl ? min_ttl : ttl > LIMIT_LEASE_MS / 1000 ? LIMIT_LEASE_MS / 1000 : ttl;
	loop_wait = loop_wait < 1 ? 1 : loop_wait;
	retry = retry < min_retry ? min_retry : retry;
	if (1 + 2 * retry > ttl) {
		loop_wait = 1;
		retry = (ttl - 1) / 2;
	} else if (loop_wait + 2 * retry > ttl) {
		loop_wait = ttl - 2 * retry;
	}
	if (loud && (ttl != was[0] || loop_wait != was[1] || retry != was[2]))
		log_warning("ttl=%lld loop_wait=%lld retry_timeout=%lld are adjusted to %lld, "
			    "%lld, %lld (minimums %lld, 1, "
			    "%lld; loop_wait + 2 * retry_timeout <= ttl)",
			(long long)was[0], (long long)was[1], (long long)was[2], (long long)ttl,
			(long long)loop_wait, (long long)retry, (long long)min_ttl,
			(long long)min_retry);
	s->ttl_ms = ttl * 1000;
	s->loop_wait_ms = loop_wait * 1000;
	s->retry_timeout_ms = retry * 1000;
	return ERR_OK;
}

static void copy_text(char *dst, size_t len, const json_t *v)
{
	if (v == NULL || !json_text(v, dst, len) || json_is_null(v))
		dst[0] = '\0';
}

static bool slot_name_ok(const char *name)
{
	size_t n = strlen(name);
	return n > 0 && n < LIMIT_SLOT_NAME &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

static void permanent_slots(const json_t *doc, bool loud, struct settings *s)
{
	static const char *const keys[] = { "permanent_replication_slots", "permanent_slots",
		"slots" };
	const json_t *map = NULL;
	for (unsigned i = 0; i < ARRAY_LEN(keys) && !json_truthy(map); i++)
		map = json_object_get(doc, keys[i]);
	s->permanent = NULL;
	s->permanent_count = 0;
	if (!json_is_object(map))
		return;
	s->permanent = calloc(json_object_size(map) + 1, sizeof(*s->permanent));
	const char *name;
	json_t *v;
	json_object_foreach((json_t *)map, name, v)
	{
		struct permanent_slot p = { 0 };
		if (s->permanent == NULL || s->permanent_count == LIMIT_SLOTS)
			break;
		bool ok = slot_name_ok(name) && str_copy(p.name, sizeof(p.name), name);
		copy_text(p.database, sizeof(p.database), json_object_get(v, "database"));
		copy_text(p.plugin, sizeof(p.plugin), json_object_get(v, "plugin"));
		copy_text(
			p.cluster_type, sizeof(p.cluster_type), json_object_get(v, "cluster_type"));
		const char *type = json_path_str(v, "type");
		p.logical = type != NULL ? strcasecmp(type, "logical") == 0
					 : p.database[0] != '\0' && p.plugin[0] != '\0';
		if (p.logical && (p.database[0] == '\0' || p.plugin[0] == '\0'))
			ok = false;
		if (json_truthy(v) && !json_is_object(v) && !json_is_number(v))
			ok = false;
		if (ok)
			s->permanent[s->permanent_count++] = p;
		else if (loud)
			log_error("slots.%s: not a slot: the name must match [a-z0-9_]{1,63}, a "
				  "logical one needs database "
				  "and plugin",
				name);
	}
}

static void ignore_slots(const json_t *doc, struct settings *s)
{
	const json_t *list = json_object_get(doc, "ignore_slots");
	size_t n = json_array_size(list);
	s->ignore = n > 0 ? calloc(n, sizeof(*s->ignore)) : NULL;
	s->ignore_count = 0;
	for (size_t i = 0; i < n && s->ignore != NULL; i++) {
		const json_t *m = json_array_get(list, i);
		struct ignore_slot *g = &s->ignore[s->ignore_count];
		if (!json_is_object(m))
			continue;
		copy_text(g->name, sizeof(g->name), json_object_get(m, "name"));
		copy_text(g->type, sizeof(g->type), json_object_get(m, "type"));
		copy_text(g->database, sizeof(g->database), json_object_get(m, "database"));
		copy_text(g->plugin, sizeof(g->plugin), json_object_get(m, "plugin"));
		s->ignore_count++;
	}
}

static void sync_settings(const json_t *doc, struct settings *s)
{
	const json_t *mode = json_object_get(doc, "synchronous_mode");
	bool quorum = json_is_string(mode) && strcasecmp(json_string_value(mode), "quorum") == 0;
	s->sync_mode = quorum					      ? SYNC_QUORUM
		       : dynamic_bool(doc, "synchronous_mode", false) ? SYNC_PRIORITY
								      : SYNC_OFF;
	s->sync_strict = dynamic_bool(doc, "synchronous_mode_strict", false);
	int64_t n = get_int(doc, "synchronous_node_count", 1, false);
	s->sync_node_count = n < 1 ? 1 : n > LIMIT_MEMBERS ? LIMIT_MEMBERS : (int)n;
}

static void standby_settings(const json_t *doc, struct settings *s)
{
	const json_t *sc = json_object_get(doc, "standby_cluster");
	s->standby_cluster =
		json_is_object(sc) && (json_truthy(json_object_get(sc, "host")) ||
					      json_truthy(json_object_get(sc, "port")) ||
					      json_truthy(json_object_get(sc, "restore_command")));
	copy_text(s->standby_host, sizeof(s->standby_host), json_object_get(sc, "host"));
	copy_text(s->standby_port, sizeof(s->standby_port), json_object_get(sc, "port"));
	copy_text(
		s->standby_slot, sizeof(s->standby_slot), json_object_get(sc, "primary_slot_name"));
	s->standby_restore_command = json_truthy(json_object_get(sc, "restore_command"));
}

static void watchdog_settings(const json_t *local, struct settings *s)
{
	const json_t *wd = json_object_get(local, "watchdog");
	const json_t *mode = json_object_get(wd, "mode");
	const char *word = json_string_value(mode);
	s->watchdog_mode = WATCHDOG_AUTOMATIC;
	if (json_is_boolean(mode))
		s->watchdog_mode = WATCHDOG_OFF;
	else if (word != NULL &&
		 (strcasecmp(word, "required") == 0 || strcasecmp(word, "require") == 0))
		s->watchdog_mode = WATCHDOG_REQUIRED;
	else if (word != NULL && strcasecmp(word, "automatic") != 0 &&
		 strcasecmp(word, "auto") != 0)
		s->watchdog_mode = WATCHDOG_OFF;
	int64_t margin = get_int(wd, "safety_margin", 5, false);
	s->watchdog_margin_ms = margin < 0 ? -1 : margin * 1000;
}

static int tag_number(const json_t *tags, const char *key)
{
	int64_t n = get_int(tags, key, 1, false);
	return n < 0 ? 0 : n > 1000000 ? 1000000 : (int)n;
}

static void tag_settings(const json_t *tags, struct tags *t)
{
	memset(t, 0, sizeof(*t));
	t->failover_priority = tag_number(tags, "failover_priority");
	t->sync_priority = tag_number(tags, "sync_priority");
	t->nofailover = dynamic_bool(tags, "nofailover", t->failover_priority <= 0);
	t->nosync = dynamic_bool(tags, "nosync", t->sync_priority <= 0);
	if (t->nofailover)
		t->failover_priority = 0;
	if (t->nosync)
		t->sync_priority = 0;
	t->noloadbalance = dynamic_bool(tags, "noloadbalance", false);
	t->clonefrom = dynamic_bool(tags, "clonefrom", false);
	t->nostream = dynamic_bool(tags, "nostream", false);
	copy_text(
		t->replicatefrom, sizeof(t->replicatefrom), json_object_get(tags, "replicatefrom"));
}

static bool has_custom_bootstrap(const json_t *bootstrap)
{
	const char *method = json_string_value(json_object_get(bootstrap, "method"));
	return method != NULL && strcmp(method, "initdb") != 0 &&
	       json_is_string(json_object_get(json_object_get(bootstrap, method), "command"));
}

/* What it restores may be meant to stay a standby: PostgreSQL's own recovery settings are kept, or
 * say so. */
static bool custom_may_stand_by(const json_t *bootstrap)
{
	const char *method = json_string_value(json_object_get(bootstrap, "method"));
	const json_t *section = method != NULL ? json_object_get(bootstrap, method) : NULL;
	return json_truthy(json_object_get(section, "keep_existing_recovery_conf")) ||
	       json_truthy(
		       json_object_get(json_object_get(section, "recovery_conf"), "standby_mode"));
}

static bool has_no_leader_method(const json_t *pg)
{
	const json_t *list = json_object_get(pg, "create_replica_methods");
	if (list == NULL)
		list = json_object_get(pg, "create_replica_method");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *name = json_string_value(json_array_get(list, i));
		if (name != NULL && dynamic_bool(json_object_get(pg, name), "no_leader", false))
			return true;
	}
	return false;
}

enum err_code dynamic_settings(const json_t *doc, const json_t *local, bool low_limits, bool loud,
	struct settings *out, struct err *err)
{
	struct settings s = { 0 };
	json_auto_t *pg = dynamic_postgresql(doc, local);
	enum err_code rc = timings(doc, low_limits, loud, &s, err);
	if (rc != ERR_OK) {
		s.ttl_ms = out->ttl_ms != 0 ? out->ttl_ms : 30000;
		s.loop_wait_ms = out->loop_wait_ms != 0 ? out->loop_wait_ms : 10000;
		s.retry_timeout_ms = out->retry_timeout_ms != 0 ? out->retry_timeout_ms : 10000;
	}
	s.maximum_lag_on_failover = get_int(doc, "maximum_lag_on_failover", 1048576, loud);
	s.maximum_lag_on_syncnode = get_int(doc, "maximum_lag_on_syncnode", -1, loud);
	s.max_timelines_history = (int)get_int(doc, "max_timelines_history", 0, loud);
	s.check_timeline = dynamic_bool(doc, "check_timeline", false);
	const char *start = json_object_get(doc, "primary_start_timeout") != NULL
				    ? "primary_start_timeout"
				    : "master_start_timeout";
	const char *stop = json_object_get(doc, "primary_stop_timeout") != NULL
				   ? "primary_stop_timeout"
				   : "master_stop_timeout";
	s.primary_start_timeout_ms = get_int(doc, start, 300, loud) * 1000;
	s.primary_stop_timeout_ms = get_int(doc, stop, 0, loud) * 1000;
	s.primary_race_backoff_ms = get_int(doc, "primary_race_backoff", 0, loud) * 1000;
	sync_settings(doc, &s);
	s.failsafe_mode = dynamic_bool(doc, "failsafe_mode", false);
	s.pause = dynamic_bool(doc, "pause", false);
	s.pause_enforce = dynamic_bool(doc, "pause_enforce", false);
	char text[64];
	int64_t slots_ttl = 1800;
	const json_t *mst = json_object_get(doc, "member_slots_ttl");
	if (mst != NULL && json_text(mst, text, sizeof(text)) &&
		!value_parse_int(text, "s", &slots_ttl))
		slots_ttl = 1800;
	s.member_slots_ttl_ms = slots_ttl * 1000;
	s.use_slots = dynamic_bool(json_object_get(doc, "postgresql"), "use_slots", true);
	standby_settings(doc, &s);
	s.use_pg_rewind = dynamic_bool(pg, "use_pg_rewind", false);
	s.remove_on_rewind_failure =
		dynamic_bool(pg, "remove_data_directory_on_rewind_failure", false);
	s.remove_on_diverged =
		dynamic_bool(pg, "remove_data_directory_on_diverged_timelines", false);
	watchdog_settings(local, &s);
	s.have_bootstrap = json_is_object(json_object_get(local, "bootstrap"));
	s.custom_bootstrap = has_custom_bootstrap(json_object_get(local, "bootstrap"));
	s.custom_stands_by =
		s.custom_bootstrap && custom_may_stand_by(json_object_get(local, "bootstrap"));
	s.no_leader_methods = has_no_leader_method(pg);
	tag_settings(json_object_get(local, "tags"), &s.tags);
	permanent_slots(doc, loud, &s);
	ignore_slots(doc, &s);
	settings_done(out);
	*out = s;
	return rc;
}

/* ---- postgresql section
 * --------------------------------------------------------------------------- */

/* Settings that the file may not set (config 4.1). */
static const char *const controlled[] = { "listen_addresses", "port", "cluster_name", "wal_level",
	"hot_standby", "max_connections", "max_wal_senders", "max_prepared_transactions",
	"max_locks_per_transaction", "track_commit_timestamp", "max_replication_slots",
	"max_worker_processes", "wal_log_hints", "wal_keep_size", "wal_keep_segments" };
static const char *const local_only[] = { "connect_address", "proxy_address", "listen",
	"config_dir", "data_dir", "pgpass", "authentication" };

static bool in_list(const char *const *list, unsigned n, const char *name)
{
	for (unsigned i = 0; i < n; i++) {
		if (strcasecmp(list[i], name) == 0)
			return true;
	}
	return false;
}

/* Names of settings are case-insensitive: the later source wins with its spelling. */
static void set_parameter(json_t *map, const char *name, json_t *v)
{
	const char *key;
	json_t *old;
	void *tmp;
	json_object_foreach_safe(map, tmp, key, old)
	{
		if (strcasecmp(key, name) == 0 && strcmp(key, name) != 0)
			json_object_del(map, key);
	}
	json_object_set(map, name, v);
}

json_t *dynamic_postgresql(const json_t *doc, const json_t *local)
{
	json_t *out = json_object();
	const json_t *dyn = json_object_get(doc, "postgresql"),
		     *loc = json_object_get(local, "postgresql");
	const char *key;
	json_t *v;
	if (out == NULL)
		return NULL;
	json_object_foreach((json_t *)dyn, key, v)
	{
		if (!in_list(local_only, ARRAY_LEN(local_only), key))
			json_object_set_new(out, key, json_deep_copy(v));
	}
	json_t *params = json_object();
	const json_t *dp = json_object_get(dyn, "parameters"),
		     *lp = json_object_get(loc, "parameters");
	json_object_foreach((json_t *)dp, key, v) set_parameter(params, key, v);
	json_object_foreach((json_t *)lp, key, v)
	{
		if (!in_list(controlled, ARRAY_LEN(controlled), key))
			set_parameter(params, key, v);
	}
	json_object_foreach((json_t *)loc, key, v)
	{
		if (strcmp(key, "parameters") != 0 && strcmp(key, "use_slots") != 0)
			json_object_set_new(out, key, json_deep_copy(v));
	}
	json_object_set_new(out, "parameters", params);
	return out;
}

/* ---- tags
 * ----------------------------------------------------------------------------------------- */

static void warn_pair(const json_t *tags, const char *flag, const char *priority)
{
	const json_t *f = json_object_get(tags, flag), *p = json_object_get(tags, priority);
	char ft[64], pt[64];
	if (f == NULL || p == NULL || json_is_null(f) || json_is_null(p) ||
		!json_text(f, ft, sizeof(ft)) || !json_text(p, pt, sizeof(pt)))
		return;
	bool no = dynamic_bool(tags, flag, false);
	int64_t n = get_int(tags, priority, 1, false);
	if (no == (n > 0))
		log_warning(
			"Conflicting configuration between %s: %s and %s: %s. Defaulting to %s: %s",
			flag, ft, priority, pt, flag, ft);
}

void dynamic_warn_tags(const json_t *tags)
{
	warn_pair(tags, "nofailover", "failover_priority");
	warn_pair(tags, "nosync", "sync_priority");
}

json_t *dynamic_tags(const json_t *tags)
{
	static const char *const builtin[] = { "clonefrom", "nofailover", "noloadbalance", "nosync",
		"nostream" };
	json_t *out = json_object();
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)tags, key, v)
	{
		bool drop = in_list(builtin, ARRAY_LEN(builtin), key) &&
			    !dynamic_bool(tags, key, false);
		if (drop && strcmp(key, "nofailover") == 0 &&
			json_object_get(tags, "failover_priority") != NULL)
			drop = false;
		if (drop && strcmp(key, "nosync") == 0 &&
			json_object_get(tags, "sync_priority") != NULL)
			drop = false;
		if (!drop)
			json_object_set(out, key, v);
	}
	return out;
}
