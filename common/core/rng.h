/* Small deterministic generator (xoshiro256**): back-off jitter, shuffles, the simulator. Not for
 * secrets. */
#pragma once
#include <stdint.h>

struct rng {
	uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
void rng_seed_random(struct rng *r); /* from getrandom() */
uint64_t rng_next(struct rng *r);
/* Uniform in 0 .. n-1; n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
