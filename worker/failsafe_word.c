/* Reads the body of POST /failsafe. A word lets somebody else write while the store is away, and
 * ours keeps us from taking the key: one that is shorter than its sender believes would let both
 * happen at once. So what cannot be granted whole is refused. Worker process. */
#include "worker/failsafe_word.h"

#include <string.h>

#include "common/core/str.h"
#include "common/ext/json.h"

static enum err_code take_text(
	const json_t *body, const char *key, char *out, size_t len, struct err *err)
{
	const char *text = json_path_str(body, key);
	if (text == NULL)
		return err_set(err, ERR_INVAL, 0,
			"name, conn_url and api_url are needed: %s is not a text", key);
	if (!str_copy(out, len, text))
		return err_set(err, ERR_LIMIT, 0, "%s is longer than %zu bytes", key, len - 1);
	return ERR_OK;
}

enum err_code failsafe_word_read(
	const json_t *body, int64_t own_ttl_ms, struct failsafe_word *out, struct err *err)
{
	struct failsafe_word w = { .ttl_ms = own_ttl_ms };
	enum err_code rc;
	if ((rc = take_text(body, "name", w.name, sizeof(w.name), err)) != ERR_OK ||
		(rc = take_text(body, "conn_url", w.conn_url, sizeof(w.conn_url), err)) != ERR_OK ||
		(rc = take_text(body, "api_url", w.api_url, sizeof(w.api_url), err)) != ERR_OK)
		return rc;
	/* X23: the sender cannot see a ttl that was changed since it lost the store, we may not
	 * have seen one before it; the reference sends none. */
	const json_t *ttl = json_object_get(body, "ttl");
	if (ttl != NULL) {
		json_int_t s = json_integer_value(ttl);
		if (!json_is_integer(ttl) || s < 1 || s > LIMIT_WORD_MS / 1000)
			return err_set(err, ERR_INVAL, 0,
				"ttl: a whole number of seconds from 1 to %d is allowed",
				LIMIT_WORD_MS / 1000);
		if (s * 1000 > w.ttl_ms)
			w.ttl_ms = s * 1000;
	}
	w.slots = json_object_get(body, "slots");
	*out = w;
	return ERR_OK;
}
