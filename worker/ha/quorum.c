/* The resolver of ha 5.7: from what /sync and PostgreSQL say now to what they should say, in steps
 * of which every prefix is safe: whoever can be elected has heard from a node that acknowledged.
 * Phases and primitives carry the contract's numbers. R: three changes make it total (V8): QU
 * raises its quorum, SU raises its number of standbys where an invariant would break, and 3b
 * removes no voter. Raising either is always safe. */
#include "worker/ha/quorum.h"

#include <string.h>

#include "common/core/invariant.h"

#define WORDS (QUORUM_NAMES / 64)

void qset_add(struct qset *s, int bit)
{
	INVARIANT(bit >= 0 && bit < QUORUM_NAMES);
	s->w[bit / 64] |= UINT64_C(1) << (bit % 64);
}

void qset_del(struct qset *s, int bit)
{
	INVARIANT(bit >= 0 && bit < QUORUM_NAMES);
	s->w[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

bool qset_has(const struct qset *s, int bit)
{
	return bit >= 0 && bit < QUORUM_NAMES && (s->w[bit / 64] >> (bit % 64) & 1);
}

int qset_count(const struct qset *s)
{
	int n = 0;
	for (unsigned i = 0; i < WORDS; i++)
		n += __builtin_popcountll(s->w[i]);
	return n;
}

bool qset_empty(const struct qset *s)
{
	return qset_count(s) == 0;
}

bool qset_equal(const struct qset *a, const struct qset *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

struct qset qset_and(struct qset a, struct qset b)
{
	for (unsigned i = 0; i < WORDS; i++)
		a.w[i] &= b.w[i];
	return a;
}

struct qset qset_or(struct qset a, struct qset b)
{
	for (unsigned i = 0; i < WORDS; i++)
		a.w[i] |= b.w[i];
	return a;
}

struct qset qset_minus(struct qset a, struct qset b)
{
	for (unsigned i = 0; i < WORDS; i++)
		a.w[i] &= ~b.w[i];
	return a;
}

static struct qset qset_with(struct qset s, int bit)
{
	qset_add(&s, bit);
	return s;
}

/* a is a part of b, and not all of it. */
static bool qset_less(const struct qset *a, const struct qset *b)
{
	struct qset outside = qset_minus(*a, *b);
	return qset_empty(&outside) && !qset_equal(a, b);
}

static bool qset_within(const struct qset *a, const struct qset *b)
{
	struct qset outside = qset_minus(*a, *b);
	return qset_empty(&outside);
}

/* The n first or last names in sort order; all of them when there are fewer. */
static struct qset qset_pick(const struct qset *from, int n, bool last)
{
	struct qset out = { { 0 } };
	for (int k = 0; k < QUORUM_NAMES && n > 0; k++) {
		int bit = last ? QUORUM_NAMES - 1 - k : k;
		if (qset_has(from, bit)) {
			qset_add(&out, bit);
			n--;
		}
	}
	return out;
}

static int min(int a, int b)
{
	return a < b ? a : b;
}

static int max(int a, int b)
{
	return a > b ? a : b;
}

/* How many nodes there are that hold an opinion: V, L, S and me. */
static int everybody(
	const struct quorum_state *s, const struct qset *voters, const struct qset *sync)
{
	struct qset all = qset_with(qset_with(qset_or(*voters, *sync), s->leader), s->me);
	return qset_count(&all);
}

bool quorum_invariants(const struct quorum_state *s)
{
	struct qset electing = qset_with(s->voters, s->leader), acking = qset_with(s->sync, s->me);
	if (!qset_empty(&s->voters) &&
		everybody(s, &s->voters, &s->sync) > s->quorum + s->numsync + 1)
		return false;
	return qset_within(&electing, &acking) || qset_within(&acking, &electing);
}

struct work {
	struct quorum_state s;
	const struct quorum_state
		*found; /* /sync as it is: what holds for all that was acknowledged */
	struct quorum_steps *out;
	bool stop;
};

/* Two steps of one kind in a row: only the last is carried out. The invariants hold after each of
 * them all the same. */
static void emit(struct work *w, enum quorum_step_kind kind, int num, const struct qset *set)
{
	if (w->stop)
		return;
	if (kind != QUORUM_STEP_RESTART && !quorum_invariants(&w->s)) {
		w->out->broken = w->stop = true;
		return;
	}
	struct quorum_steps *o = w->out;
	if (o->count > 0 && o->step[o->count - 1].kind == kind)
		o->count--;
	INVARIANT(o->count < QUORUM_STEPS_MAX);
	o->step[o->count++] = (struct quorum_step){
		.kind = kind, .leader = w->s.leader, .num = num, .set = *set
	};
	if (kind == QUORUM_STEP_RESTART)
		w->stop = true;
}

static void sync_update(struct work *w, int numsync, struct qset sync)
{
	struct quorum_state *s = &w->s;
	if (w->stop)
		return;
	if (!qset_empty(&s->voters)) /* R */
		numsync = max(numsync, everybody(s, &s->voters, &sync) - s->quorum - 1);
	int count = qset_count(&sync);
	/* ANY 0 (..) is refused by PostgreSQL and would keep it from starting (5.1 R). */
	s->numsync = count == 0 ? 0 : max(1, min(numsync, count));
	s->sync = sync;
	emit(w, QUORUM_STEP_SYNC, s->numsync, &s->sync);
}

/* X25: the votes that keep older commits safe. Whoever holds them all (X is who may not) is in
 * every electing set of more than #X; in a smaller one only the old promise counts, and names that
 * it did not ask are no votes for it. */
static int votes_for_older(const struct work *w, const struct qset *voters)
{
	const struct quorum_state *f = w->found;
	struct qset x = qset_and(*voters, f->lagging), old = qset_with(f->voters, f->leader);
	struct qset strangers = qset_minus(x, old);
	return min(qset_count(&x), f->quorum + qset_count(&strangers));
}

enum adjust { ADJUST_NO = 0, ADJUST };

static void quorum_update(
	struct work *w, int quorum, struct qset voters, int leader, enum adjust adjust)
{
	struct quorum_state *s = &w->s;
	if (w->stop)
		return;
	int old_leader = s->leader;
	quorum = max(quorum, 0);
	if (leader >= 0) {
		s->leader = leader;
	} else if (s->confirmed == 0 && qset_empty(&s->voters)) {
		quorum = 0;
		memset(&voters, 0, sizeof(voters));
	} else if (adjust == ADJUST) {
		quorum += max(s->numsync - s->confirmed, 0);
	}
	if (!qset_empty(&voters)) /* R */
		quorum = max(quorum, everybody(s, &voters, &s->sync) - s->numsync - 1);
	quorum = max(quorum, votes_for_older(w, &voters));
	if (s->leader == old_leader && quorum == s->quorum && qset_equal(&voters, &s->voters)) {
		if (qset_empty(&s->voters))
			emit(w, QUORUM_STEP_RESTART, s->quorum, &s->voters);
		return;
	}
	s->quorum = quorum;
	s->voters = voters;
	emit(w, QUORUM_STEP_QUORUM, s->quorum, &s->voters);
}

/* Phase 1: the promise must be in my name before anything else; a broken state is replaced by what
 * PostgreSQL enforces. */
static void phase_leader(struct work *w)
{
	struct quorum_state *s = &w->s;
	if (s->leader == s->me) {
		if (!quorum_invariants(s)) {
			w->out->repaired = true;
			quorum_update(w, qset_count(&s->sync) - s->numsync, s->sync, -1, ADJUST);
		}
		return;
	}
	struct qset voters = s->voters;
	qset_del(&voters, s->me);
	qset_add(&voters, s->leader);
	if (qset_empty(&s->sync))
		sync_update(w, qset_count(&voters) - s->quorum, voters);
	quorum_update(w, s->quorum, voters, s->me, ADJUST_NO);
	if (w->out->broken) {
		w->out->broken = w->stop = false;
		w->out->repaired = true;
		s->leader = s->me;
		s->quorum = -1; /* differs from everything: the step is written */
		quorum_update(w, qset_count(&s->sync) - s->numsync, s->sync, s->me, ADJUST_NO);
		return;
	}
	struct qset streaming = qset_and(s->sync, s->active);
	if (qset_empty(&streaming))
		w->stop = true; /* replicas get one cycle to come back */
}

/* Phases 3a, 3b: an interrupted change left V and S different. */
static void phase_equal(struct work *w)
{
	struct quorum_state *s = &w->s;
	if (qset_less(&s->sync, &s->voters)) {
		struct qset gone = qset_minus(s->voters, qset_or(s->sync, s->active));
		if (!qset_empty(&gone)) {
			bool all_stream = qset_within(&s->sync, &s->active);
			quorum_update(w, qset_count(&s->voters) - qset_count(&gone) - s->numsync,
				qset_minus(s->voters, gone), -1, all_stream ? ADJUST : ADJUST_NO);
		}
		struct qset missing = qset_minus(qset_and(s->voters, s->active), s->sync);
		if (!qset_empty(&missing))
			sync_update(w, s->numsync, qset_or(s->sync, missing));
	} else if (qset_less(&s->voters, &s->sync)) {
		struct qset gone = qset_minus(qset_minus(s->sync, s->active), s->voters); /* R */
		struct qset rest = qset_minus(s->sync, gone), common = qset_and(rest, s->voters);
		if (!qset_empty(&gone) && !qset_empty(&rest) &&
			(qset_empty(&s->voters) || !qset_empty(&common)))
			sync_update(
				w, min(s->numsync, qset_count(&s->sync) - qset_count(&gone)), rest);
		struct qset added = qset_and(qset_minus(s->sync, s->voters), s->active);
		if (!qset_empty(&added)) {
			struct qset voters = qset_or(s->voters, added);
			quorum_update(w, qset_count(&voters) - s->numsync, voters, -1, ADJUST);
		}
		gone = qset_minus(s->sync, s->voters);
		if (!w->stop && !qset_empty(&gone))
			sync_update(w, min(s->numsync, qset_count(&s->sync) - qset_count(&gone)),
				qset_minus(s->sync, gone));
	}
}

/* Phase 3c: V = S; a change of the replication factor may be half done. */
static void phase_margin(struct work *w)
{
	struct quorum_state *s = &w->s;
	int voters = qset_count(&s->voters);
	if (s->quorum + min(s->numsync, s->confirmed) - voters > 0) {
		if (s->numsync > s->wanted)
			sync_update(w, max(s->wanted, voters - s->quorum), s->sync);
		else
			quorum_update(w, qset_count(&s->sync) - s->numsync, s->voters, -1, ADJUST);
	} else if (s->numsync == s->wanted && s->quorum + s->numsync > voters &&
		   s->numsync > s->confirmed) {
		quorum_update(w, qset_count(&s->sync) - s->numsync, s->voters, -1, ADJUST);
	}
}

/* Phase 4: standbys that went. */
static void phase_gone(struct work *w)
{
	struct quorum_state *s = &w->s;
	struct qset gone = qset_minus(s->sync, s->active), none = { { 0 } };
	if (qset_empty(&gone))
		return;
	if (qset_equal(&gone, &s->sync)) {
		quorum_update(w, 0, none, -1, ADJUST_NO);
		sync_update(w, 0, none);
		return;
	}
	if (s->quorum > 0) {
		struct qset drop = qset_pick(&gone, s->quorum, true),
			    sync = qset_minus(s->sync, drop);
		sync_update(w, min(max(s->wanted, s->numsync), qset_count(&sync)), sync);
		struct qset voters = qset_minus(s->voters, drop);
		gone = qset_and(gone, s->sync);
		quorum_update(w, qset_count(&voters) - s->numsync, voters, -1,
			qset_empty(&gone) ? ADJUST : ADJUST_NO);
	}
	if (w->stop || qset_empty(&gone))
		return;
	int numsync = s->numsync - qset_count(&gone);
	struct qset sync = qset_minus(s->sync, gone), voters = qset_minus(s->voters, gone);
	int decrease = numsync - min(s->wanted, qset_count(&sync));
	quorum_update(w, decrease != 0 ? min(decrease, qset_count(&voters) - 1) : 0, voters, -1,
		ADJUST_NO);
	sync_update(w, numsync, sync);
}

/* Phase 5: standbys that came. */
static void phase_new(struct work *w)
{
	struct quorum_state *s = &w->s;
	struct qset fresh = qset_minus(s->active, s->sync);
	if (w->stop || qset_empty(&fresh))
		return;
	int wanted = min(s->wanted, qset_count(&s->sync) + qset_count(&fresh)),
	    more = wanted - s->numsync;
	if (more > 0) {
		struct qset add = qset_empty(&s->sync) ? fresh : qset_pick(&fresh, more, false);
		if (!qset_empty(&s->sync))
			more = qset_count(&add);
		sync_update(w, s->numsync + more, qset_or(s->sync, add));
		struct qset voters = qset_or(s->voters, add);
		quorum_update(w, qset_count(&voters) - wanted, voters, -1, ADJUST);
		fresh = qset_minus(fresh, s->sync);
	}
	if (w->stop || qset_empty(&fresh))
		return;
	struct qset voters = qset_or(s->voters, fresh);
	quorum_update(w, qset_count(&voters) - wanted, voters, -1,
		wanted > s->confirmed ? ADJUST : ADJUST_NO);
	sync_update(w, wanted, qset_or(s->sync, fresh));
}

/* Phase 6: another synchronous_node_count. */
static void phase_factor(struct work *w)
{
	struct quorum_state *s = &w->s;
	if (w->stop)
		return;
	int more = min(s->wanted, qset_count(&s->sync)) - s->numsync;
	if (more > 0) {
		sync_update(w, s->numsync + more, s->sync);
		quorum_update(w, qset_count(&s->voters) - s->numsync, s->voters, -1, ADJUST);
	} else if (more < 0) {
		if (s->quorum - more < qset_count(&s->voters))
			quorum_update(w, qset_count(&s->voters) - s->numsync - more, s->voters, -1,
				s->wanted > s->confirmed ? ADJUST : ADJUST_NO);
		sync_update(w, s->numsync + more, s->sync);
	}
}

void quorum_resolve(const struct quorum_state *state, struct quorum_steps *out)
{
	memset(out, 0, sizeof(*out));
	struct work w = { .s = *state, .found = state, .out = out };
	struct quorum_state *s = &w.s;
	INVARIANT(s->wanted >= 1);
	s->numsync = min(s->numsync, qset_count(&s->sync));
	phase_leader(&w);
	/* Phase 2, see quorum.h: why it is not taken for granted. */
	struct qset streaming = qset_and(s->sync, s->active);
	if (s->assume_confirmed && s->confirmed == 0 && !qset_empty(&streaming))
		s->confirmed =
			max(0, min(qset_count(&streaming), qset_count(&s->voters) - s->quorum));
	if (!w.stop)
		phase_equal(&w);
	if (!w.stop)
		phase_margin(&w);
	if (!w.stop)
		phase_gone(&w);
	phase_new(&w);
	phase_factor(&w);
}
