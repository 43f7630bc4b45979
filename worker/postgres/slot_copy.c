/* See slot_copy.h. Worker process. */
#include "worker/postgres/slot_copy.h"

#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"

#define SQL_MS	 5000
#define FILES_MS 30000

enum col { COL_NAME, COL_DATABASE, COL_PLUGIN, COL_STATE };

/* pg_read_binary_file is what the rewind user may call; a slot of a standby is no source. */
static void ask_states(struct seq_copy_slots *s)
{
	AUTO(buf) sql = BUF_INIT(2048);
	AUTO(buf) names = BUF_INIT(LIMIT_SLOTS * (LIMIT_SLOT_NAME + 1) + 16);
	buf_adds(&names, "{");
	for (unsigned i = 0; i < s->count; i++)
		buf_addf(&names, "%s%s", i > 0 ? "," : "", s->want[i].name);
	buf_adds(&names, "}");
	buf_addf(&sql,
		"SELECT slot_name, datname, plugin, pg_catalog.encode("
		"pg_catalog.pg_read_binary_file('pg_replslot/' || slot_name || '/state'), 'hex')"
		" FROM pg_catalog.pg_get_replication_slots()"
		" JOIN pg_catalog.pg_database ON datoid = oid"
		" WHERE%s slot_type = 'logical' AND NOT pg_catalog.pg_is_in_recovery()"
		" AND slot_name = ANY($1::pg_catalog.name[])",
		s->p->major >= 17 ? " NOT failover AND" : "");
	const char *args[] = { buf_str(&names) };
	if (sql.failed || names.failed)
		co_wake(&s->co, co_ticket(&s->co), false, "too many slots");
	else
		co_sql(&s->co, &s->p->remote, buf_str(&sql), args, 1, SQL_MS);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool add_bytes(struct buf *out, const char *hex)
{
	size_t n = strlen(hex);
	if (n == 0 || n % 2 != 0 || n / 2 > SLOT_STATE_MAX)
		return false;
	for (size_t i = 0; i < n; i += 2) {
		int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);
		if (high < 0 || low < 0)
			return false;
		char byte = (char)(high * 16 + low);
		buf_add(out, &byte, 1);
	}
	return !out->failed;
}

/* Is this row what the configuration means by the name? */
static bool row_fits(const struct seq_copy_slots *s, int row)
{
	const char *name = PQgetvalue(s->rows, row, COL_NAME);
	const char *database = PQgetvalue(s->rows, row, COL_DATABASE);
	const char *plugin = PQgetvalue(s->rows, row, COL_PLUGIN);
	for (unsigned i = 0; i < s->count; i++) {
		const struct slot_to_copy *want = &s->want[i];
		if (!str_eq(want->name, name))
			continue;
		if (str_eq(want->database, database) && str_eq(want->plugin, plugin))
			return true;
		log_warning("Will not copy the logical slot \"%s\" due to the configuration "
			    "mismatch: configuration=%s/%s, slot on the primary=%s/%s",
			name, want->database, want->plugin, database, plugin);
	}
	return false;
}

static int next_row(const struct seq_copy_slots *s, int from)
{
	while (from < PQntuples(s->rows) && !row_fits(s, from))
		from++;
	return from;
}

static void write_state(struct seq_copy_slots *s)
{
	AUTO(buf) tail = BUF_INIT(SLOT_STATE_MAX + LIMIT_SLOT_NAME + 1);
	const char *name = PQgetvalue(s->rows, s->at, COL_NAME);
	buf_add(&tail, name, strlen(name) + 1);
	if (!add_bytes(&tail, PQgetvalue(s->rows, s->at, COL_STATE)))
		co_wake(&s->co, co_ticket(&s->co), false, "state of the slot is not understood");
	else
		co_files(&s->co, FILES_REPL_SLOT_WRITE, 0, 0, 0, tail.data, tail.len, FILES_MS);
}

static void take_rows(struct seq_copy_slots *s)
{
	s->rows = s->co.res;
	s->co.res = NULL;
}

static void free_rows(struct seq_copy_slots *s)
{
	PQclear(s->rows);
	s->rows = NULL;
}

void seq_copy_slots_step(struct co *co)
{
	struct seq_copy_slots *s = (struct seq_copy_slots *)co;
	struct pgctx *p = s->p;
	CO_BEGIN(co);
	if (!pgctx_params_remote(
		    p, &p->remote, "rewind", s->hostaddr, s->leader.host, s->leader.port))
		CO_RETURN(co, false, "connection parameters");
	ask_states(s);
	CO_WAIT(co);
	if (!co->ok)
		CO_RETURN(co, false, "leader %s: %s", s->leader.name, co->note);
	take_rows(s);
	s->at = next_row(s, 0);
	if (s->at == PQntuples(s->rows)) {
		free_rows(s);
		CO_RETURN(co, false, "leader %s has none of the wanted slots", s->leader.name);
	}
	s->u.stop = (struct seq_stop){ .p = p, .mode = PG_STOP_FAST, .checkpoint = true };
	co_call(co, &s->u.stop.co, seq_stop_step);
	CO_WAIT(co);
	if (!co->ok || co->cancelled) {
		free_rows(s);
		CO_RETURN(co, false, "stop: %s", co->note);
	}
	while (s->at < PQntuples(s->rows)) {
		write_state(s);
		CO_WAIT(co);
		if (co->ok)
			s->copied++;
		log_line(co->ok ? LOG_INFO : LOG_ERROR, "logical slot %s: %s",
			PQgetvalue(s->rows, s->at, COL_NAME),
			co->ok ? "copied from the primary" : co->note);
		s->at = next_row(s, s->at + 1);
	}
	free_rows(s);
	s->u.start = (struct seq_start){ .p = p, .role = PG_ROLE_REPLICA, .target = p->target };
	co_call(co, &s->u.start.co, seq_start_step);
	CO_WAIT(co);
	CO_RETURN(co, co->ok && s->copied > 0, "%u copied, server %s", s->copied, co->note);
	CO_END(co);
}
