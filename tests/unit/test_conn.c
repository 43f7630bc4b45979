/* The libpq connection: whatever way it ends, the loop must not keep its socket. A server that
 * speaks just enough of the protocol runs in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "worker/postgres/conn.h"

/* AuthenticationOk, ReadyForQuery; then CommandComplete, ReadyForQuery. */
static const char hello[] = { 'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I' };
static const char done[] = { 'C', 0, 0, 0, 9, 'S', 'E', 'T', 'X', 0, 'Z', 0, 0, 0, 5, 'I' };

enum server { ENDS_AT_QUERY, ENDS_AFTER_ANSWER };

static void serve(int lfd, enum server how)
{
	char buf[4096];
	int fd = accept(lfd, NULL, NULL);
	if (fd < 0 || read(fd, buf, sizeof(buf)) <= 0)
		_exit(1);
	if (write(fd, hello, sizeof(hello)) != (ssize_t)sizeof(hello) ||
		read(fd, buf, sizeof(buf)) <= 0)
		_exit(2);
	if (how == ENDS_AFTER_ANSWER && write(fd, done, sizeof(done)) != (ssize_t)sizeof(done))
		_exit(3);
	_exit(0);
}

static struct {
	struct loop loop;
	struct pgc conn;
	enum pgc_failure got;
	bool answered;
} t;

static unsigned watched(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < t.loop.fd_count; i++)
		n += t.loop.fds[i].fd >= 0;
	return n;
}

static void on_answer(struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	(void)c;
	(void)res;
	(void)text;
	(void)arg;
	t.got = f;
	t.answered = true;
}

static void after_turn(struct loop *l, void *arg)
{
	(void)arg;
	if (t.answered && t.conn.state == PGC_CLOSED)
		l->stop = true;
}

static void too_late(struct loop *l, void *arg)
{
	(void)arg;
	l->stop = true;
}

static void run(enum server how, enum pgc_failure expected)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(lfd >= 0);
	assert_int_equal(bind(lfd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(lfd, 1), 0);
	assert_int_equal(getsockname(lfd, (struct sockaddr *)&a, &len), 0);
	pid_t pid = fork();
	if (pid == 0)
		serve(lfd, how);
	assert_true(pid > 0);
	close(lfd);

	struct err err = ERR_INIT;
	char port[16];
	snprintf(port, sizeof(port), "%d", ntohs(a.sin_port));
	memset(&t, 0, sizeof(t));
	loop_init(&t.loop, NULL, NULL);
	t.loop.after_turn = after_turn;
	pgc_init(&t.conn, &t.loop, "test");
	struct pgc_params p = { .count = 0 };
	assert_true(pgc_params_set(&p, "hostaddr", "127.0.0.1"));
	assert_true(pgc_params_set(&p, "port", port));
	assert_true(pgc_params_set(&p, "user", "u"));
	assert_true(pgc_params_set(&p, "sslmode", "disable"));
	assert_true(pgc_params_set(&p, "gssencmode", "disable"));
	assert_true(pgc_configure(&t.conn, &p));
	int64_t now_ms = clock_boot_ms();
	struct loop_timer late = { 0 };
	loop_timer_set(&t.loop, &late, now_ms + 10000, too_late, NULL);
	assert_int_equal(
		pgc_exec(&t.conn, "SET x TO y", NULL, 0, now_ms + 8000, on_answer, NULL, &err),
		ERR_OK);
	assert_int_equal(loop_run(&t.loop, &err), ERR_OK);
	assert_true(t.answered);
	assert_int_equal(t.got, expected);
	assert_int_equal(t.conn.state, PGC_CLOSED);
	assert_int_equal(watched(), 0);
	loop_timer_stop(&t.loop, &late);
	pgc_params_done(&p);
	pgc_done(&t.conn);
	loop_done(&t.loop);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_broken_by_query(void **state)
{
	(void)state;
	run(ENDS_AT_QUERY, PGC_CONNECT);
}

static void test_broken_while_idle(void **state)
{
	(void)state;
	run(ENDS_AFTER_ANSWER, PGC_OK);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_broken_by_query),
		cmocka_unit_test(test_broken_while_idle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
