/* One request to etcd: endpoints, budget, authentication, error classes (dcs 3.2, 3.3, 5). */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/etcd3.h"
#include "common/ext/json.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS	 1000
#define ONE_ANSWER_MAX	 (4 * 1024 * 1024)
#define AUTH_TRIES	 2
#define TOKEN_YOUNG_MS	 5000

struct etcd_call {
	struct etcd_call *next, **prev_next, *next_waiter;
	struct etcd3 *e;
	char path[48];
	char *body;
	int64_t deadline_ms, sent_at_ms, backoff_ms;
	unsigned endpoint, tried, auth_tries;
	bool is_auth, is_version, failed_over;
	bool waits; /* for a first endpoint */
	bool fresh; /* on connections of its own, each endpoint once */
	struct http_call *http;
	struct loop_timer timer;
	etcd_done_fn fn;
	void *arg;
	char last_error[160];
};

static void attempt(struct etcd_call *c);

int64_t etcd_int(const json_t *v)
{
	int64_t n = 0;
	if (json_is_integer(v))
		return json_integer_value(v);
	if (json_is_string(v) && str_to_i64(json_string_value(v), &n))
		return n;
	return 0;
}

const char *etcd_endpoint(const struct etcd3 *e)
{
	return e->endpoints[e->current % e->endpoint_count];
}

void etcd_next_endpoint(struct etcd3 *e)
{
	if (e->endpoint_count > 0)
		e->current = (e->current + 1) % e->endpoint_count;
}

void etcd_http_request(struct etcd3 *e, struct http_request *req)
{
	/* A worker must not be silent while it decodes an answer: what is larger comes in pages. */
	req->reply_max = e->paged || e->is_ctl ? 0 : ONE_ANSWER_MAX;
	req->tls = (struct http_tls){ .cacert = e->cacert, .cert = e->cert, .key = e->key };
	req->keepalive_ttl_ms = e->ttl_ms;
	req->keepalive_idle_ms = e->loop_wait_ms + e->retry_timeout_ms;
}

static void free_call(struct etcd_call *c)
{
	for (struct etcd_call **p = &c->e->auth_waiters; *p != NULL; p = &(*p)->next_waiter) {
		if (*p == c) {
			*p = c->next_waiter;
			break;
		}
	}
	http_cancel(c->http);
	loop_timer_stop(c->e->loop, &c->timer);
	*c->prev_next = c->next;
	if (c->next != NULL)
		c->next->prev_next = c->prev_next;
	free(c->body);
	free(c);
}

static void finish(struct etcd_call *c, enum etcd_answer a, const json_t *body, const char *text)
{
	struct etcd3 *e = c->e;
	etcd_done_fn fn = c->fn;
	void *arg = c->arg;
	int64_t sent_at_ms = c->sent_at_ms;
	e->answered_at = c->endpoint;
	char keep[200];
	if (!str_copy_n(keep, sizeof(keep), text, sizeof(keep) - 1))
		keep[0] = '\0';
	free_call(c);
	fn(e, a, body, sent_at_ms, keep, arg);
}

void etcd_calls_drop(struct etcd3 *e)
{
	while (e->calls != NULL)
		finish(e->calls, ETCD_ANSWER_UNKNOWN, NULL, "closed");
}

bool etcd_header_ok(struct etcd3 *e, const json_t *body)
{
	const json_t *h = json_object_get(body, "header");
	if (h == NULL)
		h = json_path(body, "result.header");
	const char *id = json_string_value(json_object_get(h, "cluster_id"));
	int64_t term = etcd_int(json_object_get(h, "raft_term"));
	if (id == NULL || term == 0)
		return true;
	if (!str_eq(id, e->cluster_id)) {
		if (e->cluster_id[0] != '\0')
			log_warning("etcd cluster id changed from %s to %s", e->cluster_id, id);
		if (!str_copy(e->cluster_id, sizeof(e->cluster_id), id))
			e->cluster_id[0] = '\0';
		e->raft_term = term;
		return true;
	}
	if (term < e->raft_term)
		return false;
	e->raft_term = term;
	return true;
}

static void on_backoff(struct loop *l, void *arg)
{
	(void)l;
	attempt(arg);
}

/* This attempt brought nothing: another endpoint, then a pause, until the budget is used up. */
static void retry(struct etcd_call *c, bool next_endpoint, const char *why)
{
	struct etcd3 *e = c->e;
	int64_t now_ms = clock_boot_ms();
	if (!str_copy_n(c->last_error, sizeof(c->last_error), why, sizeof(c->last_error) - 1))
		c->last_error[0] = '\0';
	if (next_endpoint) {
		c->endpoint = (c->endpoint + 1) % e->endpoint_count;
		c->tried++;
		c->failed_over = true;
	}
	int64_t pause_ms = 0;
	if (c->fresh && c->tried >= e->endpoint_count) {
		/* The next repeat follows soon, and what runs beside it draws the conclusions. */
		finish(c, ETCD_ANSWER_UNKNOWN, NULL, c->last_error);
		return;
	}
	if (!next_endpoint || c->tried >= e->endpoint_count) {
		c->tried = 0;
		pause_ms = c->backoff_ms + (int64_t)rng_below(&e->rng, 100);
		c->backoff_ms =
			c->backoff_ms * 2 < BACKOFF_LAST_MS ? c->backoff_ms * 2 : BACKOFF_LAST_MS;
		if (next_endpoint)
			etcd_refresh_topology(e);
	}
	if (now_ms + pause_ms >= c->deadline_ms) {
		etcd_watch_doubt(e, "no endpoint answers");
		finish(c, ETCD_ANSWER_UNKNOWN, NULL, c->last_error);
		return;
	}
	loop_timer_set(e->loop, &c->timer, now_ms + pause_ms, on_backoff, c);
}

static void wait_for_auth(struct etcd_call *c)
{
	c->next_waiter = c->e->auth_waiters;
	c->e->auth_waiters = c;
	/* Authentication has the budget of the call that asked for it first; mine may be shorter.
	 */
	loop_timer_set(c->e->loop, &c->timer, c->deadline_ms, on_backoff, c);
}

static void release_auth_waiters(struct etcd3 *e)
{
	struct etcd_call *list = e->auth_waiters;
	e->auth_waiters = NULL;
	while (list != NULL) {
		struct etcd_call *c = list;
		list = c->next_waiter;
		loop_timer_set(e->loop, &c->timer, clock_boot_ms(), on_backoff, c);
	}
}

static void on_auth(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	(void)sent_at_ms;
	(void)arg;
	e->auth_running = false;
	const char *token = json_string_value(json_object_get(body, "token"));
	if (a == ETCD_ANSWER_OK && token != NULL && str_copy(e->token, sizeof(e->token), token)) {
		e->auth_off = false;
		e->token_ms = clock_boot_ms();
	} else if (strstr(text, "authentication is not enabled") != NULL) {
		e->auth_off = true;
		e->token[0] = '\0';
	} else {
		e->auth_failed_ms = clock_boot_ms();
		/* It may be a good one: who asked may have been refused for other reasons. */
		if (a != ETCD_ANSWER_DENIED)
			memcpy(e->token, e->token_before, sizeof(e->token));
		log_error("etcd authentication as %s failed: %s", e->username,
			a != ETCD_ANSWER_OK ? text
			: token == NULL	    ? "there is no token in the answer"
					    : "the token is too long");
	}
	release_auth_waiters(e);
}

static struct etcd_call *new_call(
	struct etcd3 *e, const char *path, int64_t deadline_ms, etcd_done_fn fn, void *arg)
{
	struct etcd_call *c = calloc(1, sizeof(*c));
	INVARIANT(c != NULL);
	c->e = e;
	bool fits = str_copy(c->path, sizeof(c->path), path);
	INVARIANT(fits);
	c->deadline_ms = deadline_ms;
	c->backoff_ms = BACKOFF_FIRST_MS;
	c->endpoint = e->current;
	c->fn = fn;
	c->arg = arg;
	c->next = e->calls;
	if (c->next != NULL)
		c->next->prev_next = &c->next;
	c->prev_next = &e->calls;
	e->calls = c;
	return c;
}

/* The token is cleared first: with a stale one in the header the call itself would fail (dcs 3.3).
 */
static void start_auth(struct etcd3 *e, int64_t deadline_ms)
{
	if (e->auth_running)
		return;
	e->auth_running = true;
	memcpy(e->token_before, e->token, sizeof(e->token_before));
	e->token[0] = '\0';
	struct etcd_call *c = new_call(e, "/auth/authenticate", deadline_ms, on_auth, NULL);
	json_auto_t *b = json_pack("{s:s,s:s}", "name", e->username, "password", e->password);
	c->body = json_compact(b);
	c->is_auth = true;
	loop_timer_set(e->loop, &c->timer, clock_boot_ms(), on_backoff, c);
}

static void reauthenticate(struct etcd_call *c, const char *text)
{
	struct etcd3 *e = c->e;
	if (e->username[0] == '\0') {
		log_error("etcd asks for authentication, but no username is configured: %s", text);
		finish(c, ETCD_ANSWER_DENIED, NULL, text);
		return;
	}
	if (c->auth_tries++ >= AUTH_TRIES) {
		finish(c, ETCD_ANSWER_DENIED, NULL, text);
		return;
	}
	wait_for_auth(c);
	start_auth(e, c->deadline_ms);
}

/* The text first, then the code: several errors are mislabelled (dcs 3.3). */
static void on_error(struct etcd_call *c, const json_t *body, long status)
{
	const json_t *eo = json_object_get(body, "error");
	const char *text = json_string_value(json_object_get(body, "message"));
	if (text == NULL)
		text = json_string_value(eo);
	if (text == NULL)
		text = json_string_value(json_object_get(eo, "message"));
	if (text == NULL)
		text = json_string_value(json_object_get(body, "Error"));
	int64_t code = etcd_int(json_object_get(body, "code"));
	if (code == 0)
		code = etcd_int(json_object_get(eo, "grpc_code"));
	if (code == 0)
		code = etcd_int(json_object_get(eo, "code"));
	if (text == NULL)
		text = "error without a text";
	if (c->is_auth) {
		bool lasting = strstr(text, "authentication failed") != NULL ||
			       strstr(text, "authentication is not enabled") != NULL;
		if (lasting)
			finish(c, ETCD_ANSWER_DENIED, NULL, text);
		else
			retry(c, true, text);
	} else if (strstr(text, "user name is empty") || strstr(text, "invalid auth token") ||
		   strstr(text, "revision of auth store is old")) {
		reauthenticate(c, text);
	} else if (strstr(text, "permission denied")) {
		/* Old servers say it of a token that ended, too. One that is young has not, and
		 * to check a password costs etcd more than a hundred requests. */
		if (c->e->username[0] != '\0' && c->auth_tries == 0 &&
			clock_boot_ms() - c->e->token_ms > TOKEN_YOUNG_MS)
			reauthenticate(c, text);
		else
			finish(c, ETCD_ANSWER_DENIED, NULL, text);
	} else if (strstr(text, "requested lease not found")) {
		finish(c, ETCD_ANSWER_LEASE_GONE, NULL, text);
	} else if (strstr(text, "not a primary lessor") || code == 14 || status == 503) {
		retry(c, true, text);
	} else if (strstr(text, "context deadline exceeded") || code == 4 || code == 9) {
		retry(c, false, text);
	} else if (code == 3 || (status >= 400 && status < 500 && status != 404 && status != 408 &&
					status != 429)) {
		finish(c, ETCD_ANSWER_DENIED, NULL, text);
	} else {
		finish(c, ETCD_ANSWER_UNKNOWN, NULL, text);
	}
}

/* The version decides the prefix of the gateway. */
static void take_version(struct etcd_call *c, const json_t *body)
{
	struct etcd3 *e = c->e;
	const char *v = json_string_value(json_object_get(body, "etcdcluster"));
	if (v == NULL || v[0] < '0' || v[0] > '9') {
		retry(c, true, "etcd cluster version is not decided yet");
		return;
	}
	char *end;
	long major = strtol(v, &end, 10), minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
	const char *api = major < 3		    ? NULL
			  : major > 3 || minor >= 4 ? "/v3"
			  : minor == 3		    ? "/v3beta"
						    : "/v3alpha";
	if (api == NULL) {
		log_error("etcd %s is too old: 3.0 or later is needed", v);
		finish(c, ETCD_ANSWER_DENIED, NULL, "etcd is too old");
		return;
	}
	c->is_version = false;
	if (!str_copy(e->api, sizeof(e->api), api))
		e->api[0] = '\0';
	attempt(c);
}

/* A call that went elsewhere was answered, and one that was sent before it to the current endpoint
 * was not. */
static bool current_is_silent(const struct etcd_call *c)
{
	for (const struct etcd_call *o = c->e->calls; o != NULL; o = o->next) {
		if (o != c && o->http != NULL && o->endpoint == c->e->current &&
			o->sent_at_ms < c->sent_at_ms)
			return true;
	}
	return false;
}

static void on_reply(const struct http_reply *r, void *arg)
{
	struct etcd_call *c = arg;
	struct etcd3 *e = c->e;
	struct err err = ERR_INIT;
	c->http = NULL;
	if (r->too_large) {
		finish(c, ETCD_ANSWER_TOO_LARGE, NULL, r->text);
		return;
	}
	if (r->status == 0) {
		/* Some builds close the connection without a byte when the token is bad. */
		if (r->got_nothing && e->token[0] != '\0' && c->failed_over && !c->is_auth) {
			reauthenticate(c, r->text);
			return;
		}
		http_drop_idle(e->http);
		retry(c, true, r->text);
		return;
	}
	json_auto_t *body = json_read(r->body, r->len, &err);
	if (body == NULL) {
		/* An upgraded server does not know the old prefix any more: ask again for its
		 * version. */
		if (r->status == 404 && strcmp(e->api, "/v3") != 0)
			e->api[0] = '\0';
		retry(c, true, err.text);
		return;
	}
	if (!etcd_header_ok(e, body)) {
		retry(c, true, "answer of a stale etcd member (lower raft term)");
		return;
	}
	if (c->is_version && r->status == 200) {
		take_version(c, body);
		return;
	}
	if (r->status >= 400 || json_object_get(body, "error") != NULL) {
		on_error(c, body, r->status);
		return;
	}
	if (c->endpoint != e->current && (c->failed_over || current_is_silent(c))) {
		e->current = c->endpoint % e->endpoint_count;
		etcd_watch_restart(e, "endpoint changed");
		etcd_refresh_topology(e);
	}
	finish(c, ETCD_ANSWER_OK, body, "");
}

/* Share of one attempt: the budget over endpoints and tries (dcs 5.1). */
static int64_t attempt_ms(const struct etcd_call *c, int64_t left_ms)
{
	int64_t n = c->e->endpoint_count, tries = 4 - (n < 3 ? n : 3);
	int64_t per = left_ms / n;
	while (per < 1000 && n > 1) {
		n--;
		tries = 1;
		per = left_ms / n;
	}
	while (tries > 1 && per / tries < 1000)
		tries--;
	per /= tries;
	return per < left_ms ? per : left_ms;
}

#define SEARCH_POLL_MS 1000

static void wait_for_endpoint(struct etcd_call *c, int64_t now_ms)
{
	static const char why[] = "no endpoint is known yet";
	c->waits = true;
	memcpy(c->last_error, why, sizeof(why));
	etcd_search_start(c->e);
	/* A search that ended without a find may begin anew after a pause: not a moment later. */
	int64_t next_ms = c->e->search == NULL ? etcd_search_next_ms(c->e) : 0;
	int64_t at_ms = next_ms > now_ms ? next_ms : now_ms + SEARCH_POLL_MS;
	loop_timer_set(c->e->loop, &c->timer, at_ms < c->deadline_ms ? at_ms : c->deadline_ms,
		on_backoff, c);
}

void etcd_calls_kick(struct etcd3 *e)
{
	for (struct etcd_call *c = e->calls; c != NULL; c = c->next) {
		if (!c->waits)
			continue;
		c->waits = false;
		loop_timer_set(e->loop, &c->timer, clock_boot_ms(), on_backoff, c);
	}
}

static void attempt(struct etcd_call *c)
{
	struct etcd3 *e = c->e;
	int64_t now_ms = clock_boot_ms(), left_ms = c->deadline_ms - now_ms;
	if (left_ms <= 0) {
		finish(c, ETCD_ANSWER_UNKNOWN, NULL,
			c->last_error[0] != '\0' ? c->last_error : "no time left");
		return;
	}
	if (e->endpoint_count == 0) {
		wait_for_endpoint(c, now_ms);
		return;
	}
	if (e->username[0] != '\0' && e->token[0] == '\0' && !e->auth_off && !c->is_auth &&
		e->api[0] != '\0' && now_ms - e->auth_failed_ms > 1000 &&
		c->auth_tries < AUTH_TRIES) {
		c->auth_tries++;
		wait_for_auth(c);
		start_auth(e, c->deadline_ms);
		return;
	}
	c->is_version = e->api[0] == '\0';
	char url[LIMIT_URL + 64], auth[ETCD_TOKEN_MAX + 24];
	const char *endpoint = e->endpoints[c->endpoint % e->endpoint_count];
	if (!str_format(url, sizeof(url), "%s%s%s", endpoint, c->is_version ? "/version" : e->api,
		    c->is_version ? "" : c->path)) {
		finish(c, ETCD_ANSWER_DENIED, NULL, "URL is too long");
		return;
	}
	struct http_request req = { .method = c->is_version ? "GET" : "POST",
		.url = url,
		.body = c->is_version ? NULL : c->body,
		.body_len = c->is_version ? 0 : strlen(c->body),
		.deadline_ms = now_ms + attempt_ms(c, left_ms),
		.fresh = c->fresh };
	etcd_http_request(e, &req);
	if (e->token[0] != '\0' && !c->is_auth &&
		str_format(auth, sizeof(auth), "authorization: %s", e->token))
		req.headers[0] = auth;
	c->sent_at_ms = now_ms;
	c->http = http_send(e->http, &req, on_reply, NULL, c);
}

void etcd_call(struct etcd3 *e, const char *path, json_t *take_body, int64_t deadline_ms,
	int endpoint, etcd_done_fn fn, void *arg)
{
	struct etcd_call *c = new_call(e, path, deadline_ms, fn, arg);
	c->body = json_compact(take_body);
	INVARIANT(c->body != NULL);
	json_decref(take_body);
	if (endpoint != ETCD_CURRENT && e->endpoint_count > 0) {
		c->endpoint = (unsigned)endpoint % e->endpoint_count;
		c->fresh = true;
	}
	loop_timer_set(e->loop, &c->timer, clock_boot_ms(), on_backoff, c);
}
