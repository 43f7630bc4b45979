/* A small event loop for worker, files, api and ctl (the supervisor has its own, over a fixed
 * array). One thread. Descriptors and timers have callbacks; waiting is poll(), or a function given
 * by the owner (the worker waits in curl_multi_poll). Callbacks may add and remove descriptors and
 * timers, their own too. Not for the supervisor: adding a descriptor may allocate. */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"

struct loop;
typedef void (*loop_fd_fn)(struct loop *l, int fd, short revents, void *arg);
typedef void (*loop_timer_fn)(struct loop *l, void *arg);
/* Wait at most timeout_ms (-1: no limit) for fds[0..n-1], fill revents; returns as poll(). */
typedef int (*loop_wait_fn)(void *ctx, struct pollfd *fds, unsigned n, int timeout_ms);

/* Owned by its user, usually inside a larger struct. Zero it before loop_timer_set the first time.
 */
struct loop_timer {
	int64_t at_ms; /* 0 = not armed */
	loop_timer_fn fn;
	void *arg;
	struct loop_timer *next, **prev_next; /* the loop's list */
};

struct loop {
	struct loop_fd {
		int fd; /* -1 = free */
		short events;
		loop_fd_fn fn;
		void *arg;
		uint32_t serial;
	} * fds;
	unsigned fd_count, fd_cap;
	struct pollfd *pollfds;
	struct loop_timer *timers; /* unordered: there are few */
	loop_wait_fn wait;
	void *wait_ctx;
	void (*after_turn)(
		struct loop *l, void *arg); /* once after each batch of callbacks; may be NULL */
	void *after_arg;
	uint32_t serial;
	bool stop;
};

void loop_init(struct loop *l, loop_wait_fn wait, void *wait_ctx); /* wait NULL = poll */
void loop_done(struct loop *l);
/* events: POLLIN, POLLOUT. A descriptor is registered once; a second call changes it. */
MUST_USE enum err_code loop_fd_set(
	struct loop *l, int fd, short events, loop_fd_fn fn, void *arg, struct err *err);
void loop_fd_remove(struct loop *l, int fd); /* before close(); unknown is allowed */
/* Arm (again) at an absolute boot-time; the past fires in the next turn. */
void loop_timer_set(
	struct loop *l, struct loop_timer *t, int64_t at_ms, loop_timer_fn fn, void *arg);
void loop_timer_stop(struct loop *l, struct loop_timer *t); /* not armed is allowed */
/* One wait and its callbacks; at most max_wait_ms (-1: as long as timers allow). */
MUST_USE enum err_code loop_turn(struct loop *l, int max_wait_ms, struct err *err);
/* Turns until loop_stop. */
MUST_USE enum err_code loop_run(struct loop *l, struct err *err);
void loop_stop(struct loop *l);
