/* pgregent-deadman: the second enforcer of the lease, for when the supervisor is dead or frozen
 * (DESIGN 1 and 2). A process of its own, as the user that runs PostgreSQL; its memory is locked
 * and it allocates nothing once it runs. It must do nothing but hold the lease's deadline, watch
 * supervisor and postmaster, and kill PostgreSQL.
 *
 * Usage: pgregent-deadman RUNTIME_DIR, with a socket to the supervisor as descriptor 3. Log lines
 * go to descriptor 2.
 *
 * Protocol (messages of ipc_msgs.h over SOCK_SEQPACKET; S is the supervisor, D the dead-man)
 *
 * - Start. D: HELLO, then READY when memory, scheduling and signals are set. D enforces nothing
 * before the first state; it publishes deadman.sock in RUNTIME_DIR when it has state and
 * descriptors.
 *
 * - State. S: DM_STATE whenever guard_step says GUARD_SEND_STATE (each change, and each interval).
 * D: DM_ACK with the sequence number that is now enforced.
 *
 * - Postmaster. S: DM_POSTMASTER with its descriptors (enum dm_fd) when there is a new one, before
 * the gate is opened; generation 0 when there is none. D: DM_ACK with the generation whose pidfd it
 *   holds. The gate may be opened when sequence number and generation are both acknowledged.
 *
 * - Fence. D: DM_ACK with fencing = 1 as soon as D begins to fence by its own decision.
 *
 * - Peers. S: PEER with a socket whose other end a helper holds, which sees D's end by it. A PING
 * over it says that D leaves in order. The lock of duty.h says the same to helpers that have no
 * such socket any more: it is held from before HELLO until the end.
 *
 * - Hand-over. A new S connects to deadman.sock (same user or root; refused while D still has a
 *   supervisor), sends DM_TAKEOVER, gets DM_STATE, DM_POSTMASTER and DM_ACK, sends its states to D
 * from then on, starts a new dead-man of its own, waits for its acknowledgement of both and for a
 * helper that watches it, and sends DM_END to the old one.
 *
 * - Superseded. D has no supervisor, and deadman.sock goes to a third dead-man, or leads to another
 *   that answers while a supervisor holds its lock: D leaves, that one enforces.
 *
 * - End. DM_END: D leaves. Without a supervisor D leaves when no postmaster is left, or after the
 *   fence. A state with policy PAUSED disarms the lifeline, the next ENFORCE arms it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/duty.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/dm_core.h"

#define CONN_FD	       3
#define SOCKET_NAME    "deadman.sock"
#define LOCK_NAME      "lock" /* flock: the supervisor's; its bytes: duty.h */
#define ORPHAN_LOOK_MS 200 /* without a supervisor: does the name lead to a successor's by now? */
#define FIFO_PRIO      10  /* above ordinary real-time work, far below the kernel's own threads */

struct deadman {
	struct dm dm;
	int timer_fd;
	int listen_fd; /* -1 = not published */
	ino_t socket_ino;
	ino_t rival_ino; /* whose socket had the name when the supervisor was lost; 0 = ours */
};

static struct deadman self;

/* ---- how it holds its ground ----------------------------------------------------------- */

static void ignore_signals(void)
{
	/* A service manager signals the whole control group, a terminal the whole session; only the
	 * supervisor ends this process. */
	static const int list[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2,
		SIGTSTP, SIGTTIN, SIGTTOU, SIGALRM };
	sigset_t none;
	for (unsigned i = 0; i < ARRAY_LEN(list); i++)
		signal(list[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void lock_memory(void)
{
	/* Touch all of the scratch memory first: the fence must not wait for a page. */
	memset(&self.dm.scratch, 1, sizeof(self.dm.scratch));
	memset(&self.dm.scratch, 0, sizeof(self.dm.scratch));
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		log_info("memory is not locked: %s", strerror(errno));
}

static void raise_priority(void)
{
	struct sched_param prio = { .sched_priority = FIFO_PRIO };
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &prio) < 0)
		log_info("no real-time scheduling: %s", strerror(errno));
	FILE *f = fopen("/proc/self/oom_score_adj", "we");
	if (f == NULL || fputs("-1000", f) < 0 || fflush(f) != 0)
		log_info("may be chosen by the out-of-memory killer: %s", strerror(errno));
	if (f != NULL)
		fclose(f);
}

/* ---- the socket for a successor -------------------------------------------------------- */

/* 0 = the name leads nowhere. */
static ino_t published_ino(void)
{
	struct stat st;
	return stat(SOCKET_NAME, &st) == 0 ? st.st_ino : 0;
}

static bool is_published(void)
{
	return self.listen_fd >= 0 && published_ino() == self.socket_ino;
}

/* Bound under a name of its own and renamed: at every instant the name leads to a dead-man that has
 * the state. The working directory is the run-time directory, so that its length does not matter.
 */
static enum err_code publish(struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct stat st;
	if (is_published())
		return ERR_OK;
	if (self.listen_fd >= 0)
		close(self.listen_fd);
	self.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (self.listen_fd < 0)
		return err_set(err, ERR_SYS, errno, "socket");
	if (!str_format(addr.sun_path, sizeof(addr.sun_path), SOCKET_NAME ".%d", (int)getpid()))
		return err_set(err, ERR_LIMIT, 0, "socket name");
	unlink(addr.sun_path);
	mode_t mask = umask(0177);
	int rc = bind(self.listen_fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(mask);
	if (rc < 0 || stat(addr.sun_path, &st) < 0 || listen(self.listen_fd, 4) < 0 ||
		rename(addr.sun_path, SOCKET_NAME) < 0) {
		err_set(err, ERR_SYS, errno, "%s", addr.sun_path);
		unlink(addr.sun_path);
		close(self.listen_fd);
		self.listen_fd = -1;
		return ERR_SYS;
	}
	self.socket_ino = st.st_ino;
	return ERR_OK;
}

static void publish_or_log(void)
{
	struct err err = ERR_INIT;
	if (publish(&err) != ERR_OK)
		log_error("no hand-over possible: %s", err.text);
}

/* It knows the deadline and holds the process: what a successor needs, and what the name stands
 * for. */
static bool is_complete(const struct dm *d)
{
	return d->has_state &&
	       (d->guard.pm_state == PG_PROC_NONE ||
		       (d->held_generation == d->guard.generation && d->fds[DM_FD_PIDFD] >= 0));
}

/* Before the first acknowledgement that counts: once the supervisor rests on us, a dead-man that
 * was left behind by an earlier one must have seen the name and be on its way out. It holds the
 * lifeline, and in pause it would never fence. */
static void publish_when_complete(const struct dm *d)
{
	if (d->conn_fd >= 0 && self.socket_ino == 0 && is_complete(d))
		publish_or_log();
}

/* Somebody listens there. Asked with a socket of another type, which is refused either way and
 * never looks like a supervisor. */
static bool name_is_answered(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = SOCKET_NAME };
	AUTO_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 ||
	       (errno != ECONNREFUSED && errno != ENOENT);
}

/* Asked for, never kept. */
static bool supervisor_lives(void)
{
	AUTO_FD fd = open(LOCK_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* Without a supervisor. One that dies in the middle of a hand-over leaves two of us behind, and its
 * successor finds the one that has the name. We are superseded, and must not fence because nobody
 * renews for us, when the name goes to a third, or when a supervisor lives while another one of us
 * answers for it: that one is obeyed, or is about to be (we were frozen when all that happened). A
 * name that leads nowhere, or to one that died, we take: a successor has to find whoever enforces.
 */
static bool is_superseded(void)
{
	if (self.dm.conn_fd >= 0)
		return false;
	ino_t ino = published_ino();
	if (ino != 0 && ino == self.socket_ino)
		return false;
	if (ino == 0 || !name_is_answered()) {
		if (is_complete(&self.dm))
			publish_or_log();
		return false;
	}
	return ino != self.rival_ino || supervisor_lives();
}

/* Whoever has the name at that moment was left behind with us. */
static void on_supervisor_lost(void)
{
	ino_t ino = published_ino();
	self.rival_ino = ino != self.socket_ino ? ino : 0;
}

static void unpublish(void)
{
	if (is_published())
		unlink(SOCKET_NAME);
}

static void accept_successor(void)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int fd = accept4(self.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
		(cred.uid != 0 && cred.uid != geteuid())) {
		log_warning("refused a connection: not the user of PostgreSQL, not root");
		close(fd);
		return;
	}
	if (!dm_take_successor(&self.dm, fd, cred.pid)) {
		log_warning("refused a connection pid=%d: there is a supervisor", (int)cred.pid);
		close(fd);
	}
}

/* ---- main ------------------------------------------------------------------------------ */

enum { P_TIMER, P_CONN, P_LISTEN, P_PIDFD, P_COUNT };

static void arm_timer(void)
{
	int64_t at_ms = self.dm.wake_at_ms;
	int64_t look_ms = clock_boot_ms() + ORPHAN_LOOK_MS;
	if (self.dm.conn_fd < 0 && look_ms < at_ms)
		at_ms = look_ms;
	if (self.dm.fence.next_ms != 0 && self.dm.fence.next_ms < at_ms)
		at_ms = self.dm.fence.next_ms;
	if (clock_timerfd_arm(self.timer_fd, at_ms) < 0)
		log_error("timer: %s", strerror(errno));
}

/* One turn: wait, read everything that is there, then look at the deadlines (guard.h, contract). */
static void turn(void)
{
	struct dm *d = &self.dm;
	struct pollfd p[P_COUNT] = {
		[P_TIMER] = { .fd = self.timer_fd, .events = POLLIN },
		[P_CONN] = { .fd = d->conn_fd, .events = POLLIN },
		[P_LISTEN] = { .fd = self.listen_fd, .events = POLLIN },
		[P_PIDFD] = { .fd = d->root_gone ? -1 : d->fds[DM_FD_PIDFD], .events = POLLIN },
	};
	arm_timer();
	if (poll(p, P_COUNT, -1) < 0) {
		if (errno != EINTR)
			log_error("poll: %s", strerror(errno));
		return;
	}
	int64_t now_ms = clock_boot_ms(); /* before the messages: see dm_tick */
	uint64_t expirations;
	if (p[P_TIMER].revents != 0 && read(self.timer_fd, &expirations, sizeof(expirations)) < 0 &&
		errno != EAGAIN)
		log_error("timer: %s", strerror(errno));
	/* The postmaster first: a message may replace the descriptor that was polled. */
	if (p[P_PIDFD].revents != 0)
		dm_postmaster_gone(d);
	bool lost = p[P_CONN].revents != 0 && !dm_read(d);
	publish_when_complete(d);
	if (lost)
		on_supervisor_lost();
	if (p[P_LISTEN].revents != 0)
		accept_successor();
	/* Before the deadlines: what we know of the lease is no longer what is true. */
	if (is_superseded()) {
		log_info("superseded: another supervisor has a dead-man of its own");
		d->ended = true;
	} else {
		dm_tick(d, now_ms);
	}
}

static enum err_code greet(struct err *err)
{
	struct msg_hello hello = {
		.proto = IPC_VERSION, .pid = getpid(), .version = PGREGENT_VERSION
	};
	struct msg_ping ready = { .sent_at_ms = clock_boot_ms() };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	if (getsockopt(CONN_FD, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		self.dm.conn_pid = cred.pid;
	enum err_code rc = ipc_send(CONN_FD, MSG_HELLO, 0, &hello, NULL, 0, NULL, 0, err);
	if (rc == ERR_OK)
		rc = ipc_send(CONN_FD, MSG_READY, 0, &ready, NULL, 0, NULL, 0, err);
	return rc;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	log_open("deadman: ", 2, LOG_INFO);
	if (argc != 2) {
		log_fatal("usage: pgregent-deadman RUNTIME_DIR (started by pgregent, descriptor 3 "
			  "is its socket)");
		return 2;
	}
	if (chdir(argv[1]) < 0) {
		log_fatal("run-time directory %s: %s", argv[1], strerror(errno));
		return 1;
	}
	ignore_signals();
	self.listen_fd = -1;
	dm_init(&self.dm, CONN_FD, clock_boot_ms());
	self.dm.before_ack = publish_when_complete;
	self.timer_fd = clock_timerfd_new();
	if (self.timer_fd < 0) {
		log_fatal("timer: %s", strerror(errno));
		return 1;
	}
	/* Before the first state: whoever loses sight of another enforcer finds us by it. */
	if (duty_enforce(LOCK_NAME) < 0)
		log_warning("cannot be seen on duty: %s/lock: %s", argv[1], strerror(errno));
	raise_priority();
	lock_memory();
	if (greet(&err) != ERR_OK) {
		log_fatal("supervisor: %s", err.text);
		return 1;
	}
	while (!self.dm.ended)
		turn();
	unpublish();
	dm_done(&self.dm);
	return 0;
}
