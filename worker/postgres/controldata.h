/* The text that pg_controldata prints, in the C locale: the fallback for versions whose pg_control
 * pgregent-files does not read itself. Pure; run by the worker. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "common/core/err.h"
#include "common/model/pgstate.h"

/* Value of a line "<label>: <value>", without its blanks; "Current <label>" (before 9.5) counts
 * too. False: not there, or it does not fit. */
MUST_USE bool controldata_get(const char *text, const char *label, char *out, size_t out_len);
/* All fields of struct pg_control. ERR_PARSE: one that every version prints is missing or broken;
 * *out is not valid then. read_at_ms is the caller's. */
MUST_USE enum err_code controldata_parse(const char *text, struct pg_control *out, struct err *err);
/* "shut down in recovery" and so on; false: unknown words. */
MUST_USE bool controldata_state(const char *words, enum pg_db_state *out);
