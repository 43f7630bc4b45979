/* sd_notify spoken without a library. Never waits: a full socket loses the line. */
#pragma once
#include <stdint.h>

struct notify {
	int fd;		      /* -1 = nobody listens */
	int64_t extend_at_ms; /* while the worker is not ready: next request for more time */
	unsigned ready;	      /* READY=1 went out once */
};

/* socket "" = nobody listens. */
void notify_open(struct notify *n, const char *socket);
/* READY=1, RELOADING=1 (the time is added), STOPPING=1, STATUS=... */
void notify_send(struct notify *n, const char *text);
void notify_tick(struct notify *n, int64_t now_ms);
int64_t notify_next_ms(const struct notify *n);
