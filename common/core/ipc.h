/* Messages between our processes over SOCK_SEQPACKET socket pairs (DESIGN 3).
 * A frame = struct ipc_hdr, the fixed payload of its type, an optional tail (only types that allow
 * one). Checked on receipt, in this order: sender (which role this connection belongs to), size,
 * content. A bad message costs its sender the connection, never its receiver the life. Nothing here
 * allocates. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/err.h"
#include "common/core/ipc_msgs.h"
#include "common/core/limits.h"

#define IPC_MAGIC   0x7067
#define IPC_VERSION 1

struct ipc_hdr {
	uint16_t magic;
	uint16_t version;
	uint16_t type;	/* enum msg_type */
	uint16_t flags; /* 0 */
	uint32_t len;	/* payload + tail */
	uint32_t pad;
	uint64_t id; /* request id; an answer repeats it; 0 = none */
};

/* One received message. Borrowed from the caller's receive buffer: valid until the next ipc_recv on
 * it. Descriptors in fds belong to the receiver from now on: it closes those that it does not keep.
 */
struct ipc_msg {
	enum msg_type type;
	uint64_t id;
	const void *payload; /* aligned for the payload struct of type */
	const char *tail;    /* tail_len bytes; NULL when none */
	size_t tail_len;
	int fds[LIMIT_IPC_FDS];
	int fd_count;
};

/* The buffer that ipc_recv fills; static or inside the process struct, one for each process is
 * enough. */
struct ipc_rx {
	_Alignas(16) char bytes[LIMIT_IPC_FRAME];
};

/* A connected, non-blocking, close-on-exec pair. */
MUST_USE enum err_code ipc_pair(int fds[2], struct err *err);
/* Send without blocking. payload must be of the size that the list gives for type (0: NULL).
 * ERR_AGAIN: the peer's queue is full (the caller decides: drop, or the peer is hung); ERR_CLOSED:
 * peer gone. Descriptors stay the caller's. */
MUST_USE enum err_code ipc_send(int fd, enum msg_type type, uint64_t id, const void *payload,
	const void *tail, size_t tail_len, const int *fds, int fd_count, struct err *err);
/* Receive one message from a peer of role `from`, sent to role `to`. ERR_AGAIN: nothing there
 * (no text: every turn of a loop ends with it); ERR_CLOSED: end of file; ERR_PROTO: bad frame (all
 * descriptors in it were closed): drop the connection. */
MUST_USE enum err_code ipc_recv(int fd, enum ipc_role from, enum ipc_role to, struct ipc_rx *rx,
	struct ipc_msg *out, struct err *err);
/* The same checks on bytes already read; what the fuzzer calls. */
MUST_USE enum err_code ipc_check(const void *bytes, size_t len, enum ipc_role from,
	enum ipc_role to, struct ipc_msg *out, struct err *err);
/* Tables made from the list. */
const char *msg_type_name(unsigned type); /* "?" when unknown */
size_t msg_payload_size(enum msg_type type);
bool msg_allows_tail(enum msg_type type);
/* When a helper says the next time that it lives (at least every ttl/10), by the ttl that the
 * supervisor goes by; 0 = not known yet. All helpers of a node do it at the same moment, just
 * before the supervisor's exchange with the dead-man: a processor at rest is woken once for all.
 * When that ttl has changed the supervisor sends a PING, which is answered at once. */
int64_t ipc_ping_next_ms(int64_t now_ms, int64_t ttl_ms);
const char *ipc_role_name(enum ipc_role role);
/* The other end is closed, or its process is gone; what it sent before may still wait here. */
bool ipc_hung_up(int fd);

/* A tail made of zero-terminated strings one after the other (argv, environment). Iterate:
 * for (const char *s = NULL; (s = ipc_tail_next(tail, len, s)) != NULL;). The tail must end in a
 * zero (checked by ipc_tail_valid, which also counts). */
bool ipc_tail_valid(const char *tail, size_t len, unsigned *out_count);
const char *ipc_tail_next(const char *tail, size_t len, const char *prev);
/* A fixed char array of a payload holds a terminated string. */
bool ipc_str_ok(const char *s, size_t size);
