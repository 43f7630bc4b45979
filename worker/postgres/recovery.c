/* Recovery settings of a standby. See recovery.h. */
#include "worker/postgres/recovery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/config/value.h"
#include "common/core/str.h"
#include "worker/postgres/conf_write.h"
#include "worker/postgres/params.h"

#define VALUE_MAX 65536

void recovery_done(struct recovery *r)
{
	json_decref(r->settings);
	r->settings = NULL;
	r->has_conninfo = false;
}

/* ---- what is wanted
 * ------------------------------------------------------------------------------- */

static bool set_text(json_t *set, const char *name, const char *text)
{
	return params_set_new(set, name, json_string(text));
}

/* The targets and the source are ours: a standby follows the newest timeline of whom we say. */
static bool user_may_set(const char *name)
{
	return strncasecmp(name, "recovery_target", 15) != 0 &&
	       !str_eq_nocase(name, "primary_conninfo") &&
	       !str_eq_nocase(name, "primary_slot_name");
}

static bool copy_user(json_t *set, const json_t *conf)
{
	const char *name;
	json_t *value;
	bool ok = true;
	json_object_foreach((json_t *)conf, name, value)
	{
		if (user_may_set(name))
			ok = ok && params_set_new(set, name, json_incref(value));
	}
	return ok;
}

/* Authentication keys are words of libpq, but for username. */
static bool add_auth(struct conninfo *c, const json_t *auth)
{
	const char *key;
	json_t *value;
	bool ok = true;
	json_object_foreach((json_t *)auth, key, value)
	{
		AUTO(buf) text = BUF_INIT(CONNINFO_VALUE_MAX);
		if (json_is_null(value))
			continue;
		params_text(value, &text);
		ok = ok && !text.failed &&
		     conninfo_set(c, strcmp(key, "username") == 0 ? "user" : key, buf_str(&text));
	}
	return ok;
}

static bool preset(struct conninfo *c, int32_t major, const char *key, const char *value)
{
	return major < conninfo_word_from(key) || conninfo_get(c, key) != NULL ||
	       conninfo_set(c, key, value);
}

static bool want_conninfo(const struct recovery_env *e, struct conninfo *c)
{
	c->count = 0;
	bool ok = conninfo_set(c, "host", e->host) && conninfo_set(c, "port", e->port) &&
		  add_auth(c, e->auth) && conninfo_set(c, "application_name", e->name) &&
		  preset(c, e->major, "sslmode", "prefer") &&
		  preset(c, e->major, "gssencmode", "prefer") &&
		  preset(c, e->major, "channel_binding", "prefer") &&
		  preset(c, e->major, "sslnegotiation", "postgres") &&
		  conninfo_set(c, "krbsrvname", e->krbsrvname) &&
		  conninfo_set(c, "dbname",
			  e->dbname != NULL && e->dbname[0] != '\0' ? e->dbname : e->database);
	/* Of several hosts the leader of the other cluster is wanted. */
	if (e->from == RECOVERY_FROM_REMOTE && e->major >= 10 && strchr(e->host, ',') != NULL)
		ok = ok && conninfo_set(c, "target_session_attrs", "read-write");
	return ok;
}

static bool want_slot(const struct recovery_env *e, struct recovery *r)
{
	char slot[64];
	bool remote = e->from == RECOVERY_FROM_REMOTE;
	if (!e->use_slots || (remote && e->no_slot))
		return true;
	str_slot_name(remote && e->slot != NULL && e->slot[0] != '\0' ? e->slot : e->name, slot);
	return set_text(r->settings, "primary_slot_name", slot);
}

static bool override_from_standby(const struct recovery_env *e, json_t *set)
{
	static const char *const names[] = { "restore_command", "archive_cleanup_command",
		"recovery_min_apply_delay" };
	bool ok = true;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		json_t *v = json_object_get(e->standby, names[i]);
		bool empty = v == NULL || json_is_null(v) || json_is_false(v) ||
			     (json_is_string(v) && json_string_length(v) == 0) ||
			     (json_is_integer(v) && json_integer_value(v) == 0);
		/* The delay is the standby leader's alone: its replicas would add their own on top.
		 */
		if (!empty && (i < 2 || e->from == RECOVERY_FROM_REMOTE))
			ok = ok && params_set_new(set, names[i], json_incref(v));
	}
	return ok;
}

enum err_code recovery_want(const struct recovery_env *e, struct recovery *out, struct err *err)
{
	static const char *const none[] = { "recovery_target", "recovery_target_name",
		"recovery_target_time", "recovery_target_xid", "recovery_target_lsn" };
	memset(out, 0, sizeof(*out));
	out->settings = json_object();
	bool ok = out->settings != NULL && copy_user(out->settings, e->conf) &&
		  set_text(out->settings, "standby_mode", "on") &&
		  set_text(out->settings, "recovery_target_timeline", "latest");
	/* Set in an included file they would pause, promote or stop the standby. */
	for (size_t i = 0; e->major >= 12 && i < ARRAY_LEN(none); i++)
		ok = ok && set_text(out->settings, none[i], "");
	bool self = e->from == RECOVERY_FROM_MEMBER && str_eq(e->from_name, e->name);
	if (e->from != RECOVERY_FROM_NONE && !e->nostream && !self && e->host != NULL &&
		e->host[0] != '\0') {
		if (ok && !want_conninfo(e, &out->conninfo)) {
			recovery_done(out);
			return err_set(err, ERR_LIMIT, 0, "primary_conninfo: a word is too long");
		}
		out->has_conninfo = true;
		ok = ok && want_slot(e, out);
	}
	ok = ok && override_from_standby(e, out->settings);
	if (!ok) {
		recovery_done(out);
		return err_set(err, ERR_NOMEM, 0, "recovery settings");
	}
	return ERR_OK;
}

enum err_code recovery_from_conf(
	const json_t *conf, int32_t major, struct recovery *out, struct err *err)
{
	(void)major;
	memset(out, 0, sizeof(*out));
	out->settings = json_object();
	const char *name;
	json_t *value;
	bool ok = out->settings != NULL;
	json_object_foreach((json_t *)conf, name, value)
	{
		if (str_eq_nocase(name, "primary_conninfo") && json_is_string(value)) {
			if (!conninfo_parse(json_string_value(value), &out->conninfo)) {
				recovery_done(out);
				return err_set(err, ERR_PARSE, 0,
					"recovery_conf: primary_conninfo is not a connection "
					"string");
			}
			out->has_conninfo = true;
			continue;
		}
		ok = ok && params_set_new(out->settings, name, json_incref(value));
	}
	if (ok)
		return ERR_OK;
	recovery_done(out);
	return err_set(err, ERR_NOMEM, 0, "recovery settings");
}

const char *recovery_signal_file(const struct recovery *r, int32_t major)
{
	if (major < 12)
		return "recovery.conf";
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	bool on = false;
	params_text(params_get(r->settings, "standby_mode"), &text);
	return value_parse_bool(buf_str(&text), &on) && on ? "standby.signal" : "recovery.signal";
}

/* ---- text
 * ------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* pause_at_recovery_target became recovery_target_action in 9.5. */
static void write_pause(const json_t *set, struct buf *out)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	bool pause;
	params_text(params_get(set, "pause_at_recovery_target"), &text);
	if (params_get(set, "recovery_target_action") == NULL &&
		value_parse_bool(buf_str(&text), &pause))
		conf_write_line(out, "recovery_target_action", pause ? "pause" : "promote");
}

static void write_conninfo(const struct recovery *r, int32_t major, const char *pgpass,
	struct buf *out, struct buf *out_pass, struct buf *notes)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	struct conninfo c = r->conninfo;
	if (major >= 10 && conninfo_pgpass(&c, out_pass) && !conninfo_set(&c, "passfile", pgpass))
		buf_adds(notes, "primary_conninfo: the name of the password file is too long\n");
	conninfo_format(&c, major, &text);
	conf_write_line(out, "primary_conninfo", buf_str(&text));
}

static void write_one(
	const char *name, const json_t *value, int32_t major, struct buf *out, struct buf *notes)
{
	AUTO(buf) text = BUF_INIT(VALUE_MAX);
	AUTO(buf) note = BUF_INIT(VALUE_MAX);
	enum param_verdict v = params_check(name, value, major * 10000, true, &text, &note);
	if (buf_str(&note)[0] != '\0')
		buf_addf(notes, "%s\n", buf_str(&note));
	if (v == PARAM_ASK)
		buf_addf(notes, "Removing unexpected parameter=%s value=%s from the config\n", name,
			buf_str(&text));
	else if (v == PARAM_KEEP && strpbrk(buf_str(&text), "\r\n") != NULL)
		buf_addf(
			notes, "Removing parameter=%s from the config: more than one line\n", name);
	else if (v == PARAM_KEEP)
		conf_write_line(out, name, buf_str(&text));
}

void recovery_write(const struct recovery *r, int32_t major, const char *pgpass, struct buf *out,
	struct buf *out_pass, struct buf *notes)
{
	const char *names[128];
	unsigned n = 0;
	const char *name;
	json_t *value;
	json_object_foreach(r->settings, name, value)
	{
		if (n < ARRAY_LEN(names) - 1 && !str_eq_nocase(name, "pause_at_recovery_target") &&
			!(major >= 12 && str_eq_nocase(name, "standby_mode")))
			names[n++] = name;
	}
	if (r->has_conninfo)
		names[n++] = "primary_conninfo";
	qsort(names, n, sizeof(names[0]), by_name);
	write_pause(r->settings, out);
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(names[i], "primary_conninfo") == 0 && r->has_conninfo)
			write_conninfo(r, major, pgpass, out, out_pass, notes);
		else
			write_one(names[i], json_object_get(r->settings, names[i]), major, out,
				notes);
	}
}

/* ---- comparing
 * -------------------------------------------------------------------------------------- */

static bool compared(const char *name, int32_t major)
{
	static const char *const skipped[] = { "pause_at_recovery_target",
		"recovery_target_inclusive", "recovery_target_action", "standby_mode" };
	for (size_t i = 0; i < ARRAY_LEN(skipped); i++) {
		if (str_eq_nocase(name, skipped[i]))
			return false;
	}
	return params_is_recovery(name) &&
	       !str_eq_nocase(name, major >= 12 ? "trigger_file" : "promote_trigger_file");
}

void recovery_compared_names(int32_t major, struct buf *out)
{
	for (unsigned i = 0; i < param_recovery_table_count; i++) {
		const char *name = param_recovery_table[i].name;
		if (compared(name, major))
			buf_add(out, name, strlen(name) + 1);
	}
}

/* Set in a file of the user's, and not by us: his affair. */
static bool left_alone(const struct recovery_row *row, const struct recovery_state *s,
	const struct recovery *wanted)
{
	static const char *const names[] = { "archive_cleanup_command", "promote_trigger_file",
		"recovery_end_command", "recovery_min_apply_delay", "restore_command" };
	if (row->sourcefile == NULL || str_eq(row->sourcefile, s->conf_file) ||
		str_eq(row->sourcefile, s->auto_file) ||
		params_get(wanted->settings, row->name) != NULL)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (str_eq_nocase(row->name, names[i]))
			return true;
	}
	return false;
}

static int by_line(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Unique lines, sorted, cut out of text in place. */
static unsigned split_sorted(char *text, char *lines[], unsigned max)
{
	unsigned n = 0, kept = 0;
	for (char *p = text; *p != '\0' && n < max;) {
		size_t len = strcspn(p, "\r\n");
		bool last = p[len] == '\0';
		p[len] = '\0';
		if (len > 0)
			lines[n++] = p;
		p += len + !last;
	}
	if (n > 1)
		qsort(lines, n, sizeof(lines[0]), by_line);
	for (unsigned i = 0; i < n; i++) {
		if (kept == 0 || strcmp(lines[kept - 1], lines[i]) != 0)
			lines[kept++] = lines[i];
	}
	return kept;
}

/* The password file holds just the lines that we would write. */
static bool passfile_matches(const char *content, const struct conninfo *wanted)
{
	AUTO(buf) a = BUF_INIT(VALUE_MAX);
	AUTO(buf) b = BUF_INIT(VALUE_MAX);
	if (content == NULL || !conninfo_pgpass(wanted, &b))
		return false;
	buf_adds(&a, content);
	if (a.failed || b.failed || a.len == 0)
		return false;
	char *have[64], *want[64];
	unsigned n = split_sorted(a.data, have, ARRAY_LEN(have));
	if (n != split_sorted(b.data, want, ARRAY_LEN(want)))
		return false;
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(have[i], want[i]) != 0)
			return false;
	}
	return true;
}

/* A receiver that lives says what is really in use, but for its database name and its password,
 * which it masks. */
static bool take_receiver(struct conninfo *have, const char *receiver)
{
	struct conninfo r;
	if (receiver == NULL || receiver[0] == '\0' || !conninfo_parse(receiver, &r))
		return true;
	conninfo_del(&r, "dbname");
	bool ok = conninfo_set(&r, "dbname", conninfo_get(have, "dbname"));
	if (conninfo_get(have, "password") != NULL)
		ok = ok && conninfo_set(&r, "password", conninfo_get(have, "password"));
	*have = r;
	return ok;
}

static bool conninfo_same(
	const char *setting, const struct recovery *wanted, const struct recovery_state *s)
{
	struct conninfo have = { 0 }, want = wanted->conninfo;
	if (setting[0] != '\0' && (!conninfo_parse(setting, &have) || have.count == 0))
		return false;
	if (!wanted->has_conninfo)
		return setting[0] == '\0';
	if (setting[0] == '\0')
		return false;
	if (s->major < 17)
		conninfo_del(&want, "dbname");
	if (!s->starting && !take_receiver(&have, s->receiver_conninfo))
		return false;
	if (conninfo_get(&have, "passfile") != NULL && conninfo_get(&have, "password") == NULL &&
		conninfo_get(&want, "password") != NULL) {
		if (!passfile_matches(s->passfile, &want))
			return false;
		conninfo_del(&want, "password");
	}
	return conninfo_covers(&have, &want, s->major);
}

static bool row_same(const struct recovery_row *row, const struct recovery *wanted,
	const struct recovery_state *s)
{
	AUTO(buf) want = BUF_INIT(VALUE_MAX);
	json_t *v = params_get(wanted->settings, row->name);
	const char *setting = row->setting != NULL ? row->setting : "";
	if (v != NULL)
		params_text(v, &want);
	if (str_eq_nocase(row->name, "recovery_min_apply_delay"))
		return params_equal("integer", "ms", setting, v != NULL ? buf_str(&want) : "0");
	if (str_eq_nocase(row->name, "primary_conninfo"))
		return conninfo_same(setting, wanted, s);
	if (str_eq_nocase(row->name, "primary_slot_name")) {
		if (!wanted->has_conninfo)
			return true;
		if (!s->starting && s->receiver_conninfo != NULL && s->receiver_conninfo[0] != '\0')
			setting = s->receiver_slot != NULL ? s->receiver_slot : "";
	}
	return strcmp(setting, buf_str(&want)) == 0;
}

static void mismatch(struct recovery_verdict *out, bool restart, const char *what)
{
	if (!out->differs || (restart && !out->restart))
		snprintf(out->reason, sizeof(out->reason), "%s", what);
	out->differs = true;
	out->restart |= restart;
}

void recovery_compare(const struct recovery *wanted, const struct recovery_state *s,
	const struct recovery_row *rows, unsigned row_count, struct recovery_verdict *out)
{
	memset(out, 0, sizeof(*out));
	if (!s->signal_there) {
		mismatch(out, true,
			s->major >= 12 ? "standby.signal is missing" : "recovery.conf is missing");
		return;
	}
	if (rows == NULL) {
		if (!s->starting)
			mismatch(out, true, "recovery settings could not be read");
		return;
	}
	if (s->major >= 12 && s->adopted && !s->starting)
		mismatch(out, false, "joined a running server");
	for (unsigned i = 0; i < row_count; i++) {
		const struct recovery_row *row = &rows[i];
		if (!compared(row->name, s->major) || left_alone(row, s, wanted) ||
			row_same(row, wanted, s))
			continue;
		mismatch(out, s->major < 12 || str_eq(row->context, "postmaster"), row->name);
		out->confirmed |= row->pending_restart && str_eq(row->context, "postmaster");
	}
}
