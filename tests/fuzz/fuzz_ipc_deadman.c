/* The dead-man as the receiver of what a supervisor sends (see fuzz_ipc.c). */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "supervisor/dm_core.h"
#include "tests/fuzz/fuzz_ipc.h"

static struct dm dm;
static int far_end;

static void connect_to_it(void)
{
	int pair[2];
	struct err err = ERR_INIT;
	if (ipc_pair(pair, &err) != ERR_OK)
		abort();
	if (far_end >= 0)
		close(far_end);
	far_end = pair[0];
	if (dm.conn_fd < 0 && !dm_take_successor(&dm, pair[1], fuzz_new_pid()))
		abort();
	else if (dm.conn_fd != pair[1])
		close(pair[1]);
}

void target_start(void)
{
	int pair[2];
	struct err err = ERR_INIT;
	if (ipc_pair(pair, &err) != ERR_OK)
		abort();
	far_end = pair[0];
	dm_init(&dm, pair[1], clock_boot_ms());
}

void target_turn(void)
{
	if (dm.ended)
		return;
	if (dm.conn_fd >= 0 && !dm_read(&dm))
		INVARIANT(dm.conn_fd < 0);
	dm_tick(&dm, clock_boot_ms());
	fuzz_drain(far_end);
	INVARIANT(dm.wake_at_ms >= clock_boot_ms() || dm.ended);
	INVARIANT(dm.held_pid == 0 || dm.held_pid > 1);
}

void target_event(uint8_t what)
{
	if (dm.ended)
		return;
	if (what % 3 == 0 && dm.fds[DM_FD_PIDFD] >= 0)
		dm_postmaster_gone(&dm);
	else if (what % 3 == 1 && dm.conn_fd < 0)
		connect_to_it();
	else if (what % 3 == 2 && far_end >= 0) {
		close(far_end);
		far_end = -1;
	}
}

void target_end(void)
{
	dm_done(&dm);
}

int target_socket(void)
{
	return far_end;
}

enum ipc_role target_role(void)
{
	return ROLE_DEADMAN;
}
