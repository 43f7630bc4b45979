/* Sequences: a function that waits for one answer after the other, written top to bottom. A
 *sequence is a struct that begins with struct co and a step function; the function runs to the next
 *CO_WAIT, returns, and is called again when what it waits for is there. Local variables do not
 *survive a CO_WAIT: keep them in the struct.
 *
 *	static void seq_stop_step(struct co *co)
 *	{
 *		struct seq_stop *s = (struct seq_stop *)co;
 *		CO_BEGIN(co);
 *		co_pg_stop(co, PG_STOP_FAST, 0);
 *		CO_WAIT(co);
 *		if (!co->ok)
 *			CO_RETURN(co, false, "stop refused: %s", co->text);
 *		...
 *		CO_END(co);
 *	}
 *
 * A child sequence is started with co_call; the parent waits for its end, then reads co->ok and
 *co->text. Cancel: co_cancel marks the sequence and its children; a running job is ended; the
 *sequence sees co->cancelled after its wait and returns. Nothing here allocates; the structs belong
 *to whoever started the sequence. */
#pragma once
#include "worker/postgres/conn.h"
#include "worker/postgres/host.h"

struct co;
typedef void (*co_fn)(struct co *co);

struct co {
	struct host *h;
	co_fn step;
	int line; /* where to go on */
	bool active, cancelled;
	uint32_t serial; /* answers for an earlier wait are ignored */
	struct co *parent, *child;
	void (*done)(struct co *co, void *arg); /* root only: ended */
	void *done_arg;
	/* what the last wait, or child, brought; text lives in note */
	bool ok;
	enum answer_code code;
	int sys_errno; /* files: why it failed, 0 = not an error of the system */
	char note[480];
	const char *text; /* = note */
	int64_t value;
	int exit_code;
	bool timed_out;
	struct buf data; /* files: tail; job: stdout */
	PGresult *res;	 /* SQL; cleared at the next wait */
	char sqlstate[6];
	/* the wait itself */
	uint64_t request; /* of host, 0 = none */
	bool waits_job, waits_pg;
	uint32_t sql_serial;
	struct loop_timer timer;
	struct co *next_pg; /* list of those that wait for postmaster events */
	/* result of this sequence */
	bool result_ok;
	char result_text[480];
};

#define CO_BEGIN(co)                                                                               \
	switch ((co)->line) {                                                                      \
	default:                                                                                   \
	case 0:
#define CO_WAIT(co)                                                                                \
	do {                                                                                       \
		(co)->line = __LINE__;                                                             \
		return;                                                                            \
	case __LINE__:;                                                                            \
	} while (0)
#define CO_RETURN(co, good, ...)                                                                   \
	do {                                                                                       \
		co_finish((co), (good), __VA_ARGS__);                                              \
		return;                                                                            \
	} while (0)
#define CO_END(co)                                                                                 \
	}                                                                                          \
	co_finish((co), true, "done")

/* Start a root sequence; done is called when it ended (co->result_ok, co->result_text). The step
 * runs at once. */
void co_start(
	struct co *co, struct host *h, co_fn step, void (*done)(struct co *, void *), void *arg);
/* Start a child and let the parent wait for it (follow with CO_WAIT). */
void co_call(struct co *parent, struct co *child, co_fn step);
void co_finish(struct co *co, bool ok, const char *fmt, ...) PRINTF(3, 4);
void co_cancel(struct co *co); /* root */
/* It runs, or has ended and its done has not been called yet: in both cases its memory is in use
 * (by a timer), and whoever clears it to start anew breaks the loop's list. */
bool co_busy(const struct co *co);
/* The postmaster changed: wakes all sequences that wait for it. */
void co_pg_changed(struct host *h);

/* What can be waited for; each is followed by CO_WAIT, and leaves its answer in co. */
void co_sleep(struct co *co, int64_t ms);
void co_wait_pg(struct co *co,
	int64_t until_ms); /* next postmaster event or the time, whichever is first; ok = event */
void co_job(struct co *co, const char *name, const struct host_cmd *cmd, uint32_t flags,
	int64_t timeout_ms, uint32_t grace_ms);
/* In another working directory. */
void co_job_in(struct co *co, const char *name, const struct host_cmd *cmd, const char *cwd,
	uint32_t flags, int64_t timeout_ms, uint32_t grace_ms);
/* The same wait for a job of that name which an earlier worker began; false: there is none, and
 * nothing is waited for. */
MUST_USE bool co_job_adopt(struct co *co, const char *name);
void co_files(struct co *co, uint32_t op, uint32_t mode, int64_t max_bytes, uint64_t arg,
	const void *tail, size_t tail_len, int64_t timeout_ms);
void co_pg_start(struct co *co, enum pg_start_kind kind, int64_t lease_until_ms,
	const struct host_cmd *cmd, int64_t deadline_ms);
void co_pg_stop(struct co *co, enum pg_stop_mode mode, int64_t timeout_ms);
void co_pg_signal(struct co *co, int signo, int64_t lease_until_ms);
void co_pg_promote(struct co *co, int64_t lease_until_ms, int64_t deadline_ms);
void co_sql(struct co *co, struct pgc *conn, const char *sql, const char *const *args,
	unsigned arg_count, int64_t timeout_ms);
/* For answers that come from elsewhere (store, peers): take a ticket before asking, hand it back
 * with the answer. */
uint32_t co_ticket(struct co *co);
void co_wake(struct co *co, uint32_t ticket, bool ok, const char *text);
