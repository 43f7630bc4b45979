/* See declog.h. Worker process; pure. */
#include "worker/declog.h"

#include <stddef.h>

#define HASH_BASE  0xcbf29ce484222325ULL
#define HASH_PRIME 0x100000001b3ULL

static uint64_t hash_byte(uint64_t h, char c)
{
	return (h ^ (unsigned char)c) * HASH_PRIME;
}

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

/* A number between spaces counts as "#"; part of a name, an address or a position stays what it is.
 */
static uint64_t hash_text(uint64_t h, const char *text)
{
	for (size_t i = 0; text[i] != '\0'; i++) {
		size_t end = i;
		while (digit(text[end]))
			end++;
		bool alone = end > i && (i == 0 || text[i - 1] == ' ') &&
			     (text[end] == ' ' || text[end] == '\0');
		h = hash_byte(h, alone ? '#' : text[i]);
		if (alone)
			i = end - 1;
	}
	return hash_byte(h, '\0');
}

/* The place of a line: its own, or that of the one that is the oldest. */
static struct declog_line *line_of(struct declog *d, uint64_t hash)
{
	struct declog_line *oldest = &d->lines[0];
	for (unsigned i = 0; i < DECLOG_LINES; i++) {
		struct declog_line *l = &d->lines[i];
		if (l->hash == hash)
			return l;
		if (l->since_ms < oldest->since_ms)
			oldest = l;
	}
	*oldest = (struct declog_line){ .hash = hash };
	return oldest;
}

/* Cycles come a little early or late. */
static bool is_over(int64_t since_ms, int64_t now_ms, int64_t loop_wait_ms)
{
	return now_ms - since_ms >= loop_wait_ms - loop_wait_ms / 10;
}

static bool say(
	struct declog *d, uint64_t hash, unsigned most, int64_t now_ms, int64_t loop_wait_ms)
{
	struct declog_line *l = line_of(d, hash);
	if (l->count == 0 || is_over(l->since_ms, now_ms, loop_wait_ms)) {
		l->since_ms = now_ms;
		l->count = 1;
		return true;
	}
	if (l->count >= most)
		return false;
	l->count++;
	return true;
}

bool declog_decision(struct declog *d, const char *owner, const char *reason, int64_t now_ms,
	int64_t loop_wait_ms)
{
	uint64_t hash = hash_text(hash_text(HASH_BASE, owner), reason);
	bool due = d->last_ms == 0 || is_over(d->last_ms, now_ms, loop_wait_ms);
	if (!due && (hash == d->last || !say(d, hash, DECLOG_TURNS, now_ms, loop_wait_ms)))
		return false;
	if (due)
		(void)say(d, hash, DECLOG_TURNS, now_ms, loop_wait_ms);
	d->last = hash;
	d->last_ms = now_ms;
	return true;
}

bool declog_note(struct declog *d, const char *text, int64_t now_ms, int64_t loop_wait_ms)
{
	return say(d, hash_text(HASH_BASE, text), 1, now_ms, loop_wait_ms);
}
