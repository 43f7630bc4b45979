/* Questions to the other members over REST: positions for the race (ha 3.2), the failsafe round
 * (ha 9.4), the name check at start. In parallel, 2 s each; bodies count, status codes do not (rest
 * 13). Worker process. */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/decode.h"
#include "common/ext/json.h"
#include "worker/worker.h"

#define PEER_MS 2000

struct question {
	struct worker *w;
	struct peer_round *round;
	uint32_t serial;
	unsigned index;
	bool retried;
	char name[LIMIT_NAME];
	char url[LIMIT_URL];
	char *body;
};

/* Client settings for calls between members (rest 13): certificate chain only with a client
 * certificate. */
void peers_request(struct worker *w, struct http_request *req)
{
	const json_t *tree = config_tree(w);
	const char *cert = json_path_str(tree, "ctl.certfile"),
		   *ca = json_path_str(tree, "ctl.cacert");
	if (ca == NULL)
		ca = json_path_str(tree, "restapi.cafile");
	req->tls = (struct http_tls){ .cert = cert,
		.key = json_path_str(tree, "ctl.keyfile"),
		.key_password = json_path_str(tree, "ctl.keyfile_password"),
		.cacert = cert != NULL ? ca : NULL,
		.verify = cert != NULL ? HTTP_VERIFY_CHAIN : HTTP_VERIFY_NONE };
	req->user = json_path_str(tree, "ctl.authentication.username");
	req->password = json_path_str(tree, "ctl.authentication.password");
	if (req->user == NULL) {
		req->user = json_path_str(tree, "restapi.authentication.username");
		req->password = json_path_str(tree, "restapi.authentication.password");
	}
	req->deadline_ms = clock_boot_ms() + PEER_MS;
	req->connect_ms = PEER_MS;
}

static void rules_answered(struct worker *w, void *arg)
{
	(void)arg;
	if (w->mem.awaiting == AWAIT_FAILSAFE && w->round.failsafe) {
		turn_result(w, HA_OUT_OK, 0);
		w->turn.result.failsafe_ok = w->round.failsafe_ok;
	} else if (w->mem.awaiting == AWAIT_PEERS && !w->round.failsafe) {
		turn_result(w, HA_OUT_OK, 0);
	}
}

static void round_done(struct worker *w, struct peer_round *r)
{
	r->running = false;
	r->done(w, r->arg);
}

static bool still_asked(const struct question *q)
{
	return q->round->running && q->serial == q->round->serial;
}

static void answered(struct question *q)
{
	struct worker *w = q->w;
	struct peer_round *r = q->round;
	bool counts = still_asked(q);
	free(q->body);
	free(q);
	if (!counts)
		return;
	r->due--;
	if (r->due == 0 || (r->heard != NULL && r->heard(w, r->arg)))
		round_done(w, r);
}

static void read_peer(struct ha_peer *p, const json_t *doc)
{
	const json_t *x = json_object_get(doc, "xlog");
	if (x == NULL)
		x = json_object_get(doc, "wal");
	if (!json_is_object(x))
		return; /* counts as not reachable */
	const char *role = json_path_str(doc, "role");
	json_int_t location = json_integer_value(json_object_get(x, "location"));
	json_int_t received = json_integer_value(json_object_get(x, "received_location"));
	json_int_t replayed = json_integer_value(json_object_get(x, "replayed_location"));
	p->answered = true;
	p->in_recovery = location == 0 && !str_eq(role, "primary") && !str_eq(role, "master");
	p->position = (uint64_t)(location > 0	       ? location
				 : received > replayed ? received
						       : replayed);
	p->timeline = json_integer_value(json_object_get(doc, "timeline"));
	struct tags tags;
	const json_t *t = json_object_get(doc, "tags");
	decode_tags(json_is_object(t) ? t : NULL, &tags);
	p->nofailover = tags.nofailover;
	p->failover_priority = tags.failover_priority;
	p->watchdog_failed = json_truthy(json_object_get(doc, "watchdog_failed"));
}

static void on_position(const struct http_reply *r, void *arg)
{
	struct question *q = arg;
	if (still_asked(q)) {
		struct err err = ERR_INIT;
		struct ha_peer *p = &q->round->peers[q->index];
		json_auto_t *doc = r->status != 0 ? json_read(r->body, r->len, &err) : NULL;
		if (json_is_object(doc))
			read_peer(p, doc);
		if (!p->answered && q->round == &q->w->round)
			log_warning("member %s does not answer %s: %s", p->name, q->url,
				r->status != 0 ? "no position in the answer" : r->text);
	}
	answered(q);
}

static const char *api_url_of(const struct worker *w, const char *name)
{
	const struct member *m = cluster_member_peek(w->c, name);
	if (m != NULL && m->api_url[0] != '\0')
		return m->api_url;
	for (unsigned i = 0; i < w->c->failsafe_count; i++) {
		if (strcmp(w->c->failsafe[i].name, name) == 0)
			return w->c->failsafe[i].api_url;
	}
	for (unsigned i = 0; i < w->mem.failsafe_sent_count; i++) {
		if (strcmp(w->mem.failsafe_sent[i].name, name) == 0)
			return w->mem.failsafe_sent[i].api_url;
	}
	for (unsigned i = 0; i < w->mem.old_member_count; i++) {
		if (strcmp(w->mem.old_members[i].name, name) == 0)
			return w->mem.old_members[i].api_url;
	}
	return "";
}

static struct question *new_question(struct worker *w, struct peer_round *r, unsigned index,
	const char name[LIMIT_NAME], const char *url)
{
	struct question *q = calloc(1, sizeof(*q));
	if (q == NULL || !str_copy(q->url, sizeof(q->url), url)) {
		free(q);
		return NULL;
	}
	q->w = w;
	q->round = r;
	q->serial = r->serial;
	q->index = index;
	memcpy(q->name, name, sizeof(q->name));
	return q;
}

static void on_nobody(struct loop *l, void *arg)
{
	(void)l;
	struct worker *w = arg;
	if (w->round.running && w->round.due == 0)
		round_done(w, &w->round);
	if (w->aside.running && w->aside.due == 0)
		round_done(w, &w->aside);
}

/* Answers to what was asked before do not count any more. */
static void begin(struct peer_round *r, bool failsafe)
{
	r->serial++;
	r->running = true;
	r->failsafe = failsafe;
	r->failsafe_ok = true;
	r->count = r->due = 0;
	r->asked_at_ms = clock_boot_ms();
}

static void end_if_nobody(struct worker *w, struct peer_round *r)
{
	if (r->due == 0)
		loop_timer_set(&w->loop, &r->nobody, clock_boot_ms(), on_nobody, w);
}

static void ask_positions(
	struct worker *w, struct peer_round *r, const char (*names)[LIMIT_NAME], unsigned count)
{
	begin(r, false);
	for (unsigned i = 0; i < count && i < LIMIT_PEERS; i++) {
		struct ha_peer *p = &r->peers[r->count];
		const char *url = api_url_of(w, names[i]);
		memset(p, 0, sizeof(*p));
		memcpy(p->name, names[i], sizeof(p->name));
		struct question *q =
			url[0] != '\0' ? new_question(w, r, r->count, names[i], url) : NULL;
		r->count++;
		if (q == NULL)
			continue;
		struct http_request req = { .method = "GET", .url = q->url };
		peers_request(w, &req);
		r->due++;
		http_send(w->http, &req, on_position, NULL, q);
	}
	end_if_nobody(w, r);
}

void peers_poll(struct worker *w, const char (*names)[LIMIT_NAME], unsigned count)
{
	w->round.done = rules_answered;
	ask_positions(w, &w->round, names, count);
}

bool peers_ask_aside(struct worker *w, const char (*names)[LIMIT_NAME], unsigned count,
	void (*done)(struct worker *, void *), bool (*heard)(struct worker *, void *), void *arg)
{
	if (w->aside.running)
		return false;
	w->aside.done = done;
	w->aside.heard = heard;
	w->aside.arg = arg;
	ask_positions(w, &w->aside, names, count);
	return true;
}

static void send_failsafe(struct question *q);

static void on_failsafe(const struct http_reply *r, void *arg)
{
	struct question *q = arg;
	struct worker *w = q->w;
	bool ok = r->status == 200 && str_eq(r->body, "Accepted");
	if (!ok && r->status == 0 && !q->retried && still_asked(q)) {
		q->retried = true;
		send_failsafe(q);
		return;
	}
	char lsn[24];
	int64_t position;
	if (ok && http_header(r, "lsn", lsn, sizeof(lsn)) && str_to_i64(lsn, &position))
		slots_said_member(w, q->name, position);
	if (still_asked(q) && !ok) {
		w->round.failsafe_ok = false;
		log_warning("failsafe: %s refuses or does not answer: status=%ld %s", q->url,
			r->status, r->status != 0 ? r->body : r->text);
	}
	answered(q);
}

static void send_failsafe(struct question *q)
{
	struct http_request req = {
		.method = "POST", .url = q->url, .body = q->body, .body_len = strlen(q->body)
	};
	peers_request(q->w, &req);
	http_send(q->w->http, &req, on_failsafe, NULL, q);
}

/* ".../patroni" to ".../failsafe" */
static bool endpoint_url(const char *api_url, const char *path, char *out, size_t len)
{
	const char *p = strstr(api_url, "://");
	const char *slash = p != NULL ? strchr(p + 3, '/') : NULL;
	size_t n = slash != NULL ? (size_t)(slash - api_url) : strlen(api_url);
	return str_format(out, len, "%.*s/%s", (int)n, api_url, path);
}

static void ask_failsafe(
	struct worker *w, const char name[LIMIT_NAME], const char *api_url, const json_t *body)
{
	char url[LIMIT_URL];
	struct question *q = endpoint_url(api_url, "failsafe", url, sizeof(url))
				     ? new_question(w, &w->round, 0, name, url)
				     : NULL;
	if (q == NULL || (q->body = json_compact(body)) == NULL) {
		w->round.failsafe_ok = false;
		free(q);
		return;
	}
	w->round.due++;
	send_failsafe(q);
}

void peers_failsafe_round(struct worker *w, const char (*more)[LIMIT_NAME], unsigned more_count)
{
	w->round.done = rules_answered;
	begin(&w->round, true);
	json_auto_t *body = json_pack("{s:s,s:s,s:s,s:I}", "name", w->welcome.name, "conn_url",
		w->pg.conn_url, "api_url", w->api_url, "ttl", (json_int_t)(w->set.ttl_ms / 1000));
	json_t *slots = publish_slots(w);
	if (slots != NULL && json_object_set_new(body, "slots", slots) < 0)
		w->round.failsafe_ok = false;
	bool me = false;
	for (unsigned i = 0; i < w->c->failsafe_count; i++) {
		if (strcmp(w->c->failsafe[i].name, w->welcome.name) == 0)
			me = true;
		else
			ask_failsafe(w, w->c->failsafe[i].name, w->c->failsafe[i].api_url, body);
	}
	for (unsigned i = 0; i < more_count; i++)
		ask_failsafe(w, more[i], api_url_of(w, more[i]), body);
	w->round.failsafe_ok = w->round.failsafe_ok && me;
	end_if_nobody(w, &w->round);
}

/* ---- one name, one node
 * --------------------------------------------------------------------------- */

static void on_liveness(const struct http_reply *r, void *arg)
{
	struct worker *w = arg;
	if (r->status != 0) {
		log_fatal(
			"Can't start; there is already a node named '%s' running", w->welcome.name);
		struct msg_shutdown_done m = { .leave_postgres = 1, .exit_code = 1 };
		w->shutdown_answered = true;
		link_send(w, MSG_SHUTDOWN_DONE, 0, &m, NULL, 0, NULL, 0);
		return;
	}
	w->name_checked = true;
	config_send_api(w);
	turn_start(w);
}

void peers_check_name(struct worker *w)
{
	const struct member *m = cluster_member_peek(w->c, w->welcome.name);
	char url[LIMIT_URL];
	if (w->name_check_running || w->name_checked)
		return;
	w->name_check_running = true;
	/* A later incarnation of the worker, or a supervisor that took over: it is us. */
	if (m == NULL || m->api_url[0] == '\0' || w->welcome.incarnation > 1 ||
		w->welcome.in_handover || !endpoint_url(m->api_url, "liveness", url, sizeof(url))) {
		w->name_checked = true;
		config_send_api(w);
		turn_start(w);
		return;
	}
	struct http_request req = { .method = "GET", .url = url };
	peers_request(w, &req);
	req.deadline_ms = clock_boot_ms() + 3000;
	http_send(w->http, &req, on_liveness, NULL, w);
}
