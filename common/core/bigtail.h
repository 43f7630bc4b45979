/* A tail that is too long for a frame travels beside it: in a sealed memfd, whose descriptor the
 * message carries instead. Libc only. */
#pragma once
#include <stddef.h>

#include "common/core/buf.h"
#include "common/core/err.h"
#include "common/core/limits.h"

/* The longest tail that fits into a frame of every type. */
#define BIGTAIL_FROM (LIMIT_IPC_FRAME - 1024)

/* The caller closes *out_fd when it was sent. */
MUST_USE enum err_code bigtail_make(const void *bytes, size_t len, int *out_fd, struct err *err);
/* Appends the content to out, whose maximum is the bound; fd stays the caller's. ERR_PROTO: not
 * sealed, so it could change or shrink while it is read. */
MUST_USE enum err_code bigtail_read(int fd, struct buf *out, struct err *err);
