/* Messages between our processes. See ipc.h. */
#include "common/core/ipc.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/clock.h"

#define TTL_UNKNOWN_MS 30000 /* what the supervisor goes by before the first report, too */
#define PING_MIN_MS    200
#define PING_AHEAD_MS  3 /* of the grid: the supervisor is woken once for it and for its own */

static const struct {
	const char *name;
	uint32_t from, to;
	size_t size;
	bool tail;
} table[MSG_COUNT] = { [MSG_NONE] = { "?", 0, 0, 0, false },
#define X(n, f, t, payload, tl) [MSG_##n] = { #n, f, t, sizeof(payload), tl },
	MSG_LIST(X)
#undef X
};

_Static_assert(sizeof(struct ipc_hdr) == 24, "the header is the protocol");

const char *msg_type_name(unsigned type)
{
	return type < MSG_COUNT ? table[type].name : "?";
}

size_t msg_payload_size(enum msg_type type)
{
	return (unsigned)type < MSG_COUNT ? table[type].size : 0;
}

bool msg_allows_tail(enum msg_type type)
{
	return (unsigned)type < MSG_COUNT && table[type].tail;
}

const char *ipc_role_name(enum ipc_role role)
{
	static const char *const names[] = { "none", "supervisor", "deadman", "worker", "files",
		"api", "ctl" };
	return (unsigned)role < ARRAY_LEN(names) ? names[role] : "?";
}

int64_t ipc_ping_next_ms(int64_t now_ms, int64_t ttl_ms)
{
	int64_t every_ms = (ttl_ms > 0 ? ttl_ms : TTL_UNKNOWN_MS) / 10;
	if (every_ms < PING_MIN_MS)
		every_ms = PING_MIN_MS;
	return clock_grid_ms(now_ms + PING_AHEAD_MS, every_ms) - PING_AHEAD_MS;
}

bool ipc_hung_up(int fd)
{
	struct pollfd p = { .fd = fd };
	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

enum err_code ipc_pair(int fds[2], struct err *err)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return err_set(err, ERR_SYS, errno, "socketpair");
	return ERR_OK;
}

enum err_code ipc_send(int fd, enum msg_type type, uint64_t id, const void *payload,
	const void *tail, size_t tail_len, const int *fds, int fd_count, struct err *err)
{
	static const struct msg_empty empty;
	if ((unsigned)type >= MSG_COUNT || (tail_len > 0 && !table[type].tail) ||
		fd_count > LIMIT_IPC_FDS)
		return err_set(err, ERR_INVAL, 0, "send %s", msg_type_name(type));
	size_t size = table[type].size;
	if (sizeof(struct ipc_hdr) + size + tail_len > LIMIT_IPC_FRAME)
		return err_set(err, ERR_LIMIT, 0, "send %s: %zu bytes, limit %d",
			msg_type_name(type), tail_len, LIMIT_IPC_FRAME);
	struct ipc_hdr hdr = { .magic = IPC_MAGIC,
		.version = IPC_VERSION,
		.type = (uint16_t)type,
		.len = (uint32_t)(size + tail_len),
		.id = id };
	if (payload == NULL && size == sizeof(empty))
		payload = &empty;
	struct iovec iov[3] = { { &hdr, sizeof(hdr) }, { (void *)payload, size },
		{ (void *)tail, tail_len } };
	union {
		char bytes[CMSG_SPACE(LIMIT_IPC_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = tail_len > 0 ? 3 : 2 };
	if (fd_count > 0) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE((size_t)fd_count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)fd_count * sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return ERR_OK;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
		return err_set(err, ERR_AGAIN, 0, "send %s: queue full", msg_type_name(type));
	if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
		return err_set(err, ERR_CLOSED, 0, "send %s: peer gone", msg_type_name(type));
	return err_set(err, ERR_SYS, errno, "send %s", msg_type_name(type));
}

enum err_code ipc_check(const void *bytes, size_t len, enum ipc_role from, enum ipc_role to,
	struct ipc_msg *out, struct err *err)
{
	struct ipc_hdr hdr;
	if (len < sizeof(hdr))
		return err_set(err, ERR_PROTO, 0, "frame of %zu bytes", len);
	memcpy(&hdr, bytes, sizeof(hdr));
	if (hdr.magic != IPC_MAGIC || hdr.version != IPC_VERSION || hdr.flags != 0)
		return err_set(err, ERR_PROTO, 0, "frame header magic=%x version=%u", hdr.magic,
			hdr.version);
	if (hdr.type == MSG_NONE || hdr.type >= MSG_COUNT)
		return err_set(err, ERR_PROTO, 0, "unknown message %u", hdr.type);
	if ((table[hdr.type].from & RM(from)) == 0 || (table[hdr.type].to & RM(to)) == 0)
		return err_set(err, ERR_PROTO, 0, "%s is not sent by %s to %s",
			table[hdr.type].name, ipc_role_name(from), ipc_role_name(to));
	size_t size = table[hdr.type].size;
	if (hdr.len != len - sizeof(hdr) || hdr.len < size ||
		(hdr.len > size && !table[hdr.type].tail))
		return err_set(err, ERR_PROTO, 0, "%s of %u bytes, expected %zu",
			table[hdr.type].name, hdr.len, size);
	out->type = (enum msg_type)hdr.type;
	out->id = hdr.id;
	out->payload = (const char *)bytes + sizeof(hdr);
	out->tail = hdr.len > size ? (const char *)bytes + sizeof(hdr) + size : NULL;
	out->tail_len = hdr.len - size;
	return ERR_OK;
}

static void take_fds(struct msghdr *mh, struct ipc_msg *out)
{
	out->fd_count = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (out->fd_count < LIMIT_IPC_FDS)
				out->fds[out->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

enum err_code ipc_recv(int fd, enum ipc_role from, enum ipc_role to, struct ipc_rx *rx,
	struct ipc_msg *out, struct err *err)
{
	union {
		char bytes[CMSG_SPACE(LIMIT_IPC_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { rx->bytes, sizeof(rx->bytes) };
	struct msghdr mh = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	ssize_t n;
	do
		n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return ERR_AGAIN;
		if (errno == ECONNRESET)
			return err_set(err, ERR_CLOSED, 0, "connection reset");
		return err_set(err, ERR_SYS, errno, "recvmsg");
	}
	memset(out, 0, sizeof(*out));
	take_fds(&mh, out);
	enum err_code rc;
	if (n == 0 && out->fd_count == 0)
		return err_set(err, ERR_CLOSED, 0, "closed by the peer");
	if ((mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
		rc = err_set(err, ERR_PROTO, 0, "truncated frame");
	else
		rc = ipc_check(rx->bytes, (size_t)n, from, to, out, err);
	if (rc != ERR_OK) {
		for (int i = 0; i < out->fd_count; i++)
			close(out->fds[i]);
		out->fd_count = 0;
	}
	return rc;
}

bool ipc_tail_valid(const char *tail, size_t len, unsigned *out_count)
{
	if (len == 0 || tail[len - 1] != '\0')
		return false;
	unsigned count = 0;
	for (size_t i = 0; i < len; i++)
		count += tail[i] == '\0';
	*out_count = count;
	return true;
}

const char *ipc_tail_next(const char *tail, size_t len, const char *prev)
{
	if (prev == NULL)
		return len > 0 ? tail : NULL;
	const char *next = prev + strlen(prev) + 1;
	return next < tail + len ? next : NULL;
}

bool ipc_str_ok(const char *s, size_t size)
{
	return memchr(s, '\0', size) != NULL;
}
