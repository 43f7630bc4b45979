/* The facts of PostgreSQL, asked of the worker once for all requests that came in before the
 * question was sent, never once for requests that came in later (DESIGN 6). Api process. */
#include <string.h>

#include "api/api.h"
#include "common/core/api_contract.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/ext/json.h"

/* A question without an answer is given up: the worker may have lost it. */
#define GIVE_UP_MS 5000

static void serve_all(struct request **list, const json_t *facts)
{
	while (*list != NULL) {
		struct request *r = *list;
		*list = r->next;
		r->next = NULL;
		serve_with_facts(r, facts);
	}
}

static void on_timer(struct loop *l, void *arg);

static void arm(struct api *a)
{
	struct facts *f = &a->facts;
	int64_t at_ms = INT64_MAX;
	/* A question whose askers have all gone may still be the one that others wait behind. */
	if (f->id != 0)
		at_ms = f->sent_at_ms + (f->hanging ? GIVE_UP_MS : API_FACTS_MS);
	for (struct request *r = f->attached; r != NULL; r = r->next)
		at_ms = r->deadline_ms < at_ms ? r->deadline_ms : at_ms;
	for (struct request *r = f->next; r != NULL; r = r->next)
		at_ms = r->deadline_ms < at_ms ? r->deadline_ms : at_ms;
	if (at_ms != INT64_MAX)
		loop_timer_set(&a->loop, &f->timer, at_ms, on_timer, a);
	else
		loop_timer_stop(&a->loop, &f->timer);
}

/* Serve without facts those whose time is up; true: there were some. */
static bool expire(struct request **list, int64_t now_ms)
{
	struct request *due = NULL;
	while (*list != NULL) {
		struct request *r = *list;
		if (r->deadline_ms > now_ms) {
			list = &r->next;
			continue;
		}
		*list = r->next;
		r->next = due;
		due = r;
	}
	bool some = due != NULL;
	serve_all(&due, NULL);
	return some;
}

static void on_timer(struct loop *l, void *arg)
{
	struct api *a = arg;
	struct facts *f = &a->facts;
	int64_t now_ms = clock_boot_ms();
	(void)l;
	if (f->id != 0 && now_ms - f->sent_at_ms >= API_FACTS_MS && !f->hanging) {
		f->hanging = true;
		log_warning(
			"facts of PostgreSQL late_ms=%lld", (long long)(now_ms - f->sent_at_ms));
		/* Those that came later would only wait behind it. */
		serve_all(&f->next, NULL);
	}
	expire(&f->attached, now_ms);
	/* No worker for that long: those that come now do not wait for it either. */
	if (expire(&f->next, now_ms) && a->worker_fd < 0)
		f->hanging = true;
	if (f->id != 0 && now_ms - f->sent_at_ms >= GIVE_UP_MS)
		f->id = 0;
	arm(a);
}

static void send_question(struct api *a)
{
	struct facts *f = &a->facts;
	struct err err = ERR_INIT;
	f->id = ++a->next_id;
	f->sent_at_ms = clock_boot_ms();
	f->attached = f->next;
	f->next = NULL;
	if (link_ask(a, API_PG_FACTS, f->id, f->sent_at_ms + API_FACTS_MS, NULL, 0, &err) !=
		ERR_OK) {
		f->id = 0;
		serve_all(&f->attached, NULL);
	}
	arm(a);
}

void facts_want(struct request *r)
{
	struct api *a = r->api;
	struct facts *f = &a->facts;
	if (!view_query_possible(&a->view)) {
		serve_with_facts(r, NULL);
		return;
	}
	if (f->hanging) {
		/* PostgreSQL is known not to answer: the question under way, or a new one, tells
		 * when it does again, and nobody waits for that. */
		if (f->id == 0 && a->worker_fd >= 0)
			send_question(a);
		serve_with_facts(r, NULL);
		return;
	}
	r->deadline_ms = clock_boot_ms() + API_FACTS_MS;
	r->next = f->next;
	f->next = r;
	request_wait(r);
}

void facts_flush(struct api *a)
{
	struct facts *f = &a->facts;
	if (f->next == NULL)
		return;
	if (f->id == 0 && a->worker_fd >= 0)
		send_question(a);
	else
		arm(a);
}

bool facts_answer(struct api *a, const struct ipc_msg *m)
{
	struct facts *f = &a->facts;
	const struct msg_api_answer *head = m->payload;
	if (f->id == 0 || m->id != f->id)
		return false;
	struct err err = ERR_INIT;
	json_t *facts = NULL;
	f->id = 0;
	f->hanging = false;
	if (head->status == 200) {
		facts = json_read(m->tail, m->tail_len, &err);
		if (!json_is_object(facts)) {
			log_error("facts of PostgreSQL: %s",
				facts == NULL ? err.text : "not an object");
			json_decref(facts);
			facts = NULL;
		}
	}
	serve_all(&f->attached, facts);
	json_decref(facts);
	arm(a);
	return true;
}

/* A new worker comes within 300 ms as a rule: those that wait get their answer from it. */
void facts_worker_gone(struct api *a)
{
	struct facts *f = &a->facts;
	struct request **tail = &f->next;
	while (*tail != NULL)
		tail = &(*tail)->next;
	*tail = f->attached;
	f->attached = NULL;
	f->id = 0;
	f->hanging = false;
	arm(a);
}

void facts_forget(struct request *r)
{
	struct request **lists[] = { &r->api->facts.attached, &r->api->facts.next };
	for (unsigned i = 0; i < ARRAY_LEN(lists); i++) {
		for (struct request **at = lists[i]; *at != NULL; at = &(*at)->next) {
			if (*at == r) {
				*at = r->next;
				return;
			}
		}
	}
}
