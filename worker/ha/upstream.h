/* Whom a member is to stream from by its tag replicatefrom. Pure. */
#pragma once
#include "common/model/cluster.h"

/* The member that .from names, or "": it names nobody, itself, a member that is gone, or the names
 * come round in a circle, in which everybody would wait for everybody; then each member of the
 * circle follows the leader, whoever hangs on it does not change. Without a leader a circle stays:
 * a stream is not cut for nothing. */
const char *upstream_named(
	const struct cluster *c, const char *leader, const char *name, const char *from);
/* Does that circle exist? */
bool upstream_is_circle(
	const struct cluster *c, const char *leader, const char *name, const char *from);
