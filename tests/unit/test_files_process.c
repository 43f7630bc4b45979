/* The program pgregent-files as a process: its conversation with a supervisor, a worker and a
 * dead-man, and its end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/duty.h"
#include "common/core/ipc.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"
#include "common/model/pgstate.h"
#include "worker/files/files_msgs.h"
#include "worker/files/tree.h"

#define WAIT_MS 10000

static char base[64], program[512];
static struct ipc_rx rx;

struct run {
	pid_t pid, victim;
	int sup, worker, deadman;
};

/* ---- a supervisor of our own
 * -------------------------------------------------------------------------- */

/* The next message that is no PING, or ERR_CLOSED. */
static enum err_code receive(int fd, enum ipc_role to, struct ipc_msg *m)
{
	int64_t until = clock_boot_ms() + WAIT_MS;
	for (;;) {
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(fd, ROLE_FILES, to, &rx, m, &err);
		if (rc == ERR_OK && m->type == MSG_PING)
			continue;
		if (rc != ERR_AGAIN)
			return rc;
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (clock_boot_ms() > until)
			return ERR_TIMEOUT;
		poll(&p, 1, 100);
	}
}

static void send_to(int fd, enum msg_type type, uint64_t id, const void *payload, const void *tail,
	size_t len, int pass)
{
	struct err err = ERR_INIT;
	if (ipc_send(fd, type, id, payload, tail, len, &pass, pass >= 0 ? 1 : 0, &err) != ERR_OK)
		fail_msg("%s", err.text);
}

static int connect_peer(const struct run *r, enum ipc_role role)
{
	int pair[2];
	struct err err = ERR_INIT;
	assert_int_equal(ipc_pair(pair, &err), ERR_OK);
	struct msg_peer m = { .role = role, .incarnation = 1 };
	send_to(r->sup, MSG_PEER, 0, &m, NULL, 0, pair[1]);
	close(pair[1]);
	return pair[0];
}

static void start(struct run *r)
{
	int pair[2];
	struct err err = ERR_INIT;
	*r = (struct run){ .worker = -1, .deadman = -1 };
	assert_int_equal(ipc_pair(pair, &err), ERR_OK);
	r->pid = fork();
	assert_true(r->pid >= 0);
	if (r->pid == 0) {
		if (dup2(pair[1], 3) < 0 || (pair[1] == 3 && fcntl(3, F_SETFD, 0) < 0))
			_exit(126);
		execl(program, program, NULL);
		_exit(127);
	}
	close(pair[1]);
	r->sup = pair[0];
	struct ipc_msg m;
	assert_int_equal(receive(r->sup, ROLE_SUPERVISOR, &m), ERR_OK);
	assert_int_equal(m.type, MSG_HELLO);
	assert_int_equal(((const struct msg_hello *)m.payload)->pid, r->pid);
	struct msg_welcome w = { .incarnation = 1 };
	snprintf(w.data_dir, sizeof(w.data_dir), "%s/data", base);
	snprintf(w.runtime_dir, sizeof(w.runtime_dir), "%s/run", base);
	send_to(r->sup, MSG_WELCOME, 0, &w, NULL, 0, -1);
	assert_int_equal(receive(r->sup, ROLE_SUPERVISOR, &m), ERR_OK);
	assert_int_equal(m.type, MSG_READY);
	r->worker = connect_peer(r, ROLE_WORKER);
	r->deadman = connect_peer(r, ROLE_DEADMAN);
}

/* Something that holds the life file with a shared lock, as every process of PostgreSQL does. */
static void start_victim(struct run *r)
{
	int ready[2];
	char life[100], byte;
	snprintf(life, sizeof(life), "%s/run/life", base);
	assert_int_equal(pipe(ready), 0);
	r->victim = fork();
	assert_true(r->victim >= 0);
	if (r->victim == 0) {
		/* None of our sockets: a copy of one would keep it open. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setsid();
		if (dup2(ready[1], 0) < 0 || close_range(1, ~0u, 0) < 0)
			_exit(1);
		int fd = open(life, O_RDWR);
		if (fd < 0 || flock(fd, LOCK_SH) < 0 || write(0, "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
}

static int wait_end(pid_t pid)
{
	int64_t until = clock_boot_ms() + WAIT_MS;
	int status;
	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);
		if (got == pid)
			return status;
		if (got < 0 || clock_boot_ms() > until) {
			kill(pid, SIGKILL);
			fail_msg("process %d did not end", pid);
		}
		poll(NULL, 0, 5);
	}
}

static void close_all(struct run *r)
{
	close(r->sup);
	if (r->worker >= 0)
		close(r->worker);
	if (r->deadman >= 0)
		close(r->deadman);
}

static bool victim_lives(const struct run *r)
{
	return waitpid(r->victim, NULL, WNOHANG) == 0;
}

static void end_victim(const struct run *r)
{
	kill(r->victim, SIGKILL);
	waitpid(r->victim, NULL, 0);
}

/* ---- tests
 * -------------------------------------------------------------------------------------------- */

static void put(const char *name, const char *text, size_t len)
{
	char path[200];
	snprintf(path, sizeof(path), "%s/%s", base, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
}

static enum err_code ask(struct run *r, struct msg_files_req req, const void *tail, size_t len,
	struct buf *data, struct msg_files_answer *a)
{
	static uint64_t id = 100;
	struct ipc_msg m;
	send_to(r->worker, MSG_FILES_REQ, ++id, &req, tail, len, -1);
	do {
		enum err_code rc = receive(r->worker, ROLE_WORKER, &m);
		if (rc != ERR_OK)
			return rc;
		assert_int_equal(m.type, MSG_FILES_ANSWER);
		assert_int_equal(m.id, id);
		memcpy(a, m.payload, sizeof(*a));
		buf_add(data, m.tail, m.tail_len);
	} while (a->more);
	return ERR_OK;
}

static void test_requests(void **state)
{
	(void)state;
	struct run r;
	struct ipc_msg m;
	struct msg_pmpid_read held = { 0 };
	start(&r);
	send_to(r.sup, MSG_PMPID_READ, 7, &held, NULL, 0, -1);
	assert_int_equal(receive(r.sup, ROLE_SUPERVISOR, &m), ERR_OK);
	assert_int_equal(m.type, MSG_PMPID);
	assert_int_equal(m.id, 7);
	assert_int_equal(((const struct msg_pmpid *)m.payload)->pid, 0);
	/* The lock of the directory comes with it; nobody else gets it while that is open. */
	assert_int_equal(m.fd_count, 1);
	int lock = m.fds[0];
	send_to(r.sup, MSG_PMPID_READ, 6, &held, NULL, 0, -1);
	assert_int_equal(receive(r.sup, ROLE_SUPERVISOR, &m), ERR_OK);
	assert_int_equal(m.type, MSG_ANSWER);
	assert_int_equal(((const struct msg_answer *)m.payload)->code, ANSWER_REFUSED);
	struct stat st;
	assert_int_equal(fstat(lock, &st), 0);
	held.locked_dev = st.st_dev;
	held.locked_ino = st.st_ino;
	put("data/postmaster.pid", "99999999\n/x\n1\n5432\n", 19);
	send_to(r.sup, MSG_PMPID_READ, 8, &held, NULL, 0, -1);
	assert_int_equal(receive(r.sup, ROLE_SUPERVISOR, &m), ERR_OK);
	struct msg_pmpid p;
	memcpy(&p, m.payload, sizeof(p));
	assert_int_equal(p.pid, 99999999);
	assert_int_equal(m.fd_count, 0);
	close(lock);
	struct msg_pmpid_remove rm = { .file_id = p.file_id + 1, .pid = p.pid };
	send_to(r.sup, MSG_PMPID_REMOVE, 9, &rm, NULL, 0, -1);
	assert_int_equal(receive(r.sup, ROLE_SUPERVISOR, &m), ERR_OK);
	assert_int_equal(((const struct msg_answer *)m.payload)->code, ANSWER_REFUSED);
	rm.file_id = p.file_id;
	send_to(r.sup, MSG_PMPID_REMOVE, 10, &rm, NULL, 0, -1);
	assert_int_equal(receive(r.sup, ROLE_SUPERVISOR, &m), ERR_OK);
	assert_int_equal(((const struct msg_answer *)m.payload)->code, ANSWER_OK);

	/* An answer of many frames, and one in between to a worker that does not read for a while.
	 */
	static char big[400000];
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 + i / 1000);
	put("data/big", big, sizeof(big));
	struct msg_files_answer a;
	AUTO(buf) data = BUF_INIT(1 << 20);
	assert_int_equal(
		ask(&r, (struct msg_files_req){ .op = FILES_READ }, "big", 4, &data, &a), ERR_OK);
	assert_int_equal(a.code, ANSWER_OK);
	assert_int_equal(data.len, sizeof(big));
	assert_memory_equal(data.data, big, sizeof(big));
	for (uint64_t i = 0; i < 5; i++)
		send_to(r.worker, MSG_FILES_REQ, 1000 + i,
			&(struct msg_files_req){ .op = FILES_READ }, "big", 4, -1);
	send_to(r.worker, MSG_FILES_REQ, 2000, &(struct msg_files_req){ .op = FILES_SIZE }, "", 1,
		-1);
	send_to(r.worker, MSG_FILES_REQ, 2001, &(struct msg_files_req){ .op = FILES_CLEAR_DIR }, "",
		1, -1);
	send_to(r.worker, MSG_FILES_REQ, 2002, &(struct msg_files_req){ .op = FILES_PROBE }, NULL,
		0, -1);
	unsigned answers = 0, refused = 0;
	while (answers < 8) {
		assert_int_equal(receive(r.worker, ROLE_WORKER, &m), ERR_OK);
		memcpy(&a, m.payload, sizeof(a));
		answers += a.more == 0;
		refused += a.more == 0 && a.code == ANSWER_REFUSED;
		if (m.id == 2002)
			assert_int_equal(m.tail_len, sizeof(struct pg_files));
	}
	assert_int_equal(refused, 1); /* two slow ones at a time */
	buf_reset(&data);
	assert_int_equal(
		ask(&r, (struct msg_files_req){ .op = FILES_READ }, "none", 5, &data, &a), ERR_OK);
	assert_int_equal(a.code, ANSWER_FAILED);
	assert_int_equal(a.sys_errno, ENOENT);
	assert_true(data.len > 0);
	/* A message that is not the worker's costs it the connection; the next worker is served. */
	send_to(r.worker, MSG_LEASE, 1, &(struct msg_lease){ .seq = 1 }, NULL, 0, -1);
	assert_int_equal(receive(r.worker, ROLE_WORKER, &m), ERR_CLOSED);
	close(r.worker);
	r.worker = connect_peer(&r, ROLE_WORKER);
	buf_reset(&data);
	assert_int_equal(
		ask(&r, (struct msg_files_req){ .op = FILES_PROBE }, NULL, 0, &data, &a), ERR_OK);
	assert_int_equal(a.code, ANSWER_OK);
	/* An order to end ends it, without a fence. */
	start_victim(&r);
	send_to(r.sup, MSG_ORDER, 0, &(struct msg_order){ .kind = ORDER_SHUTDOWN }, NULL, 0, -1);
	assert_int_equal(wait_end(r.pid), 0);
	assert_true(victim_lives(&r));
	end_victim(&r);
	close_all(&r);
}

static void test_sigterm(void **state)
{
	(void)state;
	struct run r;
	start(&r);
	start_victim(&r);
	kill(r.pid, SIGTERM);
	assert_int_equal(wait_end(r.pid), 0);
	assert_true(victim_lives(&r));
	end_victim(&r);
	close_all(&r);
}

/* A message with more descriptors than it should have leaves none behind (found by the fuzzer). */
static void test_descriptors_too_many(void **state)
{
	(void)state;
	struct run r;
	struct err err = ERR_INIT;
	struct ipc_msg m;
	struct msg_pmpid_read q = { 0 };
	int ends[2];
	start(&r);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	int both[2] = { ends[1], ends[1] };
	assert_int_equal(ipc_send(r.sup, MSG_LOG, 0, NULL, NULL, 0, both, 2, &err), ERR_OK);
	close(ends[1]);
	send_to(r.sup, MSG_PMPID_READ, 1, &q, NULL, 0, -1); /* answered after it */
	assert_int_equal(receive(r.sup, ROLE_SUPERVISOR, &m), ERR_OK);
	for (int i = 0; i < m.fd_count; i++)
		close(m.fds[i]);
	struct pollfd p = { .fd = ends[0], .events = POLLIN };
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_true(p.revents & POLLHUP); /* nobody has the other end */
	close(ends[0]);
	kill(r.pid, SIGTERM);
	assert_int_equal(wait_end(r.pid), 0);
	close_all(&r);
}

/* The supervisor dies, then the dead-man: PostgreSQL is killed. */
static void test_last_fence(void **state)
{
	(void)state;
	struct run r;
	start(&r);
	start_victim(&r);
	close(r.sup);
	poll(NULL, 0, 200);
	assert_int_equal(waitpid(r.pid, NULL, WNOHANG), 0); /* the dead-man enforces: we watch it */
	assert_true(victim_lives(&r));
	close(r.deadman);
	int status = wait_end(r.victim);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(wait_end(r.pid), 0);
	close(r.worker);
}

static void lock_path(char *out, size_t size)
{
	snprintf(out, size, "%s/run/lock", base);
}

static int open_lock(void)
{
	char path[100];
	lock_path(path, sizeof(path));
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

/* As another supervisor, or another dead-man, that can be seen. */
static int other_enforcer(bool supervisor)
{
	char path[100];
	int fd = open_lock();
	if (supervisor) {
		assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
		return fd;
	}
	close(fd);
	lock_path(path, sizeof(path));
	fd = duty_enforce(path);
	assert_true(fd >= 0);
	return fd;
}

static void stays(const struct run *r)
{
	poll(NULL, 0, 100);
	assert_int_equal(waitpid(r->pid, NULL, WNOHANG), 0);
	assert_true(victim_lives(r));
}

/* Supervisor and dead-man are gone, but another of either kind enforces: nothing is killed, and it
 * is watched until another helper does that. */
static void test_relieved(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct run r;
		char path[100];
		int other = other_enforcer(i == 0);
		start(&r);
		start_victim(&r);
		close(r.deadman);
		close(r.sup);
		stays(&r);
		lock_path(path, sizeof(path));
		/* A brother is none: he may be ending just now. */
		int brother = duty_watch(path, getpid());
		assert_true(brother >= 0);
		stays(&r);
		int relief = duty_watch(path, getpid() + (i == 0 ? 1 : -1));
		assert_true(relief >= 0);
		assert_int_equal(wait_end(r.pid), 0);
		assert_true(victim_lives(&r));
		end_victim(&r);
		close(r.worker);
		close(brother);
		close(relief);
		close(other);
	}
}

/* The other one dies before anybody else has come to watch it, but for a brother that is stopped.
 */
static void test_last_fence_late(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct run r;
		char path[100];
		close(open_lock());
		lock_path(path, sizeof(path));
		int brother = duty_watch(path, getpid());
		assert_true(brother >= 0);
		int other = other_enforcer(i == 0);
		start(&r);
		start_victim(&r);
		close(r.deadman);
		close(r.sup);
		stays(&r);
		close(other);
		int status = wait_end(r.victim);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_int_equal(wait_end(r.pid), 0);
		close(r.worker);
		close(brother);
	}
}

/* The one that watches a dead-man is seen on duty until it ends. */
static void test_on_duty(void **state)
{
	(void)state;
	struct run r;
	char path[100];
	close(open_lock());
	lock_path(path, sizeof(path));
	assert_false(duty_watched(path, 0));
	start(&r);
	int64_t until_ms = clock_boot_ms() + WAIT_MS;
	while (!duty_watched(path, 0) && clock_boot_ms() < until_ms)
		poll(NULL, 0, 5);
	assert_true(duty_watched(path, 0));
	assert_false(duty_enforced(path));
	kill(r.pid, SIGTERM);
	assert_int_equal(wait_end(r.pid), 0);
	assert_false(duty_watched(path, 0));
	close_all(&r);
}

/* The last policy was pause, or the dead-man has said that it leaves in order: nothing is killed.
 */
static void test_no_fence(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct run r;
		struct err err = ERR_INIT;
		struct shm page = SHM_INIT;
		start(&r);
		start_victim(&r);
		if (i == 0) {
			assert_int_equal(shm_create(&page, "test", 0, 0, &err), ERR_OK);
			shm_scalar_set(&page, SUP_POLICY, POLICY_PAUSED);
			struct msg_page m = { .role = ROLE_SUPERVISOR, .incarnation = 1 };
			send_to(r.sup, MSG_PAGE, 0, &m, NULL, 0, page.fd);
		} else {
			send_to(r.deadman, MSG_PING, 0, &(struct msg_ping){ .sent_at_ms = 1 }, NULL,
				0, -1);
		}
		close(r.deadman);
		close(r.sup);
		assert_int_equal(wait_end(r.pid), 0);
		if (!victim_lives(&r))
			fail_msg("case %d", i);
		end_victim(&r);
		close(r.worker);
		shm_done(&page);
	}
}

static void test_usage(void **state)
{
	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(3);
		close(2);
		execl(program, program, NULL);
		_exit(127);
	}
	int status = wait_end(pid);
	assert_int_equal(WEXITSTATUS(status), 2);
}

static int setup(void **state)
{
	(void)state;
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	assert_true(n > 0);
	program[n] = '\0';
	/* build/<kind>/tests/unit/<this> -> build/<kind>/pgregent-files */
	for (int i = 0; i < 3; i++)
		*strrchr(program, '/') = '\0';
	assert_true(strlen(program) + 20 < sizeof(program));
	memcpy(program + strlen(program), "/pgregent-files", sizeof("/pgregent-files"));
	assert_true(str_copy(base, sizeof(base), "/tmp/pgregent-test-XXXXXX"));
	assert_non_null(mkdtemp(base));
	char path[100];
	snprintf(path, sizeof(path), "%s/data", base);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/run", base);
	assert_int_equal(mkdir(path, 0700), 0);
	put("run/life", "", 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	struct tree t;
	struct err err = ERR_INIT;
	assert_int_equal(tree_open(&t, base, TREE_REMOVE, &err), ERR_OK);
	return tree_slice(&t, 100000, &err) == TREE_DONE ? 0 : 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_sigterm),
		cmocka_unit_test(test_descriptors_too_many),
		cmocka_unit_test(test_last_fence),
		cmocka_unit_test(test_relieved),
		cmocka_unit_test(test_last_fence_late),
		cmocka_unit_test(test_on_duty),
		cmocka_unit_test(test_no_fence),
		cmocka_unit_test(test_usage),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
