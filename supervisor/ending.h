/* How the supervisor ends: orders to the worker, the bound on its answer, PostgreSQL, helpers; and
 * the upgrade in place. Every phase has a bound, and the lease is enforced in all of them. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/ipc.h"

struct sup;
/* SIGTERM, SIGINT, SIGQUIT: a second one changes nothing. */
void ending_begin(struct sup *s, const char *why);
/* SIGHUP. */
void ending_reload(struct sup *s);
/* A new worker that has to know. */
void ending_tell_worker(struct sup *s);
/* The worker shows that it is at it. */
void ending_progress(struct sup *s);
void ending_worker_done(struct sup *s, const struct msg_shutdown_done *m);
void ending_tick(struct sup *s, int64_t now_ms);
int64_t ending_next_ms(const struct sup *s);
void ending_upgrade(struct sup *s, const struct ipc_msg *m);
struct job;
void ending_upgrade_checked(struct sup *s, const struct job *j);
/* The new program is to be executed now. */
bool ending_upgrade_due(struct sup *s);
