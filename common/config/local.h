/* The local configuration: file or directory, PATRONI_CONFIGURATION, environment over it (config
 * 2, 3.1). */
#pragma once
#include <stdbool.h>
#include <jansson.h>

#include "common/core/err.h"

struct local_config {
	char *path;    /* "" = environment only; owned */
	json_t *env;   /* tree made of the environment, read once at start; owned */
	json_t *tree;  /* file with the environment over it; owned */
	bool from_env; /* PATRONI_CONFIGURATION or environment alone: cannot be reloaded */
};

/* Reads path (NULL, or one that does not exist: environment alone, with a warning for the latter),
 * lays the environment over it. ERR_PARSE names file and line. */
MUST_USE enum err_code local_load(struct local_config *c, const char *path, struct err *err);
/* Read the file again. *out_changed; on an error the old tree stays. */
MUST_USE enum err_code local_reload(struct local_config *c, bool *out_changed, struct err *err);
void local_done(struct local_config *c);
/* What would stop a start later on, told before the first contact with the store (config 6.3): all
 * findings in err, separated by "; ". ERR_INVAL with findings. */
MUST_USE enum err_code local_check(const struct local_config *c, struct err *err);
/* "host:port" split at the last colon (config 5.3); false: not understood. */
MUST_USE bool local_split_address(
	const char *text, int default_port, char *host, size_t host_len, int *out_port);
