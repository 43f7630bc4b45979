/* The supervisor's shared page: what it enforces, for api and pgregentctl. Written here, never read
 * here. */
#include "supervisor/sup.h"

static void set(struct sup *s, enum shm_sup_scalar index, int64_t value)
{
	shm_scalar_set(&s->page, index, value);
}

void sup_publish(struct sup *s)
{
	const struct guard *g = &s->guard;
	const struct helper *w = &s->helpers[HELPER_WORKER];
	set(s, SUP_WORKER_PID, w->pid);
	set(s, SUP_FILES_PID, s->helpers[HELPER_FILES].pid);
	set(s, SUP_API_PID, s->helpers[HELPER_API].pid);
	set(s, SUP_DEADMAN_PID, s->dm.pid);
	set(s, SUP_WORKER_READY, w->state == HELPER_READY);
	set(s, SUP_WORKER_RESTARTS, (int64_t)w->restarts);
	set(s, SUP_FILES_RESTARTS, (int64_t)s->helpers[HELPER_FILES].restarts);
	set(s, SUP_API_RESTARTS, (int64_t)s->helpers[HELPER_API].restarts);
	set(s, SUP_DEADMAN_RESTARTS, (int64_t)s->dm.restarts);
	set(s, SUP_PG_PID, s->pm.pid);
	set(s, SUP_PG_STATE, g->pm_state);
	set(s, SUP_PG_GENERATION, (int64_t)s->pm.generation);
	set(s, SUP_PG_KIND, g->kind);
	set(s, SUP_PG_STARTED_MS, s->pm.started_at_ms);
	set(s, SUP_PG_PROMOTE_SENT, g->promote_sent);
	set(s, SUP_LEASE_UNTIL_MS, g->lease_until_ms);
	set(s, SUP_LEASE_TTL_MS, g->ttl_ms);
	set(s, SUP_POLICY, g->policy);
	set(s, SUP_PAUSE_ENFORCE, g->pause_enforce);
	set(s, SUP_PROOF_UNTIL_MS, g->proof_until_ms);
	set(s, SUP_FENCE_AT_MS, s->want.fence_at_ms);
	set(s, SUP_FENCES, (int64_t)s->pm.fences);
	set(s, SUP_WATCHDOG_ARMED, s->watchdog.timeout_ms > 0);
	set(s, SUP_WATCHDOG_TIMEOUT_MS, s->watchdog.timeout_ms);
	set(s, SUP_DEADMAN_ACKED, guard_synced(g, g->state_seq));
	set(s, SUP_JOBS_RUNNING, jobs_running(&s->jobs));
	set(s, SUP_ENDING, s->end.phase != END_NO);
	/* Last: a reader that sees this time sees the values that belong to it, or newer ones. */
	set(s, SUP_AT_MS, s->now_ms);
}
