/* The demotion (ha 3.5, 4.1): stop PostgreSQL, and give the leader key to whoever has its last
 * record. Worker process.
 *
 * The key is given away beside the stop: a postmaster whose pg_control says "shut down" writes no
 * more, but it may archive for minutes, and whoever has the shutdown checkpoint may lead meanwhile
 * (V11). After the postmaster has ended nobody gets more of its WAL, so a release that nobody's
 * answer can hold back does not ask. */
#include "worker/task_demote.h"

#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "worker/postgres/archive.h"
#include "worker/postgres/control.h"

/* The stop is over and a switchover's candidate must still confirm the shutdown checkpoint. */
#define CONFIRM_MS   3000
#define POSITION_MS  300 /* for the write of the last position */
#define ASK_AGAIN_MS 200
#define ARCHIVING_MS 1000 /* between questions while the postmaster archives */

/* Gives the key away; runs beside the stop. */
struct seq_hand {
	struct co co;
	bool begun, ended, confirmed, kept;
	uint64_t lsn; /* of the shutdown checkpoint; 0 = unknown */
	uint32_t ticket;
	int64_t until_ms; /* 0 = the postmaster was there when it was looked last */
};

static struct seq_demote {
	struct co co;
	struct worker *w;
	enum ha_demote_mode mode;
	bool release_regardless;
	char names[LIMIT_MEMBERS][LIMIT_NAME];
	unsigned name_count;
	uint32_t ticket;
	struct seq_stop stop;
	struct seq_archive_last archive;
	struct seq_hand hand;
} demote;

static bool mode_releases(enum ha_demote_mode m)
{
	return m == DEMOTE_GRACEFUL || m == DEMOTE_IMMEDIATE || m == DEMOTE_CLUSTER ||
	       m == DEMOTE_SHUTDOWN;
}

static bool postmaster_gone(const struct worker *w)
{
	return w->host.pg.state == PG_PROC_NONE;
}

static void now_demoted(struct worker *w)
{
	if (w->pg.role != PG_ROLE_REPLICA && w->pg.role != PG_ROLE_STANDBY_LEADER)
		pgctx_set_role(&w->pg, PG_ROLE_DEMOTED);
}

/* ---- the key ---- */

static void on_released(struct worker *w, enum keeper_op op, enum ha_outcome outcome)
{
	struct seq_hand *h = &demote.hand;
	if (op != KEEPER_OP_RELEASE)
		return;
	w->on_keeper_done = NULL;
	/* An unknown outcome counts as released: the key runs out (DESIGN 2). */
	w->task_released = true;
	co_wake(&h->co, h->ticket, true, outcome == HA_OUT_OK ? "" : "released, outcome unknown");
}

static void on_status(struct worker *w)
{
	(void)w;
	co_wake(&demote.hand.co, demote.hand.ticket, true, "");
}

/* The last position goes before the key: it can be written by its holder alone. False: there is
 * nothing to wait for. */
static bool write_position(struct seq_hand *h)
{
	struct worker *w = demote.w;
	if (h->lsn == 0 || keeper_lock(&w->keeper, clock_boot_ms()) != LOCK_HELD ||
		!publish_status(w, h->lsn))
		return false;
	co_sleep(&h->co, POSITION_MS);
	h->ticket = h->co.serial;
	w->on_status = on_status;
	return true;
}

static void release_key(struct seq_hand *h)
{
	struct worker *w = demote.w;
	h->ticket = co_ticket(&h->co);
	if (keeper_lock(&w->keeper, clock_boot_ms()) == LOCK_NONE) {
		co_wake(&h->co, h->ticket, true, "not held");
		return;
	}
	w->on_keeper_done = on_released;
	struct keeper_event ev = { .kind = KEEPER_RELEASE,
		.deadline_ms = clock_boot_ms() + w->set.retry_timeout_ms };
	keeper_event(w, &ev);
}

/* One good answer is enough: a member that is dead would hold back the others for the length of a
 * time-out. The lsn is where the shutdown checkpoint begins: whoever is just there has all but that
 * record, would be behind another that has it (D-M), and we would have to be rewound. */
static bool heard(struct worker *w, void *arg)
{
	struct seq_hand *h = arg;
	for (unsigned i = 0; i < w->aside.count; i++) {
		const struct ha_peer *p = &w->aside.peers[i];
		if (p->answered && p->in_recovery && !p->nofailover && p->position > h->lsn)
			h->confirmed = true;
	}
	return h->confirmed;
}

static void polled(struct worker *w, void *arg)
{
	struct seq_hand *h = arg;
	(void)heard(w, h);
	co_wake(&h->co, h->ticket, true, "");
}

/* False: somebody else's questions are on their way. */
static bool poll_candidates(struct seq_hand *h)
{
	struct worker *w = demote.w;
	if (w->aside.running)
		return false;
	h->ticket = co_ticket(&h->co);
	return peers_ask_aside(
		w, (const char(*)[LIMIT_NAME])demote.names, demote.name_count, polled, heard, h);
}

/* Is there a reason to ask (again)? */
static bool asks(struct seq_hand *h)
{
	const struct seq_demote *d = &demote;
	if (h->confirmed || h->lsn == 0 || d->name_count == 0 || d->co.cancelled)
		return false;
	if (!postmaster_gone(d->w))
		return true;
	if (d->release_regardless && d->mode != DEMOTE_CLUSTER)
		return false;
	if (h->until_ms == 0)
		h->until_ms = clock_boot_ms() + CONFIRM_MS;
	return clock_boot_ms() < h->until_ms;
}

static void hand_step(struct co *co)
{
	struct seq_hand *h = (struct seq_hand *)co;
	struct seq_demote *d = &demote;
	CO_BEGIN(co);
	while (asks(h)) {
		if (poll_candidates(h))
			CO_WAIT(co);
		if (h->confirmed)
			break;
		co_wait_pg(co,
			clock_boot_ms() + (postmaster_gone(d->w) ? ASK_AGAIN_MS : ARCHIVING_MS));
		CO_WAIT(co);
	}
	h->kept = !h->confirmed && d->name_count > 0 &&
		  (!d->release_regardless || d->mode == DEMOTE_CLUSTER);
	if (h->kept)
		CO_RETURN(co, true, "the leader key is kept");
	if (!postmaster_gone(d->w))
		log_info(
			"PostgreSQL is shut down but has not ended, it may be archiving; a standby "
			"has its last record: the leader key is given away now");
	now_demoted(d->w);
	if (write_position(h))
		CO_WAIT(co);
	release_key(h);
	CO_WAIT(co);
	CO_END(co);
}

static void on_hand_done(struct co *co, void *arg)
{
	struct seq_demote *d = arg;
	(void)co;
	d->hand.ended = true;
	co_wake(&d->co, d->ticket, true, "");
}

static void hand_begin(struct seq_demote *d, uint64_t lsn)
{
	d->hand = (struct seq_hand){ .begun = true, .lsn = lsn };
	co_start(&d->hand.co, &d->w->host, hand_step, on_hand_done, d);
}

/* ---- the stop ---- */

/* pg_control says "shut down" while the postmaster is still there. */
static void on_shut_down(struct seq_stop *s, uint64_t lsn, void *arg)
{
	struct seq_demote *d = arg;
	if (d->name_count == 0)
		return;
	observe_shut_down(d->w, &s->control.files);
	hand_begin(d, lsn);
}

static void stop_prepare(struct seq_demote *d)
{
	bool fast = d->mode == DEMOTE_OFFLINE || d->mode == DEMOTE_GRACEFUL ||
		    d->mode == DEMOTE_CLUSTER || d->mode == DEMOTE_SHUTDOWN;
	bool early = d->mode == DEMOTE_GRACEFUL || d->mode == DEMOTE_SHUTDOWN;
	const struct worker *w = d->w;
	d->stop = (struct seq_stop){ .p = &d->w->pg,
		.mode = fast ? PG_STOP_FAST : PG_STOP_IMMEDIATE,
		.checkpoint = d->mode == DEMOTE_GRACEFUL,
		.timeout_ms = settings_sync_mode(&w->set) != SYNC_OFF
				      ? w->set.primary_stop_timeout_ms
				      : 0,
		.on_shutdown = early ? on_shut_down : NULL,
		.arg = d };
}

void demote_step(struct co *co)
{
	struct seq_demote *d = (struct seq_demote *)co;
	CO_BEGIN(co);
	stop_prepare(d);
	co_call(co, &d->stop.co, seq_stop_step);
	CO_WAIT(co);
	now_demoted(d->w);
	if (d->mode == DEMOTE_CLUSTER) {
		/* The other cluster may read from the archive alone: without our last record it
		 * forks off before it, and we would have to be rewound. With archiving the key is
		 * kept: no election is wanted, we lead on as a standby. */
		d->archive = (struct seq_archive_last){ .p = &d->w->pg };
		co_call(co, &d->archive.co, seq_archive_last_step);
		CO_WAIT(co);
		if (!co->ok || !d->archive.configured)
			log_info("shutdown checkpoint is not archived: %s", co->note);
		if (d->archive.configured)
			CO_RETURN(co, true, "the leader key is kept");
	}
	if (!mode_releases(d->mode))
		CO_RETURN(co, true, "done");
	if (!d->hand.begun)
		hand_begin(d, d->stop.shutdown_seen ? d->stop.shutdown_lsn : 0);
	while (!d->hand.ended) {
		if (co->cancelled && !d->hand.co.cancelled)
			co_cancel(&d->hand.co);
		d->ticket = co_ticket(co);
		CO_WAIT(co);
	}
	if (d->hand.kept && d->mode == DEMOTE_CLUSTER)
		CO_RETURN(co, true, "the leader key is kept");
	if (d->hand.kept)
		CO_RETURN(co, false, "nobody confirmed the shutdown checkpoint: the key is kept");
	CO_END(co);
}

struct co *demote_prepare(struct worker *w, const struct ha_action *a)
{
	struct seq_demote *d = &demote;
	d->w = w;
	d->mode = a->demote;
	d->release_regardless = a->flag;
	d->name_count = 0;
	d->hand.begun = d->hand.ended = false;
	for (unsigned i = 0; i < a->name_count && d->name_count < LIMIT_MEMBERS; i++)
		memcpy(d->names[d->name_count++], w->plan.names[a->name_first + i], LIMIT_NAME);
	w->task_released = false;
	return &d->co;
}
