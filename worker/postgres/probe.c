/* The fact query. Worker process. See probe.h. */
#include "worker/postgres/probe.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/postgres/recovery.h"

/* It answers from memory; a proof of recovery waits for it. */
#define IDENTIFY_MS	  500
#define IDENTIFY_AGAIN_MS 2000 /* after a failure */

enum col {
	COL_RECOVERY,
	COL_TIMELINE,
	COL_FLUSH,
	COL_REPLAY,
	COL_RECEIVE,
	COL_PAUSED,
	COL_START,
	COL_RCV_STATUS,
	COL_RCV_TLI,
	COL_RCV_SLOT,
	COL_RCV_CONNINFO,
	COL_RCV_END,
	COL_RCV_WRITTEN,
	COL_RESTORE,
	COL_SYNC_COMMIT,
	COL_SSN,
	COL_SENDERS,
	COL_REPLAY_TIME,
	COL_REPLICATION,
	COL_SLOTS,
	COL_SETTINGS,
	COL_COUNT,
};

/* What a standby recovers with (ha 11.7); before 12 these are no settings. */
static void settings_sql(struct buf *out, int32_t major)
{
	AUTO(buf) names = BUF_INIT(1024);
	recovery_compared_names(major, &names);
	if (major < 12 || names.failed) {
		buf_adds(out, ", NULL");
		return;
	}
	buf_adds(out, ", CASE WHEN r.rec THEN (SELECT pg_catalog.json_agg("
		      "pg_catalog.json_build_array(g.name, g.setting, g.context, g.sourcefile,"
		      " g.pending_restart) ORDER BY g.name)"
		      " FROM pg_catalog.pg_settings g WHERE g.name IN (");
	for (size_t i = 0; i < names.len; i += strlen(names.data + i) + 1)
		buf_addf(out, "%s'%s'", i > 0 ? ", " : "", names.data + i);
	buf_adds(out, ")) END");
}

void probe_sql(struct buf *out, int32_t major, bool want_slots)
{
	buf_adds(out,
		"SELECT r.rec,"
		" CASE WHEN r.rec THEN greatest((SELECT min_recovery_end_timeline FROM "
		"pg_catalog.pg_control_recovery()),"
		" (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))"
		" ELSE ('x' || "
		"pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, "
		"8))::bit(32)::int END,"
		" CASE WHEN NOT r.rec THEN "
		"pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0')::bigint "
		"END,"
		" CASE WHEN r.rec THEN "
		"pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::bigint "
		"END,"
		" CASE WHEN r.rec THEN "
		"pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0')::bigint "
		"END,"
		" CASE WHEN r.rec THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END,"
		" (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,"
		" w.status, w.received_tli, w.slot_name, w.conninfo,"
		" pg_catalog.pg_wal_lsn_diff(w.latest_end_lsn, '0/0')::bigint,");
	buf_adds(out, major >= 13 ? " pg_catalog.pg_wal_lsn_diff(w.written_lsn, '0/0')::bigint,"
				  : " NULL::bigint,");
	buf_adds(out, major >= 12 ? " pg_catalog.current_setting('restore_command')," : " '',");
	buf_adds(out, " pg_catalog.current_setting('synchronous_commit'), "
		      "pg_catalog.current_setting('synchronous_standby_names'),"
		      " CASE WHEN NOT r.rec THEN (SELECT "
		      "pg_catalog.json_agg(pg_catalog.json_build_array(s.pid, a.application_name, "
		      "s.sync_state,"
		      " pg_catalog.pg_wal_lsn_diff(s.write_lsn, '0/0')::bigint, "
		      "pg_catalog.pg_wal_lsn_diff(s.flush_lsn, '0/0')::bigint,"
		      " pg_catalog.pg_wal_lsn_diff(s.replay_lsn, '0/0')::bigint)) FROM "
		      "pg_catalog.pg_stat_get_wal_senders() s"
		      " JOIN pg_catalog.pg_stat_get_activity(NULL) a ON a.pid = s.pid WHERE "
		      "s.state = 'streaming') END,"
		      " (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * "
		      "1000000)::bigint,"
		      " (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('usename', "
		      "r.rolname, 'application_name', a.application_name,"
		      " 'client_addr', a.client_addr, 'state', s.state, 'sync_state', "
		      "s.sync_state, 'sync_priority', s.sync_priority))"
		      " FROM pg_catalog.pg_stat_get_wal_senders() s JOIN "
		      "pg_catalog.pg_stat_get_activity(NULL) a ON a.pid = s.pid"
		      " LEFT JOIN pg_catalog.pg_authid r ON r.oid = a.usesysid),");
	if (!want_slots)
		buf_adds(out, " NULL");
	else
		buf_addf(out,
			" coalesce((SELECT "
			"pg_catalog.json_agg(pg_catalog.json_build_array(slot_name, slot_type, "
			"active, NULL, plugin,"
			" pg_catalog.pg_wal_lsn_diff(restart_lsn, '0/0')::bigint,"
			" pg_catalog.pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::bigint, "
			"xmin::text::bigint, catalog_xmin::text::bigint,"
			" %s, %s, %s, (SELECT datname FROM pg_catalog.pg_database d WHERE d.oid = "
			"datoid)))"
			" FROM pg_catalog.pg_get_replication_slots() WHERE NOT temporary%s), "
			"'[]'::json)",
			major >= 13 ? "wal_status" : "NULL", major >= 17 ? "failover" : "false",
			major >= 17 ? "synced" : "false",
			/* PostgreSQL's own affair (ha 7.4-1). */
			major >= 17 ? " AND NOT (failover AND synced)" : "");
	settings_sql(out, major);
	buf_adds(out, " FROM (SELECT pg_catalog.pg_is_in_recovery() AS rec) r"
		      " LEFT JOIN pg_catalog.pg_stat_get_wal_receiver() w ON r.rec");
}

static uint64_t col_u64(const PGresult *res, int col)
{
	uint64_t v = 0;
	if (PQgetisnull(res, 0, col) || !str_to_u64(PQgetvalue(res, 0, col), &v))
		return 0;
	return v;
}

static void col_text(const PGresult *res, int col, char *out, size_t len)
{
	if (!str_copy(out, len, PQgetisnull(res, 0, col) ? "" : PQgetvalue(res, 0, col)))
		out[0] = '\0';
}

static const char *item_text(const json_t *row, size_t i)
{
	const char *s = json_string_value(json_array_get(row, i));
	return s != NULL ? s : "";
}

static uint64_t item_u64(const json_t *row, size_t i)
{
	json_int_t v = json_integer_value(json_array_get(row, i));
	return v > 0 ? (uint64_t)v : 0;
}

static enum err_code read_senders(const char *text, struct pg_sql *f, struct err *err)
{
	json_auto_t *list = json_loads(text, 0, NULL);
	if (!json_is_array(list))
		return err_set(err, ERR_PARSE, 0, "walsenders: not a list");
	size_t n = json_array_size(list);
	if (n > LIMIT_SLOTS)
		return err_set(err, ERR_LIMIT, 0, "%zu walsenders, limit %d", n, LIMIT_SLOTS);
	f->walsenders = calloc(n, sizeof(*f->walsenders));
	if (f->walsenders == NULL)
		return err_set(err, ERR_NOMEM, 0, "walsenders");
	for (size_t i = 0; i < n; i++) {
		const json_t *row = json_array_get(list, i);
		struct pg_walsender *s = &f->walsenders[f->walsender_count];
		s->pid = (int32_t)json_integer_value(json_array_get(row, 0));
		/* A name that does not fit is no member's. */
		if (!str_copy(
			    s->application_name, sizeof(s->application_name), item_text(row, 1)) ||
			!str_copy(s->sync_state, sizeof(s->sync_state), item_text(row, 2)))
			continue;
		s->write_lsn = item_u64(row, 3);
		s->flush_lsn = item_u64(row, 4);
		s->replay_lsn = item_u64(row, 5);
		f->walsender_count++;
	}
	return ERR_OK;
}

static enum err_code read_slots(const char *text, struct pg_sql *f, struct err *err)
{
	json_auto_t *list = json_loads(text, 0, NULL);
	if (!json_is_array(list))
		return err_set(err, ERR_PARSE, 0, "slots: not a list");
	size_t n = json_array_size(list);
	if (n > LIMIT_SLOTS)
		return err_set(
			err, ERR_LIMIT, 0, "%zu replication slots, limit %d", n, LIMIT_SLOTS);
	f->slots = calloc(n != 0 ? n : 1, sizeof(*f->slots));
	if (f->slots == NULL)
		return err_set(err, ERR_NOMEM, 0, "slots");
	for (size_t i = 0; i < n; i++) {
		const json_t *row = json_array_get(list, i);
		struct pg_slot *s = &f->slots[f->slot_count];
		if (!str_copy(s->name, sizeof(s->name), item_text(row, 0)) ||
			!str_copy(s->plugin, sizeof(s->plugin), item_text(row, 4)) ||
			!str_copy(s->wal_status, sizeof(s->wal_status), item_text(row, 9)) ||
			!str_copy(s->database, sizeof(s->database), item_text(row, 12)))
			continue;
		s->logical = strcmp(item_text(row, 1), "logical") == 0;
		s->active = json_is_true(json_array_get(row, 2));
		s->restart_lsn = item_u64(row, 5);
		s->confirmed_flush_lsn = item_u64(row, 6);
		s->xmin = item_u64(row, 7);
		s->catalog_xmin = item_u64(row, 8);
		s->failover = json_is_true(json_array_get(row, 10));
		s->synced = json_is_true(json_array_get(row, 11));
		s->invalidated = strcmp(s->wal_status, "lost") == 0;
		f->slot_count++;
	}
	f->slots_valid = true;
	return ERR_OK;
}

void probe_facts_done(struct pg_sql *f)
{
	free(f->walsenders);
	free(f->slots);
	free(f->replication_json);
	free(f->recovery_json);
	f->recovery_json = NULL;
	f->replication_json = NULL;
	f->walsenders = NULL;
	f->slots = NULL;
	f->walsender_count = f->slot_count = 0;
	f->slots_valid = false;
}

enum err_code probe_read(const PGresult *res, struct pg_sql *f, struct err *err)
{
	if (PQntuples(res) != 1 || PQnfields(res) != COL_COUNT)
		return err_set(err, ERR_PARSE, 0, "fact query: %d rows, %d columns", PQntuples(res),
			PQnfields(res));
	probe_facts_done(f);
	f->in_recovery = PQgetvalue(res, 0, COL_RECOVERY)[0] == 't';
	f->flush_lsn = col_u64(res, COL_FLUSH);
	f->replay_lsn = col_u64(res, COL_REPLAY);
	f->receive_lsn = col_u64(res, COL_RECEIVE);
	f->written_lsn = col_u64(res, COL_RCV_WRITTEN);
	f->latest_end_lsn = col_u64(res, COL_RCV_END);
	f->replay_paused = PQgetvalue(res, 0, COL_PAUSED)[0] == 't';
	f->start_time_us = (int64_t)col_u64(res, COL_START);
	f->timeline = (int64_t)col_u64(res, COL_TIMELINE);
	char status[32];
	col_text(res, COL_RCV_STATUS, status, sizeof(status));
	f->receiver_streaming = strcmp(status, "streaming") == 0;
	int64_t received = (int64_t)col_u64(res, COL_RCV_TLI);
	if (f->in_recovery && f->latest_end_lsn != 0 && received > f->timeline)
		f->timeline = received;
	col_text(res, COL_RCV_SLOT, f->receiver_slot, sizeof(f->receiver_slot));
	col_text(res, COL_RCV_CONNINFO, f->receiver_conninfo, sizeof(f->receiver_conninfo));
	f->has_restore_command = PQgetvalue(res, 0, COL_RESTORE)[0] != '\0';
	col_text(res, COL_SYNC_COMMIT, f->synchronous_commit, sizeof(f->synchronous_commit));
	col_text(res, COL_SSN, f->synchronous_standby_names, sizeof(f->synchronous_standby_names));
	if (!PQgetisnull(res, 0, COL_SENDERS)) {
		enum err_code rc = read_senders(PQgetvalue(res, 0, COL_SENDERS), f, err);
		if (rc != ERR_OK)
			return rc;
	}
	f->replay_time_us = (int64_t)col_u64(res, COL_REPLAY_TIME);
	if (!PQgetisnull(res, 0, COL_REPLICATION))
		f->replication_json = strdup(PQgetvalue(res, 0, COL_REPLICATION));
	if (!PQgetisnull(res, 0, COL_SETTINGS))
		f->recovery_json = strdup(PQgetvalue(res, 0, COL_SETTINGS));
	if (!PQgetisnull(res, 0, COL_SLOTS)) {
		enum err_code rc = read_slots(PQgetvalue(res, 0, COL_SLOTS), f, err);
		if (rc != ERR_OK)
			return rc;
	}
	f->valid = true;
	return ERR_OK;
}

void probe_init(struct probe *p, struct loop *loop, probe_fn fn, void *arg)
{
	memset(p, 0, sizeof(*p));
	pgc_init(&p->conn, loop, "heartbeat");
	pgc_init(&p->repl, loop, "replication");
	p->timeout_ms = 3000;
	p->fn = fn;
	p->arg = arg;
}

void probe_done(struct probe *p)
{
	pgc_done(&p->conn);
	pgc_done(&p->repl);
	probe_facts_done(&p->facts);
	free(p->sql.text);
}

void probe_set_generation(struct probe *p, uint64_t generation)
{
	if (p->generation == generation)
		return;
	p->generation = generation;
	p->known_tli = 0;
	p->identified = false;
	p->identify_failed_ms = 0;
	probe_facts_done(&p->facts);
	memset(&p->facts, 0, sizeof(p->facts));
	/* An answer of the old server must not be taken for one of the new. */
	if (p->asked_generation != generation) {
		pgc_close(&p->conn);
		pgc_close(&p->repl);
	}
}

/* Everything of one question is in. */
static void finish(struct probe *p)
{
	bool stale = p->asked_generation != p->generation;
	p->pending = false;
	if (stale)
		p->ask_again = p->generation != 0;
	if (p->ask_again) {
		p->ask_again = false;
		probe_ask(p);
	}
	if (!stale)
		p->fn(p, p->arg);
}

static void know_timeline(struct probe *p, int64_t tli)
{
	if (tli > p->known_tli)
		p->known_tli = tli;
	if (p->facts.timeline < p->known_tli)
		p->facts.timeline = p->known_tli;
}

static void on_identity(
	struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct probe *p = arg;
	int64_t tli = 0;
	if (p->asked_generation == p->generation) {
		p->identified = f == PGC_OK && PQntuples(res) == 1 &&
				str_to_i64(PQgetvalue(res, 0, 1), &tli);
		p->identified_lsn = p->facts.replay_lsn;
		if (!p->identified && p->identify_failed_ms == 0)
			log_warning("timeline of the standby: IDENTIFY_SYSTEM: %s", text);
		p->identify_failed_ms = p->identified ? 0 : clock_boot_ms();
		know_timeline(p, tli);
	}
	pgc_close(c); /* a walsender of its own */
	finish(p);
}

/* pg_control learns of a new timeline at the next restart point or write of a page only, a
 * walreceiver that ended takes its knowledge with it, and what a standby finds in pg_wal or the
 * archive it replays without one. */
static bool identify(struct probe *p)
{
	struct err err = ERR_INIT;
	if (!p->facts.in_recovery)
		return false;
	know_timeline(p, p->facts.receiver_streaming ? p->facts.timeline : 0);
	if (p->facts.receiver_streaming || p->repl.params.count == 0 ||
		(p->identified && p->identified_lsn == p->facts.replay_lsn) ||
		(p->identify_failed_ms != 0 &&
			clock_boot_ms() - p->identify_failed_ms < IDENTIFY_AGAIN_MS))
		return false;
	return pgc_exec(&p->repl, "IDENTIFY_SYSTEM", NULL, 0, clock_boot_ms() + IDENTIFY_MS,
		       on_identity, p, &err) == ERR_OK;
}

static void on_answer(struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct probe *p = arg;
	struct err err = ERR_INIT;
	bool stale = p->asked_generation != p->generation;
	if (!stale && f == PGC_OK && probe_read(res, &p->facts, &err) != ERR_OK) {
		f = PGC_STATEMENT;
		text = err.text;
	}
	if (!stale && f == PGC_OK) {
		p->facts.server_version =
			c->server_version != 0 ? c->server_version : p->facts.server_version;
		p->facts.asked_at_ms = p->asked_at_ms;
		p->facts.failed_since_ms = 0;
		p->facts.rejecting = false;
		if (identify(p))
			return;
	} else if (!stale) {
		p->facts.valid = false;
		p->facts.rejecting = f == PGC_REJECTING;
		if (p->facts.failed_since_ms == 0) {
			p->facts.failed_since_ms = clock_boot_ms();
			if (f == PGC_STATEMENT || f == PGC_TIMEOUT)
				log_warning("fact query failed: %s", text);
		}
	}
	finish(p);
}

/* Three thousand characters that change with a major version or a setting, not from cycle to cycle.
 */
static bool make_sql(struct probe *p)
{
	if (p->sql.text != NULL && p->sql.major == p->major && p->sql.want_slots == p->want_slots)
		return true;
	AUTO(buf) sql = BUF_INIT(8192);
	probe_sql(&sql, p->major, p->want_slots);
	free(p->sql.text);
	p->sql.text = sql.failed ? NULL : strdup(buf_str(&sql));
	p->sql.major = p->major;
	p->sql.want_slots = p->want_slots;
	return p->sql.text != NULL;
}

void probe_ask(struct probe *p)
{
	if (p->generation == 0 || p->conn.params.count == 0)
		return;
	if (p->pending) {
		p->ask_again = true;
		return;
	}
	if (!make_sql(p)) {
		log_error("fact query: no memory");
		return;
	}
	struct err err = ERR_INIT;
	int64_t now_ms = clock_boot_ms();
	if (pgc_exec(&p->conn, p->sql.text, NULL, 0, now_ms + p->timeout_ms, on_answer, p, &err) !=
		ERR_OK) {
		log_error("fact query: %s", err.text);
		return;
	}
	p->pending = true;
	p->asked_at_ms = now_ms;
	p->asked_generation = p->generation;
}
