/* The watched view of etcd v3: range, then a watch stream from that revision; broken streams are
 * rebuilt (dcs 4.2). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/etcd3.h"
#include "common/ext/json.h"

#define RETRY_MS  1000
#define PAGE_KEYS 1    /* in one answer, when all in one was too much: a key may have 1.5 MiB */
#define KEYS_MAX  4096 /* of a scope; more are not ours */

static void on_retry(struct loop *l, void *arg);
static void read_page(struct etcd3 *e);

void etcd_kvs_free(struct dcs_kv *kvs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		free(kvs[i].key);
		free(kvs[i].value);
	}
	free(kvs);
}

/* One kv of a range or an event; false: not below our prefix, or no memory. */
static bool read_kv(const struct etcd3 *e, const json_t *j, struct dcs_kv *out)
{
	size_t len = 0;
	const char *b64 = json_string_value(json_object_get(j, "key"));
	AUTO_FREE char *path = b64 != NULL ? etcd_unb64(b64, &len) : NULL;
	if (path == NULL || strlen(path) != len || !str_starts(path, e->prefix))
		return false;
	memset(out, 0, sizeof(*out));
	out->key = strdup(path + strlen(e->prefix));
	const json_t *value = json_object_get(j, "value");
	/* What nobody will read is not kept; its size says so (decode). */
	bool huge = json_string_length(value) / 4 * 3 > LIMIT_DCS_VALUE;
	out->value = etcd_unb64(
		json_is_string(value) && !huge ? json_string_value(value) : "", &out->value_len);
	if (huge)
		out->value_len = LIMIT_DCS_VALUE + 1;
	out->version = etcd_int(json_object_get(j, "mod_revision"));
	const char *lease = json_string_value(json_object_get(j, "lease"));
	if (lease != NULL && strcmp(lease, "0") != 0 &&
		!str_copy(out->session, sizeof(out->session), lease))
		out->session[0] = '\0';
	if (out->key == NULL || out->value == NULL) {
		free(out->key);
		free(out->value);
		return false;
	}
	return true;
}

int etcd_read_kvs(const struct etcd3 *e, const json_t *body, struct dcs_kv **out)
{
	const json_t *list = json_object_get(body, "kvs");
	size_t n = json_array_size(list);
	struct dcs_kv *kvs = calloc(n + 1, sizeof(*kvs));
	int count = 0;
	if (kvs == NULL)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (read_kv(e, json_array_get(list, i), &kvs[count]))
			count++;
	}
	*out = kvs;
	return count;
}

const struct dcs_kv *etcd_cache_peek(const struct etcd3 *e, const char *key)
{
	for (unsigned i = 0; i < e->kv_count; i++) {
		if (strcmp(e->kvs[i].key, key) == 0)
			return &e->kvs[i];
	}
	return NULL;
}

/* Takes kv over. Equal revisions overwrite: they fill in lease and value. */
static void cache_set(struct etcd3 *e, struct dcs_kv *kv)
{
	struct dcs_kv *old = (struct dcs_kv *)etcd_cache_peek(e, kv->key);
	if (old != NULL && old->version > kv->version) {
		free(kv->key);
		free(kv->value);
		return;
	}
	if (old != NULL) {
		free(old->key);
		free(old->value);
		*old = *kv;
		return;
	}
	if (e->kv_count == e->kv_cap) {
		unsigned cap = e->kv_cap != 0 ? e->kv_cap * 2 : 32;
		struct dcs_kv *kvs = realloc(e->kvs, cap * sizeof(*kvs));
		if (kvs == NULL) {
			free(kv->key);
			free(kv->value);
			return;
		}
		e->kvs = kvs;
		e->kv_cap = cap;
	}
	e->kvs[e->kv_count++] = *kv;
}

void etcd_cache_put(struct etcd3 *e, const char *key, const char *value, size_t len,
	int64_t revision, const char *lease)
{
	struct dcs_kv kv = {
		.key = strdup(key), .value = malloc(len + 1), .value_len = len, .version = revision
	};
	if (kv.key == NULL || kv.value == NULL || !e->current_view) {
		free(kv.key);
		free(kv.value);
		return;
	}
	memcpy(kv.value, value, len);
	kv.value[len] = '\0';
	if (!str_copy(kv.session, sizeof(kv.session), lease))
		kv.session[0] = '\0';
	cache_set(e, &kv);
	if (revision > e->revision)
		e->cache_revision = revision;
}

void etcd_cache_delete(struct etcd3 *e, const char *key, int64_t revision)
{
	struct dcs_kv *old = (struct dcs_kv *)etcd_cache_peek(e, key);
	if (old == NULL || old->version > revision)
		return;
	free(old->key);
	free(old->value);
	*old = e->kvs[--e->kv_count];
}

/* ---- events to the owner
 * -------------------------------------------------------------------------- */

static int64_t version_of(const struct etcd3 *e, const char *key)
{
	const struct dcs_kv *kv = etcd_cache_peek(e, key);
	return kv != NULL ? kv->version : 0;
}

void etcd_cache_publish(struct etcd3 *e)
{
	if (!e->current_view || e->watch_fn == NULL)
		return;
	struct cluster *c = decode_cluster(e->kvs, e->kv_count,
		e->cache_revision > e->revision ? e->cache_revision : e->revision, clock_boot_ms());
	if (c == NULL)
		return;
	/* A change of the leader key is one of its value, its owner, or its existence; renewals
	 * change nothing. */
	int64_t leader = version_of(e, "leader"), config = version_of(e, "config"),
		status = version_of(e, "status"), failover = version_of(e, "failover"),
		sync = version_of(e, "sync");
	uint64_t members = c->member_count;
	for (unsigned i = 0; i < e->kv_count; i++) {
		if (str_starts(e->kvs[i].key, "members/"))
			members = members * 31 + (uint64_t)e->kvs[i].version;
	}
	struct dcs_watch_event ev = { .current = true,
		.cluster = c,
		.leader_changed = leader != e->seen_leader,
		.config_changed = config != e->seen_config,
		.status_changed = status != e->seen_status,
		.failover_changed = failover != e->seen_failover,
		.sync_changed = sync != e->seen_sync,
		.members_changed = members != e->seen_members };
	e->seen_leader = leader;
	e->seen_config = config;
	e->seen_status = status;
	e->seen_failover = failover;
	e->seen_sync = sync;
	e->seen_members = members;
	e->watch_fn(&ev, e->watch_arg);
}

static void lost(struct etcd3 *e, const char *why)
{
	if (e->stream != NULL) {
		http_cancel(e->stream);
		e->stream = NULL;
	}
	buf_reset(&e->stream_buf);
	if (e->current_view) {
		e->current_view = false;
		log_info("etcd watch ended: %s", why);
		struct dcs_watch_event ev = { .current = false };
		if (e->watch_fn != NULL)
			e->watch_fn(&ev, e->watch_arg);
	}
	/* A stream that ends as soon as it begins (a proxy, a bad token) must not make us spin. */
	int64_t now_ms = clock_boot_ms(), pause_ms = e->watch_pause_ms;
	if (now_ms - e->stream_began_ms < RETRY_MS)
		pause_ms = RETRY_MS;
	if (!e->closing && e->watch_fn != NULL)
		loop_timer_set(e->loop, &e->watch_timer, now_ms + pause_ms, on_retry, e);
}

/* ---- stream
 * --------------------------------------------------------------------------------------- */

/* false: the stream is over. */
static bool take_events(struct etcd3 *e, const json_t *result)
{
	if (json_is_true(json_object_get(result, "canceled"))) {
		lost(e, "canceled by the server");
		return false;
	}
	const json_t *events = json_object_get(result, "events");
	size_t n = json_array_size(events);
	for (size_t i = 0; i < n; i++) {
		const json_t *ev = json_array_get(events, i);
		struct dcs_kv kv;
		if (!read_kv(e, json_object_get(ev, "kv"), &kv))
			continue;
		if (str_eq(json_string_value(json_object_get(ev, "type")), "DELETE")) {
			etcd_cache_delete(e, kv.key, kv.version);
			free(kv.key);
			free(kv.value);
		} else {
			cache_set(e, &kv);
		}
	}
	int64_t revision = etcd_int(json_path(result, "header.revision"));
	if (revision > e->revision)
		e->revision = revision;
	if (n > 0)
		etcd_cache_publish(e);
	return e->stream != NULL;
}

static bool take_line(struct etcd3 *e, const char *line, size_t len)
{
	struct err err = ERR_INIT;
	json_auto_t *doc = json_read(line, len, &err);
	if (doc == NULL || json_object_get(doc, "error") != NULL) {
		lost(e, doc == NULL ? err.text : "error from the server");
		return false;
	}
	if (!etcd_header_ok(e, doc)) {
		etcd_next_endpoint(e);
		lost(e, "stale etcd member (lower raft term)");
		return false;
	}
	return take_events(e, json_object_get(doc, "result"));
}

static bool on_chunk(const char *bytes, size_t len, void *arg)
{
	struct etcd3 *e = arg;
	size_t seen = e->stream_buf.len; /* without an end of line */
	buf_add(&e->stream_buf, bytes, len);
	if (e->stream_buf.failed) {
		lost(e, "message too large");
		return false;
	}
	for (;;) {
		const char *nl = e->stream_buf.len > seen ? memchr(e->stream_buf.data + seen, '\n',
								    e->stream_buf.len - seen)
							  : NULL;
		if (nl == NULL)
			return true;
		size_t n = (size_t)(nl - e->stream_buf.data);
		if (n > 0 && !take_line(e, e->stream_buf.data, n))
			return false;
		buf_consume(&e->stream_buf, n + 1);
		seen = 0;
	}
}

static void on_stream_end(const struct http_reply *r, void *arg)
{
	struct etcd3 *e = arg;
	e->stream = NULL;
	if (r->status == 0)
		etcd_next_endpoint(e);
	lost(e, r->status == 0 ? r->text : "end of stream");
}

static void open_stream(struct etcd3 *e)
{
	char end[3 * LIMIT_NAME], revision[24], url[LIMIT_URL + 32], auth[ETCD_TOKEN_MAX + 24];
	memcpy(end, e->prefix, sizeof(end));
	end[strlen(end) - 1]++;
	if (!str_format(revision, sizeof(revision), "%lld", (long long)e->revision) ||
		!str_format(url, sizeof(url), "%s%s/watch", etcd_endpoint(e), e->api))
		return;
	json_auto_t *body = json_pack("{s:{s:o,s:o,s:s,s:[]}}", "create_request", "key",
		etcd_b64_json(e->prefix), "range_end", etcd_b64_json(end), "start_revision",
		revision, "filters");
	AUTO_FREE char *text = json_compact(body);
	struct http_request req = { .method = "POST",
		.url = url,
		.body = text,
		.body_len = strlen(text),
		.connect_ms = e->retry_timeout_ms,
		.fresh = true };
	etcd_http_request(e, &req);
	if (e->token[0] != '\0' && str_format(auth, sizeof(auth), "authorization: %s", e->token))
		req.headers[0] = auth;
	buf_reset(&e->stream_buf);
	e->stream_began_ms = clock_boot_ms();
	e->stream = http_send(e->http, &req, on_stream_end, on_chunk, e);
}

static void read_failed(struct etcd3 *e, enum etcd_answer a, const char *text)
{
	bool at_once = a == ETCD_ANSWER_TOO_LARGE && !e->paged;
	/* It may have been too large, or too much for the time: now in pages. */
	e->paged = true;
	if (at_once) {
		if (!e->large_told)
			log_warning("the scope in etcd is read in pages: %s", text);
		e->large_told = true;
		read_page(e);
		return;
	}
	e->reading = false;
	e->watch_pause_ms = RETRY_MS;
	e->current_view = false;
	if (!e->read_failed)
		log_warning("etcd cannot be read: %s", text);
	e->read_failed = true;
	struct dcs_watch_event ev = { .current = false };
	e->watch_fn(&ev, e->watch_arg);
	loop_timer_set(e->loop, &e->watch_timer, clock_boot_ms() + RETRY_MS, on_retry, e);
}

/* Where the next page begins: just after the last key, which may be one that we skip. */
static bool page_next(struct etcd3 *e, const json_t *body)
{
	const json_t *list = json_object_get(body, "kvs");
	const json_t *last = json_array_get(list, json_array_size(list) - 1);
	size_t len = 0;
	const char *b64 = json_string_value(json_object_get(last, "key"));
	AUTO_FREE char *key = b64 != NULL ? etcd_unb64(b64, &len) : NULL;
	free(e->page_from);
	e->page_from = key != NULL ? etcd_b64(key, len + 1) : NULL; /* with its zero */
	return e->page_from != NULL;
}

/* Takes kvs over. */
static bool page_add(struct etcd3 *e, struct dcs_kv *kvs, unsigned n)
{
	struct dcs_kv *all = NULL;
	if (e->page_count + n <= KEYS_MAX)
		all = realloc(e->page_kvs, (e->page_count + n + 1) * sizeof(*all));
	if (all == NULL) {
		etcd_kvs_free(kvs, n);
		return false;
	}
	memcpy(all + e->page_count, kvs, n * sizeof(*kvs));
	free(kvs);
	e->page_kvs = all;
	e->page_count += n;
	return true;
}

void etcd_pages_drop(struct etcd3 *e)
{
	etcd_kvs_free(e->page_kvs, e->page_count);
	free(e->page_from);
	e->page_kvs = NULL;
	e->page_from = NULL;
	e->page_count = 0;
	e->page_revision = 0;
}

static void on_range(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	(void)arg;
	(void)sent_at_ms;
	if (e->watch_fn == NULL || e->closing) {
		e->reading = false;
		return;
	}
	struct dcs_kv *kvs = NULL;
	int n = a == ETCD_ANSWER_OK ? etcd_read_kvs(e, body, &kvs) : -1;
	if (n < 0 || !page_add(e, kvs, (unsigned)n)) {
		read_failed(e, a, n < 0 ? text : "too many keys, or no memory");
		return;
	}
	if (e->page_revision == 0)
		e->page_revision = etcd_int(json_path(body, "header.revision"));
	if (json_is_true(json_object_get(body, "more"))) {
		if (page_next(e, body))
			read_page(e);
		else
			read_failed(e, a, "a page without a key");
		return;
	}
	e->reading = false;
	e->large_told = e->large_told && e->paged;
	e->read_failed = e->paged = false;
	e->watch_pause_ms = 0;
	etcd_kvs_free(e->kvs, e->kv_count);
	e->kvs = e->page_kvs;
	e->kv_count = e->kv_cap = e->page_count;
	e->revision = e->page_revision;
	e->page_kvs = NULL;
	e->page_count = 0;
	e->current_view = true;
	open_stream(e);
	etcd_cache_publish(e);
}

/* All keys in one answer, or PAGE_KEYS of them, as of the revision of the first page. */
static void read_page(struct etcd3 *e)
{
	char end[3 * LIMIT_NAME], revision[24];
	memcpy(end, e->prefix, sizeof(end));
	end[strlen(end) - 1]++;
	snprintf(revision, sizeof(revision), "%lld", (long long)e->page_revision);
	json_t *from = e->page_from != NULL ? json_string(e->page_from) : etcd_b64_json(e->prefix);
	/* Linearizable: a view that decisions rest on must not come from a member that is behind.
	 */
	json_t *body = json_pack("{s:o,s:o}", "key", from, "range_end", etcd_b64_json(end));
	if (e->paged)
		json_object_set_new(body, "limit", json_integer(PAGE_KEYS));
	if (e->page_revision != 0)
		json_object_set_new(body, "revision", json_string(revision));
	etcd_call(e, "/kv/range", body, clock_boot_ms() + e->retry_timeout_ms, ETCD_CURRENT,
		on_range, NULL);
}

void etcd_watch_start(struct etcd3 *e)
{
	if (e->reading || e->stream != NULL)
		return;
	e->reading = true;
	etcd_pages_drop(e);
	read_page(e);
}

static void on_retry(struct loop *l, void *arg)
{
	(void)l;
	etcd_watch_start(arg);
}

void etcd_watch_stop(struct etcd3 *e)
{
	loop_timer_stop(e->loop, &e->watch_timer);
	e->watch_fn = NULL;
	if (e->stream != NULL)
		http_cancel(e->stream);
	e->stream = NULL;
	e->current_view = false;
}

void etcd_watch_doubt(struct etcd3 *e, const char *why)
{
	if (e->watch_fn != NULL && e->stream != NULL) {
		e->watch_pause_ms = RETRY_MS;
		lost(e, why);
	}
}

void etcd_watch_restart(struct etcd3 *e, const char *why)
{
	if (e->watch_fn == NULL || e->stream == NULL || e->closing)
		return;
	e->watch_pause_ms = 0;
	http_cancel(e->stream);
	e->stream = NULL;
	buf_reset(&e->stream_buf);
	log_debug("etcd watch is rebuilt: %s", why);
	/* The view stays current while it is read anew: it is no older than it was. */
	loop_timer_set(e->loop, &e->watch_timer, clock_boot_ms(), on_retry, e);
}
