/* The fact query: everything the decisions need to know of the running server, in one statement
 * (ha 11.6), over the heartbeat connection, and IDENTIFY_SYSTEM where SQL cannot tell the timeline.
 * Asynchronous; the newest answer is kept in `facts`.
 * PostgreSQL 10 and later. */
#pragma once
#include <jansson.h>

#include "common/core/buf.h"
#include "common/model/pgstate.h"
#include "worker/postgres/conn.h"

struct probe;
typedef void (*probe_fn)(struct probe *p, void *arg); /* after every answer or failure */

struct probe {
	struct pgc conn, repl;
	struct pg_sql facts; /* arrays owned here */
	int32_t major;	     /* of the data directory; decides the text of the statement */
	bool want_slots;
	/* The statement that was sent last, and what it was made for. */
	struct {
		char *text;
		int32_t major;
		bool want_slots;
	} sql;
	bool pending;	     /* a query is out */
	bool ask_again;	     /* asked while one was out: its answer would be too old */
	int64_t timeout_ms;  /* of one query */
	uint64_t generation; /* postmaster that the facts are about */
	uint64_t asked_generation;
	int64_t known_tli; /* highest timeline that this standby was seen to stream or replay */
	/* IDENTIFY_SYSTEM was asked of this postmaster when it had replayed up to there. */
	bool identified;
	uint64_t identified_lsn;
	int64_t identify_failed_ms; /* 0 = it did not */
	int64_t asked_at_ms;	    /* just before the query that is out was sent */
	probe_fn fn;
	void *arg;
};

void probe_init(struct probe *p, struct loop *loop, probe_fn fn, void *arg);
void probe_done(struct probe *p);
/* The postmaster changed (or ended: 0): what was known is void. */
void probe_set_generation(struct probe *p, uint64_t generation);
/* Ask now; while a query is out, ask again when it ends. */
void probe_ask(struct probe *p);
/* The statement for a major version. */
void probe_sql(struct buf *out, int32_t major, bool want_slots);
/* One row of it into *f (arrays allocated); ERR_PARSE: not the expected shape. */
MUST_USE enum err_code probe_read(const PGresult *res, struct pg_sql *f, struct err *err);
void probe_facts_done(struct pg_sql *f);
