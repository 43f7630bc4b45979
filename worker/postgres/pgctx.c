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
	/* No rewind user: the superuser's (config 1.9). */
	if (a == NULL && strcmp(section, "rewind") == 0)
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

void pgctx_params_local(const struct pgctx *p, struct pgc *conn, const char *statement_timeout)
{
	struct pgc_params c = { .count = 0 };
	bool ok = pgc_params_set(&c, "port", p->local_port);
	if (p->local_host[0] == '/')
		ok = ok && pgc_params_set(&c, "host", p->local_host);
	else if (strcmp(p->local_host, "localhost") == 0)
		/* No name is resolved by libpq; the name itself serves certificates. */
		ok = ok && pgc_params_set(&c, "host", "localhost") &&
		     pgc_params_set(&c, "hostaddr", "127.0.0.1");
	else
		ok = ok && pgc_params_set(&c, "host", p->local_host) &&
		     pgc_params_set(&c, "hostaddr", p->local_host);
	ok = ok && set_auth(p, &c, "superuser") &&
	     set_common(p, &c, conn->purpose, statement_timeout) && pgc_configure(conn, &c);
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

void pgctx_check_recovery(
	struct pgctx *p, const struct pg_sql *f, bool *out_differ, bool *out_restart)
{
	*out_differ = *out_restart = false;
	if (!f->valid || !f->in_recovery)
		return;
	/* Before 13 a changed primary_conninfo needs a restart (config 4.8). */
	bool needs_restart = p->major < 13;
	if (!p->follow_known)
		return;
	static struct conninfo wanted, have; /* large */
	struct err err = ERR_INIT;
	memset(&wanted, 0, sizeof(wanted));
	if (p->target.kind == TARGET_NONE || f->receiver_conninfo[0] == '\0')
		return;
	if (render_conninfo(p, &p->target, &wanted, &err) != ERR_OK ||
		!conninfo_parse(f->receiver_conninfo, &have))
		return;
	/* The walreceiver shows its password obfuscated, and dbname only from 17 on. */
	conninfo_del(&wanted, "password");
	conninfo_del(&wanted, "passfile");
	if (p->major < 17)
		conninfo_del(&wanted, "dbname");
	char slot[64];
	str_slot_name(p->name, slot);
	bool slot_differs = p->set->use_slots && p->target.kind == TARGET_MEMBER &&
			    strcmp(f->receiver_slot, slot) != 0;
	*out_differ = slot_differs || !conninfo_covers(&have, &wanted, p->major);
	*out_restart = *out_differ && needs_restart;
}
