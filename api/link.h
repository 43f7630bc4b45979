/* The sockets of api: supervisor, dead-man, worker. See link.c; link_ask and link_report stand in
 * api.h. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "common/core/err.h"
#include "common/core/loop.h"

#define LINK_SUP_FD 3

struct api;

struct link {
	struct api *api;
	struct loop_timer ping;
	int deadman_fd; /* -1 = closed, or not sent yet */
	pid_t parent;
	bool welcomed, ended, sup_gone;
	bool deadman_farewell; /* it said something: it ends in order, and there is nothing to fence
				*/
	bool fence;	       /* both enforcers are gone: ours, at least */
};

MUST_USE enum err_code link_open(struct link *k, struct api *api, struct err *err);
/* SIGTERM or SIGINT. */
void link_signal(struct link *k);
