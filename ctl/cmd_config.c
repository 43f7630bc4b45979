/* edit-config (ctl 6.5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"
#include "ctl/ctl.h"
#include "ctl/external.h"
#include "ctl/diff.h"

#define PATCH_WAIT_MS 40000

static json_t *read_mapping(const char *path)
{
	struct err err = ERR_INIT;
	json_t *v;
	if (strcmp(path, "-") == 0) {
		AUTO(buf) in = BUF_INIT(LIMIT_CONFIG_FILE);
		char chunk[4096];
		for (size_t n; (n = fread(chunk, 1, sizeof(chunk), stdin)) > 0;)
			buf_add(&in, chunk, n);
		if (in.failed)
			fail("Standard input is larger than %d bytes", LIMIT_CONFIG_FILE);
		v = yaml_read(buf_str(&in), in.len, &err);
	} else {
		v = yaml_read_file(path, &err);
	}
	if (v == NULL)
		fail(strcmp(path, "-") == 0 ? "standard input: %s" : "%s", err.text);
	if (!json_is_object(v))
		fail("%s: the configuration must be a mapping", path);
	return v;
}

static json_t *child_object(json_t *at, const char *key)
{
	if (!json_is_object(json_object_get(at, key)))
		(void)json_object_set_new(at, key, json_object());
	return json_object_get(at, key);
}

/* Objects that a removal left empty go with it. whole: the rest is one name, dots included. */
static void set_path(json_t *at, char *path, json_t *value, bool whole)
{
	char *dot = whole ? NULL : strchr(path, '.');
	if (dot == NULL) {
		if (json_is_null(value))
			(void)json_object_del(at, path);
		else
			(void)json_object_set(at, path, value);
		return;
	}
	*dot = '\0';
	json_t *child = child_object(at, path);
	set_path(child, dot + 1, value, false);
	if (json_object_size(child) == 0)
		(void)json_object_del(at, path);
}

static void set_one(json_t *config, const char *text, bool parameter)
{
	struct err err = ERR_INIT;
	char path[1024];
	const char *eq = strchr(text, '=');
	if (eq == NULL)
		fail("Invalid parameter setting %s", text);
	const char *from = text + strspn(text, " \t");
	size_t len = from < eq ? (size_t)(eq - from) : 0;
	while (len > 0 && (from[len - 1] == ' ' || from[len - 1] == '\t'))
		len--;
	if (!str_format(path, sizeof(path), "%s%.*s", parameter ? "postgresql.parameters." : "",
		    (int)len, from))
		fail("Invalid parameter setting %s: the name is too long", text);
	json_t *value = yaml_read(eq + 1, strlen(eq + 1), &err);
	if (value == NULL)
		fail("Invalid parameter setting %s: %s", text, err.text);
	static const char below[] = "postgresql.parameters.";
	if (str_starts(path, below)) {
		json_t *pg = child_object(config, "postgresql");
		json_t *params = child_object(pg, "parameters");
		set_path(params, path + sizeof(below) - 1, value, true);
		if (json_object_size(params) == 0)
			(void)json_object_del(pg, "parameters");
		if (json_object_size(pg) == 0)
			(void)json_object_del(config, "postgresql");
	} else {
		set_path(config, path, value, false);
	}
	json_decref(value);
}

static json_t *edit(const char *scope, const char *text)
{
	char name[LIMIT_PATH], safe[LIMIT_NAME];
	const char *tmp = getenv("TMPDIR");
	put_copy(safe, sizeof(safe), scope);
	for (char *p = safe; *p != '\0'; p++)
		if (*p == '/')
			*p = '_';
	if (!str_format(name, sizeof(name), "%s/%s-config-XXXXXX.yaml", tmp != NULL ? tmp : "/tmp",
		    safe))
		fail("TMPDIR is too long");
	AUTO_FD fd = mkstemps(name, (int)strlen(".yaml"));
	size_t len = strlen(text);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len)
		fail("The temporary file %s cannot be written", name);
	int rc = external_edit(name);
	if (rc != 0) {
		(void)unlink(name);
		fail("Editor exited with return code %d", rc);
	}
	json_t *v = read_mapping(name);
	(void)unlink(name);
	return v;
}

static void patch_by_file(json_t *config, const char *path)
{
	json_t *patch = read_mapping(path);
	(void)json_patch(config, patch);
	json_decref(patch);
}

static json_t *changed(const struct args *a, const struct view *v, const char *text)
{
	const char *replace = args_value(a, "replace"), *apply = args_value(a, "apply");
	bool set = args_has(a, "set") || args_has(a, "pg");
	if (replace == NULL && apply == NULL && !set)
		return edit(v->scope, text);
	json_t *config = replace != NULL ? json_object() : json_deep_copy(v->config);
	if (replace != NULL)
		patch_by_file(config, replace); /* of nothing: a null is left out */
	if (apply != NULL)
		patch_by_file(config, apply);
	for (int pg = 0; pg <= 1; pg++)
		for (unsigned i = 0; i < a->given_count; i++)
			if (strcmp(a->given[i].opt->name, pg ? "pg" : "set") == 0)
				set_one(config, a->given[i].value, pg == 1);
	return config;
}

/* On a terminal coloured, and through a pager. */
static void show_diff(const char *before, const char *after)
{
	AUTO(buf) out = BUF_INIT(LIMIT_CONFIG_FILE);
	AUTO(buf) shown = BUF_INIT(2 * LIMIT_CONFIG_FILE);
	if (!diff_write(before, after, &out))
		fail("The configuration is too long to be compared");
	if (!isatty(STDOUT_FILENO)) {
		(void)fputs(buf_str(&out), stdout);
		return;
	}
	for (const char *p = buf_str(&out); *p != '\0';) {
		size_t n = strcspn(p, "\n");
		const char *colour = *p == '+'	 ? "\033[32m"
				     : *p == '-' ? "\033[31m"
				     : *p == '@' ? "\033[36m"
						 : "";
		buf_addf(&shown, "%s%.*s%s\n", colour, (int)n, p,
			colour[0] != '\0' ? "\033[0m" : "");
		p += n + (p[n] == '\n');
	}
	if (shown.failed)
		fail("The configuration is too long to be shown");
	external_page(buf_str(&shown));
}

/* What turns a into b by the patch rule, so that a change of another key at the same time stays. */
static json_t *difference(const json_t *a, const json_t *b)
{
	json_t *patch = json_object(), *v;
	const char *key;
	json_object_foreach((json_t *)b, key, v)
	{
		json_t *was = json_object_get(a, key);
		if (json_is_object(was) && json_is_object(v)) {
			json_t *sub = difference(was, v);
			if (json_object_size(sub) > 0)
				(void)json_object_set(patch, key, sub);
			json_decref(sub);
		} else if (!json_equal(was, v)) {
			(void)json_object_set(patch, key, v);
		}
	}
	json_object_foreach((json_t *)a, key, v) if (json_object_get(b, key) == NULL)(void)
		json_object_set_new(patch, key, json_null());
	return patch;
}

static void write_config(struct ctl *c, const struct view *v, const json_t *config)
{
	if (c->store) {
		AUTO_FREE char *text = json_compact(config);
		if (text == NULL)
			fail("no memory");
		if (source_write(c, DCS_SET_CONFIG, text, v->config_version) != DCS_OK)
			fail("Config modification aborted due to concurrent changes");
		printf("Configuration changed\n");
		return;
	}
	struct answer ans;
	json_t *patch = difference(v->config, config);
	rest_call(c, NULL, "PATCH", "/config", patch, PATCH_WAIT_MS, &ans);
	json_decref(patch);
	if (ans.status != 200)
		fail("Config modification failed: %ld, %s", ans.status, ans.body);
	printf("Configuration changed\n");
	answer_done(&ans);
}

void cmd_edit_config(struct ctl *c, const struct args *a)
{
	struct view v;
	source_read(c, source_scope(c, a->word_count > 0 ? a->words[0] : NULL), &v);
	if (v.config == NULL)
		fail("The config key does not exist in the cluster %s", v.scope);
	AUTO(buf) before = BUF_INIT(LIMIT_CONFIG_FILE);
	AUTO(buf) after = BUF_INIT(LIMIT_CONFIG_FILE);
	if (!yaml_write(v.config, &before))
		fail("The configuration is too large");
	json_t *config = changed(a, &v, buf_str(&before));
	bool quiet = args_has(a, "quiet"), force = args_has(a, "force");
	bool from_stdin =
		str_eq(args_value(a, "apply"), "-") || str_eq(args_value(a, "replace"), "-");
	if (config == NULL || !yaml_write(config, &after))
		fail("The configuration is too large");
	if (json_equal(config, v.config)) {
		if (!quiet)
			printf("Not changed\n");
	} else {
		if (!quiet)
			show_diff(buf_str(&before), buf_str(&after));
		if (from_stdin && !force)
			printf("Use --force option to apply changes\n");
		else if (force || prompt_confirm("Apply these changes?"))
			write_config(c, &v, config);
	}
	json_decref(config);
	source_done(&v);
}
