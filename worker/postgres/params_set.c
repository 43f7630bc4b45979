/* The set of server settings: what is ours, what is accepted, how it is put together
 * (config 4.1, 4.2, 4.9). See params.h. */
#include "worker/postgres/params.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/config/value.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "worker/postgres/sync_names.h"

#define VALUE_MAX 65536

const struct param_ours params_ours[] = {
	{ "listen_addresses", NULL, false, 0, 0, true },
	{ "port", NULL, false, 0, 0, true },
	{ "cluster_name", NULL, false, 90500, 0, true },
	{ "wal_level", "hot_standby", false, 0, 0, true },
	{ "hot_standby", "on", false, 0, 0, true },
	{ "max_connections", "100", true, 0, 0, true },
	{ "max_wal_senders", "10", true, 0, 0, true },
	{ "max_prepared_transactions", "0", true, 0, 0, true },
	{ "max_locks_per_transaction", "64", true, 0, 0, true },
	{ "track_commit_timestamp", "off", false, 90500, 0, true },
	{ "max_replication_slots", "10", true, 90400, 0, true },
	{ "max_worker_processes", "8", true, 90400, 0, true },
	{ "wal_log_hints", "on", false, 90400, 0, true },
	{ "wal_keep_size", "128MB", false, 130000, 0, false },
	{ "wal_keep_segments", "8", true, 0, 130000, false },
};
const unsigned params_ours_count = ARRAY_LEN(params_ours);

const struct param_ours *params_ours_find(const char *name)
{
	for (unsigned i = 0; i < params_ours_count; i++) {
		if (str_eq_nocase(params_ours[i].name, name))
			return &params_ours[i];
	}
	return NULL;
}

/* Smallest accepted number; -1: not a number. */
static int64_t ours_min(const char *name, const char **out_unit)
{
	static const struct {
		const char *name, *unit;
		int64_t min;
	} rows[] = { { "max_connections", NULL, 25 }, { "max_wal_senders", NULL, 3 },
		{ "max_prepared_transactions", NULL, 0 }, { "max_locks_per_transaction", NULL, 32 },
		{ "max_replication_slots", NULL, 4 }, { "max_worker_processes", NULL, 2 },
		{ "wal_keep_size", "MB", 16 }, { "wal_keep_segments", NULL, 1 } };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (str_eq_nocase(rows[i].name, name)) {
			*out_unit = rows[i].unit;
			return rows[i].min;
		}
	}
	return -1;
}

bool params_ours_accepts(const char *name, const json_t *value)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	params_text(value, &text);
	const char *s = buf_str(&text), *unit;
	int64_t min = ours_min(name, &unit), n;
	bool b;
	if (min >= 0)
		return value_parse_int(s, unit, &n) && n >= min;
	if (str_eq_nocase(name, "wal_level"))
		return str_eq_nocase(s, "hot_standby") || str_eq_nocase(s, "replica") ||
		       str_eq_nocase(s, "logical");
	if (str_eq_nocase(name, "hot_standby"))
		return value_parse_bool(s, &b) && b;
	if (str_eq_nocase(name, "track_commit_timestamp") || str_eq_nocase(name, "wal_log_hints"))
		return value_parse_bool(s, &b);
	return false; /* listen_addresses, port, cluster_name: never */
}

static json_t *preset_value(const struct param_ours *o)
{
	int64_t n;
	if (o->preset == NULL)
		return json_null();
	return o->preset_int && str_to_i64(o->preset, &n) ? json_integer(n)
							  : json_string(o->preset);
}

/* Numbers without a unit become numbers, so that "100" and 100 are the same in what is published.
 */
static json_t *normalised(const char *name, json_t *value)
{
	const char *unit;
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	int64_t n;
	params_text(value, &text);
	if (ours_min(name, &unit) >= 0 && value_parse_int(buf_str(&text), NULL, &n))
		return json_integer(n);
	return json_incref(value);
}

static bool merge_dynamic(json_t *set, const json_t *dynamic, struct buf *notes)
{
	const char *name;
	json_t *value;
	bool ok = true;
	json_object_foreach((json_t *)dynamic, name, value)
	{
		const struct param_ours *o = params_ours_find(name);
		if (o == NULL) {
			ok = ok && params_set_new(set, name, json_incref(value));
		} else if (params_ours_accepts(name, value)) {
			ok = ok && params_set_new(set, o->name, normalised(name, value));
		} else {
			buf_addf(notes, "postgresql parameter %s=", name);
			params_text(value, notes);
			buf_addf(notes, " failed validation, defaulting to %s\n",
				o->preset != NULL ? o->preset : "None");
		}
	}
	return ok;
}

enum err_code params_merge(const json_t *dynamic, const json_t *local, json_t **out,
	struct buf *notes, struct err *err)
{
	if (local != NULL && !json_is_null(local) && !json_is_object(local))
		return err_set(err, ERR_INVAL, 0, "postgresql.parameters is not a map");
	json_auto_t *set = json_object();
	bool ok = set != NULL;
	for (unsigned i = 0; ok && i < params_ours_count; i++) {
		/* These two follow from one another, by version (4.2 step 7). */
		if (!str_starts(params_ours[i].name, "wal_keep_"))
			ok = params_set_new(
				set, params_ours[i].name, preset_value(&params_ours[i]));
	}
	if (ok && json_is_object(dynamic))
		ok = merge_dynamic(set, dynamic, notes);
	const char *name;
	json_t *value;
	json_object_foreach((json_t *)local, name, value)
	{
		if (params_ours_find(name) == NULL)
			ok = ok && params_set_new(set, name, json_incref(value));
	}
	if (!ok)
		return err_set(err, ERR_NOMEM, 0, "parameters");
	*out = json_incref(set);
	return ERR_OK;
}

/* ---- steps of the computation
 * ----------------------------------------------------------------------- */

static bool set_text(json_t *set, const char *name, const char *text)
{
	return params_set_new(set, name, json_string(text));
}

static const char *text_of(const json_t *set, const char *name, struct buf *scratch)
{
	json_t *v = params_get(set, name);
	buf_reset(scratch);
	if (v == NULL || json_is_null(v))
		return NULL;
	params_text(v, scratch);
	return buf_str(scratch);
}

static bool apply_overlay(json_t *set, const json_t *overlay, struct buf *notes)
{
	const char *name;
	json_t *value;
	bool ok = true;
	json_object_foreach((json_t *)overlay, name, value)
	{
		if (params_ours_find(name) == NULL)
			ok = ok && params_set_new(set, name, json_incref(value));
		else
			buf_addf(notes,
				"parameter %s is the same for all roles, the one of this role is "
				"ignored\n",
				name);
	}
	return ok;
}

static bool apply_ssn(json_t *set, const struct params_env *e)
{
	if (!e->sync_mode)
		return true;
	if (e->ssn != NULL)
		return set_text(set, "synchronous_standby_names", e->ssn);
	if (e->sync_strict_primary)
		return set_text(set, "synchronous_standby_names", SYNC_PLACEHOLDER);
	params_del(set, "synchronous_standby_names");
	return true;
}

/* hot_standby is the name that replica had before 9.6; exact lower-case text only. */
static bool apply_wal_level(json_t *set, int32_t major)
{
	const char *have = json_string_value(params_get(set, "wal_level"));
	if (have != NULL && strcmp(have, "hot_standby") == 0 && major != 0)
		return set_text(set, "wal_level", "replica");
	return true;
}

static bool apply_wal_keep(json_t *set, int32_t major)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	int64_t n;
	char size[40];
	if (major >= 13) {
		const char *segments = text_of(set, "wal_keep_segments", &text);
		if (segments == NULL || !value_parse_int(segments, NULL, &n) || n < 0 ||
			n > INT32_MAX)
			n = 8;
		snprintf(size, sizeof(size), "%" PRId64 "MB", n * 16);
		params_del(set, "wal_keep_segments");
		return params_get(set, "wal_keep_size") != NULL ||
		       set_text(set, "wal_keep_size", size);
	}
	if (major == 0)
		return true;
	const char *keep = text_of(set, "wal_keep_size", &text);
	if (keep == NULL)
		keep = "128MB";
	if (!value_parse_int(keep, "MB", &n) || n < 0 || n > INT32_MAX)
		n = 0;
	params_del(set, "wal_keep_size");
	return params_get(set, "wal_keep_segments") != NULL ||
	       params_set_new(set, "wal_keep_segments", json_integer((n + 8) / 16));
}

/* citus stands first in shared_preload_libraries, once. */
static bool apply_citus_libraries(json_t *set)
{
	AUTO(buf) have = BUF_INIT(VALUE_MAX);
	AUTO(buf) libraries = BUF_INIT(VALUE_MAX);
	const char *p = text_of(set, "shared_preload_libraries", &have);
	buf_adds(&libraries, "citus");
	while (p != NULL && *p != '\0') {
		p += strspn(p, " \t\n,");
		size_t n = strcspn(p, ",");
		size_t word = n;
		while (word > 0 && strchr(" \t\n", p[word - 1]) != NULL)
			word--;
		if (word > 0 && !(word == 5 && strncmp(p, "citus", 5) == 0))
			buf_addf(&libraries, ",%.*s", (int)word, p);
		p += n;
	}
	return !libraries.failed && set_text(set, "shared_preload_libraries", buf_str(&libraries));
}

static bool apply_citus(json_t *set, const struct params_env *e)
{
	if (!e->citus)
		return true;
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	int64_t prepared = 0, connections = 100;
	const char *s = text_of(set, "max_prepared_transactions", &text);
	bool zero = s != NULL && value_parse_int(s, NULL, &prepared) && prepared == 0;
	s = text_of(set, "max_connections", &text);
	if (s != NULL && !value_parse_int(s, NULL, &connections))
		connections = 100;
	return apply_citus_libraries(set) &&
	       (!zero || params_set_new(set, "max_prepared_transactions",
				 json_integer(connections * 2))) &&
	       set_text(set, "wal_level", "logical") &&
	       set_text(set, "citus.local_hostname",
		       e->citus_host != NULL ? e->citus_host : "localhost");
}

static void drop_newer(json_t *set, int32_t major)
{
	for (unsigned i = 0; major != 0 && i < params_ours_count; i++) {
		const struct param_ours *o = &params_ours[i];
		if (major * 10000 < o->from || (o->until != 0 && major * 10000 >= o->until))
			params_del(set, o->name);
	}
}

static bool make_absolute(json_t *set, const char *name, const char *config_dir)
{
	char path[LIMIT_PATH * 2];
	const char *file = json_string_value(params_get(set, name));
	if (file == NULL || file[0] == '/')
		return true;
	return str_format(path, sizeof(path), "%s/%s", config_dir, file) &&
	       set_text(set, name, path);
}

/* Recovery settings among the parameters replace the map recovery_conf as a whole. */
static bool split_recovery(json_t *set, const json_t *pg, int32_t major, json_t *recovery)
{
	const char *name;
	json_t *value;
	void *tmp;
	bool ok = true, found = false;
	json_object_foreach_safe(set, tmp, name, value)
	{
		if (!params_is_recovery(name))
			continue;
		found = true;
		ok = ok && params_set_new(recovery, name, json_incref(value));
		json_object_del(set, name);
	}
	if (!found) {
		json_object_foreach(json_object_get(pg, "recovery_conf"), name, value) ok =
			ok && params_set_new(recovery, name, json_incref(value));
	}
	const char *good = major != 0 && major < 12 ? "trigger_file" : "promote_trigger_file";
	const char *wrong = major != 0 && major < 12 ? "promote_trigger_file" : "trigger_file";
	json_t *misnamed = params_get(recovery, wrong);
	if (misnamed == NULL)
		return ok;
	if (params_get(recovery, good) == NULL)
		ok = ok && params_set_new(recovery, good, json_incref(misnamed));
	params_del(recovery, wrong);
	return ok;
}

enum err_code params_compute(const json_t *pg, const struct params_env *e, json_t **out_params,
	json_t **out_recovery, struct buf *notes, struct err *err)
{
	AUTO(buf) hosts = BUF_INIT(LIMIT_CONNINFO);
	int port;
	char port_text[16];
	if (e->listen == NULL || !params_split_listen(e->listen, &hosts, &port) || hosts.failed)
		return err_set(err, ERR_INVAL, 0,
			"postgresql.listen: \"%s\" is not host[,host...][:port]",
			e->listen != NULL ? e->listen : "");
	snprintf(port_text, sizeof(port_text), "%d", port);
	json_auto_t *set = json_copy(json_object_get(pg, "parameters"));
	json_auto_t *recovery = json_object();
	if (set == NULL)
		set = json_object();
	bool ok = set != NULL && recovery != NULL;
	ok = ok &&
	     (e->overlay == NULL || apply_overlay(set, json_object_get(pg, e->overlay), notes));
	ok = ok && set_text(set, "cluster_name", e->scope) &&
	     set_text(set, "listen_addresses", buf_str(&hosts)) && set_text(set, "port", port_text);
	ok = ok && apply_ssn(set, e) && apply_wal_level(set, e->major) &&
	     apply_wal_keep(set, e->major) && apply_citus(set, e);
	if (ok)
		drop_newer(set, e->major);
	ok = ok && make_absolute(set, "hba_file", e->config_dir) &&
	     make_absolute(set, "ident_file", e->config_dir);
	ok = ok && split_recovery(set, pg, e->major, recovery);
	ok = ok && (!e->hot_standby_feedback || set_text(set, "hot_standby_feedback", "on"));
	if (!ok)
		return err_set(err, ERR_NOMEM, 0, "parameters");
	*out_params = json_incref(set);
	*out_recovery = json_incref(recovery);
	return ERR_OK;
}

/* ---- the floor of a standby
 * ------------------------------------------------------------------------- */

static bool raise_one(json_t *params, const char *name, int32_t control_value, json_t *diff)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	int64_t value;
	const char *s = text_of(params, name, &text);
	if (s == NULL || !value_parse_int(s, NULL, &value) || control_value <= value)
		return true;
	char old_text[24], new_text[24];
	snprintf(old_text, sizeof(old_text), "%d", control_value);
	snprintf(new_text, sizeof(new_text), "%" PRId64, value);
	json_t *change = json_pack("{s:s, s:s}", "old_value", old_text, "new_value", new_text);
	return change != NULL && json_object_set_new(diff, name, change) == 0 &&
	       params_set_new(params, name, json_integer(control_value));
}

enum err_code params_floor(json_t *params, const struct pg_control *c, int32_t major,
	json_t **out_diff, struct err *err)
{
	json_auto_t *diff = json_object();
	bool ok = diff != NULL;
	if (c->valid) {
		ok = ok && raise_one(params, "max_connections", c->max_connections, diff) &&
		     raise_one(params, "max_prepared_transactions", c->max_prepared_xacts, diff) &&
		     raise_one(params, "max_locks_per_transaction", c->max_locks_per_xact, diff) &&
		     raise_one(params, "max_worker_processes", c->max_worker_processes, diff);
		if (major >= 12)
			ok = ok && raise_one(params, "max_wal_senders", c->max_wal_senders, diff);
	}
	if (!ok)
		return err_set(err, ERR_NOMEM, 0, "parameters");
	*out_diff = json_incref(diff);
	return ERR_OK;
}
