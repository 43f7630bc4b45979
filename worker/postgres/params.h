/* Server settings: which are ours, which values are allowed, how the set is computed and compared
 * (config 4.1 to 4.3, 4.7, 4.9, table A). Pure; run by the worker. A set is a JSON object name ->
 * scalar; names compare without ASCII case. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/core/buf.h"
#include "common/model/pgstate.h"

/* ---- table A
 * -------------------------------------------------------------------------------------- */

enum param_type {
	PARAM_BOOL,
	PARAM_INTEGER,
	PARAM_REAL,
	PARAM_ENUM,
	PARAM_ENUM_BOOL,
	PARAM_STRING
};
struct param_row {
	const char *name;
	enum param_type type;
	int32_t from,
		until; /* versions as 150020; until 0 = still there; first row that fits decides */
	double min, max;
	const char *unit;   /* NULL = plain numbers */
	const char *values; /* of enumerations, separated by | */
};
extern const struct param_row param_table[], param_recovery_table[];
extern const unsigned param_table_count, param_recovery_table_count;

bool params_is_recovery(const char *name); /* A.2: never in the main part of postgresql.conf */
/* All names of A.2, each with its zero: what FILES_AUTO_CONF_CLEAN takes. */
void params_recovery_names(struct buf *out);

enum param_verdict {
	PARAM_KEEP, /* write the text */
	PARAM_DROP, /* leave the line out; note says why, "" = silently */
	PARAM_ASK,  /* no row for this version: keep it if `postgres --describe-config` lists the
		       name */
};
/* One value as it would be written. text (reset first) gets it; note (reset first) a line for the
 * log, also with KEEP when the value was moved to its limit. recovery: look at A.2 instead of A.1.
 */
enum param_verdict params_check(const char *name, const json_t *value, int32_t version,
	bool recovery, struct buf *text, struct buf *note);

/* ---- settings under our control (4.1)
 * --------------------------------------------------------------- */

struct param_ours {
	const char *name;
	const char *preset; /* default; NULL = computed */
	bool preset_int;
	int32_t from, until;
	bool cmdline;
};
extern const struct param_ours params_ours[]; /* in the order of the command line */
extern const unsigned params_ours_count;
const struct param_ours *params_ours_find(const char *name);
/* Step 1: is this value of the dynamic configuration accepted for a setting of ours? */
bool params_ours_accepts(const char *name, const json_t *value);
/* New reference: defaults, dynamic values that are accepted (integers as numbers), other dynamic
 * names as they are, local names that are not ours over them. Notes: lines for the log, each with
 * "\n". dynamic, local may be NULL. */
MUST_USE enum err_code params_merge(const json_t *dynamic, const json_t *local, json_t **out,
	struct buf *notes, struct err *err);

/* ---- the set (4.2, steps 3 to 10)
 * ------------------------------------------------------------------- */

struct params_env {
	int32_t major; /* 15; 0 = unknown */
	const char *scope;
	const char *listen; /* postgresql.listen */
	const char *config_dir;
	const char *overlay; /* "parameters_primary" and so on; NULL = none */
	bool sync_mode, sync_strict_primary;
	const char *ssn;	   /* managed synchronous_standby_names; NULL = none yet */
	bool hot_standby_feedback; /* permanent logical slots: forced on */
	bool citus;
	const char *citus_host; /* host of the local connection */
};
/* pg is the effective postgresql section. *out_params: new object; *out_recovery: the recovery_conf
 * in force (borrowed parts copied; may be an empty object), with recovery settings that stood in
 * parameters. */
MUST_USE enum err_code params_compute(const json_t *pg, const struct params_env *env,
	json_t **out_params, json_t **out_recovery, struct buf *notes, struct err *err);
/* 4.9: raise settings to what pg_control says; *out_diff: name -> {old_value, new_value}, new
 * object, may be empty. */
MUST_USE enum err_code params_floor(json_t *params, const struct pg_control *control, int32_t major,
	json_t **out_diff, struct err *err);

/* ---- comparing (4.6, 4.7)
 * --------------------------------------------------------------------------- */

/* A row of pg_settings. unit may be NULL. */
bool params_equal(const char *vartype, const char *unit, const char *setting, const char *wanted);
/* For people: 16384 of 8kB -> "128MB". As given when there is no unit that divides evenly. */
void params_pretty(const char *value, const char *vartype, const char *unit, struct buf *out);
/* wal_buffers of -1 or unset is shared_buffers / 32 blocks, at least 8, at most one segment. Both
 * in blocks. */
int64_t params_auto_wal_buffers(int64_t shared_buffers, int64_t segment_bytes, int64_t block_bytes);

/* ---- helpers over sets
 * ------------------------------------------------------------------------------ */

json_t *params_get(const json_t *set, const char *name); /* borrowed; NULL = not there */
/* Takes the reference of value. Replaces under the spelling that is there. */
MUST_USE bool params_set_new(json_t *set, const char *name, json_t *value);
void params_del(json_t *set, const char *name);
/* A scalar as text the way it is written: true -> True, null -> None; an array or object in
 * brackets. */
void params_text(const json_t *value, struct buf *out);
/* "h1,h2:5400" to addresses and port (config 5.3). */
MUST_USE bool params_split_listen(const char *listen, struct buf *hosts, int *out_port);
