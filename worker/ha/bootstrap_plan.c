/* An empty node: who initialises the cluster, from whom the others clone (K), and the end of a
 * bootstrap (L). Pure. */
#include "worker/ha/step.h"

static const char *kind_word(const struct step *s)
{
	return s->standby ? "standby_" : "";
}

/* K2. Any running member that offers itself spares the leader the copy; which one, the clock
 * decides. */
bool clone_source(const struct step *s, bool from_leader, char out[static LIMIT_NAME])
{
	const struct cluster *c = s->c;
	unsigned offers = 0, pick = 0;
	for (unsigned pass = 0; pass < 2 && !from_leader; pass++) {
		unsigned seen = 0;
		for (unsigned i = 0; i < c->member_count; i++) {
			const struct member *m = &c->members[i];
			if (!m->tags.clonefrom || m->conn_url[0] == '\0' ||
				str_eq(m->name, s->v->name) || str_eq(m->name, s->leader) ||
				!str_eq(m->state, "running"))
				continue;
			if (pass == 1 && seen == pick)
				return str_copy(out, LIMIT_NAME, m->name);
			seen++;
		}
		offers = seen;
		if (offers == 0)
			break;
		pick = (unsigned)((uint64_t)s->v->now_ms % offers);
	}
	if (s->leader[0] == '\0' || s->leader_conn_url[0] == '\0' || str_eq(s->leader, s->v->name))
		return false;
	return str_copy(out, LIMIT_NAME, s->leader);
}

bool bootstrap_empty(struct step *s)
{
	const struct cluster *c = s->c;
	if (s->unlocked && !c->init_present && !is_nofailover(s) && s->set->have_bootstrap) {
		plan_add(s, HA_RACE_INIT);
		return plan_await(s, STAGE_INIT_RACE, AWAIT_DCS, s->set->retry_timeout_ms, "K1");
	}
	char source[LIMIT_NAME];
	int64_t again_ms = s->m->task_failed_ms[0] + s->set->loop_wait_ms;
	if (s->m->task_failed_ms[0] != 0 && s->v->now_ms < again_ms) {
		plan_wake(s, again_ms);
		return plan_done(s, "K2", "bootstrap failed, trying again in %d seconds",
			(int)((again_ms - s->v->now_ms + 999) / 1000));
	}
	/* The leader has no roles yet for whom we come as, or its bootstrap failed and the key is
	 * gone again while it still leads (X46). A cluster whose key was lost gets it back from its
	 * leader at once (A6). */
	bool unpublished = c->init_present && c->init[0] == '\0';
	if (!s->unlocked && !cluster_init_valid(c))
		return plan_done(s, "K2", "waiting for %sleader '%s' to end its bootstrap",
			kind_word(s), s->leader);
	/* X53: a leader that is not promoted yet may give the key back (G2, X18, X44). A copy of it
	 * can lack what was acknowledged, and /sync may still name this node among those who have
	 * all: it would be elected with an older state than its voters have (S4). */
	const struct member *leader = s->unlocked ? NULL : cluster_leader_peek(c);
	if (leader != NULL && !s->injected && str_eq(leader->role, "replica"))
		return plan_done(s, "K2", "waiting for %sleader '%s' to be promoted", kind_word(s),
			s->leader);
	if (!s->unlocked && clone_source(s, false, source)) {
		struct ha_action *a = plan_task(s, TASK_CLONE);
		bool fits = str_copy(a->target, LIMIT_NAME, source);
		INVARIANT(fits);
		return plan_done(s, "K2", "trying to bootstrap from %s '%s'",
			str_eq(source, s->leader) ? "leader" : "replica", source);
	}
	if (s->set->no_leader_methods && !unpublished && s->unlocked) {
		/* X62: such a copy is as old as the backup. While /sync says that this member has
		 * every acknowledged commit it would be elected for what it no longer has (S4). */
		if (s->sync_active && cluster_sync_matches(c, s->v->name))
			return plan_done(s, "X62",
				"waiting for leader to bootstrap: /sync names this member, and a "
				"copy made without a leader may lack acknowledged commits");
		plan_task(s, TASK_CLONE);
		return plan_done(s, "K3", "trying to bootstrap (without leader)");
	}
	return plan_done(s, "K4", "waiting for %sleader to bootstrap", kind_word(s));
}

bool stage_init_race(struct step *s)
{
	switch (s->r->outcome) {
	case HA_OUT_OK: break;
	case HA_OUT_CONFLICT:
	case HA_OUT_DENIED: return plan_done(s, "K1", "failed to acquire initialize lock");
	case HA_OUT_NONE:
	case HA_OUT_UNKNOWN:
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(s, "J4", "DCS is not accessible");
	}
	s->m->bootstrapping = true;
	s->m->init_cancelled = s->m->publish_tried = false;
	s->m->promote_result = TASK_RESULT_NONE;
	/* A half-made directory counts as empty (A12), but initdb wants it so. */
	struct ha_action *a =
		plan_task(s, s->standby ? TASK_BOOTSTRAP_STANDBY_LEADER : TASK_BOOTSTRAP);
	a->create = data_dir_unfinished(s);
	return plan_done(
		s, "K1", "trying to bootstrap a new %s", s->standby ? "standby leader" : "cluster");
}

/* L1 after the key: PostgreSQL first, because a directory in use cannot be set aside. */
static bool bootstrap_clean_up(struct step *s)
{
	s->plan->verdict = VERDICT_DROP;
	if (s->pg_there || s->v->proc == PG_PROC_FENCING) {
		if (s->pg_there)
			plan_add(s, HA_STOP_PG)->stop_mode = PG_STOP_IMMEDIATE;
		return plan_done(s, "L1", "stopping PostgreSQL after a failed bootstrap");
	}
	plan_add(s, HA_RENAME_FAILED);
	plan_add(s, HA_EXIT)->code = 1; /* when the directory has been set aside */
	s->m->bootstrapping = false;
	s->plan->log_level = HA_LOG_CRITICAL;
	return plan_done(s, "L1", "Failed to bootstrap cluster");
}

/* L1: nothing of a failed bootstrap may look like a cluster to anybody. The key goes first and is
 * waited for: an agent that ends before the store heard of it would leave it behind for ever. */
static bool bootstrap_failed(struct step *s)
{
	s->m->promote_result = TASK_RESULT_FALSE;
	if (s->m->publish_tried)
		return plan_reread(s, STAGE_BOOT_PUBLISHED, "X45");
	/* Somebody else took the leader key: the empty initialize key is that one's now. One that
	 * names a cluster is never removed: that cluster is there. */
	bool foreign = (s->leader[0] != '\0' && !str_eq(s->leader, s->v->name)) ||
		       cluster_init_valid(s->c);
	if (s->m->init_cancelled || foreign)
		return bootstrap_clean_up(s);
	plan_note(s, HA_LOG_INFO,
		"removing initialize key after failed attempt to bootstrap the cluster");
	s->plan->verdict = VERDICT_DROP;
	plan_add(s, HA_CANCEL_INIT);
	return plan_await(s, STAGE_BOOT_CANCEL, AWAIT_DCS, s->set->retry_timeout_ms, "L1");
}

static bool bootstrap_over(struct step *s, const char *why)
{
	s->m->bootstrapping = s->m->publish_tried = false;
	s->m->promote_result = TASK_RESULT_NONE;
	plan_add(s, HA_CLEAR_MARK);
	return plan_done(s, "X45", "%s", why);
}

/* X45: L4's writes went unanswered, and then PostgreSQL went away. If they did happen, the cluster
 * exists: others have cloned it and clients were told of commits, so it has not failed. */
bool stage_boot_published(struct step *s)
{
	if (!s->m->bootstrapping)
		return cycle_run(s);
	s->plan->verdict = VERDICT_DROP;
	if (s->r->outcome != HA_OUT_OK) {
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(s, "X45",
			"DCS is not accessible, it is not known whether the new cluster was "
			"published");
	}
	s->m->publish_tried = false;
	/* A data directory that was lost since no longer says what its identifier was. */
	bool lost = s->v->system_id[0] == '\0';
	if (!cluster_init_valid(s->c) || (!lost && !str_eq(s->c->init, s->v->system_id)))
		return bootstrap_failed(s);
	s->plan->verdict = VERDICT_NONE;
	return bootstrap_over(s, "the new cluster was published before PostgreSQL went away");
}

bool stage_boot_cancel(struct step *s)
{
	if (!s->m->bootstrapping)
		return cycle_run(s);
	s->plan->verdict = VERDICT_DROP;
	if (s->r->outcome != HA_OUT_OK && s->r->outcome != HA_OUT_CONFLICT) {
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(s, "L1",
			"DCS is not accessible, initialize key of the failed bootstrap is not "
			"removed yet");
	}
	s->m->init_cancelled = true;
	return bootstrap_clean_up(s);
}

/* L4, once the watchdog is on or not needed: the keys that make it a cluster, the leader key last.
 */
static bool bootstrap_publish(struct step *s)
{
	s->m->publish_tried = true;
	struct ha_action *a = plan_add(s, HA_WRITE_INIT);
	a->create = !s->c->init_present;
	/* X49: one that arrives after L1 took the key away would name a cluster that nobody has. */
	a->version = s->c->init_present ? s->c->init_version : 0;
	a->flag = s->has_lock && s->v->lock == LOCK_HELD;
	plan_add(s, HA_WRITE_CONFIG);
	plan_add(s, HA_TAKE_LEADER);
	return plan_await(s, STAGE_BOOT_LEADER, AWAIT_DCS, s->set->retry_timeout_ms, "L4");
}

bool rule_bootstrapping(struct step *s)
{
	if (!s->m->bootstrapping)
		return false;
	if (!s->pg_there || s->m->promote_result == TASK_RESULT_FALSE)
		return bootstrap_failed(s);
	if (s->m->promote_result == TASK_RESULT_NONE) {
		if (!s->primary)
			return plan_done(s, "L2", "waiting for end of recovery after bootstrap");
		plan_set_role(s, PG_ROLE_PRIMARY);
		plan_task(s, TASK_POST_BOOTSTRAP);
		return plan_done(s, "L3", "running post_bootstrap");
	}
	/* X45, of a standby leader: it is not demoted with its key. */
	if (s->m->publish_tried && cluster_init_valid(s->c) &&
		str_eq(s->c->init, s->v->system_id) && s->leader[0] != '\0' &&
		!str_eq(s->leader, s->v->name))
		return bootstrap_over(s, "the new cluster was published, and has another leader");
	if (s->set->watchdog_mode == WATCHDOG_OFF || s->v->watchdog_armed)
		return bootstrap_publish(s);
	plan_add(s, HA_WATCHDOG_ARM);
	return plan_await(s, STAGE_BOOT_WATCHDOG, AWAIT_WATCHDOG, 2000, "L4");
}

bool stage_boot_watchdog(struct step *s)
{
	if (!s->m->bootstrapping)
		return cycle_run(s);
	if (s->r->outcome == HA_OUT_OK || s->set->watchdog_mode == WATCHDOG_AUTOMATIC)
		return bootstrap_publish(s);
	plan_note(s, HA_LOG_ERROR, "Cancelling bootstrap because watchdog activation failed");
	return bootstrap_failed(s);
}

bool stage_boot_leader(struct step *s)
{
	if (!s->m->bootstrapping)
		return cycle_run(s);
	if (s->r->outcome != HA_OUT_OK) {
		/* Nothing is lost: the next cycle writes the same keys again. */
		s->plan->log_level = HA_LOG_ERROR;
		return plan_done(
			s, "L4", "DCS is not accessible, the new cluster is not published yet");
	}
	s->m->bootstrapping = false;
	s->m->promote_result = TASK_RESULT_NONE;
	plan_add(s, HA_CLEAR_MARK);
	if (s->sync != SYNC_OFF && !s->standby)
		plan_add(s, HA_SET_SSN)->ssn = (struct ha_ssn){ .managed = true,
			.quorum = s->sync == SYNC_QUORUM,
			.n = s->set->sync_strict ? 1 : 0,
			.placeholder = s->set->sync_strict };
	if (!s->v->callbacks_called) {
		struct ha_action *a = plan_add(s, HA_CALLBACK);
		a->callback = CB_ON_START;
		a->role = s->standby ? PG_ROLE_STANDBY_LEADER : PG_ROLE_PRIMARY;
	}
	return plan_done(s, "L4", "initialized a new cluster");
}
