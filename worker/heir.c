/* What a worker leaves on its page for the next one, so that a primary in failsafe mode outlives a
 * worker while the store is away (X74). Worker process. */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/worker.h"

static json_t *left(const struct worker *w)
{
	const struct cluster *c = w->view.c;
	json_t *map = json_object(), *sent = json_object();
	for (unsigned i = 0; i < c->failsafe_count; i++)
		json_object_set_new(map, c->failsafe[i].name, json_string(c->failsafe[i].api_url));
	for (unsigned i = 0; i < w->mem.failsafe_sent_count; i++)
		json_object_set_new(sent, w->mem.failsafe_sent[i].name,
			json_string(w->mem.failsafe_sent[i].api_url));
	json_t *o = json_pack("{s:I,s:I,s:o,s:o}", "version", (json_int_t)c->failsafe_version,
		"emptied", (json_int_t)w->mem.failsafe_emptied, "map", map, "sent", sent);
	/* Less than all of it would be a round that leaves somebody out (S18). */
	if (o == NULL || json_object_size(map) != c->failsafe_count ||
		json_object_size(sent) != w->mem.failsafe_sent_count) {
		json_decref(o);
		return NULL;
	}
	return o;
}

/* An old text must not stay where the new one does not fit. */
static void put(struct worker *w, const char *text)
{
	struct err err = ERR_INIT;
	if (shm_doc_write(&w->page, DOC_HEIR, text, strlen(text), clock_boot_ms(), &err) == ERR_OK)
		return;
	log_error("what the next worker would need is not kept: %s", err.text);
	if (shm_doc_write(&w->page, DOC_HEIR, "", 0, clock_boot_ms(), &err) != ERR_OK)
		log_error("page: %s", err.text);
}

void heir_leave(struct worker *w)
{
	json_auto_t *o = failsafe_bequeathed(&w->view, &w->mem) ? left(w) : NULL;
	char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
	/* What PostgreSQL is has not been seen yet: no reason to drop what was taken. */
	if (text == NULL && heir_stands(w) && w->view.role == PG_ROLE_UNINITIALIZED)
		return;
	bool same = text == NULL || w->heir == NULL ? text == w->heir : strcmp(text, w->heir) == 0;
	if (!same && w->page.region != NULL)
		put(w, text != NULL ? text : "");
	free(w->heir);
	w->heir = text;
}

bool heir_stands(const struct worker *w)
{
	return !w->c_fresh && w->mem.lock_was_held;
}

static bool read_map(struct cluster *c, const json_t *map)
{
	const char *name;
	json_t *url;
	c->failsafe = calloc(json_object_size(map) + 1, sizeof(*c->failsafe));
	if (c->failsafe == NULL || json_object_size(map) > LIMIT_MEMBERS)
		return false;
	json_object_foreach((json_t *)map, name, url)
	{
		struct failsafe_member *m = &c->failsafe[c->failsafe_count++];
		if (!json_is_string(url) || !str_copy(m->name, sizeof(m->name), name) ||
			!str_copy(m->api_url, sizeof(m->api_url), json_string_value(url)))
			return false;
	}
	return true;
}

static bool read_sent(struct ha_memory *m, const json_t *sent)
{
	const char *name;
	json_t *url;
	json_object_foreach((json_t *)sent, name, url)
	{
		if (!json_is_string(url) ||
			!failsafe_inherit_sent(m, name, json_string_value(url), clock_boot_ms()))
			return false;
	}
	return true;
}

static bool read_all(struct worker *w, const char *text, size_t len)
{
	struct err err;
	const json_t *map, *sent;
	json_int_t version, emptied;
	json_auto_t *o = json_read(text, len, &err);
	if (o == NULL ||
		json_unpack(o, "{s:I,s:I,s:o,s:o}", "version", &version, "emptied", &emptied, "map",
			&map, "sent", &sent) != 0 ||
		!json_is_object(map) || !json_is_object(sent) || !read_map(w->c, map) ||
		!read_sent(&w->mem, sent))
		return false;
	w->c->failsafe_present = true;
	w->c->failsafe_version = version;
	failsafe_inherit(&w->mem, emptied);
	return true;
}

static void forget(struct worker *w)
{
	free(w->c->failsafe);
	w->c->failsafe = NULL;
	w->c->failsafe_count = 0;
	w->mem.failsafe_sent_count = 0;
}

/* What others see stays what it was, too. */
static void keep_shown(struct worker *w, const struct shm *page)
{
	static const enum shm_worker_doc docs[] = { DOC_CLUSTER, DOC_CONFIG, DOC_HISTORY,
		DOC_FAILSAFE };
	w->last_seen_s = shm_scalar_get(page, WRK_DCS_LAST_SEEN_S);
	for (unsigned i = 0; i < ARRAY_LEN(docs); i++) {
		struct err err = ERR_INIT;
		AUTO(buf) text = BUF_INIT(LIMIT_PAGE_DOC);
		int64_t at_ms = 0;
		if (shm_doc_read(page, docs[i], &text, &at_ms, NULL, &err) != ERR_OK ||
			shm_doc_write(&w->page, docs[i], buf_str(&text), text.len, at_ms, &err) !=
				ERR_OK)
			log_warning("page of the worker before: document %d: %s", (int)docs[i],
				err.text);
	}
}

void heir_take(struct worker *w, const struct shm *page)
{
	struct err err = ERR_INIT;
	AUTO(buf) text = BUF_INIT(LIMIT_PAGE_DOC);
	/* A first answer of the store that was faster knows more. */
	if (w->c_fresh || w->mem.lock_was_held || w->page.region == NULL)
		return;
	enum err_code rc = shm_doc_read(page, DOC_HEIR, &text, NULL, NULL, &err);
	if (rc == ERR_NOTFOUND || (rc == ERR_OK && text.len == 0))
		return;
	if (rc != ERR_OK || !read_all(w, text.data, text.len)) {
		forget(w);
		log_warning("page of the worker before: /failsafe cannot be taken over: %s",
			rc != ERR_OK ? err.text : "not as expected");
		return;
	}
	/* Should this one end before its first decision; a decision that it leads no more drops it.
	 */
	w->heir = strdup(buf_str(&text));
	put(w, w->heir != NULL ? w->heir : "");
	keep_shown(w, page);
	log_info("/failsafe is known from the worker before members=%u rule=X74",
		w->c->failsafe_count);
}
