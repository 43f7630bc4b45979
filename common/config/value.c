/* Scalars of the configuration. See value.h. */
#include "common/config/value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/str.h"

/* Largest first: a converted value is rounded to a multiple of the unit that stands behind its own.
 */
struct unit {
	const char *name;
	double size; /* in bytes, or in microseconds */
};
static const struct unit memory_units[] = { { "TB", 1099511627776.0 }, { "GB", 1073741824.0 },
	{ "MB", 1048576.0 }, { "kB", 1024.0 }, { "B", 1.0 } };
static const struct unit time_units[] = { { "d", 86400e6 }, { "h", 3600e6 }, { "min", 60e6 },
	{ "s", 1e6 }, { "ms", 1e3 }, { "us", 1.0 } };

bool value_parse_bool(const char *s, bool *out)
{
	static const char *const words[] = { "on", "true", "yes", "1", "off", "false", "no", "0" };
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (str_eq_nocase(s, words[i])) {
			*out = i < 4;
			return true;
		}
	}
	return false;
}

static const char *skip_blanks(const char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	return p;
}

static size_t digits(const char *p)
{
	return strspn(p, "0123456789");
}

/* The longest prefix that is an integer: hexadecimal, octal, decimal, in this order. 0: none, or
 * too large. */
static size_t read_integer(const char *p, int64_t *out)
{
	size_t sign = *p == '-' || *p == '+';
	const char *d = p + sign;
	int base;
	size_t n;
	if (d[0] == '0' && d[1] == 'x' && isxdigit((unsigned char)d[2])) {
		base = 16;
		n = 2 + strspn(d + 2, "0123456789abcdefABCDEF");
	} else if (d[0] == '0') {
		base = 8;
		n = 1 + strspn(d + 1, "01234567");
	} else {
		base = 10;
		n = digits(d);
	}
	char text[72];
	if (n == 0 || !str_copy_n(text, sizeof(text), p, sign + n))
		return 0;
	errno = 0;
	long long v = strtoll(text, NULL, base);
	if (errno != 0)
		return 0;
	*out = v;
	return sign + n;
}

/* [-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)? */
static size_t read_double(const char *p, double *out)
{
	size_t n = *p == '-' || *p == '+';
	size_t whole = digits(p + n);
	size_t fraction = p[n + whole] == '.' ? digits(p + n + whole + 1) : 0;
	if (whole == 0 && fraction == 0)
		return 0;
	n += whole + (fraction > 0 ? fraction + 1 : 0);
	if (p[n] == 'e' || p[n] == 'E') {
		size_t s = p[n + 1] == '-' || p[n + 1] == '+';
		size_t e = digits(p + n + 1 + s);
		if (e > 0)
			n += 1 + s + e;
	}
	char text[400];
	if (!str_copy_n(text, sizeof(text), p, n))
		return 0;
	*out = strtod(text, NULL);
	return n;
}

static bool find_unit(
	const struct unit *table, size_t count, const char *name, size_t len, size_t *out)
{
	for (size_t i = 0; i < count; i++) {
		if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0) {
			*out = i;
			return true;
		}
	}
	return false;
}

/* A base unit is B, kB, MB, ms, s or min, maybe with a factor. */
static bool convert(double *value, const char *unit, size_t unit_len, const char *base_unit)
{
	int64_t factor = 1;
	size_t n = read_integer(base_unit, &factor), base, from;
	base_unit += n;
	bool memory = strcmp(base_unit, "B") == 0 || strcmp(base_unit, "kB") == 0 ||
		      strcmp(base_unit, "MB") == 0;
	const struct unit *table = memory ? memory_units : time_units;
	size_t count = memory ? ARRAY_LEN(memory_units) : ARRAY_LEN(time_units);
	if (!memory && strcmp(base_unit, "ms") != 0 && strcmp(base_unit, "s") != 0 &&
		strcmp(base_unit, "min") != 0)
		return false;
	if (!find_unit(table, count, base_unit, strlen(base_unit), &base) ||
		!find_unit(table, count, unit, unit_len, &from) || factor == 0)
		return false;
	double v = *value * (table[from].size / table[base].size / (double)factor);
	if (from + 1 < count) {
		double step = table[from + 1].size / table[base].size;
		v = rint(v / step) * step;
	}
	*value = v;
	return true;
}

/* What follows the number: nothing, or a unit. */
static bool with_unit(const char *rest, const char *base_unit, double *value, bool *out_plain)
{
	rest = skip_blanks(rest);
	size_t n = strlen(rest);
	while (n > 0 && isspace((unsigned char)rest[n - 1]))
		n--;
	*out_plain = n == 0;
	return n == 0 || (base_unit != NULL && convert(value, rest, n, base_unit));
}

bool value_parse_int(const char *text, const char *base_unit, int64_t *out)
{
	const char *p = skip_blanks(text);
	int64_t integer = 0;
	double value;
	bool plain;
	size_t n = read_integer(p, &integer);
	bool real = n == 0 ? *p == '.' : p[n] == '.' || p[n] == 'e' || p[n] == 'E';
	if (real) {
		n = read_double(p, &value);
	} else {
		value = (double)integer;
	}
	if (n == 0 || !with_unit(p + n, base_unit, &value, &plain))
		return false;
	if (plain && !real) {
		*out = integer;
		return true;
	}
	value = rint(value); /* half to even */
	if (!(value >= -9.2e18 && value <= 9.2e18))
		return false;
	*out = (int64_t)value;
	return true;
}

bool value_parse_real(const char *text, const char *base_unit, double *out)
{
	const char *p = skip_blanks(text);
	double value = 0;
	bool plain;
	size_t n = read_double(p, &value);
	if (n == 0 || !with_unit(p + n, base_unit, &value, &plain))
		return false;
	*out = value;
	return true;
}
