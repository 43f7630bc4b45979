/* pg_control read natively, with its CRC-32C. Run by pgregent-files; the layout is that of 64-bit
 * builds of PostgreSQL 13 to 18 in the byte order of this machine. Other versions are reported as
 * such, never guessed at. */
#pragma once
#include <stddef.h>

#include "common/core/err.h"
#include "common/model/pgstate.h"

#define PGCONTROL_BYTES 8192 /* of the file; less than 300 of them are used */

/* out->valid says whether it can be relied on, out->fault why not. read_at_ms is the caller's. */
void pgcontrol_parse(const void *bytes, size_t len, struct pg_control *out);
/* Reads <data_dir>/global/pg_control; a torn read is tried again a few times. */
void pgcontrol_read(int dir_fd, struct pg_control *out);
