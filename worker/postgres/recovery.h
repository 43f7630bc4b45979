/* Recovery settings of a standby: what is wanted, its text, and whether what is set differs
 * (ha 11.7, config 4.8). Pure; run by the worker. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "common/core/buf.h"
#include "worker/postgres/conninfo.h"

enum recovery_source { RECOVERY_FROM_NONE = 0, RECOVERY_FROM_MEMBER, RECOVERY_FROM_REMOTE };

struct recovery_env {
	int32_t major;
	const char *name;	/* of this member: application_name, slot */
	const char *database;	/* postgresql.database */
	const char *krbsrvname; /* NULL = none */
	const char *pgpass;	/* our password file */
	const json_t *auth;	/* postgresql.authentication.replication */
	const json_t *conf;	/* recovery_conf in force (params_compute); may be NULL */
	const json_t *standby;	/* standby_cluster; may be NULL */
	bool use_slots, nostream;
	/* whom to follow; all NULL when from is NONE */
	enum recovery_source from;
	const char *from_name, *host, *port, *dbname;
	const char *slot; /* REMOTE: the configured one; NULL = own name */
	bool no_slot;	  /* REMOTE: without a slot */
};

/* Owned by its user. */
struct recovery {
	json_t *settings; /* name -> scalar, without primary_conninfo */
	bool has_conninfo;
	struct conninfo conninfo; /* with its password */
};
void recovery_done(struct recovery *r);

MUST_USE enum err_code recovery_want(
	const struct recovery_env *env, struct recovery *out, struct err *err);
/* The recovery_conf of a custom bootstrap as it stands. */
MUST_USE enum err_code recovery_from_conf(
	const json_t *conf, int32_t major, struct recovery *out, struct err *err);
/* Which file makes the server recover: "standby.signal", "recovery.signal", before 12
 * "recovery.conf" (the lines themselves). */
const char *recovery_signal_file(const struct recovery *r, int32_t major);
/* Lines "name = 'value'", sorted. From 10 on the password goes to the file pgpass: *out_pass gets
 * its lines (untouched when there is no password). */
void recovery_write(const struct recovery *r, int32_t major, const char *pgpass, struct buf *out,
	struct buf *out_pass, struct buf *notes);

/* ---- comparing ---- */

struct recovery_row { /* of pg_settings */
	const char *name, *setting, *context, *sourcefile;
	bool pending_restart; /* the server read another value and waits for a restart */
};
struct recovery_state {
	int32_t major;
	bool signal_there; /* standby.signal; before 12 recovery.conf */
	bool starting;
	bool adopted; /* 12+: just joined a running server: one rewrite is due */
	const char *conf_file, *auto_file; /* absolute names of our two configuration files */
	const char *receiver_conninfo;	   /* pg_stat_wal_receiver; "" or NULL = no receiver */
	const char *receiver_slot;
	const char
		*passfile; /* content of the file that conninfo names; NULL = could not be read */
};
/* Names of the settings to ask pg_settings for, each with its zero. */
void recovery_compared_names(int32_t major, struct buf *out);
struct recovery_verdict {
	bool differs, restart;
	bool confirmed;	  /* the server says itself that a restart changes the value */
	char reason[200]; /* the first difference; no passwords */
};
/* rows NULL: settings could not be read. */
void recovery_compare(const struct recovery *wanted, const struct recovery_state *s,
	const struct recovery_row *rows, unsigned row_count, struct recovery_verdict *out);
