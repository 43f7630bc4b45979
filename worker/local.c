/* What only the local socket serves: what this agent is doing, and its upgrade in place. */
#include <inttypes.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/ext/json.h"
#include "worker/ha/step.h"
#include "worker/worker.h"

void local_status(struct worker *w, uint64_t id)
{
	static const char *const upgrades[] = { "none", "done", "rolled back" };
	int64_t now_ms = clock_boot_ms();
	int64_t left_ms = keeper_lease_until_ms(&w->keeper) - now_ms;
	uint32_t upgrade = w->welcome.upgrade < ARRAY_LEN(upgrades) ? w->welcome.upgrade : 0;
	json_auto_t *o = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:s,s:I,s:I,s:s}", "scope",
		w->welcome.scope, "name", w->welcome.name, "role", pg_role_word(w->pg.role),
		"state", pg_state_word(w->pg.state), "task", ha_task_word(w->task), "last_decision",
		w->last_reason, "lease_left_ms", (json_int_t)(left_ms > 0 ? left_ms : 0),
		"incarnation", (json_int_t)w->welcome.incarnation, "version", PGREGENT_VERSION,
		"supervisor_pid", (json_int_t)getppid(), "supervisor_started_ms",
		(json_int_t)w->welcome.started_ms, "upgrade", upgrades[upgrade]);
	AUTO_FREE char *text = o != NULL ? json_python(o) : NULL;
	requests_answer(w, id, text != NULL ? 200 : 503, API_JSON, text != NULL ? text : "{}");
}

static void on_upgrade(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	(void)h;
	bool good = r->code == ANSWER_OK;
	log_line(good ? LOG_WARNING : LOG_ERROR, "upgrade: %s", r->text);
	requests_answer(w, w->upgrade_id,
		good			    ? 200
		: r->code == ANSWER_REFUSED ? 412
					    : 503,
		API_TEXT, r->text);
	w->upgrade_id = 0;
}

void local_upgrade(struct worker *w, uint64_t id)
{
	if (w->upgrade_id != 0) {
		requests_answer(w, id, 503, API_TEXT, "an upgrade is under way");
		return;
	}
	w->upgrade_id = id;
	host_upgrade(&w->host, on_upgrade, w);
}
