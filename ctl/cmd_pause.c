/* pause, resume, remove: the cluster as a whole (ctl 6.14, 6.15). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

#define PATCH_WAIT_MS 40000
#define POLL_MS	      1000

static const char *scope_arg(struct ctl *c, const struct args *a)
{
	return source_scope(c, a->word_count > 0 ? a->words[0] : NULL);
}

/* PATCH /config at the first member that answers, the leader first. */
static void send_patch(struct ctl *c, const struct view *v, const json_t *body, struct answer *out)
{
	*out = (struct answer){ 0 };
	if (!c->store) {
		rest_call(c, NULL, "PATCH", "/config", body, PATCH_WAIT_MS, out);
		if (out->status == 0)
			fail("Can not find accessible cluster member");
		return;
	}
	const json_t *members = json_object_get(v->doc, "members");
	for (int leader = 1; leader >= 0; leader--) {
		size_t index;
		json_t *m;
		json_array_foreach(members, index, m)
		{
			if (member_str(m, "api_url")[0] == '\0' ||
				member_is_leader(m) != (leader == 1))
				continue;
			answer_done(out);
			rest_call(c, m, "PATCH", "/config", body, PATCH_WAIT_MS, out);
			if (out->status != 0)
				return;
		}
	}
	fail("Can not find accessible cluster member");
}

/* What a member itself says, for a view over the local socket, which has no member keys. */
static bool asked_pause(struct ctl *c, const json_t *m)
{
	struct answer a;
	rest_call(c, m, "GET", "/patroni", NULL, 5000, &a);
	json_t *doc = a.status != 0 ? json_read(a.body, strlen(a.body), NULL) : NULL;
	bool paused = json_truthy(json_object_get(doc, "pause"));
	json_decref(doc);
	answer_done(&a);
	return paused;
}

/* Names of members that disagree into out; with `moved` only those that wrote their key since. */
static unsigned disagree(struct ctl *c, const struct view *before, const struct view *now,
	bool paused, bool moved, struct buf *out)
{
	unsigned count = 0;
	size_t index;
	json_t *m;
	json_array_foreach(json_object_get(now->doc, "members"), index, m)
	{
		const char *name = member_str(m, "name");
		const json_t *was = member_find(before, name);
		if (was == NULL || member_str(was, "api_url")[0] == '\0')
			continue;
		const struct member *key = now->c ? cluster_member_peek(now->c, name) : NULL;
		const struct member *old = before->c ? cluster_member_peek(before->c, name) : NULL;
		if ((key != NULL ? key->pause : asked_pause(c, m)) == paused)
			continue;
		if (moved && key != NULL && old != NULL && key->version_no == old->version_no)
			continue;
		buf_addf(out, "%s%s", count > 0 ? ", " : "", name);
		count++;
	}
	return count;
}

static void wait_all(struct ctl *c, const struct view *before, bool paused)
{
	const char *action = paused ? "pause" : "resume";
	struct err err = ERR_INIT;
	const json_t *lw = json_object_get(before->config, "loop_wait");
	int64_t loop_wait = json_is_number(lw) ? (int64_t)json_number_value(lw)
					       : source_timing_ms(c, "loop_wait", 10000) / 1000;
	int64_t end_ms = clock_boot_ms() + (loop_wait + 1) * 1000;
	printf("'%s' request sent, waiting until it is recognized by all nodes\n", action);
	(void)fflush(stdout);
	for (;;) {
		struct view now;
		AUTO(buf) names = BUF_INIT(65536);
		source_read(c, before->scope, &now);
		bool last = clock_boot_ms() >= end_ms;
		unsigned n = disagree(c, before, &now, paused, last, &names);
		source_done(&now);
		if (n == 0)
			break;
		if (last) {
			printf("%s members didn't recognized %s state after %lld seconds\n",
				buf_str(&names), action, (long long)loop_wait);
			return;
		}
		int64_t next_ms = clock_boot_ms() + POLL_MS;
		while (clock_boot_ms() < next_ms)
			if (loop_turn(&c->loop, (int)(next_ms - clock_boot_ms()) + 1, &err) !=
				ERR_OK)
				fail("%s", err.text);
	}
	printf("Success: cluster management is %s\n", paused ? "paused" : "resumed");
}

static void toggle(struct ctl *c, const struct args *a, bool paused)
{
	struct view v;
	struct answer ans;
	source_read(c, scope_arg(c, a), &v);
	if (document_paused(v.config) == paused)
		fail(paused ? "Cluster is already paused" : "Cluster is not paused");
	json_t *body = json_object();
	(void)json_object_set_new(body, "pause", paused ? json_true() : json_null());
	send_patch(c, &v, body, &ans);
	json_decref(body);
	if (ans.status != 200)
		printf("Failed: %s cluster management status code=%ld, (%s)\n",
			paused ? "pause" : "resume", ans.status, ans.body);
	else if (args_has(a, "wait"))
		wait_all(c, &v, paused);
	else
		printf("Success: cluster management is %s\n", paused ? "paused" : "resumed");
	answer_done(&ans);
	source_done(&v);
}

void cmd_pause(struct ctl *c, const struct args *a)
{
	toggle(c, a, true);
}

void cmd_resume(struct ctl *c, const struct args *a)
{
	toggle(c, a, false);
}

void cmd_remove(struct ctl *c, const struct args *a)
{
	char answer[LIMIT_NAME], text[LIMIT_NAME * 2];
	struct view v;
	if (c->group < 0 && json_truthy(json_object_get(c->tree, "citus")))
		fail("For Citus clusters the --group must me specified");
	source_read(c, a->words[0], &v);
	if (c->dcs == NULL)
		fail("remove needs the store: give its configuration with -c");
	members_print(&v, table_format_of(args_value(a, "format")), false, false);
	prompt_text("Please confirm the cluster name to remove", NULL, answer, sizeof(answer));
	if (strcmp(answer, v.scope) != 0)
		fail("Cluster names specified do not match");
	put_format(text, sizeof(text),
		"You are about to remove all information in DCS for %s, please type: \"Yes I am "
		"aware\"",
		v.scope);
	prompt_text(text, NULL, answer, sizeof(answer));
	if (strcmp(answer, "Yes I am aware") != 0)
		fail("You did not exactly type \"Yes I am aware\"");
	if (v.leader[0] != '\0') {
		prompt_text("This cluster currently is healthy. Please specify the leader name to "
			    "continue",
			NULL, answer, sizeof(answer));
		if (strcmp(answer, v.leader) != 0)
			fail("You did not specify the current leader of the cluster");
	}
	if (source_write(c, DCS_DELETE_CLUSTER, NULL, 0) != DCS_OK)
		fail("The keys changed while they were deleted");
	source_done(&v);
}
