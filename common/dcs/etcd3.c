/* The etcd v3 backend: lease and operations (dcs 3.3, DESIGN 2). The leader key is never compared
 * by value: by my lease where I write as the holder, by revision where a new incarnation takes it
 * over. */
#include "common/dcs/etcd3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"

static void op_run(struct etcd_op *o);

/* ---- base64
 * --------------------------------------------------------------------------------------- */

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *etcd_b64(const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	char *out = malloc((len + 2) / 3 * 4 + 1);
	size_t n = 0;
	for (size_t i = 0; out != NULL && i < len; i += 3) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < len ? (unsigned)p[i + 1] << 8 : 0) |
			     (i + 2 < len ? p[i + 2] : 0);
		out[n++] = b64[v >> 18];
		out[n++] = b64[v >> 12 & 63];
		out[n++] = i + 1 < len ? b64[v >> 6 & 63] : '=';
		out[n++] = i + 2 < len ? b64[v & 63] : '=';
	}
	if (out != NULL)
		out[n] = '\0';
	return out;
}

char *etcd_unb64(const char *text, size_t *out_len)
{
	size_t len = strlen(text), n = 0;
	char *out = malloc(len / 4 * 3 + 4);
	unsigned v = 0;
	int bits = 0;
	for (size_t i = 0; out != NULL && i < len && text[i] != '='; i++) {
		const char *at = strchr(b64, text[i]);
		if (at == NULL)
			break;
		v = v << 6 | (unsigned)(at - b64);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[n++] = (char)(v >> bits & 0xff);
		}
	}
	if (out != NULL)
		out[n] = '\0';
	*out_len = n;
	return out;
}

json_t *etcd_b64_json(const char *text)
{
	AUTO_FREE char *s = etcd_b64(text, strlen(text));
	return json_string(s);
}

/* ---- bodies
 * --------------------------------------------------------------------------------------- */

static json_t *key_json(const struct etcd3 *e, const char *key)
{
	char path[4 * LIMIT_NAME];
	bool fits = str_format(path, sizeof(path), "%s%s", e->prefix, key);
	INVARIANT(fits);
	return etcd_b64_json(path);
}

static json_t *compare_lease(const struct etcd3 *e, const char *lease)
{
	return json_pack(
		"{s:s,s:s,s:o}", "target", "LEASE", "lease", lease, "key", key_json(e, "leader"));
}

static json_t *compare_mod(const struct etcd3 *e, const char *key, int64_t version)
{
	char text[24];
	snprintf(text, sizeof(text), "%lld", (long long)version);
	return json_pack(
		"{s:s,s:s,s:o}", "target", "MOD", "mod_revision", text, "key", key_json(e, key));
}

static json_t *compare_absent(const struct etcd3 *e, const char *key)
{
	return json_pack("{s:s,s:s,s:o}", "target", "CREATE", "create_revision", "0", "key",
		key_json(e, key));
}

static json_t *put_json(
	const struct etcd3 *e, const char *key, const char *value, const char *lease)
{
	json_t *p = json_pack("{s:o,s:o}", "key", key_json(e, key), "value", etcd_b64_json(value));
	if (lease != NULL)
		json_object_set_new(p, "lease", json_string(lease));
	return p;
}

static json_t *txn(json_t *compare, json_t *success)
{
	return json_pack("{s:o,s:o}", "compare", compare, "success", success);
}

/* ---- lease
 * ---------------------------------------------------------------------------------------- */

static void drop_lease(struct etcd3 *e)
{
	e->lease[0] = '\0';
	e->lease_ttl_ms = 0;
	e->lease_used_ms = 0;
}

static void finish_op(struct etcd_op *o, enum dcs_outcome outcome, const char *text,
	int64_t version, struct cluster *cluster, bool lease_gone)
{
	struct dcs_event ev = { .id = o->id,
		.kind = o->op.kind,
		.outcome = outcome,
		.sent_at_ms = o->sent_at_ms,
		.version = version,
		.lease_gone = lease_gone,
		.cluster = cluster };
	if (outcome == DCS_OK && o->granted_ttl_ms != 0) {
		int64_t ttl_ms = o->e->ttl_ms;
		ev.lease_ttl_ms = o->granted_ttl_ms < ttl_ms ? o->granted_ttl_ms : ttl_ms;
	}
	if (!str_copy_n(ev.text, sizeof(ev.text), text, sizeof(ev.text) - 1))
		ev.text[0] = '\0';
	dcs_done_fn fn = o->fn;
	void *arg = o->arg;
	*o->prev_next = o->next;
	if (o->next != NULL)
		o->next->prev_next = o->prev_next;
	free(o->value);
	free(o);
	fn(&ev, arg);
}

static void release_lease_waiters(struct etcd3 *e, enum dcs_outcome outcome, const char *text)
{
	struct etcd_op *list = e->lease_waiters;
	e->lease_waiters = NULL;
	while (list != NULL) {
		struct etcd_op *o = list;
		list = o->next_waiter;
		if (outcome == DCS_OK) {
			o->sent_at_ms = e->lease_used_ms;
			o->granted_ttl_ms = e->lease_ttl_ms;
			op_run(o);
		} else {
			finish_op(o, outcome, text, 0, NULL, false);
		}
	}
}

static void on_grant(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	(void)arg;
	e->lease_granting = false;
	const char *id = json_string_value(json_object_get(body, "ID"));
	int64_t ttl = etcd_int(json_object_get(body, "TTL"));
	if (a == ETCD_ANSWER_OK && id != NULL && ttl > 0 &&
		str_copy(e->lease, sizeof(e->lease), id)) {
		e->lease_ttl_ms = ttl * 1000;
		e->lease_used_ms = sent_at_ms;
		release_lease_waiters(e, DCS_OK, "");
	} else {
		release_lease_waiters(e, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text);
	}
}

/* The operation goes on when there is a lease. A lease that was lost in between is no lease: the
 * new one is granted. */
static void grant_then(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	o->next_waiter = e->lease_waiters;
	e->lease_waiters = o;
	if (e->lease_granting)
		return;
	e->lease_granting = true;
	e->lease_asked_ttl_ms = e->ttl_ms;
	etcd_call(e, "/lease/grant", json_pack("{s:I}", "TTL", (json_int_t)(e->ttl_ms / 1000)),
		o->op.deadline_ms, false, on_grant, NULL);
}

static void on_keepalive(struct etcd3 *e, enum etcd_answer a, const json_t *body,
	int64_t sent_at_ms, const char *text, void *arg)
{
	struct etcd_op *o = arg;
	int64_t ttl = etcd_int(json_path(body, "result.TTL"));
	if (a == ETCD_ANSWER_OK && ttl > 0) {
		if (strcmp(o->lease, e->lease) == 0) {
			e->lease_ttl_ms = ttl * 1000;
			if (sent_at_ms > e->lease_used_ms)
				e->lease_used_ms = sent_at_ms;
		}
		o->sent_at_ms = sent_at_ms;
		o->granted_ttl_ms = ttl * 1000;
		op_run(o);
		return;
	}
	if (a == ETCD_ANSWER_OK || a == ETCD_ANSWER_LEASE_GONE) {
		/* Without TTL: expired (dcs 3.3). */
		if (strcmp(o->lease, e->lease) == 0)
			drop_lease(e);
		if (o->op.kind == DCS_RENEW)
			finish_op(o, DCS_CONFLICT, "the lease has expired", 0, NULL, true);
		else
			grant_then(o);
		return;
	}
	finish_op(o, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text, 0, NULL, false);
}

static void keepalive_then(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	memcpy(o->lease, e->lease, sizeof(o->lease));
	etcd_call(e, "/lease/keepalive", json_pack("{s:s}", "ID", o->lease), o->op.deadline_ms,
		o->op.other_endpoint, on_keepalive, o);
}

/* A replica's lease carries its member key: kept alive on a timer while nothing else does it. */
static void on_idle_keepalive(struct etcd3 *e, enum etcd_answer a, const json_t *body,
	int64_t sent_at_ms, const char *text, void *arg)
{
	(void)arg;
	(void)text;
	int64_t ttl = etcd_int(json_path(body, "result.TTL"));
	const char *id = json_string_value(json_path(body, "result.ID"));
	if (a == ETCD_ANSWER_OK && ttl > 0 && str_eq(id, e->lease)) {
		e->lease_ttl_ms = ttl * 1000;
		if (sent_at_ms > e->lease_used_ms)
			e->lease_used_ms = sent_at_ms;
	} else if (a == ETCD_ANSWER_OK || a == ETCD_ANSWER_LEASE_GONE) {
		log_info("etcd lease has expired");
		drop_lease(e);
	} else if (a == ETCD_ANSWER_UNKNOWN) {
		etcd_watch_doubt(e, "a keepalive went unanswered");
	}
}

/* The leader key is under my present lease, as far as the view knows. */
static bool leads(const struct etcd3 *e)
{
	const struct dcs_kv *kv = etcd_cache_peek(e, "leader");
	return kv != NULL && e->lease[0] != '\0' && strcmp(kv->session, e->lease) == 0;
}

static void on_lease_timer(struct loop *l, void *arg)
{
	struct etcd3 *e = arg;
	int64_t now_ms = clock_boot_ms(), every_ms = e->ttl_ms / 3;
	/* A leader's lease is renewed by DCS_RENEW alone: whoever stops renewing wants the key to run out. */
	if (e->lease[0] != '\0' && !leads(e) && e->lease_asked_ttl_ms == e->ttl_ms &&
		now_ms - e->lease_used_ms >= every_ms - 50)
		etcd_call(e, "/lease/keepalive", json_pack("{s:s}", "ID", e->lease),
			now_ms + e->retry_timeout_ms, false, on_idle_keepalive, NULL);
	if (e->topology_ms == 0 || now_ms - e->topology_ms > e->ttl_ms * 10)
		etcd_refresh_topology(e);
	/* Half a period off the leader's own renewals, so that they are seen before the timer
	 * fires. */
	int64_t next_ms = e->lease_used_ms + every_ms;
	if (next_ms < now_ms + every_ms / 4)
		next_ms = now_ms + every_ms;
	loop_timer_set(l, &e->lease_timer, next_ms + 300, on_lease_timer, e);
}

/* ---- operations
 * ----------------------------------------------------------------------------------- */

static const char *key_of(const struct etcd_op *o, char *buf, size_t len)
{
	switch (o->op.kind) {
	case DCS_INIT_RACE:
	case DCS_INIT_SET:
	case DCS_INIT_CANCEL: return "initialize";
	case DCS_SET_CONFIG: return "config";
	case DCS_SET_STATUS: return "status";
	case DCS_SET_FAILSAFE: return "failsafe";
	case DCS_SET_HISTORY: return "history";
	case DCS_SET_FAILOVER: return "failover";
	case DCS_SET_SYNC:
	case DCS_DELETE_SYNC: return "sync";
	case DCS_TOUCH_MEMBER:
		return str_format(buf, len, "members/%s", o->e->name) ? buf : "members/";
	default: return "leader";
	}
}

static bool uses_lease(enum dcs_op_kind kind)
{
	return kind == DCS_ACQUIRE || kind == DCS_ADOPT || kind == DCS_TAKE ||
	       kind == DCS_TOUCH_MEMBER || kind == DCS_RENEW;
}

static bool is_delete(enum dcs_op_kind kind)
{
	return kind == DCS_RELEASE || kind == DCS_DELETE_SYNC || kind == DCS_INIT_CANCEL;
}

/* What the cache learns from a success of ours. */
static void learn(struct etcd_op *o, int64_t revision)
{
	char buf[LIMIT_NAME + 16];
	struct etcd3 *e = o->e;
	const char *key = key_of(o, buf, sizeof(buf));
	if (e->is_ctl || revision == 0 || o->op.kind == DCS_RENEW ||
		o->op.kind == DCS_DELETE_CLUSTER)
		return;
	if (is_delete(o->op.kind))
		etcd_cache_delete(e, key, revision);
	else
		etcd_cache_put(e, key, o->value != NULL ? o->value : "",
			o->value != NULL ? strlen(o->value) : 0, revision,
			uses_lease(o->op.kind) ? o->lease : "");
}

static void on_done(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	struct etcd_op *o = arg;
	if (o->sent_at_ms == 0)
		o->sent_at_ms = sent_at_ms;
	if (a == ETCD_ANSWER_LEASE_GONE && !o->retried && o->op.kind != DCS_RENEW &&
		o->op.deadline_ms - clock_boot_ms() >= 1000) {
		if (strcmp(o->lease, e->lease) == 0)
			drop_lease(e);
		o->retried = true;
		grant_then(o);
		return;
	}
	if (a == ETCD_ANSWER_LEASE_GONE) {
		if (strcmp(o->lease, e->lease) == 0)
			drop_lease(e);
		finish_op(o, DCS_CONFLICT, text, 0, NULL, true);
		return;
	}
	if (a != ETCD_ANSWER_OK) {
		finish_op(o, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text, 0, NULL,
			false);
		return;
	}
	int64_t revision = etcd_int(json_path(body, "header.revision"));
	bool succeeded = json_is_true(json_object_get(body, "succeeded"));
	if (o->op.kind == DCS_RENEW && !succeeded) {
		const json_t *inner = json_object_get(
			json_array_get(json_object_get(body, "responses"), 0), "response_txn");
		if (json_is_true(json_object_get(inner, "succeeded"))) {
			log_info("leader key moved to a lease with the new ttl");
			e->old_lease[0] = '\0';
			o->value = strdup(e->name);
			char none[LIMIT_NAME + 16];
			etcd_cache_put(e, key_of(o, none, sizeof(none)), e->name, strlen(e->name), revision, o->lease);
			finish_op(o, DCS_OK, "", revision, NULL, false);
			etcd_cache_publish(e);
			return;
		}
	}
	if (o->is_txn && !succeeded) {
		etcd_watch_restart(e, "a compare failed: the view may be old");
		finish_op(o, DCS_CONFLICT, "a compare failed", 0, NULL, false);
		return;
	}
	if (o->op.kind == DCS_RENEW) {
		e->old_lease[0] = '\0';
		/* The revision of the key, not of the store: a release compares it. */
		const json_t *range = json_object_get(
			json_array_get(json_object_get(body, "responses"), 0), "response_range");
		const json_t *kv = json_array_get(json_object_get(range, "kvs"), 0);
		revision = etcd_int(json_object_get(kv, "mod_revision"));
	}
	learn(o, revision);
	/* The answer first, then the view that shows it: whoever asked must not see its own key as a stranger's. */
	bool closing = e->closing;
	finish_op(o, DCS_OK, "", revision, NULL, false);
	if (!closing)
		etcd_cache_publish(e);
}

static void on_read(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	struct etcd_op *o = arg;
	o->sent_at_ms = sent_at_ms;
	if (a != ETCD_ANSWER_OK) {
		finish_op(o, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text, 0, NULL,
			false);
		return;
	}
	struct dcs_kv *kvs = NULL;
	int n = etcd_read_kvs(e, body, &kvs);
	struct cluster *c =
		n < 0 ? NULL
		      : decode_cluster(kvs, (unsigned)n,
				etcd_int(json_path(body, "header.revision")), sent_at_ms);
	etcd_kvs_free(kvs, n < 0 ? 0 : (unsigned)n);
	if (c == NULL)
		finish_op(o, DCS_UNKNOWN, "no memory", 0, NULL, false);
	else
		finish_op(o, DCS_OK, "", c->revision, c, false);
}

static json_t *range_json(const struct etcd3 *e)
{
	char end[3 * LIMIT_NAME];
	memcpy(end, e->prefix, sizeof(end));
	end[strlen(end) - 1]++; /* '/' to '0' */
	return json_pack(
		"{s:o,s:o}", "key", etcd_b64_json(e->prefix), "range_end", etcd_b64_json(end));
}

/* The compares of a write: my lease on the leader key, and the revision or absence of the key
 * itself. */
static json_t *compares_of(struct etcd_op *o, const char *key)
{
	json_t *list = json_array();
	const struct dcs_op *op = &o->op;
	if (op->leader_only || op->kind == DCS_SET_STATUS || op->kind == DCS_SET_FAILSAFE ||
		op->kind == DCS_SET_HISTORY)
		json_array_append_new(
			list, compare_lease(o->e, o->e->lease[0] != '\0' ? o->e->lease : "-1"));
	if (op->create || op->kind == DCS_INIT_RACE ||
		(op->kind == DCS_SET_SYNC && op->version == -1))
		json_array_append_new(list, compare_absent(o->e, key));
	else if (op->version > 0)
		json_array_append_new(list, compare_mod(o->e, key, op->version));
	return list;
}

static void send_write(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	char buf[LIMIT_NAME + 16];
	const char *key = key_of(o, buf, sizeof(buf));
	json_t *compare = compares_of(o, key);
	o->is_txn = json_array_size(compare) > 0;
	if (is_delete(o->op.kind)) {
		json_t *del = json_pack("{s:o}", "key", key_json(e, key));
		if (o->is_txn)
			etcd_call(e, "/kv/txn",
				txn(compare, json_pack("[{s:o}]", "request_delete_range", del)),
				o->op.deadline_ms, false, on_done, o);
		else
			etcd_call(e, "/kv/deleterange", del, o->op.deadline_ms, false, on_done, o);
	} else {
		json_t *put = put_json(e, key, o->value != NULL ? o->value : "",
			o->op.kind == DCS_TOUCH_MEMBER ? o->lease : NULL);
		if (o->is_txn)
			etcd_call(e, "/kv/txn",
				txn(compare, json_pack("[{s:o}]", "request_put", put)),
				o->op.deadline_ms, false, on_done, o);
		else
			etcd_call(e, "/kv/put", put, o->op.deadline_ms, false, on_done, o);
	}
	if (!o->is_txn)
		json_decref(compare);
}

/* Operations on the leader key. The lease is alive: it was granted or kept alive just before. */
static void send_leader(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	json_t *put = json_pack("{s:o}", "request_put", put_json(e, "leader", e->name, o->lease));
	json_t *body;
	o->is_txn = true;
	switch (o->op.kind) {
	case DCS_ACQUIRE:
		body = txn(json_pack("[o]", compare_absent(e, "leader")), json_pack("[o]", put));
		break;
	case DCS_ADOPT:
		body = txn(json_pack("[o]", compare_mod(e, "leader", o->op.version)),
			json_pack("[o]", put));
		break;
	case DCS_TAKE:
		o->is_txn = false;
		body = json_incref(json_object_get(put, "request_put"));
		json_decref(put);
		break;
	default: /* DCS_RENEW: the key is mine, as of now, by a linearizable read */
		body = txn(json_pack("[o]", compare_lease(e, o->lease)),
			json_pack("[{s:{s:o,s:b}}]", "request_range", "key", key_json(e, "leader"), "keys_only", 1));
		if (e->old_lease[0] != '\0') {
			/* After a change of ttl: still under the old lease, it moves to the new one. */
			json_t *move = txn(json_pack("[o]", compare_lease(e, e->old_lease)), json_pack("[O]", put));
			json_object_set_new(body, "failure", json_pack("[{s:o}]", "request_txn", move));
		}
		json_decref(put);
		break;
	}
	etcd_call(e, o->is_txn ? "/kv/txn" : "/kv/put", body, o->op.deadline_ms,
		o->op.other_endpoint, on_done, o);
}

/* First or next step of an operation. */
static void op_run(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	if (uses_lease(o->op.kind)) {
		if (e->lease[0] == '\0') {
			if (o->op.kind == DCS_RENEW)
				finish_op(o, DCS_CONFLICT, "there is no lease", 0, NULL, true);
			else
				grant_then(o);
			return;
		}
		bool fresh = o->granted_ttl_ms != 0;
		bool other_ttl = e->lease_asked_ttl_ms != e->ttl_ms;
		if (other_ttl && !fresh && (o->op.kind == DCS_RENEW ? !e->lease_granting : !leads(e))) {
			/* ttl changed: a new lease. The leader key moves to it by the renewal, and by nothing
			 * else, so that it is never without an owner; until then the old lease holds it. */
			if (o->op.kind == DCS_RENEW)
				memcpy(e->old_lease, e->lease, sizeof(e->old_lease));
			drop_lease(e);
			grant_then(o);
			return;
		}
		if (o->op.kind == DCS_TOUCH_MEMBER)
			fresh = true; /* a member key may rest on what is left of the lease */
		if (!fresh) {
			keepalive_then(o);
			return;
		}
		memcpy(o->lease, e->lease, sizeof(o->lease));
		if (o->op.kind == DCS_TOUCH_MEMBER)
			send_write(o);
		else
			send_leader(o);
		return;
	}
	switch (o->op.kind) {
	case DCS_READ:
		etcd_call(e, "/kv/range", range_json(e), o->op.deadline_ms, false, on_read, o);
		break;
	case DCS_DELETE_CLUSTER:
		etcd_call(
			e, "/kv/deleterange", range_json(e), o->op.deadline_ms, false, on_done, o);
		break;
	case DCS_RELEASE:
		/* With .version: at that revision; the lease is compared in any case. */
		o->op.leader_only = true;
		send_write(o);
		break;
	default: send_write(o); break;
	}
}

static void on_start(struct loop *l, void *arg)
{
	(void)l;
	op_run(arg);
}

static uint64_t etcd3_submit(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg)
{
	struct etcd3 *e = (struct etcd3 *)d;
	struct etcd_op *o = calloc(1, sizeof(*o));
	INVARIANT(o != NULL);
	o->e = e;
	o->id = ++e->next_id;
	o->op = *op;
	o->op.value = NULL;
	const char *value = op->kind == DCS_ACQUIRE || op->kind == DCS_TAKE || op->kind == DCS_ADOPT
				    ? e->name
				    : op->value;
	o->value = value != NULL ? strdup(value) : NULL;
	o->fn = fn;
	o->arg = arg;
	if (o->op.deadline_ms == 0)
		o->op.deadline_ms = clock_boot_ms() + e->retry_timeout_ms;
	o->next = e->ops;
	if (o->next != NULL)
		o->next->prev_next = &o->next;
	o->prev_next = &e->ops;
	e->ops = o;
	loop_timer_set(e->loop, &o->timer, clock_boot_ms(), on_start, o);
	return o->id;
}

/* ---- open, settings, close
 * ------------------------------------------------------------------------ */

static void take_text(char *dst, size_t len, const json_t *section, const char *key)
{
	const char *s = json_path_str(section, key);
	if (s == NULL || !str_copy(dst, len, s))
		dst[0] = '\0';
}

static enum err_code etcd3_reconfigure(struct dcs *d, const struct dcs_config *cfg, struct err *err)
{
	(void)err;
	struct etcd3 *e = (struct etcd3 *)d;
	char user[sizeof(e->username)], password[sizeof(e->password)];
	memcpy(user, e->username, sizeof(user));
	memcpy(password, e->password, sizeof(password));
	e->ttl_ms = cfg->ttl_ms;
	e->loop_wait_ms = cfg->loop_wait_ms;
	e->retry_timeout_ms = cfg->retry_timeout_ms;
	take_text(e->username, sizeof(e->username), cfg->section, "username");
	take_text(e->password, sizeof(e->password), cfg->section, "password");
	if (strcmp(user, e->username) != 0 || strcmp(password, e->password) != 0)
		e->token[0] = '\0';
	return ERR_OK;
}

static void etcd3_close(struct dcs *d)
{
	struct etcd3 *e = (struct etcd3 *)d;
	e->closing = true;
	etcd_watch_stop(e);
	loop_timer_stop(e->loop, &e->lease_timer);
	while (e->ops != NULL) {
		/* Calls answer their operations; what has no call yet ends here. */
		etcd_calls_drop(e);
		if (e->ops != NULL) {
			loop_timer_stop(e->loop, &e->ops->timer);
			e->lease_waiters = NULL;
			finish_op(e->ops, DCS_UNKNOWN, "closed", 0, NULL, false);
		}
	}
	etcd_calls_drop(e);
	etcd_kvs_free(e->kvs, e->kv_count);
	buf_done(&e->stream_buf);
	free(e);
}

static enum err_code etcd3_open(struct dcs **out, const struct dcs_config *cfg, struct loop *loop,
	struct http *http, struct err *err)
{
	struct etcd3 *e = calloc(1, sizeof(*e));
	if (e == NULL)
		return err_set(err, ERR_NOMEM, 0, "etcd3");
	e->base.ops = &dcs_etcd3;
	e->loop = loop;
	e->http = http;
	e->is_ctl = cfg->is_ctl;
	e->stream_buf.max = LIMIT_DCS_TREE;
	rng_seed_random(&e->rng);
	enum err_code rc = dcs_prefix(cfg, e->prefix, sizeof(e->prefix), err);
	if (rc == ERR_OK && !str_copy(e->name, sizeof(e->name), cfg->name))
		rc = err_set(err, ERR_LIMIT, 0, "name is too long: %s", cfg->name);
	take_text(e->cacert, sizeof(e->cacert), cfg->section, "cacert");
	take_text(e->cert, sizeof(e->cert), cfg->section, "cert");
	take_text(e->key, sizeof(e->key), cfg->section, "key");
	if (rc == ERR_OK)
		rc = etcd_set_endpoints(e, cfg->section, err);
	if (rc != ERR_OK) {
		free(e);
		return rc;
	}
	etcd3_reconfigure((struct dcs *)e, cfg, err);
	if (!e->is_ctl)
		loop_timer_set(loop, &e->lease_timer, clock_boot_ms() + 1000, on_lease_timer, e);
	*out = (struct dcs *)e;
	return ERR_OK;
}

static void etcd3_watch(struct dcs *d, dcs_watch_fn fn, void *arg)
{
	struct etcd3 *e = (struct etcd3 *)d;
	etcd_watch_stop(e);
	e->watch_fn = fn;
	e->watch_arg = arg;
	if (fn != NULL)
		etcd_watch_start(e);
}

static const char *etcd3_session(struct dcs *d)
{
	return ((struct etcd3 *)d)->lease;
}

const struct dcs_ops dcs_etcd3 = {
	.name = "etcd3",
	.open = etcd3_open,
	.reconfigure = etcd3_reconfigure,
	.submit = etcd3_submit,
	.watch = etcd3_watch,
	.session = etcd3_session,
	.close = etcd3_close,
};
