/* What is being done with the data directory (enum pg_mark), kept where it outlives this process,
 * the agent and, if it can, the machine: the file <data directory>.unfinished. Not inside, because
 * initdb and pg_basebackup want the directory empty. Where the parent cannot be written, the file
 * `unfinished` of the run-time directory. Run by pgregent-files. */
#pragma once
#include "common/model/pgstate.h"
#include "worker/files/fs.h"

/* Durable when it returns. PG_MARK_NONE removes it. */
MUST_USE enum err_code mark_set(const struct fs *fs, uint64_t mark, struct err *err);
/* A file with another word counts as no mark. */
enum pg_mark mark_get(const struct fs *fs);
