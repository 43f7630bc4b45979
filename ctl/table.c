/* See table.h. */
#include "ctl/table.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

#define CELL_MAX   65536
#define TABLE_COLS 32

enum table_format table_format_of(const char *name)
{
	if (str_eq(name, "tsv"))
		return TABLE_TSV;
	if (str_eq(name, "json"))
		return TABLE_JSON;
	return str_eq(name, "yaml") || str_eq(name, "yml") ? TABLE_YAML : TABLE_PRETTY;
}

/* Its tables are a good part of what a listing needs in memory: only for who has such names. Names
 * are UTF-8 whatever the terminal says. */
static void know_utf8(void)
{
	static bool known;
	if (known)
		return;
	known = true;
	if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1)
		(void)setlocale(LC_CTYPE, "C.UTF-8");
}

unsigned table_width(const char *s, size_t len)
{
	mbstate_t state;
	memset(&state, 0, sizeof(state));
	unsigned width = 0;
	while (len > 0) {
		wchar_t wc;
		unsigned char c = (unsigned char)*s;
		if (c > 0 && c < 0x80) {
			width += c >= ' ' && c != 0x7f;
			s++;
			len--;
			continue;
		}
		know_utf8();
		size_t n = mbrtowc(&wc, s, len, &state);
		if (n == 0 || n > len) { /* not UTF-8: one column for each byte */
			memset(&state, 0, sizeof(state));
			n = 1;
			width++;
		} else {
			int w = wcwidth(wc);
			width += w > 0 ? (unsigned)w : 0;
		}
		s += n;
		len -= n;
	}
	return width;
}

/* A cell as text; objects (tags) as block lines in the box, as a flow map in tsv. */
static void cell_text(const json_t *v, bool block, struct buf *out)
{
	char text[CELL_MAX];
	if (json_is_object(v) || json_is_array(v)) {
		bool ok = block ? yaml_write(v, out) : yaml_write_flow(v, out);
		if (!ok)
			out->failed = true;
		while (out->len > 0 && out->data[out->len - 1] == '\n')
			out->data[--out->len] = '\0';
		return;
	}
	if (json_is_string(v))
		buf_adds(out, json_string_value(v));
	else if (v != NULL && json_text(v, text, sizeof(text)))
		buf_adds(out, text);
}

struct box {
	const struct table *t;
	unsigned shown[TABLE_COLS], width[TABLE_COLS], count;
	bool tall; /* some cell has several lines */
};

static void measure(struct box *b, unsigned col, const char *text)
{
	for (const char *p = text;; p++) {
		size_t len = strcspn(p, "\n");
		unsigned w = table_width(p, len);
		if (w > b->width[col])
			b->width[col] = w;
		p += len;
		if (*p == '\0')
			return;
		b->tall = true;
	}
}

static void put_rule(const struct box *b, const char *title, struct buf *out)
{
	AUTO(buf) line = BUF_INIT(CELL_MAX);
	for (unsigned i = 0; i < b->count; i++) {
		buf_adds(&line, "+");
		for (unsigned n = 0; n < b->width[i] + 2; n++)
			buf_adds(&line, "-");
	}
	buf_adds(&line, "+");
	size_t room = line.len >= 2 ? line.len - 2 : 0;
	if (title == NULL || line.failed) {
		buf_add(out, buf_str(&line), line.len);
	} else {
		/* The title is cut to the room by bytes only when it is too long for it. */
		unsigned w = table_width(title, strlen(title));
		size_t bytes = w > room ? room : strlen(title);
		buf_adds(out, "+");
		buf_add(out, title, bytes);
		size_t from = 1 + (w > room ? room : w);
		buf_adds(out, buf_str(&line) + from);
	}
	buf_adds(out, "\n");
}

static void put_cell_line(
	const struct box *b, unsigned col, const char *s, size_t len, struct buf *out)
{
	unsigned pad = b->width[col] - table_width(s, len);
	bool right = b->t->columns[b->shown[col]].right;
	buf_adds(out, "| ");
	if (right)
		buf_addf(out, "%*s", (int)pad, "");
	buf_add(out, s, len);
	if (!right)
		buf_addf(out, "%*s", (int)pad, "");
	buf_adds(out, " ");
}

/* One row of cells, as many lines as the tallest of them has. */
static void put_row(const struct box *b, const char *const *cells, struct buf *out)
{
	const char *rest[TABLE_COLS];
	memcpy(rest, cells, b->count * sizeof(*rest));
	bool more = true;
	while (more) {
		more = false;
		for (unsigned i = 0; i < b->count; i++) {
			size_t len = strcspn(rest[i], "\n");
			put_cell_line(b, i, rest[i], len, out);
			rest[i] += len;
			if (*rest[i] == '\n') {
				rest[i]++;
				more = true;
			}
		}
		buf_adds(out, "|\n");
	}
}

static void each_row(struct box *b, struct buf *out)
{
	size_t index;
	json_t *row;
	json_array_foreach(b->t->rows, index, row)
	{
		struct buf texts[TABLE_COLS];
		const char *cells[TABLE_COLS];
		for (unsigned i = 0; i < b->count; i++) {
			texts[i] = (struct buf)BUF_INIT(CELL_MAX);
			cell_text(json_array_get(row, b->shown[i]), true, &texts[i]);
			cells[i] = buf_str(&texts[i]);
			if (out == NULL)
				measure(b, i, cells[i]);
		}
		if (out != NULL) {
			put_row(b, cells, out);
			if (b->tall)
				put_rule(b, NULL, out);
		}
		for (unsigned i = 0; i < b->count; i++)
			buf_done(&texts[i]);
	}
}

static void write_box(const struct table *t, struct buf *out)
{
	struct box b = { .t = t };
	const char *head[TABLE_COLS];
	/* Columns are refused, never cut: a query may ask for more than a box can hold. */
	if (t->column_count > TABLE_COLS) {
		out->failed = true;
		return;
	}
	for (unsigned i = 0; i < t->column_count && b.count < TABLE_COLS; i++) {
		if (t->columns[i].pretty == NULL)
			continue;
		b.shown[b.count] = i;
		head[b.count] = t->columns[i].pretty;
		measure(&b, b.count, head[b.count]);
		b.count++;
	}
	each_row(&b, NULL);
	put_rule(&b, t->title, out);
	put_row(&b, head, out);
	put_rule(&b, NULL, out);
	each_row(&b, out);
	if (!b.tall)
		put_rule(&b, NULL, out);
}

static void write_tsv(const struct table *t, struct buf *out)
{
	for (unsigned i = 0; i < t->column_count; i++)
		buf_addf(out, "%s%s", i > 0 ? "\t" : "", t->columns[i].title);
	buf_adds(out, "\n");
	size_t index;
	json_t *row;
	json_array_foreach(t->rows, index, row)
	{
		for (unsigned i = 0; i < t->column_count; i++) {
			if (i > 0)
				buf_adds(out, "\t");
			cell_text(json_array_get(row, i), false, out);
		}
		buf_adds(out, "\n");
	}
}

static json_t *as_objects(const struct table *t)
{
	json_t *list = json_array();
	size_t index;
	json_t *row;
	json_array_foreach(t->rows, index, row)
	{
		json_t *o = json_object();
		for (unsigned i = 0; i < t->column_count; i++) {
			json_t *v = json_array_get(row, i);
			const char *s = json_string_value(v);
			if (v == NULL || (t->drop_empty && s != NULL && s[0] == '\0'))
				continue;
			(void)json_object_set(o, t->columns[i].title, v);
		}
		(void)json_array_append_new(list, o);
	}
	return list;
}

bool table_write(const struct table *t, enum table_format format, struct buf *out)
{
	if (format == TABLE_PRETTY) {
		write_box(t, out);
	} else if (format == TABLE_TSV) {
		write_tsv(t, out);
	} else {
		json_t *list = as_objects(t);
		if (format == TABLE_JSON) {
			AUTO_FREE char *text = json_python(list);
			buf_adds(out, text != NULL ? text : "");
			out->failed = out->failed || text == NULL;
		} else if (!yaml_write(list, out)) {
			out->failed = true;
		}
		buf_adds(out, "\n");
		json_decref(list);
	}
	return !out->failed;
}
