/* Jobs. Supervisor only. See job.h. Nothing here waits: a job that does not end is killed with its
 * tree. */
#include "supervisor/job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/core/killtree.h"
#include "supervisor/ending.h"
#include "supervisor/spawn.h"
#include "supervisor/sup.h"

#define CANCEL_ALL_MS 5000 /* grace at the end of the supervisor at most */
#define DRAIN_MAX     16   /* reads per turn and stream: a chatty job must not hold the loop */
#define KILL_AGAIN_MS 500  /* a tree that forks faster than it is listed is listed again */

void jobs_init(struct jobs *j)
{
	for (unsigned i = 0; i < LIMIT_JOBS; i++)
		j->slot[i].out[0].fd = j->slot[i].out[1].fd = -1;
}

/* ---- arguments ---- */

static bool same_variable(const char *a, const char *b)
{
	size_t n = strcspn(a, "=");
	return strncmp(a, b, n) == 0 && b[n] == '=';
}

enum err_code args_parse(
	struct args *a, const char *tail, size_t len, char *const *base_env, struct err *err)
{
	unsigned count;
	int64_t argc;
	if (!ipc_tail_valid(tail, len, &count) || !str_to_i64(tail, &argc) || argc < 1 ||
		argc >= count || count > LIMIT_ARGS)
		return err_set(
			err, ERR_PROTO, 0, "arguments: malformed, or over %d strings", LIMIT_ARGS);
	const char *s = tail;
	for (int64_t i = 0; i < argc; i++)
		a->argv[i] = (char *)(s = ipc_tail_next(tail, len, s));
	a->argv[argc] = NULL;
	unsigned n = 0, base = 0;
	while ((s = ipc_tail_next(tail, len, s)) != NULL)
		a->envp[n++] = (char *)s;
	for (unsigned given = n; base_env[base] != NULL; base++) {
		bool replaced = false;
		for (unsigned i = 0; i < given && !replaced; i++)
			replaced = same_variable(base_env[base], a->envp[i]);
		if (!replaced)
			a->envp[n++] = base_env[base];
	}
	a->envp[n] = NULL;
	return ERR_OK;
}

/* ---- slots ---- */

static struct job *find(struct jobs *js, uint64_t id)
{
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		if (js->slot[i].state != JOB_FREE && js->slot[i].id == id)
			return &js->slot[i];
	}
	return NULL;
}

static void free_slot(struct job *j)
{
	for (unsigned i = 0; i < 2; i++) {
		if (j->out[i].fd >= 0)
			close(j->out[i].fd);
		j->out[i].fd = -1;
		j->out[i].total = 0;
		j->out[i].line_len = 0;
	}
	j->state = JOB_FREE;
}

/* A free slot, else that of the job that ended longest ago. */
static struct job *take_slot(struct jobs *js)
{
	struct job *old = NULL;
	js->idle = false;
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		struct job *j = &js->slot[i];
		if (j->state == JOB_FREE)
			return j;
		if (j->state == JOB_ENDED && (old == NULL || j->at_ms < old->at_ms))
			old = j;
	}
	if (old != NULL)
		free_slot(old);
	return old;
}

static void send_event(struct sup *s, const struct job *j)
{
	struct msg_job_event e = { .job = j->id,
		.at_ms = j->at_ms,
		.pid = j->pid,
		.running = j->state != JOB_ENDED,
		.exit_class = j->exit.cls,
		.exit_code = j->exit.code,
		.cancelled = j->cancelled,
		.timed_out = j->timed_out,
		.flags = j->flags };
	memcpy(e.name, j->name, sizeof(e.name));
	helper_send(s, HELPER_WORKER, MSG_JOB_EVENT, j->id, &e, NULL, 0, NULL, 0);
}

void jobs_report(struct sup *s)
{
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		if (s->jobs.slot[i].state != JOB_FREE)
			send_event(s, &s->jobs.slot[i]);
	}
}

unsigned jobs_running(const struct jobs *js)
{
	unsigned n = 0;
	for (unsigned i = 0; !js->idle && i < LIMIT_JOBS; i++)
		n += js->slot[i].state != JOB_FREE && js->slot[i].state != JOB_ENDED;
	return n;
}

/* ---- start ---- */

/* Pipes for what is kept; fds[0..2] for the child. Both lists hold our copies that are closed
 * afterwards. */
static enum err_code make_streams(struct job *j, int fds[3], int child_ends[2], struct err *err)
{
	unsigned pipes = (j->flags & JOB_KEEP_STDOUT) != 0 ? 2 : 1;
	for (unsigned i = 0; i < pipes; i++) {
		int p[2];
		if (pipe2(p, O_CLOEXEC) < 0)
			return err_set(err, ERR_SYS, errno, "pipe");
		fcntl(p[0], F_SETFL, O_NONBLOCK);
		j->out[i].fd = p[0];
		child_ends[i] = p[1];
	}
	fds[0] = -1;
	fds[1] = (j->flags & JOB_STDERR_ONLY) != 0 ? -1 : child_ends[0];
	fds[2] = pipes == 2 ? child_ends[1] : child_ends[0];
	return ERR_OK;
}

static enum err_code launch_job(struct sup *s, struct job *j, const char *cwd, char *const *argv,
	char *const *envp, struct err *err)
{
	int ends[2] = { -1, -1 };
	struct spawn sp = { .argv = argv,
		.envp = envp,
		.cwd = *cwd != '\0' ? cwd : NULL,
		.fd_count = 3,
		.gate_fd = -1,
		.kind = PRIV_PLAIN,
		.die_with_parent = (j->flags & (JOB_DATA_DIR | JOB_DIES_WITH_US)) != 0,
		.umask = s->privs.umask };
	enum err_code rc = make_streams(j, sp.fds, ends, err);
	if (rc == ERR_OK)
		rc = spawn_child(&s->privs, &sp, &j->pid, NULL, err);
	for (unsigned i = 0; i < 2; i++) {
		if (ends[i] >= 0)
			close(ends[i]);
	}
	return rc;
}

void job_start(struct sup *s, const struct ipc_msg *m)
{
	static struct args args;
	const struct msg_job_start *q = m->payload;
	struct err err = ERR_INIT;
	if (!ipc_str_ok(q->name, sizeof(q->name)) || !ipc_str_ok(q->cwd, sizeof(q->cwd)) ||
		args_parse(&args, m->tail, m->tail_len, s->launch.env_plain, &err) != ERR_OK) {
		helper_kill(s, &s->helpers[HELPER_WORKER], "malformed JOB_START");
		return;
	}
	if (m->id == 0 || m->id == JOB_UPGRADE_CHECK || find(&s->jobs, m->id) != NULL ||
		s->end.phase >= END_POSTGRES) {
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED,
			"job id %llu is in use, or we are ending", (unsigned long long)m->id);
		return;
	}
	struct job *j = take_slot(&s->jobs);
	if (j == NULL) {
		helper_answer(
			s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%d jobs run already", LIMIT_JOBS);
		return;
	}
	j->id = m->id;
	j->deadline_ms = q->deadline_ms;
	j->grace_ms = q->grace_ms;
	j->flags = q->flags;
	j->cancelled = j->timed_out = false;
	j->exit = (struct exit_info){ 0 };
	j->at_ms = s->now_ms;
	memcpy(j->name, q->name, sizeof(j->name));
	if (launch_job(s, j, q->cwd, args.argv, args.envp, &err) != ERR_OK) {
		free_slot(j);
		helper_answer(
			s, HELPER_WORKER, m->id, ANSWER_FAILED, "job %s: %s", q->name, err.text);
		return;
	}
	j->state = JOB_RUNNING;
	log_info("job started name=%s id=%llu pid=%d", j->name, (unsigned long long)j->id, j->pid);
	helper_answer(s, HELPER_WORKER, m->id, ANSWER_OK, "%s", "started");
	send_event(s, j);
}

bool job_start_own(struct sup *s, uint64_t id, char *const *argv, int64_t deadline_ms)
{
	struct err err = ERR_INIT;
	struct job *j = find(&s->jobs, id) == NULL ? take_slot(&s->jobs) : NULL;
	if (j == NULL)
		return false;
	j->id = id;
	j->deadline_ms = deadline_ms;
	j->grace_ms = j->flags = 0;
	j->cancelled = j->timed_out = false;
	j->exit = (struct exit_info){ 0 };
	j->at_ms = s->now_ms;
	if (!str_copy(j->name, sizeof(j->name), "upgrade check") ||
		launch_job(s, j, "", argv, s->launch.env_plain, &err) != ERR_OK) {
		log_error("upgrade check: %s", err.text);
		free_slot(j);
		return false;
	}
	j->state = JOB_RUNNING;
	return true;
}

/* ---- output ---- */

static void log_bytes(struct job *j, struct job_stream *st, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != '\n' && st->line_len < sizeof(st->line) - 1) {
			st->line[st->line_len++] = bytes[i];
			continue;
		}
		st->line[st->line_len] = '\0';
		if (st->line_len > 0)
			log_info("%s: %s", j->name, st->line);
		st->line_len = 0;
	}
}

void job_drain(struct job *j, struct job_stream *st)
{
	for (unsigned i = 0; i < DRAIN_MAX && st->fd >= 0; i++) {
		size_t at = st->total % LIMIT_JOB_OUTPUT;
		ssize_t n = read(st->fd, st->ring + at, LIMIT_JOB_OUTPUT - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			close(st->fd);
			st->fd = -1;
			return;
		}
		if ((j->flags & JOB_LOG_OUTPUT) != 0)
			log_bytes(j, st, st->ring + at, (size_t)n);
		st->total += (uint64_t)n;
	}
}

static void send_stream(struct sup *s, uint64_t id, const struct job *j, unsigned stream)
{
	static char flat[LIMIT_JOB_OUTPUT];
	const struct job_stream *st = &j->out[stream];
	size_t len = st->total < LIMIT_JOB_OUTPUT ? (size_t)st->total : LIMIT_JOB_OUTPUT;
	size_t first = len < LIMIT_JOB_OUTPUT ? 0 : st->total % LIMIT_JOB_OUTPUT;
	for (size_t i = 0; i < len; i++)
		flat[i] = st->ring[(first + i) % LIMIT_JOB_OUTPUT];
	struct msg_job_output o = { .job = j->id,
		.stream = stream + 1,
		.total_bytes = st->total < UINT32_MAX ? (uint32_t)st->total : UINT32_MAX };
	helper_send(s, HELPER_WORKER, MSG_JOB_OUTPUT, id, &o, flat, len, NULL, 0);
}

void job_output_get(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_job_id *q = m->payload;
	struct job *j = find(&s->jobs, q->job);
	if (j == NULL) {
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "no job %llu",
			(unsigned long long)q->job);
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		job_drain(j, &j->out[i]);
	send_stream(s, m->id, j, 0);
	if ((j->flags & JOB_KEEP_STDOUT) != 0)
		send_stream(s, m->id, j, 1);
}

/* ---- end ---- */

static void term(struct job *j, int64_t now_ms)
{
	if (j->state != JOB_RUNNING)
		return;
	/* Its session's first group: a shell does not pass a signal on. Not reaped, so the number
	 * is its. */
	kill(-j->pid, SIGTERM);
	j->state = JOB_TERM_SENT;
	j->at_ms = now_ms;
	j->kill_at_ms = now_ms + j->grace_ms;
}

void job_cancel(struct sup *s, uint64_t id)
{
	struct job *j = find(&s->jobs, id);
	if (j == NULL || j->state != JOB_RUNNING)
		return;
	j->cancelled = true;
	log_info("job cancelled name=%s id=%llu", j->name, (unsigned long long)id);
	term(j, s->now_ms);
}

void jobs_cancel_all(struct sup *s)
{
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		struct job *j = &s->jobs.slot[i];
		if (j->grace_ms > CANCEL_ALL_MS)
			j->grace_ms = CANCEL_ALL_MS;
		job_cancel(s, j->id);
	}
}

void job_forget(struct sup *s, uint64_t id)
{
	struct job *j = find(&s->jobs, id);
	if (j != NULL && j->state == JOB_ENDED)
		free_slot(j);
}

/* All of it: what descends from the leader, and who holds its output (a process that was forked off
 * and has lost its parent still does, unless it went away on purpose). */
static void kill_tree(struct sup *s, const struct job *j)
{
	struct stat st;
	struct killtree_report report;
	struct killtree_target t = { .root = j->state == JOB_ENDED ? 0 : j->pid,
		.root_pidfd = -1,
		.uid = s->privs.uid,
		.gid = s->privs.gid,
		.any_holder = true,
		.as_user = s->privs.root };
	if (j->out[0].fd >= 0 && fstat(j->out[0].fd, &st) == 0) {
		t.life_dev = st.st_dev;
		t.life_ino = st.st_ino;
		t.any_holder = true;
	}
	killtree_run(s->scratch, &t, t.life_ino != 0, &report);
	log_warning("job killed name=%s id=%llu processes=%u", j->name, (unsigned long long)j->id,
		report.signalled);
}

void jobs_tick(struct sup *s, int64_t now_ms)
{
	if (s->jobs.idle)
		return;
	s->jobs.idle = true;
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		struct job *j = &s->jobs.slot[i];
		if ((j->state != JOB_FREE && j->state != JOB_ENDED) || j->out[0].fd >= 0 ||
			j->out[1].fd >= 0)
			s->jobs.idle = false;
		if (j->state == JOB_RUNNING && j->deadline_ms != 0 && now_ms >= j->deadline_ms) {
			j->timed_out = true;
			log_warning("job over its time name=%s id=%llu", j->name,
				(unsigned long long)j->id);
			term(j, now_ms);
		}
		if ((j->state == JOB_TERM_SENT || j->state == JOB_KILL_SENT) &&
			now_ms >= j->kill_at_ms) {
			kill_tree(s, j);
			j->state = JOB_KILL_SENT;
			j->kill_at_ms = now_ms + KILL_AGAIN_MS;
		}
	}
}

int64_t jobs_next_ms(const struct jobs *js)
{
	int64_t next = INT64_MAX;
	for (unsigned i = 0; !js->idle && i < LIMIT_JOBS; i++) {
		const struct job *j = &js->slot[i];
		int64_t at = INT64_MAX;
		if (j->state == JOB_RUNNING && j->deadline_ms != 0)
			at = j->deadline_ms;
		else if (j->state == JOB_TERM_SENT || j->state == JOB_KILL_SENT)
			at = j->kill_at_ms;
		next = at < next ? at : next;
	}
	return next;
}

bool jobs_reaped(struct sup *s, pid_t pid, int status, int64_t now_ms)
{
	for (unsigned i = 0; !s->jobs.idle && i < LIMIT_JOBS; i++) {
		struct job *j = &s->jobs.slot[i];
		if (j->state == JOB_FREE || j->state == JOB_ENDED || j->pid != pid)
			continue;
		for (unsigned k = 0; k < 2; k++)
			job_drain(j, &j->out[k]);
		bool forced = j->cancelled || j->timed_out;
		j->exit = exit_of_status(status);
		j->state = JOB_ENDED;
		if (forced)
			kill_tree(s, j);
		j->at_ms = now_ms;
		log_info("job ended name=%s id=%llu pid=%d %s=%d", j->name,
			(unsigned long long)j->id, pid, exit_class_name(j->exit.cls), j->exit.code);
		if (j->id == JOB_UPGRADE_CHECK) {
			ending_upgrade_checked(s, j);
			free_slot(j);
		} else {
			send_event(s, j);
		}
		return true;
	}
	return false;
}
