/* Programs of PostgreSQL as --validate-config and --generate-sample-config look at them. One-shot
 * processes only: program_version starts a child and waits for it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/err.h"

/* An executable file `name` in dir ("" or NULL: in PATH); a name with a slash is taken as it is. */
MUST_USE bool program_find(const char *dir, const char *name, char *out, size_t out_len);
/* Major version of `postgres --version` as text ("15", "9.6"); bounded at 5 s. */
MUST_USE enum err_code program_version(
	const char *dir, const char *name, char *out_major, size_t out_len, struct err *err);
/* "15" -> 150000, "9.6" -> 90600; 0 = not understood. */
int32_t program_version_number(const char *major);
