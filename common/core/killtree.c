/* See killtree.h. Runs in the supervisor's and the dead-man's fence and, at the very end, in
 * worker, files and api. It must not allocate, wait for another process, or signal a process that
 * it has not just proven to be one of PostgreSQL's: as root a wrong pid would be somebody else's.
 */
#include "common/core/killtree.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "common/core/clock.h"

/* How the list proves an entry: a child of the root by its parent (stopped, the root reaps nobody),
 * a holder of the life file by the file, deeper ones by the start time, since their parent may be
 * killed before them. */
#define START_CHILD  0
#define START_HOLDER UINT64_MAX

struct dirent64_raw {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static void pause_us(long us)
{
	struct timespec ts = { .tv_nsec = us * 1000 };
	nanosleep(&ts, NULL);
}

static void note_errno(struct killtree_report *out, int e)
{
	if (out->first_errno == 0)
		out->first_errno = e;
}

/* ---- reading /proc --------------------------------------------------------------------- */

static ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, buf, size - 1);
	int e = errno;
	close(fd);
	errno = e;
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

int killtree_stat(pid_t pid, struct killtree_stat *out)
{
	char path[40], buf[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	ssize_t n = read_file(path, buf, sizeof(buf));
	if (n <= 0) {
		if (n == 0 || errno == ENOENT)
			errno = ESRCH;
		return -1;
	}
	/* The name may contain blanks and parentheses: the last one ends it. Fields: 3 state, 4
	 * ppid, 22 start. */
	char *p = strrchr(buf, ')');
	if (p == NULL || p[1] != ' ')
		goto bad;
	out->state = p[2];
	p += 3;
	for (int field = 4; field <= 22; field++) {
		char *end;
		unsigned long long v = strtoull(p, &end, 10);
		if (end == p)
			goto bad;
		if (field == 4)
			out->ppid = (pid_t)v;
		if (field == 22)
			out->start_ticks = v;
		p = end;
	}
	return 0;
bad:
	errno = EPROTO;
	return -1;
}

static bool is_dead(char state)
{
	return state == 'Z' || state == 'X' || state == 'x';
}

/* ---- the list -------------------------------------------------------------------------- */

static void list_add(struct killtree *kt, pid_t pid, uint64_t start, struct killtree_report *out)
{
	if (pid <= 1 || pid == getpid())
		return;
	if (kt->count == KILLTREE_PIDS) {
		out->overflow = true;
		return;
	}
	kt->pids[kt->count] = pid;
	kt->starts[kt->count] = start;
	kt->count++;
}

static void list_child(struct killtree *kt, pid_t pid, bool of_root, struct killtree_report *out)
{
	struct killtree_stat st;
	if (of_root)
		list_add(kt, pid, START_CHILD, out);
	else if (killtree_stat(pid, &st) == 0 && !is_dead(st.state))
		list_add(kt, pid, st.start_ticks, out);
}

/* The children that one thread of pid has forked. */
static void list_children_of_task(
	struct killtree *kt, pid_t pid, pid_t tid, bool of_root, struct killtree_report *out)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT && errno != ESRCH)
			note_errno(out, errno);
		return;
	}
	int64_t number = 0;
	ssize_t n;
	while ((n = read(fd, kt->text, sizeof(kt->text))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (kt->text[i] >= '0' && kt->text[i] <= '9') {
				number = number * 10 + (kt->text[i] - '0');
			} else if (number > 0) {
				list_child(kt, (pid_t)number, of_root, out);
				number = 0;
			}
		}
	}
	close(fd);
}

static void list_children(struct killtree *kt, pid_t pid, bool of_root, struct killtree_report *out)
{
	char path[40];
	struct stat st;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	if (stat(path, &st) < 0)
		return;
	/* "." and ".." and one thread: the ordinary case, no need to read the directory. */
	if (st.st_nlink <= 3) {
		list_children_of_task(kt, pid, pid, of_root, out);
		return;
	}
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return;
	long n;
	while ((n = syscall(SYS_getdents64, dir, kt->dents_fd, sizeof(kt->dents_fd))) > 0) {
		for (long at = 0; at < n;) {
			struct dirent64_raw *d = (struct dirent64_raw *)(kt->dents_fd + at);
			at += d->reclen;
			if (d->name[0] >= '1' && d->name[0] <= '9')
				list_children_of_task(
					kt, pid, (pid_t)strtol(d->name, NULL, 10), of_root, out);
		}
	}
	close(dir);
}

/* The descriptor is the life file, and the open file description that the postmaster inherited:
 * that one holds the shared lock. Supervisor, dead-man and a successor of either open the file on
 * their own and are not PostgreSQL. AT_STATX_DONT_SYNC: the descriptor may be a file of a server
 * that does not answer. */
static bool fd_is_life(int dir, pid_t pid, const char *name, const struct killtree_target *t)
{
	struct statx sx;
	char path[64], info[512];
	if (statx(dir, name, AT_STATX_DONT_SYNC, STATX_INO, &sx) < 0 || sx.stx_ino != t->life_ino ||
		makedev(sx.stx_dev_major, sx.stx_dev_minor) != t->life_dev)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.20s", (int)pid, name);
	ssize_t n = read_file(path, info, sizeof(info));
	if (t->any_holder) {
		/* A job has the writing end of its output. The reading end is the supervisor's, and
		 * until its exec that of every child that was forked meanwhile. */
		const char *flags = n > 0 ? strstr(info, "flags:") : NULL;
		return flags == NULL || (strtol(flags + 6, NULL, 8) & O_ACCMODE) != O_RDONLY;
	}
	const char *lock = n > 0 ? strstr(info, "FLOCK") : NULL;
	return lock != NULL && strstr(lock, "READ") != NULL;
}

static bool holds_life(struct killtree *kt, pid_t pid, const struct killtree_target *t, int *hint)
{
	char path[40], name[16];
	if (t->life_ino == 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return false;
	/* All of PostgreSQL inherited it under the same number. */
	snprintf(name, sizeof(name), "%d", *hint);
	bool found = *hint >= 0 && fd_is_life(dir, pid, name, t);
	long n;
	while (!found &&
		(n = syscall(SYS_getdents64, dir, kt->dents_fd, sizeof(kt->dents_fd))) > 0) {
		for (long at = 0; at < n && !found;) {
			struct dirent64_raw *d = (struct dirent64_raw *)(kt->dents_fd + at);
			at += d->reclen;
			if (d->name[0] >= '0' && d->name[0] <= '9' &&
				fd_is_life(dir, pid, d->name, t)) {
				found = true;
				*hint = (int)strtol(d->name, NULL, 10);
			}
		}
	}
	close(dir);
	return found;
}

/* By /proc alone: the directory may be on a disk that does not answer. */
static bool works_in_data_dir(struct killtree *kt, pid_t pid, const struct killtree_target *t)
{
	char path[40];
	if (t->data_dir == NULL)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/cwd", (int)pid);
	ssize_t n = readlink(path, kt->text, sizeof(kt->text) - 1);
	if (n < 0)
		return false;
	kt->text[n] = '\0';
	if (strcmp(kt->text, t->data_dir) != 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	return read_file(path, kt->text, sizeof(kt->text)) > 0 &&
	       (strcmp(kt->text, "postgres\n") == 0 || strcmp(kt->text, "postmaster\n") == 0);
}

static void list_holders(struct killtree *kt, const struct killtree_target *t, const pid_t *spare,
	unsigned spare_count, struct killtree_report *out)
{
	if (t->life_ino == 0 && t->data_dir == NULL)
		return;
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0) {
		note_errno(out, errno);
		return;
	}
	int hint = -1;
	long n;
	while ((n = syscall(SYS_getdents64, proc, kt->dents, sizeof(kt->dents))) > 0) {
		for (long at = 0; at < n;) {
			struct dirent64_raw *d = (struct dirent64_raw *)(kt->dents + at);
			at += d->reclen;
			if (d->name[0] < '1' || d->name[0] > '9')
				continue;
			pid_t pid = (pid_t)strtol(d->name, NULL, 10);
			bool skip = pid == getpid() || pid == t->root;
			for (unsigned i = 0; i < spare_count; i++)
				skip |= pid == spare[i];
			if (!skip &&
				(holds_life(kt, pid, t, &hint) || works_in_data_dir(kt, pid, t)))
				list_add(kt, pid, START_HOLDER, out);
		}
	}
	close(proc);
}

/* ---- killing --------------------------------------------------------------------------- */

static void seen_add(struct killtree *kt, pid_t pid)
{
	uint32_t at = (uint32_t)pid * 2654435761u;
	/* Never full: twice as large as everything that one pass can list, and a full one only
	 * repeats a signal. */
	for (unsigned i = 0; i < KILLTREE_SEEN; i++, at++) {
		pid_t *slot = &kt->seen[at & (KILLTREE_SEEN - 1)];
		if (*slot == 0)
			*slot = pid;
		if (*slot == pid)
			return;
	}
}

/* The pidfd pins the process first; what was listed is checked again behind it. */
static bool still_ours(
	struct killtree *kt, unsigned index, const struct killtree_target *t, bool *out_dead)
{
	struct killtree_stat st;
	int hint = -1;
	*out_dead = killtree_stat(kt->pids[index], &st) < 0 || is_dead(st.state);
	if (*out_dead)
		return false;
	if (kt->starts[index] == START_HOLDER)
		return holds_life(kt, kt->pids[index], t, &hint) ||
		       works_in_data_dir(kt, kt->pids[index], t);
	if (kt->starts[index] == START_CHILD)
		return st.ppid == t->root;
	return st.start_ticks == kt->starts[index];
}

static bool seen_has(const struct killtree *kt, pid_t pid)
{
	uint32_t at = (uint32_t)pid * 2654435761u;
	for (unsigned i = 0; i < KILLTREE_SEEN && kt->seen[at & (KILLTREE_SEEN - 1)] != 0;
		i++, at++)
		if (kt->seen[at & (KILLTREE_SEEN - 1)] == pid)
			return true;
	return false;
}

/* One process of the list. Returns 1 when it is alive and was not seen before. */
static unsigned kill_one(struct killtree *kt, unsigned index, const struct killtree_target *t,
	struct killtree_report *out)
{
	pid_t pid = kt->pids[index];
	bool dead;
	if (seen_has(kt, pid))
		return 0; /* SIGKILL is pending, it takes its time */
	int pidfd = pidfd_open(pid, 0);
	if (pidfd < 0 && errno == ESRCH)
		return 0;
	if (!still_ours(kt, index, t, &dead)) {
		if (pidfd >= 0)
			close(pidfd);
		/* Its parent died in between: found again as a holder of the life file, or as new
		 * in the next pass. */
		return 0;
	}
	seen_add(kt, pid);
	int rc = pidfd >= 0 ? pidfd_send_signal(pidfd, SIGKILL, NULL, 0) : kill(pid, SIGKILL);
	int e = errno;
	if (pidfd >= 0)
		close(pidfd);
	out->found++;
	if (rc == 0) {
		out->signalled++;
	} else if (e != ESRCH) {
		note_errno(out, e);
		if (out->denied++ == 0)
			out->first_denied = pid;
	}
	return 1;
}

/* ---- the processor ---------------------------------------------------------------------- */

/* What is killed wakes to die, and five hundred of them would share the processors with us: a turn
 * of some hundred milliseconds for every two or three of ours. So we take the processor that we are
 * on, and they get the others. Any user may do that with his own processes; real-time work need
 * not. False: all stays as it is. */
static bool take_processor(pid_t root, cpu_set_t *out_before, cpu_set_t *out_rest)
{
	cpu_set_t own;
	int cpu = sched_getcpu(), policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;
	if (cpu < 0 || cpu >= CPU_SETSIZE || policy == SCHED_FIFO || policy == SCHED_RR ||
		sched_getaffinity(0, sizeof(*out_before), out_before) < 0 ||
		sched_getaffinity(root, sizeof(*out_rest), out_rest) < 0)
		return false;
	CPU_ZERO(&own);
	CPU_SET(cpu, &own);
	CPU_CLR(cpu, out_rest);
	return CPU_COUNT(out_rest) > 0 && sched_setaffinity(0, sizeof(own), &own) == 0;
}

/* The children of the stopped root, before anything else is looked at: they are what can
 * acknowledge a write, and on a busy machine each system call may cost a turn of the scheduler. One
 * call for each is enough here: the root reaps nobody while it is stopped, so that a pid which it
 * had as a child stays that child's. */
static void kill_backends(
	struct killtree *kt, const struct killtree_target *t, struct killtree_report *out)
{
	cpu_set_t before, rest;
	bool taken = take_processor(t->root, &before, &rest);
	kt->count = 0;
	list_children(kt, t->root, true, out);
	for (unsigned i = 0; taken && i < kt->count; i++)
		sched_setaffinity(kt->pids[i], sizeof(rest), &rest);
	for (unsigned i = 0; i < kt->count; i++) {
		if (kill(kt->pids[i], SIGKILL) < 0)
			continue; /* the passes that follow try again and report */
		seen_add(kt, kt->pids[i]);
		out->found++;
		out->signalled++;
	}
	if (taken)
		sched_setaffinity(0, sizeof(before), &before);
}

static unsigned kill_listed(
	struct killtree *kt, const struct killtree_target *t, struct killtree_report *out)
{
	unsigned fresh = 0;
	/* The backends come first: they are what can acknowledge a write. */
	for (unsigned i = 0; i < kt->count; i++)
		fresh += kill_one(kt, i, t, out);
	return fresh;
}

static int signal_root(const struct killtree_target *t, int signo)
{
	if (t->root_pidfd >= 0)
		return pidfd_send_signal(t->root_pidfd, signo, NULL, 0);
	return kill(t->root, signo);
}

/* kill() returns before the stop: a postmaster on another processor may still fork. False: not seen
 * stopped in time, or dead already, when its children are no longer below it. */
static bool wait_stopped(pid_t pid)
{
	int64_t end_us = clock_boot_us() + KILLTREE_STOP_WAIT_MS * 1000;
	for (;;) {
		struct killtree_stat st;
		if (killtree_stat(pid, &st) < 0 || is_dead(st.state))
			return false;
		if (st.state == 'T' || st.state == 't')
			return true;
		if (clock_boot_us() >= end_us)
			return false;
		pause_us(100);
	}
}

static void enter_proc(const struct killtree_target *t)
{
	/* The group first: without the user's privilege it could not be changed any more. */
	if (t->as_user) {
		setfsgid(t->gid);
		setfsuid(t->uid);
	}
}

static void leave_proc(const struct killtree_target *t)
{
	if (t->as_user) {
		setfsuid(geteuid());
		setfsgid(getegid());
	}
}

void killtree_run(struct killtree *kt, const struct killtree_target *t, bool by_holders,
	struct killtree_report *out)
{
	*out = (struct killtree_report){ 0 };
	memset(kt->seen, 0, sizeof(kt->seen));
	int64_t start_us = clock_boot_us();
	if (t->root > 1 && signal_root(t, SIGSTOP) == 0)
		out->root_stopped = wait_stopped(t->root);
	enter_proc(t);
	/* What their children do then is found by the life file; without one the whole tree is
	 * listed first. */
	if (out->root_stopped && t->life_ino != 0 && !t->any_holder)
		kill_backends(kt, t, out);
	out->backends_us = clock_boot_us() - start_us;
	unsigned fresh = 1;
	while (fresh > 0 && out->passes < KILLTREE_PASSES) {
		kt->count = 0;
		if (t->root > 1)
			list_children(kt, t->root, true, out);
		for (unsigned i = 0; i < kt->count; i++)
			list_children(kt, kt->pids[i], false, out);
		if (by_holders)
			list_holders(kt, t, NULL, 0, out);
		fresh = kill_listed(kt, t, out);
		out->passes++;
	}
	out->unsettled = fresh > 0;
	leave_proc(t);
	if (t->root > 1) {
		out->root_signalled = signal_root(t, SIGKILL) == 0 || errno == ESRCH;
		if (!out->root_signalled) {
			note_errno(out, errno);
			if (out->denied++ == 0)
				out->first_denied = t->root;
		}
	}
}

unsigned killtree_kill_holders(struct killtree *kt, const struct killtree_target *t,
	const pid_t *spare, unsigned spare_count, struct killtree_report *out)
{
	*out = (struct killtree_report){ .passes = 1 };
	memset(kt->seen, 0, sizeof(kt->seen));
	kt->count = 0;
	enter_proc(t);
	list_holders(kt, t, spare, spare_count, out);
	unsigned alive = kill_listed(kt, t, out);
	leave_proc(t);
	return alive;
}

bool killtree_run_blocking(struct killtree *kt, const struct killtree_target *t,
	int64_t deadline_ms, struct killtree_report *out)
{
	killtree_run(kt, t, true, out);
	struct killtree_target rest = *t;
	rest.root = 0; /* it has its SIGKILL; its number may become another's */
	rest.root_pidfd = -1;
	while (clock_boot_ms() < deadline_ms) {
		struct killtree_report more;
		if (killtree_kill_holders(kt, &rest, NULL, 0, &more) == 0 && !more.overflow)
			return true;
		out->found += more.found;
		out->signalled += more.signalled;
		out->passes++;
		pause_us(5000);
	}
	return false;
}
