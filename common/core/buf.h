/* A growing byte buffer with a maximum fixed at birth and a sticky failure flag: append freely,
 * test once. Always zero-terminated while not failed. The owner frees it with buf_done (or
 * AUTO(buf)). */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/core/err.h"

struct buf {
	char *data; /* NULL until the first byte */
	size_t len, cap, max;
	bool failed; /* over max, or no memory; the content stays as it was before the failing call
		      */
};

#define BUF_INIT(maximum)                                                                          \
	{                                                                                          \
		.max = (maximum)                                                                   \
	}

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_adds(struct buf *b, const char *s);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
void buf_addv(struct buf *b, const char *fmt, va_list ap);
void buf_consume(struct buf *b, size_t n); /* drop n bytes from the front */
void buf_reset(struct buf *b);		   /* empty, keeps memory, clears the failure */
void buf_done(struct buf *b);
const char *buf_str(const struct buf *b); /* never NULL */

#define AUTO(type) __attribute__((cleanup(type##_done))) struct type
#define AUTO_FD	   __attribute__((cleanup(auto_fd_close))) int
#define AUTO_FREE  __attribute__((cleanup(auto_free)))
void auto_fd_close(int *fd); /* closes when >= 0, keeps errno */
void fd_close(int *fd);	     /* the same; -1 afterwards */
void auto_free(void *p);
