/* switchover, failover (ctl 6.9). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config/value.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

struct handover {
	struct ctl *c;
	const struct args *a;
	struct view v;
	const char *action;
	bool switchover, force;
	char leader[LIMIT_NAME], candidate[LIMIT_NAME], at[64];
};

/* The tag nofailover decides where it is set, also to false; only without it the priority does. */
static bool may_lead(const json_t *m)
{
	const json_t *nofailover = json_path(m, "tags.nofailover");
	char text[40];
	int64_t priority;
	if (nofailover != NULL && !json_is_null(nofailover))
		return !json_truthy(nofailover);
	return !json_text(json_path(m, "tags.failover_priority"), text, sizeof(text)) ||
	       !value_parse_int(text, NULL, &priority) || priority > 0;
}

static void choose_leader(struct handover *h)
{
	if (!h->switchover) {
		put_copy(h->leader, sizeof(h->leader), h->v.leader);
		return;
	}
	if (h->v.leader[0] == '\0')
		fail("This cluster has no leader");
	const char *given = args_value(h->a, "leader");
	const json_t *m = member_find(&h->v, h->v.leader);
	bool standby = m != NULL && strcmp(member_str(m, "role"), "standby_leader") == 0;
	if (given == NULL && !h->force)
		prompt_text(standby ? "Standby Leader" : "Primary", h->v.leader, h->leader,
			sizeof(h->leader));
	else if (!str_copy(h->leader, sizeof(h->leader), given != NULL ? given : h->v.leader))
		fail("Member %s is not the leader of cluster %s", given, h->v.scope);
	if (strcmp(h->leader, h->v.leader) != 0)
		fail("Member %s is not the leader of cluster %s", h->leader, h->v.scope);
}

static void choose_candidate(struct handover *h)
{
	AUTO(buf) names = BUF_INIT(LIMIT_MEMBERS * LIMIT_NAME * 2);
	size_t index;
	unsigned count = 0;
	json_t *m;
	json_array_foreach(json_object_get(h->v.doc, "members"), index,
		m) if (strcmp(member_str(m, "name"), h->v.leader) != 0 && may_lead(m))
		buf_addf(&names, "%s'%s'", count++ > 0 ? ", " : "", member_str(m, "name"));
	if (count == 0)
		fail("No candidates found to %s to", h->action);
	const char *given = args_value(h->a, "candidate");
	if (given == NULL && !h->force) {
		AUTO(buf) text = BUF_INIT(LIMIT_MEMBERS * LIMIT_NAME * 2 + 64);
		buf_addf(&text, "Candidate [%s]", buf_str(&names));
		prompt_text(buf_str(&text), "", h->candidate, sizeof(h->candidate));
	} else if (!str_copy(h->candidate, sizeof(h->candidate), given != NULL ? given : "")) {
		fail("Member %s does not exist in cluster %s or is tagged as nofailover", given,
			h->v.scope);
	}
	if (h->candidate[0] == '\0') {
		if (!h->switchover)
			fail("Failover could be performed only to a specific candidate");
		return;
	}
	if (strcmp(h->candidate, h->v.leader) == 0)
		fail("Member %s is already the leader of cluster %s", h->candidate, h->v.scope);
	const json_t *c = member_find(&h->v, h->candidate);
	if (c == NULL || !may_lead(c))
		fail("Member %s does not exist in cluster %s or is tagged as nofailover",
			h->candidate, h->v.scope);
}

static void confirm_async(struct handover *h)
{
	if (h->switchover || h->force)
		return;
	bool sync_on = false, match = false;
	const json_t *mode = json_object_get(h->v.config, "synchronous_mode");
	sync_on = json_truthy(mode) && !str_eq_nocase(json_string_value(mode), "off") &&
		  !str_eq_nocase(json_string_value(mode), "false");
	if (h->v.c != NULL) {
		sync_on = sync_on && h->v.c->sync_leader[0] != '\0';
		match = cluster_sync_matches(h->v.c, h->candidate);
	} else {
		match = str_ends(member_str(member_find(&h->v, h->candidate), "role"), "_standby");
	}
	char text[LIMIT_NAME + 80];
	put_format(text, sizeof(text),
		"Are you sure you want to failover to the asynchronous node %s?", h->candidate);
	if (sync_on && !match && !prompt_confirm(text))
		fail("Aborting failover");
}

static void choose_time(struct handover *h)
{
	if (!h->switchover)
		return;
	const char *given = args_value(h->a, "scheduled");
	char answer[128], question[160], example[40];
	if (given == NULL && !h->force) {
		when_example(example, sizeof(example));
		put_format(question, sizeof(question),
			"When should the switchover take place (e.g. %s ) ", example);
		prompt_text(question, "now", answer, sizeof(answer));
		given = answer;
	}
	if (!when_parse(given != NULL ? given : "now", h->at, sizeof(h->at)))
		fail("Unable to parse scheduled timestamp (%s). It should be in an unambiguous "
		     "format (e.g. ISO 8601)",
			given);
	if (h->at[0] != '\0' && document_paused(h->v.config))
		fail("Can't schedule switchover in the paused state");
}

static void confirm(struct handover *h)
{
	char text[LIMIT_NAME * 3], demoting[LIMIT_NAME + 40] = "";
	if (h->force)
		return;
	if (h->v.leader[0] != '\0')
		put_format(demoting, sizeof(demoting), ", demoting current leader %s", h->v.leader);
	if (h->at[0] != '\0')
		put_format(text, sizeof(text),
			"Are you sure you want to schedule switchover of cluster %s at %s%s?",
			h->v.scope, h->at, demoting);
	else
		put_format(text, sizeof(text), "Are you sure you want to %s cluster %s%s?",
			h->action, h->v.scope, demoting);
	if (prompt_confirm(text))
		return;
	if (h->at[0] != '\0')
		fail("Aborting scheduled switchover");
	fail("Aborting %s", h->action);
}

/* Nobody answered: leave the request in the store, where the members look for it. */
static void fall_back(struct handover *h)
{
	char stamp[48];
	when_stamp(stamp, sizeof(stamp), 5);
	printf("%s Could not %s using Patroni api, falling back to DCS\n", stamp, h->action);
	json_t *body = json_object();
	if (h->switchover)
		(void)json_object_set_new(body, "leader", json_string(h->leader));
	if (h->candidate[0] != '\0')
		(void)json_object_set_new(body, "member", json_string(h->candidate));
	if (h->at[0] != '\0')
		(void)json_object_set_new(body, "scheduled_at", json_string(h->at));
	AUTO_FREE char *text = json_compact(body);
	json_decref(body);
	if (text == NULL || source_write(h->c, DCS_SET_FAILOVER, text, 0) != DCS_OK)
		fail("The request could not be written to the store");
	members_print(&h->v, TABLE_PRETTY, false, false);
}

static void report(struct handover *h, const struct answer *ans)
{
	if (ans->status == 200 || ans->status == 202) {
		char stamp[48];
		struct view now;
		source_read(h->c, h->v.scope, &now);
		when_stamp(stamp, sizeof(stamp), 5);
		printf("%s %s\n", stamp, ans->body);
		members_print(&now, TABLE_PRETTY, false, false);
		source_done(&now);
		return;
	}
	printf("%s %s, details: %ld, %s\n", h->switchover ? "Switchover" : "Failover",
		strstr(ans->body, "status unknown") != NULL ? "result unknown" : "failed",
		ans->status, ans->body);
}

static void ask(struct handover *h)
{
	struct answer ans;
	json_t *body = json_object();
	if (h->switchover)
		(void)json_object_set_new(body, "leader", json_string(h->leader));
	(void)json_object_set_new(body, "candidate",
		h->candidate[0] != '\0' ? json_string(h->candidate) : json_null());
	if (h->at[0] != '\0')
		(void)json_object_set_new(body, "scheduled_at", json_string(h->at));
	const json_t *to = !h->c->store ? NULL
					: member_find(&h->v, h->v.leader[0] != '\0' ? h->v.leader
										    : h->candidate);
	bool nobody = h->c->store && to == NULL;
	if (nobody)
		ans = (struct answer){ .body = strdup("") };
	else
		rest_call(h->c, to, "POST", h->switchover ? "/switchover" : "/failover", body, 0,
			&ans);
	if (ans.status == 501 && h->switchover && ans.body != NULL &&
		strstr(ans.body, "Server does not support this operation") != NULL) {
		answer_done(&ans);
		rest_call(h->c, to, "POST", "/failover", body, 0, &ans);
	}
	json_decref(body);
	if (ans.status == 0)
		fall_back(h);
	else
		report(h, &ans);
	answer_done(&ans);
}

static void handover(struct ctl *c, const struct args *a, bool switchover)
{
	struct handover h = { .c = c,
		.a = a,
		.action = switchover ? "switchover" : "failover",
		.switchover = switchover,
		.force = args_has(a, "force") };
	if (h.force && c->group < 0 && json_truthy(json_object_get(c->tree, "citus")))
		fail("For Citus clusters the --group must me specified");
	source_read(c, source_scope(c, a->word_count > 0 ? a->words[0] : NULL), &h.v);
	printf("Current cluster topology\n");
	members_print(&h.v, TABLE_PRETTY, false, false);
	choose_leader(&h);
	choose_candidate(&h);
	confirm_async(&h);
	choose_time(&h);
	confirm(&h);
	(void)fflush(stdout);
	ask(&h);
	source_done(&h.v);
}

void cmd_switchover(struct ctl *c, const struct args *a)
{
	handover(c, a, true);
}

void cmd_failover(struct ctl *c, const struct args *a)
{
	handover(c, a, false);
}
