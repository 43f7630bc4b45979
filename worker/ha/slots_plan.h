/* Which replication slots should exist on this node (ha 7.2), and what follows from them
 * (7.3, 7.6). Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/model/cluster.h"
#include "common/model/pgstate.h"
#include "common/model/settings.h"

struct slots_in {
	const char *me;
	const char
		*leader; /* as decided on: C's, or the injected one of failsafe mode; "" = none */
	bool leads;	 /* role here is primary or standby_leader (also promoted) */
	const struct cluster *c;
	const struct settings *set;
	int32_t server_version; /* 150020 */
	/* Positions heard outside of the store (failsafe mode): the higher one counts. */
	const struct slot_lsn *said;
	unsigned said_count;
};

struct slot_wanted {
	char name[LIMIT_SLOT_NAME];
	bool logical, permanent;
	bool expected_active;	       /* somebody is to stream from it here */
	uint64_t lsn;		       /* advance to; 0 = leave */
	const char *database, *plugin; /* logical; borrowed from the settings; "" = none */
};

struct slots_plan {
	struct slot_wanted slot[LIMIT_SLOTS];
	unsigned count;
	bool overflow;		       /* more than LIMIT_SLOTS wanted: none may be dropped */
	char collision[2][LIMIT_NAME]; /* two members with one slot name, the first pair found; "" =
					  none */
};

void slots_plan_make(const struct slots_in *in, struct slots_plan *out);
const struct slot_wanted *slots_plan_find(const struct slots_plan *plan, const char *name);

/* 7.4: an entry of ignore_slots matches. */
bool slots_ignored(const struct settings *set, const struct pg_slot *slot);
/* Slot through which a node's changes reach the primary: its own, or that of the topmost node of
 * its replicatefrom chain. False: it has none (nostream, or below a circle that has no leader). */
bool slots_name_on_primary(
	const struct slots_in *in, const char *node, char out[static LIMIT_SLOT_NAME]);
/* 7.6. */
bool slots_force_feedback(const struct slots_in *in);
bool slots_wanted_at_all(const struct slots_in *in); /* slots are to be queried with the facts */
