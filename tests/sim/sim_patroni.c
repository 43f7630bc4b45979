/* Members that run the reference's rules (ha 12.3-9), as far as others can see them: one loop that
 * does everything in turn, a lease that is renewed by that loop and by nothing else, no enforcer
 * beside it, a race by the plain comparison of positions, none of our own rules. Asynchronous
 * clusters only; no pause, no failsafe mode. What such a member does wrong is not judged; what it
 * makes others do is. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

enum pat_state { PAT_REST = 0, PAT_READ, PAT_RENEW, PAT_POLL, PAT_ACQUIRE, PAT_STEP_DOWN };
#define STOPPED_LOOK_MS 200

static struct sim_patroni *pat_of(struct sim *s, int node)
{
	return &s->nodes[node].w.pat;
}

static int64_t wait_ms(const struct sim *s, int node)
{
	return worker_settings(s, node)->loop_wait_ms;
}

static void wake(struct sim *s, int node, int64_t in_ms)
{
	struct sim_patroni *p = pat_of(s, node);
	p->state = PAT_REST;
	sim_at_proc(s, s->now_ms + in_ms, EV_EXEC, node, PROC_WORKER, ++p->serial, 0, NULL);
}

/* The end of a loop; the next one begins a loop_wait after this one did. */
static void rest(struct sim *s, int node, const char *why)
{
	int64_t next = pat_of(s, node)->began_ms + wait_ms(s, node) - s->now_ms;
	sim_log(s, node, "[patroni] %s", why);
	wake(s, node, next > 0 ? next : 0);
}

static void await(struct sim *s, int node, enum pat_state state, struct sim_op *op)
{
	pat_of(s, node)->state = state;
	store_submit(s, node, op, (struct sim_request){ .use = REQ_AWAIT },
		node_clock(s, node) + worker_settings(s, node)->retry_timeout_ms, false);
}

static void fire(struct sim *s, int node, struct sim_op *op)
{
	store_submit(s, node, op, (struct sim_request){ .use = REQ_FIRE },
		node_clock(s, node) + worker_settings(s, node)->retry_timeout_ms, false);
}

/* ---- PostgreSQL ---- */

static void start_pg(struct sim *s, int node, uint32_t kind, int upstream)
{
	struct sim_node *n = &s->nodes[node];
	n->sup.guard.generation = n->pg.generation + 1;
	n->pg.upstream = (int8_t)upstream;
	pg_spawn(s, node, kind);
}

static bool primary(const struct sim *s, int node)
{
	enum pg_phase phase = s->nodes[node].pg.phase;
	return phase == PGP_PRIMARY || phase == PGP_PROMOTING;
}

static bool can_copy(const struct sim *s, int node, int from)
{
	const struct sim_node *o = &s->nodes[from];
	return from != node && o->on && !o->vm_paused && o->pg.phase == PGP_PRIMARY &&
	       !o->pg.hung && !o->pg.frozen && net_open(s, node, from) && net_open(s, from, node);
}

/* PostgreSQL is down: what it is started as, after a rewind or a copy where that is needed. */
static void start_again(struct sim *s, int node, int leader)
{
	struct sim_pg *p = &s->nodes[node].pg;
	bool source = leader >= 0 && can_copy(s, node, leader);
	if (p->dir_empty || p->damaged) {
		if (!source)
			return;
		marks_clone_begins(s, node);
		marks_clone_done(s, node, leader);
	} else {
		if (p->control != PG_DB_SHUTDOWNED && p->control != PG_DB_SHUTDOWNED_IN_RECOVERY &&
			p->control != PG_DB_IN_ARCHIVE_RECOVERY)
			task_crash_recovered(s, node);
		if (source && !pg_can_stream(s, node, leader)) {
			marks_rewind_begins(s, node);
			marks_rewind_done(s, node, leader);
		}
	}
	start_pg(s, node, PG_START_STANDBY, leader);
}

static void follow(struct sim *s, int node, int leader)
{
	struct sim_pg *p = &s->nodes[node].pg;
	if (p->phase == PGP_STANDBY && leader >= 0 && !p->streaming && can_copy(s, node, leader) &&
		!pg_can_stream(s, node, leader)) {
		pg_stop(s, node, PG_STOP_FAST); /* rewound in the next loop */
		return;
	}
	if (p->phase == PGP_STANDBY)
		pg_follow(s, node, leader);
}

/* ---- keys ---- */

static void touch(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_op *op = store_op(s, node, DCS_TOUCH_MEMBER);
	struct member *m = &op->member;
	bool up = n->pg.phase == PGP_PRIMARY || n->pg.phase == PGP_STANDBY;
	snprintf(m->name, sizeof(m->name), "%s", sim_name(node));
	snprintf(m->conn_url, sizeof(m->conn_url), "postgres://%s:5432/postgres", m->name);
	snprintf(m->api_url, sizeof(m->api_url), "http://%s:8008/patroni", m->name);
	snprintf(m->state, sizeof(m->state), "%s", up ? "running" : "stopped");
	snprintf(m->role, sizeof(m->role), "%s", primary(s, node) ? "primary" : "replica");
	m->tags = n->tags;
	m->is_patroni = true;
	if (up) {
		m->timeline = s->branches[n->pg.branch].tli;
		m->xlog_location = n->pg.lsn;
	}
	fire(s, node, op);
}

static void clear_failover(struct sim *s, int node)
{
	struct sim_op *op = store_op(s, node, DCS_SET_FAILOVER);
	op->version = s->nodes[node].w.snap->c.failover_version;
	fire(s, node, op);
}

static void acquire(struct sim *s, int node)
{
	await(s, node, PAT_ACQUIRE, store_op(s, node, DCS_ACQUIRE));
}

/* The lease of the loop; a key of an earlier process of this name is taken over by its value. */
static void renew(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	char session[48];
	snprintf(session, sizeof(session), "s%u", w->session);
	bool mine = strcmp(w->snap->c.leader_session, session) == 0;
	struct sim_op *op = store_op(s, node, mine ? DCS_RENEW : DCS_ADOPT);
	op->version = w->snap->c.leader_version;
	await(s, node, PAT_RENEW, op);
}

/* ---- the loop ---- */

static void demote(struct sim *s, int node, const char *why)
{
	pg_stop(s, node, PG_STOP_IMMEDIATE);
	rest(s, node, why);
}

static void store_error(struct sim *s, int node)
{
	if (primary(s, node))
		pg_stop(s, node, PG_STOP_FAST);
	rest(s, node, "DCS is not accessible");
}

static void as_leader(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	switch (n->pg.phase) {
	case PGP_PRIMARY:
		n->w.role = PG_ROLE_PRIMARY;
		exec_write_status(s, node);
		if (s->branches[n->pg.branch].tli > 1 &&
			(!n->w.snap->c.history_count ||
				n->w.snap->c.history[n->w.snap->c.history_count - 1].timeline !=
					s->branches[n->pg.branch].tli - 1))
			exec_write_history(s, node);
		break;
	case PGP_STANDBY: pg_promote_file(s, node); break;
	case PGP_NONE:
		if (!n->pg.dir_empty && !n->pg.damaged) /* it crashed: started as what it was */
			start_pg(s, node,
				n->pg.standby_signal ? PG_START_STANDBY : PG_START_PRIMARY, -1);
		break;
	default: break;
	}
	rest(s, node, "I am the leader with the lock");
}

static void ask_peers(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	struct ha_action a = { .kind = HA_POLL_PEERS };
	for (unsigned i = 0; i < w->snap->c.member_count; i++) {
		const struct member *m = &w->snap->c.members[i];
		if (strcmp(m->name, sim_name(node)) != 0 && !m->tags.nofailover)
			memcpy(w->plan.names[a.name_count++], m->name, LIMIT_NAME);
	}
	pat_of(s, node)->state = PAT_POLL;
	peer_poll(s, node, &a, false);
}

static bool too_far_behind(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	const struct cluster *c = &n->w.snap->c;
	const struct settings *set = worker_settings(s, node);
	if (c->last_lsn > n->pg.lsn &&
		c->last_lsn - n->pg.lsn > (uint64_t)set->maximum_lag_on_failover)
		return true;
	return set->check_timeline &&
	       s->branches[n->pg.branch].tli < cluster_timeline(&n->w.snap->c);
}

/* Whoever is named and may not lead is no reason to wait. */
static bool may_lead(const struct cluster *c, const char *candidate)
{
	const struct member *m = candidate[0] ? cluster_member_peek(c, candidate) : NULL;
	return m && !m->tags.nofailover;
}

static void race(struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	const struct cluster *c = &n->w.snap->c;
	bool named = c->failover_present && strcmp(c->failover_candidate, sim_name(node)) == 0;
	if (n->pg.phase == PGP_PRIMARY) { /* D4 */
		if (s->branches[n->pg.branch].tli >= cluster_timeline(c))
			acquire(s, node);
		else
			demote(s, node, "my timeline is behind");
	} else if (n->pg.phase != PGP_STANDBY || n->tags.nofailover) {
		follow(s, node, -1);
		rest(s, node, "not allowed to promote");
	} else if (named) {
		acquire(s, node);
	} else if (may_lead(c, c->failover_present ? c->failover_candidate : "")) {
		rest(s, node, "left to the candidate");
	} else if (too_far_behind(s, node)) {
		rest(s, node, "too far behind");
	} else {
		ask_peers(s, node);
	}
}

static bool must_step_down(struct sim *s, int node)
{
	const struct cluster *c = &s->nodes[node].w.snap->c;
	if (!c->failover_present || c->failover_scheduled || s->nodes[node].pg.phase != PGP_PRIMARY)
		return false;
	bool mine = !c->failover_leader[0] || strcmp(c->failover_leader, sim_name(node)) == 0;
	int to = c->failover_candidate[0] ? sim_index(c->failover_candidate) : -1;
	bool able = false;
	for (unsigned i = 0; i < c->member_count; i++) {
		int m = sim_index(c->members[i].name);
		able |= m != node && (to < 0 || m == to) && !c->members[i].tags.nofailover &&
			s->nodes[m].pg.phase == PGP_STANDBY && net_open(s, node, m);
	}
	if (mine && to != node && able)
		return true;
	clear_failover(s, node);
	return false;
}

static void decide(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	const struct cluster *c = &n->w.snap->c;
	int leader = c->leader_present ? sim_index(c->leader) : -1;
	enum pg_phase phase = n->pg.phase;
	touch(s, node);
	if (leader == node && must_step_down(s, node)) {
		pg_stop(s, node, PG_STOP_FAST);
		pat_of(s, node)->stepping_down = true;
		wake(s, node, STOPPED_LOOK_MS);
	} else if (leader == node && (phase != PGP_NONE || !n->pg.dir_empty)) {
		renew(s, node);
	} else if (phase == PGP_NONE) {
		start_again(s, node, leader);
		rest(s, node, "starting");
	} else if (phase != PGP_STANDBY && phase != PGP_PRIMARY) {
		rest(s, node, "starting or stopping");
	} else if (leader < 0) {
		race(s, node);
	} else if (phase == PGP_PRIMARY) {
		demote(s, node, "I do not have the lock and I was a leader");
	} else {
		n->w.role = PG_ROLE_REPLICA;
		follow(s, node, leader);
		rest(s, node, "a secondary, and following a leader");
	}
}

/* A switchover: stopped in good order, then the key is given away. */
static bool stepping_down(struct sim *s, int node)
{
	struct sim_patroni *p = pat_of(s, node);
	if (!p->stepping_down)
		return false;
	if (s->nodes[node].pg.phase != PGP_NONE && s->now_ms - p->began_ms < 60000) {
		wake(s, node, STOPPED_LOOK_MS);
		return true;
	}
	p->stepping_down = false;
	if (s->nodes[node].pg.phase == PGP_NONE)
		fire(s, node, store_op(s, node, DCS_RELEASE));
	wake(s, node, 2000);
	return true;
}

static void loop(struct sim *s, int node)
{
	struct sim_patroni *p = pat_of(s, node);
	if (p->state != PAT_REST || stepping_down(s, node))
		return;
	p->began_ms = s->now_ms;
	p->state = PAT_READ;
	store_submit(s, node, store_op(s, node, DCS_READ), (struct sim_request){ .use = REQ_AWAIT },
		node_clock(s, node) + worker_settings(s, node)->retry_timeout_ms, false);
}

static void take_snapshot(struct sim *s, int node, struct sim_snapshot *snap)
{
	struct sim_worker *w = &s->nodes[node].w;
	snap->refs++;
	snapshot_drop(s, w->snap);
	w->snap = snap;
	if (snap->c.config_valid)
		w->settings_version = (uint64_t)snap->c.config_version;
	w->store_ttl_ms = worker_settings(s, node)->ttl_ms;
}

/* ---- events ---- */

void patroni_answer(struct sim *s, int node, struct sim_request req, enum ha_outcome outcome,
	const struct sim_op *op)
{
	enum pat_state state = pat_of(s, node)->state;
	if (req.use != REQ_AWAIT)
		return;
	if (state == PAT_READ && outcome == HA_OUT_OK && op && op->snapshot) {
		take_snapshot(s, node, op->snapshot);
		decide(s, node);
	} else if (outcome == HA_OUT_UNKNOWN) {
		store_error(s, node);
	} else if (state == PAT_RENEW && outcome == HA_OUT_OK) {
		as_leader(s, node);
	} else if (state == PAT_RENEW) {
		demote(s, node, "failed to update leader lock in DCS");
	} else if (state == PAT_ACQUIRE && outcome == HA_OUT_OK) {
		if (s->nodes[node].w.snap->c.failover_present)
			clear_failover(s, node);
		as_leader(s, node);
	} else if (state == PAT_ACQUIRE) {
		rest(s, node, "could not take the lock");
	}
}

void patroni_polled(struct sim *s, int node)
{
	const struct sim_worker *w = &s->nodes[node].w;
	uint64_t mine = s->nodes[node].pg.lsn;
	if (pat_of(s, node)->state != PAT_POLL)
		return;
	for (unsigned i = 0; i < w->peer_count; i++) {
		const struct ha_peer *p = &w->peers[i];
		if (!p->answered || p->nofailover || p->watchdog_failed)
			continue;
		if (!p->in_recovery || p->position > mine) {
			follow(s, node, -1);
			rest(s, node, "I am not the healthiest node");
			return;
		}
	}
	acquire(s, node);
}

/* The watch: a leader key that changed ends the rest. */
static void watched(struct sim *s, int node, struct sim_snapshot *snap)
{
	struct sim_worker *w = &s->nodes[node].w;
	if (pat_of(s, node)->state == PAT_REST && !pat_of(s, node)->stepping_down &&
		(!w->snap || strcmp(w->snap->c.leader, snap->c.leader) != 0))
		wake(s, node, 0);
	snapshot_drop(s, snap);
}

void patroni_event(struct sim *s, const struct sim_event *ev)
{
	switch (ev->kind) {
	case EV_EXEC:
		if ((uint32_t)ev->a == pat_of(s, ev->node)->serial)
			loop(s, ev->node);
		break;
	case EV_WATCH: watched(s, ev->node, ev->ptr); break;
	case EV_OP_ANSWER:
	case EV_OP_DEADLINE: store_event(s, ev); break;
	case EV_PEER_ANSWER: peer_event(s, ev); break;
	default: break;
	}
}

void patroni_start(struct sim *s, int node)
{
	struct sim_worker *w = &s->nodes[node].w;
	snapshot_drop(s, w->snap);
	uint32_t next_id = w->next_id, serial = w->pat.serial;
	memset(w, 0, sizeof(*w));
	w->next_id = next_id;
	w->pat.serial = serial;
	w->session = dcs_session_new(s, node);
	w->settings_version = 1;
	w->store_ttl_ms = worker_settings(s, node)->ttl_ms;
	w->failsafe_leader = -1;
	s->dcs.watch_pending[node] = false;
	wake(s, node, 1);
}

/* The faults of a history stay, without those that this model does not know. */
void patroni_profile(struct sim *s, uint64_t seed)
{
	struct rng r;
	struct settings *set = &s->settings[1];
	rng_seed(&r, seed ^ 0x2545f4914f6cdd1du);
	set->sync_mode = SYNC_OFF;
	set->failsafe_mode = false;
	if (set->ttl_ms < 20000) { /* its minimum */
		set->ttl_ms = 20000;
		set->loop_wait_ms = 5000;
		set->retry_timeout_ms = 5000;
	}
	unsigned ours = (unsigned)rng_below(&r, s->cfg.member_count);
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		s->nodes[i].patroni = i != ours && sim_chance(&r, 500);
	for (unsigned i = 0; i < s->faults.count; i++) {
		struct sim_fault *f = &s->faults.list[i];
		switch (f->kind) {
		case FAULT_OP_PAUSE:
		case FAULT_OP_SYNC_MODE:
		case FAULT_OP_FAILSAFE:
		case FAULT_OP_TTL:
		case FAULT_OP_SHUTDOWN: f->at_ms = -1; break;
		default: break;
		}
	}
}
