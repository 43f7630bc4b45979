/* From configuration to bytes: the texts of PostgreSQL's configuration files and the command lines
 * of its programs. A thin layer that joins pgctx with params, conninfo and sync_names (config 4.1
 * to 4.9). */
#pragma once
#include "worker/postgres/conninfo.h"
#include "worker/postgres/pgctx.h"
#include "worker/postgres/recovery.h"

/* What stays empty is not ours to write. recovery: recovery.conf, before PostgreSQL 12. */
struct render_texts {
	struct buf conf, hba, ident, pass, recovery;
};
#define RENDER_TEXT_MAX (LIMIT_IPC_FRAME - 4096)
#define RENDER_TEXTS_INIT                                                                          \
	{                                                                                          \
		.conf = BUF_INIT(RENDER_TEXT_MAX), .hba = BUF_INIT(RENDER_TEXT_MAX),               \
		.ident = BUF_INIT(RENDER_TEXT_MAX), .pass = BUF_INIT(RENDER_TEXT_MAX),             \
		.recovery = BUF_INIT(RENDER_TEXT_MAX)                                              \
	}
void render_texts_done(struct render_texts *t);
/* The texts for a role and target; control != NULL: its values are the floor of a standby
 * (config 4.9). */
MUST_USE enum err_code render_all(struct pgctx *p, enum pg_role role,
	const struct pg_target *target, const struct pg_control *control, struct render_texts *out,
	struct err *err);
/* The recovery settings that render_all writes for a target, as recovery_compare wants them;
 * without password and passfile. */
MUST_USE enum err_code render_recovery(
	struct pgctx *p, const struct pg_target *target, struct recovery *out, struct err *err);
bool render_uses_base(const struct pgctx *p); /* no custom_conf: the original becomes *.base.conf */
void render_recovery_names(struct buf *out);  /* zero-terminated names of all recovery settings */
/* The signal file of a custom bootstrap's recovery_conf; NULL = none (config 4.8). */
const char *render_custom_signal(const struct pgctx *p);
/* A custom bootstrap keeps what its command left: signal files, postgresql.auto.conf. */
bool render_keeps_recovery(const struct pgctx *p);
/* Command line of the postmaster (config 4.1). */
MUST_USE enum err_code render_postmaster(struct pgctx *p, enum pg_role role,
	const struct pg_control *control, struct host_cmd *cmd, struct err *err);
/* Each line as a warning. */
void render_log_notes(const struct buf *notes);
/* Which settings wait for a restart: the query, and its result into p->pending_restart. */
void render_pending_sql(struct buf *out);
void render_take_pending(struct pgctx *p, const PGresult *res);
