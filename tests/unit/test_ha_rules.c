/* worker/ha: a row per rule: facts in, rule, decisive action, verdict and words out. */
#include "tests/unit/ha_fixture.h"

struct row {
	const char *name;
	const char *leader;
	enum ha_lock lock;
	char pg;
	void (*more)(struct fx *f);
	const char *rule;
	int action; /* must be in the plan; -1 = none of the deciding kinds */
	int detail; /* task or demote mode for HA_TASK_START */
	enum ha_verdict verdict;
	const char *words;
};

/* ---- what rows add ---- */

static void none(struct fx *f)
{
	(void)f;
}
static void paused(struct fx *f)
{
	f->set.pause = true;
}
static void never_read(struct fx *f)
{
	f->v.c_fresh = false;
}
static void peers_level(struct fx *f)
{
	fx_peer(f, "b", 1000);
	fx_peer(f, "c", 900);
}
static void peer_ahead(struct fx *f)
{
	fx_peer(f, "b", 1000);
	fx_peer(f, "c", 1001);
}
static void peer_primary(struct fx *f)
{
	fx_peer(f, "b", 500);
	f->peers[0].in_recovery = false;
}
static void peer_priority(struct fx *f)
{
	fx_peer(f, "b", 1000);
	f->peers[0].failover_priority = 2;
}
static void peer_priority_former(struct fx *f)
{
	peer_priority(f);
	FX_SET(f->m.old_leader, "b");
	f->m.old_member_count = 1;
	FX_SET(f->m.old_members[0].name, "b");
}
static void peer_ahead_nofailover(struct fx *f)
{
	fx_peer(f, "c", 5000);
	f->peers[0].nofailover = true;
}
static void lost_race(struct fx *f)
{
	peers_level(f);
	f->acquire = HA_OUT_CONFLICT;
}
static void unknown_race(struct fx *f)
{
	peers_level(f);
	f->acquire = HA_OUT_UNKNOWN;
}
static void lagging(struct fx *f)
{
	f->c.last_lsn = 1000 + 1048577;
}
static void lag_just_right(struct fx *f)
{
	f->c.last_lsn = 1000 + 1048576;
	peers_level(f);
}
static void tag_nofailover(struct fx *f)
{
	f->set.tags.nofailover = true;
	f->set.tags.failover_priority = 0;
}
static void history_tli(struct fx *f, int64_t tli, uint64_t lsn)
{
	f->c.history_count = 1;
	f->history[0].timeline = tli;
	f->history[0].lsn = lsn;
	FX_SET(f->history[0].time, "2026-01-01T00:00:00+00:00");
}
static void timeline_behind(struct fx *f)
{
	history_tli(f, 1, 2000);
	f->set.check_timeline = true;
}
static void timeline_behind_unchecked(struct fx *f)
{
	history_tli(f, 1, 2000);
	peers_level(f);
}
static void diverged(struct fx *f)
{
	history_tli(f, 1, 999);
}
static void watchdog_required_broken(struct fx *f)
{
	f->set.watchdog_mode = WATCHDOG_REQUIRED;
	f->v.watchdog_failed = true;
}
static void watchdog_refuses(struct fx *f)
{
	f->set.watchdog_mode = WATCHDOG_REQUIRED;
	f->watchdog = HA_OUT_DENIED;
}
static void failsafe_map_without_me(struct fx *f)
{
	f->set.failsafe_mode = true;
	f->c.failsafe_present = true;
	f->c.failsafe_count = 1;
	FX_SET(f->failsafe[0].name, "b");
	FX_SET(f->failsafe[0].api_url, "http://b");
}
static void released_recently(struct fx *f)
{
	f->m.released_ms = FX_NOW - 1000;
}
static void starting_standby(struct fx *f)
{
	f->v.state = PG_STATE_STARTING;
	f->sql.valid = false;
	f->sql.failed_since_ms = FX_NOW - 5;
}
static void backoff(struct fx *f)
{
	f->set.primary_race_backoff_ms = 40000;
	f->m.prev_lsn = 500;
	f->m.sampled_ms = FX_NOW;
	f->sql.receiver_streaming = true;
}
static void backoff_late_moving(struct fx *f)
{
	backoff(f);
	f->m.race_backoff_ms = FX_NOW - 30000;
}
static void backoff_late_still(struct fx *f)
{
	backoff_late_moving(f);
	f->m.prev_lsn = 1000;
	peers_level(f);
}
static void failover_to(struct fx *f, const char *leader, const char *candidate)
{
	f->c.failover_present = f->c.failover_key_exists = true;
	f->c.failover_version = 5;
	FX_SET(f->c.failover_leader, leader);
	FX_SET(f->c.failover_candidate, candidate);
}
static void switch_b_to_me(struct fx *f)
{
	failover_to(f, "b", "a");
	f->c.last_lsn = 1000 + 9999999; /* no lag rule for the candidate */
}
/* b led and is gone; a commit is on a or on c: the candidate needs the vote of c. */
static void switch_quorum(struct fx *f, uint64_t position_of_c)
{
	switch_b_to_me(f);
	f->set.sync_mode = SYNC_QUORUM;
	f->c.sync_key_exists = true;
	FX_SET(f->c.sync_leader, "b");
	FX_SET(f->voters[0], "a");
	FX_SET(f->voters[1], "c");
	f->c.sync_voter_count = 2;
	f->c.sync_quorum = 1;
	fx_peer(f, "c", position_of_c);
}
static void switch_quorum_ahead(struct fx *f)
{
	switch_quorum(f, 900);
}
static void switch_quorum_behind(struct fx *f)
{
	switch_quorum(f, 1001);
}
static void switch_b_to_c(struct fx *f)
{
	failover_to(f, "b", "c");
	fx_peer(f, "c", 900);
}
static void switch_b_to_dead_c(struct fx *f)
{
	failover_to(f, "b", "c");
}
static void switch_me_to_dead_c(struct fx *f)
{
	failover_to(f, "a", "c");
}
static void switch_me_b_able(struct fx *f)
{
	failover_to(f, "a", "");
	fx_peer(f, "b", 1000);
}
static void switch_from_me(struct fx *f)
{
	failover_to(f, "a", "b");
	fx_peer(f, "b", 1000);
	fx_streams(f, "b");
}
static void switch_not_streaming(struct fx *f)
{
	failover_to(f, "a", "b");
	fx_peer(f, "b", 1000);
	fx_streams(f, "c");
}
static void switch_never_streaming(struct fx *f)
{
	switch_not_streaming(f);
	f->m.stream_wait_version = f->c.failover_version;
	f->m.stream_wait_ms = f->v.now_ms - 10000;
}
static void switch_waits_anew(struct fx *f)
{
	switch_not_streaming(f);
	f->m.stream_wait_version = f->c.failover_version - 1;
	f->m.stream_wait_ms = f->v.now_ms - 10000;
}
static void switch_to_cascading(struct fx *f)
{
	switch_not_streaming(f);
	FX_SET(f->c.members[1].tags.replicatefrom, "c");
}
static void switch_from_me_lagging(struct fx *f)
{
	switch_from_me(f);
	f->c.last_lsn = 1000 + 9999999;
}
static void switch_from_other(struct fx *f)
{
	failover_to(f, "c", "b");
}
static void switch_to_me_already(struct fx *f)
{
	failover_to(f, "", "a");
}
static void switch_scheduled_far(struct fx *f)
{
	switch_from_me(f);
	f->c.failover_scheduled = true;
	f->c.failover_at_wall_us = f->v.wall_us + 60000000;
}
static void switch_scheduled_near(struct fx *f)
{
	switch_from_me(f);
	f->c.failover_scheduled = true;
	f->c.failover_at_wall_us = f->v.wall_us + 3000000;
}
static void switch_scheduled_due(struct fx *f)
{
	switch_from_me(f);
	f->c.failover_scheduled = true;
	f->c.failover_at_wall_us = f->v.wall_us - 14000000;
}
static void switch_scheduled_stale(struct fx *f)
{
	switch_from_me(f);
	f->c.failover_scheduled = true;
	f->c.failover_at_wall_us = f->v.wall_us - 16000000;
}
static void switch_no_candidate_paused(struct fx *f)
{
	paused(f);
	failover_to(f, "a", "");
}
static void manual_failover(struct fx *f)
{
	failover_to(f, "", "b");
	fx_peer(f, "b", 1000);
}
static void following_other(struct fx *f)
{
	FX_SET(f->v.following, "c");
}
static void following_other_restart(struct fx *f)
{
	following_other(f);
	f->v.recovery_needs_restart = true;
}
static void replicatefrom_c(struct fx *f)
{
	FX_SET(f->set.tags.replicatefrom, "c");
}
static void replicatefrom_circle(struct fx *f)
{
	FX_SET(f->v.following, "c");
	FX_SET(f->set.tags.replicatefrom, "c");
	FX_SET(f->members[2].tags.replicatefrom, "a");
}
/* c hangs on no circle that a is part of: a goes on as configured. */
static void replicatefrom_below_circle(struct fx *f)
{
	FX_SET(f->v.following, "c");
	FX_SET(f->set.tags.replicatefrom, "c");
	FX_SET(f->members[2].tags.replicatefrom, "c");
}
static void rewind_check_promoting(struct fx *f)
{
	f->v.can_rewind = true;
	f->m.rewind_state = REWIND_CHECK;
	FX_SET(f->members[1].role, "promoted");
}
static void rewind_check_state(struct fx *f)
{
	f->v.can_rewind = true;
	f->m.rewind_state = REWIND_CHECK;
}
static void rewind_need(struct fx *f)
{
	f->v.can_rewind = true;
	f->m.rewind_state = REWIND_NEED;
}
static void reinit_diverged(struct fx *f)
{
	f->set.remove_on_diverged = true;
	f->m.rewind_state = REWIND_NEED;
}
static void no_candidates_for_start(struct fx *f)
{
	f->set.primary_start_timeout_ms = 0;
}
static void start_timeout_zero(struct fx *f)
{
	f->set.primary_start_timeout_ms = 0;
	fx_peer(f, "b", 1000);
}
static void start_late(struct fx *f)
{
	f->v.state_since_ms = FX_NOW - 300001;
}
static void start_late_peer(struct fx *f)
{
	start_late(f);
	fx_peer(f, "b", 1000);
}
static void can_rewind(struct fx *f)
{
	f->v.can_rewind = true;
}
static void backup_label(struct fx *f)
{
	f->v.can_rewind = true;
	f->files.backup_label = true;
}
static void store_failing(struct fx *f)
{
	f->v.store = STORE_FAILING;
	if (f->v.lock == LOCK_HELD)
		fx_lock(f, LOCK_UNCERTAIN);
}
static void store_failing_strict(struct fx *f)
{
	store_failing(f);
	f->set.sync_mode = SYNC_PRIORITY;
	f->set.sync_strict = true;
}
static void store_failing_late(struct fx *f)
{
	store_failing(f);
	f->v.gentle_at_ms = FX_NOW;
	f->v.lease_until_ms = FX_NOW + 6500;
}
static void store_failing_reads(struct fx *f)
{
	f->v.store = STORE_FAILING;
}
static void store_failing_task(struct fx *f)
{
	store_failing_late(f);
	f->v.task = TASK_RESTART;
}
static void store_failing_paused(struct fx *f)
{
	store_failing_late(f);
	paused(f);
}
static void failsafe_map(struct fx *f)
{
	f->set.failsafe_mode = true;
	f->c.failsafe_present = true;
	f->c.failsafe_count = 2;
	FX_SET(f->failsafe[0].name, "a");
	FX_SET(f->failsafe[1].name, "b");
	FX_SET(f->failsafe[1].api_url, "http://b");
}
static void failsafe_good(struct fx *f)
{
	store_failing(f);
	failsafe_map(f);
	f->failsafe_ok = true;
}
static void failsafe_bad(struct fx *f)
{
	store_failing(f);
	f->m.failsafe_again_ms = 1; /* X75: this is the second time */
	failsafe_map(f);
}
static void failsafe_alone(struct fx *f)
{
	failsafe_bad(f);
	f->c.failsafe_count = 1;
	f->c.member_count = 1;
}
static void failsafe_write_under_way(struct fx *f)
{
	failsafe_alone(f);
	FX_SET(f->m.failsafe_sent[0].name, "b");
	FX_SET(f->m.failsafe_sent[0].api_url, "http://b");
	f->m.failsafe_sent[0].sent_ms = FX_NOW - 1000;
	f->m.failsafe_sent_count = 1;
}
static void stray_key(struct fx *f)
{
	f->m.lock_won = false;
}
static void made_anew(struct fx *f)
{
	fx_as_replica(f);
	f->m.rewind_state = REWIND_NEED;
	f->set.remove_on_diverged = true;
}
static void made_anew_not_yet(struct fx *f)
{
	made_anew(f);
	FX_SET(f->members[1].role, "replica");
}
static void made_anew_failed(struct fx *f)
{
	made_anew(f);
	f->m.task_failed_ms[0] = FX_NOW - 9999;
}
static void switchover_to_b(struct fx *f)
{
	f->c.failover_present = f->c.failover_key_exists = true;
	f->c.failover_version = 5;
	FX_SET(f->c.failover_leader, "a");
	FX_SET(f->c.failover_candidate, "b");
}
static void crashed_switchover(struct fx *f)
{
	start_timeout_zero(f);
	switchover_to_b(f);
}
static void start_late_switchover(struct fx *f)
{
	start_late_peer(f);
	switchover_to_b(f);
}
static void stray_key_switchover(struct fx *f)
{
	stray_key(f);
	switchover_to_b(f);
}
static void stray_key_switchover_promoting(struct fx *f)
{
	stray_key_switchover(f);
	f->v.promote_sent = true;
}
static void stray_key_switchover_stays(struct fx *f)
{
	stray_key_switchover(f);
	f->m.void_version = 5;
	f->m.void_since_ms = FX_NOW - 10000;
}
static void stray_key_switchover_of_c(struct fx *f)
{
	stray_key_switchover(f);
	FX_SET(f->c.failover_leader, "c");
}
static void stray_key_switchover_to_me(struct fx *f)
{
	stray_key_switchover(f);
	FX_SET(f->c.failover_candidate, "a");
}
static void stray_key_promote_sent(struct fx *f)
{
	stray_key(f);
	f->v.promote_sent = true;
}
static void failsafe_leader(struct fx *f)
{
	failsafe_map(f);
	FX_SET(f->v.failsafe_leader, "b");
	f->v.failsafe_last_ms = FX_NOW - 29999;
	f->v.failsafe_ttl_ms = 30000;
	FX_SET(f->v.failsafe_conn_url, "postgres://b");
	FX_SET(f->v.following, "b");
}
static void failsafe_leader_old(struct fx *f)
{
	failsafe_leader(f);
	f->v.failsafe_last_ms = FX_NOW - 30000;
	fx_peer(f, "b", 1000);
}
static void failsafe_forgotten(struct fx *f)
{
	failsafe_leader_old(f);
	f->m.started_ms = FX_NOW - 1000;
}
static void task_promote(struct fx *f)
{
	f->v.task = TASK_PROMOTE;
}
static void task_promote_done(struct fx *f)
{
	f->v.task = TASK_PROMOTE;
	f->v.task_promote_committed = true;
}
static void task_clone(struct fx *f)
{
	f->v.task = TASK_CLONE;
}
static void task_restart(struct fx *f)
{
	f->v.task = TASK_RESTART;
}
static void task_demote(struct fx *f)
{
	f->v.task = TASK_DEMOTE;
	f->m.demoted = DEMOTE_GRACEFUL;
}
static void task_demote_named_later(struct fx *f)
{
	task_demote(f);
	switchover_to_b(f);
}
static void task_demote_named_again(struct fx *f)
{
	task_demote_named_later(f);
	FX_SET(f->m.demoted_for, "b");
}
static void task_demote_named_asked(struct fx *f)
{
	task_demote_named_later(f);
	f->m.void_version = 5;
	f->m.void_since_ms = FX_NOW - 100;
}
static void task_demote_failover(struct fx *f)
{
	task_demote_named_later(f);
	FX_SET(f->c.failover_leader, "");
}
static void task_crash_late(struct fx *f)
{
	f->v.task = TASK_CRASH_RECOVERY;
	f->m.crash_recovery_started_ms = FX_NOW - 300001;
	fx_peer(f, "b", 1000);
}
static void task_crash_late_switchover(struct fx *f)
{
	task_crash_late(f);
	switchover_to_b(f);
}
static void pre_promote_failed(struct fx *f)
{
	f->v.task_ended = TASK_PROMOTE;
	f->v.task_result = TASK_RESULT_FALSE;
}
static void pre_promote_failed_switchover(struct fx *f)
{
	pre_promote_failed(f);
	switchover_to_b(f);
}
static void promotion_forgotten(struct fx *f)
{
	f->v.role = PG_ROLE_PROMOTED;
}
static void promoted_role(struct fx *f)
{
	f->v.role = PG_ROLE_PROMOTED;
	f->v.task_promote_committed = true;
}
static void uncertain_promote(struct fx *f)
{
	fx_lock(f, LOCK_UNCERTAIN);
}
static void no_init_key(struct fx *f)
{
	f->c.init_present = false;
	f->c.init[0] = '\0';
}
static void init_lost(struct fx *f)
{
	no_init_key(f);
	f->init_race = HA_OUT_CONFLICT;
}
static void init_empty(struct fx *f)
{
	f->c.init[0] = '\0';
	f->set.no_leader_methods = true;
}
static void clonefrom_c(struct fx *f)
{
	f->members[2].tags.clonefrom = true;
}
static void no_leader_methods(struct fx *f)
{
	f->set.no_leader_methods = true;
}
static void no_leader_but_voter(struct fx *f)
{
	f->set.no_leader_methods = true;
	f->set.sync_mode = SYNC_PRIORITY;
	f->c.sync_key_exists = true;
	FX_SET(f->c.sync_leader, "b");
	FX_SET(f->voters[0], "a");
	f->c.sync_voter_count = 1;
}
static void boot_recovery(struct fx *f)
{
	f->m.bootstrapping = true;
	f->c.init[0] = '\0';
}
static void boot_done(struct fx *f)
{
	boot_recovery(f);
	f->m.promote_result = TASK_RESULT_TRUE;
}
static void boot_failed(struct fx *f)
{
	boot_recovery(f);
	f->v.task_ended = TASK_POST_BOOTSTRAP;
	f->v.task_result = TASK_RESULT_FALSE;
}
static void boot_failed_unheard(struct fx *f)
{
	boot_failed(f);
	f->cancel_init = HA_OUT_UNKNOWN;
}
static void init_open(struct fx *f)
{
	f->c.init[0] = '\0';
	f->c.history_present = false;
}
static void init_open_custom(struct fx *f)
{
	init_open(f);
	f->set.custom_bootstrap = true;
}
static void init_open_joins(struct fx *f)
{
	init_open(f);
	f->v.callbacks_called = false;
}
static void init_emptied(struct fx *f)
{
	f->c.init[0] = '\0';
	f->c.status_present = true;
}
static void init_emptied_marked(struct fx *f)
{
	init_emptied(f);
	f->files.mark = PG_MARK_ROLES;
}
static void mark_roles(struct fx *f)
{
	init_open(f);
	f->files.mark = PG_MARK_ROLES;
}
static void mark_roles_custom(struct fx *f)
{
	mark_roles(f);
	f->set.custom_bootstrap = true;
}
static void mark_roles_restored(struct fx *f)
{
	mark_roles_custom(f);
	f->set.custom_stands_by = true;
	f->v.follow_known = false;
}
static void standby_cluster(struct fx *f);
static void mark_roles_standby(struct fx *f)
{
	standby_cluster(f);
	mark_roles(f);
}
static void mark_bootstrap(struct fx *f)
{
	init_open(f);
	f->files.mark = PG_MARK_BOOTSTRAP;
}
static void mark_copying(struct fx *f)
{
	f->files.mark = PG_MARK_COPYING;
	f->set.use_pg_rewind = f->v.can_rewind = true;
}
static void half_copy(struct fx *f)
{
	f->files.mark = PG_MARK_COPYING;
	f->files.control.valid = false;
	f->v.system_id[0] = '\0';
}
static void mark_replacing(struct fx *f)
{
	f->files.mark = PG_MARK_REPLACING;
}
static void orphan_clone(struct fx *f)
{
	f->files.mark = PG_MARK_COPYING;
	f->v.orphan_job = true;
	f->v.orphan_task = TASK_CLONE;
}
static void orphan_rewind(struct fx *f)
{
	mark_copying(f);
	f->files.mark = PG_MARK_REWIND;
	f->v.orphan_job = true;
	f->v.orphan_task = TASK_REWIND;
}
static void orphan_crash(struct fx *f)
{
	f->v.orphan_job = true;
	f->v.orphan_task = TASK_CRASH_RECOVERY;
}
static void mark_rewind(struct fx *f)
{
	mark_copying(f);
	f->files.mark = PG_MARK_REWIND;
	f->files.control.state = PG_DB_SHUTDOWNED;
}
static void mark_rewind_ended(struct fx *f)
{
	mark_rewind(f);
	f->files.control.state = PG_DB_IN_ARCHIVE_RECOVERY;
	f->files.backup_label = true;
}
static void rewind_twin(struct fx *f)
{
	mark_copying(f);
	f->files.mark = PG_MARK_NONE;
	f->m.rewind_state = REWIND_CHECK;
	f->v.task_ended = TASK_REWIND_CHECK;
	f->v.rewind_check_result = REWIND_CHECK;
	f->v.rewind_twin = true;
}
static void rewind_twin_removed(struct fx *f)
{
	rewind_twin(f);
	f->set.remove_on_diverged = true;
}
static void mark_rewind_failed(struct fx *f)
{
	mark_rewind(f);
	f->m.rewind_state = REWIND_FAILED;
}
static void other_sysid(struct fx *f)
{
	FX_SET(f->c.init, "7000000000000000000");
}
static void other_sysid_paused(struct fx *f)
{
	other_sysid(f);
	paused(f);
}
static void bad_sysid(struct fx *f)
{
	FX_SET(f->v.system_id, "123");
}
static void first_join(struct fx *f)
{
	no_init_key(f);
	f->v.callbacks_called = false;
}
static void first_join_alone(struct fx *f)
{
	first_join(f);
	f->c.member_count = 1;
}
static void dir_gone(struct fx *f)
{
	f->files.dir_readable = false;
}
static void files_silent(struct fx *f)
{
	f->files.valid = false;
}
static void recovering(struct fx *f)
{
	f->m.recovering = true;
}
static void fencing(struct fx *f)
{
	f->v.proc = PG_PROC_FENCING;
}
static void sql_never_asked(struct fx *f)
{
	f->sql.valid = false;
}
static void sql_silent(struct fx *f)
{
	f->sql.valid = false;
	f->sql.failed_since_ms = FX_NOW - 1000;
}
static void shutdown_asked(struct fx *f)
{
	f->v.request.shutdown = true;
}
static void shutdown_switchover(struct fx *f)
{
	switchover_to_b(f);
	shutdown_asked(f);
}
static void shutdown_switchover_doubt(struct fx *f)
{
	shutdown_switchover(f);
	f->v.store = STORE_FAILING;
}
static void shutdown_named_later(struct fx *f)
{
	shutdown_switchover(f);
	f->v.task = TASK_DEMOTE;
	f->m.demoted = DEMOTE_SHUTDOWN;
}
static void shutdown_paused(struct fx *f)
{
	shutdown_asked(f);
	paused(f);
}
static void shutdown_task(struct fx *f)
{
	shutdown_asked(f);
	f->v.task = TASK_CLONE;
}
static void restart_asked(struct fx *f)
{
	f->v.request.restart = true;
}
static void restart_paused(struct fx *f)
{
	paused(f);
	restart_asked(f);
}
static void restart_paused_rewind(struct fx *f)
{
	restart_paused(f);
	f->m.rewind_state = REWIND_NEED;
	f->v.can_rewind = false;
}
static void restart_paused_may_rewind(struct fx *f)
{
	restart_paused_rewind(f);
	f->v.can_rewind = true;
	f->files.control.state = PG_DB_SHUTDOWNED;
}
/* Somebody wrote my name into the key that b's session holds. */
static void my_name_session_of_b(struct fx *f)
{
	FX_SET(f->c.leader_session, "77");
	FX_SET(f->members[1].session, "77");
	FX_SET(f->members[2].session, "78");
}
static void restart_voter(struct fx *f)
{
	restart_asked(f);
	f->set.sync_mode = SYNC_PRIORITY;
	FX_SET(f->c.sync_leader, "b");
	FX_SET(f->voters[0], "a");
	f->c.sync_voter_count = 1;
}
static void restart_scheduled_due(struct fx *f)
{
	f->v.request.scheduled_restart = true;
	f->v.request.scheduled_restart_at_wall_us = f->v.wall_us;
}
static void restart_scheduled_unmet(struct fx *f)
{
	restart_scheduled_due(f);
	f->v.request.scheduled_restart_unmet = true;
}
static void restart_scheduled_happened(struct fx *f)
{
	restart_scheduled_due(f);
	f->v.request.scheduled_restart_start_us = 5;
	f->v.postmaster_start_us = 6;
}
static void reinit_asked(struct fx *f)
{
	f->v.request.reinit = true;
}
static void reinit_busy(struct fx *f)
{
	reinit_asked(f);
	f->v.task = TASK_RESTART;
}
static void reinit_forced(struct fx *f)
{
	reinit_busy(f);
	f->v.request.reinit_force = true;
}
static void demoted_offline(struct fx *f)
{
	store_failing(f);
	f->m.demoted = DEMOTE_OFFLINE;
}
static void demoted_graceful(struct fx *f)
{
	f->m.demoted = DEMOTE_GRACEFUL;
	f->v.role = PG_ROLE_DEMOTED;
	f->files.control.state = PG_DB_SHUTDOWNED;
}
static void demoted_early(struct fx *f)
{
	demoted_graceful(f);
	f->m.demoted_ms = FX_NOW - 500;
}
static void demoted_unconfirmed(struct fx *f)
{
	demoted_graceful(f);
	failover_to(f, "a", "b");
}
static void standby_cluster(struct fx *f)
{
	f->set.standby_cluster = true;
	FX_SET(f->set.standby_host, "remote");
	FX_SET(f->v.following, HA_TARGET_REMOTE);
}
/* The walreceiver fetched the history of the timeline that the remote primary went on to. */
static void standby_leader_role(struct fx *f);
static void remote_moved_on(struct fx *f)
{
	standby_leader_role(f);
	f->members[0].timeline = f->sql.timeline;
	f->v.next_history_tli = f->sql.timeline + 1;
	f->v.can_rewind = true;
	f->m.rewind_state = REWIND_INITIAL;
}
static void remote_checked(struct fx *f)
{
	remote_moved_on(f);
	f->m.next_checked_tli = f->sql.timeline + 1;
	f->m.next_checked_ms = FX_NOW - 1000;
	f->m.rewind_state = REWIND_NOT_NEED;
}
static void standby_leader_role(struct fx *f)
{
	standby_cluster(f);
	f->v.role = PG_ROLE_STANDBY_LEADER;
}
static void standby_replica(struct fx *f)
{
	standby_cluster(f);
	FX_SET(f->v.following, "b");
}
static void standby_race(struct fx *f)
{
	standby_cluster(f);
	peers_level(f);
}
static void paused_candidate_me(struct fx *f)
{
	paused(f);
	failover_to(f, "", "a");
}
static void key_of_other(struct fx *f)
{
	fx_leader(f, "c");
}

/* ---- the table ---- */

#define TASK(t)	     HA_TASK_START, t
#define DEMOTE(mode) HA_TASK_START, 100 + (mode)
#define QUIET	     -1, 0

/* clang-format off: one row, one line */
static const struct row rows[] = {
	{ "nothing read yet", "", LOCK_NONE, 'P', never_read, "X0", QUIET, VERDICT_NONE,
		"waiting" },
	{ "key in my name, not my lease", "a", LOCK_NONE, 'P', none, "E4", HA_ACQUIRE, 0,
		VERDICT_HOLD, "(a), the leader with the lock" },
	{ "lock lost", "b", LOCK_LOST, 'P', none, "X1", DEMOTE(DEMOTE_IMMEDIATE_NOLOCK),
		VERDICT_DROP, "demoted self" },
	{ "lock lost, paused", "a", LOCK_LOST, 'P', paused, "E5", QUIET, VERDICT_NONE,
		"PAUSE: continue to run as primary after failing" },
	{ "lock lost as standby", "a", LOCK_LOST, 'R', none, "E5", QUIET, VERDICT_NONE,
		"not promoting because failed" },
	{ "keeper holds, C names another", "a", LOCK_HELD, 'P', key_of_other, "E6",
		DEMOTE(DEMOTE_IMMEDIATE_NOLOCK), VERDICT_DROP,
		"demoting self because I do not have the lock" },

	{ "leader", "a", LOCK_HELD, 'P', none, "E4", HA_WRITE_STATUS, 0, VERDICT_HOLD,
		"no action. I am (a), the leader with the lock" },
	{ "leader whose PostgreSQL hangs keeps the lock (11.5)", "a", LOCK_HELD, 'P', sql_silent,
		"E4", QUIET, VERDICT_HOLD, "the leader with the lock" },
	{ "one renewal missed", "a", LOCK_UNCERTAIN, 'P', none, "E4", QUIET, VERDICT_HOLD,
		"the leader with the lock" },
	{ "leader key gone by watch, keeper holds", "", LOCK_HELD, 'P', none, "E4", QUIET,
		VERDICT_HOLD, "the leader with the lock" },
	{ "primary without lock", "b", LOCK_NONE, 'P', none, "E6", DEMOTE(DEMOTE_IMMEDIATE_NOLOCK),
		VERDICT_DROP, "demoting self" },
	{ "standby with lock promotes", "a", LOCK_HELD, 'R', none, "G5", TASK(TASK_PROMOTE),
		VERDICT_HOLD, "because I had the session lock" },
	{ "X18 nobody decided on the key", "a", LOCK_HELD, 'R', stray_key, "X18", HA_RELEASE, 0,
		VERDICT_DROP, "no decision" },
	{ "X18 ... and told to promote", "a", LOCK_HELD, 'R', stray_key_promote_sent, "X18",
		DEMOTE(DEMOTE_IMMEDIATE), VERDICT_HOLD, "no decision" },
	{ "6.5 made anew from the leader", "b", LOCK_NONE, 'R', made_anew, "6.5", TASK(TASK_REINIT),
		VERDICT_NONE, "reinitializing due to diverged timelines" },
	{ "X65 the leader is not promoted yet", "b", LOCK_NONE, 'R', made_anew_not_yet, "X65",
		QUIET, VERDICT_NONE, "waiting until that is possible" },
	{ "X65 a copy failed just now", "b", LOCK_NONE, 'R', made_anew_failed, "X65", QUIET,
		VERDICT_NONE, "waiting until that is possible" },
	{ "X72 a switchover by name waits for this key", "a", LOCK_HELD, 'R', stray_key_switchover,
		"X72", HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "removing the request" },
	{ "X72 ... and told to promote: stopped at once", "a", LOCK_HELD, 'R',
		stray_key_switchover_promoting, "X18", DEMOTE(DEMOTE_IMMEDIATE), VERDICT_HOLD,
		"no decision" },
	{ "X72 it cannot be removed", "a", LOCK_HELD, 'R', stray_key_switchover_stays, "X18",
		HA_RELEASE, 0, VERDICT_DROP, "no decision" },
	{ "X72 it names another leader", "a", LOCK_HELD, 'R', stray_key_switchover_of_c, "X18",
		HA_RELEASE, 0, VERDICT_DROP, "no decision" },
	{ "X72 it names me", "a", LOCK_HELD, 'R', stray_key_switchover_to_me, "X18", HA_RELEASE, 0,
		VERDICT_DROP, "no decision" },
	{ "X72 pre_promote failed", "a", LOCK_HELD, 'R', pre_promote_failed_switchover, "X72",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "removing the request" },
	{ "standby with lock in doubt", "a", LOCK_UNCERTAIN, 'R', uncertain_promote, "X10", QUIET,
		VERDICT_HOLD, "not confirmed" },
	{ "promoted, still in recovery", "a", LOCK_HELD, 'R', promoted_role, "E4", QUIET,
		VERDICT_HOLD, "the leader with the lock" },
	{ "X70 promoted, but nobody made the file", "a", LOCK_HELD, 'R', promotion_forgotten, "G5",
		TASK(TASK_PROMOTE), VERDICT_HOLD, "because I had the session lock" },
	{ "pre_promote failed", "a", LOCK_HELD, 'R', pre_promote_failed, "G2", HA_RELEASE, 0,
		VERDICT_DROP, "pre-promote" },
	{ "watchdog required, refuses, primary", "a", LOCK_HELD, 'P', watchdog_refuses, "G1",
		DEMOTE(DEMOTE_IMMEDIATE), VERDICT_HOLD, "Demoting self because watchdog" },
	{ "watchdog required, refuses, standby", "a", LOCK_HELD, 'R', watchdog_refuses, "G1",
		HA_RELEASE, 0, VERDICT_DROP, "Not promoting self because watchdog" },

	{ "replica follows", "b", LOCK_NONE, 'R', none, "E6", QUIET, VERDICT_NONE,
		"no action. I am (a), a secondary, and following a leader (b)" },
	{ "replica: new leader, reload", "b", LOCK_NONE, 'R', following_other, "E6",
		HA_FOLLOW_RELOAD, 0, VERDICT_NONE, "following a leader (b)" },
	{ "replica: new leader, restart", "b", LOCK_NONE, 'R', following_other_restart, "E6",
		TASK(TASK_CHANGE_CONNINFO), VERDICT_NONE, "following a leader" },
	{ "replicatefrom", "b", LOCK_NONE, 'R', replicatefrom_c, "E6", HA_FOLLOW_RELOAD, 0,
		VERDICT_NONE, "following a leader (b)" },
	{ "replicatefrom, a circle", "b", LOCK_NONE, 'R', replicatefrom_circle, "E6",
		HA_FOLLOW_RELOAD, 0, VERDICT_NONE, "following a leader (b)" },
	{ "replicatefrom, below a circle", "b", LOCK_NONE, 'R', replicatefrom_below_circle, "E6",
		HA_SYNC_SLOTS, 0, VERDICT_NONE, "following a leader (b)" },
	{ "rewind check, leader is being promoted", "b", LOCK_NONE, 'R', rewind_check_promoting,
		"E6", HA_SYNC_SLOTS, 0, VERDICT_NONE, "following a leader (b)" },
	{ "rewind check", "b", LOCK_NONE, 'R', rewind_check_state, "6.3", TASK(TASK_REWIND_CHECK),
		VERDICT_NONE, "diverged" },
	{ "rewind", "b", LOCK_NONE, 'R', rewind_need, "6.5", TASK(TASK_REWIND), VERDICT_NONE,
		"running pg_rewind from b" },
	{ "remove on divergence", "b", LOCK_NONE, 'R', reinit_diverged, "6.5", TASK(TASK_REINIT),
		VERDICT_NONE, "reinitializing due to diverged timelines" },

	{ "race won", "", LOCK_NONE, 'R', peers_level, "G5", HA_ACQUIRE, 0, VERDICT_HOLD,
		"promoted self to leader by acquiring session lock" },
	{ "race: nobody answers", "", LOCK_NONE, 'R', none, "G5", HA_ACQUIRE, 0, VERDICT_HOLD,
		"promoted self" },
	{ "race lost", "", LOCK_NONE, 'R', lost_race, "C3", HA_ACQUIRE, 0, VERDICT_NONE,
		"following new leader after trying and failing to obtain lock" },
	{ "race unknown", "", LOCK_NONE, 'R', unknown_race, "J3", HA_ACQUIRE, 0, VERDICT_NONE,
		"DCS is not accessible" },
	{ "peer ahead", "", LOCK_NONE, 'R', peer_ahead, "C5", QUIET, VERDICT_NONE,
		"i am not the healthiest node" },
	{ "old primary alive", "", LOCK_NONE, 'R', peer_primary, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "higher priority peer", "", LOCK_NONE, 'R', peer_priority, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "higher priority, former leader", "", LOCK_NONE, 'R', peer_priority_former, "G5",
		HA_ACQUIRE, 0, VERDICT_HOLD, "promoted self" },
	{ "peer ahead but nofailover", "", LOCK_NONE, 'R', peer_ahead_nofailover, "G5", HA_ACQUIRE,
		0, VERDICT_HOLD, "promoted self" },
	{ "lagging", "", LOCK_NONE, 'R', lagging, "C5", QUIET, VERDICT_NONE, "not the healthiest" },
	{ "lag at the limit", "", LOCK_NONE, 'R', lag_just_right, "G5", HA_ACQUIRE, 0, VERDICT_HOLD,
		"promoted self" },
	{ "D6 nofailover", "", LOCK_NONE, 'R', tag_nofailover, "C4", QUIET, VERDICT_NONE,
		"following a different leader because I am not allowed to promote" },
	{ "3.3 timeline behind", "", LOCK_NONE, 'R', timeline_behind, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "3.3 timeline behind, unchecked", "", LOCK_NONE, 'R', timeline_behind_unchecked, "G5",
		HA_ACQUIRE, 0, VERDICT_HOLD, "promoted" },
	{ "3.3 R diverged", "", LOCK_NONE, 'R', diverged, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "D8 watchdog", "", LOCK_NONE, 'R', watchdog_required_broken, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "D9 failsafe map", "", LOCK_NONE, 'R', failsafe_map_without_me, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "D1 backoff", "", LOCK_NONE, 'R', released_recently, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "D3 starting", "", LOCK_NONE, 'R', starting_standby, "C5", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "D4 primary takes it back", "", LOCK_NONE, 'P', none, "C2", HA_ACQUIRE, 0, VERDICT_HOLD,
		"acquired session lock as a leader" },
	{ "D4 primary behind the history", "", LOCK_NONE, 'P', timeline_behind, "C5",
		DEMOTE(DEMOTE_IMMEDIATE_NOLOCK), VERDICT_DROP,
		"demoting self because i am not the healthiest node" },
	{ "D4 paused", "", LOCK_NONE, 'P', paused, "C2", HA_ACQUIRE, 0, VERDICT_HOLD,
		"acquired session lock" },
	{ "D5 paused standby", "", LOCK_NONE, 'R', paused, "F3", QUIET, VERDICT_NONE,
		"no action. I am (a)" },
	{ "C1 back-off, first loop_wait", "", LOCK_NONE, 'R', backoff, "C1", QUIET, VERDICT_NONE,
		"wal position moved since last heart beat loop, 40 seconds" },
	{ "C1 back-off, WAL moves", "", LOCK_NONE, 'R', backoff_late_moving, "C1", QUIET,
		VERDICT_NONE, "wal position moved since last heart beat loop, 10 seconds" },
	{ "C1 WAL stands", "", LOCK_NONE, 'R', backoff_late_still, "G5", HA_ACQUIRE, 0,
		VERDICT_HOLD, "promoted" },

	{ "D-M candidate is me", "", LOCK_NONE, 'R', switch_b_to_me, "G5", HA_CLEAR_FAILOVER, 0,
		VERDICT_HOLD, "promoted self" },
	{ "X19 candidate with the vote", "", LOCK_NONE, 'R', switch_quorum_ahead, "G5",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "promoted self" },
	{ "X19 candidate behind a voter", "", LOCK_NONE, 'R', switch_quorum_behind, "C4", QUIET,
		VERDICT_NONE, "not the healthiest" },
	{ "D-M candidate is another", "", LOCK_NONE, 'R', switch_b_to_c, "C4", QUIET, VERDICT_NONE,
		"not the healthiest" },
	{ "D-M candidate is dead", "", LOCK_NONE, 'R', switch_b_to_dead_c, "G5", HA_ACQUIRE, 0,
		VERDICT_HOLD, "promoted self" },
	{ "D-M I was the leader, only one", "", LOCK_NONE, 'R', switch_me_to_dead_c, "G5",
		HA_ACQUIRE, 0, VERDICT_HOLD, "promoted self" },
	{ "D-M I was the leader, b able", "", LOCK_NONE, 'R', switch_me_b_able, "C5", QUIET,
		VERDICT_NONE, "not the healthiest" },

	{ "E-M switchover", "a", LOCK_HELD, 'P', switch_from_me, "E-M", DEMOTE(DEMOTE_GRACEFUL),
		VERDICT_HOLD, "switchover: demoting myself" },
	{ "X50 candidate does not stream", "a", LOCK_HELD, 'P', switch_not_streaming, "E4", QUIET,
		VERDICT_HOLD, "no action. I am (a), the leader with the lock" },
	{ "X50 another request waits anew", "a", LOCK_HELD, 'P', switch_waits_anew, "E4", QUIET,
		VERDICT_HOLD, "no action. I am (a), the leader with the lock" },
	{ "X50 waited long enough", "a", LOCK_HELD, 'P', switch_never_streaming, "E-M",
		DEMOTE(DEMOTE_GRACEFUL), VERDICT_HOLD, "switchover: demoting myself" },
	{ "X50 cascading candidate", "a", LOCK_HELD, 'P', switch_to_cascading, "E-M",
		DEMOTE(DEMOTE_GRACEFUL), VERDICT_HOLD, "switchover: demoting myself" },
	{ "E-M failover", "a", LOCK_HELD, 'P', manual_failover, "E-M", DEMOTE(DEMOTE_GRACEFUL),
		VERDICT_HOLD, "manual failover: demoting myself" },
	{ "E-M lagging candidate", "a", LOCK_HELD, 'P', switch_from_me_lagging, "E4",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "leader with the lock" },
	{ "E-M other leader", "a", LOCK_HELD, 'P', switch_from_other, "E4", HA_CLEAR_FAILOVER, 0,
		VERDICT_HOLD, "leader with the lock" },
	{ "E-M already leader", "a", LOCK_HELD, 'P', switch_to_me_already, "E4", HA_CLEAR_FAILOVER,
		0, VERDICT_HOLD, "leader with the lock" },
	{ "E-M scheduled, far", "a", LOCK_HELD, 'P', switch_scheduled_far, "E4", QUIET,
		VERDICT_HOLD, "leader with the lock" },
	{ "E-M scheduled, near", "a", LOCK_HELD, 'P', switch_scheduled_near, "E4", QUIET,
		VERDICT_HOLD, "leader with the lock" },
	{ "E-M scheduled, due", "a", LOCK_HELD, 'P', switch_scheduled_due, "E-M",
		DEMOTE(DEMOTE_GRACEFUL), VERDICT_HOLD, "switchover: demoting myself" },
	{ "E-M scheduled, stale", "a", LOCK_HELD, 'P', switch_scheduled_stale, "E4",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "leader with the lock" },
	{ "E-M paused without candidate", "a", LOCK_HELD, 'P', switch_no_candidate_paused, "E4",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "PAUSE: no action" },

	{ "B2 start primary", "a", LOCK_HELD, 'D', none, "B2", TASK(TASK_START_PRIMARY),
		VERDICT_HOLD, "starting primary after failure" },
	{ "B1 fail over after crash", "a", LOCK_HELD, 'D', start_timeout_zero, "B1",
		DEMOTE(DEMOTE_IMMEDIATE), VERDICT_HOLD, "fail over after a crash" },
	{ "X72 crashed with a switchover open", "a", LOCK_HELD, 'D', crashed_switchover, "X72",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "removing the request" },
	{ "X72 ... in crash recovery", "a", LOCK_HELD, 'D', task_crash_late_switchover, "X72",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "removing the request" },
	{ "X72 ... starting", "a", LOCK_HELD, 'S', start_late_switchover, "X72", HA_CLEAR_FAILOVER,
		0, VERDICT_HOLD, "removing the request" },
	{ "B1 nobody able, starts read-only", "a", LOCK_HELD, 'D', no_candidates_for_start, "B6",
		TASK(TASK_RESTART_AFTER_FAILURE), VERDICT_HOLD, "readonly" },
	{ "B4 crash recovery", "b", LOCK_NONE, 'D', can_rewind, "B4", TASK(TASK_CRASH_RECOVERY),
		VERDICT_NONE, "single user" },
	{ "B4 unlocked", "", LOCK_NONE, 'D', none, "B4", TASK(TASK_CRASH_RECOVERY), VERDICT_NONE,
		"single user" },
	{ "B4 backup_label", "b", LOCK_NONE, 'D', backup_label, "6.3", TASK(TASK_REWIND_CHECK),
		VERDICT_NONE, "diverged" },
	{ "B8 standby starts", "b", LOCK_NONE, 'd', none, "B8", TASK(TASK_RESTART_AFTER_FAILURE),
		VERDICT_NONE, "starting as a secondary" },
	{ "B6 standby with the lock", "a", LOCK_HELD, 'd', none, "B6",
		TASK(TASK_RESTART_AFTER_FAILURE), VERDICT_HOLD, "readonly" },
	{ "fence in progress", "", LOCK_NONE, 'd', fencing, "X4", QUIET, VERDICT_NONE, "killed" },

	{ "H2", "a", LOCK_HELD, 'P', task_restart, "H2", QUIET, VERDICT_HOLD,
		"updated leader lock during restart" },
	{ "X72 named while it stops for somebody else", "a", LOCK_HELD, 'P',
		task_demote_named_later, "H2", HA_CLEAR_FAILOVER, 0, VERDICT_HOLD,
		"updated leader lock during demote" },
	{ "X72 ... named again", "a", LOCK_HELD, 'P', task_demote_named_again, "H2", QUIET,
		VERDICT_HOLD, "updated leader lock during demote" },
	{ "X72 ... being removed", "a", LOCK_HELD, 'P', task_demote_named_asked, "H2", QUIET,
		VERDICT_HOLD, "updated leader lock during demote" },
	{ "X72 ... a failover promises nothing", "a", LOCK_HELD, 'P', task_demote_failover, "H2",
		QUIET, VERDICT_HOLD, "updated leader lock during demote" },
	{ "H1", "a", LOCK_HELD, 'D', task_crash_late, "H1", DEMOTE(DEMOTE_IMMEDIATE), VERDICT_HOLD,
		"terminated crash recovery" },
	{ "H3", "b", LOCK_LOST, 'R', task_promote, "H3", HA_TASK_CANCEL, 0, VERDICT_NONE,
		"lost leader before promote" },
	{ "H4 after commit", "b", LOCK_LOST, 'R', task_promote_done, "H4",
		DEMOTE(DEMOTE_IMMEDIATE_NOLOCK), VERDICT_DROP, "lost leader lock during promote" },
	{ "H4", "b", LOCK_NONE, 'P', task_restart, "H4", DEMOTE(DEMOTE_IMMEDIATE_NOLOCK),
		VERDICT_DROP, "lost leader lock during restart" },
	{ "H4 gentle stop, lock lost", "b", LOCK_LOST, 'P', task_demote, "H4",
		DEMOTE(DEMOTE_IMMEDIATE_NOLOCK), VERDICT_DROP, "lost leader lock during demote" },
	{ "H5", "b", LOCK_NONE, 'E', task_clone, "H5", QUIET, VERDICT_NONE, "in progress" },

	{ "I5", "a", LOCK_HELD, 'S', none, "I5", QUIET, VERDICT_HOLD,
		"PostgreSQL is still starting up, 299 seconds until timeout" },
	{ "I3", "a", LOCK_HELD, 'S', start_late_peer, "I3", DEMOTE(DEMOTE_IMMEDIATE), VERDICT_HOLD,
		"startup timeout" },
	{ "I4", "a", LOCK_HELD, 'S', start_late, "I4", QUIET, VERDICT_HOLD, "continuing to wait" },
	{ "I2", "b", LOCK_LOST, 'S', none, "I2", DEMOTE(DEMOTE_IMMEDIATE_NOLOCK), VERDICT_DROP,
		"stopped PostgreSQL while starting up" },
	{ "I5 switchover while starting", "a", LOCK_HELD, 'S', switch_from_me, "E-M",
		DEMOTE(DEMOTE_GRACEFUL), VERDICT_HOLD, "demoting myself" },

	{ "X63", "a", LOCK_HELD, 'P', store_failing_strict, "J2", HA_SET_SSN, 0, VERDICT_HOLD,
		"DCS is not accessible" },
	{ "J2 in time", "a", LOCK_HELD, 'P', store_failing, "J2", QUIET, VERDICT_HOLD,
		"DCS is not accessible" },
	{ "J2 late", "a", LOCK_HELD, 'P', store_failing_late, "J2", DEMOTE(DEMOTE_OFFLINE),
		VERDICT_DROP, "demoted self because DCS is not accessible and I was a leader" },
	{ "J2 late, task running", "a", LOCK_HELD, 'P', store_failing_task, "J2",
		DEMOTE(DEMOTE_OFFLINE), VERDICT_DROP, "demoted self" },
	{ "J4 reads fail, renewals do not", "a", LOCK_HELD, 'P', store_failing_reads, "J4", QUIET,
		VERDICT_HOLD, "DCS is not accessible" },
	{ "J4 paused", "a", LOCK_HELD, 'P', store_failing_paused, "J3", QUIET, VERDICT_HOLD,
		"PAUSE: DCS is not accessible" },
	{ "J3", "b", LOCK_NONE, 'R', store_failing, "J3", QUIET, VERDICT_NONE,
		"DCS is not accessible" },
	{ "J1 good", "a", LOCK_HELD, 'P', failsafe_good, "J1", HA_FAILSAFE_HOLD, 0, VERDICT_HOLD,
		"continue to run as a leader because failsafe mode is enabled and all members are "
		"accessible" },
	{ "J1 bad", "a", LOCK_HELD, 'P', failsafe_bad, "J2", DEMOTE(DEMOTE_OFFLINE), VERDICT_DROP,
		"demoted self" },
	{ "J1 alone", "a", LOCK_HELD, 'P', failsafe_alone, "J1", HA_FAILSAFE_HOLD, 0, VERDICT_HOLD,
		"continue" },
	{ "X21 a map under way names b", "a", LOCK_HELD, 'P', failsafe_write_under_way, "J2",
		DEMOTE(DEMOTE_OFFLINE), VERDICT_DROP, "demoted self" },
	{ "9.4 injected leader", "", LOCK_NONE, 'R', failsafe_leader, "E6", QUIET, VERDICT_NONE,
		"following a leader (b)" },
	{ "X13 a word may have been given before the start", "", LOCK_NONE, 'R', failsafe_forgotten,
		"C5", QUIET, VERDICT_NONE, "not the healthiest" },
	{ "9.4 injected leader expired", "", LOCK_NONE, 'R', failsafe_leader_old, "G5", HA_ACQUIRE,
		0, VERDICT_HOLD, "promoted" },

	{ "K1", "", LOCK_NONE, 'E', no_init_key, "K1", TASK(TASK_BOOTSTRAP), VERDICT_NONE,
		"trying to bootstrap a new cluster" },
	{ "K1 lost", "", LOCK_NONE, 'E', init_lost, "K1", QUIET, VERDICT_NONE,
		"failed to acquire initialize lock" },
	{ "K2 leader", "b", LOCK_NONE, 'E', none, "K2", TASK(TASK_CLONE), VERDICT_NONE,
		"trying to bootstrap from leader 'b'" },
	{ "K2 clonefrom", "b", LOCK_NONE, 'E', clonefrom_c, "K2", TASK(TASK_CLONE), VERDICT_NONE,
		"trying to bootstrap from replica 'c'" },
	{ "K3", "", LOCK_NONE, 'E', no_leader_methods, "K3", TASK(TASK_CLONE), VERDICT_NONE,
		"without leader" },
	{ "X62", "", LOCK_NONE, 'E', no_leader_but_voter, "X62", QUIET, VERDICT_NONE,
		"may lack acknowledged commits" },
	{ "K4 somebody bootstraps", "", LOCK_NONE, 'E', init_empty, "K4", QUIET, VERDICT_NONE,
		"waiting for leader to bootstrap" },
	{ "K4", "", LOCK_NONE, 'E', none, "K4", QUIET, VERDICT_NONE,
		"waiting for leader to bootstrap" },
	{ "L1 running", "", LOCK_NONE, 'P', boot_failed, "L1", HA_STOP_PG, 0, VERDICT_DROP,
		"stopping PostgreSQL" },
	{ "L1", "", LOCK_NONE, 'd', boot_failed, "L1", HA_RENAME_FAILED, 0, VERDICT_DROP,
		"Failed to bootstrap" },
	{ "L1 store silent", "", LOCK_NONE, 'd', boot_failed_unheard, "L1", HA_CANCEL_INIT, 0,
		VERDICT_DROP, "not removed yet" },
	{ "K2 leader bootstraps", "b", LOCK_NONE, 'E', init_open, "K2", QUIET, VERDICT_NONE,
		"waiting for leader 'b' to end its bootstrap" },
	{ "X61 running, key mine, no mark", "a", LOCK_HELD, 'P', init_open, "E4", HA_WRITE_INIT, 0,
		VERDICT_HOLD, "leader with the lock" },
	{ "X40 running, key mine", "a", LOCK_HELD, 'P', mark_roles, "L3", TASK(TASK_POST_BOOTSTRAP),
		VERDICT_HOLD, "post_bootstrap" },
	{ "X30 running as standby, key mine", "a", LOCK_HELD, 'R', mark_roles, "L1", HA_CANCEL_INIT,
		0, VERDICT_DROP, "" },
	{ "X30 custom, running as standby", "a", LOCK_HELD, 'R', mark_roles_custom, "L1",
		HA_CANCEL_INIT, 0, VERDICT_DROP, "" },
	{ "X40 custom, still recovers", "a", LOCK_HELD, 'R', mark_roles_restored, "L2", QUIET,
		VERDICT_HOLD, "end of recovery" },
	{ "X40 emptied by hand", "a", LOCK_HELD, 'P', init_emptied, "E4", HA_WRITE_INIT, 0,
		VERDICT_HOLD, "leader with the lock" },
	{ "X40 marked beats status", "a", LOCK_HELD, 'P', init_emptied_marked, "L3",
		TASK(TASK_POST_BOOTSTRAP), VERDICT_HOLD, "post_bootstrap" },
	{ "X40 standby leader", "", LOCK_NONE, 'R', mark_roles_standby, "L4", HA_TAKE_LEADER, 0,
		VERDICT_HOLD, "initialized a new cluster" },
	{ "X61 down, key mine, no mark", "a", LOCK_HELD, 'd', init_open, "B6",
		TASK(TASK_RESTART_AFTER_FAILURE), VERDICT_HOLD, "" },
	{ "X40 down, key mine", "a", LOCK_HELD, 'd', mark_roles, "X40", TASK(TASK_BOOTSTRAP),
		VERDICT_HOLD, "after initdb" },
	{ "X40 down, custom, no mark", "a", LOCK_HELD, 'd', init_open_custom, "B6",
		TASK(TASK_RESTART_AFTER_FAILURE), VERDICT_HOLD, "" },
	{ "X40 roles missing", "", LOCK_NONE, 'd', mark_roles, "X40", TASK(TASK_BOOTSTRAP),
		VERDICT_NONE, "after initdb" },
	{ "X40 custom anew", "", LOCK_NONE, 'd', mark_roles_custom, "X40", TASK(TASK_BOOTSTRAP),
		VERDICT_NONE, "anew" },
	{ "X40 half of initdb", "", LOCK_NONE, 'd', mark_bootstrap, "X40", TASK(TASK_BOOTSTRAP),
		VERDICT_NONE, "anew" },
	{ "X40 killed before initdb", "", LOCK_NONE, 'E', mark_bootstrap, "X40",
		TASK(TASK_BOOTSTRAP), VERDICT_NONE, "anew" },
	{ "X40 another leads", "b", LOCK_NONE, 'd', mark_bootstrap, "K2", QUIET, VERDICT_NONE,
		"to end its bootstrap" },
	{ "X40 whose is it", "", LOCK_NONE, 'd', init_open_joins, "X40", QUIET, VERDICT_NONE,
		"nothing says" },
	{ "A12 half a copy", "b", LOCK_NONE, 'd', half_copy, "K2", TASK(TASK_CLONE), VERDICT_NONE,
		"trying to bootstrap from leader 'b'" },
	{ "A12 copy has pg_control", "b", LOCK_NONE, 'd', mark_copying, "6.3",
		TASK(TASK_REWIND_CHECK), VERDICT_NONE, "" },
	{ "A12 copy runs", "b", LOCK_NONE, 'R', mark_copying, "E6", HA_CLEAR_MARK, 0, VERDICT_NONE,
		"following" },
	{ "A12 half removed", "b", LOCK_NONE, 'd', mark_replacing, "K2", TASK(TASK_CLONE),
		VERDICT_NONE, "" },
	{ "X41 copy runs on", "b", LOCK_NONE, 'd', orphan_clone, "K2", TASK(TASK_CLONE),
		VERDICT_NONE, "" },
	{ "X41 rewind runs on", "b", LOCK_NONE, 'd', orphan_rewind, "X41", TASK(TASK_REWIND),
		VERDICT_NONE, "taking over pg_rewind" },
	{ "X41 rewind, no leader", "", LOCK_NONE, 'd', orphan_rewind, "X41", QUIET, VERDICT_NONE,
		"waiting for the end" },
	{ "X41 crash recovery", "", LOCK_NONE, 'D', orphan_crash, "X41", TASK(TASK_CRASH_RECOVERY),
		VERDICT_NONE, "taking over" },
	{ "X42", "b", LOCK_NONE, 'd', mark_rewind, "6.5", TASK(TASK_REWIND), VERDICT_NONE,
		"running pg_rewind" },
	{ "X42 nobody leads", "", LOCK_NONE, 'd', mark_rewind, "X42", QUIET, VERDICT_NONE,
		"waiting for a leader" },
	{ "X43", "b", LOCK_NONE, 'd', rewind_twin, "X43", QUIET, VERDICT_NONE, "reinitialize" },
	{ "X43 removal", "b", LOCK_NONE, 'd', rewind_twin_removed, "6.5", TASK(TASK_REINIT),
		VERDICT_NONE, "reinitializing" },
	{ "X42 it had ended", "b", LOCK_NONE, 'd', mark_rewind_ended, "B8",
		TASK(TASK_RESTART_AFTER_FAILURE), VERDICT_NONE, "starting as a secondary" },
	{ "X42 failed", "b", LOCK_NONE, 'd', mark_rewind_failed, "X42", QUIET, VERDICT_NONE,
		"reinitialize this member" },
	{ "L2", "", LOCK_NONE, 'R', boot_recovery, "L2", QUIET, VERDICT_NONE, "end of recovery" },
	{ "L3", "", LOCK_NONE, 'P', boot_recovery, "L3", TASK(TASK_POST_BOOTSTRAP), VERDICT_NONE,
		"post_bootstrap" },
	{ "L4", "", LOCK_NONE, 'P', boot_done, "L4", HA_TAKE_LEADER, 0, VERDICT_HOLD,
		"initialized a new cluster" },

	{ "A11 failed, lock", "a", LOCK_HELD, 'D', recovering, "A11", HA_RELEASE, 0, VERDICT_DROP,
		"removed leader key" },
	{ "A11 failed", "b", LOCK_NONE, 'd', recovering, "A11", QUIET, VERDICT_NONE,
		"failed to start postgres" },
	{ "A12 dir gone, running, lock", "a", LOCK_HELD, 'P', dir_gone, "A12", HA_STOP_PG, 0,
		VERDICT_HOLD, "stopping" },
	{ "A12 dir gone, down, lock", "a", LOCK_HELD, 'D', dir_gone, "A12", HA_RELEASE, 0,
		VERDICT_DROP, "released leader key voluntarily" },
	{ "A12 empty, paused", "b", LOCK_NONE, 'E', paused, "A12", QUIET, VERDICT_NONE,
		"running with empty data directory" },
	{ "X5 files silent, down", "b", LOCK_NONE, 'd', files_silent, "X5", QUIET, VERDICT_NONE,
		"waiting" },
	{ "files silent, leader runs on", "a", LOCK_HELD, 'P', files_silent, "E4", QUIET,
		VERDICT_HOLD, "leader with the lock" },
	{ "A13", "b", LOCK_NONE, 'R', bad_sysid, "A13", QUIET, VERDICT_NONE,
		"system ID is invalid" },
	{ "A14", "b", LOCK_NONE, 'R', other_sysid, "A14", HA_EXIT, 0, VERDICT_DROP,
		"system ID mismatch" },
	{ "A14 paused", "a", LOCK_HELD, 'P', other_sysid_paused, "A14", HA_RELEASE, 0, VERDICT_DROP,
		"released leader key" },
	{ "A15 replica", "", LOCK_NONE, 'R', first_join, "A15", HA_EXIT, 0, VERDICT_NONE,
		"aborting start" },
	{ "A15 primary", "", LOCK_NONE, 'P', first_join_alone, "C2", HA_WRITE_INIT, 0, VERDICT_HOLD,
		"acquired" },
	{ "A16 paused with lock", "a", LOCK_HELD, 'D', paused, "A16", HA_RELEASE, 0, VERDICT_DROP,
		"removed leader lock because postgres is not running" },
	{ "N1 paused and down", "b", LOCK_NONE, 'd', restart_paused, "N1", TASK(TASK_RESTART),
		VERDICT_NONE, "restart" },
	{ "N1 paused, pg_rewind first", "b", LOCK_NONE, 'd', restart_paused_rewind, "N1",
		HA_REQUEST_REFUSED, 0, VERDICT_NONE, "pg_rewind is needed first" },
	{ "6.5 paused, restart asked", "b", LOCK_NONE, 'd', restart_paused_may_rewind, "6.5",
		TASK(TASK_REWIND), VERDICT_NONE, "pg_rewind" },
	{ "X2 another's session", "a", LOCK_NONE, 'R', my_name_session_of_b, "X2", QUIET,
		VERDICT_NONE, "waiting for b, whose session" },
	{ "A16 paused", "b", LOCK_NONE, 'd', paused, "A16", QUIET, VERDICT_NONE,
		"postgres is not running" },
	{ "X8 never asked", "b", LOCK_NONE, 'R', sql_never_asked, "X8", QUIET, VERDICT_NONE,
		"waiting" },
	{ "E1", "a", LOCK_HELD, 'R', paused_candidate_me, "E1", QUIET, VERDICT_HOLD,
		"waiting to become primary" },
	{ "E2", "a", LOCK_HELD, 'R', paused, "E2", HA_RELEASE, 0, VERDICT_DROP,
		"removed leader lock" },
	{ "D2 paused, candidate me", "", LOCK_NONE, 'R', paused_candidate_me, "G5", HA_ACQUIRE, 0,
		VERDICT_HOLD, "promoted" },
	{ "F3 parallel primary", "b", LOCK_NONE, 'P', paused, "F3", QUIET, VERDICT_NONE,
		"continue to run as primary without lock" },

	{ "4.2 offline", "a", LOCK_HELD, 'D', demoted_offline, "4.2",
		TASK(TASK_FOLLOW_AFTER_DEMOTION), VERDICT_HOLD, "starting after demotion" },
	{ "4.2 nobody yet", "", LOCK_NONE, 'd', demoted_early, "4.2", QUIET, VERDICT_NONE,
		"waiting for a new leader" },
	{ "4.2 new leader", "b", LOCK_NONE, 'd', demoted_early, "4.2",
		TASK(TASK_FOLLOW_AFTER_DEMOTION), VERDICT_NONE, "starting after demotion" },
	{ "X6 unconfirmed switchover", "a", LOCK_HELD, 'd', demoted_unconfirmed, "X6",
		TASK(TASK_START_PRIMARY), VERDICT_HOLD,
		"no member received the shutdown checkpoint" },

	{ "1.15 leader", "a", LOCK_HELD, 'P', shutdown_asked, "1.15", DEMOTE(DEMOTE_SHUTDOWN),
		VERDICT_HOLD, "stopping PostgreSQL" },
	{ "X72 an agent that ends with a switchover open", "a", LOCK_HELD, 'P', shutdown_switchover,
		"X72", HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "removing the request" },
	{ "X72 ... and the store away", "a", LOCK_HELD, 'P', shutdown_switchover_doubt, "1.15",
		DEMOTE(DEMOTE_SHUTDOWN), VERDICT_HOLD, "stopping PostgreSQL" },
	{ "X72 ... named while it stops", "a", LOCK_HELD, 'P', shutdown_named_later, "1.15",
		HA_CLEAR_FAILOVER, 0, VERDICT_HOLD, "shutting down" },
	{ "1.15 replica", "b", LOCK_NONE, 'R', shutdown_asked, "1.15", DEMOTE(DEMOTE_SHUTDOWN),
		VERDICT_DROP, "stopping PostgreSQL" },
	{ "1.15 stopped", "a", LOCK_HELD, 'D', shutdown_asked, "1.15", HA_RELEASE, 0, VERDICT_DROP,
		"the agent ends" },
	{ "1.15 paused", "a", LOCK_HELD, 'P', shutdown_paused, "1.15", HA_SHUTDOWN_DONE, 0,
		VERDICT_HOLD, "Leader key is not deleted" },
	{ "1.15 busy", "b", LOCK_NONE, 'E', shutdown_task, "1.15", HA_TASK_CANCEL, 0, VERDICT_NONE,
		"in progress" },

	{ "N1", "b", LOCK_NONE, 'R', restart_asked, "N1", TASK(TASK_RESTART), VERDICT_NONE,
		"restart" },
	{ "N1 voter waits", "b", LOCK_NONE, 'R', restart_voter, "N1", QUIET, VERDICT_NONE,
		"Waiting for primary to release us" },
	{ "N3 due", "b", LOCK_NONE, 'R', restart_scheduled_due, "N3", TASK(TASK_RESTART),
		VERDICT_NONE, "restart" },
	{ "N3 unmet", "b", LOCK_NONE, 'R', restart_scheduled_unmet, "E6", HA_DROP_SCHEDULED_RESTART,
		0, VERDICT_NONE, "following" },
	{ "N3 happened", "b", LOCK_NONE, 'R', restart_scheduled_happened, "E6",
		HA_DROP_SCHEDULED_RESTART, 0, VERDICT_NONE, "following" },
	{ "O", "b", LOCK_NONE, 'R', reinit_asked, "O", TASK(TASK_REINIT), VERDICT_NONE,
		"reinitialize" },
	{ "O leader", "a", LOCK_HELD, 'P', reinit_asked, "O", HA_REQUEST_REFUSED, 0, VERDICT_HOLD,
		"I am the leader, can not reinitialize" },
	{ "O unlocked", "", LOCK_NONE, 'R', reinit_asked, "O", HA_REQUEST_REFUSED, 0, VERDICT_NONE,
		"Cluster has no leader, can not reinitialize" },
	{ "O busy", "b", LOCK_NONE, 'R', reinit_busy, "O", HA_REQUEST_REFUSED, 0, VERDICT_NONE,
		"restart already in progress" },
	{ "O force", "b", LOCK_NONE, 'R', reinit_forced, "O", TASK(TASK_REINIT), VERDICT_NONE,
		"reinitialize" },

	{ "S leader", "a", LOCK_HELD, 'R', standby_leader_role, "E4", QUIET, VERDICT_HOLD,
		"no action. I am (a), the standby leader with the lock" },
	{ "S takes the lead", "a", LOCK_HELD, 'R', standby_cluster, "E4", HA_SET_ROLE, 0,
		VERDICT_HOLD, "promoted self to a standby leader because i had the session lock" },
	{ "F5", "a", LOCK_HELD, 'R', remote_moved_on, "6.3", TASK(TASK_REWIND_CHECK), VERDICT_HOLD,
		"checking whether this node diverged from the remote member" },
	{ "F5 once a loop_wait", "a", LOCK_HELD, 'R', remote_checked, "E4", QUIET, VERDICT_HOLD,
		"the standby leader with the lock" },
	{ "S race", "", LOCK_NONE, 'R', standby_race, "C2", HA_ACQUIRE, 0, VERDICT_HOLD,
		"promoted self to a standby leader by acquiring session lock" },
	{ "S replica", "b", LOCK_NONE, 'R', standby_replica, "E6", QUIET, VERDICT_NONE,
		"following a standby leader (b)" },
	{ "S primary with lock", "a", LOCK_HELD, 'P', standby_cluster, "F4", DEMOTE(DEMOTE_CLUSTER),
		VERDICT_HOLD, "cannot be a real primary in standby cluster" },
};

/* clang-format on */
static bool decides(enum ha_action_kind kind)
{
	switch (kind) {
	case HA_ACQUIRE:
	case HA_RELEASE:
	case HA_TASK_START:
	case HA_TASK_CANCEL:
	case HA_STOP_PG:
	case HA_EXIT:
	case HA_TAKE_LEADER:
	case HA_CLEAR_FAILOVER: return true;
	default: return false;
	}
}

static int check_row(const struct row *row)
{
	struct fx *f = fx_new();
	fx_pg(f, row->pg);
	fx_leader(f, row->leader);
	fx_lock(f, row->lock);
	if (row->lock != LOCK_NONE && row->pg == 'P')
		f->m.rewind_state = REWIND_CHECKPOINT;
	row->more(f);
	fx_run(f);
	int bad = strcmp(f->plan.rule, row->rule) != 0 ||
		  strstr(f->plan.reason, row->words) == NULL || f->plan.verdict != row->verdict;
	const struct ha_action *hit = NULL;
	for (unsigned i = 0; i < f->action_count; i++) {
		const struct ha_action *a = &f->actions[i];
		if (row->action < 0)
			bad |= decides(a->kind);
		else if ((int)a->kind == row->action &&
			 (a->kind != HA_TASK_START || row->detail == (int)a->task ||
				 (a->task == TASK_DEMOTE && row->detail == 100 + (int)a->demote)))
			hit = a;
	}
	if (row->action >= 0 && hit == NULL)
		bad = 1;
	if (bad) {
		print_error("row \"%s\": rule %s verdict %d reason \"%s\"\n%s", row->name,
			f->plan.rule, f->plan.verdict, f->plan.reason, f->notes);
		for (unsigned i = 0; i < f->action_count; i++)
			print_error("   action %d task %d demote %d target \"%s\" names %s\n",
				f->actions[i].kind, f->actions[i].task, f->actions[i].demote,
				f->actions[i].target, f->names[i]);
	}
	free(f);
	return bad != 0;
}

static void test_rows(void **state)
{
	(void)state;
	int bad = 0;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		bad += check_row(&rows[i]);
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
