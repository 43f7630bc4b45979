/* libmicrohttpd driven by our loop. See http.h. */
#include "api/http.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/api.h"
#include "common/core/api_contract.h"
#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define CONNECTIONS 512
#define POOL_BYTES  (36 * 1024) /* of a connection: 32 KiB of request line and headers fit */
#define IDLE_S	    60		/* a connection on which nothing happens */
#define REQUEST_MS  15000	/* from its first line to its last byte, however slowly it drips */
#define SWEEP_MS    1000
#define DRAIN_MS    60000 /* requests of a listener that was replaced */

/* ---- connections --------------------------------------------------------------------------------
 */

static void sweep(struct loop *l, void *arg)
{
	struct http *h = arg;
	int64_t now_ms = clock_boot_ms();
	for (struct conn *c = h->conns; c != NULL; c = c->next) {
		/* The first request must come soon: what talks something else than HTTP waits for
		 * ever. */
		int64_t limit_ms = c->in_request || !c->served ? REQUEST_MS : IDLE_S * 1000;
		/* The library closes it when it sees the end of the stream. */
		if (c->waiting == NULL && now_ms - c->since_ms > limit_ms)
			shutdown(c->fd, SHUT_RDWR);
	}
	if (h->conns != NULL)
		loop_timer_set(l, &h->sweep, now_ms + SWEEP_MS, sweep, h);
}

/* Peers that vanish without a word are found (rest 12.1). */
static void tune(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = { { SOL_SOCKET, SO_KEEPALIVE, 1 }, { IPPROTO_TCP, TCP_USER_TIMEOUT, 10000 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, 3 }, { IPPROTO_TCP, TCP_KEEPINTVL, 2 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 3 } };
	for (unsigned i = 0; i < ARRAY_LEN(options); i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
			sizeof(options[i].value));
}

/* A certificate that was sent must verify, in both modes that ask for one. */
static int verify_peer(gnutls_session_t session)
{
	gnutls_typed_vdata_st purpose = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT };
	unsigned status = 0, n = 0;
	if (gnutls_certificate_get_peers(session, &n) == NULL || n == 0)
		return 0; /* REQUIRE refuses that itself */
	int rc = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
	return rc == 0 && status == 0 ? 0 : -1;
}

static void connection_opened(struct listener *l, struct MHD_Connection *mhd, void **socket_context)
{
	struct http *h = l->http;
	struct conn *c = calloc(1, sizeof(*c));
	*socket_context = c;
	if (c == NULL)
		return; /* its requests get 503 */
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	c->fd = info != NULL ? info->connect_fd : -1;
	c->listener = l;
	c->since_ms = clock_boot_ms();
	c->next = h->conns;
	if (c->next != NULL)
		c->next->prev_next = &c->next;
	c->prev_next = &h->conns;
	h->conns = c;
	if (h->sweep.at_ms == 0)
		loop_timer_set(&h->api->loop, &h->sweep, c->since_ms + SWEEP_MS, sweep, h);
	if (l->local) {
		struct ucred cred;
		socklen_t len = sizeof(cred);
		if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
			c->local_trusted = cred.uid == 0 || cred.uid == geteuid();
		return;
	}
	tune(c->fd);
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (info == NULL || !auth_addr(info->client_addr, c->addr))
		memset(c->addr, 0, sizeof(c->addr));
	if (!l->tls || l->verify_client == VERIFY_NONE)
		return;
	info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	gnutls_session_t session = info != NULL ? info->tls_session : NULL;
	INVARIANT(session != NULL); /* else verify_client would silently not be enforced */
	gnutls_certificate_server_set_request(session,
		l->verify_client == VERIFY_REQUIRED ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_REQUEST);
	gnutls_session_set_verify_function(session, verify_peer);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
	enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		connection_opened(cls, mhd, socket_context);
		return;
	}
	struct conn *c = *socket_context;
	if (c == NULL)
		return;
	*c->prev_next = c->next;
	if (c->next != NULL)
		c->next->prev_next = c->prev_next;
	free(c);
	*socket_context = NULL;
}

/* ---- requests -----------------------------------------------------------------------------------
 */

static struct conn *conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info != NULL ? info->socket_context : NULL;
}

/* The request line was read: the earliest moment at which a request exists. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct listener *l = cls;
	size_t len = strlen(uri) + 1;
	struct conn *c = conn_of(mhd);
	struct request *r = c != NULL ? calloc(1, sizeof(*r) + 3 * len + 1) : NULL;
	if (r == NULL)
		return NULL;
	r->api = l->http->api;
	r->listener = l;
	r->conn = c;
	r->mhd = mhd;
	r->target = (char *)(r + 1);
	r->path = r->target + len;
	r->scratch = r->path + len + 1;
	r->body.max = API_BODY_MAX;
	memcpy(r->target, uri, len);
	r->query_ok = route_query(r->target, r->scratch, &r->query);
	c->since_ms = clock_boot_ms();
	c->in_request = true;
	return r;
}

static void on_completed(
	void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode code)
{
	struct request *r = *con_cls;
	(void)cls;
	(void)mhd;
	(void)code;
	if (r == NULL)
		return;
	facts_forget(r);
	action_forget(r);
	r->conn->in_request = false;
	r->conn->served = true;
	r->conn->waiting = NULL;
	r->conn->since_ms = clock_boot_ms();
	if (r->response != NULL)
		MHD_destroy_response(r->response);
	buf_done(&r->body);
	free(r);
	*con_cls = NULL;
}

static bool has_certificate(const struct request *r)
{
	unsigned n = 0;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	return info != NULL && info->tls_session != NULL &&
	       gnutls_certificate_get_peers(info->tls_session, &n) != NULL && n > 0;
}

static void authorize(struct request *r)
{
	struct api *a = r->api;
	struct auth_request q = { .local = r->listener->local,
		.local_trusted = r->conn->local_trusted,
		.tls = r->listener->tls,
		.certificate = r->listener->tls && has_certificate(r),
		.members_count = r->route->by_members,
		.authorization = MHD_lookup_connection_value(
			r->mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION) };
	memcpy(q.addr, r->conn->addr, sizeof(q.addr));
	r->refused = auth_check(&a->settings, &q, names_allowlist(&a->names, &a->settings),
		names_members(&a->names, view_cluster(&a->view, clock_boot_ms())));
}

static void begin(struct request *r, const char *verb)
{
	r->started = true;
	r->verb = verb;
	view_refresh(&r->api->view);
	INVARIANT(route_path(
		r->target, r->path, strlen(r->target) + 2)); /* never longer than the target */
	r->route = route_find(verb, r->path);
	const char *length = MHD_lookup_connection_value(
		r->mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	uint64_t bytes = 0;
	r->has_length = length != NULL;
	r->too_large = length != NULL && (!str_to_u64(length, &bytes) || bytes > API_BODY_MAX);
	if (r->route->guarded)
		authorize(r);
}

static enum MHD_Result queue(struct request *r)
{
	r->conn->waiting = NULL;
	/* Old probes and balancers speak 1.0 and expect it back. */
	if (r->http_1_0)
		(void)MHD_set_response_options(r->response, MHD_RF_HTTP_1_0_SERVER, MHD_RO_END);
	return MHD_queue_response(r->mhd, r->status, r->response);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *mhd, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_len,
	void **con_cls)
{
	struct request *r = *con_cls;
	(void)cls;
	(void)url;
	(void)mhd;
	if (r == NULL)
		return MHD_NO; /* no memory: closed without an answer */
	if (!r->started) {
		begin(r, method);
		r->http_1_0 = strcmp(version, MHD_HTTP_VERSION_1_0) == 0;
		if (r->too_large) {
			char text[80];
			snprintf(text, sizeof(text),
				"the request body is too large: at most %d bytes are allowed",
				API_BODY_MAX);
			reply_page(r, 413, text);
			return queue(r);
		}
		return MHD_YES;
	}
	if (*upload_len > 0) {
		/* A body without a length is read and thrown away: the answer will be 411. */
		if (r->has_length && r->refused.status == 0)
			buf_add(&r->body, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	if (!r->complete) {
		r->complete = true;
		serve_request(r);
	}
	if (r->response != NULL)
		return queue(r);
	INVARIANT(r->suspended);
	return MHD_YES;
}

void request_wait(struct request *r)
{
	if (r->suspended)
		return;
	r->suspended = true;
	r->conn->waiting = r;
	MHD_suspend_connection(r->mhd);
}

/* ---- answers ------------------------------------------------------------------------------------
 */

static void answer(struct request *r, unsigned status, struct MHD_Response *response)
{
	INVARIANT(r->response == NULL);
	r->status = status;
	r->response = response;
	/* Out of memory: the smallest answer there is. */
	if (r->response == NULL) {
		r->status = 500;
		r->response =
			MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
		INVARIANT(r->response != NULL);
	}
	if (r->suspended) {
		r->suspended = false;
		MHD_resume_connection(r->mhd);
		r->listener->kick = true;
	}
}

static void header(struct MHD_Response *response, const char *name, const char *value)
{
	if (MHD_add_response_header(response, name, value) != MHD_YES)
		log_warning("header %s: refused by the HTTP library", name);
}

void reply_line(struct request *r, unsigned status)
{
	answer(r, status, MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT));
}

/* Whether a header of the http set is replaced by one of the https set. */
static bool overridden(const struct api_settings *s, const char *name)
{
	for (unsigned i = 0; i < s->https_header_count; i++) {
		if (str_eq_nocase(s->https_headers[i].name, name))
			return true;
	}
	return false;
}

static void doc_headers(struct request *r, struct MHD_Response *response, struct reply_extra extra)
{
	const struct api_settings *s = &r->api->settings;
	char lsn[24];
	if (s->server[0] != '\0')
		header(response, "Server", s->server);
	if (extra.challenge)
		header(response, "WWW-Authenticate", "Basic realm=\"Patroni\"");
	if (extra.lsn >= 0 && str_format(lsn, sizeof(lsn), "%lld", (long long)extra.lsn))
		header(response, "lsn", lsn);
	header(response, "Content-Type",
		extra.json    ? "application/json"
		: extra.plain ? "text/plain"
			      : "text/html");
	for (unsigned i = 0; i < s->http_header_count; i++) {
		if (!r->listener->tls || !overridden(s, s->http_headers[i].name))
			header(response, s->http_headers[i].name, s->http_headers[i].value);
	}
	for (unsigned i = 0; r->listener->tls && i < s->https_header_count; i++)
		header(response, s->https_headers[i].name, s->https_headers[i].value);
}

void reply_doc(
	struct request *r, unsigned status, const char *body, size_t len, struct reply_extra extra)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(len, (void *)body, MHD_RESPMEM_MUST_COPY);
	if (response != NULL)
		doc_headers(r, response, extra);
	answer(r, status, response);
}

void reply_json(struct request *r, unsigned status, json_t *take)
{
	char *text = take != NULL ? json_python(take) : NULL;
	json_decref(take);
	struct MHD_Response *response = NULL;
	if (text != NULL)
		response =
			MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (response != NULL)
		doc_headers(r, response, (struct reply_extra){ .lsn = -1, .json = true });
	answer(r, status, response);
}

void reply_text(struct request *r, unsigned status, const char *text)
{
	reply_doc(r, status, text, strlen(text), (struct reply_extra){ .lsn = -1 });
}

static void add_escaped(struct buf *b, const char *text)
{
	for (const char *p = text; *p != '\0'; p++) {
		switch (*p) {
		case '<': buf_adds(b, "&lt;"); break;
		case '>': buf_adds(b, "&gt;"); break;
		case '&': buf_adds(b, "&amp;"); break;
		default: buf_add(b, p, 1);
		}
	}
}

void reply_page(struct request *r, unsigned status, const char *explanation)
{
	AUTO(buf) b = BUF_INIT(16 * 1024);
	char message[128];
	const char *reason = MHD_get_reason_phrase_for(status);
	if (status != 501 ||
		!str_format(message, sizeof(message), "Unsupported method ('%s')", r->verb))
		snprintf(message, sizeof(message), "%s", reason);
	buf_addf(&b,
		"<!DOCTYPE HTML>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">"
		"<title>Error response</title></head>\n<body>\n<h1>Error response</h1>\n"
		"<p>Error code: %u</p>\n<p>Message: ",
		status);
	add_escaped(&b, message);
	buf_addf(&b, ".</p>\n<p>Error code explanation: %u - ", status);
	add_escaped(&b, explanation);
	buf_adds(&b, ".</p>\n</body>\n</html>\n");
	struct MHD_Response *response = MHD_create_response_from_buffer(
		b.failed ? 0 : b.len, (void *)buf_str(&b), MHD_RESPMEM_MUST_COPY);
	if (response != NULL) {
		if (r->api->settings.server[0] != '\0')
			header(response, "Server", r->api->settings.server);
		header(response, "Connection", "close");
		header(response, "Content-Type", "text/html;charset=utf-8");
	}
	answer(r, status, response);
}

/* ---- daemons ------------------------------------------------------------------------------------
 */

static void library_log(void *cls, const char *fmt, va_list ap)
{
	char text[512];
	(void)cls;
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	while (n > 0 && (size_t)n < sizeof(text) && text[n - 1] == '\n')
		text[--n] = '\0';
	log_debug("http: %s", text);
}

/* Panic of the library: our process ends, the supervisor starts the next one. */
static void library_panic(void *cls, const char *file, unsigned line, const char *reason)
{
	(void)cls;
	invariant_failed(reason != NULL ? reason : "libmicrohttpd", file, (int)line);
}

static void run(struct listener *l)
{
	l->kick = false;
	if (MHD_run(l->daemon) != MHD_YES)
		log_error("http: the library refuses to run");
}

static void on_epoll(struct loop *loop, int fd, short revents, void *arg)
{
	(void)loop;
	(void)fd;
	(void)revents;
	run(arg);
}

static void on_timer(struct loop *loop, void *arg)
{
	(void)loop;
	run(arg);
}

static unsigned tls_options(const struct http_tls *tls, struct MHD_OptionItem *o)
{
	unsigned n = 0;
	o[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)tls->cert };
	o[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)tls->key };
	o[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)tls->priorities };
	if (tls->key_password != NULL)
		o[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_KEY_PASSWORD, 0,
			(void *)tls->key_password };
	if (tls->trust != NULL)
		o[n++] = (struct MHD_OptionItem){ MHD_OPTION_HTTPS_MEM_TRUST, 0,
			(void *)tls->trust };
	return n;
}

static enum err_code start_daemon(struct listener *l, const struct http_tls *tls, struct err *err)
{
	struct MHD_OptionItem options[8];
	unsigned n = tls != NULL ? tls_options(tls, options) : 0;
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
			 (tls != NULL ? MHD_USE_TLS : 0);
	options[n] = (struct MHD_OptionItem){ MHD_OPTION_END, 0, NULL };
	MHD_set_panic_func(library_panic, NULL);
	l->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, l,
		MHD_OPTION_EXTERNAL_LOGGER, library_log, NULL, MHD_OPTION_LISTEN_SOCKET,
		l->listen_fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_URI_LOG_CALLBACK,
		on_uri, l, MHD_OPTION_NOTIFY_COMPLETED, on_completed, l,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, l, MHD_OPTION_ARRAY, options,
		MHD_OPTION_END);
	if (l->daemon == NULL)
		return err_set(err, ERR_INVAL, 0, "the HTTP library does not start%s",
			tls != NULL ? ": certificate, key or ciphers" : "");
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	INVARIANT(info != NULL);
	l->epoll_fd = info->listen_fd;
	return ERR_OK;
}

enum err_code http_start(struct http *h, int listen_fd, bool local, const struct http_tls *tls,
	struct listener **out, struct err *err)
{
	struct listener *l = calloc(1, sizeof(*l));
	if (l == NULL)
		return err_set(err, ERR_NOMEM, 0, "listener");
	*l = (struct listener){ .http = h,
		.listen_fd = listen_fd,
		.local = local,
		.tls = tls != NULL,
		.verify_client = tls != NULL ? tls->verify_client : VERIFY_NONE };
	enum err_code rc = start_daemon(l, tls, err);
	if (rc == ERR_OK)
		rc = loop_fd_set(&h->api->loop, l->epoll_fd, POLLIN, on_epoll, l, err);
	if (rc != ERR_OK) {
		if (l->daemon != NULL) {
			(void)MHD_quiesce_daemon(l->daemon);
			MHD_stop_daemon(l->daemon);
		}
		free(l);
		return rc;
	}
	l->next = h->listeners;
	h->listeners = l;
	*out = l;
	return ERR_OK;
}

int http_retire(struct http *h, struct listener *l)
{
	(void)h;
	l->end_at_ms = clock_boot_ms() + DRAIN_MS;
	return MHD_quiesce_daemon(l->daemon);
}

static unsigned connections(const struct listener *l)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
	return info != NULL ? info->num_connections : 0;
}

/* Takes l out of the list and ends it. */
static void stop(struct http *h, struct listener **at)
{
	struct listener *l = *at;
	/* The library must not be stopped with suspended connections. */
	for (struct conn *c = h->conns; c != NULL; c = c->next) {
		if (c->listener == l && c->waiting != NULL)
			reply_text(c->waiting, 503, "the API is shutting down");
	}
	run(l);
	loop_timer_stop(&h->api->loop, &l->timer);
	loop_fd_remove(&h->api->loop, l->epoll_fd);
	if (l->end_at_ms == 0) {
		int fd = MHD_quiesce_daemon(l->daemon);
		if (fd >= 0)
			close(fd);
	}
	MHD_stop_daemon(l->daemon);
	*at = l->next;
	free(l);
}

void http_after_turn(struct http *h)
{
	int64_t now_ms = clock_boot_ms();
	for (struct listener **at = &h->listeners; *at != NULL;) {
		struct listener *l = *at;
		MHD_UNSIGNED_LONG_LONG wait_ms;
		/* Bounded: what is left over runs in the next turn, at once. */
		for (int i = 0; i < 4 && l->kick; i++)
			run(l);
		if (l->end_at_ms != 0 && (connections(l) == 0 || now_ms >= l->end_at_ms)) {
			stop(h, at);
			continue;
		}
		if (l->kick)
			loop_timer_set(&h->api->loop, &l->timer, now_ms, on_timer, l);
		else if (MHD_get_timeout(l->daemon, &wait_ms) == MHD_YES)
			loop_timer_set(&h->api->loop, &l->timer,
				now_ms + (wait_ms < 3600000 ? (int64_t)wait_ms : 3600000), on_timer,
				l);
		else
			loop_timer_stop(&h->api->loop, &l->timer);
		at = &l->next;
	}
}

void http_init(struct http *h, struct api *api)
{
	*h = (struct http){ .api = api };
}

void http_done(struct http *h)
{
	while (h->listeners != NULL)
		stop(h, &h->listeners);
	loop_timer_stop(&h->api->loop, &h->sweep);
}
