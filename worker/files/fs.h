/* File system steps shared by the operations: paths, whole-file reads, durable writes. Run by
 * pgregent-files. */
#pragma once
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "common/core/buf.h"
#include "common/core/err.h"
#include "common/core/limits.h"

/* What every operation knows; owned by the process struct. */
struct fs {
	char data_dir[LIMIT_PATH];
	char runtime_dir[LIMIT_PATH]; /* "" = none */
	mode_t umask; /* that we were started with: for files outside of the data directory */
};

/* Absolute name of a path of a request: relative ones count from the data directory. */
MUST_USE enum err_code fs_path(
	const struct fs *fs, const char *path, char out[static LIMIT_PATH], struct err *err);
/* path is the data directory or below it (by name, after making both absolute; "/data2" is not
 * below "/data"). */
bool fs_below_data_dir(const struct fs *fs, const char *path);
/* Mode of a new file (directory) of that name: as the data directory allows its group, or as our
 * umask says. */
mode_t fs_file_mode(const struct fs *fs, const char *path);
mode_t fs_dir_mode(const struct fs *fs, const char *path);
/* No global/pg_control, and nothing but names with a leading dot and lost+found (ha A12). Not there
 * = empty. */
bool fs_data_dir_empty(const struct fs *fs);

/* Append at most max bytes from offset on; *out_size (may be NULL) = size of the file. Not a
 * regular file: ERR_INVAL. Sets err->sys_errno (ENOENT) when it cannot be opened. */
MUST_USE enum err_code fs_read(const char *path, int64_t offset, size_t max, struct buf *out,
	int64_t *out_size, struct err *err);
/* Replace the content durably: beside, synced, renamed, directory synced. Symbolic links are
 * followed; where the directory cannot be written the file is written in place. mode 0 = keep that
 * of a present file, else fs_file_mode. */
MUST_USE enum err_code fs_write(const struct fs *fs, const char *path, const void *bytes,
	size_t len, mode_t mode, struct err *err);
/* The file has this content, and this mode when mode is not 0. */
bool fs_same(const char *path, const void *bytes, size_t len, mode_t mode);
MUST_USE enum err_code fs_copy(
	const struct fs *fs, const char *from, const char *to, struct err *err);
/* Sync the directory that holds path. */
MUST_USE enum err_code fs_sync_dir_of(const char *path, struct err *err);
/* The directory and its parents; *out_made = it was not there. */
MUST_USE enum err_code fs_mkdir(
	const struct fs *fs, const char *path, mode_t mode, bool *out_made, struct err *err);
/* Prove that a file can be made in the directory. */
MUST_USE enum err_code fs_test_write(const char *dir, struct err *err);
