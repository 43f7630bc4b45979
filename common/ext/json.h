/* Bounded, typed access to JSON over jansson, and the comparisons and merges that the contract
 * defines by text. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "common/core/buf.h"

/* Parse one document; depth at most LIMIT_JSON_DEPTH. NULL with err on anything else. */
json_t *json_read(const char *text, size_t len, struct err *err);
/* "a.b.c" through objects; NULL when a step is missing. Borrowed. */
json_t *json_path(const json_t *root, const char *path);
const char *json_path_str(const json_t *root, const char *path); /* NULL: absent or no string */
/* Truth as Python has it: null, false, 0, "", [] and {} are false, all else true. */
bool json_truthy(const json_t *v);
/* A number as Python writes it. */
void json_real_text(double d, char *out, size_t len);
/* A scalar as Python prints it: True, None, 1, 1.5, text; false when it is an array or object. */
MUST_USE bool json_text(const json_t *v, char *out, size_t len);
/* Any value as Python prints it: a scalar as above; texts inside lists and maps are quoted. */
void json_repr(const json_t *v, struct buf *out);
/* Deep comparison, scalars by their text (dcs 1.4): 1 equals "1", true does not equal "true". */
bool json_same(const json_t *a, const json_t *b);
/* The patch rule of PATCH /config and of configuration files (config 3.1, rest 6): null removes,
 * objects recurse, the rest replaces when the text differs. Returns whether anything changed. */
bool json_patch(json_t *target, const json_t *patch);
/* ASCII with ", " and ": " as Python prints it; members in order. NULL: no memory. Freed by the
 * caller. */
char *json_python(const json_t *v);
/* ASCII without blanks. */
char *json_compact(const json_t *v);
