/* The log file's writer. See logwriter.h. It may block on its disk for ever; it must not decide,
 * and nothing may wait for it. */
#include "worker/files/logwriter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/limits.h"
#include "common/core/str.h"

#define CLIENTS_MAX 8
#define LINE_ROOM   32768
#define IDLE_MS	    10000 /* without a client */
#define CHECK_MS    1000  /* is the socket still ours? */

struct writer {
	char socket[108], dir[LIMIT_PATH], path[LIMIT_PATH];
	int64_t file_size, file_num, mode;
	ino_t inode; /* of the socket */
	int listen_fd, fd;
	int64_t pos;
	uint64_t lost;
	struct pollfd polls[CLIENTS_MAX + 1]; /* the first one listens */
	unsigned count;
	int64_t idle_since_ms;
};

/* ---- file
 * ------------------------------------------------------------------------------------------ */

static void open_file(struct writer *w)
{
	struct stat st;
	if (w->fd >= 0)
		close(w->fd);
	w->fd = open(w->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	w->pos = w->fd >= 0 && fstat(w->fd, &st) == 0 ? st.st_size : 0;
	if (w->fd >= 0 && w->mode >= 0)
		(void)!fchmod(w->fd, (mode_t)w->mode);
}

/* patroni.log.1 is the newest of file_num old ones. */
static void rotate(struct writer *w)
{
	char from[LIMIT_PATH + 24], to[LIMIT_PATH + 24];
	for (int64_t i = w->file_num - 1; i >= 0; i--) {
		bool fits = i > 0 ? str_format(from, sizeof(from), "%s.%lld", w->path, (long long)i)
				  : str_copy(from, sizeof(from), w->path);
		if (fits && str_format(to, sizeof(to), "%s.%lld", w->path, (long long)i + 1))
			(void)rename(from, to); /* what is not there yet is no fault */
	}
	open_file(w);
}

static bool put(struct writer *w, const char *bytes, size_t len)
{
	ssize_t n = w->fd >= 0 ? write(w->fd, bytes, len) : -1;
	if (n > 0)
		w->pos += n;
	return n == (ssize_t)len;
}

static void take_line(struct writer *w, const char *line, size_t len)
{
	char note[64];
	if (w->file_size > 0 && w->file_num > 0 && w->pos > 0 &&
		w->pos + (int64_t)len >= w->file_size)
		rotate(w);
	if (w->fd < 0)
		open_file(w);
	if (w->lost > 0) {
		int n = snprintf(note, sizeof(note), "log lines lost by the log file=%llu\n",
			(unsigned long long)w->lost);
		if (!put(w, note, (size_t)n)) {
			w->lost++;
			return;
		}
		w->lost = 0;
	}
	w->lost += !put(w, line, len);
}

/* ---- clients
 * --------------------------------------------------------------------------------------- */

static void accept_client(struct writer *w)
{
	int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (w->count > CLIENTS_MAX) {
		close(fd);
		return;
	}
	w->polls[w->count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

/* False: this client has gone. */
static bool read_client(struct writer *w, int fd)
{
	char line[LINE_ROOM];
	for (int i = 0; i < 64; i++) {
		ssize_t n = recv(fd, line, sizeof(line), MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (n == 0)
			return false;
		take_line(w, line, (size_t)n);
	}
	return true;
}

static bool still_ours(const struct writer *w)
{
	struct stat st;
	return lstat(w->socket, &st) == 0 && st.st_ino == w->inode;
}

static void serve(struct writer *w)
{
	int64_t check_ms = 0;
	bool replaced = false;
	for (;;) {
		int64_t now_ms = clock_boot_ms();
		if (now_ms >= check_ms) {
			replaced = replaced || !still_ours(w);
			check_ms = now_ms + CHECK_MS;
		}
		if (w->count > 1)
			w->idle_since_ms = now_ms;
		if ((replaced && w->count == 1) || now_ms - w->idle_since_ms >= IDLE_MS)
			return;
		if (poll(w->polls, w->count, CHECK_MS) <= 0)
			continue;
		for (unsigned i = w->count; i-- > 1;) {
			if (w->polls[i].revents == 0 || read_client(w, w->polls[i].fd))
				continue;
			close(w->polls[i].fd);
			w->polls[i] = w->polls[--w->count];
		}
		if (w->polls[0].revents != 0)
			accept_client(w);
	}
}

/* ---- start
 * ----------------------------------------------------------------------------------------- */

/* Bound beside the name and renamed over it: a client finds the old one or the new one. */
static enum err_code bind_socket(struct writer *w, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	if (!str_format(a.sun_path, sizeof(a.sun_path), "%s.new", w->socket))
		return err_set(
			err, ERR_LIMIT, 0, "%s: longer than a socket's name may be", w->socket);
	w->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (w->listen_fd < 0)
		return err_set(err, ERR_SYS, errno, "socket");
	unlink(a.sun_path);
	mode_t old = umask(0177);
	int rc = bind(w->listen_fd, (struct sockaddr *)&a, sizeof(a));
	umask(old);
	if (rc < 0 || listen(w->listen_fd, CLIENTS_MAX) < 0 || lstat(a.sun_path, &st) < 0 ||
		rename(a.sun_path, w->socket) < 0)
		return err_set(err, ERR_SYS, errno, "%s", w->socket);
	w->inode = st.st_ino;
	return ERR_OK;
}

static enum err_code read_args(struct writer *w, int argc, char **argv, struct err *err)
{
	if (argc != 7 || !str_to_i64(argv[4], &w->file_size) ||
		!str_to_i64(argv[5], &w->file_num) || !str_to_i64(argv[6], &w->mode) ||
		w->file_num < 0 || w->file_num > 10000)
		return err_set(err, ERR_INVAL, 0,
			"--log-writer SOCKET DIR FILE_SIZE FILE_NUM MODE is expected");
	if (!str_copy(w->socket, sizeof(w->socket), argv[2]) ||
		!str_copy(w->dir, sizeof(w->dir), argv[3]) ||
		!str_format(w->path, sizeof(w->path), "%s/" LOGWRITER_NAME, w->dir))
		return err_set(err, ERR_LIMIT, 0, "log.dir %s: too long", argv[3]);
	return ERR_OK;
}

static enum err_code prepare(struct writer *w, int argc, char **argv, struct err *err)
{
	enum err_code rc = read_args(w, argc, argv, err);
	if (rc != ERR_OK)
		return rc;
	open_file(w);
	if (w->fd < 0)
		return err_set(err, ERR_SYS, errno, "log.dir: %s", w->path);
	return bind_socket(w, err);
}

int logwriter_main(int argc, char **argv)
{
	static struct writer w = { .fd = -1, .listen_fd = -1 };
	struct err err = ERR_INIT;
	if (prepare(&w, argc, argv, &err) != ERR_OK) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	/* Into the background: the job that started it has done its work. */
	pid_t pid = fork();
	if (pid != 0)
		return pid < 0;
	setsid();
	signal(SIGPIPE, SIG_IGN);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	w.polls[0] = (struct pollfd){ .fd = w.listen_fd, .events = POLLIN };
	w.count = 1;
	w.idle_since_ms = clock_boot_ms();
	serve(&w);
	if (still_ours(&w))
		unlink(w.socket);
	return 0;
}
