/* Text of the files that we write for PostgreSQL: postgresql.conf, pg_hba.conf, pg_ident.conf
 * (config 4.4, 4.5). Pure; writing them is a request to pgregent-files. Run by the worker. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "common/core/buf.h"

struct conf_env {
	int32_t version;		   /* as 150020 */
	const char *include;		   /* custom_conf, or "<config_base_name>.base.conf" */
	const char *hba_file, *ident_file; /* ours, absolute */
	bool custom_bootstrap;		   /* hba_file is forced to ours (4.5) */
	/* Does `postgres --describe-config` list this name? NULL: not known yet, then such a
	 * setting is kept, since leaving a valid one out changes the server and PostgreSQL names a
	 * bad one itself. */
	bool (*listed)(void *arg, const char *name);
	void *listed_arg;
};

extern const char conf_header[];
/* recovery: lines of recovery_write, "" = none. notes: lines for the log, each with "\n". False:
 * over the maximum of out. */
MUST_USE bool conf_write_main(const struct conf_env *env, const json_t *params,
	const char *recovery, struct buf *out, struct buf *notes);
/* One line "name = 'value'", quotes and backslashes doubled. */
void conf_write_line(struct buf *out, const char *name, const char *value);
/* Header and the text items of a list; false: no list, or an empty one: the file is not ours to
 * write. */
MUST_USE bool conf_write_lines(const json_t *list, struct buf *out);
/* pg_hba.conf while a custom bootstrap runs: trust for our own connections only. addresses of the
 * local host: numeric, or a name that PostgreSQL resolves itself. */
void conf_write_bootstrap_hba(const char *replication_user, const char *superuser,
	const char *const *addresses, unsigned address_count, struct buf *out);
/* <key>_<role> when it is there, else <key>. role: "primary", "replica", "standby_leader".
 * Borrowed; NULL = neither. */
const json_t *conf_role_list(const json_t *pg, const char *key, const char *role);
/* The text begins with our header: it is not the user's original. */
bool conf_is_ours(const char *text, size_t len);
