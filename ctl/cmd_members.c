/* restart, reload, reinit, flush: actions on chosen members (ctl 4.4, 6.10-6.13). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

#define SHORT_WAIT_MS 35000
#define POLL_MS	      2000

struct choice {
	struct view v;
	const json_t *members[LIMIT_MEMBERS];
	unsigned count;
	bool force;
};

static bool named(const char *const *names, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return count == 0;
}

/* Steps 1-3 of ctl 4.4. words: cluster name, then member names. */
static void choose(struct ctl *c, const struct args *a, const char *const *names, unsigned count,
	const char *role, bool must_name, struct choice *out)
{
	char answer[LIMIT_NAME];
	const char *asked[1] = { answer };
	memset(out, 0, sizeof(*out));
	out->force = args_has(a, "force");
	source_read(c, a->words[0], &out->v);
	AUTO(buf) all = BUF_INIT(LIMIT_MEMBERS * LIMIT_NAME * 2);
	unsigned candidates = 0;
	size_t index;
	json_t *m;
	json_array_foreach(
		json_object_get(out->v.doc, "members"), index, m) if (member_has_role(m, role))
		buf_addf(&all, "%s%s", candidates++ > 0 ? ", " : "", member_str(m, "name"));
	if (count == 0 && candidates == 0)
		fail("%s cluster doesn't have any members", out->v.scope);
	members_print(&out->v, TABLE_PRETTY, false, false);
	bool prompted = count == 0 && must_name;
	if (prompted) {
		if (out->force)
			return;
		AUTO(buf) text = BUF_INIT(LIMIT_MEMBERS * LIMIT_NAME * 2 + 80);
		buf_addf(&text, "Which member do you want to reinitialize [%s]?", buf_str(&all));
		prompt_text(buf_str(&text), "", answer, sizeof(answer));
		names = asked;
		count = 1;
	}
	json_array_foreach(json_object_get(out->v.doc, "members"), index,
		m) if (member_has_role(m, role) && named(names, count, member_str(m, "name")) &&
		       out->count < LIMIT_MEMBERS) out->members[out->count++] = m;
	if (out->count == 0 && prompted)
		fail("%s is not a member of cluster", answer);
	if (out->count == 0)
		fail(must_name ? "No %s among provided members" : "No '%s' among provided members",
			role);
	for (unsigned i = 0; i < count; i++)
		if (member_find(&out->v, names[i]) == NULL)
			(void)fprintf(stderr, "Warning: %s is not a member of cluster %s\n",
				names[i], out->v.scope);
}

static void confirm(const struct choice *ch, const char *action, const char *at)
{
	AUTO(buf) text = BUF_INIT(LIMIT_MEMBERS * LIMIT_NAME * 2);
	if (ch->force)
		return;
	buf_addf(&text, "Are you sure you want to %s members ", action);
	for (unsigned i = 0; i < ch->count; i++)
		buf_addf(&text, "%s%s", i > 0 ? ", " : "", member_str(ch->members[i], "name"));
	if (at != NULL && at[0] != '\0')
		buf_addf(&text, " at %s", at);
	buf_adds(&text, "?");
	if (prompt_confirm(buf_str(&text)))
		return;
	fail("Aborted %s%s", at != NULL && at[0] != '\0' ? "scheduled " : "", action);
}

/* A member that cannot be reached does not hold up the others, but the run has failed (ctl 9, 3).
 */
static void report_failure(
	struct ctl *c, const char *what, const char *name, const struct answer *ans)
{
	printf("Failed: %s for member %s, status code=%ld, (%s)\n", what, name, ans->status,
		ans->body != NULL ? ans->body : "");
	if (ans->status == 0)
		c->status = 1;
}

static const char *role_arg(const struct args *a)
{
	const char *role = args_value(a, "role");
	return role != NULL ? role : "any";
}

void cmd_reload(struct ctl *c, const struct args *a)
{
	struct choice ch;
	choose(c, a, a->words + 1, a->word_count - 1, role_arg(a), false, &ch);
	confirm(&ch, "reload", NULL);
	const json_t *lw = json_object_get(ch.v.config, "loop_wait");
	long long loop_wait = json_is_number(lw) ? (long long)json_number_value(lw) : 10;
	for (unsigned i = 0; i < ch.count; i++) {
		struct answer ans;
		const char *name = member_str(ch.members[i], "name");
		rest_call(c, ch.members[i], "POST", "/reload", NULL, SHORT_WAIT_MS, &ans);
		if (ans.status == 202)
			printf("Reload request received for member %s and will be processed within "
			       "%lld seconds\n",
				name, loop_wait);
		else if (ans.status == 200)
			printf("No changes to apply on member %s\n", name);
		else
			report_failure(c, "reload", name, &ans);
		answer_done(&ans);
	}
	source_done(&ch.v);
}

static void narrow(const struct args *a, struct choice *ch, const char *at)
{
	if (args_has(a, "pending") && at[0] == '\0') {
		unsigned n = 0;
		for (unsigned i = 0; i < ch->count; i++)
			if (json_truthy(json_object_get(ch->members[i], "pending_restart")))
				ch->members[n++] = ch->members[i];
		ch->count = n;
	}
	if (args_has(a, "any") && ch->count > 1) {
		ch->members[0] = ch->members[(uint64_t)clock_boot_us() % ch->count];
		ch->count = 1;
	}
}

/* Two numbers from 10 on, three before. */
static void check_version(const char *text)
{
	unsigned parts = 0;
	for (const char *p = text;;) {
		size_t n = strspn(p, "0123456789");
		if (n == 0 || (p[n] != '.' && p[n] != '\0'))
			fail("Invalid PostgreSQL version: %s", text);
		parts++;
		if (p[n] == '\0')
			break;
		p += n + 1;
	}
	size_t zeros = strspn(text, "0");
	bool old = strspn(text + zeros, "0123456789") < 2;
	if (parts < 2 || parts > 3 || (parts == 2 && old))
		fail("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: %s", text);
}

static json_t *restart_body(const struct args *a, const struct choice *ch, const char *at)
{
	char version[64] = "";
	json_t *body = json_object();
	const char *given = args_value(a, "pg-version"), *timeout = args_value(a, "timeout");
	if (given == NULL && !ch->force) {
		prompt_text("Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ",
			"", version, sizeof(version));
		given = version;
	}
	if (args_has(a, "pending"))
		(void)json_object_set_new(body, "restart_pending", json_true());
	if (given != NULL && given[0] != '\0') {
		check_version(given);
		(void)json_object_set_new(body, "postgres_version", json_string(given));
	}
	if (at[0] != '\0')
		(void)json_object_set_new(body, "schedule", json_string(at));
	if (timeout != NULL)
		(void)json_object_set_new(body, "timeout", json_string(timeout));
	return body;
}

static void restart_one(
	struct ctl *c, const struct choice *ch, const json_t *m, const json_t *body, bool scheduled)
{
	struct answer ans;
	const char *name = member_str(m, "name");
	if (scheduled && ch->force && json_truthy(json_object_get(m, "scheduled_restart"))) {
		rest_call(c, m, "DELETE", "/restart", NULL, SHORT_WAIT_MS, &ans);
		if (ans.status != 200)
			report_failure(c, "flush scheduled restart", name, &ans);
		answer_done(&ans);
	}
	rest_call(c, m, "POST", "/restart", body, 0, &ans);
	if (ans.status == 200)
		printf("Success: restart on member %s\n", name);
	else if (ans.status == 202)
		printf("Success: restart scheduled on member %s\n", name);
	else if (ans.status == 409)
		printf("Failed: another restart is already scheduled on member %s\n", name);
	else
		report_failure(c, "restart", name, &ans);
	(void)fflush(stdout);
	answer_done(&ans);
}

void cmd_restart(struct ctl *c, const struct args *a)
{
	struct choice ch;
	char at[64], answer[128], question[160], example[40];
	choose(c, a, a->words + 1, a->word_count - 1, role_arg(a), false, &ch);
	const char *given = args_value(a, "scheduled");
	if (given == NULL && !ch.force) {
		when_example(example, sizeof(example));
		put_format(question, sizeof(question),
			"When should the restart take place (e.g. %s) ", example);
		prompt_text(question, "now", answer, sizeof(answer));
		given = answer;
	}
	if (!when_parse(given != NULL ? given : "now", at, sizeof(at)))
		fail("Unable to parse scheduled timestamp (%s). It should be in an unambiguous "
		     "format (e.g. ISO 8601)",
			given);
	narrow(a, &ch, at);
	if (at[0] != '\0' && args_has(a, "pending") && !ch.force) {
		if (!prompt_confirm("The members that are to be restarted at that time might be "
				    "different from the ones shown. Go on?"))
			fail("Aborted scheduled restart");
	} else {
		confirm(&ch, "restart", at);
	}
	json_t *body = restart_body(a, &ch, at);
	if (at[0] != '\0' && document_paused(ch.v.config))
		fail("Can't schedule restart in the paused state");
	for (unsigned i = 0; i < ch.count; i++)
		restart_one(c, &ch, ch.members[i], body, at[0] != '\0');
	json_decref(body);
	source_done(&ch.v);
}

static void reinit_one(
	struct ctl *c, const struct args *a, const json_t *m, bool force, bool *waits)
{
	struct answer ans;
	const char *name = member_str(m, "name");
	json_t *body = json_object();
	(void)json_object_set_new(body, "force", json_boolean(force));
	(void)json_object_set_new(body, "from_leader", json_boolean(args_has(a, "from-leader")));
	rest_call(c, m, "POST", "/reinitialize", body, SHORT_WAIT_MS, &ans);
	json_decref(body);
	*waits = ans.status == 200;
	if (ans.status == 200)
		printf("Success: reinitialize for member %s\n", name);
	else
		report_failure(c, "reinitialize", name, &ans);
	bool busy = ans.status != 0 && str_ends(ans.body, " already in progress");
	answer_done(&ans);
	if (busy && !force && prompt_confirm("Do you want to cancel it and reinitialize anyway?"))
		reinit_one(c, a, m, true, waits);
}

/* Every 2 s until each member was seen to leave "creating replica". */
static void wait_reinit(struct ctl *c, const struct choice *ch, bool *waits)
{
	struct err err = ERR_INIT;
	unsigned before = 0;
	for (;;) {
		AUTO(buf) names = BUF_INIT(LIMIT_MEMBERS * LIMIT_NAME);
		unsigned n = 0;
		for (unsigned i = 0; i < ch->count; i++)
			if (waits[i])
				buf_addf(&names, "%s%s", n++ > 0 ? ", " : "",
					member_str(ch->members[i], "name"));
		if (n == 0)
			return;
		if (n != before)
			printf("Waiting for reinitialize to complete on: %s\n", buf_str(&names));
		(void)fflush(stdout);
		before = n;
		for (int64_t end = clock_boot_ms() + POLL_MS; clock_boot_ms() < end;)
			if (loop_turn(&c->loop, (int)(end - clock_boot_ms()) + 1, &err) != ERR_OK)
				fail("%s", err.text);
		for (unsigned i = 0; i < ch->count; i++) {
			struct answer ans;
			if (!waits[i])
				continue;
			rest_call(c, ch->members[i], "GET", "/patroni", NULL, 5000, &ans);
			json_t *doc =
				ans.status ? json_read(ans.body, strlen(ans.body), NULL) : NULL;
			const char *state = json_path_str(doc, "state");
			if (state != NULL && strcmp(state, "creating replica") != 0) {
				waits[i] = false;
				printf("Reinitialize is completed on: %s\n",
					member_str(ch->members[i], "name"));
			}
			json_decref(doc);
			answer_done(&ans);
		}
	}
}

void cmd_reinit(struct ctl *c, const struct args *a)
{
	struct choice ch;
	bool waits[LIMIT_MEMBERS] = { false };
	choose(c, a, a->words + 1, a->word_count - 1, "replica", true, &ch);
	if (ch.count > 0)
		confirm(&ch, "reinitialize", NULL);
	for (unsigned i = 0; i < ch.count; i++)
		reinit_one(c, a, ch.members[i], ch.force, &waits[i]);
	if (args_has(a, "wait"))
		wait_reinit(c, &ch, waits);
	source_done(&ch.v);
}

static void flush_restart(struct ctl *c, const struct args *a)
{
	struct choice ch;
	choose(c, a, a->words + 1, a->word_count - 2, role_arg(a), false, &ch);
	confirm(&ch, "flush", NULL);
	for (unsigned i = 0; i < ch.count; i++) {
		struct answer ans;
		const char *name = member_str(ch.members[i], "name");
		if (!json_truthy(json_object_get(ch.members[i], "scheduled_restart"))) {
			printf("No scheduled restart for member %s\n", name);
			continue;
		}
		rest_call(c, ch.members[i], "DELETE", "/restart", NULL, SHORT_WAIT_MS, &ans);
		if (ans.status == 200)
			printf("Success: flush scheduled restart for member %s\n", name);
		else
			report_failure(c, "flush scheduled restart", name, &ans);
		answer_done(&ans);
	}
	source_done(&ch.v);
}

/* True: the member's answer ends the command. */
static bool flush_at(struct ctl *c, const json_t *m)
{
	struct answer ans;
	const char *name = m != NULL ? member_str(m, "name") : c->socket_member;
	rest_call(c, m, "DELETE", "/switchover", NULL, SHORT_WAIT_MS, &ans);
	bool ends = ans.status == 200 || ans.status == 404;
	if (ends)
		printf("%s: %s\n", ans.status == 200 ? "Success" : "Failed", ans.body);
	else if (ans.status != 0)
		printf("Failed: member=%s, status_code=%ld, (%s)\n", name, ans.status, ans.body);
	else
		(void)fprintf(stderr, "Warning: member %s: %s\n", name, ans.body);
	answer_done(&ans);
	return ends;
}

static void flush_switchover(struct ctl *c, const struct args *a)
{
	struct view v;
	source_read(c, a->words[0], &v);
	if (json_object_get(v.doc, "scheduled_switchover") == NULL) {
		printf("No pending scheduled switchover\n");
		source_done(&v);
		return;
	}
	bool done = !c->store && flush_at(c, NULL);
	for (int leader = 1; leader >= 0 && !done && c->store; leader--) {
		size_t index;
		json_t *m;
		json_array_foreach(json_object_get(v.doc, "members"), index,
			m) if (!done && member_str(m, "api_url")[0] != '\0' &&
			       member_is_leader(m) == (leader == 1)) done = flush_at(c, m);
	}
	if (!done) {
		char stamp[48];
		when_stamp(stamp, sizeof(stamp), 5);
		printf("%s Could not find any accessible member of cluster %s\n", stamp, v.scope);
		if (v.c == NULL ||
			source_write(c, DCS_SET_FAILOVER, "{}", v.c->failover_version) != DCS_OK)
			fail("The scheduled switchover could not be removed");
	}
	source_done(&v);
}

void cmd_flush(struct ctl *c, const struct args *a)
{
	const char *what = a->words[a->word_count - 1];
	if (strcmp(what, "restart") == 0)
		flush_restart(c, a);
	else if (strcmp(what, "switchover") == 0)
		flush_switchover(c, a);
	else
		fail_usage("Invalid value for '{restart|switchover}': '%s' is not one of "
			   "'restart', 'switchover'.",
			what);
}
