/* See dm_core.h. Run by pgregent-deadman; must not wait, allocate or write a file. */
#include "supervisor/dm_core.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/lifeline.h"

#define MESSAGES_A_TURN 64

static void let_go(struct dm *d)
{
	for (int i = 0; i < DM_FD_COUNT; i++)
		fd_close(&d->fds[i]);
	d->held_generation = 0;
	d->held_pid = 0;
	d->root_gone = false;
	d->lifeline_state = -1;
}

void dm_init(struct dm *d, int conn_fd, int64_t now_ms)
{
	memset(d, 0, sizeof(*d));
	d->conn_fd = conn_fd;
	for (int i = 0; i < DM_FD_COUNT; i++)
		d->fds[i] = -1;
	for (int i = 0; i < ROLE_COUNT; i++)
		d->peers[i] = -1;
	d->lifeline_state = -1;
	d->wake_at_ms = now_ms;
	fence_init(&d->fence, &d->scratch);
	guard_init(&d->guard, GUARD_DEADMAN, now_ms);
	d->guard.peer_alive = conn_fd >= 0;
}

/* Leaving in order: whoever watches us must not take this for the end of the last enforcer. */
static void say_farewell(const struct dm *d)
{
	struct msg_ping ping = { .sent_at_ms = clock_boot_ms() };
	struct err err = ERR_INIT;
	for (int i = 0; i < ROLE_COUNT; i++)
		/* One that cannot be told is gone, or looks for another supervisor first. */
		if (d->peers[i] >= 0 &&
			ipc_send(d->peers[i], MSG_PING, 0, &ping, NULL, 0, NULL, 0, &err) != ERR_OK)
			log_debug("farewell: %s", err.text);
}

void dm_done(struct dm *d)
{
	if (d->in_order)
		say_farewell(d);
	let_go(d);
	fd_close(&d->conn_fd);
	for (int i = 0; i < ROLE_COUNT; i++)
		fd_close(&d->peers[i]);
}

static void send_ack(struct dm *d)
{
	struct err err = ERR_INIT;
	struct msg_dm_ack ack = {
		.seq = d->has_state ? d->guard.state_seq : 0,
		.generation = d->fds[DM_FD_PIDFD] >= 0 ? d->held_generation : 0,
		.now_ms = clock_boot_ms(),
		.fencing = d->fenced_generation != 0 && d->fenced_generation == d->guard.generation,
	};
	if (d->conn_fd < 0)
		return;
	if (d->before_ack != NULL)
		d->before_ack(d);
	/* A queue that is full belongs to a supervisor that does not read: what it misses, it is
	 * told next time. */
	if (ipc_send(d->conn_fd, MSG_DM_ACK, 0, &ack, NULL, 0, NULL, 0, &err) != ERR_OK &&
		err.code != ERR_AGAIN && err.code != ERR_CLOSED)
		log_warning("%s", err.text);
}

/* ---- the fence ------------------------------------------------------------------------- */

static void start_fence(struct dm *d, const char *reason)
{
	struct killtree_target t = { .root_pidfd = -1, .uid = geteuid(), .gid = getegid() };
	struct stat st;
	if (d->held_generation == d->guard.generation && !d->root_gone &&
		d->fds[DM_FD_PIDFD] >= 0) {
		t.root = d->held_pid;
		t.root_pidfd = d->fds[DM_FD_PIDFD];
	}
	if (d->held_generation == d->guard.generation && d->held_dir[0] != '\0')
		t.data_dir = d->held_dir;
	if (d->fds[DM_FD_LIFE] >= 0 && fstat(d->fds[DM_FD_LIFE], &st) == 0) {
		t.life_dev = st.st_dev;
		t.life_ino = st.st_ino;
	}
	if (t.root == 0 && t.life_ino == 0 && t.data_dir == NULL)
		log_fatal("fence: neither pidfd nor life file of generation=%" PRIu64
			  ", cannot find it",
			d->guard.generation);
	d->fence.spare[0] = d->conn_pid;
	fence_start(
		&d->fence, &t, d->guard.generation, d->fds[DM_FD_LIFE], reason, clock_boot_ms());
}

/* What the fence has reached becomes events, each once. */
static void tell_fence(struct dm *d)
{
	while (d->fence_told < d->fence.phase) {
		struct guard_event ev = { .generation = d->fence.generation };
		if (d->fence.phase >= FENCE_KILLED && d->fence_told < FENCE_KILLED) {
			d->fence_told = FENCE_KILLED;
			ev.kind = GUARD_EV_KILLED;
		} else if (d->fence.phase == FENCE_PROVEN) {
			d->fence_told = FENCE_PROVEN;
			ev.kind = GUARD_EV_PROVEN;
		} else {
			d->fence_told = d->fence.phase;
			continue;
		}
		dm_event(d, &ev);
	}
}

/* ---- events ---------------------------------------------------------------------------- */

static void set_lifeline(struct dm *d, bool armed)
{
	if (d->fds[DM_FD_LINE_R] < 0 || d->held_generation != d->guard.generation ||
		d->lifeline_state == armed)
		return;
	if (lifeline_arm(d->fds[DM_FD_LINE_R], armed) < 0)
		log_error("lifeline cannot be %s: %m", armed ? "armed" : "disarmed");
	else
		d->lifeline_state = armed;
}

/* In order only where we had something to enforce: the end of one that knew nothing yet must not
 * stand for that of the one before it, which may have been killed. */
static void leave(struct dm *d)
{
	d->ended = true;
	d->in_order = d->has_state;
}

static void carry_out(struct dm *d, const struct guard_event *ev, const struct guard_actions *a)
{
	if (a->flags & GUARD_THAWED)
		log_warning("was frozen, or the machine was");
	if (a->flags & GUARD_WALL_JUMP)
		log_warning("the wall clock jumped ahead: the lease is cut short");
	if (a->flags & GUARD_REFUSED)
		log_warning("%s refused: %s", guard_event_name(ev->kind), a->reason);
	set_lifeline(d, a->lifeline_armed);
	if (a->flags & (GUARD_FENCE | GUARD_SWEEP)) {
		/* The supervisor need not be told what it has told us, nor of an ordinary exit. */
		if ((a->flags & GUARD_FENCE) && ev->kind != GUARD_EV_STATE)
			d->fenced_generation = d->guard.generation;
		d->fence_told = FENCE_IDLE;
		start_fence(d, a->flags & GUARD_FENCE ? a->reason : "the postmaster has ended");
		if (d->fenced_generation == d->guard.generation)
			send_ack(d);
	}
	if (a->flags & GUARD_LEAVE)
		leave(d);
	d->wake_at_ms = a->wake_at_ms;
}

static void event_at(struct dm *d, struct guard_event *ev, int64_t now_ms)
{
	ev->wall_offset_ms = clock_wall_offset_ms();
	struct guard_actions a = guard_step(&d->guard, ev, now_ms);
	carry_out(d, ev, &a);
	tell_fence(d);
	if (d->guard.pm_state != PG_PROC_FENCING && d->fence.phase != FENCE_IDLE) {
		fence_done(&d->fence);
		d->fence_told = FENCE_IDLE;
	}
}

void dm_event(struct dm *d, struct guard_event *ev)
{
	event_at(d, ev, clock_boot_ms());
}

void dm_postmaster_gone(struct dm *d)
{
	if (d->root_gone)
		return;
	d->root_gone = true;
	fence_root_gone(&d->fence);
	if (d->held_generation != d->guard.generation || d->guard.pm_state == PG_PROC_NONE)
		return;
	struct guard_event ev = { .kind = GUARD_EV_EXIT, .generation = d->held_generation };
	dm_event(d, &ev);
}

void dm_tick(struct dm *d, int64_t now_ms)
{
	if (now_ms >= d->wake_at_ms) {
		struct guard_event ev = { .kind = GUARD_EV_TICK };
		event_at(d, &ev, now_ms);
	}
	if (d->fence.next_ms != 0 && now_ms >= d->fence.next_ms) {
		fence_step(&d->fence, now_ms);
		tell_fence(d);
	}
}

/* ---- messages -------------------------------------------------------------------------- */

/* A fence that is at work borrows descriptors that have just been replaced. */
static void refit_fence(struct dm *d)
{
	bool same = d->held_generation == d->fence.generation;
	d->fence.life_fd = same ? d->fds[DM_FD_LIFE] : -1;
	d->fence.target.data_dir = same && d->held_dir[0] != '\0' ? d->held_dir : NULL;
	if (same && d->fence.target.root != 0)
		d->fence.target.root_pidfd = d->fds[DM_FD_PIDFD];
	else
		fence_root_gone(&d->fence);
}

/* One without a lifeline is not of our making. Where it works tells later what it has left behind.
 */
static void look_where_it_works(struct dm *d)
{
	char path[40];
	ssize_t n = -1;
	if (d->fds[DM_FD_LINE_R] < 0 &&
		str_format(path, sizeof(path), "/proc/%d/cwd", (int)d->held_pid))
		n = readlink(path, d->held_dir, sizeof(d->held_dir) - 1);
	d->held_dir[n > 0 && n < (ssize_t)sizeof(d->held_dir) - 1 ? n : 0] = '\0';
}

/* Takes the descriptors out of m. False: not as the mask says. */
static bool on_postmaster(struct dm *d, struct ipc_msg *m)
{
	const struct msg_dm_postmaster *p = m->payload;
	uint32_t mask = p->fd_mask & ((1u << DM_FD_COUNT) - 1);
	bool pinned = p->pid > 1 && (mask & (1u << DM_FD_PIDFD)) != 0;
	/* One that has ended, while its proof is not in: there is the life file alone. */
	bool gone = p->pid == 0 && (mask & (1u << DM_FD_PIDFD)) == 0;
	if (mask != p->fd_mask || __builtin_popcount(mask) != m->fd_count || (!pinned && !gone) ||
		(p->generation == 0 && !gone))
		return false;
	bool same = p->generation == d->held_generation;
	let_go(d);
	d->held_generation = p->generation;
	d->held_pid = p->pid;
	d->root_gone = gone;
	int next = 0;
	for (int i = 0; i < DM_FD_COUNT; i++)
		if (mask & (1u << i))
			d->fds[i] = m->fds[next++];
	m->fd_count = 0;
	if (!gone)
		look_where_it_works(d);
	else if (!same)
		d->held_dir[0] = '\0';
	refit_fence(d);
	struct guard_event ev = { .kind = GUARD_EV_PEER_SEEN };
	dm_event(d, &ev); /* sets the lifeline of the new one */
	send_ack(d);
	return true;
}

static void on_state(struct dm *d, const struct msg_dm_state *s)
{
	struct guard_event ev = { .kind = GUARD_EV_STATE, .state = s };
	d->is_child = s->is_child != 0;
	dm_event(d, &ev);
	d->has_state = true;
	send_ack(d);
}

static bool on_peer(struct dm *d, struct ipc_msg *m)
{
	const struct msg_peer *p = m->payload;
	if (m->fd_count != 1 || p->role >= ROLE_COUNT || (RM(p->role) & RM_HELPERS) == 0)
		return false;
	fd_close(&d->peers[p->role]);
	d->peers[p->role] = m->fds[0];
	m->fd_count = 0;
	return true;
}

static void send_inheritance(struct dm *d)
{
	struct err err = ERR_INIT;
	struct msg_dm_state s;
	struct msg_dm_postmaster p = { .generation = d->held_generation, .pid = d->held_pid };
	int fds[DM_FD_COUNT], count = 0;
	guard_export(&d->guard, clock_boot_ms(), &s);
	s.postmaster_pid = d->held_pid;
	s.is_child = d->is_child;
	for (int i = 0; i < DM_FD_COUNT; i++) {
		if (d->fds[i] < 0)
			continue;
		p.fd_mask |= 1u << i;
		fds[count++] = d->fds[i];
	}
	if (ipc_send(d->conn_fd, MSG_DM_STATE, 0, &s, NULL, 0, NULL, 0, &err) != ERR_OK ||
		ipc_send(d->conn_fd, MSG_DM_POSTMASTER, 0, &p, NULL, 0, fds, count, &err) != ERR_OK)
		log_error("hand-over: %s", err.text);
	send_ack(d);
}

static bool on_message(struct dm *d, struct ipc_msg *m)
{
	struct guard_event seen = { .kind = GUARD_EV_PEER_SEEN };
	switch (m->type) {
	case MSG_DM_STATE: on_state(d, m->payload); return true;
	case MSG_DM_POSTMASTER: return on_postmaster(d, m);
	case MSG_PEER: return on_peer(d, m);
	case MSG_LOG: {
		int fd = m->fd_count == 1 ? m->fds[0] : -1;
		m->fd_count = fd >= 0 ? 0 : m->fd_count;
		return log_take(fd);
	}
	case MSG_DM_TAKEOVER: send_inheritance(d); return true;
	case MSG_DM_END:
		log_info("ended by the supervisor");
		leave(d);
		return true;
	case MSG_PING: dm_event(d, &seen); return true;
	default: return false;
	}
}

static bool lost_supervisor(struct dm *d, const char *why)
{
	log_warning("supervisor is gone: %s", why);
	fd_close(&d->conn_fd);
	d->conn_pid = 0; /* the fence spares it, and the number may become a backend's */
	struct guard_event ev = { .kind = GUARD_EV_PEER_DEAD };
	dm_event(d, &ev);
	return false;
}

bool dm_read(struct dm *d)
{
	bool reset = false;
	for (int i = 0; i < MESSAGES_A_TURN && !d->ended; i++) {
		struct err err = ERR_INIT;
		struct ipc_msg m;
		enum err_code rc =
			ipc_recv(d->conn_fd, ROLE_SUPERVISOR, ROLE_DEADMAN, &d->rx, &m, &err);
		if (rc == ERR_AGAIN)
			return true;
		/* A reset is reported ahead of what was sent before it: a state, or the socket of a
		 * helper, which would take our closing it unread for our end. */
		if (rc == ERR_CLOSED && !reset) {
			reset = true;
			continue;
		}
		if (rc != ERR_OK)
			return lost_supervisor(d, err.text);
		bool ok = on_message(d, &m);
		for (int f = 0; f < m.fd_count; f++)
			close(m.fds[f]);
		if (!ok)
			return lost_supervisor(d, "bad message");
	}
	return true;
}

bool dm_take_successor(struct dm *d, int fd, pid_t pid)
{
	if (d->conn_fd >= 0)
		return false;
	d->conn_fd = fd;
	d->conn_pid = pid;
	log_info("a new supervisor is here pid=%d", (int)pid);
	struct guard_event ev = { .kind = GUARD_EV_PEER_NEW };
	dm_event(d, &ev);
	return true;
}
