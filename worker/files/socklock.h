/* Lock files of PostgreSQL's Unix sockets that a killed postmaster of our data directory left
 * behind. PostgreSQL removes one itself only when nobody has the number that stands in it; in a
 * container, where numbers are small and come again, or while the dead postmaster is not reaped, it
 * would not start for ever. Run by pgregent-files. */
#pragma once
#include <stdint.h>

#include "common/core/err.h"
#include "worker/files/fs.h"

/* dirs: directories, each with its zero. *out_count = removed. The first error is told when all
 * were looked at. ERR_STATE: a file is ours, but so may be a process that lives. */
MUST_USE enum err_code socklock_clear(const struct fs *fs, uint64_t port, const char *dirs,
	size_t len, int64_t *out_count, struct err *err);
