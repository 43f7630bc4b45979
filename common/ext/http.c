/* Asynchronous HTTP client over curl_multi. See http.h. */
#include "common/ext/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/limits.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define HEADERS_MAX 16384

struct http_call {
	struct http *h;
	struct http_call *next, **prev_next;
	CURL *easy;
	struct curl_slist *headers, *resolve;
	struct buf body, reply, reply_headers;
	char host[256], port[8];
	int64_t deadline_ms, connect_ms, sent_at_ms, user_ms, idle_ms;
	http_done_fn done;
	http_chunk_fn chunk;
	void *arg;
	bool started, cancelled, looking_up;
	char error[CURL_ERROR_SIZE];
	struct loop_timer
		timer; /* failures before the start, and the deadline while a name is looked up */
};

struct http {
	struct loop *loop;
	CURLM *multi;
	struct dns *dns;
	struct http_call *calls;
	struct loop_timer perform;
	int64_t dropped_at_ms; /* connections idle since before that are not used again */
};

static void on_perform(struct loop *l, void *arg);

/* Debian's libcurl speaks TLS by OpenSSL but links GnuTLS, too (librtmp, libldap). It makes itself
 * ready when it is loaded, in every process: 0.9 MiB that nobody uses. This is its way to be told
 * not to (GNUTLS_SKIP_GLOBAL_INIT); a libcurl that speaks TLS by it initialises it all the same. */
int _gnutls_global_init_skip(void); /* NOLINT(bugprone-reserved-identifier,cert-dcl37-c) */
int _gnutls_global_init_skip(void)  /* NOLINT(bugprone-reserved-identifier,cert-dcl37-c) */
{
	return 1;
}

enum err_code http_new(struct http **out, struct loop *loop, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));
	if (h == NULL)
		return err_set(err, ERR_NOMEM, 0, "http");
	h->loop = loop;
	if (curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK ||
		(h->multi = curl_multi_init()) == NULL) {
		free(h);
		return err_set(err, ERR_NOMEM, 0, "libcurl");
	}
	enum err_code rc = dns_new(&h->dns, loop, err);
	if (rc != ERR_OK) {
		curl_multi_cleanup(h->multi);
		free(h);
		return rc;
	}
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 32L);
	*out = h;
	return ERR_OK;
}

static void free_call(struct http_call *c)
{
	if (c->started)
		curl_multi_remove_handle(c->h->multi, c->easy);
	loop_timer_stop(c->h->loop, &c->timer);
	*c->prev_next = c->next;
	if (c->next != NULL)
		c->next->prev_next = c->prev_next;
	if (c->easy != NULL)
		curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->headers);
	curl_slist_free_all(c->resolve);
	buf_done(&c->body);
	buf_done(&c->reply);
	buf_done(&c->reply_headers);
	free(c);
}

void http_free(struct http *h)
{
	if (h == NULL)
		return;
	/* Look-ups under way come back once more from dns_free and must find their calls. */
	for (struct http_call *c = h->calls; c != NULL; c = c->next)
		c->cancelled = true;
	dns_free(h->dns);
	while (h->calls != NULL)
		free_call(h->calls);
	loop_timer_stop(h->loop, &h->perform);
	curl_multi_cleanup(h->multi);
	free(h);
}

struct dns *http_dns(struct http *h)
{
	return h->dns;
}

int http_loop_wait(void *ctx, struct pollfd *fds, unsigned n, int timeout_ms)
{
	struct http *h = *(struct http **)ctx;
	if (h == NULL)
		return poll(fds, n, timeout_ms);
	struct curl_waitfd extra[LIMIT_FDS];
	unsigned count = 0;
	/* struct curl_waitfd has the same event bits as poll for in and out. */
	for (unsigned i = 0; i < n && count < ARRAY_LEN(extra); i++) {
		if (fds[i].fd < 0)
			continue;
		extra[count++] = (struct curl_waitfd){ .fd = fds[i].fd,
			.events = (short)((fds[i].events & POLLIN ? CURL_WAIT_POLLIN : 0) |
					  (fds[i].events & POLLOUT ? CURL_WAIT_POLLOUT : 0)) };
	}
	int ready = 0;
	CURLMcode rc = curl_multi_poll(
		h->multi, extra, count, timeout_ms < 0 ? 3600000 : timeout_ms, &ready);
	if (rc != CURLM_OK) {
		log_error("curl_multi_poll: %s", curl_multi_strerror(rc));
		return poll(fds, n, timeout_ms < 0 || timeout_ms > 100 ? 100 : timeout_ms);
	}
	/* curl_multi_poll hides hang-ups of extra descriptors (it reports only what was asked for),
	 * so ask once more. */
	int got = n > 0 && ready > 0 ? poll(fds, n, 0) : 0;
	/* Each curl_multi_perform asks for every connection: not when only others have news. */
	for (unsigned i = 0; i < count; i++)
		ready -= extra[i].revents != 0;
	long due_ms = -1;
	if (h->calls != NULL &&
		(ready > 0 || (curl_multi_timeout(h->multi, &due_ms) == CURLM_OK && due_ms == 0)))
		loop_timer_set(h->loop, &h->perform, clock_boot_ms(), on_perform, h);
	return got;
}

static void answer(struct http_call *c, const struct http_reply *r)
{
	if (!c->cancelled)
		c->done(r, c->arg);
	free_call(c);
}

static void fail(struct http_call *c, const char *text, bool timed_out)
{
	struct http_reply r = { .text = text,
		.timed_out = timed_out,
		.body = "",
		.headers = "",
		.sent_at_ms = c->sent_at_ms };
	answer(c, &r);
}

static void read_done(struct http *h)
{
	CURLMsg *m;
	int left;
	while ((m = curl_multi_info_read(h->multi, &left)) != NULL) {
		if (m->msg != CURLMSG_DONE)
			continue;
		struct http_call *c = NULL;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
		CURLcode rc = m->data.result;
		struct http_reply r = { .text = "",
			.body = buf_str(&c->reply),
			.len = c->reply.len,
			.headers = buf_str(&c->reply_headers),
			.sent_at_ms = c->sent_at_ms };
		curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &r.status);
		if (rc != CURLE_OK) {
			r.status = 0;
			r.text = c->error[0] != '\0' ? c->error : curl_easy_strerror(rc);
			r.too_large = c->reply.failed;
			if (r.too_large)
				r.text = "the answer is too large";
			r.timed_out = rc == CURLE_OPERATION_TIMEDOUT;
			r.got_nothing = rc == CURLE_GOT_NOTHING;
			if ((rc == CURLE_COULDNT_CONNECT || rc == CURLE_OPERATION_TIMEDOUT) &&
				!dns_is_address(c->host))
				dns_doubt(h->dns, c->host);
		}
		answer(c, &r);
	}
}

static void on_perform(struct loop *l, void *arg)
{
	(void)l;
	struct http *h = arg;
	int running;
	CURLMcode rc = curl_multi_perform(h->multi, &running);
	if (rc != CURLM_OK)
		log_error("curl_multi_perform: %s", curl_multi_strerror(rc));
	read_done(h);
	/* Calls that were cancelled from inside a callback of curl. */
	for (struct http_call *c = h->calls, *next; c != NULL; c = next) {
		next = c->next;
		if (c->cancelled && c->started)
			free_call(c);
	}
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	if (c->cancelled)
		return 0;
	if (c->chunk != NULL) {
		long status = 0;
		curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status < 400)
			return c->chunk(bytes, size * n, c->arg) && !c->cancelled ? size * n : 0;
	}
	buf_add(&c->reply, bytes, size * n);
	return c->reply.failed ? 0 : size * n;
}

static size_t on_header(char *bytes, size_t size, size_t n, void *arg)
{
	struct http_call *c = arg;
	buf_add(&c->reply_headers, bytes, size * n);
	return c->reply_headers.failed ? 0 : size * n;
}

static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	struct http_call *c = arg;
	(void)purpose;
	if (c->user_ms > 0) {
		unsigned user = (unsigned)c->user_ms;
		int on = 1, cnt = 3, idle = (int)(c->idle_ms / 1000);
		int64_t gap = (c->user_ms - c->idle_ms) / 3000;
		int intvl = gap > 1 ? (int)gap : 1;
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user, sizeof(user));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &intvl, sizeof(intvl));
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &cnt, sizeof(cnt));
	}
	return CURL_SOCKOPT_OK;
}

/* Hand the request to curl: the name is an address by now. */
static void start(struct http_call *c)
{
	int64_t now_ms = clock_boot_ms();
	if (c->deadline_ms != 0) {
		int64_t left = c->deadline_ms - now_ms;
		if (left < 1) {
			fail(c, "no time left", true);
			return;
		}
		curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)left);
		if (c->connect_ms == 0)
			c->connect_ms = left / 2 > 1000 ? left / 2 : 1000;
	}
	curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS,
		(long)(c->connect_ms != 0 ? c->connect_ms : 5000));
	loop_timer_stop(c->h->loop, &c->timer);
	c->sent_at_ms = now_ms;
	if (curl_multi_add_handle(c->h->multi, c->easy) != CURLM_OK) {
		fail(c, "libcurl refused the request", false);
		return;
	}
	c->started = true;
	loop_timer_set(c->h->loop, &c->h->perform, now_ms, on_perform, c->h);
}

/* The name is still being looked up at the deadline. The call itself ends when the look-up does. */
static void on_name_late(struct loop *l, void *arg)
{
	(void)l;
	struct http_call *c = arg;
	struct http_reply r = { .text = "no answer from the name server",
		.timed_out = true,
		.body = "",
		.headers = "",
		.sent_at_ms = c->sent_at_ms };
	c->cancelled = true;
	c->done(&r, c->arg);
}

static void on_resolved(const struct dns_answer *a, void *arg)
{
	struct http_call *c = arg;
	c->looking_up = false;
	if (c->cancelled) {
		free_call(c);
		return;
	}
	if (a->count == 0) {
		fail(c, "name cannot be resolved", false);
		return;
	}
	char line[LIMIT_URL + DNS_ADDRS_MAX * 70];
	size_t n = 0;
	int w = snprintf(line, sizeof(line), "%s:%s:", c->host, c->port);
	n = (size_t)w;
	for (unsigned i = 0; i < a->count && n < sizeof(line); i++) {
		bool v6 = strchr(a->addrs[i], ':') != NULL;
		w = snprintf(line + n, sizeof(line) - n, "%s%s%s%s", i > 0 ? "," : "",
			v6 ? "[" : "", a->addrs[i], v6 ? "]" : "");
		n += (size_t)w;
	}
	c->resolve = curl_slist_append(NULL, line);
	curl_easy_setopt(c->easy, CURLOPT_RESOLVE, c->resolve);
	start(c);
}

static void on_early(struct loop *l, void *arg)
{
	(void)l;
	struct http_call *c = arg;
	if (c->host[0] == '\0') {
		fail(c, c->error[0] != '\0' ? c->error : "bad request", false);
		return;
	}
	if (dns_is_address(c->host)) {
		start(c);
		return;
	}
	if (c->deadline_ms != 0)
		loop_timer_set(c->h->loop, &c->timer, c->deadline_ms, on_name_late, c);
	c->looking_up = true;
	dns_lookup(c->h->dns, c->host, on_resolved, c);
}

/* Host and port of the URL; false with c->error set. */
static bool parse_url(struct http_call *c, const char *url)
{
	CURLU *u = curl_url();
	char *host = NULL, *port = NULL;
	bool ok = u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
		  curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		  curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
	if (ok) {
		size_t n = strlen(host);
		/* [::1] without its brackets. */
		if (host[0] == '[' && host[n - 1] == ']')
			ok = str_copy_n(c->host, sizeof(c->host), host + 1, n - 2);
		else
			ok = str_copy(c->host, sizeof(c->host), host);
		ok = ok && str_copy(c->port, sizeof(c->port), port);
	}
	if (!ok) {
		c->host[0] = '\0';
		snprintf(c->error, sizeof(c->error), "URL %.200s is not understood", url);
	}
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	return ok;
}

static void set_tls(CURL *e, const struct http_tls *t)
{
	if (t->cacert != NULL && t->cacert[0] != '\0')
		curl_easy_setopt(e, CURLOPT_CAINFO, t->cacert);
	if (t->cert != NULL && t->cert[0] != '\0') {
		curl_easy_setopt(e, CURLOPT_SSLCERT, t->cert);
		/* The key may be inside the certificate file. */
		curl_easy_setopt(
			e, CURLOPT_SSLKEY, t->key != NULL && t->key[0] != '\0' ? t->key : t->cert);
		if (t->key_password != NULL && t->key_password[0] != '\0')
			curl_easy_setopt(e, CURLOPT_KEYPASSWD, t->key_password);
	}
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, t->verify == HTTP_VERIFY_NONE ? 0L : 1L);
	curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, t->verify == HTTP_VERIFY_FULL ? 2L : 0L);
}

static void add_header(struct http_call *c, const char *line)
{
	struct curl_slist *more = curl_slist_append(c->headers, line);
	if (more != NULL)
		c->headers = more;
}

static void set_options(struct http_call *c, const struct http_request *req)
{
	CURL *e = c->easy;
	curl_easy_setopt(e, CURLOPT_PRIVATE, (char *)c);
	curl_easy_setopt(e, CURLOPT_URL, req->url);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_PROXY, "");
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->error);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "Patroni/4.1.4 pgregent/" PGREGENT_VERSION);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
	curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_SOCKOPTDATA, c);
	curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	/* libcurl cannot be told to close its pool; the age of idle connections is counted in whole
	 * seconds. */
	int64_t age_s = (clock_boot_ms() - c->h->dropped_at_ms) / 1000 - 1;
	if (c->h->dropped_at_ms != 0 && age_s < 1)
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
	else if (c->h->dropped_at_ms != 0 && age_s < 100)
		curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)age_s);
	if (req->fresh) {
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	}
	if (req->unix_socket != NULL)
		curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, req->unix_socket);
	curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
	if (strcmp(req->method, "HEAD") == 0)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (req->body != NULL) {
		buf_add(&c->body, req->body, req->body_len);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, buf_str(&c->body));
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, (long)c->body.len);
		char type[128];
		if (str_format(type, sizeof(type), "Content-Type: %s",
			    req->content_type != NULL ? req->content_type : "application/json"))
			add_header(c, type);
		add_header(c, "Expect:");
	}
	for (unsigned i = 0; i < ARRAY_LEN(req->headers) && req->headers[i] != NULL; i++)
		add_header(c, req->headers[i]);
	if (c->headers != NULL)
		curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
	if (req->user != NULL && req->user[0] != '\0') {
		curl_easy_setopt(e, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		curl_easy_setopt(e, CURLOPT_USERNAME, req->user);
		curl_easy_setopt(e, CURLOPT_PASSWORD, req->password != NULL ? req->password : "");
	}
	set_tls(e, &req->tls);
}

struct http_call *http_send(struct http *h, const struct http_request *req, http_done_fn done,
	http_chunk_fn chunk, void *arg)
{
	struct http_call *c = calloc(1, sizeof(*c));
	INVARIANT(c != NULL); /* a process that cannot remember a request must not go on as if it
				 had made it */
	c->h = h;
	c->next = h->calls;
	if (c->next != NULL)
		c->next->prev_next = &c->next;
	c->prev_next = &h->calls;
	h->calls = c;
	c->done = done;
	c->chunk = chunk;
	c->arg = arg;
	c->deadline_ms = req->deadline_ms;
	c->connect_ms = req->connect_ms;
	c->user_ms = req->keepalive_ttl_ms;
	c->idle_ms = req->keepalive_idle_ms;
	c->body.max = LIMIT_HTTP_BODY;
	c->reply.max = req->reply_max != 0 ? req->reply_max : LIMIT_DCS_TREE;
	c->reply_headers.max = HEADERS_MAX;
	c->sent_at_ms = clock_boot_ms();
	c->easy = curl_easy_init();
	if (c->easy == NULL)
		snprintf(c->error, sizeof(c->error), "no memory");
	else if (parse_url(c, req->url))
		set_options(c, req);
	/* From the loop: done is never called from within http_send. */
	loop_timer_set(h->loop, &c->timer, c->sent_at_ms, on_early, c);
	return c;
}

void http_cancel(struct http_call *c)
{
	if (c == NULL || c->cancelled)
		return;
	c->cancelled = true;
	if (c->started)
		loop_timer_set(c->h->loop, &c->h->perform, clock_boot_ms(), on_perform, c->h);
	else if (!c->looking_up)
		free_call(c);
	else
		loop_timer_stop(c->h->loop, &c->timer);
	/* else: a look-up is under way and frees it */
}

bool http_header(const struct http_reply *r, const char *name, char *out, size_t len)
{
	size_t n = strlen(name);
	for (const char *p = r->headers; *p != '\0';) {
		size_t line = strcspn(p, "\r\n");
		if (line > n && p[n] == ':' && strncasecmp(p, name, n) == 0) {
			const char *v = p + n + 1;
			size_t left = line - n - 1;
			while (left > 0 && (*v == ' ' || *v == '\t')) {
				v++;
				left--;
			}
			return str_copy_n(out, len, v, left);
		}
		p += line;
		p += strspn(p, "\r\n");
	}
	return false;
}

void http_drop_idle(struct http *h)
{
	h->dropped_at_ms = clock_boot_ms();
}
