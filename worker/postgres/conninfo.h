/* Connection strings of libpq as the contract orders and compares them (config 4.8), and lines of
 * the password file. Pure; run by the worker. A connection is a set of words with values. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/buf.h"
#include "common/core/limits.h"

#define CONNINFO_WORDS_MAX 40
#define CONNINFO_VALUE_MAX 1024

struct conninfo {
	unsigned count;
	struct conninfo_word {
		char key[32];
		char value[CONNINFO_VALUE_MAX];
	} words[CONNINFO_WORDS_MAX];
};

const char *conninfo_get(const struct conninfo *c, const char *key); /* NULL = not there */
/* value NULL: not set, true. False: too many words, or too long. */
MUST_USE bool conninfo_set(struct conninfo *c, const char *key, const char *value);
void conninfo_del(struct conninfo *c, const char *key);
/* Both forms: words "key=value" and URIs. False: not understood; out is empty then. */
MUST_USE bool conninfo_parse(const char *text, struct conninfo *out);
/* In the contract's order, words newer than major (15) left out; password only when there is no
 * passfile. */
void conninfo_format(const struct conninfo *c, int32_t major, struct buf *out);
/* First major version that knows the word; 0 = all. */
int32_t conninfo_word_from(const char *key);
/* Every wanted word is set and equal; sslmode, gssencmode, channel_binding count as "prefer",
 * sslnegotiation as "postgres" when they are not there. Words of wanted that major does not know
 * are not compared. */
bool conninfo_covers(const struct conninfo *have, const struct conninfo *wanted, int32_t major);
/* Lines host:port:*:user:password, one for each host. False: there is no password. */
MUST_USE bool conninfo_pgpass(const struct conninfo *c, struct buf *out);
