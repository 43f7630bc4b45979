/* The settings of the REST API as the worker sends them (api_contract.h), checked. api reads no
 * configuration file. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "common/core/err.h"
#include "common/core/limits.h"

#define SETTINGS_NETS	 256 /* allowlist: addresses and networks */
#define SETTINGS_NAMES	 64  /* allowlist: host names */
#define SETTINGS_HEADERS 32  /* extra headers of one set */
#define SETTINGS_TEXT	 1024

enum verify_client { VERIFY_NONE = 0, VERIFY_OPTIONAL, VERIFY_REQUIRED };

/* An address or network; IPv4 as ::ffff:a.b.c.d, so that a mapped address matches (rest 14, 5). */
struct net {
	uint8_t addr[16];
	uint8_t prefix; /* of 128 bits */
};

struct header {
	const char *name, *value; /* borrowed from raw */
};

/* Owned by the process struct; settings_read fills it, settings_free empties it. */
struct api_settings {
	json_t *raw; /* keeps borrowed strings alive */
	char scope[LIMIT_NAME], name[LIMIT_NAME], version[32], patroni_version[32];
	char listen_host[256]; /* "" = all addresses */
	uint16_t listen_port;
	int backlog;
	bool tls;
	const char *certfile, *keyfile, *keyfile_password, *cafile, *ciphers; /* NULL = none */
	enum verify_client verify_client;
	char basic_token[SETTINGS_TEXT]; /* base64(user:password); "" = no authentication */
	struct net nets[SETTINGS_NETS];
	unsigned net_count;
	const char *names[SETTINGS_NAMES]; /* borrowed from raw */
	unsigned name_count;
	bool allowlist_given; /* an entry that cannot be resolved does not open the door */
	bool include_members;
	struct header http_headers[SETTINGS_HEADERS], https_headers[SETTINGS_HEADERS];
	unsigned http_header_count, https_header_count;
	char server[80]; /* value of the Server header */
};

/* Replaces *out only on success. The error names key and value. */
MUST_USE enum err_code settings_read(
	struct api_settings *out, const char *text, size_t len, struct err *err);
void settings_free(struct api_settings *s);
/* "a.b.c.d", "a.b.c.d/n", IPv6 likewise. */
MUST_USE bool net_parse(const char *text, struct net *out);
bool net_holds(const struct net *net, const uint8_t addr[static 16]);
/* What needs a new listener: address or TLS. */
bool settings_same_listener(const struct api_settings *a, const struct api_settings *b);
