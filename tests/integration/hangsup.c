/* A supervisor that never comes up when it is executed by an upgrade. PGREGENT_TEST_UPGRADE says
 * how, at a point before it takes anything over: "crash" by a fault of its own, "fail" with an
 * error, else it hangs. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/launch.h"

static enum err_code bad_on_upgrade(struct launch *l, const struct privs *p, struct err *err)
{
	const char *how = getenv("PGREGENT_TEST_UPGRADE");
	if (getenv("PGREGENT_HANDOVER") == NULL)
		return launch_runtime_dir(l, p, err);
	if (how != NULL && strcmp(how, "fail") == 0)
		return err_set(err, ERR_INVAL, 0, "it fails, as it was told to");
	if (how != NULL && strcmp(how, "crash") == 0)
		raise(SIGSEGV);
	for (;;)
		pause();
}

#define launch_runtime_dir bad_on_upgrade
#include "supervisor/main.c"
