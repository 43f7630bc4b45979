/* Tails in a memfd. All processes. The writer fills it and seals it before it is sent; the reader
 * believes nothing but the seals. */
#include "common/core/bigtail.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define PIECE (64 * 1024)

enum err_code bigtail_make(const void *bytes, size_t len, int *out_fd, struct err *err)
{
	AUTO_FD fd = memfd_create("pgregent-tail", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "memfd_create");
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const char *)bytes + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, ERR_SYS, errno, "write %zu bytes to memory", len);
		done += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return err_set(err, ERR_SYS, errno, "seal");
	*out_fd = fd;
	fd = -1;
	return ERR_OK;
}

enum err_code bigtail_read(int fd, struct buf *out, struct err *err)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS)
		return err_set(err, ERR_PROTO, 0, "the descriptor of a tail is not sealed");
	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "fstat");
	if ((size_t)st.st_size > out->max - out->len)
		return err_set(err, ERR_LIMIT, 0, "a tail of %lld bytes, at most %zu are read",
			(long long)st.st_size, out->max - out->len);
	char piece[PIECE];
	for (off_t at = 0; at < st.st_size;) {
		ssize_t n = pread(fd, piece, sizeof(piece), at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, ERR_SYS, errno, "read of a tail");
		buf_add(out, piece, (size_t)n);
		at += n;
	}
	return out->failed
		       ? err_set(err, ERR_NOMEM, 0, "a tail of %lld bytes", (long long)st.st_size)
		       : ERR_OK;
}
