/* A supervisor that never comes up when it is executed by an upgrade: it hangs before it takes
 * anything over. */
#include <stdlib.h>
#include <unistd.h>

#include "supervisor/launch.h"

static enum err_code hang_on_upgrade(struct launch *l, const struct privs *p, struct err *err)
{
	while (getenv("PGREGENT_HANDOVER") != NULL)
		pause();
	return launch_runtime_dir(l, p, err);
}

#define launch_runtime_dir hang_on_upgrade
#include "supervisor/main.c"
