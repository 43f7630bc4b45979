/* Carries out a plan, action by action: the only place where decisions become effects (DESIGN 4).
 * Worker process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/decode.h"
#include "common/ext/json.h"
#include "worker/postgres/control.h"
#include "worker/worker.h"

static enum ha_outcome outcome_of(const struct dcs_event *e)
{
	return e->outcome == DCS_OK	    ? HA_OUT_OK
	       : e->outcome == DCS_CONFLICT ? HA_OUT_CONFLICT
	       : e->outcome == DCS_DENIED   ? HA_OUT_DENIED
					    : HA_OUT_UNKNOWN;
}

static void on_awaited(const struct dcs_event *e, void *arg)
{
	struct worker *w = arg;
	store_answered(w, e->outcome);
	store_complain(w, e);
	if (e->id != w->turn.await_id)
		return; /* its deadline passed and the rules went on */
	w->turn.await_id = 0;
	turn_result(w, outcome_of(e), e->version);
}

/* A store operation; when it is the last action of a plan that awaits, its answer goes to ha_step.
 */
static void submit(struct worker *w, const struct dcs_op *op, bool awaited)
{
	if (awaited)
		w->turn.await_id = dcs_submit(w->dcs, op, on_awaited, w);
	else
		store_submit(w, op);
}

static void keeper_command(
	struct worker *w, enum keeper_event_kind kind, enum keeper_op op, bool awaited)
{
	struct keeper_event ev = { .kind = kind,
		.deadline_ms = clock_boot_ms() + w->set.retry_timeout_ms };
	if (awaited)
		w->awaited_op = op;
	keeper_event(w, &ev);
}

static const char (*names_of(const struct worker *w, const struct ha_action *a))[LIMIT_NAME]
{
	return (const char(*)[LIMIT_NAME]) & w->plan.names[a->name_first];
}

static void write_sync(struct worker *w, const struct ha_action *a, bool awaited)
{
	char *text = encode_sync(w->welcome.name, a->quorum, names_of(w, a), a->name_count);
	if (text == NULL) {
		if (awaited)
			turn_result(w, HA_OUT_DENIED, 0);
		return;
	}
	struct dcs_op op = {
		.kind = DCS_SET_SYNC, .value = text, .version = a->version, .leader_only = true
	};
	submit(w, &op, awaited);
	free(text);
}

static void write_failover(struct worker *w, const struct ha_action *a)
{
	char *text = NULL;
	if (a->kind == HA_REWRITE_FAILOVER)
		text = encode_failover(NULL, w->c->failover_candidate,
			w->c->failover_scheduled ? w->c->failover_at_wall_us : 0);
	store_failover(w, text != NULL ? text : "{}", a->version);
	free(text);
}

/* Only where there is none that can be read: what was changed since we looked, while a bootstrap
 * ended for instance, is never put back to what we know. */
static void write_config(struct worker *w, bool awaited)
{
	if (w->c->config_valid) {
		if (awaited)
			turn_result(w, HA_OUT_OK, w->c->config_version);
		return;
	}
	char *text = json_compact(w->dynamic);
	struct dcs_op op = { .kind = DCS_SET_CONFIG,
		.value = text,
		.create = !w->c->config_present,
		.version = w->c->config_present ? w->c->config_version : 0 };
	if (text != NULL)
		submit(w, &op, awaited);
	else if (awaited)
		turn_result(w, HA_OUT_DENIED, 0);
	free(text);
}

static void write_init(struct worker *w, const struct ha_action *a)
{
	struct dcs_op op = { .kind = DCS_INIT_SET,
		.value = w->system_id,
		.create = a->create,
		.leader_only = a->flag,
		.version = a->version };
	if (w->system_id[0] != '\0')
		submit(w, &op, false);
	else
		log_error("system identifier is not known: initialize is not written");
}

static void arm_watchdog(struct worker *w, bool awaited)
{
	struct msg_watchdog_config m;
	config_watchdog(w, &m);
	w->watchdog_awaited |= awaited;
	/* The same order again would only be answered the same way. */
	bool same = w->watchdog_wanted && memcmp(&m, &w->watchdog_sent, sizeof(m)) == 0 &&
		    w->watchdog_known;
	w->watchdog_wanted = true;
	w->watchdog_sent = m;
	if (same)
		execute_watchdog_state(w);
	else
		link_send(w, MSG_WATCHDOG_CONFIG, 0, &m, NULL, 0, NULL, 0);
}

static void watchdog_off(struct worker *w)
{
	struct msg_watchdog_config m;
	config_watchdog(w, &m);
	m.mode = WATCHDOG_OFF;
	w->watchdog_wanted = w->watchdog_known = false;
	link_send(w, MSG_WATCHDOG_CONFIG, 0, &m, NULL, 0, NULL, 0);
}

static void fence_now(struct worker *w)
{
	log_error("fence ordered rule=%s", w->plan.rule);
	host_pg_stop(&w->host, PG_STOP_KILL, 0, NULL, NULL);
}

static void on_checkpoint(
	struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct worker *w = arg;
	(void)c;
	(void)res;
	w->checkpoint_running = false;
	if (w->checkpoint_generation == w->host.pg.generation)
		w->checkpoint_done = f == PGC_OK;
	if (f != PGC_OK)
		log_warning("checkpoint after promotion: %s", text);
	turn_want(w, "checkpoint");
}

static void checkpoint(struct worker *w)
{
	struct err err = ERR_INIT;
	if (w->checkpoint_running)
		return;
	pgctx_params_local(&w->pg, &w->checkpoint_conn, "0");
	w->checkpoint_generation = w->host.pg.generation;
	if (pgc_exec(&w->checkpoint_conn, "CHECKPOINT", NULL, 0, clock_boot_ms() + 3600000,
		    on_checkpoint, w, &err) == ERR_OK)
		w->checkpoint_running = true;
	else
		log_warning("checkpoint after promotion: %s", err.text);
}

static void on_small_sql(
	struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	(void)c;
	(void)res;
	if (f != PGC_OK)
		log_warning("%s: %s", (const char *)arg, text);
}

/* A statement that nobody waits for. False: the connection is busy with a sequence. */
static bool small_sql(struct worker *w, const char *sql, const char *what)
{
	struct err err = ERR_INIT;
	if (pgc_busy(&w->pg.sql))
		return false;
	pgctx_params_local(&w->pg, &w->pg.sql, "2000");
	if (pgc_exec(&w->pg.sql, sql, NULL, 0, clock_boot_ms() + 3000, on_small_sql, (void *)what,
		    &err) != ERR_OK)
		log_warning("%s: %s", what, err.text);
	return true;
}

static void resume_replay(struct worker *w)
{
	/* busy: ha_step asks again in the next cycle */
	(void)small_sql(w, "SELECT pg_catalog.pg_wal_replay_resume()", "resume of WAL replay");
}

/* A little WAL, so that a standby named just now has something to confirm (ha 5.3); asked for once
 * per setting, so it is kept until the connection is free. */
static void poke_wal(struct worker *w)
{
	w->poke_due = !small_sql(w,
		"SELECT pg_catalog.set_config('synchronous_commit', 'off', true),"
		" pg_catalog.txid_current()",
		"WAL for a new synchronous standby");
}

#define LAST_WRITE_MS 1000

static void shutdown_say(struct worker *w)
{
	struct msg_shutdown_done m = { .leave_postgres = w->shutdown_leave, .exit_code = 0 };
	loop_timer_stop(&w->loop, &w->shutdown_timer);
	if (w->shutdown_said)
		return;
	w->shutdown_said = true;
	link_send(w, MSG_SHUTDOWN_DONE, 0, &m, NULL, 0, NULL, 0);
	log_info("shutdown done%s", w->shutdown_leave ? ", PostgreSQL is left running" : "");
}

static void shutdown_step(struct worker *w)
{
	if (!w->shutdown_scripts && !w->touch_running)
		shutdown_say(w);
}

static void on_shutdown_late(struct loop *l, void *arg)
{
	struct worker *w = arg;
	(void)l;
	log_warning("the %s is not waited for any longer",
		w->shutdown_scripts ? "callback" : "last write of the member key");
	shutdown_say(w);
}

static void shutdown_bound(struct worker *w, int64_t ms)
{
	loop_timer_set(&w->loop, &w->shutdown_timer, clock_boot_ms() + ms, on_shutdown_late, w);
}

static void on_scripts_end(void *arg)
{
	struct worker *w = arg;
	w->shutdown_scripts = false;
	shutdown_bound(w, LAST_WRITE_MS);
	shutdown_step(w);
}

/* The end of the agent ends all its jobs, and on_stop has just begun: it is what takes an address
 * away from this node (ha 10). PostgreSQL has stopped and the key is released by now. The others
 * are to see the last state of this member: nobody writes it after us. */
static void shutdown_done(struct worker *w, const struct ha_action *a)
{
	w->shutdown_leave = a->flag;
	if (w->on_touched == shutdown_step)
		return;
	w->shutdown_answered = true;
	w->on_touched = shutdown_step;
	publish_member(w);
	w->shutdown_scripts = control_callbacks_await(on_scripts_end, w);
	shutdown_bound(w, w->shutdown_scripts ? LIMIT_ON_STOP_MS : LAST_WRITE_MS);
	shutdown_step(w);
}

static void leave(struct worker *w, const struct ha_action *a)
{
	if (w->setting_aside) {
		/* The end of the agent would cut it short; task_rename_failed comes back. */
		w->exit_due = *a;
		return;
	}
	struct msg_shutdown_done m = { .leave_postgres = a->flag, .exit_code = (uint32_t)a->code };
	w->shutdown_answered = true;
	w->exit_code = a->code;
	link_send(w, MSG_SHUTDOWN_DONE, 0, &m, NULL, 0, NULL, 0);
}

static void store_action(struct worker *w, const struct ha_action *a, bool awaited)
{
	struct dcs_op op = { .version = a->version };
	switch (a->kind) {
	case HA_ACQUIRE:
		/* With .flag the keeper has adopted, or is adopting, on its own: it answers the
		 * same command. */
		keeper_command(w, KEEPER_ACQUIRE, KEEPER_OP_ACQUIRE, awaited);
		break;
	case HA_TAKE_LEADER: keeper_command(w, KEEPER_TAKE, KEEPER_OP_TAKE, awaited); break;
	case HA_RELEASE:
		publish_status(w, a->lsn);
		keeper_command(w, KEEPER_RELEASE, KEEPER_OP_RELEASE, awaited);
		break;
	case HA_WRITE_STATUS: publish_status(w, 0); break;
	case HA_WRITE_FAILSAFE: publish_failsafe(w, a->flag); break;
	case HA_EMPTY_FAILSAFE:
		op.kind = DCS_SET_FAILSAFE;
		op.leader_only = true;
		op.value = "{}";
		submit(w, &op, awaited);
		break;
	case HA_WRITE_INIT: write_init(w, a); break;
	case HA_RACE_INIT:
		op.kind = DCS_INIT_RACE;
		submit(w, &op, awaited);
		break;
	case HA_CANCEL_INIT:
		op.kind = DCS_INIT_CANCEL;
		submit(w, &op, awaited);
		break;
	case HA_WRITE_CONFIG: write_config(w, awaited); break;
	case HA_CLEAR_FAILOVER:
	case HA_REWRITE_FAILOVER: write_failover(w, a); break;
	case HA_WRITE_SYNC: write_sync(w, a, awaited); break;
	case HA_DELETE_SYNC:
		op.kind = DCS_DELETE_SYNC;
		op.leader_only = true;
		submit(w, &op, awaited);
		break;
	case HA_WRITE_HISTORY: publish_history(w); break;
	case HA_TOUCH_MEMBER: publish_member(w); break;
	case HA_REREAD: store_reread(w); break;
	default: INVARIANT(!"not a store action");
	}
}

static void pg_action(struct worker *w, const struct ha_action *a, bool awaited)
{
	switch (a->kind) {
	case HA_TASK_START: task_start(w, a); break;
	case HA_TASK_CANCEL: task_cancel(w); break;
	case HA_STOP_PG:
		host_pg_stop(&w->host, a->stop_mode, w->set.retry_timeout_ms, NULL, NULL);
		break;
	case HA_FOLLOW_RELOAD: task_follow_reload(w, a); break;
	case HA_SET_ROLE: worker_set_role(w, a->role); break;
	case HA_SET_STATE: worker_set_state(w, a->state); break;
	case HA_SET_SSN: task_set_ssn(w, &a->ssn, names_of(w, a), a->name_count); break;
	case HA_RESUME_REPLAY: resume_replay(w); break;
	case HA_POKE_WAL: poke_wal(w); break;
	case HA_CHECKPOINT: checkpoint(w); break;
	case HA_SYNC_SLOTS: slots_sync(w); break;
	case HA_FORGET_SLOTS: break; /* every fact query reads the list */
	case HA_CALLBACK: worker_callback(w, a->callback, a->role); break;
	case HA_WATCHDOG_ARM: arm_watchdog(w, awaited); break;
	case HA_WATCHDOG_OFF: watchdog_off(w); break;
	case HA_RENAME_FAILED: task_rename_failed(w); break;
	case HA_CLEAR_MARK: task_clear_mark(w); break;
	case HA_FENCE: fence_now(w); break;
	default: INVARIANT(!"not a PostgreSQL action");
	}
}

static void failsafe_hold(struct worker *w, const struct ha_action *a)
{
	struct keeper_event ev = { .kind = KEEPER_FAILSAFE, .at_ms = a->until_ms - w->set.ttl_ms };
	keeper_event(w, &ev);
}

static void prove_lease(struct worker *w)
{
	struct keeper_event ev = { .kind = KEEPER_DOUBT };
	keeper_event(w, &ev);
}

/* Every kind has its line: one that is forgotten here does not compile. */
#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wswitch-enum"
static void one_action(struct worker *w, const struct ha_action *a, bool awaited)
{
	switch (a->kind) {
	case HA_NOP:
	case HA_WAIT: break;
	case HA_POLL_PEERS: peers_poll(w, names_of(w, a), a->name_count); break;
	case HA_FAILSAFE_ROUND: peers_failsafe_round(w, names_of(w, a), a->name_count); break;
	case HA_FAILSAFE_HOLD: failsafe_hold(w, a); break;
	case HA_RENEW: prove_lease(w); break;
	case HA_DROP_SCHEDULED_RESTART:
		memset(&w->scheduled, 0, sizeof(w->scheduled));
		publish_member(w);
		break;
	case HA_REQUEST_REFUSED: requests_refused(w, a->task, w->plan.reason); break;
	case HA_EXIT: leave(w, a); break;
	case HA_SHUTDOWN_DONE: shutdown_done(w, a); break;
	case HA_ACQUIRE:
	case HA_RELEASE:
	case HA_WRITE_STATUS:
	case HA_WRITE_FAILSAFE:
	case HA_EMPTY_FAILSAFE:
	case HA_WRITE_INIT:
	case HA_RACE_INIT:
	case HA_CANCEL_INIT:
	case HA_WRITE_CONFIG:
	case HA_TAKE_LEADER:
	case HA_CLEAR_FAILOVER:
	case HA_REWRITE_FAILOVER:
	case HA_WRITE_SYNC:
	case HA_DELETE_SYNC:
	case HA_WRITE_HISTORY:
	case HA_TOUCH_MEMBER:
	case HA_REREAD: store_action(w, a, awaited); break;
	case HA_TASK_START:
	case HA_TASK_CANCEL:
	case HA_STOP_PG:
	case HA_FOLLOW_RELOAD:
	case HA_SET_ROLE:
	case HA_SET_STATE:
	case HA_SET_SSN:
	case HA_POKE_WAL:
	case HA_RESUME_REPLAY:
	case HA_CHECKPOINT:
	case HA_SYNC_SLOTS:
	case HA_FORGET_SLOTS:
	case HA_CALLBACK:
	case HA_WATCHDOG_ARM:
	case HA_WATCHDOG_OFF:
	case HA_RENAME_FAILED:
	case HA_CLEAR_MARK:
	case HA_FENCE: pg_action(w, a, awaited); break;
	case HA_ACTION_COUNT: INVARIANT(!"not an action");
	}
}
#pragma GCC diagnostic pop

void execute_exit_due(struct worker *w)
{
	if (w->exit_due.kind == HA_EXIT)
		leave(w, &w->exit_due);
}

void execute_plan(struct worker *w)
{
	/* Actions may wake the turn; the plan itself stays as it is until the next ha_step. */
	unsigned count = w->plan.count;
	if (w->poke_due)
		poke_wal(w);
	for (unsigned i = 0; i < count; i++) {
		bool awaited = w->plan.await != AWAIT_NONE && i + 1 == count;
		one_action(w, &w->plan.actions[i], awaited);
	}
}

/* Before the device was ever asked for the supervisor knows none, which is no failure: else a
 * member that starts with data would never race, and its peers would count it out. */
bool execute_watchdog_failed(const struct worker *w)
{
	return w->set.watchdog_mode == WATCHDOG_REQUIRED && w->watchdog_wanted &&
	       w->watchdog_known && !w->host.watchdog.usable;
}

void execute_watchdog_state(struct worker *w)
{
	w->watchdog_known = true;
	if (!w->watchdog_awaited)
		return;
	w->watchdog_awaited = false;
	bool good = w->host.watchdog.usable || w->set.watchdog_mode != WATCHDOG_REQUIRED;
	if (!w->host.watchdog.usable)
		log_line(good ? LOG_INFO : LOG_ERROR, "watchdog: %s", w->host.watchdog.text);
	turn_result(w, good ? HA_OUT_OK : HA_OUT_DENIED, 0);
}
