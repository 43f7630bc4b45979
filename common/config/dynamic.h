/* The dynamic document over the defaults, the local tree over both (config 1.6, 3.2, 3.4). */
#pragma once
#include <jansson.h>

#include "common/core/err.h"
#include "common/model/settings.h"

/* Settings from the raw dynamic document and the local tree. low_limits: all members are pgregent,
 * so that ttl may go down to 3 s (config 3.4). ttl, loop_wait, retry_timeout that cannot be
 * converted: ERR_INVAL, *out keeps its timings. Warnings are logged once per call when `loud`.
 * Arrays of *out are replaced. */
MUST_USE enum err_code dynamic_settings(const json_t *doc, const json_t *local, bool low_limits,
	bool loud, struct settings *out, struct err *err);
/* Effective postgresql section (config 3.2): dynamic one, the local one over it key by key;
 * parameters merged, the names of config 4.1 from the dynamic document only. New reference; NULL
 * without memory. */
json_t *dynamic_postgresql(const json_t *doc, const json_t *local);
/* Warnings about contradicting tags with the reference's words (config 1.12). */
void dynamic_warn_tags(const json_t *tags);
/* Effective tags as they are published: false built-ins left out (config 1.12). New reference. */
json_t *dynamic_tags(const json_t *tags);
/* Boolean setting: bool(p), then truthiness; def when absent. */
bool dynamic_bool(const json_t *map, const char *key, bool def);
