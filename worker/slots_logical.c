/* Logical slots of the configuration (ha 7.4-6, 7.4-7, 7.5): created on the primary; on a standby
 * copied from the primary, advanced behind it, and watched until they are safe to be used after a
 * promotion. Statements go over connections of their own: creating waits for running transactions,
 * advancing reads WAL, and neither may hold back the physical slots. Worker process. */
#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/postgres/slot_copy.h"
#include "worker/worker.h"

#define CREATE_MS  30000  /* until all transactions that run now have ended */
#define ADVANCE_MS 600000 /* decodes what lies in between */
#define LEADER_MS  2000

/* A slot on this standby that a promotion might make unusable: the primary's catalog rows that it
 * needs may be gone here. */
struct unproven {
	char name[LIMIT_SLOT_NAME];
	bool seen; /* primary_xmin was taken when our own slot there held an xmin */
	uint32_t primary_xmin;
};

static struct {
	struct worker *w;
	struct pgc create, advance, leader;
	char advancing[LIMIT_SLOT_NAME];
	unsigned advance_next; /* whose turn it is: one that fails must not starve the others */
	char create_error[200], advance_error[200], leader_error[200];
	/* to be copied by the task */
	struct slot_to_copy copy[LIMIT_SLOTS];
	unsigned copy_count;
	char again[LIMIT_SLOT_NAME]; /* could not be advanced: its WAL is gone here */
	int64_t copy_after_ms;
	/* readiness */
	struct unproven queue[LIMIT_SLOTS];
	unsigned queue_count;
	uint64_t generation; /* of the server that the queue was made for */
	int64_t asked_ms;
	bool asking;
	char own_slot[LIMIT_SLOT_NAME]; /* through which our feedback reaches the primary */
	struct pg_target target;
} l;

static void init(struct worker *w)
{
	if (l.w != NULL)
		return;
	l.w = w;
	pgc_init(&l.create, &w->loop, "slot creation");
	pgc_init(&l.advance, &w->loop, "slot advance");
	pgc_init(&l.leader, &w->loop, "slot readiness");
}

/* One line for one reason, not one for each try. */
static void complain(char last[static 200], const char *what, const char *name, const char *text)
{
	char line[200];
	snprintf(line, sizeof(line), "%s %s: %s", what, name, text);
	if (strcmp(line, last) == 0)
		return;
	memcpy(last, line, sizeof(line));
	log_error("%s", line);
}

static bool to_database(struct worker *w, struct pgc *c, const char *database)
{
	struct pgc_params p = { .count = 0 };
	pgctx_params_local(&w->pg, c, "0");
	bool ok = pgc_params_copy(&p, &c->params) && pgc_params_set(&p, "dbname", database) &&
		  pgc_configure(c, &p);
	pgc_params_done(&p);
	return ok;
}

static const struct pg_slot *existing(const struct worker *w, const char *name)
{
	for (unsigned i = 0; i < w->probe.facts.slot_count; i++) {
		if (strcmp(w->probe.facts.slots[i].name, name) == 0)
			return &w->probe.facts.slots[i];
	}
	return NULL;
}

/* ---- on the primary ---- */

static void on_created(
	struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct worker *w = arg;
	(void)c;
	(void)res;
	if (f != PGC_OK) {
		complain(l.create_error, "Failed to create logical replication", "slot", text);
		return;
	}
	l.create_error[0] = '\0';
	w->slots_again = true;
	probe_ask(&w->probe);
	turn_want(w, "slot created"); /* standbys wait for its position in /status */
}

static void create_one(struct worker *w, const struct slots_plan *plan)
{
	struct err err = ERR_INIT;
	for (unsigned i = 0; i < plan->count && !pgc_busy(&l.create); i++) {
		const struct slot_wanted *want = &plan->slot[i];
		if (!want->logical || existing(w, want->name) != NULL)
			continue;
		const char *args[] = { want->name, want->plugin };
		log_info("creating logical replication slot %s in %s", want->name, want->database);
		if (!to_database(w, &l.create, want->database) ||
			pgc_exec(&l.create,
				"SELECT pg_catalog.pg_create_logical_replication_slot($1, $2)"
				" WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_replication_slots"
				" WHERE slot_name = $1)",
				args, 2, clock_boot_ms() + CREATE_MS, on_created, w,
				&err) != ERR_OK)
			complain(l.create_error, "logical slot", want->name, err.text);
	}
}

/* ---- on a standby: advance ---- */

static void on_advanced(
	struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct worker *w = arg;
	(void)res;
	if (f == PGC_OK) {
		l.advance_error[0] = '\0';
		w->slots_again = true;
		probe_ask(&w->probe);
		return;
	}
	complain(l.advance_error, "Failed to advance logical replication slot", l.advancing, text);
	/* The WAL file is gone, or the slot was invalidated: only a new copy helps. */
	if (strcmp(c->sqlstate, "58P01") == 0 || strcmp(c->sqlstate, "55000") == 0)
		memcpy(l.again, l.advancing, sizeof(l.again));
}

/* S19: never past what the consumer confirmed on the primary, nor past what is replayed here. */
static uint64_t advance_to(const struct worker *w, const struct slot_wanted *want)
{
	uint64_t replayed = w->probe.facts.replay_lsn;
	return want->lsn < replayed ? want->lsn : replayed;
}

static void advance_one(struct worker *w, const struct slots_plan *plan)
{
	struct err err = ERR_INIT;
	char lsn[20];
	for (unsigned n = 0; n < plan->count && !pgc_busy(&l.advance); n++) {
		const struct slot_wanted *want = &plan->slot[l.advance_next++ % plan->count];
		const struct pg_slot *s = want->logical ? existing(w, want->name) : NULL;
		if (s == NULL || !s->logical || s->active || s->invalidated ||
			s->confirmed_flush_lsn >= advance_to(w, want))
			continue;
		str_from_lsn(advance_to(w, want), lsn);
		const char *args[] = { want->name, lsn };
		memcpy(l.advancing, want->name, sizeof(l.advancing));
		if (!to_database(w, &l.advance, want->database) ||
			pgc_exec(&l.advance,
				"SELECT pg_catalog.pg_replication_slot_advance($1, $2::pg_lsn)",
				args, 2, clock_boot_ms() + ADVANCE_MS, on_advanced, w,
				&err) != ERR_OK)
			complain(l.advance_error, "logical slot", want->name, err.text);
	}
}

/* ---- on a standby: what is to be copied ---- */

static void list_copies(struct worker *w, const struct slots_plan *plan)
{
	unsigned before = l.copy_count;
	l.copy_count = 0;
	for (unsigned i = 0; i < plan->count; i++) {
		const struct slot_wanted *want = &plan->slot[i];
		bool again = str_eq(l.again, want->name);
		/* Without a position the primary does not have it either. */
		if (!want->logical || want->lsn == 0 || (existing(w, want->name) != NULL && !again))
			continue;
		struct slot_to_copy *c = &l.copy[l.copy_count];
		if (str_copy(c->name, sizeof(c->name), want->name) &&
			str_copy(c->database, sizeof(c->database), want->database) &&
			str_copy(c->plugin, sizeof(c->plugin), want->plugin))
			l.copy_count++;
	}
	if (before == 0 && l.copy_count > 0)
		turn_want(w, "logical slots to copy");
}

unsigned slots_to_copy(const struct worker *w)
{
	const struct pg_sql *f = &w->probe.facts;
	return f->valid && f->in_recovery && clock_boot_ms() >= l.copy_after_ms ? l.copy_count : 0;
}

void slots_copy_begin(struct worker *w, struct seq_copy_slots *s)
{
	(void)w;
	memcpy(s->want, l.copy, sizeof(s->want));
	s->count = l.copy_count;
}

/* A failed copy costs a restart of the server at worst: not oftener than the reference. */
void slots_copy_ended(struct worker *w)
{
	l.copy_count = 0;
	l.again[0] = '\0';
	l.copy_after_ms = clock_boot_ms() + w->set.loop_wait_ms;
}

/* ---- on a standby: safe to be used after a promotion? ---- */

/* xids turn over; a transaction precedes those of the half circle after it. */
static bool xid_at_or_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

static void queue_new(struct worker *w)
{
	const struct pg_sql *f = &w->probe.facts;
	if (l.generation == w->host.pg.generation)
		return;
	l.generation = w->host.pg.generation;
	l.queue_count = 0;
	for (unsigned i = 0; i < f->slot_count && l.queue_count < LIMIT_SLOTS; i++) {
		const struct pg_slot *s = &f->slots[i];
		if (!s->logical || s->failover || slots_ignored(&w->set, s))
			continue;
		struct unproven *u = &l.queue[l.queue_count++];
		*u = (struct unproven){ .seen = false };
		memcpy(u->name, s->name, sizeof(u->name));
	}
}

/* Safe once our slot on the primary (hot_standby_feedback) holds back the catalog from where the
 * primary's logical slot stood then, and the copy needs nothing older. */
static void prove(struct worker *w, uint32_t held_xmin)
{
	unsigned left = 0;
	for (unsigned i = 0; i < l.queue_count; i++) {
		const struct unproven *u = &l.queue[i];
		const struct pg_slot *s = existing(w, u->name);
		if (s == NULL || !s->logical)
			continue;
		if (u->seen && xid_at_or_before(u->primary_xmin, held_xmin) &&
			xid_at_or_before(held_xmin, (uint32_t)s->catalog_xmin))
			log_info("Logical slot %s is safe to be used after a failover", u->name);
		else
			l.queue[left++] = *u;
	}
	l.queue_count = left;
}

static struct unproven *queued(const char *name)
{
	for (unsigned i = 0; i < l.queue_count; i++) {
		if (strcmp(l.queue[i].name, name) == 0)
			return &l.queue[i];
	}
	return NULL;
}

static void on_xmins(struct pgc *c, enum pgc_failure f, PGresult *res, const char *text, void *arg)
{
	struct worker *w = arg;
	(void)c;
	l.asking = false;
	if (f != PGC_OK) {
		complain(l.leader_error, "Failed to check physical slot on the primary", l.own_slot,
			text);
		return;
	}
	bool there = false;
	uint64_t held = 0, xmin;
	for (int i = 0; i < PQntuples(res); i++) {
		if (strcmp(PQgetvalue(res, i, 0), l.own_slot) != 0)
			continue;
		there = true;
		if (!PQgetisnull(res, i, 1) && !str_to_u64(PQgetvalue(res, i, 1), &held))
			held = 0;
	}
	if (!there) {
		complain(l.leader_error, "Physical slot", l.own_slot,
			"does not exist on the primary");
		return;
	}
	if (held == 0) {
		complain(l.leader_error, "Physical slot", l.own_slot,
			"holds no catalog_xmin on the primary: not streaming, or "
			"hot_standby_feedback is off (postgresql.auto.conf?)");
		return;
	}
	l.leader_error[0] = '\0';
	for (int i = 0; i < PQntuples(res); i++) {
		struct unproven *u = queued(PQgetvalue(res, i, 0));
		if (u == NULL || u->seen || PQgetisnull(res, i, 1) ||
			!str_to_u64(PQgetvalue(res, i, 1), &xmin))
			continue;
		u->seen = true;
		u->primary_xmin = (uint32_t)xmin;
	}
	prove(w, (uint32_t)held);
}

static void on_leader_found(const struct dns_answer *a, void *arg)
{
	struct worker *w = arg;
	struct err err = ERR_INIT;
	AUTO(buf) names = BUF_INIT(LIMIT_SLOTS * (LIMIT_SLOT_NAME + 1) + LIMIT_SLOT_NAME + 16);
	l.asking = false;
	if (a->count == 0 || pgc_busy(&l.leader))
		return;
	buf_addf(&names, "{%s", l.own_slot);
	for (unsigned i = 0; i < l.queue_count; i++)
		buf_addf(&names, ",%s", l.queue[i].name);
	buf_adds(&names, "}");
	const char *args[] = { buf_str(&names) };
	if (names.failed || !pgctx_params_remote(&w->pg, &l.leader, "rewind", a->addrs[0],
				    l.target.host, l.target.port))
		return;
	l.asking = pgc_exec(&l.leader,
			   "SELECT slot_name, catalog_xmin::text::bigint"
			   " FROM pg_catalog.pg_get_replication_slots()"
			   " WHERE NOT pg_catalog.pg_is_in_recovery()"
			   " AND slot_name = ANY($1::pg_catalog.name[])",
			   args, 1, clock_boot_ms() + LEADER_MS, on_xmins, w, &err) == ERR_OK;
}

static void check_readiness(struct worker *w, const struct slots_in *in)
{
	int64_t now_ms = clock_boot_ms();
	queue_new(w);
	if (l.queue_count == 0 || l.asking || in->leader[0] == '\0' ||
		now_ms - l.asked_ms < w->set.loop_wait_ms)
		return;
	if (!slots_name_on_primary(in, in->me, l.own_slot) ||
		!task_target_of(w, in->leader, &l.target) || l.target.kind != TARGET_MEMBER)
		return;
	l.asked_ms = now_ms;
	l.asking = true;
	dns_lookup(http_dns(w->http), l.target.host, on_leader_found, w);
}

void slots_promoting(void)
{
	AUTO(buf) names = BUF_INIT(2000);
	for (unsigned i = 0; i < l.queue_count; i++)
		buf_addf(&names, "%s%s", i > 0 ? ", " : "", l.queue[i].name);
	if (l.queue_count > 0)
		log_warning("Logical replication slots that might be unsafe to use after promote: "
			    "%s",
			names.failed ? "(many)" : buf_str(&names));
	l.queue_count = l.copy_count = 0;
	if (l.w != NULL)
		pgc_close(&l.advance);
}

void slots_logical_sync(struct worker *w, const struct slots_in *in, const struct slots_plan *plan)
{
	init(w);
	if (!w->probe.facts.in_recovery) {
		l.queue_count = l.copy_count = 0;
		create_one(w, plan);
		return;
	}
	check_readiness(w, in);
	advance_one(w, plan);
	list_copies(w, plan);
}
