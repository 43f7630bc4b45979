/* The worker's sockets: supervisor, dead-man, api (files is worker/postgres/host's). Worker
 * process. A broken message costs its sender the connection; the end of supervisor AND dead-man
 * makes this process run the kill loop (DESIGN 1). */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/last_fence.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/worker.h"

#define SUPERVISOR_FD	3
#define WELCOME_WAIT_MS 10000

enum err_code link_send(struct worker *w, enum msg_type type, uint64_t id, const void *payload,
	const void *tail, size_t tail_len, const int *fds, int fd_count)
{
	struct err err = ERR_INIT;
	if (w->sup_fd < 0)
		return ERR_CLOSED;
	enum err_code rc =
		ipc_send(w->sup_fd, type, id, payload, tail, tail_len, fds, fd_count, &err);
	if (rc != ERR_OK)
		log_warning("%s to the supervisor: %s", msg_type_name(type), err.text);
	return rc;
}

void link_notify(struct worker *w, const char *text)
{
	struct msg_notify m;
	memset(&m, 0, sizeof(m));
	if (str_copy(m.text, sizeof(m.text), text))
		link_send(w, MSG_NOTIFY, 0, &m, NULL, 0, NULL, 0);
}

/* As last reported, or as it was when we came. */
static bool paused(const struct worker *w)
{
	const struct keeper *k = &w->keeper;
	uint32_t policy = k->report_made_ms != 0 ? k->report_policy : w->welcome.policy;
	return policy == POLICY_PAUSED && !k->pause_enforce;
}

/* Both enforcers are gone: what PostgreSQL would still acknowledge, nobody watches over. */
static void check_enforcers(struct worker *w)
{
	if (!w->sup_gone || w->deadman_fd >= 0)
		return;
	if (!w->deadman_farewell && !w->shutdown_answered && !paused(w) && last_fence_due())
		last_fence_run(NULL);
	_exit(1);
}

/* The dead-man enforces from now on, and a worker without a supervisor is of no use but as a
 * witness of its end: it renews nothing and answers nobody, as if it had died. Not by the loop,
 * where a timer or a late answer would begin something. Its successor, which finds it by its lock,
 * ends it before that. */
static _Noreturn void watch_deadman(struct worker *w)
{
	struct pollfd p = { .fd = w->deadman_fd, .events = POLLIN };
	char drop[64];
	if (w->api_fd >= 0)
		close(w->api_fd);
	for (;;) {
		ssize_t n = poll(&p, 1, -1) > 0 ? recv(p.fd, drop, sizeof(drop), MSG_DONTWAIT) : -2;
		if (n > 0)
			w->deadman_farewell = true;
		else if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR))
			break;
	}
	w->deadman_fd = -1;
	check_enforcers(w);
	_exit(1);
}

static void lost_supervisor(struct worker *w, const char *why)
{
	log_error("supervisor connection ended: %s", why);
	loop_fd_remove(&w->loop, w->sup_fd);
	close(w->sup_fd);
	w->sup_fd = -1;
	w->sup_gone = true;
	host_set_supervisor(&w->host, -1);
	check_enforcers(w);
	watch_deadman(w);
}

static void on_deadman(struct loop *l, int fd, short revents, void *arg)
{
	struct worker *w = arg;
	char drop[64];
	(void)revents;
	ssize_t n = recv(fd, drop, sizeof(drop), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		/* It says something only when it leaves in order: another one enforces, or there is
		 * nothing to. */
		w->deadman_farewell = true;
		return;
	}
	loop_fd_remove(l, fd);
	close(fd);
	w->deadman_fd = -1;
	check_enforcers(w);
}

static void on_api(struct loop *l, int fd, short revents, void *arg)
{
	struct worker *w = arg;
	(void)revents;
	for (int i = 0; i < 16; i++) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(fd, ROLE_API, ROLE_WORKER, &w->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc == ERR_OK) {
			for (int k = 0; k < m.fd_count; k++)
				close(m.fds[k]);
			requests_message(w, &m);
			if (w->api_fd != fd)
				return;
			continue;
		}
		if (rc != ERR_CLOSED)
			log_error("api: %s", err.text);
		loop_fd_remove(l, fd);
		close(fd);
		w->api_fd = -1;
		return;
	}
}

static void set_fd(struct worker *w, int *slot, int fd, loop_fd_fn fn)
{
	struct err err = ERR_INIT;
	if (*slot >= 0) {
		loop_fd_remove(&w->loop, *slot);
		close(*slot);
	}
	*slot = fd;
	if (loop_fd_set(&w->loop, fd, POLLIN, fn, w, &err) != ERR_OK)
		log_error("socket: %s", err.text);
}

static void take_peer(struct worker *w, struct ipc_msg *m)
{
	const struct msg_peer *p = m->payload;
	if (m->fd_count < 1)
		return;
	int fd = m->fds[0];
	m->fd_count = 0; /* taken over */
	switch (p->role) {
	case ROLE_FILES:
		host_set_files(&w->host, fd);
		w->files_asked = false;
		if (!w->cache_asked) {
			w->cache_asked = true;
			config_load_cache(w);
		}
		turn_want(w, "files");
		break;
	case ROLE_API:
		set_fd(w, &w->api_fd, fd, on_api);
		config_send_api(w);
		break;
	case ROLE_DEADMAN:
		set_fd(w, &w->deadman_fd, fd, on_deadman);
		w->deadman_farewell = false;
		last_fence_on_duty();
		break;
	default: close(fd); break;
	}
}

static void take_order(struct worker *w, const struct msg_order *o)
{
	if (o->kind == ORDER_RELOAD) {
		config_reload(w);
	} else if (o->kind == ORDER_SHUTDOWN && !w->shutdown_asked) {
		log_info("shutdown ordered");
		w->shutdown_asked = true;
		w->request.shutdown = true;
		link_notify(w, "STOPPING=1");
		turn_want(w, "shutdown");
	}
}

static void on_ping(struct loop *l, void *arg)
{
	struct worker *w = arg;
	int64_t now_ms = clock_boot_ms(), ttl_ms = w->set.ttl_ms;
	struct msg_ping ping = { .sent_at_ms = now_ms };
	link_send(w, MSG_PING, 0, &ping, NULL, 0, NULL, 0);
	observe_keep_proving(w);
	/* The supervisor goes by the one that was reported. */
	if (w->reported_ttl_ms > 0 && w->reported_ttl_ms < ttl_ms)
		ttl_ms = w->reported_ttl_ms;
	loop_timer_set(l, &w->ping_timer, ipc_ping_next_ms(now_ms, ttl_ms), on_ping, w);
}

static void take_message(struct worker *w, struct ipc_msg *m)
{
	if (host_message(&w->host, m)) {
		if (m->type == MSG_WATCHDOG_STATE)
			execute_watchdog_state(w);
		else if (m->type == MSG_JOB_EVENT)
			turn_want(w, "job");
		return;
	}
	switch (m->type) {
	case MSG_PEER: take_peer(w, m); break;
	case MSG_LEASE_ACK: keeper_ack(w, m->payload); break;
	case MSG_PROOF_WANTED: probe_ask(&w->probe); break;
	case MSG_ORDER: take_order(w, m->payload); break;
	case MSG_PAGE:
		if (((const struct msg_page *)m->payload)->role == ROLE_WORKER && m->fd_count == 1)
			publish_take_over(w, m->fds[0]);
		break;
	case MSG_PING: on_ping(&w->loop, w); break;
	default: log_warning("supervisor sent %s", msg_type_name(m->type)); break;
	}
	for (int i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
}

static void on_supervisor(struct loop *l, int fd, short revents, void *arg)
{
	struct worker *w = arg;
	(void)l;
	(void)revents;
	for (int i = 0; i < 32; i++) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(fd, ROLE_SUPERVISOR, ROLE_WORKER, &w->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK) {
			lost_supervisor(w, err.text);
			return;
		}
		take_message(w, &m);
		if (w->sup_fd != fd)
			return;
	}
}

enum err_code link_hello(struct worker *w, struct err *err)
{
	w->sup_fd = SUPERVISOR_FD;
	w->deadman_fd = w->api_fd = -1;
	struct msg_hello hello = { .proto = IPC_VERSION, .pid = getpid() };
	if (!str_copy(hello.version, sizeof(hello.version), PGREGENT_VERSION))
		hello.version[0] = '\0';
	enum err_code rc = ipc_send(w->sup_fd, MSG_HELLO, 0, &hello, NULL, 0, NULL, 0, err);
	if (rc != ERR_OK)
		return err_wrap(err, "not started by pgregent");
	int64_t until_ms = clock_boot_ms() + WELCOME_WAIT_MS;
	for (;;) {
		struct ipc_msg m;
		rc = ipc_recv(w->sup_fd, ROLE_SUPERVISOR, ROLE_WORKER, &w->rx, &m, err);
		if (rc == ERR_OK && m.type == MSG_WELCOME)
			break;
		if (rc == ERR_OK)
			continue; /* nothing else can come before it */
		if (rc != ERR_AGAIN)
			return rc;
		int64_t left_ms = until_ms - clock_boot_ms();
		struct pollfd p = { .fd = w->sup_fd, .events = POLLIN };
		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
			return err_set(err, ERR_TIMEOUT, 0,
				"no welcome from the supervisor within %d ms", WELCOME_WAIT_MS);
	}
	memcpy(&w->welcome, w->rx.bytes + sizeof(struct ipc_hdr), sizeof(w->welcome));
	if (!ipc_str_ok(w->welcome.data_dir, sizeof(w->welcome.data_dir)) ||
		!ipc_str_ok(w->welcome.runtime_dir, sizeof(w->welcome.runtime_dir)) ||
		!ipc_str_ok(w->welcome.name, sizeof(w->welcome.name)) ||
		!ipc_str_ok(w->welcome.scope, sizeof(w->welcome.scope)))
		return err_set(err, ERR_PROTO, 0, "welcome: bad text");
	w->host.welcome = w->welcome;
	last_fence_prepare(w->welcome.data_dir, w->welcome.runtime_dir, w->sup_fd);
	w->host.next_id = (w->welcome.incarnation << 32) | 1;
	host_set_supervisor(&w->host, w->sup_fd);
	return ERR_OK;
}

enum err_code link_start(struct worker *w, struct err *err)
{
	enum err_code rc = loop_fd_set(&w->loop, w->sup_fd, POLLIN, on_supervisor, w, err);
	if (rc != ERR_OK)
		return rc;
	struct msg_ping ready = { .sent_at_ms = clock_boot_ms() };
	rc = ipc_send(w->sup_fd, MSG_READY, 0, &ready, NULL, 0, NULL, 0, err);
	on_ping(&w->loop, w);
	return rc;
}
