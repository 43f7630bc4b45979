/* The member table (ctl 5): list, topology, and the frame before and after most actions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"
#include "ctl/ctl.h"

#define REASON_MAX 50 /* a longer line is hidden in the box */
#define TABLE_MAX  (4 * 1024 * 1024)

enum {
	COL_CLUSTER,
	COL_MEMBER,
	COL_HOST,
	COL_ROLE,
	COL_STATE,
	COL_TL,
	COL_RLSN,
	COL_RLAG,
	COL_PLSN,
	COL_PLAG,
	COL_FIXED
};

const char *member_str(const json_t *m, const char *key)
{
	const char *s = json_string_value(json_object_get(m, key));
	return s != NULL ? s : "";
}

bool member_is_leader(const json_t *m)
{
	const char *role = member_str(m, "role");
	return strcmp(role, "leader") == 0 || strcmp(role, "standby_leader") == 0;
}

bool member_has_role(const json_t *m, const char *role)
{
	if (strcmp(role, "any") == 0)
		return true;
	if (strcmp(role, "primary") == 0)
		return strcmp(member_str(m, "role"), "leader") == 0;
	if (strcmp(role, "standby-leader") == 0)
		return strcmp(member_str(m, "role"), "standby_leader") == 0;
	return (strcmp(role, "leader") == 0) == member_is_leader(m);
}

const json_t *member_find(const struct view *v, const char *name)
{
	size_t index;
	json_t *m;
	json_array_foreach(json_object_get(v->doc, "members"), index,
		m) if (strcmp(member_str(m, "name"), name) == 0) return m;
	return NULL;
}

/* "sync_standby" to "Sync Standby". */
static json_t *title_case(const char *role)
{
	char text[48];
	if (!str_copy(text, sizeof(text), role))
		return json_string(role);
	bool start = true;
	for (char *p = text; *p != '\0'; p++) {
		if (*p == '_')
			*p = ' ';
		else if (start && *p >= 'a' && *p <= 'z')
			*p = (char)(*p - 'a' + 'A');
		start = *p == ' ';
	}
	return json_string(text);
}

static json_t *text_or_empty(const json_t *m, const char *key)
{
	json_t *v = json_object_get(m, key);
	return v != NULL && !json_is_null(v) ? json_incref(v) : json_string("");
}

/* MiB, half to even as the reference rounds; empty when unknown. */
static json_t *lag(const json_t *m, const char *key)
{
	json_t *v = json_object_get(m, key);
	if (!json_is_integer(v))
		return json_string("");
	json_int_t bytes = json_integer_value(v), mib = bytes / 1048576, rest = bytes % 1048576;
	if (rest > 524288 || (rest == 524288 && mib % 2 == 1))
		mib++;
	return json_integer(mib);
}

static bool with_ports(const json_t *members)
{
	size_t i, j;
	json_t *a, *b;
	json_array_foreach(members, i, a)
	{
		const json_t *port = json_object_get(a, "port");
		if (json_is_integer(port) && json_integer_value(port) != 5432)
			return true;
		for (j = 0; j < i; j++) {
			b = json_array_get(members, j);
			if (member_str(a, "host")[0] != '\0' &&
				strcmp(member_str(a, "host"), member_str(b, "host")) == 0)
				return true;
		}
	}
	return false;
}

static json_t *host(const json_t *m, bool port)
{
	char text[LIMIT_URL + 16];
	const json_t *p = json_object_get(m, "port");
	if (port && json_is_integer(p) &&
		str_format(text, sizeof(text), "%s:%lld", member_str(m, "host"),
			(long long)json_integer_value(p)))
		return json_string(text);
	return json_string(member_str(m, "host"));
}

static json_t *restart_reason(const json_t *m, bool box)
{
	AUTO(buf) out = BUF_INIT(65536);
	const char *name;
	json_t *change;
	json_object_foreach(json_object_get(m, "pending_restart_reason"), name, change)
	{
		char was[4096] = "", is[4096] = "";
		AUTO(buf) line = BUF_INIT(16384);
		if (!json_text(json_object_get(change, "old_value"), was, sizeof(was)))
			put_copy(was, sizeof(was), "");
		if (!json_text(json_object_get(change, "new_value"), is, sizeof(is)))
			put_copy(is, sizeof(is), "");
		buf_addf(&line, "%s: %s->%s", name, was, is);
		if (box && line.len > REASON_MAX) {
			buf_reset(&line);
			buf_addf(&line, "%s: [hidden - too long]", name);
		}
		buf_addf(&out, "%s%s", out.len > 0 ? "\n" : "", buf_str(&line));
	}
	return json_string(buf_str(&out));
}

static json_t *schedule(const json_t *m)
{
	const json_t *s = json_object_get(m, "scheduled_restart");
	char text[160] = "", version[40];
	const json_t *below = json_object_get(s, "postgres_version");
	if (json_truthy(below) && json_text(below, version, sizeof(version)))
		put_format(text, sizeof(text), "%s if version < %s", member_str(s, "schedule"),
			version);
	else
		put_copy(text, sizeof(text), member_str(s, "schedule"));
	return json_string(text);
}

static json_t *tags(const json_t *m, bool flow)
{
	json_t *t = json_object_get(m, "tags");
	if (!json_is_object(t) || json_object_size(t) == 0)
		return json_string("");
	if (!flow)
		return json_incref(t);
	AUTO(buf) out = BUF_INIT(65536);
	if (!yaml_write_flow(t, &out))
		return json_string("");
	while (out.len > 0 && out.data[out.len - 1] == '\n')
		out.data[--out.len] = '\0';
	return json_string(buf_str(&out));
}

struct shown {
	bool pending, reason, schedule, tags;
};

static struct shown what_is_shown(const json_t *members, bool extended)
{
	struct shown s = { extended, extended, extended, extended };
	size_t index;
	json_t *m;
	json_array_foreach(members, index, m)
	{
		if (member_str(m, "host")[0] == '\0')
			continue;
		s.pending |= json_truthy(json_object_get(m, "pending_restart"));
		s.reason |= json_truthy(json_object_get(m, "pending_restart_reason"));
		s.schedule |= json_truthy(json_object_get(m, "scheduled_restart"));
		s.tags |= json_truthy(json_object_get(m, "tags"));
	}
	return s;
}

/* Agents before 4.1 have one position only, and their other two are "unknown". */
static void put_positions(json_t *row, const json_t *m)
{
	const char *lsn = member_str(m, "lsn");
	bool old = strcmp(member_str(m, "receive_lsn"), "unknown") == 0 &&
		   strcmp(member_str(m, "replay_lsn"), "unknown") == 0 && lsn[0] != '\0' &&
		   strcmp(lsn, "unknown") != 0;
	bool streaming = strcmp(member_str(m, "state"), "streaming") == 0;
	bool receive = old && streaming, replay = old && !streaming;
	const char *rl = receive ? "lsn" : "receive_lsn", *pl = replay ? "lsn" : "replay_lsn";
	(void)json_array_append_new(row, text_or_empty(m, rl));
	(void)json_array_append_new(row, lag(m, receive ? "lag" : "receive_lag"));
	(void)json_array_append_new(row, text_or_empty(m, pl));
	(void)json_array_append_new(row, lag(m, replay ? "lag" : "replay_lag"));
}

static json_t *make_row(const struct view *v, const json_t *m, const char *prefix, bool ports,
	const struct shown *s, enum table_format format, bool tree)
{
	char name[LIMIT_NAME * 4];
	if (!str_format(name, sizeof(name), "%s%s", prefix, member_str(m, "name")))
		fail("A member name is too long");
	json_t *row = json_array();
	(void)json_array_append_new(row, json_string(v->scope));
	(void)json_array_append_new(row, json_string(name));
	(void)json_array_append_new(row, host(m, ports));
	(void)json_array_append_new(row, title_case(member_str(m, "role")));
	(void)json_array_append_new(row, text_or_empty(m, "state"));
	(void)json_array_append_new(row, text_or_empty(m, "timeline"));
	put_positions(row, m);
	if (s->pending)
		(void)json_array_append_new(row,
			json_string(json_truthy(json_object_get(m, "pending_restart")) ? "*" : ""));
	if (s->reason)
		(void)json_array_append_new(row, restart_reason(m, format == TABLE_PRETTY));
	if (s->schedule)
		(void)json_array_append_new(row, schedule(m));
	if (s->tags)
		(void)json_array_append_new(row, tags(m, tree || format == TABLE_TSV));
	return row;
}

struct tree {
	const struct view *v;
	json_t *rows;
	bool ports, done[LIMIT_MEMBERS * 2];
	const struct shown *shown;
};

/* The member that this one hangs under: its replicatefrom, or the leader. */
static const char *parent_of(const struct view *v, const json_t *m)
{
	const char *from = json_path_str(m, "tags.replicatefrom");
	if (from == NULL || strcmp(from, member_str(m, "name")) == 0 ||
		strcmp(from, v->leader) == 0 || member_find(v, from) == NULL)
		return v->leader;
	return from;
}

static void hang(struct tree *t, const json_t *m, size_t index, unsigned level)
{
	char prefix[LIMIT_NAME] = "";
	if (index >= ARRAY_LEN(t->done) || t->done[index])
		return;
	t->done[index] = true;
	if (level > 0)
		(void)snprintf(prefix, sizeof(prefix), "%*s+ ",
			(int)(level > 60 ? 120 : 2 * (level - 1)), "");
	(void)json_array_append_new(
		t->rows, make_row(t->v, m, prefix, t->ports, t->shown, TABLE_PRETTY, true));
	json_t *members = json_object_get(t->v->doc, "members");
	for (size_t i = 0; i < json_array_size(members); i++) {
		const json_t *child = json_array_get(members, i);
		if (!t->done[i] && strcmp(parent_of(t->v, child), member_str(m, "name")) == 0)
			hang(t, child, i, level + 1);
	}
}

static void tree_rows(struct tree *t, const json_t *members)
{
	size_t i, count = json_array_size(members);
	for (i = 0; i < count; i++)
		if (strcmp(member_str(json_array_get(members, i), "name"), t->v->leader) == 0)
			hang(t, json_array_get(members, i), i, 0);
	for (i = 0; i < count; i++)
		if (strcmp(parent_of(t->v, json_array_get(members, i)), t->v->leader) == 0)
			hang(t, json_array_get(members, i), i, 1);
	/* A loop of replicatefrom hangs nowhere: show it all the same (ctl 9, 7). */
	for (i = 0; i < count; i++)
		hang(t, json_array_get(members, i), i, 1);
}

static void print_footer(const struct view *v)
{
	if (json_truthy(json_object_get(v->doc, "pause")))
		printf(" Maintenance mode: on\n");
	const json_t *s = json_object_get(v->doc, "scheduled_switchover");
	if (!json_is_object(s))
		return;
	printf(" Switchover scheduled at: %s\n", member_str(s, "at"));
	if (member_str(s, "from")[0] != '\0')
		printf("%24s: %s\n", "from", member_str(s, "from"));
	if (member_str(s, "to")[0] != '\0')
		printf("%24s: %s\n", "to", member_str(s, "to"));
}

static unsigned make_columns(struct table_column *col, const struct shown *s)
{
	static const struct table_column fixed[COL_FIXED] = { { "Cluster", NULL, false },
		{ "Member", "Member", false }, { "Host", "Host", false }, { "Role", "Role", false },
		{ "State", "State", false }, { "TL", "TL", true },
		{ "Receive LSN", "Receive LSN", true }, { "Receive Lag", "Lag", true },
		{ "Replay LSN", "Replay LSN", true }, { "Replay Lag", "Lag", true } };
	unsigned n = COL_FIXED;
	memcpy(col, fixed, sizeof(fixed));
	if (s->pending)
		col[n++] = (struct table_column){ "Pending restart", "Pending restart", false };
	if (s->reason)
		col[n++] = (struct table_column){ "Pending restart reason",
			"Pending restart reason", false };
	if (s->schedule)
		col[n++] = (struct table_column){ "Scheduled restart", "Scheduled restart", false };
	if (s->tags)
		col[n++] = (struct table_column){ "Tags", "Tags", false };
	return n;
}

void members_print(const struct view *v, enum table_format format, bool extended, bool tree)
{
	struct table_column columns[COL_FIXED + 4];
	char title[LIMIT_NAME * 2 + 32];
	const json_t *members = json_object_get(v->doc, "members");
	struct shown s = what_is_shown(members, extended);
	struct tree t = { .v = v, .rows = json_array(), .ports = with_ports(members), .shown = &s };
	if (tree)
		tree_rows(&t, members);
	else
		for (size_t i = 0; i < json_array_size(members); i++)
			(void)json_array_append_new(
				t.rows, make_row(v, json_array_get(members, i), "", t.ports, &s,
						format, false));
	put_format(title, sizeof(title), " Cluster: %s (%s) ", v->scope, v->system_id);
	struct table table = { .columns = columns,
		.column_count = make_columns(columns, &s),
		.rows = t.rows,
		.title = title,
		.drop_empty = true };
	AUTO(buf) out = BUF_INIT(TABLE_MAX);
	if (!table_write(&table, format, &out))
		fail("The table is too large");
	(void)fputs(buf_str(&out), stdout);
	json_decref(t.rows);
	if (format == TABLE_PRETTY)
		print_footer(v);
}
