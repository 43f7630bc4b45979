/* Invariants stay on in production: a broken one ends the process, and the design makes that ending
 * safe. */
#pragma once

/* Called before the process aborts; the supervisor sets it to its fence. May be NULL. */
extern void (*invariant_hook)(void);
__attribute__((noreturn)) void invariant_failed(const char *expr, const char *file, int line);

#define INVARIANT(expr) ((expr) ? (void)0 : invariant_failed(#expr, __FILE__, __LINE__))
