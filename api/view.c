/* The pages as api sees them. See view.h. */
#include "api/view.h"

#include <string.h>

#include "api/snapshot.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"

void view_init(struct view *v)
{
	*v = (struct view){ .supervisor = SHM_INIT,
		.worker = SHM_INIT,
		.worker_next = SHM_INIT,
		.scratch = BUF_INIT(LIMIT_SHM_DOC + 1) };
}

static void drop_docs(struct view *v)
{
	for (unsigned i = 0; i < DOC_WORKER_COUNT; i++) {
		json_decref(v->docs[i].json);
		v->docs[i].json = NULL;
		v->docs[i].generation = 0;
	}
}

void view_done(struct view *v)
{
	drop_docs(v);
	shm_done(&v->supervisor);
	shm_done(&v->worker);
	shm_done(&v->worker_next);
	buf_done(&v->scratch);
}

enum err_code view_page(struct view *v, enum ipc_role role, int fd, struct err *err)
{
	struct shm page = SHM_INIT;
	enum err_code rc = shm_map(&page, fd, err);
	if (rc != ERR_OK)
		return rc;
	struct shm *target = role == ROLE_SUPERVISOR ? &v->supervisor : &v->worker_next;
	shm_done(target);
	*target = page;
	view_refresh(v);
	return ERR_OK;
}

void view_refresh(struct view *v)
{
	if (v->worker_next.region == NULL || shm_scalar_get(&v->worker_next, WRK_COMPLETE) == 0)
		return;
	shm_done(&v->worker);
	v->worker = v->worker_next;
	v->worker_next = (struct shm)SHM_INIT;
	drop_docs(v);
}

const json_t *view_doc(struct view *v, enum shm_worker_doc doc)
{
	uint64_t generation = shm_doc_generation(&v->worker, doc);
	if (generation == v->docs[doc].generation)
		return v->docs[doc].json;
	struct err err = ERR_INIT;
	if (shm_doc_read(&v->worker, doc, &v->scratch, NULL, &generation, &err) != ERR_OK)
		return v->docs[doc].json; /* the writer is busy: the copy before is good enough */
	json_t *parsed = NULL;
	if (v->scratch.len > 0) {
		parsed = json_read(v->scratch.data, v->scratch.len, &err);
		if (parsed == NULL)
			log_error("document of the worker's page index=%d: %s", doc, err.text);
	}
	json_decref(v->docs[doc].json);
	v->docs[doc].json = parsed;
	v->docs[doc].generation = generation;
	return parsed;
}

int64_t view_get(const struct view *v, enum shm_worker_scalar index)
{
	return shm_scalar_get(&v->worker, index);
}

bool view_known(const struct view *v)
{
	return v->worker.region != NULL;
}

const json_t *view_cluster(struct view *v, int64_t now_ms)
{
	int64_t read_ms = view_get(v, WRK_CLUSTER_READ_MS);
	if (read_ms == 0 || now_ms >= read_ms + view_get(v, WRK_TTL_MS))
		return NULL;
	return view_doc(v, DOC_CLUSTER);
}

bool view_is_paused(const struct view *v)
{
	return shm_scalar_get(&v->supervisor, SUP_POLICY) == POLICY_PAUSED &&
	       shm_scalar_get(&v->supervisor, SUP_PAUSE_ENFORCE) == 0;
}

int64_t view_lease_until_ms(const struct view *v)
{
	int64_t until_ms = view_get(v, WRK_LEASE_UNTIL_MS);
	/* Without the supervisor's page nobody is known to enforce anything. */
	if (v->supervisor.region == NULL)
		return 0;
	int64_t enforced_ms = shm_scalar_get(&v->supervisor, SUP_LEASE_UNTIL_MS);
	return !view_is_paused(v) && enforced_ms < until_ms ? enforced_ms : until_ms;
}

enum sync_mode view_sync_mode(const struct view *v)
{
	return view_get(v, WRK_STANDBY_CLUSTER) != 0 ? SYNC_OFF
						     : (enum sync_mode)view_get(v, WRK_SYNC_MODE);
}

bool view_query_possible(const struct view *v)
{
	switch ((enum pg_state)view_get(v, WRK_STATE)) {
	case PG_STATE_RUNNING:
	case PG_STATE_RESTARTING:
	case PG_STATE_STARTING: return view_known(v);
	default: return false;
	}
}

static uint64_t lsn_of(const json_t *query, const char *path)
{
	json_int_t n = json_integer_value(json_path(query, path));
	return n > 0 ? (uint64_t)n : 0;
}

static void query_facts(const json_t *query, struct health_facts *f)
{
	f->query_ok = true;
	f->in_recovery = json_is_true(json_object_get(query, "in_recovery"));
	f->latest_end_lsn = lsn_of(query, "latest_end_lsn");
	f->replayed_lsn = lsn_of(query, "xlog.replayed_location");
	f->received_lsn = lsn_of(query, "xlog.received_location");
	const char *state = json_path_str(query, "replication_state");
	if (state == NULL || !str_copy(f->replication_state, sizeof(f->replication_state), state))
		f->replication_state[0] = '\0';
}

void view_facts(struct view *v, int64_t now_ms, const json_t *query, struct health_facts *out)
{
	struct health_facts f = { .now_ms = now_ms };
	const json_t *cluster = view_cluster(v, now_ms);
	f.cluster_present = cluster != NULL;
	f.lease_valid = view_lease_until_ms(v) > now_ms;
	f.paused = view_get(v, WRK_PAUSED) != 0;
	f.standby_cluster = view_get(v, WRK_STANDBY_CLUSTER) != 0;
	f.failsafe_active = view_get(v, WRK_FAILSAFE_UNTIL_MS) > now_ms;
	f.postmaster_alive = view_get(v, WRK_POSTMASTER_ALIVE) != 0;
	f.mem_role = (enum pg_role)view_get(v, WRK_ROLE);
	/* Before any worker has published the state is not "initdb", which is 0. */
	f.mem_state = view_known(v) ? (enum pg_state)view_get(v, WRK_STATE) : PG_STATE_STOPPED;
	f.next_cycle_ms = view_get(v, WRK_NEXT_CYCLE_MS);
	f.ttl_ms = view_get(v, WRK_TTL_MS);
	f.last_lsn = (uint64_t)view_get(v, WRK_LAST_LSN);
	f.max_lag_on_failover = view_get(v, WRK_MAX_LAG_ON_FAILOVER);
	f.logs_lost = (uint64_t)view_get(v, WRK_LOGS_LOST) + log_lost();
	if (query != NULL && view_query_possible(v))
		query_facts(query, &f);
	if (f.query_ok && health_role(&f) != PG_ROLE_PRIMARY && view_sync_mode(v) != SYNC_OFF &&
		snapshot_is_sync(cluster, v->name)) {
		f.sync_standby = view_sync_mode(v) == SYNC_PRIORITY;
		f.quorum_standby = view_sync_mode(v) == SYNC_QUORUM;
	}
	const json_t *member = view_doc(v, DOC_MEMBER);
	const json_t *tags = json_object_get(member, "filter_tags");
	f.filter_tags = tags != NULL ? tags : json_object_get(member, "tags");
	*out = f;
}
