/* The keeper's rules (DESIGN 2): the lease counts from the time before the renewal was sent; a new
 * incarnation adopts first; a release leaves only after lease 0 was acknowledged; an answer from
 * before a release or a loss counts for nothing. Pure: whatever is done, the caller does. */
#include "worker/ha/keeper_rules.h"

#include <string.h>

#include "common/core/invariant.h"
#include "worker/ha/keeper_state.h"

static struct keeper_action *add(struct keeper_plan *plan, enum keeper_action_kind kind)
{
	INVARIANT(plan->count < KEEPER_ACTIONS_MAX);
	struct keeper_action *a = &plan->actions[plan->count++];
	*a = (struct keeper_action){ .kind = kind };
	return a;
}

static void wake(struct keeper_plan *plan)
{
	for (unsigned i = 0; i < plan->count; i++)
		if (plan->actions[i].kind == KEEPER_WAKE)
			return;
	add(plan, KEEPER_WAKE);
}

void keeper_init(struct keeper *k, uint64_t lease_seq, int64_t inherited_until_ms, int64_t now_ms)
{
	*k = (struct keeper){
		.phase = KEEPER_START,
		.seq = lease_seq,
		.ack_seq = lease_seq,
		.ttl_ms = 30000,
		.loop_wait_ms = 10000,
		.retry_timeout_ms = 10000,
		/* The predecessor held the key for a reason; one freshness period to come to a
		   verdict of our own. */
		.verdict = VERDICT_HOLD,
		.verdict_at_ms = now_ms,
		.lease_until_ms = inherited_until_ms,
		.acked_until_ms = inherited_until_ms,
	};
	k->lease_ttl_ms = k->ttl_ms;
}

/* Tell the supervisor. Its rule refuses a send time before the previous one, so that never goes
 * back. */
static void report(struct keeper *k, struct keeper_plan *plan, int64_t sent_at_ms, int64_t until_ms,
	int64_t now_ms)
{
	struct keeper_action *a = add(plan, KEEPER_REPORT);
	k->last_sent_at_ms = max64(k->last_sent_at_ms, sent_at_ms);
	k->report_sent_at_ms = k->last_sent_at_ms;
	k->report_until_ms = until_ms;
	k->report_made_ms = now_ms;
	k->report_policy = keeper_policy(k);
	a->seq = ++k->seq;
	a->sent_at_ms = k->report_sent_at_ms;
	a->lease_until_ms = until_ms;
	a->ttl_ms = keeper_in_failsafe(k) ? k->ttl_ms : k->lease_ttl_ms;
	a->policy = k->report_policy;
	a->pause_enforce = k->pause_enforce;
}

static void take_pause(struct keeper *k)
{
	k->paused = k->next_paused;
	k->pause_enforce = k->next_pause_enforce;
	k->resume_at_ms = 0;
}

/* The supervisor must learn of pause and resume even when nothing is renewed. */
static void report_pause(struct keeper *k, struct keeper_plan *plan, int64_t now_ms)
{
	if (keeper_policy(k) != k->report_policy && k->phase != KEEPER_ZEROING)
		report(k, plan, k->report_sent_at_ms ? k->report_sent_at_ms : now_ms,
			keeper_lease_until_ms(k), now_ms);
}

/* In pause nobody misses a proof; where it ends, a standby that was not asked for long would be
 * fenced before it can answer. So it is asked first, and the end of the pause waits for that, but
 * not for ever: what does not answer is what the fence is for. */
static void set_pause(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	bool was_free = k->paused && !k->pause_enforce;
	bool is_free = ev->paused && !ev->pause_enforce;
	k->next_paused = ev->paused;
	k->next_pause_enforce = ev->pause_enforce;
	if (was_free && !is_free && ev->unproven && keeper_lease_until_ms(k) <= now_ms) {
		if (k->resume_at_ms)
			return;
		k->resume_at_ms = now_ms + max64(k->ttl_ms / 4, 500);
		add(plan, KEEPER_PROVE);
		return;
	}
	take_pause(k);
	report_pause(k, plan, now_ms);
}

static void done(struct keeper *k, struct keeper_plan *plan, enum ha_outcome outcome)
{
	if (k->pending == KEEPER_OP_NONE)
		return;
	struct keeper_action *a = add(plan, KEEPER_DONE);
	a->op = k->pending;
	a->outcome = outcome;
	a->version = k->key_version;
	k->pending = KEEPER_OP_NONE;
}

static void send_op(struct keeper *k, struct keeper_plan *plan, enum keeper_op op, bool other,
	int64_t deadline_ms)
{
	struct keeper_action *a = add(plan, KEEPER_SEND);
	a->op = op;
	a->epoch = k->epoch;
	a->other = other;
	a->deadline_ms = deadline_ms;
	if (op == KEEPER_OP_ADOPT)
		a->version = k->adopt_version;
	if (op == KEEPER_OP_RELEASE)
		a->version = k->key_version;
}

/* Whatever is under way belongs to the past: its answers are void. */
static void new_epoch(struct keeper *k)
{
	k->epoch++;
	k->open = 0;
	k->unanswered_since_ms = k->resend_at_ms = k->renew_at_ms = 0;
}

/* A definite no: the key is not ours. Lease 0 at once, because its new owner may promote now. A
 * failsafe round that is still good stands on the members' word, not on the key. */
static void lose(struct keeper *k, struct keeper_plan *plan, int64_t now_ms)
{
	bool told = k->lease_until_ms || k->acked_until_ms;
	new_epoch(k);
	k->phase = KEEPER_IDLE;
	k->lease_until_ms = 0;
	k->key_version = 0;
	done(k, plan, HA_OUT_CONFLICT);
	if (k->failsafe_until_ms <= now_ms) {
		k->failsafe_until_ms = 0;
		k->lost = told;
		if (told)
			report(k, plan, now_ms, 0, now_ms);
	}
	wake(plan);
}

/* The key is gone although the lease that it hung on lasts by every promise of the store: somebody
 * deleted it, or the store revoked the lease too early (etcd 3.4, when a leader that was frozen
 * goes on). Nobody held it at that moment, and those who could take it see a primary that is alive.
 * So it is created again if it still is not there, once, and quickly. Whatever else comes back than
 * a yes, or nothing, is the loss. */
static void regain_or_lose(struct keeper *k, struct keeper_plan *plan, int64_t now_ms)
{
	int64_t until_ms = now_ms + min64(k->ttl_ms / 10, KEEPER_REGAIN_MS);
	bool lasts = k->lease_until_ms > now_ms && k->acked_until_ms > now_ms &&
		     until_ms < keeper_gentle_of(min64(k->lease_until_ms, k->acked_until_ms),
					k->lease_ttl_ms);
	if (!lasts || keeper_in_failsafe(k) || k->paused || k->supervisor_silent || k->pending ||
		!keeper_verdict_holds(k, now_ms)) {
		lose(k, plan, now_ms);
		return;
	}
	new_epoch(k);
	k->phase = KEEPER_REGAINING;
	k->key_version = 0;
	k->regain_until_ms = until_ms;
	send_op(k, plan, KEEPER_OP_ACQUIRE, false, until_ms);
}

static void hold(struct keeper *k, int64_t version)
{
	k->phase = KEEPER_HOLDING;
	k->lost = false;
	if (version)
		k->key_version = version;
}

/* The store proved the lease by a request sent at sent_at_ms. Newer requests win over older ones,
 * also when their lease is shorter: the ttl may just have been lowered. */
static void extend(
	struct keeper *k, struct keeper_plan *plan, const struct keeper_event *ev, int64_t now_ms)
{
	if (ev->sent_at_ms < k->lease_sent_ms)
		return;
	int64_t ttl = ev->lease_ttl_ms > 0 ? min64(ev->lease_ttl_ms, k->ttl_ms) : k->ttl_ms;
	k->lease_sent_ms = ev->sent_at_ms;
	k->lease_ttl_ms = ttl;
	k->lease_until_ms = ev->sent_at_ms + ttl;
	k->failsafe_until_ms = 0;
	k->unanswered_since_ms = k->resend_at_ms = 0;
	k->renew_at_ms = ev->sent_at_ms + keeper_renew_interval_ms(k);
	if (k->resume_at_ms)
		take_pause(k); /* the lease is what lets it run */
	report(k, plan, ev->sent_at_ms, k->lease_until_ms, now_ms);
}

/* Repeats keep a steady, short beat, each on the next endpoint: while a store elects a leader it
 * loses what it was asked before, without a word, and one of its members may be the frozen one. A
 * pause that grew would cost the lease after the election is over. The ordinary beat goes on beside
 * them, with its longer budget, for a store that is merely slow. */
static void renew(struct keeper *k, struct keeper_plan *plan, bool other, int64_t now_ms)
{
	int64_t gap = k->unanswered_since_ms ? min64(keeper_first_gap_ms(k), KEEPER_REPEAT_MS)
					     : keeper_first_gap_ms(k);
	int64_t budget = max64(min64(k->ttl_ms / 6, k->retry_timeout_ms), 500);
	if (other || !k->unanswered_since_ms || !k->resend_at_ms)
		k->resend_at_ms = now_ms + gap;
	if (!other)
		k->renew_at_ms = now_ms + keeper_renew_interval_ms(k);
	if (k->open >= KEEPER_OPEN_MAX)
		return;
	k->open++;
	if (!k->unanswered_since_ms)
		k->unanswered_since_ms = now_ms;
	send_op(k, plan, k->phase == KEEPER_ADOPTING ? KEEPER_OP_ADOPT : KEEPER_OP_RENEW, other,
		now_ms + (other ? min64(budget, KEEPER_REPEAT_BUDGET_MS) : budget));
}

/* A release without an answer may still arrive, and then it deletes this revision of the key. So
 * that revision is never ours again: when the key turns out to be there, it is moved to a new one
 * first (adopted), and the late release finds another. */
static void give_up(struct keeper *k, enum ha_outcome outcome)
{
	bool open_end = outcome != HA_OUT_OK && outcome != HA_OUT_CONFLICT;
	k->given_up_version = open_end ? k->key_version : 0;
	k->released_version = outcome == HA_OUT_OK ? k->key_version : 0;
}

static void tick(struct keeper *k, struct keeper_plan *plan, int64_t now_ms)
{
	if (k->pending && now_ms >= k->pending_deadline_ms) {
		if (k->phase == KEEPER_RELEASING)
			give_up(k, HA_OUT_UNKNOWN);
		if (k->phase == KEEPER_RELEASING || k->phase == KEEPER_ACQUIRING)
			k->phase = KEEPER_IDLE;
		else if (k->phase == KEEPER_ZEROING)
			k->phase = KEEPER_IDLE; /* nobody acknowledged: the release stays here, the
						   lease runs out */
		if (k->phase == KEEPER_IDLE)
			new_epoch(k);
		done(k, plan, HA_OUT_UNKNOWN);
		wake(plan);
	}
	if (k->phase == KEEPER_REGAINING && now_ms >= k->regain_until_ms)
		lose(k, plan, now_ms);
	if (k->resume_at_ms && now_ms >= k->resume_at_ms) {
		take_pause(k);
		report_pause(k, plan, now_ms);
	}
	if (keeper_report_open(k) && now_ms >= k->report_made_ms + KEEPER_ACK_WAIT_MS)
		report(k, plan, k->report_sent_at_ms, k->report_until_ms, now_ms);
	if (!keeper_may_renew(k, now_ms))
		return;
	if (keeper_may_resend(k, now_ms) && now_ms >= k->resend_at_ms)
		renew(k, plan, true, now_ms);
	else if (now_ms >= k->renew_at_ms)
		renew(k, plan, false, now_ms);
}

/* A shorter ttl: from the moment that the store may hear of it, the key may be gone that much
 * earlier, also when the answer is lost. So the lease is cut first, and the store is told after the
 * supervisor has agreed. */
static void set_ttl(struct keeper *k, int64_t ttl_ms, struct keeper_plan *plan, int64_t now_ms)
{
	k->ttl_ms = ttl_ms;
	if (ttl_ms == k->store_ttl_ms && !k->ttl_seq)
		return;
	k->lease_ttl_ms = min64(k->lease_ttl_ms, ttl_ms);
	if (k->lease_until_ms > now_ms + ttl_ms) {
		k->lease_until_ms = now_ms + ttl_ms;
		if (k->phase != KEEPER_ZEROING)
			report(k, plan, now_ms, keeper_lease_until_ms(k), now_ms);
		k->ttl_seq = k->seq;
		return;
	}
	k->ttl_seq = 0;
	k->store_ttl_ms = ttl_ms;
	add(plan, KEEPER_SET_TTL)->ttl_ms = ttl_ms;
}

static void on_config(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	set_ttl(k, ev->ttl_ms, plan, now_ms);
	k->loop_wait_ms = ev->loop_wait_ms;
	k->retry_timeout_ms = ev->retry_timeout_ms;
	if (k->renew_at_ms > now_ms + keeper_renew_interval_ms(k))
		k->renew_at_ms = now_ms + keeper_renew_interval_ms(k);
	set_pause(k, ev, plan, now_ms);
}

static void on_snapshot(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	switch (k->phase) {
	case KEEPER_START:
	case KEEPER_IDLE:
		/* News that is older than the release. */
		if (k->released_version && ev->leader_version == k->released_version)
			break;
		if (!ev->leader_is_me) {
			/* What a predecessor reported is spent: the key is free or another's. */
			if (k->phase == KEEPER_START && k->lease_until_ms)
				lose(k, plan, now_ms);
			k->phase = KEEPER_IDLE;
		} else if (ev->session_is_mine && ev->leader_version != k->given_up_version) {
			/* An acquire without an answer did happen. No lease before a renewal proves
			 * it. */
			hold(k, ev->leader_version);
			k->renew_at_ms = now_ms;
		} else {
			k->phase = KEEPER_ADOPTING;
			k->adopt_version = ev->leader_version;
			k->renew_at_ms = now_ms;
		}
		break;
	case KEEPER_ADOPTING:
		if (!ev->leader_is_me) {
			lose(k, plan, now_ms);
		} else if (ev->session_is_mine && ev->leader_version != k->given_up_version) {
			hold(k, ev->leader_version);
			k->renew_at_ms = now_ms;
		} else {
			k->adopt_version = ev->leader_version;
		}
		break;
	case KEEPER_HOLDING:
		/* Only a snapshot from after our own write proves anything. */
		if (ev->no_leader && ev->revision > k->key_version && k->key_version)
			regain_or_lose(k, plan, now_ms);
		else if (!ev->session_is_mine && ev->revision > k->key_version)
			lose(k, plan, now_ms);
		else if (ev->session_is_mine && !k->key_version)
			/* A renewal says that it is ours, not which revision; a release must name
			 * one, or a late copy of it deletes the key of another time (S2). */
			k->key_version = ev->leader_version;
		break;
	case KEEPER_REGAINING:
		if (!ev->no_leader && !ev->leader_is_me)
			lose(k, plan, now_ms);
		break;
	case KEEPER_ACQUIRING:
	case KEEPER_ZEROING:
	case KEEPER_RELEASING: break;
	}
}

static void on_command(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	bool adopt = ev->kind == KEEPER_ACQUIRE && ev->leader_version != 0;
	if (adopt && (k->phase == KEEPER_ZEROING || k->phase == KEEPER_RELEASING)) {
		/* The key that the rules still see is the one that is being given away. */
		struct keeper_action *a = add(plan, KEEPER_DONE);
		a->op = KEEPER_OP_ADOPT;
		a->outcome = HA_OUT_CONFLICT;
		return;
	}
	if ((adopt || ev->kind == KEEPER_TAKE) && k->phase == KEEPER_HOLDING) {
		/* Adopted meanwhile, or held since before the bootstrap began: the next
		 * acknowledgement of a renewal answers. */
		k->pending = adopt ? KEEPER_OP_ADOPT : KEEPER_OP_TAKE;
		k->pending_deadline_ms = ev->deadline_ms;
		k->renew_at_ms = now_ms;
		return;
	}
	enum keeper_op op = adopt			 ? KEEPER_OP_ADOPT
			    : ev->kind == KEEPER_ACQUIRE ? KEEPER_OP_ACQUIRE
			    : ev->kind == KEEPER_TAKE	 ? KEEPER_OP_TAKE
							 : KEEPER_OP_RELEASE;
	if (k->pending)
		done(k, plan, HA_OUT_UNKNOWN); /* superseded: its outcome will show in the next
						  snapshot */
	new_epoch(k);
	k->pending = op;
	k->pending_deadline_ms = ev->deadline_ms;
	if (op == KEEPER_OP_RELEASE) {
		/* Released before, without an answer: the same revision once more (X48). Adopted
		 * only to be released, it would be kept alive and never go. */
		if (k->phase == KEEPER_ADOPTING && k->key_version == 0)
			k->key_version = k->adopt_version;
		k->phase = KEEPER_ZEROING;
		k->lease_until_ms = k->failsafe_until_ms = 0;
		report(k, plan, now_ms, 0, now_ms);
		return;
	}
	if (op == KEEPER_OP_ADOPT) {
		k->phase = KEEPER_ADOPTING;
		k->adopt_version = ev->leader_version;
		k->verdict = VERDICT_HOLD; /* the rules want it */
		k->verdict_at_ms = now_ms;
		return;
	}
	k->phase = KEEPER_ACQUIRING;
	k->released_version = 0; /* a store may count from the start again */
	/* X64: the end of a bootstrap is no reason to put the key over another's. A copy of such a
	 * request that arrives late would take it from the leader of then (S3). */
	send_op(k, plan, KEEPER_OP_ACQUIRE, false, ev->deadline_ms);
}

static void on_renew_answer(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	if (k->open)
		k->open--;
	switch (ev->outcome) {
	case HA_OUT_OK:
		hold(k, ev->version);
		extend(k, plan, ev, now_ms);
		break;
	case HA_OUT_CONFLICT:
		if (ev->op == KEEPER_OP_ADOPT && !ev->lease_gone && k->phase == KEEPER_HOLDING) {
			/* A repeat of an adoption that did happen, or of one that is looked at. */
			k->renew_at_ms = now_ms;
			break;
		}
		if (ev->op == KEEPER_OP_ADOPT && !ev->lease_gone) {
			/* Perhaps an earlier adoption did happen and only its answer was lost: look
			 * before giving up. */
			k->phase = k->given_up_version ? KEEPER_IDLE : KEEPER_HOLDING;
			k->key_version = 0;
			k->renew_at_ms = now_ms;
			if (k->phase == KEEPER_IDLE)
				done(k, plan, HA_OUT_CONFLICT);
			break;
		}
		if (ev->lease_gone && k->phase == KEEPER_HOLDING)
			regain_or_lose(k, plan, now_ms);
		else
			lose(k, plan, now_ms);
		break;
	case HA_OUT_DENIED:
	case HA_OUT_UNKNOWN:
	case HA_OUT_NONE:
		if (ev->lease_gone)
			lose(k, plan, now_ms);
		break; /* nothing changed, or nobody knows: the lease runs down, the timer sends
			  again */
	}
}

static void on_command_answer(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	if (ev->op == KEEPER_OP_RELEASE) {
		/* Unknown counts as released: nothing of ours rests on the key any more. */
		give_up(k, ev->outcome);
		k->phase = KEEPER_IDLE;
		k->lost = false;
		done(k, plan, ev->outcome);
		k->key_version = 0;
		new_epoch(k);
		return;
	}
	switch (ev->outcome) {
	case HA_OUT_OK:
		hold(k, ev->version);
		extend(k, plan, ev,
			now_ms); /* KEEPER_DONE follows the supervisor's acknowledgement */
		break;
	case HA_OUT_CONFLICT:
	case HA_OUT_DENIED:
	case HA_OUT_UNKNOWN:
	case HA_OUT_NONE:
		if (k->phase == KEEPER_REGAINING) {
			lose(k, plan, now_ms);
			break;
		}
		k->phase = KEEPER_IDLE;
		new_epoch(k);
		done(k, plan, ev->outcome == HA_OUT_NONE ? HA_OUT_UNKNOWN : ev->outcome);
		break;
	}
}

static void on_ack(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	if (ev->seq != k->seq)
		return;
	k->ack_seq = ev->seq;
	if (!ev->accepted) {
		/* Refused, for instance after a clock jump: only a fresh renewal can put a lease in
		 * force. */
		k->acked_until_ms = 0;
		if (k->phase == KEEPER_HOLDING)
			k->renew_at_ms = min64(k->renew_at_ms, now_ms + keeper_first_gap_ms(k));
		wake(plan);
		return;
	}
	k->acked_until_ms = k->report_until_ms;
	if (k->ttl_seq) {
		k->ttl_seq = 0;
		k->store_ttl_ms = k->ttl_ms;
		add(plan, KEEPER_SET_TTL)->ttl_ms = k->ttl_ms;
	}
	if (k->lost && k->report_until_ms == 0)
		k->lost = false; /* told: nothing of ours can write any more */
	if (k->phase == KEEPER_ZEROING && k->report_until_ms == 0) {
		if (k->key_version != 0) {
			k->phase = KEEPER_RELEASING;
			send_op(k, plan, KEEPER_OP_RELEASE, false, k->pending_deadline_ms);
			return;
		}
		/* X24: a release that names no revision would delete whatever is there when it
		 * arrives, also a later key of ours under which PostgreSQL leads (S2). Without
		 * one the lease runs out instead; nobody is woken for it, who still
		 * wants the release would ask again at once (OSC). */
		k->phase = KEEPER_IDLE;
		new_epoch(k);
		done(k, plan, HA_OUT_UNKNOWN);
	} else if (k->phase == KEEPER_HOLDING && k->pending) {
		done(k, plan, HA_OUT_OK);
	}
}

static void on_failsafe(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	if (k->phase == KEEPER_ZEROING || k->phase == KEEPER_RELEASING ||
		ev->at_ms < k->failsafe_sent_ms)
		return;
	k->failsafe_sent_ms = ev->at_ms;
	k->failsafe_until_ms = ev->at_ms + k->ttl_ms;
	if (keeper_in_failsafe(k))
		report(k, plan, ev->at_ms, k->failsafe_until_ms, now_ms);
	else
		k->failsafe_until_ms = 0; /* the lease itself reaches further */
}

static void on_supervisor(
	struct keeper *k, const struct keeper_event *ev, struct keeper_plan *plan, int64_t now_ms)
{
	bool back = ev->alive && k->supervisor_silent;
	k->supervisor_silent = !ev->alive;
	if (back && k->phase == KEEPER_HOLDING) {
		k->acked_until_ms = 0;
		k->renew_at_ms = now_ms;
		report(k, plan, k->report_sent_at_ms, k->report_until_ms, now_ms);
	}
}

void keeper_step(
	struct keeper *k, const struct keeper_event *ev, int64_t now_ms, struct keeper_plan *plan)
{
	plan->count = 0;
	switch (ev->kind) {
	case KEEPER_TICK: break;
	case KEEPER_CONFIG: on_config(k, ev, plan, now_ms); break;
	case KEEPER_VERDICT:
		k->verdict = ev->verdict;
		k->verdict_at_ms = ev->at_ms;
		break;
	case KEEPER_SNAPSHOT: on_snapshot(k, ev, plan, now_ms); break;
	case KEEPER_ACQUIRE:
	case KEEPER_TAKE:
	case KEEPER_RELEASE: on_command(k, ev, plan, now_ms); break;
	case KEEPER_ANSWER:
		if (ev->epoch != k->epoch)
			break;
		if (ev->op == KEEPER_OP_RENEW || ev->op == KEEPER_OP_ADOPT)
			on_renew_answer(k, ev, plan, now_ms);
		else
			on_command_answer(k, ev, plan, now_ms);
		break;
	case KEEPER_ACK: on_ack(k, ev, plan, now_ms); break;
	case KEEPER_FAILSAFE: on_failsafe(k, ev, plan, now_ms); break;
	case KEEPER_SUPERVISOR: on_supervisor(k, ev, plan, now_ms); break;
	case KEEPER_DOUBT:
		if (k->phase == KEEPER_HOLDING)
			k->renew_at_ms = now_ms;
		break;
	case KEEPER_PROOF:
		if (k->resume_at_ms) {
			take_pause(k);
			report_pause(k, plan, now_ms);
		}
		break;
	}
	tick(k, plan, now_ms);
}
