/* Nodes and their processes: clocks, power, death, stop and continue. What waits for a stopped
 * process is kept in order; timers come after the messages that were waiting, as they do in a real
 * one. */
#include "tests/sim/sim_node.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

int64_t node_clock(const struct sim *s, int node)
{
	const struct sim_node *n = &s->nodes[node];
	return n->clock_offset_ms + s->now_ms + s->now_ms * n->clock_ppm / 1000000;
}

int64_t node_when(const struct sim *s, int node, int64_t local_ms)
{
	const struct sim_node *n = &s->nodes[node];
	if (local_ms > INT64_MAX / 2)
		return INT64_MAX / 2;
	int64_t ran = local_ms - n->clock_offset_ms;
	int64_t at = ran - ran * n->clock_ppm / (1000000 + n->clock_ppm) + 1;
	return at > s->now_ms ? at : s->now_ms;
}

void node_init(struct sim *s, int node)
{
	struct sim_node *n = &s->nodes[node];
	n->index = node;
	n->exit_class = EXIT_CLASS_NONE;
	n->tags = (struct tags){ .failover_priority = 1, .sync_priority = 1 };
	n->failsafe_round_ms = -1;
}

static void process_up(struct sim_process *p)
{
	p->alive = true;
	p->frozen = false;
	p->incarnation++;
	p->kept_count = 0;
}

static void process_down(struct sim_process *p)
{
	p->alive = p->frozen = false;
	p->kept_count = 0;
}

static void start_proc(struct sim *s, int node, enum sim_proc proc)
{
	struct sim_node *n = &s->nodes[node];
	if (!n->on || n->procs[proc].alive)
		return;
	if (proc != PROC_SUP && !n->procs[PROC_SUP].alive)
		return;
	process_up(&n->procs[proc]);
	sim_log(s, node, "process %d starts", proc);
	if (n->patroni) { /* one process: what answers others lives and dies with the loop */
		if (!n->procs[PROC_WORKER].alive)
			process_up(&n->procs[PROC_WORKER]);
		process_up(&n->procs[PROC_API]);
		patroni_start(s, node);
	} else if (proc == PROC_SUP)
		sup_start(s, node);
	else if (proc == PROC_DM)
		dm_start(s, node);
	else if (proc == PROC_WORKER)
		worker_start(s, node);
}

void node_power(struct sim *s, int node, bool on)
{
	struct sim_node *n = &s->nodes[node];
	if (n->on == on)
		return;
	sim_log(s, node, "node %s", on ? "on" : "off");
	if (!on) {
		pg_kill(s, node, EXIT_CLASS_UNKNOWN, "power off");
		for (int p = 1; p < PROC_COUNT; p++)
			process_down(&n->procs[p]);
		marks_node_off(s, node);
		memset(&n->sup, 0, sizeof(n->sup));
		memset(&n->dm, 0, sizeof(n->dm));
		n->vm_paused = false;
		n->on = false;
		return;
	}
	n->on = true;
	n->heir.there = false;
	n->exit_class = EXIT_CLASS_NONE;
	start_proc(s, node, PROC_SUP);
}

/* The order in which a thawed process finds things: messages first, then the clock. */
static void release_kept(struct sim *s, struct sim_process *p)
{
	unsigned count = p->kept_count;
	p->kept_count = 0;
	for (int timers = 0; timers < 2; timers++)
		for (unsigned i = 0; i < count; i++) {
			struct sim_event ev = p->kept[i];
			bool timer = ev.kind == EV_GUARD_TICK || ev.kind == EV_KEEPER ||
				     ev.kind == EV_TURN;
			if (timer != (timers == 1))
				continue;
			ev.at_ms = s->now_ms;
			heap_push(&s->heap, ev);
		}
}

void node_vm_pause(struct sim *s, int node, bool on)
{
	struct sim_node *n = &s->nodes[node];
	if (!n->on || n->vm_paused == on)
		return;
	sim_log(s, node, "node %s", on ? "suspended" : "resumed");
	n->vm_paused = on;
	if (!on)
		n->resumed_ms = s->now_ms;
	for (int p = 1; p < PROC_COUNT && !on; p++)
		if (n->procs[p].alive && !n->procs[p].frozen)
			release_kept(s, &n->procs[p]);
}

static void restart_later(struct sim *s, int node, enum sim_proc proc, int64_t in_ms)
{
	sim_at(s, s->now_ms + in_ms, EV_PROC_START, node, proc, 0, NULL);
}

void node_kill(struct sim *s, int node, enum sim_proc proc)
{
	struct sim_node *n = &s->nodes[node];
	if (!n->procs[proc].alive)
		return;
	sim_log(s, node, "process %d killed", proc);
	process_down(&n->procs[proc]);
	if (n->patroni) {
		process_down(&n->procs[PROC_WORKER]);
		process_down(&n->procs[PROC_API]);
		restart_later(s, node, PROC_WORKER, sim_range(&s->rng, 500, 8000));
		return;
	}
	if (proc == PROC_SUP || proc == PROC_DM) {
		enforcers_peer_gone(s, node, proc);
		if (proc == PROC_SUP) {
			n->heir.there = false; /* it held the page */
			process_down(&n->procs[PROC_WORKER]);
			process_down(&n->procs[PROC_API]);
			restart_later(s, node, PROC_SUP, sim_range(&s->rng, 100, 8000));
		}
		return;
	}
	if (n->procs[PROC_SUP].alive)
		restart_later(s, node, proc, sim_range(&s->rng, 30, 300));
}

static int64_t silence_ms(const struct sim *s, int node)
{
	const struct settings *set = worker_settings(s, node);
	return (set ? set->ttl_ms : 30000) / 6;
}

void node_freeze(struct sim *s, int node, enum sim_proc proc, bool on)
{
	struct sim_node *n = &s->nodes[node];
	struct sim_process *p = &n->procs[proc];
	if (!p->alive || p->frozen == on)
		return;
	sim_log(s, node, "process %d %s", proc, on ? "stopped" : "continued");
	p->frozen = on;
	if (!on && !n->vm_paused)
		release_kept(s, p);
	if (n->patroni) { /* nobody notices */
		if (proc == PROC_WORKER)
			node_freeze(s, node, PROC_API, on);
		return;
	}
	if (on && (proc == PROC_WORKER || proc == PROC_API))
		sim_at(s, s->now_ms + silence_ms(s, node), EV_PROC_SILENT, node, proc,
			p->incarnation, NULL);
	if (proc == PROC_SUP && n->procs[PROC_WORKER].alive) {
		struct sim_message *m = arena_take(&s->arena, ARENA_MESSAGE, sizeof(*m));
		m->kind = SM_SILENT;
		m->ok = !on;
		sim_at_proc(s,
			s->now_ms + (on ? 3 * guard_peer_interval_ms(silence_ms(s, node) * 6) : 1),
			EV_WORKER_MSG, node, PROC_WORKER, p->incarnation, 0, m);
	}
}

static void silent(struct sim *s, const struct sim_event *ev)
{
	struct sim_node *n = &s->nodes[ev->node];
	struct sim_process *p = &n->procs[ev->a];
	if (!n->on || !p->alive || !p->frozen || p->incarnation != (uint32_t)ev->b)
		return;
	if (n->vm_paused || n->procs[PROC_SUP].frozen || !n->procs[PROC_SUP].alive) {
		sim_at(s, s->now_ms + 500, EV_PROC_SILENT, ev->node, ev->a, ev->b, NULL);
		return;
	}
	node_kill(s, ev->node, (enum sim_proc)ev->a);
}

/* False: not now, or never. */
bool node_deliverable(struct sim *s, struct sim_event *ev)
{
	struct sim_node *n = &s->nodes[ev->node];
	struct sim_process *p = &n->procs[ev->proc];
	if (!n->on || !p->alive || p->incarnation != ev->incarnation)
		return false;
	if (!p->frozen && !n->vm_paused)
		return true;
	if (p->kept_count == p->kept_capacity) {
		p->kept_capacity = p->kept_capacity ? p->kept_capacity * 2 : 64;
		p->kept = realloc(p->kept, p->kept_capacity * sizeof(*p->kept));
		INVARIANT(p->kept != NULL);
	}
	p->kept[p->kept_count++] = *ev;
	return false;
}

void node_event(struct sim *s, struct sim_event *ev)
{
	struct sim_node *n = &s->nodes[ev->node];
	if (ev->kind >= EV_PG_PHASE && ev->kind <= EV_PG_TICK) {
		if (n->on)
			pg_event(s, ev);
		return;
	}
	if (ev->kind == EV_PROC_START) {
		if (n->on && ev->a == PROC_WORKER && s->now_ms < n->given_up_ms)
			sim_at(s, n->given_up_ms, EV_PROC_START, ev->node, ev->a, 0, NULL);
		else if (n->on &&
			 (n->vm_paused || (ev->a != PROC_SUP && n->procs[PROC_SUP].frozen)))
			sim_at(s, s->now_ms + 200, EV_PROC_START, ev->node, ev->a, 0, NULL);
		else
			start_proc(s, ev->node, (enum sim_proc)ev->a);
		return;
	}
	if (ev->kind == EV_PROC_SILENT) {
		silent(s, ev);
		return;
	}
	if (!node_deliverable(s, ev))
		return;
	if (ev->proc == PROC_SUP)
		sup_event(s, ev);
	else if (ev->proc == PROC_DM)
		dm_event(s, ev);
	else if (ev->proc == PROC_WORKER)
		worker_event(s, ev);
	else
		peer_event(s, ev);
}
