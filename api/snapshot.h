/* Questions to the snapshot of the cluster that the worker publishes (DOC_CLUSTER of shm_layout.h).
 * Pure; everything returned is borrowed from the snapshot. */
#pragma once
#include <stdbool.h>
#include <jansson.h>

const char *snapshot_leader(const json_t *cluster); /* NULL = no leader */
/* The name is among the synchronous standbys of the sync key; ASCII case does not count. */
bool snapshot_is_sync(const json_t *cluster, const char *name);
/* Value of a member key; NULL = there is no such member. */
const json_t *snapshot_member(const json_t *cluster, const char *name);
