/* The dead-man without its program: a socket, a real process in the place of the postmaster, a real
 * life file and lifeline. What it acknowledges, when it kills, what it hands to a successor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "supervisor/dm_core.h"
#include "supervisor/lifeline.h"

struct scene {
	struct dm dm;
	int sup; /* the supervisor's end */
	pid_t pm;
	int pidfd, life, line[2];
	char path[64];
	uint64_t seq;
	struct ipc_rx rx;
};

static struct ipc_rx rx;

static struct scene *new_scene(void)
{
	struct scene *s = calloc(1, sizeof(*s));
	struct err err = ERR_INIT;
	int pair[2], ready[2];
	char byte;
	assert_non_null(s);
	assert_int_equal(ipc_pair(pair, &err), ERR_OK);
	s->sup = pair[0];
	dm_init(&s->dm, pair[1], clock_boot_ms());
	snprintf(s->path, sizeof(s->path), "/tmp/test_dm_core.XXXXXX");
	int locked = mkstemp(s->path);
	assert_true(locked >= 0);
	assert_int_equal(flock(locked, LOCK_SH), 0);
	s->life = open(s->path, O_RDWR | O_CLOEXEC);
	assert_int_equal(lifeline_open(s->line, &err), ERR_OK);
	assert_int_equal(pipe(ready), 0);
	s->pm = fork();
	if (s->pm == 0) {
		close(s->line[1]); /* what exec would close */
		close(s->sup);
		close(s->dm.conn_fd);
		if (lifeline_own(s->line[0]) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		close(ready[1]);
		alarm(30);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	close(locked);
	s->pidfd = pidfd_open(s->pm, 0);
	assert_true(s->pidfd >= 0);
	return s;
}

static void end_scene(struct scene *s)
{
	dm_done(&s->dm);
	kill(s->pm, SIGKILL);
	waitpid(s->pm, NULL, 0);
	int fds[] = { s->sup, s->pidfd, s->life, s->line[0], s->line[1] };
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	unlink(s->path);
	free(s);
}

static void send_msg(
	struct scene *s, enum msg_type type, const void *payload, const int *fds, int count)
{
	struct err err = ERR_INIT;
	assert_int_equal(ipc_send(s->sup, type, 0, payload, NULL, 0, fds, count, &err), ERR_OK);
}

static struct msg_dm_state state_of(struct scene *s, int64_t lease_in_ms)
{
	int64_t now_ms = clock_boot_ms();
	return (struct msg_dm_state){ .seq = ++s->seq,
		.now_ms = now_ms,
		.sent_at_ms = now_ms,
		.lease_until_ms = now_ms + lease_in_ms,
		.ttl_ms = 3000,
		.generation = 1,
		.pm_state = PG_PROC_RUNNING,
		.kind = PG_START_PRIMARY };
}

static void send_postmaster(struct scene *s)
{
	struct msg_dm_postmaster p = { .generation = 1, .pid = s->pm, .fd_mask = 15 };
	int fds[] = { s->pidfd, s->life, s->line[0], s->line[1] };
	send_msg(s, MSG_DM_POSTMASTER, &p, fds, 4);
}

/* The last acknowledgement that is there. */
static struct msg_dm_ack last_ack(struct scene *s)
{
	struct msg_dm_ack ack = { 0 };
	struct ipc_msg m;
	struct err err = ERR_INIT;
	while (ipc_recv(s->sup, ROLE_DEADMAN, ROLE_SUPERVISOR, &s->rx, &m, &err) == ERR_OK) {
		if (m.type == MSG_DM_ACK)
			ack = *(const struct msg_dm_ack *)m.payload;
		for (int i = 0; i < m.fd_count; i++)
			close(m.fds[i]);
	}
	return ack;
}

static bool postmaster_killed(struct scene *s, int bound_ms)
{
	int64_t end_ms = clock_boot_ms() + bound_ms;
	int status = 0;
	while (clock_boot_ms() < end_ms) {
		dm_tick(&s->dm, clock_boot_ms());
		if (waitpid(s->pm, &status, WNOHANG) == s->pm) {
			s->pm = fork(); /* for end_scene */
			if (s->pm == 0)
				_exit(0);
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		}
		usleep(1000);
	}
	return false;
}

static void test_acknowledges(void **state)
{
	(void)state;
	struct scene *s = new_scene();
	struct msg_dm_state st = state_of(s, 3000);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	struct msg_dm_ack ack = last_ack(s);
	assert_int_equal(ack.seq, 1);
	assert_int_equal(ack.generation, 0); /* no pidfd yet */
	send_postmaster(s);
	assert_true(dm_read(&s->dm));
	ack = last_ack(s);
	assert_int_equal(ack.seq, 1);
	assert_int_equal(ack.generation, 1);
	assert_false(ack.fencing);
	assert_true(fcntl(s->line[0], F_GETFL) & O_ASYNC); /* the kernel is armed */
	st = state_of(s, 3000);
	st.policy = POLICY_PAUSED;
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	assert_false(fcntl(s->line[0], F_GETFL) & O_ASYNC);
	end_scene(s);
}

static void test_fences_at_the_end_of_the_lease(void **state)
{
	(void)state;
	struct scene *s = new_scene();
	/* ttl 3 s: margin 1 s, the dead-man fences half a second before the end. The time is ours.
	 */
	struct msg_dm_state st = state_of(s, 3000);
	int64_t fence_ms = st.lease_until_ms - 500;
	send_postmaster(s);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	dm_tick(&s->dm, clock_boot_ms());
	assert_int_equal(s->dm.guard.pm_state, PG_PROC_RUNNING);
	dm_tick(&s->dm, fence_ms - 1);
	assert_int_equal(s->dm.guard.pm_state, PG_PROC_RUNNING);
	assert_int_equal(waitpid(s->pm, NULL, WNOHANG), 0);
	assert_false(last_ack(s).fencing);
	dm_tick(&s->dm, fence_ms);
	assert_int_not_equal(s->dm.guard.pm_state, PG_PROC_RUNNING);
	assert_true(postmaster_killed(s, 5000));
	assert_true(last_ack(s).fencing);
	/* The proof comes from the lock, and then it is idle. */
	int64_t end_ms = clock_boot_ms() + 5000;
	while (s->dm.guard.pm_state != PG_PROC_NONE && clock_boot_ms() < end_ms) {
		dm_postmaster_gone(&s->dm);
		dm_tick(&s->dm, clock_boot_ms());
		usleep(1000);
	}
	assert_int_equal(s->dm.guard.pm_state, PG_PROC_NONE);
	assert_false(s->dm.ended); /* its supervisor lives */
	end_scene(s);
}

static void test_orphan_with_a_spent_lease(void **state)
{
	(void)state;
	struct scene *s = new_scene();
	struct msg_dm_state st = state_of(s, 700);
	send_postmaster(s);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	close(s->sup);
	s->sup = -1;
	assert_false(dm_read(&s->dm));
	assert_int_equal(s->dm.conn_fd, -1);
	assert_true(postmaster_killed(s, 5000));
	int64_t end_ms = clock_boot_ms() + 10000;
	while (!s->dm.ended && clock_boot_ms() < end_ms) {
		dm_postmaster_gone(&s->dm);
		dm_tick(&s->dm, clock_boot_ms());
		usleep(1000);
	}
	assert_true(s->dm.ended);
	end_scene(s);
}

/* A helper hears a word only from one that had something to enforce and leaves in order: anything
 * else makes it look for other enforcers. */
static void test_farewell(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		bool with_state, ended, superseded, heard;
	} rows[] = {
		{ "ended by its supervisor", true, true, false, true },
		{ "ended before it knew anything", false, true, false, false },
		{ "lost its supervisor before it knew anything", false, false, false, false },
		{ "superseded", true, false, true, false },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct scene *s = new_scene();
		struct msg_peer peer = { .role = ROLE_FILES, .incarnation = 1 };
		struct msg_dm_state st = state_of(s, 60000);
		struct err err = ERR_INIT;
		struct ipc_msg m;
		int pair[2];
		assert_int_equal(ipc_pair(pair, &err), ERR_OK);
		send_msg(s, MSG_PEER, &peer, &pair[1], 1);
		close(pair[1]);
		if (rows[i].with_state) {
			send_postmaster(s);
			send_msg(s, MSG_DM_STATE, &st, NULL, 0);
		}
		if (rows[i].ended)
			send_msg(s, MSG_DM_END, NULL, NULL, 0);
		close(s->sup);
		s->sup = -1;
		while (dm_read(&s->dm) && !s->dm.ended)
			;
		dm_tick(&s->dm, clock_boot_ms());
		if (rows[i].superseded)
			s->dm.ended = true; /* as deadman.c does it */
		assert_true(s->dm.ended);
		end_scene(s);
		bool heard = ipc_recv(pair[0], ROLE_DEADMAN, ROLE_FILES, &rx, &m, &err) == ERR_OK;
		if (heard != rows[i].heard)
			fail_msg("%s", rows[i].what);
		close(pair[0]);
	}
}

static void test_bad_messages(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		uint64_t generation;
		int32_t pid; /* 0 = that of the postmaster */
		uint32_t mask;
	} rows[] = {
		{ "two named, one came", 1, 0, 3 },
		{ "a descriptor that nobody knows", 1, 0, 16 },
		{ "no pidfd", 1, 0, 2 },
		{ "a number that is no process", 1, -7, 1 },
		{ "no generation, and yet a process", 0, 0, 1 },
		{ "no generation, and a number that is no process", 0, -7, 2 },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct scene *s = new_scene();
		struct msg_dm_postmaster p = { .generation = rows[i].generation,
			.pid = rows[i].pid != 0 ? rows[i].pid : s->pm,
			.fd_mask = rows[i].mask };
		int fds[] = { s->pidfd };
		send_msg(s, MSG_DM_POSTMASTER, &p, fds, 1);
		if (dm_read(&s->dm))
			fail_msg("%s", rows[i].what);
		assert_int_equal(s->dm.conn_fd, -1);
		assert_int_equal(s->dm.fds[DM_FD_PIDFD], -1);
		assert_int_equal(s->dm.held_pid, 0);
		end_scene(s);
	}
	struct scene *s = new_scene();
	assert_int_equal(write(s->sup, "garbage", 7), 7);
	assert_false(dm_read(&s->dm));
	end_scene(s);
}

/* The postmaster has ended and its proof is not in: a dead-man that starts then gets the life file
 * alone, and is as good as any. */
static void test_postmaster_that_is_gone(void **state)
{
	(void)state;
	struct scene *s = new_scene();
	struct msg_dm_state st = state_of(s, 3000);
	struct msg_dm_postmaster p = { .generation = 1, .fd_mask = 1u << DM_FD_LIFE };
	st.pm_state = PG_PROC_FENCING;
	st.killed = 1;
	send_msg(s, MSG_DM_POSTMASTER, &p, &s->life, 1);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	assert_true(s->dm.conn_fd >= 0 && s->dm.root_gone);
	assert_int_equal(last_ack(s).seq, st.seq);
	/* The supervisor dies before it has the proof: the dead-man finds it. Whoever holds the
	 * life file is not looked for by parent, since there is none. */
	close(s->sup);
	s->sup = -1;
	kill(s->pm, SIGKILL);
	waitpid(s->pm, NULL, 0);
	assert_false(dm_read(&s->dm));
	int64_t end_ms = clock_boot_ms() + 10000;
	while (!s->dm.ended && clock_boot_ms() < end_ms)
		dm_tick(&s->dm, clock_boot_ms());
	assert_int_equal(s->dm.guard.pm_state, PG_PROC_NONE);
	assert_true(s->dm.ended);
	end_scene(s);
}

static void test_hand_over(void **state)
{
	(void)state;
	struct scene *s = new_scene();
	struct err err = ERR_INIT;
	struct msg_dm_state st = state_of(s, 3000), got_state = { 0 };
	struct msg_dm_postmaster got = { 0 };
	int pair[2];
	assert_int_equal(ipc_pair(pair, &err), ERR_OK);
	send_postmaster(s);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	assert_false(dm_take_successor(&s->dm, pair[1], 1)); /* there is a supervisor */
	close(s->sup);
	s->sup = pair[0];
	assert_false(dm_read(&s->dm));
	assert_true(s->dm.guard.orphan_until_ms > 0);
	assert_true(dm_take_successor(&s->dm, pair[1], getpid()));
	send_msg(s, MSG_DM_TAKEOVER, NULL, NULL, 0);
	assert_true(dm_read(&s->dm));
	struct ipc_msg m;
	assert_int_equal(ipc_recv(s->sup, ROLE_DEADMAN, ROLE_SUPERVISOR, &s->rx, &m, &err), ERR_OK);
	assert_int_equal(m.type, MSG_DM_STATE);
	memcpy(&got_state, m.payload, sizeof(got_state));
	assert_int_equal(got_state.lease_until_ms, st.lease_until_ms);
	assert_int_equal(got_state.postmaster_pid, s->pm);
	assert_int_equal(got_state.pm_state, PG_PROC_RUNNING);
	assert_int_equal(ipc_recv(s->sup, ROLE_DEADMAN, ROLE_SUPERVISOR, &s->rx, &m, &err), ERR_OK);
	assert_int_equal(m.type, MSG_DM_POSTMASTER);
	memcpy(&got, m.payload, sizeof(got));
	assert_int_equal(m.fd_count, 4);
	assert_int_equal(got.fd_mask, 15);
	assert_int_equal(pidfd_send_signal(m.fds[0], 0, NULL, 0), 0); /* it is the postmaster's */
	for (int i = 0; i < m.fd_count; i++)
		close(m.fds[i]);
	/* The first state of the successor ends the grace; an older one is not believed. */
	got_state.seq++;
	got_state.lease_until_ms += 1000;
	got_state.sent_at_ms += 1000;
	send_msg(s, MSG_DM_STATE, &got_state, NULL, 0);
	assert_true(dm_read(&s->dm));
	assert_int_equal(s->dm.guard.orphan_until_ms, 0);
	assert_int_equal(s->dm.guard.lease_until_ms, st.lease_until_ms + 1000);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	assert_int_equal(s->dm.guard.lease_until_ms, st.lease_until_ms + 1000);
	send_msg(s, MSG_DM_END, NULL, NULL, 0);
	assert_true(dm_read(&s->dm));
	assert_true(s->dm.ended);
	assert_int_equal(kill(s->pm, 0), 0); /* nothing happened to PostgreSQL */
	end_scene(s);
}

static void test_lifeline(void **state)
{
	/* Both enforcers gone: every write end closed. The kernel kills, nobody else is left to. */
	(void)state;
	struct scene *s = new_scene();
	struct msg_dm_state st = state_of(s, 3000);
	send_postmaster(s);
	send_msg(s, MSG_DM_STATE, &st, NULL, 0);
	assert_true(dm_read(&s->dm));
	close(s->line[1]);
	s->line[1] = -1;
	usleep(20000);
	assert_int_equal(waitpid(s->pm, NULL, WNOHANG), 0); /* the dead-man holds it still */
	dm_done(&s->dm);
	int status = 0;
	assert_int_equal(waitpid(s->pm, &status, 0), s->pm);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	s->pm = fork();
	if (s->pm == 0)
		_exit(0);
	end_scene(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_acknowledges),
		cmocka_unit_test(test_fences_at_the_end_of_the_lease),
		cmocka_unit_test(test_orphan_with_a_spent_lease),
		cmocka_unit_test(test_farewell),
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_postmaster_that_is_gone),
		cmocka_unit_test(test_hand_over),
		cmocka_unit_test(test_lifeline),
	};
	alarm(60);
	close_range(3, ~0u, 0); /* what a runner left open is not for the children */
	log_set_level(LOG_CRITICAL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
