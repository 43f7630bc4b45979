/* Requests to the supervisor and to pgregent-files. Worker process. See host.h. */
#include "worker/postgres/host.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/postgres/argv.h"

#define ORDER_ANSWER_MS                                                                            \
	5000 /* the supervisor answers orders at once; silence means it is going away */
#define UPGRADE_ANSWER_MS 8000 /* it lets the new program check itself first, 5 s */
#define FILES_MAX_BYTES	  LIMIT_SHM_DOC

void host_init(struct host *h, struct loop *loop)
{
	memset(h, 0, sizeof(*h));
	h->loop = loop;
	h->sup_fd = h->files_fd = -1;
	h->next_id = 1;
}

static void release(struct host_request *r)
{
	loop_timer_stop(r->host->loop, &r->timer);
	buf_done(&r->data);
	buf_done(&r->out2);
	r->id = 0;
	r->fn = NULL;
}

void host_done(struct host *h)
{
	for (unsigned i = 0; i < HOST_REQUESTS_MAX; i++) {
		if (h->requests[i].id != 0)
			release(&h->requests[i]);
	}
	if (h->files_fd >= 0) {
		loop_fd_remove(h->loop, h->files_fd);
		close(h->files_fd);
	}
}

static struct host_request *find(struct host *h, uint64_t id)
{
	for (unsigned i = 0; id != 0 && i < HOST_REQUESTS_MAX; i++) {
		if (h->requests[i].id == id)
			return &h->requests[i];
	}
	return NULL;
}

static void answer(struct host_request *r, const struct host_reply *reply)
{
	struct host *h = r->host;
	host_fn fn = r->fn;
	void *arg = r->arg;
	/* The slot's buffers must live until the callback returns, the slot itself must be free for
	 * it. */
	struct buf data = r->data, out2 = r->out2;
	memset(&r->data, 0, sizeof(r->data));
	memset(&r->out2, 0, sizeof(r->out2));
	release(r);
	if (fn != NULL)
		fn(h, reply, arg);
	buf_done(&data);
	buf_done(&out2);
}

static void fail(struct host_request *r, enum answer_code code, const char *text)
{
	struct host_reply reply = { .code = code, .text = text, .exit_class = EXIT_CLASS_UNKNOWN };
	answer(r, &reply);
}

static void on_timeout(struct loop *l, void *arg)
{
	(void)l;
	struct host_request *r = arg;
	fail(r, ANSWER_TIMEOUT, "no answer in time");
}

static void on_unsent(struct loop *l, void *arg)
{
	(void)l;
	fail(arg, ANSWER_FAILED, "could not be sent");
}

/* A slot whose fn will be called exactly once. NULL: no slot is free. */
static struct host_request *reserve(
	struct host *h, enum msg_type type, int64_t deadline_ms, host_fn fn, void *arg)
{
	for (unsigned i = 0; i < HOST_REQUESTS_MAX; i++) {
		struct host_request *r = &h->requests[i];
		if (r->id != 0)
			continue;
		memset(r, 0, sizeof(*r));
		r->host = h;
		r->id = h->next_id++;
		r->type = type;
		r->fn = fn;
		r->arg = arg;
		r->data.max = FILES_MAX_BYTES;
		r->out2.max = LIMIT_JOB_OUTPUT;
		if (deadline_ms != 0)
			loop_timer_set(h->loop, &r->timer, deadline_ms, on_timeout, r);
		return r;
	}
	/* The table is far larger than the number of sequences that can run at once. */
	INVARIANT(!"host request table full");
	return NULL;
}

static uint64_t submit(struct host *h, int fd, struct host_request *r, const void *payload,
	const void *tail, size_t tail_len)
{
	struct err err = ERR_INIT;
	enum err_code rc =
		fd < 0 ? err_set(&err, ERR_CLOSED, 0, "not connected")
		       : ipc_send(fd, r->type, r->id, payload, tail, tail_len, NULL, 0, &err);
	if (rc != ERR_OK) {
		/* A helper that is being started again: whoever asked hears of it. */
		log_line(fd < 0 ? LOG_DEBUG : LOG_WARNING, "%s: %s", msg_type_name(r->type),
			err.text);
		loop_timer_set(h->loop, &r->timer, clock_boot_ms(), on_unsent, r);
	}
	return r->id;
}

static bool is_files_request(const struct host_request *r)
{
	return r->type == MSG_FILES_REQ;
}

void host_set_supervisor(struct host *h, int fd)
{
	h->sup_fd = fd;
}

static void drop_files(struct host *h)
{
	if (h->files_fd >= 0) {
		loop_fd_remove(h->loop, h->files_fd);
		close(h->files_fd);
		h->files_fd = -1;
	}
	for (unsigned i = 0; i < HOST_REQUESTS_MAX; i++) {
		struct host_request *r = &h->requests[i];
		if (r->id != 0 && is_files_request(r))
			fail(r, ANSWER_FAILED, "pgregent-files went away");
	}
}

static void on_files(struct loop *l, int fd, short revents, void *arg)
{
	(void)l;
	(void)revents;
	struct host *h = arg;
	static struct ipc_rx rx;
	for (int i = 0; i < 16; i++) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(fd, ROLE_FILES, ROLE_WORKER, &rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		for (int k = 0; rc == ERR_OK && k < m.fd_count; k++)
			close(m.fds[k]);
		if (rc != ERR_OK || m.type != MSG_FILES_ANSWER) {
			if (rc != ERR_CLOSED)
				log_error("files: %s",
					rc == ERR_OK ? "unexpected message" : err.text);
			drop_files(h);
			return;
		}
		const struct msg_files_answer *a = m.payload;
		struct host_request *r = find(h, m.id);
		if (r == NULL || !is_files_request(r))
			continue; /* timed out meanwhile */
		buf_add(&r->data, m.tail, m.tail_len);
		if (a->more)
			continue;
		struct host_reply reply = { .code = (enum answer_code)a->code,
			.value = a->value,
			.sys_errno = a->sys_errno,
			.data = buf_str(&r->data),
			.data_len = r->data.len,
			.text = a->code != ANSWER_OK ? buf_str(&r->data) : "" };
		if (r->data.failed) {
			reply.code = ANSWER_FAILED;
			reply.text = "answer too large";
		}
		answer(r, &reply);
		if (h->files_fd != fd)
			return;
	}
}

void host_set_files(struct host *h, int fd)
{
	drop_files(h);
	h->files_fd = fd;
	struct err err = ERR_INIT;
	if (fd >= 0 && loop_fd_set(h->loop, fd, POLLIN, on_files, h, &err) != ERR_OK) {
		log_error("files: %s", err.text);
		drop_files(h);
	}
}

static void finish_job(struct host_request *r)
{
	r->end.text = buf_str(r->job_flags & JOB_KEEP_STDOUT ? &r->out2 : &r->data);
	r->end.data = buf_str(&r->data);
	r->end.data_len = r->data.len;
	struct err err = ERR_INIT;
	struct msg_job_id forget = { .job = r->id };
	if (r->host->sup_fd >= 0 && ipc_send(r->host->sup_fd, MSG_JOB_FORGET, 0, &forget, NULL, 0,
					    NULL, 0, &err) != ERR_OK)
		log_warning("job %llu: %s", (unsigned long long)forget.job, err.text);
	struct host_reply end = r->end;
	answer(r, &end);
}

/* A slot for a job that is not ours: one that ended gives way. */
static struct host_orphan *orphan_slot(struct host *h, uint64_t id)
{
	struct host_orphan *slot = NULL;
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		struct host_orphan *o = &h->orphans[i];
		if (o->id == id)
			return o;
		if (slot == NULL || (o->id == 0 && slot->id != 0) || (o->ended && !slot->ended))
			slot = o->id == 0 || o->ended ? o : slot;
	}
	return slot;
}

/* Ids begin with the incarnation of the worker that gave them. */
static void on_orphan_event(struct host *h, const struct msg_job_event *e)
{
	uint64_t incarnation = e->job >> 32;
	if (incarnation == 0 || incarnation >= h->welcome.incarnation ||
		!ipc_str_ok(e->name, sizeof(e->name)))
		return;
	struct host_orphan *o = orphan_slot(h, e->job);
	if (o == NULL)
		return;
	if (o->id != e->job)
		log_info("job of an earlier worker name=%s id=%llu pid=%d %s", e->name,
			(unsigned long long)e->job, e->pid, e->running ? "runs" : "ended");
	*o = (struct host_orphan){ .id = e->job, .ended = !e->running, .event = *e };
}

const char *host_orphan_peek(const struct host *h)
{
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		const struct host_orphan *o = &h->orphans[i];
		if (o->id != 0 && !o->ended && (o->event.flags & JOB_DATA_DIR) != 0)
			return o->event.name;
	}
	return NULL;
}

static void on_job_event(struct host *h, const struct msg_job_event *e)
{
	struct host_request *r = find(h, e->job);
	if (r == NULL)
		on_orphan_event(h, e);
	if (r == NULL || r->type != MSG_JOB_START || e->running)
		return;
	r->job_ended = true;
	r->end.exit_class = (enum exit_class)e->exit_class;
	r->end.exit_code = e->exit_code;
	r->end.cancelled = e->cancelled;
	r->end.timed_out = e->timed_out;
	bool good = e->exit_class == EXIT_CLASS_CODE && e->exit_code == 0 && !e->cancelled &&
		    !e->timed_out;
	r->end.code = good ? ANSWER_OK : e->timed_out ? ANSWER_TIMEOUT : ANSWER_FAILED;
	struct msg_job_id get = { .job = e->job };
	struct err err = ERR_INIT;
	r->outputs_due = r->job_flags & JOB_KEEP_STDOUT ? 2 : 1;
	if (ipc_send(h->sup_fd, MSG_JOB_OUTPUT_GET, 0, &get, NULL, 0, NULL, 0, &err) != ERR_OK)
		finish_job(r);
}

static void on_job_output(struct host *h, const struct ipc_msg *m)
{
	const struct msg_job_output *o = m->payload;
	struct host_request *r = find(h, o->job);
	if (r == NULL || r->type != MSG_JOB_START || !r->job_ended || r->outputs_due == 0)
		return;
	buf_add(o->stream == 2 && (r->job_flags & JOB_KEEP_STDOUT) ? &r->out2 : &r->data, m->tail,
		m->tail_len);
	if (--r->outputs_due == 0)
		finish_job(r);
}

bool host_message(struct host *h, const struct ipc_msg *m)
{
	switch (m->type) {
	case MSG_ANSWER: {
		const struct msg_answer *a = m->payload;
		struct host_request *r = find(h, m->id);
		if (r == NULL || is_files_request(r) || !ipc_str_ok(a->text, sizeof(a->text)))
			return true;
		/* A job's answer says only that it was started, or why not. */
		if (r->type == MSG_JOB_START && a->code == ANSWER_OK)
			return true;
		struct host_reply reply = { .code = (enum answer_code)a->code,
			.text = a->text,
			.exit_class = EXIT_CLASS_UNKNOWN };
		answer(r, &reply);
		return true;
	}
	case MSG_PG_EVENT: {
		const struct msg_pg_event *e = m->payload;
		if (!ipc_str_ok(e->text, sizeof(e->text)))
			return true;
		h->pg = *e;
		if (h->on_pg != NULL)
			h->on_pg(h, h->on_pg_arg);
		return true;
	}
	case MSG_JOB_EVENT: on_job_event(h, m->payload); return true;
	case MSG_JOB_OUTPUT: on_job_output(h, m); return true;
	case MSG_WATCHDOG_STATE: memcpy(&h->watchdog, m->payload, sizeof(h->watchdog)); return true;
	default: return false;
	}
}

void host_cmd_arg(struct host_cmd *c, const char *arg)
{
	buf_add(&c->argv, arg, strlen(arg) + 1);
	c->argc++;
}

void host_cmd_argf(struct host_cmd *c, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_addv(&c->argv, fmt, ap);
	va_end(ap);
	buf_add(&c->argv, "", 1);
	c->argc++;
}

void host_cmd_take(struct host_cmd *c, struct argv *a)
{
	buf_add(&c->argv, a->bytes.data, a->bytes.len);
	c->argv.failed |= argv_failed(a);
	c->argc += a->count;
	argv_done(a);
}

void host_cmd_env(struct host_cmd *c, const char *key, const char *value)
{
	buf_addf(&c->env, "%s=%s", key, value);
	buf_add(&c->env, "", 1);
}

void host_cmd_done(struct host_cmd *c)
{
	buf_done(&c->argv);
	buf_done(&c->env);
}

/* argc, argv, the common environment, the command's own. */
static bool cmd_tail(const struct host *h, const struct host_cmd *cmd, struct buf *tail)
{
	buf_addf(tail, "%u", cmd->argc);
	buf_add(tail, "", 1);
	buf_add(tail, cmd->argv.data, cmd->argv.len);
	for (unsigned i = 0; h->job_env != NULL && h->job_env[i] != NULL; i++)
		buf_add(tail, h->job_env[i], strlen(h->job_env[i]) + 1);
	buf_add(tail, cmd->env.data, cmd->env.len);
	return !tail->failed && !cmd->argv.failed && !cmd->env.failed;
}

uint64_t host_pg_start(struct host *h, enum pg_start_kind kind, int64_t lease_until_ms,
	uint32_t umask_bits, const struct host_cmd *cmd, int64_t deadline_ms, host_fn fn, void *arg)
{
	struct host_request *r = reserve(h, MSG_PG_START, deadline_ms + 1000, fn, arg);
	struct msg_pg_start m = { .deadline_ms = deadline_ms,
		.lease_until_ms = lease_until_ms,
		.kind = kind,
		.umask = umask_bits };
	AUTO(buf) tail = BUF_INIT(LIMIT_IPC_FRAME);
	if (!cmd_tail(h, cmd, &tail)) {
		loop_timer_set(h->loop, &r->timer, clock_boot_ms(), on_unsent, r);
		return r->id;
	}
	return submit(h, h->sup_fd, r, &m, tail.data, tail.len);
}

uint64_t host_pg_stop(
	struct host *h, enum pg_stop_mode mode, int64_t timeout_ms, host_fn fn, void *arg)
{
	int64_t deadline_ms = clock_boot_ms() + ORDER_ANSWER_MS;
	struct host_request *r = reserve(h, MSG_PG_STOP, deadline_ms, fn, arg);
	struct msg_pg_stop m = { .generation = h->pg.generation,
		.deadline_ms = deadline_ms,
		.timeout_ms = timeout_ms,
		.mode = mode };
	return submit(h, h->sup_fd, r, &m, NULL, 0);
}

uint64_t host_pg_signal(struct host *h, int signo, int64_t lease_until_ms, host_fn fn, void *arg)
{
	int64_t deadline_ms = clock_boot_ms() + ORDER_ANSWER_MS;
	struct host_request *r = reserve(h, MSG_PG_SIGNAL, deadline_ms, fn, arg);
	struct msg_pg_signal m = { .generation = h->pg.generation,
		.deadline_ms = deadline_ms,
		.lease_until_ms = lease_until_ms,
		.signo = signo };
	return submit(h, h->sup_fd, r, &m, NULL, 0);
}

uint64_t host_pg_promote(
	struct host *h, int64_t lease_until_ms, int64_t deadline_ms, host_fn fn, void *arg)
{
	struct host_request *r = reserve(h, MSG_PG_PROMOTE, deadline_ms + 1000, fn, arg);
	struct msg_pg_promote m = { .generation = h->pg.generation,
		.deadline_ms = deadline_ms,
		.lease_until_ms = lease_until_ms };
	return submit(h, h->sup_fd, r, &m, NULL, 0);
}

uint64_t host_upgrade(struct host *h, host_fn fn, void *arg)
{
	struct host_request *r =
		reserve(h, MSG_UPGRADE, clock_boot_ms() + UPGRADE_ANSWER_MS, fn, arg);
	struct msg_upgrade m = { .path = "" };
	return submit(h, h->sup_fd, r, &m, NULL, 0);
}

uint64_t host_job(struct host *h, const char *name, const struct host_cmd *cmd, const char *cwd,
	uint32_t flags, int64_t timeout_ms, uint32_t grace_ms, host_fn fn, void *arg)
{
	int64_t now_ms = clock_boot_ms();
	/* The supervisor ends it at the deadline; a little later we stop to believe that it will
	 * say so. */
	struct host_request *r = reserve(h, MSG_JOB_START,
		timeout_ms != 0 ? now_ms + timeout_ms + grace_ms + 5000 : 0, fn, arg);
	r->job_flags = flags;
	struct msg_job_start m = { .deadline_ms = timeout_ms != 0 ? now_ms + timeout_ms : 0,
		.grace_ms = grace_ms,
		.flags = flags };
	AUTO(buf) tail = BUF_INIT(LIMIT_IPC_FRAME);
	if (!str_copy(m.name, sizeof(m.name), name) ||
		!str_copy(m.cwd, sizeof(m.cwd), cwd != NULL ? cwd : "") ||
		!cmd_tail(h, cmd, &tail)) {
		loop_timer_set(h->loop, &r->timer, now_ms, on_unsent, r);
		return r->id;
	}
	return submit(h, h->sup_fd, r, &m, tail.data, tail.len);
}

static void on_adopted_end(struct loop *l, void *arg)
{
	(void)l;
	struct host_request *r = arg;
	struct msg_job_event e = r->adopted;
	on_job_event(r->host, &e);
}

static bool adoptable(const struct host_orphan *o, const char *name)
{
	bool good = o->event.exit_class == EXIT_CLASS_CODE && o->event.exit_code == 0 &&
		    !o->event.cancelled && !o->event.timed_out;
	return o->id != 0 && strcmp(o->event.name, name) == 0 && (!o->ended || good);
}

bool host_job_there(const struct host *h, const char *name)
{
	bool there = false;
	for (unsigned i = 0; i < LIMIT_JOBS; i++)
		there |= adoptable(&h->orphans[i], name);
	return there;
}

uint64_t host_job_adopt(struct host *h, const char *name, host_fn fn, void *arg)
{
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		struct host_orphan *o = &h->orphans[i];
		if (!adoptable(o, name))
			continue;
		struct host_request *r = reserve(h, MSG_JOB_START, 0, fn, arg);
		log_info("job of an earlier worker is taken over name=%s id=%llu", name,
			(unsigned long long)o->id);
		r->id = o->id;
		r->job_flags = o->event.flags;
		r->adopted = o->event;
		/* From the loop: the caller must have reached its wait. */
		if (o->ended)
			loop_timer_set(h->loop, &r->timer, clock_boot_ms(), on_adopted_end, r);
		*o = (struct host_orphan){ .id = 0 };
		return r->id;
	}
	return 0;
}

void host_job_cancel(struct host *h, uint64_t job)
{
	struct msg_job_id m = { .job = job };
	struct err err = ERR_INIT;
	if (find(h, job) != NULL && h->sup_fd >= 0 &&
		ipc_send(h->sup_fd, MSG_JOB_CANCEL, 0, &m, NULL, 0, NULL, 0, &err) != ERR_OK)
		log_warning("cancel of job %llu: %s", (unsigned long long)job, err.text);
}

uint64_t host_files(struct host *h, uint32_t op, uint32_t mode, int64_t offset, int64_t max_bytes,
	uint64_t op_arg, const void *tail, size_t tail_len, int64_t timeout_ms, host_fn fn,
	void *arg)
{
	struct host_request *r = reserve(
		h, MSG_FILES_REQ, timeout_ms != 0 ? clock_boot_ms() + timeout_ms : 0, fn, arg);
	struct msg_files_req m = {
		.op = op, .mode = mode, .offset = offset, .max_bytes = max_bytes, .arg = op_arg
	};
	return submit(h, h->files_fd, r, &m, tail, tail_len);
}

void host_forget(struct host *h, uint64_t id)
{
	struct host_request *r = find(h, id);
	if (r != NULL)
		r->fn = NULL;
}
