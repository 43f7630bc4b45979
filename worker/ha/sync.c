/* Synchronous replication of the leader (ha 5). Pure. */
#include "worker/ha/step.h"

/* Off: /sync goes first, because nothing stands behind its promise any more once the setting is
 * gone. */
static bool sync_off(struct step *s)
{
	if (s->c->sync_leader[0] != '\0')
		plan_add(s, HA_DELETE_SYNC)->version = s->c->sync_version;
	plan_add(s, HA_SET_SSN)->ssn = (struct ha_ssn){ .managed = false };
	return false;
}

bool sync_step(struct step *s, enum act_why why)
{
	(void)why;
	if (s->sync == SYNC_OFF)
		return sync_off(s);
	plan_note(s, HA_LOG_ERROR, "synchronous_mode is not built yet");
	return false;
}

bool stage_sync(struct step *s)
{
	return cycle_run(s);
}

bool sync_prepromote(struct step *s)
{
	if (s->sync == SYNC_OFF)
		return sync_off(s);
	return plan_done(s, "G5", "not promoting: synchronous_mode is not built yet");
}

bool stage_prepromote(struct step *s)
{
	return cycle_run(s);
}
