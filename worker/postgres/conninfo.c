/* Connection strings and password file lines. See conninfo.h. */
#include "worker/postgres/conninfo.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/str.h"

/* The order in which words are written. */
static const struct {
	const char *key;
	int32_t from;
} order[] = { { "dbname", 0 }, { "user", 0 }, { "passfile", 10 }, { "password", 0 }, { "host", 0 },
	{ "port", 0 }, { "sslmode", 0 }, { "sslcompression", 0 }, { "sslcert", 0 }, { "sslkey", 0 },
	{ "sslpassword", 13 }, { "sslrootcert", 0 }, { "sslcrl", 0 }, { "sslcrldir", 14 },
	{ "application_name", 0 }, { "krbsrvname", 0 }, { "gssencmode", 12 },
	{ "channel_binding", 13 }, { "target_session_attrs", 10 }, { "sslnegotiation", 17 } };

int32_t conninfo_word_from(const char *key)
{
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		if (strcmp(order[i].key, key) == 0)
			return order[i].from;
	}
	return 0;
}

const char *conninfo_get(const struct conninfo *c, const char *key)
{
	for (unsigned i = 0; i < c->count; i++) {
		if (strcmp(c->words[i].key, key) == 0)
			return c->words[i].value;
	}
	return NULL;
}

void conninfo_del(struct conninfo *c, const char *key)
{
	for (unsigned i = 0; i < c->count; i++) {
		if (strcmp(c->words[i].key, key) == 0) {
			memmove(&c->words[i], &c->words[i + 1],
				(c->count - i - 1) * sizeof(c->words[0]));
			c->count--;
			return;
		}
	}
}

bool conninfo_set(struct conninfo *c, const char *key, const char *value)
{
	if (value == NULL)
		return true;
	conninfo_del(c, key);
	if (c->count == CONNINFO_WORDS_MAX)
		return false;
	struct conninfo_word *w = &c->words[c->count];
	if (!str_copy(w->key, sizeof(w->key), key) || !str_copy(w->value, sizeof(w->value), value))
		return false;
	c->count++;
	return true;
}

/* ---- reading
 * ---------------------------------------------------------------------------------------- */

static bool read_value(const char **at, char *out, size_t size)
{
	const char *p = *at;
	bool quoted = *p == '\'';
	size_t n = 0;
	p += quoted;
	for (; *p != '\0'; p++) {
		if (quoted ? *p == '\'' : isspace((unsigned char)*p) != 0)
			break;
		if (*p == '\\') {
			p++;
			if (*p == '\0')
				break;
		}
		if (n + 1 >= size)
			return false;
		out[n++] = *p;
	}
	if (quoted && *p != '\'')
		return false;
	out[n] = '\0';
	*at = p + quoted;
	return true;
}

static bool parse_words(const char *p, struct conninfo *out)
{
	char key[32], value[CONNINFO_VALUE_MAX];
	for (;;) {
		while (isspace((unsigned char)*p))
			p++;
		if (*p == '\0')
			return true;
		size_t n = strspn(
			p, "abcdefghijklmnopqrstuvwxyz_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
		if (n == 0 || !str_copy_n(key, sizeof(key), p, n))
			return false;
		p += n;
		while (isspace((unsigned char)*p))
			p++;
		if (*p != '=')
			return false;
		p++;
		while (isspace((unsigned char)*p))
			p++;
		if (*p == '\0' || !read_value(&p, value, sizeof(value)) ||
			!conninfo_set(out, key, value))
			return false;
	}
}

static int hex(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	return isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

/* Percent decoding of text[0..n-1] into the word. */
static bool set_decoded(struct conninfo *out, const char *key, const char *text, size_t n)
{
	char value[CONNINFO_VALUE_MAX];
	size_t len = 0;
	for (size_t i = 0; i < n; i++) {
		if (len + 1 >= sizeof(value))
			return false;
		if (text[i] == '%' && i + 2 < n && hex(text[i + 1]) >= 0 && hex(text[i + 2]) >= 0) {
			value[len++] = (char)(hex(text[i + 1]) * 16 + hex(text[i + 2]));
			i += 2;
		} else {
			value[len++] = text[i];
		}
	}
	value[len] = '\0';
	return conninfo_set(out, key, value);
}

/* host[:port],... into two lists of the same length. */
static bool parse_hosts(struct conninfo *out, const char *p, size_t n)
{
	AUTO(buf) hosts = BUF_INIT(CONNINFO_VALUE_MAX);
	AUTO(buf) ports = BUF_INIT(CONNINFO_VALUE_MAX);
	bool any_host = false, any_port = false;
	for (const char *end = p + n;; p++) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma != NULL ? comma : end;
		const char *colon = NULL;
		const char *bracket = *p == '[' ? memchr(p, ']', (size_t)(stop - p)) : NULL;
		const char *host = bracket != NULL ? p + 1 : p;
		for (const char *q = bracket != NULL ? bracket : p; q < stop; q++) {
			if (*q == ':')
				colon = q;
		}
		const char *host_end = bracket != NULL ? bracket : colon != NULL ? colon : stop;
		buf_add(&hosts, host, (size_t)(host_end - host));
		any_host |= host_end > host;
		if (colon != NULL) {
			buf_add(&ports, colon + 1, (size_t)(stop - colon - 1));
			any_port |= stop > colon + 1;
		}
		p = stop;
		if (comma == NULL)
			break;
		buf_adds(&hosts, ",");
		buf_adds(&ports, ",");
	}
	if (hosts.failed || ports.failed)
		return false;
	return (!any_host || set_decoded(out, "host", buf_str(&hosts), hosts.len)) &&
	       (!any_port || set_decoded(out, "port", buf_str(&ports), ports.len));
}

static bool parse_uri(const char *p, struct conninfo *out)
{
	p = strstr(p, "://") + 3;
	size_t authority = strcspn(p, "/?");
	const char *at = NULL;
	for (size_t i = 0; i < authority; i++) {
		if (p[i] == '@')
			at = p + i;
	}
	if (at != NULL) {
		const char *colon = memchr(p, ':', (size_t)(at - p));
		const char *user_end = colon != NULL ? colon : at;
		if (user_end > p && !set_decoded(out, "user", p, (size_t)(user_end - p)))
			return false;
		if (colon != NULL &&
			!set_decoded(out, "password", colon + 1, (size_t)(at - colon - 1)))
			return false;
	}
	const char *hosts = at != NULL ? at + 1 : p;
	if (!parse_hosts(out, hosts, (size_t)(p + authority - hosts)))
		return false;
	p += authority;
	if (*p == '/') {
		size_t n = strcspn(++p, "?");
		if (n > 0 && !set_decoded(out, "dbname", p, n))
			return false;
		p += n;
	}
	while (*p == '?' || *p == '&') {
		size_t n = strcspn(++p, "&");
		const char *eq = memchr(p, '=', n);
		char key[32];
		if (eq == NULL || !str_copy_n(key, sizeof(key), p, (size_t)(eq - p)))
			return false;
		bool ssl = strcmp(key, "ssl") == 0 && n == 8 && strncmp(eq, "=true", 5) == 0;
		if (ssl ? !conninfo_set(out, "sslmode", "require")
			: !set_decoded(out, key, eq + 1, (size_t)(p + n - eq - 1)))
			return false;
		p += n;
	}
	return *p == '\0';
}

bool conninfo_parse(const char *text, struct conninfo *out)
{
	out->count = 0;
	bool uri = str_starts(text, "postgres://") || str_starts(text, "postgresql://");
	if (!(uri ? parse_uri(text, out) : parse_words(text, out))) {
		out->count = 0;
		return false;
	}
	const char *require = conninfo_get(out, "requiressl");
	bool ok = true;
	if (require != NULL && conninfo_get(out, "sslmode") == NULL)
		ok = conninfo_set(out, "sslmode", strcmp(require, "1") == 0 ? "require" : "prefer");
	conninfo_del(out, "requiressl");
	return ok;
}

/* ---- writing
 * ---------------------------------------------------------------------------------------- */

static void escape(struct buf *out, const char *value, const char *special)
{
	for (const char *p = value; *p != '\0'; p++) {
		if (strchr(special, *p) != NULL)
			buf_adds(out, "\\");
		buf_add(out, p, 1);
	}
}

void conninfo_format(const struct conninfo *c, int32_t major, struct buf *out)
{
	bool passfile = conninfo_get(c, "passfile") != NULL;
	bool first = true;
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		const char *value = conninfo_get(c, order[i].key);
		if (value == NULL || major < order[i].from ||
			(passfile && strcmp(order[i].key, "password") == 0))
			continue;
		buf_addf(out, "%s%s=", first ? "" : " ", order[i].key);
		/* An empty value would swallow the next word. */
		if (value[0] == '\0')
			buf_adds(out, "''");
		escape(out, value, "'\\ \t\n\r\f\v");
		first = false;
	}
}

bool conninfo_pgpass(const struct conninfo *c, struct buf *out)
{
	const char *password = conninfo_get(c, "password"), *host = conninfo_get(c, "host");
	const char *port = conninfo_get(c, "port"), *user = conninfo_get(c, "user");
	if (password == NULL)
		return false;
	AUTO(buf) rest = BUF_INIT(8192);
	buf_adds(&rest, ":");
	escape(&rest, port != NULL && port[0] != '\0' ? port : "*", ":\\");
	buf_adds(&rest, ":*:");
	escape(&rest, user != NULL && user[0] != '\0' ? user : "*", ":\\");
	buf_adds(&rest, ":");
	escape(&rest, password[0] != '\0' ? password : "*", ":\\");
	buf_adds(&rest, "\n");
	bool socket = false, local = false;
	for (const char *p = host != NULL && host[0] != '\0' ? host : "*"; *p != '\0';) {
		char one[CONNINFO_VALUE_MAX];
		size_t n = strcspn(p, ","), len = n;
		const char *start = p;
		while (len > 0 && isspace((unsigned char)*start)) {
			start++;
			len--;
		}
		while (len > 0 && isspace((unsigned char)start[len - 1]))
			len--;
		if (len > 0 && str_copy_n(one, sizeof(one), start, len)) {
			socket |= one[0] == '/';
			local |= strcmp(one, "localhost") == 0;
			escape(out, one, ":\\");
			buf_adds(out, buf_str(&rest));
		}
		p += n + (p[n] == ',');
	}
	if (socket && !local)
		buf_addf(out, "localhost%s", buf_str(&rest));
	return true;
}

/* ---- comparing
 * -------------------------------------------------------------------------------------- */

static const char *implied(const char *key)
{
	if (strcmp(key, "sslmode") == 0 || strcmp(key, "gssencmode") == 0 ||
		strcmp(key, "channel_binding") == 0)
		return "prefer";
	return strcmp(key, "sslnegotiation") == 0 ? "postgres" : NULL;
}

bool conninfo_covers(const struct conninfo *have, const struct conninfo *wanted, int32_t major)
{
	for (unsigned i = 0; i < wanted->count; i++) {
		const struct conninfo_word *w = &wanted->words[i];
		if (major < conninfo_word_from(w->key))
			continue;
		const char *value = conninfo_get(have, w->key);
		if (value == NULL)
			value = implied(w->key);
		if (value == NULL || strcmp(value, w->value) != 0)
			return false;
	}
	return true;
}
