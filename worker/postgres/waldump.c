/* Output of pg_waldump. See waldump.h. */
#include "worker/postgres/waldump.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/core/str.h"

/* The LSN that starts at p and ends before the first character that cannot be part of one. */
static bool read_lsn(const char *p, uint64_t *out, const char **end)
{
	char text[24];
	size_t n = strspn(p, "0123456789ABCDEFabcdef/");
	if (!str_copy_n(text, sizeof(text), p, n) || !str_to_lsn(text, out))
		return false;
	*end = p + n;
	return true;
}

/* Looks for mark at or before limit; returns what follows it. */
static const char *after(const char *p, const char *mark, const char *limit)
{
	const char *q = strstr(p, mark);
	return q != NULL && q < limit ? q + strlen(mark) : NULL;
}

/* Cuts where a fixed array ends; a description is compared by its beginning and end, both short in
 * the records we want. */
static void copy_cut(char *dst, size_t size, const char *p, size_t n)
{
	if (n >= size)
		n = size - 1;
	memcpy(dst, p, n);
	dst[n] = '\0';
}

bool waldump_record(const char *out_text, struct waldump_record *out)
{
	struct waldump_record r = { 0 };
	const char *end = strchr(out_text, '\n');
	if (end == NULL)
		end = out_text + strlen(out_text);
	/* rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/01000028, prev
	 * 0/00000000, desc: ... */
	if (!str_starts(out_text, "rmgr:"))
		return false;
	const char *name = out_text + 5 + strspn(out_text + 5, " ");
	const char *len_mark = strstr(name, " len (rec/tot):");
	const char *lsn = after(name, ", lsn: ", end);
	if (len_mark == NULL || len_mark >= end || lsn == NULL)
		return false;
	size_t n = (size_t)(len_mark - name);
	while (n > 0 && name[n - 1] == ' ')
		n--;
	const char *p;
	if (n == 0 || !str_copy_n(r.rmgr, sizeof(r.rmgr), name, n) || !read_lsn(lsn, &r.lsn, &p) ||
		!str_starts(p, ", prev ") || !read_lsn(p + 7, &r.prev, &p))
		return false;
	const char *desc = after(p, "desc: ", end);
	if (desc == NULL)
		return false;
	n = (size_t)(end - desc);
	while (n > 0 && isspace((unsigned char)desc[n - 1]))
		n--;
	/* Of a long description the end counts ("CHECKPOINT_SHUTDOWN redo ...; shutdown"): keep
	 * both ends. */
	if (n < sizeof(r.desc)) {
		copy_cut(r.desc, sizeof(r.desc), desc, n);
	} else {
		size_t half = (sizeof(r.desc) - 1) / 2;
		memcpy(r.desc, desc, half);
		memcpy(r.desc + half, desc + n - half, half);
		r.desc[2 * half] = '\0';
	}
	*out = r;
	return true;
}

bool waldump_is_shutdown_checkpoint(const struct waldump_record *r, uint64_t lsn)
{
	size_t n = strlen(r->desc);
	return strcmp(r->rmgr, "XLOG") == 0 && r->lsn == lsn && r->prev != 0 &&
	       strncasecmp(r->desc, "checkpoint", 10) == 0 && n >= 8 &&
	       strcasecmp(r->desc + n - 8, "shutdown") == 0;
}

bool waldump_is_switch(const struct waldump_record *r, uint64_t lsn)
{
	return r->lsn == lsn &&
	       (strcmp(r->desc, "SWITCH") == 0 || strcmp(r->desc, "xlog switch") == 0);
}

static bool one_line(const char *text)
{
	size_t n = strlen(text);
	while (n > 0 && isspace((unsigned char)text[n - 1]))
		n--;
	return n > 0 && memchr(text, '\n', n) == NULL;
}

uint64_t waldump_checkpoint_end(const char *out_text, const char *err_text, uint64_t lsn)
{
	struct waldump_record r;
	if (!one_line(out_text) || !one_line(err_text) || !waldump_record(out_text, &r) ||
		r.lsn != lsn)
		return 0;
	/* ... error in WAL record at 0/182E220: invalid record length at 0/182E298: wanted 24, got
	 * 0 (16 and later: expected at least 24, got 0) */
	const char *limit = err_text + strlen(err_text);
	const char *p = after(err_text, "error in WAL record at ", limit);
	uint64_t at, next;
	if (p == NULL || !read_lsn(p, &at, &p) || at != lsn)
		return 0;
	if (!str_starts(p, ": invalid record length at ") || !read_lsn(p + 27, &next, &p))
		return 0;
	if (!str_starts(p, ": wanted ") && !str_starts(p, ": expected at least "))
		return 0;
	return str_ends(p, "got 0") || strstr(p, ", got 0\n") != NULL ? next : 0;
}

bool waldump_missing_segment(const char *text, char out[static 25])
{
	static const char mark[] = "could not open file \"";
	for (const char *p = text; (p = strstr(p, mark)) != NULL;) {
		p += sizeof(mark) - 1;
		const char *eol = strchr(p, '\n');
		const char *end = strstr(p, "\": ");
		if (end == NULL || (eol != NULL && end > eol) || end - p < 32)
			continue;
		const char *name = end - 24;
		bool wal = strncmp(name - 8, "/pg_wal/", 8) == 0 ||
			   (end - p >= 33 && strncmp(name - 9, "/pg_xlog/", 9) == 0);
		if (wal && strspn(name, "0123456789ABCDEF") >= 24)
			return str_copy_n(out, 25, name, 24);
	}
	return false;
}
