/* Fork and exec of one child. Supervisor only; between fork and exec only async-signal-safe calls.
 */
#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/core/invariant.h"

#define HIGH_FD 64 /* above every target number, so that the moves cannot overwrite a source */

/* By the system call itself: glibc keeps signals 32 and 33 from us, but whoever started us may have
 * left them ignored. */
static void reset_signals(void)
{
	static const unsigned long
		dfl[4]; /* the kernel's struct sigaction: SIG_DFL, no flags, empty mask */
	for (int s = 1; s < NSIG; s++)
		syscall(SYS_rt_sigaction, s, dfl, NULL, sizeof(unsigned long));
}

/* Sources to 0..n-1, the gate to n; everything above is closed. Returns the gate's new number. */
static const char *place_fds(const struct spawn *s, int *gate)
{
	int high[SPAWN_FDS + 1];
	int n = s->fd_count;
	for (int i = 0; i <= n; i++) {
		int src = i < n ? s->fds[i] : s->gate_fd;
		if (src < 0)
			src = open("/dev/null", O_RDWR | O_CLOEXEC);
		high[i] = fcntl(src, F_DUPFD_CLOEXEC, HIGH_FD);
		if (high[i] < 0)
			return "descriptors";
	}
	for (int i = 0; i <= n; i++) {
		if (dup3(high[i], i, i == n ? O_CLOEXEC : 0) < 0)
			return "descriptors";
	}
	*gate = n;
	return close_range((unsigned)n + 1, ~0u, 0) < 0 ? "close_range" : NULL;
}

static const char *wait_gate(const struct spawn *s, int gate)
{
	char byte;
	ssize_t n = 1;
	if (s->gate_fd >= 0) {
		do
			n = read(gate, &byte, 1);
		while (n < 0 && errno == EINTR);
	}
	/* Nobody opened it: the supervisor is gone or took its decision back. Not an error to
	 * report. */
	if (n != 1)
		_exit(126);
	return NULL;
}

static const char *child_steps(const struct privs *p, const struct spawn *s, pid_t parent)
{
	const char *bad;
	int gate = -1;
	reset_signals();
	setsid();
	umask(s->umask);
	if (s->before_user != NULL && (bad = s->before_user(s->arg)) != NULL)
		return bad;
	if ((bad = place_fds(s, &gate)) != NULL)
		return bad;
	if ((bad = privs_child_become(p, s->kind, parent)) != NULL)
		return bad;
	if (s->after_user != NULL && (bad = s->after_user(s->arg)) != NULL)
		return bad;
	/* After the last change of credentials, which clears it. */
	if (s->die_with_parent &&
		(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent))
		return "parent death signal";
	if (s->cwd != NULL && chdir(s->cwd) < 0)
		return "chdir";
	wait_gate(s, gate);
	if (s->after_gate != NULL && (bad = s->after_gate(s->arg)) != NULL)
		return bad;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	environ = (char **)s->envp;
	if (s->path != NULL)
		execv(s->path, s->argv);
	else
		execvp(s->argv[0], s->argv);
	return "exec";
}

enum err_code spawn_child(const struct privs *p, const struct spawn *s, pid_t *out_pid,
	int *out_pidfd, struct err *err)
{
	INVARIANT(s->fd_count >= 3 && s->fd_count <= SPAWN_FDS);
	pid_t parent = getpid();
	pid_t pid = fork();
	if (pid < 0)
		return err_set(err, ERR_SYS, errno, "fork");
	if (pid == 0) {
		const char *bad = child_steps(p, s, parent);
		int saved = errno;
		dprintf(2, "pgregent: cannot start %s: %s: %s\n",
			s->path != NULL ? s->path : s->argv[0], bad, strerror(saved));
		_exit(saved == ENOENT ? 127 : 126);
	}
	*out_pid = pid;
	if (out_pidfd == NULL)
		return ERR_OK;
	/* Ours and not reaped yet, so the number cannot name another process. */
	*out_pidfd = pidfd_open(pid, 0);
	if (*out_pidfd >= 0)
		return ERR_OK;
	int saved = errno;
	kill(pid, SIGKILL);
	return err_set(err, ERR_SYS, saved, "pidfd_open");
}
