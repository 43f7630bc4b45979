/* Shared pages: who may write them, which are taken, and what a writer's death leaves behind. */
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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/buf.h"
#include "common/core/shm.h"

#define DOC_MAX 65536
#define KILLS	60

/* A reader has the descriptor: it can neither write through it nor change its size, nor lift the
 * seals. */
static void test_sealed(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct shm w = SHM_INIT, r = SHM_INIT;
	assert_int_equal(shm_create(&w, "test", 1, DOC_MAX, &err), ERR_OK);
	assert_int_equal(shm_map(&r, w.fd, &err), ERR_OK);
	assert_ptr_equal(
		mmap(NULL, w.size, PROT_READ | PROT_WRITE, MAP_SHARED, w.fd, 0), MAP_FAILED);
	assert_int_equal(errno, EPERM);
	assert_int_equal(mprotect(r.region, r.size, PROT_READ | PROT_WRITE), -1);
	assert_int_equal(write(w.fd, "x", 1), -1);
	assert_int_equal(ftruncate(w.fd, (off_t)w.size - 4096), -1);
	assert_int_equal(ftruncate(w.fd, (off_t)w.size + 4096), -1);
	assert_int_equal(fcntl(w.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_true((fcntl(w.fd, F_GETFD) & FD_CLOEXEC) != 0);
	/* The writer, which mapped it before, still does. */
	shm_scalar_set(&w, 0, 42);
	assert_true(shm_scalar_get(&r, 0) == 42);
	shm_done(&r);
	shm_done(&w);
}

static int memfd(size_t size, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* What a writer that is not to be trusted may send instead of a page. */
static void test_refused(void **state)
{
	(void)state;
	const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
	const struct {
		size_t size;
		int seals;
	} rows[] = { { 1 << 20, all & ~F_SEAL_SHRINK }, { 1 << 20, all & ~F_SEAL_GROW },
		{ 1 << 20, all & ~F_SEAL_FUTURE_WRITE }, { 0, all }, { 16, all }, { 4096, all },
		{ 1 << 20, all } };
	struct err err = ERR_INIT;
	struct shm r = SHM_INIT;
	int pipefd[2];
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		int fd = memfd(rows[i].size, rows[i].seals);
		if (shm_map(&r, fd, &err) != ERR_PROTO || r.region != NULL)
			fail_msg("row %u: %s", i, err.text);
		close(fd);
	}
	assert_int_equal(pipe(pipefd), 0);
	assert_int_equal(shm_map(&r, pipefd[0], &err), ERR_PROTO);
	close(pipefd[0]);
	close(pipefd[1]);
}

static size_t len_of(uint64_t gen)
{
	return 1 + (size_t)(gen * 7919 % DOC_MAX);
}

/* Document number gen has a length and a byte of its own, and says its number in its time. */
static _Noreturn void write_for_ever(struct shm *w, uint64_t gen)
{
	static char bytes[DOC_MAX];
	struct err err = ERR_INIT;
	/* A test that fails leaves at once; its writer must not stay. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(60);
	for (;; gen++) {
		memset(bytes, (int)(gen % 251), len_of(gen));
		if (shm_doc_write(w, 0, bytes, len_of(gen), (int64_t)gen, &err) != ERR_OK)
			_exit(1);
	}
}

static uint64_t read_whole(const struct shm *r, struct buf *b)
{
	struct err err = ERR_INIT;
	int64_t at_ms;
	uint64_t gen;
	enum err_code rc = shm_doc_read(r, 0, b, &at_ms, &gen, &err);
	if (rc == ERR_NOTFOUND || rc == ERR_AGAIN)
		return 0;
	assert_int_equal(rc, ERR_OK);
	assert_true((uint64_t)at_ms == gen && b->len == len_of(gen));
	for (size_t i = 0; i < b->len; i++)
		if ((unsigned char)b->data[i] != gen % 251)
			fail_msg("document %llu is torn at byte %zu", (unsigned long long)gen, i);
	return gen;
}

/* Killed at any instruction: the last complete document is there, never half of the next. */
static void test_killed_writer(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct shm w = SHM_INIT, r = SHM_INIT;
	AUTO(buf) b = BUF_INIT(DOC_MAX + 1);
	assert_int_equal(shm_create(&w, "test", 1, DOC_MAX, &err), ERR_OK);
	assert_int_equal(shm_map(&r, w.fd, &err), ERR_OK);
	uint64_t last = 0;
	for (int i = 0; i < KILLS; i++) {
		uint64_t first = last + 1;
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			write_for_ever(&w, first);
		/* While it writes, too. */
		for (uint64_t seen = 0, tries = 0; seen < first + 3; tries++) {
			uint64_t gen = read_whole(&r, &b);
			assert_true(gen == 0 || gen >= last);
			seen = gen > seen ? gen : seen;
			assert_true(tries < 100000000);
		}
		struct timespec pause = { .tv_nsec = 1000 * (rand() % 400) };
		nanosleep(&pause, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		last = read_whole(&r, &b);
		assert_true(last >= first + 3);
	}
	shm_done(&r);
	shm_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sealed),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_killed_writer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
