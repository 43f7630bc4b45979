/* Points in time as users type them (ctl 4.6). */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "ctl/ctl.h"

static bool put_iso(const struct tm *tm, const char *fraction, long offset_s, char *out, size_t len)
{
	long a = offset_s < 0 ? -offset_s : offset_s;
	return str_format(out, len, "%04d-%02d-%02dT%02d:%02d:%02d%s%c%02ld:%02ld",
		tm->tm_year + 1900, tm->tm_mon + 1, tm->tm_mday, tm->tm_hour, tm->tm_min,
		tm->tm_sec, fraction, offset_s < 0 ? '-' : '+', a / 3600, a / 60 % 60);
}

/* Z, +HH, +HHMM, +HH:MM. */
static bool parse_zone(const char *s, long *out)
{
	if (strcmp(s, "Z") == 0 || strcmp(s, "z") == 0 || str_eq_nocase(s, "UTC")) {
		*out = 0;
		return true;
	}
	int h = 0, m = 0, end = 0;
	if (*s != '+' && *s != '-')
		return false;
	size_t digits = strspn(s + 1, "0123456789");
	int n = digits == 4 ? sscanf(s + 1, "%2d%2d%n", &h, &m, &end)
			    : sscanf(s + 1, "%2d%n:%2d%n", &h, &end, &m, &end);
	if (n < 1 || s[1 + end] != '\0' || h > 23 || m > 59)
		return false;
	*out = (h * 3600L + m * 60L) * (*s == '-' ? -1 : 1);
	return true;
}

static const char *parse_date(const char *s, struct tm *tm)
{
	int y, m, d, end = 0;
	if (sscanf(s, "%4d-%2d-%2d%n", &y, &m, &d, &end) == 3 ||
		sscanf(s, "%4d/%2d/%2d%n", &y, &m, &d, &end) == 3) {
		tm->tm_year = y - 1900;
		tm->tm_mon = m - 1;
		tm->tm_mday = d;
		tm->tm_hour = tm->tm_min = tm->tm_sec = 0;
		s += end;
		return s + strspn(s, "T ");
	}
	return s;
}

static const char *parse_clock(const char *s, struct tm *tm, char fraction[static 12])
{
	int h, m, sec = 0, end = 0;
	if (sscanf(s, "%2d:%2d%n", &h, &m, &end) != 2)
		return NULL;
	s += end;
	end = 0;
	if (sscanf(s, ":%2d%n", &sec, &end) == 1)
		s += end;
	if (*s == '.' || *s == ',') {
		size_t n = strspn(s + 1, "0123456789");
		if (n == 0 || n > 9 || !str_format(fraction, 12, ".%.*s", (int)n, s + 1))
			return NULL;
		s += 1 + n;
	}
	tm->tm_hour = h;
	tm->tm_min = m;
	tm->tm_sec = sec;
	return s + strspn(s, " ");
}

bool when_parse(const char *text, char *out, size_t out_len)
{
	if (text[0] == '\0' || str_eq_nocase(text, "now"))
		return str_copy(out, out_len, "");
	time_t now = (time_t)(clock_wall_us() / 1000000);
	struct tm tm, check;
	char fraction[12] = "";
	(void)localtime_r(&now, &tm);
	const char *s = parse_date(text, &tm);
	bool dated = s != text;
	if (*s != '\0' || !dated)
		s = parse_clock(s, &tm, fraction);
	if (s == NULL || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	long offset = 0;
	struct tm copy = tm;
	copy.tm_isdst = -1;
	check = tm;
	if (timegm(&check) == (time_t)-1 || check.tm_mday != tm.tm_mday ||
		check.tm_mon != tm.tm_mon)
		return false; /* the 31st of June */
	if (*s == '\0') {
		if (mktime(&copy) == (time_t)-1)
			return false;
		offset = copy.tm_gmtoff;
	} else if (!parse_zone(s, &offset)) {
		return false;
	}
	return put_iso(&tm, fraction, offset, out, out_len);
}

void when_example(char *out, size_t out_len)
{
	time_t at = (time_t)(clock_wall_us() / 1000000) + 3600;
	struct tm tm;
	(void)localtime_r(&at, &tm);
	(void)strftime(out, out_len, "%Y-%m-%dT%H:%M", &tm);
}

void when_stamp(char *out, size_t out_len, int fraction_digits)
{
	int64_t us = clock_wall_us();
	time_t at = (time_t)(us / 1000000);
	struct tm tm;
	char day[40], fraction[16];
	(void)localtime_r(&at, &tm);
	(void)strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &tm);
	(void)snprintf(fraction, sizeof(fraction), ".%06d", (int)(us % 1000000));
	put_format(out, out_len, "%s%.*s", day, fraction_digits > 0 ? fraction_digits + 1 : 0,
		fraction);
}
