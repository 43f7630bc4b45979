/* The etcd v3 backend: operations (dcs 3.3, DESIGN 2). The leader key is never compared
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

/* ---- operations
 * ----------------------------------------------------------------------------------- */

void etcd_op_finish(struct etcd_op *o, enum dcs_outcome outcome, const char *text, int64_t version,
	struct cluster *cluster, bool lease_gone)
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
	loop_timer_stop(o->e->loop, &o->timer);
	*o->prev_next = o->next;
	if (o->next != NULL)
		o->next->prev_next = o->prev_next;
	free(o->value);
	free(o);
	fn(&ev, arg);
}

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
	return kind == DCS_ACQUIRE || kind == DCS_ADOPT || kind == DCS_TOUCH_MEMBER ||
	       kind == DCS_RENEW;
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
	if (e->is_ctl || revision == 0 || (o->op.kind == DCS_RENEW && !o->moving) ||
		o->op.kind == DCS_DELETE_CLUSTER)
		return;
	if (o->moving)
		etcd_cache_put(e, key, e->name, strlen(e->name), revision, o->lease);
	else if (is_delete(o->op.kind))
		etcd_cache_delete(e, key, revision);
	else
		etcd_cache_put(e, key, o->value != NULL ? o->value : "",
			o->value != NULL ? strlen(o->value) : 0, revision,
			uses_lease(o->op.kind) ? o->lease : "");
}

/* Which lease guards the leader key, as far as the answers tell. */
static void note_holder(struct etcd_op *o, bool won)
{
	struct etcd3 *e = o->e;
	switch (o->op.kind) {
	case DCS_ACQUIRE:
	case DCS_ADOPT:
	case DCS_RENEW:
		if (won)
			memcpy(e->leader_lease, o->lease, sizeof(e->leader_lease));
		else if (o->op.kind == DCS_RENEW)
			e->leader_lease[0] = '\0';
		break;
	case DCS_RELEASE: e->leader_lease[0] = '\0'; break;
	default: break;
	}
}

/* 404, lease not found: a new lease and once again, while there is time; nothing was written. */
static void on_lease_gone(struct etcd_op *o, const char *text)
{
	struct etcd3 *e = o->e;
	etcd_lease_drop(e, o->lease);
	if (o->op.kind == DCS_RENEW && o->moving)
		etcd_op_finish(o, DCS_UNKNOWN, text, 0, NULL,
			false); /* the old lease still holds the key */
	else if (!o->retried && uses_lease(o->op.kind) && o->op.kind != DCS_RENEW &&
		 o->op.deadline_ms - clock_boot_ms() >= 1000) {
		o->retried = true;
		etcd_lease_grant(o);
	} else {
		etcd_op_finish(o, DCS_CONFLICT, text, 0, NULL, true);
	}
}

static void on_done(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	struct etcd_op *o = arg;
	if (o->sent_at_ms == 0)
		o->sent_at_ms = sent_at_ms;
	if (a == ETCD_ANSWER_LEASE_GONE) {
		on_lease_gone(o, text);
		return;
	}
	if (a != ETCD_ANSWER_OK) {
		if (o->op.kind == DCS_RELEASE)
			note_holder(o, false);
		etcd_op_finish(o, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text, 0, NULL,
			false);
		return;
	}
	int64_t revision = etcd_int(json_path(body, "header.revision"));
	if (o->is_txn && !json_is_true(json_object_get(body, "succeeded"))) {
		if (o->moving) {
			/* Perhaps an earlier request has moved it already: is it on the new lease?
			 */
			o->moving = false;
			o->moved = true;
			etcd_op_run(o);
			return;
		}
		note_holder(o, false);
		etcd_watch_restart(e, "a compare failed: the view may be old");
		etcd_op_finish(o, DCS_CONFLICT, "a compare failed", 0, NULL, false);
		return;
	}
	note_holder(o, true);
	learn(o, revision);
	if (o->op.kind == DCS_RENEW && !o->moving) {
		const json_t *r = json_array_get(json_object_get(body, "responses"), 0);
		const json_t *kvs = json_path(r, "response_range.kvs");
		revision = etcd_int(json_object_get(json_array_get(kvs, 0), "mod_revision"));
	}
	/* The answer first, then the view that shows it: whoever asked must not see its own key as
	 * a stranger's. */
	bool closing = e->closing;
	etcd_op_finish(o, DCS_OK, "", revision, NULL, false);
	if (!closing)
		etcd_cache_publish(e);
}

static void on_read(struct etcd3 *e, enum etcd_answer a, const json_t *body, int64_t sent_at_ms,
	const char *text, void *arg)
{
	struct etcd_op *o = arg;
	o->sent_at_ms = sent_at_ms;
	if (a != ETCD_ANSWER_OK) {
		etcd_op_finish(o, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text, 0, NULL,
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
		etcd_op_finish(o, DCS_UNKNOWN, "no memory", 0, NULL, false);
	else
		etcd_op_finish(o, DCS_OK, "", c->revision, c, false);
}

static json_t *range_json(const struct etcd3 *e)
{
	char end[3 * LIMIT_NAME];
	memcpy(end, e->prefix, sizeof(end));
	end[strlen(end) - 1]++; /* '/' to '0' */
	return json_pack(
		"{s:o,s:o}", "key", etcd_b64_json(e->prefix), "range_end", etcd_b64_json(end));
}

/* The lease that the leader key hangs on when it is mine; -1 is never one. */
static const char *holder_lease(const struct etcd3 *e)
{
	return e->leader_lease[0] != '\0' ? e->leader_lease : e->lease[0] != '\0' ? e->lease : "-1";
}

/* The compares of a write: my lease on the leader key, and the revision or absence of the key
 * itself. */
static json_t *compares_of(struct etcd_op *o, const char *key)
{
	json_t *list = json_array();
	const struct dcs_op *op = &o->op;
	if (op->leader_only || op->kind == DCS_SET_STATUS || op->kind == DCS_SET_FAILSAFE ||
		op->kind == DCS_SET_HISTORY)
		json_array_append_new(list, compare_lease(o->e, holder_lease(o->e)));
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
				o->op.deadline_ms, ETCD_CURRENT, on_done, o);
		else
			etcd_call(e, "/kv/deleterange", del, o->op.deadline_ms, ETCD_CURRENT,
				on_done, o);
	} else {
		json_t *put = put_json(e, key, o->value != NULL ? o->value : "",
			o->op.kind == DCS_TOUCH_MEMBER ? o->lease : NULL);
		if (o->is_txn)
			etcd_call(e, "/kv/txn",
				txn(compare, json_pack("[{s:o}]", "request_put", put)),
				o->op.deadline_ms, ETCD_CURRENT, on_done, o);
		else
			etcd_call(e, "/kv/put", put, o->op.deadline_ms, ETCD_CURRENT, on_done, o);
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
	/* From here on the key may be held by this lease, also when the answer is lost. */
	if (o->op.kind != DCS_RENEW && e->leader_lease[0] == '\0')
		memcpy(e->leader_lease, o->lease, sizeof(e->leader_lease));
	switch (o->op.kind) {
	case DCS_ACQUIRE:
		body = txn(json_pack("[o]", compare_absent(e, "leader")), json_pack("[o]", put));
		break;
	case DCS_ADOPT:
		body = txn(json_pack("[o]", compare_mod(e, "leader", o->op.version)),
			json_pack("[o]", put));
		break;
	default: /* DCS_RENEW: the key is mine, as of now, by a linearizable read */
		if (!o->moved && e->leader_lease[0] != '\0' &&
			strcmp(e->leader_lease, o->lease) != 0) {
			/* The ttl changed: in one step, still mine and on the new lease. */
			o->moving = true;
			body = txn(json_pack("[o]", compare_lease(e, e->leader_lease)),
				json_pack("[o]", put));
			break;
		}
		json_decref(put);
		body = txn(json_pack("[o]", compare_lease(e, o->lease)),
			json_pack("[{s:{s:o,s:b}}]", "request_range", "key", key_json(e, "leader"),
				"keys_only", 1));
		break;
	}
	etcd_call(e, o->is_txn ? "/kv/txn" : "/kv/put", body, o->op.deadline_ms, o->endpoint,
		on_done, o);
}

/* An operation that needs my lease: have one, of the ttl in force, alive, then send. */
static void run_with_lease(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	if (e->lease[0] == '\0' && o->op.kind == DCS_RENEW && e->leader_lease[0] == '\0') {
		etcd_op_finish(o, DCS_CONFLICT, "there is no lease", 0, NULL, true);
		return;
	}
	if (e->lease[0] == '\0') {
		etcd_lease_grant(o);
		return;
	}
	if (o->op.kind == DCS_TOUCH_MEMBER) {
		/* A member key may rest on what is left of the lease. */
		memcpy(o->lease, e->lease, sizeof(o->lease));
		send_write(o);
	} else if (o->granted_ttl_ms == 0 || strcmp(o->lease, e->lease) != 0) {
		etcd_lease_keepalive(o);
	} else {
		send_leader(o);
	}
}

/* First or next step of an operation. */
void etcd_op_run(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	if (uses_lease(o->op.kind)) {
		run_with_lease(o);
		return;
	}
	switch (o->op.kind) {
	case DCS_READ:
		etcd_call(
			e, "/kv/range", range_json(e), o->op.deadline_ms, ETCD_CURRENT, on_read, o);
		break;
	case DCS_DELETE_CLUSTER:
		etcd_call(e, "/kv/deleterange", range_json(e), o->op.deadline_ms, ETCD_CURRENT,
			on_done, o);
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
	etcd_op_run(arg);
}

static uint64_t etcd3_submit(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg)
{
	struct etcd3 *e = (struct etcd3 *)d;
	struct etcd_op *o = calloc(1, sizeof(*o));
	INVARIANT(o != NULL);
	o->e = e;
	o->id = ++e->next_id;
	o->op = *op;
	o->endpoint = ETCD_CURRENT;
	o->op.value = NULL;
	const char *value = op->kind == DCS_ACQUIRE || op->kind == DCS_ADOPT ? e->name : op->value;
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

/* A scalar by its text: a password of digits is a number in YAML. */
static enum err_code take_text(
	char *dst, size_t len, const json_t *section, const char *key, struct err *err)
{
	const json_t *v = json_object_get(section, key);
	dst[0] = '\0';
	if (v == NULL || json_is_null(v) || json_text(v, dst, len))
		return ERR_OK;
	dst[0] = '\0';
	return err_set(err, ERR_INVAL, 0, "etcd3.%s: a text of at most %zu bytes is allowed", key,
		len - 1);
}

static enum err_code etcd3_reconfigure(struct dcs *d, const struct dcs_config *cfg, struct err *err)
{
	struct etcd3 *e = (struct etcd3 *)d;
	enum err_code rc;
	char user[sizeof(e->username)], password[sizeof(e->password)];
	memcpy(user, e->username, sizeof(user));
	memcpy(password, e->password, sizeof(password));
	/* Keys move to a lease of the new ttl: the member key because its session differs from mine
	 * now, the leader key with the next renewal. */
	if (e->ttl_ms != 0 && e->ttl_ms != cfg->ttl_ms)
		etcd_lease_forget(e);
	e->ttl_ms = cfg->ttl_ms;
	e->loop_wait_ms = cfg->loop_wait_ms;
	e->retry_timeout_ms = cfg->retry_timeout_ms;
	if ((rc = take_text(e->username, sizeof(e->username), cfg->section, "username", err)) !=
			ERR_OK ||
		(rc = take_text(e->password, sizeof(e->password), cfg->section, "password", err)) !=
			ERR_OK)
		return rc;
	if (e->url_user[0] != '\0') {
		memcpy(e->username, e->url_user, sizeof(e->username));
		memcpy(e->password, e->url_password, sizeof(e->password));
	}
	if (strcmp(user, e->username) != 0 || strcmp(password, e->password) != 0)
		e->token[0] = e->token_before[0] = '\0';
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
			etcd_op_finish(e->ops, DCS_UNKNOWN, "closed", 0, NULL, false);
		}
	}
	etcd_calls_drop(e);
	etcd_search_drop(e);
	etcd_kvs_free(e->kvs, e->kv_count);
	etcd_pages_drop(e);
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
	if (rc == ERR_OK)
		rc = take_text(e->cacert, sizeof(e->cacert), cfg->section, "cacert", err);
	if (rc == ERR_OK)
		rc = take_text(e->cert, sizeof(e->cert), cfg->section, "cert", err);
	if (rc == ERR_OK)
		rc = take_text(e->key, sizeof(e->key), cfg->section, "key", err);
	if (rc == ERR_OK)
		rc = etcd_set_endpoints(e, cfg->section, err);
	if (rc == ERR_OK)
		rc = etcd3_reconfigure((struct dcs *)e, cfg, err);
	if (rc != ERR_OK) {
		etcd_search_drop(e);
		free(e);
		return rc;
	}
	if (!e->is_ctl)
		loop_timer_set(loop, &e->lease_timer, clock_boot_ms() + 1000, etcd_lease_timer, e);
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

static bool etcd3_owns(struct dcs *d, const char *session)
{
	const struct etcd3 *e = (const struct etcd3 *)d;
	return strcmp(session, e->lease) == 0 || strcmp(session, e->leader_lease) == 0;
}

const struct dcs_ops dcs_etcd3 = {
	.owns = etcd3_owns,
	.name = "etcd3",
	.open = etcd3_open,
	.reconfigure = etcd3_reconfigure,
	.submit = etcd3_submit,
	.watch = etcd3_watch,
	.session = etcd3_session,
	.close = etcd3_close,
};
