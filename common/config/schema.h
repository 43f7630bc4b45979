/* Every setting of the local configuration that is checked (config 6.3): one row each. A section's
 * rows follow it; the order is the order of the findings. Keys without a row are not checked. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

enum schema_type {
	SCHEMA_SECTION, /* a map with rows of its own */
	SCHEMA_MAP,
	SCHEMA_TEXT,
	SCHEMA_BOOL,
	SCHEMA_INT,    /* a YAML integer in a range */
	SCHEMA_NUMBER, /* an integer, also as text, perhaps with a unit, in a range */
	SCHEMA_REAL,   /* not below min, above it with `above` */
	SCHEMA_ENUM,
	SCHEMA_TEXTS,	/* a list of texts, not empty */
	SCHEMA_OPTIONS, /* a list of texts and maps, not empty */
	SCHEMA_CHECK,	/* a text for `check` */
	SCHEMA_ANY,	/* any value for `check` */
};
enum schema_need { SCHEMA_OPTIONAL = 0, SCHEMA_REQUIRED, SCHEMA_SOME_OF, SCHEMA_AT_MOST_ONE };

struct validate;
struct schema_row;
typedef void (*schema_check_fn)(
	struct validate *v, const char *path, const json_t *value, const struct schema_row *row);

struct schema_row {
	const char *path; /* "log.level" */
	enum schema_type type;
	enum schema_need
		need; /* SOME_OF, AT_MOST_ONE: together with the neighbours that have the same */
	int64_t min, max;    /* max 0 = none */
	int64_t multiple;    /* 0 = any */
	int64_t patroni_min; /* NUMBER: below it a warning, as a Patroni member does not take it; 0
				= none */
	bool above, fold;    /* REAL: min itself is too low; ENUM: any case */
	const char *unit;    /* NUMBER: what it counts */
	const char *words;   /* ENUM: separated by "|" */
	schema_check_fn check;
};

extern const struct schema_row schema_rows[];
extern const unsigned schema_row_count;
