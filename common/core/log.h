/* One event, one line, one write under 4 KiB, never blocking: lines that the descriptor does not
 * take are counted and reported with the next one that it does. Format: "YYYY-MM-DD hh:mm:ss,mmm
 * LEVEL: text" (local time), so that tools made for Patroni find the level at column 25. Allocates
 * nothing. Fixed words first, key=value after; no secrets. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"

enum log_level {
	LOG_DEBUG = 10,
	LOG_INFO = 20,
	LOG_WARNING = 30,
	LOG_ERROR = 40,
	LOG_CRITICAL = 50
};

/* prefix (may be "") stands before the text, as "supervisor: "; fd is borrowed and must live on.
 * The sink is one per process. Without this call lines go to descriptor 2 at level info. fd is
 * reopened as an open file description of its own where /proc allows, so that O_NONBLOCK does not
 * spread to others. */
void log_open(const char *prefix, int fd, enum log_level level);
/* Lines go to another descriptor from now on; 2 is the process's own standard error again. A socket
 * that says its peer has gone is broken: lines go to descriptor 2 until the next log_reopen. */
void log_reopen(int fd);
bool log_broken(void);
/* The same with a descriptor that another process sent, which is taken over; -1: standard error
 * again. False: it is no local socket that keeps messages apart, and could block us; it is closed.
 */
bool log_take(int fd);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* Lines lost since the start. */
uint64_t log_lost(void);
/* One event. file, func: NULL when not known. */
struct log_record {
	enum log_level level;
	const char *text; /* one line */
	int64_t wall_us;
	const char *file, *func;
	int line;
};
void log_at(enum log_level level, const char *file, int line, const char *func, const char *fmt,
	...) PRINTF(5, 6);
/* For formats other than plain (configuration log.*): takes the record over, and calls log_raw.
 * NULL = plain. */
typedef void (*log_sink_fn)(const struct log_record *r);
void log_set_sink(log_sink_fn sink);
/* Write one already formatted line (no newline at its end) the same non-blocking way. */
void log_raw(const char *line);

#define log_line(level, ...) log_at(level, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_debug(...)	     log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)	     log_line(LOG_INFO, __VA_ARGS__)
#define log_warning(...)     log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...)	     log_line(LOG_ERROR, __VA_ARGS__)
#define log_fatal(...)	     log_line(LOG_CRITICAL, __VA_ARGS__)
