/* The listening sockets. See ports.h. */
#include "api/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "api/tls.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/dns.h"

#define RETRY_MS 2000

void ports_init(struct ports *p, struct api *api)
{
	*p = (struct ports){ .api = api };
}

enum err_code ports_open_local(struct ports *p, const char *runtime_dir, struct err *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	if (!str_format(sa.sun_path, sizeof(sa.sun_path), "%s/api.sock", runtime_dir))
		return err_set(err, ERR_LIMIT, 0, "run-time directory %s: the name is too long",
			runtime_dir);
	AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "socket");
	/* Bound under another name and moved: a client finds the old socket or the new one, never
	 * none. */
	char final[sizeof(sa.sun_path)];
	memcpy(final, sa.sun_path, sizeof(final));
	if (!str_format(sa.sun_path, sizeof(sa.sun_path), "%s.new", final))
		return err_set(err, ERR_LIMIT, 0, "%s.new: the name is too long", final);
	unlink(sa.sun_path);
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 128) < 0 ||
		chmod(sa.sun_path, 0600) < 0 || rename(sa.sun_path, final) < 0)
		return err_set(err, ERR_SYS, errno, "%s", final);
	enum err_code rc = http_start(&p->api->http, fd, true, NULL, &p->local, err);
	if (rc == ERR_OK) {
		fd = -1;
		memcpy(p->path, final, sizeof(p->path));
	}
	return rc;
}

/* ---- TCP ----------------------------------------------------------------------------------------
 */

static int open_socket(int family, const struct sockaddr *sa, socklen_t len, int backlog)
{
	int on = 1, off = 0;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, sa, len) < 0 || listen(fd, backlog) < 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

/* host: numeric, or "" for all addresses: dual stack where there is IPv6, else IPv4. */
static int open_port(const char *host, uint16_t port, int backlog)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
	if (inet_pton(AF_INET, host, &four.sin_addr) != 1) {
		bool all = host[0] == '\0';
		if (!all && inet_pton(AF_INET6, host, &six.sin6_addr) != 1) {
			errno = EADDRNOTAVAIL;
			return -1;
		}
		int fd = open_socket(AF_INET6, (struct sockaddr *)&six, sizeof(six), backlog);
		if (fd >= 0 || !all || errno == EADDRINUSE)
			return fd;
	}
	return open_socket(AF_INET, (struct sockaddr *)&four, sizeof(four), backlog);
}

/* The socket for the new settings. The old one is used again when the address is the same. */
static int take_socket(struct ports *p, const char *host)
{
	const struct api_settings *s = &p->api->settings;
	bool same_port = p->tcp != NULL && p->port == s->listen_port;
	if (same_port && strcmp(p->host, host) == 0)
		return dup(p->tcp->listen_fd);
	int fd = open_port(host, s->listen_port, s->backlog);
	if (fd >= 0 || errno != EADDRINUSE || !same_port)
		return fd;
	/* 0.0.0.0:8008 and 127.0.0.1:8008 exclude each other: here the old one must go first. */
	int old = http_retire(&p->api->http, p->tcp);
	p->tcp = NULL;
	close(old);
	fd = open_port(host, s->listen_port, s->backlog);
	return fd;
}

static enum err_code start_tls(
	struct ports *p, int fd, struct listener **out, uint64_t *out_hash, struct err *err)
{
	const struct api_settings *s = &p->api->settings;
	struct tls_files files = TLS_FILES_INIT;
	char priorities[TLS_PRIORITIES_MAX];
	enum err_code rc = tls_files_read(&files, s, err);
	if (rc == ERR_OK)
		rc = tls_priorities(s->ciphers, priorities, err);
	if (rc == ERR_OK)
		rc = tls_check(&files, s, priorities, err);
	struct http_tls tls = { .cert = buf_str(&files.cert),
		.key = buf_str(&files.key),
		.key_password = s->keyfile_password,
		.trust = files.trust.len > 0 ? buf_str(&files.trust) : NULL,
		.priorities = priorities,
		.verify_client = s->verify_client };
	if (rc == ERR_OK)
		rc = http_start(&p->api->http, fd, false, &tls, out, err);
	*out_hash = files.hash;
	tls_files_done(&files);
	return rc;
}

static enum err_code rebind(struct ports *p, const char *host, struct err *err)
{
	const struct api_settings *s = &p->api->settings;
	struct listener *started = NULL;
	uint64_t hash = 0;
	struct api_settings *bound = calloc(1, sizeof(*bound));
	if (bound == NULL)
		return err_set(err, ERR_NOMEM, 0, "settings");
	*bound = *s;
	json_incref(bound->raw);
	int fd = take_socket(p, host);
	enum err_code rc = ERR_OK;
	if (fd < 0)
		rc = err_set(err, ERR_SYS, errno, "restapi.listen %s:%u", host, s->listen_port);
	else if (s->tls)
		rc = start_tls(p, fd, &started, &hash, err);
	else
		rc = http_start(&p->api->http, fd, false, NULL, &started, err);
	if (rc != ERR_OK) {
		if (fd >= 0)
			close(fd);
		settings_free(bound);
		free(bound);
		return rc;
	}
	if (p->tcp != NULL)
		close(http_retire(&p->api->http, p->tcp));
	if (p->bound != NULL)
		settings_free(p->bound);
	free(p->bound);
	p->bound = bound;
	p->tcp = started;
	p->files_hash = hash;
	p->port = s->listen_port;
	snprintf(p->host, sizeof(p->host), "%s", host); /* numeric: it fits */
	return ERR_OK;
}

static void on_retry(struct loop *l, void *arg)
{
	(void)l;
	ports_apply(arg);
}

static void failed(struct ports *p, const char *text)
{
	if (!p->complained)
		log_error("listen failed, tried again every %d s: %s", RETRY_MS / 1000, text);
	p->complained = true;
	link_report(p->api, p->tcp != NULL, text);
	loop_timer_set(&p->api->loop, &p->retry, clock_boot_ms() + RETRY_MS, on_retry, p);
}

static void apply_host(struct ports *p, const char *host)
{
	struct err err = ERR_INIT;
	const struct api_settings *s = &p->api->settings;
	if (rebind(p, host, &err) != ERR_OK) {
		failed(p, err.text);
		return;
	}
	p->complained = false;
	log_info("listening host=%s port=%u tls=%s", host[0] != '\0' ? host : "*", s->listen_port,
		s->tls ? "on" : "off");
	link_report(p->api, true, "");
}

struct lookup {
	struct ports *ports;
	uint32_t serial;
};

static void on_address(const struct dns_answer *a, void *arg)
{
	struct lookup *look = arg;
	struct ports *p = look->ports;
	bool current = look->serial == p->lookups;
	free(look);
	if (!current)
		return;
	char text[320];
	if (a->count > 0) {
		apply_host(p, a->addrs[0]);
	} else {
		snprintf(text, sizeof(text), "restapi.listen: %s cannot be resolved",
			p->api->settings.listen_host);
		failed(p, text);
	}
}

static void resolve(struct ports *p)
{
	struct names *n = &p->api->names;
	struct err err = ERR_INIT;
	struct lookup *look = malloc(sizeof(*look));
	if (look == NULL || (n->dns == NULL && dns_new(&n->dns, n->loop, &err) != ERR_OK)) {
		failed(p, look == NULL ? "no memory" : err.text);
		free(look);
		return;
	}
	*look = (struct lookup){ p, p->lookups };
	dns_lookup(n->dns, p->api->settings.listen_host, on_address, look);
}

/* The files of a running TLS listener are other ones by now. What cannot be read is no reason to
 * rebind. */
static bool files_changed(const struct ports *p)
{
	struct tls_files files = TLS_FILES_INIT;
	struct err err = ERR_INIT;
	if (!p->api->settings.tls)
		return false;
	enum err_code rc = tls_files_read(&files, &p->api->settings, &err);
	bool changed = rc == ERR_OK && files.hash != p->files_hash;
	if (rc != ERR_OK)
		log_error("%s", err.text);
	tls_files_done(&files);
	return changed;
}

void ports_apply(struct ports *p)
{
	const struct api_settings *s = &p->api->settings;
	p->lookups++;
	loop_timer_stop(&p->api->loop, &p->retry);
	if (p->tcp != NULL && settings_same_listener(p->bound, s) && !files_changed(p)) {
		link_report(p->api, true, "");
		return;
	}
	struct net net;
	if (s->listen_host[0] == '\0' || net_parse(s->listen_host, &net))
		apply_host(p, s->listen_host);
	else
		resolve(p);
}

void ports_done(struct ports *p)
{
	loop_timer_stop(&p->api->loop, &p->retry);
	if (p->bound != NULL)
		settings_free(p->bound);
	free(p->bound);
	p->bound = NULL;
}
