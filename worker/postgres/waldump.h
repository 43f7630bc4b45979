/* The text that pg_waldump prints: where a shutdown checkpoint ends, and what precedes it
 * (ha 3.5, 6.3). Pure; run by the worker. Calls: pg_waldump -t <tli> -s <lsn> -n <count>, in the C
 * locale. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"

struct waldump_record {
	char rmgr[32];
	char desc[256]; /* cut when longer */
	uint64_t lsn, prev;
};

/* The first record of the standard output; false: not understood. */
MUST_USE bool waldump_record(const char *out_text, struct waldump_record *out);
/* The record is the shutdown checkpoint at lsn. */
bool waldump_is_shutdown_checkpoint(const struct waldump_record *r, uint64_t lsn);
/* The record is an XLOG SWITCH at lsn: the last one before a checkpoint that was written with
 * archive_mode on. */
bool waldump_is_switch(const struct waldump_record *r, uint64_t lsn);
/* End of the checkpoint at lsn, from a call with count 2 on the last record of a stopped server:
 * exactly one record printed and one error that names the position where the next one is missing. 0
 * = not understood (means: rewind is needed). */
uint64_t waldump_checkpoint_end(const char *out_text, const char *err_text, uint64_t lsn);
/* The segment that pg_rewind misses: 'could not open file ".../pg_wal/<24 hexadecimal digits>": '
 * in its output. */
MUST_USE bool waldump_missing_segment(const char *text, char out[static 25]);
