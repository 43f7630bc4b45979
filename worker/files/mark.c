/* The mark beside the data directory. See mark.h. */
#include "worker/files/mark.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/core/str.h"

#define WORD_MAX 32

static const char *const words[PG_MARK_COUNT] = {
	[PG_MARK_REPLACING] = "replacing\n",
	[PG_MARK_COPYING] = "copying\n",
	[PG_MARK_BOOTSTRAP] = "bootstrap\n",
	[PG_MARK_ROLES] = "roles\n",
	[PG_MARK_REWIND] = "rewind\n",
};

/* The two places, best first; false: there is no such place. */
static bool place(const struct fs *fs, int i, char out[static LIMIT_PATH])
{
	if (i == 0)
		return str_format(out, LIMIT_PATH, "%s.unfinished", fs->data_dir);
	return fs->runtime_dir[0] != '\0' &&
	       str_format(out, LIMIT_PATH, "%s/unfinished", fs->runtime_dir);
}

static enum err_code drop(const char *path, struct err *err)
{
	if (unlink(path) == 0)
		return fs_sync_dir_of(path, err);
	/* Where nothing could be written nothing can lie. */
	if (errno == ENOENT || errno == ENOTDIR)
		return ERR_OK;
	return err_set(err, ERR_SYS, errno, "remove %s", path);
}

enum err_code mark_set(const struct fs *fs, uint64_t mark, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = ERR_OK;
	if (mark >= PG_MARK_COUNT)
		return err_set(err, ERR_INVAL, EINVAL, "mark %llu of the data directory, limit %d",
			(unsigned long long)mark, PG_MARK_COUNT - 1);
	if (mark == PG_MARK_NONE) {
		/* Both: the parent may have become writable in between. */
		for (int i = 0; i < 2 && rc == ERR_OK; i++) {
			if (place(fs, i, path))
				rc = drop(path, err);
		}
		return rc;
	}
	for (int i = 0; i < 2; i++) {
		if (!place(fs, i, path))
			continue;
		rc = fs_write(fs, path, words[mark], strlen(words[mark]), 0600, err);
		if (rc != ERR_OK)
			continue;
		/* A newer word in the second place must not hide behind an older one in the first.
		 */
		if (i == 0 && place(fs, 1, path))
			rc = drop(path, err);
		return rc;
	}
	return rc;
}

enum pg_mark mark_get(const struct fs *fs)
{
	char path[LIMIT_PATH];
	for (int i = 0; i < 2; i++) {
		struct err err = ERR_INIT;
		AUTO(buf) text = BUF_INIT(WORD_MAX);
		if (!place(fs, i, path) || fs_read(path, 0, WORD_MAX, &text, NULL, &err) != ERR_OK)
			continue;
		for (unsigned m = PG_MARK_NONE + 1; m < PG_MARK_COUNT; m++) {
			if (strcmp(buf_str(&text), words[m]) == 0)
				return (enum pg_mark)m;
		}
	}
	return PG_MARK_NONE;
}
