/* What one worker leaves on its page for the next one (X74), from page to page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/clock.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"
#include "worker/worker.h"

static struct worker *worker_new(void)
{
	struct worker *w = calloc(1, sizeof(*w));
	struct err err = ERR_INIT;
	assert_non_null(w);
	w->c = calloc(1, sizeof(*w->c));
	assert_non_null(w->c);
	w->view.c = w->c;
	w->view.set = &w->set;
	w->set.failsafe_mode = true;
	assert_int_equal(
		shm_create(&w->page, "test", DOC_WORKER_COUNT, LIMIT_PAGE_DOC, &err), ERR_OK);
	return w;
}

static void worker_end(struct worker *w)
{
	shm_done(&w->page);
	free(w->c->failsafe);
	free(w->c);
	free(w->heir);
	free(w);
}

/* A primary in failsafe mode with n0 and n1 on the map, and a write on its way that names n2. */
static struct worker *primary(void)
{
	struct worker *w = worker_new();
	w->c->failsafe = calloc(2, sizeof(*w->c->failsafe));
	assert_non_null(w->c->failsafe);
	w->c->failsafe_count = 2;
	assert_true(str_copy(w->c->failsafe[0].name, LIMIT_NAME, "n0") &&
		    str_copy(w->c->failsafe[0].api_url, LIMIT_URL, "http://a/patroni") &&
		    str_copy(w->c->failsafe[1].name, LIMIT_NAME, "n1") &&
		    str_copy(w->c->failsafe[1].api_url, LIMIT_URL, "http://b/patroni"));
	w->c->failsafe_present = w->c_fresh = w->mem.lock_was_held = true;
	w->c->failsafe_version = 7;
	w->mem.failsafe_emptied = 5;
	assert_true(failsafe_inherit_sent(&w->mem, "n2", "http://c/patroni", clock_boot_ms()));
	w->view.role = PG_ROLE_PRIMARY;
	return w;
}

static size_t page_size(struct worker *w)
{
	AUTO(buf) text = BUF_INIT(LIMIT_PAGE_DOC);
	struct err err = ERR_INIT;
	enum err_code rc = shm_doc_read(&w->page, DOC_HEIR, &text, NULL, NULL, &err);
	assert_true(rc == ERR_OK || rc == ERR_NOTFOUND);
	return text.len;
}

static void test_round_trip(void **state)
{
	(void)state;
	struct worker *a = primary(), *b = worker_new(), *c = worker_new();
	heir_leave(a);
	heir_take(b, &a->page);
	/* The second ends before its first decision, or after one that saw no PostgreSQL yet. */
	b->view.role = PG_ROLE_UNINITIALIZED;
	heir_leave(b);
	heir_take(c, &b->page);
	assert_true(heir_stands(c));
	assert_true(c->c->failsafe_present);
	assert_int_equal(c->c->failsafe_version, 7);
	assert_int_equal(c->mem.failsafe_emptied, 5);
	assert_int_equal(c->c->failsafe_count, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_string_equal(c->c->failsafe[i].name, a->c->failsafe[i].name);
		assert_string_equal(c->c->failsafe[i].api_url, a->c->failsafe[i].api_url);
	}
	assert_int_equal(c->mem.failsafe_sent_count, 1);
	assert_string_equal(c->mem.failsafe_sent[0].name, "n2");
	assert_string_equal(c->mem.failsafe_sent[0].api_url, "http://c/patroni");
	worker_end(a);
	worker_end(b);
	worker_end(c);
}

/* A map of a leadership that is over must not reach the worker of a later one. */
static void test_gone_with_the_leadership(void **state)
{
	(void)state;
	struct worker *a = primary(), *b = worker_new();
	heir_leave(a);
	heir_take(b, &a->page);
	assert_true(page_size(b) > 0);
	b->view.role = PG_ROLE_REPLICA;
	heir_leave(b);
	assert_int_equal(page_size(b), 0);
	a->view.role = PG_ROLE_DEMOTED;
	heir_leave(a);
	assert_int_equal(page_size(a), 0);
	worker_end(a);
	worker_end(b);
}

static void test_bad_pages(void **state)
{
	(void)state;
	static const char *const pages[] = { "", "x", "[]", "{}",
		"{\"version\":1,\"emptied\":0,\"map\":[],\"sent\":{}}",
		"{\"version\":1,\"emptied\":0,\"map\":{\"n0\":1},\"sent\":{}}",
		"{\"version\":1,\"emptied\":0,\"map\":{\"n0\":\"http://a\"},\"sent\":{\"n1\":2}}" };
	for (size_t i = 0; i < ARRAY_LEN(pages); i++) {
		struct worker *a = worker_new(), *b = worker_new();
		struct err err = ERR_INIT;
		assert_int_equal(
			shm_doc_write(&a->page, DOC_HEIR, pages[i], strlen(pages[i]), 1, &err),
			ERR_OK);
		heir_take(b, &a->page);
		assert_false(heir_stands(b));
		assert_false(b->c->failsafe_present);
		assert_int_equal(b->c->failsafe_count, 0);
		assert_int_equal(b->mem.failsafe_sent_count, 0);
		worker_end(a);
		worker_end(b);
	}
}

/* The store was faster: it knows more. */
static void test_late_page(void **state)
{
	(void)state;
	struct worker *a = primary(), *b = worker_new();
	heir_leave(a);
	b->c_fresh = true;
	heir_take(b, &a->page);
	assert_false(b->c->failsafe_present);
	assert_false(b->mem.lock_was_held);
	worker_end(a);
	worker_end(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_gone_with_the_leadership),
		cmocka_unit_test(test_bad_pages),
		cmocka_unit_test(test_late_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
