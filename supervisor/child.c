/* The table of helpers. Supervisor only. A helper may die or hang at any instant: it is killed and
 * started again for ever, and nothing that matters is lost with it. */
#include "supervisor/child.h"
#include "supervisor/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/spawn.h"
#include "supervisor/sup.h"

#define START_MS 2000 /* exec to READY; doubled with each failed start up to START_MAX_MS */
#define START_MAX_MS                                                                               \
	16000		     /* a node so busy that two seconds are too few must not loop for ever \
			      */
#define CALM_MS	       10000 /* a run of that length forgets earlier failures */
#define BACKOFF_MS     125   /* second start after that, doubled up to BACKOFF_MAX_MS */
#define BACKOFF_MAX_MS 1000
#define LOG_EVERY      60 /* after the first few restarts in a row, log one in that many */

struct exit_info exit_of_status(int status)
{
	if (WIFSIGNALED(status))
		return (struct exit_info){ EXIT_CLASS_SIGNAL, WTERMSIG(status) };
	return (struct exit_info){ EXIT_CLASS_CODE, WEXITSTATUS(status) };
}

const char *exit_class_name(uint32_t cls)
{
	static const char *const names[] = { "none", "status", "signal", "unknown", "fenced" };
	return cls < ARRAY_LEN(names) ? names[cls] : "?";
}

void helpers_init(struct sup *s)
{
	static const enum ipc_role roles[HELPER_COUNT] = { ROLE_WORKER, ROLE_FILES, ROLE_API };
	for (unsigned i = 0; i < HELPER_COUNT; i++)
		s->helpers[i] = (struct helper){ .role = roles[i], .fd = -1, .next_start_ms = 1 };
}

static void set_state(struct helper *h, enum helper_state state, int64_t now_ms)
{
	h->state = state;
	h->since_ms = now_ms;
}

bool sup_is_related(const struct sup *s, pid_t pid)
{
	bool related = pid == getpid() || pid == getppid() || pid == s->dm.pid;
	for (unsigned i = 0; i < HELPER_COUNT; i++)
		related = related || s->helpers[i].pid == pid;
	for (unsigned i = 0; i < LIMIT_JOBS; i++)
		related = related ||
			  (s->jobs.slot[i].state != JOB_FREE &&
				  s->jobs.slot[i].state != JOB_ENDED && s->jobs.slot[i].pid == pid);
	return related;
}

/* ---- start ---- */

/* Two workers must never act at once: the lock goes with the process, through exec, until its end.
 * It is a record lock because F_GETLK names its holder, so that a left-over of a dead supervisor
 * can be killed. */
#define WORKER_LOCK_FD 4

static const char *take_worker_lock(const void *arg)
{
	(void)arg;
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int rc;
	do
		rc = fcntl(WORKER_LOCK_FD, F_SETLKW, &fl);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? "worker lock" : NULL;
}

static void kill_old_worker(struct sup *s)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	if (fcntl(s->worker_lock_fd, F_GETLK, &fl) < 0 || fl.l_type == F_UNLCK || fl.l_pid <= 0)
		return;
	/* It belonged to a supervisor that is gone. The holder is a worker that runs: no other
	 * number can have come in between, as the lock ends with the process. */
	log_warning("worker of an earlier supervisor still runs, killed pid=%d", fl.l_pid);
	kill(fl.l_pid, SIGKILL);
}

static void helper_start(struct sup *s, struct helper *h, int64_t now_ms)
{
	char path[LIMIT_PATH];
	struct err err = ERR_INIT;
	int pair[2] = { -1, -1 };
	bool worker = h->role == ROLE_WORKER;
	const char *name = ipc_role_name(h->role);
	enum err_code rc =
		launch_program(&s->launch, name, path, sizeof(path)) ? ERR_OK : ERR_LIMIT;
	if (rc == ERR_OK)
		rc = ipc_pair(pair, &err);
	if (rc == ERR_OK) {
		char *argv[] = { path, worker ? (char *)s->launch.config : NULL, NULL };
		if (worker)
			kill_old_worker(s);
		struct spawn sp = { .path = path,
			.argv = argv,
			.envp = worker ? s->launch.env_worker : s->launch.env_plain,
			.fds = { -1, 1, 2, pair[1], s->worker_lock_fd },
			.fd_count = worker ? 5 : 4,
			.gate_fd = -1,
			.kind = PRIV_HELPER,
			.umask = s->privs.umask,
			.after_user = worker ? take_worker_lock : NULL };
		rc = spawn_child(&s->privs, &sp, &h->pid, NULL, &err);
		close(pair[1]);
	}
	if (rc != ERR_OK) {
		if (pair[0] >= 0)
			close(pair[0]);
		log_error("%s not started: %s", name, err.text);
		h->failures++;
		h->next_start_ms = now_ms + BACKOFF_MAX_MS;
		return;
	}
	h->fd = pair[0];
	h->greeted = false;
	h->incarnation++;
	h->seen_ms = now_ms;
	set_state(h, HELPER_STARTING, now_ms);
	sup_publish(s);
	if (h->failures < 3 || h->failures % LOG_EVERY == 0)
		log_info("%s started pid=%d incarnation=%llu", name, h->pid,
			(unsigned long long)h->incarnation);
}

/* ---- end ---- */

static void drop_socket(struct helper *h)
{
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
	h->greeted = false;
}

void helper_kill(struct sup *s, struct helper *h, const char *why)
{
	if (h->state == HELPER_DOWN || h->state == HELPER_ENDING)
		return;
	log_warning("%s killed pid=%d: %s", ipc_role_name(h->role), h->pid, why);
	drop_socket(h);
	kill(h->pid, SIGKILL);
	set_state(h, HELPER_ENDING, s->now_ms);
}

bool helpers_reaped(struct sup *s, pid_t pid, int status, int64_t now_ms)
{
	struct helper *h = NULL;
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		if (s->helpers[i].state != HELPER_DOWN && s->helpers[i].pid == pid)
			h = &s->helpers[i];
	}
	if (h == NULL)
		return false;
	drop_socket(h);
	h->failures++;
	unsigned shift = h->failures < 2 ? 0 : h->failures - 2;
	int64_t wait_ms = h->failures < 2 ? 0 : BACKOFF_MS << (shift < 4 ? shift : 4);
	h->next_start_ms = now_ms + (wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS);
	h->restarts++;
	h->pid = 0;
	set_state(h, HELPER_DOWN, now_ms);
	struct exit_info e = exit_of_status(status);
	if (s->end.phase < END_HELPERS && (h->failures < 3 || h->failures % LOG_EVERY == 0))
		log_warning("%s ended pid=%d %s=%d failures=%u restart_in_ms=%lld",
			ipc_role_name(h->role), pid, exit_class_name(e.cls), e.code, h->failures,
			(long long)(h->next_start_ms - now_ms));
	sup_publish(s);
	return true;
}

void helper_seen(struct helper *h, int64_t at_ms)
{
	if (at_ms > h->seen_ms)
		h->seen_ms = at_ms;
	if (h->state == HELPER_READY && at_ms - h->since_ms > CALM_MS)
		h->failures = 0;
}

void helpers_late(struct sup *s, int64_t late_ms)
{
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		struct helper *h = &s->helpers[i];
		h->seen_ms += late_ms;
		if (h->state == HELPER_STARTING)
			h->since_ms += late_ms;
	}
}

/* files answers only while there is no postmaster, api nothing at all. */
bool helper_quiet(const struct sup *s, const struct helper *h)
{
	return h->role != ROLE_WORKER && h->state == HELPER_READY &&
	       s->guard.pm_state == PG_PROC_RUNNING;
}

void helper_ready(struct helper *h, int64_t now_ms)
{
	if (h->state == HELPER_STARTING)
		set_state(h, HELPER_READY, now_ms);
}

bool helpers_end(struct sup *s, int64_t until_ms, int64_t now_ms)
{
	bool gone = true;
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		struct helper *h = &s->helpers[i];
		if (h->state == HELPER_DOWN)
			continue;
		gone = false;
		if (h->state != HELPER_ENDING) {
			kill(h->pid, SIGTERM);
			set_state(h, HELPER_ENDING, now_ms);
		} else if (now_ms >= until_ms) {
			kill(h->pid, SIGKILL);
		}
	}
	return gone;
}

/* ---- time ---- */

static int64_t silent_at_ms(const struct sup *s, const struct helper *h)
{
	int64_t ttl_ms = s->guard.ttl_ms > 0 ? s->guard.ttl_ms : GUARD_TTL_DEFAULT_MS;
	return h->seen_ms + ttl_ms / 6;
}

static int64_t start_until_ms(const struct helper *h)
{
	int64_t bound = START_MS << (h->failures < 3 ? h->failures : 3);
	return h->since_ms + (bound < START_MAX_MS ? bound : START_MAX_MS);
}

/* They say that they live as often as the ttl asks for: a shorter one is told at once, and counts
 * from now on. */
static void tell_ttl(struct sup *s, int64_t now_ms)
{
	struct msg_ping ping = { .sent_at_ms = now_ms };
	if (s->told_ttl_ms == s->guard.ttl_ms)
		return;
	s->told_ttl_ms = s->guard.ttl_ms;
	sup_publish(s);
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		s->helpers[i].seen_ms = now_ms;
		helper_send(s, i, MSG_PING, 0, &ping, NULL, 0, NULL, 0);
	}
}

void helpers_tick(struct sup *s, int64_t now_ms)
{
	if (s->end.phase >= END_HELPERS)
		return;
	tell_ttl(s, now_ms);
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		struct helper *h = &s->helpers[i];
		if (h->state == HELPER_STARTING && now_ms >= start_until_ms(h))
			helper_kill(s, h, "not ready in time");
		else if (h->state == HELPER_READY && now_ms >= silent_at_ms(s, h))
			helper_kill(s, h, "silent");
		else if (h->state == HELPER_DOWN && now_ms >= h->next_start_ms &&
			 s->end.phase < END_POSTGRES)
			helper_start(s, h, now_ms);
	}
}

int64_t helpers_next_ms(const struct sup *s)
{
	int64_t next = INT64_MAX;
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		const struct helper *h = &s->helpers[i];
		int64_t at = INT64_MAX;
		if (h->state == HELPER_STARTING)
			at = start_until_ms(h);
		else if (h->state == HELPER_READY)
			at = silent_at_ms(s, h);
		else if (h->state == HELPER_DOWN && s->end.phase < END_POSTGRES)
			at = h->next_start_ms;
		next = at < next ? at : next;
	}
	return s->end.phase >= END_HELPERS ? INT64_MAX : next;
}

/* ---- messages ---- */

void helper_send(struct sup *s, enum helper_index to, enum msg_type type, uint64_t id,
	const void *payload, const void *tail, size_t tail_len, const int *fds, int fd_count)
{
	struct helper *h = &s->helpers[to];
	struct err err = ERR_INIT;
	if (!h->greeted)
		return;
	enum err_code rc = ipc_send(h->fd, type, id, payload, tail, tail_len, fds, fd_count, &err);
	if (rc == ERR_CLOSED)
		drop_socket(h); /* it is ending; the reaper tells more */
	else if (rc != ERR_OK)
		helper_kill(s, h, err.text);
}

void helper_answer(
	struct sup *s, enum helper_index to, uint64_t id, uint32_t code, const char *fmt, ...)
{
	struct msg_answer a = { .code = code };
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(a.text, sizeof(a.text), fmt, ap);
	va_end(ap);
	helper_send(s, to, MSG_ANSWER, id, &a, NULL, 0, NULL, 0);
}

/* A new pair of sockets between two processes, one end to each. */
static void connect_helpers(struct sup *s, unsigned a, unsigned b)
{
	int pair[2];
	struct err err = ERR_INIT;
	if (!s->helpers[a].greeted || !s->helpers[b].greeted)
		return;
	if (ipc_pair(pair, &err) != ERR_OK) {
		log_error("%s and %s not connected: %s", ipc_role_name(s->helpers[a].role),
			ipc_role_name(s->helpers[b].role), err.text);
		return;
	}
	struct msg_peer to_a = { .role = s->helpers[b].role,
		.incarnation = s->helpers[b].incarnation };
	struct msg_peer to_b = { .role = s->helpers[a].role,
		.incarnation = s->helpers[a].incarnation };
	helper_send(s, a, MSG_PEER, 0, &to_a, NULL, 0, &pair[0], 1);
	helper_send(s, b, MSG_PEER, 0, &to_b, NULL, 0, &pair[1], 1);
	close(pair[0]);
	close(pair[1]);
}

void helper_welcome(struct sup *s, struct helper *h, int64_t now_ms)
{
	unsigned index = (unsigned)(h - s->helpers);
	struct msg_welcome w = { .now_ms = now_ms,
		.incarnation = h->incarnation,
		.lease_seq = s->guard.lease_seq,
		.lease_until_ms = s->guard.lease_until_ms,
		.policy = s->guard.policy,
		.adopted = s->pm.pid != 0 && !s->pm.is_child,
		.in_handover = s->inherited,
		.is_pid1 = getpid() == 1,
		.started_ms = s->started_ms,
		.upgrade = handover_upgrade_end() };
	if (!str_copy(w.data_dir, sizeof(w.data_dir), s->launch.data_dir) ||
		!str_copy(w.runtime_dir, sizeof(w.runtime_dir), s->launch.runtime_dir) ||
		!str_copy(w.scope, sizeof(w.scope), s->launch.scope) ||
		!str_copy(w.name, sizeof(w.name), s->launch.name))
		return; /* checked at the start */
	h->greeted = true;
	/* Before WELCOME, which begins its duty: it must never know of us without the dead-man. The
	 * worker, which does nothing before it has met a dead-man, takes nothing before WELCOME. */
	if (index != HELPER_WORKER)
		deadlink_connect_helper(s, index);
	helper_send(s, index, MSG_WELCOME, 0, &w, NULL, 0, NULL, 0);
	if (s->log_fd >= 0 && index != HELPER_WORKER)
		helper_send(s, index, MSG_LOG, 0, NULL, NULL, 0, &s->log_fd, 1);
	for (unsigned i = 0; i < PAGE_COUNT; i++) {
		const struct page *p = &s->pages[i];
		struct msg_page m = { .role = p->role, .incarnation = p->incarnation };
		/* A worker also reads what its predecessor published last. */
		if (p->fd >= 0 && (p->role != h->role || index == HELPER_WORKER))
			helper_send(s, index, MSG_PAGE, 0, &m, NULL, 0, &p->fd, 1);
	}
	if (index == HELPER_WORKER) {
		deadlink_connect_helper(s, HELPER_WORKER);
		connect_helpers(s, HELPER_WORKER, HELPER_FILES);
		connect_helpers(s, HELPER_WORKER, HELPER_API);
	} else {
		connect_helpers(s, HELPER_WORKER, index);
	}
}
