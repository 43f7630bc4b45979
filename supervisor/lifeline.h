/* The third enforcer of the lease is the kernel (DESIGN 1): the postmaster inherits the read end of
 * a pipe that sends it SIGKILL as soon as nobody holds the write end any more. Supervisor and
 * dead-man hold it, nobody else; both also keep the read end (the same open file description), to
 * disarm it in pause. One pipe for each generation of the postmaster. */
#pragma once
#include <stdbool.h>

#include "common/core/err.h"

/* Both ends close-on-exec. out[0] read, out[1] write. */
MUST_USE enum err_code lifeline_open(int out[2], struct err *err);
/* In the child that will become the postmaster, after its last change of ids (the kernel checks the
 * permission to signal with the ids of this moment): owner = this process, signal = SIGKILL, read
 * end kept over exec. Does not arm. Async-signal-safe. 0 or -1 with errno. */
int lifeline_own(int read_fd);
/* Arm or disarm. Any holder of the read end can; calling it twice is allowed. Arming when no writer
 * is left has no effect: the holder that arms holds the write end. 0 or -1 with errno. */
int lifeline_arm(int read_fd, bool on);
