/* Command line of pgregent as far as the worker program serves it (config 6.1). */
#pragma once
#include <stdbool.h>

#include "common/core/err.h"

enum option_mode {
	MODE_RUN = 0,
	MODE_LAUNCH, /* for the supervisor: what it must know of the configuration */
	MODE_VALIDATE,
	MODE_GENERATE_SAMPLE,
	MODE_GENERATE,
	MODE_VERSION,
	MODE_HELP,
};
struct options {
	enum option_mode mode;
	bool ignore_listen_port, print;
	const char *dsn;    /* NULL = not given */
	const char *config; /* NULL = not given */
};
/* Long options may be shortened as long as they stay unique. ERR_INVAL: exit 2 with the usage. */
MUST_USE enum err_code options_parse(struct options *o, int argc, char **argv, struct err *err);
extern const char options_usage[];
