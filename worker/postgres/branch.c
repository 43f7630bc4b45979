/* Timeline histories. See branch.h. */
#include "worker/postgres/branch.h"

#include <stdio.h>
#include <string.h>

#include "common/core/str.h"

/* The next row; false at the end. Comments and empty lines are passed over. */
static bool next_row(const char **at, int64_t *out_tli, uint64_t *out_lsn)
{
	while (**at != '\0') {
		long long tli;
		char lsn[24];
		size_t n = strcspn(*at, "\n");
		/* An empty line is none: sscanf would pass over its end and read the next one. */
		bool row = n > 0 && sscanf(*at, "%lld\t%23s", &tli, lsn) == 2 &&
			   str_to_lsn(lsn, out_lsn);
		*at += n + ((*at)[n] == '\n');
		if (row) {
			*out_tli = tli;
			return true;
		}
	}
	return false;
}

bool branch_switch_point(const char *history, int64_t tli, uint64_t *out_lsn)
{
	int64_t row;
	uint64_t lsn;
	while (next_row(&history, &row, &lsn)) {
		if (row == tli) {
			*out_lsn = lsn;
			return true;
		}
	}
	return false;
}

bool branch_same(
	const struct history_row *own, unsigned own_count, const char *history, int64_t tli)
{
	unsigned seen = 0;
	int64_t row;
	uint64_t lsn;
	while (next_row(&history, &row, &lsn)) {
		if (row >= tli)
			break;
		if (seen >= own_count || own[seen].timeline != row || own[seen].lsn != lsn)
			return false;
		seen++;
	}
	return seen == own_count || own[seen].timeline >= tli;
}
