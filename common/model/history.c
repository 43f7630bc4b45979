/* Timeline history. See history.h. */
#include "common/model/history.h"

#include <ctype.h>
#include <string.h>

#include "common/core/str.h"

static void trim(const char **p, size_t *n)
{
	while (*n > 0 && isspace((unsigned char)(*p)[0])) {
		(*p)++;
		(*n)--;
	}
	while (*n > 0 && isspace((unsigned char)(*p)[*n - 1]))
		(*n)--;
}

/* A reason longer than its field keeps its beginning: it is words for a human, and cut between
 * characters. */
static void copy_reason(struct history_row *row, const char *p, size_t n)
{
	if (n > sizeof(row->reason) - 1) {
		n = sizeof(row->reason) - 1;
		while (n > 0 && ((unsigned char)p[n] & 0xc0) == 0x80)
			n--;
	}
	if (!str_copy_n(row->reason, sizeof(row->reason), p, n))
		row->reason[0] = '\0';
}

static bool parse_line(const char *p, size_t n, struct history_row *row)
{
	trim(&p, &n);
	const char *tab1 = n > 0 ? memchr(p, '\t', n) : NULL;
	if (tab1 == NULL)
		return false;
	const char *end = p + n;
	const char *tab2 = memchr(tab1 + 1, '\t', (size_t)(end - tab1 - 1));
	/* Exactly three fields: a tab in the reason does not come from PostgreSQL. */
	if (tab2 == NULL || memchr(tab2 + 1, '\t', (size_t)(end - tab2 - 1)) != NULL)
		return false;
	char number[24], lsn[24];
	memset(row, 0, sizeof(*row));
	if (!str_copy_n(number, sizeof(number), p, (size_t)(tab1 - p)) ||
		!str_to_i64(number, &row->timeline) || row->timeline <= 0 ||
		row->timeline > UINT32_MAX)
		return false;
	if (!str_copy_n(lsn, sizeof(lsn), tab1 + 1, (size_t)(tab2 - tab1 - 1)) ||
		!str_to_lsn(lsn, &row->lsn))
		return false;
	copy_reason(row, tab2 + 1, (size_t)(end - tab2 - 1));
	return true;
}

unsigned history_parse(const char *text, size_t len, struct history_row *rows, unsigned max)
{
	unsigned count = 0;
	if (max == 0)
		return 0;
	for (size_t at = 0; at < len;) {
		const char *nl = memchr(text + at, '\n', len - at);
		size_t n = nl != NULL ? (size_t)(nl - (text + at)) : len - at;
		struct history_row row;
		if (parse_line(text + at, n, &row)) {
			if (count == max) {
				memmove(rows, rows + 1, (max - 1) * sizeof(*rows));
				count--;
			}
			rows[count++] = row;
		}
		at += n + 1;
	}
	return count;
}
