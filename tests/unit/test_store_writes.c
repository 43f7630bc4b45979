/* Writes of the worker that must not pile up while the store is slow: the member key, /failover. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/core/loop.h"
#include "worker/worker.h"

#define SENT_MAX 8

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
		cmocka_unit_test(test_member_key_one_at_a_time),
		cmocka_unit_test(test_status_is_told) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
