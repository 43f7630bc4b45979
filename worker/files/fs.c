/* File system steps. See fs.h. */
#include "worker/files/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/str.h"

#define TEMP_SUFFIX ".pgregent-new"
#define LINKS_MAX   16 /* symbolic links in a row, as the kernel is strict at 40 */

enum err_code fs_path(
	const struct fs *fs, const char *path, char out[static LIMIT_PATH], struct err *err)
{
	bool ok = path[0] == '/'    ? str_copy(out, LIMIT_PATH, path)
		  : path[0] == '\0' ? str_copy(out, LIMIT_PATH, fs->data_dir)
				    : str_format(out, LIMIT_PATH, "%s/%s", fs->data_dir, path);
	return ok ? ERR_OK
		  : err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
}

bool fs_below_data_dir(const struct fs *fs, const char *path)
{
	size_t n = strlen(fs->data_dir);
	while (n > 1 && fs->data_dir[n - 1] == '/')
		n--;
	return strncmp(path, fs->data_dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* A data directory that lets its group read and enter it wants the same of what is in it (initdb
 * --allow-group-access). */
static bool group_access(const struct fs *fs)
{
	struct stat st;
	return stat(fs->data_dir, &st) == 0 && (st.st_mode & 0050) == 0050;
}

mode_t fs_file_mode(const struct fs *fs, const char *path)
{
	if (!fs_below_data_dir(fs, path))
		return 0666 & ~fs->umask;
	return group_access(fs) ? 0640 : 0600;
}

mode_t fs_dir_mode(const struct fs *fs, const char *path)
{
	if (!fs_below_data_dir(fs, path))
		return 0777 & ~fs->umask;
	return group_access(fs) ? 0750 : 0700;
}

bool fs_data_dir_empty(const struct fs *fs)
{
	char control[LIMIT_PATH + 32];
	snprintf(control, sizeof(control), "%s/global/pg_control", fs->data_dir);
	if (access(control, F_OK) == 0)
		return false;
	DIR *dir = opendir(fs->data_dir);
	if (dir == NULL)
		return errno == ENOENT;
	bool empty = true;
	struct dirent *e;
	while (empty && (e = readdir(dir)) != NULL)
		empty = e->d_name[0] == '.' || strcmp(e->d_name, "lost+found") == 0;
	closedir(dir);
	return empty;
}

static enum err_code read_fd(int fd, int64_t offset, size_t max, struct buf *out, struct err *err)
{
	char piece[16384];
	size_t left = max;
	while (left > 0) {
		ssize_t n = pread(
			fd, piece, left < sizeof(piece) ? left : sizeof(piece), (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_SYS, errno, "read");
		if (n == 0)
			break;
		buf_add(out, piece, (size_t)n);
		if (out->failed)
			return err_set(err, ERR_LIMIT, EFBIG, "over %zu bytes", out->max);
		offset += n;
		left -= (size_t)n;
	}
	return ERR_OK;
}

enum err_code fs_read(const char *path, int64_t offset, size_t max, struct buf *out,
	int64_t *out_size, struct err *err)
{
	/* O_NONBLOCK: a FIFO under that name must not block. */
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_set(
			err, errno == ENOENT ? ERR_NOTFOUND : ERR_SYS, errno, "open %s", path);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "stat %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVAL, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			"%s is not a regular file", path);
	if (read_fd(fd, offset, max, out, err) != ERR_OK)
		return err_wrap(err, "%s", path);
	if (out_size != NULL)
		*out_size = st.st_size;
	return ERR_OK;
}

static enum err_code write_all(int fd, const void *bytes, size_t len, struct err *err)
{
	const char *p = bytes;
	while (len > 0) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_SYS, errno, "write");
		p += n;
		len -= (size_t)n;
	}
	return ERR_OK;
}

static void dir_of(const char *path, char out[static LIMIT_PATH])
{
	const char *slash = strrchr(path, '/');
	if (slash == NULL)
		memcpy(out, ".", 2);
	else if (!str_copy_n(out, LIMIT_PATH, path, slash == path ? 1 : (size_t)(slash - path)))
		memcpy(out, ".", 2); /* cannot be: every path here fits LIMIT_PATH */
}

enum err_code fs_sync_dir_of(const char *path, struct err *err)
{
	char dir[LIMIT_PATH];
	dir_of(path, dir);
	AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "open %s", dir);
	/* Some file systems have no sync for directories; they order renames themselves. */
	if (fsync(fd) < 0 && errno != EINVAL && errno != ENOTSUP)
		return err_set(err, ERR_SYS, errno, "sync %s", dir);
	return ERR_OK;
}

/* The file that a chain of symbolic links leads to, also when it does not exist yet. */
static enum err_code follow_links(const char *path, char out[static LIMIT_PATH], struct err *err)
{
	if (!str_copy(out, LIMIT_PATH, path))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	for (int i = 0; i < LINKS_MAX; i++) {
		char target[LIMIT_PATH];
		ssize_t n = readlink(out, target, sizeof(target));
		if (n < 0 && (errno == EINVAL || errno == ENOENT))
			return ERR_OK;
		if (n < 0)
			return err_set(err, ERR_SYS, errno, "read link %s", out);
		if ((size_t)n >= sizeof(target))
			return err_set(err, ERR_LIMIT, ENAMETOOLONG, "link %s", out);
		target[n] = '\0';
		char dir[LIMIT_PATH], next[LIMIT_PATH];
		dir_of(out, dir);
		bool ok = target[0] == '/' ? str_copy(next, sizeof(next), target)
					   : str_format(next, sizeof(next), "%s/%s", dir, target);
		if (!ok || !str_copy(out, LIMIT_PATH, next))
			return err_set(err, ERR_LIMIT, ENAMETOOLONG, "link %s", out);
	}
	return err_set(err, ERR_SYS, ELOOP, "%s", path);
}

static enum err_code write_in_place(
	const char *path, const void *bytes, size_t len, mode_t mode, struct err *err)
{
	AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, mode);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "open %s for writing", path);
	if (write_all(fd, bytes, len, err) != ERR_OK)
		return err_wrap(err, "%s", path);
	/* Not our file: its owner decides on its mode, and the content counts. */
	if (fchmod(fd, mode) < 0 && errno != EPERM)
		return err_set(err, ERR_SYS, errno, "chmod %s", path);
	return fsync(fd) < 0 ? err_set(err, ERR_SYS, errno, "sync %s", path) : ERR_OK;
}

/* *out_in_place: the directory does not let us make files, or the name itself cannot be replaced (a
 * bind mount). */
static enum err_code write_beside(const char *path, const void *bytes, size_t len, mode_t mode,
	bool *out_in_place, struct err *err)
{
	char temp[LIMIT_PATH + sizeof(TEMP_SUFFIX)];
	snprintf(temp, sizeof(temp), "%s" TEMP_SUFFIX, path);
	/* Left over by a files process that was killed; there is only one of us. */
	unlink(temp);
	AUTO_FD fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		*out_in_place = errno == EACCES || errno == EPERM || errno == EROFS ||
				errno == ENAMETOOLONG;
		return err_set(err, ERR_SYS, errno, "create %s", temp);
	}
	enum err_code rc = write_all(fd, bytes, len, err);
	if (rc != ERR_OK)
		rc = err_wrap(err, "%s", temp);
	else if (fchmod(fd, mode) < 0 || fsync(fd) < 0)
		rc = err_set(err, ERR_SYS, errno, "chmod and sync %s", temp);
	else if (rename(temp, path) < 0) {
		*out_in_place = errno == EBUSY || errno == EPERM || errno == EACCES;
		rc = err_set(err, ERR_SYS, errno, "rename %s", temp);
	}
	if (rc != ERR_OK)
		unlink(temp);
	return rc;
}

enum err_code fs_write(const struct fs *fs, const char *path, const void *bytes, size_t len,
	mode_t mode, struct err *err)
{
	char target[LIMIT_PATH];
	enum err_code rc = follow_links(path, target, err);
	if (rc != ERR_OK)
		return rc;
	struct stat st;
	bool present = stat(target, &st) == 0;
	if (present && !S_ISREG(st.st_mode))
		return err_set(err, ERR_INVAL, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
			"%s is not a regular file", target);
	if (mode == 0)
		mode = present && !fs_below_data_dir(fs, path) ? st.st_mode & 07777
							       : fs_file_mode(fs, path);
	bool in_place = false;
	rc = write_beside(target, bytes, len, mode, &in_place, err);
	if (rc != ERR_OK && in_place)
		return write_in_place(target, bytes, len, mode, err);
	return rc == ERR_OK ? fs_sync_dir_of(target, err) : rc;
}

bool fs_same(const char *path, const void *bytes, size_t len, mode_t mode)
{
	struct stat st;
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size != len ||
		(mode != 0 && (st.st_mode & 07777) != mode))
		return false;
	AUTO(buf) have = BUF_INIT(len + 1);
	return fs_read(path, 0, len + 1, &have, NULL, NULL) == ERR_OK && have.len == len &&
	       (len == 0 || memcmp(have.data, bytes, len) == 0);
}

enum err_code fs_copy(const struct fs *fs, const char *from, const char *to, struct err *err)
{
	AUTO(buf) content = BUF_INIT(LIMIT_CONFIG_FILE);
	enum err_code rc = fs_read(from, 0, LIMIT_CONFIG_FILE + 1, &content, NULL, err);
	return rc == ERR_OK ? fs_write(fs, to, buf_str(&content), content.len, 0, err) : rc;
}

static enum err_code mkdir_one(const char *path, mode_t mode, bool *out_made, struct err *err)
{
	if (mkdir(path, mode) == 0) {
		*out_made = true;
		/* mkdir heeds our umask; the mode was meant. */
		if (chmod(path, mode) < 0)
			return err_set(err, ERR_SYS, errno, "chmod %s", path);
		return fs_sync_dir_of(path, err);
	}
	int saved = errno;
	struct stat st;
	/* EROFS, EACCES: a parent that exists but could not be made anew. */
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return ERR_OK;
	return err_set(err, ERR_SYS, saved, "make directory %s", path);
}

enum err_code fs_mkdir(
	const struct fs *fs, const char *path, mode_t mode, bool *out_made, struct err *err)
{
	char part[LIMIT_PATH];
	if (!str_copy(part, sizeof(part), path))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	bool made = false;
	for (char *p = part + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		enum err_code rc = mkdir_one(part, fs_dir_mode(fs, part), &made, err);
		*p = '/';
		if (rc != ERR_OK)
			return rc;
	}
	made = false;
	enum err_code rc = mkdir_one(part, mode != 0 ? mode : fs_dir_mode(fs, path), &made, err);
	*out_made = made;
	return rc;
}

enum err_code fs_test_write(const char *dir, struct err *err)
{
	char temp[LIMIT_PATH];
	if (!str_format(temp, sizeof(temp), "%s/.pgregent-test-XXXXXX", dir))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	AUTO_FD fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "%s cannot be written to", dir);
	unlink(temp);
	return ERR_OK;
}
