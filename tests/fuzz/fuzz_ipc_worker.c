/* The worker as the receiver of what the supervisor, pgregent-files or api sends (see fuzz_ipc.c):
 * its sockets, the requests under way on them (host.c) and what api asks for (requests.c) are real,
 * what follows from a message in the rest of the worker is not. */
#include <poll.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/invariant.h"
#include "tests/fuzz/fuzz_ipc.h"

#define _exit(code)	 has_exited(code)
#define poll(fds, n, ms) dead_man_ends(fds, n, ms)
static _Noreturn void has_exited(int code);
static int dead_man_ends(struct pollfd *fds, nfds_t n, int timeout_ms);
#include "worker/link.c"
#undef _exit
#undef poll

#include "worker/failsafe_word.h"
#include "worker/postgres/argv.h"

#define SUBMITTED_MAX 64

static struct worker w;
static bool exited;
static int far_end = -1, other_end = -1; /* of the socket under test; of the supervisor beside it */
static struct {
	enum dcs_op_kind kind;
	dcs_done_fn fn;
	void *arg;
} submitted[SUBMITTED_MAX];

static jmp_buf turn_began;

static _Noreturn void has_exited(int code)
{
	(void)code;
	exited = true;
	longjmp(turn_began, 1);
}

/* Whoever waits for nothing but its end sees it. */
static int dead_man_ends(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	INVARIANT(n == 1 && timeout_ms < 0);
	shutdown(fds->fd, SHUT_RDWR);
	return 1;
}

/* ---- the rest of the worker ------------------------------------------------------------ */

uint64_t dcs_submit(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg)
{
	struct dcs_event full = { .kind = op->kind, .outcome = DCS_DENIED, .text = "full" };
	(void)d;
	INVARIANT((op->value == NULL) == (op->kind == DCS_READ));
	for (unsigned i = 0; i < SUBMITTED_MAX; i++) {
		if (submitted[i].fn != NULL)
			continue;
		submitted[i].kind = op->kind;
		submitted[i].fn = fn;
		submitted[i].arg = arg;
		return i + 1;
	}
	fn(&full, arg);
	return 0;
}

static void answer_of_store(unsigned slot, enum dcs_outcome outcome)
{
	struct dcs_event e = { .kind = submitted[slot].kind,
		.outcome = outcome,
		.version = 7,
		/* the view stays as it is: store_take_read is a stub */
		.cluster = submitted[slot].kind == DCS_READ ? w.c : NULL,
		.text = "as the fuzzer wants" };
	dcs_done_fn fn = submitted[slot].fn;
	submitted[slot].fn = NULL;
	if (fn != NULL)
		fn(&e, submitted[slot].arg);
}

bool peers_ask_aside(struct worker *x, const char (*names)[LIMIT_NAME], unsigned count,
	void (*done)(struct worker *, void *), bool (*heard)(struct worker *, void *), void *arg)
{
	if (x->aside.running)
		return false;
	for (unsigned i = 0; i < count; i++)
		INVARIANT(memchr(names[i], '\0', LIMIT_NAME) != NULL);
	x->aside.running = true;
	x->aside.count = count < LIMIT_PEERS ? count : LIMIT_PEERS;
	x->aside.done = done;
	x->aside.heard = heard;
	x->aside.arg = arg;
	return true;
}

static void answer_of_peers(bool good)
{
	if (!w.aside.running)
		return;
	w.aside.running = false;
	for (unsigned i = 0; i < w.aside.count; i++)
		w.aside.peers[i].answered = good;
	w.aside.done(&w, w.aside.arg);
}

enum err_code failsafe_word_read(
	const json_t *body, int64_t ttl_ms, struct failsafe_word *out, struct err *err)
{
	(void)ttl_ms;
	*out = (struct failsafe_word){ .slots = json_object_get(body, "slots") };
	return json_object_size(body) % 2 == 0 ? ERR_OK : err_set(err, ERR_INVAL, 0, "odd");
}

#define STUB(name, ...)                                                                            \
	void name(__VA_ARGS__)                                                                     \
	{                                                                                          \
	}
#pragma clang diagnostic ignored "-Wunused-parameter"
STUB(publish_page, struct worker *x)
STUB(publish_member, struct worker *x)
STUB(publish_take_over, struct worker *x, int fd)
STUB(config_send_api, struct worker *x)
STUB(config_load_cache, struct worker *x)
STUB(config_reload, struct worker *x)
STUB(observe_keep_proving, struct worker *x)
STUB(store_answered, struct worker *x, enum dcs_outcome outcome)
STUB(store_take_read, struct worker *x, struct cluster *c)
STUB(execute_watchdog_state, struct worker *x)
STUB(keeper_event, struct worker *x, const struct keeper_event *ev)
STUB(keeper_ack, struct worker *x, const struct msg_lease_ack *ack)
STUB(probe_ask, struct probe *p)
STUB(slots_said_leader, struct worker *x, const json_t *slots)
STUB(local_upgrade, struct worker *x, uint64_t id)
STUB(local_status, struct worker *x, uint64_t id)
STUB(turn_want, struct worker *x, const char *why)
STUB(last_fence_prepare, const char *data_dir, const char *runtime_dir, int sup_fd)
STUB(last_fence_on_duty, void)
STUB(last_fence_run, last_fence_root_fn root)

bool last_fence_due(void)
{
	return false;
}

bool argv_failed(const struct argv *a)
{
	return a->count == 0;
}

int64_t keeper_lease_until_ms(const struct keeper *k)
{
	return k->lease_until_ms;
}

const char *ha_task_word(enum ha_task task)
{
	return task == TASK_NONE ? "" : "task";
}

/* ---- the worker ------------------------------------------------------------------------ */

static void fill_cluster(void)
{
	static const char *const names[] = { "n1", "n2", "n3" };
	struct cluster *c = cluster_new();
	if (c == NULL || (c->members = calloc(3, sizeof(*c->members))) == NULL)
		abort();
	for (unsigned i = 0; i < 3; i++)
		memcpy(c->members[i].name, names[i], 3);
	c->member_count = 3;
	c->leader_present = c->config_present = c->config_valid = true;
	memcpy(c->leader, "n1", 3);
	c->config_json = strdup("{\"ttl\":30,\"postgresql\":{\"parameters\":{\"a\":1}}}");
	c->config_version = 3;
	w.c = c;
}

void target_start(void)
{
	int sup[2], pair[2];
	struct err err = ERR_INIT;
	memset(&w, 0, sizeof(w));
	memset(submitted, 0, sizeof(submitted));
	exited = false;
	loop_init(&w.loop, NULL, NULL);
	host_init(&w.host, &w.loop);
	w.sup_fd = w.deadman_fd = w.api_fd = -1;
	w.c_fresh = true;
	w.set.ttl_ms = 30000;
	w.set.failsafe_mode = true;
	memcpy(w.welcome.name, "n2", 3);
	fill_cluster();
	if (ipc_pair(sup, &err) != ERR_OK || ipc_pair(pair, &err) != ERR_OK)
		abort();
	w.sup_fd = sup[1];
	w.host.next_id = 1;
	host_set_supervisor(&w.host, w.sup_fd);
	if (loop_fd_set(&w.loop, w.sup_fd, POLLIN, on_supervisor, &w, &err) != ERR_OK)
		abort();
	if (FUZZ_FROM == ROLE_SUPERVISOR) {
		far_end = sup[0];
		host_set_files(&w.host, pair[1]);
		other_end = pair[0];
		return;
	}
	if (FUZZ_FROM == ROLE_FILES)
		host_set_files(&w.host, pair[1]);
	else
		set_fd(&w, &w.api_fd, pair[1], on_api);
	far_end = pair[0];
	other_end = sup[0];
}

void target_turn(void)
{
	struct err err = ERR_INIT;
	if (!exited && setjmp(turn_began) == 0 && loop_turn(&w.loop, 0, &err) != ERR_OK)
		abort();
	fuzz_drain(far_end);
	fuzz_drain(other_end);
	/* The word of files or api ends its own connection, never us. */
	INVARIANT(FUZZ_FROM == ROLE_SUPERVISOR || (!exited && w.sup_fd >= 0));
}

static void on_reply(struct host *h, const struct host_reply *r, void *arg)
{
	(void)h;
	(void)arg;
	/* What a caller does with it: reads the texts to their ends, and the data by its length. */
	static volatile size_t sink;
	size_t sum = r->text != NULL ? strlen(r->text) : 0;
	for (size_t i = 0; i < r->data_len; i++)
		sum += (unsigned char)r->data[i];
	sink = sum;
}

static void start_job(uint8_t what)
{
	struct host_cmd cmd = HOST_CMD_INIT;
	host_cmd_arg(&cmd, "true");
	host_job(&w.host, "initdb", &cmd, NULL, what, 1000, 100, on_reply, NULL);
	host_cmd_done(&cmd);
}

/* Requests of our own, whose answers the sender may invent; answers of store and peers. */
void target_event(uint8_t what)
{
	unsigned free_slots = 0;
	for (unsigned i = 0; i < HOST_REQUESTS_MAX; i++)
		free_slots += w.host.requests[i].id == 0;
	if (exited || free_slots == 0)
		return;
	switch (what % 9) {
	case 0: host_files(&w.host, what, 0, 0, 0, 0, "", 1, 5000, on_reply, NULL); break;
	case 1: start_job(what / 9); break;
	case 2: host_pg_stop(&w.host, PG_STOP_FAST, 1000, on_reply, NULL); break;
	case 3: host_pg_promote(&w.host, INT64_MAX, clock_boot_ms() + 500, on_reply, NULL); break;
	case 4: host_job_adopt(&w.host, "initdb", on_reply, NULL); break;
	case 5: host_job_cancel(&w.host, what / 9); break;
	case 6: answer_of_store(what / 9 % 4, (enum dcs_outcome)(what % 4)); break;
	case 7: answer_of_peers(what & 0x80); break;
	case 8: requests_progress(&w); break;
	default: break;
	}
}

void target_end(void)
{
	for (unsigned i = 0; i < SUBMITTED_MAX; i++)
		answer_of_store(i, DCS_UNKNOWN);
	host_done(&w.host);
	loop_done(&w.loop);
	json_decref(w.failsafe.slots);
	cluster_free(w.c);
	close(far_end);
	close(other_end);
	far_end = other_end = -1;
}

int target_socket(void)
{
	return far_end;
}

enum ipc_role target_role(void)
{
	return ROLE_WORKER;
}
