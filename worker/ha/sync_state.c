/* See sync_state.h. Pure. */
#include "worker/ha/sync_state.h"

/* ---- synchronous_standby_names ---- */

enum token_kind {
	TOKEN_END = 0,
	TOKEN_NAME,
	TOKEN_NUMBER,
	TOKEN_STAR,
	TOKEN_COMMA,
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_BAD
};

struct token {
	enum token_kind kind;
	bool quoted;
	char text[LIMIT_NAME];
	int number;
};

static bool is_name_char(char c, bool first)
{
	unsigned char u = (unsigned char)c;
	if ((u | 32) >= 'a' && (u | 32) <= 'z')
		return true;
	return c == '_' || u >= 0x80 || (!first && ((c >= '0' && c <= '9') || c == '$'));
}

static const char *token_quoted(const char *p, struct token *t)
{
	size_t used = 0;
	t->quoted = true;
	t->kind = TOKEN_NAME;
	while (*p != '\0') {
		if (*p == '"' && p[1] != '"')
			return p + 1;
		if (*p == '"')
			p++;
		if (used + 1 >= sizeof(t->text))
			break;
		t->text[used++] = *p++;
	}
	t->kind = TOKEN_BAD;
	return p;
}

static const char *token_next(const char *p, struct token *t)
{
	memset(t, 0, sizeof(*t));
	while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r' || *p == '\f' || *p == '\v')
		p++;
	size_t used = 0;
	switch (*p) {
	case '\0': return p;
	case ',': t->kind = TOKEN_COMMA; return p + 1;
	case '(': t->kind = TOKEN_OPEN; return p + 1;
	case ')': t->kind = TOKEN_CLOSE; return p + 1;
	case '*': t->kind = TOKEN_STAR; return p + 1;
	case '"': return token_quoted(p + 1, t);
	default: break;
	}
	bool number = *p >= '0' && *p <= '9';
	t->kind = number ? TOKEN_NUMBER : is_name_char(*p, true) ? TOKEN_NAME : TOKEN_BAD;
	if (t->kind == TOKEN_BAD)
		return p + 1;
	while (number ? *p >= '0' && *p <= '9' : is_name_char(*p, false)) {
		if (used + 1 >= sizeof(t->text)) {
			t->kind = TOKEN_BAD;
			return p;
		}
		t->text[used++] = *p++;
	}
	int64_t value;
	if (number && (!str_to_i64(t->text, &value) || value > 1000000))
		t->kind = TOKEN_BAD;
	else if (number)
		t->number = (int)value;
	return p;
}

static bool ssn_add(struct ssn *out, const struct token *t)
{
	const char *name = t->kind == TOKEN_STAR ? SSN_PLACEHOLDER : t->text;
	if (t->kind != TOKEN_NAME && t->kind != TOKEN_STAR)
		return false;
	for (unsigned i = 0; i < out->count; i++) {
		if (str_eq_nocase(out->names[i], name))
			return true;
	}
	return out->count < LIMIT_SYNC_NAMES &&
	       str_copy(out->names[out->count++], LIMIT_NAME, name);
}

/* The names up to the end (or the closing parenthesis, when one was opened). */
static bool ssn_list(const char *p, bool in_list, struct ssn *out, bool *star)
{
	struct token t;
	for (unsigned i = 0; i < 2 * LIMIT_SYNC_NAMES; i++) {
		p = token_next(p, &t);
		*star |= t.kind == TOKEN_STAR;
		if (!ssn_add(out, &t))
			return false;
		p = token_next(p, &t);
		if (t.kind == TOKEN_COMMA)
			continue;
		if (!in_list)
			return t.kind == TOKEN_END;
		if (t.kind != TOKEN_CLOSE)
			return false;
		token_next(p, &t);
		return t.kind == TOKEN_END;
	}
	return false;
}

/* "ANY n (", "FIRST n (", "n (" or nothing; returns where the names begin. */
static const char *ssn_head(const char *text, struct ssn *out, bool *in_list)
{
	struct token a, b, c;
	const char *p = token_next(text, &a), *q = token_next(p, &b), *r = token_next(q, &c);
	bool word = a.kind == TOKEN_NAME && !a.quoted;
	bool any = word && str_eq_nocase(a.text, "any"),
	     first = word && str_eq_nocase(a.text, "first");
	out->n = 1;
	*in_list = true;
	if ((any || first) && b.kind == TOKEN_NUMBER && c.kind == TOKEN_OPEN) {
		out->quorum = any;
		out->n = b.number;
		return r;
	}
	if (a.kind == TOKEN_NUMBER && b.kind == TOKEN_OPEN) {
		out->n = a.number;
		return q;
	}
	*in_list = false;
	return text;
}

bool ssn_parse(const char *text, struct ssn *out)
{
	memset(out, 0, sizeof(*out));
	struct token t;
	token_next(text, &t);
	if (t.kind == TOKEN_END)
		return true;
	bool in_list, star = false;
	const char *p = ssn_head(text, out, &in_list);
	if (!ssn_list(p, in_list, out, &star)) {
		memset(out, 0, sizeof(*out));
		return false;
	}
	if (star) {
		bool fits = str_copy(out->names[0], LIMIT_NAME, SSN_PLACEHOLDER);
		INVARIANT(fits);
		out->count = 1;
	} else if (out->count == 1 && str_eq(out->names[0], SSN_PLACEHOLDER)) {
		out->count = 0;
	}
	return true;
}

/* ---- names ---- */

/* Order of names without case, ASCII; equal names are one (ha 0). */
static int name_compare(const char *a, const char *b)
{
	for (; *a != '\0' || *b != '\0'; a++, b++) {
		int x = *a >= 'A' && *a <= 'Z' ? *a + 32 : (unsigned char)*a;
		int y = *b >= 'A' && *b <= 'Z' ? *b + 32 : (unsigned char)*b;
		if (x != y)
			return x - y;
	}
	return 0;
}

static bool name_insert(struct sync_state *st, const char *name)
{
	unsigned at = 0;
	while (at < st->name_count && name_compare(st->names[at], name) < 0)
		at++;
	if (at < st->name_count && name_compare(st->names[at], name) == 0)
		return true;
	if (st->name_count >= QUORUM_NAMES)
		return false;
	memmove(&st->names[at + 1], &st->names[at], (st->name_count - at) * sizeof(st->names[0]));
	st->names[at] = name;
	st->name_count++;
	return true;
}

static int name_bit(const struct sync_state *st, const char *name)
{
	for (unsigned i = 0; i < st->name_count; i++) {
		if (name_compare(st->names[i], name) == 0)
			return (int)i;
	}
	return -1;
}

/* ---- /sync: C, or what this node wrote since ---- */

struct sync_key {
	const char *leader;
	int quorum;
	char (*voters)[LIMIT_NAME];
	unsigned voter_count;
	int64_t version;
};

static struct sync_key sync_key(struct step *s)
{
	struct ha_memory *m = s->m;
	const struct cluster *c = s->c;
	/* By what C shows, never by time: one that cannot be read again stays older (S7). */
	if (m->sync_written && c->revision >= m->sync_version)
		m->sync_written = false;
	if (m->sync_written)
		return (struct sync_key){ m->sync_leader, m->sync_quorum, m->sync_voters,
			m->sync_voter_count, m->sync_version };
	return (struct sync_key){ c->sync_leader, c->sync_quorum, c->sync_voters,
		c->sync_voter_count, c->sync_key_exists ? c->sync_version : -1 };
}

/* ---- 5.2, 5.3 ---- */

struct candidate {
	const struct member *member;
	const struct pg_walsender *sender;
	uint64_t lsn;
};

static uint64_t sender_lsn(const struct step *s, const struct pg_walsender *w)
{
	const char *commit = s->v->sql->synchronous_commit;
	if (str_eq(commit, "remote_apply"))
		return w->replay_lsn;
	return str_eq(commit, "remote_write") ? w->write_lsn : w->flush_lsn;
}

static const struct member *member_nocase(const struct step *s, const char *name)
{
	for (unsigned i = 0; i < s->c->member_count; i++) {
		if (str_eq_nocase(s->c->members[i].name, name))
			return &s->c->members[i];
	}
	return NULL;
}

static bool may_be_sync(const struct step *s, const struct member *m)
{
	return m != NULL && str_eq(m->state, "running") && !m->tags.nosync &&
	       !str_eq_nocase(m->name, s->v->name);
}

static bool streams_from_me(const struct step *s, const struct member *m)
{
	for (unsigned i = 0; i < s->v->sql->walsender_count; i++) {
		const struct pg_walsender *w = &s->v->sql->walsenders[i];
		if (str_eq_nocase(w->application_name, m->name) && sender_lsn(s, w) > 0)
			return true;
	}
	return false;
}

/* Its upstream chain ends at a node that streams from here: then it is to stream from there, not
 * from here. Bounded by the number of members, because tags can form a circle. */
static bool should_cascade(const struct step *s, const struct member *m)
{
	for (unsigned hops = 0; hops <= s->c->member_count; hops++) {
		if (m->tags.replicatefrom[0] == '\0')
			return hops > 0 && streams_from_me(s, m);
		m = member_nocase(s, m->tags.replicatefrom);
		if (!may_be_sync(s, m))
			return false;
	}
	return false;
}

/* Does a stand before b? Higher sync_priority, then "sync" > "quorum" > "potential" > "async" as
 * text orders them backwards, then the more advanced. */
static bool better(const struct candidate *a, const struct candidate *b)
{
	if (a->member->tags.nofailover != b->member->tags.nofailover)
		return b->member->tags.nofailover;
	if (a->member->tags.sync_priority != b->member->tags.sync_priority)
		return a->member->tags.sync_priority > b->member->tags.sync_priority;
	int state = strcmp(a->sender->sync_state, b->sender->sync_state);
	if (state != 0)
		return state > 0;
	return a->lsn > b->lsn;
}

/* One walsender of each member; the later row of a name wins, as in the reference. */
static unsigned candidates_read(const struct step *s, struct candidate out[static LIMIT_MEMBERS])
{
	unsigned count = 0;
	for (unsigned i = 0; i < s->v->sql->walsender_count; i++) {
		const struct pg_walsender *w = &s->v->sql->walsenders[i];
		struct candidate c = { member_nocase(s, w->application_name), w, sender_lsn(s, w) };
		if (!may_be_sync(s, c.member) || c.lsn == 0 || should_cascade(s, c.member))
			continue;
		unsigned at = 0;
		while (at < count && out[at].member != c.member)
			at++;
		if (at == LIMIT_MEMBERS)
			continue;
		out[at] = c;
		if (at == count)
			count++;
	}
	for (unsigned i = 1; i < count; i++) { /* insertion sort: stable, and the list is short */
		struct candidate c = out[i];
		unsigned k = i;
		for (; k > 0 && better(&c, &out[k - 1]); k--)
			out[k] = out[k - 1];
		out[k] = c;
	}
	return count;
}

static int ready_find(const struct ha_memory *m, const char *name)
{
	for (unsigned i = 0; i < m->ready_count; i++) {
		if (str_eq_nocase(m->ready[i], name))
			return (int)i;
	}
	return -1;
}

static bool ssn_lists(const struct ssn *ssn, const char *name)
{
	for (unsigned i = 0; i < ssn->count; i++) {
		if (str_eq_nocase(ssn->names[i], name))
			return true;
	}
	return false;
}

/* The setting that PostgreSQL reports changed: who is not listed any more has to prove itself anew.
 */
static void ssn_changed(struct step *s, const struct ssn *ssn)
{
	struct ha_memory *m = s->m;
	if (str_eq(m->last_ssn, s->v->sql->synchronous_standby_names))
		return;
	/* X29: under ANY n of more than n whoever is ready may since have missed what n others
	 * acknowledged. Priority mode names only those who have all. */
	struct ssn before;
	bool partly =
		ssn_parse(m->last_ssn, &before) && before.quorum && before.n < (int)before.count;
	bool fits =
		str_copy(m->last_ssn, sizeof(m->last_ssn), s->v->sql->synchronous_standby_names);
	INVARIANT(fits); /* both arrays have one size */
	unsigned kept = 0;
	for (unsigned i = 0; i < m->ready_count; i++) {
		/* X15: in quorum mode everybody confirms anew. A name that was ready may lack
		 * commits that others of the old list acknowledged, and a smaller list or a larger
		 * n lets it be elected with fewer votes (S5; found by the simulator). */
		if (s->sync == SYNC_QUORUM || partly || !ssn_lists(ssn, m->ready[i]))
			continue;
		if (kept != i)
			memcpy(m->ready[kept], m->ready[i], LIMIT_NAME);
		kept++;
	}
	m->ready_count = kept;
	m->primary_flush_lsn = s->v->sql->flush_lsn;
	plan_add(s, HA_POKE_WAL);
}

static void ready_learn(struct step *s, const struct ssn *ssn, const struct sync_key *key,
	const struct candidate *c)
{
	struct ha_memory *m = s->m;
	const char *name = c->member->name;
	if (!ssn_lists(ssn, name) || ready_find(m, name) >= 0 || m->ready_count >= LIMIT_SYNC_NAMES)
		return;
	bool ready = c->lsn >= m->primary_flush_lsn;
	if (s->sync == SYNC_QUORUM) {
		ready = ready && (str_eq(c->sender->sync_state, "quorum") ||
					 (s->v->sql->server_version < 100000 &&
						 !str_eq(c->sender->sync_state, "async")));
	} else {
		ready = ready && str_eq(c->sender->sync_state, "sync");
		/* ... X29: a voter among so many need not have all. */
		for (unsigned i = 0; key->quorum == 0 && i < key->voter_count; i++)
			ready |= str_eq_nocase(key->voters[i], name);
	}
	if (ready)
		memcpy(m->ready[m->ready_count++], name, LIMIT_NAME);
}

/* Row 5: who of the candidates is taken, and who of them is confirmed. */
static void take(
	struct step *s, struct sync_state *st, const struct candidate *list, unsigned count)
{
	uint64_t max_lsn = count == 1 ? s->v->sql->flush_lsn : 0;
	for (unsigned i = 0; count > 1 && i < count; i++)
		max_lsn = list[i].lsn > max_lsn ? list[i].lsn : max_lsn;
	int taken = 0;
	for (unsigned i = 0; i < count; i++) {
		const struct candidate *c = &list[i];
		int64_t limit = s->set->maximum_lag_on_syncnode;
		if (limit > 0 && max_lsn > c->lsn && max_lsn - c->lsn > (uint64_t)limit)
			continue;
		bool priority = s->sync == SYNC_PRIORITY;
		if ((priority || c->member->tags.nofailover) && taken >= st->max_n)
			continue;
		int bit = name_bit(st, c->member->name);
		INVARIANT(bit >= 0);
		qset_add(&st->active, bit);
		taken++;
		if (ready_find(s->m, c->member->name) >= 0 &&
			(!priority || str_eq(c->sender->sync_state, "sync")))
			qset_add(&st->confirmed, bit);
	}
}

bool sync_state_read(struct step *s, struct sync_state *st)
{
	memset(st, 0, sizeof(*st));
	struct sync_key key = sync_key(s);
	if (!ssn_parse(s->v->sql->synchronous_standby_names, &st->ssn))
		plan_note(s, HA_LOG_WARNING, "Unparsable synchronous_standby_names value '%s'",
			s->v->sql->synchronous_standby_names);
	bool fits = name_insert(st, s->v->name);
	for (unsigned i = 0; fits && i < s->c->member_count; i++)
		fits = name_insert(st, s->c->members[i].name);
	for (unsigned i = 0; fits && i < key.voter_count; i++)
		fits = name_insert(st, key.voters[i]);
	for (unsigned i = 0; fits && i < st->ssn.count; i++)
		fits = name_insert(st, st->ssn.names[i]);
	if (fits && key.leader[0] != '\0')
		fits = name_insert(st, key.leader);
	/* Any set of these names must fit into one action and one key. */
	if (!fits || st->name_count > LIMIT_SYNC_NAMES)
		return false;
	st->me = name_bit(st, s->v->name);
	st->leader = key.leader[0] != '\0' ? name_bit(st, key.leader) : -1;
	st->quorum = s->sync == SYNC_QUORUM ? key.quorum : 0;
	st->key_quorum = key.quorum;
	st->version = key.version;
	for (unsigned i = 0; i < key.voter_count && st->leader >= 0; i++)
		qset_add(&st->voters, name_bit(st, key.voters[i]));
	for (unsigned i = 0; i < st->ssn.count; i++)
		qset_add(&st->listed, name_bit(st, st->ssn.names[i]));
	int min_sync = s->set->sync_strict ? 1 : 0;
	st->max_n = s->set->sync_node_count > min_sync ? s->set->sync_node_count : min_sync;
	if (s->v->sql->server_version < 90600)
		st->max_n = 1;
	if (!s->primary || !s->v->sql->valid)
		return true;
	ssn_changed(s, &st->ssn);
	struct candidate list[LIMIT_MEMBERS];
	unsigned count = candidates_read(s, list);
	for (unsigned i = 0; i < count; i++)
		ready_learn(s, &st->ssn, &key, &list[i]);
	take(s, st, list, count);
	return true;
}
