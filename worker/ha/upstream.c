/* See upstream.h. Runs in the worker and in the simulator; pure. */
#include "worker/ha/upstream.h"

#include "common/core/str.h"

bool upstream_is_circle(
	const struct cluster *c, const char *leader, const char *name, const char *from)
{
	const char *node = from;
	if (leader[0] == '\0' || from[0] == '\0' || str_eq(from, name))
		return false;
	/* Longer than there are members: a circle further up, of which this one is no part. */
	for (unsigned hops = 0; hops <= c->member_count; hops++) {
		if (str_eq(node, name))
			return true;
		const struct member *m = cluster_member_peek(c, node);
		if (m == NULL || str_eq(node, leader) || m->tags.nostream ||
			m->tags.replicatefrom[0] == '\0')
			return false;
		node = m->tags.replicatefrom;
	}
	return false;
}

const char *upstream_named(
	const struct cluster *c, const char *leader, const char *name, const char *from)
{
	if (from[0] == '\0' || str_eq(from, name) || cluster_member_peek(c, from) == NULL ||
		upstream_is_circle(c, leader, name, from))
		return "";
	return from;
}
