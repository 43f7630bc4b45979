/* REST calls to members and to the agent of this node (ctl 2.4). */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

/* A member that is frozen must not hold us before it has taken the connection (ctl 9, 4). */
#define CONNECT_MS 5000
#define TRIES	   3

struct call {
	struct answer *out;
	bool done, connected;
};

static void on_reply(const struct http_reply *r, void *arg)
{
	struct call *call = arg;
	call->out->status = r->status;
	free(call->out->body);
	call->out->body =
		r->status != 0 ? strndup(r->body != NULL ? r->body : "", r->len) : strdup(r->text);
	call->connected = r->status != 0 || r->timed_out || r->got_nothing;
	call->done = true;
}

static const char *setting(const struct ctl *c, const char *path)
{
	return json_path_str(c->tree, path);
}

static void fill_tls(const struct ctl *c, struct http_tls *tls)
{
	tls->cacert = setting(c, "ctl.cacert");
	if (tls->cacert == NULL)
		tls->cacert = setting(c, "restapi.cafile");
	tls->cert = setting(c, "ctl.certfile");
	tls->key = setting(c, "ctl.keyfile");
	tls->key_password = setting(c, "ctl.keyfile_password");
	bool insecure = c->insecure || json_truthy(json_path(c->tree, "ctl.insecure"));
	tls->verify = !insecure	  ? HTTP_VERIFY_FULL
		      : tls->cert ? HTTP_VERIFY_CHAIN
				  : HTTP_VERIFY_NONE;
}

static void fill_login(const struct ctl *c, struct http_request *req)
{
	const char *place =
		json_truthy(json_path(c->tree, "ctl.authentication")) ? "ctl" : "restapi";
	char path[64];
	put_format(path, sizeof(path), "%s.authentication.username", place);
	req->user = setting(c, path);
	put_format(path, sizeof(path), "%s.authentication.password", place);
	req->password = setting(c, path);
}

static void send_one(struct ctl *c, struct http_request *req, struct call *call, int64_t wait_ms)
{
	struct err err = ERR_INIT;
	req->deadline_ms = wait_ms > 0 ? clock_boot_ms() + wait_ms : 0;
	call->done = false;
	(void)http_send(c->http, req, on_reply, NULL, call);
	while (!call->done)
		if (loop_turn(&c->loop, 500, &err) != ERR_OK)
			fail("%s", err.text);
}

static void perform(struct ctl *c, const char *url, const char *unix_socket, const char *method,
	const json_t *body, int64_t wait_ms, struct answer *out)
{
	*out = (struct answer){ 0 };
	struct call call = { .out = out };
	AUTO_FREE char *text = body != NULL ? json_python(body) : NULL;
	struct http_request req = { .method = method,
		.url = url,
		.body = text,
		.body_len = text != NULL ? strlen(text) : 0,
		.unix_socket = unix_socket,
		.connect_ms = CONNECT_MS };
	if (unix_socket == NULL) {
		fill_tls(c, &req.tls);
		fill_login(c, &req);
	}
	/* Only what never reached the server is sent again: a handover must not be asked for twice.
	 */
	for (int i = 0; i < TRIES && (i == 0 || (out->status == 0 && !call.connected)); i++)
		send_one(c, &req, &call, wait_ms);
}

void rest_call_url(struct ctl *c, const char *url, const char *method, const json_t *body,
	int64_t wait_ms, struct answer *out)
{
	perform(c, url, NULL, method, body, wait_ms, out);
}

void rest_call(struct ctl *c, const json_t *member, const char *method, const char *path,
	const json_t *body, int64_t wait_ms, struct answer *out)
{
	char url[LIMIT_URL * 2];
	if (member == NULL || (!c->store && str_eq(member_str(member, "name"), c->socket_member))) {
		put_format(url, sizeof(url), "http://127.0.0.1%s", path);
		perform(c, url, c->socket, method, body, wait_ms, out);
		return;
	}
	const char *api = member_str(member, "api_url"), *p = strstr(api, "://");
	if (p == NULL) {
		*out = (struct answer){ .body = strdup("the member has no api_url") };
		return;
	}
	size_t len = (size_t)(p + 3 - api) + strcspn(p + 3, "/?#");
	if (!str_format(url, sizeof(url), "%.*s%s", (int)len, api, path))
		fail("The address %s is too long", api);
	perform(c, url, NULL, method, body, wait_ms, out);
}

void answer_done(struct answer *a)
{
	free(a->body);
	a->body = NULL;
}
