/* Killing PostgreSQL when both enforcers are gone. See last_fence.h. */
#include "common/core/last_fence.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/duty.h"
#include "common/core/killtree.h"
#include "common/core/limits.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define FENCE_MS  10000
#define LOOK_MS	  20	/* how late a fence may be that waited for others to enforce */
#define RELIEF_MS 60000 /* a supervisor without a helper for that long needs no watching */

static struct last {
	char data_dir[LIMIT_PATH], real_dir[LIMIT_PATH];
	char life[LIMIT_PATH], lock[LIMIT_PATH];
	pid_t supervisor;
	int duty_fd;
	struct killtree kt; /* 200 KiB, zero pages until it is needed */
} last = { .duty_fd = -1 };

void last_fence_prepare(const char *data_dir, const char *runtime_dir, int sup_fd)
{
	struct ucred who;
	socklen_t size = sizeof(who);
	/* Not getppid(): it may be dead by now. */
	if (getsockopt(sup_fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0)
		last.supervisor = who.pid;
	if (!str_copy(last.data_dir, sizeof(last.data_dir), data_dir) ||
		!str_format(last.life, sizeof(last.life), "%s/life", runtime_dir) ||
		!str_format(last.lock, sizeof(last.lock), "%s/lock", runtime_dir))
		log_error(
			"names of the run-time directory are too long: no fence from this process");
	char *real = realpath(data_dir, NULL);
	if (!str_copy(last.real_dir, sizeof(last.real_dir), real != NULL ? real : data_dir))
		last.real_dir[0] = '\0'; /* no working directory has this name */
	free(real);
}

/* A process named postgres whose working directory is ours, by /proc alone; the postmaster if it is
 * there, since it has the lowest pid but for a wrap-around, and the life file finds the others. */
static pid_t postgres_in_data_dir(void)
{
	pid_t found = 0;
	DIR *proc = opendir("/proc");
	struct dirent *e;
	while (proc != NULL && found == 0 && (e = readdir(proc)) != NULL) {
		char path[64], text[LIMIT_PATH];
		int64_t pid;
		if (!isdigit((unsigned char)e->d_name[0]) || !str_to_i64(e->d_name, &pid) ||
			!str_format(path, sizeof(path), "/proc/%s/cwd", e->d_name))
			continue;
		ssize_t n = readlink(path, text, sizeof(text) - 1);
		if (n < 0)
			continue;
		text[n] = '\0';
		if (strcmp(text, last.real_dir) != 0 ||
			!str_format(path, sizeof(path), "/proc/%s/comm", e->d_name))
			continue;
		AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
		text[n > 0 ? n : 0] = '\0';
		if (str_starts(text, "postgres") || str_starts(text, "postmaster"))
			found = (pid_t)pid;
	}
	if (proc != NULL)
		closedir(proc);
	return found;
}

/* Asked for, never kept. */
static bool supervisor_lives(void)
{
	AUTO_FD fd = open(last.lock, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

void last_fence_on_duty(void)
{
	if (last.duty_fd >= 0 || last.lock[0] == '\0')
		return;
	last.duty_fd = duty_watch(last.lock, last.supervisor);
	if (last.duty_fd < 0)
		log_warning("cannot be seen on duty: %s: %s", last.lock, strerror(errno));
}

bool last_fence_due(void)
{
	int64_t until_ms = clock_boot_ms() + RELIEF_MS;
	struct timespec pause = { .tv_nsec = LOOK_MS * 1000000 };
	/* First: of two that wait, the one that looks last must not see the other on duty. Helpers
	 * of the same supervisor see the same end. */
	if (last.duty_fd >= 0)
		close(last.duty_fd);
	last.duty_fd = -1;
	/* The supervisor first: a dead-man is started by one that lives. */
	for (bool told = false; supervisor_lives() || duty_enforced(last.lock); told = true) {
		if (duty_watched(last.lock, last.supervisor) || clock_boot_ms() >= until_ms)
			return false;
		if (!told)
			log_info("another supervisor or dead-man is here: watched until relieved");
		nanosleep(&pause, NULL);
	}
	return true;
}

void last_fence_run(last_fence_root_fn root)
{
	int64_t deadline_ms = clock_boot_ms() + FENCE_MS;
	struct stat st;
	struct killtree_target target = { .root_pidfd = -1, .uid = getuid(), .gid = getgid() };
	if (stat(last.life, &st) == 0) {
		target.life_dev = st.st_dev;
		target.life_ino = st.st_ino;
	}
	/* What somebody else started holds no life file. All that works in the directory, not the
	 * one with the lowest number alone: after a wrap-around that is a backend. */
	if (last.real_dir[0] != '\0')
		target.data_dir = last.real_dir;
	struct killtree_report report = { 0 };
	log_error("supervisor and dead-man are gone: PostgreSQL is killed");
	/* These first: that needs no disk. */
	bool clean = (target.life_ino == 0 && target.data_dir == NULL) ||
		     killtree_run_blocking(&last.kt, &target, deadline_ms, &report);
	unsigned signalled = report.signalled;
	pid_t pid = root != NULL ? root(last.data_dir) : postgres_in_data_dir();
	if (pid > 0) {
		target.root = pid;
		target.root_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		clean = killtree_run_blocking(&last.kt, &target, deadline_ms, &report);
		signalled += report.signalled;
		if (target.root_pidfd >= 0)
			close(target.root_pidfd);
	}
	log_error("last fence signalled=%u denied=%u result=\"%s\"", signalled, report.denied,
		clean ? "nothing left" : "processes left");
}
