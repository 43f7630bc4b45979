/* synchronous_standby_names, read and written (ha 5.1). Pure; run by the worker. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/buf.h"
#include "common/core/limits.h"

#define SYNC_PLACEHOLDER "__patroni_strict_sync_replica_placeholder__"

enum ssn_type { SSN_OFF = 0, SSN_PRIORITY, SSN_QUORUM };

struct sync_names {
	enum ssn_type type;
	int num;       /* how many must confirm */
	bool has_star; /* "*": names then is the placeholder alone */
	unsigned count;
	char names[LIMIT_SYNC_NAMES]
		  [LIMIT_NAME]; /* as written, each once (ASCII case does not count) */
};

/* The placeholder alone reads as no names. False: not understood; *out is OFF then. */
MUST_USE bool sync_names_parse(const char *text, struct sync_names *out);

/* What to write for a set of names (any order, each at most once). num < 0: as many as names.
 * quorum: the mode of the cluster. server_version as 150020. Appends to out; false: the setting is
 * to be removed. */
MUST_USE bool sync_names_write(const char (*names)[LIMIT_NAME], unsigned count, int num,
	bool quorum, int32_t server_version, struct buf *out);

/* The setting in the text of a postgresql.conf as we, or the reference, write it: the last
 * uncommented line counts. False: there is none, or it does not fit; *out is "" then. */
MUST_USE bool sync_names_of_conf(const char *text, size_t len, char *out, size_t size);
