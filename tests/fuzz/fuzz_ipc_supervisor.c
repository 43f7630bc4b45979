/* The supervisor as the receiver: from a socket to guard_step and back (see fuzz_ipc.c). FUZZ_FROM
 * is ROLE_WORKER, ROLE_FILES, ROLE_API or ROLE_DEADMAN; the other processes behave. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/str.h"
#include "supervisor/ending.h"
#include "supervisor/spawn.h"
#include "supervisor/sup.h"
#include "tests/fuzz/fuzz_ipc.h"

static struct sup sup;
static struct killtree scratch;
static int far_end[ROLE_COUNT]; /* what a started process would hold as descriptor 3 */
static pid_t pid_of[ROLE_COUNT];
static char *environment[] = { "PATH=/bin", NULL };

enum err_code spawn_child(const struct privs *p, const struct spawn *s, pid_t *out_pid,
	int *out_pidfd, struct err *err)
{
	(void)p;
	(void)err;
	static const enum ipc_role roles[] = { ROLE_WORKER, ROLE_FILES, ROLE_API, ROLE_DEADMAN };
	*out_pid = fuzz_new_pid();
	if (out_pidfd != NULL)
		*out_pidfd = fuzz_descriptor();
	for (unsigned i = 0; i < ARRAY_LEN(roles); i++) {
		enum ipc_role r = roles[i];
		if (s->path == NULL || strstr(s->path, ipc_role_name(r)) == NULL || s->fd_count < 4)
			continue;
		if (far_end[r] >= 0)
			close(far_end[r]);
		far_end[r] = dup(s->fds[3]);
		pid_of[r] = *out_pid;
	}
	return ERR_OK;
}

static void greet(enum ipc_role r)
{
	struct msg_hello hello = { .proto = IPC_VERSION, .pid = pid_of[r] };
	struct msg_ping ready = { .sent_at_ms = clock_boot_ms() };
	struct err err = ERR_INIT;
	if (far_end[r] < 0)
		return;
	if (ipc_send(far_end[r], MSG_HELLO, 0, &hello, NULL, 0, NULL, 0, &err) != ERR_OK ||
		ipc_send(far_end[r], MSG_READY, 0, &ready, NULL, 0, NULL, 0, &err) != ERR_OK)
		return;
}

/* The dead-man behaves when it is not the one under test: it acknowledges what it was told. */
static void acknowledge(void)
{
	struct err err = ERR_INIT;
	struct msg_dm_ack ack = { .seq = sup.guard.state_seq,
		.generation = sup.pm.pid != 0 ? sup.pm.generation : 0,
		.now_ms = clock_boot_ms() };
	if (FUZZ_FROM != ROLE_DEADMAN && far_end[ROLE_DEADMAN] >= 0 &&
		ipc_send(far_end[ROLE_DEADMAN], MSG_DM_ACK, 0, &ack, NULL, 0, NULL, 0, &err) !=
			ERR_OK)
		return;
}

void target_start(void)
{
	struct err err = ERR_INIT;
	memset(&sup, 0, sizeof(sup));
	for (unsigned r = 0; r < ROLE_COUNT; r++)
		far_end[r] = -1;
	sup.now_ms = clock_boot_ms();
	guard_init(&sup.guard, GUARD_SUPERVISOR, sup.now_ms);
	helpers_init(&sup);
	deadlink_init(&sup.dm);
	postmaster_init(&sup.pm);
	fence_init(&sup.pm.fence, &scratch);
	sup.scratch = &scratch;
	jobs_init(&sup.jobs);
	watchdog_init(&sup.watchdog);
	sup.notify.fd = -1;
	sup.launch.env_worker = sup.launch.env_plain = sup.launch.env_pg = environment;
	if (!str_copy(sup.launch.data_dir, sizeof(sup.launch.data_dir), "/nowhere/data") ||
		!str_copy(sup.launch.data_real, sizeof(sup.launch.data_real), "/nowhere/data") ||
		!str_copy(sup.launch.libexec, sizeof(sup.launch.libexec), "/nowhere") ||
		!str_copy(sup.launch.runtime_dir, sizeof(sup.launch.runtime_dir), "/nowhere/run") ||
		shm_create(&sup.page, "fuzz", 0, 0, &err) != ERR_OK)
		abort();
	sup.pages[PAGE_SUPERVISOR] =
		(struct page){ .role = ROLE_SUPERVISOR, .incarnation = 1, .fd = sup.page.fd };
	sup.pages[PAGE_WORKER].fd = sup.pages[PAGE_API].fd = -1;
	sup.lock_fd = sup.data_lock_fd = -1;
	sup.life_fd = memfd_create("life", MFD_CLOEXEC);
	sup.life_dm_fd = dup(sup.life_fd);
	sup.worker_lock_fd = memfd_create("worker.lock", MFD_CLOEXEC);
	sup.life_ino = 1;
	target_turn();
	for (unsigned r = 0; r < ROLE_COUNT; r++)
		greet((enum ipc_role)r);
	target_turn();
	acknowledge();
	target_turn();
}

/* As loop.c, without the waiting. */
void target_turn(void)
{
	struct sup *s = &sup;
	s->now_ms = clock_boot_ms();
	deadlink_receive(s);
	deadlink_receive_old(s);
	for (unsigned i = 0; i < HELPER_COUNT; i++)
		sup_receive(s, &s->helpers[i]);
	sup_guard(s, (struct guard_event){ .kind = GUARD_EV_TICK });
	postmaster_tick(s, s->now_ms);
	helpers_tick(s, s->now_ms);
	jobs_tick(s, s->now_ms);
	deadlink_tick(s, s->now_ms);
	sup_holds_tick(s, s->now_ms);
	ending_tick(s, s->now_ms);
	postmaster_tell(s, false);
	sup_publish(s);
	INVARIANT(s->want.wake_at_ms >= s->now_ms);
	for (unsigned r = 0; r < ROLE_COUNT; r++)
		fuzz_drain(far_end[r]);
	/* A postmaster that runs does so under a lease, a proof, a grace or a pause: it would be
	 * fenced now otherwise. */
	INVARIANT(s->guard.pm_state != PG_PROC_RUNNING || s->want.fence_at_ms > s->now_ms);
}

/* Ends of processes: the helper's own, the others', the postmaster's, a job's. */
void target_event(uint8_t what)
{
	static const enum ipc_role roles[] = { ROLE_WORKER, ROLE_FILES, ROLE_API };
	pid_t pid = 0;
	if (what % 8 < 3)
		pid = sup.helpers[what % 8].pid;
	else if (what % 8 == 3)
		pid = sup.dm.pid;
	else if (what % 8 == 4)
		pid = sup.pm.pid;
	else if (what % 8 == 5)
		pid = sup.jobs.slot[what / 8 % LIMIT_JOBS].pid;
	else if (what % 8 == 6)
		acknowledge();
	else
		for (unsigned i = 0; i < ARRAY_LEN(roles); i++)
			greet(roles[i]);
	if (pid > 1 && !postmaster_reaped(&sup, pid, what & 0x80 ? SIGKILL : 0) &&
		!deadlink_reaped(&sup, pid, SIGKILL) &&
		!helpers_reaped(&sup, pid, SIGKILL, sup.now_ms))
		jobs_reaped(&sup, pid, 0, sup.now_ms);
}

void target_end(void)
{
	shm_done(&sup.page);
}

int target_socket(void)
{
	return far_end[FUZZ_FROM];
}

enum ipc_role target_role(void)
{
	return ROLE_SUPERVISOR;
}
