/* What api asked for (rest 6 to 10): fresh facts, restart, reload, reinitialise, failsafe; the rest
 * stands in requests_config.c and requests_handover.c. api has parsed the bodies; what needs the
 * store, other members or the state machine is here. Worker process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/bigtail.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/decode.h"
#include "common/ext/json.h"
#include "worker/failsafe_word.h"
#include "worker/worker.h"

void requests_answer(
	struct worker *w, uint64_t id, unsigned status, enum api_content content, const char *body)
{
	struct msg_api_answer m = { .status = status, .content = content, .lsn = -1 };
	struct err err = ERR_INIT;
	size_t len = strlen(body);
	AUTO_FD fd = -1;
	if (w->api_fd < 0)
		return;
	if (len > BIGTAIL_FROM && bigtail_make(body, len, &fd, &err) != ERR_OK) {
		/* Whoever waits hears at least how it ended. */
		log_error("answer to api: %s", err.text);
		body = "";
		len = 0;
	}
	if (ipc_send(w->api_fd, MSG_API_ANSWER, id, &m, fd >= 0 ? NULL : body, fd >= 0 ? 0 : len,
		    &fd, fd >= 0 ? 1 : 0, &err) != ERR_OK)
		log_warning("answer to api: %s", err.text);
}

/* ---- facts
 * ------------------------------------------------------------------------------------------ */

static void time_text(int64_t us, char *out, size_t len)
{
	clock_iso8601(us, out, len);
	char *t = strchr(out, 'T');
	if (t != NULL)
		*t = ' ';
}

/* What holds from one probe to the next, unlike a position: an answer that must not wait for
 * PostgreSQL has it from the page. */
void requests_lasting_facts(const struct worker *w, json_t *out)
{
	const struct pg_sql *f = &w->probe.facts;
	char start[40];
	if (!f->valid || f->start_time_us == 0)
		return;
	time_text(f->start_time_us, start, sizeof(start));
	json_object_set_new(out, "postmaster_start_time", json_string(start));
	json_object_set_new(out, "server_version", json_integer(f->server_version));
	if (f->timeline != 0)
		json_object_set_new(out, "timeline", json_integer((json_int_t)f->timeline));
}

static json_t *facts_json(const struct worker *w)
{
	const struct pg_sql *f = &w->probe.facts;
	char start[40];
	time_text(f->start_time_us, start, sizeof(start));
	uint64_t received = f->written_lsn != 0	  ? f->written_lsn
			    : f->receive_lsn != 0 ? f->receive_lsn
						  : f->replay_lsn;
	json_t *x = f->in_recovery ? json_pack("{s:I,s:I,s:n,s:b}", "received_location",
					     (json_int_t)received, "replayed_location",
					     (json_int_t)f->replay_lsn, "replayed_timestamp",
					     "paused", f->replay_paused)
				   : json_pack("{s:I}", "location", (json_int_t)f->flush_lsn);
	/* Not known (recovery without a receiver that said it): null, never 0. */
	json_t *timeline = f->timeline != 0 ? json_integer((json_int_t)f->timeline) : json_null();
	json_t *o = json_pack("{s:b,s:s,s:i,s:o,s:o}", "in_recovery", f->in_recovery,
		"postmaster_start_time", start, "server_version", f->server_version, "xlog", x,
		"timeline", timeline);
	if (f->replay_time_us != 0 && f->in_recovery) {
		time_text(f->replay_time_us, start, sizeof(start));
		json_object_set_new(x, "replayed_timestamp", json_string(start));
	}
	if (f->in_recovery && f->receiver_streaming)
		json_object_set_new(o, "replication_state", json_string("streaming"));
	else if (f->in_recovery && f->has_restore_command)
		json_object_set_new(o, "replication_state", json_string("in archive recovery"));
	if (f->latest_end_lsn != 0)
		json_object_set_new(
			o, "latest_end_lsn", json_integer((json_int_t)f->latest_end_lsn));
	if (f->replication_json != NULL) {
		struct err err;
		json_t *r = json_read(f->replication_json, strlen(f->replication_json), &err);
		if (json_array_size(r) > 0)
			json_object_set(o, "replication", r);
		json_decref(r);
	}
	return o;
}

void requests_facts(struct worker *w)
{
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		struct waiter *x = &w->waiters[i];
		if (x->id == 0 || x->kind != API_PG_FACTS)
			continue;
		/* The statement must have been sent after the request came. */
		if (w->probe.facts.valid && w->probe.facts.asked_at_ms < x->since_ms)
			continue;
		uint64_t id = x->id;
		x->id = 0;
		if (w->probe.facts.valid) {
			json_auto_t *o = facts_json(w);
			AUTO_FREE char *text = json_python(o);
			requests_answer(w, id, text != NULL ? 200 : 503, API_JSON,
				text != NULL ? text : "");
		} else {
			requests_answer(w, id, 503, API_TEXT, "");
		}
	}
}

/* ---- restart, reinitialise
 * -------------------------------------------------------------------------- */

/* "16.2" is 160002, "9.6.3" is 90603. */
static int version_number(const char *text)
{
	int a = 0, b = 0, c = 0;
	int n = sscanf(text, "%4d.%2d.%2d", &a, &b, &c);
	return n == 3 ? a * 10000 + b * 100 + c : a >= 10 ? a * 10000 + b : a * 10000 + b * 100;
}

static bool matches(const struct worker *w, const char *role, const char *version, bool pending)
{
	enum pg_role r = w->pg.role == PG_ROLE_PROMOTED ? PG_ROLE_PRIMARY : w->pg.role;
	if (role != NULL && role[0] != '\0' && strcmp(role, pg_role_word(r)) != 0)
		return false;
	if (version != NULL && version[0] != '\0' &&
		w->probe.facts.server_version >= version_number(version))
		return false;
	return !pending || w->pg.pending_restart != NULL;
}

bool requests_schedule_fits(const struct worker *w)
{
	const struct scheduled_restart *s = &w->scheduled;
	return matches(w, s->role, s->postgres_version, s->restart_pending);
}

static void restart(struct worker *w, uint64_t id, const json_t *body)
{
	const char *role = json_path_str(body, "role"),
		   *version = json_path_str(body, "postgres_version");
	const char *schedule = json_path_str(body, "schedule");
	bool pending = json_object_get(body, "restart_pending") != NULL, no_zone = false;
	json_int_t timeout = json_integer_value(json_object_get(body, "timeout"));
	char text[120];
	/* Any number of seconds is allowed; one that its milliseconds cannot hold means no limit
	 * that anybody would see. */
	if (timeout < 0 || timeout > INT32_MAX)
		timeout = INT32_MAX;
	if (schedule != NULL) {
		struct scheduled_restart *s = &w->scheduled;
		if (s->set) {
			requests_answer(
				w, id, 409, API_TEXT, "Another restart is already scheduled");
			return;
		}
		memset(s, 0, sizeof(*s));
		if (!decode_time(schedule, &s->at_wall_us, &no_zone) || no_zone ||
			!str_copy(s->schedule, sizeof(s->schedule), schedule) ||
			!str_copy(s->role, sizeof(s->role), role != NULL ? role : "") ||
			!str_copy(s->postgres_version, sizeof(s->postgres_version),
				version != NULL ? version : "")) {
			requests_answer(w, id, 400, API_TEXT, "schedule cannot be used");
			return;
		}
		s->timeout_ms = timeout * 1000;
		s->restart_pending = pending;
		s->postmaster_start_us = w->probe.facts.start_time_us;
		s->set = true;
		requests_answer(w, id, 202, API_TEXT, "Restart scheduled");
		publish_member(w);
		publish_page(w);
		turn_want(w, "restart scheduled");
		return;
	}
	if (!matches(w, role, version, pending)) {
		requests_answer(w, id, 503, API_TEXT, "restart conditions are not satisfied");
		return;
	}
	if (w->task != TASK_NONE) {
		snprintf(text, sizeof(text), "%s already in progress", ha_task_word(w->task));
		requests_answer(w, id, 503, API_TEXT, text);
		return;
	}
	struct waiter *x = requests_wait(w, id, API_RESTART);
	if (x == NULL)
		return;
	w->request.restart = true;
	w->request.restart_timeout_ms = timeout * 1000;
	turn_want(w, "restart");
}

void requests_restart_done(struct worker *w, bool ok, const char *text)
{
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		struct waiter *x = &w->waiters[i];
		if (x->id == 0 || x->kind != API_RESTART)
			continue;
		uint64_t id = x->id;
		x->id = 0;
		requests_answer(
			w, id, ok ? 200 : 503, API_TEXT, ok ? "restarted successfully" : text);
	}
}

/* A plan carries the task that was asked for: the request is done with. */
void requests_taken(struct worker *w, enum ha_task task)
{
	if (task == TASK_RESTART)
		w->request.restart = false;
	if (task == TASK_REINIT) {
		w->request.reinit = false;
		for (unsigned i = 0; i < WAITERS_MAX; i++) {
			struct waiter *x = &w->waiters[i];
			if (x->id != 0 && x->kind == API_REINITIALIZE) {
				requests_answer(w, x->id, 200, API_TEXT, "reinitialize started");
				x->id = 0;
			}
		}
	}
}

void requests_refused(struct worker *w, enum ha_task task, const char *why)
{
	enum api_kind kind = task == TASK_REINIT ? API_REINITIALIZE : API_RESTART;
	if (task == TASK_REINIT)
		w->request.reinit = false;
	else
		w->request.restart = false;
	for (unsigned i = 0; i < WAITERS_MAX; i++) {
		struct waiter *x = &w->waiters[i];
		if (x->id == 0 || x->kind != kind)
			continue;
		uint64_t id = x->id;
		x->id = 0;
		requests_answer(w, id, 503, API_TEXT, why);
	}
}

static void reinitialize(struct worker *w, uint64_t id, const json_t *body)
{
	bool force = json_truthy(json_object_get(body, "force"));
	char text[120];
	if (cluster_unlocked(w->c)) {
		requests_answer(
			w, id, 503, API_TEXT, "Cluster has no leader, can not reinitialize");
	} else if (strcmp(w->c->leader, w->welcome.name) == 0) {
		requests_answer(w, id, 503, API_TEXT, "I am the leader, can not reinitialize");
	} else if (w->task != TASK_NONE && !force) {
		snprintf(text, sizeof(text), "%s already in progress", ha_task_word(w->task));
		requests_answer(w, id, 503, API_TEXT, text);
	} else if (requests_wait(w, id, API_REINITIALIZE) != NULL) {
		w->request.reinit = true;
		w->request.reinit_force = force;
		w->request.reinit_from_leader = json_truthy(json_object_get(body, "from_leader"));
		turn_want(w, "reinitialize");
	}
}

/* ---- failsafe
 * --------------------------------------------------------------------------------------- */

static void failsafe(struct worker *w, uint64_t id, const json_t *body)
{
	struct msg_api_answer m = { .status = 200, .content = API_TEXT, .lsn = -1 };
	struct failsafe_word word;
	const char *text = "Accepted";
	struct err err = ERR_INIT;
	/* On the way to be the primary the same holds: no word is given any more (S18). */
	bool leads = (w->pg.state == PG_STATE_RUNNING &&
			     (w->pg.role == PG_ROLE_PRIMARY || w->pg.role == PG_ROLE_PROMOTED)) ||
		     w->task == TASK_PROMOTE || keeper_lease_until_ms(&w->keeper) > clock_boot_ms();
	if (!w->set.failsafe_mode) {
		requests_answer(w, id, 502, API_PAGE, "failsafe mode is off");
		return;
	}
	if (leads) {
		requests_answer(w, id, 500, API_TEXT, "Running as a leader");
		return;
	}
	if (failsafe_word_read(body, w->set.ttl_ms, &word, &err) != ERR_OK) {
		requests_answer(w, id, 400, API_PAGE, err.text);
		return;
	}
	w->failsafe.last_ms = clock_boot_ms();
	w->failsafe.ttl_ms = word.ttl_ms;
	memcpy(w->failsafe.name, word.name, sizeof(w->failsafe.name));
	memcpy(w->failsafe.conn_url, word.conn_url, sizeof(w->failsafe.conn_url));
	memcpy(w->failsafe.api_url, word.api_url, sizeof(w->failsafe.api_url));
	json_decref(w->failsafe.slots);
	w->failsafe.slots = json_incref(word.slots);
	slots_said_leader(w, w->failsafe.slots);
	if (w->mem.last_lsn != 0)
		m.lsn = (int64_t)w->mem.last_lsn;
	if (ipc_send(w->api_fd, MSG_API_ANSWER, id, &m, text, strlen(text), NULL, 0, &err) !=
		ERR_OK)
		log_warning("answer to api: %s", err.text);
	publish_page(w);
}

void requests_message(struct worker *w, const struct ipc_msg *m)
{
	struct err err = ERR_INIT;
	if (m->type == MSG_API_STATE) {
		const struct msg_api_state *s = m->payload;
		if (ipc_str_ok(s->text, sizeof(s->text)) && s->text[0] != '\0')
			log_line(s->listening ? LOG_INFO : LOG_ERROR, "api: %s", s->text);
		if (s->listening && !w->ready_sent) {
			w->ready_sent = true;
			link_notify(w, "READY=1");
		}
		return;
	}
	if (m->type != MSG_API_REQ || m->id == 0) /* 0 is a waiter's free slot */
		return;
	const struct msg_api_req *q = m->payload;
	json_auto_t *body = m->tail_len > 0 ? json_read(m->tail, m->tail_len, &err) : json_object();
	if (q->kind == API_PG_FACTS) {
		bool runs = w->probe.generation != 0 && w->probe.conn.params.count > 0;
		struct waiter *x = runs ? requests_wait(w, m->id, API_PG_FACTS) : NULL;
		if (!runs) {
			requests_answer(w, m->id, 503, API_TEXT, "");
		} else if (x != NULL) {
			x->until_ms = x->since_ms + 3000;
			requests_arm(w);
			probe_ask(&w->probe);
		}
		return;
	}
	if (!json_is_object(body)) {
		requests_answer(w, m->id, 400, API_PAGE, "body is not a JSON object");
		return;
	}
	/* A word for failsafe mode needs no store: it is asked for while there is none (X13). */
	if (!w->c_fresh && q->kind != API_FAILSAFE && q->kind != API_RELOAD &&
		q->kind != API_STATUS_LOCAL && q->kind != API_UPGRADE) {
		requests_answer(w, m->id, 503, API_TEXT, "the store was not read yet");
		return;
	}
	switch (q->kind) {
	case API_CONFIG_PATCH: requests_change_config(w, m->id, body, false); break;
	case API_CONFIG_PUT: requests_change_config(w, m->id, body, true); break;
	case API_SWITCHOVER:
	case API_FAILOVER: requests_handover(w, m->id, (enum api_kind)q->kind, body); break;
	case API_SWITCHOVER_DELETE: requests_handover_delete(w, m->id); break;
	case API_RESTART: restart(w, m->id, body); break;
	case API_RESTART_DELETE:
		requests_answer(w, m->id, w->scheduled.set ? 200 : 404, API_TEXT,
			w->scheduled.set ? "scheduled restart deleted"
					 : "no restarts are scheduled");
		memset(&w->scheduled, 0, sizeof(w->scheduled));
		publish_member(w);
		publish_page(w);
		break;
	case API_RELOAD:
		config_reload(w);
		requests_answer(w, m->id, 202, API_TEXT, "reload scheduled");
		break;
	case API_REINITIALIZE: reinitialize(w, m->id, body); break;
	case API_FAILSAFE: failsafe(w, m->id, body); break;
	case API_SIGTERM: requests_answer(w, m->id, 202, API_TEXT, "shutdown scheduled"); break;
	case API_CITUS:
		/* The reference says OK to what it does not act on; who asks for held traffic must
		   not believe that it is. */
		requests_answer(w, m->id, 501, API_TEXT,
			"this member is no coordinator: Citus and other MPP extensions are not "
			"built yet");
		break;
	case API_STATUS_LOCAL: local_status(w, m->id); break;
	case API_UPGRADE: local_upgrade(w, m->id); break;
	default: requests_answer(w, m->id, 501, API_TEXT, "not built yet"); break;
	}
}
