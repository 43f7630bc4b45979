/* The data directory in one look. See probe.h. */
#include "worker/files/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "worker/files/mark.h"
#include "worker/files/pgcontrol.h"

/* "15", and "9.6" as 9 (not supported, but not mistaken for an empty directory either). */
static int32_t read_major(int dir_fd)
{
	char text[16] = "";
	AUTO_FD fd = openat(dir_fd, "PG_VERSION", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	long v = strtol(text, NULL, 10);
	return v > 0 && v < 1000 ? (int32_t)v : 0;
}

static bool there(int dir_fd, const char *name)
{
	return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool mode_ok(const struct stat *st)
{
	return st->st_uid == geteuid() && (st->st_mode & 07777 & ~0750) == 0 &&
	       (st->st_mode & 0700) == 0700;
}

void probe_read(const struct fs *fs, struct pg_files *out)
{
	memset(out, 0, sizeof(*out));
	out->valid = true;
	out->read_at_ms = out->control.read_at_ms = clock_boot_ms();
	out->mark = mark_get(fs);
	AUTO_FD dir = open(fs->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		/* ENOTDIR, EACCES: something is there that is not for us. */
		out->dir_exists = errno != ENOENT;
		out->dir_empty = !out->dir_exists;
		out->control.fault = out->dir_exists ? PG_CONTROL_UNREADABLE : PG_CONTROL_ABSENT;
		return;
	}
	struct stat st;
	out->dir_exists = true;
	out->dir_readable = faccessat(dir, ".", R_OK | X_OK, AT_EACCESS) == 0;
	out->dir_mode_ok = fstat(dir, &st) == 0 && mode_ok(&st);
	out->dir_empty = out->dir_readable && fs_data_dir_empty(fs);
	out->standby_signal = there(dir, "standby.signal");
	out->recovery_signal = there(dir, "recovery.signal");
	out->backup_label = there(dir, "backup_label");
	out->promote = there(dir, "promote");
	out->recovery_conf = there(dir, "recovery.conf");
	out->major = read_major(dir);
	pgcontrol_read(dir, &out->control);
}

enum err_code probe_check_dir(const struct fs *fs, int64_t *out_mode, struct err *err)
{
	struct stat st;
	*out_mode = -1;
	if (stat(fs->data_dir, &st) < 0)
		return errno == ENOENT
			       ? ERR_OK
			       : err_set(err, ERR_SYS, errno, "data directory %s", fs->data_dir);
	*out_mode = st.st_mode & 07777;
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_INVAL, ENOTDIR, "data directory %s", fs->data_dir);
	if (st.st_uid != geteuid())
		return err_set(err, ERR_INVAL, EPERM,
			"data directory %s belongs to user %u, we run as %u", fs->data_dir,
			st.st_uid, geteuid());
	if (!mode_ok(&st))
		return err_set(err, ERR_INVAL, 0,
			"data directory %s has mode %04o, allowed are 0700 and 0750", fs->data_dir,
			(unsigned)(st.st_mode & 07777));
	return ERR_OK;
}
