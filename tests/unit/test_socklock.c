/* worker/files/socklock: only the lock file that our own dead postmaster left is removed. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "tests/unit/scratch.h"
#include "worker/files/ops.h"
#include "worker/files/socklock.h"
#include "worker/files/tree.h"

#define LOCK   ".s.PGSQL.5432.lock"
#define SOCKET ".s.PGSQL.5432"

static struct fs fs;
static struct err err;
static int64_t count;

static int set_up(void **state)
{
	(void)state;
	static const char *const dirs[] = { "data", "other", "run", "run2" };
	assert_true(str_copy(base, sizeof(base), "/tmp/pgregent-test-XXXXXX"));
	assert_non_null(mkdtemp(base));
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		assert_int_equal(mkdir(at(dirs[i]), 0700), 0);
	fs = (struct fs){ .umask = 0022 };
	assert_true(str_copy(fs.data_dir, sizeof(fs.data_dir), at("data")));
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	struct tree t;
	enum tree_step step;
	assert_int_equal(tree_open(&t, base, TREE_REMOVE, &err), ERR_OK);
	while ((step = tree_slice(&t, 10, &err)) == TREE_MORE)
		;
	return step != TREE_DONE;
}

static bool there(const char *name)
{
	struct stat st;
	return lstat(at(name), &st) == 0;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* As PostgreSQL writes it: pid, data directory, start time, port, directory of the socket. */
static void put_lock(const char *name, int pid, const char *data_dir)
{
	char text[1024];
	snprintf(text, sizeof(text), "%d\n%s\n1700000000\n5432\n%s\n", pid, data_dir, base);
	put(name, text);
}

/* Directories are separated by |. */
static enum err_code clear(const char *dirs)
{
	AUTO(buf) tail = BUF_INIT(65536);
	for (const char *p = dirs; *p != '\0'; p++)
		buf_add(&tail, *p == '|' ? "" : p, 1);
	buf_add(&tail, "", 1);
	count = 0;
	err = (struct err)ERR_INIT;
	return socklock_clear(&fs, 5432, tail.data, tail.len, &count, &err);
}

static void assert_left(enum err_code rc, const char *words)
{
	assert_int_equal(clear(at("run")), rc);
	assert_int_equal(count, 0);
	assert_true(there("run/" LOCK));
	if (strstr(err.text, words) == NULL)
		fail_msg("\"%s\" not in \"%s\"", words, err.text);
}

/* Sleeps in a directory, under a name. */
static pid_t sleeper(const char *dir, const char *name)
{
	int ready[2];
	char byte;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (chdir(dir) < 0 || prctl(PR_SET_NAME, name) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_ours(void **state)
{
	(void)state;
	/* Nothing there, not even the directory. */
	assert_int_equal(clear(at("run")), ERR_OK);
	assert_int_equal(count, 0);
	assert_int_equal(clear(at("nowhere")), ERR_OK);
	/* The number is in use again: by us. */
	put_lock("run/" LOCK, getpid(), at("data"));
	put("run/" SOCKET, "");
	put_lock("run/.s.PGSQL.5433.lock", getpid(), at("data"));
	assert_int_equal(clear(at("run")), ERR_OK);
	assert_int_equal(count, 1);
	assert_false(there("run/" LOCK));
	/* The socket itself is PostgreSQL's to replace, and so is all else. */
	assert_true(there("run/" SOCKET));
	assert_true(there("run/.s.PGSQL.5433.lock"));
	/* Of a single-user run; under another name of the directory. */
	assert_int_equal(symlink(at("data"), at("alias")), 0);
	put_lock("run/" LOCK, -getpid(), at("alias"));
	assert_int_equal(clear(at("run")), ERR_OK);
	assert_int_equal(count, 1);
	assert_false(there("run/" LOCK));
}

/* Not reaped yet, but dead: it has no working directory. */
static void test_zombie(void **state)
{
	(void)state;
	siginfo_t info;
	pid_t pid = sleeper(at("data"), "postgres");
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	put_lock("run/" LOCK, pid, at("data"));
	assert_int_equal(clear(at("run")), ERR_OK);
	assert_int_equal(count, 1);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_in_use(void **state)
{
	(void)state;
	char cwd[256];
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	pid_t pid = sleeper(at("data"), "postgres");
	put_lock("run/" LOCK, getpid(), at("data"));
	assert_left(ERR_STATE, "uses the data directory");
	end(pid);
	/* By the number in the file the name does not matter. */
	pid = sleeper(at("data"), "edb-postgres");
	put_lock("run/" LOCK, pid, at("data"));
	assert_left(ERR_STATE, "uses the data directory");
	put_lock("run/" LOCK, getpid(), at("data"));
	assert_int_equal(clear(at("run")), ERR_OK);
	assert_int_equal(count, 1);
	end(pid);
}

static void test_others(void **state)
{
	(void)state;
	static const char *const garbage[] = { "", "12", "12\n", "x\n/data\n", "\n\n\n",
		"-2147483648\n/data\n1\n" };
	put_lock("run/" LOCK, getpid(), at("other"));
	assert_left(ERR_OK, "");
	put_lock("run/" LOCK, getpid(), at("gone"));
	assert_left(ERR_OK, "");
	put_lock("run/" LOCK, getpid(), "."); /* no name that PostgreSQL would write */
	assert_left(ERR_OK, "");
	for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
		put("run/" LOCK, garbage[i]);
		assert_left(ERR_OK, "");
	}
	FILE *f = fopen(at("run/" LOCK), "w");
	assert_non_null(f);
	for (int i = 0; i < 100000; i++)
		fputs("7", f);
	fclose(f);
	assert_left(ERR_OK, "");
	if (geteuid() == 0) {
		put_lock("run/" LOCK, getpid(), at("data"));
		assert_int_equal(chown(at("run/" LOCK), 65534, 65534), 0);
		assert_left(ERR_OK, "");
	}
}

/* Nothing here may block. */
static void test_no_file(void **state)
{
	(void)state;
	put_lock("real", getpid(), at("data"));
	assert_int_equal(symlink(at("real"), at("run/" LOCK)), 0);
	assert_left(ERR_OK, "");
	assert_true(there("real"));
	assert_int_equal(unlink(at("run/" LOCK)), 0);
	assert_int_equal(mkfifo(at("run/" LOCK), 0600), 0);
	alarm(20);
	assert_left(ERR_OK, "");
	alarm(0);
	assert_int_equal(unlink(at("run/" LOCK)), 0);
	assert_int_equal(mkdir(at("run/" LOCK), 0700), 0);
	assert_left(ERR_OK, "");
	assert_int_equal(rmdir(at("run/" LOCK)), 0);
	/* A file where the directory should be. */
	put("file", "");
	assert_int_equal(clear(at("file")), ERR_SYS);
	assert_int_equal(err.sys_errno, ENOTDIR);
}

/* As the worker asks; one that cannot be looked at keeps the others from nothing. */
static void test_several(void **state)
{
	(void)state;
	static struct ops ops;
	struct ops_answer out = { .data = BUF_INIT(65536) };
	struct msg_files_req req = { .op = FILES_CLEAR_SOCKET_LOCKS, .arg = 5432 };
	AUTO(buf) tail = BUF_INIT(65536);
	assert_int_equal(mkdir(at("data/sockets"), 0700), 0);
	put("file", "");
	put_lock("data/sockets/" LOCK, getpid(), at("data"));
	put_lock("run/" LOCK, getpid(), at("other"));
	put_lock("run2/" LOCK, getpid(), at("data"));
	const char *const dirs[] = { at("file"), "sockets", at("run"), at("run2") };
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		buf_add(&tail, dirs[i], strlen(dirs[i]) + 1);
	ops_init(&ops, fs.data_dir, 0022);
	assert_int_equal(ops_run(&ops, &req, tail.data, tail.len, &out, &err), ERR_SYS);
	assert_int_equal(out.value, 2);
	assert_false(there("data/sockets/" LOCK));
	assert_true(there("run/" LOCK));
	assert_false(there("run2/" LOCK));
	/* Bounds. */
	out.value = 0;
	assert_int_equal(ops_run(&ops, &req, NULL, 0, &out, &err), ERR_OK);
	req.arg = 0;
	assert_int_equal(ops_run(&ops, &req, tail.data, tail.len, &out, &err), ERR_INVAL);
	req.arg = 65536;
	assert_int_equal(ops_run(&ops, &req, tail.data, tail.len, &out, &err), ERR_INVAL);
	req.arg = 5432;
	for (int i = 0; i < FILES_SOCKETS_MAX; i++)
		buf_add(&tail, "x", 2);
	assert_int_equal(ops_run(&ops, &req, tail.data, tail.len, &out, &err), ERR_LIMIT);
	assert_int_equal(out.value, 0);
	ops_done(&ops);
	buf_done(&out.data);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_ours),
		CASE(test_zombie),
		CASE(test_in_use),
		CASE(test_others),
		CASE(test_no_file),
		CASE(test_several),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
