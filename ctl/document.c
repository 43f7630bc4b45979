/* The cluster as GET /cluster describes it, from a snapshot of the store (rest 5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/value.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

static bool setting_on(const json_t *config, const char *key)
{
	const json_t *v = json_object_get(config, key);
	bool on = false;
	if (json_is_string(v) && value_parse_bool(json_string_value(v), &on))
		return on;
	return json_truthy(v);
}

bool document_paused(const json_t *config)
{
	return setting_on(config, "pause");
}

static void put_address(json_t *m, const char *conn_url)
{
	const char *p = strstr(conn_url, "://");
	if (p == NULL)
		return;
	p += 3;
	char netloc[LIMIT_URL], host[LIMIT_URL];
	if (!str_copy_n(netloc, sizeof(netloc), p, strcspn(p, "/?")))
		return;
	const char *at = strrchr(netloc, '@');
	int port = 5432;
	if (!local_split_address(at != NULL ? at + 1 : netloc, 5432, host, sizeof(host), &port))
		return;
	(void)json_object_set_new(m, "host", json_string(host));
	(void)json_object_set_new(m, "port", json_integer(port));
}

static void put_lsn(json_t *m, const char *prefix, uint64_t lsn, uint64_t last)
{
	char key[32], text[20];
	put_format(key, sizeof(key), "%slsn", prefix);
	if (lsn != 0)
		str_from_lsn(lsn, text);
	(void)json_object_set_new(m, key, json_string(lsn != 0 ? text : "unknown"));
	put_format(key, sizeof(key), "%slag", prefix);
	(void)json_object_set_new(m, key,
		lsn == 0 ? json_string("unknown")
			 : json_integer(last > lsn ? (json_int_t)(last - lsn) : 0));
}

static const char *role_of(const struct cluster *c, const struct member *m, const json_t *config)
{
	bool standby = json_truthy(json_object_get(config, "standby_cluster"));
	if (str_eq(m->name, c->leader))
		return standby ? "standby_leader" : "leader";
	const char *mode = json_string_value(json_object_get(config, "synchronous_mode"));
	bool quorum = mode != NULL && str_eq_nocase(mode, "quorum");
	if (!standby && (quorum || setting_on(config, "synchronous_mode")) &&
		cluster_sync_matches(c, m->name))
		return quorum ? "quorum_standby" : "sync_standby";
	return "replica";
}

static json_t *member_doc(const struct cluster *c, const struct member *m, const json_t *config)
{
	static const char *const copied[] = { "pending_restart", "pending_restart_reason",
		"scheduled_restart", "tags" };
	json_t *o = json_object();
	json_t *stored = m->json != NULL ? json_read(m->json, strlen(m->json), NULL) : NULL;
	const char *role = role_of(c, m, config);
	bool leader = str_eq(m->name, c->leader);
	const char *state = strcmp(role, "leader") != 0 && m->replication_state[0] != '\0'
				    ? m->replication_state
				    : m->state;
	(void)json_object_set_new(o, "name", json_string(m->name));
	(void)json_object_set_new(o, "role", json_string(role));
	(void)json_object_set_new(o, "state", json_string(state));
	(void)json_object_set_new(
		o, "api_url", m->api_url[0] != '\0' ? json_string(m->api_url) : json_null());
	put_address(o, m->conn_url);
	if (m->timeline != 0)
		(void)json_object_set_new(o, "timeline", json_integer(m->timeline));
	for (size_t i = 0; i < ARRAY_LEN(copied); i++) {
		json_t *v = json_object_get(stored, copied[i]);
		if (json_truthy(v))
			(void)json_object_set(o, copied[i], v);
	}
	if (!leader) {
		put_lsn(o, "receive_", m->receive_lsn, c->last_lsn);
		put_lsn(o, "replay_", m->replay_lsn, c->last_lsn);
		put_lsn(o, "", m->xlog_location, c->last_lsn);
	}
	json_decref(stored);
	return o;
}

static void put_schedule(json_t *doc, const struct cluster *c)
{
	if (!c->failover_present || !c->failover_scheduled)
		return;
	json_t *s = json_pack("{s:s}", "at", c->failover_at);
	if (c->failover_leader[0] != '\0')
		(void)json_object_set_new(s, "from", json_string(c->failover_leader));
	if (c->failover_candidate[0] != '\0')
		(void)json_object_set_new(s, "to", json_string(c->failover_candidate));
	(void)json_object_set_new(doc, "scheduled_switchover", s);
}

json_t *document_make(const struct cluster *c, const char *scope, const json_t *config)
{
	json_t *doc = json_object(), *members = json_array();
	for (unsigned i = 0; i < c->member_count; i++)
		(void)json_array_append_new(members, member_doc(c, &c->members[i], config));
	(void)json_object_set_new(doc, "members", members);
	if (document_paused(config))
		(void)json_object_set_new(doc, "pause", json_true());
	put_schedule(doc, c);
	(void)json_object_set_new(doc, "scope", json_string(scope));
	return doc;
}
