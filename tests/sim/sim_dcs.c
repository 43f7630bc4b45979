/* The simulated store. A request is applied in one instant, whatever happened to it on the way:
 * lost, late, twice. */
#include "tests/sim/sim_dcs.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

#define SESSION_GRACE_MS 300 /* expiry is noticed a little late */

static struct cluster *tree(struct sim *s)
{
	return &s->dcs.now.c;
}

void dcs_init(struct sim *s)
{
	struct sim_snapshot *n = &s->dcs.now;
	n->c.members = n->members;
	n->c.failsafe = n->failsafe;
	n->c.sync_voters = n->voters;
	n->c.history = n->history;
	n->c.revision = 1;
	n->c.init_present = !s->cfg.empty;
	snprintf(n->c.init, sizeof(n->c.init), "%s", s->cfg.empty ? "" : "7000000000000000001");
	for (int i = 0; i < SIM_NODES; i++)
		snprintf(n->members[i].name, sizeof(n->members[i].name), "%s", sim_name(i));
}

uint32_t dcs_session_new(struct sim *s, int node)
{
	if (s->dcs.session_count + 1 >= SIM_SESSIONS)
		return 0;
	uint32_t id = ++s->dcs.session_count;
	s->dcs.sessions[id] = (struct sim_session){ .node = (int8_t)node };
	return id;
}

bool dcs_lease_of(const struct sim *s, int node)
{
	uint32_t id = s->dcs.leader_session;
	return id && s->dcs.sessions[id].alive && s->dcs.sessions[id].node == node;
}

int dcs_leader_node(const struct sim *s)
{
	uint32_t id = s->dcs.leader_session;
	return id && s->dcs.sessions[id].alive ? s->dcs.sessions[id].node : -1;
}

/* A key changed: everybody who watches hears of it. */
static int64_t changed(struct sim *s)
{
	struct cluster *c = tree(s);
	c->revision++;
	if (s->dcs.latest) {
		snapshot_drop(s, s->dcs.latest);
		s->dcs.latest = NULL;
	}
	for (unsigned i = 0; i < s->cfg.member_count; i++)
		if (!s->dcs.watch_pending[i]) {
			s->dcs.watch_pending[i] = true;
			sim_at(s, s->now_ms, EV_WATCH_SEND, -1, i, 0, NULL);
		}
	return c->revision;
}

static void session_name(char out[48], uint32_t id)
{
	snprintf(out, 48, "s%u", id);
}

static void set_leader(struct sim *s, int node, uint32_t session)
{
	struct cluster *c = tree(s);
	s->dcs.leader_session = session;
	c->leader_present = node >= 0;
	snprintf(c->leader, sizeof(c->leader), "%s", node >= 0 ? sim_name(node) : "");
	if (node >= 0)
		session_name(c->leader_session, session);
	else
		c->leader_session[0] = '\0';
	c->leader_version = changed(s);
	s->dcs.leader_since_ms = s->now_ms;
	s->dcs.leader_changes++;
	sim_log(s, -1, "store: leader key %s%s", node >= 0 ? "held by " : "free",
		node >= 0 ? sim_name(node) : "");
}

static void member_write(struct sim *s, int node, const struct sim_op *op)
{
	struct cluster *c = tree(s);
	if (!s->dcs.member_present[node]) {
		s->dcs.member_present[node] = true;
		c->member_count = 0;
		for (int i = 0; i < SIM_NODES; i++)
			c->member_count += s->dcs.member_present[i];
	}
	s->dcs.member_session[node] = op->session;
	s->dcs.now.members[node] = op->member;
	session_name(s->dcs.now.members[node].session, op->session);
	s->dcs.now.members[node].version_no = c->revision + 1;
}

static void member_gone(struct sim *s, int node)
{
	struct cluster *c = tree(s);
	if (!s->dcs.member_present[node])
		return;
	s->dcs.member_present[node] = false;
	s->dcs.member_session[node] = 0;
	c->member_count--;
}

void dcs_session_expire(struct sim *s, uint32_t id)
{
	struct sim_session *session = &s->dcs.sessions[id];
	if (!session->alive)
		return;
	if (session->expires_ms + SESSION_GRACE_MS > s->now_ms || s->dcs.down) {
		int64_t at = session->expires_ms + SESSION_GRACE_MS;
		sim_at(s, at > s->now_ms ? at : s->now_ms + 500, EV_SESSION, -1, id, 0, NULL);
		return;
	}
	session->alive = false;
	bool touched = false;
	for (int i = 0; i < SIM_NODES; i++)
		if (s->dcs.member_present[i] && s->dcs.member_session[i] == id) {
			member_gone(s, i);
			touched = true;
		}
	sim_log(s, -1, "store: session s%u of %s expired", id, sim_name(session->node));
	if (s->dcs.leader_session == id)
		set_leader(s, -1, 0);
	else if (touched)
		changed(s);
}

void dcs_revoke_all(struct sim *s)
{
	if (s->dcs.down)
		return;
	s->dcs.revoked_ms = s->now_ms;
	for (uint32_t i = 0; i < ARRAY_LEN(s->dcs.sessions); i++) {
		if (!s->dcs.sessions[i].alive)
			continue;
		s->dcs.sessions[i].expires_ms = s->now_ms - SESSION_GRACE_MS;
		dcs_session_expire(s, i);
	}
}

void dcs_leader_change(struct sim *s)
{
	for (uint32_t i = 1; i <= s->dcs.session_count; i++)
		if (s->dcs.sessions[i].alive)
			s->dcs.sessions[i].expires_ms = s->now_ms + s->dcs.sessions[i].ttl_ms;
	sim_log(s, -1, "store: new store leader, leases extended");
}

/* False: the session is gone, and everything that hung on it. */
static bool keep_alive(struct sim *s, struct sim_op *op)
{
	struct sim_session *session = &s->dcs.sessions[op->session];
	if (op->session && !session->used) {
		session->used = session->alive = true;
		session->ttl_ms = op->ttl_ms;
		sim_at(s, s->now_ms + op->ttl_ms + SESSION_GRACE_MS, EV_SESSION, -1, op->session, 0,
			NULL);
	}
	if (!op->session || !session->alive) {
		op->lease_gone = true;
		return false;
	}
	session->expires_ms = s->now_ms + session->ttl_ms;
	op->lease_ttl_ms = session->ttl_ms;
	return true;
}

static bool mine(const struct sim *s, const struct sim_op *op)
{
	uint32_t id = s->dcs.leader_session;
	return id && (id == op->session || id == op->old_session) && dcs_lease_of(s, op->node);
}

static enum dcs_outcome on_lease(struct sim *s, struct sim_op *op)
{
	struct cluster *c = tree(s);
	if (op->kind == DCS_RELEASE) {
		if (!mine(s, op) || (op->version && op->version != c->leader_version))
			return DCS_CONFLICT;
		check_release(s, op->node);
		set_leader(s, -1, 0);
		return DCS_OK;
	}
	if (!keep_alive(s, op))
		return DCS_CONFLICT;
	switch (op->kind) {
	case DCS_RENEW:
		if (!mine(s, op))
			return DCS_CONFLICT;
		if (s->dcs.leader_session == op->session)
			return DCS_OK;
		break; /* a new lease for another ttl: the key moves to it */
	case DCS_ACQUIRE:
		if (c->leader_present)
			return DCS_CONFLICT;
		break;
	case DCS_ADOPT:
		if (!c->leader_present || strcmp(c->leader, sim_name(op->node)) != 0 ||
			c->leader_version != op->version)
			return DCS_CONFLICT;
		break;
	default: break;
	}
	set_leader(s, op->node, op->session);
	op->new_version = c->leader_version;
	check_acquired(s, op->node, op->kind);
	return DCS_OK;
}

static void write_sync(struct sim *s, const struct sim_op *op)
{
	struct cluster *c = tree(s);
	c->sync_key_exists = op->kind == DCS_SET_SYNC;
	snprintf(c->sync_leader, sizeof(c->sync_leader), "%s",
		op->kind == DCS_SET_SYNC ? sim_name(op->node) : "");
	c->sync_quorum = op->kind == DCS_SET_SYNC ? op->quorum : 0;
	c->sync_voter_count = 0;
	for (int i = 0; i < SIM_NODES && op->kind == DCS_SET_SYNC; i++)
		if (op->names & (1u << i))
			snprintf(c->sync_voters[c->sync_voter_count++],
				sizeof(c->sync_voters[c->sync_voter_count]), "%s", sim_name(i));
	if (op->kind == DCS_DELETE_SYNC)
		s->dcs.sync_off_ms = s->now_ms;
	sim_log(s, op->node, "store: /sync leader=%s q=%d voters=%02x", c->sync_leader,
		c->sync_quorum, op->names);
}

static enum dcs_outcome on_sync(struct sim *s, struct sim_op *op)
{
	struct cluster *c = tree(s);
	if (op->version == -1 && c->sync_key_exists)
		return DCS_CONFLICT;
	if (op->version > 0 && (!c->sync_key_exists || c->sync_version != op->version))
		return DCS_CONFLICT;
	write_sync(s, op);
	op->new_version = c->sync_version = changed(s);
	check_sync_written(s);
	return DCS_OK;
}

static enum dcs_outcome on_failover(struct sim *s, struct sim_op *op)
{
	struct cluster *c = tree(s);
	if (op->version && c->failover_version != op->version)
		return DCS_CONFLICT;
	c->failover_present = op->failover_leader >= 0 || op->failover_candidate >= 0;
	c->failover_key_exists = true;
	snprintf(c->failover_leader, sizeof(c->failover_leader), "%s",
		op->failover_leader >= 0 ? sim_name(op->failover_leader) : "");
	snprintf(c->failover_candidate, sizeof(c->failover_candidate), "%s",
		op->failover_candidate >= 0 ? sim_name(op->failover_candidate) : "");
	c->failover_scheduled = op->failover_at_us != 0;
	c->failover_schedule_bad = op->failover_bad;
	c->failover_at_wall_us = op->failover_at_us;
	op->new_version = c->failover_version = changed(s);
	return DCS_OK;
}

/* A leader that puts /config back after it was lost writes what it knows, which may be older than
 * what the operator wrote last. */
static int64_t config_written(struct sim *s, const struct sim_op *op)
{
	if (op->config && op->config < s->settings_count && s->settings_count + 1 < SIM_SETTINGS) {
		s->settings[s->settings_count + 1] = s->settings[op->config];
		s->settings_count++;
		check_config_changed(s);
	}
	return s->settings_count;
}

/* The keys that make a cluster of a member. */
static bool on_bootstrap(struct sim *s, const struct sim_op *op)
{
	struct cluster *c = tree(s);
	if (op->kind == DCS_SET_CONFIG) {
		if (!c->config_present)
			c->config_version = config_written(s, op);
		c->config_present = c->config_valid = true;
		return true;
	}
	if ((c->init_present && (op->kind == DCS_INIT_RACE || op->create)) ||
		(op->leader_only && !mine(s, op)) ||
		(op->version > 0 && (!c->init_present || c->init_version != op->version)))
		return false;
	c->init_present = op->kind != DCS_INIT_CANCEL;
	c->init[0] = '\0';
	c->init_version = c->revision + 1;
	if (op->kind == DCS_INIT_SET) {
		late_check_published(s, op->node, op->sysid);
		/* Clients may come from now on; the synchronous mode begins a moment later (L4). */
		s->nodes[op->node].pg.unpublished = false;
		s->checks.mode_changed_ms = s->checks.sync_changed_ms = s->now_ms;
		snprintf(c->init, sizeof(c->init), "%llu",
			7000000000000000000ull + (unsigned)op->sysid);
	}
	sim_log(s, op->node, "store: /initialize %s%s", c->init_present ? "=" : "deleted", c->init);
	return true;
}

static enum dcs_outcome on_plain(struct sim *s, struct sim_op *op)
{
	struct cluster *c = tree(s);
	if (op->leader_only && !mine(s, op))
		return DCS_CONFLICT;
	switch (op->kind) {
	case DCS_TOUCH_MEMBER:
		if (!keep_alive(s, op))
			return DCS_CONFLICT;
		if (op->suppressed && s->dcs.member_present[op->node] &&
			s->dcs.member_session[op->node] == op->session)
			return DCS_OK;
		member_write(s, op->node, op);
		break;
	case DCS_SET_STATUS:
		c->status_present = true;
		c->last_lsn = op->lsn;
		break;
	case DCS_SET_FAILSAFE:
		if (op->version > 0 && op->version != c->failsafe_version)
			return DCS_CONFLICT;
		c->failsafe_version = c->revision + 1;
		c->failsafe_present = true;
		c->failsafe_count = 0;
		for (int i = 0; i < SIM_NODES; i++)
			if (op->names & (1u << i)) {
				struct failsafe_member *f = &c->failsafe[c->failsafe_count++];
				snprintf(f->name, sizeof(f->name), "%s", sim_name(i));
				snprintf(f->api_url, sizeof(f->api_url), "http://%s:8008/patroni",
					sim_name(i));
			}
		break;
	case DCS_SET_HISTORY:
		c->history_present = c->history_valid = true;
		c->history_count = op->history_count;
		memcpy(c->history, op->history, op->history_count * sizeof(*op->history));
		break;
	case DCS_INIT_RACE:
	case DCS_INIT_SET:
	case DCS_INIT_CANCEL:
	case DCS_SET_CONFIG:
		if (!on_bootstrap(s, op))
			return DCS_CONFLICT;
		break;
	default: return DCS_OK;
	}
	op->new_version = changed(s);
	return DCS_OK;
}

void dcs_apply(struct sim *s, struct sim_op *op)
{
	switch (op->kind) {
	case DCS_READ:
		op->snapshot = dcs_snapshot(s);
		op->outcome = DCS_OK;
		break;
	case DCS_ACQUIRE:
	case DCS_RENEW:
	case DCS_ADOPT:
	case DCS_RELEASE: op->outcome = on_lease(s, op); break;
	case DCS_SET_SYNC:
	case DCS_DELETE_SYNC:
		op->outcome = op->leader_only && !mine(s, op) ? DCS_CONFLICT : on_sync(s, op);
		break;
	case DCS_SET_FAILOVER:
		op->outcome = op->leader_only && !mine(s, op) ? DCS_CONFLICT : on_failover(s, op);
		break;
	default: op->outcome = on_plain(s, op); break;
	}
	op->revision = tree(s)->revision;
}

/* Members in the order of their names, without gaps. */
static struct sim_snapshot *copy_tree(struct sim *s)
{
	const struct sim_snapshot *n = &s->dcs.now;
	struct sim_snapshot *snap = arena_take(&s->arena, ARENA_SNAPSHOT, sizeof(*snap));
	snap->c = n->c;
	snap->c.members = snap->members;
	snap->c.failsafe = snap->failsafe;
	snap->c.sync_voters = snap->voters;
	snap->c.history = snap->history;
	unsigned k = 0;
	for (int i = 0; i < SIM_NODES; i++)
		if (s->dcs.member_present[i])
			snap->members[k++] = n->members[i];
	snap->c.member_count = k;
	memcpy(snap->failsafe, n->failsafe, n->c.failsafe_count * sizeof(n->failsafe[0]));
	memcpy(snap->voters, n->voters, n->c.sync_voter_count * sizeof(n->voters[0]));
	memcpy(snap->history, n->history, n->c.history_count * sizeof(n->history[0]));
	return snap;
}

struct sim_snapshot *dcs_snapshot(struct sim *s)
{
	if (!s->dcs.latest) {
		s->dcs.latest = copy_tree(s);
		s->dcs.latest->refs = 1; /* ours */
	}
	s->dcs.latest->refs++;
	return s->dcs.latest;
}

void snapshot_drop(struct sim *s, struct sim_snapshot *snap)
{
	if (snap && --snap->refs == 0)
		arena_give(&s->arena, ARENA_SNAPSHOT, snap);
}

void dcs_put_config(struct sim *s, int64_t version)
{
	struct cluster *c = tree(s);
	c->config_present = c->config_valid = true;
	c->config_version = version;
	changed(s);
	check_config_changed(s);
}

void dcs_remove_member(struct sim *s, int node)
{
	if (!s->dcs.member_present[node])
		return;
	member_gone(s, node);
	changed(s);
}

void dcs_clear_init(struct sim *s)
{
	tree(s)->init_present = false;
	tree(s)->init[0] = '\0';
	changed(s);
}

void dcs_put_init(struct sim *s, int sysid)
{
	struct cluster *c = tree(s);
	c->init_present = true;
	snprintf(c->init, sizeof(c->init), "%llu", 7000000000000000000ull + (unsigned)sysid);
	c->init_version = changed(s);
}

void dcs_lose_all(struct sim *s, bool sessions)
{
	struct cluster *c = tree(s);
	for (uint32_t i = 1; i <= s->dcs.session_count && sessions; i++)
		s->dcs.sessions[i].alive = false;
	for (int i = 0; i < SIM_NODES; i++)
		member_gone(s, i);
	c->init_present = c->config_present = c->config_valid = c->status_present = false;
	c->init[0] = c->sync_leader[0] = c->failover_leader[0] = c->failover_candidate[0] = '\0';
	c->last_lsn = 0;
	c->sync_key_exists = c->failover_present = c->failover_key_exists = false;
	c->failover_scheduled = c->failover_schedule_bad = false;
	c->sync_voter_count = c->failsafe_count = c->history_count = 0;
	c->sync_quorum = 0;
	c->failsafe_present = c->history_present = c->history_valid = false;
	c->failsafe_version = 0;
	sim_log(s, -1, "store: every key is lost%s", sessions ? ", every lease, too" : "");
	s->dcs.revoked_ms = s->now_ms;
	set_leader(s, -1, 0);
}

void dcs_put_failover(struct sim *s, int leader, int candidate)
{
	dcs_put_schedule(s, leader, candidate, 0, false);
}

void dcs_put_schedule(struct sim *s, int leader, int candidate, int64_t at_us, bool bad)
{
	struct sim_op op = { .kind = DCS_SET_FAILOVER,
		.failover_leader = (int8_t)leader,
		.failover_at_us = at_us,
		.failover_bad = bad,
		.failover_candidate = (int8_t)candidate };
	on_failover(s, &op);
	check_manual(s, leader, candidate);
}
