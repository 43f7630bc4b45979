/* Timestamps as clients of the REST API and PostgreSQL write them (rest 3, 8). Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"

struct timestamp {
	int64_t wall_us; /* since 1970, UTC; without a zone: as if it were UTC */
	bool has_zone;
	int offset_min;
};
/* ISO 8601 with 'T' or a blank, minutes or seconds or fractions; Z, +HH, +HH:MM, +HHMM or no zone.
 */
MUST_USE bool timestamp_parse(const char *text, struct timestamp *out);
/* YYYY-MM-DDTHH:MM:SS[.ffffff]+HH:MM, as the store keeps it. */
void timestamp_iso(const struct timestamp *t, char out[static 40]);
