/* Synchronous replication as the leader steers it: the strict step, the priority machine, the
 * driver of the quorum machine, and what is set before a promotion (ha 5.4 to 5.7). Pure. Each call
 * decides from what /sync and PostgreSQL say now. A write of /sync is awaited; a change of the
 * setting ends the pass, because the next step may rest only on what PostgreSQL reports (S7), not
 * on what it was asked for. */
#include "worker/ha/sync_state.h"

#define SYNC_WRITES_MAX 8    /* of /sync in one cycle; more than any pass of either machine needs */
#define SSN_LOOK_MS	200  /* a reload takes a millisecond; then PostgreSQL is asked again */
#define SSN_LOOK_MAX_MS 1000 /* ... quickly for so long */
#define SSN_RETRY_MS	9000 /* the setting was asked for but is still not reported */

enum pass { PASS_DONE = 0, PASS_AWAITS };

/* ---- writing ---- */

static void print_set(const struct sync_state *st, const struct qset *set, char *out, size_t n)
{
	size_t used = 0;
	out[0] = '\0';
	for (unsigned i = 0; i < st->name_count; i++) {
		if (!qset_has(set, (int)i))
			continue;
		size_t len = strlen(st->names[i]);
		if (used + len + 2 >= n)
			return;
		if (used > 0)
			out[used++] = ',';
		memcpy(out + used, st->names[i], len + 1);
		used += len;
	}
}

static uint64_t hash_text(uint64_t h, const char *text)
{
	for (; *text != '\0'; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(1099511628211);
	return h * 31;
}

/* Ask for a setting; the same one is not asked for again until it had time to show. */
static void ask_ssn(struct step *s, const struct sync_state *st, const struct qset *set, int n,
	bool placeholder)
{
	struct ha_memory *m = s->m;
	struct ha_ssn ssn = { .managed = true,
		.quorum = s->sync == SYNC_QUORUM,
		.n = n,
		.placeholder = placeholder };
	uint64_t hash =
		hash_text(UINT64_C(14695981039346656037) + (uint64_t)n, ssn.quorum ? "any" : "");
	hash = hash_text(hash, placeholder ? "placeholder" : "");
	for (unsigned i = 0; i < st->name_count; i++) {
		if (qset_has(set, (int)i))
			hash = hash_text(hash, st->names[i]);
	}
	bool asked = hash == m->ssn_asked_hash && s->v->now_ms - m->ssn_asked_ms < SSN_RETRY_MS;
	if (!asked || s->v->now_ms - m->ssn_asked_ms < SSN_LOOK_MAX_MS)
		plan_wake(s, s->v->now_ms + SSN_LOOK_MS);
	if (asked)
		return;
	m->ssn_asked_hash = hash;
	m->ssn_asked_ms = s->v->now_ms;
	char text[200];
	print_set(st, set, text, sizeof(text));
	plan_note(s, HA_LOG_INFO, "Assigning synchronous_standby_names to %s%d (%s)",
		ssn.quorum ? "ANY " : "", n, placeholder ? SSN_PLACEHOLDER : text);
	struct ha_action *a = plan_add(s, HA_SET_SSN);
	a->ssn = ssn;
	for (unsigned i = 0; i < st->name_count; i++) {
		bool listed = !qset_has(set, (int)i) || plan_name(s, a, st->names[i]);
		INVARIANT(listed); /* a part of the list would be another promise */
	}
}

static void ask_ssn_none(struct step *s, const struct sync_state *st)
{
	struct qset none = { { 0 } };
	ask_ssn(s, st, &none, 0, false);
}

/* Write /sync with me as its leader, and remember what was written until C shows it. */
static enum pass write_sync(struct step *s, const struct sync_state *st, const struct qset *voters,
	int quorum, enum ha_stage stage)
{
	struct ha_memory *m = s->m;
	struct ha_action *a = plan_add(s, HA_WRITE_SYNC);
	a->version = st->version;
	a->quorum = quorum;
	/* st->names may point into the memory's list, so the new one is made aside. */
	char names[LIMIT_SYNC_NAMES][LIMIT_NAME];
	unsigned count = 0;
	for (unsigned i = 0; i < st->name_count; i++) {
		if (!qset_has(voters, (int)i))
			continue;
		/* sync_pass saw to it that there are not more. */
		INVARIANT(count < LIMIT_SYNC_NAMES);
		bool fits = plan_name(s, a, st->names[i]) &&
			    str_copy(names[count++], LIMIT_NAME, st->names[i]);
		INVARIANT(fits);
	}
	memcpy(m->sync_voters, names, count * sizeof(names[0]));
	m->sync_voter_count = count;
	m->sync_written = false;
	m->sync_unknown = true; /* until it is answered */
	m->sync_quorum = quorum;
	memcpy(m->sync_leader, s->v->name, LIMIT_NAME);
	m->quorum_pass.steps++;
	plan_await(
		s, stage, AWAIT_DCS, s->set->retry_timeout_ms, stage == STAGE_SYNC ? "5.5" : "5.6");
	return PASS_AWAITS;
}

/* ---- strict step (5.4) ---- */

static bool strict_step(struct step *s, const struct sync_state *st)
{
	bool quorum_type = s->sync == SYNC_QUORUM && st->leader >= 0;
	if (s->set->sync_strict && qset_empty(&st->active)) {
		int n = qset_count(&st->voters) - (quorum_type ? st->quorum : 0);
		n = n < 1 ? 1 : n;
		bool placeholder = qset_empty(&st->voters);
		bool differs = !qset_equal(&st->voters, &st->listed) || n != st->ssn.n ||
			       quorum_type != st->ssn.quorum;
		if (differs)
			ask_ssn(s, st, &st->voters, n, placeholder);
		if (!s->m->strict_warned)
			plan_note(s, HA_LOG_WARNING,
				"No active replication connections from Patroni members and "
				"synchronous_mode_strict "
				"is requested. %sCommits will be delayed.",
				differs || placeholder ? ""
						       : "Continue using old value of "
							 "synchronous_standby_names. ");
		s->m->strict_warned = true;
		return true;
	}
	s->m->strict_warned = false;
	if (!s->set->sync_strict && qset_empty(&st->active) && qset_empty(&st->voters) &&
		(!qset_empty(&st->listed) || st->ssn.n > 0))
		ask_ssn_none(s, st);
	return false;
}

/* ---- priority (5.5) ---- */

static enum pass priority_pass(struct step *s, const struct sync_state *st)
{
	struct qset none = { { 0 } };
	const struct qset *picked = &st->active, *ok = &st->confirmed;
	int count = qset_count(picked);
	if (st->leader < 0 || st->leader != st->me) { /* 1, 2 */
		if (st->leader >= 0)
			plan_note(s, HA_LOG_WARNING,
				"Inconsistent state of /sync key detected, leader = %s doesn't "
				"match %s, updating "
				"synchronous replication key",
				st->names[st->leader], s->v->name);
		return write_sync(s, st, &none, 0, STAGE_SYNC);
	}
	if (qset_equal(picked, &st->voters) && !qset_equal(&st->voters, ok)) /* 3 */
		return write_sync(s, st, ok, 0, STAGE_SYNC);
	if (strict_step(s, st)) /* 4 */
		return PASS_DONE;
	bool set = qset_equal(picked, &st->listed) && st->ssn.n == count;
	if (qset_equal(picked, &st->voters) && set) { /* 5 */
		if (st->ssn.quorum && count > 0)
			ask_ssn(s, st, picked, count, false);
		/* X28: each of them has all by now, so the votes of quorum mode may go. */
		else if (st->key_quorum > 0)
			return write_sync(s, st, ok, 0, STAGE_SYNC);
		return PASS_DONE;
	}
	struct qset common = qset_and(st->voters, *ok);
	if (!qset_equal(&common, &st->voters)) /* 6: the promise shrinks before what enforces it */
		return write_sync(s, st, &common, 0, STAGE_SYNC);
	if (!set || st->ssn.quorum) { /* 7 */
		ask_ssn(s, st, picked, count, false);
		return PASS_DONE; /* 9 rests on what PostgreSQL then reports */
	}
	if (count > 0 && !qset_equal(ok, picked)) /* 8: a waiting standby is looked at again soon */
		plan_wake(s, s->v->now_ms + 2000);
	if (!qset_empty(ok) && !qset_equal(ok, &common)) { /* 9 */
		char text[200];
		print_set(st, ok, text, sizeof(text));
		plan_note(s, HA_LOG_INFO, "Synchronous standby status assigned to %s", text);
		return write_sync(s, st, ok, 0, STAGE_SYNC);
	}
	return PASS_DONE;
}

/* ---- quorum (5.7) ---- */

/* X25. Everybody but those whose confirmation came under the setting of now. */
static struct qset lagging(const struct sync_state *st)
{
	struct qset set = { { 0 } };
	for (unsigned i = 0; i < st->name_count; i++)
		qset_add(&set, (int)i);
	qset_del(&set, st->me);
	return qset_minus(set, st->confirmed);
}

static struct quorum_state quorum_of(const struct step *s, const struct sync_state *st)
{
	return (struct quorum_state){ .leader = st->leader,
		.me = st->me,
		.quorum = st->quorum,
		.voters = st->voters,
		.numsync = st->ssn.n,
		.sync = st->listed,
		.confirmed = qset_count(&st->confirmed),
		.active = st->active,
		.lagging = lagging(st),
		.wanted = s->set->sync_node_count > 1 ? s->set->sync_node_count : 1 };
}

static enum pass quorum_pass(struct step *s, const struct sync_state *st)
{
	struct qset none = { { 0 } };
	if (st->leader < 0)
		return write_sync(s, st, &none, 0, STAGE_SYNC);
	if (st->leader == st->me && strict_step(s, st))
		return PASS_DONE;
	struct quorum_state state = quorum_of(s, st);
	struct quorum_steps steps;
	quorum_resolve(&state, &steps);
	if (steps.repaired)
		plan_note(
			s, HA_LOG_WARNING, "Quorum and sync not guaranteed to overlap, repairing");
	if (steps.broken)
		plan_note(s, HA_LOG_ERROR,
			"quorum resolver stopped before a step that would break its invariants");
	if (steps.count == 0) {
		if (!st->ssn.quorum && st->ssn.n > 0 && !qset_empty(&st->listed))
			ask_ssn(s, st, &st->listed, state.numsync > 0 ? state.numsync : 1, false);
		return PASS_DONE;
	}
	const struct quorum_step *step = &steps.step[0];
	char text[200];
	print_set(st, &step->set, text, sizeof(text));
	switch (step->kind) {
	case QUORUM_STEP_QUORUM:
		plan_note(s, HA_LOG_INFO, "Setting leader to %s, quorum to %d of (%s)",
			st->names[step->leader], step->num, text);
		if (step->leader == st->me)
			return write_sync(s, st, &step->set, step->num, STAGE_SYNC);
		break; /* the leader is never set to another */
	case QUORUM_STEP_SYNC: ask_ssn(s, st, &step->set, step->num, false); break;
	case QUORUM_STEP_RESTART: plan_wake(s, s->v->now_ms + 1000); break;
	}
	return PASS_DONE;
}

/* ---- G3, G4 ---- */

/* Off: /sync goes first, because nothing stands behind its promise any more once the setting is
 * gone. */
static void sync_off(struct step *s)
{
	if (s->c->sync_leader[0] != '\0') {
		plan_add(s, HA_DELETE_SYNC)->version = s->c->sync_version;
		plan_note(s, HA_LOG_INFO, "Disabled synchronous replication");
	}
	plan_add(s, HA_SET_SSN)->ssn = (struct ha_ssn){ .managed = false };
}

static bool sync_pass(struct step *s, enum act_why why)
{
	struct sync_state st;
	s->m->stage_arg[0] = (int)why;
	if (s->m->quorum_pass.steps >= SYNC_WRITES_MAX) {
		plan_note(s, HA_LOG_WARNING,
			"synchronous replication is not settled yet, going on in the next cycle");
		plan_wake(s, s->v->now_ms + 1000);
		return false;
	}
	if (!sync_state_read(s, &st)) {
		plan_note(s, HA_LOG_ERROR,
			"more than %d names take part in synchronous replication",
			LIMIT_SYNC_NAMES);
		return false;
	}
	/* X27: the setting waits for /sync, which may take as long as the store is away. In strict
	 * mode nothing is acknowledged alone meanwhile (S6): a setting that lets nothing through
	 * breaks no promise. */
	if (s->set->sync_strict && st.ssn.n == 0)
		ask_ssn(s, &st, &(struct qset){ { 0 } }, 1, true);
	/* X12: while an unanswered write may still take effect, what it would promise is unknown,
	 * and a smaller setting could break it (S7). The same content is written again: with its
	 * answer the version has moved, and the old write is void. */
	if (s->m->sync_unknown && st.leader == st.me)
		return write_sync(s, &st, &st.voters, st.key_quorum, STAGE_SYNC) == PASS_AWAITS;
	enum pass pass = s->sync == SYNC_QUORUM ? quorum_pass(s, &st) : priority_pass(s, &st);
	return pass == PASS_AWAITS;
}

/* X63: strict mode needs no store to be kept (S6). PostgreSQL may have been started, or be in a
 * long recovery, since before the mode was switched on; its first commits as a primary would be
 * acknowledged by nobody else. Nor need the renewals be answered. A setting that lets nothing
 * through breaks no promise (X27). */
void sync_keep_strict(struct step *s)
{
	if (s->sync == SYNC_OFF || !s->set->sync_strict || !s->v->sql->valid ||
		s->v->sql->in_recovery || s->v->sql->synchronous_standby_names[0] != '\0')
		return;
	plan_note(s, HA_LOG_WARNING,
		"strict mode: no commit is acknowledged before a standby is named rule=X63");
	plan_add(s, HA_SET_SSN)->ssn = (struct ha_ssn){
		.managed = true, .quorum = s->sync == SYNC_QUORUM, .n = 1, .placeholder = true
	};
}

bool sync_step(struct step *s, enum act_why why)
{
	s->m->quorum_pass.steps = 0;
	if (s->sync == SYNC_OFF) {
		sync_off(s);
		return false;
	}
	/* Without facts of a primary there is nothing to weigh; PostgreSQL goes on with what it
	 * has. */
	if (!s->primary || !s->v->sql->valid)
		return false;
	if (s->v->lock != LOCK_HELD) {
		sync_keep_strict(s);
		return false;
	}
	return sync_pass(s, why);
}

/* The answer to a write of /sync: true = it is ours and newer than C. */
static bool sync_written(struct step *s)
{
	struct ha_memory *m = s->m;
	/* A compare that failed settles nothing: what moved the version may be our own write of
	 * before, and C need not show it yet (S7). It is settled when a write on top of it is
	 * answered with OK. */
	m->sync_unknown = s->r->outcome != HA_OUT_OK;
	if (s->r->outcome != HA_OUT_OK) {
		m->sync_written = false;
		plan_note(s, HA_LOG_INFO,
			"Synchronous replication key updated by someone else, or not written.");
		return false;
	}
	m->sync_written = true;
	m->sync_written_ms = s->v->now_ms;
	m->sync_version = s->r->version;
	return true;
}

bool stage_sync(struct step *s)
{
	enum act_why why = (enum act_why)s->m->stage_arg[0];
	bool written = sync_written(s);
	if (!s->has_lock || !s->primary || s->sync == SYNC_OFF || s->v->lock != LOCK_HELD ||
		!s->v->sql->valid)
		return cycle_run(s);
	return (written && sync_pass(s, why)) || act_primary_done(s, why);
}

/* ---- 5.6 ---- */

/* The members of the old /sync but me: who may hold what the old leader acknowledged. */
static struct qset old_members(const struct sync_state *st)
{
	struct qset set = st->voters;
	if (st->leader >= 0)
		qset_add(&set, st->leader);
	qset_del(&set, st->me);
	return set;
}

static enum pass prepromote_priority(struct step *s, const struct sync_state *st)
{
	struct qset none = { { 0 } }, old = old_members(st);
	if (!s->set->sync_strict) {
		ask_ssn_none(s, st);
		if (st->leader == st->me && qset_empty(&st->voters) && !s->m->sync_unknown)
			return PASS_DONE;
		return write_sync(s, st, &none, 0, STAGE_PREPROMOTE);
	}
	ask_ssn(s, st, &old, qset_empty(&old) ? 1 : qset_count(&old), qset_empty(&old));
	if (st->leader == st->me && qset_equal(&st->voters, &old) && !s->m->sync_unknown)
		return PASS_DONE;
	return write_sync(s, st, &old, 0, STAGE_PREPROMOTE);
}

/* R: the first write of the new leader comes before its promotion, not after: a leader that dies
 * between its first acknowledgement and that write would leave the old one exempt from the vote
 * (S5b). */
static enum pass prepromote_quorum(struct step *s, const struct sync_state *st)
{
	struct qset old = old_members(st), none = { { 0 } };
	int members =
		qset_count(&st->voters) + (st->leader >= 0 && !qset_has(&st->voters, st->leader));
	bool among = qset_has(&st->voters, st->me) || st->leader == st->me;
	int n = members - st->quorum - 1 + (among ? 0 : 1), most = qset_count(&old);
	int least = s->set->sync_strict || most > 0 ? 1 : 0;
	n = n > most ? most : n;
	n = n < least ? least : n;
	ask_ssn(s, st, &old, n, most == 0 && s->set->sync_strict);
	if (st->leader == st->me)
		return s->m->sync_unknown
			       ? write_sync(s, st, &st->voters, st->quorum, STAGE_PREPROMOTE)
			       : PASS_DONE;
	if (st->leader < 0)
		return write_sync(s, st, &none, 0, STAGE_PREPROMOTE);
	struct quorum_state state = quorum_of(s, st);
	struct quorum_steps steps;
	state.sync = old;
	state.numsync = most > 0 ? n : 0;
	state.active = none; /* phase 1 alone */
	state.confirmed = 0;
	quorum_resolve(&state, &steps);
	for (unsigned i = 0; i < steps.count; i++) {
		if (steps.step[i].kind == QUORUM_STEP_QUORUM)
			return write_sync(
				s, st, &steps.step[i].set, steps.step[i].num, STAGE_PREPROMOTE);
	}
	return PASS_DONE;
}

static bool postponed(struct step *s)
{
	s->plan->log_level = HA_LOG_WARNING;
	return plan_done(s, "G5",
		"Postponing promotion because synchronous replication state was updated by "
		"somebody else");
}

bool sync_prepromote(struct step *s)
{
	struct sync_state st;
	s->m->quorum_pass.steps = 0;
	s->m->ssn_asked_hash = 0; /* PostgreSQL forgot it with its role: always written */
	if (s->sync == SYNC_OFF) {
		sync_off(s);
		return false;
	}
	if (!sync_state_read(s, &st))
		return postponed(s);
	return (s->sync == SYNC_QUORUM ? prepromote_quorum(s, &st) : prepromote_priority(s, &st)) ==
	       PASS_AWAITS;
}

bool stage_prepromote(struct step *s)
{
	if (!s->has_lock || s->primary || s->v->task != TASK_NONE)
		return cycle_run(s);
	return sync_written(s) ? promote_now(s) : postponed(s);
}
