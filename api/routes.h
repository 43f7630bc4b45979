/* One table: method and first path segment to what is done (rest 1, 2). And the query string. Pure.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "api/health.h"
#include "common/core/err.h"
#include "common/core/ipc_msgs.h"

enum route_kind {
	ROUTE_HEALTH = 0, /* evaluated on the whole path */
	ROUTE_LIVENESS,
	ROUTE_READINESS,
	ROUTE_PATRONI,
	ROUTE_METRICS,
	ROUTE_CLUSTER,
	ROUTE_HISTORY,
	ROUTE_CONFIG,
	ROUTE_FAILSAFE,
	ROUTE_ACTION,	   /* goes to the worker as `action` */
	ROUTE_UNSUPPORTED, /* 501 */
};

enum body_kind { BODY_IGNORED = 0, BODY_OPTIONAL, BODY_REQUIRED };

struct route {
	const char *verb, *segment;
	enum route_kind kind;
	enum api_kind action;
	enum body_kind body;
	bool guarded;	 /* rest 11.1; HEAD, GET, OPTIONS never are */
	bool local_only; /* on the Unix socket alone */
	bool by_members; /* the members' addresses open the allowlist */
	int answer_ms;	 /* how long the worker may take */
};

const struct route *route_find(const char *verb, const char *path);
/* HEAD and OPTIONS answer with the status alone, as do the two probes. */
bool route_status_only(const char *verb, const struct route *r);
/* Path of a request target: query and fragment cut off, leading slashes made one, "" to "/". False:
 * over out_len. */
MUST_USE bool route_path(const char *target, char *out, size_t out_len);
/* The query string of a target, decoded in place into scratch (at least strlen(target) + 1 bytes),
 * whose strings *out borrows. More than HEALTH_TAG_FILTERS tags: false. */
MUST_USE bool route_query(const char *target, char *scratch, struct health_query *out);
