/* The configuration files of a role and an upstream, written through pgregent-files:
 * postgresql.conf and its neighbours, the signal file, recovery.conf, the password file. Worker
 * process. See control.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/conf_write.h"
#include "worker/postgres/control.h"
#include "worker/postgres/render.h"
#include "worker/postgres/sync_names.h"

#define FILES_MS      30000
#define CONF_READ_MAX 60000 /* one frame; ours is a few KiB */

/* A buffer with a cleanup must not live across a CO_WAIT: requests are made in functions of their
 * own. */
static void write_path(struct co *co, const char *path, const struct buf *text, uint32_t mode)
{
	AUTO(buf) tail = BUF_INIT(LIMIT_IPC_FRAME - 256);
	buf_add(&tail, path, strlen(path) + 1);
	buf_add(&tail, text->data, text->len);
	if (tail.failed)
		co_wake(co, co_ticket(co), false, "content too long");
	else
		co_files(co, FILES_WRITE_ATOMIC, mode, 0, FILES_F_IF_CHANGED, tail.data, tail.len,
			FILES_MS);
}

static void write_file(
	struct co *co, const char *dir, const char *name, const struct buf *text, uint32_t mode)
{
	char path[LIMIT_PATH + LIMIT_NAME + 16];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	write_path(co, path, text, mode);
}

static void clean_auto_conf(struct co *co)
{
	AUTO(buf) names = BUF_INIT(4096);
	render_recovery_names(&names);
	co_files(co, FILES_AUTO_CONF_CLEAN, 0, 0, 0, names.data, names.len, FILES_MS);
}

static void file_op2(struct co *co, enum files_op op, uint64_t arg, const char *dir, const char *a,
	const char *b)
{
	AUTO(buf) tail = BUF_INIT(LIMIT_IPC_FRAME - 256);
	buf_addf(&tail, "%s/%s", dir, a);
	buf_add(&tail, "", 1);
	if (b != NULL) {
		buf_addf(&tail, "%s/%s", dir, b);
		buf_add(&tail, "", 1);
	}
	co_files(co, op, 0, 0, arg, tail.data, tail.len, FILES_MS);
}

static void read_file(struct co *co, const char *dir, const char *name)
{
	AUTO(buf) tail = BUF_INIT(LIMIT_PATH * 2);
	buf_addf(&tail, "%s/%s", dir, name);
	buf_add(&tail, "", 1);
	co_files(co, FILES_READ, 0, CONF_READ_MAX, FILES_F_PARTIAL, tail.data, tail.len, FILES_MS);
}

/* What an earlier worker had PostgreSQL wait for stays until ha_step decides anew. */
static void take_ssn(struct pgctx *p, const struct co *co)
{
	p->ssn_known = true;
	if (co->ok && conf_is_ours(buf_str(&co->data), co->data.len) &&
		sync_names_of_conf(buf_str(&co->data), co->data.len, p->ssn, sizeof(p->ssn)))
		p->ssn_managed = true;
}

#define RENDER_FAIL(s, co, what)                                                                   \
	do {                                                                                       \
		render_texts_done(&(s)->texts);                                                    \
		CO_RETURN(co, false, "%s: %s", what, (co)->note);                                  \
	} while (0)

void seq_render_step(struct co *co)
{
	struct seq_render *s = (struct seq_render *)co;
	struct pgctx *p = s->p;
	struct err err = ERR_INIT;
	char conf[LIMIT_NAME + 8], base[LIMIT_NAME + 16];
	snprintf(conf, sizeof(conf), "%s.conf", p->conf_name);
	snprintf(base, sizeof(base), "%s.base.conf", p->conf_name);
	CO_BEGIN(co);
	s->changed = s->is_users = false;
	read_file(co, p->config_dir, conf);
	CO_WAIT(co);
	if (!co->ok && co->sys_errno != ENOENT)
		CO_RETURN(co, false, "%s: %s", conf, co->note);
	if (!p->ssn_known)
		take_ssn(p, co);
	s->is_users = co->ok && !conf_is_ours(buf_str(&co->data), co->data.len);
	s->texts = (struct render_texts)RENDER_TEXTS_INIT;
	if (render_all(p, s->role, &s->target, s->for_start ? s->control : NULL, &s->texts, &err) !=
		ERR_OK) {
		render_texts_done(&(s)->texts);
		CO_RETURN(co, false, "configuration: %s", err.text);
	}
	/* The user's own file becomes the base file once; one with our header never does (config 8
	 * #11). */
	if (render_uses_base(p) && s->is_users) {
		file_op2(co, FILES_RENAME, FILES_F_IF_ABSENT, p->config_dir, conf, base);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, "base configuration");
	}
	write_file(co, p->config_dir, conf, &s->texts.conf, 0);
	CO_WAIT(co);
	if (!co->ok)
		RENDER_FAIL(s, co, "postgresql.conf");
	s->changed |= co->value == 1;
	if (s->texts.hba.len > 0) {
		write_file(co, p->config_dir, "pg_hba.conf", &s->texts.hba, 0);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, "pg_hba.conf");
		s->changed |= co->value == 1;
	}
	if (s->texts.ident.len > 0) {
		write_file(co, p->config_dir, "pg_ident.conf", &s->texts.ident, 0);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, "pg_ident.conf");
		s->changed |= co->value == 1;
	}
	if (s->texts.pass.len > 0) {
		write_path(co, p->pgpass, &s->texts.pass, 0600);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, "passfile");
	}
	if (s->signal_file != NULL) {
		co_files(co, FILES_CREATE_EMPTY, 0, 0, 0, s->signal_file,
			strlen(s->signal_file) + 1, FILES_MS);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, s->signal_file);
	}
	if (s->texts.recovery.len > 0) {
		write_file(co, p->data_dir, "recovery.conf", &s->texts.recovery, 0);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, "recovery.conf");
		s->changed |= co->value == 1;
	}
	if (p->major >= 12 && !render_keeps_recovery(p)) {
		clean_auto_conf(co);
		CO_WAIT(co);
		if (!co->ok)
			RENDER_FAIL(s, co, "postgresql.auto.conf");
	}
	render_texts_done(&(s)->texts);
	CO_END(co);
}
