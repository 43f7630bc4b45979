/* One asynchronous libpq connection. Worker process; must not block: no name is resolved, no wait
 * is done here. */
#include "worker/postgres/conn.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"

bool pgc_params_set(struct pgc_params *p, const char *static_key, const char *value)
{
	unsigned i = 0;
	while (i < p->count && strcmp(p->keys[i], static_key) != 0)
		i++;
	if (value == NULL || value[0] == '\0') {
		if (i < p->count) {
			free(p->values[i]);
			p->count--;
			memmove(&p->keys[i], &p->keys[i + 1], (p->count - i) * sizeof(p->keys[0]));
			memmove(&p->values[i], &p->values[i + 1],
				(p->count - i) * sizeof(p->values[0]));
			p->keys[p->count] = NULL;
			p->values[p->count] = NULL;
		}
		return true;
	}
	if (i == PGC_PARAMS_MAX)
		return false;
	char *copy = strdup(value);
	if (copy == NULL)
		return false;
	if (i == p->count)
		p->count++;
	else
		free(p->values[i]);
	p->keys[i] = static_key;
	p->values[i] = copy;
	return true;
}

const char *pgc_params_get(const struct pgc_params *p, const char *key)
{
	for (unsigned i = 0; i < p->count; i++) {
		if (strcmp(p->keys[i], key) == 0)
			return p->values[i];
	}
	return NULL;
}

bool pgc_params_copy(struct pgc_params *to, const struct pgc_params *from)
{
	pgc_params_done(to);
	for (unsigned i = 0; i < from->count; i++) {
		if (!pgc_params_set(to, from->keys[i], from->values[i]))
			return false;
	}
	return true;
}

void pgc_params_done(struct pgc_params *p)
{
	for (unsigned i = 0; i < p->count; i++)
		free(p->values[i]);
	memset(p, 0, sizeof(*p));
}

void pgc_init(struct pgc *c, struct loop *loop, const char *purpose)
{
	memset(c, 0, sizeof(*c));
	c->loop = loop;
	c->purpose = purpose;
	c->watched_fd = -1;
}

/* By our own note of it: libpq closes the socket of a broken connection itself and forgets its
 * number; one left with the loop would turn it for ever, or be somebody else's the next moment. */
static void unwatch_socket(struct pgc *c)
{
	if (c->watched_fd >= 0)
		loop_fd_remove(c->loop, c->watched_fd);
	c->watched_fd = -1;
}

static void drop_connection(struct pgc *c)
{
	PQclear(c->res);
	c->res = NULL;
	unwatch_socket(c);
	if (c->conn != NULL) {
		PQfinish(c->conn);
		c->conn = NULL;
	}
	c->state = PGC_CLOSED;
	c->server_version = 0;
}

static void drop_statement(struct pgc *c)
{
	free(c->sql);
	c->sql = NULL;
	for (unsigned i = 0; i < c->arg_count; i++)
		free(c->args[i]);
	c->arg_count = 0;
	loop_timer_stop(c->loop, &c->timer);
	c->want_reply = false;
}

void pgc_done(struct pgc *c)
{
	if (c->loop == NULL)
		return;
	drop_statement(c);
	drop_connection(c);
	pgc_params_done(&c->params);
}

bool pgc_configure(struct pgc *c, const struct pgc_params *params)
{
	bool same = c->params.count == params->count;
	for (unsigned i = 0; same && i < params->count; i++)
		same = str_eq(pgc_params_get(&c->params, params->keys[i]), params->values[i]);
	if (same)
		return true;
	if (!pgc_params_copy(&c->params, params))
		return false;
	if (c->state == PGC_IDLE)
		drop_connection(c);
	else
		c->params_changed = c->state != PGC_CLOSED;
	return true;
}

bool pgc_busy(const struct pgc *c)
{
	return c->want_reply;
}

/* Hands the answer over; res is cleared here. */
static void finish(struct pgc *c, enum pgc_failure f, PGresult *res, const char *text)
{
	if (c->want_reply) {
		pgc_fn fn = c->fn;
		void *arg = c->arg;
		drop_statement(c);
		if (c->state == PGC_BUSY)
			c->state = PGC_IDLE;
		if (c->params_changed && c->state == PGC_IDLE) {
			c->params_changed = false;
			drop_connection(c);
		}
		fn(c, f, f == PGC_OK ? res : NULL, text, arg);
	}
	PQclear(res);
}

static void copy_line(char *out, size_t len, const char *m)
{
	size_t n = m != NULL ? strcspn(m, "\n") : 0;
	if (n >= len)
		n = len - 1;
	memcpy(out, m != NULL ? m : "", n);
	out[n] = '\0';
}

/* 57P03 cannot_connect_now and its kin, 53300 too_many_connections. libpq gives no SQLSTATE for a
 * connection that failed, so the text is looked at too. */
static bool is_rejecting(const char *sqlstate, const char *text)
{
	return str_starts(sqlstate, "57P0") || strcmp(sqlstate, "53300") == 0 ||
	       strstr(text, "the database system is") != NULL ||
	       strstr(text, "too many clients") != NULL ||
	       strstr(text, "remaining connection slots") != NULL;
}

static void on_socket(struct loop *l, int fd, short revents, void *arg);

static void watch_socket(struct pgc *c, short events)
{
	struct err err = ERR_INIT;
	int fd = PQsocket(c->conn);
	if (fd != c->watched_fd)
		unwatch_socket(c);
	if (fd < 0 || loop_fd_set(c->loop, fd, events, on_socket, c, &err) != ERR_OK)
		log_error("connection %s: %s", c->purpose, fd < 0 ? "no socket" : err.text);
	else
		c->watched_fd = fd;
}

static void fail_connect(struct pgc *c)
{
	char text[300];
	copy_line(text, sizeof(text), c->conn != NULL ? PQerrorMessage(c->conn) : "no memory");
	drop_connection(c);
	c->sqlstate[0] = '\0';
	finish(c, is_rejecting("", text) ? PGC_REJECTING : PGC_CONNECT, NULL, text);
}

static void send_statement(struct pgc *c)
{
	const char *values[ARRAY_LEN(c->args)];
	for (unsigned i = 0; i < c->arg_count; i++)
		values[i] = c->args[i];
	c->state = PGC_BUSY;
	/* Statements with parameters go by the extended protocol; others may hold several commands.
	 */
	int ok = c->arg_count > 0 ? PQsendQueryParams(c->conn, c->sql, (int)c->arg_count, NULL,
					    values, NULL, NULL, 0)
				  : PQsendQuery(c->conn, c->sql);
	int left = ok ? PQflush(c->conn) : -1;
	if (left < 0)
		fail_connect(c);
	else
		watch_socket(c, left > 0 ? POLLIN | POLLOUT : POLLIN);
}

static void start_connect(struct pgc *c)
{
	const char *keys[PGC_PARAMS_MAX + 1], *values[PGC_PARAMS_MAX + 1];
	for (unsigned i = 0; i < c->params.count; i++) {
		keys[i] = c->params.keys[i];
		values[i] = c->params.values[i];
	}
	keys[c->params.count] = values[c->params.count] = NULL;
	c->params_changed = false;
	c->conn = PQconnectStartParams(keys, values, 0);
	c->state = PGC_CONNECTING;
	if (c->conn == NULL || PQstatus(c->conn) == CONNECTION_BAD)
		fail_connect(c);
	else
		watch_socket(c, POLLOUT);
}

static void poll_connect(struct pgc *c)
{
	PostgresPollingStatusType s = PQconnectPoll(c->conn);
	/* libpq may have closed that socket and opened another one of the same number: register
	 * anew each time. */
	unwatch_socket(c);
	switch (s) {
	case PGRES_POLLING_READING:
	case PGRES_POLLING_WRITING:
		if (PQsocket(c->conn) >= 0)
			watch_socket(c, s == PGRES_POLLING_READING ? POLLIN : POLLOUT);
		return;
	case PGRES_POLLING_OK:
		PQsetnonblocking(c->conn, 1);
		c->server_version = PQserverVersion(c->conn);
		c->state = PGC_IDLE;
		watch_socket(c, POLLIN);
		if (c->want_reply)
			send_statement(c);
		return;
	default: fail_connect(c); return;
	}
}

/* The connection broke. A statement on a connection that had been idle before may never have been
 * read: it is sent once more on a new one (all statements here are idempotent). */
static void on_broken(struct pgc *c)
{
	bool again = c->state == PGC_BUSY && c->want_reply && !c->is_retry;
	char text[300];
	copy_line(text, sizeof(text), PQerrorMessage(c->conn));
	drop_connection(c);
	if (again) {
		c->is_retry = true;
		start_connect(c);
	} else {
		finish(c, is_rejecting("", text) ? PGC_REJECTING : PGC_CONNECT, NULL, text);
	}
}

static void answer(struct pgc *c)
{
	PGresult *res = c->res;
	c->res = NULL;
	if (res == NULL) {
		on_broken(c);
		return;
	}
	ExecStatusType st = PQresultStatus(res);
	if (st == PGRES_TUPLES_OK || st == PGRES_COMMAND_OK) {
		c->sqlstate[0] = '\0';
		finish(c, PGC_OK, res, "");
		return;
	}
	char text[300];
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	copy_line(text, sizeof(text), message != NULL ? message : PQresultErrorMessage(res));
	if (!str_copy(c->sqlstate, sizeof(c->sqlstate), state != NULL ? state : ""))
		c->sqlstate[0] = '\0';
	bool dead = PQstatus(c->conn) == CONNECTION_BAD;
	if (dead)
		drop_connection(c);
	finish(c,
		!dead				  ? PGC_STATEMENT
		: is_rejecting(c->sqlstate, text) ? PGC_REJECTING
						  : PGC_CONNECT,
		res, text);
}

static void read_results(struct pgc *c)
{
	if (!PQconsumeInput(c->conn)) {
		on_broken(c);
		return;
	}
	if (PQflush(c->conn) == 0 && PQsocket(c->conn) >= 0)
		watch_socket(c, POLLIN);
	while (c->state == PGC_BUSY && !PQisBusy(c->conn)) {
		PGresult *res = PQgetResult(c->conn);
		if (res == NULL) {
			answer(c);
			return;
		}
		/* The first error is the answer, else the last result. */
		ExecStatusType st = c->res != NULL ? PQresultStatus(c->res) : PGRES_COMMAND_OK;
		if (st == PGRES_TUPLES_OK || st == PGRES_COMMAND_OK) {
			PQclear(c->res);
			c->res = res;
		} else {
			PQclear(res);
		}
	}
	if (c->state == PGC_IDLE && PQstatus(c->conn) == CONNECTION_BAD)
		drop_connection(c);
}

static void on_socket(struct loop *l, int fd, short revents, void *arg)
{
	(void)l;
	(void)fd;
	(void)revents;
	struct pgc *c = arg;
	if (c->conn == NULL)
		return;
	if (c->state == PGC_CONNECTING)
		poll_connect(c);
	else
		read_results(c);
}

static void on_deadline(struct loop *l, void *arg)
{
	(void)l;
	struct pgc *c = arg;
	bool connecting = c->state == PGC_CONNECTING;
	drop_connection(c);
	c->sqlstate[0] = '\0';
	finish(c, PGC_TIMEOUT, NULL,
		connecting ? "no connection before the deadline" : "no answer before the deadline");
}

static void on_start(struct loop *l, void *arg)
{
	struct pgc *c = arg;
	loop_timer_set(l, &c->timer, c->deadline_ms, on_deadline, c);
	if (c->state == PGC_CLOSED)
		start_connect(c);
	else
		send_statement(c);
}

enum err_code pgc_exec(struct pgc *c, const char *sql, const char *const *args, unsigned arg_count,
	int64_t deadline_ms, pgc_fn fn, void *arg, struct err *err)
{
	INVARIANT(arg_count <= ARRAY_LEN(c->args));
	if (c->want_reply)
		return err_set(err, ERR_STATE, 0, "connection %s is busy", c->purpose);
	c->sql = strdup(sql);
	bool ok = c->sql != NULL;
	c->arg_count = 0;
	while (ok && c->arg_count < arg_count) {
		const char *v = args[c->arg_count];
		c->args[c->arg_count] = v != NULL ? strdup(v) : NULL;
		ok = v == NULL || c->args[c->arg_count] != NULL;
		c->arg_count++;
	}
	if (!ok) {
		drop_statement(c);
		return err_set(err, ERR_NOMEM, 0, "statement");
	}
	c->fn = fn;
	c->arg = arg;
	c->deadline_ms = deadline_ms;
	c->want_reply = true;
	c->is_retry = c->state == PGC_CLOSED;
	/* From the loop, so that fn is never called from within this call. */
	loop_timer_set(c->loop, &c->timer, clock_boot_ms(), on_start, c);
	return ERR_OK;
}

static void on_closed(struct loop *l, void *arg)
{
	(void)l;
	finish(arg, PGC_CONNECT, NULL, "connection closed");
}

void pgc_close(struct pgc *c)
{
	drop_connection(c);
	if (c->want_reply)
		loop_timer_set(c->loop, &c->timer, clock_boot_ms(), on_closed, c);
}
