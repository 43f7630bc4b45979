/* PATCH and PUT /config (rest 6): the new document is made from the newest view, written by
 * compare-and-swap, and answered as it was written. A view that turns out to be too old is read
 * anew once. Worker process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ext/json.h"
#include "worker/worker.h"

struct config_write {
	struct worker *w;
	uint64_t id;
	bool put, reread;
	json_t *body;
	char *text; /* as it is written */
};

static void change(struct config_write *c);

static void done(struct config_write *c, int status, enum api_content content, const char *text)
{
	requests_answer(c->w, c->id, status, content, text);
	json_decref(c->body);
	free(c->text);
	free(c);
}

static void on_fresh(const struct dcs_event *e, void *arg)
{
	struct config_write *c = arg;
	store_answered(c->w, e->outcome);
	if (e->outcome != DCS_OK || e->cluster == NULL) {
		done(c, 502, API_PAGE, e->text);
		return;
	}
	store_take_read(c->w, e->cluster);
	turn_want(c->w, "store was read");
	change(c);
}

/* The watch may be behind what somebody wrote a moment ago; false: that is not it. */
static bool ask_store(struct config_write *c)
{
	if (c->reread)
		return false;
	c->reread = true;
	struct dcs_op op = { .kind = DCS_READ };
	dcs_submit(c->w->dcs, &op, on_fresh, c);
	return true;
}

static void on_config(const struct dcs_event *e, void *arg)
{
	struct config_write *c = arg;
	store_answered(c->w, e->outcome);
	if (e->outcome == DCS_OK) {
		AUTO_FREE char *text = json_python_of(c->text);
		turn_want(c->w, "configuration changed");
		done(c, 200, API_JSON, text != NULL ? text : c->text);
	} else if (e->outcome != DCS_CONFLICT) {
		done(c, 502, API_PAGE, e->text);
	} else if (!ask_store(c)) {
		done(c, 409, API_PAGE, "the configuration was changed by somebody else");
	}
}

char *json_python_of(const char *text)
{
	struct err err;
	json_auto_t *v = json_read(text, strlen(text), &err);
	return v != NULL ? json_python(v) : NULL;
}

static void change(struct config_write *c)
{
	struct err err;
	const struct cluster *now = c->w->c;
	json_auto_t *stored = now->config_valid
				      ? json_read(now->config_json, strlen(now->config_json), &err)
				      : NULL;
	if (!c->put && !json_is_object(stored)) {
		if (!ask_store(c))
			done(c, 503, API_PAGE, "there is no configuration in the store");
		return;
	}
	json_auto_t *next = json_deep_copy(c->put ? c->body : stored);
	bool changed =
		c->put ? stored == NULL || !json_same(stored, next) : json_patch(next, c->body);
	if (!changed && ask_store(c))
		return;
	if (!changed) {
		AUTO_FREE char *same = json_python(c->put ? c->body : stored);
		turn_want(c->w, "configuration");
		done(c, 200, API_JSON, same != NULL ? same : "{}");
		return;
	}
	free(c->text);
	c->text = json_compact(next);
	if (c->text == NULL) {
		done(c, 502, API_PAGE, "no memory");
		return;
	}
	if (strlen(c->text) > LIMIT_PAGE_DOC) {
		/* No member could show it any more. */
		char text[160];
		snprintf(text, sizeof(text),
			"the configuration would have %zu bytes, at most %d are allowed",
			strlen(c->text), LIMIT_PAGE_DOC);
		done(c, 413, API_PAGE, text);
		return;
	}
	struct dcs_op op = { .kind = DCS_SET_CONFIG,
		.value = c->text,
		.version = c->put ? 0 : now->config_version };
	dcs_submit(c->w->dcs, &op, on_config, c);
}

void requests_change_config(struct worker *w, uint64_t id, const json_t *body, bool put)
{
	struct config_write *c = calloc(1, sizeof(*c));
	json_t *own = json_deep_copy(body);
	if (c == NULL || own == NULL) {
		free(c);
		json_decref(own);
		requests_answer(w, id, 502, API_PAGE, "no memory");
		return;
	}
	*c = (struct config_write){ .w = w, .id = id, .put = put, .body = own };
	change(c);
}
