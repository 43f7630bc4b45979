/* Words of the contract for roles and states. See pgstate.h. */
#include "common/model/pgstate.h"

#include "common/core/invariant.h"

const char *pg_role_word(enum pg_role role)
{
	switch (role) {
	case PG_ROLE_UNINITIALIZED: return "uninitialized";
	case PG_ROLE_REPLICA: return "replica";
	case PG_ROLE_PRIMARY: return "primary";
	case PG_ROLE_STANDBY_LEADER: return "standby_leader";
	case PG_ROLE_DEMOTED: return "demoted";
	case PG_ROLE_PROMOTED: return "promoted";
	}
	return "uninitialized";
}

const char *pg_state_word(enum pg_state state)
{
	static const char *const words[PG_STATE_COUNT] = { "initializing new cluster",
		"initdb failed", "running custom bootstrap script", "custom bootstrap failed",
		"creating replica", "running", "starting", "starting after custom bootstrap",
		"start failed", "restarting", "restart failed", "stopping", "stopped",
		"stop failed", "crashed" };
	INVARIANT((unsigned)state < PG_STATE_COUNT);
	return words[state];
}

const char *pg_control_fault_word(enum pg_control_fault fault)
{
	switch (fault) {
	case PG_CONTROL_GOOD: return "good";
	case PG_CONTROL_ABSENT: return "pg_control is not there";
	case PG_CONTROL_UNREADABLE: return "pg_control cannot be read";
	case PG_CONTROL_SHORT: return "pg_control is too short";
	case PG_CONTROL_VERSION_UNKNOWN:
		return "pg_control is of a version that is not read natively";
	case PG_CONTROL_CRC: return "pg_control has a wrong checksum";
	}
	return "?";
}
