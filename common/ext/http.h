/* Asynchronous HTTP client: curl_multi inside our loop (DESIGN 4, dcs 3.1). Names are resolved by
 * c-ares, HTTP/1.1 only, no proxies, no signals, bounded bodies, absolute deadlines. The loop of a
 * process with a `struct http` waits in curl_multi_poll: loop_init(&loop, http_loop_wait,
 * &http_pointer). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <poll.h>

#include "common/core/buf.h"
#include "common/core/loop.h"
#include "common/ext/dns.h"

struct http;
struct http_call; /* one request under way; owned by the module */

enum http_verify { HTTP_VERIFY_FULL = 0, HTTP_VERIFY_CHAIN, HTTP_VERIFY_NONE };

struct http_tls {
	const char *cacert, *cert, *key,
		*key_password; /* NULL or "" = none; system store without cacert */
	enum http_verify verify;
};

struct http_reply {
	long status;	  /* 0: no answer, text says why */
	const char *text; /* transport error, "" when answered */
	bool timed_out, got_nothing;
	bool too_large; /* the answer; it would be so again */
	const char *body;
	size_t len;
	const char *headers; /* raw header lines */
	int64_t sent_at_ms;  /* just before the request was handed to the network */
};
typedef void (*http_done_fn)(const struct http_reply *r, void *arg);
typedef bool (*http_chunk_fn)(
	const char *bytes, size_t len, void *arg); /* false: close the stream */

struct http_request {
	const char *method, *url;
	const char *body; /* NULL = none */
	size_t body_len;
	const char *content_type;
	const char *headers[6];	     /* more "Name: value", NULL-terminated */
	const char *user, *password; /* basic authentication; NULL = none */
	struct http_tls tls;
	int64_t deadline_ms;	 /* 0: none (streams) */
	int64_t connect_ms;	 /* 0: half of what is left, at least 1 s */
	bool fresh;		 /* a connection of its own */
	const char *unix_socket; /* connect there, the URL's host is only a name; NULL = TCP */
	int64_t keepalive_ttl_ms,
		keepalive_idle_ms; /* TCP keepalive and user time-out (dcs 3.1); 0 = off */
	size_t reply_max;	   /* 0 = LIMIT_DCS_TREE; a larger answer is too_large */
};

MUST_USE enum err_code http_new(struct http **out, struct loop *loop, struct err *err);
void http_free(struct http *h);
struct dns *http_dns(struct http *h);
int http_loop_wait(
	void *ctx, struct pollfd *fds, unsigned n, int timeout_ms); /* ctx = struct http ** */
/* Everything in req is copied. done is called once, from the loop, also when the request could not
 * be started. */
struct http_call *http_send(struct http *h, const struct http_request *req, http_done_fn done,
	http_chunk_fn chunk, void *arg);
void http_cancel(struct http_call *c); /* done is not called any more */
/* A response header by name (any case); false: absent or too long. */
bool http_header(const struct http_reply *r, const char *name, char *out, size_t len);
/* Connections that may be stale (a member restarted, an endpoint failed): do not reuse. */
void http_drop_idle(struct http *h);
