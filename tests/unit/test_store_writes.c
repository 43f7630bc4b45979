/* Writes of the worker that must not pile up while the store is slow: the member key, /failover. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/loop.h"
#include "worker/worker.h"

#define SENT_MAX 12

/* A store that answers when the test says so. */
struct fake {
	struct dcs_base base;
	struct {
		enum dcs_op_kind kind;
		char value[200];
		int64_t version;
		dcs_done_fn fn;
		void *arg;
	} sent[SENT_MAX];
	unsigned count;
};

static uint64_t fake_submit(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg)
{
	struct fake *f = (struct fake *)d;
	assert_true(f->count < SENT_MAX);
	f->sent[f->count].kind = op->kind;
	f->sent[f->count].version = op->version;
	snprintf(f->sent[f->count].value, sizeof(f->sent[0].value), "%s", op->value);
	f->sent[f->count].fn = fn;
	f->sent[f->count].arg = arg;
	return ++f->count;
}

static const char *fake_session(struct dcs *d)
{
	(void)d;
	return "s1";
}

static const struct dcs_ops fake_ops = {
	.name = "fake", .submit = fake_submit, .session = fake_session
};

static void answer(struct fake *f, unsigned i, enum dcs_outcome outcome)
{
	struct dcs_event e = { .id = i + 1, .kind = f->sent[i].kind, .outcome = outcome };
	f->sent[i].fn(&e, f->sent[i].arg);
}

static struct worker *worker_new(struct fake *f)
{
	struct worker *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	*f = (struct fake){ .base = { .ops = &fake_ops } };
	w->dcs = (struct dcs *)f;
	w->set.loop_wait_ms = w->set.retry_timeout_ms = 10000;
	loop_init(&w->loop, NULL, NULL);
	return w;
}

static void worker_drop(struct worker *w)
{
	loop_done(&w->loop);
	free(w);
}

static void test_failover_is_written_once(void **state)
{
	(void)state;
	struct fake f;
	struct worker *w = worker_new(&f);
	for (int i = 0; i < 5; i++)
		store_failover(w, "{}", 7);
	assert_int_equal(f.count, 1);
	assert_int_equal(f.sent[0].version, 7);
	/* Nobody knows: not before loop_wait is over, unless the key is another one. */
	answer(&f, 0, DCS_UNKNOWN);
	store_failover(w, "{}", 7);
	assert_int_equal(f.count, 1);
	w->failover_unknown_ms -= w->set.loop_wait_ms + 1;
	store_failover(w, "{}", 7);
	assert_int_equal(f.count, 2);
	answer(&f, 1, DCS_UNKNOWN);
	store_failover(w, "{}", 9);
	assert_int_equal(f.count, 3);
	/* A clear answer: the rules look at what the store shows now. */
	answer(&f, 2, DCS_CONFLICT);
	store_failover(w, "{}", 9);
	assert_int_equal(f.count, 4);
	worker_drop(w);
}

static struct cluster *view(const char *config, int64_t version, int64_t revision)
{
	struct cluster *c = calloc(1, sizeof(*c));
	assert_non_null(c);
	c->config_json = strdup(config);
	c->config_present = c->config_valid = true;
	c->config_version = version;
	c->revision = revision;
	return c;
}

/* What is in force is another matter: as if the document were known. */
static void read_answer(struct worker *w, struct fake *f, unsigned i, struct cluster *c)
{
	w->dynamic_from_store = true;
	w->dynamic_version = c->config_version;
	struct dcs_event e = {
		.id = i + 1, .kind = f->sent[i].kind, .outcome = DCS_OK, .cluster = c
	};
	assert_int_equal(f->sent[i].kind, DCS_READ);
	f->sent[i].fn(&e, f->sent[i].arg);
}

static unsigned answered(int fd)
{
	static struct ipc_rx rx;
	struct ipc_msg m;
	struct err err = ERR_INIT;
	if (ipc_recv(fd, ROLE_WORKER, ROLE_API, &rx, &m, &err) != ERR_OK)
		return 0;
	assert_int_equal(m.type, MSG_API_ANSWER);
	return ((const struct msg_api_answer *)m.payload)->status;
}

/* The view may be behind the store: a conflict is asked about before anybody hears of one. */
static void test_config_of_an_old_view(void **state)
{
	(void)state;
	struct fake f;
	struct worker *w = worker_new(&f);
	json_auto_t *patch = json_pack("{s:i}", "ttl", 20);
	int api[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, api), 0);
	w->api_fd = api[0];
	w->c = view("{\"ttl\":30}", 5, 10);
	w->c_fresh = w->watch_current = w->all_pgregent = true;
	requests_change_config(w, 1, patch, false);
	assert_int_equal(f.sent[0].kind, DCS_SET_CONFIG);
	assert_int_equal(f.sent[0].version, 5);
	answer(&f, 0, DCS_CONFLICT);
	assert_int_equal(answered(api[1]), 0);
	read_answer(w, &f, 1, view("{\"ttl\":25,\"x\":1}", 11, 12));
	assert_int_equal(f.sent[2].version, 11);
	assert_string_equal(f.sent[2].value, "{\"ttl\":20,\"x\":1}");
	answer(&f, 2, DCS_OK);
	assert_int_equal(answered(api[1]), 200);
	/* Twice is somebody else. */
	requests_change_config(w, 2, patch, false);
	answer(&f, 3, DCS_CONFLICT);
	read_answer(w, &f, 4, view("{\"ttl\":26}", 13, 14));
	answer(&f, 5, DCS_CONFLICT);
	assert_int_equal(answered(api[1]), 409);
	/* The watch was faster than the answer. */
	requests_change_config(w, 3, patch, false);
	answer(&f, 6, DCS_CONFLICT);
	cluster_free(w->c);
	w->c = view("{\"ttl\":27,\"y\":2}", 17, 18);
	read_answer(w, &f, 7, view("{\"ttl\":26}", 13, 16));
	assert_int_equal(f.sent[8].version, 17);
	answer(&f, 8, DCS_UNKNOWN);
	assert_int_equal(answered(api[1]), 502);
	/* None there, or as it was asked for: the store is asked, too. */
	w->c->config_valid = false;
	requests_change_config(w, 4, patch, false);
	read_answer(w, &f, 9, view("{\"ttl\":20}", 19, 20));
	assert_int_equal(answered(api[1]), 200);
	assert_int_equal(f.count, 10);
	close(api[0]);
	close(api[1]);
	cluster_free(w->c);
	worker_drop(w);
}

static unsigned touches_ended;
static void on_touched(struct worker *w)
{
	assert_false(w->touch_running);
	touches_ended++;
}

static void test_member_key_one_at_a_time(void **state)
{
	(void)state;
	struct fake f;
	struct worker *w = worker_new(&f);
	store_touch(w, "{\"state\":\"stopping\"}");
	store_touch(w, "{\"state\":\"stopped\"}");
	store_touch(w, "{\"state\":\"starting\"}");
	assert_int_equal(f.count, 1);
	assert_true(w->touch_again);
	/* What is written after it is made anew, of what is so then (nothing here: no view yet). */
	answer(&f, 0, DCS_UNKNOWN);
	assert_false(w->touch_running);
	assert_false(w->touch_again);
	store_touch(w, "{\"state\":\"running\"}");
	assert_int_equal(f.count, 2);
	assert_string_equal(f.sent[1].value, "{\"state\":\"running\"}");
	/* An agent that ends waits for its last word. */
	w->on_touched = on_touched;
	store_touch(w, "{\"state\":\"stopped\"}");
	assert_int_equal(f.count, 2);
	assert_int_equal(touches_ended, 0);
	answer(&f, 1, DCS_OK);
	assert_int_equal(touches_ended, 1);
	worker_drop(w);
}

static unsigned status_ended;
static void on_status(struct worker *w)
{
	(void)w;
	status_ended++;
}

/* A release of the key waits for the last position. */
static void test_status_is_told(void **state)
{
	(void)state;
	struct fake f;
	struct worker *w = worker_new(&f);
	store_status(w, "{\"optime\":5}");
	w->on_status = on_status;
	assert_int_equal(f.sent[0].kind, DCS_SET_STATUS);
	answer(&f, 0, DCS_CONFLICT);
	assert_int_equal(status_ended, 1);
	store_status(w, "{\"optime\":6}");
	answer(&f, 1, DCS_OK);
	assert_int_equal(status_ended, 1); /* nobody waits any more */
	worker_drop(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_failover_is_written_once),
		cmocka_unit_test(test_config_of_an_old_view),
		cmocka_unit_test(test_member_key_one_at_a_time),
		cmocka_unit_test(test_status_is_told) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
