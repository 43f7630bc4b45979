/* Sequences. Worker process. See co.h. */
#include "worker/postgres/co.h"

#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"

static uint32_t serials; /* one counter for all: an answer for an earlier life is never taken for a
			    new one's */
static struct co *pg_waiters; /* those inside co_wait_pg; one worker process has one list */

static void unwatch_pg(struct co *co)
{
	if (!co->waits_pg)
		return;
	for (struct co **p = &pg_waiters; *p != NULL; p = &(*p)->next_pg) {
		if (*p == co) {
			*p = co->next_pg;
			break;
		}
	}
	co->waits_pg = false;
}

/* Before each new wait: nothing of the last one may still come. */
static void prepare(struct co *co)
{
	co->serial = ++serials;
	loop_timer_stop(co->h->loop, &co->timer);
	unwatch_pg(co);
	if (co->request != 0)
		host_forget(co->h, co->request);
	co->request = 0;
	co->waits_job = false;
	PQclear(co->res);
	co->res = NULL;
	buf_reset(&co->data);
	co->data.max = LIMIT_SHM_DOC;
	co->ok = false;
	co->code = ANSWER_OK;
	co->note[0] = '\0';
	co->text = co->note;
	co->sqlstate[0] = '\0';
}

static void resume(struct co *co)
{
	INVARIANT(co->active);
	co->step(co);
}

void co_start(
	struct co *co, struct host *h, co_fn step, void (*done)(struct co *, void *), void *arg)
{
	INVARIANT(!co->active);
	struct buf keep = co->data;
	memset(co, 0, sizeof(*co));
	co->data = keep;
	co->h = h;
	co->step = step;
	co->done = done;
	co->done_arg = arg;
	co->active = true;
	prepare(co);
	resume(co);
}

void co_call(struct co *parent, struct co *child, co_fn step)
{
	prepare(parent);
	INVARIANT(!child->active);
	struct buf keep = child->data;
	memset(child, 0, sizeof(*child));
	child->data = keep;
	child->h = parent->h;
	child->step = step;
	child->parent = parent;
	child->active = true;
	child->cancelled = parent->cancelled;
	parent->child = child;
	prepare(child);
	/* From the loop: the parent must have reached its CO_WAIT before the child can end. */
	uint32_t ticket = co_ticket(child);
	co_wake(child, ticket, true, "");
}

static void on_finished(struct loop *l, void *arg)
{
	(void)l;
	struct co *co = arg;
	struct co *parent = co->parent;
	if (parent == NULL) {
		if (co->done != NULL)
			co->done(co, co->done_arg);
		return;
	}
	parent->child = NULL;
	parent->ok = co->result_ok;
	snprintf(parent->note, sizeof(parent->note), "%s", co->result_text);
	resume(parent);
}

void co_finish(struct co *co, bool ok, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(co->result_text, sizeof(co->result_text), fmt, ap);
	va_end(ap);
	co->result_ok = ok && !co->cancelled;
	prepare(co);
	buf_done(&co->data);
	co->active = false;
	loop_timer_set(co->h->loop, &co->timer, clock_boot_ms(), on_finished, co);
}

bool co_busy(const struct co *co)
{
	return co->active || co->timer.at_ms != 0;
}

void co_cancel(struct co *co)
{
	for (struct co *c = co; c != NULL; c = c->child) {
		c->cancelled = true;
		if (c->waits_job)
			host_job_cancel(c->h, c->request);
		else if (c->active && c->child == NULL)
			/* Whatever it waits for, it looks at co->cancelled now. */
			co_wake(c, co_ticket(c), false, "cancelled");
	}
}

void co_pg_changed(struct host *h)
{
	(void)h;
	struct co *list = pg_waiters;
	pg_waiters = NULL;
	while (list != NULL) {
		struct co *co = list;
		list = co->next_pg;
		co->waits_pg = false;
		co_wake(co, co->serial, true, "");
	}
}

static void on_wake(struct loop *l, void *arg)
{
	(void)l;
	resume(arg);
}

uint32_t co_ticket(struct co *co)
{
	prepare(co);
	return co->serial;
}

void co_wake(struct co *co, uint32_t ticket, bool ok, const char *text)
{
	if (!co->active || co->serial != ticket)
		return;
	co->ok = ok;
	snprintf(co->note, sizeof(co->note), "%s", text);
	unwatch_pg(co);
	co->serial = ++serials;
	loop_timer_set(co->h->loop, &co->timer, clock_boot_ms(), on_wake, co);
}

void co_sleep(struct co *co, int64_t ms)
{
	prepare(co);
	co->ok = true;
	loop_timer_set(co->h->loop, &co->timer, clock_boot_ms() + ms, on_wake, co);
}

static void on_pg_time(struct loop *l, void *arg)
{
	(void)l;
	struct co *co = arg;
	unwatch_pg(co);
	resume(co);
}

void co_wait_pg(struct co *co, int64_t until_ms)
{
	prepare(co);
	co->waits_pg = true;
	co->next_pg = pg_waiters;
	pg_waiters = co;
	loop_timer_set(co->h->loop, &co->timer, until_ms, on_pg_time, co);
}

static void on_reply(struct host *h, const struct host_reply *r, void *arg)
{
	(void)h;
	struct co *co = arg;
	co->request = 0;
	co->waits_job = false;
	co->ok = r->code == ANSWER_OK;
	co->code = r->code;
	co->sys_errno = r->sys_errno;
	snprintf(co->note, sizeof(co->note), "%s", r->text != NULL ? r->text : "");
	co->value = r->value;
	co->exit_code = r->exit_class == EXIT_CLASS_CODE ? r->exit_code : -1;
	co->timed_out = r->timed_out;
	buf_add(&co->data, r->data, r->data_len);
	if (r->data_len > 0 && co->data.failed)
		co->ok = false;
	resume(co);
}

void co_job_in(struct co *co, const char *name, const struct host_cmd *cmd, const char *cwd,
	uint32_t flags, int64_t timeout_ms, uint32_t grace_ms)
{
	prepare(co);
	co->waits_job = true;
	co->request = host_job(co->h, name, cmd, cwd, flags, timeout_ms, grace_ms, on_reply, co);
}

void co_job(struct co *co, const char *name, const struct host_cmd *cmd, uint32_t flags,
	int64_t timeout_ms, uint32_t grace_ms)
{
	co_job_in(co, name, cmd, NULL, flags, timeout_ms, grace_ms);
}

bool co_job_adopt(struct co *co, const char *name)
{
	prepare(co);
	co->request = host_job_adopt(co->h, name, on_reply, co);
	co->waits_job = co->request != 0;
	return co->waits_job;
}

void co_files(struct co *co, uint32_t op, uint32_t mode, int64_t max_bytes, uint64_t arg,
	const void *tail, size_t tail_len, int64_t timeout_ms)
{
	prepare(co);
	co->request = host_files(
		co->h, op, mode, 0, max_bytes, arg, tail, tail_len, timeout_ms, on_reply, co);
}

void co_pg_start(struct co *co, enum pg_start_kind kind, int64_t lease_until_ms,
	const struct host_cmd *cmd, int64_t deadline_ms)
{
	prepare(co);
	co->request =
		host_pg_start(co->h, kind, lease_until_ms, 077, cmd, deadline_ms, on_reply, co);
}

void co_pg_stop(struct co *co, enum pg_stop_mode mode, int64_t timeout_ms)
{
	prepare(co);
	co->request = host_pg_stop(co->h, mode, timeout_ms, on_reply, co);
}

void co_pg_signal(struct co *co, int signo, int64_t lease_until_ms)
{
	prepare(co);
	co->request = host_pg_signal(co->h, signo, lease_until_ms, on_reply, co);
}

void co_pg_promote(struct co *co, int64_t lease_until_ms, int64_t deadline_ms)
{
	prepare(co);
	co->request = host_pg_promote(co->h, lease_until_ms, deadline_ms, on_reply, co);
}

static void on_sql(struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct co *co = arg;
	if (!co->active || co->serial != co->sql_serial)
		return; /* cancelled meanwhile */
	co->ok = f == PGC_OK;
	co->code = f == PGC_TIMEOUT ? ANSWER_TIMEOUT : co->ok ? ANSWER_OK : ANSWER_FAILED;
	snprintf(co->note, sizeof(co->note), "%s", text);
	memcpy(co->sqlstate, c->sqlstate, sizeof(co->sqlstate));
	if (res != NULL)
		co->res = PQcopyResult(res, PG_COPYRES_TUPLES | PG_COPYRES_ATTRS);
	resume(co);
}

void co_sql(struct co *co, struct pgc *conn, const char *sql, const char *const *args,
	unsigned arg_count, int64_t timeout_ms)
{
	struct err err = ERR_INIT;
	prepare(co);
	co->sql_serial = co->serial;
	if (pgc_exec(conn, sql, args, arg_count, clock_boot_ms() + timeout_ms, on_sql, co, &err) !=
		ERR_OK)
		co_wake(co, co_ticket(co), false, err.text);
}
