/* Unified diff of two short texts, line by line (ctl 6.5). Pure. */
#pragma once
#include "common/core/buf.h"

#define DIFF_LINES_MAX 4096

/* Three lines of context, headers "--- " and "+++ " without names. False: too many lines or no
 * memory. */
MUST_USE bool diff_write(const char *before, const char *after, struct buf *out);
