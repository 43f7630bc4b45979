/* Longest common subsequence over the part that differs; texts are configurations, a few hundred
 * lines. See diff.h. */
#include "ctl/diff.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 3

struct text {
	const char *line[DIFF_LINES_MAX];
	size_t len[DIFF_LINES_MAX];
	unsigned count;
};

struct edit {
	char kind;     /* ' ', '-', '+' */
	unsigned a, b; /* position in each text before this edit */
};

struct diff {
	struct text a, b;
	struct edit edits[2 * DIFF_LINES_MAX];
	unsigned count;
};

static bool split(struct text *t, const char *s)
{
	while (*s != '\0') {
		if (t->count == DIFF_LINES_MAX)
			return false;
		size_t len = strcspn(s, "\n");
		t->line[t->count] = s;
		t->len[t->count++] = len;
		s += len + (s[len] == '\n');
	}
	return true;
}

static bool same(const struct diff *d, unsigned i, unsigned j)
{
	return d->a.len[i] == d->b.len[j] && memcmp(d->a.line[i], d->b.line[j], d->a.len[i]) == 0;
}

static void put(struct diff *d, char kind, unsigned a, unsigned b)
{
	d->edits[d->count++] = (struct edit){ kind, a, b };
}

/* The middle, between the common head and the common tail. */
static bool middle(struct diff *d, unsigned head, unsigned a_end, unsigned b_end)
{
	unsigned n = a_end - head, m = b_end - head;
	uint16_t *len = calloc((size_t)(n + 1) * (m + 1), sizeof(*len));
	if (len == NULL)
		return false;
	size_t w = m + 1;
	for (unsigned i = n; i-- > 0;)
		for (unsigned j = m; j-- > 0;) {
			uint16_t down = len[(i + 1) * w + j], right = len[i * w + j + 1];
			len[i * w + j] = same(d, head + i, head + j)
						 ? (uint16_t)(len[(i + 1) * w + j + 1] + 1)
						 : (down > right ? down : right);
		}
	unsigned i = 0, j = 0;
	while (i < n || j < m) {
		unsigned a = head + i, b = head + j;
		if (i < n && j < m && same(d, a, b)) {
			put(d, ' ', a, b);
			i++;
			j++;
		} else if (i < n && (j == m || len[(i + 1) * w + j] >= len[i * w + j + 1])) {
			put(d, '-', a, b);
			i++;
		} else {
			put(d, '+', a, b);
			j++;
		}
	}
	free(len);
	return true;
}

static bool compare(struct diff *d)
{
	unsigned head = 0, a_end = d->a.count, b_end = d->b.count;
	while (head < a_end && head < b_end && same(d, head, head)) {
		put(d, ' ', head, head);
		head++;
	}
	while (a_end > head && b_end > head && same(d, a_end - 1, b_end - 1)) {
		a_end--;
		b_end--;
	}
	if (!middle(d, head, a_end, b_end))
		return false;
	for (; a_end < d->a.count; a_end++, b_end++)
		put(d, ' ', a_end, b_end);
	return true;
}

static void put_range(struct buf *out, char sign, unsigned start, unsigned len)
{
	/* Lines count from one; an empty range names the line before it. */
	buf_addf(out, "%c%u", sign, len == 0 ? start : start + 1);
	if (len != 1)
		buf_addf(out, ",%u", len);
}

static void put_hunk(const struct diff *d, unsigned from, unsigned to, struct buf *out)
{
	unsigned a_len = 0, b_len = 0;
	for (unsigned i = from; i < to; i++) {
		a_len += d->edits[i].kind != '+';
		b_len += d->edits[i].kind != '-';
	}
	buf_adds(out, "@@ ");
	put_range(out, '-', d->edits[from].a, a_len);
	buf_adds(out, " ");
	put_range(out, '+', d->edits[from].b, b_len);
	buf_adds(out, " @@\n");
	for (unsigned i = from; i < to; i++) {
		const struct edit *e = &d->edits[i];
		const struct text *t = e->kind == '+' ? &d->b : &d->a;
		unsigned n = e->kind == '+' ? e->b : e->a;
		buf_add(out, &e->kind, 1);
		buf_add(out, t->line[n], t->len[n]);
		buf_adds(out, "\n");
	}
}

bool diff_write(const char *before, const char *after, struct buf *out)
{
	struct diff *d = calloc(1, sizeof(*d));
	if (d == NULL || !split(&d->a, before) || !split(&d->b, after) || !compare(d)) {
		free(d);
		return false;
	}
	bool first = true;
	for (unsigned i = 0; i < d->count; i++) {
		if (d->edits[i].kind == ' ')
			continue;
		unsigned from = i > CONTEXT ? i - CONTEXT : 0, last = i;
		for (unsigned j = i; j < d->count && j <= last + 2 * CONTEXT + 1; j++)
			if (d->edits[j].kind != ' ')
				last = j;
		unsigned to = last + 1 + CONTEXT < d->count ? last + 1 + CONTEXT : d->count;
		if (first)
			buf_adds(out, "--- \n+++ \n");
		first = false;
		put_hunk(d, from, to, out);
		i = to - 1;
	}
	free(d);
	return !out->failed;
}
