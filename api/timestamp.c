/* Timestamps. See timestamp.h. */
#include "api/timestamp.h"

#include <ctype.h>
#include <stdio.h>

static bool digits_n(const char **p, unsigned n, int *out)
{
	int v = 0;
	for (unsigned i = 0; i < n; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return false;
		v = v * 10 + (**p - '0');
	}
	*out = v;
	return true;
}

static bool eat(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

/* Days since 1970-01-01 of a Gregorian date. */
static int64_t days_from_civil(int y, int m, int d)
{
	int64_t yy = y - (m <= 2);
	int64_t era = (yy >= 0 ? yy : yy - 399) / 400;
	int64_t yoe = yy - era * 400;
	int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
	return era * 146097 + doe - 719468;
}

static void civil_from_days(int64_t z, int *y, int *m, int *d)
{
	z += 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	*d = (int)(doy - (153 * mp + 2) / 5 + 1);
	*m = (int)(mp + (mp < 10 ? 3 : -9));
	*y = (int)(yoe + era * 400 + (*m <= 2));
}

static bool date_ok(int y, int m, int d)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	return y >= 1 && m >= 1 && m <= 12 && d >= 1 && d <= days[m - 1] + (m == 2 && leap);
}

/* Up to nine digits, microseconds count. */
static int64_t fraction_us(const char **p)
{
	int64_t us = 0;
	unsigned n = 0;
	for (; isdigit((unsigned char)**p) && n < 9; n++, (*p)++) {
		if (n < 6)
			us = us * 10 + (**p - '0');
	}
	for (; n < 6; n++)
		us *= 10;
	return us;
}

static bool zone(const char **p, struct timestamp *out)
{
	while (**p == ' ')
		(*p)++;
	if (**p == '\0')
		return true;
	out->has_zone = true;
	if (eat(p, 'Z') || eat(p, 'z'))
		return **p == '\0';
	int sign = **p == '-' ? -1 : 1;
	int h, m = 0;
	if (!eat(p, '+') && !eat(p, '-'))
		return false;
	if (!digits_n(p, 2, &h))
		return false;
	if (**p != '\0') {
		(void)eat(p, ':');
		if (!digits_n(p, 2, &m))
			return false;
	}
	if (**p != '\0' || h > 23 || m > 59)
		return false;
	out->offset_min = sign * (h * 60 + m);
	return true;
}

bool timestamp_parse(const char *text, struct timestamp *out)
{
	int y, mon, d, h, min, s = 0;
	int64_t us = 0;
	struct timestamp t = { 0 };
	const char *p = text;
	if (!digits_n(&p, 4, &y) || !eat(&p, '-') || !digits_n(&p, 2, &mon) || !eat(&p, '-') ||
		!digits_n(&p, 2, &d) || (!eat(&p, 'T') && !eat(&p, ' ')) || !digits_n(&p, 2, &h) ||
		!eat(&p, ':') || !digits_n(&p, 2, &min))
		return false;
	if (eat(&p, ':')) {
		if (!digits_n(&p, 2, &s))
			return false;
		if (eat(&p, '.') || eat(&p, ',')) {
			if (!isdigit((unsigned char)*p))
				return false;
			us = fraction_us(&p);
		}
	}
	if (!date_ok(y, mon, d) || h > 23 || min > 59 || s > 59 || !zone(&p, &t))
		return false;
	int64_t sec = days_from_civil(y, mon, d) * 86400 + h * 3600 + min * 60 + s;
	t.wall_us = (sec - (int64_t)t.offset_min * 60) * 1000000 + us;
	*out = t;
	return true;
}

void timestamp_iso(const struct timestamp *t, char out[static 40])
{
	int64_t local_us = t->wall_us + (int64_t)t->offset_min * 60000000;
	int64_t sec = local_us / 1000000;
	int64_t us = local_us % 1000000;
	if (us < 0) {
		us += 1000000;
		sec--;
	}
	int64_t day = sec / 86400;
	int64_t left = sec % 86400;
	if (left < 0) {
		left += 86400;
		day--;
	}
	int y, m, d;
	civil_from_days(day, &y, &m, &d);
	int off = t->offset_min < 0 ? -t->offset_min : t->offset_min;
	char frac[16] = "";
	if (us != 0)
		snprintf(frac, sizeof(frac), ".%06d", (int)us);
	snprintf(out, 40, "%04d-%02d-%02dT%02d:%02d:%02d%s%c%02d:%02d", y, m, d, (int)(left / 3600),
		(int)(left / 60 % 60), (int)(left % 60), frac, t->offset_min < 0 ? '-' : '+',
		off / 60, off % 60);
}
