/* worker/ha/keeper_rules: the lease arithmetic and the orders that safety rests on (DESIGN 2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/ha/keeper_rules.h"

struct fix {
	struct keeper k;
	struct keeper_plan plan;
};

static const struct keeper_action *find(const struct fix *f, enum keeper_action_kind kind)
{
	for (unsigned i = 0; i < f->plan.count; i++)
		if (f->plan.actions[i].kind == kind)
			return &f->plan.actions[i];
	return NULL;
}

static void step(struct fix *f, int64_t now, struct keeper_event ev)
{
	keeper_step(&f->k, &ev, now, &f->plan);
}

static void config(struct fix *f, int64_t now, bool paused)
{
	step(f, now,
		(struct keeper_event){ .kind = KEEPER_CONFIG,
			.ttl_ms = 30000,
			.loop_wait_ms = 10000,
			.retry_timeout_ms = 10000,
			.paused = paused });
}

static void ack(struct fix *f, int64_t now)
{
	step(f, now,
		(struct keeper_event){ .kind = KEEPER_ACK, .seq = f->k.seq, .accepted = true });
}

static void answer(
	struct fix *f, int64_t now, enum keeper_op op, enum ha_outcome outcome, int64_t sent)
{
	step(f, now,
		(struct keeper_event){ .kind = KEEPER_ANSWER,
			.op = op,
			.epoch = f->k.epoch,
			.outcome = outcome,
			.sent_at_ms = sent,
			.lease_ttl_ms = 30000,
			.version = 7 });
}

/* Starts at 1000, acquires at 2000 (answer 2500), acknowledged at 2510. */
static void held(struct fix *f)
{
	keeper_init(&f->k, 0, 0, 1000);
	config(f, 1000, false);
	step(f, 1500, (struct keeper_event){ .kind = KEEPER_SNAPSHOT, .revision = 5 });
	assert_int_equal(keeper_lock(&f->k, 1500), LOCK_NONE);
	step(f, 2000, (struct keeper_event){ .kind = KEEPER_ACQUIRE, .deadline_ms = 12000 });
	assert_int_equal(find(f, KEEPER_SEND)->op, KEEPER_OP_ACQUIRE);
	answer(f, 2500, KEEPER_OP_ACQUIRE, HA_OUT_OK, 2000);
	assert_null(find(f, KEEPER_DONE)); /* not before the supervisor has it */
	assert_int_equal(find(f, KEEPER_REPORT)->lease_until_ms, 32000);
	assert_int_equal(keeper_lock(&f->k, 2505), LOCK_UNCERTAIN);
	ack(f, 2510);
	assert_int_equal(find(f, KEEPER_DONE)->outcome, HA_OUT_OK);
	assert_int_equal(keeper_lock(&f->k, 2510), LOCK_HELD);
	step(f, 2510,
		(struct keeper_event){
			.kind = KEEPER_VERDICT, .verdict = VERDICT_HOLD, .at_ms = 2510 });
}

static void test_renew(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	assert_int_equal(keeper_next_ms(&f.k, 2510),
		12000); /* loop_wait after the send, not after the answer */
	step(&f, 12000, (struct keeper_event){ .kind = KEEPER_TICK });
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_RENEW);
	assert_false(find(&f, KEEPER_SEND)->other);
	step(&f, 12300, (struct keeper_event){ .kind = KEEPER_TICK });
	assert_true(find(&f, KEEPER_SEND)->other);
	answer(&f, 13000, KEEPER_OP_RENEW, HA_OUT_OK, 12000); /* the first one still counts */
	assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 42000);
	answer(&f, 13001, KEEPER_OP_RENEW, HA_OUT_OK, 11000); /* an older one never goes back */
	assert_int_equal(f.k.lease_until_ms, 42000);
	assert_int_equal(keeper_gentle_ms(&f.k), 42000 - 1500 - 5000);
}

struct open_sends {
	unsigned repeats, usual, open;
	int64_t ends[KEEPER_OPEN_MAX], last_ms, longest_ms;
};

static void note_send(struct fix *f, struct open_sends *o, int64_t now)
{
	const struct keeper_action *a = find(f, KEEPER_SEND);
	if (a == NULL)
		return;
	if (o->last_ms != 0 && now - o->last_ms > o->longest_ms)
		o->longest_ms = now - o->last_ms;
	o->last_ms = now;
	assert_true(o->open < KEEPER_OPEN_MAX);
	o->ends[o->open++] = a->deadline_ms;
	assert_int_equal(a->deadline_ms, now + (a->other ? 1000 : 5000));
	if (a->other)
		o->repeats++;
	else
		o->usual++;
}

/* Nothing answers: repeats on a steady beat, the usual one beside them, never more than a few open.
 */
static void test_repeats(void **state)
{
	(void)state;
	struct fix f;
	struct open_sends o = { .repeats = 0 };
	held(&f);
	for (int64_t now = 12000; now < 24000; now = keeper_next_ms(&f.k, now)) {
		for (unsigned i = 0; i < o.open;) {
			if (o.ends[i] > now) {
				i++;
				continue;
			}
			o.ends[i] = o.ends[--o.open];
			answer(&f, now, KEEPER_OP_RENEW, HA_OUT_UNKNOWN, 12000);
			note_send(&f, &o, now);
		}
		step(&f, now,
			(struct keeper_event){
				.kind = KEEPER_VERDICT, .verdict = VERDICT_HOLD, .at_ms = now });
		note_send(&f, &o, now);
	}
	assert_int_equal(o.longest_ms, 300); /* after the first; then each 200 */
	assert_int_equal(o.usual, 2);
	assert_in_range(o.repeats, 55, 60);
}

/* A repeat of the adoption that comes too late says nothing against the first one. */
static void test_repeated_adoption(void **state)
{
	(void)state;
	struct fix f;
	keeper_init(&f.k, 0, 0, 1000);
	config(&f, 1000, false);
	step(&f, 1500,
		(struct keeper_event){ .kind = KEEPER_SNAPSHOT,
			.revision = 5,
			.leader_is_me = true,
			.leader_version = 5 });
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_ADOPT);
	step(&f, 1800, (struct keeper_event){ .kind = KEEPER_TICK });
	assert_true(find(&f, KEEPER_SEND)->other);
	answer(&f, 1900, KEEPER_OP_ADOPT, HA_OUT_OK, 1500);
	assert_int_equal(f.k.key_version, 7);
	answer(&f, 1950, KEEPER_OP_ADOPT, HA_OUT_CONFLICT, 1800);
	assert_int_equal(f.k.key_version, 7);
	assert_int_equal(f.k.lease_until_ms, 31500);
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_RENEW); /* looked at at once */
}

static void test_unknown_and_lost(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	step(&f, 12000, (struct keeper_event){ .kind = KEEPER_TICK });
	answer(&f, 12100, KEEPER_OP_RENEW, HA_OUT_UNKNOWN, 12000);
	assert_int_equal(f.k.lease_until_ms, 32000);
	assert_int_equal(keeper_lock(&f.k, 13000), LOCK_UNCERTAIN);
	answer(&f, 13100, KEEPER_OP_RENEW, HA_OUT_CONFLICT, 12300);
	assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 0);
	assert_non_null(find(&f, KEEPER_WAKE));
	assert_int_equal(keeper_lock(&f.k, 13100), LOCK_LOST);
	step(&f, 13200,
		(struct keeper_event){ .kind = KEEPER_ANSWER,
			.op = KEEPER_OP_RENEW,
			.epoch = f.k.epoch - 1,
			.outcome = HA_OUT_OK,
			.sent_at_ms = 12400,
			.lease_ttl_ms = 30000 });
	assert_int_equal(f.k.lease_until_ms, 0); /* of an earlier epoch */
}

static void test_release_order(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	step(&f, 5000, (struct keeper_event){ .kind = KEEPER_RELEASE, .deadline_ms = 9000 });
	assert_null(find(&f, KEEPER_SEND));
	assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 0);
	ack(&f, 5001);
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_RELEASE);
	assert_int_equal(find(&f, KEEPER_SEND)->version, 7);
	step(&f, 9000, (struct keeper_event){ .kind = KEEPER_TICK });
	assert_int_equal(find(&f, KEEPER_DONE)->outcome, HA_OUT_UNKNOWN);
	assert_int_equal(keeper_lock(&f.k, 9000), LOCK_NONE);
	/* The release may still arrive: that revision of the key is not ours before it was moved.
	 */
	step(&f, 9100,
		(struct keeper_event){
			.kind = KEEPER_VERDICT, .verdict = VERDICT_HOLD, .at_ms = 9100 });
	step(&f, 9200,
		(struct keeper_event){ .kind = KEEPER_SNAPSHOT,
			.leader_is_me = true,
			.session_is_mine = true,
			.leader_version = 7,
			.revision = 20 });
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_ADOPT);
	assert_int_equal(find(&f, KEEPER_SEND)->version, 7);
}

static void seen(struct fix *f, int64_t now, int64_t leader_version, int64_t revision)
{
	step(f, now,
		(struct keeper_event){ .kind = KEEPER_SNAPSHOT,
			.leader_is_me = leader_version != 0,
			.session_is_mine = leader_version != 0,
			.no_leader = leader_version == 0,
			.leader_version = leader_version,
			.revision = revision });
}

/* News from before the release come after its answer: the key that they show is no more, and nobody
 * may act as if he had it. */
static void test_old_news_after_release(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	step(&f, 5000, (struct keeper_event){ .kind = KEEPER_RELEASE, .deadline_ms = 9000 });
	ack(&f, 5001);
	answer(&f, 5100, KEEPER_OP_RELEASE, HA_OUT_OK, 5001);
	step(&f, 5100,
		(struct keeper_event){
			.kind = KEEPER_VERDICT, .verdict = VERDICT_HOLD, .at_ms = 5100 });
	seen(&f, 5110, 7, 20);
	assert_null(find(&f, KEEPER_SEND));
	assert_int_equal(keeper_lock(&f.k, 5110), LOCK_NONE);
	seen(&f, 5120, 0, 21);
	assert_int_equal(keeper_lock(&f.k, 5120), LOCK_NONE);
	/* A later one of ours counts: an acquire without an answer did happen. */
	seen(&f, 5130, 22, 22);
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_RENEW);
	assert_int_equal(keeper_lock(&f.k, 5130), LOCK_UNCERTAIN);
}

static void test_verdict_stale(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	assert_true(keeper_verdict_holds(&f.k, 2510 + 30000));
	assert_false(keeper_verdict_holds(&f.k, 2510 + 30001));
	step(&f, 2600,
		(struct keeper_event){
			.kind = KEEPER_VERDICT, .verdict = VERDICT_DROP, .at_ms = 2600 });
	step(&f, 12000, (struct keeper_event){ .kind = KEEPER_TICK });
	assert_null(find(&f, KEEPER_SEND));
	assert_true(keeper_next_ms(&f.k, 12000) == INT64_MAX);
}

static void test_adopt_first(void **state)
{
	(void)state;
	struct fix f;
	keeper_init(&f.k, 41, 20000, 1000);
	config(&f, 1000, false);
	assert_int_equal(keeper_lock(&f.k, 1000), LOCK_UNCERTAIN);
	struct keeper_event snap = {
		.kind = KEEPER_SNAPSHOT, .leader_is_me = true, .leader_version = 9, .revision = 9
	};
	step(&f, 1100, snap);
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_ADOPT);
	assert_int_equal(find(&f, KEEPER_SEND)->version, 9);
	answer(&f, 1200, KEEPER_OP_ADOPT, HA_OUT_OK, 1100);
	assert_int_equal(find(&f, KEEPER_REPORT)->seq, 42);
	ack(&f, 1201);
	assert_int_equal(keeper_lock(&f.k, 1201), LOCK_HELD);
	/* Somebody else's key in a snapshot from after our write is proof; from before it, nothing.
	 */
	struct keeper_event gone = { .kind = KEEPER_SNAPSHOT, .revision = 6 };
	step(&f, 1300, gone);
	assert_int_equal(keeper_lock(&f.k, 1300), LOCK_HELD);
	gone.revision = 11;
	step(&f, 1400, gone);
	assert_int_equal(keeper_lock(&f.k, 1400), LOCK_LOST);
}

static void test_failsafe_and_pause(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	step(&f, 28000, (struct keeper_event){ .kind = KEEPER_FAILSAFE, .at_ms = 27500 });
	assert_int_equal(find(&f, KEEPER_REPORT)->policy, POLICY_FAILSAFE);
	assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 57500);
	ack(&f, 28010);
	answer(&f, 40000, KEEPER_OP_RENEW, HA_OUT_CONFLICT, 39000);
	assert_null(find(&f, KEEPER_REPORT)); /* the members' word still stands */
	assert_int_equal(keeper_lease_until_ms(&f.k), 57500);
	held(&f);
	config(&f, 3000, true);
	assert_int_equal(find(&f, KEEPER_REPORT)->policy, POLICY_PAUSED);
	config(&f, 3100, false);
	assert_int_equal(find(&f, KEEPER_REPORT)->policy, POLICY_ENFORCE);
}

/* The supervisor refuses lease 0 while PostgreSQL may write: asked again until it accepts, and then
 * the loss is over. */
static void test_loss_is_told(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	step(&f, 5000, (struct keeper_event){ .kind = KEEPER_SNAPSHOT, .revision = 99 });
	assert_int_equal(keeper_lock(&f.k, 5000), LOCK_LOST);
	step(&f, 5001,
		(struct keeper_event){ .kind = KEEPER_ACK, .seq = f.k.seq, .accepted = false });
	assert_int_equal(keeper_lock(&f.k, 5001), LOCK_LOST);
	assert_int_equal(keeper_next_ms(&f.k, 5001), 5500);
	step(&f, 5500, (struct keeper_event){ .kind = KEEPER_TICK });
	assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 0);
	ack(&f, 5501);
	assert_int_equal(keeper_lock(&f.k, 5501), LOCK_NONE);
	assert_true(keeper_next_ms(&f.k, 5501) == INT64_MAX);
}

/* A shorter ttl cuts the lease before the store may hear of it. */
static void test_ttl_shrinks(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	step(&f, 5000,
		(struct keeper_event){ .kind = KEEPER_CONFIG,
			.ttl_ms = 10000,
			.loop_wait_ms = 2000,
			.retry_timeout_ms = 3000 });
	assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 15000);
	assert_null(find(&f, KEEPER_SET_TTL));
	ack(&f, 5001);
	assert_int_equal(find(&f, KEEPER_SET_TTL)->ttl_ms, 10000);
	config(&f, 6000, false);
	assert_int_equal(find(&f, KEEPER_SET_TTL)->ttl_ms, 30000);
	assert_int_equal(f.k.lease_until_ms, 15000);
}

/* X2: a key in my name that another lease holds. */
static void test_adopt_by_command(void **state)
{
	(void)state;
	struct fix f;
	keeper_init(&f.k, 0, 0, 1000);
	config(&f, 1000, false);
	step(&f, 1100, (struct keeper_event){ .kind = KEEPER_SNAPSHOT, .revision = 5 });
	step(&f, 1200,
		(struct keeper_event){
			.kind = KEEPER_ACQUIRE, .leader_version = 9, .deadline_ms = 9000 });
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_ADOPT);
	answer(&f, 1300, KEEPER_OP_ADOPT, HA_OUT_OK, 1200);
	ack(&f, 1301);
	assert_int_equal(find(&f, KEEPER_DONE)->outcome, HA_OUT_OK);
}

/* X67: the next renewal is not waited for; without a key there is nothing to prove. */
static void test_doubt(void **state)
{
	(void)state;
	struct fix f;
	struct keeper_event doubt = { .kind = KEEPER_DOUBT };
	keeper_init(&f.k, 0, 0, 1000);
	config(&f, 1000, false);
	step(&f, 1100, doubt);
	assert_null(find(&f, KEEPER_SEND));
	step(&f, 1100, (struct keeper_event){ .kind = KEEPER_SNAPSHOT, .revision = 5 });
	step(&f, 1200, (struct keeper_event){ .kind = KEEPER_ACQUIRE, .deadline_ms = 9000 });
	answer(&f, 1300, KEEPER_OP_ACQUIRE, HA_OUT_OK, 1200);
	ack(&f, 1301);
	step(&f, 1302,
		(struct keeper_event){
			.kind = KEEPER_VERDICT, .verdict = VERDICT_HOLD, .at_ms = 1302 });
	step(&f, 1400, (struct keeper_event){ .kind = KEEPER_TICK });
	bool regular = find(&f, KEEPER_SEND) != NULL;
	step(&f, 1500, doubt);
	assert_false(regular);
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_RENEW);
}

/* The end of a pause waits for the proof of a standby, for a lease, or for a quarter of the ttl. */
static void test_resume_after_proof(void **state)
{
	(void)state;
	enum { PROOF, TIME, LEASE, FRESH, CASES };
	for (int how = PROOF; how < CASES; how++) {
		struct fix f;
		struct keeper_event resume = { .kind = KEEPER_CONFIG,
			.ttl_ms = 30000,
			.loop_wait_ms = 10000,
			.retry_timeout_ms = 10000,
			.unproven = how != FRESH };
		keeper_init(&f.k, 0, 0, 1000);
		config(&f, 1000, true);
		ack(&f, 1001);
		assert_int_equal(f.k.report_policy, POLICY_PAUSED);
		step(&f, 1500, (struct keeper_event){ .kind = KEEPER_SNAPSHOT, .revision = 5 });
		step(&f, 2000, resume);
		if (how == FRESH) {
			assert_int_equal(find(&f, KEEPER_REPORT)->policy, POLICY_ENFORCE);
			continue;
		}
		assert_non_null(find(&f, KEEPER_PROVE));
		assert_null(find(&f, KEEPER_REPORT));
		step(&f, 2100, resume); /* asked once, and the wait does not begin again */
		assert_null(find(&f, KEEPER_PROVE));
		assert_int_equal(keeper_next_ms(&f.k, 2100), 9500);
		if (how == PROOF) {
			step(&f, 2200, (struct keeper_event){ .kind = KEEPER_PROOF });
		} else if (how == TIME) {
			step(&f, 9499, (struct keeper_event){ .kind = KEEPER_TICK });
			assert_null(find(&f, KEEPER_REPORT));
			step(&f, 9500, (struct keeper_event){ .kind = KEEPER_TICK });
		} else {
			step(&f, 2200,
				(struct keeper_event){
					.kind = KEEPER_ACQUIRE, .deadline_ms = 12000 });
			answer(&f, 2300, KEEPER_OP_ACQUIRE, HA_OUT_OK, 2200);
		}
		assert_int_equal(find(&f, KEEPER_REPORT)->policy, POLICY_ENFORCE);
		assert_int_equal(f.k.resume_at_ms, 0);
	}
}

/* The key vanishes under a lease that lasts: created again at once, or lost. */
static void test_regain(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		enum ha_outcome outcome; /* NONE: no answer comes */
		bool by_renewal, paused, late, stale, taken, regains;
	} rows[] = {
		{ "seen, created again", HA_OUT_OK, .regains = true },
		{ "told by a renewal", HA_OUT_OK, .by_renewal = true, .regains = true },
		{ .what = "somebody was faster", .outcome = HA_OUT_CONFLICT },
		{ .what = "refused", .outcome = HA_OUT_DENIED },
		{ .what = "lost on the way", .outcome = HA_OUT_UNKNOWN },
		{ .what = "no answer", .outcome = HA_OUT_NONE },
		{ "another's in the next view", HA_OUT_NONE, .taken = true },
		{ "too late in the lease", HA_OUT_OK, .late = true },
		{ "nobody decides", HA_OUT_OK, .stale = true },
		{ "in pause", HA_OUT_OK, .paused = true },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct fix f;
		held(&f);
		config(&f, 2600, rows[i].paused);
		ack(&f, 2601);
		int64_t now = rows[i].late ? 25100 : 3000;
		if (!rows[i].stale)
			step(&f, now - 1,
				(struct keeper_event){ .kind = KEEPER_VERDICT,
					.verdict = VERDICT_HOLD,
					.at_ms = now - 1 });
		else
			step(&f, now - 1,
				(struct keeper_event){ .kind = KEEPER_VERDICT,
					.verdict = VERDICT_DROP,
					.at_ms = now - 1 });
		if (rows[i].by_renewal)
			step(&f, now,
				(struct keeper_event){ .kind = KEEPER_ANSWER,
					.op = KEEPER_OP_RENEW,
					.epoch = f.k.epoch,
					.outcome = HA_OUT_CONFLICT,
					.lease_gone = true });
		else
			step(&f, now,
				(struct keeper_event){ .kind = KEEPER_SNAPSHOT,
					.no_leader = true,
					.revision = 20 });
		bool tries = !rows[i].late && !rows[i].stale && !rows[i].paused;
		if (tries) {
			assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_ACQUIRE);
			assert_int_equal(find(&f, KEEPER_SEND)->deadline_ms, now + 500);
			assert_null(find(&f, KEEPER_REPORT)); /* the lease stays what it was */
			assert_int_equal(keeper_lock(&f.k, now), LOCK_UNCERTAIN);
			assert_true(keeper_busy(&f.k));
			assert_int_equal(keeper_next_ms(&f.k, now), now + 500);
		}
		if (tries && rows[i].taken)
			step(&f, now + 10,
				(struct keeper_event){ .kind = KEEPER_SNAPSHOT, .revision = 21 });
		else if (tries && rows[i].outcome == HA_OUT_NONE)
			step(&f, now + 500, (struct keeper_event){ .kind = KEEPER_TICK });
		else if (tries)
			answer(&f, now + 20, KEEPER_OP_ACQUIRE, rows[i].outcome, now + 5);
		if (rows[i].regains) {
			assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, now + 5 + 30000);
			assert_int_equal(f.k.key_version, 7);
			ack(&f, now + 30);
			assert_int_equal(keeper_lock(&f.k, now + 30), LOCK_HELD);
		} else {
			assert_int_equal(find(&f, KEEPER_REPORT)->lease_until_ms, 0);
			assert_int_equal(keeper_lock(&f.k, now + 30), LOCK_LOST);
		}
	}
}

/* A bootstrap that asks again and again leaves an adoption under way alone. */
static void test_key_of(void **state)
{
	(void)state;
	struct fix f;
	keeper_init(&f.k, 0, 0, 1000);
	config(&f, 1000, false);
	assert_int_equal(keeper_key_of(&f.k, 1000), KEEPER_KEY_ASK);
	step(&f, 1500,
		(struct keeper_event){ .kind = KEEPER_SNAPSHOT,
			.revision = 5,
			.leader_is_me = true,
			.leader_version = 5 });
	assert_int_equal(find(&f, KEEPER_SEND)->op, KEEPER_OP_ADOPT);
	assert_int_equal(keeper_key_of(&f.k, 1700), KEEPER_KEY_WAIT);
	answer(&f, 1900, KEEPER_OP_ADOPT, HA_OUT_OK, 1500);
	assert_int_equal(
		keeper_key_of(&f.k, 1900), KEEPER_KEY_WAIT); /* not before the supervisor has it */
	ack(&f, 1901);
	assert_int_equal(keeper_key_of(&f.k, 1901), KEEPER_KEY_MINE);
	step(&f, 2000, (struct keeper_event){ .kind = KEEPER_RELEASE, .deadline_ms = 9000 });
	assert_int_equal(keeper_key_of(&f.k, 2000), KEEPER_KEY_WAIT);
	ack(&f, 2001);
	assert_int_equal(keeper_key_of(&f.k, 2001), KEEPER_KEY_WAIT);
	answer(&f, 2100, KEEPER_OP_RELEASE, HA_OUT_OK, 2001);
	assert_int_equal(keeper_key_of(&f.k, 2100), KEEPER_KEY_ASK);
	step(&f, 2200, (struct keeper_event){ .kind = KEEPER_ACQUIRE, .deadline_ms = 9000 });
	assert_int_equal(keeper_key_of(&f.k, 2300), KEEPER_KEY_WAIT);
}

static void test_no_spin(void **state)
{
	(void)state;
	struct fix f;
	held(&f);
	int64_t now = 2510;
	int sends = 0;
	for (int i = 0; i < 400 && now < 32510; i++) {
		now = keeper_next_ms(&f.k, now);
		step(&f, now, (struct keeper_event){ .kind = KEEPER_TICK });
		const struct keeper_action *a = find(&f, KEEPER_SEND);
		if (a) {
			sends++;
			answer(&f, now + 1, KEEPER_OP_RENEW, HA_OUT_UNKNOWN, now);
		}
	}
	assert_true(now >= 32000);
	assert_in_range(sends, 10, 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_renew),
		cmocka_unit_test(test_repeats),
		cmocka_unit_test(test_repeated_adoption),
		cmocka_unit_test(test_unknown_and_lost),
		cmocka_unit_test(test_release_order),
		cmocka_unit_test(test_old_news_after_release),
		cmocka_unit_test(test_verdict_stale),
		cmocka_unit_test(test_adopt_first),
		cmocka_unit_test(test_failsafe_and_pause),
		cmocka_unit_test(test_loss_is_told),
		cmocka_unit_test(test_ttl_shrinks),
		cmocka_unit_test(test_adopt_by_command),
		cmocka_unit_test(test_doubt),
		cmocka_unit_test(test_resume_after_proof),
		cmocka_unit_test(test_regain),
		cmocka_unit_test(test_key_of),
		cmocka_unit_test(test_no_spin),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
