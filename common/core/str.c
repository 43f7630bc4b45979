/* Small string helpers. See str.h. */
#include "common/core/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool str_copy_n(char *dst, size_t dst_len, const char *src, size_t n)
{
	n = strnlen(src, n);
	if (n >= dst_len) {
		if (dst_len > 0)
			dst[0] = '\0';
		return false;
	}
	memmove(dst, src, n);
	dst[n] = '\0';
	return true;
}

bool str_copy(char *dst, size_t dst_len, const char *src)
{
	return str_copy_n(dst, dst_len, src, strlen(src));
}

bool str_format(char *dst, size_t dst_len, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(dst, dst_len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= dst_len) {
		if (dst_len > 0)
			dst[0] = '\0';
		return false;
	}
	return true;
}

bool str_eq(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool str_eq_nocase(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcasecmp(a, b) == 0);
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	size_t a = strlen(s), b = strlen(suffix);
	return a >= b && strcmp(s + a - b, suffix) == 0;
}

bool str_to_i64(const char *s, int64_t *out)
{
	const char *p = s + (*s == '-' || *s == '+');
	if (!isdigit((unsigned char)*p))
		return false;
	char *end;
	errno = 0;
	long long v = strtoll(s, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*out = v;
	return true;
}

bool str_to_u64(const char *s, uint64_t *out)
{
	if (!isdigit((unsigned char)*s))
		return false;
	char *end;
	errno = 0;
	unsigned long long v = strtoull(s, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*out = v;
	return true;
}

bool str_to_lsn(const char *s, uint64_t *out)
{
	char *end;
	if (!isxdigit((unsigned char)*s))
		return false;
	errno = 0;
	unsigned long long hi = strtoull(s, &end, 16);
	if (errno != 0 || *end != '/' || hi > UINT32_MAX || !isxdigit((unsigned char)end[1]))
		return false;
	unsigned long long lo = strtoull(end + 1, &end, 16);
	if (errno != 0 || *end != '\0' || lo > UINT32_MAX)
		return false;
	*out = hi << 32 | lo;
	return true;
}

void str_from_lsn(uint64_t lsn, char out[static 20])
{
	snprintf(out, 20, "%X/%X", (unsigned)(lsn >> 32), (unsigned)lsn);
}

/* One UTF-8 sequence to its code point; a broken byte counts as itself. */
static unsigned utf8_next(const unsigned char **p)
{
	unsigned c = *(*p)++;
	int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
	if (more == 0)
		return c;
	unsigned v = c & (0x3fu >> more);
	for (int i = 0; i < more; i++) {
		if (((*p)[i] & 0xc0) != 0x80)
			return c;
		v = v << 6 | ((*p)[i] & 0x3fu);
	}
	*p += more;
	return v;
}

void str_slot_name(const char *member, char out[static 64])
{
	const unsigned char *p = (const unsigned char *)member;
	size_t n = 0;
	while (*p != '\0' && n < 63) {
		unsigned c = utf8_next(&p);
		char piece[16];
		if (c < 128 && isupper((int)c))
			c = (unsigned)tolower((int)c);
		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')
			snprintf(piece, sizeof(piece), "%c", (int)c);
		else if (c == '-' || c == '.')
			snprintf(piece, sizeof(piece), "_");
		else
			snprintf(piece, sizeof(piece), "u%04u", c);
		for (char *q = piece; *q != '\0' && n < 63; q++)
			out[n++] = *q;
	}
	out[n] = '\0';
}
