/* The checks of request bodies. See validate.h. */
#include "api/validate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/snapshot.h"
#include "api/timestamp.h"
#include "common/config/value.h"
#include "common/core/str.h"
#include "common/ext/json.h"

static void PRINTF(3, 4) say(struct verdict *v, unsigned status, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	v->status = status;
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
}

bool validate_object(const char *body, size_t len, bool has_length, bool optional, json_t **out,
	struct verdict *v)
{
	struct err err = ERR_INIT;
	if (optional && (!has_length || len == 0)) {
		*out = json_object();
		return *out != NULL;
	}
	v->page = true;
	if (!has_length) {
		say(v, 411, "Client must specify Content-Length");
		return false;
	}
	json_t *parsed = json_read(body, len, &err);
	if (!json_is_object(parsed) || (!optional && json_object_size(parsed) == 0)) {
		say(v, 400, "%s",
			parsed == NULL		  ? err.text
			: !json_is_object(parsed) ? "the body must be a JSON object"
						  : "the body must not be an empty object");
		json_decref(parsed);
		return false;
	}
	v->page = false;
	*out = parsed;
	return true;
}

/* Lines 5 to 7 of rest 8. True: *iso is the normalised time. */
static bool schedule_ok(const json_t *value, const char *action, const struct validate_env *env,
	char iso[static 40], struct verdict *v)
{
	struct timestamp t;
	const char *text = json_string_value(value);
	if (text == NULL || !timestamp_parse(text, &t))
		say(v, 422,
			"Unable to parse scheduled timestamp. It should be in an unambiguous "
			"format, "
			"e.g. ISO 8601");
	else if (!t.has_zone)
		say(v, 400, "Timezone information is mandatory for the scheduled %s", action);
	else if (t.wall_us < env->now_wall_us)
		say(v, 422, "Cannot schedule %s in the past", action);
	else {
		timestamp_iso(&t, iso);
		return true;
	}
	return false;
}

/* ---- switchover, failover ---------------------------------------------------------------------
 */

struct handover {
	const char *leader, *candidate, *action;
	bool scheduled;
	char iso[40];
};

/* Somebody who could take over: line 13 (synchronous ones only) and line 14. */
static bool some_candidate(const json_t *cluster, const char *leader, bool only_sync)
{
	size_t i;
	json_t *m;
	json_array_foreach(json_object_get(cluster, "members"), i, m)
	{
		const char *name = json_string_value(json_object_get(m, "name"));
		if (name == NULL)
			continue;
		if (only_sync && snapshot_is_sync(cluster, name))
			return true;
		const char *url =
			json_string_value(json_object_get(json_object_get(m, "data"), "api_url"));
		if (!only_sync && (leader == NULL || (!str_eq(name, leader) && url != NULL)))
			return true;
	}
	return false;
}

/* Lines 10 to 14: only immediate requests. */
static void possible(const struct handover *h, const struct validate_env *env, struct verdict *v)
{
	const char *holder = snapshot_leader(env->cluster);
	bool sync = env->sync == SYNC_PRIORITY;
	if (h->leader[0] != '\0' && !str_eq(h->leader, holder))
		say(v, 412, "leader name does not match");
	else if (h->candidate[0] != '\0' && strcmp(h->action, "switchover") == 0 && sync &&
		 !snapshot_is_sync(env->cluster, h->candidate))
		say(v, 412, "candidate name does not match with sync_standby");
	else if (h->candidate[0] != '\0' && snapshot_member(env->cluster, h->candidate) == NULL)
		say(v, 412, "candidate does not exists");
	else if (h->candidate[0] == '\0' && sync && !some_candidate(env->cluster, holder, true))
		say(v, 412, "%s is not possible: can not find sync_standby", h->action);
	else if (h->candidate[0] == '\0' && !sync && !some_candidate(env->cluster, holder, false))
		say(v, 412, "%s is not possible: cluster does not have members except leader",
			h->action);
}

/* A name in the body: absent, null and "" are the same; another type is refused with its key. */
static bool name_of(const json_t *body, const char *key, const char **out, struct verdict *v)
{
	const json_t *value = json_object_get(body, key);
	*out = "";
	if (value == NULL || json_is_null(value))
		return true;
	*out = json_string_value(value);
	if (*out == NULL)
		say(v, 400, "%s must be the name of a member, a string", key);
	else if (strlen(*out) >= LIMIT_NAME)
		say(v, 400, "%s: a name has at most %d bytes", key, LIMIT_NAME - 1);
	return v->status == 0;
}

/* Lines 1 to 9. */
static void handover_checks(struct handover *h, bool failover, const json_t *scheduled_at,
	const struct validate_env *env, struct verdict *v)
{
	h->scheduled = json_truthy(scheduled_at);
	if (failover && h->candidate[0] == '\0')
		say(v, 400, "Failover could be performed only to a specific candidate");
	else if (!failover && h->leader[0] == '\0')
		say(v, 400, "Switchover could be performed only from a specific leader");
	else if (h->scheduled && failover)
		say(v, 400, "Failover can't be scheduled");
	else if (h->scheduled && env->paused)
		say(v, 400, "Can't schedule switchover in the paused state");
	else if (h->scheduled && !schedule_ok(scheduled_at, "switchover", env, h->iso, v))
		return;
	else if (env->paused && h->candidate[0] == '\0')
		say(v, 400,
			"Switchover is possible only to a specific candidate in a paused state");
	else if (strcmp(h->leader, h->candidate) == 0)
		say(v, 400, "Switchover target and source are the same");
}

void validate_switchover(
	const json_t *body, bool failover, const struct validate_env *env, struct verdict *out)
{
	struct handover h = { .action = failover ? "failover" : "switchover" };
	if (!name_of(body, "leader", &h.leader, out) ||
		!name_of(body, "candidate", &h.candidate, out))
		return;
	if (h.candidate[0] == '\0' && !name_of(body, "member", &h.candidate, out))
		return;
	handover_checks(&h, failover, json_object_get(body, "scheduled_at"), env, out);
	/* A failover from a named leader is a switchover from here on. */
	if (failover && h.leader[0] != '\0')
		h.action = "switchover";
	if (out->status == 0 && !h.scheduled)
		possible(&h, env, out);
	if (out->status != 0)
		return;
	out->forward = json_object();
	if (h.leader[0] != '\0')
		json_object_set_new(out->forward, "leader", json_string(h.leader));
	if (h.candidate[0] != '\0')
		json_object_set_new(out->forward, "candidate", json_string(h.candidate));
	if (h.scheduled)
		json_object_set_new(out->forward, "scheduled_at", json_string(h.iso));
}

/* ---- restart ------------------------------------------------------------------------------------
 */

/* Two parts from 10 on, three parts before; all numbers. */
static bool version_ok(const json_t *value, struct verdict *v)
{
	char text[64];
	if (!json_text(value, text, sizeof(text))) {
		say(v, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted");
		return false;
	}
	long part[3] = { 0 };
	unsigned n = 1;
	bool numeric = text[0] != '\0';
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '.') {
			n++;
			numeric = numeric && p != text && p[1] != '.' && p[1] != '\0';
		} else if (*p >= '0' && *p <= '9' && (n > 3 || part[n - 1] < 100000)) {
			if (n <= 3)
				part[n - 1] = part[n - 1] * 10 + (*p - '0');
		} else {
			numeric = false;
		}
	}
	if (!numeric) {
		say(v, 400, "Invalid PostgreSQL version: %s", text);
		return false;
	}
	if (n < 2 || n > 3 || (n == 2 && part[0] < 10)) {
		say(v, 400, "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: %s",
			text);
		return false;
	}
	return true;
}

static bool restart_filter(
	const char *key, const json_t *value, const struct validate_env *env, struct verdict *v)
{
	const char *word = json_string_value(value);
	char text[64];
	int64_t seconds = 0;
	json_t *forward = NULL;
	if (strcmp(key, "schedule") == 0) {
		if (!schedule_ok(value, "restart", env, text, v))
			return false;
		forward = json_string(text);
	} else if (strcmp(key, "role") == 0) {
		if (!str_eq(word, "primary") && !str_eq(word, "standby_leader") &&
			!str_eq(word, "replica")) {
			say(v, 400,
				"PostgreSQL role should be either primary, standby_leader, or "
				"replica");
			return false;
		}
	} else if (strcmp(key, "postgres_version") == 0) {
		if (!version_ok(value, v))
			return false;
	} else if (strcmp(key, "timeout") == 0) {
		if (json_is_boolean(value) || !json_text(value, text, sizeof(text)) ||
			!value_parse_int(text, "s", &seconds) || seconds <= 0) {
			say(v, 400, "Timeout should be a positive number of seconds");
			return false;
		}
		forward = json_integer(seconds);
	} else if (strcmp(key, "restart_pending") != 0) {
		say(v, 400, "Unknown filter for the scheduled restart: %s", key);
		return false;
	}
	if (forward == NULL)
		forward = json_deep_copy(value);
	json_object_set_new(v->forward, key, forward);
	return true;
}

void validate_restart(const json_t *body, const struct validate_env *env, struct verdict *out)
{
	if (env->paused && json_object_get(body, "schedule") != NULL) {
		say(out, 500, "Can't schedule restart in the paused state");
		return;
	}
	out->forward = json_object();
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)body, key, value)
	{
		if (!restart_filter(key, value, env, out)) {
			json_decref(out->forward);
			out->forward = NULL;
			return;
		}
	}
}

/* ---- others -------------------------------------------------------------------------------------
 */

/* A YAML-like truth word, or any true value (rest 10). */
static bool word_true(const json_t *value)
{
	const char *s = json_string_value(value);
	if (s == NULL)
		return json_truthy(value);
	return str_eq_nocase(s, "on") || str_eq_nocase(s, "true") || str_eq_nocase(s, "yes") ||
	       str_eq(s, "1");
}

void validate_reinitialize(const json_t *body, struct verdict *out)
{
	bool from_leader = word_true(json_object_get(body, "from_leader")) ||
			   word_true(json_object_get(body, "from-leader"));
	out->forward = json_pack("{s:b, s:b}", "force", word_true(json_object_get(body, "force")),
		"from_leader", from_leader);
}

void validate_failsafe(const json_t *body, struct verdict *out)
{
	static const char *const required[] = { "name", "conn_url", "api_url" };
	out->forward = json_object();
	for (unsigned i = 0; i < ARRAY_LEN(required); i++) {
		json_t *value = json_object_get(body, required[i]);
		if (!json_is_string(value)) {
			say(out, 400, "%s is required and must be a string", required[i]);
			break;
		}
		json_object_set(out->forward, required[i], value);
	}
	json_t *slots = json_object_get(body, "slots");
	if (out->status == 0 && slots != NULL && !json_is_null(slots)) {
		if (json_is_object(slots))
			json_object_set(out->forward, "slots", slots);
		else
			say(out, 400, "slots must be an object of slot names and positions");
	}
	if (out->status != 0) {
		out->page = true;
		json_decref(out->forward);
		out->forward = NULL;
	}
}
