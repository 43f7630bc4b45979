/* Messages in and out, one function each; and the one door to guard_step. Supervisor only.
 * A bad message costs its sender the connection and the process, never us the life. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/ending.h"
#include "supervisor/sup.h"

#define RECEIVE_MAX                                                                                \
	256 /* messages of one helper in one turn: more is a flood, the next turn goes on */
#define HOLD_MS	     3000  /* an answer that waits for the dead-man longer than this is a refusal */
#define STOP_LATE_MS 10000 /* for a standby that guard_step stops */
#define WD_AGAIN_MS  10000 /* a watchdog device that could not be opened is tried again */

/* ---- guard ---- */

static void watchdog_changed(struct sup *s)
{
	struct msg_watchdog_state st;
	watchdog_state(&s->watchdog, &st);
	helper_send(s, HELPER_WORKER, MSG_WATCHDOG_STATE, 0, &st, NULL, 0, NULL, 0);
	sup_guard(s, (struct guard_event){
			     .kind = GUARD_EV_WATCHDOG, .timeout_ms = s->watchdog.timeout_ms });
}

static void watchdog_level(struct sup *s, enum guard_watchdog level)
{
	bool changed = false;
	if (level == GUARD_WD_CLOSED) {
		changed = watchdog_disarm(&s->watchdog);
	} else if ((!s->watchdog.failed || s->now_ms >= s->watchdog_again_ms) &&
		   guard_watchdog_may_open(&s->guard, s->watchdog.config.timeout_ms, s->now_ms)) {
		s->watchdog_again_ms = s->now_ms + WD_AGAIN_MS;
		changed = watchdog_arm(&s->watchdog, s->guard.ttl_ms);
	}
	if (changed)
		watchdog_changed(s);
}

static void ask_proof(struct sup *s, int64_t until_ms)
{
	struct msg_proof_wanted w = { .generation = s->pm.generation, .deadline_ms = until_ms };
	log_warning("standby proof is late generation=%llu", (unsigned long long)w.generation);
	helper_send(s, HELPER_WORKER, MSG_PROOF_WANTED, 0, &w, NULL, 0, NULL, 0);
}

struct guard_actions sup_guard(struct sup *s, struct guard_event ev)
{
	ev.wall_offset_ms = clock_wall_offset_ms();
	struct guard_actions a = guard_step(&s->guard, &ev, s->now_ms);
	s->want = a;
	if ((a.flags & GUARD_THAWED) != 0)
		log_warning("woke late: this process was frozen or the node starved");
	if ((a.flags & GUARD_WALL_JUMP) != 0)
		log_warning("wall clock jumped: the lease is void until it is renewed");
	/* The fence first: all else can wait for it. */
	if ((a.flags & (GUARD_FENCE | GUARD_SWEEP)) != 0)
		postmaster_begin_fence(s, (a.flags & GUARD_FENCE) != 0, a.reason);
	if ((a.flags & GUARD_STOP_FAST) != 0)
		postmaster_stop_self(s, PG_STOP_FAST, STOP_LATE_MS, a.reason);
	if ((a.flags & GUARD_ASK_PROOF) != 0)
		ask_proof(s, a.ask_until_ms);
	if ((a.flags & GUARD_SEND_STATE) != 0)
		s->dm.state_due = true;
	if ((a.flags & GUARD_REPLACE_PEER) != 0)
		deadlink_replace(s, a.reason);
	if ((a.flags & GUARD_WD_FEED) != 0)
		watchdog_feed(&s->watchdog);
	postmaster_level(s, &a);
	watchdog_level(s, a.watchdog);
	return a;
}

/* ---- answers that wait for the dead-man ---- */

static void send_held(struct sup *s, struct hold *h, bool ok)
{
	/* The worker that asked may be gone; another one's requests may have the same numbers. */
	if (h->incarnation != s->helpers[HELPER_WORKER].incarnation) {
		h->seq = 0;
		return;
	}
	if (h->type == MSG_LEASE_ACK) {
		h->ack.accepted = ok;
		h->ack.fence_at_ms = guard_lease_fence_ms(&s->guard);
		if (!ok)
			snprintf(h->ack.reason, sizeof(h->ack.reason),
				"the dead-man did not acknowledge");
		helper_send(s, HELPER_WORKER, MSG_LEASE_ACK, h->id, &h->ack, NULL, 0, NULL, 0);
	} else {
		helper_answer(s, HELPER_WORKER, h->id, ok ? ANSWER_OK : ANSWER_TIMEOUT, "%s",
			ok ? "" : "the dead-man did not acknowledge");
	}
	h->seq = 0;
}

void sup_holds_tick(struct sup *s, int64_t now_ms)
{
	for (unsigned i = 0; i < HOLD_MAX; i++) {
		struct hold *h = &s->holds[i];
		if (h->seq == 0)
			continue;
		enum guard_hold held =
			guard_held(&s->guard, h->generation, h->seq, h->deadline_ms, now_ms);
		if (held == GUARD_HOLD_GO)
			send_held(s, h, true);
		else if (held == GUARD_HOLD_REFUSE || now_ms >= h->deadline_ms)
			send_held(s, h, false);
	}
}

int64_t sup_holds_next_ms(const struct sup *s)
{
	int64_t next = INT64_MAX;
	for (unsigned i = 0; i < HOLD_MAX; i++) {
		if (s->holds[i].seq != 0 && s->holds[i].deadline_ms < next)
			next = s->holds[i].deadline_ms;
	}
	return next;
}

/* Leaves at once when nothing is to be waited for. */
static void hold_answer(struct sup *s, struct hold h)
{
	h.incarnation = s->helpers[HELPER_WORKER].incarnation;
	for (unsigned i = 0; i < HOLD_MAX; i++) {
		if (s->holds[i].seq != 0)
			continue;
		s->holds[i] = h;
		if (h.seq == 0)
			send_held(s, &s->holds[i], true);
		return;
	}
	send_held(s, &h, false);
}

/* ---- lease, proof, promotion ---- */

static void on_lease(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_lease *l = m->payload;
	struct guard_actions a =
		sup_guard(s, (struct guard_event){ .kind = GUARD_EV_LEASE, .lease = l });
	struct hold h = { .seq = a.hold_seq,
		.id = m->id,
		.type = MSG_LEASE_ACK,
		.deadline_ms = s->now_ms + HOLD_MS,
		.ack = { .seq = l->seq } };
	if ((a.flags & GUARD_REFUSED) == 0) {
		hold_answer(s, h);
		return;
	}
	log_warning("lease report refused seq=%llu: %s", (unsigned long long)l->seq, a.reason);
	h.ack.fence_at_ms = guard_lease_fence_ms(&s->guard);
	snprintf(h.ack.reason, sizeof(h.ack.reason), "%s", a.reason);
	helper_send(s, HELPER_WORKER, MSG_LEASE_ACK, m->id, &h.ack, NULL, 0, NULL, 0);
}

static void on_proof(struct sup *s, const struct ipc_msg *m)
{
	struct guard_event ev = { .kind = GUARD_EV_PROOF, .proof = m->payload };
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0)
		log_warning("proof refused generation=%llu: %s",
			(unsigned long long)ev.proof->generation, a.reason);
}

static void on_promote(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_pg_promote *q = m->payload;
	struct guard_event ev = { .kind = GUARD_EV_PROMOTE,
		.generation = q->generation,
		.deadline_ms = q->deadline_ms,
		.lease_until_ms = q->lease_until_ms };
	struct guard_actions a = sup_guard(s, ev);
	if ((a.flags & GUARD_REFUSED) != 0) {
		log_warning("promotion refused: %s", a.reason);
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%s", a.reason);
		return;
	}
	log_info("promotion allowed generation=%llu", (unsigned long long)q->generation);
	hold_answer(s, (struct hold){ .seq = a.hold_seq,
			       .id = m->id,
			       .generation = q->generation,
			       .type = MSG_ANSWER,
			       .deadline_ms = q->deadline_ms });
}

/* ---- the rest of the worker's requests ---- */

static void on_watchdog(struct sup *s, const struct ipc_msg *m)
{
	struct err err = ERR_INIT;
	if (watchdog_configure(&s->watchdog, m->payload, s->guard.ttl_ms, &err) != ERR_OK)
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_REFUSED, "%s", err.text);
	else
		helper_answer(s, HELPER_WORKER, m->id, ANSWER_OK, "%s", "");
	s->watchdog_again_ms = 0;
	watchdog_changed(s);
}

static void on_notify(struct sup *s, const struct ipc_msg *m)
{
	const struct msg_notify *n = m->payload;
	if (!ipc_str_ok(n->text, sizeof(n->text)))
		helper_kill(s, &s->helpers[HELPER_WORKER], "malformed NOTIFY");
	else
		notify_send(&s->notify, n->text);
}

/* A page of the worker or api: kept for readers that start later, handed to those that run. */
static void on_page(struct sup *s, struct helper *h, struct ipc_msg *m)
{
	struct page *p = &s->pages[h->role == ROLE_API ? PAGE_API : PAGE_WORKER];
	if (m->fd_count != 1 || h->role == ROLE_FILES) {
		helper_kill(s, h, "PAGE without a page");
		return;
	}
	if (p->fd >= 0)
		close(p->fd);
	p->fd = m->fds[0];
	p->role = h->role;
	p->incarnation = h->incarnation;
	m->fd_count = 0; /* kept */
	struct msg_page out = { .role = p->role, .incarnation = p->incarnation };
	for (unsigned i = 0; i < HELPER_COUNT; i++) {
		if (s->helpers[i].role != h->role)
			helper_send(s, i, MSG_PAGE, 0, &out, NULL, 0, &p->fd, 1);
	}
}

/* The worker knows where the log goes. Each process has the writer's socket itself, so that a line
 * needs nobody else who might be dead; one whose writer has gone falls back to standard error. */
static void on_log(struct sup *s, struct ipc_msg *m)
{
	int fd = m->fd_count == 1 ? m->fds[0] : -1;
	m->fd_count = fd >= 0 ? 0 : m->fd_count;
	bool good = log_take(fd);
	s->log_fd = good ? fd : -1;
	if (!good) {
		log_error("the worker's log descriptor is not a local socket");
		return;
	}
	helper_send(s, HELPER_FILES, MSG_LOG, 0, NULL, NULL, 0, &fd, fd >= 0);
	helper_send(s, HELPER_API, MSG_LOG, 0, NULL, NULL, 0, &fd, fd >= 0);
	deadlink_log(s);
}

static void on_hello(struct sup *s, struct helper *h, const struct ipc_msg *m)
{
	const struct msg_hello *hello = m->payload;
	if (hello->proto != IPC_VERSION || h->greeted) {
		helper_kill(s, h, "HELLO of another protocol, or a second one");
		return;
	}
	helper_welcome(s, h, s->now_ms);
	if (h->role == ROLE_FILES)
		s->pm.ask_at_ms =
			s->now_ms; /* whoever waits for postmaster.pid need not wait longer */
}

static void on_ready(struct sup *s, struct helper *h)
{
	helper_ready(h, s->now_ms);
	sup_publish(s);
	if (h->role != ROLE_WORKER)
		return;
	/* First: what is known of the postmaster means that the jobs are known too. */
	jobs_report(s);
	postmaster_tell(s, true);
	watchdog_changed(s);
	ending_tell_worker(s);
}

static void on_answer(struct sup *s, const struct helper *h, const struct ipc_msg *m)
{
	if (h->role == ROLE_FILES)
		postmaster_files_answer(s, m);
	else if (h->role == ROLE_WORKER)
		ending_progress(s);
}

/* ---- the table ---- */

static void dispatch(struct sup *s, struct helper *h, struct ipc_msg *m)
{
	if (m->type != MSG_HELLO && !h->greeted) {
		helper_kill(s, h, "a message before HELLO");
		return;
	}
	switch (m->type) {
	case MSG_HELLO: on_hello(s, h, m); break;
	case MSG_READY: on_ready(s, h); break;
	case MSG_PING: break;
	case MSG_ANSWER: on_answer(s, h, m); break;
	case MSG_PAGE: on_page(s, h, m); break;
	case MSG_LOG: on_log(s, m); break;
	case MSG_LEASE: on_lease(s, m); break;
	case MSG_PROOF: on_proof(s, m); break;
	case MSG_PG_START: postmaster_start(s, m); break;
	case MSG_PG_STOP: postmaster_stop(s, m); break;
	case MSG_PG_SIGNAL: postmaster_signal(s, m); break;
	case MSG_PG_PROMOTE: on_promote(s, m); break;
	case MSG_PMPID: postmaster_pmpid(s, m); break;
	case MSG_JOB_START: job_start(s, m); break;
	case MSG_JOB_CANCEL: job_cancel(s, ((const struct msg_job_id *)m->payload)->job); break;
	case MSG_JOB_FORGET: job_forget(s, ((const struct msg_job_id *)m->payload)->job); break;
	case MSG_JOB_OUTPUT_GET: job_output_get(s, m); break;
	case MSG_WATCHDOG_CONFIG: on_watchdog(s, m); break;
	case MSG_NOTIFY: on_notify(s, m); break;
	case MSG_SHUTDOWN_DONE: ending_worker_done(s, m->payload); break;
	case MSG_UPGRADE: ending_upgrade(s, m); break;
	default: helper_kill(s, h, "a message that is not for the supervisor"); break;
	}
}

/* A PING may have waited for something else to wake us. */
static int64_t lived_at_ms(const struct sup *s, const struct helper *h, const struct ipc_msg *m)
{
	const struct msg_ping *ping = m->payload;
	bool waited = m->type == MSG_PING && helper_quiet(s, h);
	return waited && ping->sent_at_ms < s->now_ms ? ping->sent_at_ms : s->now_ms;
}

void sup_receive(struct sup *s, struct helper *h)
{
	for (unsigned i = 0; i < RECEIVE_MAX && h->fd >= 0; i++) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(h->fd, h->role, ROLE_SUPERVISOR, &s->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK) {
			helper_kill(s, h, err.text);
			return;
		}
		/* It may have been sent since the turn began: then its time would lie in the
		 * future. */
		s->now_ms = clock_boot_ms();
		helper_seen(h, lived_at_ms(s, h, &m));
		dispatch(s, h, &m);
		for (int k = 0; k < m.fd_count; k++)
			close(m.fds[k]);
	}
}
