/* Unix sockets of a server that is to be started: the lock files that its killed predecessor left
 * in their directories are removed before, or PostgreSQL may refuse to start for ever (see
 * FILES_CLEAR_SOCKET_LOCKS). Worker process. */
#pragma once
#include "worker/postgres/archive.h"

/* Nothing that goes wrong here keeps PostgreSQL from being started: the result is true, or the
 * sequence was cancelled. What went wrong is logged once. */
struct seq_sockets {
	struct co co;
	struct pgctx *p;
	/* private */
	struct seq_setting setting;
};
void seq_sockets_step(struct co *co);

/* unix_socket_directories as PostgreSQL splits it: commas, names in double quotes. Each directory
 * that has lock files, with its zero; abstract sockets (@...) have none. False: PostgreSQL refuses
 * it too; out may hold some of the names then. Pure. */
MUST_USE bool sockets_split(const char *list, struct buf *out);
