/* The log section of the configuration: level, loggers, format, JSON (config 1.2). Where the lines
 * go is log.c's affair. For worker and api; their sink is set here. */
#pragma once
#include <jansson.h>

#include "common/core/buf.h"
#include "common/core/log.h"

/* Take a log section over (NULL: all defaults). On an error the old one stays; err names key, value
 * and what is allowed. What can be done without is a line in notes. */
MUST_USE enum err_code logging_apply(const json_t *section, struct buf *notes, struct err *err);
/* A level's word in any case; false: not one. */
MUST_USE bool logging_level(const char *word, enum log_level *out);
/* The record as the section in force says, without a line break. For the sink and for tests. */
void logging_format(const struct log_record *r, struct buf *out);
/* The reference's name of the module that wrote the record: "patroni.ha". */
const char *logging_name(const struct log_record *r);
