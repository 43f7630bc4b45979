/* The sockets of api: supervisor, dead-man, worker. A broken message costs its sender the
 * connection. Api process. */
#include "api/link.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "common/core/bigtail.h"
#include "common/core/clock.h"
#include "common/core/last_fence.h"
#include "common/config/logging.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define BATCH 16 /* messages in one go, so that a flood does not keep the PING from leaving */

static void end(struct link *k, const char *why)
{
	if (!k->ended)
		log_info("end reason=\"%s\"", why);
	k->ended = true;
	loop_stop(&k->api->loop);
}

/* Supervisor gone: with a dead-man alive it enforces, and we watch it to its end; without one,
 * nobody does. */
static void check_enforcers(struct link *k)
{
	if (!k->sup_gone || k->deadman_fd >= 0)
		return;
	k->fence = k->welcomed && !k->deadman_farewell && !view_is_paused(&k->api->view);
	end(k, k->fence ? "both enforcers are gone" : "supervisor gone");
}

/* A supervisor that does not read is frozen; the dead-man watches it. A PING comes again. */
static void send_sup(enum msg_type type, const void *payload)
{
	struct err err = ERR_INIT;
	enum err_code rc = ipc_send(LINK_SUP_FD, type, 0, payload, NULL, 0, NULL, 0, &err);
	if (rc != ERR_OK && rc != ERR_CLOSED && type != MSG_PING)
		log_warning("supervisor: %s", err.text);
}

static void send_ping(struct loop *l, void *arg)
{
	struct link *k = arg;
	int64_t now_ms = clock_boot_ms();
	struct msg_ping ping = { .sent_at_ms = now_ms };
	send_sup(MSG_PING, &ping);
	int64_t ttl_ms = shm_scalar_get(&k->api->view.supervisor, SUP_LEASE_TTL_MS);
	loop_timer_set(l, &k->ping, ipc_ping_next_ms(now_ms, ttl_ms), send_ping, k);
}

static void on_welcome(struct link *k, const struct msg_welcome *w)
{
	struct err err = ERR_INIT;
	if (k->welcomed || !ipc_str_ok(w->runtime_dir, sizeof(w->runtime_dir)) ||
		!ipc_str_ok(w->data_dir, sizeof(w->data_dir)) ||
		!ipc_str_ok(w->name, sizeof(w->name)) || w->runtime_dir[0] != '/' ||
		!str_copy(k->api->view.name, sizeof(k->api->view.name), w->name)) {
		log_error("supervisor: bad WELCOME");
		end(k, "protocol");
		return;
	}
	k->welcomed = true;
	last_fence_prepare(w->data_dir, w->runtime_dir, LINK_SUP_FD);
	if (k->deadman_fd >= 0)
		last_fence_on_duty();
	/* Without it the TCP port still serves. */
	if (ports_open_local(&k->api->ports, w->runtime_dir, &err) != ERR_OK)
		log_error("local socket: %s", err.text);
	struct msg_ping ready = { .sent_at_ms = clock_boot_ms() };
	send_sup(MSG_READY, &ready);
	send_ping(&k->api->loop, k);
}

/* ---- worker -------------------------------------------------------------------------------------
 */

void link_report(struct api *a, bool listening, const char *text)
{
	struct err err = ERR_INIT;
	struct msg_api_state s = { .serial = a->settings_serial, .listening = listening };
	snprintf(s.text, sizeof(s.text), "%s", text);
	if (a->worker_fd >= 0 &&
		ipc_send(a->worker_fd, MSG_API_STATE, 0, &s, NULL, 0, NULL, 0, &err) != ERR_OK)
		log_warning("worker: %s", err.text);
}

enum err_code link_ask(struct api *a, enum api_kind kind, uint64_t id, int64_t deadline_ms,
	const char *tail, size_t len, struct err *err)
{
	struct msg_api_req q = { .kind = kind, .deadline_ms = deadline_ms };
	if (a->worker_fd < 0)
		return err_set(err, ERR_CLOSED, 0, "no worker");
	return ipc_send(a->worker_fd, MSG_API_REQ, id, &q, tail, len, NULL, 0, err);
}

static void drop_worker(struct api *a)
{
	if (a->worker_fd < 0)
		return;
	loop_fd_remove(&a->loop, a->worker_fd);
	close(a->worker_fd);
	a->worker_fd = -1;
	/* It ended with the supervisor, perhaps for an upgrade, and so do we: "no worker" would be
	 * a refusal of what was asked for. It is our end that tells. */
	if (ipc_hung_up(LINK_SUP_FD))
		return;
	facts_worker_gone(a);
	action_worker_gone(a);
}

static void on_settings(struct api *a, const struct ipc_msg *m)
{
	struct err err = ERR_INIT;
	const struct msg_api_settings *head = m->payload;
	a->settings_serial = head->serial;
	if (settings_read(&a->settings, m->tail != NULL ? m->tail : "", m->tail_len, &err) !=
		ERR_OK) {
		log_error("settings: %s", err.text);
		link_report(a, a->ports.tcp != NULL, err.text);
		return;
	}
	a->configured = true;
	AUTO(buf) notes = BUF_INIT(16384); /* the worker has told them already */
	if (logging_apply(json_object_get(a->settings.raw, "log"), &notes, &err) != ERR_OK)
		log_error("%s: the log settings in force stay", err.text);
	names_reload(&a->names, &a->settings);
	ports_apply(&a->ports);
}

/* A long body comes in a descriptor; one that cannot be read is an answer that says so. */
static void on_answer(struct api *a, const struct ipc_msg *received)
{
	struct ipc_msg m = *received;
	AUTO(buf) body = BUF_INIT(LIMIT_API_ANSWER);
	struct err err = ERR_INIT;
	struct msg_api_answer head = { .status = 500, .content = API_TEXT, .lsn = -1 };
	if (m.tail_len == 0 && m.fd_count == 1) {
		if (bigtail_read(m.fds[0], &body, &err) != ERR_OK) {
			log_error("answer of the worker: %s", err.text);
			buf_reset(&body);
			buf_adds(&body, err.text);
			m.payload = &head;
		}
		m.tail = buf_str(&body);
		m.tail_len = body.len;
	}
	if (!facts_answer(a, &m))
		action_answer(a, &m);
}

static void on_worker(struct loop *l, int fd, short revents, void *arg)
{
	struct api *a = arg;
	(void)l;
	(void)revents;
	for (int i = 0; i < BATCH && a->worker_fd == fd; i++) {
		struct err err = ERR_INIT;
		struct ipc_msg m;
		enum err_code rc = ipc_recv(fd, ROLE_WORKER, ROLE_API, &a->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK) {
			if (rc != ERR_CLOSED)
				log_error("worker: %s", err.text);
			drop_worker(a);
			return;
		}
		if (m.type == MSG_API_SETTINGS)
			on_settings(a, &m);
		else if (m.type == MSG_API_ANSWER)
			on_answer(a, &m);
		for (int j = 0; j < m.fd_count; j++)
			close(m.fds[j]);
	}
}

/* ---- supervisor and dead-man --------------------------------------------------------------------
 */

static void on_deadman(struct loop *l, int fd, short revents, void *arg)
{
	struct link *k = arg;
	struct err err = ERR_INIT;
	struct ipc_msg m;
	(void)revents;
	enum err_code rc = ipc_recv(fd, ROLE_DEADMAN, ROLE_API, &k->api->rx, &m, &err);
	if (rc == ERR_AGAIN)
		return;
	if (rc == ERR_OK) {
		/* It says something only when it ends in order: there is nothing to fence then. */
		k->deadman_farewell = true;
		for (int i = 0; i < m.fd_count; i++)
			close(m.fds[i]);
		return;
	}
	loop_fd_remove(l, fd);
	close(fd);
	k->deadman_fd = -1;
	check_enforcers(k);
}

static void on_peer(struct link *k, struct ipc_msg *m)
{
	const struct msg_peer *p = m->payload;
	struct api *a = k->api;
	struct err err = ERR_INIT;
	enum err_code rc = ERR_OK;
	if (m->fd_count != 1)
		return;
	if (p->role == ROLE_WORKER) {
		drop_worker(a);
		a->worker_fd = m->fds[0];
		a->facts.hanging = false;
		rc = loop_fd_set(&a->loop, a->worker_fd, POLLIN, on_worker, a, &err);
	} else if (p->role == ROLE_DEADMAN) {
		if (k->deadman_fd >= 0) {
			loop_fd_remove(&a->loop, k->deadman_fd);
			close(k->deadman_fd);
		}
		k->deadman_fd = m->fds[0];
		k->deadman_farewell = false;
		if (k->welcomed)
			last_fence_on_duty();
		rc = loop_fd_set(&a->loop, k->deadman_fd, POLLIN, on_deadman, k, &err);
	} else {
		return;
	}
	m->fd_count = 0;
	if (rc != ERR_OK)
		log_error("%s: %s", ipc_role_name((enum ipc_role)p->role), err.text);
}

static void on_page(struct link *k, const struct ipc_msg *m)
{
	const struct msg_page *p = m->payload;
	struct err err = ERR_INIT;
	if (m->fd_count != 1 || (p->role != ROLE_SUPERVISOR && p->role != ROLE_WORKER))
		return;
	if (view_page(&k->api->view, (enum ipc_role)p->role, m->fds[0], &err) != ERR_OK)
		log_error("page of %s: %s", ipc_role_name((enum ipc_role)p->role), err.text);
	if (p->role == ROLE_SUPERVISOR && k->welcomed)
		send_ping(&k->api->loop, k); /* now that the ttl is known */
}

static void on_sup_message(struct link *k, struct ipc_msg *m)
{
	switch (m->type) {
	case MSG_PING:
		if (k->welcomed)
			send_ping(&k->api->loop, k);
		break;
	case MSG_WELCOME: on_welcome(k, m->payload); break;
	case MSG_PEER: on_peer(k, m); break;
	case MSG_PAGE: on_page(k, m); break;
	case MSG_LOG:
		/* More than one is none of ours: the caller closes what is left in the message. */
		log_take(m->fd_count == 1 ? m->fds[0] : -1);
		m->fd_count = m->fd_count == 1 ? 0 : m->fd_count;
		break;
	case MSG_ORDER:
		if (((const struct msg_order *)m->payload)->kind == ORDER_SHUTDOWN)
			end(k, "order of the supervisor");
		break;
	default: break;
	}
	for (int i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
}

static void on_sup(struct loop *l, int fd, short revents, void *arg)
{
	struct link *k = arg;
	(void)revents;
	for (int i = 0; i < BATCH && !k->ended; i++) {
		struct err err = ERR_INIT;
		struct ipc_msg m;
		enum err_code rc = ipc_recv(fd, ROLE_SUPERVISOR, ROLE_API, &k->api->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK) {
			if (rc != ERR_CLOSED)
				log_error("supervisor: %s", err.text);
			/* A supervisor that breaks the protocol is none. */
			loop_fd_remove(l, fd);
			loop_timer_stop(l, &k->ping);
			k->sup_gone = true;
			check_enforcers(k);
			return;
		}
		if (!k->welcomed && m.type != MSG_WELCOME && m.type != MSG_PEER &&
			m.type != MSG_PING) {
			log_error("supervisor: %s before WELCOME", msg_type_name(m.type));
			end(k, "protocol");
		}
		on_sup_message(k, &m);
	}
}

enum err_code link_open(struct link *k, struct api *api, struct err *err)
{
	*k = (struct link){ .api = api, .deadman_fd = -1, .parent = getppid() };
	enum err_code rc = loop_fd_set(&api->loop, LINK_SUP_FD, POLLIN, on_sup, k, err);
	if (rc != ERR_OK)
		return rc;
	struct msg_hello hello = { .proto = IPC_VERSION, .pid = (int32_t)getpid() };
	if (!str_copy(hello.version, sizeof(hello.version), PGREGENT_VERSION))
		return err_set(err, ERR_LIMIT, 0, "version");
	return ipc_send(LINK_SUP_FD, MSG_HELLO, 0, &hello, NULL, 0, NULL, 0, err);
}

/* The parent-death signal looks like an order to end. It is one only while the supervisor lives. */
void link_signal(struct link *k)
{
	if (getppid() == k->parent && !ipc_hung_up(LINK_SUP_FD))
		end(k, "signal");
}
