/* Command lines. See argv.h. */
#include "worker/postgres/argv.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/str.h"
#include "worker/postgres/params.h"

#define WORD_MAX 16384 /* of one argument */

void argv_add(struct argv *a, const char *arg)
{
	buf_add(&a->bytes, arg, strlen(arg) + 1);
	a->count++;
}

void argv_addf(struct argv *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_addv(&a->bytes, fmt, ap);
	va_end(ap);
	buf_add(&a->bytes, "", 1);
	a->count++;
}

bool argv_failed(const struct argv *a)
{
	return a->bytes.failed || a->count == 0 || a->count > LIMIT_ARGS;
}

/* One word; *p moves behind it. False: a quote or backslash without its end. */
static bool split_word(const char **p, struct buf *word)
{
	const char *s = *p;
	char quote = '\0';
	for (; *s != '\0' && (quote != '\0' || !isspace((unsigned char)*s)); s++) {
		if (quote == '\'' ? *s == '\'' : quote == '"' && *s == '"') {
			quote = '\0';
		} else if (quote == '\0' && (*s == '\'' || *s == '"')) {
			quote = *s;
		} else if (*s == '\\' && quote != '\'') {
			/* Between double quotes a backslash is one unless it stands before a quote
			 * or a backslash. */
			if (s[1] == '\0')
				return false;
			if (quote == '"' && s[1] != '"' && s[1] != '\\')
				buf_add(word, s, 1);
			buf_add(word, ++s, 1);
		} else {
			buf_add(word, s, 1);
		}
	}
	*p = s;
	return quote == '\0';
}

bool argv_split(struct argv *a, const char *command)
{
	for (const char *p = command;;) {
		while (isspace((unsigned char)*p))
			p++;
		if (*p == '\0')
			return true;
		AUTO(buf) word = BUF_INIT(WORD_MAX);
		if (!split_word(&p, &word) || word.failed)
			return false;
		argv_add(a, buf_str(&word));
	}
}

/* ---- options
 * ---------------------------------------------------------------------------------------- */

static bool in_list(const char *list, const char *name)
{
	for (const char *p = list; *p != '\0'; p += strlen(p) + 1) {
		if (strcmp(p, name) == 0)
			return true;
	}
	return false;
}

/* A value that is exactly one shell word loses its quoting. */
static void add_option(struct argv *a, const char *name, const char *value)
{
	struct argv words = ARGV_INIT;
	bool one = argv_split(&words, value) && words.count == 1 && !words.bytes.failed;
	argv_addf(a, "--%s=%s", name, one ? words.bytes.data : value);
	argv_done(&words);
}

static bool allowed(const char *tool, const char *name, const char *forbidden, struct buf *notes)
{
	if (!in_list(forbidden, name))
		return true;
	buf_addf(notes, "%s option for %s is not allowed\n", name, tool);
	return false;
}

static bool option_item(struct argv *a, const char *tool, const json_t *item, const char *forbidden,
	struct buf *notes)
{
	if (json_is_string(item)) {
		if (!allowed(tool, json_string_value(item), forbidden, notes))
			return false;
		argv_addf(a, "--%s", json_string_value(item));
		return true;
	}
	void *iter = json_is_object(item) ? json_object_iter((json_t *)item) : NULL;
	const char *key = iter != NULL ? json_object_iter_key(iter) : NULL;
	const char *value = iter != NULL ? json_string_value(json_object_iter_value(iter)) : NULL;
	if (key == NULL || value == NULL || json_object_size(item) != 1) {
		buf_addf(notes,
			"Error when parsing %s option %s: a text, or one key with a text as value, "
			"is allowed\n",
			tool, key != NULL ? key : "");
		return false;
	}
	if (!allowed(tool, key, forbidden, notes))
		return false;
	add_option(a, key, value);
	return true;
}

/* A map: pairs without a true value are left out; other values must be text. */
static bool option_pair(struct argv *a, const char *tool, const char *key, const json_t *value,
	const char *forbidden, struct buf *notes)
{
	bool empty = json_is_null(value) || json_is_false(value) ||
		     (json_is_string(value) && json_string_length(value) == 0) ||
		     (json_is_number(value) && json_number_value(value) == 0) ||
		     (json_is_array(value) && json_array_size(value) == 0) ||
		     (json_is_object(value) && json_object_size(value) == 0);
	if (empty || key[0] == '\0')
		return true;
	if (!allowed(tool, key, forbidden, notes))
		return false;
	if (!json_is_string(value)) {
		buf_addf(notes, "Error when parsing %s option %s: value should be a text\n", tool,
			key);
		return false;
	}
	add_option(a, key, json_string_value(value));
	return true;
}

bool argv_options(struct argv *a, const char *tool, const json_t *options, const char *forbidden,
	struct buf *notes)
{
	bool ok = true;
	size_t i;
	const char *key;
	json_t *value;
	if (options == NULL || json_is_null(options))
		return true;
	if (json_is_array(options)) {
		json_array_foreach((json_t *)options, i, value) ok &=
			option_item(a, tool, value, forbidden, notes);
	} else if (json_is_object(options)) {
		json_object_foreach((json_t *)options, key, value) ok &=
			option_pair(a, tool, key, value, forbidden, notes);
	} else {
		buf_addf(notes, "%s options must be list or dict\n", tool);
		return false;
	}
	return ok;
}

/* ---- programs of PostgreSQL
 * ------------------------------------------------------------------------- */

void argv_postmaster(struct argv *a, const char *program, const char *data_dir,
	const char *conf_file, const json_t *params)
{
	argv_add(a, program);
	argv_add(a, "-D");
	argv_add(a, data_dir);
	argv_addf(a, "--config-file=%s", conf_file);
	for (unsigned i = 0; i < params_ours_count; i++) {
		const json_t *v = params_get(params, params_ours[i].name);
		if (!params_ours[i].cmdline || v == NULL || json_is_null(v))
			continue;
		AUTO(buf) text = BUF_INIT(WORD_MAX);
		params_text(v, &text);
		argv_addf(a, "--%s=%s", params_ours[i].name, buf_str(&text));
	}
}

bool argv_initdb(struct argv *a, const char *program, const char *data_dir, const json_t *options,
	const char *superuser, const char *pwfile, struct buf *notes)
{
	argv_add(a, program);
	if (!argv_options(
		    a, "initdb", options, "pgdata\0nosync\0pwfile\0sync-only\0version\0", notes))
		return false;
	if (superuser != NULL)
		argv_addf(a, "--username=%s", superuser);
	if (pwfile != NULL)
		argv_addf(a, "--pwfile=%s", pwfile);
	argv_add(a, data_dir);
	return true;
}

/* Only compression by the server: what the client would compress cannot be unpacked into a data
 * directory. */
static void add_backup_options(struct argv *a, const struct argv *options, struct buf *notes)
{
	const char *p = options->bytes.data;
	for (unsigned i = 0; i < options->count; i++, p += strlen(p) + 1) {
		if (str_starts(p, "--compress=") && !str_starts(p, "--compress=server"))
			buf_adds(notes, "basebackup option compress: only server-side compression "
					"(server-...) is allowed\n");
		else
			argv_add(a, p);
	}
}

void argv_basebackup(struct argv *a, const char *program, const char *data_dir,
	const char *conninfo, const json_t *options, int32_t version, struct buf *notes)
{
#define FORBIDDEN                                                                                  \
	"pgdata\0format\0wal-method\0xlog-"                                                        \
	"method\0gzip\0version\0dbname\0host\0port\0username\0password\0"
	struct argv extra = ARGV_INIT;
	argv_add(a, program);
	argv_addf(a, "--pgdata=%s", data_dir);
	argv_add(a, "-X");
	argv_add(a, "stream");
	argv_addf(a, "--dbname=%s", conninfo);
	/* A bad one is told and left out. */
	bool ok = argv_options(&extra, "basebackup", options,
		version >= 150000 ? FORBIDDEN : FORBIDDEN "compress\0", notes);
	if (!ok)
		buf_adds(notes, "basebackup: the options named above are left out\n");
	if (!extra.bytes.failed)
		add_backup_options(a, &extra, notes);
	a->bytes.failed |= extra.bytes.failed;
	argv_done(&extra);
#undef FORBIDDEN
}

void argv_rewind(struct argv *a, const char *program, const char *data_dir, const char *conninfo,
	const json_t *options, bool restore, const char *config_file, struct buf *notes)
{
	argv_add(a, program);
	if (restore)
		argv_add(a, "--restore-target-wal");
	if (restore && config_file != NULL)
		argv_addf(a, "--config-file=%s", config_file);
	argv_add(a, "-D");
	argv_add(a, data_dir);
	argv_add(a, "--source-server");
	argv_add(a, conninfo);
	if (!argv_options(a, "rewind", options,
		    "target-pgdata\0source-pgdata\0source-server\0write-recovery-conf\0dry-"
		    "run\0restore-target-wal\0"
		    "config-file\0no-ensure-shutdown\0version\0help\0",
		    notes))
		buf_adds(notes, "rewind: the options named above are left out\n");
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void argv_single(struct argv *a, const char *program, const char *data_dir, const char *conf_file,
	const char *postmaster_opts)
{
	AUTO(buf) copy = BUF_INIT(WORD_MAX);
	const char *options[128];
	unsigned n = 0;
	buf_adds(&copy, postmaster_opts);
	/* /path/postgres "-D" "/data" "--name=value" ... in one line; a value may hold blanks, and
	 * quotes are not escaped. */
	static const char mark[] = "\" \"";
	for (char *p = copy.data != NULL ? strchr(copy.data, '"') : NULL;
		p != NULL && n < ARRAY_LEN(options) - 2;) {
		char *option = p + 1, *end = strstr(option, mark);
		p = end != NULL ? end + 2 : NULL;
		if (end == NULL)
			end = option + strcspn(option, "\"\n");
		*end = '\0';
		if (!str_starts(option, "--") || strchr(option, '=') == NULL)
			continue;
		option += 2;
		if (!str_starts(option, "archive_mode=") &&
			!str_starts(option, "archive_command=") &&
			!str_starts(option, "config-file=") && !str_starts(option, "config_file="))
			options[n++] = option;
	}
	options[n++] = "archive_mode=on";
	options[n++] = "archive_command=false";
	qsort(options, n, sizeof(options[0]), by_text);
	argv_add(a, program);
	argv_add(a, "--single");
	argv_add(a, "-D");
	argv_add(a, data_dir);
	argv_addf(a, "--config-file=%s", conf_file);
	for (unsigned i = 0; i < n; i++) {
		argv_add(a, "-c");
		argv_add(a, options[i]);
	}
	argv_add(a, "template1");
	a->bytes.failed |= copy.failed;
}

/* ---- scripts
 * ---------------------------------------------------------------------------------------- */

static bool split_or_note(struct argv *a, const char *command, struct buf *notes)
{
	if (command != NULL && argv_split(a, command) && a->count > 0)
		return true;
	buf_addf(notes, "command \"%s\" has no words, or a quote that is not closed\n",
		command != NULL ? command : "");
	return false;
}

/* --key=value for each pair of a section but the skipped keys. */
static void add_pairs(struct argv *a, const json_t *section, const char *skipped)
{
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)section, key, value)
	{
		AUTO(buf) text = BUF_INIT(WORD_MAX);
		if (in_list(skipped, key))
			continue;
		params_text(value, &text);
		argv_addf(a, "--%s=%s", key, buf_str(&text));
	}
}

static bool truthy(const json_t *v)
{
	return v != NULL && !json_is_null(v) && !json_is_false(v) &&
	       !(json_is_string(v) && json_string_length(v) == 0) &&
	       !(json_is_number(v) && json_number_value(v) == 0);
}

bool argv_clone_method(struct argv *a, const char *method, const json_t *section, const char *scope,
	const char *data_dir, const char *connstring, struct buf *notes)
{
	const json_t *command = json_object_get(section, "command");
	if (!split_or_note(a, json_is_string(command) ? json_string_value(command) : method, notes))
		return false;
	if (truthy(json_object_get(section, "no_params"))) {
		add_pairs(a, section, "command\0no_params\0no_leader\0keep_data\0");
		return true;
	}
	add_pairs(a, section, "command\0scope\0role\0datadir\0connstring\0");
	argv_addf(a, "--scope=%s", scope);
	argv_add(a, "--role=replica");
	argv_addf(a, "--datadir=%s", data_dir);
	argv_addf(a, "--connstring=%s", connstring);
	return true;
}

bool argv_custom_bootstrap(struct argv *a, const json_t *section, const char *scope,
	const char *data_dir, struct buf *notes)
{
	if (!split_or_note(a, json_string_value(json_object_get(section, "command")), notes))
		return false;
	if (!truthy(json_object_get(section, "no_params"))) {
		argv_addf(a, "--scope=%s", scope);
		argv_addf(a, "--datadir=%s", data_dir);
	}
	add_pairs(a, section,
		"command\0no_params\0keep_existing_recovery_conf\0recovery_conf\0scope\0datadir\0");
	return true;
}

bool argv_script(
	struct argv *a, const char *command, const char *args, size_t args_len, struct buf *notes)
{
	if (!split_or_note(a, command, notes))
		return false;
	for (size_t at = 0; at < args_len; at += strlen(args + at) + 1)
		argv_add(a, args + at);
	return true;
}

void argv_archive_command(
	const char *command, const char *wal_dir, const char *segment, struct buf *out)
{
	for (const char *p = command; *p != '\0'; p++) {
		char c = *p == '%' ? p[1] : '\0';
		switch (c) {
		case 'p': buf_addf(out, "%s/%s", wal_dir, segment); break;
		case 'f': buf_adds(out, segment); break;
		case 'r': buf_adds(out, "000000010000000000000001"); break;
		case '%': buf_adds(out, "%"); break;
		default: buf_add(out, p, 1); continue;
		}
		p++;
	}
}
