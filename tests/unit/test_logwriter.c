/* worker/files/logwriter as a process: lines, rotation, mode, take-over, a directory that is not
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "worker/files/logwriter.h"

static char dir[64], name[128];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_logwriter.XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(name, sizeof(name), "%s/s", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char *argv[] = { "rm", "-rf", dir, NULL };
	pid_t pid = fork();
	if (pid == 0) {
		execv("/bin/rm", argv);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, NULL, 0) != pid;
}

static int start(const char *where, const char *size, const char *num, const char *mode)
{
	char *argv[] = { "x", "--log-writer", name, (char *)where, (char *)size, (char *)num,
		(char *)mode, NULL };
	int status = 0;
	pid_t pid = fork();
	if (pid == 0)
		_exit(logwriter_main(7, argv));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status);
}

static int connect_to(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", name);
	assert_return_code(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* Waits until the file has the text; 5 s at most. */
static void expect(const char *file, const char *text)
{
	char path[192], have[4096] = "";
	int64_t until_ms = clock_boot_ms() + 5000;
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	do {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd >= 0 ? read(fd, have, sizeof(have) - 1) : 0;
		have[n > 0 ? n : 0] = '\0';
		if (fd >= 0)
			close(fd);
		if (strcmp(have, text) == 0)
			return;
		poll(NULL, 0, 10);
	} while (clock_boot_ms() < until_ms);
	assert_string_equal(have, text);
}

static void send_line(int fd, const char *line)
{
	assert_int_equal(send(fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
}

static void test_rotation(void **state)
{
	(void)state;
	struct stat st;
	char path[128];
	assert_int_equal(start(dir, "20", "2", "384"), 0);
	int fd = connect_to();
	send_line(fd, "line one\n");
	expect("patroni.log", "line one\n");
	snprintf(path, sizeof(path), "%s/patroni.log", dir);
	assert_return_code(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	send_line(fd, "line two\n");
	send_line(fd, "line three\n");
	send_line(fd, "line four four four\n");
	send_line(fd, "line five\n");
	expect("patroni.log", "line five\n");
	expect("patroni.log.1", "line four four four\n");
	expect("patroni.log.2", "line three\n");
	snprintf(path, sizeof(path), "%s/patroni.log.3", dir);
	assert_int_equal(access(path, F_OK), -1);
	close(fd);
}

/* A new writer takes the name over; log.c notices that its own has gone and goes on to stderr. */
static void test_take_over(void **state)
{
	(void)state;
	char line[64], path[128];
	int pipes[2];
	assert_int_equal(start(dir, "0", "0", "-1"), 0);
	assert_return_code(pipe(pipes), 0);
	log_open("", pipes[1], LOG_INFO);
	int fd = connect_to();
	snprintf(path, sizeof(path), "%s/patroni.log", dir);
	unlink(path);
	assert_int_equal(start(dir, "0", "0", "-1"), 0);
	int next = connect_to();
	send_line(next, "of the second\n");
	expect("patroni.log", "of the second\n");
	log_reopen(fd);
	assert_false(log_broken());
	shutdown(fd, SHUT_RDWR);
	log_raw("to stderr");
	assert_true(log_broken());
	ssize_t n = read(pipes[0], line, sizeof(line));
	assert_int_equal(n, 10);
	log_reopen(2);
	assert_false(log_broken());
	close(fd);
	close(next);
	close(pipes[0]);
	close(pipes[1]);
	log_open("", 2, LOG_INFO);
}

static void test_refused(void **state)
{
	(void)state;
	assert_int_equal(start("/nonexistent", "0", "0", "-1"), 1);
	assert_int_equal(start(dir, "x", "0", "-1"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_take_over),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
