/* Rows of JSON values to text: ASCII box, TSV, JSON, YAML (ctl 4.8). */
#pragma once
#include <stdbool.h>
#include <jansson.h>

#include "common/core/buf.h"

enum table_format { TABLE_PRETTY = 0, TABLE_TSV, TABLE_JSON, TABLE_YAML };

struct table_column {
	const char *title;  /* json, yaml, tsv */
	const char *pretty; /* NULL = not shown there */
	bool right;
};

struct table {
	const struct table_column *columns;
	unsigned column_count;
	json_t *rows;	   /* array of arrays, column_count each; borrowed */
	const char *title; /* laid over the top rule of the box; NULL = none */
	bool drop_empty;   /* json, yaml: leave out keys whose value is "" */
};

/* NULL = pretty. */
enum table_format table_format_of(const char *name);
/* False: no memory, or more columns than the box takes. */
MUST_USE bool table_write(const struct table *t, enum table_format format, struct buf *out);
/* Columns that text (UTF-8) takes on a terminal. */
unsigned table_width(const char *s, size_t len);
