/* What api knows at this moment: the pages of supervisor and worker, and the documents in them,
 * parsed once per generation. The only reader of the pages. Api process. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "api/health.h"
#include "common/core/buf.h"
#include "common/core/ipc_msgs.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"

/* Owned by the process struct of main.c. */
struct view {
	struct shm supervisor, worker;
	struct shm worker_next; /* of a new worker: used once it is complete */
	char name[LIMIT_NAME];
	struct {
		uint64_t generation;
		json_t *json; /* owned; NULL = the document is empty or cannot be read */
	} docs[DOC_WORKER_COUNT];
	struct buf scratch;
};

void view_init(struct view *v);
void view_done(struct view *v);
/* A page of role arrived; fd stays the caller's. */
MUST_USE enum err_code view_page(struct view *v, enum ipc_role role, int fd, struct err *err);
/* Borrowed until the next call for the same document; NULL = there is none. */
const json_t *view_doc(struct view *v, enum shm_worker_doc doc);
/* The newest worker page is complete (or none came yet). Call before each request. */
void view_refresh(struct view *v);
int64_t view_get(const struct view *v, enum shm_worker_scalar index);
bool view_known(const struct view *v); /* a worker has published */
/* C as of now, NULL = C is null (rest, terms). */
const json_t *view_cluster(struct view *v, int64_t now_ms);
/* The lease that answers may rest on: the worker's belief, never past what the supervisor enforces.
 */
/* The lease is not enforced, as in the last state that the supervisor published. */
bool view_is_paused(const struct view *v);
int64_t view_lease_until_ms(const struct view *v);
/* Synchronous mode in force: off in a standby cluster. */
enum sync_mode view_sync_mode(const struct view *v);
/* The status query is worth a try (rest 3): PostgreSQL runs or is on its way. */
bool view_query_possible(const struct view *v);
/* The facts of this moment. query: the answer of API_PG_FACTS, or NULL when there is none. Borrows
 * from the documents until the next view_doc. */
void view_facts(struct view *v, int64_t now_ms, const json_t *query, struct health_facts *out);
