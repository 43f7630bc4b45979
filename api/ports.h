/* The listening sockets: TCP or TLS by the settings, and the local Unix socket. New ones are bound
 * before old ones are closed, so that a failed change leaves what was (rest 11.3, 14). Api process.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "api/http.h"
#include "common/core/loop.h"

struct api;

struct ports {
	struct api *api;
	struct listener *tcp, *local;
	char host[64]; /* numeric, that tcp is bound to; "" = all */
	uint16_t port;
	uint64_t files_hash;
	struct api_settings *bound; /* settings of tcp that matter here; owned, NULL = not bound */
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct loop_timer retry;
	uint32_t lookups; /* counts look-ups of the listen name: only the last one counts */
	bool complained;
};

void ports_init(struct ports *p, struct api *api);
MUST_USE enum err_code ports_open_local(struct ports *p, const char *runtime_dir, struct err *err);
/* The settings have been read (again): bind what has changed. */
void ports_apply(struct ports *p);
void ports_done(struct ports *p);
