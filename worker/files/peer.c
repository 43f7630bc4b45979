/* The worker's connection. See peer.h. */
#include "worker/files/peer.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"

#define PIECE_MAX   (LIMIT_IPC_FRAME - 1024) /* of an answer, in one frame */
#define ANSWER_MAX  (4 * 1024 * 1024)
#define SLOW_LOG_MS 1000 /* a request that took longer is told: the disk is slow */

static void on_peer(struct loop *l, int fd, short revents, void *arg);
static void slow_turn(struct loop *l, void *arg);
static void slow_deliver(struct peer *p);

void peer_init(struct peer *p, struct loop *loop, struct ops *ops, struct ipc_rx *rx)
{
	memset(p, 0, sizeof(*p));
	p->loop = loop;
	p->ops = ops;
	p->rx = rx;
	p->fd = -1;
	p->data.max = ANSWER_MAX;
}

static void drop(struct peer *p)
{
	if (p->fd >= 0) {
		loop_fd_remove(p->loop, p->fd);
		close(p->fd);
	}
	p->fd = -1;
	p->sending = false;
	p->slow_orphan = p->slow_id != 0;
	buf_done(&p->data);
}

void peer_done(struct peer *p)
{
	drop(p);
	loop_timer_stop(p->loop, &p->slow_timer);
}

static bool watch(struct peer *p, short events)
{
	struct err err = ERR_INIT;
	if (loop_fd_set(p->loop, p->fd, events, on_peer, p, &err) == ERR_OK)
		return true;
	log_error("worker: %s", err.text);
	drop(p);
	return false;
}

void peer_take_fd(struct peer *p, int fd)
{
	drop(p);
	p->fd = fd;
	watch(p, POLLIN);
}

/* True when the whole answer has left. */
static bool send_more(struct peer *p)
{
	do {
		size_t left = p->data.len - p->sent;
		size_t n = left < PIECE_MAX ? left : PIECE_MAX;
		struct err err = ERR_INIT;
		p->head.more = n < left;
		enum err_code rc = ipc_send(p->fd, MSG_FILES_ANSWER, p->id, &p->head,
			n > 0 ? p->data.data + p->sent : NULL, n, NULL, 0, &err);
		if (rc == ERR_AGAIN) {
			watch(p, POLLOUT);
			return false;
		}
		if (rc != ERR_OK) {
			if (rc != ERR_CLOSED)
				log_error("worker: %s", err.text);
			drop(p);
			return false;
		}
		p->sent += n;
	} while (p->sent < p->data.len);
	p->sending = false;
	buf_done(&p->data);
	if (!watch(p, POLLIN))
		return false;
	slow_deliver(p);
	return !p->sending;
}

static void answer(struct peer *p, uint64_t id, uint32_t op, enum err_code rc, struct ops_answer *a,
	const struct err *err)
{
	p->id = id;
	p->head = (struct msg_files_answer){ .op = op,
		.code = ops_answer_code(rc),
		.value = a->value,
		.sys_errno = rc == ERR_OK ? 0 : err->sys_errno };
	buf_done(&p->data);
	if (rc == ERR_OK) {
		p->data = a->data;
	} else {
		buf_done(&a->data);
		p->data = (struct buf)BUF_INIT(ANSWER_MAX);
		buf_adds(&p->data, err->text);
	}
	p->sent = 0;
	p->sending = true;
	send_more(p);
}

static void run(struct peer *p, const struct ipc_msg *m)
{
	const struct msg_files_req *req = m->payload;
	struct ops_answer a = { .data = BUF_INIT(ANSWER_MAX) };
	struct err err = ERR_INIT;
	int64_t began_ms = clock_boot_ms();
	enum err_code rc = ops_run(p->ops, req, m->tail, m->tail_len, &a, &err);
	int64_t took_ms = clock_boot_ms() - began_ms;
	if (took_ms > SLOW_LOG_MS)
		log_warning("slow disk: %s took_ms=%lld", ops_name(req->op), (long long)took_ms);
	if (a.later) {
		p->slow_id = m->id;
		p->slow_op = req->op;
		p->slow_orphan = false;
		loop_timer_set(p->loop, &p->slow_timer, clock_boot_ms(), slow_turn, p);
		return;
	}
	answer(p, m->id, req->op, rc, &a, &err);
}

/* At most one slow operation runs, so this never nests more than once. */
static void slow_deliver(struct peer *p)
{
	if (!p->slow_ended || p->sending)
		return;
	uint64_t id = p->slow_id;
	p->slow_ended = false;
	p->slow_id = 0;
	p->ops->slow_unanswered = false;
	struct ops_answer a = { .value = p->ops->slow.value };
	if (!p->slow_orphan && p->fd >= 0)
		answer(p, id, p->slow_op, p->slow_rc, &a, &p->slow_err);
}

/* One slice; other descriptors and the PING get their turn in between. */
static void slow_turn(struct loop *l, void *arg)
{
	struct peer *p = arg;
	struct err err = ERR_INIT;
	enum tree_step step = slow_slice(&p->ops->slow, &err);
	if (step == TREE_MORE) {
		loop_timer_set(l, &p->slow_timer, clock_boot_ms(), slow_turn, p);
		return;
	}
	p->slow_rc = step == TREE_DONE ? ERR_OK : err.code;
	p->slow_err = err;
	p->slow_ended = true;
	log_info("%s result=\"%s\"", ops_name(p->slow_op), step == TREE_DONE ? "done" : err.text);
	slow_deliver(p);
}

static void on_peer(struct loop *l, int fd, short revents, void *arg)
{
	(void)l;
	(void)revents;
	struct peer *p = arg;
	if (p->sending && !send_more(p))
		return;
	for (int i = 0; i < 16 && p->fd == fd && !p->sending; i++) {
		struct err err = ERR_INIT;
		struct ipc_msg m;
		enum err_code rc = ipc_recv(fd, ROLE_WORKER, ROLE_FILES, p->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		for (int j = 0; rc == ERR_OK && j < m.fd_count; j++)
			close(m.fds[j]);
		if (rc != ERR_OK || m.type != MSG_FILES_REQ) {
			if (rc != ERR_CLOSED)
				log_error("worker: %s",
					rc == ERR_OK ? "unexpected message" : err.text);
			drop(p);
			return;
		}
		run(p, &m);
	}
}
