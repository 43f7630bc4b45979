/* PATCH and PUT /config (rest 6): the new document is made from the newest view, written by
 * compare-and-swap, and answered as it was written. Worker process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ext/json.h"
#include "worker/worker.h"

struct config_write {
	struct worker *w;
	uint64_t id;
	bool put;
	char *text;
};

static void on_config(const struct dcs_event *e, void *arg)
{
	struct config_write *c = arg;
	store_answered(c->w, e->outcome);
	if (e->outcome == DCS_OK) {
		char *text = json_python_of(c->text);
		requests_answer(c->w, c->id, 200, API_JSON, text != NULL ? text : c->text);
		free(text);
		turn_want(c->w, "configuration changed");
	} else if (e->outcome == DCS_CONFLICT) {
		requests_answer(c->w, c->id, 409, API_PAGE,
			"the configuration was changed by somebody else");
	} else {
		requests_answer(c->w, c->id, 502, API_PAGE, e->text);
	}
	free(c->text);
	free(c);
}

char *json_python_of(const char *text)
{
	struct err err;
	json_auto_t *v = json_read(text, strlen(text), &err);
	return v != NULL ? json_python(v) : NULL;
}

void requests_change_config(struct worker *w, uint64_t id, const json_t *body, bool put)
{
	struct err err;
	json_auto_t *stored =
		w->c->config_valid ? json_read(w->c->config_json, strlen(w->c->config_json), &err)
				   : NULL;
	if (!put && !json_is_object(stored)) {
		requests_answer(w, id, 503, API_PAGE, "there is no configuration in the store");
		return;
	}
	json_auto_t *next = put ? json_deep_copy(body) : json_deep_copy(stored);
	bool changed = put ? stored == NULL || !json_same(stored, next) : json_patch(next, body);
	if (!changed) {
		AUTO_FREE char *same = json_python(put ? body : stored);
		requests_answer(w, id, 200, API_JSON, same != NULL ? same : "{}");
		turn_want(w, "configuration");
		return;
	}
	struct config_write *c = calloc(1, sizeof(*c));
	if (c == NULL || (c->text = json_compact(next)) == NULL) {
		free(c);
		requests_answer(w, id, 502, API_PAGE, "no memory");
		return;
	}
	if (strlen(c->text) > LIMIT_PAGE_DOC) {
		/* No member could show it any more. */
		char text[160];
		snprintf(text, sizeof(text),
			"the configuration would have %zu bytes, at most %d are allowed",
			strlen(c->text), LIMIT_PAGE_DOC);
		free(c->text);
		free(c);
		requests_answer(w, id, 413, API_PAGE, text);
		return;
	}
	c->w = w;
	c->id = id;
	c->put = put;
	struct dcs_op op = {
		.kind = DCS_SET_CONFIG, .value = c->text, .version = put ? 0 : w->c->config_version
	};
	dcs_submit(w->dcs, &op, on_config, c);
}
