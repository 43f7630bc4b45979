/* The store, as the worker and ctl see it: submit an operation, get its outcome as an event. One
 * vtable per backend; asynchronous, on the owner's loop, bounded by budgets (dcs 5). Four outcomes,
 * never a mix (style: remote writes). Leader-only writes are transactions on the leader key's lease
 * or revision, never on its value (DESIGN 2). */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <jansson.h>

#include "common/core/err.h"
#include "common/core/loop.h"
#include "common/model/cluster.h"

struct http; /* common/ext/http.h */

enum dcs_outcome {
	DCS_OK = 0,   /* committed */
	DCS_CONFLICT, /* definite no: a compare failed, somebody else owns it */
	DCS_DENIED,   /* definite refusal by the server: permission, bad request */
	DCS_UNKNOWN,  /* no answer, or an unknown server error: it may have happened */
};

enum dcs_op_kind {
	DCS_READ = 0, /* fresh linearizable read of the whole tree -> event.cluster */
	DCS_ACQUIRE,  /* create leader = me with my lease */
	DCS_RENEW,    /* lease kept alive AND the key proven mine after it was sent (DESIGN 2) */
	DCS_ADOPT,    /* move the leader key (value me, revision .version) to my new lease: a new
			 worker's first step */
	DCS_RELEASE,  /* delete the leader key if it is held by my lease; outcome UNKNOWN counts as
			 released */
	DCS_TOUCH_MEMBER, /* members/{me} := .value under my lease */
	DCS_INIT_RACE,	  /* create initialize = "" */
	DCS_INIT_SET,	  /* initialize := .value; .create: create only; .leader_only: guarded by my
			     lease */
	DCS_INIT_CANCEL,  /* delete initialize */
	DCS_SET_CONFIG,	  /* config := .value; .version CAS (0 = none); .leader_only */
	DCS_SET_STATUS,	  /* status := .value, guarded by my lease (.leader_only) */
	DCS_SET_FAILSAFE, /* guarded */
	DCS_SET_HISTORY,  /* guarded */
	DCS_SET_FAILOVER, /* failover := .value; .version CAS (0 = unconditional) */
	DCS_SET_SYNC,	  /* sync := .value; .version CAS, -1 = must be absent, 0 = unconditional;
			     guarded with .leader_only */
	DCS_DELETE_SYNC,  /* .version CAS */
	DCS_DELETE_CLUSTER, /* ctl remove: every key below the prefix */
	DCS_OP_COUNT,
};
const char *dcs_op_name(enum dcs_op_kind kind);

struct dcs_op {
	enum dcs_op_kind kind;
	const char *value; /* copied at submit; NULL where the kind has none */
	int64_t version;   /* see the kinds; 0 = no compare */
	bool create, leader_only;
	bool other_endpoint; /* RENEW again: not where the previous one went, and on a connection of
				its own */
	int64_t deadline_ms; /* budget end; 0 = now + retry_timeout */
};

struct dcs_event {
	uint64_t id; /* as returned by dcs_submit */
	enum dcs_op_kind kind;
	enum dcs_outcome outcome;
	int64_t sent_at_ms;   /* just before the (last counting) request was sent */
	int64_t lease_ttl_ms; /* RENEW, ACQUIRE, ADOPT, TAKE with OK: min(ttl in force, TTL stated
				 by the store) */
	int64_t version;      /* new version of the written key on OK */
	bool lease_gone;      /* the store says that our lease does not exist any more */
	struct cluster *cluster; /* DCS_READ with OK: the receiver takes it over and frees it */
	char text[200];		 /* for the log when not OK */
};

/* The watched view changed (a new snapshot), or is (not) current any more. */
struct dcs_watch_event {
	bool current;		 /* the watch is alive and the snapshot whole */
	struct cluster *cluster; /* taken over by the receiver; NULL when only `current` changed */
	bool leader_changed, config_changed, status_changed, failover_changed, sync_changed,
		members_changed;
};

typedef void (*dcs_done_fn)(const struct dcs_event *ev, void *arg);
typedef void (*dcs_watch_fn)(const struct dcs_watch_event *ev, void *arg);

struct dcs_config {
	const json_t *section; /* the backend's section of the local tree (borrowed during open and
				  reconfigure) */
	char backend[16];      /* "etcd3", ... */
	char name[LIMIT_NAME], scope[LIMIT_NAME], namespace_[LIMIT_NAME];
	int64_t ttl_ms, loop_wait_ms, retry_timeout_ms;
	bool is_ctl;	 /* linearizable plain reads; no lease, no watch */
	int citus_group; /* -1 = none */
};

struct dcs; /* one open store; the backend's own struct begins with struct dcs_base */

struct dcs_ops {
	const char *name;
	enum err_code (*open)(struct dcs **out, const struct dcs_config *cfg, struct loop *loop,
		struct http *http, struct err *err);
	/* ttl, loop_wait, retry_timeout, credentials changed. */
	enum err_code (*reconfigure)(struct dcs *d, const struct dcs_config *cfg, struct err *err);
	uint64_t (*submit)(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg);
	void (*watch)(struct dcs *d, dcs_watch_fn fn, void *arg); /* start (NULL: stop) */
	/* What identifies my lease or session in struct cluster ("" = none yet). */
	const char *(*session)(struct dcs *d);
	/* A leader key of that session is held by this process (after a change of ttl it may still
	 * be under the old one). */
	bool (*owns)(struct dcs *d, const char *session);
	void (*close)(struct dcs *d);
};

/* Look-up by name; NULL = not built in. Only the table is exported by a backend. */
const struct dcs_ops *dcs_backend(const char *name);
/* The section to use: first present of consul etcd etcd3 exhibitor kubernetes raft zookeeper (dcs
 * 0). ERR_NOTFOUND: none. Several present: the first wins, *out_others lists the rest for a
 * warning. */
MUST_USE enum err_code dcs_choose(const json_t *local_tree, char out_backend[static 16],
	char *out_others, size_t others_len, struct err *err);

MUST_USE enum err_code dcs_open(struct dcs **out, const struct dcs_config *cfg, struct loop *loop,
	struct http *http, struct err *err);
enum err_code dcs_reconfigure(struct dcs *d, const struct dcs_config *cfg, struct err *err);
/* Copies what it needs; fn is called exactly once, later, from the loop, also on close (UNKNOWN).
 * Never 0. */
uint64_t dcs_submit(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg);
void dcs_watch(struct dcs *d, dcs_watch_fn fn, void *arg);
const char *dcs_session(struct dcs *d);
bool dcs_owns(struct dcs *d, const char *session);
void dcs_close(struct dcs *d);

struct dcs_base {
	const struct dcs_ops *ops;
};

/* Paths (dcs 1.1): "/service/batman/" ; out at least 3 * LIMIT_NAME. */
MUST_USE enum err_code dcs_prefix(
	const struct dcs_config *cfg, char *out, size_t out_len, struct err *err);
