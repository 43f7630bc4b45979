/* What each route answers (rest 2). Reads the pages, hands commands to actions.c. Api process. */
#include <string.h>

#include "api/api.h"
#include "api/documents.h"
#include "api/metrics.h"
#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define METRICS_MAX (64 * 1024)

static void serve_status(
	struct request *r, unsigned status, const struct health_facts *f, const json_t *facts)
{
	struct api *a = r->api;
	if (route_status_only(r->verb, r->route))
		reply_line(r, status);
	else
		reply_json(r, status, document_status(&a->view, f, facts, &a->settings));
}

static void serve_metrics(struct request *r, const struct health_facts *f, const json_t *facts)
{
	struct api *a = r->api;
	AUTO(buf) out = BUF_INIT(METRICS_MAX);
	json_auto_t *status = document_status(&a->view, f, facts, &a->settings);
	bool unknown = str_eq(json_path_str(status, "state"), "unknown");
	struct metrics_input in = { .status = status,
		.patroni_version = a->settings.patroni_version,
		.scope = a->settings.scope,
		.name = a->settings.name,
		.state = unknown ? -1 : (int)f->mem_state,
		.failsafe_enabled = view_get(&a->view, WRK_FAILSAFE_MODE) != 0,
		.failsafe_member =
			json_object_get(view_doc(&a->view, DOC_FAILSAFE), a->settings.name) != NULL,
		.tags = json_object_get(view_doc(&a->view, DOC_MEMBER), "tags") };
	if (status != NULL)
		metrics_write(&in, &out);
	if (status == NULL || out.failed) {
		reply_text(r, 500, "no memory");
		return;
	}
	reply_doc(r, 200, buf_str(&out), out.len, (struct reply_extra){ .lsn = -1, .plain = true });
}

static void serve(struct request *r, const json_t *facts, bool asked)
{
	struct health_facts f;
	view_refresh(&r->api->view);
	view_facts(&r->api->view, clock_boot_ms(), facts, &f);
	f.not_asked = !asked;
	if (!f.query_ok)
		facts = NULL;
	switch (r->route->kind) {
	case ROUTE_METRICS: serve_metrics(r, &f, facts); break;
	case ROUTE_READINESS: reply_line(r, health_readiness(&f, &r->query)); break;
	case ROUTE_PATRONI: serve_status(r, 200, &f, facts); break;
	/* A lag that was asked about and cannot be measured is not small (DESIGN 6): the replica
	 * codes are 503 then by D.state. */
	default: serve_status(r, health_check(r->path, &f, &r->query), &f, facts);
	}
}

void serve_with_facts(struct request *r, const json_t *facts)
{
	serve(r, facts, true);
}

static void serve_health(struct request *r)
{
	struct health_facts f;
	view_facts(&r->api->view, clock_boot_ms(), NULL, &f);
	/* Role and lease questions never wait. For the rest a leader's answer may be known already,
	 * but its body or a replica's code needs the facts. */
	if (health_leader_question(r->path) || (r->route->kind == ROUTE_READINESS && f.lease_valid))
		serve(r, NULL, false);
	else
		facts_want(r);
}

static void serve_cluster(struct request *r)
{
	struct view *v = &r->api->view;
	struct cluster_view c = { .cluster = view_cluster(v, clock_boot_ms()),
		.paused = view_get(v, WRK_PAUSED) != 0,
		.standby_cluster = view_get(v, WRK_STANDBY_CLUSTER) != 0,
		.sync = view_sync_mode(v),
		.scope = r->api->settings.scope };
	if (c.cluster == NULL)
		reply_text(r, 503, "the cluster state cannot be read from the DCS");
	else
		reply_json(r, 200, document_cluster(&c));
}

static void serve_document(struct request *r, enum shm_worker_doc doc, const char *absent)
{
	const json_t *v = view_doc(&r->api->view, doc);
	if (v != NULL)
		reply_json(r, 200, json_incref((json_t *)v));
	else
		reply_page(r, 502, absent);
}

static void serve_history(struct request *r)
{
	const json_t *v = view_doc(&r->api->view, DOC_HISTORY);
	if (!view_known(&r->api->view))
		reply_text(r, 503, "the cluster state cannot be read from the DCS");
	else
		reply_json(r, 200, json_is_array(v) ? json_incref((json_t *)v) : json_array());
}

static void serve_liveness(struct request *r)
{
	struct health_facts f;
	view_facts(&r->api->view, clock_boot_ms(), NULL, &f);
	reply_line(r, health_liveness(&f));
}

static void serve_refused(struct request *r)
{
	const char *text = r->refused.text;
	reply_doc(r, r->refused.status, text, strlen(text),
		(struct reply_extra){ .lsn = -1, .challenge = r->refused.challenge });
}

void serve_request(struct request *r)
{
	if (r->refused.status != 0) {
		serve_refused(r);
		return;
	}
	if (!r->query_ok) {
		reply_page(r, 400, "too many tag filters in the query string");
		return;
	}
	switch (r->route->kind) {
	case ROUTE_LIVENESS: serve_liveness(r); break;
	case ROUTE_HEALTH:
	case ROUTE_READINESS: serve_health(r); break;
	case ROUTE_PATRONI:
	case ROUTE_METRICS: facts_want(r); break;
	case ROUTE_CLUSTER: serve_cluster(r); break;
	case ROUTE_HISTORY: serve_history(r); break;
	case ROUTE_CONFIG:
		serve_document(r, DOC_CONFIG, "no dynamic configuration is known");
		break;
	case ROUTE_FAILSAFE: serve_document(r, DOC_FAILSAFE, "no failsafe key is known"); break;
	case ROUTE_ACTION:
		if (!r->route->local_only || r->listener->local) {
			action_start(r);
			break;
		}
		/* fall through */
	case ROUTE_UNSUPPORTED: reply_page(r, 501, "Server does not support this operation"); break;
	}
}
