/* Exhaustive search over all interleavings of the moves in guard_world.h: is there an instant at
 * which PostgreSQL may accept a write and the store may give the lease to another, or one at which
 * an end is waited for that nobody looks for? Breadth first, so that what it finds is a shortest
 * example and each state is expanded once; worlds with the same fingerprint (guard_world_hash.c, 64
 * bits) are one state.
 *
 * Two depths: for the write (GUARD_SEARCH_DEPTH, 12) states are left out from which world_bound()
 * says that it is too far; for the end that nobody looks for (GUARD_SEARCH_STUCK, 9) there is no
 * such bound, all states are gone on from. GUARD_SEARCH_FULL=1 leaves nothing out;
 * GUARD_SEARCH_COUNT=1 goes on after an example and prints how many different ones there are and a
 * sum of their fingerprints: the two must agree with and without the bound (tests/guard-bound.sh).
 *
 * GUARD_SEARCH_START=0 is the search from the beginning alone.
 *
 * GUARD_SEARCH_SECONDS (default 15), GUARD_SEARCH_DEPTH and GUARD_SEARCH_STUCK or the first three
 * arguments bound it. It is built without sanitizers: guard.c is included here once more, and runs
 * under them in test_guard.c. Exit status 1 and the moves in order when it finds something. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "supervisor/guard.c"
#include "supervisor/guard_events.c"
#include "tests/unit/guard_world.c"

#define TABLE_BITS_FIRST 16
#define NODE_MAX	 (1ull << 27)
#define DEPTH_MAX	 40

/* A state by how it was reached first. */
struct node {
	uint32_t parent;
	uint8_t move;
} __attribute__((packed));

static struct {
	uint64_t *table; /* fingerprints, 0 = free; at most half full */
	unsigned table_bits;
	uint64_t table_used;
	struct node *nodes;
	uint64_t node_count, moves;
	/* The world of a node is made again by its moves; neighbours share most of them. */
	struct world stack[DEPTH_MAX + 2];
	uint8_t path[DEPTH_MAX + 1];
	unsigned path_length;
	unsigned reached[MV_COUNT];
	unsigned depth_max, stuck_max, only_start;
	bool full, count_only;
	uint64_t examples, examples_sum;
	unsigned shortest;
	time_t end;
	bool cut;
} search;

static uint64_t *slot_of(uint64_t key)
{
	uint64_t mask = (1ull << search.table_bits) - 1;
	uint64_t at = key >> (64 - search.table_bits);
	while (search.table[at & mask] != 0 && search.table[at & mask] != key)
		at++;
	return &search.table[at & mask];
}

/* An empty one, or twice as large with what the present one holds. */
static void set_table(unsigned bits, bool keep)
{
	uint64_t *old = search.table, old_size = 1ull << search.table_bits;
	search.table = calloc(1ull << bits, sizeof(uint64_t));
	search.table_bits = bits;
	if (search.table == NULL) {
		printf("no memory for %llu fingerprints\n", 1ull << bits);
		exit(2);
	}
	for (uint64_t i = 0; keep && i < old_size; i++)
		if (old[i] != 0)
			*slot_of(old[i]) = old[i];
	if (!keep)
		search.table_used = 0;
	free(old);
}

/* True when it is new. */
static bool add_state(uint64_t hash)
{
	uint64_t *slot = slot_of(hash | 1);
	if (*slot != 0)
		return false;
	*slot = hash | 1;
	if (++search.table_used > 1ull << (search.table_bits - 1))
		set_table(search.table_bits + 1, true);
	return true;
}

static void add_node(uint32_t parent, enum w_move move)
{
	search.nodes[search.node_count++] =
		(struct node){ .parent = parent, .move = (uint8_t)move };
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

/* stack[depth] becomes the world of the node. */
static void go_to(uint32_t index, unsigned depth)
{
	uint8_t path[DEPTH_MAX];
	for (unsigned i = depth; i > 0; i--) {
		path[i - 1] = search.nodes[index].move;
		index = search.nodes[index].parent;
	}
	unsigned same = 0;
	while (same < depth && same < search.path_length && path[same] == search.path[same])
		same++;
	for (unsigned i = same; i < depth; i++) {
		search.stack[i + 1] = search.stack[i];
		world_move(&search.stack[i + 1], (enum w_move)path[i]);
		search.path[i] = path[i];
	}
	search.path_length = depth;
}

/* The world after a move: an example, or the proof that the bound is wrong. */
static bool is_example(const struct world *w, unsigned bound_before, unsigned depth)
{
	unsigned bound = world_bound(w);
	if (bound + 1 < bound_before || (bound == 0) != world_broken(w)) {
		printf("the bound is wrong: it fell from %u to %u\n", bound_before, bound);
		print_example(depth);
		return true;
	}
	if (search.count_only) {
		uint64_t hash = world_hash(w);
		/* Kept among the states under another number; gone on from by neither search. */
		if (bound == 0 && add_state(hash * 0x9e3779b97f4a7c15u)) {
			search.examples++;
			if (search.shortest == 0 || depth < search.shortest)
				search.shortest = depth;
			search.examples_sum += hash;
		}
		return false;
	}
	if (bound != 0 && !world_stuck(w))
		return false;
	print_example(depth);
	return true;
}

/* Something may still be found within the depths if the search goes on from a state of that depth.
 */
static bool worth_keeping(const struct world *w, unsigned depth)
{
	if (depth >= search.depth_max || (search.count_only && world_broken(w)))
		return false;
	return search.full || depth < search.stuck_max ||
	       depth + world_bound(w) <= search.depth_max;
}

/* All moves from one state. True when an example was found. */
static bool expand(uint32_t index, unsigned depth)
{
	go_to(index, depth);
	struct world *w = &search.stack[depth + 1];
	unsigned bound = world_bound(&search.stack[depth]);
	for (unsigned m = 0; m < MV_COUNT; m++) {
		*w = search.stack[depth];
		if (!world_move(w, (enum w_move)m))
			continue;
		search.moves++;
		search.reached[m]++;
		search.path[depth] = (uint8_t)m;
		if (is_example(w, bound, depth + 1))
			return true;
		if (worth_keeping(w, depth + 1) && add_state(world_hash(w)))
			add_node(index, (enum w_move)m);
	}
	return false;
}

/* Breadth first from stack[0]. True when an example was found; *out_depth: how many moves are
 * complete. */
static bool search_from(const char *name, unsigned *out_depth, time_t started)
{
	set_table(TABLE_BITS_FIRST, false);
	search.node_count = search.moves = 0;
	search.path_length = 0;
	search.cut = false;
	add_node(0, 0);
	add_state(world_hash(&search.stack[0]));
	uint64_t at = 0;
	for (unsigned depth = 0; depth < search.depth_max; depth++) {
		uint64_t level_end = search.node_count;
		for (; at < level_end; at++) {
			if (expand((uint32_t)at, depth))
				return true;
			if ((at & 255) == 0 &&
				(time(NULL) >= search.end ||
					search.node_count > NODE_MAX - MV_COUNT * 256))
				search.cut = true;
			if (search.cut)
				return false;
		}
		*out_depth = depth + 1;
		if (depth + 1 >= 7)
			printf("depth %2u from \"%s\": %" PRIu64 " states, %" PRIu64
			       " moves, %ld s (%ld s of processor time)\n",
				depth + 1, name, level_end, search.moves,
				(long)(time(NULL) - started), (long)(clock() / CLOCKS_PER_SEC));
		fflush(stdout);
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
/* From the starts that have them. */
static const enum w_move extra_must_be_reached[] = { MV_WALL_JUMPS, MV_KILL, MV_OVERTAKES,
	MV_PG_FOREIGN };

/* Where the search begins. The first one is the whole; the others lie deeper, where the dangerous
 * moments are. share: of the time, in percent of all. */
static const struct {
	const char *name;
	enum w_move moves[16];
	unsigned count, share;
	unsigned extra; /* enum w_extra */
} starts[] = {
	{ "nothing runs", { 0 }, 0, 50, 0 },
	{ "a leader", { MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS }, 5, 6,
		0 },
	{ "a standby that may promote",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_RENEW, MV_REPORT }, 5, 6, 0 },
	{ "a promotion in flight",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_RENEW, MV_REPORT, MV_PROMOTE,
			MV_DM0_READS, MV_SUP_READS },
		8, 6, 0 },
	{ "a hand-over under a leader",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS, MV_SUP_DIES,
			MV_SUP_NEW, MV_DM_NEW },
		8, 6, 0 },
	{ "a hand-over under a standby",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_SUP_DIES, MV_SUP_NEW, MV_DM_NEW,
			MV_DM1_READS, MV_RENEW, MV_REPORT },
		9, 6, 0 },
	{ "a stop of a leader",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS, MV_STOP,
			MV_PG_SHUT_DOWN },
		7, 6, 0 },
	{ "failsafe under a leader",
		{ MV_FAILSAFE, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS }, 5, 4, 0 },
	{ "a leader, and a wall clock that jumps",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS }, 5, 2,
		W_WALL },
	{ "a promotion, and a wall clock that jumps",
		{ MV_START_STANDBY, MV_DM0_READS, MV_SUP_READS, MV_RENEW, MV_REPORT }, 5, 2,
		W_WALL },
	{ "a leader that is killed by order",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS }, 5, 2,
		W_KILL },
	{ "a frozen supervisor, and orders out of order",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS,
			MV_SUP_FREEZES },
		6, 2, W_LATE | W_KILL },
	{ "a primary that somebody else starts",
		{ MV_RENEW, MV_REPORT, MV_PG_FOREIGN, MV_DM0_READS, MV_SUP_READS }, 5, 2,
		W_FOREIGN },
	{ "a leader under a watchdog",
		{ MV_RENEW, MV_REPORT, MV_START_PRIMARY, MV_DM0_READS, MV_SUP_READS }, 5, 2,
		W_WATCHDOG },
};
#define STARTS (sizeof(starts) / sizeof(starts[0]))

static bool begin(unsigned start)
{
	world_init(&search.stack[0]);
	search.stack[0].store_away = starts[start].moves[0] == MV_FAILSAFE;
	search.stack[0].extra = starts[start].extra;
	if (starts[start].extra & W_WALL)
		search.stack[0].wall_ms = W_WALL_MS;
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

/* The dangerous moments first: a mistake is mostly found there within a second. What they leave of
 * their time is the whole search's. */
static bool search_all(unsigned seconds, unsigned *complete, time_t started)
{
	for (unsigned n = 1; n <= STARTS; n++) {
		unsigned i = n % STARTS;
		if (search.only_start != i && search.only_start < STARTS)
			continue;
		time_t share = i == 0 ? started + seconds - time(NULL)
				      : (time_t)(seconds * starts[i].share + 99) / 100;
		search.end = time(NULL) + (share > 1 ? share : 1);
		if (!begin(i) || search_from(starts[i].name, &complete[i], started))
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	unsigned seconds = number(argc > 1 ? argv[1] : NULL, "GUARD_SEARCH_SECONDS", 15);
	unsigned depth_max = number(argc > 2 ? argv[2] : NULL, "GUARD_SEARCH_DEPTH", 12);
	search.depth_max = depth_max;
	search.stuck_max = number(argc > 3 ? argv[3] : NULL, "GUARD_SEARCH_STUCK", 9);
	search.only_start = number(NULL, "GUARD_SEARCH_START", STARTS);
	search.full = number(NULL, "GUARD_SEARCH_FULL", 0) != 0;
	search.count_only = number(NULL, "GUARD_SEARCH_COUNT", 0) != 0;
	unsigned complete[STARTS] = { 0 };
	if (depth_max == 0 || depth_max > DEPTH_MAX) {
		printf("depth %u, allowed are 1 to %d\n", depth_max, DEPTH_MAX);
		return 2;
	}
	search.nodes =
		malloc(NODE_MAX * sizeof(struct node)); /* only what is used is ever touched */
	if (search.nodes == NULL)
		return 2;
	bool failed = search_all(seconds, complete, time(NULL));
	for (unsigned i = 0; search.only_start >= STARTS && complete[0] >= 8 &&
			     i < sizeof(extra_must_be_reached) / sizeof(extra_must_be_reached[0]);
		i++)
		if (search.reached[extra_must_be_reached[i]] == 0) {
			printf("never happened: %s\n", world_move_name(extra_must_be_reached[i]));
			failed = true;
		}
	for (unsigned i = 0;
		complete[0] >= 8 && i < sizeof(must_be_reached) / sizeof(must_be_reached[0]); i++)
		if (search.reached[must_be_reached[i]] == 0) {
			printf("never happened: %s\n", world_move_name(must_be_reached[i]));
			failed = true;
		}
	free(search.table);
	free(search.nodes);
	for (unsigned i = 0; i < STARTS; i++)
		printf("every interleaving of %2u moves (%u from the beginning): %s\n", complete[i],
			complete[i] + starts[i].count, starts[i].name);
	if (search.count_only)
		printf("%" PRIu64 " examples, sum %016" PRIx64 ", the shortest of %u moves\n",
			search.examples, search.examples_sum, search.shortest);
	printf("the write: to %u moves at most; the end that nobody looks for: to %u\n",
		search.depth_max, search.full ? search.depth_max : search.stuck_max);
	printf(failed ? "[  FAILED  ] guard_search\n" : "[       OK ] guard_search\n");
	return failed;
}
