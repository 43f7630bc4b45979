/* The model of worker/observe: what a node knows at this moment, as ha_step wants to see it. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

/* One node is looked at a time: the facts of the last look are scratch. */
static struct {
	struct pg_sql sql;
	struct pg_files files;
	struct pg_walsender senders[SIM_NODES];
	struct history_row history[SIM_HISTORY];
	struct settings set; /* as the configuration says, with this member's tags */
} scratch;

static void show_ssn(char *out, size_t len, const struct sim_ssn *n)
{
	char names[64] = "";
	size_t at = 0;
	for (int i = 0; i < SIM_NODES; i++)
		if (n->names & (1u << i))
			at += (size_t)snprintf(names + at, sizeof(names) - at, "%s%s",
				at > 0 ? "," : "", sim_name(i));
	if (!n->set)
		out[0] = '\0';
	else if (n->placeholder)
		snprintf(out, len, n->quorum ? "ANY 1 (%s)" : "%s",
			"__patroni_strict_sync_replica_placeholder__");
	else if (n->quorum)
		snprintf(out, len, "ANY %d (%s)", n->n, names);
	else if (strchr(names, ','))
		snprintf(out, len, "%d (%s)", n->n, names);
	else
		snprintf(out, len, "%s", names);
}

static void senders(const struct sim *s, int node, struct pg_sql *sql)
{
	const struct sim_pg *p = &s->nodes[node].pg;
	sql->walsenders = scratch.senders;
	int taken = 0;
	for (unsigned i = 0; i < s->cfg.member_count; i++) {
		if (!p->standby[i].connected)
			continue;
		struct pg_walsender *w = &scratch.senders[sql->walsender_count++];
		*w = (struct pg_walsender){ .pid = 1000 + (int)i,
			.write_lsn = p->standby[i].flush,
			.flush_lsn = p->standby[i].flush,
			.replay_lsn = p->standby[i].flush };
		snprintf(w->application_name, sizeof(w->application_name), "%s", sim_name((int)i));
		const char *state = "async";
		if (p->ssn.set && (p->ssn.names & (1u << i)))
			state = p->ssn.quorum	     ? "quorum"
				: taken++ < p->ssn.n ? "sync"
						     : "potential";
		snprintf(w->sync_state, sizeof(w->sync_state), "%s", state);
	}
}

static void view_sql(struct sim *s, int node, int64_t now)
{
	const struct sim_node *n = &s->nodes[node];
	const struct sim_pg *p = &n->pg;
	struct pg_sql *sql = &scratch.sql;
	char *ssn = sql->synchronous_standby_names;
	sql->valid = sql->rejecting = sql->in_recovery = sql->receiver_streaming =
		sql->replay_paused = false;
	sql->flush_lsn = sql->replay_lsn = sql->receive_lsn = sql->written_lsn =
		sql->latest_end_lsn = 0;
	sql->walsender_count = 0;
	sql->timeline = 0;
	sql->failed_since_ms = 0;
	ssn[0] = '\0';
	sql->receiver_slot[0] = '\0';
	sql->server_version = 150010;
	sql->asked_at_ms = now;
	sql->start_time_us = (p->started_ms + 1000000) * 1000;
	snprintf(sql->synchronous_commit, sizeof(sql->synchronous_commit), "%s", "on");
	if (late_unanswered(s, node))
		return;
	if (p->phase == PGP_RECOVERY) {
		sql->rejecting = true;
		sql->failed_since_ms = now;
		return;
	}
	if (p->phase == PGP_NONE || p->phase >= PGP_STOPPING || p->hung || p->frozen) {
		sql->failed_since_ms = p->phase_ms + 1;
		return;
	}
	sql->valid = true;
	sql->in_recovery = p->phase != PGP_PRIMARY;
	sql->timeline = s->branches[p->branch].tli;
	show_ssn(ssn, sizeof(sql->synchronous_standby_names), &p->ssn);
	senders(s, node, sql);
	if (!sql->in_recovery) {
		sql->flush_lsn = p->lsn;
		return;
	}
	sql->replay_lsn = p->replay_lsn;
	sql->receive_lsn = sql->written_lsn = sql->latest_end_lsn = p->lsn;
	sql->receiver_streaming = p->streaming;
	sql->slots_valid = true;
}

static void view_files(const struct sim *s, int node, int64_t now)
{
	const struct sim_pg *p = &s->nodes[node].pg;
	struct pg_files *f = &scratch.files;
	memset(f, 0, sizeof(*f));
	if (s->nodes[node].files_slow)
		return;
	f->valid = true;
	f->read_at_ms = now;
	f->dir_exists = p->dir_exists;
	f->dir_readable = p->dir_exists;
	f->dir_empty = p->dir_empty;
	f->standby_signal = p->standby_signal;
	f->major = p->dir_empty ? 0 : 15;
	bool copied = p->mark != PG_MARK_COPYING || !p->damaged;
	f->control.valid = p->dir_exists && !p->dir_empty && copied;
	f->control.read_at_ms = now;
	f->control.system_id = 7000000000000000000ull + (unsigned)p->sysid;
	f->control.state = p->control;
	f->control.checkpoint_lsn = f->control.checkpoint_redo = p->checkpoint_lsn;
	f->control.checkpoint_tli = (uint32_t)p->checkpoint_tli;
	f->control.min_recovery_lsn = p->control == PG_DB_IN_ARCHIVE_RECOVERY ||
						      p->control == PG_DB_SHUTDOWNED_IN_RECOVERY
					      ? p->lsn
					      : 0;
	f->control.min_recovery_tli =
		f->control.min_recovery_lsn ? (uint32_t)s->branches[p->branch].tli : 0;
	f->control.wal_log_hints = p->can_rewind;
	f->control.wal_segment_size = 16 << 20;
	f->control.control_version = 1300;
}

unsigned view_history(const struct sim *s, int node, struct history_row rows[SIM_HISTORY])
{
	const struct sim_pg *p = &s->nodes[node].pg;
	int16_t path[SIM_HISTORY];
	unsigned depth = 0, count = 0;
	for (int16_t b = p->branch; s->branches[b].parent >= 0 && depth < SIM_HISTORY;
		b = s->branches[b].parent)
		path[depth++] = b;
	while (depth) {
		int16_t b = path[--depth];
		struct history_row *r = &rows[count++];
		r->timeline = s->branches[s->branches[b].parent].tli;
		r->lsn = s->branches[b].start_lsn;
		snprintf(r->reason, sizeof(r->reason), "%s", "no recovery target specified");
		r->time[0] = '\0';
		snprintf(r->new_leader, sizeof(r->new_leader), "%s",
			s->branches[b].node >= 0 ? sim_name(s->branches[b].node) : "");
	}
	return count;
}

static void track_state(struct sim *s, int node, int64_t now)
{
	struct sim_worker *w = &s->nodes[node].w;
	const struct sim_pg *p = &s->nodes[node].pg;
	enum pg_state state = w->state;
	if (p->phase == PGP_RECOVERY)
		state = PG_STATE_STARTING;
	else if (p->phase == PGP_STANDBY || p->phase == PGP_PROMOTING || p->phase == PGP_PRIMARY)
		state = p->stop_mode ? PG_STATE_STOPPING : PG_STATE_RUNNING;
	else if (p->phase >= PGP_STOPPING)
		state = PG_STATE_STOPPING;
	else if (w->state == PG_STATE_STOPPING)
		state = PG_STATE_STOPPED;
	if (p->phase == PGP_PRIMARY && !p->stop_mode && w->role == PG_ROLE_REPLICA)
		w->role = PG_ROLE_PRIMARY;
	if (state != w->state) {
		w->state = state;
		w->state_since_ms = now;
	}
}

static void view_failsafe(const struct sim_worker *w, struct ha_view *v)
{
	if (w->failsafe_leader < 0)
		return;
	snprintf(
		v->failsafe_leader, sizeof(v->failsafe_leader), "%s", sim_name(w->failsafe_leader));
	snprintf(
		v->failsafe_conn_url, LIMIT_URL, "postgres://%s:5432/postgres", v->failsafe_leader);
	snprintf(v->failsafe_api_url, LIMIT_URL, "http://%s:8008/patroni", v->failsafe_leader);
	v->failsafe_last_ms = w->failsafe_last_ms;
	v->failsafe_ttl_ms = w->failsafe_ttl_ms;
}

static void view_process(const struct sim_node *n, struct ha_view *v)
{
	const struct guard *g = &n->sup.guard;
	v->proc = (enum pg_proc_state)g->pm_state;
	v->generation = g->generation;
	v->proc_started_at_ms = g->started_at_ms;
	v->promote_sent = g->promote_sent;
	v->exit_class = n->exit_class;
}

static bool branch_has_tli(const struct sim *s, int16_t branch, int64_t tli)
{
	for (int16_t b = branch; b >= 0; b = s->branches[b].parent)
		if (s->branches[b].tli == tli)
			return true;
	return false;
}

/* F5. Its own history, or one that the walreceiver fetched. */
static int64_t next_history(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	const struct member *leader = n->w.snap ? cluster_leader_peek(&n->w.snap->c) : NULL;
	int64_t next = leader ? leader->timeline + 1 : 0;
	if (next <= 1 || !worker_settings(s, node)->standby_cluster)
		return 0;
	bool here = branch_has_tli(s, n->pg.branch, next) ||
		    (n->pg.heard_branch > 0 && branch_has_tli(s, n->pg.heard_branch, next));
	return here ? next : 0;
}

void view_build(struct sim *s, int node, struct ha_view *v, const struct ha_result *result)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_worker *w = &n->w;
	const struct settings *set = worker_settings(s, node);
	int64_t now = node_clock(s, node);
	(void)result;
	memset(v, 0, sizeof(*v));
	track_state(s, node, now);
	view_sql(s, node, now);
	marks_view(s, node, &scratch.files, v); /* ends what has ended */
	view_files(s, node, now);
	marks_view(s, node, &scratch.files, v);
	v->now_ms = now;
	v->wall_us = late_wall_us(s, node);
	snprintf(v->name, sizeof(v->name), "%s", sim_name(node));
	if (n->pg.sysid && !n->pg.dir_empty)
		snprintf(v->system_id, sizeof(v->system_id), "%llu",
			7000000000000000000ull + (unsigned)n->pg.sysid);
	scratch.set = *set;
	scratch.set.tags = n->tags;
	v->set = &scratch.set;
	v->c = worker_cluster(n);
	v->c_fresh = w->snap != NULL;
	v->store_failing_since_ms = w->store_failing_ms;
	v->store = w->store_failing_ms && now - w->store_failing_ms >= set->retry_timeout_ms
			   ? STORE_FAILING
			   : STORE_OK;
	v->lock = keeper_lock(&w->keeper, now);
	v->lock_busy = keeper_busy(&w->keeper);
	v->lease_until_ms = keeper_lease_until_ms(&w->keeper);
	v->gentle_at_ms = keeper_gentle_ms(&w->keeper);
	view_process(n, v);
	v->role = w->role;
	v->state = w->state;
	v->state_since_ms = w->state_since_ms;
	v->sql = &scratch.sql;
	v->files = &scratch.files;
	v->can_rewind = set->use_pg_rewind && n->pg.can_rewind && scratch.files.valid;
	v->follow_known = w->follow_known;
	snprintf(v->following, sizeof(v->following), "%s",
		w->following == SIM_REMOTE ? HA_TARGET_REMOTE
		: w->following >= 0	   ? sim_name(w->following)
					   : "");
	v->recovery_settings_differ = w->recovery_differs;
	v->callbacks_called = w->callbacks_called;
	v->control_timeline = scratch.files.valid ? n->pg.checkpoint_tli : 0;
	v->checkpoint_done = w->checkpoint_done;
	v->checkpoint_running = w->checkpoint_running;
	v->shutdown_state = scratch.files.control.state;
	v->rewind_check_result = w->rewind_result;
	v->local_history_count = view_history(s, node, scratch.history);
	v->local_history = scratch.history;
	v->local_history_tli = s->branches[n->pg.branch].tli;
	v->next_history_tli = next_history(s, node);
	v->postmaster_start_us = scratch.sql.start_time_us;
	v->task = w->task.kind;
	v->task_since_ms = w->task.since_ms;
	v->task_ended = w->task_ended;
	v->task_result = w->task_result;
	v->task_promote_committed = w->task.promote_committed;
	v->task_released_key = w->task.released;
	v->peers = w->peers;
	v->peer_count = w->peer_count;
	v->peers_asked_at_ms = w->peers_asked_ms;
	view_failsafe(w, v);
	topo_view(s, node, v);
	v->request = w->request;
}
