/* What the data directory says of itself, in one look. Run by pgregent-files. */
#pragma once
#include "common/core/err.h"
#include "common/model/pgstate.h"
#include "worker/files/fs.h"

/* Fills everything; what cannot be read is marked as such in out, it is no error. */
void probe_read(const struct fs *fs, struct pg_files *out);
/* Owner and mode as PostgreSQL wants them. ERR_INVAL: what is wrong. *out_mode = -1: no such
 * directory. */
MUST_USE enum err_code probe_check_dir(const struct fs *fs, int64_t *out_mode, struct err *err);
