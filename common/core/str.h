/* Small string helpers that never truncate in silence. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/err.h"

/* Copy with the final zero; false (and dst left empty) when it does not fit. */
MUST_USE bool str_copy(char *dst, size_t dst_len, const char *src);
/* The same for n bytes of src (no zero needed there; an embedded zero ends it). */
MUST_USE bool str_copy_n(char *dst, size_t dst_len, const char *src, size_t n);
/* Print into dst; false (and dst left empty) when it does not fit. */
MUST_USE bool str_format(char *dst, size_t dst_len, const char *fmt, ...) PRINTF(3, 4);
bool str_eq(const char *a, const char *b);	  /* NULL equals NULL only */
bool str_eq_nocase(const char *a, const char *b); /* ASCII case only */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* Whole text is a decimal integer in range; blanks are not accepted. */
MUST_USE bool str_to_i64(const char *s, int64_t *out);
MUST_USE bool str_to_u64(const char *s, uint64_t *out);
/* "X/Y" (hex) to bytes and back. out needs 18 bytes. */
MUST_USE bool str_to_lsn(const char *s, uint64_t *out);
void str_from_lsn(uint64_t lsn, char out[static 20]);
/* Member name to replication slot name (ha 7.1): lower case, '-' and '.' to '_', else u%04d; at
 * most 63 bytes. */
void str_slot_name(const char *member, char out[static 64]);
