/* list, topology, history, dsn, version, show-config: what only reads (ctl 6.2-6.8). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"
#include "ctl/ctl.h"

#define PATRONI_VERSION "4.1.4"
#define VERSION_WAIT_MS 10000

static void list_round(struct ctl *c, const struct args *a, bool tree)
{
	const char *own[] = { json_string_value(json_object_get(c->tree, "scope")) };
	const char *const *names = a->words;
	unsigned count = a->word_count;
	if (count == 0) {
		names = own;
		count = own[0] != NULL || !c->store ? 1 : 0;
	}
	if (count == 0)
		log_warning("Listing members: No cluster names were provided");
	for (unsigned i = 0; i < count; i++) {
		struct view v;
		source_read(c, names[i], &v);
		members_print(&v, table_format_of(args_value(a, "format")), args_has(a, "extended"),
			tree);
		source_done(&v);
	}
}

static void list(struct ctl *c, const struct args *a, bool tree)
{
	double seconds = watch_interval(a);
	int64_t at_us = clock_monotonic_us();
	for (;;) {
		if (seconds > 0 && isatty(STDOUT_FILENO))
			printf("\033[H\033[2J");
		if (args_has(a, "timestamp")) {
			char stamp[48];
			when_stamp(stamp, sizeof(stamp), 0);
			printf("%s\n", stamp);
		}
		list_round(c, a, tree);
		if (seconds <= 0)
			return;
		if (fflush(stdout) != 0)
			return;
		watch_sleep(seconds, &at_us);
	}
}

void cmd_list(struct ctl *c, const struct args *a)
{
	list(c, a, false);
}

void cmd_topology(struct ctl *c, const struct args *a)
{
	list(c, a, true);
}

static const char *scope_arg(struct ctl *c, const struct args *a)
{
	return source_scope(c, a->word_count > 0 ? a->words[0] : NULL);
}

void cmd_history(struct ctl *c, const struct args *a)
{
	static const struct table_column columns[] = { { "TL", "TL", true }, { "LSN", "LSN", true },
		{ "Reason", "Reason", false }, { "Timestamp", "Timestamp", false },
		{ "New Leader", "New Leader", false } };
	struct view v;
	source_read(c, scope_arg(c, a), &v);
	size_t index;
	json_t *row;
	json_array_foreach(v.history, index, row) while (
		json_is_array(row) &&
		json_array_size(row) <
			ARRAY_LEN(columns)) if (json_array_append_new(row, json_string("")) != 0)
		fail("no memory");
	struct table t = {
		.columns = columns, .column_count = ARRAY_LEN(columns), .rows = v.history
	};
	AUTO(buf) out = BUF_INIT(LIMIT_DCS_TREE);
	if (!table_write(&t, table_format_of(args_value(a, "format")), &out))
		fail("The history is too large");
	(void)fputs(buf_str(&out), stdout);
	source_done(&v);
}

void cmd_show_config(struct ctl *c, const struct args *a)
{
	struct view v;
	source_read(c, scope_arg(c, a), &v);
	AUTO(buf) out = BUF_INIT(LIMIT_DCS_TREE);
	if (v.config != NULL) {
		if (!yaml_write(v.config, &out))
			fail("The configuration is too large");
		printf("%s\n", buf_str(&out));
	}
	source_done(&v);
}

void cmd_dsn(struct ctl *c, const struct args *a)
{
	const char *role = args_value(a, "role"), *name = args_value(a, "member");
	if (role != NULL && name != NULL)
		fail("--role and --member are mutually exclusive options");
	if (role == NULL)
		role = "leader";
	struct view v;
	source_read(c, scope_arg(c, a), &v);
	size_t index;
	json_t *m;
	json_array_foreach(json_object_get(v.doc, "members"), index, m)
	{
		bool fits = name != NULL ? strcmp(member_str(m, "name"), name) == 0
					 : member_has_role(m, role);
		if (!fits || member_str(m, "host")[0] == '\0')
			continue;
		printf("host=%s port=%lld\n", member_str(m, "host"),
			(long long)json_integer_value(json_object_get(m, "port")));
		source_done(&v);
		return;
	}
	fail("Can not find a suitable member");
}

static bool is_named(const struct args *a, const char *name)
{
	for (unsigned i = 1; i < a->word_count; i++)
		if (strcmp(a->words[i], name) == 0)
			return true;
	return a->word_count <= 1;
}

static void member_version(struct ctl *c, const json_t *m)
{
	struct answer ans;
	const char *name = member_str(m, "name");
	rest_call_url(c, member_str(m, "api_url"), "GET", NULL, VERSION_WAIT_MS, &ans);
	json_t *doc = ans.status != 0 ? json_read(ans.body, strlen(ans.body), NULL) : NULL;
	const char *version = json_path_str(doc, "patroni.version");
	if (version == NULL) {
		printf("%s: failed to get version: %s\n", name,
			ans.status == 0 ? ans.body : "the answer has no version");
	} else {
		printf("%s: Patroni %s", name, version);
		json_int_t n = json_integer_value(json_object_get(doc, "server_version"));
		if (n >= 100000)
			printf(" PostgreSQL %d.%d", (int)(n / 10000), (int)(n % 10000));
		else if (n > 0)
			printf(" PostgreSQL %d.%d.%d", (int)(n / 10000), (int)(n / 100 % 100),
				(int)(n % 100));
		printf("\n");
	}
	json_decref(doc);
	answer_done(&ans);
}

void cmd_version(struct ctl *c, const struct args *a)
{
	printf("patronictl version %s\n", PATRONI_VERSION);
	if (a->word_count == 0)
		return;
	struct view v;
	printf("\n");
	source_read(c, a->words[0], &v);
	size_t index;
	json_t *m;
	json_array_foreach(json_object_get(v.doc, "members"), index,
		m) if (member_str(m, "api_url")[0] != '\0' && is_named(a, member_str(m, "name")))
		member_version(c, m);
	source_done(&v);
}
