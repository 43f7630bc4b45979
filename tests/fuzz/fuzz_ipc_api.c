/* pgregent-api as the receiver of what the supervisor or the worker sends (see fuzz_ipc.c): its
 * sockets, the settings, the facts and the commands that wait for the worker are real; HTTP, ports
 * and names are not. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/config/value.h"
#include "common/core/invariant.h"
#include "tests/fuzz/fuzz_ipc.h"

#include "api/link.c"

#include "api/snapshot.h"
#include "api/validate.h"

#define CLIENTS 8

static struct api api;
static struct link lnk;
static struct request clients[CLIENTS];
static int far_end = -1, other_end = -1; /* of the socket under test; of the supervisor beside it */

/* ---- the rest of api ------------------------------------------------------------------- */

/* Each request ends in exactly one answer. */
static void answered(struct request *r, const void *text, size_t len)
{
	static volatile unsigned sink;
	unsigned sum = 0;
	INVARIANT(r->started);
	for (size_t i = 0; i < len; i++)
		sum += ((const unsigned char *)text)[i];
	sink = sum;
	r->started = false;
}

void reply_text(struct request *r, unsigned status, const char *text)
{
	(void)status;
	answered(r, text, strlen(text));
}

void reply_page(struct request *r, unsigned status, const char *text)
{
	reply_text(r, status, text);
}

void reply_json(struct request *r, unsigned status, json_t *take)
{
	(void)status;
	json_decref(take);
	answered(r, "", 0);
}

void reply_doc(
	struct request *r, unsigned status, const char *body, size_t len, struct reply_extra extra)
{
	(void)extra;
	INVARIANT(status >= 200 && status <= 599);
	answered(r, body, len);
}

void serve_with_facts(struct request *r, const json_t *facts)
{
	INVARIANT(facts == NULL || json_is_object(facts));
	answered(r, "", 0);
}

enum err_code logging_apply(const json_t *log, struct buf *notes, struct err *err)
{
	(void)log;
	(void)notes;
	(void)err;
	return ERR_OK;
}

enum err_code ports_open_local(struct ports *p, const char *runtime_dir, struct err *err)
{
	(void)p;
	(void)err;
	INVARIANT(runtime_dir[0] == '/');
	return ERR_OK;
}

#pragma clang diagnostic ignored "-Wunused-parameter"
#define STUB(name, ...)                                                                            \
	void name(__VA_ARGS__)                                                                     \
	{                                                                                          \
	}
STUB(request_wait, struct request *r)
STUB(names_reload, struct names *n, const struct api_settings *s)
STUB(ports_apply, struct ports *p)
STUB(last_fence_prepare, const char *data_dir, const char *runtime_dir, int sup_fd)
STUB(last_fence_on_duty, void)

/* ---- the process ----------------------------------------------------------------------- */

void target_start(void)
{
	int sup[2], pair[2];
	struct err err = ERR_INIT;
	memset(&api, 0, sizeof(api));
	memset(&lnk, 0, sizeof(lnk));
	memset(clients, 0, sizeof(clients));
	loop_init(&api.loop, NULL, NULL);
	api.worker_fd = -1;
	view_init(&api.view);
	if (ipc_pair(sup, &err) != ERR_OK || dup2(sup[1], LINK_SUP_FD) < 0 ||
		ipc_pair(pair, &err) != ERR_OK || link_open(&lnk, &api, &err) != ERR_OK)
		abort();
	close(sup[1]);
	if (FUZZ_FROM == ROLE_SUPERVISOR) {
		far_end = sup[0];
		close(pair[0]);
		close(pair[1]);
		return;
	}
	struct msg_welcome w = { .incarnation = 1,
		.data_dir = "/data",
		.runtime_dir = "/run",
		.name = "n1",
		.scope = "s" };
	struct msg_peer peer = { .role = ROLE_WORKER, .incarnation = 1 };
	if (ipc_send(sup[0], MSG_WELCOME, 0, &w, NULL, 0, NULL, 0, &err) != ERR_OK ||
		ipc_send(sup[0], MSG_PEER, 0, &peer, NULL, 0, &pair[1], 1, &err) != ERR_OK)
		abort();
	close(pair[1]);
	far_end = pair[0];
	other_end = sup[0];
	target_turn();
}

void target_turn(void)
{
	struct err err = ERR_INIT;
	facts_flush(&api);
	if (!lnk.ended && loop_turn(&api.loop, 0, &err) != ERR_OK)
		abort();
	fuzz_drain(far_end);
	fuzz_drain(other_end);
	/* A worker gone mad ends its own connection, never us. */
	INVARIANT(FUZZ_FROM != ROLE_WORKER || !lnk.ended);
	INVARIANT(!lnk.fence || (lnk.sup_gone && lnk.welcomed));
}

static void new_request(uint8_t what)
{
	static const struct route routes[] = {
		{ .action = API_CONFIG_PATCH, .body = BODY_IGNORED, .answer_ms = 500 },
		{ .action = API_RESTART, .body = BODY_IGNORED, .answer_ms = 500 },
		{ .action = API_FAILSAFE, .body = BODY_IGNORED, .answer_ms = 100 },
	};
	struct request *r = &clients[what % CLIENTS];
	if (r->started || lnk.ended)
		return;
	*r = (struct request){ .api = &api,
		.verb = "POST",
		.path = "/",
		.route = &routes[what / CLIENTS % ARRAY_LEN(routes)],
		.started = true };
	if (what & 0x80)
		facts_want(r);
	else
		action_start(r);
}

/* A client comes, or leaves; the supervisor dies. */
void target_event(uint8_t what)
{
	struct request *r = &clients[what % CLIENTS];
	if (what % 32 == 31 && FUZZ_FROM == ROLE_SUPERVISOR && far_end >= 0) {
		close(far_end);
		far_end = -1;
	} else if ((what & 0x60) == 0x60 && r->started) {
		action_forget(r);
		facts_forget(r);
		r->started = false;
	} else {
		new_request(what);
	}
}

void target_end(void)
{
	view_done(&api.view);
	settings_free(&api.settings);
	loop_done(&api.loop);
	if (far_end >= 0)
		close(far_end);
	if (other_end >= 0)
		close(other_end);
	far_end = other_end = -1;
}

int target_socket(void)
{
	return far_end;
}

enum ipc_role target_role(void)
{
	return ROLE_API;
}
