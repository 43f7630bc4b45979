/* What the sequences of worker/postgres share: where PostgreSQL lives, how to reach it, its
 * in-memory role and state (the contract's P.role and P.state), the configuration that its files
 * are made of. Owned by the worker; one per process. */
#pragma once
#include <jansson.h>

#include "common/model/pgstate.h"
#include "common/model/settings.h"
#include "worker/postgres/co.h"
#include "worker/postgres/conn.h"
#include "worker/postgres/host.h"

/* Whom a standby follows. */
struct pg_target {
	enum { TARGET_NONE = 0, TARGET_MEMBER, TARGET_REMOTE } kind;
	char name[LIMIT_NAME];
	char host[LIMIT_URL]; /* may list several (remote) */
	char port[LIMIT_PORTS];
};

struct pgctx {
	struct host *h;
	struct loop *loop;
	char name[LIMIT_NAME], scope[LIMIT_NAME];
	char data_dir[LIMIT_PATH], config_dir[LIMIT_PATH], bin_dir[LIMIT_PATH],
		database[LIMIT_NAME];
	char pgpass[LIMIT_PATH], conf_name[LIMIT_NAME]; /* "postgresql" */
	/* where we connect to our own server (config 5.4) */
	char local_host[LIMIT_URL], local_repl_host[LIMIT_URL], local_port[16];
	char conn_url[LIMIT_URL], proxy_url[LIMIT_URL];
	int32_t major;	  /* of the data directory, 0 = unknown */
	const json_t *pg; /* effective postgresql section (config 3.2); borrowed until the next
			     configuration */
	const json_t *bootstrap; /* local bootstrap section; may be NULL */
	const json_t *standby;	 /* standby_cluster of the dynamic document; may be NULL */
	const struct settings *set;
	/* in-memory state; changed through the two functions below only */
	enum pg_role role;
	enum pg_state state;
	int64_t state_since_ms;
	void (*on_change)(struct pgctx *p, void *arg);
	void *on_change_arg;
	/* connections of the sequences */
	struct pgc sql;	   /* local, any database work of a sequence */
	struct pgc remote; /* the leader */
	struct probe *probe;
	/* what was written last */
	struct pg_target target; /* of the last follow() */
	bool follow_known;
	char following[LIMIT_NAME];
	char *conf_text, *hba_text, *ident_text; /* last written; owned */
	/* A difference of recovery settings that a reload should have ended: see
	 * pgctx_check_recovery. */
	uint64_t differs_sign, reloaded_sign;
	unsigned reload_tries;
	int64_t reloaded_ms;
	uint64_t restarted_sign; /* the difference that the last restart was for; before 12 */
	json_t *recovery; /* recovery settings in force as we wrote them; owned; NULL = unknown */
	/* synchronous_standby_names as decided (ha 5.1); used when managed. Until ssn_known it is
	 * what the file has: a new worker must not take back what the old one promised in /sync
	 * (S7). */
	bool ssn_known, ssn_managed;
	char ssn[4096];
	bool hot_standby_feedback; /* forced on (ha 7.6) */
	/* restart pending: name -> {old_value, new_value}; owned, may be NULL */
	json_t *pending_restart;
	uint64_t notes_hash; /* of what render_all had to say about the settings last */
	/* callbacks */
	bool callbacks_called, bootstrapping;
	bool accept_due; /* of the last start: nobody has seen it accept connections yet */
	/* recovery_conf of a custom bootstrap until the new cluster is whole; owned; NULL = none */
	json_t *custom_recovery;
	/* Bootstrapping by a command: its files, its recovery settings if it keeps them. */
	bool custom_bootstrap, keep_recovery;
	int callback_pending; /* enum, replaces on_start at the end of the next start; 0 = on_start
			       */
	bool promote_committed;
	char last_error[480];
};

void pgctx_init(struct pgctx *p, struct host *h, struct loop *loop);
void pgctx_done(struct pgctx *p);
void pgctx_set_role(struct pgctx *p, enum pg_role role);
void pgctx_set_state(struct pgctx *p, enum pg_state state);
/* A program of PostgreSQL: bin_dir and bin_name applied. */
MUST_USE bool pgctx_program(const struct pgctx *p, const char *program, char *out, size_t len);
/* Connection parameters to our own server as superuser, statement_timeout in ms as text. */
void pgctx_params_local(const struct pgctx *p, struct pgc *conn, const char *statement_timeout);
/* The same for replication commands, with that section's user. */
void pgctx_params_local_repl(const struct pgctx *p, struct pgc *conn);
/* To another member as superuser (or `section`: "replication", "rewind"); hostaddr numeric. */
bool pgctx_params_remote(const struct pgctx *p, struct pgc *conn, const char *section,
	const char *hostaddr, const char *host, const char *port);
/* authentication.<section>.<key>, NULL = not set. */
const char *pgctx_auth(const struct pgctx *p, const char *section, const char *key);
/* Do the recovery settings that the target wants differ from those in force (ha 11.7)? Neither
 * answer can be given for ever by a comparison that is wrong:
 * - restart only when the server itself has marked a differing setting pending_restart. A server
 *   just started has no marks, and only another change of its files makes one;
 * - reload at most three times for the same settings in force and wanted. */
void pgctx_check_recovery(struct pgctx *p, const struct pg_sql *f, const struct pg_target *target,
	bool *out_differ, bool *out_restart);
/* A restart for the difference found last was begun (before 12: what a restart did not change is
 * not restarted for again). */
void pgctx_recovery_restarted(struct pgctx *p);
/* A reload for the difference found last was sent. */
void pgctx_recovery_reloaded(struct pgctx *p);
/* Of a list of hosts (remote) the one whose turn it is, with its port; one host stays. */
void pgctx_one_host(struct pg_target *target, unsigned turn);
/* "host" and "port" of a conn_url "postgres://h[:p]/db"; false = not understood. */
MUST_USE bool pgctx_parse_url(
	const char *url, char *host, size_t host_len, char *port, size_t port_len);
