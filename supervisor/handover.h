/* One supervisor per data directory, and how the next one takes over: locks, the dead-man's legacy,
 * and the upgrade in place with its way back. */
#pragma once
#include "common/core/err.h"

struct sup;
/* Locks and files of the run-time directory; before the capabilities are dropped. */
MUST_USE enum err_code handover_lock(struct sup *s, struct err *err);
/* Ask a dead-man that enforces for what it knows; none there: nothing is inherited. At most 3 s. */
void handover_inherit(struct sup *s);

/* Upgrade in place. The old program checks the new one (--upgrade-check), then executes it in its
 * own process. */
#define HANDOVER_CHECK_MS 5000
int handover_check_say(void);
MUST_USE int handover_check_ok(const char *output, unsigned len);
/* Execute s->upgrade.path; returns (logged) only when that failed. */
void handover_exec(struct sup *s);
/* In the new program: until handover_guard_end a fault, a failure or 5 s end in the old program
 * again. */
void handover_guard_start(char **argv);
void handover_guard_end(void);
/* What the program before knew of the instance, as lines of --launch; NULL = this is the first. */
const char *handover_instance(void);
/* OOM score at the first start, "" = this is the first. */
const char *handover_oom_saved(void);
enum upgrade_end handover_upgrade_end(void);
void handover_roll_back(void); /* returns when there is no way back */
