/* Server settings: values, comparison, helpers over sets. See params.h; the set itself is made in
 * params_set.c. */
#include "worker/postgres/params.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/config/value.h"
#include "common/core/str.h"

/* ---- helpers over sets
 * ------------------------------------------------------------------------------ */

json_t *params_get(const json_t *set, const char *name)
{
	const char *key;
	json_t *value, *exact = json_object_get(set, name);
	if (exact != NULL)
		return exact;
	json_object_foreach((json_t *)set, key, value)
	{
		if (str_eq_nocase(key, name))
			return value;
	}
	return NULL;
}

bool params_set_new(json_t *set, const char *name, json_t *value)
{
	const char *key;
	json_t *old;
	json_object_foreach(set, key, old)
	{
		if (str_eq_nocase(key, name))
			return json_object_set_new(set, key, value) == 0;
	}
	return json_object_set_new(set, name, value) == 0;
}

void params_del(json_t *set, const char *name)
{
	const char *key;
	json_t *value;
	void *tmp;
	json_object_foreach_safe(set, tmp, key, value)
	{
		if (str_eq_nocase(key, name))
			json_object_del(set, key);
	}
}

/* The shortest text that reads back as the same number, as Python prints it. */
static void real_text(double v, struct buf *out)
{
	char text[400];
	double a = fabs(v);
	bool plain = a == 0 || (a >= 1e-4 && a < 1e16);
	for (int precision = plain ? 1 : 0; precision <= 20; precision++) {
		snprintf(text, sizeof(text), plain ? "%.*f" : "%.*e", precision, v);
		if (strtod(text, NULL) == v)
			break;
	}
	buf_adds(out, text);
}

void params_text(const json_t *value, struct buf *out)
{
	size_t i;
	json_t *item;
	switch (value == NULL ? JSON_NULL : json_typeof(value)) {
	case JSON_STRING: buf_adds(out, json_string_value(value)); break;
	case JSON_INTEGER: buf_addf(out, "%" PRId64, (int64_t)json_integer_value(value)); break;
	case JSON_REAL: real_text(json_real_value(value), out); break;
	case JSON_TRUE: buf_adds(out, "True"); break;
	case JSON_FALSE: buf_adds(out, "False"); break;
	case JSON_NULL: buf_adds(out, "None"); break;
	case JSON_ARRAY:
		/* Of no use to PostgreSQL, which will say so; one level is enough to see what it
		 * was. */
		buf_adds(out, "[");
		json_array_foreach((json_t *)value, i, item)
		{
			if (i > 0)
				buf_adds(out, ", ");
			if (json_is_string(item))
				buf_addf(out, "'%s'", json_string_value(item));
			else if (json_is_array(item) || json_is_object(item))
				buf_adds(out, "...");
			else
				params_text(item, out);
		}
		buf_adds(out, "]");
		break;
	case JSON_OBJECT: buf_adds(out, "{...}"); break;
	}
}

bool params_split_listen(const char *listen, struct buf *hosts, int *out_port)
{
	const char *colon = strrchr(listen, ':');
	size_t n = colon != NULL ? (size_t)(colon - listen) : strlen(listen);
	int64_t port = 5432;
	if (colon != NULL && (!str_to_i64(colon + 1, &port) || port < 0 || port > 65535))
		return false;
	if (memchr(listen, ':', n) == NULL) {
		buf_add(hosts, listen, n);
	} else {
		/* IPv6 addresses: each loses its brackets and blanks. */
		for (size_t i = 0; i < n; i++) {
			if (strchr(" []", listen[i]) == NULL)
				buf_add(hosts, listen + i, 1);
		}
	}
	*out_port = (int)port;
	return true;
}

/* ---- table A
 * ---------------------------------------------------------------------------------------- */

bool params_is_recovery(const char *name)
{
	for (unsigned i = 0; i < param_recovery_table_count; i++) {
		if (str_eq_nocase(param_recovery_table[i].name, name))
			return true;
	}
	return false;
}

void params_recovery_names(struct buf *out)
{
	for (unsigned i = 0; i < param_recovery_table_count; i++)
		buf_add(out, param_recovery_table[i].name,
			strlen(param_recovery_table[i].name) + 1);
}

/* *out_named: the table knows the name, for whatever version. */
static const struct param_row *find_row(const struct param_row *table, unsigned count,
	const char *name, int32_t version, bool *out_named)
{
	*out_named = false;
	for (unsigned i = 0; i < count; i++) {
		const struct param_row *r = &table[i];
		if (!str_eq_nocase(r->name, name))
			continue;
		*out_named = true;
		if (version >= r->from && (r->until == 0 || version < r->until))
			return r;
	}
	return NULL;
}

static bool in_list(const char *list, const char *text)
{
	for (const char *p = list;; p++) {
		size_t n = strcspn(p, "|");
		if (strlen(text) == n && strncasecmp(p, text, n) == 0)
			return true;
		p += n;
		if (*p == '\0')
			return false;
	}
}

static const char *type_word(enum param_type type)
{
	static const char *const words[] = { "bool", "integer", "real", "enum", "enumbool",
		"string" };
	return words[type];
}

static void limit_text(const struct param_row *row, double limit, struct buf *out)
{
	if (row->type == PARAM_INTEGER || limit == rint(limit))
		buf_addf(out, "%.0f", limit);
	else
		real_text(limit, out);
}

/* In range the user's text stays as it is; out of range the limit is written, in base units. */
static enum param_verdict check_number(
	const struct param_row *row, struct buf *text, struct buf *note)
{
	double v;
	int64_t integer;
	bool ok;
	if (row->type == PARAM_INTEGER) {
		ok = value_parse_int(buf_str(text), row->unit, &integer);
		v = ok ? (double)integer : 0;
	} else {
		ok = value_parse_real(buf_str(text), row->unit, &v);
	}
	if (!ok) {
		buf_addf(note,
			"Removing %s parameter=%s from the config due to the invalid value=%s",
			type_word(row->type), row->name, buf_str(text));
		return PARAM_DROP;
	}
	if (v >= row->min && v <= row->max)
		return PARAM_KEEP;
	bool low = v < row->min;
	AUTO(buf) limit = BUF_INIT(512);
	limit_text(row, low ? row->min : row->max, &limit);
	buf_addf(note, "Value=%s of parameter=%s is too %s to %s%s", buf_str(text), row->name,
		low ? "low, increasing" : "big, decreasing", buf_str(&limit),
		row->unit != NULL ? row->unit : "");
	buf_reset(text);
	buf_adds(text, buf_str(&limit));
	return PARAM_KEEP;
}

static enum param_verdict check_row(const struct param_row *row, struct buf *text, struct buf *note)
{
	bool b;
	switch (row->type) {
	case PARAM_STRING: return PARAM_KEEP;
	case PARAM_INTEGER:
	case PARAM_REAL: return check_number(row, text, note);
	case PARAM_BOOL:
	case PARAM_ENUM_BOOL:
		if (value_parse_bool(buf_str(text), &b))
			return PARAM_KEEP;
		if (row->type == PARAM_BOOL)
			break;
		/* fall through */
	case PARAM_ENUM:
		if (in_list(row->values, buf_str(text)))
			return PARAM_KEEP;
		break;
	}
	buf_addf(note, "Removing %s parameter=%s from the config due to the invalid value=%s",
		type_word(row->type), row->name, buf_str(text));
	return PARAM_DROP;
}

enum param_verdict params_check(const char *name, const json_t *value, int32_t version,
	bool recovery, struct buf *text, struct buf *note)
{
	bool named;
	buf_reset(text);
	buf_reset(note);
	const struct param_row *row =
		recovery ? find_row(param_recovery_table, param_recovery_table_count, name, version,
				   &named)
			 : find_row(param_table, param_table_count, name, version, &named);
	if (!recovery && params_is_recovery(name))
		return PARAM_DROP;
	params_text(value, text);
	if (!recovery && !named && strchr(name, '.') != NULL)
		return json_is_null(value) ? PARAM_DROP : PARAM_KEEP;
	if (row == NULL && recovery && version < 120000)
		return PARAM_KEEP; /* --describe-config of those versions does not list them */
	if (row == NULL)
		return json_is_null(value) ? PARAM_DROP : PARAM_ASK;
	if (row->type == PARAM_STRING && (value == NULL || json_is_null(value)))
		return PARAM_DROP;
	return check_row(row, text, note);
}

/* ---- comparing
 * -------------------------------------------------------------------------------------- */

bool params_equal(const char *vartype, const char *unit, const char *setting, const char *wanted)
{
	if (str_eq(vartype, "bool")) {
		bool a, b;
		return value_parse_bool(setting, &a) && value_parse_bool(wanted, &b) && a == b;
	}
	if (str_eq(vartype, "integer")) {
		int64_t a, b;
		return value_parse_int(setting, NULL, &a) && value_parse_int(wanted, unit, &b) &&
		       a == b;
	}
	if (str_eq(vartype, "real")) {
		double a, b;
		return value_parse_real(setting, NULL, &a) && value_parse_real(wanted, unit, &b) &&
		       a == b;
	}
	return str_eq(vartype, "enum") ? str_eq_nocase(setting, wanted) : str_eq(setting, wanted);
}

struct pretty_unit {
	const char *name;
	double size;
};

void params_pretty(const char *value, const char *vartype, const char *unit, struct buf *out)
{
	static const struct pretty_unit memory[] = { { "TB", 1099511627776.0 },
		{ "GB", 1073741824.0 }, { "MB", 1048576.0 }, { "kB", 1024.0 }, { "B", 1.0 },
		{ NULL, 0 } };
	static const struct pretty_unit times[] = { { "d", 86400e6 }, { "h", 3600e6 },
		{ "min", 60e6 }, { "s", 1e6 }, { "ms", 1e3 }, { "us", 1.0 }, { NULL, 0 } };
	double v = 0, one = 1;
	int64_t integer = 0;
	bool is_int = str_eq(vartype, "integer"), is_real = str_eq(vartype, "real");
	bool ok = unit != NULL && ((is_int && value_parse_int(value, NULL, &integer)) ||
					  (is_real && value_parse_real(value, NULL, &v)));
	const struct pretty_unit *table = NULL;
	if (ok) {
		v = is_int ? (double)integer : v;
		/* How many bytes or microseconds one of the base unit is. */
		const char *name = unit + strspn(unit, "0123456789");
		double factor = name > unit ? strtod(unit, NULL) : 1;
		for (const struct pretty_unit *t = memory; t->name != NULL; t++) {
			if (strcmp(t->name, name) == 0) {
				table = memory;
				one = t->size * factor;
			}
		}
		for (const struct pretty_unit *t = times; table == NULL && t->name != NULL; t++) {
			if (strcmp(t->name, name) == 0) {
				table = times;
				one = t->size * factor;
				break;
			}
		}
	}
	if (table == NULL || v == 0) {
		buf_adds(out, value);
		return;
	}
	double base = v * one;
	for (const struct pretty_unit *t = table; t->name != NULL; t++) {
		double n = base / t->size;
		bool even = is_int ? n == rint(n) : n > 0 && fabs(rint(n) / n - 1.0) <= 1e-8;
		if (!even && t[1].name != NULL)
			continue;
		buf_addf(out, is_int ? "%.0f%s" : "%g%s", is_int ? rint(n) : n, t->name);
		return;
	}
}

int64_t params_auto_wal_buffers(int64_t shared_buffers, int64_t segment_bytes, int64_t block_bytes)
{
	int64_t blocks = shared_buffers / 32;
	if (blocks < 8)
		blocks = 8;
	int64_t segment = block_bytes > 0 ? segment_bytes / block_bytes : 2048;
	return blocks < segment ? blocks : segment;
}
