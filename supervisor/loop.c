/* The supervisor's loop: poll over a fixed descriptor array, one absolute timer. Nothing here
 * allocates, and nothing waits but the poll. Order of a turn: messages, then the dead, then the
 * clock, since guard_step wants to have seen what was waiting before it looks at deadlines. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "supervisor/ending.h"
#include "supervisor/sup.h"

#define LATE_MS	 20 /* a wake-up later than that: we were kept from running */
#define REAP_MAX 64 /* of one turn: orphans of a fork bomb must not hold the fence up */

enum slot {
	SLOT_SIGNAL,
	SLOT_TIMER,
	SLOT_WALL,
	SLOT_POSTMASTER,
	SLOT_DEADMAN,
	SLOT_DEADMAN_OLD,
	SLOT_HELPERS,
	SLOT_JOBS = SLOT_HELPERS + HELPER_COUNT,
	SLOT_COUNT = SLOT_JOBS + 2 * LIMIT_JOBS,
};

static void fill(const struct sup *s, struct pollfd *p)
{
	p[SLOT_SIGNAL].fd = s->signal_fd;
	p[SLOT_TIMER].fd = s->timer_fd;
	p[SLOT_WALL].fd = s->wall_fd;
	p[SLOT_POSTMASTER].fd = s->pm.is_child ? -1 : s->pm.pidfd;
	p[SLOT_DEADMAN].fd = s->dm.fd;
	p[SLOT_DEADMAN_OLD].fd = s->dm.old_fd;
	for (unsigned i = 0; i < HELPER_COUNT; i++)
		p[SLOT_HELPERS + i].fd = s->helpers[i].fd;
	for (unsigned i = 0; i < 2 * LIMIT_JOBS; i++)
		p[SLOT_JOBS + i].fd = s->jobs.idle ? -1 : s->jobs.slot[i / 2].out[i % 2].fd;
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		p[i].events = POLLIN;
		p[i].revents = 0;
	}
	/* Who only says that it lives is read when something else wakes us; its end still does. */
	if (deadlink_quiet(s))
		p[SLOT_DEADMAN].events = 0;
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		if (helper_quiet(s, &s->helpers[i]))
			p[SLOT_HELPERS + i].events = 0;
	}
}

static int64_t next_wake(const struct sup *s)
{
	const int64_t at[] = { s->want.wake_at_ms, helpers_next_ms(s), jobs_next_ms(&s->jobs),
		postmaster_next_ms(s), deadlink_next_ms(s), sup_holds_next_ms(s),
		notify_next_ms(&s->notify), ending_next_ms(s),
		s->reap_more ? s->now_ms : INT64_MAX };
	int64_t next = INT64_MAX;
	for (unsigned i = 0; i < ARRAY_LEN(at); i++)
		next = at[i] < next ? at[i] : next;
	return next > 1 ? next : 1;
}

static void on_signal(struct sup *s)
{
	struct signalfd_siginfo si;
	while (read(s->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGTERM: ending_begin(s, "SIGTERM"); break;
		case SIGINT: ending_begin(s, "SIGINT"); break;
		case SIGQUIT: ending_begin(s, "SIGQUIT"); break;
		case SIGHUP: ending_reload(s); break;
		default: break; /* CHLD: the reaper runs in every turn */
		}
	}
}

static void reap(struct sup *s)
{
	s->reap_more = true;
	for (unsigned i = 0; i < REAP_MAX; i++) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid <= 0) {
			s->reap_more = false;
			return;
		}
		if (!postmaster_reaped(s, pid, status) && !deadlink_reaped(s, pid, status) &&
			!helpers_reaped(s, pid, status, s->now_ms) &&
			!jobs_reaped(s, pid, status, s->now_ms))
			log_debug("orphan reaped pid=%d status=%d", pid, status);
	}
}

static bool to_read(const struct pollfd *p)
{
	return p->fd >= 0 && (p->revents != 0 || p->events == 0);
}

static void read_all(struct sup *s, const struct pollfd *p)
{
	uint64_t ticks;
	/* What they carry is of no interest, only that they woke us; both are non-blocking. */
	if (p[SLOT_TIMER].revents != 0) {
		s->timer_at_ms = 0;
		if (read(s->timer_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
			log_error("timer: %s", strerror(errno));
	}
	if (p[SLOT_WALL].revents != 0 && read(s->wall_fd, &ticks, sizeof(ticks)) < 0 &&
		errno == ECANCELED)
		log_info("the wall clock was set");
	if (to_read(&p[SLOT_DEADMAN]))
		deadlink_receive(s);
	if (p[SLOT_DEADMAN_OLD].revents != 0)
		deadlink_receive_old(s);
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		if (to_read(&p[SLOT_HELPERS + i]))
			sup_receive(s, &s->helpers[i]);
	}
	for (unsigned i = 0; i < LIMIT_JOBS; i++) {
		for (unsigned k = 0; k < 2; k++) {
			if (p[SLOT_JOBS + 2 * i + k].revents != 0)
				job_drain(&s->jobs.slot[i], &s->jobs.slot[i].out[k]);
		}
	}
	if (p[SLOT_SIGNAL].revents != 0)
		on_signal(s);
	if (p[SLOT_POSTMASTER].revents != 0)
		postmaster_pidfd_ready(s);
}

/* Mostly a message changes nothing about the next deadline; setting a timer anew is what costs. */
static void set_timer(struct sup *s)
{
	int64_t at_ms = next_wake(s);
	if (at_ms == s->timer_at_ms)
		return;
	s->timer_at_ms = at_ms;
	if (clock_timerfd_arm(s->timer_fd, at_ms) < 0) {
		s->timer_at_ms = 0;
		log_error("timer: %s", strerror(errno));
	}
}

static void turn(struct sup *s)
{
	static struct pollfd fds[SLOT_COUNT];
	fill(s, fds);
	set_timer(s);
	int64_t due_ms = s->timer_at_ms > s->now_ms ? s->timer_at_ms : s->now_ms;
	if (poll(fds, s->jobs.idle ? SLOT_JOBS : SLOT_COUNT, -1) < 0)
		return; /* EINTR: every signal is blocked but those that stop or kill */
	int64_t read_ms = clock_boot_ms();
	s->now_ms = read_ms;
	if (s->timer_at_ms > 0 && read_ms - due_ms > LATE_MS)
		helpers_late(s, read_ms - due_ms);
	read_all(s, fds);
	reap(s);
	/* By the time from before the reading: if we were frozen since, a renewal or a sign of life
	 * waits in a socket, and the next turn reads it before it judges. What is carried out is
	 * judged by the time at which it is. */
	s->now_ms = read_ms;
	sup_guard(s, (struct guard_event){ .kind = GUARD_EV_TICK });
	helpers_tick(s, s->now_ms);
	s->now_ms = clock_boot_ms();
	postmaster_tick(s, s->now_ms);
	jobs_tick(s, s->now_ms);
	deadlink_tick(s, s->now_ms);
	sup_holds_tick(s, s->now_ms);
	notify_tick(&s->notify, s->now_ms);
	ending_tick(s, s->now_ms);
	postmaster_tell(s, false);
	sup_publish(s);
}

int sup_loop(struct sup *s)
{
	s->now_ms = clock_boot_ms();
	s->want.wake_at_ms = s->now_ms;
	while (s->end.phase != END_DONE) {
		turn(s);
		if (ending_upgrade_due(s))
			handover_exec(s);
	}
	return s->end.exit_code;
}
