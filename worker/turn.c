/* One HA turn: gather facts, decide (ha_step), carry out, wait for what was asked (DESIGN 4).
 * Event-driven first, loop_wait second. Worker process. Nothing is decided here but when to ask. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "worker/worker.h"

/* Facts that are not in by then are decided without; the rules know how old what they see is. */
#define GATHER_SQL_MS                                                                              \
	2500 /* the fact query's own limit is a little higher: a hung server is no news twice */
#define GATHER_FILES_MS 1000
#define SHARED_PART	20 /* of a loop_wait: so much earlier or later may a cycle begin */

static void on_timer(struct loop *l, void *arg);

static void arm(struct worker *w)
{
	int64_t at_ms = w->turn.next_run_ms;
	if (w->mem.awaiting != AWAIT_NONE)
		at_ms = w->mem.await_deadline_ms != 0 ? w->mem.await_deadline_ms : at_ms;
	if (w->turn.gathering)
		at_ms = w->turn.gather_until_ms;
	loop_timer_set(&w->loop, &w->turn.timer, at_ms, on_timer, w);
}

/* Events may make a member decide very often; the log stays readable (declog.h). What is left out
 * is there at level DEBUG. */
void turn_note(struct worker *w, enum log_level level, const char *fmt, ...)
{
	char text[600];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	bool said = declog_note(&w->declog, text, clock_boot_ms(), w->set.loop_wait_ms);
	log_line(said ? level : LOG_DEBUG, "%s", text);
}

/* Events may make a member decide very often; the log stays readable (declog.h). What is left out
 * is there at level DEBUG. */
static void log_plan(struct worker *w)
{
	const struct ha_plan *p = &w->plan;
	int64_t now_ms = clock_boot_ms();
	for (unsigned i = 0; i < p->note_count; i++)
		turn_note(w, (enum log_level)p->note_level[i], "%s", p->notes[i]);
	if (p->reason[0] == '\0')
		return;
	const char *owner = cluster_unlocked(w->c) ? "None" : w->c->leader;
	bool said = declog_decision(&w->declog, owner, p->reason, now_ms, w->set.loop_wait_ms);
	if (w->c_fresh)
		log_line(said ? LOG_INFO : LOG_DEBUG, "Lock owner: %s; I am %s", owner,
			w->welcome.name);
	int level = p->log_level != 0 ? p->log_level : (int)LOG_INFO;
	log_line(said ? (enum log_level)level : LOG_DEBUG, "%s", p->reason);
	snprintf(w->last_reason, sizeof(w->last_reason), "%s", p->reason);
}

/* A cycle has ended: when is the next? */
static void plan_next(struct worker *w)
{
	int64_t now_ms = clock_boot_ms();
	int64_t next_ms = w->turn.next_run_ms + w->set.loop_wait_ms;
	if (next_ms <= now_ms || next_ms > now_ms + w->set.loop_wait_ms)
		next_ms = now_ms + w->set.loop_wait_ms;
	/* What costs at rest is to wake up: one that the keeper needs anyway is shared. */
	int64_t keeper_ms = w->keeper_timer.at_ms;
	int64_t near_ms = w->set.loop_wait_ms / SHARED_PART;
	if (keeper_ms > now_ms && keeper_ms >= next_ms - near_ms && keeper_ms <= next_ms + near_ms)
		next_ms = keeper_ms;
	if (w->plan.next_run_ms != 0 && w->plan.next_run_ms < next_ms)
		next_ms = w->plan.next_run_ms > now_ms ? w->plan.next_run_ms : now_ms;
	w->turn.next_run_ms = next_ms;
	w->turn.last_cycle_ms = now_ms;
}

static void decide(struct worker *w)
{
	bool begins = w->mem.awaiting == AWAIT_NONE;
	if (begins)
		w->turn.view_at_ms = clock_boot_ms();
	observe_build(w);
	struct ha_result result = w->turn.result;
	memset(&w->turn.result, 0, sizeof(w->turn.result));
	w->turn.wanted = false;
	w->turn.facts_in = false;
	w->task_ended = w->view.task_ended != TASK_NONE ? TASK_NONE : w->task_ended;
	ha_step(&w->view, &w->mem, &result, &w->plan);
	log_plan(w);
	heir_leave(w);
	struct keeper_event verdict = {
		.kind = KEEPER_VERDICT, .verdict = w->plan.verdict, .at_ms = w->turn.view_at_ms
	};
	keeper_event(w, &verdict);
	execute_plan(w);
	if (w->plan.await == AWAIT_NONE) {
		plan_next(w);
		publish_page(w);
	}
}

/* Ask for facts, or decide when they are in. */
static void advance(struct worker *w)
{
	int64_t now_ms = clock_boot_ms();
	if (!w->dcs || w->turn.gathering)
		return;
	if (w->mem.awaiting != AWAIT_NONE && !w->turn.result.present) {
		if (w->mem.await_deadline_ms == 0 || now_ms < w->mem.await_deadline_ms) {
			arm(w);
			return;
		}
		/* An awaited time has come; anything else has gone unanswered. */
		w->turn.result.present = true;
		w->turn.result.outcome = w->mem.awaiting == AWAIT_TIME ? HA_OUT_OK : HA_OUT_UNKNOWN;
		w->awaited_op = KEEPER_OP_NONE;
	} else if (w->mem.awaiting == AWAIT_NONE && !w->turn.wanted &&
		   now_ms < w->turn.next_run_ms) {
		arm(w);
		return;
	}
	if (!w->turn.facts_in) {
		w->turn.gathering = true;
		observe_ask(w);
		w->turn.gather_until_ms =
			now_ms + (w->turn.sql_due ? GATHER_SQL_MS : GATHER_FILES_MS);
		if (w->turn.sql_due || w->turn.files_due) {
			arm(w);
			return;
		}
		w->turn.gathering = false;
		w->turn.facts_in = true;
	}
	decide(w);
	arm(w);
}

static void on_timer(struct loop *l, void *arg)
{
	(void)l;
	struct worker *w = arg;
	if (w->turn.gathering && clock_boot_ms() >= w->turn.gather_until_ms) {
		w->turn.gathering = false;
		w->turn.facts_in = true;
		w->turn.wanted = true;
	}
	advance(w);
}

void turn_facts(struct worker *w)
{
	if (!w->turn.gathering || w->turn.sql_due || w->turn.files_due)
		return;
	w->turn.gathering = false;
	w->turn.facts_in = true;
	w->turn.wanted = true;
	/* From the loop, not from inside somebody's callback. */
	loop_timer_set(&w->loop, &w->turn.timer, clock_boot_ms(), on_timer, w);
}

void turn_want(struct worker *w, const char *why)
{
	if (!w->turn.wanted)
		snprintf(w->turn.why, sizeof(w->turn.why), "%s", why);
	w->turn.wanted = true;
	if (!w->turn.gathering && w->mem.awaiting == AWAIT_NONE)
		loop_timer_set(&w->loop, &w->turn.timer, clock_boot_ms(), on_timer, w);
}

void turn_result(struct worker *w, enum ha_outcome outcome, int64_t version)
{
	if (w->mem.awaiting == AWAIT_NONE)
		return;
	w->turn.result.present = true;
	w->turn.result.outcome = outcome;
	w->turn.result.version = version;
	if (!w->turn.gathering)
		loop_timer_set(&w->loop, &w->turn.timer, clock_boot_ms(), on_timer, w);
}

void turn_start(struct worker *w)
{
	w->turn.next_run_ms = clock_boot_ms();
	turn_want(w, "start");
}
