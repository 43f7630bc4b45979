/* What others may see of this member: the shared page for api, the member key, status, history and
 * failsafe keys (dcs 1.3). Worker process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/dynamic.h"
#include "common/core/clock.h"
#include "common/core/killtree.h"
#include "common/core/log.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"
#include "common/dcs/decode.h"
#include "common/ext/dns.h"
#include "common/ext/http.h"
#include "common/ext/json.h"
#include "worker/worker.h"

enum err_code publish_start(struct worker *w, struct err *err)
{
	enum err_code rc =
		shm_create(&w->page, "pgregent-worker", DOC_WORKER_COUNT, LIMIT_PAGE_DOC, err);
	if (rc != ERR_OK)
		return rc;
	struct msg_page m = { .role = ROLE_WORKER, .incarnation = w->welcome.incarnation };
	link_send(w, MSG_PAGE, 0, &m, NULL, 0, &w->page.fd, 1);
	return ERR_OK;
}

static void set(struct worker *w, enum shm_worker_scalar index, int64_t value)
{
	shm_scalar_set(&w->page, index, value);
}

void publish_lease(struct worker *w)
{
	int64_t now_ms = clock_boot_ms();
	enum ha_lock lock = keeper_lock(&w->keeper, now_ms);
	bool mine = lock == LOCK_HELD || lock == LOCK_UNCERTAIN;
	set(w, WRK_LEASE_UNTIL_MS, mine ? keeper_lease_until_ms(&w->keeper) : 0);
	set(w, WRK_LOCK_HELD, mine);
	set(w, WRK_AT_MS, now_ms);
}

static void put_doc(struct worker *w, enum shm_worker_doc doc, json_t *take)
{
	struct err err = ERR_INIT;
	AUTO_FREE char *text = take != NULL ? json_python(take) : NULL;
	json_decref(take);
	if (shm_doc_write(&w->page, doc, text != NULL ? text : "", text != NULL ? strlen(text) : 0,
		    clock_boot_ms(), &err) != ERR_OK)
		log_error("published document %d: %s", doc, err.text);
}

static void put_text(struct worker *w, enum shm_worker_doc doc, const char *text)
{
	struct err err = ERR_INIT;
	if (shm_doc_write(&w->page, doc, text != NULL ? text : "", text != NULL ? strlen(text) : 0,
		    clock_boot_ms(), &err) != ERR_OK)
		log_error("published document %d: %s", doc, err.text);
}

static json_t *cluster_doc(const struct worker *w)
{
	const struct cluster *c = w->c;
	json_t *o = json_object(), *members = json_array();
	struct err err;
	json_object_set_new(
		o, "leader", cluster_unlocked(c) ? json_null() : json_string(c->leader));
	if (c->sync_leader[0] != '\0') {
		json_t *voters = json_array();
		for (unsigned i = 0; i < c->sync_voter_count; i++)
			json_array_append_new(voters, json_string(c->sync_voters[i]));
		json_object_set_new(o, "sync",
			json_pack("{s:s,s:o,s:i}", "leader", c->sync_leader, "voters", voters,
				"quorum", c->sync_quorum));
	} else {
		json_object_set_new(o, "sync", json_null());
	}
	if (c->failover_present) {
		AUTO_FREE char *text = encode_failover(c->failover_leader, c->failover_candidate,
			c->failover_scheduled && !c->failover_schedule_bad ? c->failover_at_wall_us
									   : 0);
		json_object_set_new(o, "failover",
			text != NULL ? json_read(text, strlen(text), &err) : json_null());
	} else {
		json_object_set_new(o, "failover", json_null());
	}
	json_object_set_new(o, "last_lsn", json_integer((json_int_t)c->last_lsn));
	for (unsigned i = 0; i < c->member_count; i++) {
		const struct member *m = &c->members[i];
		json_t *data = m->json != NULL ? json_read(m->json, strlen(m->json), &err) : NULL;
		json_array_append_new(members, json_pack("{s:s,s:o}", "name", m->name, "data",
						       data != NULL ? data : json_object()));
	}
	json_object_set_new(o, "members", members);
	return o;
}

/* A node at rest shows the same snapshot for hours. How fresh it is, scalars tell. */
static void put_snapshot(struct worker *w)
{
	if (w->c_published == w->c_serial)
		return;
	put_doc(w, DOC_CLUSTER, cluster_doc(w));
	put_text(w, DOC_CONFIG, w->c->config_valid ? w->c->config_json : NULL);
	put_text(w, DOC_HISTORY, w->c->history_valid ? w->c->history_json : NULL);
	put_text(w, DOC_FAILSAFE, w->c->failsafe_present ? w->c->failsafe_json : NULL);
	w->c_published = w->c_serial;
}

/* Effective tags, with what this node says of itself while it must not be picked (ha 3.3 R, 1.14).
 */
json_t *publish_tags(const struct worker *w)
{
	json_t *tags = dynamic_tags(json_object_get(config_tree(w), "tags"));
	if (w->view.set == NULL)
		return tags;
	if (ha_effective_nofailover(&w->view, &w->mem) && !w->set.tags.nofailover)
		json_object_set_new(tags, "nofailover", json_true());
	if (ha_effective_nosync(&w->view, &w->mem) && !w->set.tags.nosync) {
		json_object_set_new(tags, "nosync", json_true());
		json_object_set_new(tags, "sync_priority", json_integer(0));
	}
	return tags;
}

static json_t *scheduled_json(const struct worker *w, bool with_start)
{
	const struct scheduled_restart *s = &w->scheduled;
	json_t *o = json_pack("{s:s}", "schedule", s->schedule);
	if (s->role[0] != '\0')
		json_object_set_new(o, "role", json_string(s->role));
	if (s->postgres_version[0] != '\0')
		json_object_set_new(o, "postgres_version", json_string(s->postgres_version));
	if (s->timeout_ms != 0)
		json_object_set_new(o, "timeout", json_integer(s->timeout_ms / 1000));
	if (s->restart_pending)
		json_object_set_new(o, "restart_pending", json_true());
	if (with_start) {
		char text[40];
		clock_iso8601(s->postmaster_start_us, text, sizeof(text));
		json_object_set_new(o, "postmaster_start_time", json_string(text));
	}
	return o;
}

static json_t *member_doc(const struct worker *w)
{
	json_t *o = json_object(), *tags = publish_tags(w);
	if (json_object_size(tags) > 0)
		json_object_set(o, "tags", tags);
	json_decref(tags);
	json_object_set_new(
		o, "filter_tags", dynamic_tags(json_object_get(config_tree(w), "tags")));
	if (w->system_id[0] != '\0')
		json_object_set_new(o, "database_system_identifier", json_string(w->system_id));
	if (w->pg.pending_restart != NULL)
		json_object_set(o, "pending_restart_reason", w->pg.pending_restart);
	if (w->scheduled.set)
		json_object_set_new(o, "scheduled_restart", scheduled_json(w, false));
	requests_lasting_facts(w, o);
	return o;
}

/* The last good addresses of names, for the next worker: a name server may be silent when it
 * starts. */
static void publish_names(struct worker *w)
{
	const struct dns *d = http_dns(w->http);
	uint64_t generation = dns_known_generation(d);
	struct err err = ERR_INIT;
	if (generation == w->names_generation)
		return;
	AUTO(buf) text = BUF_INIT(LIMIT_PAGE_DOC);
	dns_known_write(d, &text);
	if (text.failed || shm_doc_write(&w->page, DOC_NAMES, buf_str(&text), text.len,
				   clock_boot_ms(), &err) != ERR_OK)
		log_warning(
			"addresses of names are not kept: %s", text.failed ? "too many" : err.text);
	w->names_generation = generation;
}

void publish_take_over(struct worker *w, int fd)
{
	struct shm old = SHM_INIT;
	struct err err = ERR_INIT;
	AUTO(buf) text = BUF_INIT(LIMIT_PAGE_DOC);
	if (shm_map(&old, fd, &err) == ERR_OK) {
		heir_take(w, &old);
		if (shm_doc_read(&old, DOC_NAMES, &text, NULL, NULL, &err) == ERR_OK)
			dns_known_read(http_dns(w->http), buf_str(&text));
	}
	if (err.code != ERR_OK && err.code != ERR_NOTFOUND)
		log_warning("page of the worker before: %s", err.text);
	shm_done(&old);
	if (w->page.region != NULL)
		publish_names(w);
}

/* A supervisor that is frozen does not tell that its postmaster has ended, and the dead-man may
 * have fenced it. The rules wait for the supervisor; what is shown need not. */
static bool ended_unseen(const struct worker *w)
{
	struct killtree_stat st;
	if (!w->sup_silent || w->host.pg.pid <= 1 || w->host.pg.state == PG_PROC_NONE)
		return false;
	if (killtree_stat((pid_t)w->host.pg.pid, &st) != 0)
		return errno == ESRCH;
	return st.state == 'Z' || st.state == 'X';
}

static enum pg_state shown_state(const struct worker *w)
{
	bool up = w->pg.state == PG_STATE_RUNNING || w->pg.state == PG_STATE_STARTING;
	return up && ended_unseen(w) ? PG_STATE_CRASHED : w->pg.state;
}

void publish_page(struct worker *w)
{
	if (w->page.region == NULL)
		return;
	publish_names(w);
	const struct msg_pg_event *e = &w->host.pg;
	bool failing = w->store_failing_ms != 0 &&
		       clock_boot_ms() - w->store_failing_ms >= w->set.retry_timeout_ms;
	set(w, WRK_PID, w->pid);
	set(w, WRK_ROLE, w->pg.role);
	set(w, WRK_STATE, shown_state(w));
	set(w, WRK_PAUSED, w->set.pause);
	set(w, WRK_TTL_MS, w->set.ttl_ms);
	set(w, WRK_LOOP_WAIT_MS, w->set.loop_wait_ms);
	set(w, WRK_NEXT_CYCLE_MS, w->turn.next_run_ms);
	/* A replica at rest reads nothing: its watch says that what it knows is current. */
	if (w->watch_current && w->store_failing_ms == 0)
		w->last_seen_s = clock_wall_us() / 1000000;
	set(w, WRK_DCS_LAST_SEEN_S, w->last_seen_s);
	set(w, WRK_CLUSTER_READ_MS,
		!w->c_fresh || failing ? 0
		: w->watch_current     ? clock_boot_ms()
				       : w->store_ok_ms);
	set(w, WRK_POSTMASTER_ALIVE,
		(e->state == PG_PROC_RUNNING || e->state == PG_PROC_STOPPING) && !ended_unseen(w));
	int64_t failsafe_ms = w->failsafe.last_ms != 0 ? w->failsafe.last_ms + w->set.ttl_ms : 0;
	if (w->mem.failsafe_active_until_ms > failsafe_ms)
		failsafe_ms = w->mem.failsafe_active_until_ms;
	set(w, WRK_FAILSAFE_UNTIL_MS, failsafe_ms);
	set(w, WRK_FAILSAFE_MODE, w->set.failsafe_mode);
	set(w, WRK_SYNC_MODE, w->set.sync_mode);
	set(w, WRK_STANDBY_CLUSTER, w->set.standby_cluster);
	set(w, WRK_WATCHDOG_FAILED, execute_watchdog_failed(w));
	set(w, WRK_PENDING_RESTART, w->pg.pending_restart != NULL);
	set(w, WRK_MAX_LAG_ON_FAILOVER, w->set.maximum_lag_on_failover);
	set(w, WRK_PRIMARY_START_TIMEOUT_MS, w->set.primary_start_timeout_ms);
	set(w, WRK_LAST_LSN, (int64_t)w->c->last_lsn);
	set(w, WRK_LOGS_LOST, (int64_t)log_lost());
	publish_lease(w);
	if (w->c_fresh)
		put_snapshot(w);
	else if (!heir_stands(w))
		return;
	put_doc(w, DOC_MEMBER, member_doc(w));
	set(w, WRK_COMPLETE, 1);
}

/* ---- member key
 * ----------------------------------------------------------------------------------- */

static void add_positions(const struct worker *w, json_t *o)
{
	const struct pg_sql *f = &w->probe.facts;
	bool busy = w->task != TASK_NONE && w->task != TASK_PROMOTE;
	bool shown = w->pg.state == PG_STATE_RUNNING || w->pg.state == PG_STATE_RESTARTING ||
		     w->pg.state == PG_STATE_STARTING;
	if (busy || !shown || !f->valid)
		return;
	json_object_set_new(o, "xlog_location", json_integer((json_int_t)pg_sql_position(f)));
	if (f->in_recovery) {
		uint64_t received =
			f->written_lsn > f->receive_lsn ? f->written_lsn : f->receive_lsn;
		if (f->replay_lsn != 0)
			json_object_set_new(
				o, "replay_lsn", json_integer((json_int_t)f->replay_lsn));
		if (received != 0)
			json_object_set_new(o, "receive_lsn", json_integer((json_int_t)received));
		if (f->receiver_streaming)
			json_object_set_new(o, "replication_state", json_string("streaming"));
		else if (f->has_restore_command)
			json_object_set_new(
				o, "replication_state", json_string("in archive recovery"));
	}
	if (f->timeline != 0)
		json_object_set_new(o, "timeline", json_integer(f->timeline));
}

void publish_member(struct worker *w)
{
	if (!w->c_fresh || w->dcs == NULL || !w->name_checked)
		return;
	json_auto_t *o = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "conn_url", w->pg.conn_url,
		"api_url", w->api_url, "state", pg_state_word(shown_state(w)), "role",
		pg_role_word(w->pg.role), "version", "4.1.4", "pgregent", PGREGENT_VERSION);
	if (w->pg.proxy_url[0] != '\0')
		json_object_set_new(o, "proxy_url", json_string(w->pg.proxy_url));
	bool leads = keeper_lock(&w->keeper, clock_boot_ms()) == LOCK_HELD;
	if (leads && w->mem.rewind_state != REWIND_CHECKPOINT && !w->set.standby_cluster)
		json_object_set_new(o, "checkpoint_after_promote", json_false());
	json_t *tags = publish_tags(w);
	if (json_object_size(tags) > 0)
		json_object_set(o, "tags", tags);
	json_decref(tags);
	if (w->pg.pending_restart != NULL) {
		json_object_set_new(o, "pending_restart", json_true());
		json_object_set(o, "pending_restart_reason", w->pg.pending_restart);
	}
	add_positions(w, o);
	if (w->scheduled.set)
		json_object_set_new(o, "scheduled_restart", scheduled_json(w, true));
	if (w->set.pause)
		json_object_set_new(o, "pause", json_true());
	const struct member *m = cluster_member_peek(w->c, w->welcome.name);
	const char *session = dcs_session(w->dcs);
	struct err err;
	json_auto_t *old =
		m != NULL && m->json != NULL ? json_read(m->json, strlen(m->json), &err) : NULL;
	/* Unchanged, and under my living lease: nothing to write (dcs 1.4). */
	if (old != NULL && session[0] != '\0' && strcmp(m->session, session) == 0 &&
		json_same(old, o))
		return;
	AUTO_FREE char *text = json_compact(o);
	if (text != NULL)
		store_touch(w, text);
}

/* ---- leader's keys
 * -------------------------------------------------------------------------------- */

json_t *publish_slots(struct worker *w)
{
	const struct pg_sql *f = &w->probe.facts;
	if (!f->valid || !f->slots_valid || f->in_recovery)
		return NULL;
	json_t *slots = json_object();
	char own[64];
	for (unsigned i = 0; i < f->slot_count; i++) {
		const struct pg_slot *s = &f->slots[i];
		uint64_t lsn = s->logical ? s->confirmed_flush_lsn : s->restart_lsn;
		if (lsn != 0)
			json_object_set_new(slots, s->name, json_integer((json_int_t)lsn));
	}
	str_slot_name(w->welcome.name, own);
	json_object_set_new(slots, own, json_integer((json_int_t)f->flush_lsn));
	return slots;
}

bool publish_status(struct worker *w, uint64_t release_lsn)
{
	const struct pg_sql *f = &w->probe.facts;
	uint64_t lsn = release_lsn != 0 ? release_lsn : f->valid ? pg_sql_position(f) : 0;
	struct err err;
	if (lsn == 0)
		return false;
	json_auto_t *old = w->c->status_json != NULL
				   ? json_read(w->c->status_json, strlen(w->c->status_json), &err)
				   : NULL;
	json_auto_t *o = json_pack("{s:I}", "optime", (json_int_t)lsn);
	json_t *slots = release_lsn == 0 ? publish_slots(w) : NULL;
	/* Only the position is known: what was there of slots stays (dcs 1.3.3). */
	if (slots == NULL && json_object_get(old, "slots") != NULL)
		slots = json_incref(json_object_get(old, "slots"));
	if (json_object_size(slots) > 0)
		json_object_set(o, "slots", slots);
	json_decref(slots);
	json_t *retain = slots_retain(w);
	if (retain == NULL && json_object_get(old, "retain_slots") != NULL)
		retain = json_incref(json_object_get(old, "retain_slots"));
	if (json_array_size(retain) > 0)
		json_object_set(o, "retain_slots", retain);
	json_decref(retain);
	if (old != NULL && json_same(old, o))
		return false;
	AUTO_FREE char *text = json_compact(o);
	if (text != NULL)
		store_status(w, text);
	return text != NULL;
}

void publish_failsafe(struct worker *w, bool equal_too)
{
	json_auto_t *o = json_object();
	for (unsigned i = 0; i < w->c->member_count; i++) {
		if (w->c->members[i].api_url[0] != '\0')
			json_object_set_new(
				o, w->c->members[i].name, json_string(w->c->members[i].api_url));
	}
	json_object_set_new(o, w->welcome.name, json_string(w->api_url));
	AUTO_FREE char *text = json_compact(o);
	if (text == NULL || (!equal_too && decode_same(text, w->c->failsafe_json)))
		return;
	struct dcs_op op = { .kind = DCS_SET_FAILSAFE, .value = text, .leader_only = true };
	store_submit(w, &op);
}

static json_t *history_row_json(const struct worker *w, const struct history_row *r, bool newest)
{
	json_t *row = json_pack("[I,I,s]", (json_int_t)r->timeline, (json_int_t)r->lsn, r->reason);
	for (unsigned i = 0; i < w->c->history_count; i++) {
		const struct history_row *k = &w->c->history[i];
		if (k->timeline == r->timeline && k->lsn == r->lsn && k->time[0] != '\0') {
			json_array_append_new(row, json_string(k->time));
			json_array_append_new(row, json_string(k->new_leader));
			return row;
		}
	}
	if (newest) {
		char text[40];
		clock_iso8601(clock_wall_us(), text, sizeof(text));
		json_array_append_new(row, json_string(r->time[0] != '\0' ? r->time : text));
		json_array_append_new(row, json_string(w->welcome.name));
	}
	return row;
}

void publish_history(struct worker *w)
{
	int64_t tli = w->probe.facts.valid ? w->probe.facts.timeline : 0;
	json_auto_t *list = json_array();
	if (tli > 1 && w->history_tli != tli)
		return; /* the file was asked for; next cycle */
	for (unsigned i = 0; tli > 1 && i < w->history_count; i++) {
		const struct history_row *r = &w->history[i];
		json_array_append_new(list, history_row_json(w, r, r->timeline == tli - 1));
	}
	while (w->set.max_timelines_history > 0 &&
		json_array_size(list) > (size_t)w->set.max_timelines_history)
		json_array_remove(list, 0);
	AUTO_FREE char *text = json_compact(list);
	if (text == NULL || decode_same(text, w->c->history_json))
		return;
	struct dcs_op op = { .kind = DCS_SET_HISTORY, .value = text, .leader_only = true };
	store_submit(w, &op);
}
