/* Walking a directory tree in slices. See tree.h. */
#include "worker/files/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/str.h"

#define PASSES_MAX 8 /* readings of one directory whose entries come back */

static enum err_code push(struct tree *t, int at, const char *name, struct err *err)
{
	if (t->depth == TREE_DEPTH_MAX)
		return err_set(err, ERR_LIMIT, 0, "%s is deeper than %d directories", t->top,
			TREE_DEPTH_MAX);
	struct tree_level *l = &t->level[t->depth];
	memset(l, 0, sizeof(*l));
	if (!str_copy(l->name, sizeof(l->name), name))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "%s", t->top);
	int fd = openat(at, at == AT_FDCWD ? t->top : name,
		O_RDONLY | O_DIRECTORY | O_CLOEXEC | (at == AT_FDCWD ? 0 : O_NOFOLLOW));
	if (fd < 0)
		return err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_SYS, errno,
			"open directory %s", name);
	l->dir = fdopendir(fd);
	if (l->dir == NULL) {
		int saved = errno;
		close(fd);
		return err_set(err, ERR_SYS, saved, "open directory %s", name);
	}
	t->depth++;
	return ERR_OK;
}

enum err_code tree_open(struct tree *t, const char *path, enum tree_mode mode, struct err *err)
{
	memset(t, 0, sizeof(*t));
	t->mode = mode;
	if (!str_copy(t->top, sizeof(t->top), path))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	return push(t, AT_FDCWD, "", err);
}

void tree_done(struct tree *t)
{
	while (t->depth > 0)
		closedir(t->level[--t->depth].dir);
}

static enum tree_step visit(struct tree *t, struct tree_level *l, const char *name, struct err *err)
{
	int at = dirfd(l->dir);
	if (t->mode == TREE_REMOVE && unlinkat(at, name, 0) == 0) {
		t->removed++;
		l->again = true;
		return TREE_MORE;
	}
	if (t->mode == TREE_REMOVE && errno == ENOENT)
		return TREE_MORE;
	int unlink_errno = t->mode == TREE_REMOVE ? errno : 0;
	struct stat st;
	if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT)
			return TREE_MORE;
		err_set(err, ERR_SYS, errno, "stat %s below %s", name, t->top);
		return TREE_FAILED;
	}
	t->bytes += (uint64_t)st.st_blocks * 512;
	if (S_ISDIR(st.st_mode)) {
		enum err_code rc = push(t, at, name, err);
		return rc == ERR_OK || rc == ERR_NOTFOUND ? TREE_MORE : TREE_FAILED;
	}
	if (t->mode == TREE_SIZE)
		return TREE_MORE;
	err_set(err, ERR_SYS, unlink_errno, "remove %s below %s", name, t->top);
	return TREE_FAILED;
}

/* The end of a directory. Names may be passed over while others are removed from it: read until a
 * pass removes none. */
static enum tree_step leave(struct tree *t, struct err *err)
{
	struct tree_level *l = &t->level[t->depth - 1];
	if (t->mode == TREE_REMOVE && l->again && l->passes < PASSES_MAX) {
		l->again = false;
		l->passes++;
		rewinddir(l->dir);
		return TREE_MORE;
	}
	closedir(l->dir);
	t->depth--;
	if (t->mode == TREE_SIZE)
		return t->depth == 0 ? TREE_DONE : TREE_MORE;
	if (t->depth == 0) {
		if (t->keep_top || rmdir(t->top) == 0 || errno == ENOENT)
			return TREE_DONE;
		err_set(err, ERR_SYS, errno, "remove directory %s", t->top);
		t->top_failed = true;
		return TREE_FAILED;
	}
	struct tree_level *up = &t->level[t->depth - 1];
	if (unlinkat(dirfd(up->dir), l->name, AT_REMOVEDIR) == 0) {
		t->removed++;
		up->again = true;
		return TREE_MORE;
	}
	if (errno == ENOENT)
		return TREE_MORE;
	err_set(err, ERR_SYS, errno, "remove directory %s below %s", l->name, t->top);
	return TREE_FAILED;
}

enum tree_step tree_slice(struct tree *t, unsigned budget, struct err *err)
{
	while (budget-- > 0) {
		if (t->depth == 0)
			return TREE_DONE;
		struct tree_level *l = &t->level[t->depth - 1];
		errno = 0;
		struct dirent *e = readdir(l->dir);
		enum tree_step step;
		if (e == NULL && errno != 0) {
			err_set(err, ERR_SYS, errno, "read directory %s", t->top);
			step = TREE_FAILED;
		} else if (e == NULL) {
			step = leave(t, err);
		} else if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			   (t->keep_lost && t->depth == 1 &&
				   strcmp(e->d_name, "lost+found") == 0)) {
			continue;
		} else {
			step = visit(t, l, e->d_name, err);
		}
		if (step != TREE_MORE) {
			tree_done(t);
			return step;
		}
	}
	return TREE_MORE;
}
