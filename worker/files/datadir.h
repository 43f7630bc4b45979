/* The slow operations: removing or setting aside the data directory with the targets of its WAL and
 * tablespace links (ha 8.4, L1), clearing a directory, measuring one. Carried out in slices. Run by
 * pgregent-files. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/buf.h"
#include "common/core/err.h"
#include "worker/files/fs.h"
#include "worker/files/tree.h"

#define DATADIR_TARGETS_MAX 256 /* WAL, tablespaces and the data directory */

enum slow_kind { SLOW_NONE = 0, SLOW_SIZE, SLOW_CLEAR, SLOW_REMOVE, SLOW_SET_ASIDE };

struct slow {
	enum slow_kind kind; /* NONE: idle */
	bool walking;
	struct tree tree;
	const struct fs *fs;
	struct buf targets; /* absolute names, each with its zero; the data directory last */
	size_t next;	    /* into targets */
	unsigned target_count;
	int64_t value;
};

/* Begin. ERR_STATE: a process of PostgreSQL runs in the data directory. */
MUST_USE enum err_code slow_start(struct slow *s, enum slow_kind kind, const struct fs *fs,
	const char *path, struct err *err);
/* Go on for a moment. MORE, DONE (s->value), or FAILED with err; then idle again. */
enum tree_step slow_slice(struct slow *s, struct err *err);
void slow_done(struct slow *s);
/* A process named postgres, or the one that postmaster.pid names, with its working directory here;
 * 0 = none. */
pid_t datadir_user(const char *data_dir);
/* The process, whatever its name, has its working directory there. */
bool datadir_runs_in(pid_t pid, const char *data_dir);
