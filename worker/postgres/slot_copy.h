/* Logical slots of the leader as files of this standby (ha 7.5): their state is read over a
 * connection, the server is stopped for a moment, the files are put in place. Nothing is stopped
 * before there is something to copy. */
#pragma once
#include "worker/postgres/control.h"

#define SLOT_STATE_MAX 8192 /* bytes of pg_replslot/<name>/state; it has some 200 */

struct seq_copy_slots {
	struct co co;
	struct pgctx *p;
	struct pg_target leader;
	const char *hostaddr;
	struct slot_to_copy {
		char name[LIMIT_SLOT_NAME], database[LIMIT_SLOT_NAME], plugin[LIMIT_SLOT_NAME];
	} want[LIMIT_SLOTS];
	unsigned count;
	/* private */
	PGresult *rows;
	int at;
	unsigned copied;
	union {
		struct seq_stop stop;
		struct seq_start start;
	} u;
};
void seq_copy_slots_step(struct co *co);
