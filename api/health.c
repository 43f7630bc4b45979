/* Health checks. See health.h. */
#include "api/health.h"

#include <string.h>

#include "common/core/buf.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define TAG_TEXT_MAX 4096 /* longer than any request line can ask for usefully */

#define YES 200u
#define NO  503u

enum pg_role health_role(const struct health_facts *f)
{
	if (!f->query_ok)
		return f->mem_role;
	if (!f->in_recovery)
		return PG_ROLE_PRIMARY;
	/* Recovery cannot tell a standby leader from its replicas; memory can. */
	if (f->standby_cluster &&
		(f->mem_role == PG_ROLE_STANDBY_LEADER || f->mem_role == PG_ROLE_REPLICA))
		return f->mem_role;
	return PG_ROLE_REPLICA;
}

const char *health_state_word(const struct health_facts *f)
{
	if (f->mem_state == PG_STATE_RUNNING && !f->query_ok && !f->not_asked)
		return "unknown";
	return pg_state_word(f->mem_state);
}

const char *health_replication_state(const struct health_facts *f)
{
	return f->query_ok && f->in_recovery ? f->replication_state : "";
}

static bool running(const struct health_facts *f)
{
	return f->mem_state == PG_STATE_RUNNING && f->query_ok;
}

static uint64_t leader_lsn(const struct health_facts *f)
{
	uint64_t dcs = f->cluster_present ? f->last_lsn : 0;
	return dcs > f->latest_end_lsn ? dcs : f->latest_end_lsn;
}

/* ---- tags ---------------------------------------------------------------------------------------
 */

/* A text as it is; what is none by its Python text in lower case: true, 5, 1.0, [1, 2]. */
static bool tag_equals(const json_t *tag, const char *want)
{
	if (tag == NULL || json_is_null(tag))
		return false;
	if (json_is_string(tag))
		return strcmp(json_string_value(tag), want) == 0;
	AUTO(buf) text = BUF_INIT(TAG_TEXT_MAX);
	json_repr(tag, &text);
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] >= 'A' && text.data[i] <= 'Z')
			text.data[i] = (char)(text.data[i] - 'A' + 'a');
	}
	return !text.failed && strcmp(buf_str(&text), want) == 0;
}

static bool tags_match(const struct health_facts *f, const struct health_query *q)
{
	for (unsigned i = 0; i < q->tag_count; i++) {
		const json_t *tag = json_object_get(f->filter_tags, q->tags[i].name);
		if (tag == NULL || !tag_equals(tag, q->tags[i].value))
			return false;
	}
	return true;
}

/* ---- codes --------------------------------------------------------------------------------------
 */

struct codes {
	unsigned leader, primary, standby_leader, replica;
};

static bool lagging(const struct health_facts *f, const struct health_query *q)
{
	uint64_t top = leader_lsn(f);
	if (top == 0 || !q->lag_given)
		return false;
	/* Signed and saturated: a negative limit asks for a replica ahead of the leader. */
	__int128 ahead = (__int128)top - (__int128)f->replayed_lsn;
	return ahead > q->lag;
}

static unsigned replica_code(const struct health_facts *f, const struct health_query *q)
{
	if (json_is_true(json_object_get(f->filter_tags, "noloadbalance")) || lagging(f, q) ||
		health_role(f) != PG_ROLE_REPLICA || !running(f))
		return NO;
	if (q->replication_state != NULL &&
		strcmp(q->replication_state, health_replication_state(f)) != 0)
		return NO;
	return YES;
}

static struct codes evaluate(const struct health_facts *f, const struct health_query *q)
{
	struct codes c = { NO, NO, NO, replica_code(f, q) };
	enum pg_role role = health_role(f);
	if (!f->cluster_present && f->paused) {
		c.primary = role == PG_ROLE_PRIMARY ? YES : NO;
		c.standby_leader = role == PG_ROLE_STANDBY_LEADER ? YES : NO;
		c.leader = c.primary == YES || c.standby_leader == YES ? YES : NO;
	} else if (f->lease_valid && f->standby_cluster) {
		c.leader = YES;
		c.standby_leader =
			role == PG_ROLE_REPLICA || role == PG_ROLE_STANDBY_LEADER ? YES : NO;
		c.replica = NO;
	} else if (f->lease_valid) {
		c.leader = YES;
		c.primary = YES;
	}
	return c;
}

static unsigned leader_side(const char *path, const struct codes *c)
{
	if (strstr(path, "standby_leader") != NULL || strstr(path, "standby-leader") != NULL)
		return c->standby_leader;
	if (strstr(path, "leader") != NULL)
		return c->leader;
	if (strcmp(path, "/") == 0 || strstr(path, "master") != NULL ||
		strstr(path, "primary") != NULL || strstr(path, "read-write") != NULL)
		return c->primary;
	return 0;
}

static unsigned replica_side(const char *path, const struct health_facts *f, const struct codes *c)
{
	bool some_leader = c->primary == YES || c->standby_leader == YES;
	if (strstr(path, "replica") != NULL)
		return c->replica;
	if (strstr(path, "read-only") != NULL && strstr(path, "sync") == NULL &&
		strstr(path, "quorum") == NULL)
		return some_leader ? YES : c->replica;
	if (strstr(path, "health") != NULL)
		return running(f) ? YES : NO;
	if (!f->cluster_present)
		return NO;
	if ((strcmp(path, "/sync") == 0 || strcmp(path, "/synchronous") == 0) && f->sync_standby)
		return c->replica;
	if (strcmp(path, "/quorum") == 0 && f->quorum_standby)
		return c->replica;
	if ((strcmp(path, "/async") == 0 || strcmp(path, "/asynchronous") == 0) &&
		!f->sync_standby && !f->quorum_standby)
		return c->replica;
	if (strcmp(path, "/read-only-quorum") == 0)
		return some_leader ? YES : f->quorum_standby ? c->replica : NO;
	if (strcmp(path, "/read-only-sync") == 0 || strcmp(path, "/read-only-synchronous") == 0)
		return some_leader ? YES : f->sync_standby ? c->replica : NO;
	return NO;
}

bool health_leader_question(const char *path)
{
	static const struct codes any = { YES, YES, YES, NO };
	return leader_side(path, &any) != 0;
}

unsigned health_check(const char *path, const struct health_facts *f, const struct health_query *q)
{
	struct codes c = evaluate(f, q);
	unsigned code = leader_side(path, &c);
	if (code != 0)
		return code;
	code = replica_side(path, f, &c);
	return code == YES && !tags_match(f, q) ? NO : code;
}

unsigned health_liveness(const struct health_facts *f)
{
	int64_t grace_ms =
		f->mem_role == PG_ROLE_PRIMARY && f->postmaster_alive ? f->ttl_ms : 2 * f->ttl_ms;
	return f->paused || f->now_ms < f->next_cycle_ms + grace_ms ? YES : NO;
}

unsigned health_readiness(const struct health_facts *f, const struct health_query *q)
{
	if (f->lease_valid)
		return YES;
	if (f->mem_state != PG_STATE_RUNNING || !f->query_ok ||
		strcmp(health_replication_state(f), "streaming") != 0)
		return NO;
	if (!f->cluster_present && f->latest_end_lsn == 0)
		return f->failsafe_active ? YES : NO;
	uint64_t at = q->mode_write ? f->received_lsn : f->replayed_lsn;
	__int128 behind = (__int128)leader_lsn(f) - (__int128)at;
	return behind > (q->lag_given ? q->lag : f->max_lag_on_failover) ? NO : YES;
}
