/* The demotion: stop PostgreSQL, and give the leader key to whoever has its last record. */
#pragma once
#include "worker/worker.h"

/* The one demotion, made ready to be started with demote_step. */
struct co *demote_prepare(struct worker *w, const struct ha_action *a);
void demote_step(struct co *co);
