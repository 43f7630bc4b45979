/* One run of the control tool: where its facts come from, what it asks, how it ends. A run is short
 * and has one job: what cannot go on ends it with `fail`, and the kernel takes everything back. */
#pragma once
#include <stdbool.h>
#include <jansson.h>

#include "common/config/local.h"
#include "common/core/err.h"
#include "common/core/limits.h"
#include "common/core/loop.h"
#include "common/dcs/dcs.h"
#include "common/ext/http.h"
#include "ctl/args.h"
#include "ctl/table.h"

struct ctl {
	const char *prog;
	const char *config_path, *dcs_url; /* of the command line; NULL = not given */
	bool insecure;
	struct local_config local;
	json_t *tree; /* of local, with --dcs-url over it */
	bool store;   /* straight from the store; else over the local socket */
	char backend[16];
	char socket[LIMIT_PATH], socket_member[LIMIT_NAME];
	struct loop loop;
	struct http *http;
	struct dcs *dcs;
	char dcs_scope[LIMIT_NAME];
	int group;  /* --group, -1 = none */
	int status; /* exit code of a run that went to its end */
};

/* The cluster as the commands need it, from either source. */
struct view {
	char scope[LIMIT_NAME], system_id[32], leader[LIMIT_NAME];
	json_t *doc;	/* as GET /cluster answers */
	json_t *config; /* NULL = no key */
	int64_t config_version;
	json_t *history;   /* array */
	struct cluster *c; /* NULL over the local socket */
};

/* main.c */
_Noreturn void fail(const char *fmt, ...) PRINTF(1, 2);
_Noreturn void fail_usage(const char *fmt, ...) PRINTF(1, 2);

/* prompt.c: as str_copy and str_format; what does not fit ends the run. */
void put_copy(char *dst, size_t dst_len, const char *src);
void put_format(char *dst, size_t dst_len, const char *fmt, ...) PRINTF(3, 4);

/* source.c: configuration, store, local socket */
void source_open(struct ctl *c);
void source_close(struct ctl *c);
/* The named cluster, the configured one with NULL. */
const char *source_scope(struct ctl *c, const char *word);
/* The agent of this node, whatever the configuration says; ends the run when there is none. */
void source_socket(struct ctl *c, const char *word);
void source_read(struct ctl *c, const char *scope, struct view *v);
void source_done(struct view *v);
/* A write to the store and its outcome; ends the run on no answer. */
enum dcs_outcome source_write(
	struct ctl *c, enum dcs_op_kind kind, const char *value, int64_t version);
int64_t source_timing_ms(const struct ctl *c, const char *key, int64_t def_ms);

/* document.c: struct cluster to the document of GET /cluster */
json_t *document_make(const struct cluster *c, const char *scope, const json_t *config);
bool document_paused(const json_t *config);

/* rest.c */
struct answer {
	long status; /* 0: no answer, body says why */
	char *body;  /* owned */
};
/* member NULL: the local socket. The body is borrowed. wait_ms 0: as long as it takes. */
void rest_call(struct ctl *c, const json_t *member, const char *method, const char *path,
	const json_t *body, int64_t wait_ms, struct answer *out);
void rest_call_url(struct ctl *c, const char *url, const char *method, const json_t *body,
	int64_t wait_ms, struct answer *out);
void answer_done(struct answer *a);

/* prompt.c */
/* The answer, not shown on a terminal while it is typed. */
void prompt_hidden(const char *text, char *out, size_t out_len);
/* The answer to "<text> [<def>]: "; def NULL: asks until there is one. End of input ends the run.
 */
void prompt_text(const char *text, const char *def, char *out, size_t out_len);
bool prompt_confirm(const char *text);

/* when.c */
/* --scheduled to ISO 8601 with offset; "" = now. False: not understood. */
MUST_USE bool when_parse(const char *text, char *out, size_t out_len);
void when_example(char *out, size_t out_len);			 /* one hour from now */
void when_stamp(char *out, size_t out_len, int fraction_digits); /* local time, now */

/* -w, -W in seconds; 0 = once. */
double watch_interval(const struct args *a);
/* Until the next round, start to start; *at_us is kept by the caller from clock_monotonic_us(). */
void watch_sleep(double seconds, int64_t *at_us);

/* members.c: the member table */
void members_print(const struct view *v, enum table_format format, bool extended, bool tree);
const char *member_str(const json_t *m, const char *key); /* "" = none */
bool member_is_leader(const json_t *m);
bool member_has_role(const json_t *m, const char *role);
const json_t *member_find(const struct view *v, const char *name);

/* Commands: argument list in, exit code in c->status. */
void cmd_list(struct ctl *c, const struct args *a);
void cmd_topology(struct ctl *c, const struct args *a);
void cmd_switchover(struct ctl *c, const struct args *a);
void cmd_failover(struct ctl *c, const struct args *a);
void cmd_pause(struct ctl *c, const struct args *a);
void cmd_resume(struct ctl *c, const struct args *a);
void cmd_show_config(struct ctl *c, const struct args *a);
void cmd_edit_config(struct ctl *c, const struct args *a);
void cmd_restart(struct ctl *c, const struct args *a);
void cmd_reload(struct ctl *c, const struct args *a);
void cmd_reinit(struct ctl *c, const struct args *a);
void cmd_flush(struct ctl *c, const struct args *a);
void cmd_history(struct ctl *c, const struct args *a);
void cmd_dsn(struct ctl *c, const struct args *a);
void cmd_version(struct ctl *c, const struct args *a);
void cmd_remove(struct ctl *c, const struct args *a);
void cmd_query(struct ctl *c, const struct args *a);
void cmd_upgrade(struct ctl *c, const struct args *a);
void cmd_demote_cluster(struct ctl *c, const struct args *a);
void cmd_promote_cluster(struct ctl *c, const struct args *a);
