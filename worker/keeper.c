/* Carries out what the keeper's rules say (worker/ha/keeper_rules): renewals to the store, reports
 * to the supervisor. Worker process. It decides nothing. */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "worker/worker.h"

static void run(struct worker *w, const struct keeper_event *ev);

/* Reports that stay without an answer: the supervisor is frozen or gone, and what it does not
 * enforce must not be held (DESIGN 2, "The other way round"). */
static void watch_supervisor(struct worker *w)
{
	int64_t now_ms = clock_boot_ms(),
		limit_ms = w->set.ttl_ms / 6 > 1000 ? w->set.ttl_ms / 6 : 1000;
	if (w->keeper.seq == w->keeper.ack_seq) {
		w->unacked_since_ms = 0;
		return;
	}
	if (w->unacked_since_ms == 0)
		w->unacked_since_ms = now_ms;
	if (!w->sup_silent && now_ms - w->unacked_since_ms >= limit_ms) {
		log_error("the supervisor does not answer: the lease is not renewed");
		w->sup_silent = true;
		struct keeper_event ev = { .kind = KEEPER_SUPERVISOR, .alive = false };
		run(w, &ev);
	}
}

static void on_timer(struct loop *l, void *arg)
{
	(void)l;
	struct worker *w = arg;
	watch_supervisor(w);
	struct keeper_event ev = { .kind = KEEPER_TICK };
	run(w, &ev);
}

static enum ha_outcome outcome_of(enum dcs_outcome o)
{
	switch (o) {
	case DCS_OK: return HA_OUT_OK;
	case DCS_CONFLICT: return HA_OUT_CONFLICT;
	case DCS_DENIED: return HA_OUT_DENIED;
	case DCS_UNKNOWN: return HA_OUT_UNKNOWN;
	}
	return HA_OUT_UNKNOWN;
}

struct sent {
	struct worker *w;
	enum keeper_op op;
	uint32_t epoch;
	bool repeat;
};

static void on_answer(const struct dcs_event *e, void *arg)
{
	struct sent *s = arg;
	struct worker *w = s->w;
	struct keeper_event ev = { .kind = KEEPER_ANSWER,
		.op = s->op,
		.epoch = s->epoch,
		.outcome = outcome_of(e->outcome),
		.sent_at_ms = e->sent_at_ms,
		.lease_ttl_ms = e->lease_ttl_ms,
		.version = e->version,
		.lease_gone = e->lease_gone };
	/* Repeats are many and say the same; the ordinary beat beside them is heard. What was sent
	 * before a release, or before a loss that was told already, counts for nothing. */
	bool loud = e->outcome != DCS_OK && !(s->repeat && e->outcome == DCS_UNKNOWN) &&
		    s->epoch == w->keeper.epoch;
	free(s);
	if (loud)
		store_complain(w, e);
	store_answered(w, e->outcome);
	run(w, &ev);
}

static void send_op(struct worker *w, const struct keeper_action *a)
{
	static const enum dcs_op_kind kinds[] = { [KEEPER_OP_RENEW] = DCS_RENEW,
		[KEEPER_OP_ACQUIRE] = DCS_ACQUIRE,
		[KEEPER_OP_ADOPT] = DCS_ADOPT,
		[KEEPER_OP_RELEASE] = DCS_RELEASE };
	struct dcs_op op = { .kind = kinds[a->op],
		.version = a->version,
		.deadline_ms = a->deadline_ms,
		.other_endpoint = a->other };
	struct sent *s = malloc(sizeof(*s));
	if (s == NULL) {
		log_error("store %s: no memory", dcs_op_name(op.kind));
		return; /* the rules see no answer: the lease runs down */
	}
	*s = (struct sent){ w, a->op, a->epoch, a->other };
	dcs_submit(w->dcs, &op, on_answer, s);
}

static void report(struct worker *w, const struct keeper_action *a)
{
	struct msg_lease m = { .seq = a->seq,
		.sent_at_ms = a->sent_at_ms,
		.lease_until_ms = a->lease_until_ms,
		.ttl_ms = a->ttl_ms,
		.policy = a->policy,
		.pause_enforce = a->pause_enforce,
		.wall_offset_ms = clock_wall_offset_ms() };
	w->reported_ttl_ms = a->ttl_ms;
	link_send(w, MSG_LEASE, 0, &m, NULL, 0, NULL, 0);
}

static void run(struct worker *w, const struct keeper_event *ev)
{
	struct keeper_plan plan = { .count = 0 };
	int64_t now_ms = clock_boot_ms();
	enum ha_lock before = keeper_lock(&w->keeper, now_ms);
	enum keeper_phase was = w->keeper.phase;
	keeper_step(&w->keeper, ev, now_ms, &plan);
	for (unsigned i = 0; i < plan.count; i++) {
		const struct keeper_action *a = &plan.actions[i];
		switch (a->kind) {
		case KEEPER_SEND: send_op(w, a); break;
		case KEEPER_REPORT: report(w, a); break;
		case KEEPER_DONE:
			if (a->op == w->awaited_op) {
				w->awaited_op = KEEPER_OP_NONE;
				turn_result(w, a->outcome, 0);
			}
			if (w->on_keeper_done != NULL)
				w->on_keeper_done(w, a->op, a->outcome);
			break;
		case KEEPER_SET_TTL:
			w->store_ttl_ms = a->ttl_ms;
			store_reconfigure(w);
			break;
		case KEEPER_WAKE: turn_want(w, "lease changed"); break;
		case KEEPER_PROVE: probe_ask(&w->probe); break;
		}
	}
	now_ms = clock_boot_ms();
	enum ha_lock after = keeper_lock(&w->keeper, now_ms);
	if (w->keeper.phase != was && w->keeper.phase == KEEPER_REGAINING)
		log_warning("the leader key has vanished although its lease lasts: it is taken "
			    "again, or given up");
	static const char *const words[] = { "none", "held", "uncertain", "lost" };
	int64_t until_ms = keeper_lease_until_ms(&w->keeper);
	if (after != before && until_ms != 0)
		log_info("lease %s lease_until_in_ms=%lld", words[after],
			(long long)(until_ms - now_ms));
	else if (after != before)
		log_info("lease %s", words[after]);
	publish_lease(w);
	int64_t next_ms = keeper_next_ms(&w->keeper, now_ms);
	if (next_ms == INT64_MAX)
		loop_timer_stop(&w->loop, &w->keeper_timer);
	else
		loop_timer_set(&w->loop, &w->keeper_timer, next_ms, on_timer, w);
}

void keeper_event(struct worker *w, const struct keeper_event *ev)
{
	run(w, ev);
}

void keeper_config(struct worker *w)
{
	struct keeper_event ev = { .kind = KEEPER_CONFIG,
		.ttl_ms = w->set.ttl_ms,
		.loop_wait_ms = w->set.loop_wait_ms,
		.retry_timeout_ms = w->set.retry_timeout_ms,
		.paused = w->set.pause,
		.pause_enforce = w->set.pause_enforce,
		.unproven = observe_unproven(w) };
	run(w, &ev);
}

void keeper_ack(struct worker *w, const struct msg_lease_ack *ack)
{
	struct keeper_event ev = { .kind = KEEPER_ACK, .seq = ack->seq, .accepted = ack->accepted };
	w->unacked_since_ms = 0;
	if (w->sup_silent) {
		log_info("the supervisor answers again");
		w->sup_silent = false;
		struct keeper_event alive = { .kind = KEEPER_SUPERVISOR, .alive = true };
		run(w, &alive);
	}
	if (!ack->accepted && ipc_str_ok(ack->reason, sizeof(ack->reason)))
		log_warning("supervisor refused the lease report: %s", ack->reason);
	run(w, &ev);
}

void keeper_start(struct worker *w)
{
	keeper_init(&w->keeper, w->welcome.lease_seq, w->welcome.lease_until_ms, clock_boot_ms());
	keeper_config(w);
}
