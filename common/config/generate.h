/* A configuration to begin with: defaults, the environment over them, and its text with comments
 * (config 6.4, 6.5). */
#pragma once
#include <jansson.h>

#include "common/core/buf.h"

#define GENERATE_UNKNOWN "#FIXME"

/* Defaults with the environment's tree over them. host, address: NULL = not known. New reference;
 * NULL without memory. */
json_t *generate_template(const json_t *env_tree, const char *host, const char *address);
/* What the sample has on top; version as 150000. */
MUST_USE bool generate_sample(json_t *config, int32_t version);
/* The file's text. */
MUST_USE bool generate_text(const json_t *config, struct buf *out);
