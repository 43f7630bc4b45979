/* What synchronous replication looks like now: /sync, synchronous_standby_names and the walsenders,
 * as sets over one sorted list of names (ha 5.2, 5.3). Lives for one call; names are borrowed from
 * the view and the memory. Private to worker/ha. */
#pragma once
#include "worker/ha/quorum.h"
#include "worker/ha/step.h"

#define SSN_PLACEHOLDER "__patroni_strict_sync_replica_placeholder__"

/* Parsed synchronous_standby_names. */
struct ssn {
	bool quorum; /* ANY */
	int n;	     /* 0 = off */
	char names[LIMIT_SYNC_NAMES][LIMIT_NAME];
	unsigned count;
};
/* False: not parsable, *out is "off". The placeholder alone reads as no names; "*" reads as the
 * placeholder. */
bool ssn_parse(const char *text, struct ssn *out);

struct sync_state {
	const char *names[QUORUM_NAMES];
	unsigned name_count;
	struct ssn ssn;
	int me, leader; /* leader -1: /sync is empty */
	int quorum;
	int key_quorum;	 /* as /sync has it, in whatever mode */
	int64_t version; /* of /sync, -1 = to be created */
	struct qset voters, listed, active, confirmed;
	int max_n; /* node_count of the contract */
};

/* Brings memory.ready up to date too. False: more names than fit, nothing may be decided. */
bool sync_state_read(struct step *s, struct sync_state *out);
