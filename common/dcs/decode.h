/* Keys and values to struct cluster and back (dcs 1). Reading accepts whatever a hostile hand may
 * have put there: a broken value is an absent one, as the reference has it, and never an error. */
#pragma once
#include <jansson.h>

#include "common/core/err.h"
#include "common/model/cluster.h"

struct dcs_kv {
	char *key;   /* below the prefix: "leader", "members/pg1" */
	char *value; /* zero-terminated; length in value_len */
	size_t value_len;
	int64_t version;  /* mod_revision or the like */
	char session[48]; /* lease or session; "" = none */
};

/* Borrowed keys in any order; NULL without memory. */
struct cluster *decode_cluster(
	const struct dcs_kv *kvs, unsigned count, int64_t revision, int64_t read_at_ms);
/* Effective tags from a JSON map (config 1.12); NULL gives the defaults. */
void decode_tags(const json_t *tags, struct tags *out);
/* Semantic equality of two JSON texts (dcs 1.4). */
bool decode_same(const char *a, const char *b);

/* Compact JSON; freed by the caller, NULL without memory. */
char *encode_sync(const char *leader, int quorum, const char (*voters)[LIMIT_NAME], unsigned count);
char *encode_failover(const char *leader, const char *candidate,
	int64_t scheduled_wall_us); /* NULL/0 = left out */
/* Time with zone to microseconds since 1970; false: not understood, or no zone. */
bool decode_time(const char *text, int64_t *out_wall_us, bool *out_no_zone);
