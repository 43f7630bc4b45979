/* See fence.h. The killing is common/core/killtree; this adds the order of things, the proof and
 * the reports. */
#include "supervisor/fence.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>

#include "common/core/clock.h"
#include "common/core/log.h"

#define PAUSE_FIRST_MS	2 /* most of PostgreSQL is gone by then */
#define PAUSE_MAX_MS	1000
#define REPORT_FIRST_MS 2000 /* by then it is no matter of a busy machine any more */
#define REPORT_EVERY_MS 10000

void fence_init(struct fence *f, struct killtree *scratch)
{
	*f = (struct fence){ .life_fd = -1, .scratch = scratch };
}

void fence_done(struct fence *f)
{
	struct killtree *scratch = f->scratch;
	fence_init(f, scratch);
}

void fence_root_gone(struct fence *f)
{
	f->target.root = 0;
	f->target.root_pidfd = -1;
}

/* The postmaster inherited a shared lock and handed it to all its descendants: the exclusive one
 * can be had when the last of them has closed the file, which the kernel does for a process before
 * it can be waited for. */
bool fence_life_is_free(int life_fd)
{
	if (life_fd < 0)
		return false;
	if (flock(life_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			log_error("fence: the life file cannot be locked: %s", strerror(errno));
		return false;
	}
	if (flock(life_fd, LOCK_UN) < 0)
		log_error("fence: the life file cannot be unlocked: %s", strerror(errno));
	return true;
}

/* Of a postmaster that somebody else started the file says nothing: nobody is left when nobody
 * works in its directory. */
static bool try_proof(const struct fence *f)
{
	struct killtree_report report;
	struct killtree_target rest = f->target;
	if (!fence_life_is_free(f->life_fd))
		return false;
	rest.root = 0;
	rest.root_pidfd = -1;
	return rest.data_dir == NULL ||
	       (killtree_kill_holders(f->scratch, &rest, f->spare, 2, &report) == 0 &&
		       !report.overflow);
}

static bool all_signalled(const struct killtree_report *r)
{
	return !r->unsettled && !r->overflow && r->denied == 0;
}

/* What holds the life file has its SIGKILL. With nobody to be seen behind a lock that is held (a
 * /proc that hides him) nothing was killed, and nobody may rely on it. */
static bool holders_signalled(const struct killtree_report *r)
{
	return all_signalled(r) && r->found > 0;
}

static void complain(const struct fence *f)
{
	const struct killtree_report *r = &f->last;
	if (r->overflow)
		log_error(
			"fence: more than %d processes, the rest in the next pass", KILLTREE_PIDS);
	if (r->denied > 0)
		log_error("fence: %u processes cannot be signalled, the first is pid=%d: %s",
			r->denied, (int)r->first_denied, strerror(r->first_errno));
	else if (r->first_errno != 0)
		log_error("fence: %s", strerror(r->first_errno));
}

static void set_proven(struct fence *f, int64_t now_ms)
{
	f->phase = FENCE_PROVEN;
	f->next_ms = 0;
	log_info("fence: nothing of PostgreSQL is left generation=%" PRIu64 " after_ms=%" PRId64,
		f->generation, now_ms - f->started_ms);
}

void fence_start(struct fence *f, const struct killtree_target *target, uint64_t generation,
	int life_fd, const char *reason, int64_t now_ms)
{
	if (f->phase != FENCE_IDLE && f->phase != FENCE_PROVEN && f->generation == generation)
		return;
	f->target = *target;
	f->generation = generation;
	f->life_fd = life_fd;
	f->started_ms = now_ms;
	f->reported_ms = now_ms - REPORT_EVERY_MS + REPORT_FIRST_MS;
	f->pause_ms = PAUSE_FIRST_MS;
	f->next_ms = now_ms + PAUSE_FIRST_MS;
	/* After an ordinary exit nothing is left, and nothing need be looked for. */
	if (target->root == 0 && try_proof(f)) {
		set_proven(f, now_ms);
		return;
	}
	int64_t start_us = clock_boot_us();
	/* By the life file only with the spares: the other enforcer holds it too. */
	if (target->root == 0)
		killtree_kill_holders(f->scratch, &f->target, f->spare, 2, &f->last);
	else
		killtree_run(f->scratch, &f->target, false, &f->last);
	const struct killtree_report *r = &f->last;
	bool complete = target->root == 0
				? holders_signalled(r)
				: all_signalled(r) && r->root_signalled && r->root_stopped;
	f->phase = complete ? FENCE_KILLED : FENCE_KILLING;
	log_warning("fence: %s generation=%" PRIu64
		    " postmaster=%d killed=%u passes=%u backends_us=%" PRId64 " us=%" PRId64,
		reason, generation, (int)target->root, r->signalled, r->passes, r->backends_us,
		clock_boot_us() - start_us);
	complain(f);
}

/* The list was made while the postmaster was stopped, or by the life file. Where the stop was not
 * seen, and for what lost its parent in between, the holders of the life file are the second list.
 */
static void kill_rest(struct fence *f, int64_t now_ms)
{
	struct killtree_target rest = f->target;
	if (rest.root != 0) {
		/* Its SIGKILL is pending; one that could not be sent is tried again. */
		if (!f->last.root_signalled) {
			killtree_run(f->scratch, &f->target, false, &f->last);
			complain(f);
			if (all_signalled(&f->last) && f->last.root_signalled)
				f->phase = FENCE_KILLED;
			return;
		}
		rest.root = 0;
		rest.root_pidfd = -1;
	}
	bool root_signalled = f->last.root_signalled;
	unsigned alive = killtree_kill_holders(f->scratch, &rest, f->spare, 2, &f->last);
	f->last.root_signalled = root_signalled;
	if (f->phase == FENCE_KILLING && holders_signalled(&f->last))
		f->phase = FENCE_KILLED;
	if (now_ms - f->reported_ms < REPORT_EVERY_MS)
		return;
	f->reported_ms = now_ms;
	complain(f);
	log_warning("fence: killed, not yet dead generation=%" PRIu64
		    " processes=%u first=%d since_ms=%" PRId64,
		f->generation, alive, f->scratch->count > 0 ? (int)f->scratch->pids[0] : 0,
		now_ms - f->started_ms);
}

enum fence_phase fence_step(struct fence *f, int64_t now_ms)
{
	if (f->phase != FENCE_KILLING && f->phase != FENCE_KILLED)
		return f->phase;
	if (now_ms < f->next_ms)
		return f->phase;
	if (try_proof(f)) {
		set_proven(f, now_ms);
		return f->phase;
	}
	kill_rest(f, now_ms);
	f->next_ms = now_ms + f->pause_ms;
	f->pause_ms = f->pause_ms * 2 < PAUSE_MAX_MS ? f->pause_ms * 2 : PAUSE_MAX_MS;
	return f->phase;
}
