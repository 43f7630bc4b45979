/* The table of helpers: worker, files, api. Start, watch, kill, start again; who died and why. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/err.h"
#include "common/core/ipc.h"

struct sup;

enum helper_index { HELPER_WORKER = 0, HELPER_FILES, HELPER_API, HELPER_COUNT };
enum helper_state {
	HELPER_DOWN,	 /* no process; next_start_ms says when */
	HELPER_STARTING, /* executed; not READY yet */
	HELPER_READY,
	HELPER_ENDING, /* killed, or its socket is gone; not reaped yet */
};

struct helper {
	enum ipc_role role;
	enum helper_state state;
	pid_t pid;
	int fd;	      /* our end of its socket, -1 = none */
	bool greeted; /* HELLO came, WELCOME went */
	uint64_t incarnation;
	int64_t since_ms; /* of the state */
	int64_t seen_ms;  /* last message */
	int64_t next_start_ms;
	unsigned failures; /* ends in a row without a calm run between */
	uint64_t restarts;
};

/* An exit status in words: class, number; text is for logs. */
struct exit_info {
	uint32_t cls; /* enum exit_class */
	int32_t code;
};
struct exit_info exit_of_status(int status);
const char *exit_class_name(uint32_t cls);

void helpers_init(struct sup *s);
/* Time-outs and starts that are due. */
void helpers_tick(struct sup *s, int64_t now_ms);
int64_t helpers_next_ms(const struct sup *s);
/* A process ended; false: not one of ours here. */
bool helpers_reaped(struct sup *s, pid_t pid, int status, int64_t now_ms);
/* Everything it should know once it said HELLO. */
void helper_welcome(struct sup *s, struct helper *h, int64_t now_ms);
/* Any message came: it lived at that time. READY came. */
void helper_seen(struct helper *h, int64_t at_ms);
/* We woke late_ms later than we wanted, perhaps with the whole node: that time was no silence of
 * theirs. */
void helpers_late(struct sup *s, int64_t late_ms);
void helper_ready(struct helper *h, int64_t now_ms);
/* It has nothing to say but that it lives: its socket is read when something else wakes us, a PING
 * alone is no reason to. At the latest that is when it would count as silent. */
bool helper_quiet(const struct sup *s, const struct helper *h);
/* Break the connection and the process: bad message, full queue, silence. */
void helper_kill(struct sup *s, struct helper *h, const char *why);
/* Ask all to end (SIGTERM, then SIGKILL at until_ms); false while some are left. */
bool helpers_end(struct sup *s, int64_t until_ms, int64_t now_ms);
/* Send to a greeted helper; a full queue or a broken socket costs it its life. No helper: nothing
 * happens. */
void helper_send(struct sup *s, enum helper_index to, enum msg_type type, uint64_t id,
	const void *payload, const void *tail, size_t tail_len, const int *fds, int fd_count);
void helper_answer(struct sup *s, enum helper_index to, uint64_t id, uint32_t code, const char *fmt,
	...) PRINTF(5, 6);
