/* From postmaster.pid to a postmaster of ours: a start, which is a row of stages behind a gate, and
 * the adoption of one that runs already. Supervisor only. Nothing waits. */
#include "supervisor/pm_start.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/adopt.h"
#include "supervisor/lifeline.h"
#include "supervisor/spawn.h"
#include "supervisor/sup.h"

#define ASK_FIRST_MS  300 /* until the first answer */
#define CHILD_LINE_FD 3	  /* numbers of the postmaster's descriptors */
#define CHILD_LIFE_FD 4
#define LIFE_TRIES    2000 /* of a millisecond each */

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

void pm_start_refuse(struct sup *s, uint32_t code, const char *why)
{
	struct start_request *r = &s->pm.start;
	log_warning("start of PostgreSQL refused: %s", why);
	start_answer(s, code, why);
	r->stage = START_IDLE;
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
	s->pm.asked_ino = s->data_ino;
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

/* The shared lock, when the gate is open and not before: a dead-man that was slow to see the end of
 * the postmaster before this one takes every holder of the lock for what that one left, and kills
 * it. It opens the gate only when it knows of us. Its own try at the lock is over in an instant. */
static const char *lock_life(const void *arg)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	(void)arg;
	for (int i = 0; i < LIFE_TRIES; i++) {
		if (flock(CHILD_LIFE_FD, LOCK_SH | LOCK_NB) == 0)
			return NULL;
		if (errno != EWOULDBLOCK && errno != EINTR)
			break;
		nanosleep(&pause, NULL);
	}
	return "life file";
}

/* A new open file description of the life file, for the postmaster and all that it forks. */
static int open_life(const struct sup *s)
{
	char path[40];
	if (!str_format(path, sizeof(path), "/proc/self/fd/%d", s->life_fd))
		return -1;
	return open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
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
		.after_user = prepare_postmaster,
		.after_gate = lock_life };
	rc = spawn_child(&s->privs, &sp, &pm->pid, &pm->pidfd, err);
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
		pm_start_refuse(s, ANSWER_REFUSED, err.text);
		return;
	}
	struct guard_event ev = { .kind = GUARD_EV_START,
		.pm_kind = r->q.kind,
		.generation = pm->generation + 1,
		.lease_until_ms = r->q.lease_until_ms,
		.deadline_ms = r->q.deadline_ms };
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0) {
		pm_start_refuse(s, ANSWER_REFUSED, a.reason);
		return;
	}
	pm->generation++;
	pm->is_child = true;
	pm->foreign = false;
	pm->started_at_ms = s->now_ms;
	pm->stop_mode = 0;
	pm->exit = (struct exit_info){ 0 };
	r->hold_seq = a.hold_seq;
	r->stage = START_GATE;
	set_text(pm, false, "");
	if (fork_postmaster(s, &args, &err) != ERR_OK) {
		postmaster_forget(pm);
		sup_guard(s, (struct guard_event){
				     .kind = GUARD_EV_EXIT, .generation = pm->generation });
		pm_start_refuse(s, ANSWER_FAILED, err.text);
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
		fd_close(&pm->gate_fd); /* the child ends; its exit is reported when it is reaped */
		pm_start_refuse(s, ANSWER_REFUSED, a.reason);
		return;
	}
	fd_close(&pm->gate_fd);
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

void pm_start_tick(struct sup *s, int64_t now_ms)
{
	struct start_request *r = &s->pm.start;
	if (r->stage == START_IDLE)
		return;
	if (r->stage != START_GATE && s->end.phase >= END_POSTGRES)
		pm_start_refuse(s, ANSWER_REFUSED, "we are ending");
	else if (r->stage == START_END_FILES && s->helpers[HELPER_FILES].state != HELPER_ENDING)
		start_fork(s);
	else if (r->stage == START_GATE && guard_synced(&s->guard, r->hold_seq) &&
		 deadlink_holds(s, s->pm.generation))
		start_open_gate(s);
	if (r->stage == START_IDLE || now_ms < r->q.deadline_ms)
		return;
	bool gate = r->stage == START_GATE;
	fd_close(&s->pm.gate_fd);
	pm_start_refuse(s, ANSWER_TIMEOUT,
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
	pm->foreign = true;
	pm->started_at_ms = s->now_ms;
	pm->stop_mode = 0;
	pm->exit = (struct exit_info){ 0 };
	log_info("PostgreSQL adopted pid=%d generation=%llu", pid,
		(unsigned long long)pm->generation);
	deadlink_postmaster_changed(s);
}

/* No postmaster, and yet its life file is held: backends of one that was killed together with both
 * enforcers and all helpers that would have noticed. A client that never waits keeps such a one
 * alive, and nobody but us enforces anything on it. Taken for a generation that has just ended. */
static bool sweep_leftover(struct sup *s)
{
	if (fence_life_is_free(s->life_fd))
		return false;
	struct guard_event ev = { .kind = GUARD_EV_ADOPT, .generation = s->pm.generation + 1 };
	if ((sup_guard(s, ev).flags & GUARD_REFUSED) != 0)
		return false;
	log_warning("there is no postmaster, but what one left behind: it is killed");
	s->pm.generation++;
	s->pm.is_child = s->pm.foreign = false;
	s->pm.exit = (struct exit_info){ .cls = EXIT_CLASS_UNKNOWN };
	ev.kind = GUARD_EV_EXIT;
	sup_guard(s, ev);
	deadlink_postmaster_changed(s);
	return true;
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
			pm_start_refuse(s, ANSWER_REFUSED, text);
		return;
	}
	set_text(pm, false, "");
	bool first = !pm->known && jobs_running(&s->jobs) == 0;
	pm->known = true;
	if (v == ADOPT_OURS) {
		adopt(s, f->pid, pidfd);
		if (starting)
			pm_start_refuse(
				s, ANSWER_REFUSED, "a postmaster runs already and was adopted");
	} else if (sweep_leftover(s)) {
		if (starting)
			pm_start_refuse(s, ANSWER_REFUSED,
				"backends of a postmaster that has ended are being killed");
	} else if ((starting || first) && v == ADOPT_STALE) {
		/* The first time also without a start: whatever runs on the directory before it
		 * (single-user recovery, pg_rewind) takes a number that is in use again for a
		 * postmaster. */
		struct msg_pmpid_remove rm = { .file_id = f->file_id, .pid = f->pid };
		log_warning("stale postmaster.pid pid=%d is removed", f->pid);
		if (starting)
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
			pm_start_refuse(
				s, ANSWER_FAILED, "the stale postmaster.pid could not be removed");
	} else if (a->code == ANSWER_REFUSED && s->pm.asked_ino != s->data_ino) {
		/* The lock that stood in its way was ours: it was on its way to us, with the answer
		 * to the question before this one. */
		ask_pmpid(s);
	} else if (a->code != ANSWER_OK && s->guard.pm_state == PG_PROC_NONE) {
		snprintf(text, sizeof(text), "%s%.80s",
			a->code == ANSWER_REFUSED ? "" : "postmaster.pid: ", a->text);
		set_text(&s->pm, true, text);
		if (s->pm.start.stage == START_READ_PID)
			pm_start_refuse(s, ANSWER_REFUSED, text);
	}
}

/* While there is none: has somebody else started one? Not while jobs run: a bootstrap script may.
 */
void pm_ask_tick(struct sup *s, int64_t now_ms)
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
