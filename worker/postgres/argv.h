/* Command lines of PostgreSQL's programs and of the user's scripts
 * (config 1.5, 1.8, 1.10, 4.1, 5.5). Pure; run by the worker. An argv is its strings one after the
 * other, each with its zero, as messages carry it; never a shell line. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "common/core/buf.h"
#include "common/core/limits.h"

struct argv {
	struct buf bytes;
	unsigned count;
};
#define ARGV_INIT                                                                                  \
	{                                                                                          \
		.bytes = BUF_INIT(LIMIT_IPC_FRAME - 4096)                                          \
	}
static inline void argv_done(struct argv *a)
{
	buf_done(&a->bytes);
	a->count = 0;
}

void argv_add(struct argv *a, const char *arg);
void argv_addf(struct argv *a, const char *fmt, ...) PRINTF(2, 3);
/* Too long, or too many. Test once, at the end. */
bool argv_failed(const struct argv *a);
/* Words with shell quoting rules (quotes, backslash; nothing is expanded). False: a quote is not
 * closed; a may hold some of the words then. */
MUST_USE bool argv_split(struct argv *a, const char *command);

/* `initdb`, `basebackup`, `rewind` options (5.5) as --name or --name=value. forbidden: names with a
 * zero each, the last one empty. Each bad one is a line in notes. False: there was one. */
MUST_USE bool argv_options(struct argv *a, const char *tool, const json_t *options,
	const char *forbidden, struct buf *notes);

/* Each begins with `program` (a path). False: options that stop it; notes say why. */
void argv_postmaster(struct argv *a, const char *program, const char *data_dir,
	const char *conf_file, const json_t *params);
MUST_USE bool argv_initdb(struct argv *a, const char *program, const char *data_dir,
	const json_t *options, const char *superuser, const char *pwfile, struct buf *notes);
/* Bad options are left out, as the reference does. */
void argv_basebackup(struct argv *a, const char *program, const char *data_dir,
	const char *conninfo, const json_t *options, int32_t version, struct buf *notes);
/* config_file: with restore and a configuration outside of the data directory from 15 on; else
 * NULL. */
void argv_rewind(struct argv *a, const char *program, const char *data_dir, const char *conninfo,
	const json_t *options, bool restore, const char *config_file, struct buf *notes);
/* postgres --single with the options of postmaster.opts (ha 6.6), sorted by name. conf_file is that
 * of now: the one named there may be another. */
void argv_single(struct argv *a, const char *program, const char *data_dir, const char *conf_file,
	const char *postmaster_opts);
/* Clone method x; section may be NULL. connstring "" = no source. */
MUST_USE bool argv_clone_method(struct argv *a, const char *method, const json_t *section,
	const char *scope, const char *data_dir, const char *connstring, struct buf *notes);
MUST_USE bool argv_custom_bootstrap(struct argv *a, const json_t *section, const char *scope,
	const char *data_dir, struct buf *notes);
/* Command, then its arguments, each with a zero (NULL: none). Callbacks: "on_start", role, scope;
 * post_bootstrap: conninfo. */
MUST_USE bool argv_script(
	struct argv *a, const char *command, const char *args, size_t args_len, struct buf *notes);
/* %p %f %r %% in an archive or restore command. */
void argv_archive_command(
	const char *command, const char *wal_dir, const char *segment, struct buf *out);
