/* From postmaster.pid to a postmaster of ours; postmaster.h has what others call. */
#pragma once
#include <stdint.h>

#define ASK_EVERY_MS 2000 /* is there a postmaster that somebody else started? */

struct sup;
/* A start that is under way goes on, or is given up at its deadline. */
void pm_start_tick(struct sup *s, int64_t now_ms);
/* While there is none: has somebody else started one? */
void pm_ask_tick(struct sup *s, int64_t now_ms);
/* The start that is under way ends with this answer. */
void pm_start_refuse(struct sup *s, uint32_t code, const char *why);
