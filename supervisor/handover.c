/* Hand-over between supervisors. Supervisor only; handover_exec apart, all of it runs before the
 * loop. */
#include "supervisor/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/duty.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/sup.h"

#define LOCK_WAIT_MS 3000 /* a predecessor that is just dying */
#define INHERIT_MS   3000 /* a dead-man answers at once, or is of no use */
#define ENV_NAME     "PGREGENT_HANDOVER"

/* What one program leaves to the next in ENV_NAME: descriptor numbers, and whether this is the way
 * back. */
static struct legacy {
	bool present, guarded;
	int lock_fd, data_fd, exe_fd;
	char *entry; /* in environ */
	char **argv;
	char oom[16];
} legacy = { .lock_fd = -1, .data_fd = -1, .exe_fd = -1 };

/* ---- locks ---- */

static void pause_ms(int ms)
{
	struct timespec ts = { .tv_nsec = (long)ms * 1000000 };
	nanosleep(&ts, NULL);
}

static enum err_code lock_fd(int fd, const char *what, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + LOCK_WAIT_MS;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_set(err, ERR_SYS, errno, "lock %s", what);
		if (clock_boot_ms() >= until_ms)
			return err_set(err, ERR_CONFLICT, 0,
				"another pgregent supervisor runs: it holds %s", what);
		pause_ms(20);
	}
	return ERR_OK;
}

/* The target user owns it (files and the dead-man open it by name), our group may write: we open it
 * again when the capabilities are gone. The directory is that user's: a file that he linked there
 * must not change hands. */
static enum err_code open_file(const struct sup *s, const char *name, int *out, struct err *err)
{
	struct stat st;
	AUTO_FD fd = openat(s->launch.runtime_fd, name,
		O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "open %s/%s", s->launch.runtime_dir, name);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || st.st_size != 0)
		return err_set(err, ERR_DENIED, 0, "%s/%s is not an empty file of its own",
			s->launch.runtime_dir, name);
	if (s->privs.root && (fchown(fd, s->privs.uid, getegid()) < 0 || fchmod(fd, 0660) < 0))
		return err_set(err, ERR_SYS, errno, "owner of %s/%s", s->launch.runtime_dir, name);
	*out = fd;
	fd = -1;
	return ERR_OK;
}

/* Two users may pick two run-time directories; the data directory they share. */
static enum err_code lock_data_dir(struct sup *s, struct err *err)
{
	struct stat st;
	bool inherited = legacy.present && legacy.data_fd >= 0;
	AUTO_FD fd = inherited ? legacy.data_fd
			       : open(s->launch.data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return ERR_OK; /* it is made later; files locks it before anything runs in it */
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "open %s", s->launch.data_dir);
	enum err_code rc = inherited ? ERR_OK : lock_fd(fd, s->launch.data_dir, err);
	if (rc != ERR_OK)
		return rc;
	s->data_lock_fd = fd;
	s->data_dev = st.st_dev;
	s->data_ino = st.st_ino;
	fd = -1;
	return ERR_OK;
}

enum err_code handover_lock(struct sup *s, struct err *err)
{
	struct stat st;
	enum err_code rc = ERR_OK;
	s->lock_fd = legacy.lock_fd;
	s->data_lock_fd = -1;
	if (s->lock_fd < 0) {
		rc = open_file(s, "lock", &s->lock_fd, err);
		if (rc == ERR_OK)
			rc = lock_fd(s->lock_fd, s->launch.runtime_dir, err);
		/* The run-time directory is that of the name; tools look for these words. */
		if (rc == ERR_CONFLICT)
			err_wrap(err, "Can't start; there is already a node named '%s' running",
				s->launch.name);
	}
	if (rc == ERR_OK)
		rc = lock_data_dir(s, err);
	if (rc == ERR_OK)
		rc = open_file(s, "life", &s->life_fd, err);
	if (rc == ERR_OK)
		rc = open_file(s, "life", &s->life_dm_fd, err);
	if (rc == ERR_OK)
		rc = open_file(s, "worker.lock", &s->worker_lock_fd, err);
	if (rc == ERR_OK && fstat(s->life_fd, &st) < 0)
		rc = err_set(err, ERR_SYS, errno, "stat life");
	if (rc != ERR_OK)
		return rc;
	s->life_dev = st.st_dev;
	s->life_ino = st.st_ino;
	return ERR_OK;
}

/* ---- the dead-man's legacy ---- */

static int connect_deadman(const struct sup *s)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	if (!str_format(sa.sun_path, sizeof(sa.sun_path), "%s/deadman.sock", s->launch.runtime_dir))
		return -1;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static void take_postmaster(struct sup *s, struct ipc_msg *m)
{
	struct postmaster *pm = &s->pm;
	const struct msg_dm_postmaster *p = m->payload;
	int *own[DM_FD_COUNT] = { [DM_FD_PIDFD] = &pm->pidfd,
		[DM_FD_LINE_R] = &pm->line_r,
		[DM_FD_LINE_W] = &pm->line_w };
	int at = 0;
	for (int i = 0; i < DM_FD_COUNT && at < m->fd_count; i++) {
		if ((p->fd_mask & 1u << i) == 0)
			continue;
		/* The life file we have opened ourselves. */
		if (own[i] == NULL || *own[i] >= 0)
			close(m->fds[at]);
		else
			*own[i] = m->fds[at];
		at++;
	}
	for (; at < m->fd_count; at++)
		close(m->fds[at]);
	m->fd_count = 0;
	pm->generation = p->generation;
	pm->pid = pm->pidfd >= 0 ? p->pid : 0;
	pm->foreign = pm->line_r < 0;
}

static void take_state(struct sup *s, const struct msg_dm_state *st)
{
	struct guard_event ev = { .kind = GUARD_EV_STATE, .state = st };
	s->now_ms = clock_boot_ms();
	sup_guard(s, ev);
	/* Only an exec in place keeps the children. */
	s->pm.is_child = st->is_child != 0 && legacy.present;
	s->pm.started_at_ms = st->started_at_ms;
	if (st->generation > s->pm.generation)
		s->pm.generation = st->generation;
	s->pm.known = s->pm.pid != 0;
}

/* One conversation. 1 all came, 0 it hung up (it still has a supervisor), -1 no time left. */
static int converse(struct sup *s, int fd, int64_t until_ms)
{
	static struct msg_dm_state state;
	bool have_state = false, have_postmaster = false, have_ack = false;
	struct err err = ERR_INIT;
	if (ipc_send(fd, MSG_DM_TAKEOVER, 0, NULL, NULL, 0, NULL, 0, &err) != ERR_OK)
		return 0;
	while (!have_state || !have_postmaster || !have_ack) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = until_ms - clock_boot_ms();
		struct ipc_msg m;
		if (left <= 0 || poll(&p, 1, (int)left) < 1)
			return -1;
		enum err_code rc = ipc_recv(fd, ROLE_DEADMAN, ROLE_SUPERVISOR, &s->rx, &m, &err);
		if (rc == ERR_AGAIN)
			continue;
		if (rc != ERR_OK)
			return 0;
		if (m.type == MSG_DM_STATE) {
			memcpy(&state, m.payload, sizeof(state));
			have_state = true;
		} else if (m.type == MSG_DM_POSTMASTER) {
			take_postmaster(s, &m);
			have_postmaster = true;
		} else if (m.type == MSG_DM_ACK) {
			have_ack = true;
		}
		for (int i = 0; i < m.fd_count; i++)
			close(m.fds[i]);
	}
	take_state(s, &state);
	return 1;
}

static bool enforcer_on_duty(const struct sup *s)
{
	char path[LIMIT_PATH + 8];
	return str_format(path, sizeof(path), "%s/lock", s->launch.runtime_dir) &&
	       duty_enforced(path);
}

void handover_inherit(struct sup *s)
{
	int64_t until_ms = clock_boot_ms() + INHERIT_MS;
	for (bool silent = false; !silent && clock_boot_ms() < until_ms; pause_ms(20)) {
		int fd = connect_deadman(s);
		/* Nobody enforces: there is nothing to inherit. One who is on duty, and has lost
		 * the name to another that died, takes it back. */
		if (fd < 0 && (errno == ENOENT || errno == ECONNREFUSED)) {
			if (!enforcer_on_duty(s))
				return;
			continue;
		}
		int got = fd >= 0 ? converse(s, fd, until_ms) : 0;
		if (got == 1) {
			struct ucred peer = { 0 };
			socklen_t size = sizeof(peer);
			if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
				s->dm.old_pid = peer.pid;
			s->dm.old_fd = fd;
			s->inherited = true;
			log_info("taken over from the dead-man generation=%llu postmaster=%d "
				 "lease_left_ms=%lld",
				(unsigned long long)s->pm.generation, s->pm.pid,
				(long long)(s->guard.lease_until_ms - s->now_ms));
			deadlink_postmaster_changed(s);
			return;
		}
		if (fd >= 0)
			close(fd);
		silent = got < 0;
	}
	log_warning("the dead-man cannot be reached: a running PostgreSQL will be adopted with a "
		    "short grace");
}

/* ---- upgrade ---- */

#define CHECK_LINE "pgregent upgrade ok proto="

int handover_check_say(void)
{
	printf(CHECK_LINE "%d version=%s\n", IPC_VERSION, PGREGENT_VERSION);
	return fflush(stdout) == 0 ? 0 : 1;
}

int handover_check_ok(const char *output, unsigned len)
{
	/* Its messages too: one that speaks others could not take over from our dead-man. */
	char want[sizeof(CHECK_LINE) + 16];
	return str_format(want, sizeof(want), CHECK_LINE "%d ", IPC_VERSION) &&
	       len >= strlen(want) && memcmp(output, want, strlen(want)) == 0;
}

static void keep_over_exec(int fd, bool keep)
{
	if (fd >= 0 && fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC) < 0)
		log_error("descriptor %d: %s", fd, strerror(errno));
}

/* The present environment with another entry of ours; static, as its caller may be a signal
 * handler. */
static char **environment_with(char *entry)
{
	static char *envp[LIMIT_ARGS + 2];
	unsigned n = 0;
	for (char **e = environ; *e != NULL && n < LIMIT_ARGS; e++) {
		if (!str_starts(*e, ENV_NAME "="))
			envp[n++] = *e;
	}
	envp[n++] = entry;
	envp[n] = NULL;
	return envp;
}

/* "back" stands first, where the way back can change it. */
#define ENV_BACK_AT (sizeof(ENV_NAME "=back=") - 1)

void handover_exec(struct sup *s)
{
	static char entry[2 * LIMIT_PATH + 2 * LIMIT_NAME + 200];
	int exe = open("/proc/self/exe", O_RDONLY); /* the way back; open across the exec */
	bool fits = str_format(entry, sizeof(entry),
		ENV_NAME "=back=0 exe=%d lock=%d data=%d oom=%s\n"
			 "data_dir=%s\nscope=%s\nname=%s\nruntime_dir=%s\n",
		exe, s->lock_fd, s->data_lock_fd, s->privs.oom_saved, s->launch.data_dir,
		s->launch.scope, s->launch.name, s->launch.runtime_base);
	log_warning("upgrade: executing %s", s->upgrade.path);
	watchdog_disarm(&s->watchdog); /* the next one arms it when it may */
	keep_over_exec(s->lock_fd, true);
	keep_over_exec(s->data_lock_fd, true);
	/* Runs on in the new program, which takes it over: one that hangs before that ends, and is
	 * started again. */
	alarm(2 * HANDOVER_CHECK_MS / 1000);
	if (fits && exe >= 0)
		execve(s->upgrade.path, s->argv, environment_with(entry));
	log_error("upgrade: exec %s: %s", s->upgrade.path, strerror(errno));
	alarm(0);
	keep_over_exec(s->lock_fd, false);
	keep_over_exec(s->data_lock_fd, false);
	if (exe >= 0)
		close(exe);
}

/* ---- the new program's side ---- */

static const int faults[] = { SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };

static void on_faults(void (*handler)(int))
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_NODEFER };
	for (unsigned i = 0; i < ARRAY_LEN(faults); i++)
		sigaction(faults[i], &sa, NULL);
}

/* Async-signal-safe: it also runs as the handler of a fault. */
void handover_roll_back(void)
{
	static const char note[] =
		"pgregent: the new program did not come up: back to the old one\n";
	if (!legacy.guarded)
		return;
	alarm(0);
	legacy.entry[ENV_BACK_AT] = '1';
	if (write(2, note, sizeof(note) - 1) < 0) {
		/* nobody to tell */
	}
	keep_over_exec(legacy.lock_fd, true);
	keep_over_exec(legacy.data_fd, true);
	fexecve(legacy.exe_fd, legacy.argv, environment_with(legacy.entry));
}

static void on_fault(int signo)
{
	handover_roll_back();
	_exit(128 + signo);
}

void handover_guard_start(char **argv)
{
	int back, exe = -1;
	for (char **e = environ; *e != NULL; e++) {
		if (str_starts(*e, ENV_NAME "="))
			legacy.entry = *e;
	}
	if (legacy.entry == NULL ||
		sscanf(legacy.entry + sizeof(ENV_NAME), "back=%d exe=%d lock=%d data=%d oom=%15s",
			&back, &exe, &legacy.lock_fd, &legacy.data_fd, legacy.oom) < 4)
		return;
	legacy.present = true;
	legacy.argv = argv;
	keep_over_exec(legacy.lock_fd, false);
	keep_over_exec(legacy.data_fd, false);
	legacy.guarded = back == 0 && exe >= 0;
	alarm(legacy.guarded ? HANDOVER_CHECK_MS / 1000 : 0);
	if (!legacy.guarded)
		return;
	keep_over_exec(exe, false);
	legacy.exe_fd = exe;
	on_faults(on_fault);
}

void handover_guard_end(void)
{
	if (!legacy.guarded)
		return;
	alarm(0);
	on_faults(SIG_DFL);
	legacy.guarded = false;
	close(legacy.exe_fd);
}

const char *handover_instance(void)
{
	const char *line = legacy.present ? strchr(legacy.entry, '\n') : NULL;
	return line != NULL ? line + 1 : NULL;
}

enum upgrade_end handover_upgrade_end(void)
{
	return !legacy.present			  ? UPGRADE_NONE
	       : legacy.entry[ENV_BACK_AT] == '1' ? UPGRADE_ROLLED_BACK
						  : UPGRADE_DONE;
}

const char *handover_oom_saved(void)
{
	return legacy.present ? legacy.oom : "";
}
