/* The kill loop on real processes: a tree with a grandchild in a session of its own, holders of the
 * life file's lock that have lost their parent, and neighbours that must live. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/killtree.h"

static struct killtree kt;

struct family {
	pid_t root;
	pid_t pids[4]; /* two children, a grandchild, one with its own session */
	int ready[2];
	int life; /* ours, without a lock */
	char path[64];
};

static pid_t read_pid(int fd)
{
	pid_t pid = 0;
	assert_int_equal(read(fd, &pid, sizeof(pid)), sizeof(pid));
	return pid;
}

static void say_pid(int fd)
{
	pid_t pid = getpid();
	if (write(fd, &pid, sizeof(pid)) != sizeof(pid))
		_exit(1);
}

static void idle_child(int fd)
{
	if (fork() != 0)
		return;
	alarm(20); /* nothing is left of a test that fails */
	say_pid(fd);
	for (;;)
		pause();
}

static void root_main(int fd)
{
	alarm(20);
	idle_child(fd);
	idle_child(fd);
	if (fork() == 0) {
		alarm(20);
		setsid();
		idle_child(fd);
		say_pid(fd);
		for (;;)
			pause();
	}
	for (;;)
		pause();
}

/* The life file: locked by a description that the family inherits, and closed by us. */
static void make_family(struct family *f)
{
	snprintf(f->path, sizeof(f->path), "/tmp/test_killtree.XXXXXX");
	int locked = mkstemp(f->path);
	assert_true(locked >= 0);
	assert_int_equal(flock(locked, LOCK_SH), 0);
	f->life = open(f->path, O_RDWR | O_CLOEXEC);
	assert_true(f->life >= 0);
	assert_int_equal(pipe(f->ready), 0);
	f->root = fork();
	if (f->root == 0)
		root_main(f->ready[1]);
	for (int i = 0; i < 4; i++)
		f->pids[i] = read_pid(f->ready[0]);
	close(locked);
}

static struct killtree_target target_of(const struct family *f)
{
	struct stat st;
	assert_int_equal(fstat(f->life, &st), 0);
	return (struct killtree_target){ .root = f->root,
		.root_pidfd = pidfd_open(f->root, 0),
		.life_dev = st.st_dev,
		.life_ino = st.st_ino,
		.uid = geteuid(),
		.gid = getegid() };
}

static bool is_gone(pid_t pid)
{
	struct killtree_stat st;
	return killtree_stat(pid, &st) < 0 || st.state == 'Z' || st.state == 'X';
}

static bool all_gone(const struct family *f)
{
	bool gone = is_gone(f->root);
	for (int i = 0; i < 4; i++)
		gone &= is_gone(f->pids[i]);
	return gone;
}

static void wait_gone(const struct family *f)
{
	int64_t end_ms = clock_boot_ms() + 5000;
	while (!all_gone(f) && clock_boot_ms() < end_ms)
		usleep(2000);
	assert_true(all_gone(f));
}

static void end_family(struct family *f)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	close(f->life);
	close(f->ready[0]);
	close(f->ready[1]);
	unlink(f->path);
}

static void test_tree(void **state)
{
	(void)state;
	struct family f, other;
	struct killtree_report r;
	make_family(&f);
	make_family(&other);
	struct killtree_target t = target_of(&f);
	t.life_ino = 0; /* as for a job */
	killtree_run(&kt, &t, false, &r);
	assert_true(r.root_signalled);
	/* The direct children come first; what lost its parent by that before it was listed is
	 * found by the life file, as the fence does it. */
	if (r.signalled < 4) {
		struct killtree_report rest;
		killtree_kill_holders(&kt, &t, NULL, 0, &rest);
		r.signalled += rest.signalled;
	}
	assert_in_range(r.signalled, 4, 7);
	assert_int_equal(r.denied, 0);
	assert_false(r.unsettled);
	wait_gone(&f);
	assert_int_equal(flock(f.life, LOCK_EX | LOCK_NB), 0);
	/* The neighbours live, and the life file of one is nobody else's. */
	assert_false(is_gone(other.root));
	assert_false(is_gone(other.pids[0]));
	close(t.root_pidfd);
	/* As the fence does it: first the backends, then what the life file finds. */
	t = target_of(&other);
	cpu_set_t before, after;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	killtree_run(&kt, &t, false, &r);
	/* The processor that it took for itself is given back. */
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&before, &after));
	t.root = 0;
	killtree_kill_holders(&kt, &t, NULL, 0, &r);
	wait_gone(&other);
	close(t.root_pidfd);
	end_family(&f);
	end_family(&other);
}

static void test_orphans(void **state)
{
	(void)state;
	struct family f;
	struct killtree_report r;
	make_family(&f);
	struct killtree_target t = target_of(&f);
	assert_int_equal(kill(f.root, SIGKILL), 0);
	assert_int_equal(waitpid(f.root, NULL, 0), f.root);
	assert_int_equal(flock(f.life, LOCK_EX | LOCK_NB), -1);
	close(t.root_pidfd);
	t.root = 0;
	t.root_pidfd = -1;
	/* We hold the file too, without its lock: we are no part of it. */
	assert_int_equal(killtree_kill_holders(&kt, &t, NULL, 0, &r), 4);
	assert_int_equal(r.signalled, 4);
	wait_gone(&f);
	assert_int_equal(killtree_kill_holders(&kt, &t, NULL, 0, &r), 0);
	end_family(&f);
}

static void test_spared(void **state)
{
	(void)state;
	struct family f;
	struct killtree_report r;
	make_family(&f);
	struct killtree_target t = target_of(&f);
	t.root = 0;
	pid_t spare[2] = { f.pids[0], f.root };
	assert_int_equal(killtree_kill_holders(&kt, &t, spare, 2, &r), 3);
	assert_false(is_gone(f.pids[0]));
	assert_false(is_gone(f.root));
	killtree_kill_holders(&kt, &t, NULL, 0, &r);
	wait_gone(&f);
	close(t.root_pidfd);
	end_family(&f);
}

static void test_blocking(void **state)
{
	(void)state;
	struct family f;
	struct killtree_report r;
	make_family(&f);
	struct killtree_target t = target_of(&f);
	assert_true(killtree_run_blocking(&kt, &t, clock_boot_ms() + 5000, &r));
	wait_gone(&f);
	close(t.root_pidfd);
	end_family(&f);
}

static void test_dead_root(void **state)
{
	(void)state;
	struct family f;
	struct killtree_report r;
	make_family(&f);
	struct killtree_target t = target_of(&f);
	assert_int_equal(kill(f.root, SIGKILL), 0);
	while (!is_gone(f.root))
		usleep(1000);
	/* A zombie: not stopped, and its children are below somebody else now. */
	killtree_run(&kt, &t, true, &r);
	assert_false(r.root_stopped);
	assert_int_equal(r.signalled, 4);
	wait_gone(&f);
	close(t.root_pidfd);
	end_family(&f);
}

static void test_stat(void **state)
{
	(void)state;
	struct killtree_stat st;
	assert_int_equal(prctl(PR_SET_NAME, "a) R 1 (b"), 0);
	assert_int_equal(killtree_stat(getpid(), &st), 0);
	assert_int_equal(st.ppid, getppid());
	assert_int_equal(st.state, 'R');
	assert_true(st.start_ticks > 0);
	assert_int_equal(killtree_stat(0x3fffffff, &st), -1);
	assert_int_equal(errno, ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_orphans),
		cmocka_unit_test(test_spared),
		cmocka_unit_test(test_blocking),
		cmocka_unit_test(test_dead_root),
		cmocka_unit_test(test_stat),
	};
	close_range(3, ~0u, 0); /* what a runner left open is not for the children */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
