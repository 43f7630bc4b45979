/* Timeline histories as the server sends them (TIMELINE_HISTORY), and whether two servers that
 * speak of the same timeline number mean the same branch. Pure; run by the worker. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/model/cluster.h"

/* Row of the history that ends timeline `tli`; false: there is none. */
bool branch_switch_point(const char *history, int64_t tli, uint64_t *out_lsn);
/* Do both histories tell the same of all timelines below `tli`? A number can be given twice, by two
 * promotions that did not know of each other; the switch points then differ. `own` is ascending. */
bool branch_same(
	const struct history_row *own, unsigned own_count, const char *history, int64_t tli);
