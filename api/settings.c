/* The settings of the REST API. See settings.h. */
#include "api/settings.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "common/config/value.h"
#include "common/ext/json.h"

/* The accept queue: the reference's 5 loses connections in a burst of checks; more costs nothing.
 */
#define BACKLOG_MIN 128

bool net_parse(const char *text, struct net *out)
{
	char addr[64];
	struct net n = { .prefix = 128 };
	const char *slash = strchr(text, '/');
	size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
	if (!str_copy_n(addr, sizeof(addr), text, len))
		return false;
	int64_t bits, most = 128;
	if (inet_pton(AF_INET, addr, n.addr + 12) == 1) {
		n.addr[10] = n.addr[11] = 0xff;
		most = 32;
	} else if (inet_pton(AF_INET6, addr, n.addr) != 1) {
		return false;
	}
	if (slash != NULL) {
		if (!str_to_i64(slash + 1, &bits) || bits < 0 || bits > most)
			return false;
		n.prefix = (uint8_t)(128 - most + bits);
	}
	*out = n;
	return true;
}

bool net_holds(const struct net *net, const uint8_t addr[static 16])
{
	unsigned whole = net->prefix / 8, rest = net->prefix % 8;
	if (memcmp(net->addr, addr, whole) != 0)
		return false;
	if (rest == 0)
		return true;
	uint8_t mask = (uint8_t)(0xff << (8 - rest));
	return (net->addr[whole] & mask) == (addr[whole] & mask);
}

static const char *text_or_null(const json_t *root, const char *key)
{
	const char *s = json_string_value(json_object_get(root, key));
	return s != NULL && s[0] != '\0' ? s : NULL;
}

static enum err_code read_listen(struct api_settings *s, struct err *err)
{
	const char *listen = text_or_null(s->raw, "listen");
	const char *colon = listen != NULL ? strrchr(listen, ':') : NULL;
	int64_t port;
	if (colon == NULL || !str_to_i64(colon + 1, &port) || port < 1 || port > 65535)
		return err_set(err, ERR_INVAL, 0,
			"restapi.listen \"%s\": host:port is wanted, port 1 to 65535",
			listen != NULL ? listen : "");
	size_t len = (size_t)(colon - listen);
	if (len >= 2 && listen[0] == '[' && listen[len - 1] == ']') {
		listen++;
		len -= 2;
	}
	if (!str_copy_n(s->listen_host, sizeof(s->listen_host), listen, len))
		return err_set(err, ERR_LIMIT, 0, "restapi.listen: host of %zu bytes", len);
	if (strcmp(s->listen_host, "*") == 0)
		s->listen_host[0] = '\0';
	s->listen_port = (uint16_t)port;
	json_int_t backlog = json_integer_value(json_object_get(s->raw, "request_queue_size"));
	s->backlog = backlog > BACKLOG_MIN && backlog <= 4096 ? (int)backlog : BACKLOG_MIN;
	return ERR_OK;
}

static enum err_code base64(const char *in, size_t len, char *out, size_t out_len, struct err *err)
{
	static const char set[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	if ((len + 2) / 3 * 4 + 1 > out_len)
		return err_set(err, ERR_LIMIT, 0, "restapi.authentication: over %zu bytes",
			out_len * 3 / 4);
	size_t o = 0;
	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)in[i] << 16;
		v |= i + 1 < len ? (uint32_t)(uint8_t)in[i + 1] << 8 : 0;
		v |= i + 2 < len ? (uint8_t)in[i + 2] : 0;
		out[o++] = set[v >> 18];
		out[o++] = set[v >> 12 & 63];
		out[o++] = i + 1 < len ? set[v >> 6 & 63] : '=';
		out[o++] = i + 2 < len ? set[v & 63] : '=';
	}
	out[o] = '\0';
	return ERR_OK;
}

static enum err_code read_auth(struct api_settings *s, struct err *err)
{
	const json_t *a = json_object_get(s->raw, "authentication");
	const char *user = text_or_null(a, "username"), *password = text_or_null(a, "password");
	const char *flat = text_or_null(s->raw, "auth");
	char pair[SETTINGS_TEXT];
	if (user != NULL && password != NULL) {
		if (!str_format(pair, sizeof(pair), "%s:%s", user, password))
			return err_set(err, ERR_LIMIT, 0, "restapi.authentication: over %d bytes",
				SETTINGS_TEXT);
		flat = pair;
	} else if (user != NULL || password != NULL) {
		return err_set(err, ERR_INVAL, 0,
			"restapi.authentication: username and password, both or none");
	}
	if (flat == NULL)
		return ERR_OK;
	return base64(flat, strlen(flat), s->basic_token, sizeof(s->basic_token), err);
}

static enum err_code read_tls(struct api_settings *s, struct err *err)
{
	s->certfile = text_or_null(s->raw, "certfile");
	s->keyfile = text_or_null(s->raw, "keyfile");
	s->keyfile_password = text_or_null(s->raw, "keyfile_password");
	s->cafile = text_or_null(s->raw, "cafile");
	s->ciphers = text_or_null(s->raw, "ciphers");
	s->tls = s->certfile != NULL;
	const char *verify = text_or_null(s->raw, "verify_client");
	if (verify == NULL || str_eq_nocase(verify, "none"))
		s->verify_client = VERIFY_NONE;
	else if (str_eq_nocase(verify, "optional"))
		s->verify_client = VERIFY_OPTIONAL;
	else if (str_eq_nocase(verify, "required"))
		s->verify_client = VERIFY_REQUIRED;
	else
		log_error("restapi.verify_client \"%s\": none, optional or required is wanted; "
			  "taken as none",
			verify);
	(void)err;
	return ERR_OK;
}

static enum err_code read_allowlist(struct api_settings *s, struct err *err)
{
	const json_t *list = json_object_get(s->raw, "allowlist");
	const json_t *members = json_object_get(s->raw, "allowlist_include_members");
	size_t i;
	json_t *v;
	if (list != NULL && !json_is_null(list) && !json_is_array(list))
		return err_set(err, ERR_INVAL, 0, "restapi.allowlist: a list is wanted");
	json_array_foreach(list, i, v)
	{
		const char *text = json_string_value(v);
		if (text == NULL || text[0] == '\0')
			return err_set(err, ERR_INVAL, 0,
				"restapi.allowlist: entry %zu is not a string", i + 1);
		s->allowlist_given = true;
		if (s->net_count == SETTINGS_NETS || s->name_count == SETTINGS_NAMES)
			return err_set(err, ERR_LIMIT, 0,
				"restapi.allowlist: over %d addresses or %d names", SETTINGS_NETS,
				SETTINGS_NAMES);
		if (net_parse(text, &s->nets[s->net_count]))
			s->net_count++;
		else if (strchr(text, '/') != NULL)
			log_error("restapi.allowlist entry=\"%s\" is no network, skipped", text);
		else
			s->names[s->name_count++] = text;
	}
	bool word = false;
	if (json_is_string(members) && value_parse_bool(json_string_value(members), &word))
		s->include_members = word;
	else
		s->include_members = json_truthy(members);
	return ERR_OK;
}

static enum err_code read_headers(struct api_settings *s, const char *key, struct header *out,
	unsigned *count, struct err *err)
{
	const char *name;
	json_t *v;
	json_object_foreach(json_object_get(s->raw, key), name, v)
	{
		const char *value = json_string_value(v);
		if (*count == SETTINGS_HEADERS)
			return err_set(err, ERR_LIMIT, 0, "restapi.%s: over %d headers", key,
				SETTINGS_HEADERS);
		if (value == NULL || strpbrk(value, "\r\n") != NULL ||
			strpbrk(name, "\r\n: ") != NULL || name[0] == '\0')
			return err_set(err, ERR_INVAL, 0,
				"restapi.%s: \"%s\" is no header of one line", key, name);
		out[(*count)++] = (struct header){ name, value };
	}
	return ERR_OK;
}

static void read_tokens(struct api_settings *s)
{
	const char *tokens = text_or_null(s->raw, "server_tokens");
	bool ok = true;
	if (str_eq_nocase(tokens, "minimal"))
		ok = str_format(s->server, sizeof(s->server), "Patroni/%s", s->patroni_version);
	else if (str_eq_nocase(tokens, "productonly"))
		ok = str_copy(s->server, sizeof(s->server), "Patroni");
	else
		ok = str_format(s->server, sizeof(s->server), "pgregent/%s", s->version);
	if (tokens != NULL && !str_eq_nocase(tokens, "minimal") &&
		!str_eq_nocase(tokens, "productonly") && !str_eq_nocase(tokens, "original"))
		log_warning("restapi.server_tokens \"%s\": original, minimal or productonly is "
			    "wanted; taken as original",
			tokens);
	if (!ok)
		s->server[0] = '\0';
}

static enum err_code copy_text(
	const json_t *root, const char *key, char *out, size_t len, struct err *err)
{
	const char *s = text_or_null(root, key);
	if (s == NULL || !str_copy(out, len, s))
		return err_set(err, ERR_INVAL, 0, "settings: \"%s\" is missing or over %zu bytes",
			key, len - 1);
	return ERR_OK;
}

enum err_code settings_read(struct api_settings *out, const char *text, size_t len, struct err *err)
{
	struct api_settings *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return err_set(err, ERR_NOMEM, 0, "settings");
	enum err_code rc = ERR_PARSE;
	s->raw = json_read(text, len, err);
	if (json_is_object(s->raw)) {
		rc = copy_text(s->raw, "scope", s->scope, sizeof(s->scope), err);
		if (rc == ERR_OK)
			rc = copy_text(s->raw, "name", s->name, sizeof(s->name), err);
		if (rc == ERR_OK)
			rc = copy_text(s->raw, "version", s->version, sizeof(s->version), err);
		if (rc == ERR_OK)
			rc = copy_text(s->raw, "patroni_version", s->patroni_version,
				sizeof(s->patroni_version), err);
		if (rc == ERR_OK)
			rc = read_listen(s, err);
		if (rc == ERR_OK)
			rc = read_auth(s, err);
		if (rc == ERR_OK)
			rc = read_tls(s, err);
		if (rc == ERR_OK)
			rc = read_allowlist(s, err);
		if (rc == ERR_OK)
			rc = read_headers(s, "http_extra_headers", s->http_headers,
				&s->http_header_count, err);
		if (rc == ERR_OK)
			rc = read_headers(s, "https_extra_headers", s->https_headers,
				&s->https_header_count, err);
		read_tokens(s);
	}
	if (rc == ERR_OK) {
		settings_free(out);
		*out = *s;
		s->raw = NULL;
	}
	json_decref(s->raw);
	free(s);
	return rc;
}

void settings_free(struct api_settings *s)
{
	json_decref(s->raw);
	*s = (struct api_settings){ 0 };
}

bool settings_same_listener(const struct api_settings *a, const struct api_settings *b)
{
	return strcmp(a->listen_host, b->listen_host) == 0 && a->listen_port == b->listen_port &&
	       str_eq(a->certfile, b->certfile) && str_eq(a->keyfile, b->keyfile) &&
	       str_eq(a->keyfile_password, b->keyfile_password) && str_eq(a->cafile, b->cafile) &&
	       str_eq(a->ciphers, b->ciphers) && a->verify_client == b->verify_client;
}
