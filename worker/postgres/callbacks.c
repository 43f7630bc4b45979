/* User scripts on a change of role, start, stop and reload (ha 10): one at a time, not waited for,
 * a new one ends the running one. Worker process. */
#include <string.h>

#include "common/core/log.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/control.h"
#include "worker/postgres/host.h"

static uint64_t callback_job[2]; /* on_reload has a lane of its own (ha 10) */
static struct {
	void (*fn)(void *arg);
	void *arg;
} callbacks_ended; /* told once */

bool control_callbacks_await(void (*fn)(void *arg), void *arg)
{
	if (callback_job[0] == 0 && callback_job[1] == 0)
		return false;
	callbacks_ended.fn = fn;
	callbacks_ended.arg = arg;
	return true;
}

static void on_callback_end(struct host *h, const struct host_reply *r, void *arg)
{
	(void)h;
	uint64_t *lane = arg;
	*lane = 0;
	if (r->code != ANSWER_OK && !r->cancelled)
		log_warning("callback ended exit_code=%d %s", r->exit_code, r->text);
	if (callbacks_ended.fn != NULL && callback_job[0] == 0 && callback_job[1] == 0) {
		void (*fn)(void *) = callbacks_ended.fn;
		callbacks_ended.fn = NULL;
		fn(callbacks_ended.arg);
	}
}

void control_callback(struct pgctx *p, const char *event, enum pg_role role)
{
	bool reload = strcmp(event, "on_reload") == 0;
	if (p->bootstrapping)
		return;
	if (!reload)
		p->callbacks_called = true;
	const char *text =
		json_string_value(json_object_get(json_object_get(p->pg, "callbacks"), event));
	if (text == NULL || text[0] == '\0')
		return;
	uint64_t *lane = &callback_job[reload];
	if (*lane != 0) {
		/* Its end must not be taken for that of its successor. */
		host_job_cancel(p->h, *lane);
		host_forget(p->h, *lane);
		*lane = 0;
	}
	struct host_cmd cmd = HOST_CMD_INIT;
	if (!control_split(&cmd, text)) {
		log_error("postgresql.callbacks.%s: cannot be split into words: %s", event, text);
	} else {
		host_cmd_arg(&cmd, event);
		host_cmd_arg(&cmd, pg_role_word(role == PG_ROLE_PROMOTED ? PG_ROLE_PRIMARY : role));
		host_cmd_arg(&cmd, p->scope);
		*lane = host_job(
			p->h, event, &cmd, NULL, JOB_LOG_OUTPUT, 0, 0, on_callback_end, lane);
	}
	host_cmd_done(&cmd);
}
