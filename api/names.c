/* Host names in the loop. See names.h. */
#include "api/names.h"

#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define STALE_MS 60000 /* a member's name is looked up again after that */

void names_init(struct names *n, struct loop *loop)
{
	memset(n, 0, sizeof(*n));
	n->loop = loop;
}

void names_done(struct names *n)
{
	if (n->dns != NULL)
		dns_free(n->dns);
	n->dns = NULL;
}

static void on_answer(const struct dns_answer *a, void *arg)
{
	struct name_entry *e = arg;
	e->asking = false;
	if (a->count == 0) {
		log_warning("allowlist name=%s result=\"cannot be resolved\"", e->host);
		return;
	}
	e->addr_count = 0;
	for (unsigned i = 0; i < a->count && e->addr_count < NAMES_ADDRS; i++) {
		if (net_parse(a->addrs[i], &e->addrs[e->addr_count]))
			e->addr_count++;
	}
}

static void ask(struct names *n, struct name_entry *e, int64_t now_ms)
{
	struct err err = ERR_INIT;
	if (e->asking)
		return;
	e->asked_at_ms = now_ms;
	if (n->dns == NULL && dns_new(&n->dns, n->loop, &err) != ERR_OK) {
		log_error("allowlist: %s", err.text);
		return;
	}
	e->asking = true;
	dns_lookup(n->dns, e->host, on_answer, e);
}

static struct name_entry *entry(struct names *n, const char *host)
{
	struct name_entry *free_one = NULL, *oldest = NULL;
	for (unsigned i = 0; i < NAMES_MAX; i++) {
		struct name_entry *e = &n->entries[i];
		if (e->host[0] == '\0')
			free_one = e;
		else if (str_eq_nocase(e->host, host))
			return e;
		else if (!e->asking && (oldest == NULL || e->asked_at_ms < oldest->asked_at_ms))
			oldest = e;
	}
	struct name_entry *e = free_one != NULL ? free_one : oldest;
	if (e == NULL)
		return NULL;
	memset(e, 0, sizeof(*e));
	e->names = n;
	return str_copy(e->host, sizeof(e->host), host) ? e : NULL;
}

/* Known addresses of a host to out; asks when they are missing or old. */
static unsigned known(struct names *n, const char *host, struct net *out, unsigned room)
{
	if (room < NAMES_ADDRS)
		return 0;
	if (net_parse(host, out))
		return 1;
	int64_t now_ms = clock_boot_ms();
	struct name_entry *e = entry(n, host);
	if (e == NULL)
		return 0;
	if (e->asked_at_ms == 0 || now_ms - e->asked_at_ms > STALE_MS)
		ask(n, e, now_ms);
	memcpy(out, e->addrs, e->addr_count * sizeof(*out));
	return e->addr_count;
}

void names_reload(struct names *n, const struct api_settings *s)
{
	for (unsigned i = 0; i < s->name_count; i++) {
		struct name_entry *e = entry(n, s->names[i]);
		if (e != NULL)
			ask(n, e, clock_boot_ms());
	}
}

struct auth_nets names_allowlist(struct names *n, const struct api_settings *s)
{
	unsigned count = 0;
	for (unsigned i = 0; i < s->name_count; i++)
		count += known(n, s->names[i], n->allow + count, ARRAY_LEN(n->allow) - count);
	return (struct auth_nets){ n->allow, count };
}

static unsigned url_host(struct names *n, const json_t *url, struct net *out, unsigned room)
{
	const char *p = json_string_value(url);
	char host[256];
	p = p != NULL ? strstr(p, "://") : NULL;
	if (p == NULL)
		return 0;
	p += 3;
	size_t len = strcspn(p, ":/?#");
	if (*p == '[') {
		p++;
		len = strcspn(p, "]");
	}
	if (len == 0 || !str_copy_n(host, sizeof(host), p, len))
		return 0;
	return known(n, host, out, room);
}

struct auth_nets names_members(struct names *n, const json_t *cluster)
{
	unsigned count = 0;
	size_t i;
	json_t *v;
	json_array_foreach(json_object_get(cluster, "members"), i, v) count +=
		url_host(n, json_object_get(json_object_get(v, "data"), "api_url"),
			n->members + count, ARRAY_LEN(n->members) - count);
	json_array_foreach(json_object_get(cluster, "other_api_urls"), i, v) count +=
		url_host(n, v, n->members + count, ARRAY_LEN(n->members) - count);
	return (struct auth_nets){ n->members, count };
}
