/* -W and -w of list, topology, query (ctl 4.7): the interval, and the sleep between two rounds. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "common/core/clock.h"
#include "ctl/ctl.h"

#define INTERVAL_MAX_S 86400

double watch_interval(const struct args *a)
{
	const char *text = args_value(a, "watch");
	if (text == NULL)
		return args_has(a, "W") ? 2 : 0;
	char *end = NULL;
	double s = strtod(text, &end);
	if (end == text || *end != '\0' || !isfinite(s) || s < 0 || s > INTERVAL_MAX_S)
		fail_usage("Invalid value for '-w' / '--watch': '%s' is not a valid float.", text);
	return s;
}

void watch_sleep(double seconds, int64_t *at_us)
{
	*at_us += (int64_t)(seconds * 1e6);
	int64_t now_us = clock_monotonic_us();
	/* A round that took longer than the interval is followed at once, never by a burst. */
	if (*at_us < now_us)
		*at_us = now_us;
	struct timespec left = { (time_t)((*at_us - now_us) / 1000000),
		(long)((*at_us - now_us) % 1000000) * 1000 };
	(void)nanosleep(&left, NULL);
}
