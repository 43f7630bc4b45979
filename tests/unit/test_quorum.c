/* The quorum resolver: the contract's vectors, and a search of everything that interruption,
 * failover and changing members can reach with four names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "worker/ha/quorum.h"

/* ---- vectors ---- */

struct vector {
	const char *leader;
	int q;
	const char *voters;
	int n;
	const char *sync;
	int c;
	const char *active;
	int w;
	const char *me;
	const char *steps;
};

/* clang-format off: one vector, one line */
static const struct vector vectors[] = {
	{ "a", 0, "-", 0, "-", 0, "b", 1, "a", "S1 b; RESTART" },
	{ "a", 0, "-", 1, "b", 1, "b", 1, "a", "Q0 b" },
	{ "a", 0, "-", 0, "-", 0, "bcd", 2, "a", "S2 bcd; RESTART" },
	{ "a", 0, "-", 2, "bcd", 1, "bcd", 2, "a", "Q2 bcd" },
	{ "a", 2, "bcd", 2, "bcd", 2, "bcd", 2, "a", "Q1 bcd" },
	{ "a", 1, "bcd", 2, "bcd", 2, "bcd", 2, "a", "(none)" },
	{ "a", 0, "b", 1, "b", 1, "bc", 1, "a", "Q1 bc; S1 bc" },
	{ "a", 0, "b", 1, "b", 1, "bc", 2, "a", "S2 bc; Q1 bc" },
	{ "a", 1, "bc", 2, "bc", 2, "bc", 2, "a", "Q0 bc" },
	{ "a", 1, "bc", 1, "bc", 1, "b", 1, "a", "S1 b; Q0 b" },
	{ "a", 0, "bc", 2, "bc", 1, "b", 2, "a", "Q0 b; S1 b" },
	{ "a", 0, "b", 1, "b", 0, "-", 1, "a", "Q0 -; S0 -" },
	{ "a", 0, "b", 1, "b", 0, "c", 1, "a", "Q0 -; S1 c; RESTART" },
	{ "a", 2, "bcde", 2, "bcde", 2, "bc", 2, "a", "S2 bc; Q0 bc" },
	{ "a", 1, "bcd", 2, "bcd", 2, "bcd", 1, "a", "Q2 bcd; S1 bcd" },
	{ "a", 2, "bcd", 1, "bcd", 1, "bcd", 2, "a", "S2 bcd" },
	{ "a", 1, "bc", 1, "ac", 0, "c", 1, "b", "Q1 ac(L=b); S1 c; Q0 c" },
	{ "b", 1, "ac", 1, "ac", 0, "-", 1, "b", "Q0 -; S0 -" },
	{ "a", 1, "bc", 2, "abc", 0, "bc", 1, "d", "Q1 abc(L=d); S2 bc; Q1 bc; S1 bc" },
	{ "a", 0, "b", 2, "bc", 1, "bc", 2, "a", "Q1 bc" },
	{ "a", 1, "bc", 1, "b", 1, "bc", 1, "a", "S1 bc" },
	{ "a", 0, "bc", 1, "bc", 1, "bc", 1, "a", "Q1 bc" },
	{ "a", 1, "bc", 1, "b", 0, "c", 1, "a", "S1 c; Q1 c" },
};
/* clang-format on */

static struct qset letters(const char *text)
{
	struct qset s = { { 0 } };
	for (; *text != '\0' && *text != '-'; text++)
		qset_add(&s, *text - 'a');
	return s;
}

static void print_set(char *dst, size_t n, const struct qset *s)
{
	size_t used = 0;
	for (int i = 0; i < 26 && used + 1 < n; i++) {
		if (qset_has(s, i))
			dst[used++] = (char)('a' + i);
	}
	if (used == 0)
		dst[used++] = '-';
	dst[used] = '\0';
}

static void print_steps(char *dst, size_t n, const struct quorum_steps *steps, int leader)
{
	size_t used = 0;
	dst[0] = '\0';
	for (unsigned i = 0; i < steps->count; i++) {
		const struct quorum_step *s = &steps->step[i];
		char set[32], by[16] = "";
		print_set(set, sizeof(set), &s->set);
		if (s->kind == QUORUM_STEP_QUORUM && s->leader != leader) {
			snprintf(by, sizeof(by), "(L=%c)", 'a' + s->leader);
			leader = s->leader;
		}
		if (s->kind == QUORUM_STEP_RESTART)
			used += (size_t)snprintf(
				dst + used, n - used, "%sRESTART", i > 0 ? "; " : "");
		else
			used += (size_t)snprintf(dst + used, n - used, "%s%c%d %s%s",
				i > 0 ? "; " : "", s->kind == QUORUM_STEP_SYNC ? 'S' : 'Q', s->num,
				set, by);
	}
	if (steps->count == 0)
		snprintf(dst, n, "(none)");
}

static void test_vectors(void **state)
{
	(void)state;
	int bad = 0;
	for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		const struct vector *v = &vectors[i];
		struct quorum_state s = { .leader = v->leader[0] - 'a',
			.me = v->me[0] - 'a',
			.quorum = v->q,
			.voters = letters(v->voters),
			.numsync = v->n,
			.sync = letters(v->sync),
			.confirmed = v->c,
			.assume_confirmed = true, /* the vectors are the reference's */
			.active = letters(v->active),
			.wanted = v->w };
		struct quorum_steps steps;
		char text[200];
		quorum_resolve(&s, &steps);
		print_steps(text, sizeof(text), &steps, s.leader);
		if (strcmp(text, v->steps) != 0 || steps.broken) {
			print_error("vector %u: got \"%s\", want \"%s\"\n", i, text, v->steps);
			bad++;
		}
	}
	assert_int_equal(bad, 0);
}

/* ---- search ---- */

/* What the store and PostgreSQL hold, in few bits. */
struct small {
	uint8_t leader, me, q, voters, n, sync;
};

#define NAMES_MAX 5
#define INDEX_MAX (1u << 23)

static unsigned index_of(struct small s)
{
	return s.leader | s.me << 3 | s.q << 6 | s.n << 9 | (unsigned)s.voters << 12 |
	       (unsigned)s.sync << 17;
}

static struct small small_of(unsigned i)
{
	return (struct small){ .leader = i & 7,
		.me = i >> 3 & 7,
		.q = i >> 6 & 7,
		.n = i >> 9 & 7,
		.voters = i >> 12 & 31,
		.sync = i >> 17 & 31 };
}

static int bits(unsigned set)
{
	return __builtin_popcount(set);
}

/* I-a and I-b once more, in other words than the resolver's. */
static int invariants_hold(struct small s)
{
	unsigned electing = s.voters | 1u << s.leader, acking = s.sync | 1u << s.me;
	if (s.voters != 0 && bits(electing | acking) > s.q + s.n + 1)
		return 0;
	return (electing & ~acking) == 0 || (acking & ~electing) == 0;
}

static struct quorum_state expand(struct small s, unsigned active, int confirmed, int wanted)
{
	struct quorum_state q = { .leader = s.leader,
		.me = s.me,
		.quorum = s.q,
		.numsync = s.n,
		.confirmed = confirmed,
		.wanted = wanted };
	q.voters.w[0] = s.voters;
	q.sync.w[0] = s.sync;
	q.active.w[0] = active;
	return q;
}

struct search {
	uint8_t *seen; /* one bit would do; a byte is simpler to look at in a debugger */
	unsigned *queue;
	unsigned head, tail;
	unsigned names;
	unsigned long resolved;
	int bad;
};

static void complain(struct search *x, const char *what, struct small s, unsigned active, int c,
	int w, const struct quorum_steps *steps)
{
	if (x->bad++ > 5)
		return;
	char text[300];
	print_steps(text, sizeof(text), steps, s.leader);
	print_error("%s: L %c q %d V %x / n %d S %x / c %d A %x w %d me %c => %s\n", what,
		'a' + s.leader, s.q, (unsigned)s.voters, s.n, (unsigned)s.sync, c, active, w,
		'a' + s.me, text);
}

static void reach(struct search *x, struct small s)
{
	unsigned i = index_of(s);
	if (x->seen[i])
		return;
	x->seen[i] = 1;
	x->queue[x->tail++] = i;
}

/* Every prefix of the steps is a place where a crash may leave things. Returns where the whole pass
 * ends. */
static struct small apply(
	struct search *x, struct small s, unsigned active, int c, int w, int *out_restart)
{
	struct quorum_state q = expand(s, active, c, w);
	struct quorum_steps steps;
	quorum_resolve(&q, &steps);
	x->resolved++;
	struct small from = s;
	int was_good = invariants_hold(s);
	if (steps.broken)
		complain(x, "broken", from, active, c, w, &steps);
	*out_restart = 0;
	for (unsigned i = 0; i < steps.count; i++) {
		const struct quorum_step *t = &steps.step[i];
		if (t->kind == QUORUM_STEP_RESTART) {
			*out_restart = 1;
			break;
		}
		if (t->kind == QUORUM_STEP_SYNC) {
			s.n = (uint8_t)t->num;
			s.sync = (uint8_t)t->set.w[0];
			if ((s.sync == 0) != (s.n == 0) || s.n > bits(s.sync))
				complain(x, "ANY 0 or too many", from, active, c, w, &steps);
		} else {
			s.leader = (uint8_t)t->leader;
			s.q = (uint8_t)t->num;
			s.voters = (uint8_t)t->set.w[0];
			was_good = 1;
		}
		if (was_good && !invariants_hold(s))
			complain(x, "invariant", from, active, c, w, &steps);
		reach(x, s);
	}
	return s;
}

static int is_goal(struct small s, unsigned active, int w)
{
	int n = w < bits(active) ? w : bits(active);
	return s.leader == s.me && s.voters == active && s.sync == active && s.n == n &&
	       s.q == bits(active) - n;
}

/* 5.6, quorum: what a node that takes over sets before it promotes. */
static struct small take_over(struct small s, unsigned me)
{
	unsigned members = s.voters | 1u << s.leader, sync = members & ~(1u << me);
	int n = bits(members) - s.q - 1 + ((members >> me & 1) == 0);
	if (n > bits(sync))
		n = bits(sync);
	if (n < 1 && sync != 0)
		n = 1;
	s.sync = (uint8_t)sync;
	s.n = (uint8_t)(sync == 0 ? 0 : n);
	s.me = (uint8_t)me;
	return s;
}

static void explore(struct search *x, struct small s, unsigned w_max)
{
	unsigned all = (1u << x->names) - 1, others = all & ~(1u << s.me);
	for (unsigned active = 0; active <= all; active++) {
		if ((active & ~others) != 0)
			continue;
		for (unsigned w = 1; w <= w_max; w++) {
			int restart;
			for (int c = 0; c <= bits(active & s.sync); c++)
				apply(x, s, active, c, (int)w, &restart);
			struct small t = s;
			int pass = 0;
			for (; pass < 3 && !is_goal(t, active, (int)w); pass++)
				t = apply(x, t, active, bits(active & t.sync), (int)w, &restart);
			if (!is_goal(t, active, (int)w)) {
				struct quorum_steps none = { .count = 0 };
				complain(x, "goal not reached", s, active, bits(active & s.sync),
					(int)w, &none);
			}
		}
	}
	for (unsigned me = 0; me < x->names; me++)
		reach(x, take_over(s, me));
}

static void search_new(struct search *x, unsigned names)
{
	*x = (struct search){ .names = names };
	x->seen = calloc(INDEX_MAX, 1);
	x->queue = malloc(INDEX_MAX * sizeof(*x->queue));
	assert_non_null(x->seen);
	assert_non_null(x->queue);
}

static void search_free(struct search *x)
{
	free(x->seen);
	free(x->queue);
}

static void test_four_names(void **state)
{
	(void)state;
	struct search x;
	search_new(&x, 4);
	/* A fresh leader; and one that comes from priority mode, whose voters are a part of what
	 * must confirm. */
	for (unsigned sync = 0; sync < 16; sync += 2) {
		for (unsigned voters = 0; voters < 16; voters += 2) {
			if ((voters & ~sync) == 0)
				reach(&x, (struct small){ .voters = (uint8_t)voters,
						  .sync = (uint8_t)sync,
						  .n = (uint8_t)bits(sync) });
		}
		for (int n = 1; n < bits(sync); n++)
			reach(&x, (struct small){ .sync = (uint8_t)sync, .n = (uint8_t)n });
	}
	while (x.head < x.tail)
		explore(&x, small_of(x.queue[x.head++]), 3);
	print_message("%u states, %lu resolutions\n", x.tail, x.resolved);
	assert_int_equal(x.bad, 0);
	assert_true(x.tail > 500);
	search_free(&x);
}

/* Five names: random walks instead of everything. */
static void test_five_names(void **state)
{
	(void)state;
	struct search x;
	search_new(&x, 5);
	uint64_t seed = 0x9e3779b97f4a7c15u;
	struct small s = { 0 };
	for (unsigned i = 0; i < 20000; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		unsigned active = (unsigned)(seed >> 8) & 31 & ~(1u << s.me);
		unsigned present = active & s.sync;
		int w = 1 + (int)(seed >> 16 & 3), c = (int)(seed >> 20 & 7), restart;
		if (c > bits(present))
			c = bits(present);
		if ((seed >> 24 & 15) == 0)
			s = take_over(s, (unsigned)(seed >> 32) % 5);
		else if ((seed >> 28 & 15) == 0)
			memset(&s, 0, sizeof(s));
		else
			s = apply(&x, s, active, c, w, &restart);
		/* Sometimes go on from any place that was passed before. */
		if ((seed >> 40 & 7) == 0 && x.tail > 0)
			s = small_of(x.queue[(unsigned)(seed >> 44) % x.tail]);
	}
	assert_int_equal(x.bad, 0);
	search_free(&x);
}

/* A state that somebody else broke is repaired by the first write, never made worse. */
static void test_repair(void **state)
{
	(void)state;
	struct search x;
	search_new(&x, 4);
	for (unsigned i = 0; i < INDEX_MAX; i += 1) {
		struct small s = small_of(i);
		if (s.leader != 0 || s.me != 0 || s.q > 3 || s.n > 3 || s.voters > 15 ||
			s.sync > 15 || (s.voters & 1) || (s.sync & 1) || s.n > bits(s.sync) ||
			(s.n == 0) != (s.sync == 0))
			continue;
		for (unsigned active = 0; active < 16; active += 2) {
			int restart;
			struct small t = s;
			for (int pass = 0; pass < 4 && !is_goal(t, active, 2); pass++)
				t = apply(&x, t, active, bits(active & t.sync), 2, &restart);
			struct quorum_steps none = { .count = 0 };
			if (!is_goal(t, active, 2))
				complain(&x, "not repaired", s, active, 0, 2, &none);
		}
	}
	assert_int_equal(x.bad, 0);
	search_free(&x);
}

/* X25, counted out: whoever may win under the new /sync has among its electors one that holds what
 * was acknowledged under older settings, be it a complete one or as the old /sync promised. */
static bool older_kept(const struct quorum_state *s, const struct quorum_step *step)
{
	for (unsigned m = 0; m < 16; m++) { /* electors: a set of a..d */
		int old = 0, now = 0;
		bool complete = false;
		for (int i = 0; i < 4; i++) {
			if (!(m >> i & 1))
				continue;
			now += i == s->me || qset_has(&step->set, i);
			old += i == s->me || qset_has(&s->voters, i);
			complete |= (i == s->me || qset_has(&step->set, i)) &&
				    !qset_has(&s->lagging, i);
		}
		if (now == __builtin_popcount(m) && now > step->num && !complete &&
			old <= s->quorum)
			return false;
	}
	return true;
}

static void test_older_commits(void **state)
{
	(void)state;
	unsigned lowered = 0, checked = 0;
	for (unsigned k = 0; k < 8 * 8 * 8 * 8 * 4 * 4 * 3; k++) {
		unsigned r = k;
		struct qset part[4] = { { { 0 } } };
		for (unsigned p = 0; p < 4; p++, r /= 8)
			part[p].w[0] = (r % 8) << 1; /* of b, c, d; a is the leader */
		struct quorum_state s = { .voters = part[0],
			.sync = part[1],
			.active = part[2],
			.lagging = part[3],
			.quorum = (int)(r % 4),
			.numsync = (int)(r / 4 % 4),
			.wanted = 1 + (int)(r / 16) };
		struct qset complete = qset_minus(s.active, s.lagging);
		complete = qset_and(complete, s.sync);
		s.confirmed = qset_count(&complete);
		if (!quorum_invariants(&s) || s.numsync > qset_count(&s.sync))
			continue;
		struct quorum_steps steps;
		quorum_resolve(&s, &steps);
		assert_false(steps.broken);
		if (steps.count == 0 || steps.step[0].kind != QUORUM_STEP_QUORUM)
			continue;
		checked++;
		lowered += steps.step[0].num < s.quorum;
		assert_true(older_kept(&s, &steps.step[0]));
	}
	assert_true(checked > 1000 && lowered > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_four_names),
		cmocka_unit_test(test_five_names),
		cmocka_unit_test(test_repair),
		cmocka_unit_test(test_older_commits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
