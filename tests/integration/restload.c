/* Load on one path of a REST API over loopback: N connections, each with one request under way, by
 * epoll in one thread. Usage: restload <port> <path> <connections> keep|close <seconds>. Prints
 * requests per second and latencies. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/str.h"

#define CONNECTIONS 256
#define SAMPLES	    4000000

static struct load {
	int epoll_fd;
	struct sockaddr_in to;
	bool keep;
	char request[512];
	size_t request_len;
	struct {
		int fd;
		int64_t sent_us;
		char in[8192];
		size_t len;
	} conns[CONNECTIONS];
	unsigned errors, not_ok;
	unsigned count;
	uint32_t latency_us[SAMPLES];
} load;

static void die(const char *what)
{
	fprintf(stderr, "restload: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void send_request(unsigned i)
{
	load.conns[i].len = 0;
	if (send(load.conns[i].fd, load.request, load.request_len, MSG_NOSIGNAL) !=
		(ssize_t)load.request_len)
		load.errors++;
}

static void open_one(unsigned i)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	load.conns[i].sent_us = clock_boot_us();
	if (fd < 0 || connect(fd, (struct sockaddr *)&load.to, sizeof(load.to)) < 0)
		die("connect");
	load.conns[i].fd = fd;
	struct epoll_event e = { .events = EPOLLIN, .data.u32 = i };
	if (epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
		die("epoll_ctl");
	send_request(i);
}

/* The whole answer is there: headers and as many bytes as they announce. */
static bool complete(unsigned i)
{
	char *in = load.conns[i].in;
	in[load.conns[i].len] = '\0';
	char *end = strstr(in, "\r\n\r\n");
	char *length = strcasestr(in, "content-length: ");
	if (end == NULL || length == NULL)
		return false;
	size_t body = (size_t)strtoul(length + 16, NULL, 10);
	return load.conns[i].len >= (size_t)(end + 4 - in) + body;
}

static void finished(unsigned i)
{
	int64_t now_us = clock_boot_us();
	if (strncmp(load.conns[i].in + 8, " 200", 4) != 0)
		load.not_ok++;
	if (load.count < SAMPLES)
		load.latency_us[load.count++] = (uint32_t)(now_us - load.conns[i].sent_us);
	if (load.keep) {
		load.conns[i].sent_us = now_us;
		send_request(i);
	} else {
		close(load.conns[i].fd);
		open_one(i);
	}
}

static void readable(unsigned i)
{
	size_t room = sizeof(load.conns[i].in) - 1 - load.conns[i].len;
	ssize_t n =
		recv(load.conns[i].fd, load.conns[i].in + load.conns[i].len, room, MSG_DONTWAIT);
	if (n <= 0) {
		if (n < 0 && errno == EAGAIN)
			return;
		load.errors++;
		close(load.conns[i].fd);
		open_one(i);
		return;
	}
	load.conns[i].len += (size_t)n;
	if (complete(i))
		finished(i);
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int64_t port, n, seconds;
	if (argc != 6 || !str_to_i64(argv[1], &port) || !str_to_i64(argv[3], &n) || n < 1 ||
		n > CONNECTIONS || !str_to_i64(argv[5], &seconds)) {
		fprintf(stderr,
			"usage: restload <port> <path> <connections> keep|close <seconds>\n");
		return 2;
	}
	load.keep = strcmp(argv[4], "keep") == 0;
	load.to = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (!str_format(load.request, sizeof(load.request), "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n",
		    argv[2], load.keep ? "" : "Connection: close\r\n"))
		die("path");
	load.request_len = strlen(load.request);
	load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int64_t begin_us = clock_boot_us(), end_us = begin_us + seconds * 1000000;
	for (unsigned i = 0; i < (unsigned)n; i++)
		open_one(i);
	while (clock_boot_us() < end_us && load.count < SAMPLES) {
		struct epoll_event events[64];
		int got = epoll_wait(load.epoll_fd, events, 64, 1000);
		for (int i = 0; i < got; i++)
			readable(events[i].data.u32);
	}
	int64_t took_us = clock_boot_us() - begin_us;
	if (load.count == 0) {
		printf("no answer\n");
		return 1;
	}
	qsort(load.latency_us, load.count, sizeof(load.latency_us[0]), by_size);
	printf("%.0f /s  p50 %u us  p99 %u us  max %u us  not_200 %u  errors %u\n",
		(double)load.count * 1e6 / (double)took_us, load.latency_us[load.count / 2],
		load.latency_us[load.count * 99 / 100], load.latency_us[load.count - 1],
		load.not_ok, load.errors);
	return 0;
}
