/* The store as the worker uses it: snapshots from the watch, fire-and-forget writes, fresh reads,
 * and the clock of "the store does not answer". Worker process. */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/worker.h"

static void on_store_timer(struct loop *l, void *arg);

/* The store counts as failing when nothing was answered for retry_timeout (ha 1.12, dcs 5.4). */
static void arm(struct worker *w)
{
	if (w->store_failing_ms != 0)
		loop_timer_set(&w->loop, &w->store_timer,
			w->store_failing_ms + w->set.retry_timeout_ms, on_store_timer, w);
	else
		loop_timer_stop(&w->loop, &w->store_timer);
}

static void on_store_timer(struct loop *l, void *arg)
{
	(void)l;
	struct worker *w = arg;
	turn_want(w, "store does not answer");
}

void store_answered(struct worker *w, enum dcs_outcome outcome)
{
	int64_t now_ms = clock_boot_ms();
	if (outcome != DCS_UNKNOWN) {
		if (w->store_failing_ms != 0)
			turn_want(w, "store answers again");
		w->store_failing_ms = 0;
		w->store_ok_ms = now_ms;
		w->last_seen_s = clock_wall_us() / 1000000;
	} else if (w->store_failing_ms == 0) {
		w->store_failing_ms = now_ms;
	}
	arm(w);
}

/* Who holds the leader key is told by its lease, never by its value: somebody wrote over the value
 * with our lease. We go on, and the name is written again, unless the key has changed meanwhile. */
static void mend_leader_name(struct worker *w, struct cluster *c)
{
	if (!c->leader_present || strcmp(c->leader, w->welcome.name) == 0 ||
		c->leader_session[0] == '\0' ||
		strcmp(c->leader_session, dcs_session(w->dcs)) != 0 ||
		keeper_lock(&w->keeper, clock_boot_ms()) != LOCK_HELD)
		return;
	if (w->mended_version != c->leader_version) {
		log_error("the leader key under our lease has another value: our name is written "
			  "again");
		struct dcs_op op = { .kind = DCS_ADOPT, .version = c->leader_version };
		w->mended_version = c->leader_version;
		store_submit(w, &op);
	}
	if (!str_copy(c->leader, sizeof(c->leader), w->welcome.name))
		INVARIANT(false); /* a name of ours fits */
}

void store_take_snapshot(struct worker *w, struct cluster *c)
{
	mend_leader_name(w, c);
	bool first = !w->c_fresh;
	cluster_free(w->c);
	w->c = c;
	w->c_serial++;
	w->view.c =
		c; /* what is asked of the last view between decisions must not see the old one */
	w->c_fresh = true;
	w->last_seen_s = clock_wall_us() / 1000000;
	config_take_dynamic(w);
	struct keeper_event ev = { .kind = KEEPER_SNAPSHOT,
		.leader_is_me = c->leader_present && strcmp(c->leader, w->welcome.name) == 0 &&
				cluster_held_by_other(c, w->welcome.name) == NULL,
		.session_is_mine =
			c->leader_session[0] != '\0' && dcs_owns(w->dcs, c->leader_session),
		.no_leader = !c->leader_present,
		.leader_version = c->leader_version,
		.revision = c->revision };
	keeper_event(w, &ev);
	if (first)
		log_info("first view of the cluster: leader=%s members=%u",
			cluster_unlocked(c) ? "none" : c->leader, c->member_count);
	requests_progress(w);
}

static void on_watch(const struct dcs_watch_event *ev, void *arg)
{
	struct worker *w = arg;
	if (w->watch_current != ev->current)
		log_info("watch of the store %s", ev->current ? "is current" : "is broken");
	w->watch_current = ev->current;
	if (ev->current)
		store_answered(w, DCS_OK);
	else
		store_answered(w, DCS_UNKNOWN);
	if (ev->cluster == NULL)
		return;
	bool was_unlocked = !w->c_fresh || cluster_unlocked(w->c);
	bool first = !w->c_fresh;
	bool others = !first && cluster_members_differ(w->c, ev->cluster);
	store_take_snapshot(w, ev->cluster);
	/* A renewal of a member key is no news; everything that a rule rests on is, and whoever
	 * comes needs its slot. */
	bool i_lead = str_eq(w->c->leader, w->welcome.name);
	if (first || others || ev->leader_changed || ev->config_changed || ev->failover_changed ||
		ev->sync_changed || was_unlocked != cluster_unlocked(w->c) ||
		(ev->status_changed && !i_lead) || (ev->members_changed && w->wants_members))
		turn_want(w, "store changed");
	publish_page(w);
}

void store_take_read(struct worker *w, struct cluster *c)
{
	/* Answers and the watch overtake each other: an older view would stay until the next event.
	 */
	if (w->c_fresh && w->watch_current && c->revision < w->c->revision)
		cluster_free(c);
	else
		store_take_snapshot(w, c);
}

static void on_reread(const struct dcs_event *e, void *arg)
{
	struct worker *w = arg;
	w->read_running = false;
	store_answered(w, e->outcome);
	if (e->outcome == DCS_OK && e->cluster != NULL)
		store_take_read(w, e->cluster);
	if (w->mem.awaiting == AWAIT_REREAD)
		turn_result(w, e->outcome == DCS_OK ? HA_OUT_OK : HA_OUT_UNKNOWN, 0);
	else
		turn_want(w, "store was read");
}

void store_reread(struct worker *w)
{
	if (w->read_running)
		return;
	w->read_running = true;
	struct dcs_op op = { .kind = DCS_READ };
	dcs_submit(w->dcs, &op, on_reread, w);
}

void store_complain(struct worker *w, const struct dcs_event *e)
{
	if (e->outcome != DCS_OK)
		turn_note(w, LOG_WARNING, "store %s: %s %s", dcs_op_name(e->kind),
			e->outcome == DCS_CONFLICT ? "conflict"
			: e->outcome == DCS_DENIED ? "denied"
						   : "no answer",
			e->text);
}

static void on_write(const struct dcs_event *e, void *arg)
{
	struct worker *w = arg;
	store_answered(w, e->outcome);
	store_complain(w, e);
}

void store_submit(struct worker *w, const struct dcs_op *op)
{
	dcs_submit(w->dcs, op, on_write, w);
}

static void on_status_written(const struct dcs_event *e, void *arg)
{
	struct worker *w = arg;
	void (*fn)(struct worker *) = w->on_status;
	w->on_status = NULL;
	on_write(e, arg);
	if (fn != NULL)
		fn(w);
}

void store_status(struct worker *w, const char *value)
{
	struct dcs_op op = { .kind = DCS_SET_STATUS, .value = value, .leader_only = true };
	dcs_submit(w->dcs, &op, on_status_written, w);
}

static void on_touched(const struct dcs_event *e, void *arg)
{
	struct worker *w = arg;
	bool again = w->touch_again;
	w->touch_running = w->touch_again = false;
	on_write(e, arg);
	if (again)
		publish_member(w);
	if (!w->touch_running && w->on_touched != NULL)
		w->on_touched(w);
}

/* One at a time: each change of state writes the key, and a store that does not answer would hold
 * many, to take them in any order. What changed meanwhile is written after it. */
void store_touch(struct worker *w, const char *value)
{
	struct dcs_op op = { .kind = DCS_TOUCH_MEMBER, .value = value };
	if (w->touch_running) {
		w->touch_again = true;
		return;
	}
	w->touch_running = true;
	dcs_submit(w->dcs, &op, on_touched, w);
}

static void on_failover(const struct dcs_event *e, void *arg)
{
	struct worker *w = arg;
	w->failover_running = false;
	/* Nobody knows: it may have happened, and the watch will tell. */
	w->failover_unknown_ms = e->outcome == DCS_UNKNOWN ? clock_boot_ms() : 0;
	on_write(e, arg);
}

/* The rules want it in every cycle as long as they see the key; a store that is slow is asked once,
 * and after no answer once in loop_wait. */
void store_failover(struct worker *w, const char *value, int64_t version)
{
	struct dcs_op op = { .kind = DCS_SET_FAILOVER, .value = value, .version = version };
	bool waits = w->failover_unknown_ms != 0 &&
		     clock_boot_ms() - w->failover_unknown_ms < w->set.loop_wait_ms;
	if (w->failover_running || (waits && version == w->failover_version))
		return;
	w->failover_running = true;
	w->failover_version = version;
	dcs_submit(w->dcs, &op, on_failover, w);
}

static void fill_config(
	struct worker *w, struct dcs_config *cfg, const json_t *section, const char *backend)
{
	memset(cfg, 0, sizeof(*cfg));
	cfg->section = section;
	cfg->ttl_ms = w->store_ttl_ms != 0 ? w->store_ttl_ms : w->set.ttl_ms;
	cfg->loop_wait_ms = w->set.loop_wait_ms;
	cfg->retry_timeout_ms = w->set.retry_timeout_ms;
	cfg->citus_group = -1;
	const char *ns = json_string_value(json_object_get(config_tree(w), "namespace"));
	if (!str_copy(cfg->backend, sizeof(cfg->backend), backend) ||
		!str_copy(cfg->name, sizeof(cfg->name), w->welcome.name) ||
		!str_copy(cfg->scope, sizeof(cfg->scope), w->welcome.scope) ||
		!str_copy(cfg->namespace_, sizeof(cfg->namespace_), ns != NULL ? ns : "service"))
		log_error("namespace %s is too long", ns);
}

enum err_code store_start(struct worker *w, struct err *err)
{
	char backend[16], others[200] = "";
	enum err_code rc = dcs_choose(config_tree(w), backend, others, sizeof(others), err);
	if (rc != ERR_OK)
		return rc;
	if (others[0] != '\0')
		log_warning("several store sections in the configuration: %s is used, not %s",
			backend, others);
	struct dcs_config cfg;
	fill_config(w, &cfg, json_object_get(config_tree(w), backend), backend);
	rc = dcs_open(&w->dcs, &cfg, &w->loop, w->http, err);
	if (rc != ERR_OK)
		return rc;
	if (!str_copy(w->backend, sizeof(w->backend), backend))
		return err_set(err, ERR_LIMIT, 0, "backend name");
	w->c = cluster_new();
	if (w->c == NULL)
		return err_set(err, ERR_NOMEM, 0, "cluster");
	w->store_ok_ms = clock_boot_ms();
	dcs_watch(w->dcs, on_watch, w);
	return ERR_OK;
}

void store_reconfigure(struct worker *w)
{
	if (w->dcs == NULL)
		return;
	struct dcs_config cfg;
	struct err err = ERR_INIT;
	fill_config(w, &cfg, json_object_get(config_tree(w), w->backend), w->backend);
	if (dcs_reconfigure(w->dcs, &cfg, &err) != ERR_OK)
		turn_note(w, LOG_ERROR, "store settings: %s", err.text);
}
