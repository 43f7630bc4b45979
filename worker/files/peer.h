/* The worker's connection: requests in, answers out, never blocking. One answer is under way at a
 * time; the next request is read when it has left, so that a worker that does not read costs no
 * memory. Run by pgregent-files. */
#pragma once
#include "common/core/ipc.h"
#include "common/core/loop.h"
#include "worker/files/ops.h"

struct peer {
	struct loop *loop;
	struct ops *ops;
	struct ipc_rx *rx;
	int fd; /* -1 = no worker */
	/* the answer that is being sent */
	bool sending;
	uint64_t id;
	struct msg_files_answer head;
	struct buf data;
	size_t sent;
	/* the slow operation, answered when it ends */
	uint64_t slow_id; /* 0 = none */
	uint32_t slow_op;
	bool slow_ended; /* waits until the answer before it has left */
	enum err_code slow_rc;
	struct err slow_err;
	bool slow_orphan; /* its worker is gone: it goes on, nobody is told */
	struct loop_timer slow_timer;
};

void peer_init(struct peer *p, struct loop *loop, struct ops *ops, struct ipc_rx *rx);
/* Takes the descriptor; replaces an earlier one, whose answers are dropped. */
void peer_take_fd(struct peer *p, int fd);
void peer_done(struct peer *p);
