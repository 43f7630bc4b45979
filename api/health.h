/* Health checks: path and facts to a status (rest 4). Pure: this file is the table that DESIGN 6
 * asks for; whatever a load balancer is told is decided here and nowhere else. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "common/core/limits.h"
#include "common/model/pgstate.h"
#include "common/model/settings.h"

/* One moment's facts. Positions and the recovery flag count only while query_ok: they rest on a
 * statement that was sent after the request came in. */
struct health_facts {
	bool cluster_present; /* C */
	bool lease_valid;     /* also by what the supervisor enforces */
	bool paused, standby_cluster;
	bool failsafe_active;
	bool postmaster_alive;
	enum pg_role mem_role;
	enum pg_state mem_state;
	int64_t now_ms, next_cycle_ms, ttl_ms;
	uint64_t last_lsn; /* optime of C */
	int64_t max_lag_on_failover;
	uint64_t logs_lost; /* lines, by worker and api */
	/* of the status query */
	bool query_ok, in_recovery;
	bool not_asked; /* a role or lease question: nothing is known of the query, also no failure
			 */
	bool sync_standby, quorum_standby;
	uint64_t received_lsn, replayed_lsn, latest_end_lsn;
	char replication_state[32];
	const json_t *filter_tags; /* borrowed; NULL = none */
};

#define HEALTH_TAG_FILTERS 32

/* The query string, decoded. Borrowed strings. */
struct health_query {
	bool lag_given; /* and can be read */
	int64_t lag;
	const char *replication_state; /* NULL = not asked */
	bool mode_write;
	unsigned tag_count;
	struct {
		const char *name, *value;
	} tags[HEALTH_TAG_FILTERS];
};

/* D.role and D.state of rest 3. */
enum pg_role health_role(const struct health_facts *f);
const char *health_state_word(const struct health_facts *f);
/* D.replication_state, or "" */
const char *health_replication_state(const struct health_facts *f);

/* Rules 1 to 3 of 4.3: a question of role and lease alone, which never waits for PostgreSQL. */
bool health_leader_question(const char *path);
unsigned health_check(const char *path, const struct health_facts *f, const struct health_query *q);
unsigned health_liveness(const struct health_facts *f);
unsigned health_readiness(const struct health_facts *f, const struct health_query *q);
