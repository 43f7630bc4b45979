/* The ordered table of one HA cycle (rules A of the contract) and its driver. Runs in the worker
 * and in the simulator; pure. First match wins. Rules of our own are X1, X2, ...; each says which
 * invariant it keeps. */
#include "worker/ha/step.h"

/* Adoption tries of one cycle: the key can hardly change under us more often. */
#define ADOPT_STAGES_MAX 6

/* Store errors of a stage end the cycle like J4; what the error means for the lease is the keeper's
 * to say. */
static bool store_error(struct step *s)
{
	s->plan->log_level = HA_LOG_ERROR;
	return plan_done(s, "J4", "DCS is not accessible");
}

/* X0: nothing is known of the store yet. A postmaster found running stays under the supervisor's
 * deadline (1.15 R). */
static bool rule_store_unknown(struct step *s)
{
	if (s->v->c_fresh || s->v->store == STORE_FAILING || failsafe_heir_acts(s))
		return false;
	return plan_done(s, "X0", "waiting for the first answer of DCS");
}

/* X2: the leader key carries my name but an earlier incarnation's lease. It counts for nothing
 * until it was moved to mine by compare-and-swap, and until then nothing else is decided: demoting
 * here would turn each worker restart into an outage. One that another member's session holds is
 * that member's, whatever somebody has written into it: it puts its name back. */
static bool rule_adopt_key(struct step *s)
{
	if (s->v->lock != LOCK_NONE || s->v->store == STORE_FAILING ||
		!str_eq(s->c->leader, s->v->name) || !s->c->leader_present)
		return false;
	if (s->v->lock_busy) {
		/* The watch was faster than the answer to our own request, or than its
		 * acknowledgement. */
		s->plan->verdict = VERDICT_HOLD;
		plan_wake(s, s->v->now_ms + 200);
		return plan_done(s, "X2", "waiting for the answer about the leader key");
	}
	const char *owner = cluster_held_by_other(s->c, s->v->name);
	if (owner != NULL) {
		plan_wake(s, s->v->now_ms + 1000);
		return plan_done(s, "X2",
			"waiting for %s, whose session holds the leader key that has my name",
			owner);
	}
	if (s->m->held_ms != 0 && s->v->now_ms - s->m->held_ms < s->set->ttl_ms) {
		/* This incarnation held it a moment ago: the snapshot is older than the release, or
		 * the release is still on its way. Adopting now would undo it. */
		if (s->m->stage_count == 0)
			return plan_reread(s, STAGE_CONFIRM_LOST, "X2");
		plan_wake(s, s->v->now_ms + 1000);
		return plan_done(
			s, "X2", "waiting for the end of the leader key that was given back");
	}
	if (s->m->stage_count >= ADOPT_STAGES_MAX)
		return plan_done(s, "X2", "leader key of my name could not be taken over");
	struct ha_action *a = plan_add(s, HA_ACQUIRE);
	a->flag = true;
	a->version = s->c->leader_version;
	return plan_await(s, STAGE_ADOPT, AWAIT_DCS, s->set->retry_timeout_ms, "X2");
}

static bool stage_adopt(struct step *s)
{
	switch (s->r->outcome) {
	case HA_OUT_OK: return cycle_run(s);
	case HA_OUT_CONFLICT: return plan_reread(s, STAGE_CONFIRM_LOST, "X2");
	case HA_OUT_DENIED:
		return plan_done(s, "X2", "leader key of my name could not be taken over");
	case HA_OUT_NONE:
	case HA_OUT_UNKNOWN: break;
	}
	return store_error(s);
}

/* X3: the snapshot names another while the keeper holds the key. One of the two is old; a fresh
 * read says which, before PostgreSQL is stopped for it. If the other name stays, has_lock is false
 * and F4 demotes. */
static bool rule_foreign_key(struct step *s)
{
	bool held = s->v->lock == LOCK_HELD || s->v->lock == LOCK_UNCERTAIN;
	if (!held || s->has_lock || s->m->stage_count > 0)
		return false;
	return plan_reread(s, STAGE_CONFIRM_LOST, "X3");
}

static bool stage_confirm_lost(struct step *s)
{
	if (s->r->outcome != HA_OUT_OK)
		return store_error(s);
	return cycle_run(s);
}

/* X1: proof that the key is lost. Nothing is asked or read any more: another node may hold it
 * already (S1). I2 is the same for a primary that is still starting. */
static bool rule_lock_lost(struct step *s)
{
	if (s->v->lock != LOCK_LOST || !s->primary || s->v->task == TASK_DEMOTE)
		return false;
	if (s->paused) {
		if (!str_eq(s->c->leader, s->v->name))
			return false;
		return plan_done(s, "E5",
			"continue to run as primary after failing to update leader lock in DCS");
	}
	if (s->v->task == TASK_NONE) {
		plan_demote(s, DEMOTE_IMMEDIATE_NOLOCK);
		s->plan->log_level = HA_LOG_ERROR;
		if (s->starting)
			return plan_done(s, "I2",
				"stopped PostgreSQL while starting up because leader key was lost");
		return plan_done(
			s, "X1", "demoted self because failed to update leader lock in DCS");
	}
	return false; /* H3, H4 */
}

/* A5 to A7: keys that must exist. */
static bool rule_keys(struct step *s)
{
	if (!s->has_lock || s->v->lock != LOCK_HELD)
		return false;
	/* A cluster counts as initialised only with its roles: while the key is empty it is
	 * rule_resume's and L4's. */
	if (!cluster_init_valid(s->c) && strlen(s->v->system_id) >= 10 && !s->m->bootstrapping &&
		!bootstrap_unfinished(s))
		plan_add(s, HA_WRITE_INIT)->create = !s->c->init_present;
	if (cluster_init_valid(s->c) && s->v->files->valid && s->v->files->mark == PG_MARK_ROLES &&
		s->v->task == TASK_NONE)
		plan_add(s, HA_CLEAR_MARK);
	if (!s->c->config_present)
		plan_add(s, HA_WRITE_CONFIG);
	return false;
}

/* A11: a start was attempted; did it succeed? */
static bool rule_recovered(struct step *s)
{
	if (!s->m->recovering)
		return false;
	bool rewinding = s->m->rewind_state == REWIND_CHECK || s->m->rewind_state == REWIND_NEED;
	bool failed = !rewinding && !s->pg_there && s->v->proc != PG_PROC_FENCING;
	if (failed && s->has_lock && handover_void(s))
		return true;
	s->m->recovering = false;
	if (failed) {
		plan_add(s, HA_WATCHDOG_OFF);
		if (!s->has_lock)
			return plan_done(s, "A11", "failed to start postgres");
		if (s->v->role == PG_ROLE_PRIMARY || s->v->role == PG_ROLE_STANDBY_LEADER) {
			plan_set_role(s, PG_ROLE_DEMOTED);
			struct ha_action *a = plan_add(s, HA_CALLBACK);
			a->callback = CB_ON_ROLE_CHANGE;
			a->role = PG_ROLE_DEMOTED;
		}
		plan_add(s, HA_RELEASE);
		s->plan->verdict = VERDICT_DROP;
		return plan_done(
			s, "A11", "removed leader key after trying and failing to start postgres");
	}
	s->m->crash_recovery_started_ms = 0;
	if (s->m->rewind_state == REWIND_SUCCESS)
		s->m->rewind_state = REWIND_INITIAL;
	return false;
}

/* X4: while the fence works or waits for its proof, no postmaster may be started and none can be
 * talked to. */
static bool rule_fencing(struct step *s)
{
	if (s->v->proc != PG_PROC_FENCING) {
		s->m->fencing_ms = 0;
		return false;
	}
	if (s->m->fencing_ms == 0) {
		s->m->fencing_ms = s->v->now_ms;
		if (s->has_lock)
			plan_add(s, HA_RENEW); /* X67 */
	}
	/* A process that cannot die would keep the key, and the cluster without a primary, for
	 * ever (V2). It is not released either, because nothing proves that all are dead (S2): it
	 * is left to run out. */
	if (s->has_lock && s->v->now_ms - s->m->fencing_ms >= s->set->ttl_ms)
		s->plan->verdict = VERDICT_DROP;
	return plan_done(s, "X4", "waiting for the proof that PostgreSQL was killed");
}

/* A12: the data directory went away or was never there. S2: the key goes only after PostgreSQL has.
 */
static bool rule_data_dir(struct step *s)
{
	const struct pg_files *f = s->v->files;
	if (!f->valid) {
		/* A slow or dead disk helper is no proof of anything; what runs goes on. */
		if (s->pg_there)
			return false;
		return plan_done(s, "X5", "waiting for the state of the data directory");
	}
	bool readable = !f->dir_exists || f->dir_readable;
	if (readable && f->dir_exists && !f->dir_empty && !data_dir_unfinished(s))
		return false;
	plan_set_role(s, PG_ROLE_UNINITIALIZED);
	if (s->pg_there) {
		struct ha_action *a = plan_add(s, HA_STOP_PG);
		a->stop_mode = PG_STOP_IMMEDIATE;
		a->timeout_ms = s->set->retry_timeout_ms;
	}
	plan_add(s, HA_WATCHDOG_OFF);
	if (s->has_lock && s->pg_there)
		return plan_done(s, "A12", "stopping PostgreSQL as data dir is %s",
			readable ? "empty" : "not accessible");
	if (s->has_lock && handover_void(s))
		return true;
	if (s->has_lock) {
		plan_add(s, HA_RELEASE);
		s->plan->verdict = VERDICT_DROP;
		return plan_done(s, "A12",
			"released leader key voluntarily as data dir %s and currently leader",
			readable ? "empty" : "not accessible");
	}
	if (!readable)
		return plan_done(s, "A12", "data directory is not accessible");
	if (s->paused)
		return plan_done(s, "A12", "running with empty data directory");
	return bootstrap_empty(s);
}

static bool sysid_valid(const char *id)
{
	return strlen(id) >= 10 && strspn(id, "0123456789") == strlen(id);
}

/* A13 to A15: does this data directory belong to the cluster? (S11) */
static bool rule_system_id(struct step *s)
{
	if (!sysid_valid(s->v->system_id)) {
		if (s->pg_there && !s->v->files->valid)
			return false; /* not read yet */
		return plan_done(s, "A13",
			"data dir for the cluster is not empty, but system ID is invalid; consider "
			"doing reinitialize");
	}
	if (cluster_init_valid(s->c)) {
		if (str_eq(s->c->init, s->v->system_id))
			return false;
		if (s->paused)
			return pause_sysid_mismatch(s);
		plan_add(s, HA_EXIT)->code = 1;
		s->plan->verdict = VERDICT_DROP;
		s->plan->log_level = HA_LOG_CRITICAL;
		return plan_done(s, "A14",
			"system ID mismatch, node %s belongs to a different cluster: %s != %s",
			s->v->name, s->c->init, s->v->system_id);
	}
	if (!s->unlocked || s->paused || s->v->callbacks_called || s->v->store == STORE_FAILING)
		return false;
	if (!s->pg_there && bootstrap_open(s))
		return bootstrap_unclaimed(s);
	if (s->pg_there && !s->primary && !s->starting) {
		s->m->join_aborted = true;
		plan_note(s, HA_LOG_ERROR,
			"Please first start the agent on the node running as primary");
		struct ha_action *a = plan_add(s, HA_EXIT);
		a->code = 1;
		a->flag = true;
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(s, "A15",
			"No initialize key in DCS and PostgreSQL is running as replica, aborting "
			"start");
	}
	plan_add(s, HA_WRITE_INIT)->create = !s->c->init_present;
	return false;
}

/* A16: no postmaster. */
static bool rule_not_running(struct step *s)
{
	if (s->pg_there)
		return false;
	if (s->paused && pause_not_running(s))
		return true;
	if (s->v->state == PG_STATE_RUNNING || s->v->state == PG_STATE_STARTING)
		plan_add(s, HA_SET_STATE)->state = PG_STATE_CRASHED;
	return rule_rewind_interrupted(s) || rule_after_demotion(s) || rule_crashed(s);
}

/* X8: a postmaster that was never asked yet is neither primary nor standby. Once it was asked and
 * does not answer, its role stands for it (ha 11.5). */
static bool rule_facts_unknown(struct step *s)
{
	if (s->v->sql->valid || s->v->sql->failed_since_ms != 0)
		return false;
	return plan_done(s, "X8", "waiting for the first answer of PostgreSQL");
}

/* Ordered: the first rule that decides ends the cycle. */
static bool (*const cycle_rules[])(struct step *) = {
	rule_store_unknown, /* X0 */
	rule_shutdown,	    /* 1.15 */
	rule_adopt_key,	    /* X2 */
	rule_lock_lost,	    /* X1, E5 */
	rule_store_failing, /* J */
	rule_foreign_key,   /* X3 */
	rule_resume,	    /* X40: before A6 says that the cluster is complete */
	rule_keys,	    /* A6, A7 */
	rule_reinit,	    /* O */
	rule_task_running,  /* H */
	rule_starting,	    /* I */
	rule_bootstrapping, /* L */
	rule_recovered,	    /* A11 */
	rule_fencing,	    /* X4 */
	rule_interrupted,   /* X40 */
	rule_orphan_job,    /* X41 */
	rule_data_dir,	    /* A12, K */
	rule_system_id,	    /* A13 to A15 */
	rule_not_running,   /* A16, B */
	rule_facts_unknown, /* X8 */
	rule_restart,	    /* N: a restart that was asked for, or is due */
	rule_no_leader,	    /* C, D */
	rule_leader_exists, /* E, F, G */
};

bool cycle_run(struct step *s)
{
	if (s->m->stage_count >= LIMIT_HA_STAGES) {
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(
			s, "X9", "decision did not end within its stages, next cycle starts anew");
	}
	s->m->stage = STAGE_START;
	for (unsigned i = 0; i < sizeof(cycle_rules) / sizeof(cycle_rules[0]); i++) {
		if (cycle_rules[i](s))
			return true;
	}
	return plan_done(
		s, "A17", "nothing to do"); /* not reached: rule_leader_exists always decides */
}

static bool stage_poll(struct step *s)
{
	enum poll_use use = (enum poll_use)s->m->stage_arg[0];
	s->peer_count = s->v->peer_count;
	switch (use) {
	case POLL_RACE: return race_polled(s, use);
	case POLL_MANUAL_TARGET:
	case POLL_MANUAL_LEADER:
	case POLL_MANUAL_RACE: return handover_no_leader_polled(s, use);
	case POLL_HANDOVER: return handover_leader_polled(s, failover_possible(s, false));
	case POLL_HANDOVER_START:
	case POLL_START_TIMEOUT: return starting_polled(s, use, failover_possible(s, false));
	case POLL_CRASH_TASK: return task_crash_polled(s, failover_possible(s, false));
	case POLL_CRASHED: return crashed_polled(s, failover_possible(s, false));
	}
	return cycle_run(s);
}

static bool (*const stage_rules[STAGE_COUNT])(struct step *) = {
	[STAGE_START] = cycle_run,
	[STAGE_ADOPT] = stage_adopt,
	[STAGE_CONFIRM_LOST] = stage_confirm_lost,
	[STAGE_POLL] = stage_poll,
	[STAGE_ACQUIRE] = stage_acquire,
	[STAGE_FOLLOW] = stage_follow,
	[STAGE_RECOVER] = stage_recover,
	[STAGE_WATCHDOG] = stage_watchdog,
	[STAGE_SYNC] = stage_sync,
	[STAGE_PREPROMOTE] = stage_prepromote,
	[STAGE_FAILSAFE] = stage_failsafe,
	[STAGE_INIT_RACE] = stage_init_race,
	[STAGE_BOOT_WATCHDOG] = stage_boot_watchdog,
	[STAGE_BOOT_LEADER] = stage_boot_leader,
	[STAGE_BOOT_CANCEL] = stage_boot_cancel,
	[STAGE_BOOT_PUBLISHED] = stage_boot_published,
	[STAGE_REINIT] = stage_reinit,
};

/* The world changed under the stage so much that its answer decides nothing any more: start the
 * cycle again. */
static bool stage_is_stale(const struct step *s)
{
	const struct ha_memory *m = s->m;
	if (m->stage >= STAGE_COUNT || m->stage_count >= LIMIT_HA_STAGES)
		return true;
	if (m->stage_pg != s->pg_there || (s->pg_there && m->stage_generation != s->v->generation))
		return true;
	if ((s->v->lock == LOCK_LOST && !m->stage_lost) ||
		(s->v->request.shutdown && !m->shutdown_seen))
		return true;
	/* What would be started now stays down in pause: A16 decides. */
	if (m->stage == STAGE_RECOVER && s->paused && !m->stage_paused)
		return true;
	return s->v->store == STORE_FAILING && !m->stage_failing;
}

/* A2: the healthy time, for the race; and what a leader in sight ends. */
static void remember_cluster(struct step *s)
{
	struct ha_memory *m = s->m;
	const struct cluster *c = s->c;
	if (!s->unlocked) {
		m->race_backoff_ms = 0;
		m->race_wait_ms = 0;
		m->left_to_ms = 0;
	}
	if (s->has_lock)
		m->held_ms = s->v->now_ms;
	if (s->v->lock == LOCK_NONE || s->v->lock == LOCK_LOST)
		m->lock_won = false;
	else if (s->has_lock &&
		 (s->primary || (s->standby && s->v->role == PG_ROLE_STANDBY_LEADER)))
		m->lock_won = true; /* a standby leader's first key is a bootstrap's (L4) */
	const struct member *leader = cluster_leader_peek(c);
	m->leader_timeline = leader != NULL ? leader->timeline : 0;
	if (!s->v->c_fresh ||
		(cluster_unlocked(c) && (m->old_leader[0] != '\0' || m->old_member_count > 0)))
		return;
	memcpy(m->old_leader, c->leader_present ? c->leader : "",
		c->leader_present ? LIMIT_NAME : 1);
	m->old_member_count = 0;
	for (unsigned i = 0; i < c->member_count && i < LIMIT_MEMBERS; i++) {
		const struct member *from = &c->members[i];
		memcpy(m->old_members[i].name, from->name, LIMIT_NAME);
		memcpy(m->old_members[i].api_url, from->api_url, LIMIT_URL);
		m->old_members[i].nofailover = from->tags.nofailover;
		m->old_members[i].failover_priority = from->tags.failover_priority;
		m->old_member_count++;
	}
}

/* A1. Cycles are run by events too, so the two samples are kept a loop_wait apart: "moved since the
 * last heart beat loop" must not compare positions of the same moment. */
static void remember_position(struct step *s)
{
	struct ha_memory *m = s->m;
	if (s->v->sql->valid && s->v->sql->in_recovery && s->v->sql->timeline > 0)
		m->last_timeline = s->v->sql->timeline;
	if (!s->v->sql->valid ||
		(m->sampled_ms != 0 && s->v->now_ms - m->sampled_ms < s->set->loop_wait_ms))
		return;
	m->prev_lsn = m->last_lsn;
	m->last_lsn = my_position(s);
	m->sampled_ms = s->v->now_ms;
}

/* Is this plan's end a moment at which PostgreSQL answers for itself? (A18) Not before the store
 * was read: on_start would come before A15 could say that this node has to wait. */
static bool slots_may_run(const struct step *s)
{
	if (!s->v->c_fresh || !s->pg_there || s->starting || s->m->bootstrapping ||
		s->v->store == STORE_FAILING || !s->v->sql->valid)
		return false;
	if (s->v->task != TASK_NONE && s->v->task != TASK_PROMOTE)
		return false;
	for (unsigned i = 0; i < s->plan->count; i++) {
		const struct ha_action *a = &s->plan->actions[i];
		if (a->kind == HA_STOP_PG || a->kind == HA_EXIT || a->kind == HA_SHUTDOWN_DONE ||
			(a->kind == HA_TASK_START && a->task != TASK_PROMOTE))
			return false;
	}
	return true;
}

static bool plan_has(const struct step *s, enum ha_action_kind kind)
{
	for (unsigned i = 0; i < s->plan->count; i++) {
		if (s->plan->actions[i].kind == kind)
			return true;
	}
	return false;
}

/* The end of A18. It stops PostgreSQL for a moment, so nothing else may be under way. */
static void copy_slots(struct step *s)
{
	if (s->v->slots_to_copy == 0 || s->v->task != TASK_NONE || plan_has(s, HA_TASK_START) ||
		s->unlocked || s->injected || s->primary || s->has_lock)
		return;
	plan_task(s, TASK_COPY_SLOTS);
	plan_done(s, "A18", "Copying logical slots from the primary");
}

/* A18, A19 and the writes of E3 that are no renewal. */
bool finish_cycle(struct step *s)
{
	bool leader = s->has_lock && s->v->lock == LOCK_HELD && !plan_has(s, HA_RELEASE);
	if (slots_may_run(s)) {
		plan_add(s, HA_SYNC_SLOTS);
		if (!s->v->callbacks_called && !plan_has(s, HA_CALLBACK)) {
			if (!s->primary && s->v->task != TASK_PROMOTE)
				rewind_trigger(s);
			struct ha_action *a = plan_add(s, HA_CALLBACK);
			a->callback = CB_ON_START;
			a->role = s->v->role;
		}
		copy_slots(s);
	}
	if (s->v->store == STORE_FAILING || !s->v->c_fresh)
		return true;
	if (leader) {
		s->m->failsafe_active_until_ms = 0;
		/* Not while the cluster is being made: /status says that it was complete (X40). */
		if (s->pg_there && s->v->task == TASK_NONE && !s->m->bootstrapping &&
			s->plan->verdict != VERDICT_DROP) {
			plan_add(s, HA_WRITE_STATUS);
			failsafe_map_step(s);
		}
	}
	/* Where both keys hang on one session, a write of the member key would keep alive the
	 * leader key that is to run out. */
	bool running_out =
		s->has_lock && s->plan->verdict == VERDICT_DROP && !plan_has(s, HA_RELEASE);
	if (!running_out)
		plan_add(s, HA_TOUCH_MEMBER);
	return true;
}

static void set_verdict(struct step *s)
{
	if (s->plan->verdict != VERDICT_NONE)
		return;
	if (s->has_lock)
		s->plan->verdict = VERDICT_HOLD;
	else if (s->v->lock == LOCK_HELD || s->v->lock == LOCK_UNCERTAIN)
		s->plan->verdict = VERDICT_DROP;
}

void ha_step(const struct ha_view *view, struct ha_memory *memory, const struct ha_result *result,
	struct ha_plan *plan)
{
	static const struct ha_result none;
	struct step s;
	memset(plan, 0, sizeof(*plan));
	step_init(&s, view, memory, result != NULL ? result : &none, plan);
	remember_cluster(&s);
	remember_position(&s);
	task_ended(&s);
	pause_changed(&s);
	if (memory->started_ms == 0)
		memory->started_ms = view->now_ms;
	if (view->set->ttl_ms > memory->ttl_most_ms)
		memory->ttl_most_ms = view->set->ttl_ms;
	failsafe_looked(&s);
	bool decided;
	if (s.r->present && memory->stage != STAGE_START && !stage_is_stale(&s))
		decided = stage_rules[memory->stage](&s);
	else
		decided = cycle_run(&s);
	INVARIANT(decided);
	if (plan->await == AWAIT_NONE) {
		failsafe_wake(&s);
		finish_cycle(&s);
	}
	set_verdict(&s);
	memory->last_cycle_ms = view->now_ms;
}
