/* The supervisor itself under a wall clock that jumps: seconds to add stand in the file that
 * PGREGENT_TEST_WALL names; no file, no jump. Dead-man, helpers and PostgreSQL keep the machine's
 * clock. */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int jumping_gettime(clockid_t id, struct timespec *ts)
{
	const char *path = getenv("PGREGENT_TEST_WALL");
	char text[24] = "";
	int rc = clock_gettime(id, ts);
	if (id != CLOCK_REALTIME || path == NULL)
		return rc;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		ts->tv_sec += strtol(text, NULL, 10);
	if (fd >= 0)
		close(fd);
	return rc;
}

#define clock_gettime jumping_gettime
#include "common/core/clock.c"
#undef clock_gettime
#include "supervisor/main.c"
