/* GET /metrics: the text that Prometheus scrapes (rest 5). Pure. */
#pragma once
#include <stdbool.h>
#include <jansson.h>

#include "common/core/buf.h"

struct metrics_input {
	const json_t *status; /* D */
	const char *patroni_version, *scope, *name;
	int state; /* enum pg_state; -1 when D says unknown */
	bool failsafe_enabled, failsafe_member;
	const json_t *tags; /* effective tags, may be NULL */
};

void metrics_write(const struct metrics_input *in, struct buf *out);
