/* Output of pg_controldata. See controldata.h. */
#include "worker/postgres/controldata.h"

#include <ctype.h>
#include <string.h>

#include "common/core/str.h"

bool controldata_get(const char *text, const char *label, char *out, size_t out_len)
{
	size_t n = strlen(label);
	for (const char *line = text; line != NULL && *line != '\0';) {
		const char *end = strchr(line, '\n');
		size_t len = end != NULL ? (size_t)(end - line) : strlen(line);
		const char *p = line;
		line = end != NULL ? end + 1 : NULL;
		if (len > 8 && strncmp(p, "Current ", 8) == 0) {
			p += 8;
			len -= 8;
		}
		if (len <= n || strncmp(p, label, n) != 0 || p[n] != ':')
			continue;
		p += n + 1;
		len -= n + 1;
		while (len > 0 && isspace((unsigned char)*p)) {
			p++;
			len--;
		}
		while (len > 0 && isspace((unsigned char)p[len - 1]))
			len--;
		return str_copy_n(out, out_len, p, len);
	}
	return false;
}

bool controldata_state(const char *words, enum pg_db_state *out)
{
	static const char *const names[] = { "starting up", "shut down", "shut down in recovery",
		"shutting down", "in crash recovery", "in archive recovery", "in production" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(words, names[i]) == 0) {
			*out = (enum pg_db_state)i;
			return true;
		}
	}
	return false;
}

/* Parsing state: the first label that was missing or broken. */
struct reader {
	const char *text, *bad;
};

static void need(struct reader *r, bool ok, const char *label)
{
	if (!ok && r->bad == NULL)
		r->bad = label;
}

static uint64_t number(struct reader *r, const char *label, uint64_t max)
{
	char v[40];
	uint64_t n = 0;
	need(r, controldata_get(r->text, label, v, sizeof(v)) && str_to_u64(v, &n) && n <= max,
		label);
	return n;
}

static uint64_t lsn(struct reader *r, const char *label)
{
	char v[40];
	uint64_t n = 0;
	need(r, controldata_get(r->text, label, v, sizeof(v)) && str_to_lsn(v, &n), label);
	return n;
}

/* Lines that old versions do not have. */
static int32_t setting(const struct reader *r, const char *label)
{
	char v[40];
	int64_t n;
	if (!controldata_get(r->text, label, v, sizeof(v)) || !str_to_i64(v, &n) || n < 0 ||
		n > INT32_MAX)
		return 0;
	return (int32_t)n;
}

enum err_code controldata_parse(const char *text, struct pg_control *out, struct err *err)
{
	struct reader r = { .text = text };
	struct pg_control c = { .read_at_ms = out->read_at_ms };
	char v[64];
	c.control_version = (uint32_t)number(&r, "pg_control version number", UINT32_MAX);
	c.system_id = number(&r, "Database system identifier", UINT64_MAX);
	need(&r,
		controldata_get(text, "Database cluster state", v, sizeof(v)) &&
			controldata_state(v, &c.state),
		"Database cluster state");
	c.checkpoint_lsn = lsn(&r, "Latest checkpoint location");
	c.checkpoint_redo = lsn(&r, "Latest checkpoint's REDO location");
	c.checkpoint_tli = (uint32_t)number(&r, "Latest checkpoint's TimeLineID", UINT32_MAX);
	c.min_recovery_lsn = lsn(&r, "Minimum recovery ending location");
	c.min_recovery_tli = (uint32_t)number(&r, "Min recovery ending loc's timeline", UINT32_MAX);
	c.wal_segment_size = (uint32_t)number(&r, "Bytes per WAL segment", UINT32_MAX);
	c.checksum_version = (uint32_t)setting(&r, "Data page checksum version");
	c.wal_log_hints = controldata_get(text, "wal_log_hints setting", v, sizeof(v)) &&
			  strcmp(v, "on") == 0;
	c.max_connections = setting(&r, "max_connections setting");
	c.max_worker_processes = setting(&r, "max_worker_processes setting");
	c.max_wal_senders = setting(&r, "max_wal_senders setting");
	c.max_prepared_xacts = setting(&r, "max_prepared_xacts setting");
	c.max_locks_per_xact = setting(&r, "max_locks_per_xact setting");
	if (r.bad != NULL)
		return err_set(err, ERR_PARSE, 0, "pg_controldata: no usable line \"%s\"", r.bad);
	c.valid = true;
	*out = c;
	return ERR_OK;
}
