/* See invariant.h. */
#include "common/core/invariant.h"

#include <stdlib.h>

#include "common/core/log.h"

void (*invariant_hook)(void);

void invariant_failed(const char *expr, const char *file, int line)
{
	static int busy;
	log_fatal("invariant broken: %s at %s:%d", expr, file, line);
	if (invariant_hook != NULL && !busy) {
		busy = 1;
		invariant_hook();
	}
	abort();
}
