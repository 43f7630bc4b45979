/* The supervisor's side of the dead-man: start, feed, watch, replace (protocol: top of deadman.c). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum dm_process { DM_DOWN = 0, DM_STARTING, DM_UP, DM_ENDING };

struct deadman {
	enum dm_process state;
	pid_t pid;
	int fd;     /* socket to ours, -1 = none */
	int old_fd; /* the predecessor, which enforces until ours has acknowledged everything; -1 = none */
	int64_t since_ms, next_start_ms;
	unsigned failures;
	uint64_t restarts;
	uint64_t acked_generation; /* of the postmaster whose pidfd it holds */
	bool state_due, postmaster_due;
};

struct sup;
void dm_init(struct deadman *d);
void dm_receive(struct sup *s);
void dm_receive_old(struct sup *s);
bool dm_reaped(struct sup *s, pid_t pid, int status);
/* Silent or gone: kill what is left, start another. */
void dm_replace(struct sup *s, const char *why);
/* There is another postmaster, or none: tell it before the next state. */
void dm_postmaster_changed(struct sup *s);
/* It holds the postmaster of that generation. */
bool dm_holds(const struct sup *s, uint64_t generation);
/* A socket between it and a helper, so that each notices the other's end. */
void dm_connect_helper(struct sup *s, unsigned helper);
/* Starts and time-outs; sends what is due. */
void dm_tick(struct sup *s, int64_t now_ms);
int64_t dm_next_ms(const struct sup *s);
/* Order it to leave; false while it has not. */
void dm_end(struct sup *s);
bool dm_gone(struct sup *s);
