/* The only readers of a clock. See clock.h. */
#include "common/core/clock.h"

#include <stdio.h>
#include <sys/timerfd.h>
#include <time.h>

#define OFFSET_TRIES	   3
#define OFFSET_TOGETHER_US 10000

int64_t clock_boot_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_boot_ms(void)
{
	return clock_boot_us() / 1000;
}

int64_t clock_wall_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_wall_offset_ms(void)
{
	for (int i = 0; i < OFFSET_TRIES; i++) {
		int64_t before_us = clock_boot_us(), wall_us = clock_wall_us();
		if (clock_boot_us() - before_us < OFFSET_TOGETHER_US)
			return (wall_us - before_us) / 1000;
	}
	return 0;
}

int64_t clock_monotonic_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int clock_wall_set_fd_new(void)
{
	/* Far in the future: only the cancellation by a set clock is of interest. */
	const struct itimerspec never = { .it_value = { .tv_sec = (time_t)1 << 40 } };
	int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd >= 0)
		timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
	return fd;
}

void clock_iso8601(int64_t wall_us, char *out, size_t out_len)
{
	time_t sec = (time_t)(wall_us / 1000000);
	struct tm tm;
	gmtime_r(&sec, &tm);
	snprintf(out, out_len, "%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		(int)(wall_us % 1000000));
}

int clock_timerfd_new(void)
{
	return timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
}

int clock_timerfd_arm(int fd, int64_t at_ms)
{
	struct itimerspec its = { 0 };
	if (at_ms != 0) {
		if (at_ms < 1)
			at_ms = 1;
		its.it_value.tv_sec = at_ms / 1000;
		its.it_value.tv_nsec = (at_ms % 1000) * 1000000;
	}
	return timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL);
}
