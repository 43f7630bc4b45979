/* Timeline history: the text of <tli>.history files and of TIMELINE_HISTORY answers. Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "common/model/cluster.h"

/* Lines "parent timeline <tab> LSN <tab> reason" to rows, ascending as in the file; time and
 * new_leader stay empty. Lines without three fields are passed over (comments, the end of a torn
 * file). Of more than max rows the newest are kept. Returns the number of rows. text need not end
 * in a zero. */
unsigned history_parse(const char *text, size_t len, struct history_row *rows, unsigned max);
