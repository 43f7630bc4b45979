/* Users, capabilities, scheduling. Supervisor only. See privs.h. */
#include "supervisor/privs.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define LOOKUP_MS                                                                                  \
	10000 /* a directory service may be slow; a start without an end would be worse            \
	       */
#define RT_PRIORITY  10
#define OOM_PATH     "/proc/self/oom_score_adj"
#define DEFAULT_USER "postgres"

/* What the look-up child writes into the pipe: one write, smaller than PIPE_BUF. */
struct lookup {
	int found; /* 1 yes, 0 no such user, -1 too many groups or too long a name */
	uid_t uid;
	gid_t gid;
	int group_count;
	gid_t groups[LIMIT_GROUPS];
	char home[LIMIT_PATH], shell[LIMIT_PATH];
};
_Static_assert(sizeof(struct lookup) <= 4096, "one atomic pipe write");

static void lookup_child(const char *user, int fd)
{
	static struct lookup l;
	const struct passwd *pw = getpwnam(user);
	if (pw != NULL) {
		l.found = 1;
		l.uid = pw->pw_uid;
		l.gid = pw->pw_gid;
		l.group_count = LIMIT_GROUPS;
		if (getgrouplist(user, pw->pw_gid, l.groups, &l.group_count) < 0 ||
			!str_copy(l.home, sizeof(l.home), pw->pw_dir) ||
			!str_copy(l.shell, sizeof(l.shell), pw->pw_shell))
			l.found = -1;
	}
	_exit(write(fd, &l, sizeof(l)) == (ssize_t)sizeof(l) ? 0 : 1);
}

static enum err_code lookup_user(const char *user, struct lookup *out, struct err *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, ERR_SYS, errno, "pipe");
	AUTO_FD rd = fds[0];
	AUTO_FD wr = fds[1];
	pid_t pid = fork();
	if (pid < 0)
		return err_set(err, ERR_SYS, errno, "fork");
	if (pid == 0)
		lookup_child(user, wr);
	close(wr);
	wr = -1;
	struct pollfd p = { .fd = rd, .events = POLLIN };
	ssize_t n = poll(&p, 1, LOOKUP_MS) == 1 ? read(rd, out, sizeof(*out)) : -2;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (n == -2)
		return err_set(err, ERR_TIMEOUT, 0, "user \"%s\": no answer within %d ms", user,
			LOOKUP_MS);
	if (n != (ssize_t)sizeof(*out))
		return err_set(err, ERR_SYS, 0, "user \"%s\": the look-up failed", user);
	if (out->found < 0)
		return err_set(err, ERR_LIMIT, 0,
			"user \"%s\": over %d groups, or too long a home or shell", user,
			LIMIT_GROUPS);
	if (out->found == 0)
		return err_set(err, ERR_NOTFOUND, 0, "user \"%s\" does not exist", user);
	return ERR_OK;
}

enum err_code privs_lookup(struct privs *p, const char *user, struct err *err)
{
	memset(p, 0, sizeof(*p));
	p->umask = umask(022);
	umask(p->umask);
	p->root = geteuid() == 0;
	p->uid = geteuid();
	p->gid = getegid();
	if (!p->root && user == NULL)
		return ERR_OK;
	if (user == NULL)
		user = DEFAULT_USER;
	struct lookup l = { 0 };
	enum err_code rc = lookup_user(user, &l, err);
	if (rc != ERR_OK)
		return rc;
	if (l.uid == 0)
		return err_set(err, ERR_INVAL, 0,
			"--user %s: PostgreSQL refuses to run as root; name another user", user);
	if (!p->root && l.uid != p->uid)
		return err_set(
			err, ERR_DENIED, 0, "--user %s: only root can run as another user", user);
	p->uid = l.uid;
	p->gid = l.gid;
	p->group_count = l.group_count;
	memcpy(p->groups, l.groups, sizeof(p->groups));
	if (!str_copy(p->user, sizeof(p->user), user) ||
		!str_copy(p->home, sizeof(p->home), l.home) ||
		!str_copy(p->shell, sizeof(p->shell), l.shell))
		return err_set(err, ERR_LIMIT, 0, "user \"%s\": name too long", user);
	return ERR_OK;
}

/* ---- capabilities ---- */

static const struct {
	cap_value_t cap;
	bool must;
	const char *name, *use;
} kept[] = {
	{ CAP_KILL, true, "CAP_KILL", "to stop and fence PostgreSQL" },
	{ CAP_SETUID, true, "CAP_SETUID", "to start PostgreSQL as its user" },
	{ CAP_SETGID, true, "CAP_SETGID", "to start PostgreSQL with its groups" },
	{ CAP_SETPCAP, true, "CAP_SETPCAP", "to take capabilities from helpers" },
	{ CAP_SYS_NICE, false, "CAP_SYS_NICE", "real-time scheduling of the fence" },
	{ CAP_IPC_LOCK, false, "CAP_IPC_LOCK", "memory locked against paging" },
	{ CAP_SYS_RESOURCE, false, "CAP_SYS_RESOURCE", "lowered OOM score" },
};

/* Before the first child: what is missing is named here, not by the step of a child that it breaks.
 */
enum err_code privs_require(const struct privs *p, struct err *err)
{
	if (!p->root)
		return ERR_OK;
	cap_t have = cap_get_proc();
	if (have == NULL)
		return err_set(err, ERR_NOMEM, 0, "capabilities");
	enum err_code rc = ERR_OK;
	for (unsigned i = 0; rc == ERR_OK && i < ARRAY_LEN(kept); i++) {
		cap_flag_value_t on = CAP_CLEAR;
		cap_get_flag(have, kept[i].cap, CAP_PERMITTED, &on);
		if (on != CAP_SET && kept[i].must)
			rc = err_set(err, ERR_DENIED, 0,
				"%s is missing, needed %s: grant it, or start as the user of "
				"PostgreSQL",
				kept[i].name, kept[i].use);
	}
	cap_free(have);
	return rc;
}

enum err_code privs_keep(const struct privs *p, struct err *err)
{
	if (!p->root)
		return ERR_OK;
	cap_t have = cap_get_proc(), want = cap_init();
	enum err_code rc =
		have == NULL || want == NULL ? err_set(err, ERR_NOMEM, 0, "capabilities") : ERR_OK;
	for (unsigned i = 0; rc == ERR_OK && i < ARRAY_LEN(kept); i++) {
		cap_flag_value_t on = CAP_CLEAR;
		cap_get_flag(have, kept[i].cap, CAP_PERMITTED, &on);
		if (on != CAP_SET) { /* one that must be there is: privs_require */
			log_warning(
				"capability missing name=%s so no %s", kept[i].name, kept[i].use);
		} else {
			cap_set_flag(want, CAP_PERMITTED, 1, &kept[i].cap, CAP_SET);
			cap_set_flag(want, CAP_EFFECTIVE, 1, &kept[i].cap, CAP_SET);
		}
	}
	/* The bounding set stays: jobs must be able to use sudo as an ordinary login could. */
	if (rc == ERR_OK && cap_set_proc(want) < 0)
		rc = err_set(err, ERR_SYS, errno, "cap_set_proc");
	cap_free(have);
	cap_free(want);
	return rc;
}

/* ---- hardening ---- */

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	size_t len = strlen(text);
	bool ok = write(fd, text, len) == (ssize_t)len;
	int saved = errno;
	close(fd);
	errno = saved;
	return ok;
}

static void read_oom(struct privs *p)
{
	AUTO_FD fd = open(OOM_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, p->oom_saved, sizeof(p->oom_saved) - 1) : 0;
	p->oom_saved[n > 0 ? n : 0] = '\0';
	p->oom_saved[strcspn(p->oom_saved, "\n")] = '\0';
}

void privs_harden(struct privs *p, const char *oom_saved)
{
	struct sched_param sp = { .sched_priority = RT_PRIORITY };
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp) < 0)
		log_warning("no real-time scheduling, the fence may be late on a busy node: %s",
			strerror(errno));
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log_warning(
			"memory not locked, the fence may wait for paging: %s", strerror(errno));
	if (!str_copy(p->oom_saved, sizeof(p->oom_saved), oom_saved) || *oom_saved == '\0')
		read_oom(p);
	p->oom_lowered = write_text(OOM_PATH, "-1000");
	if (!p->oom_lowered)
		log_warning("OOM score not lowered: %s", strerror(errno));
}

/* ---- in the child ---- */

/* What lets the dead-man lock its memory and run in real time as an ordinary user; where we may
 * not, it says so. */
static void raise_limits(void)
{
	const struct rlimit lock = { RLIM_INFINITY, RLIM_INFINITY },
			    rt = { RT_PRIORITY, RT_PRIORITY };
	const struct sched_param sp = { .sched_priority = RT_PRIORITY };
	setrlimit(RLIMIT_MEMLOCK, &lock);
	setrlimit(RLIMIT_RTPRIO, &rt);
	sched_setscheduler(
		0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp); /* kept over its change of user */
}

static const char *drop_bounding_set(void)
{
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
			return "bounding set";
	}
	return NULL;
}

const char *privs_child_become(const struct privs *p, enum priv_kind kind, pid_t parent)
{
	/* Scheduling came back to normal by SCHED_RESET_ON_FORK. */
	if (kind == PRIV_DEADMAN)
		raise_limits();
	else if (p->oom_lowered && !write_text(OOM_PATH, p->oom_saved))
		return "OOM score";
	if (p->root) {
		if (kind != PRIV_PLAIN && drop_bounding_set() != NULL)
			return "bounding set";
		if (setgroups((size_t)p->group_count, p->groups) < 0)
			return "setgroups";
		if (setresgid(p->gid, p->gid, p->gid) < 0)
			return "setresgid";
		if (setresuid(p->uid, p->uid, p->uid) < 0)
			return "setresuid";
	}
	if (kind == PRIV_PLAIN)
		return NULL;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return "no_new_privs";
	if (kind == PRIV_DEADMAN)
		return NULL;
	/* Last of all, since a change of credentials clears it; the parent may have died before. */
	if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) < 0)
		return "parent death signal";
	if (getppid() != parent) {
		errno = ESRCH;
		return "parent gone";
	}
	return NULL;
}
