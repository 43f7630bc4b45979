/* See slots_plan.h. Pure. */
#include "worker/ha/slots_plan.h"

#include <string.h>

#include "common/core/invariant.h"
#include "common/core/str.h"
#include "worker/ha/upstream.h"

static bool can_advance(const struct slots_in *in)
{
	return in->server_version >= 110000;
}

static bool slots_supported(const struct slots_in *in)
{
	return in->set->use_slots && in->server_version >= 90400;
}

const struct slot_wanted *slots_plan_find(const struct slots_plan *plan, const char *name)
{
	for (unsigned i = 0; i < plan->count; i++) {
		if (str_eq(plan->slot[i].name, name))
			return &plan->slot[i];
	}
	return NULL;
}

/* NULL = no room. */
static struct slot_wanted *slot_new(struct slots_plan *plan, const char *name)
{
	if (plan->count == LIMIT_SLOTS) {
		plan->overflow = true;
		return NULL;
	}
	struct slot_wanted *slot = &plan->slot[plan->count];
	*slot = (struct slot_wanted){ .database = "", .plugin = "" };
	if (!str_copy(slot->name, sizeof(slot->name), name))
		return NULL;
	plan->count++;
	return slot;
}

static uint64_t lsn_of(const struct slot_lsn *list, unsigned count, const char *slot)
{
	for (unsigned i = 0; i < count; i++) {
		if (str_eq(list[i].name, slot))
			return list[i].lsn;
	}
	return 0;
}

static uint64_t status_lsn(const struct slots_in *in, const char *slot)
{
	uint64_t stored = lsn_of(in->c->slots, in->c->slot_count, slot);
	uint64_t heard = lsn_of(in->said, in->said_count, slot);
	return stored > heard ? stored : heard;
}

/* "4.0.0" or newer; members of pgregent write a version of their own numbering beside their own
 * field. */
static bool publishes_member_slots(const struct member *leader)
{
	if (leader == NULL || leader->is_pgregent)
		return true;
	return leader->version[0] == '\0' || leader->version[0] >= '4' ||
	       (leader->version[1] >= '0' && leader->version[1] <= '9');
}

static bool member_expected_active(const struct slots_in *in, const struct member *m)
{
	const char *from = m->tags.replicatefrom;
	if (upstream_is_circle(in->c, in->leader, m->name, from))
		from = "";
	if (!in->leads)
		return str_eq(from, in->me) && !str_eq(m->name, in->leader);
	return from[0] == '\0' || str_eq(from, in->me) || cluster_member_peek(in->c, from) == NULL;
}

/* Members keep their slots on every node that may lead one day, so that a new leader still has the
 * WAL they need. */
static bool member_wanted(const struct slots_in *in, const struct member *m)
{
	if (str_eq(m->name, in->me) || m->tags.nostream)
		return false;
	if (can_advance(in) && in->set->member_slots_ttl_ms > 0)
		return !in->set->tags.nofailover || str_eq(m->tags.replicatefrom, in->me);
	return member_expected_active(in, m);
}

static void note_collision(
	struct slots_plan *out, const struct slots_in *in, const struct member *m, const char *slot)
{
	for (unsigned i = 0; i < in->c->member_count && out->collision[0][0] == '\0'; i++) {
		const struct member *other = &in->c->members[i];
		char name[LIMIT_SLOT_NAME];
		str_slot_name(other->name, name);
		if (other == m || !str_eq(name, slot))
			continue;
		memcpy(out->collision[0], other->name, LIMIT_NAME);
		memcpy(out->collision[1], m->name, LIMIT_NAME);
	}
}

static void plan_members(const struct slots_in *in, struct slots_plan *out)
{
	bool status_is_enough = publishes_member_slots(cluster_member_peek(in->c, in->leader));
	for (unsigned i = 0; i < in->c->member_count; i++) {
		const struct member *m = &in->c->members[i];
		char name[LIMIT_SLOT_NAME];
		if (!member_wanted(in, m))
			continue;
		str_slot_name(m->name, name);
		if (slots_plan_find(out, name) != NULL) {
			note_collision(out, in, m, name);
			continue;
		}
		struct slot_wanted *slot = slot_new(out, name);
		if (slot == NULL)
			continue;
		slot->expected_active = member_expected_active(in, m);
		slot->lsn = status_lsn(in, name);
		/* Its slot on the leader stands still when it streams from somewhere else. */
		bool own = m->tags.replicatefrom[0] != '\0' || !status_is_enough;
		if (own && m->xlog_location > slot->lsn)
			slot->lsn = m->xlog_location;
	}
}

/* Members that went a while ago may come back: the leader names them until member_slots_ttl is
 * over. */
static void plan_retained(const struct slots_in *in, struct slots_plan *out)
{
	char mine[LIMIT_SLOT_NAME];
	str_slot_name(in->me, mine);
	if (in->set->tags.nofailover || !can_advance(in) || in->set->member_slots_ttl_ms <= 0)
		return;
	for (unsigned i = 0; i < in->c->retain_count; i++) {
		const char *name = in->c->retain_slots[i];
		if (str_eq(name, mine) || slots_plan_find(out, name) != NULL)
			continue;
		struct slot_wanted *slot = slot_new(out, name);
		if (slot != NULL)
			slot->lsn = status_lsn(in, name);
	}
}

bool slots_name_on_primary(
	const struct slots_in *in, const char *node, char out[static LIMIT_SLOT_NAME])
{
	out[0] = '\0';
	/* A chain longer than there are members ends in a circle above this node. */
	for (unsigned hops = 0; hops <= in->c->member_count; hops++) {
		bool me = str_eq(node, in->me);
		const struct member *m = cluster_member_peek(in->c, node);
		const struct tags *tags = me ? &in->set->tags : m != NULL ? &m->tags : NULL;
		if (tags != NULL && tags->nostream)
			return false;
		const char *from = "";
		if (tags != NULL && !str_eq(node, in->leader))
			from = upstream_named(in->c, in->leader, node, tags->replicatefrom);
		if (from[0] == '\0') {
			str_slot_name(node, out);
			return true;
		}
		node = from;
	}
	return false;
}

/* Does somebody with this slot name stream from another node than the leader? */
static bool cascades_elsewhere(const struct slots_in *in, const char *slot)
{
	for (unsigned i = 0; i < in->c->member_count; i++) {
		char name[LIMIT_SLOT_NAME];
		str_slot_name(in->c->members[i].name, name);
		if (str_eq(name, slot))
			return in->c->members[i].tags.replicatefrom[0] != '\0';
	}
	return false;
}

/* R: cluster_type holds everywhere; the reference forgets it on a primary cluster. */
static bool type_fits(const struct slots_in *in, const struct permanent_slot *p)
{
	const char *here = in->set->standby_cluster ? "standby" : "primary";
	return p->cluster_type[0] == '\0' || str_eq(p->cluster_type, here);
}

static bool logical_here(const struct slots_in *in, const char *node, bool nofailover)
{
	char name[LIMIT_SLOT_NAME];
	return can_advance(in) && !in->set->standby_cluster && !nofailover &&
	       slots_name_on_primary(in, node, name);
}

static void plan_permanent(const struct slots_in *in, struct slots_plan *out)
{
	char mine[LIMIT_SLOT_NAME];
	str_slot_name(in->me, mine);
	if (in->set->tags.nofailover)
		return;
	bool logical = logical_here(in, in->me, false);
	for (unsigned i = 0; i < in->set->permanent_count; i++) {
		const struct permanent_slot *p = &in->set->permanent[i];
		if (str_eq(p->name, mine) || slots_plan_find(out, p->name) != NULL)
			continue;
		if (p->logical ? !logical : !type_fits(in, p) || !(can_advance(in) || in->leads))
			continue;
		struct slot_wanted *slot = slot_new(out, p->name);
		if (slot == NULL)
			continue;
		slot->permanent = true;
		slot->logical = p->logical;
		slot->lsn = status_lsn(in, p->name);
		slot->expected_active =
			!p->logical && in->leads && !cascades_elsewhere(in, p->name);
		if (p->logical) {
			slot->database = p->database;
			slot->plugin = p->plugin;
		}
	}
}

void slots_plan_make(const struct slots_in *in, struct slots_plan *out)
{
	memset(out, 0, sizeof(*out));
	if (!slots_supported(in))
		return;
	plan_members(in, out);
	plan_retained(in, out);
	plan_permanent(in, out);
}

bool slots_ignored(const struct settings *set, const struct pg_slot *slot)
{
	for (unsigned i = 0; i < set->ignore_count; i++) {
		const struct ignore_slot *g = &set->ignore[i];
		if (g->name[0] != '\0' && !str_eq(g->name, slot->name))
			continue;
		if (g->type[0] != '\0' && !str_eq(g->type, slot->logical ? "logical" : "physical"))
			continue;
		if (g->database[0] != '\0' && !str_eq(g->database, slot->database))
			continue;
		if (g->plugin[0] != '\0' && !str_eq(g->plugin, slot->plugin))
			continue;
		return true;
	}
	return false;
}

static bool any_logical(const struct settings *set)
{
	for (unsigned i = 0; i < set->permanent_count; i++) {
		if (set->permanent[i].logical)
			return true;
	}
	return false;
}

/* This node, and everybody below it: a breadth-first walk over replicatefrom, each member at most
 * once. */
bool slots_force_feedback(const struct slots_in *in)
{
	const struct cluster *c = in->c;
	if (!slots_supported(in) || !can_advance(in) || in->set->standby_cluster ||
		!any_logical(in->set))
		return false;
	if (logical_here(in, in->me, in->set->tags.nofailover))
		return true;
	bool below[LIMIT_MEMBERS] = { false };
	INVARIANT(c->member_count <= LIMIT_MEMBERS);
	for (unsigned round = 0; round < c->member_count; round++) {
		bool grown = false;
		for (unsigned i = 0; i < c->member_count; i++) {
			const struct member *m = &c->members[i];
			const char *from = m->tags.replicatefrom;
			if (below[i] || from[0] == '\0' || str_eq(m->name, in->leader) ||
				str_eq(m->name, in->me))
				continue;
			bool hit = str_eq(from, in->me);
			for (unsigned k = 0; k < c->member_count && !hit; k++)
				hit = below[k] && str_eq(from, c->members[k].name);
			if (!hit)
				continue;
			if (logical_here(in, m->name, m->tags.nofailover))
				return true;
			below[i] = grown = true;
		}
		if (!grown)
			break;
	}
	return false;
}

bool slots_wanted_at_all(const struct slots_in *in)
{
	if (!slots_supported(in) || !can_advance(in))
		return false;
	return in->set->member_slots_ttl_ms > 0 ||
	       (in->set->permanent_count > 0 && !in->set->tags.nofailover);
}
