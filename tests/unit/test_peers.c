/* Questions to other members: what the rules ask and what a task or a request asks at the same time
 * do not end each other (worker/peers.c). Real HTTP over loopback; the test plays the member. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/http.h"
#include "worker/worker.h"

#define BOUND_MS 5000

struct member_b {
	int fd;
	int asked, told; /* connections with GET /patroni, with POST /failsafe */
};

static unsigned ended_aside;

static void aside_done(struct worker *w, void *arg)
{
	(void)w;
	(void)arg;
	ended_aside++;
}

static void turn(struct worker *w)
{
	struct err err = ERR_INIT;
	assert_int_equal(loop_turn(&w->loop, 20, &err), ERR_OK);
}

static int listen_on(char *url, size_t len, const char *path)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	assert_true(str_format(url, len, "http://127.0.0.1:%d/%s", ntohs(a.sin_port), path));
	return fd;
}

/* Which question came on the next connection. */
static void take(struct worker *w, struct member_b *b)
{
	char text[2000];
	int64_t until = clock_boot_ms() + BOUND_MS;
	int fd = -1;
	while ((fd = accept(b->fd, NULL, NULL)) < 0) {
		assert_true(clock_boot_ms() < until);
		turn(w);
	}
	ssize_t n = 0;
	while ((n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT)) <= 0) {
		assert_true(clock_boot_ms() < until);
		turn(w);
	}
	text[n] = '\0';
	if (strncmp(text, "GET", 3) == 0)
		b->asked = fd;
	else if (strncmp(text, "POST", 4) == 0)
		b->told = fd;
	else
		fail_msg("not a question: %s", text);
}

static void reply(int fd, const char *body)
{
	char text[400];
	int n = snprintf(text, sizeof(text),
		"HTTP/1.0 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
		strlen(body), body);
	assert_int_equal(write(fd, text, (size_t)n), n);
	assert_int_equal(close(fd), 0);
}

static struct worker *worker_new(struct member_b *b)
{
	struct err err = ERR_INIT;
	struct worker *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	loop_init(&w->loop, http_loop_wait, &w->http);
	assert_int_equal(http_new(&w->http, &w->loop, &err), ERR_OK);
	w->set.ttl_ms = 30000;
	memcpy(w->welcome.name, "a", 2);
	w->c = cluster_new();
	assert_non_null(w->c);
	w->c->members = calloc(1, sizeof(*w->c->members));
	w->c->failsafe = calloc(2, sizeof(*w->c->failsafe));
	assert_true(w->c->members != NULL && w->c->failsafe != NULL);
	w->c->member_count = 1;
	w->c->failsafe_count = 2;
	w->c->failsafe_present = true;
	memcpy(w->c->members[0].name, "b", 2);
	memcpy(w->c->failsafe[0].name, "a", 2);
	memcpy(w->c->failsafe[1].name, "b", 2);
	*b = (struct member_b){ .asked = -1, .told = -1 };
	b->fd = listen_on(w->c->members[0].api_url, LIMIT_URL, "patroni");
	memcpy(w->c->failsafe[1].api_url, w->c->members[0].api_url, LIMIT_URL);
	ended_aside = 0;
	return w;
}

static void worker_drop(struct worker *w, struct member_b *b)
{
	assert_int_equal(close(b->fd), 0);
	loop_timer_stop(&w->loop, &w->turn.timer);
	http_free(w->http);
	loop_done(&w->loop);
	cluster_free(w->c);
	free(w);
}

static const char names[1][LIMIT_NAME] = { "b" };

/* A switchover is asked for, and while its candidates are asked the store goes away: the answer to
 * the failsafe round reaches the rules, the answer about the candidate reaches the request. */
static void test_failsafe_round_beside_a_request(void **state)
{
	(void)state;
	struct member_b b;
	struct worker *w = worker_new(&b);
	int64_t until = clock_boot_ms() + BOUND_MS;
	assert_true(peers_ask_aside(w, names, 1, aside_done, NULL, NULL));
	assert_false(peers_ask_aside(w, names, 1, aside_done, NULL, NULL));
	w->mem.awaiting = AWAIT_FAILSAFE;
	w->turn.gathering = true; /* the turn itself is not under test */
	peers_failsafe_round(w, NULL, 0);
	take(w, &b);
	take(w, &b);
	assert_true(b.asked >= 0 && b.told >= 0);
	reply(b.told, "Accepted");
	while (!w->turn.result.present) {
		assert_true(clock_boot_ms() < until);
		turn(w);
	}
	assert_true(w->turn.result.failsafe_ok);
	assert_int_equal(ended_aside, 0);
	assert_true(w->aside.running);
	reply(b.asked, "{\"role\":\"replica\",\"xlog\":{\"received_location\":7,"
		       "\"replayed_location\":6},\"timeline\":3}");
	while (ended_aside == 0) {
		assert_true(clock_boot_ms() < until);
		turn(w);
	}
	assert_int_equal(w->aside.count, 1);
	assert_true(w->aside.peers[0].answered);
	assert_int_equal(w->aside.peers[0].position, 7);
	assert_false(w->aside.running);
	worker_drop(w, &b);
}

/* The rules ask again: what was asked before does not count any more. */
static void test_late_answer_does_not_count(void **state)
{
	(void)state;
	struct member_b b;
	struct worker *w = worker_new(&b);
	int64_t until = clock_boot_ms() + BOUND_MS;
	w->turn.gathering = true;
	w->mem.awaiting = AWAIT_PEERS;
	peers_poll(w, names, 1);
	take(w, &b);
	int late = b.asked;
	peers_poll(w, names, 1);
	reply(late, "{\"role\":\"primary\",\"xlog\":{\"location\":99}}");
	take(w, &b);
	assert_false(w->turn.result.present);
	reply(b.asked, "{\"role\":\"replica\",\"xlog\":{\"received_location\":7}}");
	while (!w->turn.result.present) {
		assert_true(clock_boot_ms() < until);
		turn(w);
	}
	assert_int_equal(w->round.peers[0].position, 7);
	assert_true(w->round.peers[0].in_recovery);
	worker_drop(w, &b);
}

/* Nobody has an address: the end comes all the same, and from the loop. */
static void test_nobody_to_ask(void **state)
{
	(void)state;
	struct member_b b;
	struct worker *w = worker_new(&b);
	w->c->members[0].api_url[0] = w->c->failsafe[1].api_url[0] = '\0';
	assert_true(peers_ask_aside(w, names, 1, aside_done, NULL, NULL));
	assert_int_equal(ended_aside, 0);
	turn(w);
	assert_int_equal(ended_aside, 1);
	assert_false(w->aside.peers[0].answered);
	worker_drop(w, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_failsafe_round_beside_a_request),
		cmocka_unit_test(test_late_answer_does_not_count),
		cmocka_unit_test(test_nobody_to_ask),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
