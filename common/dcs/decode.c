/* Keys and values to struct cluster and back. See decode.h. */
#include "common/dcs/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"

static void copy_or_empty(char *dst, size_t len, const char *src)
{
	if (src == NULL || !str_copy(dst, len, src))
		dst[0] = '\0';
}

static int64_t int_of(const json_t *v)
{
	int64_t n = 0;
	if (json_is_integer(v))
		return json_integer_value(v);
	if (json_is_string(v) && str_to_i64(json_string_value(v), &n))
		return n;
	if (json_is_real(v)) {
		/* Written so that NaN fails too; anything else would be undefined. */
		double d = json_real_value(v);
		return d > -9e18 && d < 9e18 ? (int64_t)d : 0;
	}
	return 0;
}

static uint64_t lsn_of(const json_t *v)
{
	int64_t n = int_of(v);
	return n > 0 ? (uint64_t)n : 0;
}

/* bool(p) first, then truthiness (config 8 #7). */
static bool tag_bool(const json_t *v)
{
	if (json_is_string(v)) {
		static const char *const no[] = { "off", "false", "no", "0" };
		for (unsigned i = 0; i < 4; i++) {
			if (strcasecmp(json_string_value(v), no[i]) == 0)
				return false;
		}
	}
	return json_truthy(v);
}

static int tag_priority(const json_t *tags, const char *flag, const char *priority, bool *out_no)
{
	const json_t *f = json_object_get(tags, flag), *p = json_object_get(tags, priority);
	int64_t n = 1;
	if (p != NULL && !json_is_null(p))
		n = json_is_string(p) && !str_to_i64(json_string_value(p), &n) ? 1 : int_of(p);
	*out_no = f != NULL && !json_is_null(f) ? tag_bool(f) : n <= 0;
	if (*out_no)
		return 0;
	return n > 1000000 ? 1000000 : n < 0 ? 0 : (int)n;
}

void decode_tags(const json_t *tags, struct tags *out)
{
	memset(out, 0, sizeof(*out));
	out->failover_priority =
		tag_priority(tags, "nofailover", "failover_priority", &out->nofailover);
	out->sync_priority = tag_priority(tags, "nosync", "sync_priority", &out->nosync);
	out->noloadbalance = tag_bool(json_object_get(tags, "noloadbalance"));
	out->clonefrom = tag_bool(json_object_get(tags, "clonefrom"));
	out->nostream = tag_bool(json_object_get(tags, "nostream"));
	copy_or_empty(out->replicatefrom, sizeof(out->replicatefrom),
		json_string_value(json_object_get(tags, "replicatefrom")));
}

bool decode_same(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	if (strcmp(a, b) == 0)
		return true;
	struct err err;
	json_auto_t *x = json_read(a, strlen(a), &err), *y = json_read(b, strlen(b), &err);
	return x != NULL && y != NULL && json_same(x, y);
}

/* ---- time
 * ----------------------------------------------------------------------------------------- */

static bool digits(const char **p, int n, int *out)
{
	int v = 0;
	for (int i = 0; i < n; i++) {
		if ((*p)[i] < '0' || (*p)[i] > '9')
			return false;
		v = v * 10 + ((*p)[i] - '0');
	}
	*p += n;
	*out = v;
	return true;
}

static bool read_zone(const char *p, int *out_minutes, bool *out_none)
{
	int h = 0, m = 0;
	*out_none = *p == '\0';
	*out_minutes = 0;
	if (*p == '\0' || strcmp(p, "Z") == 0 || strcmp(p, "z") == 0 || strcasecmp(p, "UTC") == 0)
		return true;
	if (*p != '+' && *p != '-')
		return false;
	int sign = *p++ == '-' ? -1 : 1;
	if (!digits(&p, 2, &h))
		return false;
	if (*p == ':')
		p++;
	if (*p != '\0' && !digits(&p, 2, &m))
		return false;
	*out_minutes = sign * (h * 60 + m);
	return *p == '\0' && h < 24 && m < 60;
}

bool decode_time(const char *text, int64_t *out_wall_us, bool *out_no_zone)
{
	struct tm tm = { 0 };
	const char *p = text;
	int64_t us = 0;
	int zone;
	if (!digits(&p, 4, &tm.tm_year) || *p++ != '-' || !digits(&p, 2, &tm.tm_mon) ||
		*p++ != '-' || !digits(&p, 2, &tm.tm_mday) || (*p != 'T' && *p != ' ' && *p != 't'))
		return false;
	p++;
	if (!digits(&p, 2, &tm.tm_hour) || *p++ != ':' || !digits(&p, 2, &tm.tm_min))
		return false;
	if (*p == ':') {
		p++;
		if (!digits(&p, 2, &tm.tm_sec))
			return false;
		if (*p == '.') {
			int64_t unit = 100000;
			for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
				us += (*p - '0') * unit;
		}
	}
	while (*p == ' ')
		p++;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
		tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60 ||
		!read_zone(p, &zone, out_no_zone))
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*out_wall_us = ((int64_t)timegm(&tm) - zone * 60) * 1000000 + us;
	return true;
}

/* ---- one key each
 * --------------------------------------------------------------------------------- */

static void decode_leader(struct cluster *c, const struct dcs_kv *kv)
{
	c->leader_present = true;
	c->leader_version = kv->version;
	memcpy(c->leader_session, kv->session, sizeof(c->leader_session));
	/* A name that cannot be a member's still means that somebody holds the key. */
	if (!str_copy(c->leader, sizeof(c->leader), kv->value))
		copy_or_empty(c->leader, sizeof(c->leader), "\x01unreadable");
}

static void decode_config(struct cluster *c, const struct dcs_kv *kv)
{
	struct err err;
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	c->config_present = true;
	if (!json_is_object(v))
		return;
	c->config_valid = true;
	c->config_version = kv->version;
	c->config_json = strdup(kv->value);
	if (c->config_json == NULL)
		c->config_valid = false;
}

static void decode_slots(struct cluster *c, const json_t *slots)
{
	if (!json_is_object(slots) || json_object_size(slots) == 0)
		return;
	size_t n = json_object_size(slots);
	c->slots = calloc(n < LIMIT_SLOTS ? n : LIMIT_SLOTS, sizeof(*c->slots));
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)slots, key, v)
	{
		if (c->slots == NULL || c->slot_count == LIMIT_SLOTS)
			break;
		struct slot_lsn *s = &c->slots[c->slot_count];
		if (str_copy(s->name, sizeof(s->name), key)) {
			s->lsn = lsn_of(v);
			c->slot_count++;
		}
	}
}

static void decode_retain(struct cluster *c, const json_t *list)
{
	size_t n = json_array_size(list);
	if (n == 0)
		return;
	c->retain_slots = calloc(n < LIMIT_SLOTS ? n : LIMIT_SLOTS, sizeof(*c->retain_slots));
	for (size_t i = 0; i < n && c->retain_slots != NULL && c->retain_count < LIMIT_SLOTS; i++) {
		const char *s = json_string_value(json_array_get(list, i));
		if (s != NULL && str_copy(c->retain_slots[c->retain_count], LIMIT_SLOT_NAME, s))
			c->retain_count++;
	}
}

/* Kubernetes keeps them as JSON text inside a string. */
static json_t *unwrap(json_t *v)
{
	struct err err;
	if (json_is_string(v))
		return json_read(json_string_value(v), json_string_length(v), &err);
	return json_incref(v);
}

static void decode_status(struct cluster *c, const struct dcs_kv *kv, bool legacy)
{
	struct err err;
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	if (legacy && c->status_present)
		return;
	c->status_present = true;
	if (!json_is_object(v)) {
		c->last_lsn = lsn_of(v);
		return;
	}
	if (!legacy)
		c->status_json = strdup(kv->value);
	c->last_lsn = lsn_of(json_object_get(v, "optime"));
	json_auto_t *slots = unwrap(json_object_get(v, "slots"));
	json_auto_t *retain = unwrap(json_object_get(v, "retain_slots"));
	decode_slots(c, slots);
	decode_retain(c, retain);
}

static void decode_failover(struct cluster *c, const struct dcs_kv *kv)
{
	struct err err;
	c->failover_key_exists = true;
	c->failover_version = kv->version;
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	if (v == NULL) {
		/* Legacy "leader:candidate". */
		const char *colon = strchr(kv->value, ':');
		if (colon == NULL)
			return;
		if (!str_copy_n(c->failover_leader, sizeof(c->failover_leader), kv->value,
			    (size_t)(colon - kv->value)))
			return;
		copy_or_empty(c->failover_candidate, sizeof(c->failover_candidate), colon + 1);
	} else if (json_is_object(v)) {
		copy_or_empty(c->failover_leader, sizeof(c->failover_leader),
			json_string_value(json_object_get(v, "leader")));
		copy_or_empty(c->failover_candidate, sizeof(c->failover_candidate),
			json_string_value(json_object_get(v, "member")));
		const json_t *at = json_object_get(v, "scheduled_at");
		if (at != NULL && !json_is_null(at) && json_truthy(at)) {
			bool no_zone = false;
			c->failover_scheduled = true;
			c->failover_schedule_bad = !json_is_string(at) ||
						   !decode_time(json_string_value(at),
							   &c->failover_at_wall_us, &no_zone) ||
						   no_zone;
			copy_or_empty(
				c->failover_at, sizeof(c->failover_at), json_string_value(at));
		}
	}
	c->failover_present = c->failover_leader[0] != '\0' || c->failover_candidate[0] != '\0';
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* No number of votes reaches it. */
#define SYNC_QUORUM_MAX LIMIT_MEMBERS

static void decode_sync(struct cluster *c, const struct dcs_kv *kv)
{
	struct err err;
	c->sync_key_exists = true;
	c->sync_version = kv->version;
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	copy_or_empty(c->sync_leader, sizeof(c->sync_leader),
		json_string_value(json_object_get(v, "leader")));
	if (c->sync_leader[0] == '\0')
		return;
	int64_t q = int_of(json_object_get(v, "quorum"));
	c->sync_quorum = q <= 0 ? 0 : q < SYNC_QUORUM_MAX ? (int)q : SYNC_QUORUM_MAX;
	const char *list = json_string_value(json_object_get(v, "sync_standby"));
	if (list == NULL)
		return;
	c->sync_voters = calloc(LIMIT_SYNC_NAMES, sizeof(*c->sync_voters));
	bool whole = c->sync_voters != NULL;
	while (*list != '\0' && whole) {
		size_t n = strcspn(list, ",");
		whole = n == 0 || (c->sync_voter_count < LIMIT_SYNC_NAMES &&
					  str_copy_n(c->sync_voters[c->sync_voter_count],
						  LIMIT_NAME, list, n));
		if (n > 0 && whole)
			c->sync_voter_count++;
		list += n + (list[n] == ',');
	}
	/* Part of a promise would be another, weaker one: then nobody but its leader can keep it.
	 */
	if (!whole) {
		c->sync_voter_count = 0;
		c->sync_quorum = SYNC_QUORUM_MAX;
	}
	if (c->sync_voter_count > 1)
		qsort(c->sync_voters, c->sync_voter_count, sizeof(*c->sync_voters), by_name);
}

static bool decode_history_row(const json_t *row, struct history_row *out)
{
	const json_t *tli = json_array_get(row, 0), *lsn = json_array_get(row, 1);
	if (!json_is_integer(tli) || !json_is_integer(lsn))
		return false;
	memset(out, 0, sizeof(*out));
	out->timeline = json_integer_value(tli);
	out->lsn = lsn_of(lsn);
	copy_or_empty(out->reason, sizeof(out->reason), json_string_value(json_array_get(row, 2)));
	copy_or_empty(out->time, sizeof(out->time), json_string_value(json_array_get(row, 3)));
	copy_or_empty(out->new_leader, sizeof(out->new_leader),
		json_string_value(json_array_get(row, 4)));
	return true;
}

static void decode_history(struct cluster *c, const struct dcs_kv *kv)
{
	struct err err;
	c->history_present = true;
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	if (!json_is_array(v))
		return;
	size_t n = json_array_size(v);
	size_t first = n > LIMIT_HISTORY ? n - LIMIT_HISTORY : 0;
	c->history = calloc(n - first + 1, sizeof(*c->history));
	if (c->history == NULL)
		return;
	for (size_t i = first; i < n; i++) {
		if (!decode_history_row(json_array_get(v, i), &c->history[c->history_count++])) {
			c->history_count = 0;
			return;
		}
	}
	c->history_valid = true;
	c->history_json = strdup(kv->value);
}

static void decode_failsafe(struct cluster *c, const struct dcs_kv *kv)
{
	struct err err;
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	c->failsafe_version = kv->version;
	if (!json_is_object(v))
		return;
	c->failsafe = calloc(json_object_size(v) + 1, sizeof(*c->failsafe));
	const char *key;
	json_t *url;
	if (c->failsafe == NULL)
		return;
	json_object_foreach(v, key, url)
	{
		struct failsafe_member *m = &c->failsafe[c->failsafe_count];
		/* A round that leaves somebody out proves nothing: no map at all is the answer. */
		if (c->failsafe_count == LIMIT_MEMBERS ||
			!str_copy(m->name, sizeof(m->name), key)) {
			c->failsafe_count = 0;
			return;
		}
		copy_or_empty(m->api_url, sizeof(m->api_url), json_string_value(url));
		c->failsafe_count++;
	}
	c->failsafe_json = strdup(kv->value);
	c->failsafe_present = c->failsafe_json != NULL;
}

static void decode_member(struct member *m, const char *name, const struct dcs_kv *kv)
{
	struct err err;
	copy_or_empty(m->name, sizeof(m->name), name);
	memcpy(m->session, kv->session, sizeof(m->session));
	m->version_no = kv->version;
	decode_tags(NULL, &m->tags);
	if (str_starts(kv->value, "postgres")) {
		/* Legacy URL: ?application_name=<api_url> */
		const char *q = strstr(kv->value, "?application_name=");
		if (q != NULL) {
			copy_or_empty(m->api_url, sizeof(m->api_url), q + 18);
			if (!str_copy_n(m->conn_url, sizeof(m->conn_url), kv->value,
				    (size_t)(q - kv->value)))
				m->conn_url[0] = '\0';
		} else {
			copy_or_empty(m->conn_url, sizeof(m->conn_url), kv->value);
		}
		m->is_patroni = true;
		return;
	}
	json_auto_t *v = json_read(kv->value, kv->value_len, &err);
	if (!json_is_object(v))
		return;
	m->json = strdup(kv->value);
	copy_or_empty(m->conn_url, sizeof(m->conn_url), json_path_str(v, "conn_url"));
	copy_or_empty(m->api_url, sizeof(m->api_url), json_path_str(v, "api_url"));
	copy_or_empty(m->state, sizeof(m->state), json_path_str(v, "state"));
	copy_or_empty(m->role, sizeof(m->role), json_path_str(v, "role"));
	if (strcmp(m->role, "master") == 0)
		copy_or_empty(m->role, sizeof(m->role), "primary");
	copy_or_empty(m->version, sizeof(m->version), json_path_str(v, "version"));
	copy_or_empty(m->replication_state, sizeof(m->replication_state),
		json_path_str(v, "replication_state"));
	m->xlog_location = lsn_of(json_object_get(v, "xlog_location"));
	m->replay_lsn = lsn_of(json_object_get(v, "replay_lsn"));
	m->receive_lsn = lsn_of(json_object_get(v, "receive_lsn"));
	m->timeline = int_of(json_object_get(v, "timeline"));
	const json_t *cp = json_object_get(v, "checkpoint_after_promote");
	m->checkpoint_pending = cp != NULL && !json_truthy(cp);
	m->pause = json_truthy(json_object_get(v, "pause"));
	m->pending_restart = json_truthy(json_object_get(v, "pending_restart"));
	m->is_pgregent = json_object_get(v, "pgregent") != NULL;
	m->is_patroni = !m->is_pgregent && (m->conn_url[0] != '\0' || m->api_url[0] != '\0');
	const json_t *tags = json_object_get(v, "tags");
	decode_tags(json_is_object(tags) ? tags : NULL, &m->tags);
}

static int member_order(const void *a, const void *b)
{
	return strcmp(((const struct member *)a)->name, ((const struct member *)b)->name);
}

static void decode_one(struct cluster *c, const struct dcs_kv *kv)
{
	const char *k = kv->key;
	if (kv->value_len > LIMIT_DCS_VALUE) {
		/* Not read, but there: no lock is free and no scope is new because of its size. */
		static char unreadable[] = "\x01unreadable";
		struct dcs_kv there = *kv;
		there.value = unreadable;
		there.value_len = sizeof(unreadable) - 1;
		if (strcmp(k, "leader") == 0)
			decode_leader(c, &there);
		else if (strcmp(k, "initialize") == 0)
			c->init_present = true;
		else if (strcmp(k, "sync") == 0)
			decode_sync(c, &there);
		return;
	}
	if (strcmp(k, "leader") == 0)
		decode_leader(c, kv);
	else if (strcmp(k, "initialize") == 0) {
		c->init_present = true;
		c->init_version = kv->version;
		copy_or_empty(c->init, sizeof(c->init), kv->value);
	} else if (strcmp(k, "config") == 0)
		decode_config(c, kv);
	else if (strcmp(k, "status") == 0)
		decode_status(c, kv, false);
	else if (strcmp(k, "failover") == 0)
		decode_failover(c, kv);
	else if (strcmp(k, "sync") == 0)
		decode_sync(c, kv);
	else if (strcmp(k, "history") == 0)
		decode_history(c, kv);
	else if (strcmp(k, "failsafe") == 0)
		decode_failsafe(c, kv);
	else if (str_starts(k, "members/") && strchr(k + 8, '/') == NULL && k[8] != '\0' &&
		 strlen(k + 8) < LIMIT_NAME && c->member_count < LIMIT_MEMBERS)
		decode_member(&c->members[c->member_count++], k + 8, kv);
}

struct cluster *decode_cluster(
	const struct dcs_kv *kvs, unsigned count, int64_t revision, int64_t read_at_ms)
{
	struct cluster *c = cluster_new();
	if (c == NULL)
		return NULL;
	unsigned members = 0;
	for (unsigned i = 0; i < count; i++)
		members += str_starts(kvs[i].key, "members/");
	c->members = calloc(members + 1, sizeof(*c->members));
	if (c->members == NULL) {
		cluster_free(c);
		return NULL;
	}
	c->revision = revision;
	c->read_at_ms = read_at_ms;
	for (unsigned i = 0; i < count; i++)
		decode_one(c, &kvs[i]);
	for (unsigned i = 0; i < count; i++) {
		if (strcmp(kvs[i].key, "optime/leader") == 0 && kvs[i].value_len <= LIMIT_DCS_VALUE)
			decode_status(c, &kvs[i], true);
	}
	qsort(c->members, c->member_count, sizeof(*c->members), member_order);
	return c;
}

/* ---- writing
 * -------------------------------------------------------------------------------------- */

char *encode_sync(const char *leader, int quorum, const char (*voters)[LIMIT_NAME], unsigned count)
{
	json_auto_t *o = json_object();
	AUTO(buf) list = BUF_INIT(LIMIT_NAME * LIMIT_SYNC_NAMES);
	for (unsigned i = 0; i < count; i++)
		buf_addf(&list, "%s%s", i > 0 ? "," : "", voters[i]);
	if (list.failed || json_object_set_new(o, "leader", json_string(leader)) < 0 ||
		json_object_set_new(o, "quorum", json_integer(quorum)) < 0 ||
		json_object_set_new(o, "sync_standby",
			count > 0 ? json_string(buf_str(&list)) : json_null()) < 0)
		return NULL;
	return json_compact(o);
}

char *encode_failover(const char *leader, const char *candidate, int64_t scheduled_wall_us)
{
	json_auto_t *o = json_object();
	int rc = 0;
	if (leader != NULL && leader[0] != '\0')
		rc |= json_object_set_new(o, "leader", json_string(leader));
	if (candidate != NULL && candidate[0] != '\0')
		rc |= json_object_set_new(o, "member", json_string(candidate));
	if (scheduled_wall_us != 0) {
		char text[40];
		clock_iso8601(scheduled_wall_us, text, sizeof(text));
		/* As Python writes it: no fraction where there is none. */
		char *fraction = strstr(text, ".000000");
		if (fraction != NULL)
			memmove(fraction, fraction + 7, strlen(fraction + 7) + 1);
		rc |= json_object_set_new(o, "scheduled_at", json_string(text));
	}
	return rc == 0 ? json_compact(o) : NULL;
}
