/* The receiving end of a socket between our processes, fed with whole conversations: what a peer
 * gone mad, or taken over, may send. One target for each direction (FUZZ_FROM: the sender's role),
 * with the real code of the receiver from the socket inwards. No process is started, signalled or
 * waited for, no file is opened: those calls end in stubs (named on the compiler's command line),
 * and the clock moves when the input says so.
 *
 * What must hold: no invariant fails, the sanitizers are silent, descriptors do not leak, and a
 * bad message ends the connection and nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/killtree.h"
#include "common/core/log.h"
#include "tests/fuzz/fuzz_ipc.h"

#define OPS_MAX	 96
#define LEAK_MAX 80 /* descriptors above those of the start: more than any state may hold */

static struct {
	int64_t now_ms;
	pid_t next_pid;
	int first_fd;
	struct ipc_rx frame;
} fuzz;

/* ---- stubs ----------------------------------------------------------------------------- */

int64_t clock_boot_ms(void)
{
	return fuzz.now_ms;
}

int64_t clock_boot_us(void)
{
	return fuzz.now_ms * 1000;
}

int64_t clock_wall_us(void)
{
	return 1700000000000000 + fuzz.now_ms * 1000;
}

int64_t clock_wall_offset_ms(void)
{
	return 1700000000000;
}

int64_t clock_monotonic_us(void)
{
	return fuzz.now_ms * 1000;
}

void clock_iso8601(int64_t wall_us, char *out, size_t out_len)
{
	(void)wall_us;
	if (out_len > 0)
		*out = '\0';
}

int fuzz_open(const char *path, int flags, ...);
int fuzz_open(const char *path, int flags, ...)
{
	(void)flags;
	return memfd_create(path, MFD_CLOEXEC);
}

int fuzz_access(const char *path, int mode);
int fuzz_access(const char *path, int mode)
{
	(void)mode;
	return *path == '/' ? 0 : -1;
}

int fuzz_kill(pid_t pid, int signo);
int fuzz_kill(pid_t pid, int signo)
{
	/* 0, 1 and -1 would be whole groups, or the machine. */
	INVARIANT((pid > 1 || pid < -1) && signo > 0);
	return 0;
}

int fuzz_pidfd_open(pid_t pid, unsigned flags);
int fuzz_pidfd_open(pid_t pid, unsigned flags)
{
	(void)flags;
	if (pid % 3 == 0) {
		errno = ESRCH;
		return -1;
	}
	return eventfd(pid % 3 == 1, EFD_CLOEXEC | EFD_NONBLOCK); /* readable: it has ended */
}

int fuzz_pidfd_send_signal(int pidfd, int signo, void *info, unsigned flags);
int fuzz_pidfd_send_signal(int pidfd, int signo, void *info, unsigned flags)
{
	(void)info;
	(void)flags;
	INVARIANT(pidfd >= 0 && signo > 0);
	return 0;
}

void killtree_run(struct killtree *kt, const struct killtree_target *t, bool by_holders,
	struct killtree_report *out)
{
	(void)kt;
	(void)by_holders;
	INVARIANT(t->root == 0 || t->root > 1);
	*out = (struct killtree_report){ .root_signalled = true,
		.root_stopped = true,
		.denied = (unsigned)(fuzz.now_ms % 7 == 0) };
}

unsigned killtree_kill_holders(struct killtree *kt, const struct killtree_target *t,
	const pid_t *spare, unsigned spare_count, struct killtree_report *out)
{
	(void)spare;
	(void)spare_count;
	killtree_run(kt, t, true, out);
	return 0;
}

/* ---- the conversation ------------------------------------------------------------------ */

pid_t fuzz_new_pid(void)
{
	return ++fuzz.next_pid;
}

int fuzz_descriptor(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	INVARIANT(fd >= 0);
	return fd;
}

/* Read and forget what the receiver has sent; descriptors in it are closed by the kernel. */
void fuzz_drain(int fd)
{
	static char drop[LIMIT_IPC_FRAME];
	while (fd >= 0 && recv(fd, drop, sizeof(drop), MSG_DONTWAIT) > 0)
		;
}

static uint8_t next_byte(struct fuzz_input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->at++;
}

static size_t next_bytes(struct fuzz_input *in, void *out, size_t len)
{
	size_t n = len < in->left ? len : in->left;
	memcpy(out, in->at, n);
	in->at += n;
	in->left -= n;
	return n;
}

static void send_raw(int fd, const void *bytes, size_t len, unsigned fd_count)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int) * 8)];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[8];
	for (unsigned i = 0; i < fd_count; i++)
		fds[i] = fuzz_descriptor();
	if (fd_count > 0) {
		mh.msg_control = control.room;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
	}
	if (sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EPIPE &&
		errno != EAGAIN && errno != ECONNRESET && errno != EMSGSIZE && errno != ENOTCONN)
		abort();
	for (unsigned i = 0; i < fd_count; i++)
		close(fds[i]);
}

/* Times within reach of the clock, so that an input need not guess them: a byte picks the field. */
static void plausible_times(char *payload, size_t size, uint8_t where, int8_t offset)
{
	size_t fields = size / sizeof(int64_t);
	int64_t at_ms = fuzz.now_ms + offset * 100;
	if (fields > 0 && where < 0xf0)
		memcpy(payload + where % fields * sizeof(int64_t), &at_ms, sizeof(at_ms));
}

static enum msg_type next_allowed(enum msg_type type, enum ipc_role from, enum ipc_role to)
{
	for (unsigned i = 0; i < MSG_COUNT; i++) {
		struct ipc_hdr h = { .magic = IPC_MAGIC,
			.version = IPC_VERSION,
			.type = (uint16_t)type,
			.len = (uint32_t)msg_payload_size(type) };
		struct ipc_msg m;
		struct err err = ERR_INIT;
		memcpy(fuzz.frame.bytes, &h, sizeof(h));
		if (ipc_check(fuzz.frame.bytes, sizeof(h) + h.len, from, to, &m, &err) == ERR_OK)
			return type;
		type = type + 1 < MSG_COUNT ? type + 1 : MSG_NONE + 1;
	}
	return type;
}

/* One message of a type that this sender may send: its fields from the input, header as it must be.
 */
static void send_message(int fd, struct fuzz_input *in, enum ipc_role from, enum ipc_role to)
{
	enum msg_type type = MSG_NONE + 1 + next_byte(in) % (MSG_COUNT - 1);
	uint8_t shape = next_byte(in);
	/* As a rule one that the receiver does not refuse at the first look. */
	if ((shape & 0x80) == 0)
		type = next_allowed(type, from, to);
	size_t payload = msg_payload_size(type);
	size_t tail = msg_allows_tail(type) ? (size_t)next_byte(in) * (shape & 3) : 0;
	char *bytes = fuzz.frame.bytes;
	struct ipc_hdr h = { .magic = IPC_MAGIC,
		.version = IPC_VERSION,
		.type = (uint16_t)type,
		.len = (uint32_t)(payload + tail),
		.id = next_byte(in) };
	memset(bytes, 0, sizeof(h) + payload + tail);
	memcpy(bytes, &h, sizeof(h));
	size_t given = next_byte(in);
	next_bytes(in, bytes + sizeof(h), given < payload ? given : payload);
	next_bytes(in, bytes + sizeof(h) + payload, tail);
	for (unsigned i = 0; i < (shape >> 2 & 3); i++) {
		uint8_t where = next_byte(in);
		plausible_times(bytes + sizeof(h), payload, where, (int8_t)next_byte(in));
	}
	/* A tail of strings ends in a zero. */
	if (tail > 0 && (shape & 0x40) == 0)
		bytes[sizeof(h) + payload + tail - 1] = '\0';
	send_raw(fd, bytes, sizeof(h) + payload + tail, (shape >> 4) & 3 ? (shape >> 4) & 3 : 0);
}

static void one_operation(struct fuzz_input *in)
{
	uint8_t op = next_byte(in);
	int fd = target_socket();
	switch (op % 8) {
	case 0: fuzz.now_ms += (int64_t)next_byte(in) * (op & 0x80 ? 200 : 5); break;
	case 1: target_event(next_byte(in)); break;
	case 2: {
		size_t n = next_bytes(in, fuzz.frame.bytes, next_byte(in));
		if (fd >= 0 && n > 0)
			send_raw(fd, fuzz.frame.bytes, n, op >> 4 & 7);
		break;
	}
	default:
		if (fd >= 0)
			send_message(fd, in, FUZZ_FROM, target_role());
	}
	target_turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { .at = data, .left = size };
	if (fuzz.first_fd == 0) {
		/* Kept: the number of a helper's socket to the supervisor. */
		fuzz.first_fd = dup(0);
		INVARIANT(fuzz.first_fd == 3);
		log_open("", open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_CRITICAL);
		fuzz.first_fd = 5;
	}
	fuzz.now_ms = 1000000;
	fuzz.next_pid = 1000;
	target_start();
	for (unsigned i = 0; i < OPS_MAX && in.left > 0; i++)
		one_operation(&in);
	int top = fuzz_descriptor();
	INVARIANT(top < fuzz.first_fd + LEAK_MAX);
	close(top);
	target_end();
	close_range((unsigned)fuzz.first_fd, ~0u, 0);
	return 0;
}
