/* Frames between our processes: what is taken, what costs the sender its connection, and that
 * nothing waits. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/buf.h"
#include "common/core/ipc.h"

static struct ipc_rx rx;
static char frame[LIMIT_IPC_FRAME + 64];

static int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	assert_non_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/* Of a whole lease report, with `len` bytes after the header. */
static struct ipc_hdr header(size_t len)
{
	return (struct ipc_hdr){
		.magic = IPC_MAGIC, .version = IPC_VERSION, .type = MSG_LEASE, .len = (uint32_t)len
	};
}

static enum err_code check(
	struct ipc_hdr hdr, size_t len, enum ipc_role from, enum ipc_role to, struct err *err)
{
	struct ipc_msg m;
	memset(frame, 0, sizeof(frame));
	memcpy(frame, &hdr, sizeof(hdr));
	return ipc_check(frame, len, from, to, &m, err);
}

static void test_malformed(void **state)
{
	(void)state;
	const size_t size = sizeof(struct msg_lease), whole = sizeof(struct ipc_hdr) + size;
	struct ipc_hdr good = header(size), h;
	struct err err = ERR_INIT;
	assert_int_equal(check(good, whole, ROLE_WORKER, ROLE_SUPERVISOR, &err), ERR_OK);
	for (size_t len = 0; len < whole; len++)
		assert_int_equal(check(good, len, ROLE_WORKER, ROLE_SUPERVISOR, &err), ERR_PROTO);
	assert_int_equal(check(good, whole + 1, ROLE_WORKER, ROLE_SUPERVISOR, &err), ERR_PROTO);
	const struct {
		size_t offset;
		unsigned value;
	} rows[] = {
		{ offsetof(struct ipc_hdr, magic), IPC_MAGIC + 1 },
		{ offsetof(struct ipc_hdr, version), IPC_VERSION + 1 },
		{ offsetof(struct ipc_hdr, version), IPC_VERSION - 1 },
		{ offsetof(struct ipc_hdr, flags), 1 },
		{ offsetof(struct ipc_hdr, type), MSG_NONE },
		{ offsetof(struct ipc_hdr, type), MSG_COUNT },
		{ offsetof(struct ipc_hdr, type), 0xffff },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		uint16_t v = (uint16_t)rows[i].value;
		h = good;
		memcpy((char *)&h + rows[i].offset, &v, sizeof(v));
		if (check(h, whole, ROLE_WORKER, ROLE_SUPERVISOR, &err) != ERR_PROTO)
			fail_msg("row %u", i);
	}
	/* A lease has no tail, whatever the header says. */
	h = header(size + 1);
	assert_int_equal(check(h, whole + 1, ROLE_WORKER, ROLE_SUPERVISOR, &err), ERR_PROTO);
	h = header(size - 1);
	assert_int_equal(check(h, whole - 1, ROLE_WORKER, ROLE_SUPERVISOR, &err), ERR_PROTO);
	/* The sender is judged before the size. */
	assert_int_equal(check(h, whole - 1, ROLE_API, ROLE_SUPERVISOR, &err), ERR_PROTO);
	assert_non_null(strstr(err.text, "LEASE is not sent by api"));
}

/* Every message from everybody to everybody: the list decides. */
static void test_directions(void **state)
{
	(void)state;
	static const struct {
		uint32_t from, to;
	} list[MSG_COUNT] = {
#define X(n, f, t, payload, tail) [MSG_##n] = { f, t },
		MSG_LIST(X)
#undef X
	};
	struct err err = ERR_INIT;
	unsigned taken = 0;
	for (unsigned type = MSG_NONE + 1; type < MSG_COUNT; type++)
		for (unsigned from = 1; from < ROLE_COUNT; from++)
			for (unsigned to = 1; to < ROLE_COUNT; to++) {
				size_t size = msg_payload_size((enum msg_type)type);
				struct ipc_hdr h = header(size);
				h.type = (uint16_t)type;
				bool may = (list[type].from & RM(from)) != 0 &&
					   (list[type].to & RM(to)) != 0;
				enum err_code rc = check(h, sizeof(h) + size, (enum ipc_role)from,
					(enum ipc_role)to, &err);
				if (rc != (may ? ERR_OK : ERR_PROTO))
					fail_msg("%s from %u to %u", msg_type_name(type), from, to);
				taken += may;
			}
	assert_true(taken >= MSG_COUNT - 1);
	/* What rests on it: these come from the worker alone. */
	const enum msg_type of_worker[] = { MSG_LEASE, MSG_PROOF, MSG_PG_START, MSG_PG_STOP,
		MSG_PG_PROMOTE, MSG_PG_SIGNAL, MSG_JOB_START, MSG_UPGRADE, MSG_SHUTDOWN_DONE,
		MSG_WATCHDOG_CONFIG };
	for (unsigned i = 0; i < ARRAY_LEN(of_worker); i++)
		assert_true(list[of_worker[i]].from == RM(ROLE_WORKER) &&
			    list[of_worker[i]].to == RM(ROLE_SUPERVISOR));
}

/* Over a socket: refused ones leave no descriptor behind, and the next frame is read as if nothing
 * had been. */
static void test_refused_on_a_socket(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct ipc_msg m;
	int fds[2], many[2 * LIMIT_IPC_FDS];
	assert_int_equal(ipc_pair(fds, &err), ERR_OK);
	int before = open_descriptors();
	/* Longer than any frame: cut off by the kernel, and seen. */
	struct ipc_hdr h = header(sizeof(frame) - sizeof(h));
	h.type = MSG_JOB_START;
	memset(frame, 0, sizeof(frame));
	memcpy(frame, &h, sizeof(h));
	assert_int_equal(send(fds[0], frame, sizeof(frame), 0), sizeof(frame));
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_PROTO);
	/* More descriptors than a frame may carry, and a frame from the wrong sender that carries
	 * one. */
	union {
		char bytes[CMSG_SPACE(sizeof(many))];
		struct cmsghdr align;
	} control = { 0 };
	for (unsigned i = 0; i < ARRAY_LEN(many); i++)
		many[i] = fds[0];
	struct msg_page page = { .role = ROLE_WORKER };
	h = header(sizeof(page));
	h.type = MSG_PAGE;
	struct iovec iov[2] = { { &h, sizeof(h) }, { &page, sizeof(page) } };
	struct msghdr mh = { .msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(many));
	memcpy(CMSG_DATA(c), many, sizeof(many));
	assert_true(sendmsg(fds[0], &mh, 0) > 0);
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_PROTO);
	assert_int_equal(ipc_send(fds[0], MSG_PAGE, 0, &page, NULL, 0, &fds[0], 1, &err), ERR_OK);
	assert_int_equal(ipc_recv(fds[1], ROLE_FILES, ROLE_SUPERVISOR, &rx, &m, &err), ERR_PROTO);
	assert_int_equal(m.fd_count, 0);
	assert_int_equal(open_descriptors(), before);
	struct msg_lease lease = { .seq = 7 };
	assert_int_equal(ipc_send(fds[0], MSG_LEASE, 0, &lease, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_OK);
	assert_true(m.type == MSG_LEASE && ((const struct msg_lease *)m.payload)->seq == 7);
	close(fds[0]);
	close(fds[1]);
}

/* A receiver that does not read: the sender is told, and never waits. */
static void test_full_queue(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct msg_ping ping = { 0 };
	int fds[2];
	enum err_code rc = ERR_OK;
	assert_int_equal(ipc_pair(fds, &err), ERR_OK);
	for (int i = 0; i < 1000000 && rc == ERR_OK; i++)
		rc = ipc_send(fds[0], MSG_PING, 0, &ping, NULL, 0, NULL, 0, &err);
	assert_int_equal(rc, ERR_AGAIN);
	close(fds[1]);
	assert_int_equal(ipc_send(fds[0], MSG_PING, 0, &ping, NULL, 0, NULL, 0, &err), ERR_CLOSED);
	close(fds[0]);
}

static void test_tails(void **state)
{
	(void)state;
	static char big[LIMIT_IPC_FRAME];
	struct err err = ERR_INIT;
	struct msg_job_start job = { 0 };
	struct msg_lease lease = { 0 };
	unsigned count;
	int fds[2];
	assert_int_equal(ipc_pair(fds, &err), ERR_OK);
	size_t most = LIMIT_IPC_FRAME - sizeof(struct ipc_hdr) - sizeof(job);
	assert_int_equal(
		ipc_send(fds[0], MSG_JOB_START, 0, &job, big, most, NULL, 0, &err), ERR_OK);
	assert_int_equal(
		ipc_send(fds[0], MSG_JOB_START, 0, &job, big, most + 1, NULL, 0, &err), ERR_LIMIT);
	assert_int_equal(ipc_send(fds[0], MSG_LEASE, 0, &lease, big, 1, NULL, 0, &err), ERR_INVAL);
	assert_true(ipc_tail_valid("2\0a\0b", 6, &count));
	assert_int_equal(count, 3);
	assert_false(ipc_tail_valid("2\0a\0b", 5, &count));
	assert_false(ipc_tail_valid("", 0, &count));
	close(fds[0]);
	close(fds[1]);
}

/* All helpers of a node at the same moment, at least every ttl/10, just before the supervisor's own
 * multiple. */
static void test_next_ping(void **state)
{
	(void)state;
	for (int64_t ttl = 0; ttl <= 60000; ttl += 1500) {
		int64_t every = (ttl != 0 ? ttl : 30000) / 10;
		if (every < 200)
			every = 200;
		for (int64_t now = 1000000; now < 1000000 + 2 * every; now += 7) {
			int64_t next = ipc_ping_next_ms(now, ttl);
			assert_true(next > now && next <= now + every);
			int64_t before = every - next % every;
			assert_true(before >= 1 && before <= 5);
			assert_int_equal(ipc_ping_next_ms(next, ttl), next + every);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_next_ping),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_directions),
		cmocka_unit_test(test_refused_on_a_socket),
		cmocka_unit_test(test_full_queue),
		cmocka_unit_test(test_tails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
