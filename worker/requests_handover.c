/* Requests of api that wait for their end, switchover and failover above all (rest 8): checked,
 * written, followed snapshot by snapshot. Worker process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/decode.h"
#include "common/ext/json.h"
#include "worker/worker.h"

/* ---- waiting
 * ---------------------------------------------------------------------------------------- */

struct waiter *requests_wait(struct worker *w, uint64_t id, enum api_kind kind)
{
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		struct waiter *x = &w->waiters[i];
		if (x->id != 0)
			continue;
		memset(x, 0, sizeof(*x));
		x->id = id;
		x->kind = kind;
		x->since_ms = clock_boot_ms();
		return x;
	}
	requests_answer(w, id, 503, API_TEXT, "too many requests are waiting");
	return NULL;
}

static void on_waiters(struct loop *l, void *arg);

void requests_arm(struct worker *w)
{
	int64_t at_ms = 0;
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		const struct waiter *x = &w->waiters[i];
		if (x->id != 0 && x->until_ms != 0 && (at_ms == 0 || x->until_ms < at_ms))
			at_ms = x->until_ms;
	}
	if (at_ms != 0)
		loop_timer_set(&w->loop, &w->waiter_timer, at_ms, on_waiters, w);
	else
		loop_timer_stop(&w->loop, &w->waiter_timer);
}

static bool is_handover(const struct waiter *x)
{
	return x->id != 0 && x->sent && (x->kind == API_SWITCHOVER || x->kind == API_FAILOVER);
}

static void on_waiters(struct loop *l, void *arg)
{
	struct worker *w = arg;
	int64_t now_ms = clock_boot_ms();
	(void)l;
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		struct waiter *x = &w->waiters[i];
		if (x->id == 0 || x->until_ms == 0 || now_ms < x->until_ms)
			continue;
		uint64_t id = x->id;
		char text[160];
		if (is_handover(x))
			snprintf(text, sizeof(text),
				"%s status unknown after %lld seconds; operation may still be in "
				"progress",
				x->kind == API_SWITCHOVER ? "Switchover" : "Failover",
				(long long)(now_ms - x->since_ms) / 1000);
		else
			snprintf(text, sizeof(text), "no answer in time");
		x->id = 0;
		requests_answer(w, id, 503, API_TEXT, text);
	}
	requests_arm(w);
}

/* Each snapshot may be the end of a switchover (rest 8, poll). */
void requests_progress(struct worker *w)
{
	bool waiting = false;
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		struct waiter *x = &w->waiters[i];
		if (!is_handover(x))
			continue;
		char text[3 * LIMIT_NAME];
		bool sw = x->kind == API_SWITCHOVER;
		const char *now = cluster_unlocked(w->c) ? "" : w->c->leader;
		uint64_t id = x->id;
		if (now[0] != '\0' && strcmp(now, x->leader) != 0) {
			if (x->candidate[0] == '\0' || strcmp(x->candidate, now) == 0)
				snprintf(text, sizeof(text), "Successfully %s over to \"%s\"",
					sw ? "switched" : "failed", now);
			else
				snprintf(text, sizeof(text), "%s over to \"%s\" instead of \"%s\"",
					sw ? "Switched" : "Failed", now, x->candidate);
			x->id = 0;
			requests_answer(w, id, 200, API_TEXT, text);
		} else if (!w->c->failover_present && w->c->failover_version > x->version &&
			   now[0] != '\0') {
			x->id = 0;
			requests_answer(
				w, id, 503, API_TEXT, sw ? "Switchover failed" : "Failover failed");
		} else {
			waiting = true;
		}
	}
	/* A check for divergence waits until the leader's key says that it is primary; so does
	 * whoever has to be made anew from it (X65). */
	bool checks = w->mem.rewind_state == REWIND_CHECK || w->mem.rewind_state == REWIND_NEED;
	w->wants_members = waiting || checks || cluster_unlocked(w->c);
	requests_arm(w);
}

/* ---- switchover, failover
 * --------------------------------------------------------------------------- */

static void on_key_written(const struct dcs_event *e, void *arg)
{
	struct waiter *x = arg;
	struct worker *w = x->w;
	store_answered(w, e->outcome);
	if (x->id == 0)
		return;
	uint64_t id = x->id;
	if (e->outcome != DCS_OK) {
		x->id = 0;
		requests_answer(w, id, 503, API_TEXT, "failed to write failover key into DCS");
	} else if (x->scheduled) {
		x->id = 0;
		requests_answer(w, id, 202, API_TEXT, "Switchover scheduled");
	} else {
		x->sent = true;
		x->version = e->version;
		int64_t loop_ms = w->set.loop_wait_ms > 10000 ? w->set.loop_wait_ms : 10000;
		x->until_ms = x->since_ms + 2 * loop_ms;
		w->wants_members = true;
		requests_arm(w);
	}
	turn_want(w, "failover request");
}

static void write_key(struct waiter *x)
{
	AUTO_FREE char *text = encode_failover(x->from, x->candidate, x->at_wall_us);
	struct dcs_op op = { .kind = DCS_SET_FAILOVER, .value = text };
	if (text != NULL) {
		dcs_submit(x->w->dcs, &op, on_key_written, x);
		return;
	}
	/* Nothing was sent: whoever waits must not wait for ever. */
	uint64_t id = x->id;
	x->id = 0;
	requests_answer(x->w, id, 503, API_TEXT, "failed to write failover key into DCS");
}

/* rest 8, line 15: somebody must be able to take over. */
static void on_candidates(struct worker *w, void *arg)
{
	struct waiter *x = arg;
	if (x->id == 0)
		return;
	for (unsigned i = 0; i < w->aside.count; i++) {
		const struct ha_peer *p = &w->aside.peers[i];
		if (p->answered && !p->nofailover && !p->watchdog_failed) {
			write_key(x);
			return;
		}
	}
	uint64_t id = x->id;
	char text[100];
	snprintf(text, sizeof(text), "%s is not possible: no good candidates have been found",
		x->kind == API_SWITCHOVER ? "switchover" : "failover");
	x->id = 0;
	requests_answer(w, id, 412, API_TEXT, text);
}

void requests_handover(struct worker *w, uint64_t id, enum api_kind kind, const json_t *body)
{
	struct waiter *x = requests_wait(w, id, kind);
	const char *leader = json_path_str(body, "leader"),
		   *candidate = json_path_str(body, "candidate");
	const char *at = json_path_str(body, "scheduled_at");
	bool no_zone = false;
	if (x == NULL)
		return;
	x->w = w;
	/* A failover with a leader given goes on as a switchover. */
	if (leader != NULL)
		x->kind = API_SWITCHOVER;
	bool fits =
		str_copy(x->from, sizeof(x->from), leader != NULL ? leader : "") &&
		str_copy(x->candidate, sizeof(x->candidate), candidate != NULL ? candidate : "") &&
		str_copy(x->leader, sizeof(x->leader), cluster_unlocked(w->c) ? "" : w->c->leader);
	if (!fits || (at != NULL && (!decode_time(at, &x->at_wall_us, &no_zone) || no_zone))) {
		x->id = 0;
		requests_answer(
			w, id, 400, API_TEXT, "leader, candidate or scheduled_at cannot be used");
		return;
	}
	if (at != NULL) {
		x->scheduled = true;
		write_key(x);
		return;
	}
	static char names[LIMIT_MEMBERS][LIMIT_NAME];
	unsigned n = 0;
	for (unsigned i = 0; i < w->c->member_count && n < LIMIT_MEMBERS; i++) {
		const struct member *m = &w->c->members[i];
		bool wanted = x->candidate[0] != '\0' ? strcmp(m->name, x->candidate) == 0
						      : strcmp(m->name, x->leader) != 0;
		bool sync_only = x->candidate[0] == '\0' &&
				 settings_sync_mode(&w->set) == SYNC_PRIORITY &&
				 w->c->sync_leader[0] != '\0';
		if (wanted && (!sync_only || cluster_sync_is_voter(w->c, m->name)))
			memcpy(names[n++], m->name, LIMIT_NAME);
	}
	/* Somebody else asks already: the leader checks the candidates again anyway. */
	if (!peers_ask_aside(w, (const char(*)[LIMIT_NAME])names, n, on_candidates, NULL, x))
		write_key(x);
}

struct delete_request {
	struct worker *w;
	uint64_t id;
};

static void on_deleted(const struct dcs_event *e, void *arg)
{
	struct delete_request *d = arg;
	store_answered(d->w, e->outcome);
	if (e->outcome == DCS_OK)
		requests_answer(d->w, d->id, 200, API_TEXT, "scheduled switchover deleted");
	else
		requests_answer(
			d->w, d->id, 409, API_PAGE, "the request was changed by somebody else");
	free(d);
}

void requests_handover_delete(struct worker *w, uint64_t id)
{
	if (!w->c->failover_present || !w->c->failover_scheduled) {
		requests_answer(w, id, 404, API_TEXT, "no switchover is scheduled");
		return;
	}
	struct delete_request *d = calloc(1, sizeof(*d));
	if (d == NULL) {
		requests_answer(w, id, 503, API_TEXT, "no memory");
		return;
	}
	*d = (struct delete_request){ w, id };
	struct dcs_op op = {
		.kind = DCS_SET_FAILOVER, .value = "{}", .version = w->c->failover_version
	};
	dcs_submit(w->dcs, &op, on_deleted, d);
}
