/* Virtual time: one event heap, one arena per history. Ties are broken by insertion order, so that
 * a seed replays byte for byte. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/rng.h"

/* Addressed to a process of a node: void when that process is another incarnation by then, kept
 * while it is stopped. */
struct sim_event {
	int64_t at_ms;
	uint64_t seq;
	uint16_t kind;
	int8_t node; /* -1: nobody's */
	int8_t proc; /* enum sim_proc */
	uint32_t incarnation;
	int64_t a, b;
	void *ptr; /* into the arena */
};

struct sim_heap {
	struct sim_event *items;
	unsigned count, capacity;
	uint64_t next_seq;
};

void heap_push(struct sim_heap *h, struct sim_event ev);
bool heap_pop(struct sim_heap *h, struct sim_event *out);
void heap_done(struct sim_heap *h);

/* Memory of one history: given back as a whole. Blocks of one size class are reused by a free list.
 */
#define ARENA_CLASSES 4
struct arena {
	char *chunk[64];
	unsigned chunk_count, current;
	size_t used;
	void *freed[ARENA_CLASSES];
};
enum arena_class { ARENA_OP = 0, ARENA_SNAPSHOT, ARENA_MESSAGE, ARENA_OTHER };

void *arena_take(struct arena *a, enum arena_class class, size_t size); /* zeroed */
void arena_give(struct arena *a, enum arena_class class, void *block);
void arena_reset(struct arena *a);
void arena_done(struct arena *a);

/* lo .. hi inclusive. */
int64_t sim_range(struct rng *r, int64_t lo, int64_t hi);
bool sim_chance(struct rng *r, unsigned per_mille);
