/* The JSON documents of the API. See documents.h. */
#include "api/documents.h"

#include <stdlib.h>
#include <string.h>

#include "api/snapshot.h"
#include "common/core/str.h"
#include "common/ext/json.h"

/* jansson's setters take the reference also when they fail: then the document is short of memory,
 * which the caller sees in `failed`. */
struct doc {
	json_t *json;
	bool failed;
};

static void put_new(struct doc *d, const char *key, json_t *value)
{
	if (json_object_set_new(d->json, key, value) < 0)
		d->failed = true;
}

static void put(struct doc *d, const char *key, const json_t *value)
{
	if (value != NULL && json_object_set(d->json, key, (json_t *)value) < 0)
		d->failed = true;
}

static void put_true(struct doc *d, const char *key, bool value)
{
	if (value)
		put_new(d, key, json_true());
}

static json_t *finish(struct doc *d)
{
	if (d->failed) {
		json_decref(d->json);
		return NULL;
	}
	return d->json;
}

/* ---- D ------------------------------------------------------------------------------------------
 */

static void status_postgres(struct doc *d, const struct health_facts *f, const json_t *query)
{
	const json_t *replication = json_object_get(query, "replication");
	put(d, "server_version", json_object_get(query, "server_version"));
	put(d, "xlog", json_object_get(query, "xlog"));
	put_true(d, "sync_standby", f->sync_standby);
	put_true(d, "quorum_standby", f->quorum_standby);
	const json_t *timeline = json_object_get(query, "timeline");
	put_new(d, "timeline", timeline != NULL ? json_incref((json_t *)timeline) : json_null());
	if (health_replication_state(f)[0] != '\0')
		put_new(d, "replication_state", json_string(health_replication_state(f)));
	if (json_array_size(replication) > 0)
		put(d, "replication", replication);
}

static void status_member(struct doc *d, struct view *v)
{
	const json_t *member = view_doc(v, DOC_MEMBER);
	const json_t *tags = json_object_get(member, "tags");
	if (json_object_size(tags) > 0)
		put(d, "tags", tags);
	put(d, "database_system_identifier", json_object_get(member, "database_system_identifier"));
	if (view_get(v, WRK_PENDING_RESTART) != 0) {
		put_true(d, "pending_restart", true);
		put(d, "pending_restart_reason", json_object_get(member, "pending_restart_reason"));
	}
}

/* A leader's answer never waits for PostgreSQL: it carries what lasts, from the page, and no
 * position, which an old one must not stand for. */
static void status_lasting(struct doc *d, struct view *v)
{
	static const char *const keys[] = { "postmaster_start_time", "server_version", "timeline" };
	const json_t *member = view_doc(v, DOC_MEMBER);
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
		put(d, keys[i], json_object_get(member, keys[i]));
}

json_t *document_status(struct view *v, const struct health_facts *f, const json_t *query,
	const struct api_settings *settings)
{
	struct doc d = { .json = json_object() };
	const json_t *cluster = view_cluster(v, f->now_ms);
	put_new(&d, "state", json_string(health_state_word(f)));
	if (f->query_ok)
		put(&d, "postmaster_start_time", json_object_get(query, "postmaster_start_time"));
	put_new(&d, "role", json_string(pg_role_word(health_role(f))));
	if (f->query_ok)
		status_postgres(&d, f, query);
	else if (f->not_asked && f->mem_state == PG_STATE_RUNNING)
		status_lasting(&d, v);
	put_true(&d, "pause", f->paused);
	put_true(&d, "cluster_unlocked", snapshot_leader(cluster) == NULL);
	put_true(&d, "failsafe_mode_is_active", f->failsafe_active);
	put_new(&d, "dcs_last_seen", json_integer(view_get(v, WRK_DCS_LAST_SEEN_S)));
	status_member(&d, v);
	put_new(&d, "patroni",
		json_pack("{s:s, s:s, s:s}", "version", settings->patroni_version, "scope",
			settings->scope, "name", settings->name));
	put(&d, "scheduled_restart", json_object_get(view_doc(v, DOC_MEMBER), "scheduled_restart"));
	put_true(&d, "watchdog_failed", view_get(v, WRK_WATCHDOG_FAILED) != 0);
	if (f->logs_lost > 0) {
		/* Lines are written at once or lost: nothing of ours waits in a queue. */
		put_new(&d, "logger_queue_size", json_integer(0));
		put_new(&d, "logger_records_lost", json_integer((json_int_t)f->logs_lost));
	}
	return finish(&d);
}

/* ---- /cluster -----------------------------------------------------------------------------------
 */

/* postgres://[user@]host[:port]/..., IPv6 in brackets; the first host of a list. */
static void host_port(struct doc *d, const char *url)
{
	const char *p = url != NULL ? strstr(url, "://") : NULL;
	if (p == NULL)
		return;
	p += 3;
	size_t n = strcspn(p, "/?");
	const char *at = memchr(p, '@', n);
	if (at != NULL) {
		n -= (size_t)(at + 1 - p);
		p = at + 1;
	}
	const char *comma = memchr(p, ',', n);
	if (comma != NULL)
		n = (size_t)(comma - p);
	char host[LIMIT_URL], port[8] = "5432";
	const char *colon = memchr(p, ':', n);
	size_t host_len = colon != NULL ? (size_t)(colon - p) : n;
	if (n > 0 && p[0] == '[') {
		const char *end = memchr(p, ']', n);
		if (end == NULL)
			return;
		colon = end + 1 < p + n && end[1] == ':' ? end + 1 : NULL;
		host_len = (size_t)(end - p - 1);
		p++;
	}
	const char *stop = p + n - (p > url && p[-1] == '[');
	if (!str_copy_n(host, sizeof(host), p, host_len) || host[0] == '\0')
		return;
	if (colon != NULL && colon + 1 < stop &&
		!str_copy_n(port, sizeof(port), colon + 1, (size_t)(stop - colon - 1)))
		return;
	int64_t number;
	put_new(d, "host", json_string(host));
	if (str_to_i64(port, &number))
		put_new(d, "port", json_integer(number));
}

static void position(struct doc *d, const char *prefix, const json_t *value, uint64_t top)
{
	char lsn_key[24], lag_key[24], text[20];
	json_int_t lsn = json_integer_value(value);
	if (!str_format(lsn_key, sizeof(lsn_key), "%slsn", prefix) ||
		!str_format(lag_key, sizeof(lag_key), "%slag", prefix))
		return;
	if (lsn <= 0) {
		put_new(d, lsn_key, json_string("unknown"));
		put_new(d, lag_key, json_string("unknown"));
		return;
	}
	str_from_lsn((uint64_t)lsn, text);
	put_new(d, lsn_key, json_string(text));
	put_new(d, lag_key,
		json_integer(top > (uint64_t)lsn ? (json_int_t)(top - (uint64_t)lsn) : 0));
}

static json_t *member_entry(const struct cluster_view *c, const char *name, const json_t *data)
{
	static const char *const stored[] = { "timeline", "pending_restart",
		"pending_restart_reason", "scheduled_restart", "tags" };
	struct doc d = { .json = json_object() };
	bool leader = str_eq(name, snapshot_leader(c->cluster));
	const char *role = "replica";
	if (leader)
		role = c->standby_cluster ? "standby_leader" : "leader";
	else if (c->sync != SYNC_OFF && snapshot_is_sync(c->cluster, name))
		role = c->sync == SYNC_QUORUM ? "quorum_standby" : "sync_standby";
	const char *state = json_path_str(data, "replication_state");
	if (state == NULL || state[0] == '\0' || strcmp(role, "leader") == 0)
		state = json_path_str(data, "state");
	const json_t *api_url = json_object_get(data, "api_url");
	put_new(&d, "name", json_string(name));
	put_new(&d, "role", json_string(role));
	put_new(&d, "state", json_string(state != NULL ? state : ""));
	put_new(&d, "api_url", api_url != NULL ? json_incref((json_t *)api_url) : json_null());
	host_port(&d, json_path_str(data, "conn_url"));
	for (unsigned i = 0; i < ARRAY_LEN(stored); i++)
		put(&d, stored[i], json_object_get(data, stored[i]));
	if (!leader) {
		json_int_t last = json_integer_value(json_object_get(c->cluster, "last_lsn"));
		uint64_t top = last > 0 ? (uint64_t)last : 0;
		position(&d, "receive_", json_object_get(data, "receive_lsn"), top);
		position(&d, "replay_", json_object_get(data, "replay_lsn"), top);
		position(&d, "", json_object_get(data, "xlog_location"), top);
	}
	return finish(&d);
}

json_t *document_cluster(const struct cluster_view *c)
{
	struct doc d = { .json = json_object() };
	json_t *members = json_array();
	size_t i;
	json_t *m;
	json_array_foreach(json_object_get(c->cluster, "members"), i, m)
	{
		const char *name = json_string_value(json_object_get(m, "name"));
		if (name != NULL && json_array_append_new(members,
					    member_entry(c, name, json_object_get(m, "data"))) < 0)
			d.failed = true;
	}
	put_new(&d, "members", members);
	put_true(&d, "pause", c->paused);
	const json_t *failover = json_object_get(c->cluster, "failover");
	const json_t *at = json_object_get(failover, "scheduled_at");
	if (json_is_string(at)) {
		json_t *s = json_object();
		const json_t *from = json_object_get(failover, "leader");
		const json_t *to = json_object_get(failover, "member");
		json_object_set(s, "at", (json_t *)at);
		if (json_truthy(from))
			json_object_set(s, "from", (json_t *)from);
		if (json_truthy(to))
			json_object_set(s, "to", (json_t *)to);
		put_new(&d, "scheduled_switchover", s);
	}
	put_new(&d, "scope", json_string(c->scope));
	return finish(&d);
}
