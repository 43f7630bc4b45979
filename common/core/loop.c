/* A small event loop. See loop.h. */
#include "common/core/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/limits.h"

void loop_init(struct loop *l, loop_wait_fn wait, void *wait_ctx)
{
	memset(l, 0, sizeof(*l));
	l->wait = wait;
	l->wait_ctx = wait_ctx;
}

void loop_done(struct loop *l)
{
	while (l->timers != NULL)
		loop_timer_stop(l, l->timers);
	free(l->fds);
	free(l->pollfds);
	l->fds = NULL;
	l->pollfds = NULL;
	l->fd_count = l->fd_cap = 0;
}

static struct loop_fd *find(struct loop *l, int fd)
{
	for (unsigned i = 0; i < l->fd_count; i++) {
		if (l->fds[i].fd == fd)
			return &l->fds[i];
	}
	return NULL;
}

enum err_code loop_fd_set(
	struct loop *l, int fd, short events, loop_fd_fn fn, void *arg, struct err *err)
{
	struct loop_fd *f = find(l, fd);
	if (f == NULL)
		f = find(l, -1);
	if (f == NULL) {
		if (l->fd_count == l->fd_cap) {
			unsigned cap = l->fd_cap != 0 ? l->fd_cap * 2 : 16;
			if (cap > LIMIT_FDS)
				return err_set(
					err, ERR_LIMIT, 0, "loop: over %d descriptors", LIMIT_FDS);
			struct loop_fd *fds = realloc(l->fds, cap * sizeof(*fds));
			if (fds == NULL)
				return err_set(err, ERR_NOMEM, 0, "loop");
			l->fds = fds;
			struct pollfd *p = realloc(l->pollfds, cap * sizeof(*p));
			if (p == NULL)
				return err_set(err, ERR_NOMEM, 0, "loop");
			l->pollfds = p;
			l->fd_cap = cap;
		}
		f = &l->fds[l->fd_count++];
		f->fd = -1;
	}
	if (f->fd != fd)
		f->serial = ++l->serial;
	f->fd = fd;
	f->events = events;
	f->fn = fn;
	f->arg = arg;
	return ERR_OK;
}

void loop_fd_remove(struct loop *l, int fd)
{
	struct loop_fd *f = fd >= 0 ? find(l, fd) : NULL;
	if (f != NULL)
		f->fd = -1;
	while (l->fd_count > 0 && l->fds[l->fd_count - 1].fd == -1)
		l->fd_count--;
}

void loop_timer_set(
	struct loop *l, struct loop_timer *t, int64_t at_ms, loop_timer_fn fn, void *arg)
{
	loop_timer_stop(l, t);
	t->at_ms = at_ms > 0 ? at_ms : 1;
	t->fn = fn;
	t->arg = arg;
	t->next = l->timers;
	if (t->next != NULL)
		t->next->prev_next = &t->next;
	t->prev_next = &l->timers;
	l->timers = t;
}

void loop_timer_stop(struct loop *l, struct loop_timer *t)
{
	(void)l;
	if (t->at_ms == 0)
		return;
	*t->prev_next = t->next;
	if (t->next != NULL)
		t->next->prev_next = t->prev_next;
	t->at_ms = 0;
	t->next = NULL;
	t->prev_next = NULL;
}

static int64_t next_timer_ms(const struct loop *l)
{
	int64_t at = 0;
	for (const struct loop_timer *t = l->timers; t != NULL; t = t->next) {
		if (at == 0 || t->at_ms < at)
			at = t->at_ms;
	}
	return at;
}

static int wait_length(const struct loop *l, int max_wait_ms)
{
	int64_t at = next_timer_ms(l);
	if (at == 0)
		return max_wait_ms;
	int64_t left = at - clock_boot_ms();
	if (left < 0)
		left = 0;
	if (max_wait_ms >= 0 && left > max_wait_ms)
		return max_wait_ms;
	return left > 3600000 ? 3600000 : (int)left;
}

static void run_timers(struct loop *l)
{
	int64_t now_ms = clock_boot_ms();
	/* A callback may change the list: take the earliest due one each time, bounded by their
	 * number. */
	unsigned left = 0;
	for (const struct loop_timer *t = l->timers; t != NULL; t = t->next)
		left++;
	while (left-- > 0) {
		struct loop_timer *due = NULL;
		for (struct loop_timer *t = l->timers; t != NULL; t = t->next) {
			if (t->at_ms <= now_ms && (due == NULL || t->at_ms < due->at_ms))
				due = t;
		}
		if (due == NULL)
			break;
		loop_timer_stop(l, due);
		due->fn(l, due->arg);
	}
}

enum err_code loop_turn(struct loop *l, int max_wait_ms, struct err *err)
{
	unsigned n = l->fd_count;
	uint32_t serial = l->serial;
	for (unsigned i = 0; i < n; i++) {
		l->pollfds[i].fd = l->fds[i].fd;
		l->pollfds[i].events = l->fds[i].events;
		l->pollfds[i].revents = 0;
	}
	int timeout_ms = wait_length(l, max_wait_ms);
	int got = l->wait != NULL ? l->wait(l->wait_ctx, l->pollfds, n, timeout_ms)
				  : poll(l->pollfds, n, timeout_ms);
	if (got < 0 && errno != EINTR)
		return err_set(err, ERR_SYS, errno, "loop: poll");
	for (unsigned i = 0; got > 0 && i < n && i < l->fd_count; i++) {
		struct pollfd p = l->pollfds[i];
		struct loop_fd f = l->fds[i];
		/* The slot may have been given to another descriptor by an earlier callback. */
		if (p.revents != 0 && f.fd >= 0 && f.fd == p.fd && f.serial <= serial)
			f.fn(l, f.fd, p.revents, f.arg);
	}
	run_timers(l);
	if (l->after_turn != NULL)
		l->after_turn(l, l->after_arg);
	return ERR_OK;
}

enum err_code loop_run(struct loop *l, struct err *err)
{
	while (!l->stop) {
		enum err_code rc = loop_turn(l, -1, err);
		if (rc != ERR_OK)
			return rc;
	}
	return ERR_OK;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}
