/* A view with defaults for the tests of worker/ha, and a driver that answers what a plan waits for.
 * Node "a" is under test, "b" and "c" are its peers. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "common/model/ha_plan.h"
#include "common/model/ha_view.h"

#define FX_SYSID   "7123456789012345678"
#define FX_NOW	   1000000
#define FX_ACTIONS 200

struct fx {
	struct ha_view v;
	struct settings set;
	struct cluster c;
	struct member members[4];
	struct failsafe_member failsafe[4];
	struct history_row history[4];
	char voters[4][LIMIT_NAME];
	struct pg_sql sql;
	struct pg_files files;
	struct pg_walsender senders[8];
	struct ha_memory m;
	struct ha_plan plan;
	struct ha_peer peers[4];
	unsigned peer_count;
	/* answers */
	enum ha_outcome acquire, reread, write_sync, watchdog, init_race, take, cancel_init;
	bool failsafe_ok;
	void (*on_reread)(struct fx *f); /* what the fresh C shows */
	/* everything that the stages of one cycle asked for */
	struct ha_action actions[FX_ACTIONS];
	char names[FX_ACTIONS][256]; /* names of that action, comma separated */
	unsigned action_count;
	char notes[4000];
	unsigned stages;
	void (*on_plan)(struct fx *f); /* sees every plan, the awaiting ones too */
};

static inline void fx_set(char *dst, size_t n, const char *text)
{
	bool ok = str_copy(dst, n, text);
	assert_true(ok);
}
#define FX_SET(dst, text) fx_set(dst, sizeof(dst), text)

static inline void fx_member(struct fx *f, unsigned i, const char *name, const char *role)
{
	struct member *m = &f->members[i];
	memset(m, 0, sizeof(*m));
	FX_SET(m->name, name);
	FX_SET(m->state, "running");
	FX_SET(m->role, role);
	assert_true(
		str_format(m->conn_url, sizeof(m->conn_url), "postgres://%s:5432/postgres", name));
	assert_true(str_format(m->api_url, sizeof(m->api_url), "http://%s:8008/patroni", name));
	m->timeline = 1;
	m->tags.failover_priority = m->tags.sync_priority = 1;
	if (f->c.member_count <= i)
		f->c.member_count = i + 1;
}

static inline void fx_peer(struct fx *f, const char *name, uint64_t position)
{
	struct ha_peer *p = &f->peers[f->peer_count++];
	memset(p, 0, sizeof(*p));
	FX_SET(p->name, name);
	p->answered = p->in_recovery = true;
	p->position = position;
	p->timeline = 1;
	p->failover_priority = 1;
}

/* This standby streams from us. */
static inline void fx_streams(struct fx *f, const char *name)
{
	struct pg_walsender *w = &f->senders[f->sql.walsender_count++];
	*w = (struct pg_walsender){ .pid = 1 };
	fx_set(w->application_name, sizeof(w->application_name), name);
}

static inline struct fx *fx_new(void)
{
	struct fx *f = calloc(1, sizeof(*f));
	assert_non_null(f);
	f->set = (struct settings){ .ttl_ms = 30000,
		.loop_wait_ms = 10000,
		.retry_timeout_ms = 10000,
		.maximum_lag_on_failover = 1048576,
		.maximum_lag_on_syncnode = -1,
		.primary_start_timeout_ms = 300000,
		.sync_node_count = 1,
		.member_slots_ttl_ms = 1800000,
		.use_slots = true,
		.have_bootstrap = true,
		.watchdog_margin_ms = 5000,
		.tags = { .failover_priority = 1, .sync_priority = 1 } };
	f->v.now_ms = FX_NOW;
	f->m.started_ms = FX_NOW - 600000; /* not just started: X13 is a row of its own */
	f->m.lock_was_held = true;
	f->m.lock_won = true; /* a key that is held was won: X18 is a row of its own */
	f->v.wall_us = 1700000000000000;
	FX_SET(f->v.name, "a");
	FX_SET(f->v.system_id, FX_SYSID);
	f->v.set = &f->set;
	f->v.c = &f->c;
	f->v.c_fresh = true;
	f->v.sql = &f->sql;
	f->v.files = &f->files;
	f->v.callbacks_called = true;
	f->v.follow_known = true;
	f->v.generation = 1;
	f->c.members = f->members;
	f->c.failsafe = f->failsafe;
	f->c.history = f->history;
	f->c.sync_voters = f->voters;
	f->c.init_present = f->c.config_present = f->c.config_valid = true;
	FX_SET(f->c.init, FX_SYSID);
	f->c.history_present = f->c.history_valid = true;
	fx_member(f, 0, "a", "replica");
	fx_member(f, 1, "b", "replica");
	fx_member(f, 2, "c", "replica");
	f->files = (struct pg_files){
		.valid = true, .dir_exists = true, .dir_readable = true, .major = 15
	};
	f->files.control = (struct pg_control){
		.valid = true, .state = PG_DB_IN_PRODUCTION, .checkpoint_tli = 1
	};
	f->sql.walsenders = f->senders;
	f->sql.server_version = 150000;
	FX_SET(f->sql.synchronous_commit, "on");
	f->acquire = f->reread = f->write_sync = f->watchdog = f->init_race = f->take = HA_OUT_OK;
	f->cancel_init = HA_OUT_OK;
	return f;
}

/* 'P' primary, 'R' standby, 'D' down after a crash as primary, 'd' down as standby, 'S' starting as
 * primary, 'E' empty. */
static inline void fx_pg(struct fx *f, char kind)
{
	bool up = kind == 'P' || kind == 'R';
	f->v.proc = up || kind == 'S' ? PG_PROC_RUNNING : PG_PROC_NONE;
	f->sql.valid = up;
	f->sql.failed_since_ms = kind == 'S' ? FX_NOW - 1 : 0;
	f->sql.in_recovery = kind == 'R';
	f->sql.timeline = up ? 1 : 0;
	f->sql.flush_lsn = kind == 'P' ? 1000 : 0;
	f->sql.receive_lsn = f->sql.replay_lsn = kind == 'R' ? 1000 : 0;
	f->v.role = kind == 'R' || kind == 'd' ? PG_ROLE_REPLICA
		    : kind == 'E'	       ? PG_ROLE_UNINITIALIZED
					       : PG_ROLE_PRIMARY;
	f->v.state = up ? PG_STATE_RUNNING : kind == 'S' ? PG_STATE_STARTING : PG_STATE_STOPPED;
	if (kind == 'D')
		f->v.state = PG_STATE_RUNNING;
	f->v.state_since_ms = FX_NOW - 1000;
	f->v.control_timeline = 1;
	f->files.standby_signal = kind == 'R' || kind == 'd';
	f->files.control.state =
		kind == 'R' || kind == 'd' ? PG_DB_IN_ARCHIVE_RECOVERY : PG_DB_IN_PRODUCTION;
	if (kind == 'E') {
		f->files.dir_empty = true;
		f->files.control.valid = false;
		f->v.system_id[0] = '\0';
	}
}

static inline void fx_leader(struct fx *f, const char *name)
{
	f->c.leader_present = name[0] != '\0';
	f->c.leader_version = 7;
	FX_SET(f->c.leader, name);
	for (unsigned i = 0; i < f->c.member_count; i++)
		if (strcmp(f->members[i].name, name) == 0)
			FX_SET(f->members[i].role, "primary");
	if (f->v.role == PG_ROLE_REPLICA && strcmp(name, "a") != 0)
		FX_SET(f->v.following, name);
}

static inline void fx_lock(struct fx *f, enum ha_lock lock)
{
	f->v.lock = lock;
	f->v.lease_until_ms = lock == LOCK_NONE || lock == LOCK_LOST ? 0 : f->v.now_ms + 20000;
	f->v.gentle_at_ms = f->v.lease_until_ms == 0 ? 0 : f->v.lease_until_ms - 6500;
}

/* "a" leads as primary. */
static inline void fx_as_leader(struct fx *f)
{
	fx_pg(f, 'P');
	fx_leader(f, "a");
	fx_lock(f, LOCK_HELD);
	f->m.rewind_state = REWIND_CHECKPOINT;
}

/* "b" leads, "a" follows it. */
static inline void fx_as_replica(struct fx *f)
{
	fx_pg(f, 'R');
	fx_leader(f, "b");
	FX_SET(f->members[1].role, "primary");
}

static inline void fx_append(char *dst, size_t n, const char *text)
{
	size_t used = strnlen(dst, n), len = strlen(text);
	assert_true(used + len < n);
	memmove(dst + used, text, len + 1); /* the names that it joins lie in the same struct */
}

static inline void fx_collect(struct fx *f)
{
	for (unsigned i = 0; i < f->plan.count; i++) {
		const struct ha_action *a = &f->plan.actions[i];
		assert_true(f->action_count < FX_ACTIONS);
		char *names = f->names[f->action_count];
		names[0] = '\0';
		for (unsigned k = 0; k < a->name_count; k++) {
			if (k > 0)
				fx_append(names, 256, ",");
			fx_append(names, 256, f->plan.names[a->name_first + k]);
		}
		f->actions[f->action_count++] = *a;
	}
	for (unsigned i = 0; i < f->plan.note_count; i++) {
		fx_append(f->notes, sizeof(f->notes), f->plan.notes[i]);
		fx_append(f->notes, sizeof(f->notes), "\n");
	}
}

static inline void fx_answer_peers(struct fx *f)
{
	const struct ha_action *poll = &f->actions[f->action_count - 1];
	assert_int_equal(poll->kind, HA_POLL_PEERS);
	static struct ha_peer answers[8];
	unsigned n = 0;
	for (unsigned k = 0; k < poll->name_count; k++) {
		const char *name = f->plan.names[poll->name_first + k];
		struct ha_peer *to = &answers[n++];
		memset(to, 0, sizeof(*to));
		FX_SET(to->name, name);
		for (unsigned i = 0; i < f->peer_count; i++) {
			if (strcmp(f->peers[i].name, name) == 0)
				*to = f->peers[i];
		}
	}
	f->v.peers = answers;
	f->v.peer_count = n;
}

static inline struct ha_result fx_answer(struct fx *f)
{
	struct ha_result r = { .present = true, .outcome = HA_OUT_OK, .version = 99 };
	enum ha_action_kind kind = f->plan.actions[f->plan.count - 1].kind;
	switch (kind) {
	case HA_ACQUIRE:
		r.outcome = f->acquire;
		if (f->acquire == HA_OUT_OK) {
			fx_lock(f, LOCK_HELD);
			fx_leader(f, "a");
		}
		break;
	case HA_TAKE_LEADER:
		r.outcome = f->take;
		if (f->take == HA_OUT_OK)
			fx_lock(f, LOCK_HELD);
		break;
	case HA_REREAD:
		r.outcome = f->reread;
		if (f->on_reread != NULL)
			f->on_reread(f);
		break;
	case HA_WRITE_SYNC: {
		const struct ha_action *a = &f->plan.actions[f->plan.count - 1];
		r.outcome = f->write_sync;
		if (r.outcome == HA_OUT_OK &&
			a->version != (f->c.sync_key_exists ? f->c.sync_version : -1))
			r.outcome = HA_OUT_CONFLICT;
		if (r.outcome != HA_OUT_OK)
			break;
		f->c.sync_key_exists = true;
		r.version = ++f->c.sync_version;
		FX_SET(f->c.sync_leader, f->v.name);
		f->c.sync_quorum = a->quorum;
		f->c.sync_voter_count = a->name_count;
		for (unsigned i = 0; i < a->name_count; i++)
			FX_SET(f->voters[i], f->plan.names[a->name_first + i]);
		break;
	}
	case HA_WATCHDOG_ARM: r.outcome = f->watchdog; break;
	case HA_RACE_INIT: r.outcome = f->init_race; break;
	case HA_CANCEL_INIT: r.outcome = f->cancel_init; break;
	case HA_FAILSAFE_ROUND: r.failsafe_ok = f->failsafe_ok; break;
	case HA_POLL_PEERS: fx_answer_peers(f); break;
	default: fail_msg("plan waits after action %d", kind);
	}
	return r;
}

/* One whole cycle. */
static inline void fx_run(struct fx *f)
{
	f->action_count = 0;
	f->stages = 0;
	f->notes[0] = '\0';
	ha_step(&f->v, &f->m, NULL, &f->plan);
	fx_collect(f);
	if (f->on_plan != NULL)
		f->on_plan(f);
	while (f->plan.await != AWAIT_NONE) {
		assert_true(f->stages++ < 64);
		assert_true(f->plan.await_deadline_ms > f->v.now_ms);
		struct ha_result r = fx_answer(f);
		ha_step(&f->v, &f->m, &r, &f->plan);
		fx_collect(f);
		if (f->on_plan != NULL)
			f->on_plan(f);
	}
	f->v.task_ended = TASK_NONE;
	assert_true(f->plan.reason[0] != '\0');
}

static inline const struct ha_action *fx_find(const struct fx *f, enum ha_action_kind kind)
{
	for (unsigned i = 0; i < f->action_count; i++) {
		if (f->actions[i].kind == kind)
			return &f->actions[i];
	}
	return NULL;
}

static inline const struct ha_action *fx_task(const struct fx *f)
{
	return fx_find(f, HA_TASK_START);
}

static inline void fx_expect(const struct fx *f, const char *rule)
{
	if (strcmp(f->plan.rule, rule) != 0)
		fail_msg("rule %s, want %s: %s\n%s", f->plan.rule, rule, f->plan.reason, f->notes);
}

static inline void fx_expect_task(const struct fx *f, enum ha_task task)
{
	const struct ha_action *a = fx_task(f);
	assert_non_null(a);
	assert_int_equal(a->task, task);
}

static inline void fx_task_ends(struct fx *f, enum ha_task task, enum ha_task_result result)
{
	f->v.task = TASK_NONE;
	f->v.task_ended = task;
	f->v.task_result = result;
}
