/* The checks of request bodies (rest 6, 8, 9, 10) with the contract's texts. Pure functions on
 * parsed JSON and a view of the cluster: no page, no clock, no connection. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "common/core/err.h"
#include "common/model/settings.h"

struct validate_env {
	int64_t now_wall_us;
	bool paused;
	enum sync_mode sync;   /* in force: off in a standby cluster */
	const json_t *cluster; /* DOC_CLUSTER; never NULL */
};

/* status 0: passed; what the worker gets is in `forward` (owned by the caller). Else the answer. */
struct verdict {
	unsigned status;
	bool page; /* an error page, else one line of text */
	char text[400];
	json_t *forward;
};

/* A body that must be (optional: may be) a JSON object; 400 and 411 as rest 1 has them. has_length:
 * the request carried Content-Length. On success *out is the object, owned by the caller. */
MUST_USE bool validate_object(const char *body, size_t len, bool has_length, bool optional,
	json_t **out, struct verdict *v);
void validate_switchover(
	const json_t *body, bool failover, const struct validate_env *env, struct verdict *out);
void validate_restart(const json_t *body, const struct validate_env *env, struct verdict *out);
void validate_reinitialize(const json_t *body, struct verdict *out);
void validate_failsafe(const json_t *body, struct verdict *out);
