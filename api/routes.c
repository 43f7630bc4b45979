/* The routing table. See routes.h. */
#include "api/routes.h"

#include <string.h>

#include "common/config/value.h"
#include "common/core/str.h"

/* A restart ends when PostgreSQL accepts connections again: crash recovery may take long. */
#define RESTART_MS 3600000
/* 2 x max(10, loop_wait) polls of one second (rest 8), the probe, and some room. */
#define HANDOVER_MS 660000
#define STORE_MS    30000
#define LOCAL_MS    5000
#define PEER_MS	    2000   /* the sender of POST /failsafe gives up after 2 s */
#define CITUS_MS    300000 /* at most a ttl */

#define SAFE(path, route_kind)                                                                     \
	{                                                                                          \
		.verb = "GET", .segment = path, .kind = route_kind                                 \
	}
#define ACT(v, path, k, body_need, ms)                                                             \
	{                                                                                          \
		.verb = v, .segment = path, .kind = ROUTE_ACTION, .action = k, .body = body_need,  \
		.guarded = true, .by_members = k != API_FAILSAFE, .answer_ms = ms                  \
	}

static const struct route table[] = {
	SAFE("liveness", ROUTE_LIVENESS),
	SAFE("readiness", ROUTE_READINESS),
	SAFE("patroni", ROUTE_PATRONI),
	SAFE("metrics", ROUTE_METRICS),
	SAFE("cluster", ROUTE_CLUSTER),
	SAFE("history", ROUTE_HISTORY),
	SAFE("config", ROUTE_CONFIG),
	SAFE("failsafe", ROUTE_FAILSAFE),
	ACT("PATCH", "config", API_CONFIG_PATCH, BODY_REQUIRED, STORE_MS),
	ACT("PUT", "config", API_CONFIG_PUT, BODY_REQUIRED, STORE_MS),
	ACT("POST", "failsafe", API_FAILSAFE, BODY_REQUIRED, PEER_MS),
	ACT("POST", "switchover", API_SWITCHOVER, BODY_REQUIRED, HANDOVER_MS),
	ACT("POST", "failover", API_FAILOVER, BODY_REQUIRED, HANDOVER_MS),
	ACT("DELETE", "switchover", API_SWITCHOVER_DELETE, BODY_IGNORED, STORE_MS),
	ACT("POST", "restart", API_RESTART, BODY_OPTIONAL, RESTART_MS),
	ACT("DELETE", "restart", API_RESTART_DELETE, BODY_IGNORED, STORE_MS),
	ACT("POST", "reload", API_RELOAD, BODY_IGNORED, LOCAL_MS),
	ACT("POST", "reinitialize", API_REINITIALIZE, BODY_OPTIONAL, STORE_MS),
	ACT("POST", "citus", API_CITUS, BODY_REQUIRED, CITUS_MS),
	ACT("POST", "mpp", API_CITUS, BODY_REQUIRED, CITUS_MS),
	ACT("POST", "sigterm", API_SIGTERM, BODY_IGNORED, LOCAL_MS),
	{ .verb = "POST",
		.segment = "upgrade",
		.kind = ROUTE_ACTION,
		.action = API_UPGRADE,
		.guarded = true,
		.local_only = true,
		.answer_ms = STORE_MS },
	{ .verb = "POST",
		.segment = "status-local",
		.kind = ROUTE_ACTION,
		.action = API_STATUS_LOCAL,
		.guarded = true,
		.local_only = true,
		.answer_ms = LOCAL_MS },
};

static const struct route health = { .kind = ROUTE_HEALTH };
static const struct route unsupported = { .kind = ROUTE_UNSUPPORTED };

const struct route *route_find(const char *verb, const char *path)
{
	const char *segment = path + strspn(path, "/");
	size_t len = strcspn(segment, "/");
	for (unsigned i = 0; i < ARRAY_LEN(table); i++) {
		if (strcmp(table[i].verb, verb) == 0 && strlen(table[i].segment) == len &&
			strncmp(table[i].segment, segment, len) == 0)
			return &table[i];
	}
	if (strcmp(verb, "GET") == 0 || strcmp(verb, "HEAD") == 0 || strcmp(verb, "OPTIONS") == 0)
		return &health;
	return &unsupported;
}

bool route_status_only(const char *verb, const struct route *r)
{
	return strcmp(verb, "HEAD") == 0 || strcmp(verb, "OPTIONS") == 0 ||
	       r->kind == ROUTE_LIVENESS || r->kind == ROUTE_READINESS;
}

bool route_path(const char *target, char *out, size_t out_len)
{
	/* The absolute form that proxies use: the authority is not part of the path. */
	const char *scheme = strstr(target, "://");
	if (target[0] != '/' && scheme != NULL)
		target = scheme + 3 + strcspn(scheme + 3, "/?#");
	size_t slashes = strspn(target, "/");
	if (slashes > 1)
		target += slashes - 1;
	size_t len = strcspn(target, "?#");
	if (len == 0)
		return str_copy(out, out_len, "/");
	return str_copy_n(out, out_len, target, len);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* '+' and %XX; a broken escape stays as it is; a zero byte would end the string and is dropped. */
static void decode(char *s)
{
	char *out = s;
	for (; *s != '\0'; s++) {
		if (*s == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0) {
			char c = (char)(hex(s[1]) * 16 + hex(s[2]));
			s += 2;
			if (c != '\0')
				*out++ = c;
		} else {
			*out++ = *s == '+' ? ' ' : *s;
		}
	}
	*out = '\0';
}

struct seen {
	bool lag, replication_state, mode;
};

static bool add_tag(struct health_query *q, const char *name, const char *value)
{
	for (unsigned i = 0; i < q->tag_count; i++) {
		if (strcmp(q->tags[i].name, name) == 0)
			return true;
	}
	if (q->tag_count == HEALTH_TAG_FILTERS)
		return false;
	q->tags[q->tag_count].name = name;
	q->tags[q->tag_count++].value = value;
	return true;
}

/* The first value of a repeated key counts. */
static bool add(struct health_query *q, struct seen *seen, const char *key, const char *value)
{
	if (strcmp(key, "lag") == 0 && !seen->lag) {
		seen->lag = true;
		q->lag_given = value_parse_int(value, "B", &q->lag);
	} else if (strcmp(key, "replication_state") == 0 && !seen->replication_state) {
		seen->replication_state = true;
		q->replication_state = value;
	} else if (strcmp(key, "mode") == 0 && !seen->mode) {
		seen->mode = true;
		q->mode_write = strcmp(value, "write") == 0;
	} else if (str_starts(key, "tag_")) {
		return add_tag(q, key + 4, value);
	}
	return true;
}

bool route_query(const char *target, char *scratch, struct health_query *out)
{
	struct seen seen = { 0 };
	memset(out, 0, sizeof(*out));
	const char *mark = strchr(target, '?');
	if (mark == NULL)
		return true;
	size_t len = strcspn(mark + 1, "#");
	memcpy(scratch, mark + 1, len);
	scratch[len] = '\0';
	char *next;
	for (char *p = scratch; p != NULL; p = next) {
		next = strchr(p, '&');
		if (next != NULL)
			*next++ = '\0';
		char *value = strchr(p, '=');
		if (value == NULL || value[1] == '\0')
			continue;
		*value++ = '\0';
		decode(p);
		decode(value);
		if (!add(out, &seen, p, value))
			return false;
	}
	return true;
}
