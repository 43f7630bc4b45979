/* The body of POST /failsafe (rest 9): who leads without the store, and for how long a word of ours
 * would count. Pure. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"
#include "common/core/limits.h"

struct failsafe_word {
	char name[LIMIT_NAME], conn_url[LIMIT_URL], api_url[LIMIT_URL];
	int64_t ttl_ms; /* the word counts that long */
	json_t *slots;	/* borrowed from the body; NULL = none */
};

/* own_ttl_ms: the ttl that this member knows of. Any doubt is an error, and then no word is given.
 */
MUST_USE enum err_code failsafe_word_read(
	const json_t *body, int64_t own_ttl_ms, struct failsafe_word *out, struct err *err);
