/* The modes of the worker program that end at once (config 6): no loop, no supervisor. They may
 * block. */
#pragma once
#include <jansson.h>

#include "common/core/err.h"
#include "worker/options.h"

int oneshot_launch(const char *path);
int oneshot_validate(const struct options *o);
int oneshot_generate(const struct options *o); /* --generate-config and its sample */

/* generate_pg.c: what a running server says, into the tree. */
MUST_USE enum err_code generate_from_server(json_t *config, const char *dsn, struct err *err);
