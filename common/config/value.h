/* Scalars of the configuration as the contract reads them (config 5.1, 5.2). Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"

/* on true yes 1 / off false no 0 in any case; anything else: false. */
MUST_USE bool value_parse_bool(const char *s, bool *out);
/* Number with an optional unit. base_unit is what the number counts ("kB", "8kB", "ms"), NULL =
 * plain numbers only. A value with a unit is converted and rounded as PostgreSQL does it. False:
 * not a number, or a unit that does not fit. */
MUST_USE bool value_parse_int(const char *text, const char *base_unit, int64_t *out);
MUST_USE bool value_parse_real(const char *text, const char *base_unit, double *out);
