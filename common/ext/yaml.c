/* YAML 1.1 into jansson values. See yaml.h. */
#include "common/ext/yaml.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define ANCHORS_MAX 128
#define NODES_MAX   100000 /* after the expansion of aliases */

struct reader {
	yaml_parser_t p;
	struct err *err;
	struct {
		char name[64];
		json_t *value;
	} anchors[ANCHORS_MAX];
	unsigned anchor_count, node_count, depth;
	const char *const *text_keys;
};

static bool word_is(const char *s, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcmp(s, *words) == 0)
			return true;
	}
	return false;
}

static size_t span(const char *s, const char *set)
{
	return strspn(s, set);
}

/* Integers of YAML 1.1: binary, octal, decimal, hexadecimal, base 60, with underscores. */
static bool as_int(const char *s, json_int_t *out)
{
	const char *p = s;
	bool neg = *p == '-';
	char digits[64];
	size_t n = 0;
	int base = 10;
	if (*p == '-' || *p == '+')
		p++;
	if (p[0] == '0' && p[1] == 'b' && p[2] != '\0' && p[2 + span(p + 2, "01_")] == '\0') {
		base = 2;
		p += 2;
	} else if (p[0] == '0' && p[1] == 'x' && p[2] != '\0' &&
		   p[2 + span(p + 2, "0123456789abcdefABCDEF_")] == '\0') {
		base = 16;
		p += 2;
	} else if (p[0] == '0' && p[1] != '\0' && p[1 + span(p + 1, "01234567_")] == '\0') {
		base = 8;
		p += 1;
	} else if (p[0] >= '1' && p[0] <= '9' && strchr(p, ':') != NULL) {
		json_int_t v = 0;
		for (;;) {
			json_int_t part = 0;
			size_t len = 0;
			for (; isdigit((unsigned char)*p) || (*p == '_' && v == 0); p++, len++)
				part = *p == '_' ? part : part * 10 + (*p - '0');
			if (len == 0 || (v != 0 && (part > 59 || len > 2)))
				return false;
			v = v * 60 + part;
			if (*p == '\0')
				break;
			if (*p++ != ':')
				return false;
		}
		*out = neg ? -v : v;
		return true;
	} else if (!(strcmp(p, "0") == 0 ||
			   (*p >= '1' && *p <= '9' && p[span(p, "0123456789_")] == '\0'))) {
		return false;
	}
	for (; *p != '\0'; p++) {
		if (*p != '_' && n + 1 < sizeof(digits))
			digits[n++] = *p;
	}
	digits[n] = '\0';
	if (n == 0)
		return false;
	errno = 0;
	long long v = strtoll(digits, NULL, base);
	if (errno != 0)
		return false;
	*out = neg ? -v : v;
	return true;
}

/* Floats need a point; an exponent needs a sign. */
static bool as_real(const char *s, double *out)
{
	const char *p = s + (*s == '-' || *s == '+');
	static const char *const inf[] = { ".inf", ".Inf", ".INF", NULL };
	static const char *const nan_[] = { ".nan", ".NaN", ".NAN", NULL };
	if (word_is(p, inf)) {
		*out = *s == '-' ? -HUGE_VAL : HUGE_VAL;
		return true;
	}
	if (word_is(s, nan_)) {
		*out = NAN;
		return true;
	}
	size_t whole = span(p, "0123456789_");
	if (p[whole] != '.' || (whole == 0 && !isdigit((unsigned char)p[1])) || *p == '_')
		return false;
	size_t i = whole + 1 + span(p + whole + 1, "0123456789_");
	if (p[i] == 'e' || p[i] == 'E') {
		if ((p[i + 1] != '+' && p[i + 1] != '-') || !isdigit((unsigned char)p[i + 2]))
			return false;
		i += 2 + span(p + i + 2, "0123456789");
	}
	if (p[i] != '\0')
		return false;
	char clean[80];
	size_t n = 0;
	for (const char *q = s; *q != '\0' && n + 1 < sizeof(clean); q++) {
		if (*q != '_')
			clean[n++] = *q;
	}
	clean[n] = '\0';
	*out = strtod(clean, NULL);
	return true;
}

json_t *yaml_scalar(const char *text)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
	static const char *const yes[] = { "yes", "Yes", "YES", "on", "On", "ON", "true", "True",
		"TRUE", NULL };
	static const char *const no[] = { "no", "No", "NO", "off", "Off", "OFF", "false", "False",
		"FALSE", NULL };
	json_int_t i;
	double d;
	if (word_is(text, nulls))
		return json_null();
	if (word_is(text, yes))
		return json_true();
	if (word_is(text, no))
		return json_false();
	if (as_int(text, &i))
		return json_integer(i);
	if (as_real(text, &d) && isfinite(d))
		return json_real(d);
	return json_string(text); /* dates keep their text (config 8 #37) */
}

static json_t *fail(struct reader *r, size_t line, const char *what)
{
	err_set(r->err, ERR_PARSE, 0, "line %zu: %s", line + 1, what);
	return NULL;
}

static json_t *read_node(struct reader *r, yaml_event_t *ev);

static bool next(struct reader *r, yaml_event_t *ev)
{
	if (yaml_parser_parse(&r->p, ev))
		return true;
	err_set(r->err, ERR_PARSE, 0, "line %zu: %s%s%s", r->p.problem_mark.line + 1,
		r->p.problem != NULL ? r->p.problem : "syntax error",
		r->p.context != NULL ? ", " : "", r->p.context != NULL ? r->p.context : "");
	return false;
}

static void set_anchor(struct reader *r, const yaml_char_t *name, json_t *v)
{
	if (name == NULL || r->anchor_count == ANCHORS_MAX)
		return;
	if (str_copy(r->anchors[r->anchor_count].name, 64, (const char *)name))
		r->anchors[r->anchor_count++].value = json_incref(v);
}

static unsigned count_nodes(const json_t *v)
{
	unsigned n = 1;
	const char *key;
	json_t *item;
	size_t i;
	if (json_is_object(v))
		json_object_foreach((json_t *)v, key, item) n += count_nodes(item);
	else if (json_is_array(v))
		json_array_foreach(v, i, item) n += count_nodes(item);
	return n;
}

static json_t *read_alias(struct reader *r, const yaml_event_t *ev)
{
	for (unsigned i = r->anchor_count; i-- > 0;) {
		if (strcmp(r->anchors[i].name, (const char *)ev->data.alias.anchor) != 0)
			continue;
		r->node_count += count_nodes(r->anchors[i].value);
		if (r->node_count > NODES_MAX)
			return fail(r, ev->start_mark.line, "aliases expand to too many nodes");
		return json_deep_copy(r->anchors[i].value);
	}
	return fail(r, ev->start_mark.line, "unknown alias");
}

static json_t *read_scalar(struct reader *r, const yaml_event_t *ev)
{
	const char *text = (const char *)ev->data.scalar.value;
	const char *tag = (const char *)ev->data.scalar.tag;
	if (strlen(text) != ev->data.scalar.length)
		return fail(r, ev->start_mark.line, "zero byte in a value");
	json_t *v;
	if (tag != NULL && strcmp(tag, "tag:yaml.org,2002:str") == 0)
		v = json_string(text);
	else if (ev->data.scalar.plain_implicit)
		v = yaml_scalar(text);
	else
		v = json_string(text);
	return v != NULL ? v : fail(r, ev->start_mark.line, "value is not valid UTF-8");
}

static bool merge_into(struct reader *r, json_t *map, const json_t *from, size_t line)
{
	if (json_is_array(from)) {
		for (size_t i = 0; i < json_array_size(from); i++) {
			if (!merge_into(r, map, json_array_get(from, i), line))
				return false;
		}
		return true;
	}
	if (!json_is_object(from)) {
		fail(r, line, "<< needs a mapping");
		return false;
	}
	json_object_update_missing(map, (json_t *)from);
	return true;
}

/* The value of a key that is always a text is not resolved. */
static void keep_text(const struct reader *r, const char *key, yaml_event_t *ev)
{
	if (ev->type != YAML_SCALAR_EVENT || !ev->data.scalar.plain_implicit ||
		!word_is(key, r->text_keys))
		return;
	json_t *v = yaml_scalar((const char *)ev->data.scalar.value);
	if (!json_is_null(v))
		ev->data.scalar.plain_implicit = 0;
	json_decref(v);
}

static json_t *read_map(struct reader *r)
{
	json_t *map = json_object(), *merges = json_array();
	size_t line = 0;
	for (;;) {
		yaml_event_t ev;
		if (!next(r, &ev))
			goto bad;
		line = ev.start_mark.line;
		if (ev.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&ev);
			break;
		}
		char key[LIMIT_CONNINFO];
		bool plain = ev.type == YAML_SCALAR_EVENT && ev.data.scalar.plain_implicit;
		bool fits = ev.type == YAML_SCALAR_EVENT &&
			    str_copy(key, sizeof(key), (const char *)ev.data.scalar.value);
		if (ev.type == YAML_SCALAR_EVENT && ev.data.scalar.anchor != NULL) {
			json_t *kv = json_string((const char *)ev.data.scalar.value);
			set_anchor(r, ev.data.scalar.anchor, kv);
			json_decref(kv);
		}
		yaml_event_delete(&ev);
		if (!fits) {
			fail(r, line, "a key must be a scalar of moderate length");
			goto bad;
		}
		if (!next(r, &ev))
			goto bad;
		keep_text(r, key, &ev);
		json_t *v = read_node(r, &ev);
		yaml_event_delete(&ev);
		if (v == NULL)
			goto bad;
		if (plain && strcmp(key, "<<") == 0)
			json_array_append_new(merges, v);
		else if (json_object_set_new(map, key, v) < 0) {
			fail(r, line, "key is not valid UTF-8");
			goto bad;
		}
	}
	if (!merge_into(r, map, merges, line))
		goto bad;
	json_decref(merges);
	return map;
bad:
	json_decref(map);
	json_decref(merges);
	return NULL;
}

static json_t *read_list(struct reader *r)
{
	json_t *list = json_array();
	for (;;) {
		yaml_event_t ev;
		if (!next(r, &ev))
			break;
		if (ev.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&ev);
			return list;
		}
		json_t *v = read_node(r, &ev);
		yaml_event_delete(&ev);
		if (v == NULL)
			break;
		json_array_append_new(list, v);
	}
	json_decref(list);
	return NULL;
}

static json_t *read_node(struct reader *r, yaml_event_t *ev)
{
	json_t *v = NULL;
	const yaml_char_t *anchor = NULL;
	if (++r->node_count > NODES_MAX)
		return fail(r, ev->start_mark.line, "too many nodes");
	if (r->depth >= LIMIT_JSON_DEPTH)
		return fail(r, ev->start_mark.line, "nested too deeply");
	r->depth++;
	switch (ev->type) {
	case YAML_ALIAS_EVENT: v = read_alias(r, ev); break;
	case YAML_SCALAR_EVENT:
		v = read_scalar(r, ev);
		anchor = ev->data.scalar.anchor;
		break;
	case YAML_MAPPING_START_EVENT:
		v = read_map(r);
		anchor = ev->data.mapping_start.anchor;
		break;
	case YAML_SEQUENCE_START_EVENT:
		v = read_list(r);
		anchor = ev->data.sequence_start.anchor;
		break;
	default: v = fail(r, ev->start_mark.line, "unexpected content"); break;
	}
	r->depth--;
	if (v != NULL)
		set_anchor(r, anchor, v);
	return v;
}

static json_t *read_document(struct reader *r)
{
	json_t *doc = NULL;
	bool seen = false, ok = true;
	for (bool more = true; more && ok;) {
		yaml_event_t ev;
		if (!next(r, &ev)) {
			ok = false;
			break;
		}
		switch (ev.type) {
		case YAML_STREAM_END_EVENT: more = false; break;
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT: break;
		case YAML_DOCUMENT_START_EVENT:
			ok = !seen;
			seen = true;
			if (!ok)
				fail(r, ev.start_mark.line, "a second document is not allowed");
			break;
		default:
			doc = read_node(r, &ev);
			ok = doc != NULL;
			break;
		}
		yaml_event_delete(&ev);
	}
	if (!ok) {
		json_decref(doc);
		return NULL;
	}
	return doc != NULL ? doc : json_null();
}

json_t *yaml_read_texts(const char *text, size_t len, const char *const *text_keys, struct err *err)
{
	static struct reader r; /* anchors are large; one document at a time */
	memset(&r, 0, sizeof(r));
	r.err = err;
	r.text_keys = text_keys;
	if (len > LIMIT_CONFIG_FILE) {
		err_set(err, ERR_LIMIT, 0, "over %d bytes", LIMIT_CONFIG_FILE);
		return NULL;
	}
	if (!yaml_parser_initialize(&r.p)) {
		err_set(err, ERR_NOMEM, 0, "yaml");
		return NULL;
	}
	yaml_parser_set_input_string(&r.p, (const unsigned char *)text, len);
	json_t *doc = read_document(&r);
	yaml_parser_delete(&r.p);
	for (unsigned i = 0; i < r.anchor_count; i++)
		json_decref(r.anchors[i].value);
	return doc;
}

static const char *const no_keys[] = { NULL };

json_t *yaml_read(const char *text, size_t len, struct err *err)
{
	return yaml_read_texts(text, len, no_keys, err);
}

json_t *yaml_read_file_texts(const char *path, const char *const *text_keys, struct err *err)
{
	FILE *f = fopen(path, "re");
	if (f == NULL) {
		err_set(err, ERR_SYS, errno, "%s", path);
		return NULL;
	}
	AUTO(buf) b = BUF_INIT(LIMIT_CONFIG_FILE);
	char piece[8192];
	size_t n;
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
		buf_add(&b, piece, n);
	bool bad = ferror(f);
	fclose(f);
	if (bad || b.failed) {
		err_set(err, bad ? ERR_SYS : ERR_LIMIT, bad ? EIO : 0, "%s", path);
		return NULL;
	}
	json_t *v = yaml_read_texts(buf_str(&b), b.len, text_keys, err);
	if (v == NULL)
		err_wrap(err, "%s", path);
	return v;
}

json_t *yaml_read_file(const char *path, struct err *err)
{
	return yaml_read_file_texts(path, no_keys, err);
}

/* ---- writing
 * -------------------------------------------------------------------------------------- */

/* A date, with or without a time: text to our loader, a value of its own to other ones. */
static bool looks_like_time(const char *s)
{
	static const char digits[] = "0123456789";
	if (span(s, digits) != 4 || s[4] != '-')
		return false;
	const char *p = s + 5;
	size_t month = span(p, digits), day = p[month] == '-' ? span(p + month + 1, digits) : 0;
	return month > 0 && day > 0 && strchr("Tt \t", p[month + 1 + day]) != NULL;
}

/* Plain when every loader would read it back as the same text. */
static yaml_scalar_style_t style_of(const char *text)
{
	static const char *const special[] = { "=", "<<", NULL };
	double d;
	json_t *v = yaml_scalar(text);
	bool plain = json_is_string(v) && !as_real(text, &d) && !word_is(text, special) &&
		     !looks_like_time(text);
	json_decref(v);
	return plain ? YAML_ANY_SCALAR_STYLE : YAML_SINGLE_QUOTED_SCALAR_STYLE;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool emit_text(yaml_emitter_t *e, const char *text, yaml_scalar_style_t style)
{
	yaml_event_t ev;
	return yaml_scalar_event_initialize(&ev, NULL, NULL, (const yaml_char_t *)text,
		       (int)strlen(text), 1, 1, style) &&
	       yaml_emitter_emit(e, &ev);
}

/* A float of YAML 1.1 has a point, or it reads back as text. */
static void real_text(double d, char *out, size_t len)
{
	char text[48];
	json_real_text(d, text, sizeof(text));
	const char *e = strchr(text, 'e');
	if (e != NULL && strchr(text, '.') == NULL)
		snprintf(out, len, "%.*s.0%s", (int)(e - text), text, e);
	else
		snprintf(out, len, "%s", text);
}

static bool emit(yaml_emitter_t *e, const json_t *v, bool flow)
{
	yaml_event_t ev;
	char text[64];
	switch (json_typeof(v)) {
	case JSON_STRING: return emit_text(e, json_string_value(v), style_of(json_string_value(v)));
	case JSON_NULL: return emit_text(e, "null", YAML_PLAIN_SCALAR_STYLE);
	case JSON_TRUE: return emit_text(e, "true", YAML_PLAIN_SCALAR_STYLE);
	case JSON_FALSE: return emit_text(e, "false", YAML_PLAIN_SCALAR_STYLE);
	case JSON_INTEGER:
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		return emit_text(e, text, YAML_PLAIN_SCALAR_STYLE);
	case JSON_REAL:
		real_text(json_real_value(v), text, sizeof(text));
		return emit_text(e, text, YAML_PLAIN_SCALAR_STYLE);
	case JSON_ARRAY: {
		size_t i;
		json_t *item;
		bool f = flow || json_array_size(v) == 0;
		if (!yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1,
			    f ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE) ||
			!yaml_emitter_emit(e, &ev))
			return false;
		json_array_foreach(v, i, item)
		{
			if (!emit(e, item, flow))
				return false;
		}
		return yaml_sequence_end_event_initialize(&ev) && yaml_emitter_emit(e, &ev);
	}
	case JSON_OBJECT: {
		size_t n = json_object_size(v), k = 0;
		const char **keys = calloc(n + 1, sizeof(*keys));
		const char *key;
		json_t *item;
		if (keys == NULL)
			return false;
		json_object_foreach((json_t *)v, key, item) keys[k++] = key;
		qsort(keys, n, sizeof(*keys), by_key);
		bool f = flow || n == 0;
		bool ok = yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1,
				  f ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE) &&
			  yaml_emitter_emit(e, &ev);
		for (k = 0; ok && k < n; k++)
			ok = emit_text(e, keys[k], style_of(keys[k])) &&
			     emit(e, json_object_get(v, keys[k]), flow);
		free(keys);
		return ok && yaml_mapping_end_event_initialize(&ev) && yaml_emitter_emit(e, &ev);
	}
	}
	return false;
}

static int write_out(void *data, unsigned char *bytes, size_t size)
{
	struct buf *b = data;
	buf_add(b, bytes, size);
	return !b->failed;
}

static bool write_document(const json_t *v, struct buf *out, bool flow, int width)
{
	yaml_emitter_t e;
	yaml_event_t ev;
	if (!yaml_emitter_initialize(&e))
		return false;
	yaml_emitter_set_output(&e, write_out, out);
	yaml_emitter_set_unicode(&e, 1);
	yaml_emitter_set_width(&e, width);
	yaml_emitter_set_indent(&e, 2);
	bool ok = yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING) &&
		  yaml_emitter_emit(&e, &ev) &&
		  yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1) &&
		  yaml_emitter_emit(&e, &ev) && emit(&e, v, flow) &&
		  yaml_document_end_event_initialize(&ev, 1) && yaml_emitter_emit(&e, &ev) &&
		  yaml_stream_end_event_initialize(&ev) && yaml_emitter_emit(&e, &ev);
	yaml_emitter_flush(&e);
	yaml_emitter_delete(&e);
	return ok && !out->failed;
}

bool yaml_write(const json_t *v, struct buf *out)
{
	return write_document(v, out, false, 200);
}

bool yaml_write_wide(const json_t *v, int width, struct buf *out)
{
	return write_document(v, out, false, width);
}

bool yaml_write_flow(const json_t *v, struct buf *out)
{
	if (!write_document(v, out, true, 100000))
		return false;
	while (out->len > 0 && out->data[out->len - 1] == '\n')
		out->data[--out->len] = '\0';
	return true;
}
