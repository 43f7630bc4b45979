/* A standby cluster (ha 9.1): its leader follows a remote member and never promotes. Pure. */
#include "worker/ha/step.h"

/* F2: the leader follows the remote member; without a leader everybody does, so that the race is
 * among equals. */
bool standby_target(const struct step *s)
{
	if (!s->standby)
		return false;
	return s->has_lock || (s->unlocked && !s->paused);
}

/* F4: this was a primary until the section was added. The key stays where it is: the node leads on
 * as standby leader. */
bool standby_demote(struct step *s, const char *reason)
{
	struct ha_action *a = plan_demote(s, DEMOTE_CLUSTER);
	a->flag = s->has_lock;
	if (s->has_lock)
		failover_names(s, a);
	return plan_done(s, "F4", "%s", reason);
}
