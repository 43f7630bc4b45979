/* Locks that say who is at his post. See duty.h. */
#include "common/core/duty.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/core/buf.h"

static struct flock byte_of(enum duty duty, short type)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)duty, .l_len = 1
	};
}

int duty_take(const char *lock_path, enum duty duty)
{
	struct flock fl = byte_of(duty, F_RDLCK);
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

bool duty_held(const char *lock_path, enum duty duty)
{
	struct flock fl = byte_of(duty, F_WRLCK);
	AUTO_FD fd = open(lock_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}
