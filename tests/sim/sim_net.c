/* The simulated network. */
#include "tests/sim/sim_net.h"

#include "tests/sim/sim.h"

bool net_open(const struct sim *s, int from, int to)
{
	if (from != SIM_STORE && !s->nodes[from].on)
		return false;
	if (to != SIM_STORE && !s->nodes[to].on)
		return false;
	return s->net.cut[from][to] == 0;
}

int64_t net_delay(struct sim *s, int from, int to)
{
	if (!net_open(s, from, to))
		return -1;
	unsigned loss = s->net.loss_per_mille[from] + s->net.loss_per_mille[to];
	if (loss && sim_chance(&s->rng, loss))
		return -1;
	int64_t delay = 1 + (int64_t)rng_below(&s->rng, 4);
	if (sim_chance(&s->rng, 10))
		delay += sim_range(&s->rng, 5, 200);
	return delay + s->net.slow_ms[from] + s->net.slow_ms[to];
}

void net_cut(struct sim *s, int from, int to, bool on)
{
	if (on)
		s->net.cut[from][to]++;
	else if (s->net.cut[from][to])
		s->net.cut[from][to]--;
}
