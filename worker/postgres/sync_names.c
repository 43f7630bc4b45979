/* synchronous_standby_names. See sync_names.h. */
#include "worker/postgres/sync_names.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/core/str.h"

/* ---- reading
 * -------------------------------------------------------------------------------------- */

enum token {
	TOK_END = 0,
	TOK_FIRST,
	TOK_ANY,
	TOK_NAME,
	TOK_QUOTED,
	TOK_STAR,
	TOK_NUM,
	TOK_COMMA,
	TOK_OPEN,
	TOK_CLOSE,
	TOK_JUNK
};

struct lexer {
	const char *p;
	enum token token;
	const char *text; /* of the token, with its quotes */
	size_t len;
};

static bool name_char(char c, bool first)
{
	return isalpha((unsigned char)c) || c == '_' ||
	       (!first && (isdigit((unsigned char)c) || c == '$'));
}

static void next(struct lexer *l)
{
	while (isspace((unsigned char)*l->p))
		l->p++;
	l->text = l->p;
	l->len = 1;
	char c = *l->p;
	if (c == '\0') {
		l->token = TOK_END;
		return;
	}
	if (name_char(c, true)) {
		while (name_char(l->p[l->len], false))
			l->len++;
		l->token = l->len == 5 && strncasecmp(l->p, "first", 5) == 0 ? TOK_FIRST
			   : l->len == 3 && strncasecmp(l->p, "any", 3) == 0 ? TOK_ANY
									     : TOK_NAME;
	} else if (isdigit((unsigned char)c)) {
		l->len = strspn(l->p, "0123456789");
		l->token = TOK_NUM;
	} else if (c == '"') {
		/* A doubled quote is one of the name's. */
		const char *q = l->p + 1;
		while (*q != '\0' && (*q != '"' || q[1] == '"'))
			q += *q == '"' ? 2 : 1;
		l->token = *q == '"' ? TOK_QUOTED : TOK_JUNK;
		l->len = (size_t)(q - l->p) + (*q == '"');
	} else {
		l->token = c == '*'   ? TOK_STAR
			   : c == ',' ? TOK_COMMA
			   : c == '(' ? TOK_OPEN
			   : c == ')' ? TOK_CLOSE
				      : TOK_JUNK;
	}
	l->p += l->len;
}

static bool add_name(struct sync_names *s, const char *text, size_t len)
{
	char name[LIMIT_NAME];
	if (!str_copy_n(name, sizeof(name), text, len))
		return false;
	for (unsigned i = 0; i < s->count; i++) {
		if (str_eq_nocase(s->names[i], name))
			return true;
	}
	return s->count < LIMIT_SYNC_NAMES && str_copy(s->names[s->count++], LIMIT_NAME, name);
}

static bool add_quoted(struct sync_names *s, const char *text, size_t len)
{
	char name[LIMIT_NAME];
	size_t n = 0;
	for (size_t i = 1; i + 1 < len; i++) {
		if (n + 1 >= sizeof(name))
			return false;
		name[n++] = text[i];
		i += text[i] == '"';
	}
	return add_name(s, name, n);
}

static bool read_num(const struct lexer *l, int *out)
{
	char text[12];
	int64_t v;
	if (l->token != TOK_NUM || !str_copy_n(text, sizeof(text), l->text, l->len) ||
		!str_to_i64(text, &v) || v > INT32_MAX)
		return false;
	*out = (int)v;
	return true;
}

/* Names up to the closing token; a list in parentheses may be empty. */
static bool read_list(struct lexer *l, struct sync_names *s, enum token end)
{
	if (l->token == end)
		return end == TOK_CLOSE;
	for (;;) {
		switch (l->token) {
		case TOK_FIRST:
		case TOK_ANY:
		case TOK_NAME:
			if (!add_name(s, l->text, l->len))
				return false;
			break;
		case TOK_QUOTED:
			if (!add_quoted(s, l->text, l->len))
				return false;
			break;
		case TOK_STAR: s->has_star = true; break;
		default: return false;
		}
		next(l);
		if (l->token == end)
			return true;
		if (l->token != TOK_COMMA)
			return false;
		next(l);
	}
}

static bool parse(const char *text, struct sync_names *s)
{
	struct lexer l = { .p = text };
	next(&l);
	if (l.token == TOK_END)
		return true;
	s->type = SSN_PRIORITY;
	s->num = 1;
	struct lexer start = l;
	if (l.token == TOK_ANY || l.token == TOK_FIRST) {
		s->type = l.token == TOK_ANY ? SSN_QUORUM : SSN_PRIORITY;
		next(&l);
	}
	if (read_num(&l, &s->num)) {
		next(&l);
		if (l.token == TOK_OPEN) {
			next(&l);
			if (!read_list(&l, s, TOK_CLOSE))
				return false;
			next(&l);
			return l.token == TOK_END;
		}
	}
	/* "first" and "any" may be names as well. */
	l = start;
	s->type = SSN_PRIORITY;
	s->num = 1;
	return read_list(&l, s, TOK_END);
}

bool sync_names_parse(const char *text, struct sync_names *out)
{
	memset(out, 0, sizeof(*out));
	if (!parse(text, out)) {
		memset(out, 0, sizeof(*out));
		return false;
	}
	if (out->has_star) {
		out->count = 0;
		return add_name(out, SYNC_PLACEHOLDER, strlen(SYNC_PLACEHOLDER));
	}
	if (out->count == 1 && str_eq_nocase(out->names[0], SYNC_PLACEHOLDER))
		out->count = 0;
	return true;
}

/* ---- writing
 * -------------------------------------------------------------------------------------- */

static bool needs_quotes(const char *name)
{
	if (!name_char(name[0], true) || str_eq_nocase(name, "first") || str_eq_nocase(name, "any"))
		return true;
	for (const char *p = name + 1; *p != '\0'; p++) {
		if (!name_char(*p, false))
			return true;
	}
	return false;
}

static void add_quoted_name(struct buf *out, const char *name)
{
	if (!needs_quotes(name)) {
		buf_adds(out, name);
		return;
	}
	buf_adds(out, "\"");
	for (const char *p = name; *p != '\0'; p++) {
		buf_add(out, p, 1);
		if (*p == '"')
			buf_add(out, p, 1);
	}
	buf_adds(out, "\"");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool sync_names_write(const char (*names)[LIMIT_NAME], unsigned count, int num, bool quorum,
	int32_t server_version, struct buf *out)
{
	const char *sorted[LIMIT_SYNC_NAMES];
	if (count > LIMIT_SYNC_NAMES)
		count = LIMIT_SYNC_NAMES;
	bool placeholder = count == 0 && num >= 1;
	for (unsigned i = 0; i < count; i++) {
		sorted[i] = names[i];
		placeholder |= strcmp(names[i], "*") == 0;
	}
	if (count == 0 && !placeholder)
		return false;
	if (placeholder) {
		sorted[0] = SYNC_PLACEHOLDER;
		count = 1;
	}
	qsort(sorted, count, sizeof(sorted[0]), by_name);
	bool multiple = server_version >= 90600;
	if (!multiple)
		count = 1;
	/* Never 0: PostgreSQL rejects it, at the next start as well. Never more than there are, or
	 * nothing is confirmed. */
	if (num < 0 || (!placeholder && num > (int)count))
		num = (int)count;
	if (num < 1)
		num = 1;
	bool list = multiple && (count > 1 || quorum);
	if (list)
		buf_addf(out, "%s%d (", quorum && server_version >= 100000 ? "ANY " : "", num);
	for (unsigned i = 0; i < count; i++) {
		if (i > 0)
			buf_adds(out, ",");
		add_quoted_name(out, sorted[i]);
	}
	if (list)
		buf_adds(out, ")");
	return true;
}

/* The value after "name =", quoted as PostgreSQL's file syntax has it. */
static bool conf_value(const char *p, const char *end, char *out, size_t size)
{
	size_t n = 0;
	while (p < end && (*p == ' ' || *p == '\t' || *p == '='))
		p++;
	if (p == end || *p++ != '\'')
		return false;
	for (; p < end; p++) {
		if (*p == '\'') {
			if (p + 1 == end || p[1] != '\'') {
				out[n] = '\0';
				return true;
			}
			p++;
		} else if (*p == '\\' && p + 1 < end) {
			p++;
		}
		if (n + 1 >= size)
			return false;
		out[n++] = *p;
	}
	return false;
}

bool sync_names_of_conf(const char *text, size_t len, char *out, size_t size)
{
	static const char name[] = "synchronous_standby_names";
	const char *end = text + len;
	bool found = false;
	for (const char *line = text; line < end;) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		stop = stop != NULL ? stop : end;
		const char *after = line + sizeof(name) - 1;
		if (after < stop && memcmp(line, name, sizeof(name) - 1) == 0 &&
			(*after == ' ' || *after == '=' || *after == '\t'))
			found = conf_value(after, stop, out, size);
		line = stop + 1;
	}
	if (!found)
		out[0] = '\0';
	return found;
}
