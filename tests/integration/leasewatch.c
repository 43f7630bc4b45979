/* Reads a running supervisor's shared page: how long its lease lasted each time that it was
 * renewed, and how little was left before. Usage: leasewatch <pid of the supervisor>. Prints a line
 * for each change: CLOCK_BOOTTIME now, the new end, what was left of the old (milliseconds). Ends
 * on SIGTERM. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"

#define LOOK_EVERY_MS 5

/* The page is a memfd that only the supervisor and those to whom it was sent hold. */
static int open_page(const char *pid)
{
	char dir[64], path[384], target[256];
	snprintf(dir, sizeof(dir), "/proc/%s/fd", pid);
	DIR *d = opendir(dir);
	int fd = -1;
	for (struct dirent *e; d != NULL && fd < 0 && (e = readdir(d)) != NULL;) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strstr(target, "memfd:pgregent-supervisor") != NULL)
			fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (d != NULL)
		closedir(d);
	return fd;
}

int main(int argc, char **argv)
{
	struct shm page = SHM_INIT;
	struct err err = ERR_INIT;
	int fd = argc == 2 ? open_page(argv[1]) : -1;
	if (fd < 0 || shm_map(&page, fd, &err) != ERR_OK) {
		fprintf(stderr, "leasewatch: no page of a supervisor: %s\n", err.text);
		return 1;
	}
	int64_t seen = 0;
	for (;;) {
		int64_t until = shm_scalar_get(&page, SUP_LEASE_UNTIL_MS);
		int64_t now_ms = clock_boot_ms();
		if (until != seen) {
			printf("%" PRId64 " %" PRId64 " %" PRId64 "\n", now_ms, until,
				seen == 0 ? 0 : seen - now_ms);
			fflush(stdout);
			seen = until;
		}
		(void)poll(NULL, 0, LOOK_EVERY_MS);
	}
}
