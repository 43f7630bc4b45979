/* Prove a postmaster that we did not start (reference ha 11.4). Supervisor only. Reads /proc, never
 * the data directory, and signals nobody. */
#include "supervisor/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/str.h"

#define START_SLACK_S 3 /* postmaster.pid has whole seconds, written some time after the fork */

enum adopt_verdict adopt_judge(
	const struct msg_pmpid *file, const struct adopt_facts *f, const char **out_why)
{
	*out_why = "";
	if (file->pid == 0)
		return ADOPT_NONE;
	if (!f->alive || f->related)
		return ADOPT_STALE;
	bool positive = f->exe_known && f->exe_is_postgres && f->cwd_known && f->cwd_is_data_dir;
	if (file->pid < 0 && positive) {
		*out_why = "a single-user server runs in the data directory";
		return ADOPT_UNPROVEN;
	}
	if (positive)
		return ADOPT_OURS;
	if ((f->exe_known && !f->exe_is_postgres) || (f->cwd_known && !f->cwd_is_data_dir))
		return ADOPT_STALE;
	/* Not all can be read (another user, a restricted /proc): the start time alone must tell.
	 */
	int64_t off_s = f->start_s - file->start_time_s;
	if (file->pid > 0 && f->start_known && off_s >= -START_SLACK_S && off_s <= START_SLACK_S)
		return ADOPT_OURS;
	*out_why = f->start_known ? "its start time differs, executable or directory cannot be read"
				  : "start time, executable and directory cannot be read";
	return ADOPT_UNPROVEN;
}

/* Field 22 of /proc/<pid>/stat in clock ticks since boot; the name in field 2 may contain anything,
 * so the fields are counted from its last parenthesis. 0 = unknown. */
static uint64_t start_ticks(pid_t pid)
{
	char path[40], text[1024], number[24];
	if (!str_format(path, sizeof(path), "/proc/%d/stat", pid))
		return 0;
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n <= 0)
		return 0;
	text[n] = '\0';
	const char *c = strrchr(text, ')');
	for (int field = 2; c != NULL && field < 22; field++)
		c = strchr(c + 1, ' ');
	uint64_t ticks;
	if (c == NULL || !str_copy_n(number, sizeof(number), c + 1, strcspn(c + 1, " ")) ||
		!str_to_u64(number, &ticks))
		return 0;
	return ticks;
}

static bool read_link(pid_t pid, const char *what, char *out, size_t size)
{
	char path[40];
	if (!str_format(path, sizeof(path), "/proc/%d/%s", pid, what))
		return false;
	ssize_t n = readlink(path, out, size - 1);
	out[n > 0 ? n : 0] = '\0';
	return n > 0 && n < (ssize_t)size - 1;
}

static bool is_postgres(char *exe)
{
	static const char deleted[] = " (deleted)"; /* its package was upgraded while it ran */
	if (str_ends(exe, deleted))
		exe[strlen(exe) - strlen(deleted)] = '\0';
	const char *base = strrchr(exe, '/');
	return base != NULL && (str_eq(base + 1, "postgres") || str_eq(base + 1, "postmaster"));
}

static struct adopt_facts look(const struct privs *p, pid_t pid, const char *data_dir)
{
	static char link[LIMIT_PATH];
	struct adopt_facts f = { .alive = true };
	/* /proc shows these links to the same user only; CAP_SYS_PTRACE is not among what we keep.
	 */
	uid_t uid = p->root ? (uid_t)setfsuid(p->uid) : 0;
	gid_t gid = p->root ? (gid_t)setfsgid(p->gid) : 0;
	f.exe_known = read_link(pid, "exe", link, sizeof(link));
	f.exe_is_postgres = f.exe_known && is_postgres(link);
	f.cwd_known = read_link(pid, "cwd", link, sizeof(link));
	f.cwd_is_data_dir = f.cwd_known && str_eq(link, data_dir);
	if (p->root) {
		setfsuid(uid);
		setfsgid(gid);
	}
	uint64_t ticks = start_ticks(pid);
	f.start_known = ticks != 0;
	int64_t boot_s = (clock_wall_us() - clock_boot_us()) / 1000000;
	f.start_s = boot_s + (int64_t)(ticks / (uint64_t)sysconf(_SC_CLK_TCK));
	return f;
}

enum adopt_verdict adopt_prove(const struct privs *p, const struct msg_pmpid *file,
	const char *data_dir, bool related, int *out_pidfd, const char **out_why)
{
	struct adopt_facts f = { 0 };
	pid_t pid = file->pid < 0 ? -file->pid : file->pid;
	AUTO_FD pidfd = -1;
	*out_why = "";
	if (pid != 0) {
		/* The descriptor first: what is read afterwards is of this process, or it has
		 * ended. */
		pidfd = pidfd_open(pid, 0);
		if (pidfd < 0 && errno != ESRCH && errno != EINVAL && errno != ENOENT) {
			*out_why = "no descriptor of the process can be had";
			return ADOPT_UNPROVEN;
		}
		if (pidfd >= 0)
			f = look(p, pid, data_dir);
		struct pollfd ended = { .fd = pidfd, .events = POLLIN };
		if (pidfd < 0 || poll(&ended, 1, 0) == 1)
			f.alive = false;
		f.related = related;
	}
	enum adopt_verdict v = adopt_judge(file, &f, out_why);
	if (v == ADOPT_OURS) {
		*out_pidfd = pidfd;
		pidfd = -1;
	}
	return v;
}
