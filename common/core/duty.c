/* Locks that say who is at his post. See duty.h. */
#include "common/core/duty.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/core/buf.h"

#define ENFORCER_AT 0
#define WATCHER_AT  1 /* and the pid of the supervisor */

static int take(const char *lock_path, off_t at)
{
	struct flock fl = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };
	int fd = open(lock_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -1;
	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* length 0: to the end. */
static bool held(int fd, off_t at, off_t length)
{
	struct flock fl = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = length
	};
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

int duty_enforce(const char *lock_path)
{
	return take(lock_path, ENFORCER_AT);
}

bool duty_enforced(const char *lock_path)
{
	AUTO_FD fd = open(lock_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return held(fd, ENFORCER_AT, 1);
}

int duty_watch(const char *lock_path, pid_t supervisor)
{
	return take(lock_path, WATCHER_AT + (off_t)supervisor);
}

bool duty_watched(const char *lock_path, pid_t but_of_supervisor)
{
	AUTO_FD fd = open(lock_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	off_t own = WATCHER_AT + (off_t)but_of_supervisor;
	return (own > WATCHER_AT && held(fd, WATCHER_AT, own - WATCHER_AT)) ||
	       held(fd, own + (but_of_supervisor > 0), 0);
}
