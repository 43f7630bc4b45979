/* Logging that never blocks. See log.h. */
#include "common/core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/core/clock.h"

#define LINE_MAX_BYTES 4000

static struct {
	char prefix[32];
	int fd, stderr_fd; /* the latter: a description of our own of descriptor 2 */
	int taken_fd;	   /* 0 = none */
	bool is_socket, stderr_is_socket, broken;
	enum log_level level;
	uint64_t lost, lost_reported;
	log_sink_fn sink;
} sink = { .fd = 2, .stderr_fd = 2, .level = LOG_INFO };

void log_open(const char *prefix, int fd, enum log_level level)
{
	snprintf(sink.prefix, sizeof(sink.prefix), "%s", prefix);
	sink.level = level;
	struct stat st;
	sink.is_socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	if (!sink.is_socket) {
		/* A description of our own: O_NONBLOCK on a shared one would reach every other
		 * writer. */
		char path[32];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		int own = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		if (own >= 0)
			fd = own;
	}
	sink.fd = sink.stderr_fd = fd;
	sink.stderr_is_socket = sink.is_socket;
	sink.broken = false;
}

void log_reopen(int fd)
{
	sink.broken = false;
	sink.fd = fd == 2 ? sink.stderr_fd : fd;
	sink.is_socket = fd == 2 ? sink.stderr_is_socket : true;
}

bool log_take(int fd)
{
	struct stat st;
	int domain = 0, type = 0, taken = sink.taken_fd;
	socklen_t len = sizeof(domain);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode) ||
			       getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 ||
			       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
			       domain != AF_UNIX || type != SOCK_SEQPACKET)) {
		close(fd);
		return false;
	}
	log_reopen(fd >= 0 ? fd : 2);
	sink.taken_fd = fd >= 0 ? fd : 0;
	if (taken > 0)
		close(taken);
	return true;
}

bool log_broken(void)
{
	return sink.broken;
}

void log_set_level(enum log_level level)
{
	sink.level = level;
}

enum log_level log_get_level(void)
{
	return sink.level;
}

uint64_t log_lost(void)
{
	return sink.lost;
}

void log_set_sink(log_sink_fn fn)
{
	sink.sink = fn;
}

static ssize_t put(int fd, bool is_socket, const char *line, size_t len)
{
	return is_socket ? send(fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL) : write(fd, line, len);
}

static bool write_line(const char *line, size_t len)
{
	ssize_t n = put(sink.fd, sink.is_socket, line, len);
	if (n < 0 && sink.is_socket && sink.fd != sink.stderr_fd && errno != EAGAIN) {
		sink.broken = true;
		sink.fd = sink.stderr_fd;
		sink.is_socket = sink.stderr_is_socket;
		n = put(sink.fd, sink.is_socket, line, len);
	}
	if (n == (ssize_t)len)
		return true;
	sink.lost++;
	return false;
}

void log_raw(const char *text)
{
	int saved = errno;
	char line[LINE_MAX_BYTES];
	size_t len = strnlen(text, sizeof(line) - 1);
	memcpy(line, text, len);
	line[len++] = '\n';
	write_line(line, len);
	errno = saved;
}

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_DEBUG: return "DEBUG";
	case LOG_INFO: return "INFO";
	case LOG_WARNING: return "WARNING";
	case LOG_ERROR: return "ERROR";
	case LOG_CRITICAL: return "CRITICAL";
	}
	return "INFO";
}

static void write_plain(enum log_level level, const char *text)
{
	char line[LINE_MAX_BYTES];
	int64_t wall_us = clock_wall_us();
	time_t sec = (time_t)(wall_us / 1000000);
	struct tm tm;
	localtime_r(&sec, &tm);
	int n = snprintf(line, sizeof(line) - 1, "%04d-%02d-%02d %02d:%02d:%02d,%03d %s: %s%s",
		tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		(int)(wall_us / 1000 % 1000), level_name(level), sink.prefix, text);
	if (n < 0)
		return;
	size_t len = (size_t)n < sizeof(line) - 1 ? (size_t)n : sizeof(line) - 2;
	line[len++] = '\n';
	write_line(line, len);
}

static void emit(const struct log_record *r)
{
	if (sink.sink != NULL)
		sink.sink(r);
	else
		write_plain(r->level, r->text);
}

/* What was lost is told with the first line that can be written again. */
static void report_lost(int64_t wall_us)
{
	char note[80];
	uint64_t lost = sink.lost;
	if (lost == sink.lost_reported)
		return;
	sink.lost_reported = lost;
	snprintf(note, sizeof(note), "log lines lost=%llu", (unsigned long long)lost);
	struct log_record r = { .level = LOG_WARNING, .text = note, .wall_us = wall_us };
	emit(&r);
}

void log_at(
	enum log_level level, const char *file, int line, const char *func, const char *fmt, ...)
{
	if (level < sink.level)
		return;
	int saved = errno;
	char text[LINE_MAX_BYTES - 100];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* One event stays one line, whatever a foreign program put into it. */
	for (char *p = text; *p != '\0'; p++) {
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	}
	struct log_record r = { .level = level,
		.text = text,
		.wall_us = clock_wall_us(),
		.file = file,
		.line = line,
		.func = func };
	report_lost(r.wall_us);
	emit(&r);
	errno = saved;
}
