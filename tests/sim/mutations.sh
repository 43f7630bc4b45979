#!/usr/bin/env bash
# make sim-mutations: breaks one rule at a time in a copy of the tree and asks the simulator whether it notices.
# A row of the table below is: name | file | text | replacement (first occurrence, Perl literal text), the last three
# repeated where two rules stand for the same thing: then each of them is broken, and only both together show.
# "~": nothing that can be modelled shows it; README.md says for each why.
# Prints mutation -> after how many histories it was caught, and by which invariant. Fails when one survives that is
# not marked "~", or when a text is not found any more: a mutation that changes nothing tests nothing.
#
# usage: tests/sim/mutations.sh [HISTORIES [NAME]]
set -u
cd "$(dirname "$0")/../.." || exit 1
max=${1:-150}
only=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$work"
mkdir -p "$work/original" && cp -a --parents worker/ha supervisor "$work/original"
mkdir -p "$work/build" && [ -d build/release ] && cp -a build/release "$work/build/"

table() {
	cat <<'ROWS'
race: nofailover is ignored | worker/ha/race.c | if (s->paused || is_nofailover(s)) | if (s->paused)
race: a peer that says primary does not count | worker/ha/race.c | if (!p->in_recovery) { | if (false) {
race: a peer that is ahead does not count | worker/ha/race.c | if (p->position > my_position(s)) { | if (false) {
race: lag is not looked at | worker/ha/race.c | if (with_lag && lagging(s, my_position(s)) && !took_over(s)) { | if (false) {
race: a non-voter may be elected | worker/ha/race.c | if (s->sync_active && !s->quorum_active && !cluster_sync_matches(s->c, s->v->name)) | if (false)
race: quorum votes are not counted | worker/ha/race.c | if (!s->quorum_active || votes >= s->c->sync_quorum) | if (true)
race: one vote less is enough | worker/ha/race.c | votes >= s->c->sync_quorum | votes + 1 >= s->c->sync_quorum
race: a failsafe promise is forgotten by a restart (X13) | worker/ha/failsafe.c | int64_t until_ms = s->m->started_ms + s->m->ttl_most_ms; | int64_t until_ms = 0;
race: whoever is not in /failsafe may be elected by hand (X16) | worker/ha/race.c | if (failsafe_excludes(s, s->v->name)) { | if (false) {
leader: a late key is promoted on, whatever word was given (X17; X18 comes first) | worker/ha/leader.c | if (failsafe_word_forbids(s)) | if (false) | worker/ha/leader.c | bool decided = s->m->lock_won && !promise_moved(s); | bool decided = !promise_moved(s);
leader: a key that nobody decided on is promoted on (X18) | worker/ha/leader.c | bool decided = s->m->lock_won && !promise_moved(s); | bool decided = !promise_moved(s);
leader: a decision is good for as long as the answer takes (X51) | worker/ha/leader.c | bool decided = s->m->lock_won && !promise_moved(s); | bool decided = s->m->lock_won; (void)promise_moved;
race: answers count under another mode (X52) | worker/ha/race.c | || poll_outdated(s)) | )
bootstrap: a leader that is not promoted yet is cloned (X53) | worker/ha/bootstrap_plan.c | if (leader != NULL && !s->injected && str_eq(leader->role, "replica")) | if (false)
race: a candidate by name needs no votes (X19) | worker/ha/handover.c | return s->quorum_active && s->c->failover_leader[0] != '\0'; | return false;
race: a dead end is waited for (X20) | worker/ha/race.c | if (peer_on_dead_end(s, p)) { | if (false) {
failsafe: the map as it was seen is taken for the map (X21) | worker/ha/failsafe.c | 	name_unmapped(s, a);@@NL@@ | 	(void)name_unmapped;@@NL@@
sync: whoever was ready stays ready (X15, X29) | worker/ha/sync_state.c | if (s->sync == SYNC_QUORUM || partly || !ssn_lists(ssn, m->ready[i])) | if (!ssn_lists(ssn, m->ready[i]))
sync: ready under ANY n is ready in priority mode (X29) | worker/ha/sync_state.c | s->sync == SYNC_QUORUM || partly || | s->sync == SYNC_QUORUM ||
sync: older commits do not count for the votes (X25) | worker/ha/quorum.c | quorum = max(quorum, votes_for_older(w, &voters)); | 
race: a peer that may not lead is waited for (X26) | worker/ha/race.c | if (failsafe_excludes(s, p->name)) | if (false)
handover: a peer that may not lead is waited for (X26, in list and answers; X57 behind it) | worker/ha/handover.c | if (s->unlocked && failsafe_excludes(s, p->name)) | if (false) | worker/ha/handover.c | else if (s->unlocked && race_peer_barred(s, p)) | else if (false) | worker/ha/handover.c | if (s->v->now_ms - m->left_to_ms < turns * s->set->ttl_ms) | if (true)
sync: strict mode waits for /sync (X27; X63 behind it) | worker/ha/sync.c | if (s->set->sync_strict && st.ssn.n == 0) | if (false) | worker/ha/failsafe.c | 	sync_keep_strict(s);@@NL@@ | 	(void)s;@@NL@@
race: /sync is read by the mode of the moment (X28) | worker/ha/step.c | (s->sync == SYNC_QUORUM || v->c->sync_quorum > 0) | s->sync == SYNC_QUORUM
leader: nobody looks for a dead end (X44, before the task and in it) | worker/ha/leader.c | a->lsn = race_timeline_end(s); |  | worker/ha/leader.c | if (race_diverged(s)) | if (false)
leader: a standby on an ended timeline keeps its upstream (X56) | worker/ha/leader.c | if (race_timeline_end(s) == 0)@@NL@@		return false; | if (true)@@NL@@		return false;
failsafe: the mode, not the map, keeps others out (X71) | worker/ha/failsafe.c | return s->set->failsafe_mode || s->failsafe_void == 0 | return s->set->failsafe_mode; return s->failsafe_void == 0
failsafe: a primary stands on a map to be emptied (X71) | worker/ha/failsafe.c | if (asked_to_empty(s) || !m->lock_was_held) | if (!m->lock_was_held)
failsafe: the next worker does not know of a map to be emptied (X74) | worker/ha/failsafe.c | m->failsafe_emptied = emptied_version; | (void)emptied_version;
failsafe: the next worker asks nobody beside the map (X74) | worker/ha/failsafe.c | m->failsafe_sent[i].sent_ms = now_ms;@@NL@@	m->failsafe_sent_count++; | m->failsafe_sent[i].sent_ms = now_ms;
failsafe: nobody empties the map (X71) | worker/ha/failsafe.c | plan_add(s, HA_EMPTY_FAILSAFE)->version = s->c->failsafe_version; | (void)s;
handover: a key given back leaves its switchover (X72) | worker/ha/handover.c | if (!c->failover_present || s->paused || c->failover_candidate[0] | if (s->paused || !s->paused || c->failover_candidate[0]
handover: whoever is named while the leader stops (X72) | worker/ha/handover.c | if (s->v->task != TASK_DEMOTE || !s->has_lock | if (true || !s->has_lock
promote: an order taken late is waited for (X70) | worker/ha/leader.c | return s->v->sql->valid && !s->paused && | return false && !s->paused &&
task: a start waits for whom it has not to follow any more (X77) | worker/ha/task.c | if (!start || !s->starting | if (true || !start || !s->starting
crash: a start that failed is tried again at once (X78) | worker/ha/crash.c | if (rewind_step(s) || start_failed_lately(s)) | if (rewind_step(s) || (false && start_failed_lately(s)))
failsafe: a word counts by the ttl of now (X23) | worker/ha/failsafe.c | v->now_ms - v->failsafe_last_ms < v->failsafe_ttl_ms; | v->now_ms - v->failsafe_last_ms < s->set->ttl_ms;
race: an old primary with an older timeline may lead (D4, and X1 before it) | worker/ha/race.c | if (tli < cluster_timeline(s->c)) { | if (false) { | worker/ha/decide.c | rule_lock_lost, | 
race: proven divergence does not count (S9) | worker/ha/race.c | return end != 0 && my_position(s) > end; | return false;
~ race: unknown counts as acquired | worker/ha/race.c | case HA_OUT_UNKNOWN: | case HA_OUT_UNKNOWN: break;
sync: the promise grows before PostgreSQL keeps it | worker/ha/sync.c | if (!set || st->ssn.quorum) { /* 7 */ | if (false) {
sync: the setting shrinks before the promise | worker/ha/sync.c | if (!qset_equal(&common, &st->voters)) /* 6 | if (false) /* 6
sync: a voter is forgotten in the transition | worker/ha/quorum.c | emit(w, QUORUM_STEP_SYNC, s->numsync, &s->sync); | emit(w, QUORUM_STEP_SYNC, s->numsync > 1 ? s->numsync - 1 : 1, &s->sync);
sync: quorum is written one too low | worker/ha/quorum.c | emit(w, QUORUM_STEP_QUORUM, s->quorum, &s->voters); | emit(w, QUORUM_STEP_QUORUM, s->quorum > 0 ? s->quorum - 1 : 0, &s->voters);
sync: an unanswered write is taken for not done (X12) | worker/ha/sync.c | if (s->m->sync_unknown && st.leader == st.me) | if (false)
sync: strict mode lets commits through alone | worker/ha/sync.c | if (strict_step(s, st)) /* 4 */ | if (false)
sync: the new leader promises nothing before it writes | worker/ha/sync.c | n = n < least ? least : n; | n = 0; (void)least;
keeper: the lease counts from the answer | worker/ha/keeper_rules.c | k->lease_until_ms = ev->sent_at_ms + ttl; | k->lease_until_ms = now_ms + ttl + 2000;
keeper: unknown counts as renewed | worker/ha/keeper_rules.c | if (k->open)@@NL@@		k->open--;@@NL@@ | 	struct keeper_event yes = *ev;@@NL@@	yes.outcome = yes.outcome == HA_OUT_UNKNOWN ? HA_OUT_OK : yes.outcome;@@NL@@	ev = &yes;@@NL@@
keeper: a conflict is not a loss | worker/ha/keeper_rules.c | lose(k, plan, now_ms);@@NL@@		break;@@NL@@	case HA_OUT_DENIED: | 		break;@@NL@@	case HA_OUT_DENIED:
~ keeper: the release leaves before lease 0 is acknowledged | worker/ha/keeper_rules.c | k->phase = KEEPER_ZEROING; | k->phase = KEEPER_RELEASING; send_op(k, plan, KEEPER_OP_RELEASE, false, ev->deadline_ms);
~ keeper: a given-up key is renewed again | worker/ha/keeper_rules.c | k->given_up_version = open_end ? k->key_version : 0; | k->given_up_version = 0; (void)open_end;
keeper: a stale verdict serves for ever | worker/ha/keeper_state.c | return k->verdict == VERDICT_HOLD && | return k->verdict == VERDICT_HOLD \|\|
keeper: a shorter ttl does not cut the lease | worker/ha/keeper_rules.c | if (k->lease_until_ms > now_ms + ttl_ms) { | if (false) {
keeper: no adoption, the predecessor's lease counts | worker/ha/keeper_rules.c | k->phase == KEEPER_ADOPTING ? KEEPER_OP_ADOPT : KEEPER_OP_RENEW | KEEPER_OP_RENEW
guard: the supervisor never fences for the lease | supervisor/guard.c | if (is_live(g) && now_ms >= permitted_until(g)) | if (false && is_live(g) && now_ms >= permitted_until(g))
guard: the fence comes a ttl late | supervisor/guard.c | int64_t margin = guard_margin_ms(ttl_of(g)); | int64_t margin = -ttl_of(g);
~ rules: a lost lock is not acted on | worker/ha/decide.c | rule_lock_lost, | 
rules: the store may be away for ever | worker/ha/decide.c | rule_store_failing, | 
rules: a primary without the lock goes on | worker/ha/replica.c | return follow_demote(s, why); /* F4 */ | (void)follow_demote;
rules: nothing starts PostgreSQL after a crash | worker/ha/decide.c | rule_not_running, | 
race: check_timeline is ignored | worker/ha/race.c | if (s->standby || !s->set->check_timeline) | if (true)
race: /history is not read (S9, X44) | worker/ha/race.c | if (s->standby || tli == 0 || tli >= cluster_timeline(s->c)) | if (true)
race: a PostgreSQL that does not answer may lead (X55) | worker/ha/race.c | if (!s->v->sql->valid) { | if (false) {
race: no pause after a pre_promote that failed (D1) | worker/ha/race.c | if (s->m->released_ms != 0 && s->v->now_ms - s->m->released_ms < s->set->ttl_ms) { | if (false) {
race: failover_priority is ignored | worker/ha/race.c | bool lower = p->position == my_position(s) && mine < p->failover_priority; | bool lower = false;
race: a paused cluster elects (D5) | worker/ha/race.c | if (s->paused || is_nofailover(s)) | if (is_nofailover(s))
race: a non-voter may take over by request (D7; X69 behind it) | worker/ha/race.c | if (s->c->failover_leader[0] != '\0' && s->sync_active && | if (false && | worker/ha/handover.c | nobody asked D7 whether I have what was acknowledged (S15). */@@NL@@		if (s->c->failover_leader[0] | */@@NL@@		if (false && s->c->failover_leader[0]
handover: the key goes without the last record (S15) | worker/ha/handover.c | a->flag = s->c->failover_leader[0] == '\0' || s->standby; | a->flag = true;
handover: maximum_lag is ignored | worker/ha/handover.c | if (s->c->last_lsn > p->position && | if (false &&
handover: nofailover is ignored (in list and answers) | worker/ha/handover.c | p->tags.nofailover || p->api_url[0] == '\0') | p->api_url[0] == '\0') | worker/ha/handover.c | else if (p->nofailover) | else if (false)
handover: one vote is enough to hand over | worker/ha/handover.c | return s->quorum_active && !named ? (unsigned)s->c->sync_quorum + 1 : 1; | return 1; (void)named;
~ handover: a candidate outside of /sync is waited for (V5) | worker/ha/handover.c | if (target == NULL || target->api_url[0] == '\0' || barred) | if (target == NULL || target->api_url[0] == '\0')
handover: a candidate that is behind is waited for (X57 behind it) | worker/ha/handover.c | bool behind = p != NULL && | bool behind = false && p != NULL && | worker/ha/handover.c | if (s->v->now_ms - m->left_to_ms < turns * s->set->ttl_ms) | if (true)
handover: a request that cannot be carried out stays | worker/ha/handover.c | plan_note(s, HA_LOG_INFO, "Cleaning up failover key");@@NL@@	plan_add(s, HA_CLEAR_FAILOVER)->version = s->c->failover_version; | (void)s;
leader: the no of pre_promote is not heard (G2) | worker/ha/leader.c | if (!s->paused && !s->primary && s->m->promote_result == TASK_RESULT_FALSE) { | if (false) {
leader: /history is not written (4.5) | worker/ha/leader.c | if (write)@@NL@@		plan_add(s, HA_WRITE_HISTORY); | (void)write;
leader: /sync is not written before the promotion (5.6) | worker/ha/leader.c | return sync_prepromote(s) || promote_now(s); | return promote_now(s);
~ rules: a failed start keeps the key (A11) | worker/ha/decide.c | if (failed) { | if (false) {
rules: the cluster's system id is not compared (A14) | worker/ha/decide.c | if (str_eq(s->c->init, s->v->system_id))@@NL@@			return false; | if (true)@@NL@@			return false;
~ rules: an interrupted bootstrap is not seen (X40) | worker/ha/decide.c | rule_interrupted, | 
~ rules: an earlier worker's job is not seen (X41) | worker/ha/decide.c | rule_orphan_job, | 
rules: an interrupted pg_rewind is not seen (X42) | worker/ha/interrupted.c | if (!f->valid || f->mark != PG_MARK_REWIND || s->m->rewind_state == REWIND_SUCCESS) | if (true)
rules: a task does not keep the other rules away (H) | worker/ha/decide.c | rule_task_running, | 
~ rules: a won key stays won after it was lost (X18) | worker/ha/decide.c | if (s->v->lock == LOCK_NONE || s->v->lock == LOCK_LOST)@@NL@@		m->lock_won = false; | if (false)@@NL@@		m->lock_won = false;
replica: nobody rewinds (F6) | worker/ha/replica.c | if (rewind_step(s))	   /* F6 */@@NL@@		return true; |  
crash: a handover that nobody confirmed goes on (X6; X72 behind it) | worker/ha/crash.c | if (mode == DEMOTE_GRACEFUL && s->has_lock && lock_usable(s) && | if (false && | worker/ha/handover.c | if (!c->failover_present || s->paused || c->failover_candidate[0] | if (s->paused || !s->paused || c->failover_candidate[0]
~ crash: the key of one that stepped down stays (X7) | worker/ha/crash.c | if (releases && s->has_lock) { | if (false) {
~ crash: nobody looks whether it diverged (B7) | worker/ha/crash.c | if (check_wanted(s))@@NL@@			rewind_trigger(s); | (void)check_wanted;
pause: what is down is started (A16) | worker/ha/decide.c | if (s->paused && pause_not_running(s))@@NL@@		return true; | (void)pause_not_running;
~ pause: a primary without the key is stopped (F3) | worker/ha/pause.c | if (s->primary) {@@NL@@		plan_set_role(s, PG_ROLE_PRIMARY);@@NL@@		*out | if (false) {@@NL@@		plan_set_role(s, PG_ROLE_PRIMARY);@@NL@@		*out
sync: node_count is off by one | worker/ha/sync_state.c | if ((priority || c->member->tags.nofailover) && taken >= st->max_n) | if ((priority || c->member->tags.nofailover) && taken > st->max_n)
sync: one that caught up later counts as ready | worker/ha/sync_state.c | bool ready = c->lsn >= m->primary_flush_lsn; | bool ready = true;
sync: a potential standby counts as confirmed | worker/ha/sync_state.c | (!priority || str_eq(c->sender->sync_state, "sync"))) | true)
~ sync: the votes of quorum mode stay for ever (X28) | worker/ha/sync.c | else if (st->key_quorum > 0) | else if (false)
~ sync: a conflict settles an unanswered write | worker/ha/sync.c | m->sync_unknown = s->r->outcome != HA_OUT_OK; | m->sync_unknown = s->r->outcome == HA_OUT_UNKNOWN;
sync: strict promotion lets commits through alone (X27 and X63 behind it) | worker/ha/sync.c | int least = s->set->sync_strict || most > 0 ? 1 : 0; | int least = 0; | worker/ha/sync.c | if (s->set->sync_strict && st.ssn.n == 0) | if (false) | worker/ha/sync.c | if (s->sync == SYNC_OFF || !s->set->sync_strict || !s->v->sql->valid || | if (s->sync == SYNC_OFF || s->set || !s->v->sql->valid ||
keeper: failsafe lasts from the answer | worker/ha/keeper_rules.c | k->failsafe_until_ms = ev->at_ms + k->ttl_ms; | k->failsafe_until_ms = now_ms + k->ttl_ms + k->ttl_ms / 3;
keeper: a key that vanished is given up at once | worker/ha/keeper_rules.c | if (!lasts || keeper_in_failsafe(k) | if (true || !lasts || keeper_in_failsafe(k)
keeper: it sleeps through a renewal | worker/ha/keeper_state.c | return min64(k->ttl_ms / 3, k->loop_wait_ms); | return k->ttl_ms;
failsafe: a refusal counts as consent | worker/ha/failsafe.c | if (s->r->failsafe_ok) | if (true)
~ failsafe: one that is not in the map holds on | worker/ha/failsafe.c | !map_there(s) || !in_map(s, s->v->name)) | !map_there(s))
failsafe: whoever is not in the map may lead (D9) | worker/ha/failsafe.c | !in_map(s, name);@@NL@@}@@NL@@@@NL@@/* X13 | false;@@NL@@}@@NL@@@@NL@@/* X13
~ failsafe: the store is not asked (X54) | worker/ha/failsafe.c | if (s->v->store != STORE_FAILING || | if (true ||
~ task: a promotion goes on without the key (H3) | worker/ha/task.c | if (task == TASK_PROMOTE && !s->v->task_promote_committed) { | if (false) {
~ task: a primary goes on in a task without the key (H4) | worker/ha/task.c | if (!writes)@@NL@@		return false; | if (true)@@NL@@		return false;
~ task: a pg_rewind is cut short when the key is lost | worker/ha/task.c | if (!s->pg_there && (task == TASK_REWIND | if (false && (task == TASK_REWIND
~ requests: the agent ends and leaves the key | worker/ha/requests.c | if (s->has_lock)@@NL@@		plan_add(s, HA_RELEASE);@@NL@@	return shutdown_done | if (false)@@NL@@		plan_add(s, HA_RELEASE);@@NL@@	return shutdown_done
bootstrap: a failed one leaves /initialize | worker/ha/bootstrap_plan.c | plan_add(s, HA_CANCEL_INIT); | plan_add(s, HA_REREAD);
step: a promise by a quorum is read as one by each | worker/ha/step.c | s->quorum_active = s->sync_active && | s->quorum_active = false && s->sync_active &&
race: a broken watchdog does not matter (D8, and G1 behind it) | worker/ha/race.c | if (s->v->watchdog_failed && | if (false && | worker/ha/leader.c | if (s->r->outcome != HA_OUT_OK)@@NL@@		return no_watchdog(s); | (void)no_watchdog;
bootstrap: a published cluster is taken for a failed one (X45, twice) | worker/ha/bootstrap_plan.c | if (s->m->publish_tried) | if (false) | worker/ha/bootstrap_plan.c | ||@@NL@@		       cluster_init_valid(s->c); | ;
~ bootstrap: members do not wait while it is not published (X46) | worker/ha/bootstrap_plan.c | bool unpublished = c->init_present && c->init[0] == '\0'; | bool unpublished = false;
~ bootstrap: initialize is put over whatever is there (X49) | worker/ha/bootstrap_plan.c | a->version = s->c->init_present ? s->c->init_version : 0; | a->version = 0;
~ bootstrap: a primary in use is taken for an unfinished one (X61) | worker/ha/interrupted.c | return bootstrap_open(s) && (!f->valid || marked(f) || !s->primary); | return bootstrap_open(s);
bootstrap: a voter is made from an old backup (X62) | worker/ha/bootstrap_plan.c | if (s->sync_active && cluster_sync_matches(c, s->v->name)) | if (false)
bootstrap: one that had to stop is waited for (X30) | worker/ha/task.c | if (m->bootstrapping)@@NL@@			m->promote_result = TASK_RESULT_FALSE; | 
~ leader: a promotion that was refused is not asked for a lease first (X67) | worker/ha/task.c | if (m->promote_refused_ms != 0 && s->has_lock) | if (false)
~ leader: a refused promotion is tried at once (X47) | worker/ha/leader.c | if (s->m->promote_refused_ms != 0 && s->v->now_ms < again_ms) { | if (false) {
race: a vote from a later timeline counts (X68) | worker/ha/race.c | if (s->quorum_active && p->timeline > my_timeline(s)) { | if (false) {
~ handover: it begins before the leader is promoted (X11) | worker/ha/handover.c | if (!s->primary && !s->starting && !s->standby)@@NL@@		return false;@@NL@@	if (c->failover_scheduled | if (c->failover_scheduled
~ handover: nobody looks whether a candidate streams (X50) | worker/ha/handover.c | static bool nobody_streams(const struct step *s)@@NL@@{ | static bool nobody_streams(const struct step *s)@@NL@@{@@NL@@	if (s)@@NL@@		return false;
~ handover: who led when it was asked for takes it for granted (X58) | worker/ha/handover.c | (!s->quorum_active || str_eq(s->c->sync_leader, s->v->name)); | (!s->quorum_active || true);
~ handover: the voters are not asked first (X59) | worker/ha/handover.c | return !s->unlocked && c->failover_present && c->failover_candidate[0] | return false && !s->unlocked && c->failover_present && c->failover_candidate[0]
handover: in pause a candidate need not be in /sync (X69) | worker/ha/handover.c | nobody asked D7 whether I have what was acknowledged (S15). */@@NL@@		if (s->c->failover_leader[0] | */@@NL@@		if (false && s->c->failover_leader[0]
failsafe: strict mode waits for the store (X63) | worker/ha/failsafe.c | 	sync_keep_strict(s);@@NL@@ | 	(void)s;@@NL@@
sync: strict mode waits for an answered renewal (X63) | worker/ha/sync.c | 		sync_keep_strict(s);@@NL@@		return false; | 		return false;
~ crash: the same number is the same timeline (X43) | worker/ha/crash.c | bool twin = s->m->rewind_twin && s->m->rewind_state == REWIND_CHECK; | bool twin = false;
~ crash: a copy of a leader that is not promoted is begun (X65) | worker/ha/crash.c | if (failed || !source_is_primary(s)) | if (false)
~ keeper: an adopted key is kept instead of released (X48) | worker/ha/keeper_rules.c | if (k->phase == KEEPER_ADOPTING && k->key_version == 0)@@NL@@			k->key_version = k->adopt_version; | 
ROWS
}

trim() {
	local v=$1
	v=${v#"${v%%[![:blank:]]*}"}
	printf '%s' "${v%"${v##*[![:blank:]]}"}"
}

apply() { # file from to
	FROM=${2//@@NL@@/$'\n'} TO=${3//@@NL@@/$'\n'} perl -0777 -i -pe '
		BEGIN { $f = $ENV{FROM}; $t = $ENV{TO}; $t =~ s/\\\|/|/g; }
		my $i = index($_, $f);
		if ($i >= 0) { substr($_, $i, length $f) = $t; $done = 1; }
		END { exit($done ? 0 : 3); }' "$1"
}

restore() { # a new time stamp: it is compiled again
	local f
	for f in "${changed[@]}"; do cp "$work/original/$f" "$work/$f"; done
}

total=0 caught=0 bad=0
while IFS= read -r row; do
	# " | " separates; a text may hold "||".
	IFS=$'\x1f' read -r -a part < <(printf '%s\n' "${row// | /$'\x1f'}")
	name=$(trim "${part[0]}")
	[ -n "$only" ] && [[ $name != *"$only"* ]] && continue
	total=$((total + 1))
	changed=() missing=
	for ((i = 1; i < ${#part[@]}; i += 3)); do
		file=$(trim "${part[i]}")
		changed+=("$file")
		(cd "$work" && apply "$file" "${part[i + 1]}" "${part[i + 2]:-}") || missing=$file
	done
	if [ -n "$missing" ]; then
		printf '%-58s TEXT NOT FOUND in %s\n' "$name" "$missing"
		bad=$((bad + 1))
		restore
		continue
	fi
	if ! make -C "$work" --no-print-directory -s SAN=0 WARN=-w sim-bin >"$work/log" 2>&1; then
		printf '%-58s DOES NOT COMPILE\n' "$name"
		bad=$((bad + 1))
	else
		result=$(cd "$work" && timeout 900 build/release/tests/sim/sim --until-caught "$max" 2>&1 | tail -1)
		[ -n "$result" ] || result="TIMED OUT, OR CRASHED"
		case $result in
		caught* | *INVARIANT* | *invariant*) caught=$((caught + 1)) ;;
		*) [[ $name == "~"* ]] || bad=$((bad + 1)) ;;
		esac
		printf '%-58s %s\n' "$name" "${result:0:110}"
	fi
	restore
done < <(table)
echo "mutations: $caught of $total caught"
[ "$bad" -eq 0 ]
