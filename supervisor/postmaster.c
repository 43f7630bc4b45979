/* The postmaster. Supervisor only. Whether PostgreSQL may run is guard_step's decision; here it is
 * carried out. Nothing waits: a start is a row of stages, a stop a row of signals with a time each.
 */
#include "supervisor/postmaster.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/adopt.h"
#include "supervisor/lifeline.h"
#include "supervisor/spawn.h"
#include "supervisor/sup.h"

#define ASK_EVERY_MS  2000  /* is there a postmaster that somebody else started? */
#define ASK_FIRST_MS  300   /* until the first answer */
#define HARDER_MAX_MS 10000 /* what a mode harder than the asked one gets at most */
#define CHILD_LINE_FD 3	    /* numbers of the postmaster's descriptors */

void postmaster_init(struct postmaster *pm)
{
	pm->pidfd = pm->gate_fd = pm->line_r = pm->line_w = -1;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- what the worker is told ---- */

void postmaster_tell(struct sup *s, bool always)
{
	struct postmaster *pm = &s->pm;
	const struct guard *g = &s->guard;
	if (!pm->known && pm->pid == 0 && !pm->unproven)
		return; /* "none" would be a guess */
	struct msg_pg_event e = { .generation = pm->generation,
		.at_ms = pm->told.at_ms,
		.started_at_ms = pm->started_at_ms,
		.pid = pm->pid,
		.state = g->pm_state,
		.kind = g->kind,
		.is_child = pm->is_child,
		.promote_sent = g->promote_sent,
		.exit_class = pm->exit.cls,
		.exit_code = pm->exit.code,
		.stop_mode = pm->stop_mode,
		.unproven = pm->unproven };
	memcpy(e.text, pm->text, sizeof(e.text));
	/* That there is none is news too: until now the worker did not know it. */
	bool changed = !pm->told_once || memcmp(&e, &pm->told, sizeof(e)) != 0;
	if (!changed && !always)
		return;
	if (changed)
		e.at_ms = s->now_ms;
	pm->told = e;
	pm->told_once = true;
	helper_send(s, HELPER_WORKER, MSG_PG_EVENT, 0, &e, NULL, 0, NULL, 0);
	sup_publish(s);
}

static void set_text(struct postmaster *pm, bool unproven, const char *text)
{
	if (unproven && !pm->unproven)
		log_error("postmaster.pid is not ours to judge: %s", text);
	pm->unproven = unproven;
	snprintf(pm->text, sizeof(pm->text), "%s", text);
}

/* ---- start ---- */

/* Not to a worker that did not ask: its own requests may have the same numbers. */
static void start_answer(struct sup *s, uint32_t code, const char *text)
{
	const struct start_request *r = &s->pm.start;
	if (s->helpers[HELPER_WORKER].incarnation == r->incarnation)
		helper_answer(s, HELPER_WORKER, r->id, code, "%s", text);
}

static void start_refuse(struct sup *s, uint32_t code, const char *why)
{
	struct start_request *r = &s->pm.start;
	log_warning("start of PostgreSQL refused: %s", why);
	start_answer(s, code, why);
	r->stage = START_IDLE;
}

static void forget_process(struct postmaster *pm)
{
	pm->pid = 0;
	close_fd(&pm->pidfd);
	close_fd(&pm->gate_fd);
	close_fd(&pm->line_r);
	close_fd(&pm->line_w);
	pm->line_armed = false;
	pm->harder_at_ms = 0;
}

static void ask_files(struct sup *s, enum msg_type type, const void *payload)
{
	s->pm.ask_id++;
	helper_send(s, HELPER_FILES, type, s->pm.ask_id, payload, NULL, 0, NULL, 0);
	s->pm.ask_at_ms = s->now_ms + (s->pm.known ? ASK_EVERY_MS : ASK_FIRST_MS);
}

static void ask_pmpid(struct sup *s)
{
	struct msg_pmpid_read q = { .locked_dev = s->data_dev, .locked_ino = s->data_ino };
	ask_files(s, MSG_PMPID_READ, &q);
}

/* The data directory was made, or made anew, since we locked it: files has locked this one for us.
 */
static void keep_data_lock(struct sup *s, struct ipc_msg *m)
{
	const struct msg_pmpid *f = m->payload;
	if (m->fd_count != 1)
		return;
	if (s->data_lock_fd >= 0)
		close(s->data_lock_fd);
	s->data_lock_fd = m->fds[0];
	m->fd_count = 0;
	s->data_dev = f->locked_dev;
	s->data_ino = f->locked_ino;
	log_info("data directory locked");
}

void postmaster_start(struct sup *s, const struct ipc_msg *m)
{
	struct start_request *r = &s->pm.start;
	const struct msg_pg_start *q = m->payload;
	unsigned count;
	if (!ipc_str_ok(q->cwd, sizeof(q->cwd)) || !ipc_tail_valid(m->tail, m->tail_len, &count)) {
		helper_kill(s, &s->helpers[HELPER_WORKER], "malformed PG_START");
		return;
	}
	if (r->stage != START_IDLE || s->guard.pm_state != PG_PROC_NONE ||
		s->end.phase >= END_POSTGRES) {
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%s",
			s->end.phase >= END_POSTGRES ? "we are ending" : "a postmaster exists");
		return;
	}
	r->id = m->id;
	r->incarnation = s->helpers[HELPER_WORKER].incarnation;
	r->q = *q;
	r->tail_len = m->tail_len;
	memcpy(r->tail, m->tail, m->tail_len);
	r->stage = START_READ_PID;
	ask_pmpid(s);
}

/* The postmaster's descriptors and lock, before its exec. */
static const char *prepare_postmaster(const void *arg)
{
	(void)arg;
	if (lifeline_own(CHILD_LINE_FD) < 0)
		return "lifeline owner";
	return lifeline_arm(CHILD_LINE_FD, true) < 0 ? "lifeline" : NULL;
}

/* A new open file description of the life file with a shared lock, for the postmaster and all that
 * it forks. */
static int open_life(const struct sup *s)
{
	char path[40];
	if (!str_format(path, sizeof(path), "/proc/self/fd/%d", s->life_fd))
		return -1;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static enum err_code fork_postmaster(struct sup *s, const struct args *a, struct err *err)
{
	struct postmaster *pm = &s->pm;
	const struct msg_pg_start *q = &pm->start.q;
	int gate[2], line[2];
	AUTO_FD life = open_life(s);
	if (life < 0)
		return err_set(err, ERR_SYS, errno, "life file");
	if (pipe2(gate, O_CLOEXEC) < 0)
		return err_set(err, ERR_SYS, errno, "gate pipe");
	AUTO_FD gate_r = gate[0];
	pm->gate_fd = gate[1];
	enum err_code rc = lifeline_open(line, err);
	if (rc != ERR_OK)
		return rc;
	pm->line_r = line[0];
	pm->line_w = line[1];
	struct spawn sp = { .argv = a->argv,
		.envp = a->envp,
		.cwd = q->cwd[0] != '\0' ? q->cwd : s->launch.data_dir,
		.fds = { -1, 1, 2, line[0], life },
		.fd_count = 5,
		.gate_fd = gate_r,
		.kind = PRIV_PLAIN,
		.umask = (mode_t)(q->umask & 0777),
		.after_user = prepare_postmaster };
	rc = spawn_child(&s->privs, &sp, &pm->pid, &pm->pidfd, err);
	pm->line_armed = true; /* by the child */
	return rc;
}

/* The lease stands, nothing else runs: fork, tell the dead-man, wait for its acknowledgement. */
static void start_fork(struct sup *s)
{
	static struct args args;
	struct postmaster *pm = &s->pm;
	struct start_request *r = &pm->start;
	struct err err = ERR_INIT;
	if (args_parse(&args, r->tail, r->tail_len, s->launch.env_pg, &err) != ERR_OK) {
		start_refuse(s, ANSWER_REFUSED, err.text);
		return;
	}
	struct guard_event ev = { .kind = GUARD_EV_START,
		.pm_kind = r->q.kind,
		.generation = pm->generation + 1,
		.lease_until_ms = r->q.lease_until_ms,
		.deadline_ms = r->q.deadline_ms };
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0) {
		start_refuse(s, ANSWER_REFUSED, a.reason);
		return;
	}
	pm->generation++;
	pm->is_child = true;
	pm->started_at_ms = s->now_ms;
	pm->stop_mode = 0;
	pm->exit = (struct exit_info){ 0 };
	r->hold_seq = a.hold_seq;
	r->stage = START_GATE;
	set_text(pm, false, "");
	if (fork_postmaster(s, &args, &err) != ERR_OK) {
		forget_process(pm);
		sup_guard(s, (struct guard_event){
				     .kind = GUARD_EV_EXIT, .generation = pm->generation });
		start_refuse(s, ANSWER_FAILED, err.text);
		return;
	}
	deadlink_postmaster_changed(s);
}

static void start_open_gate(struct sup *s)
{
	struct postmaster *pm = &s->pm;
	struct start_request *r = &pm->start;
	struct guard_event ev = { .kind = GUARD_EV_GATE,
		.generation = pm->generation,
		.lease_until_ms = r->q.lease_until_ms,
		.deadline_ms = r->q.deadline_ms };
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0 || write(pm->gate_fd, "", 1) != 1) {
		close_fd(&pm->gate_fd); /* the child ends; its exit is reported when it is reaped */
		start_refuse(s, ANSWER_REFUSED, a.reason);
		return;
	}
	close_fd(&pm->gate_fd);
	r->stage = START_IDLE;
	log_info("PostgreSQL started pid=%d generation=%llu kind=%s", pm->pid,
		(unsigned long long)pm->generation,
		r->q.kind == PG_START_PRIMARY ? "primary" : "standby");
	char text[32];
	snprintf(text, sizeof(text), "pid %d", pm->pid);
	start_answer(s, ANSWER_OK, text);
}

static void start_proceed(struct sup *s)
{
	struct start_request *r = &s->pm.start;
	/* A promote file made late by a frozen files process must not promote the next generation.
	 */
	r->stage = START_END_FILES;
	if (s->guard.promote_sent)
		helper_kill(s, &s->helpers[HELPER_FILES],
			"a promotion was ordered of the last postmaster");
	else
		start_fork(s);
}

static void start_tick(struct sup *s, int64_t now_ms)
{
	struct start_request *r = &s->pm.start;
	if (r->stage == START_IDLE)
		return;
	if (r->stage != START_GATE && s->end.phase >= END_POSTGRES)
		start_refuse(s, ANSWER_REFUSED, "we are ending");
	else if (r->stage == START_END_FILES && s->helpers[HELPER_FILES].state != HELPER_ENDING)
		start_fork(s);
	else if (r->stage == START_GATE && guard_synced(&s->guard, r->hold_seq) &&
		 deadlink_holds(s, s->pm.generation))
		start_open_gate(s);
	if (r->stage == START_IDLE || now_ms < r->q.deadline_ms)
		return;
	bool gate = r->stage == START_GATE;
	close_fd(&s->pm.gate_fd);
	start_refuse(s, ANSWER_TIMEOUT,
		gate ? "the dead-man did not acknowledge in time"
		     : "postmaster.pid was not read in time");
}

/* ---- adoption ---- */

static void adopt(struct sup *s, pid_t pid, int pidfd)
{
	struct postmaster *pm = &s->pm;
	struct guard_event ev = { .kind = GUARD_EV_ADOPT, .generation = pm->generation + 1 };
	if ((sup_guard(s, ev).flags & GUARD_REFUSED) != 0) {
		close(pidfd);
		return;
	}
	pm->generation++;
	pm->pid = pid;
	pm->pidfd = pidfd;
	pm->is_child = false;
	pm->started_at_ms = s->now_ms;
	pm->stop_mode = 0;
	pm->exit = (struct exit_info){ 0 };
	log_info("PostgreSQL adopted pid=%d generation=%llu", pid,
		(unsigned long long)pm->generation);
	deadlink_postmaster_changed(s);
}

void postmaster_pmpid(struct sup *s, struct ipc_msg *m)
{
	struct postmaster *pm = &s->pm;
	const struct msg_pmpid *f = m->payload;
	if (f->pid == INT32_MIN || !ipc_str_ok(f->data_dir, sizeof(f->data_dir))) {
		helper_kill(s, &s->helpers[HELPER_FILES], "malformed PMPID");
		return;
	}
	keep_data_lock(s, m);
	if (m->id != pm->ask_id || s->guard.pm_state != PG_PROC_NONE)
		return; /* an answer to an older question */
	bool starting = pm->start.stage == START_READ_PID;
	const char *why;
	int pidfd = -1;
	enum adopt_verdict v = adopt_prove(&s->privs, f, s->launch.data_real,
		sup_is_related(s, f->pid < 0 ? -f->pid : f->pid), &pidfd, &why);
	if (v == ADOPT_UNPROVEN) {
		char text[120];
		snprintf(text, sizeof(text), "process %d: %s", f->pid, why);
		set_text(pm, true, text);
		if (starting)
			start_refuse(s, ANSWER_REFUSED, text);
		return;
	}
	set_text(pm, false, "");
	pm->known = true;
	if (v == ADOPT_OURS) {
		adopt(s, f->pid, pidfd);
		if (starting)
			start_refuse(
				s, ANSWER_REFUSED, "a postmaster runs already and was adopted");
	} else if (starting && v == ADOPT_STALE) {
		struct msg_pmpid_remove rm = { .file_id = f->file_id, .pid = f->pid };
		log_warning("stale postmaster.pid pid=%d is removed", f->pid);
		pm->start.stage = START_REMOVE_PID;
		ask_files(s, MSG_PMPID_REMOVE, &rm);
	} else if (starting) {
		start_proceed(s);
	}
}

void postmaster_files_answer(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_answer *a = m->payload;
	char text[120];
	if (m->id != s->pm.ask_id || !ipc_str_ok(a->text, sizeof(a->text)))
		return;
	if (s->pm.start.stage == START_REMOVE_PID) {
		if (a->code == ANSWER_OK)
			start_proceed(s);
		else
			start_refuse(
				s, ANSWER_FAILED, "the stale postmaster.pid could not be removed");
	} else if (a->code != ANSWER_OK && s->guard.pm_state == PG_PROC_NONE) {
		snprintf(text, sizeof(text), "%s%.80s",
			a->code == ANSWER_REFUSED ? "" : "postmaster.pid cannot be read: ",
			a->text);
		set_text(&s->pm, true, text);
		if (s->pm.start.stage == START_READ_PID)
			start_refuse(s, ANSWER_REFUSED, text);
	}
}

/* While there is none: has somebody else started one? Not while jobs run: a bootstrap script may.
 */
static void ask_tick(struct sup *s, int64_t now_ms)
{
	struct postmaster *pm = &s->pm;
	if (s->guard.pm_state != PG_PROC_NONE || now_ms < pm->ask_at_ms)
		return;
	pm->ask_at_ms = now_ms + (pm->known ? ASK_EVERY_MS : ASK_FIRST_MS);
	/* During a start: files may have been restarted meanwhile. */
	if (pm->start.stage == START_READ_PID ||
		(pm->start.stage == START_IDLE && s->end.phase < END_HELPERS &&
			(!pm->known || jobs_running(&s->jobs) == 0)))
		ask_pmpid(s);
}

/* ---- signals and stops ---- */

static bool send_signal(const struct postmaster *pm, int signo)
{
	return pm->pidfd >= 0 && pidfd_send_signal(pm->pidfd, signo, NULL, 0) == 0;
}

/* Carry a stop mode out; guard_step has agreed. */
static void apply_stop(struct sup *s, uint32_t mode)
{
	static const int signals[] = {
		[PG_STOP_SMART] = SIGTERM, [PG_STOP_FAST] = SIGINT, [PG_STOP_IMMEDIATE] = SIGQUIT
	};
	static const char *const names[] = { "", "smart", "fast", "immediate", "kill" };
	struct postmaster *pm = &s->pm;
	if (pm->stop_mode == mode && pm->stop_timeout_ms > 0) /* asked again: with its new time */
		pm->harder_at_ms = s->now_ms + pm->stop_timeout_ms;
	if (pm->stop_mode >= mode)
		return; /* never softer than what was sent */
	log_info("PostgreSQL is stopped mode=%s pid=%d", names[mode], pm->pid);
	pm->stop_mode = mode;
	pm->harder_at_ms = pm->stop_timeout_ms > 0 ? s->now_ms + pm->stop_timeout_ms : 0;
	if (mode == PG_STOP_KILL)
		sup_guard(s, (struct guard_event){
				     .kind = GUARD_EV_FENCE_ORDER, .generation = pm->generation });
	else if (pm->gate_fd >= 0)
		close_fd(&pm->gate_fd); /* it has not begun: its gate never opens */
	else
		send_signal(pm, signals[mode]);
}

void postmaster_stop(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_pg_stop *q = m->payload;
	if (q->mode < PG_STOP_SMART || q->mode > PG_STOP_KILL || q->timeout_ms < 0 ||
		q->timeout_ms > GUARD_TIME_MAX_MS) {
		helper_kill(s, &s->helpers[HELPER_WORKER], "malformed PG_STOP");
		return;
	}
	struct guard_event ev = {
		.kind = GUARD_EV_STOP, .generation = q->generation, .deadline_ms = q->deadline_ms
	};
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0) {
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%s", a.reason);
		return;
	}
	s->pm.stop_timeout_ms = q->timeout_ms;
	apply_stop(s, q->mode);
	s->end.progress_ms = s->now_ms;
	helper_answer(s, HELPER_WORKER, m->id, ANSWER_OK, "%s", "");
}

void postmaster_stop_self(struct sup *s, uint32_t mode, int64_t timeout_ms, const char *why)
{
	struct guard_event ev = {
		.kind = GUARD_EV_STOP, .generation = s->pm.generation, .deadline_ms = INT64_MAX
	};
	/* A stop that was ordered with less patience keeps its time. */
	if (s->pm.stop_mode >= mode && s->pm.harder_at_ms != 0 &&
		s->pm.harder_at_ms < s->now_ms + timeout_ms)
		return;
	if ((sup_guard(s, ev).flags & GUARD_REFUSED) != 0)
		return;
	log_warning("PostgreSQL is stopped by the supervisor: %s", why);
	s->pm.stop_timeout_ms = timeout_ms;
	apply_stop(s, mode);
}

void postmaster_signal(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_pg_signal *q = m->payload;
	if (q->signo != SIGHUP && q->signo != SIGUSR1) {
		helper_kill(s, &s->helpers[HELPER_WORKER], "PG_SIGNAL that is not HUP or USR1");
		return;
	}
	struct guard_event ev = { .kind = GUARD_EV_SIGNAL,
		.generation = q->generation,
		.deadline_ms = q->deadline_ms,
		.lease_until_ms = q->lease_until_ms };
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0)
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%s", a.reason);
	else if (!send_signal(&s->pm, q->signo))
		helper_answer(
			s, HELPER_WORKER, m->id, ANSWER_FAILED, "signal: %s", strerror(errno));
	else
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_OK, "%s", "");
}

/* ---- fence and end ---- */

static void fence_report(struct sup *s, enum fence_phase phase)
{
	struct postmaster *pm = &s->pm;
	struct guard_event ev = { .generation = pm->fence.generation };
	if (phase >= FENCE_KILLED && !s->guard.killed) {
		ev.kind = GUARD_EV_KILLED;
		sup_guard(s, ev);
	}
	if (phase == FENCE_PROVEN) {
		ev.kind = GUARD_EV_PROVEN;
		sup_guard(s, ev);
		fence_done(&pm->fence);
		pm->ask_at_ms = s->now_ms + ASK_EVERY_MS;
		if (pm->pid == 0)
			deadlink_postmaster_changed(s);
	}
}

void postmaster_begin_fence(struct sup *s, bool fence, const char *why)
{
	struct postmaster *pm = &s->pm;
	struct killtree_target t = { .root = pm->pid,
		.root_pidfd = pm->pidfd,
		.uid = s->privs.uid,
		.gid = s->privs.gid,
		.as_user = s->privs.root,
		.life_dev = s->life_dev,
		.life_ino = s->life_ino };
	if (fence) {
		log_error("FENCE generation=%llu pid=%d: %s", (unsigned long long)pm->generation,
			pm->pid, why);
		pm->exit = (struct exit_info){ .cls = EXIT_CLASS_FENCED };
		pm->fences++;
	}
	pm->fence.spare[0] = s->dm.pid;
	pm->fence.spare[1] = s->dm.old_pid;
	fence_start(&pm->fence, &t, pm->generation, s->life_fd, why, s->now_ms);
	fence_report(s, pm->fence.phase);
}

static void ended(struct sup *s, struct exit_info e)
{
	struct postmaster *pm = &s->pm;
	if (s->guard.peer_fencing)
		e.cls = EXIT_CLASS_FENCED; /* by the dead-man */
	if (pm->exit.cls != EXIT_CLASS_FENCED)
		pm->exit = e;
	log_info("PostgreSQL ended pid=%d generation=%llu %s=%d", pm->pid,
		(unsigned long long)pm->generation, exit_class_name(pm->exit.cls), pm->exit.code);
	if (pm->start.stage == START_GATE)
		start_refuse(s, ANSWER_FAILED, "the postmaster ended before it began");
	fence_root_gone(&pm->fence);
	forget_process(pm);
	sup_guard(s, (struct guard_event){ .kind = GUARD_EV_EXIT, .generation = pm->generation });
	if (s->guard.pm_state == PG_PROC_NONE)
		deadlink_postmaster_changed(s);
}

bool postmaster_reaped(struct sup *s, pid_t pid, int status)
{
	if (s->pm.pid != pid || !s->pm.is_child)
		return false;
	ended(s, exit_of_status(status));
	return true;
}

void postmaster_pidfd_ready(struct sup *s)
{
	/* A child's end comes with its status, from the reaper. */
	if (s->pm.pid != 0 && !s->pm.is_child)
		ended(s, (struct exit_info){ .cls = EXIT_CLASS_UNKNOWN });
}

/* ---- time and levels ---- */

void postmaster_level(struct sup *s, const struct guard_actions *a)
{
	struct postmaster *pm = &s->pm;
	if (pm->line_r < 0 || pm->line_armed == a->lifeline_armed)
		return;
	if (lifeline_arm(pm->line_r, a->lifeline_armed) < 0)
		log_error("lifeline not changed: %s", strerror(errno));
	else
		pm->line_armed = a->lifeline_armed;
}

void postmaster_release(struct sup *s)
{
	struct postmaster *pm = &s->pm;
	if (pm->line_r >= 0 && lifeline_arm(pm->line_r, false) < 0)
		log_error("lifeline not disarmed: %s", strerror(errno));
	pm->line_armed = false;
	log_info("PostgreSQL is left running pid=%d", pm->pid);
}

void postmaster_tick(struct sup *s, int64_t now_ms)
{
	struct postmaster *pm = &s->pm;
	start_tick(s, now_ms);
	ask_tick(s, now_ms);
	if (pm->pid != 0 && pm->harder_at_ms != 0 && now_ms >= pm->harder_at_ms &&
		pm->stop_mode < PG_STOP_KILL) {
		if (pm->stop_timeout_ms > HARDER_MAX_MS)
			pm->stop_timeout_ms = HARDER_MAX_MS;
		apply_stop(s, pm->stop_mode + 1);
	}
	if (pm->fence.phase != FENCE_IDLE && pm->fence.next_ms != 0 && now_ms >= pm->fence.next_ms)
		fence_report(s, fence_step(&pm->fence, now_ms));
}

int64_t postmaster_next_ms(const struct sup *s)
{
	const struct postmaster *pm = &s->pm;
	int64_t next = INT64_MAX;
	const int64_t at[] = {
		s->guard.pm_state == PG_PROC_NONE ? pm->ask_at_ms : 0,
		pm->start.stage != START_IDLE ? pm->start.q.deadline_ms : 0,
		pm->pid != 0 && pm->stop_mode < PG_STOP_KILL ? pm->harder_at_ms : 0,
		pm->fence.phase != FENCE_IDLE ? pm->fence.next_ms : 0,
	};
	for (unsigned i = 0; i < ARRAY_LEN(at); i++)
		next = at[i] != 0 && at[i] < next ? at[i] : next;
	return next;
}
