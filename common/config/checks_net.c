/* Checks of addresses: they resolve and connect, which blocks. See checks.h. */
#include "common/config/checks.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/config/local.h"
#include "common/config/validate.h"
#include "common/core/limits.h"
#include "common/core/str.h"

#define CONNECT_MS 3000 /* of one address */
#define ITEM_PATH  128

#define CHECK(name)                                                                                \
	void check_##name(struct validate *v, const char *path, const json_t *value,               \
		const struct schema_row *row)

static bool answers(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	int failed = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
	if (failed == EINPROGRESS) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		socklen_t len = sizeof(failed);
		failed = ETIMEDOUT;
		if (poll(&p, 1, CONNECT_MS) == 1 &&
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) < 0)
			failed = errno;
	}
	close(fd);
	return failed == 0;
}

/* Does the first address of the name answer (with all: any)? Else the resolver's error code. */
static int probe(const char *host, int port, bool all, bool *out_answers)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list;
	char service[16];
	snprintf(service, sizeof(service), "%d", port);
	*out_answers = false;
	int rc = getaddrinfo(host, service, &hints, &list);
	if (rc != 0)
		return rc;
	for (struct addrinfo *a = list; a != NULL && !*out_answers; a = all ? a->ai_next : NULL)
		*out_answers = answers(a);
	freeaddrinfo(list);
	return 0;
}

/* False: a finding was added. `shown` is the value that it names, text what is not reachable. */
static bool check_host(struct validate *v, const char *path, const json_t *shown, const char *text,
	const char *host, int port, bool listen)
{
	bool there = false, wildcard = listen && strcmp(host, "*") == 0;
	int rc = probe(wildcard ? NULL : host, port, wildcard, &there);
	if (rc != 0)
		validate_fail(v, path, shown, "[Errno %d] %s", rc, gai_strerror(rc));
	else if (listen && there && !v->ignore_listen_port)
		validate_fail(v, path, shown, "Port %d is already in use.", port);
	else if (!listen && !there)
		validate_fail(v, path, shown, "%s is not reachable", text);
	else
		return true;
	return false;
}

/* host:port of a server that must answer. */
static bool check_server(
	struct validate *v, const char *path, const json_t *shown, const char *text)
{
	char host[LIMIT_URL];
	int port;
	if (text != NULL && local_split_address(text, 1, host, sizeof(host), &port))
		return check_host(v, path, shown, text, host, port, false);
	validate_fail(v, path, shown, "contains a wrong value");
	return false;
}

static void check_address(struct validate *v, const char *path, const json_t *value, bool many)
{
	char hosts[LIMIT_URL], host[LIMIT_URL];
	int port;
	const char *text = json_string_value(value);
	if (!local_split_address(text, 1, hosts, sizeof(hosts), &port)) {
		validate_fail(v, path, value, "contains a wrong value");
		return;
	}
	if (!many) {
		check_host(v, path, value, text, hosts[0] == '\0' ? "*" : hosts, port, true);
		return;
	}
	if (strchr(hosts, '*') != NULL && strcmp(hosts, "*") != 0) {
		validate_fail(v, path, value, "expecting '*' alone");
		return;
	}
	for (const char *p = hosts; *p != '\0';) {
		size_t n = strcspn(p, ",");
		if (!str_copy_n(host, sizeof(host), p, n) ||
			!check_host(v, path, value, text, host, port, true))
			return;
		p += n + (p[n] == ',');
	}
}

CHECK(listen)
{
	(void)row;
	check_address(v, path, value, false);
}

CHECK(listen_many)
{
	(void)row;
	check_address(v, path, value, true);
}

CHECK(reachable)
{
	(void)row;
	(void)check_server(v, path, value, json_string_value(value));
}

/* The first that does not answer is told. */
CHECK(partners)
{
	(void)row;
	size_t i;
	json_t *item;
	if (!json_is_array(value)) {
		validate_add(v, path, value, "is not an array");
		return;
	}
	json_array_foreach((json_t *)value, i, item)
	{
		if (!check_server(v, path, value, json_string_value(item)))
			return;
	}
}

/* "h1:p, h2:p" */
static void check_text(struct validate *v, const char *path, const json_t *value)
{
	for (const char *p = json_string_value(value);;) {
		char one[LIMIT_URL];
		p += strspn(p, " ");
		size_t n = strcspn(p, ","), len = n;
		while (len > 0 && p[len - 1] == ' ')
			len--;
		bool fits = str_copy_n(one, sizeof(one), p, len);
		if (!check_server(v, path, value, fits ? one : NULL) || p[n] == '\0')
			return;
		p += n + 1;
	}
}

static void check_list(struct validate *v, const char *path, const json_t *list)
{
	size_t i;
	json_t *item;
	if (json_array_size(list) == 0)
		validate_add(v, path, list, "is an empty list");
	json_array_foreach((json_t *)list, i, item)
	{
		char at[ITEM_PATH];
		if (!str_format(at, sizeof(at), "%s.%zu", path, i))
			continue;
		if (json_is_string(item))
			(void)check_server(v, at, item, json_string_value(item));
		else
			validate_add(v, at, item, "is not a string");
	}
}

CHECK(hosts)
{
	(void)row;
	if (json_is_string(value)) {
		check_text(v, path, value);
	} else if (json_is_array(value)) {
		check_list(v, path, value);
	} else {
		validate_add(v, path, value, "is not a string");
		validate_add(v, path, value, "is not a list");
	}
}

CHECK(connect_address)
{
	(void)row;
	static const char *const refused[] = { "127.0.0.1", "0.0.0.0", "*", "::1", "localhost" };
	char host[LIMIT_URL];
	int port;
	if (!local_split_address(json_string_value(value), 1, host, sizeof(host), &port)) {
		validate_fail(v, path, value, "contains a wrong value");
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(refused); i++) {
		if (strcmp(host, refused[i]) == 0)
			validate_fail(v, path, value,
				"must not contain \"127.0.0.1\", \"0.0.0.0\", \"*\", \"::1\", "
				"\"localhost\"");
	}
}
