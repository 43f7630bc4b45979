/* YAML 1.1 as PyYAML's safe loader resolves it (config 5.1), into jansson values; and back in
 * PyYAML's block style. */
#pragma once
#include <jansson.h>

#include "common/core/buf.h"
#include "common/core/err.h"

/* One document; an empty one is null. NULL with err ("line N: ...") on a syntax error, a second
 * document, or a bound. */
json_t *yaml_read(const char *text, size_t len, struct err *err);
json_t *yaml_read_file(const char *path, struct err *err);
/* The same; plain scalars of the given keys (ended with NULL) stay what is written, but for null.
 */
json_t *yaml_read_texts(
	const char *text, size_t len, const char *const *text_keys, struct err *err);
json_t *yaml_read_file_texts(const char *path, const char *const *text_keys, struct err *err);
/* One plain scalar as the loader resolves it: "on" is true, "010" is 8, "1.2.3" is text. */
json_t *yaml_scalar(const char *text);
/* Block style, keys sorted, width 200, as PyYAML's safe_dump(default_flow_style=False). */
MUST_USE bool yaml_write(const json_t *v, struct buf *out);
MUST_USE bool yaml_write_wide(const json_t *v, int width, struct buf *out);
/* Flow style on one line: {a: 1, b: true}. */
MUST_USE bool yaml_write_flow(const json_t *v, struct buf *out);
