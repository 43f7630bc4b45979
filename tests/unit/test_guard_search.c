/* Exhaustive search over all interleavings of the moves in guard_world.h: is there an instant at
 * which PostgreSQL may accept a write and the store may give the lease to another? Depth first with
 * a growing bound, so that what it finds is a shortest example; states that differ in clock and
 * counters alone count once.
 *
 * GUARD_SEARCH_SECONDS (default 15) and GUARD_SEARCH_DEPTH (default 12) or the first two arguments
 * bound it. It is built without sanitizers: guard.c is included here once more, and runs under them
 * in test_guard.c. Exit status 1 and the moves in order when it finds something. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "supervisor/guard.c"
#include "supervisor/guard_events.c"
#include "tests/unit/guard_world.c"

#define TABLE_BITS 24
#define TABLE_SIZE (1u << TABLE_BITS)
#define PROBES	   16
#define DEPTH_MAX  40

static struct {
	uint64_t *table; /* hash, with the depth that was left in its low 6 bits */
	struct world stack[DEPTH_MAX + 1];
	enum w_move path[DEPTH_MAX];
	uint64_t states, moves;
	unsigned reached[MV_COUNT];
	time_t end;
	bool out_of_time;
} search;

/* True when this state was expanded before with at least as much depth left. */
static bool was_seen(uint64_t hash, unsigned left)
{
	uint64_t key = (hash & ~63ull) | 64;
	uint64_t at = hash >> (64 - TABLE_BITS);
	for (unsigned i = 0; i < PROBES; i++, at++) {
		uint64_t *slot = &search.table[at & (TABLE_SIZE - 1)];
		if (*slot == 0) {
			*slot = (key & ~63ull) | left;
			search.states++;
			return false;
		}
		if ((*slot & ~63ull) == (key & ~63ull)) {
			if ((*slot & 63) >= left)
				return true;
			*slot = (*slot & ~63ull) | left;
			return false;
		}
	}
	return false; /* crowded: expanded once more, which only costs time */
}

static void print_example(unsigned depth)
{
	printf("broken after %u moves:\n", depth);
	for (unsigned i = 0; i < depth; i++)
		printf("  %+6" PRId64 " ms  %s\n", search.stack[i + 1].now_ms - W_T0,
			world_move_name(search.path[i]));
	const struct world *w = &search.stack[depth];
	if (!world_broken(w)) {
		printf("  nobody looks for the proof that generation %" PRIu64 " has ended\n",
			w->pg.generation);
		return;
	}
	printf("  store may give the lease away since %+" PRId64
	       " ms; PostgreSQL generation %" PRIu64 " accepts writes\n",
		w->store_until_ms - W_T0, w->pg.generation);
}

/* Depth is bounded by DEPTH_MAX. True when an example was found. */
static bool expand(unsigned depth, unsigned limit)
{
	for (unsigned m = 0; m < MV_COUNT; m++) {
		struct world *w = &search.stack[depth + 1];
		*w = search.stack[depth];
		if (!world_move(w, (enum w_move)m))
			continue;
		search.moves++;
		search.reached[m]++;
		search.path[depth] = (enum w_move)m;
		if (world_broken(w) || world_stuck(w)) {
			print_example(depth + 1);
			return true;
		}
		if (depth + 1 >= limit || was_seen(world_hash(w), limit - depth - 1))
			continue;
		if ((search.moves & 1023) == 0 && time(NULL) >= search.end)
			search.out_of_time = true;
		if (search.out_of_time)
			return false;
		if (expand(depth + 1, limit))
			return true;
	}
	return false;
}

static unsigned number(const char *argument, const char *variable, unsigned otherwise)
{
	const char *text = argument != NULL ? argument : getenv(variable);
	return text != NULL && *text != '\0' ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* What PostgreSQL did at all: a model in which nothing can write proves nothing. */
static const enum w_move must_be_reached[] = { MV_RELEASE, MV_PROMOTE_FILE, MV_PG_PROMOTES,
	MV_PG_CRASHES, MV_PG_SHUT_DOWN, MV_SUP_NEW, MV_DM_END_OLD, MV_SUP_THAWS, MV_DM0_THAWS,
	MV_PROOF_SEND };

/* Where the search begins. The first one is the whole; the others lie deeper, where the dangerous
 * moments are. */
static const struct {
	const char *name;
	enum w_move moves[16];
	unsigned count;
} starts[] = {
	{ "nothing runs", { 0 }, 0 },
	{ "a leader", { MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS }, 5 },
	{ "a standby that may promote",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_RENEW, MV_REPORT }, 5 },
	{ "a promotion in flight",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_RENEW, MV_REPORT, MV_PROMOTE,
			MV_DM0_READS, MV_SUP_READS },
		8 },
	{ "a hand-over under a leader",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS, MV_SUP_DIES,
			MV_SUP_NEW, MV_DM_NEW },
		8 },
	{ "a hand-over under a standby",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_SUP_DIES, MV_SUP_NEW, MV_DM_NEW,
			MV_DM1_READS, MV_RENEW, MV_REPORT },
		9 },
	{ "a stop of a leader",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS, MV_STOP,
			MV_PG_SHUT_DOWN },
		7 },
};
#define STARTS (sizeof(starts) / sizeof(starts[0]))

static bool begin(unsigned start)
{
	world_init(&search.stack[0]);
	for (unsigned i = 0; i < starts[start].count; i++) {
		enum w_move move = starts[start].moves[i];
		if (!world_move(&search.stack[0], move) || world_broken(&search.stack[0])) {
			printf("start \"%s\": \"%s\" does not work\n", starts[start].name,
				world_move_name(move));
			return false;
		}
	}
	return true;
}

static bool search_all(unsigned depth_max, unsigned *complete, time_t started)
{
	for (unsigned limit = 1; limit <= depth_max; limit++) {
		for (unsigned i = 0; i < STARTS; i++) {
			memset(search.table, 0, TABLE_SIZE * sizeof(uint64_t));
			search.states = search.moves = 0;
			if (!begin(i))
				return true;
			bool found = expand(0, limit);
			if (limit >= 6 || found)
				printf("depth %2u from \"%s\"%s: %" PRIu64 " states, %" PRIu64
				       " moves, %ld s\n",
					limit, starts[i].name,
					search.out_of_time ? " (cut by the time bound)" : "",
					search.states, search.moves, (long)(time(NULL) - started));
			fflush(stdout);
			if (found)
				return true;
			if (search.out_of_time)
				return false;
			complete[i] = limit;
		}
	}
	return false;
}

int main(int argc, char **argv)
{
	unsigned seconds = number(argc > 1 ? argv[1] : NULL, "GUARD_SEARCH_SECONDS", 15);
	unsigned depth_max = number(argc > 2 ? argv[2] : NULL, "GUARD_SEARCH_DEPTH", 12);
	unsigned complete[STARTS] = { 0 };
	if (depth_max == 0 || depth_max > DEPTH_MAX) {
		printf("depth %u, allowed are 1 to %d\n", depth_max, DEPTH_MAX);
		return 2;
	}
	search.table = malloc(TABLE_SIZE * sizeof(uint64_t));
	if (search.table == NULL)
		return 2;
	time_t started = time(NULL);
	search.end = started + seconds;
	bool failed = search_all(depth_max, complete, started);
	for (unsigned i = 0;
		complete[0] >= 8 && i < sizeof(must_be_reached) / sizeof(must_be_reached[0]); i++)
		if (search.reached[must_be_reached[i]] == 0) {
			printf("never happened: %s\n", world_move_name(must_be_reached[i]));
			failed = true;
		}
	free(search.table);
	for (unsigned i = 0; i < STARTS; i++)
		printf("every interleaving of %2u moves (%u from the beginning): %s\n", complete[i],
			complete[i] + starts[i].count, starts[i].name);
	printf(failed ? "[  FAILED  ] guard_search\n" : "[       OK ] guard_search\n");
	return failed;
}
