/* The only readers of a clock. All else is handed now_ms. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* CLOCK_BOOTTIME in milliseconds: counts suspend, never jumps. Every deadline is on it. */
int64_t clock_boot_ms(void);
/* The same in microseconds, for measurements. */
int64_t clock_boot_us(void);
/* The first multiple of every_ms (positive) after now_ms: what need not happen at a moment of its
 * own happens together with the rest. */
static inline int64_t clock_grid_ms(int64_t now_ms, int64_t every_ms)
{
	return now_ms - now_ms % every_ms + every_ms;
}
/* Wall clock, microseconds since 1970 (UTC): display, schedules, and the jump test of the lease
 * only. */
int64_t clock_wall_us(void);
/* Wall clock minus boot clock, the two read together: one who is frozen between two readings would
 * see a jump that never was. 0 = they could not be read together. */
int64_t clock_wall_offset_ms(void);
/* CLOCK_MONOTONIC in microseconds: only for those who ask for that clock (sd_notify). */
int64_t clock_monotonic_us(void);
/* A descriptor whose read fails with ECANCELED after somebody has set the wall clock; or -1 with
 * errno. */
int clock_wall_set_fd_new(void);
/* ISO 8601 with microseconds and zone "+00:00" (UTC), at most 33 bytes with the final zero. */
void clock_iso8601(int64_t wall_us, char *out, size_t out_len);
/* Set *spec (struct itimerspec) is left to callers; this arms a CLOCK_BOOTTIME timerfd at an
 * absolute time (0 disarms). A time that has passed fires at once. Returns 0 or -1 with errno. */
int clock_timerfd_arm(int fd, int64_t at_ms);
/* A new close-on-exec, non-blocking timerfd on CLOCK_BOOTTIME, or -1 with errno. */
int clock_timerfd_new(void);
