/* postmaster.pid. See pmpid.h. */
#include "worker/files/pmpid.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/str.h"

#define PMPID_NAME	"postmaster.pid"
#define PMPID_BYTES_MAX 8192 /* PostgreSQL writes eight short lines, two of them paths */

/* FNV-1a over what distinguishes one file from its successor of the same name: the inode number
 * alone is used again. */
static uint64_t file_id_of(const struct stat *st)
{
	const uint64_t parts[] = { (uint64_t)st->st_dev, (uint64_t)st->st_ino,
		(uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec,
		(uint64_t)st->st_size };
	uint64_t h = 14695981039346656037u;
	for (size_t i = 0; i < sizeof(parts); i++)
		h = (h ^ ((const unsigned char *)parts)[i]) * 1099511628211u;
	return h != 0 ? h : 1;
}

static enum err_code open_dir(const char *data_dir, int *out_fd, struct err *err)
{
	int fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(
			err, errno == ENOENT ? ERR_NOTFOUND : ERR_SYS, errno, "open %s", data_dir);
	*out_fd = fd;
	return ERR_OK;
}

/* Lines, zero-terminated in place; missing ones are "". */
static void split_lines(char *text, const char *lines[], unsigned count)
{
	char *p = text;
	for (unsigned i = 0; i < count; i++) {
		lines[i] = p;
		char *end = strchr(p, '\n');
		if (end == NULL) {
			p += strlen(p);
			continue;
		}
		*end = '\0';
		p = end + 1;
	}
}

static void parse(char *text, struct msg_pmpid *out)
{
	const char *lines[4];
	split_lines(text, lines, ARRAY_LEN(lines));
	int64_t pid = 0, port = 0;
	/* Without the data directory line the file is cut off, and so may be its pid ("12" of
	 * "1234"). */
	if (lines[1][0] == '\0' || !str_to_i64(lines[0], &pid) || pid <= INT32_MIN ||
		pid > INT32_MAX)
		return;
	if (!str_copy(out->data_dir, sizeof(out->data_dir), lines[1]))
		return;
	out->pid = (int32_t)pid;
	if (!str_to_i64(lines[2], &out->start_time_s))
		out->start_time_s = 0;
	if (str_to_i64(lines[3], &port) && port > 0 && port < 65536)
		out->port = (uint32_t)port;
}

enum err_code pmpid_read_fd(int fd, const char *name, struct msg_pmpid *out, struct err *err)
{
	memset(out, 0, sizeof(*out));
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "stat %s", name);
	if (!S_ISREG(st.st_mode))
		return err_set(err, ERR_INVAL, 0, "%s is not a regular file", name);
	char text[PMPID_BYTES_MAX + 1];
	size_t n = 0;
	while (n < PMPID_BYTES_MAX) {
		ssize_t got = read(fd, text + n, PMPID_BYTES_MAX - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set(err, ERR_SYS, errno, "read %s", name);
		if (got == 0)
			break;
		n += (size_t)got;
	}
	text[n] = '\0';
	out->file_id = file_id_of(&st);
	parse(text, out);
	return ERR_OK;
}

static enum err_code read_at(int dir_fd, struct msg_pmpid *out, struct err *err)
{
	memset(out, 0, sizeof(*out));
	AUTO_FD fd = openat(dir_fd, PMPID_NAME, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return ERR_OK;
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "open " PMPID_NAME);
	return pmpid_read_fd(fd, PMPID_NAME, out, err);
}

enum err_code pmpid_read(const char *data_dir, struct msg_pmpid *out, struct err *err)
{
	AUTO_FD dir = -1;
	struct err local = ERR_INIT;
	enum err_code rc = open_dir(data_dir, &dir, &local);
	if (rc ==
		ERR_NOTFOUND) { /* a data directory that is not made yet holds no postmaster.pid */
		memset(out, 0, sizeof(*out));
		return ERR_OK;
	}
	if (rc != ERR_OK) {
		if (err != NULL)
			*err = local;
		return rc;
	}
	return read_at(dir, out, err);
}

enum err_code pmpid_remove(const char *data_dir, uint64_t file_id, int32_t pid, struct err *err)
{
	AUTO_FD dir = -1;
	enum err_code rc = open_dir(data_dir, &dir, err);
	if (rc != ERR_OK)
		return rc;
	struct msg_pmpid now;
	rc = read_at(dir, &now, err);
	if (rc != ERR_OK)
		return rc;
	if (now.file_id == 0)
		return ERR_OK;
	/* PostgreSQL appends to the file while it starts (shared memory key, status line): mtime
	 * and size, so file_id, change. A live postmaster is never removed from under itself by a
	 * stale order. */
	if (now.file_id != file_id || now.pid != pid)
		return err_set(err, ERR_CONFLICT, 0,
			PMPID_NAME " changed since it was read: pid=%d, expected %d", now.pid, pid);
	if (unlinkat(dir, PMPID_NAME, 0) < 0 && errno != ENOENT)
		return err_set(err, ERR_SYS, errno, "remove " PMPID_NAME);
	if (fsync(dir) < 0)
		return err_set(err, ERR_SYS, errno, "sync %s", data_dir);
	return ERR_OK;
}
