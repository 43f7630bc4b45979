/* Endpoints of etcd by SRV records (dcs 3.2): at the start, and again when all that are known fail.
 */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/etcd3.h"
#include "common/ext/dns.h"
#include "common/ext/json.h"

#define AGAIN_NONE_MS 1000  /* nothing was found yet: calls wait for it */
#define AGAIN_SOME_MS 10000 /* the old list is in use meanwhile */
#define PEER_MS	      3000

static const struct service {
	const char *name, *scheme;
	bool peers; /* they name the client URLs when asked */
} services[] = {
	{ "_etcd-client-ssl", "https", false },
	{ "_etcd-client", "http", false },
	{ "_etcd-ssl", "https", false },
	{ "_etcd", "http", false },
	{ "_etcd-server-ssl", "https", true },
	{ "_etcd-server", "http", true },
};

/* One search. It outlives its backend when that is closed under way: e is NULL then. */
struct etcd_search {
	struct etcd3 *e;
	unsigned service, peer;
	struct dns_srv rows;
	struct http_call *http;
	char found[ETCD_ENDPOINTS_MAX][LIMIT_URL];
	unsigned count;
};

static void ask_service(struct etcd_search *s);

static void end(struct etcd_search *s)
{
	struct etcd3 *e = s->e;
	if (e != NULL) {
		e->search = NULL;
		e->searched_ms = clock_boot_ms();
	}
	free(s);
}

static void take(struct etcd_search *s)
{
	struct etcd3 *e = s->e;
	bool first = e->endpoint_count == 0;
	e->srv_told = false;
	memcpy(e->seeds, s->found, sizeof(e->seeds));
	e->seed_count = s->count;
	if (!str_copy(e->protocol, sizeof(e->protocol), services[s->service].scheme))
		e->protocol[0] = '\0'; /* cannot be */
	for (unsigned i = 0; i < s->count; i++)
		etcd_add_endpoint(e->endpoints, &e->endpoint_count, s->found[i]);
	if (first)
		e->current = (unsigned)rng_below(&e->rng, e->endpoint_count);
	log_info("etcd: %u endpoints by the SRV records of %s, service %s", s->count, e->srv,
		services[s->service].name);
	end(s);
	etcd_calls_kick(e);
}

static void next_service(struct etcd_search *s)
{
	s->peer = 0;
	if (++s->service < ARRAY_LEN(services)) {
		ask_service(s);
		return;
	}
	if (!s->e->srv_told)
		log_warning("waiting on etcd: no SRV record of %s%s%s names an endpoint", s->e->srv,
			s->e->srv_suffix[0] != '\0' ? " with suffix " : "", s->e->srv_suffix);
	s->e->srv_told = true;
	end(s);
}

static void ask_peer(struct etcd_search *s);

static void on_peer(const struct http_reply *r, void *arg)
{
	struct etcd_search *s = arg;
	s->http = NULL;
	json_auto_t *list =
		r->status >= 200 && r->status < 400 ? json_read(r->body, r->len, NULL) : NULL;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *urls = json_object_get(json_array_get(list, i), "clientURLs");
		for (size_t k = 0; k < json_array_size(urls); k++) {
			const char *u = json_string_value(json_array_get(urls, k));
			if (u != NULL)
				etcd_add_endpoint(s->found, &s->count, u);
		}
	}
	if (s->count > 0) {
		take(s);
		return;
	}
	log_warning("etcd peer %s:%u names no client URL: %s", s->rows.rows[s->peer].host,
		s->rows.rows[s->peer].port, r->status != 0 ? "its answer" : r->text);
	s->peer++;
	ask_peer(s);
}

static void ask_peer(struct etcd_search *s)
{
	char url[LIMIT_URL];
	if (s->peer >= s->rows.count) {
		next_service(s);
		return;
	}
	if (!str_format(url, sizeof(url), "%s://%s:%u/members", services[s->service].scheme,
		    s->rows.rows[s->peer].host, s->rows.rows[s->peer].port)) {
		s->peer = s->rows.count;
		next_service(s);
		return;
	}
	struct http_request req = {
		.method = "GET", .url = url, .deadline_ms = clock_boot_ms() + PEER_MS
	};
	etcd_http_request(s->e, &req);
	req.tls.verify = HTTP_VERIFY_NONE; /* the peer protocol has certificates of its own */
	s->http = http_send(s->e->http, &req, on_peer, NULL, s);
}

static void on_rows(const struct dns_srv *a, void *arg)
{
	struct etcd_search *s = arg;
	const struct service *v = &services[s->service];
	if (s->e == NULL) {
		free(s);
		return;
	}
	s->rows = *a;
	if (v->peers) {
		ask_peer(s);
		return;
	}
	for (unsigned i = 0; i < a->count; i++) {
		char url[LIMIT_URL];
		if (str_format(url, sizeof(url), "%s://%s:%u", v->scheme, a->rows[i].host,
			    a->rows[i].port))
			etcd_add_endpoint(s->found, &s->count, url);
	}
	if (s->count > 0)
		take(s);
	else
		next_service(s);
}

static void ask_service(struct etcd_search *s)
{
	char name[LIMIT_URL];
	const struct etcd3 *e = s->e;
	if (!str_format(name, sizeof(name), "%s%s%s._tcp.%s", services[s->service].name,
		    e->srv_suffix[0] != '\0' ? "-" : "", e->srv_suffix, e->srv)) {
		end(s);
		return;
	}
	dns_lookup_srv(http_dns(e->http), name, on_rows, s);
}

int64_t etcd_search_next_ms(const struct etcd3 *e)
{
	int64_t pause_ms = e->endpoint_count == 0 ? AGAIN_NONE_MS : AGAIN_SOME_MS;
	return e->searched_ms != 0 ? e->searched_ms + pause_ms : 0;
}

void etcd_search_start(struct etcd3 *e)
{
	if (e->srv[0] == '\0' || e->search != NULL || e->closing ||
		clock_boot_ms() < etcd_search_next_ms(e))
		return;
	e->search = calloc(1, sizeof(*e->search));
	if (e->search == NULL)
		return; /* the next call tries again */
	e->search->e = e;
	ask_service(e->search);
}

void etcd_search_drop(struct etcd3 *e)
{
	struct etcd_search *s = e->search;
	e->search = NULL;
	if (s == NULL)
		return;
	s->e = NULL;
	if (s->http != NULL) {
		/* No look-up is under way then that would come back. */
		http_cancel(s->http);
		free(s);
	}
}

enum err_code etcd_search_set(struct etcd3 *e, const json_t *section, struct err *err)
{
	static const char *const names[] = { "srv", "discovery_srv", "srv_domain" };
	const json_t *suffix = json_object_get(section, "srv_suffix");
	e->srv[0] = e->srv_suffix[0] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(names) && e->srv[0] == '\0'; i++) {
		const json_t *v = json_object_get(section, names[i]);
		const char *domain = json_string_value(v);
		if (v == NULL || json_is_null(v) || (domain != NULL && domain[0] == '\0'))
			continue;
		if (domain == NULL || !str_copy(e->srv, sizeof(e->srv), domain))
			return err_set(err, ERR_INVAL, 0,
				"etcd3.%s: a domain name of at most %zu bytes is allowed", names[i],
				sizeof(e->srv) - 1);
	}
	if (suffix != NULL && !json_is_null(suffix) &&
		!json_text(suffix, e->srv_suffix, sizeof(e->srv_suffix)))
		return err_set(err, ERR_INVAL, 0,
			"etcd3.srv_suffix: a text of at most %zu bytes is allowed",
			sizeof(e->srv_suffix) - 1);
	return ERR_OK;
}
