/* Shared context of the sequences on the local server. Worker process. See pgctx.h. */
#include "worker/postgres/pgctx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/postgres/conninfo.h"
#include "worker/postgres/params.h"
#include "worker/postgres/render.h"

void pgctx_init(struct pgctx *p, struct host *h, struct loop *loop)
{
	memset(p, 0, sizeof(*p));
	p->h = h;
	p->loop = loop;
	p->state = PG_STATE_STOPPED;
	pgc_init(&p->sql, loop, "worker");
	pgc_init(&p->remote, loop, "leader");
}

void pgctx_done(struct pgctx *p)
{
	pgc_done(&p->sql);
	pgc_done(&p->remote);
	json_decref(p->pending_restart);
	json_decref(p->recovery);
	json_decref(p->custom_recovery);
}

static void changed(struct pgctx *p)
{
	if (p->on_change != NULL)
		p->on_change(p, p->on_change_arg);
}

void pgctx_set_role(struct pgctx *p, enum pg_role role)
{
	if (p->role == role)
		return;
	log_info("role %s -> %s", pg_role_word(p->role), pg_role_word(role));
	p->role = role;
	changed(p);
}

void pgctx_set_state(struct pgctx *p, enum pg_state state)
{
	if (p->state == state && p->state_since_ms != 0)
		return;
	log_info("state %s -> %s", pg_state_word(p->state), pg_state_word(state));
	p->state = state;
	p->state_since_ms = clock_boot_ms();
	changed(p);
}

bool pgctx_program(const struct pgctx *p, const char *program, char *out, size_t len)
{
	const char *name = json_path_str(json_object_get(p->pg, "bin_name"), program);
	if (name == NULL || name[0] == '\0')
		name = program;
	return p->bin_dir[0] != '\0' ? str_format(out, len, "%s/%s", p->bin_dir, name)
				     : str_copy(out, len, name);
}

const char *pgctx_auth(const struct pgctx *p, const char *section, const char *key)
{
	const json_t *a = json_object_get(json_object_get(p->pg, "authentication"), section);
	/* No rewind user, or none that could have the rights: the superuser's (config 1.9). */
	if (strcmp(section, "rewind") == 0 && (a == NULL || (p->major != 0 && p->major < 11)))
		a = json_object_get(json_object_get(p->pg, "authentication"), "superuser");
	const char *v = json_string_value(json_object_get(a, key));
	return v != NULL && v[0] != '\0' ? v : NULL;
}

static bool set_auth(const struct pgctx *p, struct pgc_params *c, const char *section)
{
	static const char *const keys[] = { "sslmode", "sslcert", "sslkey", "sslpassword",
		"sslrootcert", "sslcrl", "gssencmode", "channel_binding" };
	bool ok = pgc_params_set(c, "user", pgctx_auth(p, section, "username")) &&
		  pgc_params_set(c, "password", pgctx_auth(p, section, "password"));
	for (unsigned i = 0; ok && i < ARRAY_LEN(keys); i++)
		ok = pgc_params_set(c, keys[i], pgctx_auth(p, section, keys[i]));
	return ok;
}

static bool set_common(const struct pgctx *p, struct pgc_params *c, const char *purpose,
	const char *statement_timeout)
{
	char text[256];
	return str_format(text, sizeof(text), "-c statement_timeout=%s -c search_path=pg_catalog",
		       statement_timeout) &&
	       pgc_params_set(c, "options", text) && pgc_params_set(c, "dbname", p->database) &&
	       str_format(text, sizeof(text), "Patroni %s", purpose) &&
	       pgc_params_set(c, "application_name", text) &&
	       pgc_params_set(c, "fallback_application_name", "Patroni") &&
	       pgc_params_set(c, "connect_timeout", "3");
}

static bool set_local(const struct pgctx *p, struct pgc_params *c, const char *host)
{
	bool ok = pgc_params_set(c, "port", p->local_port) && pgc_params_set(c, "host", host);
	/* No name is resolved by libpq; the name itself serves certificates. */
	if (host[0] != '/')
		ok = ok && pgc_params_set(c, "hostaddr",
				   strcmp(host, "localhost") == 0 ? "127.0.0.1" : host);
	return ok;
}

void pgctx_params_local(const struct pgctx *p, struct pgc *conn, const char *statement_timeout)
{
	struct pgc_params c = { .count = 0 };
	bool ok = set_local(p, &c, p->local_host) && set_auth(p, &c, "superuser") &&
		  set_common(p, &c, conn->purpose, statement_timeout) && pgc_configure(conn, &c);
	if (!ok)
		log_error("connection parameters: no memory");
	pgc_params_done(&c);
}

void pgctx_params_local_repl(const struct pgctx *p, struct pgc *conn)
{
	struct pgc_params c = { .count = 0 };
	bool ok = set_local(p, &c, p->local_repl_host) && set_auth(p, &c, "replication") &&
		  set_common(p, &c, conn->purpose, "0") && pgc_params_set(&c, "options", NULL) &&
		  pgc_params_set(&c, "replication", "true") && pgc_configure(conn, &c);
	if (!ok)
		log_error("connection parameters: no memory");
	pgc_params_done(&c);
}

bool pgctx_params_remote(const struct pgctx *p, struct pgc *conn, const char *section,
	const char *hostaddr, const char *host, const char *port)
{
	struct pgc_params c = { .count = 0 };
	bool ok = pgc_params_set(&c, "host", host) && pgc_params_set(&c, "hostaddr", hostaddr) &&
		  pgc_params_set(&c, "port", port) && set_auth(p, &c, section) &&
		  set_common(p, &c, conn->purpose, "2000") && pgc_configure(conn, &c);
	pgc_params_done(&c);
	return ok;
}

bool pgctx_parse_url(const char *url, char *host, size_t host_len, char *port, size_t port_len)
{
	const char *p = strstr(url, "://");
	if (p == NULL)
		return false;
	p += 3;
	size_t n = strcspn(p, "/?");
	const char *at = memchr(p, '@', n);
	if (at != NULL) {
		n -= (size_t)(at + 1 - p);
		p = at + 1;
	}
	const char *colon = NULL;
	for (size_t i = 0; i < n; i++)
		colon = p[i] == ':' ? p + i : p[i] == ']' ? NULL : colon;
	size_t h = colon != NULL ? (size_t)(colon - p) : n;
	if (h > 1 && p[0] == '[' && p[h - 1] == ']') {
		if (!str_copy_n(host, host_len, p + 1, h - 2))
			return false;
	} else if (!str_copy_n(host, host_len, p, h)) {
		return false;
	}
	if (colon == NULL)
		return str_copy(port, port_len, "5432");
	return str_copy_n(port, port_len, colon + 1, n - h - 1);
}

#define RECOVERY_ROWS_MAX  32
#define RECOVERY_TRIES_MAX 3
#define RECOVERY_SETTLE_MS 1000 /* a reload takes effect within this time */

/* Before 12 recovery.conf is no setting: what the receiver uses is all that can be seen. */
static bool receiver_differs(const struct recovery *wanted, const struct pg_sql *f)
{
	static struct conninfo have; /* large */
	struct conninfo want = wanted->conninfo;
	if (!wanted->has_conninfo || f->receiver_conninfo[0] == '\0' ||
		!conninfo_parse(f->receiver_conninfo, &have))
		return false;
	conninfo_del(&want, "dbname");
	const char *slot = json_string_value(params_get(wanted->settings, "primary_slot_name"));
	return !conninfo_covers(&have, &want, 11) ||
	       (slot != NULL && strcmp(f->receiver_slot, slot) != 0);
}

static uint64_t sign_add(uint64_t sign, const char *text)
{
	for (; text != NULL && *text != '\0'; text++)
		sign = (sign ^ (unsigned char)*text) * 1099511628211u;
	return sign;
}

static uint64_t sign_of(const struct pgctx *p, const struct recovery *wanted, const char *rows)
{
	AUTO(buf) text = BUF_INIT(LIMIT_CONNINFO * 4);
	conninfo_format(&wanted->conninfo, p->major, &text);
	char *set = json_dumps(wanted->settings, JSON_SORT_KEYS);
	uint64_t sign = sign_add(sign_add(14695981039346656037u, rows), set);
	free(set);
	return sign_add(sign, buf_str(&text));
}

static void compare_settings(const struct pgctx *p, const struct pg_sql *f,
	const struct recovery *wanted, const json_t *list, struct recovery_verdict *v)
{
	struct recovery_row rows[RECOVERY_ROWS_MAX];
	char conf[LIMIT_PATH], automatic[LIMIT_PATH];
	unsigned n = 0;
	memset(v, 0, sizeof(*v));
	if (!str_format(conf, sizeof(conf), "%s/%s.conf", p->config_dir, p->conf_name) ||
		!str_format(automatic, sizeof(automatic), "%s/postgresql.auto.conf", p->data_dir))
		return;
	for (size_t i = 0; i < json_array_size(list) && n < ARRAY_LEN(rows); i++) {
		const json_t *row = json_array_get(list, i);
		rows[n] = (struct recovery_row){ json_string_value(json_array_get(row, 0)),
			json_string_value(json_array_get(row, 1)),
			json_string_value(json_array_get(row, 2)),
			json_string_value(json_array_get(row, 3)),
			json_is_true(json_array_get(row, 4)) };
		if (rows[n].name != NULL && rows[n].context != NULL)
			n++;
	}
	/* A promotion removes the signal file while the server is still in recovery: its absence is
	 * no reason to restart. That this server was adopted is known by follow_known. */
	struct recovery_state s = { .major = p->major,
		.signal_there = true,
		.conf_file = conf,
		.auto_file = automatic,
		.receiver_conninfo = f->receiver_conninfo,
		.receiver_slot = f->receiver_slot };
	recovery_compare(wanted, &s, rows, n, v);
}

/* Is a further reload worth it? */
static bool reload_helps(struct pgctx *p, const struct pg_sql *f, const char *reason)
{
	if (p->reload_tries == 0 || p->reloaded_sign != p->differs_sign)
		return true;
	if (f->asked_at_ms < p->reloaded_ms + RECOVERY_SETTLE_MS)
		return false;
	if (p->reload_tries == RECOVERY_TRIES_MAX) {
		log_warning(
			"recovery setting %s stays different: reloads do not change it", reason);
		p->reload_tries++; /* said once */
	}
	return p->reload_tries < RECOVERY_TRIES_MAX;
}

void pgctx_recovery_restarted(struct pgctx *p)
{
	if (p->restarted_sign != p->differs_sign)
		log_info("restart for a difference of recovery settings: one only");
	p->restarted_sign = p->differs_sign;
}

void pgctx_recovery_reloaded(struct pgctx *p)
{
	p->reload_tries = p->reloaded_sign == p->differs_sign ? p->reload_tries + 1 : 1;
	p->reloaded_sign = p->differs_sign;
	p->reloaded_ms = clock_boot_ms();
}

void pgctx_check_recovery(struct pgctx *p, const struct pg_sql *f, const struct pg_target *target,
	bool *out_differ, bool *out_restart)
{
	static struct recovery wanted; /* large */
	struct err err = ERR_INIT;
	struct recovery_verdict v = { .differs = false };
	*out_differ = false;
	/* Before 13 nobody who waits for WAL hears of another upstream. */
	*out_restart = !f->valid && p->state == PG_STATE_STARTING && p->follow_known &&
		       p->major != 0 && p->major < 13;
	if (!f->valid || !f->in_recovery || !p->follow_known || p->bootstrapping ||
		render_recovery(p, target, &wanted, &err) != ERR_OK)
		return;
	if (p->major < 12) {
		bool differs = receiver_differs(&wanted, f);
		p->differs_sign =
			sign_add(sign_of(p, &wanted, f->receiver_conninfo), f->receiver_slot);
		recovery_done(&wanted);
		*out_differ = *out_restart = differs && p->differs_sign != p->restarted_sign;
		return;
	}
	json_auto_t *list = f->recovery_json != NULL ? json_loads(f->recovery_json, 0, NULL) : NULL;
	compare_settings(p, f, &wanted, list, &v);
	p->differs_sign = sign_of(p, &wanted, f->recovery_json);
	recovery_done(&wanted);
	if (!v.differs)
		p->reload_tries = 0;
	*out_restart = v.confirmed;
	*out_differ = v.confirmed || (v.differs && reload_helps(p, f, v.reason));
	if (*out_differ)
		log_info("recovery setting differs name=%s restart=%d", v.reason, v.confirmed);
}

static unsigned word_count(const char *list)
{
	unsigned n = 1;
	for (; *list != '\0'; list++)
		n += *list == ',';
	return n;
}

/* The n-th word takes the place of the list, which is never shorter. */
static void keep_word(char *list, unsigned n)
{
	const char *from = list;
	for (; n > 0 && *from != '\0'; from++)
		n -= *from == ',';
	size_t len = strcspn(from, ",");
	memmove(list, from, len);
	list[len] = '\0';
}

void pgctx_one_host(struct pg_target *target, unsigned turn)
{
	unsigned hosts = word_count(target->host), ports = word_count(target->port);
	turn %= hosts;
	keep_word(target->host, turn);
	keep_word(target->port, ports == hosts ? turn : 0); /* libpq: one port serves all */
}
