/* Names to addresses by c-ares. See dns.h. */
#include "common/ext/dns.h"

#include <arpa/inet.h>
#include <ares.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define CACHE_MAX 64
#define CACHE_FRESH_MS                                                                             \
	600000 /* dcs 3.2: addresses are kept that long; an older one serves while look-ups fail   \
		*/
#define REFRESH_MS 10000 /* at most so often for one name */
#define TRY_MS	   1000
#define TRIES	   2

struct entry {
	char name[256];
	struct dns_answer answer;
	int64_t at_ms;
};

struct query {
	struct query *next, **prev_next; /* all of them, so that none outlives the dns */
	struct dns *d;
	char name[256];
	dns_fn fn;
	dns_srv_fn srv_fn;
	void *arg;
	struct dns_answer answer;
	struct loop_timer timer;
};

struct dns {
	struct loop *loop;
	ares_channel channel;
	struct loop_timer timer;
	struct entry cache[CACHE_MAX];
	struct query *queries;
	unsigned next;
	uint64_t generation; /* of what the cache holds */
	bool closing;
};

bool dns_is_address(const char *name)
{
	unsigned char b[16];
	return inet_pton(AF_INET, name, b) == 1 || inet_pton(AF_INET6, name, b) == 1;
}

static void free_query(struct query *q)
{
	loop_timer_stop(q->d->loop, &q->timer);
	*q->prev_next = q->next;
	if (q->next != NULL)
		q->next->prev_next = q->prev_next;
	free(q);
}

static struct query *new_query(struct dns *d)
{
	struct query *q = calloc(1, sizeof(*q));
	if (q == NULL)
		return NULL;
	q->d = d;
	q->next = d->queries;
	if (q->next != NULL)
		q->next->prev_next = &q->next;
	q->prev_next = &d->queries;
	d->queries = q;
	return q;
}

/* fn is NULL for a look-up that only refreshes what is known. */
static void deliver(struct loop *l, void *arg)
{
	(void)l;
	struct query *q = arg;
	struct dns_answer a = q->answer;
	dns_fn fn = q->fn;
	void *fn_arg = q->arg;
	free_query(q);
	if (fn != NULL)
		fn(&a, fn_arg);
}

static void on_timer(struct loop *l, void *arg);

static void arm(struct dns *d)
{
	struct timeval max = { 1, 0 }, tv;
	const struct timeval *t = ares_timeout(d->channel, &max, &tv);
	ares_socket_t socks[ARES_GETSOCK_MAXNUM];
	if (t == NULL || ares_getsock(d->channel, socks, ARES_GETSOCK_MAXNUM) == 0)
		loop_timer_stop(d->loop, &d->timer);
	else
		loop_timer_set(d->loop, &d->timer,
			clock_boot_ms() + t->tv_sec * 1000 + t->tv_usec / 1000 + 1, on_timer, d);
}

static void on_timer(struct loop *l, void *arg)
{
	(void)l;
	struct dns *d = arg;
	ares_socket_t socks[ARES_GETSOCK_MAXNUM];
	int bits = ares_getsock(d->channel, socks, ARES_GETSOCK_MAXNUM);
	/* An answer that came while this process had no time is read before it counts as late. */
	for (int i = 0; i < ARES_GETSOCK_MAXNUM; i++) {
		if (ARES_GETSOCK_READABLE(bits, i))
			ares_process_fd(d->channel, socks[i], ARES_SOCKET_BAD);
	}
	ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	arm(d);
}

static void on_fd(struct loop *l, int fd, short revents, void *arg)
{
	(void)l;
	struct dns *d = arg;
	ares_process_fd(d->channel, revents & (POLLIN | POLLERR | POLLHUP) ? fd : ARES_SOCKET_BAD,
		revents & POLLOUT ? fd : ARES_SOCKET_BAD);
	arm(d);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct dns *d = arg;
	struct err err = ERR_INIT;
	if (!readable && !writable)
		loop_fd_remove(d->loop, fd);
	else if (loop_fd_set(d->loop, fd,
			 (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0)), on_fd, d,
			 &err) != ERR_OK)
		log_warning("dns: %s", err.text);
}

enum err_code dns_new(struct dns **out, struct loop *loop, struct err *err)
{
	static bool started;
	if (!started && ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		return err_set(err, ERR_NOMEM, 0, "c-ares");
	started = true;
	struct dns *d = calloc(1, sizeof(*d));
	if (d == NULL)
		return err_set(err, ERR_NOMEM, 0, "dns");
	d->loop = loop;
	struct ares_options o = { .timeout = TRY_MS,
		.tries = TRIES,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = d };
	int rc = ares_init_options(
		&d->channel, &o, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
	if (rc != ARES_SUCCESS) {
		free(d);
		return err_set(err, ERR_SYS, 0, "c-ares: %s", ares_strerror(rc));
	}
	*out = d;
	return ERR_OK;
}

enum err_code dns_set_servers(struct dns *d, const char *list, struct err *err)
{
	int rc = ares_set_servers_ports_csv(d->channel, list);
	return rc == ARES_SUCCESS ? ERR_OK
				  : err_set(err, ERR_INVAL, 0, "%s: %s", list, ares_strerror(rc));
}

void dns_free(struct dns *d)
{
	if (d == NULL)
		return;
	d->closing = true;
	ares_destroy(d->channel);
	while (d->queries != NULL)
		deliver(d->loop, d->queries);
	loop_timer_stop(d->loop, &d->timer);
	free(d);
}

static struct entry *cached(struct dns *d, const char *name)
{
	for (unsigned i = 0; i < CACHE_MAX; i++) {
		if (d->cache[i].at_ms != 0 && strcmp(d->cache[i].name, name) == 0)
			return &d->cache[i];
	}
	return NULL;
}

static void finish(struct query *q)
{
	if (q->d->closing) {
		deliver(NULL, q);
		return;
	}
	loop_timer_set(q->d->loop, &q->timer, clock_boot_ms(), deliver, q);
}

static void keep(struct dns *d, const char *name, const struct dns_answer *a, int64_t at_ms)
{
	struct entry *e = cached(d, name);
	bool same = e != NULL && e->answer.count == a->count &&
		    memcmp(e->answer.addrs, a->addrs, sizeof(a->addrs)) == 0;
	if (e == NULL)
		e = &d->cache[d->next++ % CACHE_MAX];
	if (!same)
		d->generation++;
	e->at_ms = 0;
	if (!str_copy(e->name, sizeof(e->name), name))
		return;
	e->answer = *a;
	e->answer.stale = true;
	e->at_ms = at_ms != 0 ? at_ms : 1;
}

static void on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *res)
{
	(void)timeouts;
	struct query *q = arg;
	struct dns *d = q->d;
	if (status == ARES_SUCCESS) {
		for (const struct ares_addrinfo_node *n = res->nodes; n != NULL; n = n->ai_next) {
			if (q->answer.count == DNS_ADDRS_MAX)
				break;
			char *out = q->answer.addrs[q->answer.count];
			if (getnameinfo(n->ai_addr, n->ai_addrlen, out, 64, NULL, 0,
				    NI_NUMERICHOST) == 0)
				q->answer.count++;
		}
	}
	if (res != NULL)
		ares_freeaddrinfo(res);
	struct entry *e = cached(d, q->name);
	if (q->answer.count > 0) {
		keep(d, q->name, &q->answer, clock_boot_ms());
	} else if (e != NULL) {
		q->answer = e->answer;
	} else if (!d->closing) {
		log_warning("name %s cannot be resolved: %s", q->name, ares_strerror(status));
	}
	finish(q);
}

static void ask(struct dns *d, struct query *q)
{
	struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	ares_getaddrinfo(d->channel, q->name, NULL, &hints, on_addrinfo, q);
	if (!d->closing)
		arm(d);
}

/* An expired address goes on serving while a look-up for the next caller is under way. */
static void refresh(struct dns *d, struct entry *e)
{
	struct query *q = new_query(d);
	if (q == NULL)
		return;
	memcpy(q->name, e->name, sizeof(q->name));
	e->at_ms = clock_boot_ms() - CACHE_FRESH_MS + REFRESH_MS; /* not with every caller */
	ask(d, q);
}

void dns_lookup(struct dns *d, const char *name, dns_fn fn, void *arg)
{
	struct query *q = new_query(d);
	struct dns_answer none = { 0 };
	if (q == NULL || !str_copy(q->name, sizeof(q->name), name)) {
		if (q != NULL)
			free_query(q);
		fn(&none, arg);
		return;
	}
	q->fn = fn;
	q->arg = arg;
	struct entry *e = cached(d, name);
	if (dns_is_address(name)) {
		q->answer.count = 1;
		if (!str_copy(q->answer.addrs[0], 64, name))
			q->answer.count = 0;
		finish(q);
	} else if (e != NULL) {
		q->answer = e->answer;
		finish(q);
		if (clock_boot_ms() - e->at_ms >= CACHE_FRESH_MS)
			refresh(d, e);
	} else {
		ask(d, q);
	}
}

void dns_doubt(struct dns *d, const char *name)
{
	struct entry *e = cached(d, name);
	if (e != NULL && clock_boot_ms() - e->at_ms >= REFRESH_MS)
		refresh(d, e);
}

uint64_t dns_known_generation(const struct dns *d)
{
	return d->generation;
}

void dns_known_write(const struct dns *d, struct buf *out)
{
	for (unsigned i = 0; i < CACHE_MAX; i++) {
		const struct entry *e = &d->cache[i];
		if (e->at_ms == 0)
			continue;
		buf_adds(out, e->name);
		for (unsigned k = 0; k < e->answer.count; k++)
			buf_addf(out, " %s", e->answer.addrs[k]);
		buf_adds(out, "\n");
	}
}

/* Callers that wait for the server get what is known; their look-up goes on as a refresh. */
static void serve_waiting(struct dns *d, const struct entry *e)
{
	for (struct query *q = d->queries; q != NULL; q = q->next) {
		if (q->fn == NULL || q->answer.count > 0 || strcmp(q->name, e->name) != 0)
			continue;
		struct query *served = new_query(d); /* stands before q in the list */
		if (served == NULL)
			return;
		served->fn = q->fn;
		served->arg = q->arg;
		served->answer = e->answer;
		q->fn = NULL;
		finish(served);
	}
}

static bool read_line(struct dns *d, char *line)
{
	struct dns_answer a = { 0 };
	char *save = NULL, *name = strtok_r(line, " ", &save), *addr;
	if (name == NULL || strlen(name) >= sizeof(((struct entry *)0)->name))
		return false;
	while ((addr = strtok_r(NULL, " ", &save)) != NULL) {
		if (a.count == DNS_ADDRS_MAX || !dns_is_address(addr) ||
			!str_copy(a.addrs[a.count], sizeof(a.addrs[0]), addr))
			return false;
		a.count++;
	}
	if (a.count == 0 || cached(d, name) != NULL)
		return false; /* what we asked ourselves is newer */
	keep(d, name, &a, clock_boot_ms() - CACHE_FRESH_MS);
	serve_waiting(d, cached(d, name));
	return true;
}

void dns_known_read(struct dns *d, const char *text)
{
	AUTO_FREE char *copy = strdup(text);
	char *save = NULL;
	unsigned count = 0;
	if (copy == NULL)
		return;
	for (char *line = strtok_r(copy, "\n", &save); line != NULL && count < CACHE_MAX;
		line = strtok_r(NULL, "\n", &save))
		count += read_line(d, line);
	if (count > 0)
		log_info("addresses of %u names are taken over from the worker before", count);
}

static void on_srv(void *arg, int status, int timeouts, unsigned char *buf, int len)
{
	(void)timeouts;
	struct query *q = arg;
	struct dns_srv a = { 0 };
	struct ares_srv_reply *list = NULL;
	if (status == ARES_SUCCESS && ares_parse_srv_reply(buf, len, &list) == ARES_SUCCESS) {
		for (const struct ares_srv_reply *r = list; r != NULL && a.count < 32;
			r = r->next) {
			if (str_copy(a.rows[a.count].host, sizeof(a.rows[0].host), r->host)) {
				a.rows[a.count].port = r->port;
				a.count++;
			}
		}
		ares_free_data(list);
	}
	dns_srv_fn fn = q->srv_fn;
	void *fn_arg = q->arg;
	free_query(q);
	fn(&a, fn_arg);
}

void dns_lookup_srv(struct dns *d, const char *name, dns_srv_fn fn, void *arg)
{
	struct query *q = new_query(d);
	struct dns_srv none = { 0 };
	if (q == NULL) {
		fn(&none, arg);
		return;
	}
	q->srv_fn = fn;
	q->arg = arg;
	ares_query(d->channel, name, 1 /* class IN */, 33 /* type SRV */, on_srv, q);
	if (!d->closing)
		arm(d);
}
