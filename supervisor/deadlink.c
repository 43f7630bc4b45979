/* The supervisor's side of the dead-man. Supervisor only. */
#include "supervisor/deadlink.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/log.h"
#include "supervisor/spawn.h"
#include "supervisor/sup.h"

#define START_MS       2000
#define BACKOFF_MS     125
#define BACKOFF_MAX_MS 1000
#define RECEIVE_MAX    64

void deadlink_init(struct deadlink *d)
{
	*d = (struct deadlink){ .fd = -1, .old_fd = -1, .next_start_ms = 1 };
}

static void set_state(struct sup *s, enum deadlink_state state)
{
	s->dm.state = state;
	s->dm.since_ms = s->now_ms;
}

/* ---- start and end ---- */

static void start(struct sup *s)
{
	struct deadlink *d = &s->dm;
	char path[LIMIT_PATH];
	struct err err = ERR_INIT;
	int pair[2] = { -1, -1 };
	enum err_code rc =
		launch_program(&s->launch, "deadman", path, sizeof(path)) ? ERR_OK : ERR_LIMIT;
	if (rc == ERR_OK)
		rc = ipc_pair(pair, &err);
	if (rc == ERR_OK) {
		char *argv[] = { path, s->launch.runtime_dir, NULL };
		struct spawn sp = { .path = path,
			.argv = argv,
			.envp = s->launch.env_plain,
			.fds = { -1, 1, 2, pair[1] },
			.fd_count = 4,
			.gate_fd = -1,
			.kind = PRIV_DEADMAN,
			.umask = s->privs.umask };
		rc = spawn_child(&s->privs, &sp, &d->pid, NULL, &err);
		close(pair[1]);
	}
	if (rc != ERR_OK) {
		fd_close(&pair[0]);
		log_error("dead-man not started: %s", err.text);
		d->next_start_ms = s->now_ms + BACKOFF_MAX_MS;
		return;
	}
	d->fd = pair[0];
	d->acked_generation = 0;
	d->up_at_ms = 0;
	set_state(s, DEADLINK_STARTING);
}

static void kill_it(struct sup *s)
{
	struct deadlink *d = &s->dm;
	fd_close(&d->fd);
	if (d->pid != 0)
		kill(d->pid, SIGKILL);
	if (d->state != DEADLINK_DOWN)
		set_state(s, DEADLINK_ENDING);
}

void deadlink_replace(struct sup *s, const char *why)
{
	if (s->end.phase < END_DEADMAN &&
		(s->dm.state == DEADLINK_STARTING || s->dm.state == DEADLINK_UP)) {
		log_error("dead-man replaced pid=%d: %s", s->dm.pid,
			*why != '\0' ? why : "it is gone");
		kill_it(s);
	}
}

bool deadlink_reaped(struct sup *s, pid_t pid, int status)
{
	struct deadlink *d = &s->dm;
	if (d->state == DEADLINK_DOWN || d->pid != pid)
		return false;
	bool was_up = d->state == DEADLINK_UP;
	struct exit_info e = exit_of_status(status);
	if (s->end.phase < END_HELPERS)
		log_warning("dead-man ended pid=%d %s=%d", pid, exit_class_name(e.cls), e.code);
	fd_close(&d->fd);
	d->pid = 0;
	d->restarts++;
	/* By how long it ran, also when we have killed it ourselves. */
	bool calm = d->up_at_ms != 0 && s->now_ms - d->up_at_ms > BACKOFF_MAX_MS;
	d->failures = calm ? 0 : d->failures + 1;
	d->next_start_ms = s->now_ms;
	if (d->failures > 1)
		d->next_start_ms += d->failures < 4 ? BACKOFF_MS << d->failures : BACKOFF_MAX_MS;
	set_state(s, DEADLINK_DOWN);
	if (was_up)
		sup_guard(s, (struct guard_event){ .kind = GUARD_EV_PEER_DEAD });
	return true;
}

void deadlink_end(struct sup *s)
{
	struct deadlink *d = &s->dm;
	struct err err = ERR_INIT;
	int *fds[] = { &d->fd, &d->old_fd };
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
		/* One that cannot be told is killed below, or leaves with the postmaster. */
		if (*fds[i] >= 0 &&
			ipc_send(*fds[i], MSG_DM_END, 0, NULL, NULL, 0, NULL, 0, &err) != ERR_OK)
			log_warning("dead-man: %s", err.text);
	}
	if (d->state != DEADLINK_UP)
		kill_it(s);
}

bool deadlink_gone(struct sup *s)
{
	if (s->dm.state != DEADLINK_DOWN && s->now_ms >= s->end.until_ms)
		kill_it(s);
	return s->dm.state == DEADLINK_DOWN;
}

/* ---- messages to it ---- */

void deadlink_postmaster_changed(struct sup *s)
{
	s->dm.postmaster_due = s->dm.state_due = true;
}

bool deadlink_holds(const struct sup *s, uint64_t generation)
{
	return s->dm.state == DEADLINK_UP && s->dm.acked_generation == generation;
}

static enum err_code send_postmaster(struct sup *s, int fd, struct err *err)
{
	const struct postmaster *pm = &s->pm;
	const int own[DM_FD_COUNT] = { [DM_FD_PIDFD] = pm->pidfd,
		[DM_FD_LIFE] = s->life_dm_fd,
		[DM_FD_LINE_R] = pm->line_r,
		[DM_FD_LINE_W] = pm->line_w };
	struct msg_dm_postmaster m = { 0 };
	int fds[DM_FD_COUNT], count = 0;
	bool live = pm->pid != 0;
	/* Once the process is gone its life file is still needed: for the proof. */
	if (live || s->guard.pm_state == PG_PROC_FENCING) {
		m.generation = pm->generation;
		m.pid = pm->pid;
		for (int i = 0; i < DM_FD_COUNT; i++) {
			if (own[i] < 0)
				continue;
			m.fd_mask |= 1u << i;
			fds[count++] = own[i];
		}
	}
	return ipc_send(fd, MSG_DM_POSTMASTER, 0, &m, NULL, 0, fds, count, err);
}

static enum err_code send_due(struct sup *s, int fd, struct err *err)
{
	struct msg_dm_state st;
	enum err_code rc = ERR_OK;
	if (s->dm.postmaster_due)
		rc = send_postmaster(s, fd, err);
	if (rc != ERR_OK || !s->dm.state_due)
		return rc;
	guard_export(&s->guard, s->now_ms, &st);
	st.postmaster_pid = s->pm.pid;
	st.is_child = s->pm.is_child;
	return ipc_send(fd, MSG_DM_STATE, 0, &st, NULL, 0, NULL, 0, err);
}

/* The one that knows everything: the old one of a hand-over until it was told to leave. A helper
 * that watched the new one too early would take its end, with ours, for the end of all enforcers.
 */
static int enforcer_fd(const struct deadlink *d)
{
	if (d->old_fd >= 0 && !d->old_told)
		return d->old_fd;
	return d->state == DEADLINK_UP ? d->fd : -1;
}

void deadlink_connect_helper(struct sup *s, unsigned helper)
{
	int pair[2], fd = enforcer_fd(&s->dm);
	struct err err = ERR_INIT;
	const struct helper *h = &s->helpers[helper];
	if (fd < 0 || !h->greeted || ipc_pair(pair, &err) != ERR_OK)
		return;
	struct msg_peer to_helper = { .role = ROLE_DEADMAN, .incarnation = s->dm.restarts + 1 };
	struct msg_peer to_dm = { .role = h->role, .incarnation = h->incarnation };
	helper_send(s, helper, MSG_PEER, 0, &to_helper, NULL, 0, &pair[0], 1);
	if (ipc_send(fd, MSG_PEER, 0, &to_dm, NULL, 0, &pair[1], 1, &err) != ERR_OK)
		log_warning("dead-man: %s", err.text);
	close(pair[0]);
	close(pair[1]);
}

void deadlink_log(struct sup *s)
{
	struct err err = ERR_INIT;
	/* Not to the one of before: it may be of a program that does not know this message. */
	if (s->dm.state == DEADLINK_UP && ipc_send(s->dm.fd, MSG_LOG, 0, NULL, NULL, 0, &s->log_fd,
						  s->log_fd >= 0, &err) != ERR_OK)
		log_warning("dead-man: log: %s", err.text);
}

static void connect_helpers(struct sup *s)
{
	for (unsigned i = 0; i < HELPER_COUNT; i++)
		deadlink_connect_helper(s, i);
}

static void forget_old(struct sup *s)
{
	bool in_charge = !s->dm.old_told;
	fd_close(&s->dm.old_fd);
	s->dm.old_pid = 0; /* the fence spares it, and the number may become a backend's */
	if (in_charge)
		connect_helpers(s);
}

static void flush(struct sup *s)
{
	struct deadlink *d = &s->dm;
	struct err err = ERR_INIT;
	if (!d->state_due && !d->postmaster_due)
		return;
	if (d->old_fd >= 0 && !d->old_told && send_due(s, d->old_fd, &err) != ERR_OK)
		forget_old(s);
	if (d->state != DEADLINK_UP)
		return; /* all of it is due when it is up */
	if (send_due(s, d->fd, &err) != ERR_OK) {
		kill_it(s);
		sup_guard(s, (struct guard_event){ .kind = GUARD_EV_PEER_DEAD });
	}
	d->state_due = d->postmaster_due = false;
}

/* ---- messages from it ---- */

static void on_up(struct sup *s)
{
	if (s->dm.state != DEADLINK_STARTING)
		return;
	set_state(s, DEADLINK_UP);
	s->dm.up_at_ms = s->now_ms;
	log_info("dead-man is up pid=%d", s->dm.pid);
	if (s->log_fd >= 0)
		deadlink_log(s);
	deadlink_postmaster_changed(s);
	sup_guard(s, (struct guard_event){ .kind = GUARD_EV_PEER_NEW });
	if (s->dm.old_fd < 0 || s->dm.old_told)
		connect_helpers(s);
}

static void on_ack(struct sup *s, const struct msg_dm_ack *a)
{
	s->dm.acked_generation = a->generation;
	sup_guard(s, (struct guard_event){ .kind = GUARD_EV_PEER_SEEN,
			     .acked_seq = a->seq,
			     .peer_fencing = a->fencing,
			     .peer_at_ms = a->now_ms,
			     .generation = a->generation });
}

bool deadlink_quiet(const struct sup *s)
{
	const struct deadlink *d = &s->dm;
	return d->state == DEADLINK_UP && d->old_fd < 0 && !d->state_due && !d->postmaster_due &&
	       s->guard.pm_state == PG_PROC_RUNNING && d->acked_generation == s->pm.generation &&
	       guard_synced(&s->guard, s->guard.state_seq) && sup_holds_next_ms(s) == INT64_MAX;
}

/* Ours enforces all that we know, and a helper of ours is there to notice its end: the one before
 * may go, and with it the helpers that watch it. */
static void release_old(struct sup *s)
{
	struct err err = ERR_INIT;
	bool watched = false;
	for (unsigned i = 0; i < HELPER_COUNT; i++)
		watched = watched || s->helpers[i].greeted;
	if (!watched || s->dm.old_fd < 0 || s->dm.old_told || s->dm.postmaster_due ||
		!guard_synced(&s->guard, s->guard.state_seq) ||
		(s->pm.pid != 0 && s->dm.acked_generation != s->pm.generation))
		return;
	/* Closed when it leaves: a close now, with its answers unread, would take the order back.
	 */
	s->dm.old_told = true;
	connect_helpers(s);
	if (ipc_send(s->dm.old_fd, MSG_DM_END, 0, NULL, NULL, 0, NULL, 0, &err) != ERR_OK)
		log_warning("dead-man before ours: %s", err.text);
	else
		log_info("hand-over done: our dead-man has taken over");
}

void deadlink_receive(struct sup *s)
{
	struct deadlink *d = &s->dm;
	for (unsigned i = 0; i < RECEIVE_MAX && d->fd >= 0; i++) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(d->fd, ROLE_DEADMAN, ROLE_SUPERVISOR, &s->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK) {
			bool up = d->state == DEADLINK_UP;
			deadlink_replace(s, err.text);
			if (up)
				sup_guard(s, (struct guard_event){ .kind = GUARD_EV_PEER_DEAD });
			return;
		}
		if (m.type == MSG_READY)
			on_up(s);
		else if (m.type == MSG_DM_ACK)
			on_ack(s, m.payload);
		for (int k = 0; k < m.fd_count; k++)
			close(m.fds[k]);
	}
}

void deadlink_receive_old(struct sup *s)
{
	for (unsigned i = 0; i < RECEIVE_MAX && s->dm.old_fd >= 0; i++) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc =
			ipc_recv(s->dm.old_fd, ROLE_DEADMAN, ROLE_SUPERVISOR, &s->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK) {
			forget_old(s);
			return;
		}
		const struct msg_dm_ack *a = m.payload;
		/* Its acknowledgements count for nothing here, its fence does. */
		if (m.type == MSG_DM_ACK && a->fencing != 0)
			sup_guard(s, (struct guard_event){ .kind = GUARD_EV_PEER_SEEN,
					     .peer_fencing = 1,
					     .generation = a->generation });
		for (int k = 0; k < m.fd_count; k++)
			close(m.fds[k]);
	}
}

/* ---- time ---- */

static int64_t start_until_ms(const struct deadlink *d)
{
	return d->since_ms + (START_MS << (d->failures < 3 ? d->failures : 3));
}

void deadlink_tick(struct sup *s, int64_t now_ms)
{
	struct deadlink *d = &s->dm;
	if (s->end.phase >= END_HELPERS)
		return;
	if (d->state == DEADLINK_DOWN && now_ms >= d->next_start_ms)
		start(s);
	else if (d->state == DEADLINK_STARTING && now_ms >= start_until_ms(d))
		deadlink_replace(s, "not ready in time");
	flush(s);
	release_old(s);
}

int64_t deadlink_next_ms(const struct sup *s)
{
	const struct deadlink *d = &s->dm;
	if (s->end.phase >= END_HELPERS)
		return INT64_MAX;
	if (d->state == DEADLINK_DOWN)
		return d->next_start_ms;
	return d->state == DEADLINK_STARTING ? start_until_ms(d) : INT64_MAX;
}
