/* Walk over the table of settings. See validate.h. */
#include "common/config/validate.h"

#include <stdarg.h>
#include <string.h>

#include "common/config/value.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define PATH_MAX_BYTES 256
#define VALUE_MAX      65536

static void add(struct validate *v, const char *path, const json_t *value, const char *prefix,
	const char *fmt, va_list ap)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	if (value != NULL)
		json_repr(value, &text);
	v->errors++;
	buf_addf(v->out, "%s %s %s", path, text.failed ? "..." : buf_str(&text), prefix);
	buf_addv(v->out, fmt, ap);
	buf_adds(v->out, "\n");
}

void validate_add(struct validate *v, const char *path, const json_t *value, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	add(v, path, value, "", fmt, ap);
	va_end(ap);
}

void validate_fail(struct validate *v, const char *path, const json_t *value, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	add(v, path, value, "didn't pass validation: ", fmt, ap);
	va_end(ap);
}

/* ---- values
 * ---------------------------------------------------------------------------------------- */

/* What would be right, in words. */
static void add_range(const struct schema_row *row, struct buf *out)
{
	buf_adds(out, row->type == SCHEMA_REAL ? "a number" : "an integer");
	if (row->unit != NULL)
		buf_addf(out, ", plain (%s) or with a unit", row->unit);
	if (row->min != INT64_MIN)
		buf_addf(out, ", %s %lld", row->above ? "above" : "at least", (long long)row->min);
	if (row->max != 0)
		buf_addf(out, ", at most %lld", (long long)row->max);
	if (row->multiple != 0)
		buf_addf(out, ", a multiple of %lld", (long long)row->multiple);
}

static void wrong_range(struct validate *v, const json_t *value, const struct schema_row *row)
{
	AUTO(buf) allowed = BUF_INIT(256);
	add_range(row, &allowed);
	validate_fail(v, row->path, value, "Wrong value (allowed: %s)", buf_str(&allowed));
}

static void check_number(struct validate *v, const json_t *value, const struct schema_row *row)
{
	char text[256];
	int64_t n = 0;
	bool ok = json_text(value, text, sizeof(text)) && value_parse_int(text, row->unit, &n) &&
		  n >= row->min && (row->max == 0 || n <= row->max) &&
		  (row->multiple == 0 || n % row->multiple == 0);
	if (!ok)
		wrong_range(v, value, row);
	else if (n < row->patroni_min)
		buf_addf(v->warnings,
			"%s %s: warning: only while every member is pgregent; a Patroni member "
			"uses "
			"%lld instead and its --validate-config refuses this file\n",
			row->path, text, (long long)row->patroni_min);
}

static void check_real(struct validate *v, const json_t *value, const struct schema_row *row)
{
	char text[256];
	double d = 0;
	bool ok = json_text(value, text, sizeof(text)) && value_parse_real(text, NULL, &d) &&
		  (row->above ? d > (double)row->min : d >= (double)row->min) &&
		  (row->max == 0 || d <= (double)row->max);
	if (!ok)
		wrong_range(v, value, row);
}

static bool word_in(const char *words, const char *word, bool fold)
{
	for (const char *p = words; *p != '\0';) {
		size_t n = strcspn(p, "|");
		char one[64];
		if (str_copy_n(one, sizeof(one), p, n) &&
			(fold ? str_eq_nocase(one, word) : strcmp(one, word) == 0))
			return true;
		p += n + (p[n] == '|');
	}
	return false;
}

static void check_enum(struct validate *v, const json_t *value, const struct schema_row *row)
{
	const char *word = json_string_value(value);
	if (word != NULL && word_in(row->words, word, row->fold))
		return;
	AUTO(buf) allowed = BUF_INIT(512);
	for (const char *p = row->words; *p != '\0'; p++)
		buf_add(&allowed, *p == '|' ? ", " : p, *p == '|' ? 2 : 1);
	validate_fail(v, row->path, value, "Wrong value (allowed: %s)", buf_str(&allowed));
}

void validate_texts(struct validate *v, const char *path, const json_t *value, bool maps)
{
	size_t i;
	json_t *item;
	if (!json_is_array(value)) {
		validate_add(v, path, value, "is not a list");
		return;
	}
	if (json_array_size(value) == 0)
		validate_add(v, path, value, "is an empty list");
	json_array_foreach((json_t *)value, i, item)
	{
		char at[PATH_MAX_BYTES + 24];
		if (json_is_string(item) || (maps && json_is_object(item)) ||
			!str_format(at, sizeof(at), "%s.%zu", path, i))
			continue;
		validate_add(v, at, item, "is not a string");
		if (maps)
			validate_add(v, at, item, "is not a dictionary");
	}
}

static void check_value(struct validate *v, const json_t *value, const struct schema_row *row)
{
	const char *type = NULL;
	switch (row->type) {
	case SCHEMA_SECTION:
		if (!json_is_object(value))
			type = "a dictionary";
		break;
	case SCHEMA_MAP:
		if (!json_is_object(value))
			type = "a dictionary";
		break;
	case SCHEMA_TEXT:
	case SCHEMA_CHECK:
		if (!json_is_string(value))
			type = "a string";
		else if (row->check != NULL)
			row->check(v, row->path, value, row);
		break;
	case SCHEMA_BOOL:
		if (!json_is_boolean(value))
			type = "a boolean";
		break;
	case SCHEMA_INT:
		/* A boolean is an integer of the reference, but never one in a range. */
		if (!json_is_integer(value) && !json_is_boolean(value))
			type = "an integer";
		else if (json_is_boolean(value) ? row->min != INT64_MIN || row->max != 0 : true)
			check_number(v, value, row);
		break;
	case SCHEMA_NUMBER: check_number(v, value, row); break;
	case SCHEMA_REAL: check_real(v, value, row); break;
	case SCHEMA_ENUM: check_enum(v, value, row); break;
	case SCHEMA_TEXTS: validate_texts(v, row->path, value, false); break;
	case SCHEMA_OPTIONS: validate_texts(v, row->path, value, true); break;
	case SCHEMA_ANY: row->check(v, row->path, value, row); break;
	}
	if (type != NULL)
		validate_add(v, row->path, value, "is not %s", type);
}

/* ---- walk
 * ------------------------------------------------------------------------------------------ */

static const char *last_key(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot != NULL ? dot + 1 : path;
}

/* The row behind the last one that belongs to row i (its own section). */
static unsigned row_end(unsigned i)
{
	const char *path = schema_rows[i].path;
	size_t n = strlen(path);
	unsigned end = i + 1;
	while (end < schema_row_count && strncmp(schema_rows[end].path, path, n) == 0 &&
		schema_rows[end].path[n] == '.')
		end++;
	return end;
}

/* The group that row i opens: neighbours of one level with the same need. Returns its end. */
static unsigned group_end(unsigned i, unsigned to)
{
	enum schema_need need = schema_rows[i].need;
	if (need != SCHEMA_SOME_OF && need != SCHEMA_AT_MOST_ONE)
		return row_end(i);
	while (i < to && schema_rows[i].need == need)
		i = row_end(i);
	return i;
}

static unsigned group_present(unsigned from, unsigned to, const json_t *map)
{
	unsigned n = 0;
	for (unsigned i = from; i < to; i = row_end(i))
		n += json_object_get(map, last_key(schema_rows[i].path)) != NULL;
	return n;
}

static void walk(struct validate *v, unsigned from, unsigned to, const json_t *map);

static void visit(struct validate *v, unsigned i, const json_t *map, bool needed)
{
	const struct schema_row *row = &schema_rows[i];
	const json_t *value = json_object_get(map, last_key(row->path));
	bool always = row->type == SCHEMA_ANY && strcmp(row->path, "postgresql.bin_dir") == 0;
	if (value == NULL && needed) {
		validate_add(v, row->path, NULL, "is not defined.");
	} else if (value != NULL || always) {
		check_value(v, value, row);
		if (row->type == SCHEMA_SECTION && json_is_object(value))
			walk(v, i + 1, row_end(i), value);
	}
}

static void multiple(struct validate *v, unsigned from, unsigned to)
{
	AUTO(buf) names = BUF_INIT(512);
	char section[PATH_MAX_BYTES];
	const char *first = schema_rows[from].path;
	for (unsigned i = from; i < to; i = row_end(i))
		buf_addf(&names, "%s'%s'", i > from ? ", " : "", last_key(schema_rows[i].path));
	if (str_copy_n(section, sizeof(section), first, (size_t)(last_key(first) - first) - 1))
		validate_add(v, section, NULL, "Multiple of (%s) provided", buf_str(&names));
}

static void walk(struct validate *v, unsigned from, unsigned to, const json_t *map)
{
	for (unsigned i = from; i < to;) {
		unsigned end = group_end(i, to);
		enum schema_need need = schema_rows[i].need;
		unsigned present = group_present(i, end, map);
		if (need == SCHEMA_AT_MOST_ONE && present > 1) {
			multiple(v, i, end);
			i = end;
		}
		for (; i < end; i = row_end(i))
			visit(v, i, map,
				need == SCHEMA_REQUIRED ||
					(need == SCHEMA_SOME_OF && present == 0));
	}
}

unsigned validate_tree(
	const json_t *root, bool ignore_listen_port, struct buf *out, struct buf *warnings)
{
	struct validate v = { .root = root,
		.ignore_listen_port = ignore_listen_port,
		.out = out,
		.warnings = warnings };
	walk(&v, 0, schema_row_count, root);
	return v.errors;
}
