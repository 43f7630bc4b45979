/* The event heap, the arena and the random helpers of the simulator. */
#include "tests/sim/sim_clock.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/invariant.h"

#define ARENA_CHUNK (1u << 20)

static bool before(const struct sim_event *x, const struct sim_event *y)
{
	return x->at_ms != y->at_ms ? x->at_ms < y->at_ms : x->seq < y->seq;
}

void heap_push(struct sim_heap *h, struct sim_event ev)
{
	if (h->count == h->capacity) {
		h->capacity = h->capacity ? h->capacity * 2 : 1024;
		h->items = realloc(h->items, h->capacity * sizeof(*h->items));
		INVARIANT(h->items != NULL);
	}
	ev.seq = h->next_seq++;
	unsigned i = h->count++;
	while (i > 0) {
		unsigned up = (i - 1) / 2;
		if (!before(&ev, &h->items[up]))
			break;
		h->items[i] = h->items[up];
		i = up;
	}
	h->items[i] = ev;
}

bool heap_pop(struct sim_heap *h, struct sim_event *out)
{
	if (h->count == 0)
		return false;
	*out = h->items[0];
	struct sim_event last = h->items[--h->count];
	unsigned i = 0;
	for (;;) {
		unsigned kid = 2 * i + 1;
		if (kid >= h->count)
			break;
		if (kid + 1 < h->count && before(&h->items[kid + 1], &h->items[kid]))
			kid++;
		if (!before(&h->items[kid], &last))
			break;
		h->items[i] = h->items[kid];
		i = kid;
	}
	if (h->count)
		h->items[i] = last;
	return true;
}

void heap_done(struct sim_heap *h)
{
	free(h->items);
	*h = (struct sim_heap){ 0 };
}

static void *fresh(struct arena *a, size_t size)
{
	size = (size + 15) & ~(size_t)15;
	INVARIANT(size <= ARENA_CHUNK);
	if (a->chunk_count == 0 || a->used + size > ARENA_CHUNK) {
		if (a->chunk_count)
			a->current++;
		if (a->current >= a->chunk_count) {
			INVARIANT(a->chunk_count < 64);
			a->chunk[a->chunk_count] = malloc(ARENA_CHUNK);
			INVARIANT(a->chunk[a->chunk_count] != NULL);
			a->current = a->chunk_count++;
		}
		a->used = 0;
	}
	void *p = a->chunk[a->current] + a->used;
	a->used += size;
	return p;
}

void *arena_take(struct arena *a, enum arena_class class, size_t size)
{
	void *p = a->freed[class];
	if (p && class != ARENA_OTHER)
		memcpy(&a->freed[class], p, sizeof(void *));
	else
		p = fresh(a, size);
	memset(p, 0, size);
	return p;
}

void arena_give(struct arena *a, enum arena_class class, void *block)
{
	memcpy(block, &a->freed[class], sizeof(void *));
	a->freed[class] = block;
}

void arena_reset(struct arena *a)
{
	a->current = 0;
	a->used = 0;
	memset(a->freed, 0, sizeof(a->freed));
}

void arena_done(struct arena *a)
{
	for (unsigned i = 0; i < a->chunk_count; i++)
		free(a->chunk[i]);
	*a = (struct arena){ 0 };
}

int64_t sim_range(struct rng *r, int64_t lo, int64_t hi)
{
	if (hi <= lo)
		return lo;
	return lo + (int64_t)rng_below(r, (uint64_t)(hi - lo + 1));
}

bool sim_chance(struct rng *r, unsigned per_mille)
{
	return rng_below(r, 1000) < per_mille;
}
