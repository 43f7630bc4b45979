/* The etcd v3 backend: my lease, granted when an operation needs one, kept alive by the leader's
 * renewals, and by a timer while there are none. Never in the way of a lease that is to run out. */
#include "common/dcs/etcd3.h"

#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define TOPOLOGY_TTLS 10 /* the members of the store are asked for once in so many ttl */

static void on_wait_over(struct loop *l, void *arg);

/* The ttl changed: keys move to a new lease. The old one still holds the leader key until a renewal
 * has moved it. */
void etcd_lease_forget(struct etcd3 *e)
{
	e->lease[0] = '\0';
	e->lease_ttl_ms = 0;
	e->lease_used_ms = 0;
}

/* The store says that this lease does not exist any more. */
void etcd_lease_drop(struct etcd3 *e, const char *id)
{
	if (strcmp(id, e->leader_lease) == 0)
		e->leader_lease[0] = '\0';
	if (strcmp(id, e->lease) == 0)
		etcd_lease_forget(e);
}

static void release_lease_waiters(struct etcd3 *e, enum dcs_outcome outcome, const char *text)
{
	struct etcd_op *list = e->lease_waiters;
	e->lease_waiters = NULL;
	while (list != NULL) {
		struct etcd_op *o = list;
		list = o->next_waiter;
		loop_timer_stop(e->loop, &o->timer);
		if (outcome == DCS_OK) {
			memcpy(o->lease, e->lease, sizeof(o->lease));
			o->sent_at_ms = e->lease_used_ms;
			o->granted_ttl_ms = e->lease_ttl_ms;
			etcd_op_run(o);
		} else {
			etcd_op_finish(o, outcome, text, 0, NULL, false);
		}
	}
}

static void on_wait_over(struct loop *l, void *arg)
{
	(void)l;
	struct etcd_op *o = arg;
	for (struct etcd_op **p = &o->e->lease_waiters; *p != NULL; p = &(*p)->next_waiter) {
		if (*p == o) {
			*p = o->next_waiter;
			break;
		}
	}
	etcd_op_finish(o, DCS_UNKNOWN, "no lease was granted in time", 0, NULL, false);
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
void etcd_lease_grant(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	o->next_waiter = e->lease_waiters;
	e->lease_waiters = o;
	/* The grant has the budget of the operation that asked for it first. */
	loop_timer_set(e->loop, &o->timer, o->op.deadline_ms + 1, on_wait_over, o);
	if (e->lease_granting)
		return;
	e->lease_granting = true;
	etcd_call(e, "/lease/grant", json_pack("{s:I}", "TTL", (json_int_t)(e->ttl_ms / 1000)),
		o->op.deadline_ms, ETCD_CURRENT, on_grant, NULL);
}

/* A little over ttl/3: a holder's own renewals come first, and a replica stays at 6 requests a
 * minute. */
static int64_t idle_ms(const struct etcd3 *e)
{
	return e->ttl_ms / 3 + e->ttl_ms / 30;
}

static void arm_idle(struct etcd3 *e)
{
	int64_t now_ms = clock_boot_ms(), at_ms = e->lease_used_ms + idle_ms(e);
	if (e->topology_ms == 0 && e->lease_timer.at_ms != 0)
		return; /* the first look at the members comes soon */
	int64_t topology_ms = e->topology_ms + e->ttl_ms * TOPOLOGY_TTLS;
	if (at_ms <= now_ms)
		at_ms = now_ms + idle_ms(e);
	if (topology_ms > now_ms && topology_ms < at_ms)
		at_ms = topology_ms;
	loop_timer_set(e->loop, &e->lease_timer, at_ms, etcd_lease_timer, e);
}

/* It lives: asked at sent_at_ms. */
static void lease_used(struct etcd3 *e, int64_t ttl_ms, int64_t sent_at_ms)
{
	e->lease_ttl_ms = ttl_ms;
	if (sent_at_ms > e->lease_used_ms)
		e->lease_used_ms = sent_at_ms;
	if (!e->is_ctl)
		arm_idle(e);
}

static void on_keepalive(struct etcd3 *e, enum etcd_answer a, const json_t *body,
	int64_t sent_at_ms, const char *text, void *arg)
{
	struct etcd_op *o = arg;
	int64_t ttl = etcd_int(json_path(body, "result.TTL"));
	if (a == ETCD_ANSWER_OK && ttl > 0) {
		if (strcmp(o->lease, e->lease) == 0)
			lease_used(e, ttl * 1000, sent_at_ms);
		o->sent_at_ms = sent_at_ms;
		o->granted_ttl_ms = ttl * 1000;
		if (o->endpoint != ETCD_CURRENT)
			o->endpoint = (int)e->answered_at;
		etcd_op_run(o);
		return;
	}
	if (a == ETCD_ANSWER_OK || a == ETCD_ANSWER_LEASE_GONE) {
		/* Without TTL: expired (dcs 3.3). */
		etcd_lease_drop(e, o->lease);
		if (o->op.kind == DCS_RENEW && e->leader_lease[0] == '\0')
			etcd_op_finish(o, DCS_CONFLICT, "the lease has expired", 0, NULL, true);
		else
			etcd_lease_grant(o);
		return;
	}
	etcd_op_finish(o, a == ETCD_ANSWER_DENIED ? DCS_DENIED : DCS_UNKNOWN, text, 0, NULL, false);
}

void etcd_lease_keepalive(struct etcd_op *o)
{
	struct etcd3 *e = o->e;
	memcpy(o->lease, e->lease, sizeof(o->lease));
	if (o->op.kind == DCS_RENEW || o->op.kind == DCS_ADOPT) {
		e->renewed_at =
			o->op.other_endpoint ? (e->renewed_at + 1) % e->endpoint_count : e->current;
		o->endpoint = o->op.other_endpoint ? (int)e->renewed_at : ETCD_CURRENT;
	}
	etcd_call(e, "/lease/keepalive", json_pack("{s:s}", "ID", o->lease), o->op.deadline_ms,
		o->endpoint, on_keepalive, o);
}

/* A replica's lease carries its member key: kept alive on a timer while nothing else does it. */
static void on_idle_keepalive(struct etcd3 *e, enum etcd_answer a, const json_t *body,
	int64_t sent_at_ms, const char *text, void *arg)
{
	(void)text;
	AUTO_FREE char *asked = arg;
	int64_t ttl = etcd_int(json_path(body, "result.TTL"));
	if (a == ETCD_ANSWER_OK && ttl > 0) {
		if (!str_eq(asked, e->lease))
			return; /* an answer about an earlier lease */
		lease_used(e, ttl * 1000, sent_at_ms);
	} else if (a == ETCD_ANSWER_OK || a == ETCD_ANSWER_LEASE_GONE) {
		log_info("etcd lease has expired");
		etcd_lease_drop(e, asked);
	} else if (a == ETCD_ANSWER_UNKNOWN) {
		etcd_watch_doubt(e, "a keepalive went unanswered");
	}
}

void etcd_lease_timer(struct loop *l, void *arg)
{
	struct etcd3 *e = arg;
	int64_t now_ms = clock_boot_ms();
	(void)l;
	/* A leader's lease is renewed by DCS_RENEW alone: whoever stops renewing wants the key to
	 * run out. */
	const struct dcs_kv *leader = etcd_cache_peek(e, "leader");
	bool leads = leader != NULL && strcmp(leader->session, e->lease) == 0;
	char *asked = e->lease[0] != '\0' && !leads && now_ms - e->lease_used_ms >= idle_ms(e)
			      ? strdup(e->lease)
			      : NULL;
	if (asked != NULL)
		etcd_call(e, "/lease/keepalive", json_pack("{s:s}", "ID", asked),
			now_ms + e->retry_timeout_ms, ETCD_CURRENT, on_idle_keepalive, asked);
	if (e->topology_ms == 0 || now_ms - e->topology_ms >= e->ttl_ms * TOPOLOGY_TTLS)
		etcd_refresh_topology(e);
	arm_idle(e);
}
