/* The JSON documents of the API: D, /cluster (rest 3, 5). Pure but for the allocation of what they
 * return; NULL = no memory. Owned by the caller. */
#pragma once
#include <jansson.h>

#include "api/health.h"
#include "api/settings.h"
#include "api/view.h"

/* D. facts were made by view_facts from the same query. */
json_t *document_status(struct view *v, const struct health_facts *facts, const json_t *query,
	const struct api_settings *settings);
struct cluster_view {
	const json_t *cluster; /* DOC_CLUSTER */
	bool paused, standby_cluster;
	enum sync_mode sync;
	const char *scope;
};
json_t *document_cluster(const struct cluster_view *c);
