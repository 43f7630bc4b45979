/* Walks a directory tree in slices, so that the process goes on answering and pinging while
 * gigabytes are removed. Depth first, without recursion, by directory descriptors: a symbolic link
 * is removed or counted, never followed, and a directory that is swapped for a link meanwhile leads
 * nowhere else. Run by pgregent-files. */
#pragma once
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/err.h"
#include "common/core/limits.h"

#define TREE_DEPTH_MAX 64 /* PostgreSQL itself needs five */

enum tree_mode { TREE_SIZE, TREE_REMOVE };
enum tree_step { TREE_MORE, TREE_DONE, TREE_FAILED };

struct tree {
	enum tree_mode mode;
	bool keep_top;	 /* REMOVE: the directory itself stays */
	bool keep_lost;	 /* REMOVE: lost+found of a mount point stays */
	bool top_failed; /* all but the directory itself is gone */
	uint64_t bytes;	 /* SIZE: allocated */
	uint64_t removed;
	unsigned depth; /* open directories */
	struct tree_level {
		DIR *dir;
		unsigned passes;
		bool again; /* something was removed in this pass: read once more before giving up
			     */
		char name[256];
	} level[TREE_DEPTH_MAX];
	char top[LIMIT_PATH];
};

/* Begin at a directory (links to it are followed, once, here). ERR_NOTFOUND: there is none. */
MUST_USE enum err_code tree_open(
	struct tree *t, const char *path, enum tree_mode mode, struct err *err);
/* Go on for about `budget` entries. */
enum tree_step tree_slice(struct tree *t, unsigned budget, struct err *err);
void tree_done(struct tree *t);
