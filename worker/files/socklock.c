/* Lock files of Unix sockets. See socklock.h. */
#include "worker/files/socklock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/core/ipc.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/datadir.h"
#include "worker/files/files_msgs.h"
#include "worker/files/pmpid.h"

/* One directory; the names count from dir_fd. */
struct lock {
	const struct fs *fs;
	char dir[LIMIT_PATH];
	int dir_fd;
	char name[40];
};

/* As PostgreSQL wrote it down, or another name of the same directory. */
static bool is_our_dir(const struct fs *fs, const char *path)
{
	struct stat ours, theirs;
	if (strcmp(path, fs->data_dir) == 0)
		return true;
	return path[0] == '/' && stat(fs->data_dir, &ours) == 0 && stat(path, &theirs) == 0 &&
	       ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static enum err_code prove_left(const struct lock *k, const struct msg_pmpid *m, struct err *err)
{
	pid_t pid = m->pid < 0 ? -m->pid : m->pid;
	pid_t user = datadir_runs_in(pid, k->fs->data_dir) ? pid : datadir_user(k->fs->data_dir);
	if (user != 0)
		return err_set(err, ERR_STATE, 0, "%s/%s: process %d uses the data directory",
			k->dir, k->name, user);
	return ERR_OK;
}

/* Still the file that was read; nobody makes one in its place, PostgreSQL included, before it is
 * gone. */
static enum err_code remove_lock(
	const struct lock *k, int fd, const struct msg_pmpid *m, struct err *err)
{
	struct stat was, is;
	if (fstat(fd, &was) < 0 || fstatat(k->dir_fd, k->name, &is, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, ERR_SYS, errno, "stat %s/%s", k->dir, k->name);
	if (was.st_dev != is.st_dev || was.st_ino != is.st_ino)
		return err_set(
			err, ERR_CONFLICT, 0, "%s/%s is another file by now", k->dir, k->name);
	if (unlinkat(k->dir_fd, k->name, 0) < 0)
		return err_set(err, ERR_SYS, errno, "remove %s/%s", k->dir, k->name);
	log_warning("stale socket lock file %s/%s pid=%d is removed", k->dir, k->name, m->pid);
	return ERR_OK;
}

/* A link, a FIFO, a socket: nothing that a postmaster wrote; it says itself what it cannot use. */
static bool is_no_file(int error)
{
	return error == ENOENT || error == ELOOP || error == ENXIO;
}

static enum err_code clear_one(const struct lock *k, bool *out_removed, struct err *err)
{
	AUTO_FD fd = openat(
		k->dir_fd, k->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return is_no_file(errno)
			       ? ERR_OK
			       : err_set(err, ERR_SYS, errno, "open %s/%s", k->dir, k->name);
	struct stat st;
	struct msg_pmpid m;
	/* Nor is one of another user: in /tmp anybody could name a directory for us to look at. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return ERR_OK;
	enum err_code rc = pmpid_read_fd(fd, k->name, &m, err);
	if (rc != ERR_OK)
		return err_wrap(err, "%s", k->dir);
	/* Without a pid: PostgreSQL has not written it yet, or the disk was full. Another cluster's
	 * on the same port is that cluster's affair. */
	if (m.pid == 0 || !is_our_dir(k->fs, m.data_dir))
		return ERR_OK;
	rc = prove_left(k, &m, err);
	if (rc == ERR_OK)
		rc = remove_lock(k, fd, &m, err);
	*out_removed = rc == ERR_OK;
	return rc;
}

static enum err_code clear_in(struct lock *k, const char *dir, bool *out_removed, struct err *err)
{
	enum err_code rc = fs_path(k->fs, dir, k->dir, err);
	if (rc != ERR_OK)
		return rc;
	AUTO_FD dir_fd = open(k->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return errno == ENOENT ? ERR_OK : err_set(err, ERR_SYS, errno, "open %s", k->dir);
	k->dir_fd = dir_fd;
	return clear_one(k, out_removed, err);
}

enum err_code socklock_clear(const struct fs *fs, uint64_t port, const char *dirs, size_t len,
	int64_t *out_count, struct err *err)
{
	struct lock k = { .fs = fs };
	unsigned count = 0;
	if (port == 0 || port > UINT16_MAX ||
		!str_format(k.name, sizeof(k.name), ".s.PGSQL.%" PRIu64 ".lock", port))
		return err_set(err, ERR_INVAL, EINVAL, "port %" PRIu64, port);
	enum err_code first = ERR_OK;
	for (const char *d = NULL; (d = ipc_tail_next(dirs, len, d)) != NULL;) {
		bool removed = false;
		struct err one = ERR_INIT;
		if (++count > FILES_SOCKETS_MAX)
			return err_set(err, ERR_LIMIT, 0, "over %d directories of sockets",
				FILES_SOCKETS_MAX);
		enum err_code rc = clear_in(&k, d, &removed, &one);
		*out_count += removed;
		if (rc != ERR_OK && first == ERR_OK) {
			first = rc;
			if (err != NULL)
				*err = one;
		}
	}
	return first;
}
