/* The etcd v3 backend over the JSON gateway (dcs 3.2, 3.3, 4.2). Only the table is exported to the
 * rest; the other declarations are shared by the files of the backend. */
#pragma once
#include "common/core/rng.h"
#include "common/dcs/dcs.h"
#include "common/dcs/decode.h"
#include "common/ext/http.h"

extern const struct dcs_ops dcs_etcd3;

#define ETCD_ENDPOINTS_MAX 32
#define ETCD_LEASE_NONE	   ""
#define ETCD_CURRENT	   (-1)

struct etcd3;
struct etcd_call;

/* What the server said. */
enum etcd_answer {
	ETCD_ANSWER_OK = 0,
	ETCD_ANSWER_LEASE_GONE, /* requested lease not found */
	ETCD_ANSWER_DENIED,	/* permission, bad request: a lasting refusal */
	ETCD_ANSWER_UNKNOWN,	/* no answer within the budget, or one that tells nothing */
	ETCD_ANSWER_TOO_LARGE,	/* unknown, and it would be so again */
};
typedef void (*etcd_done_fn)(struct etcd3 *e, enum etcd_answer a, const json_t *body,
	int64_t sent_at_ms, const char *text, void *arg);

#define ETCD_TOKEN_MAX 2048 /* a signed one (JWT) by a key of 4096 bits has 800 */

struct etcd3 {
	struct dcs_base base;
	struct loop *loop;
	struct http *http;
	struct rng rng;
	/* configuration */
	char name[LIMIT_NAME], prefix[3 * LIMIT_NAME];
	int64_t ttl_ms, loop_wait_ms, retry_timeout_ms;
	bool is_ctl;
	char url_user[LIMIT_NAME], url_password[LIMIT_NAME * 2]; /* from the url option */
	char username[LIMIT_NAME], password[LIMIT_NAME * 2], protocol[8];
	char cacert[LIMIT_PATH], cert[LIMIT_PATH], key[LIMIT_PATH];
	bool fixed_endpoints;	       /* use_proxies: no discovery */
	char srv[256], srv_suffix[64]; /* endpoints by SRV records; "" = not */
	struct etcd_search *search;    /* under way; NULL = none */
	int64_t searched_ms;
	bool srv_told; /* that nothing was found */
	/* endpoints: "http://host:port". None before the first SRV records are there: calls wait.
	 */
	char endpoints[ETCD_ENDPOINTS_MAX][LIMIT_URL];
	char seeds[ETCD_ENDPOINTS_MAX][LIMIT_URL];
	unsigned endpoint_count, seed_count, current;
	unsigned renewed_at;  /* endpoint of the last renewal; a repeat goes to the next one */
	unsigned answered_at; /* endpoint of the answer that is being delivered */
	int64_t topology_ms;
	bool topology_running;
	/* gateway */
	char api[12]; /* "/v3" once known, "" before */
	/* authentication */
	char token[ETCD_TOKEN_MAX], token_before[ETCD_TOKEN_MAX];
	int64_t token_ms; /* when it was fetched */
	bool auth_running, auth_off;
	struct etcd_call *auth_waiters;
	int64_t auth_failed_ms;
	/* stale node guard */
	char cluster_id[32];
	int64_t raft_term;
	/* lease */
	char lease[32]; /* "" = none */
	int64_t lease_ttl_ms, lease_used_ms;
	char leader_lease[32]; /* the lease that the leader key may hang on when it is mine; "" =
				  none */
	bool lease_granting;
	struct etcd_op *lease_waiters;
	struct loop_timer lease_timer;
	/* watch and cache */
	dcs_watch_fn watch_fn;
	void *watch_arg;
	struct http_call *stream;
	struct buf stream_buf;
	struct loop_timer watch_timer;
	struct dcs_kv *kvs; /* sorted by key */
	unsigned kv_count, kv_cap;
	int64_t revision;
	bool current_view, reading;
	bool paged;	 /* the view is read in pages, collected here; a broken read starts anew */
	bool large_told; /* that pages are needed; until one answer holds the view again */
	struct dcs_kv *page_kvs;
	unsigned page_count;
	char *page_from; /* base64 */
	int64_t page_revision;
	unsigned watch_serial;
	int64_t cache_revision, watch_pause_ms;
	bool read_failed;
	int64_t stream_began_ms;
	int64_t seen_leader, seen_config, seen_status, seen_failover, seen_sync;
	uint64_t seen_members;
	/* operations under way */
	struct etcd_op *ops;
	struct etcd_call *calls;
	uint64_t next_id;
	bool closing;
};

struct etcd_op {
	struct etcd_op *next, **prev_next, *next_waiter;
	struct etcd3 *e;
	uint64_t id;
	struct dcs_op op;
	char *value;
	dcs_done_fn fn;
	void *arg;
	int64_t sent_at_ms; /* of the keepalive that counts */
	int64_t granted_ttl_ms;
	char lease[32]; /* lease that the operation used */
	bool retried, is_txn;
	int endpoint; /* RENEW: where it goes, on a connection of its own; ETCD_CURRENT = the usual
			 one */
	bool moving, moved; /* RENEW after a change of ttl: the key moves to the new lease */
	struct loop_timer timer;
};

/* etcd3_call.c: one request with endpoints, budget, authentication. With an endpoint: there first,
 * on a connection of its own, and every endpoint at most once. */
void etcd_call(struct etcd3 *e, const char *path, json_t *take_body, int64_t deadline_ms,
	int endpoint, etcd_done_fn fn, void *arg);
void etcd_calls_drop(struct etcd3 *e);
void etcd_calls_kick(struct etcd3 *e); /* those that wait for a first endpoint go on */
void etcd_add_endpoint(char (*list)[LIMIT_URL], unsigned *count, const char *url);
enum err_code etcd_set_endpoints(struct etcd3 *e, const json_t *section, struct err *err);
void etcd_refresh_topology(struct etcd3 *e);
void etcd_http_request(struct etcd3 *e, struct http_request *req);
const char *etcd_endpoint(const struct etcd3 *e);
void etcd_next_endpoint(struct etcd3 *e);
bool etcd_header_ok(struct etcd3 *e, const json_t *body); /* false: from a stale node */
int64_t etcd_int(const json_t *v);			  /* number or text; 0 when neither */

/* etcd3_srv.c */
MUST_USE enum err_code etcd_search_set(
	struct etcd3 *e, const json_t *section, struct err *err); /* srv, srv_suffix */
int64_t etcd_search_next_ms(const struct etcd3 *e);		  /* not before; 0: any time */
void etcd_search_start(struct etcd3 *e); /* unless one runs or has just ended */
void etcd_search_drop(struct etcd3 *e);

/* etcd3.c: an operation goes on, or ends and is freed. */
void etcd_op_run(struct etcd_op *o);
void etcd_op_finish(struct etcd_op *o, enum dcs_outcome outcome, const char *text, int64_t version,
	struct cluster *cluster, bool lease_gone);

/* etcd3_lease.c: the operation goes on with a new lease, or with mine kept alive. */
void etcd_lease_grant(struct etcd_op *o);
void etcd_lease_keepalive(struct etcd_op *o);
void etcd_lease_drop(struct etcd3 *e, const char *id); /* the store has none of that name */
void etcd_lease_forget(struct etcd3 *e);
void etcd_lease_timer(struct loop *l, void *arg);

/* etcd3_watch.c */
void etcd_watch_start(struct etcd3 *e);
void etcd_watch_stop(struct etcd3 *e);
void etcd_pages_drop(struct etcd3 *e);
void etcd_watch_restart(struct etcd3 *e, const char *why);
/* Requests go unanswered: a stream that says nothing may be dead too. */
void etcd_watch_doubt(struct etcd3 *e, const char *why);
void etcd_cache_put(struct etcd3 *e, const char *key, const char *value, size_t len,
	int64_t revision, const char *lease);
void etcd_cache_delete(struct etcd3 *e, const char *key, int64_t revision);
void etcd_cache_publish(struct etcd3 *e);
const struct dcs_kv *etcd_cache_peek(const struct etcd3 *e, const char *key);
/* Range answer to key-value array; returns the number, -1 without memory. Freed with etcd_kvs_free.
 */
int etcd_read_kvs(const struct etcd3 *e, const json_t *body, struct dcs_kv **out);
void etcd_kvs_free(struct dcs_kv *kvs, unsigned count);

/* base64 */
char *etcd_b64(const void *bytes, size_t len); /* freed by the caller */
char *etcd_unb64(const char *text, size_t *out_len);
json_t *etcd_b64_json(const char *text);
