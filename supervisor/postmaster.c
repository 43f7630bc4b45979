/* The postmaster. Supervisor only. Whether PostgreSQL may run is guard_step's decision; here it is
 * carried out: signals and stops, the fence, the end. Nothing waits: a stop is a row of signals
 * with a time each. The start is pm_start.c's. */
#include "supervisor/postmaster.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>

#include "common/core/buf.h"
#include "common/core/log.h"
#include "supervisor/lifeline.h"
#include "supervisor/pm_start.h"
#include "supervisor/sup.h"

#define HARDER_MAX_MS 10000 /* what a mode harder than the asked one gets at most */

void postmaster_init(struct postmaster *pm)
{
	pm->pidfd = pm->gate_fd = pm->line_r = pm->line_w = -1;
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

void postmaster_forget(struct postmaster *pm)
{
	pm->pid = 0;
	fd_close(&pm->pidfd);
	fd_close(&pm->gate_fd);
	fd_close(&pm->line_r);
	fd_close(&pm->line_w);
	pm->harder_at_ms = 0;
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
		fd_close(&pm->gate_fd); /* it has not begun: its gate never opens */
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
	if (!fence && *why == '\0')
		why = "the postmaster has ended";
	struct killtree_target t = { .root = pm->pid,
		.root_pidfd = pm->pidfd,
		.uid = s->privs.uid,
		.gid = s->privs.gid,
		.as_user = s->privs.root,
		.data_dir = pm->foreign ? s->launch.data_real : NULL,
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
		pm_start_refuse(s, ANSWER_FAILED, "the postmaster ended before it began");
	fence_root_gone(&pm->fence);
	postmaster_forget(pm);
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

/* Each time, not only when it changes: the pipe is shared with dead-men, and one that a supervisor
 * before us left behind may have set it to what that one knew. */
void postmaster_level(struct sup *s, const struct guard_actions *a)
{
	struct postmaster *pm = &s->pm;
	if (pm->line_r >= 0 && lifeline_arm(pm->line_r, a->lifeline_armed) < 0)
		log_error("lifeline not changed: %s", strerror(errno));
}

void postmaster_release(struct sup *s)
{
	struct postmaster *pm = &s->pm;
	if (pm->line_r >= 0 && lifeline_arm(pm->line_r, false) < 0)
		log_error("lifeline not disarmed: %s", strerror(errno));
	log_info("PostgreSQL is left running pid=%d", pm->pid);
}

void postmaster_tick(struct sup *s, int64_t now_ms)
{
	struct postmaster *pm = &s->pm;
	pm_start_tick(s, now_ms);
	pm_ask_tick(s, now_ms);
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
