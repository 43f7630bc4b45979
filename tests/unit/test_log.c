/* common/core/log: a descriptor that another process sent is taken only if it can never block us,
 * and a writer that has gone costs no line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/log.h"

static void assert_closed(int fd)
{
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(errno, EBADF);
}

static void test_take(void **state)
{
	(void)state;
	char line[4096];
	int pipes[2], pair[2], other[2];
	assert_int_equal(pipe(pipes), 0);
	assert_false(log_take(pipes[1]));
	assert_closed(pipes[1]);
	close(pipes[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_false(log_take(pair[1]));
	assert_closed(pair[1]);
	close(pair[0]);
	int tcp = socket(AF_INET, SOCK_STREAM, 0);
	assert_false(log_take(tcp));
	assert_closed(tcp);

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_true(log_take(pair[1]));
	log_info("first key=%d", 1);
	ssize_t n = recv(pair[0], line, sizeof(line) - 1, MSG_DONTWAIT);
	assert_true(n > 0);
	line[n] = '\0';
	assert_non_null(strstr(line, "INFO: first key=1\n"));
	/* Full: lost and counted, never waited for. */
	uint64_t lost = log_lost();
	for (int i = 0; i < 100000 && log_lost() == lost; i++)
		log_info("again");
	assert_true(log_lost() > lost);
	assert_false(log_broken());
	/* Another one takes its place, the first is closed. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other), 0);
	assert_true(log_take(other[1]));
	assert_closed(pair[1]);
	close(pair[0]);
	log_info("second");
	n = recv(other[0], line, sizeof(line) - 1, MSG_DONTWAIT);
	assert_true(n > 0);
	/* Its reader has gone: standard error again, without losing the line. */
	lost = log_lost();
	close(other[0]);
	log_info("third");
	assert_true(log_broken());
	assert_int_equal(log_lost(), lost);
	assert_true(log_take(-1));
	assert_closed(other[1]);
	assert_false(log_broken());
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_take) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
