/* --validate-config: the local tree against the table of schema.h (config 6.2, 6.3). Run by a
 * process of its own that ends afterwards: its checks resolve names, connect and read directories.
 */
#pragma once
#include <stdbool.h>
#include <jansson.h>

#include "common/config/schema.h"
#include "common/core/buf.h"

struct validate {
	const json_t *root;
	bool ignore_listen_port;
	struct buf *out;      /* findings, one line each: path, value, message */
	struct buf *warnings; /* the same; they are no errors */
	unsigned errors;
};

/* Number of findings; their lines stand in out, those of what works, but not everywhere, in
 * warnings. */
unsigned validate_tree(
	const json_t *root, bool ignore_listen_port, struct buf *out, struct buf *warnings);
/* One finding. value NULL: none to show. */
void validate_add(struct validate *v, const char *path, const json_t *value, const char *fmt, ...)
	PRINTF(4, 5);
/* "didn't pass validation: <reason>" for a value. */
void validate_fail(struct validate *v, const char *path, const json_t *value, const char *fmt, ...)
	PRINTF(4, 5);
/* A list of texts, not empty; findings are added. */
void validate_texts(struct validate *v, const char *path, const json_t *value, bool maps);
