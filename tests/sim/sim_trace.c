/* What a failing history did, member by member: the lines of its last minutes, repeated ones
 * counted. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define TRACE_LINES  6000
#define TRACE_WINDOW 150000 /* ms before the violation */

static struct line {
	int64_t at_ms;
	int node;
	char text[200];
} * lines;
static unsigned long taken;

void sim_print(const struct sim *s, int node, const char *fmt, ...)
{
	char text[sizeof(lines->text)];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s->trace)
		printf("%9.3f %-2s %s\n", (double)s->now_ms / 1000, sim_name(node), text);
	if (!s->record)
		return;
	if (!lines)
		lines = calloc(TRACE_LINES, sizeof(*lines));
	if (!lines)
		return;
	struct line *l = &lines[taken++ % TRACE_LINES];
	l->at_ms = s->now_ms;
	l->node = node;
	memcpy(l->text, text, sizeof(text));
}

void trace_begin(struct sim *s)
{
	s->record = true;
	taken = 0;
}

#define LIKE_RECENT 5 /* a line that is among the last few told is counted, not told again */

static void one_member(const struct sim *s, int node)
{
	const struct line *told[LIKE_RECENT] = { NULL };
	unsigned again = 0, count = 0;
	unsigned long first = taken > TRACE_LINES ? taken - TRACE_LINES : 0;
	for (unsigned long i = first; i < taken; i++) {
		const struct line *l = &lines[i % TRACE_LINES];
		if (l->node != node || l->at_ms < s->checks.at_ms - TRACE_WINDOW)
			continue;
		bool like = false;
		for (unsigned k = 0; k < LIKE_RECENT; k++)
			like |= told[k] && strcmp(told[k]->text, l->text) == 0;
		if (like) {
			again++;
			continue;
		}
		if (again)
			printf("              (%u more like these)\n", again);
		again = 0;
		if (!count)
			printf("  -- %s --\n", node < 0 ? "outside" : sim_name(node));
		told[count++ % LIKE_RECENT] = l;
		printf("  %9.3f %s\n", (double)l->at_ms / 1000, l->text);
	}
	if (again)
		printf("              (%u more like these)\n", again);
}

void trace_end(struct sim *s)
{
	s->record = false;
	for (int node = -1; lines && node < (int)s->cfg.member_count; node++)
		one_member(s, node);
}

void trace_free(void)
{
	free(lines);
	lines = NULL;
}
