/* Which decisions go to the log: a changed one at once, the same one again once in loop_wait, also
 * where events make a member decide a hundred times a second. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define DECLOG_LINES 16 /* different lines that are told apart within one loop_wait */
/* A decision that comes and goes is shown as often within one loop_wait. */
#define DECLOG_TURNS 2

struct declog_line {
	uint64_t hash;
	int64_t since_ms; /* the first of .count times within one loop_wait */
	unsigned count;
};

/* Plain data; zeroed = nothing was said yet. */
struct declog {
	struct declog_line lines[DECLOG_LINES];
	uint64_t last;	 /* the decision that stands, as the log has it */
	int64_t last_ms; /* when a decision was logged last */
};

/* Is this decision to be logged? .reason with its rule; numbers that stand alone do not make it
 * another one ("29 seconds until timeout"). */
bool declog_decision(struct declog *d, const char *owner, const char *reason, int64_t now_ms,
	int64_t loop_wait_ms);
/* The same for a line beside the decision. */
bool declog_note(struct declog *d, const char *text, int64_t now_ms, int64_t loop_wait_ms);
