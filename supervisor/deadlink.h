/* The supervisor's side of the dead-man: start, feed, watch, replace (protocol: top of deadman.c).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum deadlink_state { DEADLINK_DOWN = 0, DEADLINK_STARTING, DEADLINK_UP, DEADLINK_ENDING };

struct deadlink {
	enum deadlink_state state;
	pid_t pid;
	int fd;	    /* socket to ours, -1 = none */
	int old_fd; /* the predecessor, which enforces until ours has acknowledged everything; -1 =
		       none */
	bool old_told; /* to leave */
	pid_t old_pid;
	int64_t since_ms, next_start_ms;
	int64_t up_at_ms; /* of the present one; 0 = not up yet */
	unsigned failures;
	uint64_t restarts;
	uint64_t acked_generation; /* of the postmaster whose pidfd it holds */
	bool state_due, postmaster_due;
};

struct sup;
void deadlink_init(struct deadlink *d);
void deadlink_receive(struct sup *s);
void deadlink_receive_old(struct sup *s);
bool deadlink_reaped(struct sup *s, pid_t pid, int status);
/* Silent or gone: kill what is left, start another. */
void deadlink_replace(struct sup *s, const char *why);
/* There is another postmaster, or none: tell it before the next state. */
void deadlink_postmaster_changed(struct sup *s);
/* It holds the postmaster of that generation. */
bool deadlink_holds(const struct sup *s, uint64_t generation);
/* A socket between it and a helper, so that each notices the other's end. */
void deadlink_log(struct sup *s); /* where lines go; once when it is up, and when it changes */
void deadlink_connect_helper(struct sup *s, unsigned helper);
/* Nothing is awaited of it but that it lives: its socket is read when something else wakes us. */
bool deadlink_quiet(const struct sup *s);
/* Starts and time-outs; sends what is due. */
void deadlink_tick(struct sup *s, int64_t now_ms);
int64_t deadlink_next_ms(const struct sup *s);
/* Order it to leave; false while it has not. */
void deadlink_end(struct sup *s);
bool deadlink_gone(struct sup *s);
