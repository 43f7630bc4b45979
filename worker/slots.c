/* Replication slots of this server: the plan of worker/ha/slots_plan against what is there
 * (ha 7.4). One statement at a time, on a connection of its own. Worker process. */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/worker.h"

#define SLOT_MS 5000

static struct pgc conn;
static struct slots_plan plan;
static struct {
	char name[LIMIT_SLOT_NAME];
	int64_t seen_ms;
} retained[LIMIT_SLOTS];
static unsigned retained_count;
static char last_error[200];

static bool leads(const struct worker *w)
{
	return w->pg.role == PG_ROLE_PRIMARY || w->pg.role == PG_ROLE_PROMOTED ||
	       w->pg.role == PG_ROLE_STANDBY_LEADER;
}

/* What was said outside of the store while it does not answer: by the leader with its failsafe word
 * (all its slots), by the others to the leader's (their own position). */
static struct slot_lsn said[LIMIT_SLOTS];
static unsigned said_count;
static int64_t said_ms;

static void say(const char *slot, int64_t lsn)
{
	if (lsn <= 0)
		return;
	for (unsigned i = 0; i < said_count; i++) {
		if (strcmp(said[i].name, slot) == 0) {
			if ((uint64_t)lsn > said[i].lsn)
				said[i].lsn = (uint64_t)lsn;
			return;
		}
	}
	if (said_count < LIMIT_SLOTS && str_copy(said[said_count].name, LIMIT_SLOT_NAME, slot))
		said[said_count++].lsn = (uint64_t)lsn;
}

/* Old words count for nothing: the list begins anew. */
static void say_anew(const struct worker *w)
{
	int64_t now_ms = clock_boot_ms();
	if (now_ms - said_ms >= w->set.ttl_ms)
		said_count = 0;
	said_ms = now_ms;
}

void slots_said_member(struct worker *w, const char *member, int64_t lsn)
{
	char name[LIMIT_SLOT_NAME];
	say_anew(w);
	str_slot_name(member, name);
	say(name, lsn);
}

void slots_said_leader(struct worker *w, const json_t *slots)
{
	const char *name;
	json_t *v;
	say_anew(w);
	json_object_foreach((json_t *)slots, name, v) say(name, json_integer_value(v));
	slots_sync(w);
}

static struct slots_in plan_input(const struct worker *w)
{
	int64_t now_ms = clock_boot_ms();
	bool heard = now_ms - said_ms < w->set.ttl_ms;
	bool word = w->failsafe.last_ms != 0 && now_ms - w->failsafe.last_ms < w->failsafe.ttl_ms;
	return (struct slots_in){ .me = w->welcome.name,
		.leader = !cluster_unlocked(w->c) ? w->c->leader
			  : word		  ? w->failsafe.name
						  : "",
		.leads = leads(w),
		.c = w->c,
		.set = &w->set,
		.server_version = w->probe.facts.server_version != 0 ? w->probe.facts.server_version
								     : w->pg.major * 10000,
		.said = said,
		.said_count = heard ? said_count : 0 };
}

/* ha 7.6. The configuration files are written from it. */
void slots_feedback(struct worker *w)
{
	if (!w->c_fresh)
		return;
	struct slots_in in = plan_input(w);
	bool on = slots_force_feedback(&in);
	if (on == w->pg.hot_standby_feedback)
		return;
	w->pg.hot_standby_feedback = on;
	task_reload(w, false);
}

static void on_done(struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct worker *w = arg;
	(void)c;
	(void)res;
	if (f == PGC_OK) {
		last_error[0] = '\0';
		/* The list has changed: look again and go on with the next difference. */
		w->slots_again = true;
		probe_ask(&w->probe);
	} else if (strcmp(text, last_error) != 0) {
		log_warning("replication slot: %s", text);
		if (!str_copy_n(last_error, sizeof(last_error), text, sizeof(last_error) - 1))
			last_error[0] = '\0';
	}
}

static void run(struct worker *w, const char *sql, const char *const *args, unsigned n)
{
	struct err err = ERR_INIT;
	pgctx_params_local(&w->pg, &conn, "3000");
	if (pgc_exec(&conn, sql, args, n, clock_boot_ms() + SLOT_MS, on_done, w, &err) != ERR_OK)
		log_warning("replication slot: %s", err.text);
}

static const struct pg_slot *existing(const struct worker *w, const char *name)
{
	for (unsigned i = 0; i < w->probe.facts.slot_count; i++) {
		if (strcmp(w->probe.facts.slots[i].name, name) == 0)
			return &w->probe.facts.slots[i];
	}
	return NULL;
}

/* ha 7.4-2: left over from being primary; PostgreSQL refuses to sync over it. */
static bool blocks_sync(const struct worker *w, const struct slots_in *in, const struct pg_slot *s)
{
	return w->probe.facts.in_recovery && in->leader[0] != '\0' &&
	       strcmp(in->leader, in->me) != 0 && s->logical && s->failover && !s->synced;
}

/* ha 7.4-2, 3, 4: what has to go; true = a statement was sent. */
static bool drop_one(struct worker *w, const struct slots_in *in)
{
	const struct pg_sql *f = &w->probe.facts;
	for (unsigned i = 0; i < f->slot_count; i++) {
		const struct pg_slot *s = &f->slots[i];
		const struct slot_wanted *want = slots_plan_find(&plan, s->name);
		bool differs =
			want != NULL &&
			(want->logical != s->logical ||
				(want->logical && (strcmp(want->database, s->database) != 0 ||
							  strcmp(want->plugin, s->plugin) != 0)));
		bool unwanted = want == NULL || s->invalidated;
		bool stale = blocks_sync(w, in, s);
		bool drop = differs || stale ||
			    (unwanted && !plan.overflow && !w->set.pause &&
				    !slots_ignored(&w->set, s) && !(s->logical && s->failover));
		if (!drop || s->active)
			continue;
		log_info("dropping replication slot %s: %s", s->name,
			stale ? "a failover slot from before, in the way of the one to be synced"
			: differs      ? "its definition differs"
			: want == NULL ? "not wanted here"
				       : "its WAL is gone");
		const char *args[] = { s->name };
		run(w,
			"SELECT pg_catalog.pg_drop_replication_slot($1) FROM "
			"pg_catalog.pg_replication_slots"
			" WHERE slot_name = $1 AND NOT active",
			args, 1);
		return true;
	}
	return false;
}

static bool physical_one(struct worker *w, const struct slot_wanted *want, const struct pg_slot *s)
{
	const char *args[] = { want->name, NULL };
	char lsn[20];
	if (s == NULL) {
		log_info("creating replication slot %s", want->name);
		run(w, "SELECT pg_catalog.pg_create_physical_replication_slot($1, true)", args, 1);
		return true;
	}
	/* An idle slot with an xmin would hold vacuum back for ever: made anew. */
	if (!want->expected_active && !s->active && s->xmin != 0 && !cluster_unlocked(w->c)) {
		log_info("making replication slot %s anew: it is idle and holds an xmin",
			want->name);
		run(w, "SELECT pg_catalog.pg_drop_replication_slot($1)", args, 1);
		return true;
	}
	if (!want->expected_active && !s->active && want->lsn != 0 && s->restart_lsn != 0 &&
		want->lsn > s->restart_lsn) {
		uint64_t own = pg_sql_position(&w->probe.facts), to = want->lsn;
		if (w->probe.facts.in_recovery && w->probe.facts.replay_lsn < to)
			to = w->probe.facts.replay_lsn;
		if (to <= s->restart_lsn || own < to)
			return false;
		str_from_lsn(to, lsn);
		args[1] = lsn;
		run(w, "SELECT pg_catalog.pg_replication_slot_advance($1, $2::pg_lsn)", args, 2);
		return true;
	}
	return false;
}

void slots_sync(struct worker *w)
{
	const struct pg_sql *f = &w->probe.facts;
	if (conn.loop == NULL)
		pgc_init(&conn, &w->loop, "slots");
	w->slots_again = false;
	/* Before the first view nobody is known, and every slot would be unwanted. */
	if (!w->c_fresh || !w->set.use_slots || !f->valid || !f->slots_valid || pgc_busy(&conn) ||
		w->pg.state != PG_STATE_RUNNING)
		return;
	struct slots_in in = plan_input(w);
	slots_plan_make(&in, &plan);
	if (drop_one(w, &in))
		return;
	slots_logical_sync(w, &in, &plan);
	for (unsigned i = 0; i < plan.count; i++) {
		const struct slot_wanted *want = &plan.slot[i];
		const struct pg_slot *s = existing(w, want->name);
		if (!want->logical && physical_one(w, want, s))
			return;
	}
}

json_t *slots_retain(struct worker *w)
{
	int64_t now_ms = clock_boot_ms();
	if (!w->set.use_slots || w->set.member_slots_ttl_ms <= 0 ||
		w->probe.facts.server_version < 110000)
		return NULL;
	/* On acquiring the lock the clock restarts for all names in the key (ha 7.3). */
	bool fresh = w->retain_generation != w->keeper.epoch;
	w->retain_generation = w->keeper.epoch;
	for (unsigned i = 0; fresh && i < w->c->retain_count; i++)
		slots_retain_seen(w->c->retain_slots[i], now_ms);
	for (unsigned i = 0; i < w->c->member_count; i++) {
		const struct member *m = &w->c->members[i];
		char name[64];
		str_slot_name(m->name, name);
		bool permanent = false;
		for (unsigned k = 0; k < w->set.permanent_count; k++)
			permanent |= strcmp(w->set.permanent[k].name, name) == 0;
		/* Mine too: whoever leads next keeps it for me until I am back. */
		if (!permanent && !m->tags.nostream)
			slots_retain_seen(name, now_ms);
	}
	json_t *list = json_array();
	unsigned kept = 0;
	for (unsigned i = 0; i < retained_count; i++) {
		if (now_ms - retained[i].seen_ms > w->set.member_slots_ttl_ms)
			continue;
		retained[kept++] = retained[i];
		json_array_append_new(list, json_string(retained[i].name));
	}
	retained_count = kept;
	return list;
}

void slots_retain_seen(const char *name, int64_t now_ms)
{
	for (unsigned i = 0; i < retained_count; i++) {
		if (strcmp(retained[i].name, name) == 0) {
			retained[i].seen_ms = now_ms;
			return;
		}
	}
	if (retained_count < LIMIT_SLOTS &&
		str_copy(retained[retained_count].name, LIMIT_SLOT_NAME, name))
		retained[retained_count++].seen_ms = now_ms;
}
