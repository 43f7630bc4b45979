/* pgregent-files: the only process that reads and writes below the data directory (DESIGN 1). Links
 * libc alone and decides nothing. Descriptor 3 is the supervisor; the worker's requests come over a
 * socket that the supervisor sends. It may hang on a slow disk for minutes: its PING stops then,
 * and the supervisor kills and replaces it. So no operation may leave a file half written under its
 * own name. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/ipc.h"
#include "common/core/last_fence.h"
#include "common/core/log.h"
#include "common/core/loop.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"
#include "worker/files/datadir.h"
#include "worker/files/logwriter.h"
#include "worker/files/ops.h"
#include "worker/files/peer.h"
#include "worker/files/pmpid.h"

#define SUP_FD 3

static struct files {
	struct loop loop;
	struct loop_timer ping;
	struct ipc_rx rx;
	int signal_fd;
	int deadman_fd; /* -1 = closed, or not sent yet */
	pid_t parent;
	mode_t umask; /* that we were started with */
	bool welcomed, ended;
	bool sup_reset, sup_gone;
	bool deadman_farewell; /* it said something: it ends in order, and there is nothing to fence
				*/
	bool fence;	       /* both enforcers are gone: ours, at least */
	struct msg_welcome welcome;
	struct shm status; /* the supervisor's page: ttl, and whether we are paused */
	struct ops ops;
	struct peer peer;
} files;

static void end(const char *why)
{
	if (!files.ended)
		log_info("end reason=\"%s\"", why);
	files.ended = true;
	loop_stop(&files.loop);
}

/* In pause PostgreSQL outlives its supervisor, as in the last state that was published. */
static bool paused(void)
{
	return shm_scalar_get(&files.status, SUP_POLICY) == POLICY_PAUSED &&
	       shm_scalar_get(&files.status, SUP_PAUSE_ENFORCE) == 0;
}

/* Supervisor gone: with a dead-man alive it enforces, and we watch it to its end; without one,
 * nobody does. */
static void check_enforcers(void)
{
	if (!files.sup_gone || files.deadman_fd >= 0)
		return;
	files.fence = files.welcomed && !files.deadman_farewell && !paused();
	end(files.fence ? "both enforcers are gone" : "supervisor gone");
}

/* A supervisor that does not read is frozen; the dead-man watches it. What cannot be sent is
 * dropped: a PING comes again, an answer is asked for again. */
static void send_sup(enum msg_type type, uint64_t id, const void *payload)
{
	struct err err = ERR_INIT;
	enum err_code rc = ipc_send(SUP_FD, type, id, payload, NULL, 0, NULL, 0, &err);
	if (rc != ERR_OK && rc != ERR_CLOSED && type != MSG_PING)
		log_warning("supervisor: %s", err.text);
}

static void send_ping(struct loop *l, void *arg)
{
	(void)arg;
	int64_t now_ms = clock_boot_ms();
	struct msg_ping ping = { .sent_at_ms = now_ms };
	send_sup(MSG_PING, 0, &ping);
	int64_t ttl_ms = shm_scalar_get(&files.status, SUP_LEASE_TTL_MS);
	loop_timer_set(l, &files.ping, ipc_ping_next_ms(now_ms, ttl_ms), send_ping, NULL);
}

static void answer_sup(uint64_t id, enum err_code rc, const struct err *err)
{
	struct msg_answer a = { .code = rc == ERR_OK	     ? ANSWER_OK
					: rc == ERR_CONFLICT ? ANSWER_REFUSED
							     : ANSWER_FAILED };
	if (rc != ERR_OK)
		snprintf(a.text, sizeof(a.text), "%s", err->text);
	send_sup(MSG_ANSWER, id, &a);
}

static void on_welcome(const struct msg_welcome *w)
{
	if (files.welcomed || !ipc_str_ok(w->data_dir, sizeof(w->data_dir)) ||
		!ipc_str_ok(w->runtime_dir, sizeof(w->runtime_dir)) || w->data_dir[0] != '/') {
		log_error("supervisor: bad WELCOME");
		end("protocol");
		return;
	}
	files.welcome = *w;
	files.welcomed = true;
	last_fence_prepare(w->data_dir, w->runtime_dir, SUP_FD);
	if (files.deadman_fd >= 0)
		last_fence_on_duty();
	ops_init(&files.ops, w->data_dir, files.umask);
	if (!str_copy(files.ops.fs.runtime_dir, sizeof(files.ops.fs.runtime_dir), w->runtime_dir))
		files.ops.fs.runtime_dir[0] = '\0';
	peer_init(&files.peer, &files.loop, &files.ops, &files.rx);
	struct msg_ping ready = { .sent_at_ms = clock_boot_ms() };
	send_sup(MSG_READY, 0, &ready);
	send_ping(&files.loop, NULL);
}

/* The supervisor must not touch the data directory, and may have started before there was one: the
 * lock is taken here and handed over, where it lasts as long as the supervisor. */
static enum err_code lock_data_dir(
	const struct msg_pmpid_read *held, struct stat *out, int *out_fd, struct err *err)
{
	AUTO_FD fd = open(files.welcome.data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return ERR_OK;
	if (fd < 0 || fstat(fd, out) < 0)
		return err_set(err, ERR_SYS, errno, "open %s", files.welcome.data_dir);
	if (out->st_dev == held->locked_dev && out->st_ino == held->locked_ino)
		return ERR_OK;
	int rc = flock(fd, LOCK_EX | LOCK_NB);
	if (rc < 0 && errno != EWOULDBLOCK)
		return err_set(err, ERR_SYS, errno, "lock %s", files.welcome.data_dir);
	if (rc < 0)
		return err_set(err, ERR_CONFLICT, 0, "another pgregent supervisor holds %s",
			files.welcome.data_dir);
	*out_fd = fd;
	fd = -1;
	return ERR_OK;
}

/* The lock first: what is read then was written by nobody who still manages this directory. */
static void on_pmpid_read(uint64_t id, const struct msg_pmpid_read *held)
{
	struct err err = ERR_INIT;
	struct msg_pmpid out;
	struct stat st = { 0 };
	AUTO_FD lock = -1;
	enum err_code rc = lock_data_dir(held, &st, &lock, &err);
	if (rc == ERR_OK)
		rc = pmpid_read(files.welcome.data_dir, &out, &err);
	if (rc != ERR_OK) {
		answer_sup(id, rc, &err);
		return;
	}
	out.locked_dev = st.st_dev;
	out.locked_ino = st.st_ino;
	if (ipc_send(SUP_FD, MSG_PMPID, id, &out, NULL, 0, &lock, lock >= 0, &err) != ERR_OK)
		log_warning("supervisor: %s", err.text);
}

static void on_pmpid_remove(uint64_t id, const struct msg_pmpid_remove *m)
{
	struct err err = ERR_INIT;
	enum err_code rc = pmpid_remove(files.welcome.data_dir, m->file_id, m->pid, &err);
	log_info("remove postmaster.pid pid=%d result=\"%s\"", m->pid,
		rc == ERR_OK ? "removed" : err.text);
	answer_sup(id, rc, &err);
}

static void on_deadman(struct loop *l, int fd, short revents, void *arg)
{
	(void)revents;
	(void)arg;
	struct err err = ERR_INIT;
	struct ipc_msg m;
	enum err_code rc = ipc_recv(fd, ROLE_DEADMAN, ROLE_FILES, &files.rx, &m, &err);
	if (rc == ERR_AGAIN)
		return;
	if (rc == ERR_OK) {
		files.deadman_farewell = true;
		for (int i = 0; i < m.fd_count; i++)
			close(m.fds[i]);
		return;
	}
	loop_fd_remove(l, fd);
	close(fd);
	files.deadman_fd = -1;
	check_enforcers();
}

/* Takes the message's descriptor. */
static void on_peer(struct ipc_msg *m)
{
	const struct msg_peer *p = m->payload;
	if (m->fd_count != 1)
		return;
	/* There is nobody to work for before WELCOME: closed by the caller. */
	if (p->role == ROLE_WORKER && files.welcomed) {
		peer_take_fd(&files.peer, m->fds[0]);
	} else if (p->role == ROLE_DEADMAN) {
		if (files.deadman_fd >= 0) {
			loop_fd_remove(&files.loop, files.deadman_fd);
			close(files.deadman_fd);
		}
		files.deadman_fd = m->fds[0];
		files.deadman_farewell = false;
		if (files.welcomed)
			last_fence_on_duty();
		struct err err = ERR_INIT;
		if (loop_fd_set(&files.loop, files.deadman_fd, POLLIN, on_deadman, NULL, &err) !=
			ERR_OK)
			log_error("dead-man: %s", err.text);
	} else {
		return;
	}
	m->fd_count = 0;
}

static void on_page(const struct ipc_msg *m)
{
	struct err err = ERR_INIT;
	struct shm page = SHM_INIT;
	if (((const struct msg_page *)m->payload)->role != ROLE_SUPERVISOR || m->fd_count != 1)
		return;
	if (shm_map(&page, m->fds[0], &err) != ERR_OK) {
		log_warning("status page: %s", err.text);
		return;
	}
	shm_done(&files.status);
	files.status = page;
	if (files.welcomed)
		send_ping(&files.loop, NULL); /* now that the ttl is known */
}

static void on_sup_message(struct ipc_msg *m)
{
	switch (m->type) {
	case MSG_PING:
		if (files.welcomed)
			send_ping(&files.loop, NULL);
		break;
	case MSG_PAGE: on_page(m); break;
	case MSG_LOG:
		/* More than one is none of ours: the caller closes what is left in the message. */
		log_take(m->fd_count == 1 ? m->fds[0] : -1);
		m->fd_count = m->fd_count == 1 ? 0 : m->fd_count;
		break;
	case MSG_PEER: on_peer(m); break;
	case MSG_WELCOME: on_welcome(m->payload); break;
	case MSG_PMPID_READ: on_pmpid_read(m->id, m->payload); break;
	case MSG_PMPID_REMOVE: on_pmpid_remove(m->id, m->payload); break;
	case MSG_ORDER:
		if (((const struct msg_order *)m->payload)->kind == ORDER_SHUTDOWN)
			end("order of the supervisor");
		break;
	default: break;
	}
	for (int i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
}

static void on_sup(struct loop *l, int fd, short revents, void *arg)
{
	(void)revents;
	(void)arg;
	/* Bounded, so that a flood does not keep the PING from leaving. */
	for (int i = 0; i < 16 && !files.ended; i++) {
		struct err err = ERR_INIT;
		struct ipc_msg m;
		enum err_code rc = ipc_recv(fd, ROLE_SUPERVISOR, ROLE_FILES, &files.rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		/* A reset is reported ahead of what was sent before it: an order to end may be in
		 * there. */
		if (rc == ERR_CLOSED && !files.sup_reset) {
			files.sup_reset = true;
			continue;
		}
		if (rc != ERR_OK) {
			if (rc != ERR_CLOSED)
				log_error("supervisor: %s", err.text);
			/* A supervisor that breaks the protocol is none. */
			loop_fd_remove(l, fd);
			loop_timer_stop(l, &files.ping);
			if (files.welcomed)
				peer_done(&files.peer);
			files.sup_gone = true;
			check_enforcers();
			return;
		}
		if (!files.welcomed && m.type != MSG_WELCOME && m.type != MSG_PING &&
			m.type != MSG_PEER) {
			log_error("supervisor: %s before WELCOME", msg_type_name(m.type));
			end("protocol");
		}
		on_sup_message(&m);
	}
}

/* The parent-death signal looks like an order to end. It is one only while the supervisor lives. */
static bool supervisor_alive(void)
{
	return getppid() == files.parent && !ipc_hung_up(SUP_FD);
}

static void on_signal(struct loop *l, int fd, short revents, void *arg)
{
	(void)l;
	(void)revents;
	(void)arg;
	struct signalfd_siginfo info;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if ((info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) && supervisor_alive())
			end("signal");
	}
}

static enum err_code setup(struct err *err)
{
	files.umask = umask(0077);
	files.parent = getppid();
	files.deadman_fd = -1;
	files.status = (struct shm)SHM_INIT;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return err_set(err, ERR_SYS, errno, "sigprocmask");
	signal(SIGPIPE, SIG_IGN);
	files.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (files.signal_fd < 0)
		return err_set(err, ERR_SYS, errno, "signalfd");
	loop_init(&files.loop, NULL, NULL);
	enum err_code rc = loop_fd_set(&files.loop, files.signal_fd, POLLIN, on_signal, NULL, err);
	if (rc != ERR_OK)
		return rc;
	rc = loop_fd_set(&files.loop, SUP_FD, POLLIN, on_sup, NULL, err);
	if (rc != ERR_OK)
		return rc;
	struct msg_hello hello = { .proto = IPC_VERSION, .pid = (int32_t)getpid() };
	if (!str_copy(hello.version, sizeof(hello.version), PGREGENT_VERSION))
		return err_set(err, ERR_LIMIT, 0, "version");
	return ipc_send(SUP_FD, MSG_HELLO, 0, &hello, NULL, 0, NULL, 0, err);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("pgregent-files %s\n", PGREGENT_VERSION);
		return 0;
	}
	if (argc >= 2 && strcmp(argv[1], "--log-writer") == 0)
		return logwriter_main(argc, argv);
	struct stat st;
	if (argc != 1 || fstat(SUP_FD, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		fprintf(stderr,
			"pgregent-files is started by pgregent, with its socket as descriptor %d\n",
			SUP_FD);
		return 2;
	}
	log_open("files: ", STDERR_FILENO, LOG_INFO);
	struct err err = ERR_INIT;
	enum err_code rc = setup(&err);
	if (rc == ERR_OK)
		rc = loop_run(&files.loop, &err);
	if (rc != ERR_OK)
		log_fatal("%s", err.text);
	if (files.fence && last_fence_due())
		last_fence_run(datadir_user);
	if (files.welcomed) {
		peer_done(&files.peer);
		ops_done(&files.ops);
	}
	shm_done(&files.status);
	loop_done(&files.loop);
	return rc == ERR_OK ? 0 : 1;
}
