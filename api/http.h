/* libmicrohttpd driven by our loop: connections, bodies, time limits, answers (rest 1, DESIGN 6).
 * No threads; a request that waits is a suspended connection. Api process. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include <microhttpd.h>

#include "api/auth.h"
#include "api/routes.h"
#include "common/core/buf.h"
#include "common/core/loop.h"

struct api;
struct http;

/* One daemon of the library: TCP, TLS or the local socket. Owned by http; its address is the
 * library's context, so it stays where it is until the library has ended. */
struct listener {
	struct listener *next;
	struct http *http;
	struct MHD_Daemon *daemon;
	int listen_fd; /* the library's until it is retired */
	int epoll_fd;
	bool local, tls;
	enum verify_client verify_client;
	bool kick;	   /* a connection was resumed: run it */
	int64_t end_at_ms; /* retired: stopped at the latest then */
	struct loop_timer timer;
};

struct http {
	struct api *api;
	struct listener *listeners;
	struct conn *conns;
	struct loop_timer sweep;
};

/* A connection; owned by http, lives until the library says that it is closed. */
struct conn {
	struct conn *next, **prev_next;
	struct listener *listener;
	int fd;
	int64_t since_ms;	 /* of the request under way, or of the last one's end */
	bool in_request, served; /* served: at least one */
	struct request *waiting; /* suspended */
	bool local_trusted;
	uint8_t addr[16];
};

/* A request; owned by http, freed when the library says that it is completed. */
struct request {
	struct api *api;
	struct listener *listener;
	struct conn *conn;
	struct MHD_Connection *mhd;
	const char *verb; /* the library's */
	const struct route *route;
	char *target; /* as it came in */
	char *path;
	char *scratch; /* holds the strings of query */
	struct health_query query;
	bool query_ok;
	bool started, suspended, complete, http_1_0;
	bool has_length, too_large;
	struct auth_answer refused; /* status 0 = may */
	struct buf body;
	struct MHD_Response *response; /* NULL until one of reply_* */
	unsigned status;
	/* waiting for facts or for the worker */
	int64_t deadline_ms;
	struct request *next;
	uint64_t id;
};

void http_init(struct http *h, struct api *api);
struct http_tls {
	const char *cert, *key, *key_password, *trust, *priorities; /* texts; NULL = none */
	enum verify_client verify_client;
};
/* Serve an open listening socket (taken on success); tls NULL = plain HTTP. */
MUST_USE enum err_code http_start(struct http *h, int listen_fd, bool local,
	const struct http_tls *tls, struct listener **out, struct err *err);
/* Accept no more; requests that run may end. Returns the listening socket, now the caller's. */
int http_retire(struct http *h, struct listener *l);
void http_after_turn(struct http *h);
void http_done(struct http *h);

/* Exactly one of these for each request. */
void reply_line(struct request *r, unsigned status);
/* body is taken; NULL = no memory, answered with 500. */
void reply_json(struct request *r, unsigned status, json_t *take);
void reply_text(struct request *r, unsigned status, const char *text);
struct reply_extra {
	bool challenge;
	int64_t lsn; /* -1 = none */
	bool json;
	bool plain; /* text/plain */
};
void reply_doc(
	struct request *r, unsigned status, const char *body, size_t len, struct reply_extra extra);
void reply_page(struct request *r, unsigned status, const char *explanation);
/* The request cannot be answered now: suspend it until a reply_*. */
void request_wait(struct request *r);
