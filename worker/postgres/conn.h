/* One asynchronous libpq connection on the worker's loop: connect, one statement at a time,
 * deadlines. Names are never resolved here: the caller gives hostaddr or a socket directory (DESIGN
 * 4). A statement that passes its deadline costs the connection; the next statement opens a new
 * one. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <libpq-fe.h>

#include "common/core/err.h"
#include "common/core/limits.h"
#include "common/core/loop.h"

#define PGC_PARAMS_MAX 32

/* Connection parameters; owned by its holder, values copied in. */
struct pgc_params {
	const char *keys[PGC_PARAMS_MAX + 1]; /* static strings */
	char *values[PGC_PARAMS_MAX + 1];     /* owned */
	unsigned count;
};
/* Set or replace; value NULL or "" removes. false: no memory or too many. */
MUST_USE bool pgc_params_set(struct pgc_params *p, const char *static_key, const char *value);
const char *pgc_params_get(const struct pgc_params *p, const char *key); /* NULL = absent */
MUST_USE bool pgc_params_copy(struct pgc_params *to, const struct pgc_params *from);
void pgc_params_done(struct pgc_params *p);

enum pgc_failure {
	PGC_OK = 0,
	PGC_CONNECT,   /* no connection: refused, lost */
	PGC_REJECTING, /* the server lives but is starting up, shutting down or full */
	PGC_STATEMENT, /* the server answered with an error */
	PGC_TIMEOUT,   /* no answer before the deadline; the connection was dropped */
};

struct pgc;
/* res: the result (PGRES_TUPLES_OK or PGRES_COMMAND_OK) on PGC_OK, borrowed; else NULL and text
 * says why (c->sqlstate,
 * "" = none). Called exactly once per pgc_exec, never from within it. */
typedef void (*pgc_fn)(
	struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg);

struct pgc {
	struct loop *loop;
	const char *purpose; /* for logs; static */
	struct pgc_params params;
	PGconn *conn;	/* NULL = closed */
	int watched_fd; /* with the loop; -1 = none */
	enum { PGC_CLOSED, PGC_CONNECTING, PGC_IDLE, PGC_BUSY } state;
	bool params_changed; /* reconnect before the next statement */
	/* the one statement */
	char *sql;
	char *args[8];
	unsigned arg_count;
	PGresult *res;	 /* what came so far */
	bool want_reply; /* a callback is owed */
	bool is_retry;
	pgc_fn fn;
	void *arg;
	int64_t deadline_ms;
	struct loop_timer timer;
	char sqlstate[6];
	int server_version; /* of the open connection, 0 = none */
};

void pgc_init(struct pgc *c, struct loop *loop, const char *purpose);
void pgc_done(struct pgc *c); /* a pending callback is dropped */
/* Replace the parameters (copied); an open connection is closed when idle. */
MUST_USE bool pgc_configure(struct pgc *c, const struct pgc_params *params);
bool pgc_busy(const struct pgc *c);
/* Connect if needed, run sql with arg_count text parameters, answer by fn before deadline_ms (boot
 * time). A connection that turns out to be dead when the statement is sent is opened again once.
 * ERR_STATE: busy. */
MUST_USE enum err_code pgc_exec(struct pgc *c, const char *sql, const char *const *args,
	unsigned arg_count, int64_t deadline_ms, pgc_fn fn, void *arg, struct err *err);
/* Close now; a pending statement fails with PGC_CONNECT from the next loop turn. */
void pgc_close(struct pgc *c);
