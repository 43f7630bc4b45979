/* Bounded, typed access to JSON. See json.h. */
#include "common/ext/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/limits.h"
#include "common/core/str.h"

static bool depth_ok(const char *text, size_t len)
{
	int depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > LIMIT_JSON_DEPTH)
				return false;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return true;
}

json_t *json_read(const char *text, size_t len, struct err *err)
{
	json_error_t e;
	if (!depth_ok(text, len)) {
		err_set(err, ERR_LIMIT, 0, "JSON nested deeper than %d", LIMIT_JSON_DEPTH);
		return NULL;
	}
	json_t *v = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
	if (v == NULL)
		err_set(err, ERR_PARSE, 0, "JSON line %d column %d: %s", e.line, e.column, e.text);
	return v;
}

json_t *json_path(const json_t *root, const char *path)
{
	const json_t *v = root;
	while (v != NULL) {
		size_t n = strcspn(path, ".");
		char key[LIMIT_NAME];
		if (!str_copy_n(key, sizeof(key), path, n))
			return NULL;
		v = json_object_get(v, key);
		if (path[n] == '\0')
			break;
		path += n + 1;
	}
	return (json_t *)v;
}

const char *json_path_str(const json_t *root, const char *path)
{
	return json_string_value(json_path(root, path));
}

bool json_truthy(const json_t *v)
{
	switch (v != NULL ? json_typeof(v) : JSON_NULL) {
	case JSON_NULL:
	case JSON_FALSE: return false;
	case JSON_TRUE: return true;
	case JSON_INTEGER: return json_integer_value(v) != 0;
	case JSON_REAL: return json_real_value(v) != 0;
	case JSON_STRING: return json_string_length(v) > 0;
	case JSON_ARRAY: return json_array_size(v) > 0;
	case JSON_OBJECT: return json_object_size(v) > 0;
	}
	return false;
}

/* As Python's repr: plain digits from 0.0001 to below 1e16, else an exponent. */
void json_real_text(double d, char *out, size_t len)
{
	int digits = 0;
	do
		snprintf(out, len, "%.*e", digits, d);
	while (strtod(out, NULL) != d && ++digits < 17);
	const char *e = strchr(out, 'e');
	int64_t power = 0;
	if (e == NULL || !str_to_i64(e[1] == '+' ? e + 2 : e + 1, &power) || power < -4 ||
		power > 15)
		return;
	int decimals = digits - (int)power;
	snprintf(out, len, "%.*f", decimals > 1 ? decimals : 1, d);
}

bool json_text(const json_t *v, char *out, size_t len)
{
	char number[40];
	switch (v != NULL ? json_typeof(v) : JSON_NULL) {
	case JSON_NULL: return str_copy(out, len, "None");
	case JSON_TRUE: return str_copy(out, len, "True");
	case JSON_FALSE: return str_copy(out, len, "False");
	case JSON_STRING: return str_copy(out, len, json_string_value(v));
	case JSON_INTEGER:
		return str_format(out, len, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	case JSON_REAL:
		json_real_text(json_real_value(v), number, sizeof(number));
		return str_copy(out, len, number);
	default: return false;
	}
}

static void quoted(const char *s, struct buf *out)
{
	char quote = strchr(s, '\'') != NULL && strchr(s, '"') == NULL ? '"' : '\'';
	buf_add(out, &quote, 1);
	for (; *s != '\0'; s++) {
		if (*s == quote || *s == '\\')
			buf_adds(out, "\\");
		if (*s == '\n')
			buf_adds(out, "\\n");
		else
			buf_add(out, s, 1);
	}
	buf_add(out, &quote, 1);
}

static void repr_inner(const json_t *v, struct buf *out, unsigned depth)
{
	size_t i;
	const char *key, *comma = "";
	json_t *item;
	if (depth == 0) {
		buf_adds(out, "...");
	} else if (json_is_string(v)) {
		quoted(json_string_value(v), out);
	} else if (json_is_array(v)) {
		buf_adds(out, "[");
		json_array_foreach((json_t *)v, i, item)
		{
			buf_adds(out, i > 0 ? ", " : "");
			repr_inner(item, out, depth - 1);
		}
		buf_adds(out, "]");
	} else if (json_is_object(v)) {
		buf_adds(out, "{");
		json_object_foreach((json_t *)v, key, item)
		{
			buf_adds(out, comma);
			quoted(key, out);
			buf_adds(out, ": ");
			repr_inner(item, out, depth - 1);
			comma = ", ";
		}
		buf_adds(out, "}");
	} else {
		char text[64];
		buf_adds(out, json_text(v, text, sizeof(text)) ? text : "?");
	}
}

void json_repr(const json_t *v, struct buf *out)
{
	if (json_is_string(v))
		buf_adds(out, json_string_value(v));
	else
		repr_inner(v, out, LIMIT_JSON_DEPTH);
}

static bool scalar_same(const json_t *a, const json_t *b)
{
	if (json_is_string(a) && json_is_string(b))
		return strcmp(json_string_value(a), json_string_value(b)) == 0;
	char small[64];
	const json_t *other = json_is_string(a) ? b : a;
	const json_t *text = json_is_string(a) ? a : b;
	char text_small[64];
	if (!json_text(other, small, sizeof(small)))
		return false;
	if (json_is_string(text))
		return strcmp(json_string_value(text), small) == 0;
	return json_text(text, text_small, sizeof(text_small)) && strcmp(text_small, small) == 0;
}

bool json_same(const json_t *a, const json_t *b)
{
	if (json_is_object(a) || json_is_object(b)) {
		if (!json_is_object(a) || !json_is_object(b) ||
			json_object_size(a) != json_object_size(b))
			return false;
		const char *key;
		json_t *v;
		json_object_foreach((json_t *)a, key, v)
		{
			const json_t *w = json_object_get(b, key);
			if (w == NULL || !json_same(v, w))
				return false;
		}
		return true;
	}
	if (json_is_array(a) || json_is_array(b)) {
		if (!json_is_array(a) || !json_is_array(b) ||
			json_array_size(a) != json_array_size(b))
			return false;
		for (size_t i = 0; i < json_array_size(a); i++) {
			/* The reference compares the text of the whole array, in which "1" is
			   not 1. */
			if (!json_equal(json_array_get(a, i), json_array_get(b, i)))
				return false;
		}
		return true;
	}
	return scalar_same(a, b);
}

bool json_patch(json_t *target, const json_t *patch)
{
	bool changed = false;
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)patch, key, v)
	{
		json_t *old = json_object_get(target, key);
		if (json_is_null(v)) {
			if (old != NULL) {
				changed |= !json_is_null(old);
				json_object_del(target, key);
			}
		} else if (old == NULL) {
			changed |= json_object_set_new(target, key, json_deep_copy(v)) == 0;
		} else if (json_is_object(v) && json_is_object(old)) {
			changed |= json_patch(old, v);
		} else if (!json_same(old, v)) {
			changed |= json_object_set_new(target, key, json_deep_copy(v)) == 0;
		}
	}
	return changed;
}

static bool reads_back(const json_t *v, int digits)
{
	const char *key;
	json_t *item;
	size_t i;
	char text[64];
	switch (json_typeof(v)) {
	case JSON_REAL:
		snprintf(text, sizeof(text), "%.*g", digits, json_real_value(v));
		return strtod(text, NULL) == json_real_value(v);
	case JSON_ARRAY:
		json_array_foreach(v, i, item) if (!reads_back(item, digits)) return false;
		return true;
	case JSON_OBJECT:
		json_object_foreach(
			(json_t *)v, key, item) if (!reads_back(item, digits)) return false;
		return true;
	default: return true;
	}
}

/* 1.1 is written as 1.1 and not as 1.1000000000000001: with as few digits as read back the same. */
static char *dump(const json_t *v, size_t flags)
{
	int digits = 15;
	while (digits < 17 && !reads_back(v, digits))
		digits++;
	return json_dumps(v,
		flags | JSON_ENSURE_ASCII | JSON_ENCODE_ANY | JSON_REAL_PRECISION((size_t)digits));
}

/* jansson writes \u00E9 and leaves DEL as it is, Python writes \u00e9 and \u007f. */
static void lower_escapes(char *text)
{
	for (char *p = text; *p != '\0'; p++) {
		if (*p != '\\')
			continue;
		p++;
		for (int i = 1; *p == 'u' && i <= 4; i++)
			if (p[i] >= 'A' && p[i] <= 'F')
				p[i] = (char)(p[i] - 'A' + 'a');
	}
}

static char *escape_del(char *text)
{
	size_t len = strlen(text), count = 0;
	for (const char *p = text; *p != '\0'; p++)
		count += *p == 0x7f;
	if (count == 0)
		return text;
	char *out = malloc(len + count * 5 + 1), *to = out;
	for (const char *p = text; out != NULL && *p != '\0'; p++) {
		if (*p == 0x7f) {
			memcpy(to, "\\u007f", 6);
			to += 6;
		} else {
			*to++ = *p;
		}
	}
	if (out != NULL)
		*to = '\0';
	free(text);
	return out;
}

char *json_python(const json_t *v)
{
	char *text = dump(v, 0);
	if (text == NULL)
		return NULL;
	lower_escapes(text);
	return escape_del(text);
}

char *json_compact(const json_t *v)
{
	return dump(v, JSON_COMPACT);
}
