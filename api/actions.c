/* Commands: checked here against the page, handed to the worker, answered when it answers (rest 6
 * to 10). Api process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/validate.h"
#include "common/core/api_contract.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"

static const char gone[] = "the worker ended before it answered; the outcome is unknown";
static const char late[] = "no answer in time; the operation may still be in progress";

/* ---- waiting for the worker ---------------------------------------------------------------------
 */

static void on_timer(struct loop *l, void *arg);

static void arm(struct api *a)
{
	int64_t at_ms = 0;
	for (unsigned i = 0; i < API_PENDING; i++) {
		if (a->pending.rows[i].id != 0 &&
			(at_ms == 0 || a->pending.rows[i].deadline_ms < at_ms))
			at_ms = a->pending.rows[i].deadline_ms;
	}
	if (at_ms != 0)
		loop_timer_set(&a->loop, &a->pending.timer, at_ms, on_timer, a);
	else
		loop_timer_stop(&a->loop, &a->pending.timer);
}

static void on_timer(struct loop *l, void *arg)
{
	struct api *a = arg;
	int64_t now_ms = clock_boot_ms();
	(void)l;
	for (unsigned i = 0; i < API_PENDING; i++) {
		if (a->pending.rows[i].id == 0 || a->pending.rows[i].deadline_ms > now_ms)
			continue;
		a->pending.rows[i].id = 0;
		reply_text(a->pending.rows[i].request, 503, late);
	}
	arm(a);
}

void action_worker_gone(struct api *a)
{
	for (unsigned i = 0; i < API_PENDING; i++) {
		if (a->pending.rows[i].id == 0)
			continue;
		a->pending.rows[i].id = 0;
		reply_text(a->pending.rows[i].request, 503, gone);
	}
	arm(a);
}

void action_forget(struct request *r)
{
	for (unsigned i = 0; i < API_PENDING; i++) {
		if (r->id != 0 && r->api->pending.rows[i].id == r->id)
			r->api->pending.rows[i].id = 0;
	}
}

static void forward(struct request *r, const char *tail, size_t len)
{
	struct api *a = r->api;
	struct err err = ERR_INIT;
	unsigned i = 0;
	while (i < API_PENDING && a->pending.rows[i].id != 0)
		i++;
	if (i == API_PENDING) {
		reply_text(r, 503, "too many requests are in progress");
		return;
	}
	uint64_t id = ++a->next_id;
	int64_t deadline_ms = clock_boot_ms() + r->route->answer_ms;
	enum err_code rc = link_ask(a, r->route->action, id, deadline_ms, tail, len, &err);
	if (rc != ERR_OK) {
		reply_text(r, 503,
			rc == ERR_CLOSED ? "the worker is not running"
					 : "the worker does not answer");
		return;
	}
	log_info("request verb=%s path=%s id=%llu", r->verb, r->path, (unsigned long long)id);
	r->id = id;
	a->pending.rows[i].id = id;
	a->pending.rows[i].deadline_ms = deadline_ms;
	a->pending.rows[i].request = r;
	request_wait(r);
	arm(a);
}

static bool text_ok(const struct ipc_msg *m)
{
	return m->tail_len == 0 || memchr(m->tail, '\0', m->tail_len) == NULL;
}

/* 200 without a body after PATCH and PUT: the new document is on the page. */
static void answer_from_page(struct request *r)
{
	view_refresh(&r->api->view);
	const json_t *v = view_doc(&r->api->view, DOC_CONFIG);
	reply_json(r, 200, v != NULL ? json_incref((json_t *)v) : json_object());
}

static void answer_request(struct request *r, const struct ipc_msg *m)
{
	const struct msg_api_answer *head = m->payload;
	bool config = r->route->action == API_CONFIG_PATCH || r->route->action == API_CONFIG_PUT;
	if (head->status < 200 || head->status > 599 || !text_ok(m)) {
		reply_text(r, 500, "malformed answer of the worker");
		return;
	}
	log_info("answer status=%u id=%llu", head->status, (unsigned long long)m->id);
	if (config && head->status == 200 && m->tail_len == 0) {
		answer_from_page(r);
		return;
	}
	if (head->content == API_PAGE) {
		AUTO(buf) text = BUF_INIT(LIMIT_API_ANSWER);
		buf_add(&text, m->tail != NULL ? m->tail : "", m->tail_len);
		reply_page(r, head->status, buf_str(&text));
		return;
	}
	reply_doc(r, head->status, m->tail != NULL ? m->tail : "", m->tail_len,
		(struct reply_extra){ .lsn = r->route->action == API_FAILSAFE && head->status == 200
						     ? head->lsn
						     : -1,
			.json = head->content == API_JSON });
}

void action_answer(struct api *a, const struct ipc_msg *m)
{
	for (unsigned i = 0; i < API_PENDING; i++) {
		if (a->pending.rows[i].id == 0 || a->pending.rows[i].id != m->id)
			continue;
		a->pending.rows[i].id = 0;
		answer_request(a->pending.rows[i].request, m);
		arm(a);
		return;
	}
	/* A client that has left: nobody waits any more. */
}

/* ---- checks -------------------------------------------------------------------------------------
 */

/* The checks that a store read would precede in the reference. True: passed. */
static void check(struct request *r, const json_t *body, struct verdict *v)
{
	struct view *w = &r->api->view;
	const json_t *cluster = view_cluster(w, clock_boot_ms());
	struct validate_env env = { .now_wall_us = clock_wall_us(),
		.paused = view_get(w, WRK_PAUSED) != 0,
		.sync = view_sync_mode(w),
		.cluster = cluster };
	switch (r->route->action) {
	case API_SWITCHOVER:
	case API_FAILOVER:
		if (cluster == NULL) {
			v->status = 503;
			snprintf(v->text, sizeof(v->text),
				"the cluster state cannot be read from the DCS");
		} else {
			validate_switchover(body, r->route->action == API_FAILOVER, &env, v);
		}
		break;
	case API_RESTART: validate_restart(body, &env, v); break;
	case API_REINITIALIZE: validate_reinitialize(body, v); break;
	case API_FAILSAFE: validate_failsafe(body, v); break;
	default: v->forward = json_incref((json_t *)body); break;
	}
	if (v->status == 0 && r->route->action == API_FAILSAFE &&
		view_get(w, WRK_STATE) == PG_STATE_RUNNING &&
		view_get(w, WRK_ROLE) == PG_ROLE_PRIMARY) {
		v->status = 500;
		snprintf(v->text, sizeof(v->text), "Running as a leader");
	}
}

static void refuse(struct request *r, const struct verdict *v)
{
	if (v->page)
		reply_page(r, v->status != 0 ? v->status : 500, v->text);
	else
		reply_text(r, v->status != 0 ? v->status : 500, v->text);
}

void action_start(struct request *r)
{
	struct verdict v = { 0 };
	json_auto_t *body = NULL;
	if (r->route->action == API_FAILSAFE && view_get(&r->api->view, WRK_FAILSAFE_MODE) == 0) {
		reply_page(r, 502, "failsafe_mode is off");
		return;
	}
	if (r->route->body == BODY_IGNORED) {
		forward(r, NULL, 0);
		return;
	}
	if (!validate_object(buf_str(&r->body), r->body.len, r->has_length,
		    r->route->body == BODY_OPTIONAL, &body, &v)) {
		refuse(r, &v);
		return;
	}
	check(r, body, &v);
	if (v.status != 0) {
		json_decref(v.forward);
		refuse(r, &v);
		return;
	}
	AUTO_FREE char *tail = v.forward != NULL ? json_compact(v.forward) : NULL;
	json_decref(v.forward);
	if (tail == NULL)
		reply_text(r, 500, "no memory");
	else
		forward(r, tail, strlen(tail));
}
