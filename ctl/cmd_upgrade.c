/* upgrade: the agent of this node executes its new program in place, in the same process;
 * PostgreSQL runs on. Over the local socket alone. */
#include <stdio.h>
#include <string.h>

#include "common/core/clock.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

#define ASK_MS 5000
/* The supervisor checks the new program for 5 s, and goes back when it is not up 5 s later; then
 * its helpers start. */
#define ORDER_MS 15000
#define UP_MS	 20000
#define POLL_MS	 100

static json_t *status(struct ctl *c)
{
	struct answer a;
	rest_call(c, NULL, "POST", "/status-local", NULL, ASK_MS, &a);
	json_t *o = a.status == 200 ? json_read(a.body, strlen(a.body), NULL) : NULL;
	answer_done(&a);
	return o;
}

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s != NULL ? s : "?";
}

static void pause_ms(struct ctl *c, int64_t ms)
{
	struct err err = ERR_INIT;
	int64_t until_ms = clock_boot_ms() + ms;
	for (int64_t now_ms = clock_boot_ms(); now_ms < until_ms; now_ms = clock_boot_ms())
		if (loop_turn(&c->loop, (int)(until_ms - now_ms), &err) != ERR_OK)
			fail("%s", err.text);
}

/* The agent under another program, or under the old one again: never the one before. */
static json_t *wait_other(struct ctl *c, const json_t *before)
{
	int64_t until_ms = clock_boot_ms() + UP_MS;
	do {
		json_t *now = status(c);
		if (number(now, "supervisor_started_ms") !=
				number(before, "supervisor_started_ms") &&
			number(now, "supervisor_pid") != 0)
			return now;
		json_decref(now);
		pause_ms(c, POLL_MS);
	} while (clock_boot_ms() < until_ms);
	fail("The agent gave no answer within %d s after the upgrade was ordered; its log says "
	     "how it went",
		UP_MS / 1000);
}

void cmd_upgrade(struct ctl *c, const struct args *a)
{
	struct answer ans;
	source_socket(c, a->word_count > 0 ? a->words[0] : NULL);
	json_auto_t *before = status(c);
	if (before == NULL)
		fail("The agent at %s does not answer", c->socket);
	rest_call(c, NULL, "POST", "/upgrade", NULL, ORDER_MS, &ans);
	/* No answer: the old program may have ended before its last word was through. */
	if (ans.status != 0 && ans.status != 200)
		fail("The upgrade is refused: %s", ans.body);
	answer_done(&ans);
	json_auto_t *now = wait_other(c, before);
	if (strcmp(text(now, "upgrade"), "done") != 0)
		fail("The new program did not come up; pgregent %s runs again (pid %lld), "
		     "PostgreSQL was not touched",
			text(now, "version"), (long long)number(now, "supervisor_pid"));
	printf("Success: %s of cluster %s runs pgregent %s now, before %s (pid %lld)\n",
		text(now, "name"), text(now, "scope"), text(now, "version"),
		text(before, "version"), (long long)number(now, "supervisor_pid"));
}
