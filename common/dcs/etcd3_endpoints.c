/* Where etcd is: the configured seeds, and the members that it names itself (dcs 3.2). */
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/etcd3.h"
#include "common/ext/json.h"

void etcd_add_endpoint(char (*list)[LIMIT_URL], unsigned *count, const char *url)
{
	char clean[LIMIT_URL];
	if (!str_copy(clean, sizeof(clean), url))
		return;
	size_t n = strlen(clean);
	while (n > 0 && clean[n - 1] == '/')
		clean[--n] = '\0';
	for (unsigned i = 0; i < *count; i++) {
		if (strcmp(list[i], clean) == 0)
			return;
	}
	if (*count < ETCD_ENDPOINTS_MAX)
		memcpy(list[(*count)++], clean, sizeof(clean));
}

/* "h", "h:p", "[v6]:p" with a default port, or a URL, in which a user may stand. */
static void add_host(struct etcd3 *e, const char *host, int64_t port)
{
	char url[LIMIT_URL], scheme[8];
	while (*host == ' ' || *host == '\'' || *host == '"')
		host++;
	memcpy(scheme, e->protocol, sizeof(scheme));
	const char *sep = strstr(host, "://");
	if (sep != NULL) {
		if (!str_copy_n(scheme, sizeof(scheme), host, (size_t)(sep - host)))
			return;
		host = sep + 3;
	}
	size_t n = strcspn(host, " '\"/?#");
	const char *at = memchr(host, '@', n), *colon = NULL;
	if (at != NULL) {
		const char *p = memchr(host, ':', (size_t)(at - host));
		const char *end = p != NULL ? p : at;
		if (!str_copy_n(e->url_user, sizeof(e->url_user), host, (size_t)(end - host)) ||
			(p != NULL && !str_copy_n(e->url_password, sizeof(e->url_password), p + 1,
					      (size_t)(at - p - 1))))
			return;
		n -= (size_t)(at + 1 - host);
		host = at + 1;
	}
	for (size_t i = 0; i < n; i++)
		colon = host[i] == ':' ? host + i : host[i] == ']' ? NULL : colon;
	if (n == 0)
		return;
	bool fits = colon != NULL ? str_format(url, sizeof(url), "%s://%.*s", scheme, (int)n, host)
				  : str_format(url, sizeof(url), "%s://%.*s:%lld", scheme, (int)n,
					    host, (long long)port);
	if (fits)
		etcd_add_endpoint(e->seeds, &e->seed_count, url);
}

static void add_hosts(struct etcd3 *e, const json_t *hosts, int64_t port)
{
	if (json_is_string(hosts)) {
		const char *p = json_string_value(hosts);
		while (*p != '\0') {
			size_t n = strcspn(p, ",");
			char one[LIMIT_URL];
			if (str_copy_n(one, sizeof(one), p, n))
				add_host(e, one, port);
			p += n + (p[n] == ',');
		}
	}
	for (size_t i = 0; i < json_array_size(hosts); i++) {
		const char *h = json_string_value(json_array_get(hosts, i));
		if (h != NULL)
			add_host(e, h, port);
	}
}

enum err_code etcd_set_endpoints(struct etcd3 *e, const json_t *section, struct err *err)
{
	const char *protocol = json_path_str(section, "protocol");
	const char *url = json_path_str(section, "proxy");
	int64_t port = etcd_int(json_object_get(section, "port"));
	e->seed_count = 0;
	if (!str_copy(e->protocol, sizeof(e->protocol), protocol != NULL ? protocol : "http") ||
		(strcmp(e->protocol, "http") != 0 && strcmp(e->protocol, "https") != 0))
		return err_set(
			err, ERR_INVAL, 0, "etcd3.protocol %s: http or https is allowed", protocol);
	if (port == 0)
		port = 2379;
	e->fixed_endpoints = url != NULL || json_truthy(json_object_get(section, "use_proxies"));
	if (url == NULL)
		url = json_path_str(section, "url");
	enum err_code rc = etcd_search_set(e, section, err);
	if (rc != ERR_OK)
		return rc;
	if (json_path_str(section, "proxy") != NULL)
		e->srv[0] = '\0';
	if (e->srv[0] != '\0') {
		e->endpoint_count = 0;
		etcd_search_start(e);
		return ERR_OK;
	}
	if (json_object_get(section, "hosts") != NULL && !e->fixed_endpoints)
		add_hosts(e, json_object_get(section, "hosts"), port);
	else if (json_path_str(section, "host") != NULL && url == NULL)
		add_host(e, json_path_str(section, "host"), port);
	else if (url != NULL)
		add_host(e, url, port);
	if (e->seed_count == 0)
		add_hosts(e, json_object_get(section, "hosts"), port);
	if (e->seed_count == 0)
		return err_set(
			err, ERR_INVAL, 0, "etcd3: one of host, hosts, srv, url, proxy is needed");
	memcpy(e->endpoints, e->seeds, sizeof(e->endpoints));
	e->endpoint_count = e->seed_count;
	e->current = (unsigned)rng_below(&e->rng, e->endpoint_count);
	return ERR_OK;
}

static void on_topology(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	(void)arg;
	(void)sent_at_ms;
	(void)text;
	e->topology_running = false;
	if (a != ETCD_ANSWER_OK) {
		/* The old list stays; the seeds come back into it, lest all advertised addresses
		 * are wrong from here. */
		for (unsigned i = 0; i < e->seed_count; i++)
			etcd_add_endpoint(e->endpoints, &e->endpoint_count, e->seeds[i]);
		etcd_search_start(e);
		return;
	}
	char current[LIMIT_URL];
	memcpy(current, etcd_endpoint(e), sizeof(current));
	static char list[ETCD_ENDPOINTS_MAX][LIMIT_URL];
	unsigned count = 0;
	const json_t *members = json_object_get(body, "members");
	for (size_t i = 0; i < json_array_size(members); i++) {
		const json_t *urls = json_object_get(json_array_get(members, i), "clientURLs");
		for (size_t k = 0; k < json_array_size(urls); k++) {
			const char *u = json_string_value(json_array_get(urls, k));
			if (u != NULL)
				etcd_add_endpoint(list, &count, u);
		}
	}
	if (count == 0)
		return;
	memcpy(e->endpoints, list, sizeof(list));
	e->endpoint_count = count;
	e->topology_ms = clock_boot_ms();
	e->current = (unsigned)rng_below(&e->rng, count);
	for (unsigned i = 0; i < count; i++) {
		if (strcmp(e->endpoints[i], current) == 0)
			e->current = i;
	}
}

void etcd_refresh_topology(struct etcd3 *e)
{
	if (e->fixed_endpoints || e->topology_running || e->closing)
		return;
	e->topology_running = true;
	etcd_call(e, "/cluster/member/list", json_object(), clock_boot_ms() + e->retry_timeout_ms,
		ETCD_CURRENT, on_topology, NULL);
}
