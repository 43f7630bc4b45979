/* Quorum commit: in which order /sync and synchronous_standby_names may change (ha 5.7). Names are
 * bits of a set; the bit order is the sort order of the names. Pure: used by sync.c, and searched
 * exhaustively by its test. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define QUORUM_NAMES                                                                               \
	384 /* voters, listed standbys and members may all be different ones: 3 * LIMIT_MEMBERS */
#define QUORUM_STEPS_MAX 24

struct qset {
	uint64_t w[QUORUM_NAMES / 64];
};

struct quorum_state {
	int leader, me;	    /* bits of /sync's leader and of this node */
	int quorum;	    /* q */
	struct qset voters; /* V */
	int numsync;	    /* n: how many must confirm */
	struct qset sync;   /* S: names in synchronous_standby_names */
	int confirmed;	    /* c */
	/* Phase 2 of the contract: with c = 0 take #V - q of the streaming names for confirmed.
	 * X14: worker/ha does not. It holds for commits of the leader that asks, not after a
	 * promotion: there the complete voter may be the new leader itself, and a standby that lags
	 * would be let in with no votes (S5; found by the simulator). Without it q stays higher
	 * until a standby confirmed, which takes one answer of it. */
	bool assume_confirmed;
	/* X25: names that are not proven to hold what was acknowledged under earlier settings. n
	 * and S speak for commits of now; whoever got on without the older ones must not be let in
	 * with fewer votes than /sync asks for today. Empty: all are complete (the contract's
	 * vectors). */
	struct qset lagging;
	struct qset active; /* A: who should be there */
	int wanted;	    /* w: synchronous_node_count, at least 1 */
};

enum quorum_step_kind {
	QUORUM_STEP_SYNC = 1, /* set synchronous_standby_names: ANY num (set) */
	QUORUM_STEP_QUORUM,   /* write /sync: leader, quorum num, voters set */
	QUORUM_STEP_RESTART,  /* nothing can be written yet: look again in a second */
};

struct quorum_step {
	enum quorum_step_kind kind;
	int leader, num;
	struct qset set;
};

struct quorum_steps {
	struct quorum_step step[QUORUM_STEPS_MAX];
	unsigned count;
	bool repaired; /* the state that was found broke an invariant */
	bool broken;   /* a step would have: it and all after it were dropped (not reachable, as far
			  as searched) */
};

void quorum_resolve(const struct quorum_state *state, struct quorum_steps *out);
/* I-a and I-b of 5.7. */
bool quorum_invariants(const struct quorum_state *state);

void qset_add(struct qset *s, int bit);
void qset_del(struct qset *s, int bit);
bool qset_has(const struct qset *s, int bit);
int qset_count(const struct qset *s);
bool qset_empty(const struct qset *s);
bool qset_equal(const struct qset *a, const struct qset *b);
struct qset qset_and(struct qset a, struct qset b);
struct qset qset_or(struct qset a, struct qset b);
struct qset qset_minus(struct qset a, struct qset b);
