/* The program pgregent-deadman itself, left behind by a supervisor that died: which of several goes
 * on, who has the name by which a successor finds it, and that nobody kills a PostgreSQL that
 * another one answers for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/ipc.h"

struct deadman {
	pid_t pid;
	int fd;
};

static char program[4096], dir[64];
static pid_t postmaster, started[8];
static unsigned started_count;
static struct ipc_rx rx;

/* build/<kind>/tests/unit/test_deadman -> build/<kind>/pgregent-deadman */
static int set_up(void **state)
{
	(void)state;
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 40);
	for (int i = 0; i < 3 && n > 0; i++) {
		program[n] = '\0';
		char *slash = strrchr(program, '/');
		n = slash != NULL ? slash - program : 0;
	}
	program[n > 0 ? n : 0] = '\0';
	strncat(program, "/pgregent-deadman", 30);
	snprintf(dir, sizeof(dir), "/tmp/test_deadman.XXXXXX");
	if (mkdtemp(dir) == NULL || access(program, X_OK) < 0)
		return -1;
	postmaster = fork();
	if (postmaster == 0) {
		alarm(30);
		for (;;)
			pause();
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	char path[96];
	int status;
	kill(postmaster, SIGKILL);
	/* After a failure some are left; those that have been waited for are nobody's any more. */
	for (unsigned i = 0; i < started_count; i++)
		if (waitpid(started[i], &status, WNOHANG) == 0)
			kill(started[i], SIGKILL);
	started_count = 0;
	while (waitpid(-1, NULL, 0) > 0)
		;
	snprintf(path, sizeof(path), "%s/deadman.sock", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/lock", dir);
	unlink(path);
	return rmdir(dir);
}

static struct deadman start_deadman(void)
{
	struct err err = ERR_INIT;
	int pair[2];
	assert_int_equal(ipc_pair(pair, &err), ERR_OK);
	struct deadman d = { .fd = pair[0], .pid = fork() };
	if (d.pid == 0) {
		int null = open("/dev/null", O_WRONLY);
		int fd = fcntl(pair[1], F_DUPFD, 10);
		dup2(null, 1);
		dup2(null, 2);
		dup2(fd, 3);
		close_range(4, ~0u, 0);
		execl(program, program, dir, (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	assert_true(started_count < sizeof(started) / sizeof(started[0]));
	started[started_count++] = d.pid;
	return d;
}

/* Tells it a leader of generation 1 under a lease of 20 s; waits until it has acknowledged all. */
static void tell_lease(struct deadman *d, uint64_t seq, int64_t lease_ms)
{
	struct err err = ERR_INIT;
	int64_t now_ms = clock_boot_ms(), end_ms = now_ms + 10000;
	struct msg_dm_state st = { .seq = seq,
		.now_ms = now_ms,
		.sent_at_ms = now_ms,
		.lease_until_ms = now_ms + lease_ms,
		.ttl_ms = 20000,
		.generation = 1,
		.pm_state = PG_PROC_RUNNING,
		.kind = PG_START_PRIMARY };
	struct msg_dm_postmaster p = { .generation = 1, .pid = postmaster, .fd_mask = 1 };
	int pidfd = pidfd_open(postmaster, 0);
	assert_int_equal(ipc_send(d->fd, MSG_DM_STATE, 0, &st, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_int_equal(
		ipc_send(d->fd, MSG_DM_POSTMASTER, 0, &p, NULL, 0, &pidfd, 1, &err), ERR_OK);
	close(pidfd);
	bool done = false;
	while (!done && clock_boot_ms() < end_ms) {
		struct ipc_msg m;
		if (ipc_recv(d->fd, ROLE_DEADMAN, ROLE_SUPERVISOR, &rx, &m, &err) != ERR_OK) {
			usleep(1000);
			continue;
		}
		const struct msg_dm_ack *ack = m.payload;
		done = m.type == MSG_DM_ACK && ack->seq == seq && ack->generation == 1;
	}
	assert_true(done);
}

static void tell(struct deadman *d, uint64_t seq)
{
	tell_lease(d, seq, 20000);
}

/* What a living supervisor holds. */
static int lock_as_supervisor(void)
{
	char path[96];
	snprintf(path, sizeof(path), "%s/lock", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	return fd;
}

static bool has_left(const struct deadman *d, int bound_ms)
{
	int64_t end_ms = clock_boot_ms() + bound_ms;
	int status;
	while (clock_boot_ms() < end_ms) {
		if (waitpid(d->pid, &status, WNOHANG) == d->pid)
			return WIFEXITED(status) && WEXITSTATUS(status) == 0;
		usleep(2000);
	}
	return false;
}

static ino_t name_ino(void)
{
	char path[96];
	struct stat st;
	snprintf(path, sizeof(path), "%s/deadman.sock", dir);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static ino_t name_changes(ino_t from)
{
	int64_t end_ms = clock_boot_ms() + 10000;
	while (name_ino() == from && clock_boot_ms() < end_ms)
		usleep(1000);
	assert_true(name_ino() != from && name_ino() != 0);
	return name_ino();
}

static void test_two_left_behind(void **state)
{
	(void)state;
	struct deadman a = start_deadman();
	tell(&a, 1);
	ino_t ino = name_changes(0);
	struct deadman b = start_deadman();
	tell(&b, 1);
	ino = name_changes(ino);
	close(a.fd); /* the supervisor dies before it could end the first */
	close(b.fd);
	assert_false(has_left(&a, 300));
	assert_false(has_left(&b, 1));
	assert_int_equal(name_ino(), ino); /* the name is not taken away from the second */
	/* The successor: it finds the second, and the first is superseded whenever it looks. */
	int lock = lock_as_supervisor();
	assert_true(has_left(&a, 10000));
	assert_false(has_left(&b, 1));
	struct deadman c = start_deadman();
	tell(&c, 2);
	name_changes(ino);
	assert_true(has_left(&b, 10000));
	close(lock);
	assert_int_equal(kill(postmaster, 0), 0);
	assert_int_equal(waitpid(postmaster, NULL, WNOHANG), 0);
	struct err err = ERR_INIT;
	assert_int_equal(ipc_send(c.fd, MSG_DM_END, 0, NULL, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_true(has_left(&c, 5000));
	assert_int_equal(name_ino(), 0);
	close(c.fd);
}

/* Frozen while its supervisor died and another one came up with a dead-man of its own: what it
 * knows of the lease is spent when it wakes, and no longer true. */
static void test_frozen_while_it_was_succeeded(void **state)
{
	(void)state;
	struct deadman a = start_deadman();
	/* ttl 20 s: it fences half a second before the end, and must be stopped by then. */
	tell_lease(&a, 1, 4000);
	int64_t spent_ms = clock_boot_ms() + 4000;
	ino_t ino = name_changes(0);
	int status;
	assert_int_equal(kill(a.pid, SIGSTOP), 0);
	assert_int_equal(waitpid(a.pid, &status, WUNTRACED), a.pid);
	close(a.fd);
	int lock = lock_as_supervisor();
	struct deadman b = start_deadman();
	tell(&b, 2);
	name_changes(ino);
	while (clock_boot_ms() < spent_ms)
		usleep(10000);
	assert_int_equal(kill(a.pid, SIGCONT), 0);
	assert_true(has_left(&a, 10000));
	assert_int_equal(waitpid(postmaster, NULL, WNOHANG), 0);
	struct err err = ERR_INIT;
	assert_int_equal(ipc_send(b.fd, MSG_DM_END, 0, NULL, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_true(has_left(&b, 10000));
	close(lock);
	close(b.fd);
}

/* Of two that were left behind the one with the name is killed as well: the other takes the name,
 * or a successor would find nobody and know nothing of the lease. */
static void test_name_of_one_that_died(void **state)
{
	(void)state;
	struct deadman a = start_deadman();
	tell(&a, 1);
	ino_t ino = name_changes(0);
	struct deadman b = start_deadman();
	tell(&b, 1);
	ino = name_changes(ino);
	close(a.fd);
	close(b.fd);
	kill(b.pid, SIGKILL);
	assert_int_equal(waitpid(b.pid, NULL, 0), b.pid);
	name_changes(ino);
	assert_false(has_left(&a, 1));
	kill(a.pid, SIGKILL);
	assert_int_equal(waitpid(a.pid, NULL, 0), a.pid);
	assert_int_equal(waitpid(postmaster, NULL, WNOHANG), 0);
}

static void test_ignores_signals(void **state)
{
	(void)state;
	struct deadman a = start_deadman();
	tell(&a, 1);
	kill(a.pid, SIGTERM);
	kill(a.pid, SIGINT);
	kill(a.pid, SIGHUP);
	assert_false(has_left(&a, 100));
	tell(&a, 2);
	struct err err = ERR_INIT;
	assert_int_equal(ipc_send(a.fd, MSG_DM_END, 0, NULL, NULL, 0, NULL, 0, &err), ERR_OK);
	assert_true(has_left(&a, 5000));
	close(a.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_two_left_behind, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_frozen_while_it_was_succeeded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_name_of_one_that_died, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_ignores_signals, set_up, tear_down),
	};
	alarm(60);
	close_range(3, ~0u, 0); /* what a runner left open is not for the children */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
