/* Look-ups in a cluster snapshot. See cluster.h. */
#include "common/model/cluster.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/str.h"

const char *cluster_held_by_other(const struct cluster *c, const char *me)
{
	for (unsigned i = 0; i < c->member_count && c->leader_session[0] != '\0'; i++) {
		const struct member *m = &c->members[i];
		if (str_eq(m->session, c->leader_session) && !str_eq(m->name, me))
			return m->name;
	}
	return NULL;
}

const struct member *cluster_member_peek(const struct cluster *c, const char *name)
{
	for (unsigned i = 0; i < c->member_count; i++) {
		if (strcmp(c->members[i].name, name) == 0)
			return &c->members[i];
	}
	return NULL;
}

const struct member *cluster_leader_peek(const struct cluster *c)
{
	return cluster_unlocked(c) ? NULL : cluster_member_peek(c, c->leader);
}

bool cluster_members_differ(const struct cluster *a, const struct cluster *b)
{
	if (a->member_count != b->member_count)
		return true;
	for (unsigned i = 0; i < a->member_count; i++) {
		const struct member *x = &a->members[i], *y = &b->members[i];
		if (!str_eq(x->name, y->name) || x->tags.nostream != y->tags.nostream ||
			!str_eq(x->tags.replicatefrom, y->tags.replicatefrom))
			return true;
	}
	return false;
}

int64_t cluster_timeline(const struct cluster *c)
{
	if (!c->history_present || !c->history_valid)
		return 0;
	return c->history_count == 0 ? 1 : c->history[c->history_count - 1].timeline + 1;
}

bool cluster_init_valid(const struct cluster *c)
{
	return c->init_present && strlen(c->init) >= 10 &&
	       strspn(c->init, "0123456789") == strlen(c->init);
}

bool cluster_sync_is_voter(const struct cluster *c, const char *name)
{
	for (unsigned i = 0; i < c->sync_voter_count; i++) {
		if (str_eq_nocase(c->sync_voters[i], name))
			return true;
	}
	return false;
}

bool cluster_sync_matches(const struct cluster *c, const char *name)
{
	return c->sync_leader[0] != '\0' &&
	       (str_eq_nocase(c->sync_leader, name) || cluster_sync_is_voter(c, name));
}

struct cluster *cluster_new(void)
{
	return calloc(1, sizeof(struct cluster));
}

void cluster_free(struct cluster *c)
{
	if (c == NULL)
		return;
	for (unsigned i = 0; i < c->member_count; i++)
		free(c->members[i].json);
	free(c->members);
	free(c->config_json);
	free(c->slots);
	free(c->retain_slots);
	free(c->status_json);
	free(c->sync_voters);
	free(c->history);
	free(c->history_json);
	free(c->failsafe);
	free(c->failsafe_json);
	free(c);
}

static bool copy_array(void *slot, const void *from, unsigned count, size_t size)
{
	void *p = NULL;
	if (count > 0) {
		p = malloc(count * size);
		if (p == NULL)
			return false;
		memcpy(p, from, count * size);
	}
	memcpy(slot, &p, sizeof(p));
	return true;
}

static bool copy_text(char **slot, const char *from)
{
	*slot = from != NULL ? strdup(from) : NULL;
	return from == NULL || *slot != NULL;
}

struct cluster *cluster_clone(const struct cluster *c)
{
	struct cluster *n = malloc(sizeof(*n));
	if (n == NULL)
		return NULL;
	*n = *c;
	n->config_json = n->status_json = n->history_json = n->failsafe_json = NULL;
	n->slots = NULL;
	n->retain_slots = NULL;
	n->sync_voters = NULL;
	n->history = NULL;
	n->failsafe = NULL;
	n->members = NULL;
	n->member_count = 0;
	bool ok = copy_text(&n->config_json, c->config_json) &&
		  copy_text(&n->status_json, c->status_json) &&
		  copy_text(&n->history_json, c->history_json) &&
		  copy_text(&n->failsafe_json, c->failsafe_json) &&
		  copy_array(&n->slots, c->slots, c->slot_count, sizeof(*c->slots)) &&
		  copy_array(&n->retain_slots, c->retain_slots, c->retain_count,
			  sizeof(*c->retain_slots)) &&
		  copy_array(&n->sync_voters, c->sync_voters, c->sync_voter_count,
			  sizeof(*c->sync_voters)) &&
		  copy_array(&n->history, c->history, c->history_count, sizeof(*c->history)) &&
		  copy_array(&n->failsafe, c->failsafe, c->failsafe_count, sizeof(*c->failsafe)) &&
		  copy_array(&n->members, c->members, c->member_count, sizeof(*c->members));
	if (n->members != NULL)
		n->member_count = c->member_count;
	for (unsigned i = 0; i < n->member_count; i++)
		n->members[i].json = NULL;
	for (unsigned i = 0; ok && i < n->member_count; i++)
		ok = copy_text(&n->members[i].json, c->members[i].json);
	if (!ok) {
		cluster_free(n);
		return NULL;
	}
	return n;
}
