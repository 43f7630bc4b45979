/* How the supervisor ends. Supervisor only. See ending.h. */
#include "supervisor/ending.h"

#include <signal.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/sup.h"

#define WORKER_MS   30000 /* without progress: no stop ordered, no job running, nothing said */
#define WORKER_DIES 3	  /* workers that may die while they shut down */
#define STOP_MS	    60000 /* our own fast stop; then immediate, then the fence */
#define HELPERS_MS  3000  /* SIGTERM to SIGKILL of helpers */

static void send_order(struct sup *s, uint32_t kind)
{
	struct msg_order o = { .kind = kind, .deadline_ms = s->now_ms + WORKER_MS };
	helper_send(s, HELPER_WORKER, MSG_ORDER, 0, &o, NULL, 0, NULL, 0);
}

void ending_reload(struct sup *s)
{
	log_info("reload: passed on to the worker");
	if (s->end.phase == END_NO)
		send_order(s, ORDER_RELOAD);
}

void ending_begin(struct sup *s, const char *why)
{
	if (s->end.phase != END_NO) {
		log_info("%s: already shutting down", why);
		return;
	}
	log_info("shutdown: %s", why);
	notify_send(&s->notify, "STOPPING=1");
	s->end.phase = END_ORDERED;
	s->end.progress_ms = s->now_ms;
	s->end.worker_restarts = s->helpers[HELPER_WORKER].restarts;
	if (s->helpers[HELPER_WORKER].state == HELPER_READY)
		ending_tell_worker(s);
	sup_publish(s);
}

void ending_tell_worker(struct sup *s)
{
	if (s->end.phase == END_ORDERED)
		send_order(s, ORDER_SHUTDOWN);
}

void ending_progress(struct sup *s)
{
	s->end.progress_ms = s->now_ms;
}

static void stop_postgres(struct sup *s, const char *why)
{
	s->end.phase = END_POSTGRES;
	jobs_cancel_all(s);
	if (s->guard.pm_state != PG_PROC_NONE && !s->end.leave_postgres)
		postmaster_stop_self(s, PG_STOP_FAST, STOP_MS, why);
}

void ending_worker_done(struct sup *s, const struct msg_shutdown_done *m)
{
	if (s->end.phase > END_ORDERED)
		return;
	log_info("worker is done leave_postgres=%u exit_code=%u", m->leave_postgres, m->exit_code);
	if (s->end.phase == END_NO)
		notify_send(&s->notify, "STOPPING=1");
	s->end.exit_code = m->exit_code <= 255 ? (int)m->exit_code : 1;
	/* Left alone only where nobody would miss an enforcer: in pause, or a standby. */
	bool harmless = s->want.fence_at_ms == INT64_MAX || s->guard.policy == POLICY_PAUSED ||
			(s->guard.kind == PG_START_STANDBY && !s->guard.promote_sent);
	if (m->leave_postgres != 0 && !harmless)
		log_warning("PostgreSQL is not left running: it may write and nobody would enforce "
			    "the lease");
	s->end.leave_postgres = m->leave_postgres != 0 && harmless;
	stop_postgres(s, "the worker has ended without stopping it");
}

/* The worker is at it while it has ordered a stop, or runs a job (before_stop), or has said
 * something lately. */
static bool worker_gave_up(const struct sup *s, int64_t now_ms)
{
	if (s->helpers[HELPER_WORKER].restarts - s->end.worker_restarts >= WORKER_DIES)
		return true;
	bool busy = s->guard.pm_state == PG_PROC_STOPPING || jobs_running(&s->jobs) > 0;
	return !busy && now_ms >= s->end.progress_ms + WORKER_MS;
}

static void end_helpers(struct sup *s, int64_t now_ms)
{
	s->end.phase = END_HELPERS;
	s->end.until_ms = now_ms + HELPERS_MS;
}

void ending_tick(struct sup *s, int64_t now_ms)
{
	if (s->end.phase == END_ORDERED && worker_gave_up(s, now_ms))
		stop_postgres(s, "the worker does not carry out the shutdown");
	if (s->guard.pm_state == PG_PROC_STOPPING || jobs_running(&s->jobs) > 0)
		s->end.progress_ms = now_ms;
	bool postgres_done = s->guard.pm_state == PG_PROC_NONE || s->end.leave_postgres;
	if (s->end.phase == END_POSTGRES && postgres_done && jobs_running(&s->jobs) == 0)
		end_helpers(s, now_ms);
	/* Helpers first: one that sees both enforcers gone kills PostgreSQL, which may be left
	 * running. */
	if (s->end.phase == END_HELPERS && helpers_end(s, s->end.until_ms, now_ms)) {
		s->end.phase = END_DEADMAN;
		s->end.until_ms = now_ms + HELPERS_MS;
		deadlink_end(s);
	}
	if (s->end.phase != END_DEADMAN || !deadlink_gone(s))
		return;
	/* What is left running must not be killed by the kernel when the last holder closes the
	 * pipe. */
	if (s->pm.pid != 0 && s->end.leave_postgres)
		postmaster_release(s);
	s->end.phase = END_DONE;
}

int64_t ending_next_ms(const struct sup *s)
{
	switch (s->end.phase) {
	case END_ORDERED: return s->end.progress_ms + WORKER_MS;
	case END_HELPERS:
	case END_DEADMAN: return s->now_ms < s->end.until_ms ? s->end.until_ms : s->now_ms + 100;
	default: return INT64_MAX;
	}
}

/* ---- upgrade in place ---- */

/* Why not at all; NULL = it may be. */
static const char *upgrade_refused(const struct sup *s)
{
	if (s->end.phase != END_NO)
		return "we are ending";
	if (jobs_running(&s->jobs) > 0)
		return "jobs run: their output and end would be lost";
	if (s->pm.start.stage != START_IDLE || s->guard.pm_state == PG_PROC_FENCING)
		return "PostgreSQL is being started or fenced";
	return NULL;
}

/* Why not now. What is not acknowledged by the dead-man would be lost with our socket; it is so for
 * a moment after each change, so it is no reason to refuse at once. */
static const char *upgrade_unfit(const struct sup *s)
{
	const char *why = upgrade_refused(s);
	if (why != NULL)
		return why;
	if (!guard_synced(&s->guard, s->guard.state_seq))
		return "the dead-man does not know the newest state";
	return NULL;
}

void ending_upgrade(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_upgrade *q = m->payload;
	struct upgrade *u = &s->upgrade;
	if (!ipc_str_ok(q->path, sizeof(q->path))) {
		helper_kill(s, &s->helpers[HELPER_WORKER], "malformed UPGRADE");
		return;
	}
	const char *why = upgrade_refused(s);
	/* The worker is an ordinary user's process and must not choose what runs as root. */
	if (s->privs.root && q->path[0] != '\0' && !str_eq(q->path, s->launch.self))
		why = "as root only the same file, replaced on disk, is executed";
	if (why != NULL) {
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%s", why);
		return;
	}
	memcpy(u->path, q->path[0] != '\0' ? q->path : s->launch.self, sizeof(u->path));
	u->id = m->id;
	u->until_ms = s->now_ms + HANDOVER_CHECK_MS;
	u->checked = false;
	char *argv[] = { u->path, "--upgrade-check", NULL };
	if (!job_start_own(s, JOB_UPGRADE_CHECK, argv, u->until_ms))
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_FAILED, "%s",
			"the check could not be started");
}

void ending_upgrade_checked(struct sup *s, const struct job *j)
{
	struct upgrade *u = &s->upgrade;
	u->checked = j->exit.cls == EXIT_CLASS_CODE && j->exit.code == 0 &&
		     handover_check_ok(j->out[0].ring, (unsigned)j->out[0].total);
	if (!u->checked)
		helper_answer(s, HELPER_WORKER, u->id, ANSWER_REFUSED,
			"%s is not a pgregent that starts (%s=%d)", u->path,
			exit_class_name(j->exit.cls), j->exit.code);
}

bool ending_upgrade_due(struct sup *s)
{
	struct upgrade *u = &s->upgrade;
	if (!u->checked)
		return false;
	const char *why = upgrade_unfit(s);
	if (why != NULL && s->now_ms < u->until_ms)
		return false; /* asked again in the next turn, after a heartbeat at the latest */
	u->checked = false;
	if (why != NULL)
		helper_answer(s, HELPER_WORKER, u->id, ANSWER_REFUSED, "%s", why);
	else
		helper_answer(
			s, HELPER_WORKER, u->id, ANSWER_OK, "%s", "executing the new program");
	return why == NULL;
}
