/* See lifeline.h. Used by the supervisor (make, own, arm) and the dead-man (arm). */
#include "supervisor/lifeline.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

enum err_code lifeline_open(int out[2], struct err *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set(err, ERR_SYS, errno, "lifeline pipe");
	out[0] = fds[0];
	out[1] = fds[1];
	return ERR_OK;
}

int lifeline_own(int read_fd)
{
	int flags = fcntl(read_fd, F_GETFD);
	if (flags < 0 || fcntl(read_fd, F_SETFD, flags & ~FD_CLOEXEC) < 0)
		return -1;
	if (fcntl(read_fd, F_SETSIG, SIGKILL) < 0)
		return -1;
	return fcntl(read_fd, F_SETOWN, getpid());
}

int lifeline_arm(int read_fd, bool on)
{
	int flags = fcntl(read_fd, F_GETFL);
	if (flags < 0)
		return -1;
	if (((flags & O_ASYNC) != 0) == on)
		return 0;
	return fcntl(read_fd, F_SETFL, on ? flags | O_ASYNC : flags & ~O_ASYNC);
}
