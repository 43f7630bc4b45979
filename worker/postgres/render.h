/* From configuration to bytes: the texts of PostgreSQL's configuration files and the command lines
 * of its programs. A thin layer that joins pgctx with params, conninfo and sync_names (config 4.1
 * to 4.9). */
#pragma once
#include "worker/postgres/conninfo.h"
#include "worker/postgres/pgctx.h"
#include "worker/postgres/recovery.h"

/* The texts for a role and target; control != NULL: its values are the floor of a standby
 * (config 4.9). hba, ident and pass stay empty when they are not ours to write. */
MUST_USE enum err_code render_all(struct pgctx *p, enum pg_role role,
	const struct pg_target *target, const struct pg_control *control, struct buf *conf,
	struct buf *hba, struct buf *ident, struct buf *pass, struct err *err);
/* primary_conninfo for a target. */
MUST_USE enum err_code render_conninfo(const struct pgctx *p, const struct pg_target *target,
	struct conninfo *out, struct err *err);
/* The recovery settings that render_all writes for a target, as recovery_compare wants them; without
 * password and passfile. */
MUST_USE enum err_code render_recovery(struct pgctx *p, const struct pg_target *target,
	struct recovery *out, struct err *err);
bool render_uses_base(const struct pgctx *p); /* no custom_conf: the original becomes *.base.conf */
bool render_is_ours(const char *text, size_t len); /* begins with our header */
void render_recovery_names(struct buf *out); /* zero-terminated names of all recovery settings */
/* The signal file of a custom bootstrap's recovery_conf; NULL = none (config 4.8). */
const char *render_custom_signal(const struct pgctx *p);
/* Command line of the postmaster (config 4.1). */
MUST_USE enum err_code render_postmaster(struct pgctx *p, enum pg_role role,
	const struct pg_control *control, struct host_cmd *cmd, struct err *err);
/* Options of initdb, basebackup, rewind (config 5.5) into argv. forbidden: NULL-terminated; one of
 * them is an error when strict, else dropped with a log line. */
MUST_USE enum err_code render_options(const json_t *options, const char *what,
	const char *const *forbidden, bool strict, struct host_cmd *cmd, struct err *err);
/* Each line as a warning. */
void render_log_notes(const struct buf *notes);
/* Which settings wait for a restart: the query, and its result into p->pending_restart. */
void render_pending_sql(struct buf *out);
void render_take_pending(struct pgctx *p, const PGresult *res);
