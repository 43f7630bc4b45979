/* demote-cluster, promote-cluster: into a standby cluster and back (ctl 6.16). */
#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

#define PATCH_WAIT_MS  40000
#define STATUS_WAIT_MS 5000

struct role_change {
	struct ctl *c;
	const char *verb, *noun, *past; /* demote, demotion, demoted */
	const char *target;		/* role that the leader's member key says at the end */
	bool demote;
};

/* Role and state as a member publishes them; "" = not known. */
struct standing {
	char role[24], state[48];
};

static void stand(struct ctl *c, const struct view *v, const char *name, struct standing *out)
{
	memset(out, 0, sizeof(*out));
	if (v->c != NULL) {
		const struct member *m = cluster_member_peek(v->c, name);
		if (m == NULL)
			return;
		put_copy(out->role, sizeof(out->role), m->role);
		put_copy(out->state, sizeof(out->state), m->state);
		return;
	}
	/* The local socket has no member keys: the member itself is asked. */
	const json_t *m = member_find(v, name);
	if (m == NULL)
		return;
	struct answer ans;
	rest_call(c, m, "GET", "/patroni", NULL, STATUS_WAIT_MS, &ans);
	json_t *doc = ans.status != 0 ? json_read(ans.body, strlen(ans.body), NULL) : NULL;
	const char *role = json_path_str(doc, "role"), *state = json_path_str(doc, "state");
	if (role == NULL || !str_copy(out->role, sizeof(out->role), role))
		out->role[0] = '\0';
	if (state == NULL || !str_copy(out->state, sizeof(out->state), state))
		out->state[0] = '\0';
	json_decref(doc);
	answer_done(&ans);
}

static bool role_is(const char *role, const char *wanted)
{
	return strcmp(role, wanted) == 0 ||
	       (strcmp(wanted, "primary") == 0 && strcmp(role, "master") == 0);
}

static void send_patch(const struct role_change *r, const struct view *v, json_t *standby)
{
	struct answer ans;
	json_t *body = json_pack("{s:O}", "standby_cluster", standby);
	const json_t *leader = member_find(v, v->leader);
	if (leader == NULL && r->c->store)
		fail("Failed to %s %s cluster: the leader %s has no member key", r->verb, v->scope,
			v->leader);
	rest_call(r->c, leader, "PATCH", "/config", body, PATCH_WAIT_MS, &ans);
	json_decref(body);
	if (ans.status == 0)
		fail("Failed to %s %s cluster: %s", r->verb, v->scope, ans.body);
	if (ans.status != 200)
		fail("Failed to %s %s cluster: /config PATCH status code=%ld, (%s)", r->verb,
			v->scope, ans.status, ans.body);
	answer_done(&ans);
}

/* True: the change has been carried out; else says how far it is. */
static bool progress(const struct role_change *r, const struct view *v, const char *old_leader)
{
	struct standing now, old;
	char stamp[48];
	stand(r->c, v, v->leader, &now);
	stand(r->c, v, old_leader, &old);
	when_stamp(stamp, sizeof(stamp), 0);
	bool led = v->leader[0] != '\0';
	if (led && role_is(now.role, r->target) && strcmp(now.state, "running") == 0 &&
		(!r->demote || strcmp(old.state, "running") == 0)) {
		printf("%s cluster is successfully %s\n", stamp, r->past);
		return true;
	}
	printf("%s cluster is unlocked: %s, leader role: %s, leader state: %s", stamp,
		led ? "False" : "True", now.role[0] != '\0' ? now.role : "None",
		now.state[0] != '\0' ? now.state : "None");
	if (r->demote && led && strcmp(v->leader, old_leader) != 0 && old.state[0] != '\0')
		printf(", previous leader state: '%s'", old.state);
	printf("\n");
	(void)fflush(stdout);
	return false;
}

static void change_role(const struct role_change *r, const struct args *a, json_t *standby)
{
	struct view v;
	struct standing s;
	char old_leader[LIMIT_NAME], question[LIMIT_NAME + 64];
	const char *scope = source_scope(r->c, a->word_count > 0 ? a->words[0] : NULL);
	source_read(r->c, scope, &v);
	if (v.leader[0] == '\0')
		fail("Cluster has no leader, %s is not possible", r->noun);
	put_copy(old_leader, sizeof(old_leader), v.leader);
	stand(r->c, &v, v.leader, &s);
	if (role_is(s.role, r->target))
		fail("Cluster is already in the required state");
	printf("Current cluster topology\n");
	members_print(&v, TABLE_PRETTY, false, false);
	put_format(question, sizeof(question), "Are you sure you want to %s %s cluster?", r->verb,
		v.scope);
	if (!args_has(a, "force") && !prompt_confirm(question))
		fail("Aborted cluster %s", r->noun);
	send_patch(r, &v, standby);
	/* Without a bound, as the contract says: only the user knows how long is too long. */
	int64_t at_us = clock_monotonic_us();
	for (bool done = false; !done;) {
		source_done(&v);
		source_read(r->c, scope, &v);
		done = progress(r, &v, old_leader);
		if (!done)
			watch_sleep(1, &at_us);
	}
	members_print(&v, TABLE_PRETTY, false, false);
	source_done(&v);
}

void cmd_demote_cluster(struct ctl *c, const struct args *a)
{
	const char *host = args_value(a, "host"), *port = args_value(a, "port");
	const char *restore = args_value(a, "restore-command");
	const char *slot = args_value(a, "primary-slot-name");
	int64_t n = 0;
	if (port != NULL && (!str_to_i64(port, &n) || n < 0 || n > 65535))
		fail_usage("Invalid value for '--port': '%s' is not a port number.", port);
	if (host == NULL && port == NULL && restore == NULL)
		fail("At least --host, --port or --restore-command should be specified");
	json_t *standby = json_object();
	if (host != NULL)
		(void)json_object_set_new(standby, "host", json_string(host));
	if (port != NULL)
		(void)json_object_set_new(standby, "port", json_integer(n));
	if (slot != NULL)
		(void)json_object_set_new(standby, "primary_slot_name", json_string(slot));
	if (restore != NULL)
		(void)json_object_set_new(standby, "restore_command", json_string(restore));
	change_role(&(struct role_change){ .c = c,
			    .verb = "demote",
			    .noun = "demotion",
			    .past = "demoted",
			    .target = "standby_leader",
			    .demote = true },
		a, standby);
	json_decref(standby);
}

void cmd_promote_cluster(struct ctl *c, const struct args *a)
{
	json_t *none = json_null();
	change_role(&(struct role_change){ .c = c,
			    .verb = "promote",
			    .noun = "promotion",
			    .past = "promoted",
			    .target = "primary" },
		a, none);
}
