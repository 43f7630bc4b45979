/* common/core: strings, buffers, messages, pages, loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/ipc.h"
#include "common/core/loop.h"
#include "common/core/shm.h"
#include "common/core/str.h"

static void test_str(void **state)
{
	(void)state;
	char small[4];
	assert_true(str_copy(small, sizeof(small), "abc"));
	assert_false(str_copy(small, sizeof(small), "abcd"));
	assert_string_equal(small, "");
	uint64_t lsn;
	assert_true(str_to_lsn("16/B374D848", &lsn));
	assert_true(lsn == 0x16b374d848u);
	assert_false(str_to_lsn("16/", &lsn));
	assert_false(str_to_lsn("1", &lsn));
	char slot[64];
	str_slot_name("Node-1.a b", slot);
	assert_string_equal(slot, "node_1_au0032b");
	str_slot_name("\xc3\xa4", slot);
	assert_string_equal(slot, "u0228");
	char lsn_text[20];
	str_from_lsn(0x4000148, lsn_text);
	assert_string_equal(lsn_text, "0/4000148");
}

static void test_buf(void **state)
{
	(void)state;
	AUTO(buf) b = BUF_INIT(10);
	buf_adds(&b, "12345");
	buf_addf(&b, "%d", 678);
	assert_string_equal(buf_str(&b), "12345678");
	buf_adds(&b, "abc");
	assert_true(b.failed);
	assert_string_equal(buf_str(&b), "12345678");
	buf_reset(&b);
	buf_adds(&b, "x");
	assert_false(b.failed);
}

static void test_ipc(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	int fds[2];
	static struct ipc_rx rx;
	struct ipc_msg m;
	assert_int_equal(ipc_pair(fds, &err), ERR_OK);
	struct msg_lease lease = { .seq = 7, .lease_until_ms = 5 };
	assert_int_equal(ipc_send(fds[0], MSG_LEASE, 0, &lease, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_OK);
	assert_int_equal(m.type, MSG_LEASE);
	assert_true(((const struct msg_lease *)m.payload)->seq == 7);
	/* The same bytes from a role that may not send them cost the connection. */
	assert_int_equal(ipc_send(fds[0], MSG_LEASE, 0, &lease, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_int_equal(ipc_recv(fds[1], ROLE_API, ROLE_SUPERVISOR, &rx, &m, &err), ERR_PROTO);
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_AGAIN);
	/* A descriptor travels. */
	struct msg_page page = { .role = ROLE_WORKER };
	int pipefd[2];
	assert_int_equal(pipe(pipefd), 0);
	assert_int_equal(
		ipc_send(fds[0], MSG_PAGE, 0, &page, NULL, 0, &pipefd[0], 1, &err), ERR_OK);
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_OK);
	assert_int_equal(m.fd_count, 1);
	close(m.fds[0]);
	close(pipefd[0]);
	close(pipefd[1]);
	close(fds[0]);
	assert_int_equal(ipc_recv(fds[1], ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err), ERR_CLOSED);
	close(fds[1]);
}

static void test_shm(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct shm w = SHM_INIT, r = SHM_INIT;
	assert_int_equal(shm_create(&w, "test", 2, 4096, &err), ERR_OK);
	assert_int_equal(shm_map(&r, w.fd, &err), ERR_OK);
	AUTO(buf) b = BUF_INIT(8192);
	int64_t at;
	uint64_t gen;
	assert_int_equal(shm_doc_read(&r, 0, &b, &at, &gen, &err), ERR_NOTFOUND);
	for (int i = 1; i < 10; i++) {
		char text[20];
		snprintf(text, sizeof(text), "doc %d", i);
		assert_int_equal(shm_doc_write(&w, 1, text, strlen(text), i, &err), ERR_OK);
		assert_int_equal(shm_doc_read(&r, 1, &b, &at, &gen, &err), ERR_OK);
		assert_string_equal(buf_str(&b), text);
		assert_true(at == i && gen == (uint64_t)i);
	}
	char big[5000] = { 0 };
	assert_int_equal(shm_doc_write(&w, 1, big, sizeof(big), 1, &err), ERR_LIMIT);
	shm_scalar_set(&w, 3, -9);
	assert_true(shm_scalar_get(&r, 3) == -9);
	shm_done(&w);
	/* The writer is gone: the reader keeps the last whole copy. */
	assert_int_equal(shm_doc_read(&r, 1, &b, &at, &gen, &err), ERR_OK);
	assert_string_equal(buf_str(&b), "doc 9");
	shm_done(&r);
}

static int fired;
static void on_timer(struct loop *l, void *arg)
{
	(void)arg;
	if (++fired == 2)
		loop_stop(l);
}

static void test_loop(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct loop l;
	struct loop_timer a = { 0 }, b = { 0 }, c = { 0 };
	loop_init(&l, NULL, NULL);
	loop_timer_set(&l, &a, clock_boot_ms() - 5, on_timer, NULL);
	loop_timer_set(&l, &b, clock_boot_ms() + 20, on_timer, NULL);
	loop_timer_set(&l, &c, clock_boot_ms() + 100000, on_timer, NULL);
	assert_int_equal(loop_run(&l, &err), ERR_OK);
	assert_int_equal(fired, 2);
	loop_done(&l);
	assert_true(c.at_ms == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_str),
		cmocka_unit_test(test_buf),
		cmocka_unit_test(test_ipc),
		cmocka_unit_test(test_shm),
		cmocka_unit_test(test_loop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
