/* A file system whose disk can stall: passes everything through to another directory, and while it
 * is told to (SIGUSR1; SIGUSR2 ends it) holds every request, so that whoever asked sleeps in the
 * kernel and cannot even be killed. Needs root; files get the user who made them. Usage: stallfs
 * <directory that holds the files> <mount point>. Runs until it is unmounted. */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/core/limits.h"
#include "common/core/str.h"

#define LOOK_EVERY_MS 10

static atomic_bool stalled;
static char base[LIMIT_PATH];

static void on_signal(int signo)
{
	stalled = signo == SIGUSR1;
}

struct place {
	char path[2 * LIMIT_PATH];
};

/* Each request begins here: where the file is, once the disk answers. */
static const char *at(const char *path, struct place *p)
{
	if (stalled)
		fprintf(stderr, "%d waits\n", (int)fuse_get_context()->pid);
	while (stalled)
		(void)poll(NULL, 0, LOOK_EVERY_MS);
	if (!str_format(p->path, sizeof(p->path), "%s%s", base, path))
		p->path[0] = '\0'; /* ENOENT */
	return p->path;
}

static int done(int rc)
{
	return rc < 0 ? -errno : 0;
}

static int own(const char *path)
{
	const struct fuse_context *c = fuse_get_context();
	return done(lchown(path, c->uid, c->gid));
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	struct place p;
	(void)fi;
	return done(lstat(at(path, &p), st));
}

static int fs_readlink(const char *path, char *out, size_t size)
{
	struct place p;
	ssize_t n = readlink(at(path, &p), out, size - 1);
	if (n < 0)
		return -errno;
	out[n] = '\0';
	return 0;
}

static int fs_mkdir(const char *path, mode_t mode)
{
	struct place p;
	const char *real = at(path, &p);
	return mkdir(real, mode) < 0 ? -errno : own(real);
}

static int fs_unlink(const char *path)
{
	struct place p;
	return done(unlink(at(path, &p)));
}

static int fs_rmdir(const char *path)
{
	struct place p;
	return done(rmdir(at(path, &p)));
}

static int fs_symlink(const char *to, const char *path)
{
	struct place p;
	const char *real = at(path, &p);
	return symlink(to, real) < 0 ? -errno : own(real);
}

static int fs_rename(const char *from, const char *to, unsigned flags)
{
	struct place p, q;
	return done(renameat2(AT_FDCWD, at(from, &p), AT_FDCWD, at(to, &q), flags));
}

static int fs_link(const char *from, const char *to)
{
	struct place p, q;
	return done(link(at(from, &p), at(to, &q)));
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	struct place p;
	(void)fi;
	return done(chmod(at(path, &p), mode));
}

static int fs_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	struct place p;
	(void)fi;
	return done(lchown(at(path, &p), uid, gid));
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	struct place p;
	const char *real = at(path, &p);
	return done(fi != NULL ? ftruncate((int)fi->fh, size) : truncate(real, size));
}

static int fs_utimens(const char *path, const struct timespec ts[2], struct fuse_file_info *fi)
{
	struct place p;
	(void)fi;
	return done(utimensat(AT_FDCWD, at(path, &p), ts, AT_SYMLINK_NOFOLLOW));
}

static int opened(int fd, struct fuse_file_info *fi)
{
	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	/* The kernel's copy of a page that was asked for before the stall and written in it stays
	 * the old one: a walsender sent zeros for records that had been flushed. */
	fi->direct_io = 1;
	return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
	struct place p;
	return opened(open(at(path, &p), (fi->flags & ~O_APPEND) | O_CLOEXEC), fi);
}

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	struct place p;
	const char *real = at(path, &p);
	int rc = opened(open(real, (fi->flags & ~O_APPEND) | O_CREAT | O_CLOEXEC, mode), fi);
	return rc < 0 ? rc : own(real);
}

static int fs_read(
	const char *path, char *out, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct place p;
	(void)at(path, &p);
	ssize_t n = pread((int)fi->fh, out, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int fs_write(
	const char *path, const char *bytes, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct place p;
	(void)at(path, &p);
	ssize_t n = pwrite((int)fi->fh, bytes, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int fs_fallocate(
	const char *path, int mode, off_t offset, off_t len, struct fuse_file_info *fi)
{
	struct place p;
	(void)at(path, &p);
	return done(fallocate((int)fi->fh, mode, offset, len));
}

static int fs_statfs(const char *path, struct statvfs *st)
{
	struct place p;
	return done(statvfs(at(path, &p), st));
}

static int fs_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	return done(close((int)fi->fh));
}

static int fs_fsync(const char *path, int only_data, struct fuse_file_info *fi)
{
	struct place p;
	(void)at(path, &p);
	return done(only_data ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

static int fs_fsyncdir(const char *path, int only_data, struct fuse_file_info *fi)
{
	struct place p;
	(void)at(path, &p);
	(void)only_data;
	(void)fi;
	return 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
	struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct place p;
	DIR *d = opendir(at(path, &p));
	(void)offset;
	(void)fi;
	(void)flags;
	if (d == NULL)
		return -errno;
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		fill(buf, e->d_name, NULL, 0, 0);
	closedir(d);
	return 0;
}

/* Metadata is asked for each time: a stalled disk answers nothing from a cache. */
static void *fs_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
	(void)conn;
	cfg->entry_timeout = cfg->attr_timeout = cfg->negative_timeout = 0;
	return NULL;
}

static const struct fuse_operations ops = { .init = fs_init,
	.getattr = fs_getattr,
	.readlink = fs_readlink,
	.mkdir = fs_mkdir,
	.unlink = fs_unlink,
	.rmdir = fs_rmdir,
	.symlink = fs_symlink,
	.rename = fs_rename,
	.link = fs_link,
	.chmod = fs_chmod,
	.chown = fs_chown,
	.truncate = fs_truncate,
	.utimens = fs_utimens,
	.open = fs_open,
	.create = fs_create,
	.read = fs_read,
	.write = fs_write,
	.fallocate = fs_fallocate,
	.statfs = fs_statfs,
	.release = fs_release,
	.fsync = fs_fsync,
	.fsyncdir = fs_fsyncdir,
	.readdir = fs_readdir };

int main(int argc, char **argv)
{
	if (argc != 3 || !str_copy(base, sizeof(base), argv[1])) {
		fprintf(stderr, "usage: stallfs <directory> <mount point>\n");
		return 2;
	}
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	umask(0);
	char options[] = "allow_other,default_permissions";
	char foreground[] = "-f", option[] = "-o";
	char *args[] = { argv[0], foreground, option, options, argv[2], NULL };
	return fuse_main(5, args, &ops, NULL);
}
