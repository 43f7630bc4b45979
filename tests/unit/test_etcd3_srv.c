/* common/dcs/etcd3_srv: endpoints by SRV records, asked of a small name server on loopback; peers
 * that name client URLs; no records, and records that come later. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/dcs/etcd3.h"
#include "common/ext/json.h"

#define BOUND_MS 8000

struct record {
	const char *name, *host; /* SRV */
	uint16_t port;
};

static struct rig {
	struct loop loop;
	struct http *http;
	struct dcs *dcs;
	int dns, peer, client;
	uint16_t dns_port, peer_port;
	const struct record *records;
	size_t count;
	unsigned asked, peers_asked;
	char first_asked[256];
	char peer_answer[512];
	bool done;
	struct dcs_event ev;
} r;

/* ---- name server ---- */

static size_t put_name(unsigned char *out, const char *name)
{
	size_t at = 0;
	while (*name != '\0') {
		size_t n = strcspn(name, ".");
		out[at++] = (unsigned char)n;
		memcpy(out + at, name, n);
		at += n;
		name += n + (name[n] == '.');
	}
	out[at++] = 0;
	return at;
}

static size_t get_name(const unsigned char *in, size_t len, char *out)
{
	size_t at = 0, n = 0;
	while (at < len && in[at] != 0) {
		size_t label = in[at++];
		assert_true(at + label <= len && n + label + 2 < 256);
		memcpy(out + n, in + at, label);
		n += label;
		at += label;
		out[n++] = '.';
	}
	out[n > 0 ? n - 1 : 0] = '\0';
	return at + 1;
}

static size_t put16(unsigned char *out, unsigned v)
{
	out[0] = (unsigned char)(v >> 8);
	out[1] = (unsigned char)v;
	return 2;
}

static void on_dns(struct loop *l, int fd, short revents, void *arg)
{
	(void)l, (void)revents, (void)arg;
	unsigned char q[512], a[1024];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char name[256];
	ssize_t got = recvfrom(fd, q, sizeof(q), 0, (struct sockaddr *)&from, &len);
	if (got < 17)
		return;
	size_t question = get_name(q + 12, (size_t)got - 12, name) + 4, at = 12 + question;
	assert_true(at <= (size_t)got);
	bool srv = q[at - 3] == 33;
	if (srv && r.asked++ == 0)
		assert_true(str_copy(r.first_asked, sizeof(r.first_asked), name));
	memcpy(a, q, at);
	memset(a + 6, 0, 6); /* no answer yet, nothing additional */
	unsigned found = 0;
	for (size_t i = 0; srv && i < r.count; i++) {
		if (!str_eq_nocase(r.records[i].name, name))
			continue;
		found++;
		at += put16(a + at, 0xc00c);
		at += put16(a + at, 33);
		at += put16(a + at, 1);
		at += put16(a + at, 0);
		at += put16(a + at, 60);
		unsigned char *size = a + at;
		at += 2;
		size_t data = at;
		at += put16(a + at, 1);
		at += put16(a + at, 1);
		at += put16(a + at, r.records[i].port != 0 ? r.records[i].port : r.peer_port);
		at += put_name(a + at, r.records[i].host);
		put16(size, (unsigned)(at - data));
	}
	a[2] = 0x81;
	a[3] = found > 0 || !srv ? 0x80 : 0x83;
	put16(a + 6, found);
	assert_int_equal(sendto(fd, a, at, 0, (struct sockaddr *)&from, len), at);
}

/* ---- an etcd peer: GET /members ---- */

static void on_client(struct loop *l, int fd, short revents, void *arg)
{
	(void)revents, (void)arg;
	char q[2048], a[1024];
	ssize_t n = read(fd, q, sizeof(q) - 1);
	if (n > 0) {
		q[n] = '\0';
		assert_int_equal(strncmp(q, "GET /members HTTP/1.1\r\n", 23), 0);
		r.peers_asked++;
		assert_true(str_format(a, sizeof(a),
			"HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
			strlen(r.peer_answer), r.peer_answer));
		assert_int_equal(write(fd, a, strlen(a)), strlen(a));
	}
	loop_fd_remove(l, fd);
	close(fd);
}

static void on_peer(struct loop *l, int fd, short revents, void *arg)
{
	(void)revents, (void)arg;
	struct err err = ERR_INIT;
	int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (c >= 0)
		assert_int_equal(loop_fd_set(l, c, POLLIN, on_client, NULL, &err), ERR_OK);
}

static int bound(int type, uint16_t *port, loop_fd_fn fn)
{
	struct err err = ERR_INIT;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 8), 0);
	*port = ntohs(a.sin_port);
	assert_int_equal(loop_fd_set(&r.loop, fd, POLLIN, fn, NULL, &err), ERR_OK);
	return fd;
}

static int set_up(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	char server[64];
	memset(&r, 0, sizeof(r));
	loop_init(&r.loop, http_loop_wait, &r.http);
	assert_int_equal(http_new(&r.http, &r.loop, &err), ERR_OK);
	r.dns = bound(SOCK_DGRAM, &r.dns_port, on_dns);
	r.peer = bound(SOCK_STREAM, &r.peer_port, on_peer);
	assert_true(str_format(server, sizeof(server), "127.0.0.1:%u", r.dns_port));
	assert_int_equal(dns_set_servers(http_dns(r.http), server, &err), ERR_OK);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (r.dcs != NULL)
		dcs_close(r.dcs);
	http_free(r.http);
	loop_fd_remove(&r.loop, r.dns);
	loop_fd_remove(&r.loop, r.peer);
	close(r.dns);
	close(r.peer);
	loop_done(&r.loop);
	return 0;
}

static enum err_code open_with(const char *section, struct err *err)
{
	json_auto_t *o = json_read(section, strlen(section), NULL);
	struct dcs_config cfg = { .backend = "etcd3",
		.name = "n0",
		.scope = "s",
		.namespace_ = "service",
		.section = o,
		.ttl_ms = 30000,
		.loop_wait_ms = 10000,
		.retry_timeout_ms = 3000,
		.is_ctl = true,
		.citus_group = -1 };
	assert_non_null(o);
	return dcs_open(&r.dcs, &cfg, &r.loop, r.http, err);
}

static const struct etcd3 *e3(void)
{
	return (const struct etcd3 *)r.dcs;
}

static void run_until_search_ended(void)
{
	struct err err = ERR_INIT;
	int64_t until_ms = clock_boot_ms() + BOUND_MS;
	while (e3()->search != NULL && clock_boot_ms() < until_ms)
		assert_int_equal(loop_turn(&r.loop, 50, &err), ERR_OK);
	assert_null(e3()->search);
}

static void test_services(void **state)
{
	(void)state;
	static const struct {
		const char *section;
		struct record records[3];
		size_t count;
		const char *endpoints[3], *first_asked;
	} rows[] = {
		{ "{\"srv\": \"example.test\"}",
			{ { "_etcd-client._tcp.example.test", "a.example.test", 2379 },
				{ "_etcd-client._tcp.example.test", "b.example.test", 12379 },
				/* of no interest when there is a better one */
				{ "_etcd._tcp.example.test", "c.example.test", 1 } },
			3, { "http://a.example.test:2379", "http://b.example.test:12379" },
			"_etcd-client-ssl._tcp.example.test" },
		{ "{\"srv\": \"example.test\", \"srv_suffix\": \"blue\"}",
			{ { "_etcd-client-ssl-blue._tcp.example.test", "a.example.test", 2379 },
				{ "_etcd-client-ssl._tcp.example.test", "b.example.test", 2379 } },
			2, { "https://a.example.test:2379" },
			"_etcd-client-ssl-blue._tcp.example.test" },
		{ "{\"discovery_srv\": \"d.test\", \"hosts\": [\"ignored:1\"]}",
			{ { "_etcd-ssl._tcp.d.test", "x.d.test", 1 } }, 1, { "https://x.d.test:1" },
			"_etcd-client-ssl._tcp.d.test" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = ERR_INIT;
		r.records = rows[i].records;
		r.count = rows[i].count;
		r.asked = 0;
		assert_int_equal(open_with(rows[i].section, &err), ERR_OK);
		assert_int_equal(e3()->endpoint_count, 0);
		run_until_search_ended();
		assert_string_equal(r.first_asked, rows[i].first_asked);
		unsigned n = 0;
		for (; n < 3 && rows[i].endpoints[n] != NULL; n++) {
			bool there = false;
			for (unsigned k = 0; k < e3()->endpoint_count; k++)
				there |= strcmp(e3()->endpoints[k], rows[i].endpoints[n]) == 0;
			if (!there)
				fail_msg("row %zu: %s", i, rows[i].endpoints[n]);
		}
		assert_int_equal(e3()->endpoint_count, n);
		dcs_close(r.dcs);
		r.dcs = NULL;
	}
}

static void test_peers(void **state)
{
	(void)state;
	static const struct record records[] = { { "_etcd-server._tcp.p.test", "localhost", 0 } };
	struct err err = ERR_INIT;
	r.records = records;
	r.count = 1;
	assert_true(str_format(r.peer_answer, sizeof(r.peer_answer),
		"[{\"clientURLs\": [\"http://localhost:5\", \"http://localhost:6/\"]}, {}]"));
	assert_int_equal(open_with("{\"srv\": \"p.test\"}", &err), ERR_OK);
	run_until_search_ended();
	assert_int_equal(r.peers_asked, 1);
	assert_int_equal(e3()->endpoint_count, 2);
	assert_string_equal(e3()->endpoints[0], "http://localhost:5");
	assert_string_equal(e3()->endpoints[1], "http://localhost:6");
	assert_int_equal(r.asked, ARRAY_LEN(records) + 5);
}

static void on_done(const struct dcs_event *ev, void *arg)
{
	(void)arg;
	r.ev = *ev;
	r.done = true;
}

/* Operations wait for the first endpoint, within their budget. */
static void test_records_come_later(void **state)
{
	(void)state;
	static const struct record records[] = { { "_etcd-client._tcp.l.test", "localhost", 0 } };
	struct err err = ERR_INIT;
	assert_int_equal(open_with("{\"srv\": \"l.test\"}", &err), ERR_OK);
	run_until_search_ended();
	assert_int_equal(e3()->endpoint_count, 0);
	struct dcs_op op = { .kind = DCS_READ, .deadline_ms = clock_boot_ms() + 700 };
	dcs_submit(r.dcs, &op, on_done, NULL);
	int64_t until_ms = clock_boot_ms() + BOUND_MS;
	while (!r.done && clock_boot_ms() < until_ms)
		assert_int_equal(loop_turn(&r.loop, 50, &err), ERR_OK);
	assert_true(r.done);
	assert_int_equal(r.ev.outcome, DCS_UNKNOWN);
	assert_string_equal(r.ev.text, "no endpoint is known yet");
	/* The next one finds them: looked up again because it asked. */
	r.records = records;
	r.count = 1;
	r.done = false;
	op.deadline_ms = clock_boot_ms() + BOUND_MS; /* how soon is not the question */
	dcs_submit(r.dcs, &op, on_done, NULL);
	until_ms = clock_boot_ms() + BOUND_MS;
	while (e3()->endpoint_count == 0 && !r.done && clock_boot_ms() < until_ms)
		assert_int_equal(loop_turn(&r.loop, 50, &err), ERR_OK);
	assert_int_equal(e3()->endpoint_count, 1);
}

static void test_closed_under_way(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	assert_int_equal(open_with("{\"srv\": \"c.test\"}", &err), ERR_OK);
	assert_non_null(e3()->search);
	dcs_close(r.dcs);
	r.dcs = NULL;
	for (int i = 0; i < 5; i++)
		assert_int_equal(loop_turn(&r.loop, 20, &err), ERR_OK);
}

static void test_refused(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	assert_int_not_equal(open_with("{\"srv\": [\"a\"]}", &err), ERR_OK);
	assert_non_null(strstr(err.text, "etcd3.srv"));
	assert_int_not_equal(open_with("{\"srv\": \"\"}", &err), ERR_OK);
	assert_non_null(strstr(err.text, "one of host, hosts, srv"));
	r.dcs = NULL;
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_services),
		T(test_peers),
		T(test_records_come_later),
		T(test_closed_under_way),
		T(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
