/* Format and filter of log lines. See logging.h. */
#include "common/config/logging.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/config/value.h"
#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define LINE_MAX_BYTES 4000
#define PARTS_MAX      48
#define LOGGERS_MAX    64
#define TEXT_MAX       512
#define DEFAULT_FORMAT "%(asctime)s %(levelname)s: %(message)s"

enum field {
	F_TEXT = 0,
	F_ASCTIME,
	F_CREATED,
	F_FILENAME,
	F_FUNCNAME,
	F_LEVELNAME,
	F_LEVELNO,
	F_LINENO,
	F_MESSAGE,
	F_MODULE,
	F_MSECS,
	F_NAME,
	F_PATHNAME,
	F_PROCESS,
	F_PROCESSNAME,
	F_RELATIVE,
	F_THREAD,
	F_THREADNAME
};

static const char *const field_names[] = { "", "asctime", "created", "filename", "funcName",
	"levelname", "levelno", "lineno", "message", "module", "msecs", "name", "pathname",
	"process", "processName", "relativeCreated", "thread", "threadName" };

struct part {
	enum field field;
	char spec[16];	     /* printf's flags, width, precision and one letter: d, f or s */
	char text[TEXT_MAX]; /* F_TEXT: literal; JSON: name of the member */
};

static struct setup {
	bool json;
	struct part parts[PARTS_MAX];
	unsigned part_count;
	char dateformat[128];
	json_t *static_fields; /* owned */
	enum log_level level;
	struct {
		char name[64];
		enum log_level level;
	} loggers[LOGGERS_MAX];
	unsigned logger_count;
	bool deduplicate;
} now;
static struct log_record held; /* a "Lock owner" line that waits for the next one */
static char held_text[LINE_MAX_BYTES], last_heartbeat[LINE_MAX_BYTES];
static int64_t started_us;

bool logging_level(const char *word, enum log_level *out)
{
	static const struct {
		const char *word;
		enum log_level level;
	} levels[] = { { "DEBUG", LOG_DEBUG }, { "INFO", LOG_INFO }, { "WARN", LOG_WARNING },
		{ "WARNING", LOG_WARNING }, { "ERROR", LOG_ERROR }, { "FATAL", LOG_CRITICAL },
		{ "CRITICAL", LOG_CRITICAL } };
	for (unsigned i = 0; word != NULL && i < ARRAY_LEN(levels); i++) {
		if (str_eq_nocase(word, levels[i].word)) {
			*out = levels[i].level;
			return true;
		}
	}
	return false;
}

const char *logging_name(const struct log_record *r)
{
	/* First match wins. */
	static const char *const rows[][2] = {
		{ "worker/ha/", "patroni.ha" },
		{ "worker/turn.c", "patroni.ha" },
		{ "worker/observe.c", "patroni.ha" },
		{ "worker/execute.c", "patroni.ha" },
		{ "worker/task.c", "patroni.ha" },
		{ "worker/keeper.c", "patroni.ha" },
		{ "worker/peers.c", "patroni.ha" },
		{ "worker/requests.c", "patroni.api" },
		{ "worker/config.c", "patroni.config" },
		{ "worker/store.c", "patroni.dcs" },
		{ "worker/slots.c", "patroni.postgresql.slots" },
		{ "worker/postgres/rewind.c", "patroni.postgresql.rewind" },
		{ "worker/postgres/bootstrap.c", "patroni.postgresql.bootstrap" },
		{ "worker/postgres/clone.c", "patroni.postgresql.bootstrap" },
		{ "worker/postgres/conn.c", "patroni.postgresql.connection" },
		{ "worker/postgres/conf", "patroni.postgresql.config" },
		{ "worker/postgres/params", "patroni.postgresql.config" },
		{ "worker/postgres/", "patroni.postgresql" },
		{ "common/dcs/etcd3", "patroni.dcs.etcd3" },
		{ "common/dcs/", "patroni.dcs" },
		{ "common/config/", "patroni.config" },
		{ "api/", "patroni.api" },
	};
	for (unsigned i = 0; r->file != NULL && i < ARRAY_LEN(rows); i++) {
		if (str_starts(r->file, rows[i][0]))
			return rows[i][1];
	}
	return "patroni";
}

/* The level of the nearest logger that has one: of the name itself, then of its parents. */
static enum log_level level_of(const char *name)
{
	size_t best = 0;
	enum log_level level = now.level;
	for (unsigned i = 0; i < now.logger_count; i++) {
		size_t n = strlen(now.loggers[i].name);
		if (n >= best && strncmp(name, now.loggers[i].name, n) == 0 &&
			(name[n] == '.' || name[n] == '\0')) {
			best = n;
			level = now.loggers[i].level;
		}
	}
	return level;
}

/* ---- formatting
 * ------------------------------------------------------------------------------------ */

static const char *level_word(enum log_level level)
{
	return level >= LOG_CRITICAL  ? "CRITICAL"
	       : level >= LOG_ERROR   ? "ERROR"
	       : level >= LOG_WARNING ? "WARNING"
	       : level >= LOG_INFO    ? "INFO"
				      : "DEBUG";
}

static void time_text(int64_t wall_us, char *out, size_t len)
{
	time_t sec = (time_t)(wall_us / 1000000);
	struct tm tm;
	localtime_r(&sec, &tm);
	if (now.dateformat[0] != '\0') {
		if (strftime(out, len, now.dateformat, &tm) == 0)
			out[0] = '\0';
		return;
	}
	snprintf(out, len, "%04d-%02d-%02d %02d:%02d:%02d,%03d", tm.tm_year + 1900, tm.tm_mon + 1,
		tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(wall_us / 1000 % 1000));
}

static const char *base_name(const char *path)
{
	const char *slash = path != NULL ? strrchr(path, '/') : NULL;
	return slash != NULL ? slash + 1 : path != NULL ? path : "";
}

static bool is_number(enum field f)
{
	return f == F_CREATED || f == F_LEVELNO || f == F_LINENO || f == F_MSECS ||
	       f == F_PROCESS || f == F_RELATIVE || f == F_THREAD;
}

static double number_of(enum field f, const struct log_record *r)
{
	switch (f) {
	case F_CREATED: return (double)r->wall_us / 1e6;
	case F_LEVELNO: return r->level;
	case F_LINENO: return r->line;
	case F_MSECS: return (double)(r->wall_us / 1000 % 1000);
	case F_RELATIVE: return (double)(r->wall_us - started_us) / 1e3;
	case F_PROCESS:
	case F_THREAD: return getpid();
	default: return 0;
	}
}

static const char *text_of(enum field f, const struct log_record *r, char *room, size_t len)
{
	switch (f) {
	case F_ASCTIME: time_text(r->wall_us, room, len); return room;
	case F_FILENAME: return base_name(r->file);
	case F_FUNCNAME: return r->func != NULL ? r->func : "";
	case F_LEVELNAME: return level_word(r->level);
	case F_MESSAGE: return r->text;
	case F_MODULE:
		snprintf(room, len, "%s", base_name(r->file));
		room[strcspn(room, ".")] = '\0';
		return room;
	case F_NAME: return logging_name(r);
	case F_PATHNAME: return r->file != NULL ? r->file : "";
	case F_PROCESSNAME:
	case F_THREADNAME: return f == F_PROCESSNAME ? "MainProcess" : "MainThread";
	default: break;
	}
	double d = number_of(f, r);
	snprintf(room, len, f == F_CREATED || f == F_RELATIVE ? "%.6f" : "%.0f", d);
	return room;
}

/* spec was checked when it was read: flags, width, precision, then d, f or s. */
static void add_part(const struct part *p, const struct log_record *r, struct buf *out)
{
	char room[256], spec[32];
	size_t n = strlen(p->spec);
	char letter = n > 0 ? p->spec[n - 1] : 's';
	if (p->field == F_TEXT) {
		buf_adds(out, p->text);
	} else if (letter == 'd' && is_number(p->field) && n > 0) {
		snprintf(spec, sizeof(spec), "%%%.*s" PRId64, (int)n - 1, p->spec);
		buf_addf(out, spec, (int64_t)number_of(p->field, r));
	} else if (letter == 'f' && is_number(p->field)) {
		snprintf(spec, sizeof(spec), "%%%s", p->spec);
		buf_addf(out, spec, number_of(p->field, r));
	} else {
		snprintf(spec, sizeof(spec), "%%%.*ss", n > 0 ? (int)n - 1 : 0, p->spec);
		buf_addf(out, spec, text_of(p->field, r, room, sizeof(room)));
	}
}

static void format_json(const struct log_record *r, struct buf *out)
{
	json_auto_t *o = json_object();
	for (unsigned i = 0; i < now.part_count; i++) {
		const struct part *p = &now.parts[i];
		char room[256];
		double d = number_of(p->field, r);
		json_t *v;
		if (p->field == F_CREATED || p->field == F_RELATIVE)
			v = json_real(d);
		else if (is_number(p->field))
			v = json_integer((json_int_t)d);
		else
			v = json_string(text_of(p->field, r, room, sizeof(room)));
		/* Bytes of a foreign program may be no UTF-8. */
		if (v == NULL)
			v = json_string("(not UTF-8)");
		json_object_set_new(o, p->text, v);
	}
	if (now.static_fields != NULL)
		json_object_update(o, now.static_fields);
	AUTO_FREE char *text = json_python(o);
	buf_adds(out, text != NULL ? text : "{}");
}

void logging_format(const struct log_record *r, struct buf *out)
{
	if (now.part_count == 0) {
		char when[64];
		time_text(r->wall_us, when, sizeof(when));
		buf_addf(out, "%s %s: %s", when, level_word(r->level), r->text);
	} else if (now.json) {
		format_json(r, out);
	} else {
		for (unsigned i = 0; i < now.part_count; i++)
			add_part(&now.parts[i], r, out);
	}
}

static void write_record(const struct log_record *r)
{
	AUTO(buf) line = BUF_INIT(4 * LINE_MAX_BYTES);
	logging_format(r, &line);
	if (!line.failed && line.len > 0)
		log_raw(buf_str(&line));
}

/* A healthy cycle says one line: its "Lock owner" is shown only when something else follows. */
static void sink(const struct log_record *r)
{
	if (r->level < level_of(logging_name(r)))
		return;
	if (now.level != LOG_INFO) {
		write_record(r);
		return;
	}
	if (str_starts(r->text, "Lock owner: ")) {
		held = *r;
		held.text = held_text;
		snprintf(held_text, sizeof(held_text), "%s", r->text);
		return;
	}
	bool heartbeat =
		str_starts(r->text, "no action. ") || str_starts(r->text, "PAUSE: no action");
	if (held.text != NULL) {
		bool again = heartbeat && strcmp(last_heartbeat, r->text) == 0;
		if (!heartbeat)
			write_record(&held);
		snprintf(last_heartbeat, sizeof(last_heartbeat), "%s", heartbeat ? r->text : "");
		held.text = NULL;
		if (again && now.deduplicate)
			return;
	}
	write_record(r);
}

/* ---- reading the section
 * --------------------------------------------------------------------------- */

static enum field field_named(const char *name, size_t len)
{
	for (unsigned i = 1; i < ARRAY_LEN(field_names); i++) {
		if (strlen(field_names[i]) == len && strncmp(field_names[i], name, len) == 0)
			return (enum field)i;
	}
	return F_TEXT;
}

static struct part *new_part(struct setup *s)
{
	return s->part_count < PARTS_MAX ? &s->parts[s->part_count++] : NULL;
}

static enum err_code add_literal(struct setup *s, const char *text, size_t len, struct err *err)
{
	struct part *p = len > 0 ? new_part(s) : NULL;
	if (len == 0)
		return ERR_OK;
	if (p == NULL || !str_copy_n(p->text, sizeof(p->text), text, len))
		return err_set(err, ERR_INVAL, 0,
			"log.format: more than %d parts, or a text of over %d bytes", PARTS_MAX,
			TEXT_MAX - 1);
	return ERR_OK;
}

/* "(name)" and what follows up to the conversion letter. Moves *at behind it. */
static enum err_code add_field(struct setup *s, const char **at, struct err *err)
{
	const char *name = *at + 1, *end = strchr(name, ')');
	size_t spec = end != NULL ? strspn(end + 1, "-+ #0123456789.") : 0;
	char letter = end != NULL ? end[1 + spec] : '\0';
	struct part *p = end != NULL ? new_part(s) : NULL;
	enum field f = end != NULL ? field_named(name, (size_t)(end - name)) : F_TEXT;
	if (p == NULL || f == F_TEXT || letter == '\0' || strchr("dfsir", letter) == NULL ||
		!str_copy_n(p->spec, sizeof(p->spec), end + 1, spec + 1))
		return err_set(err, ERR_INVAL, 0,
			"log.format: %%%.40s: %%(name)s is allowed, with asctime, levelname, "
			"message, name, process and the like as name, and s, d or f behind it",
			*at);
	if (letter == 'i')
		p->spec[spec] = 'd';
	if (letter == 'r')
		p->spec[spec] = 's';
	p->field = f;
	if (!str_copy(p->text, sizeof(p->text), field_names[f]))
		p->text[0] = '\0';
	*at = end + 2 + spec;
	return ERR_OK;
}

static enum err_code read_template(struct setup *s, const char *format, struct err *err)
{
	enum err_code rc = ERR_OK;
	const char *p = format;
	while (rc == ERR_OK && *p != '\0') {
		size_t n = strcspn(p, "%");
		rc = add_literal(s, p, n, err);
		p += n;
		if (rc != ERR_OK || *p == '\0')
			break;
		p++;
		if (*p == '%')
			rc = add_literal(s, p++, 1, err);
		else if (*p == '(')
			rc = add_field(s, &p, err);
		else
			rc = err_set(err, ERR_INVAL, 0,
				"log.format: %.40s: %%%% or %%(name)s is allowed", p - 1);
	}
	/* JSON takes the fields alone. */
	for (unsigned i = 0; rc == ERR_OK && s->json && i < s->part_count;) {
		if (s->parts[i].field == F_TEXT)
			memmove(&s->parts[i], &s->parts[i + 1],
				(--s->part_count - i) * sizeof(s->parts[0]));
		else
			i++;
	}
	return rc;
}

static void add_json_field(struct setup *s, const char *name, const char *shown, struct buf *notes)
{
	enum field f = field_named(name, strlen(name));
	struct part *p = f != F_TEXT ? new_part(s) : NULL;
	if (p == NULL || !str_copy(p->text, sizeof(p->text), shown)) {
		buf_addf(notes, "log.format: field %s is not known and left out\n", name);
		s->part_count -= p != NULL;
		return;
	}
	p->field = f;
}

static enum err_code read_list(
	struct setup *s, const json_t *list, struct buf *notes, struct err *err)
{
	size_t i;
	json_t *item, *shown;
	const char *key;
	json_array_foreach((json_t *)list, i, item)
	{
		if (json_is_string(item))
			add_json_field(s, json_string_value(item), json_string_value(item), notes);
		else if (!json_is_object(item))
			buf_adds(notes, "log.format: each item should be a text or a map\n");
		json_object_foreach(item, key, shown)
		{
			if (json_is_string(shown))
				add_json_field(s, key, json_string_value(shown), notes);
			else
				buf_addf(notes, "log.format.%s: the new name should be a text\n",
					key);
		}
	}
	return s->part_count > 0 ? ERR_OK : read_template(s, DEFAULT_FORMAT, err);
}

static enum err_code read_format(
	struct setup *s, const json_t *section, struct buf *notes, struct err *err)
{
	const json_t *format = json_object_get(section, "format");
	const json_t *date = json_object_get(section, "dateformat");
	const json_t *fields = json_object_get(section, "static_fields");
	s->json = str_eq(json_path_str(section, "type"), "json");
	if (date != NULL && !json_is_null(date) &&
		(!json_is_string(date) ||
			!str_copy(s->dateformat, sizeof(s->dateformat), json_string_value(date))))
		buf_addf(notes, "log.dateformat: a text of up to %zu bytes is allowed\n",
			sizeof(s->dateformat) - 1);
	if (json_is_object(fields))
		s->static_fields = json_deep_copy(fields);
	if (s->json && json_is_array(format))
		return read_list(s, format, notes, err);
	if (format != NULL && !json_is_null(format) && !json_is_string(format))
		buf_addf(notes, "log.format: a text%s is allowed; the default is used\n",
			s->json ? " or a list" : " (with type plain)");
	return read_template(
		s, json_is_string(format) ? json_string_value(format) : DEFAULT_FORMAT, err);
}

static enum err_code read_levels(
	struct setup *s, const json_t *section, struct buf *notes, struct err *err)
{
	static const char allowed[] = "DEBUG, INFO, WARNING, ERROR or CRITICAL is allowed";
	const json_t *level = json_object_get(section, "level");
	const char *name;
	json_t *v;
	s->level = LOG_INFO;
	if (level != NULL && !json_is_null(level) &&
		!logging_level(json_string_value(level), &s->level))
		return err_set(err, ERR_INVAL, 0, "log.level %s: %s",
			json_is_string(level) ? json_string_value(level) : "(not a text)", allowed);
	json_object_foreach(json_object_get(section, "loggers"), name, v)
	{
		if (s->logger_count == LOGGERS_MAX ||
			!str_copy(s->loggers[s->logger_count].name, sizeof(s->loggers[0].name),
				name) ||
			!logging_level(json_string_value(v), &s->loggers[s->logger_count].level))
			buf_addf(notes, "log.loggers.%s: %s\n", name, allowed);
		else
			s->logger_count++;
	}
	return ERR_OK;
}

enum err_code logging_apply(const json_t *section, struct buf *notes, struct err *err)
{
	static struct setup next; /* large */
	next = (struct setup){ 0 };
	enum err_code rc = read_levels(&next, section, notes, err);
	if (rc == ERR_OK)
		rc = read_format(&next, section, notes, err);
	if (rc != ERR_OK) {
		json_decref(next.static_fields);
		return rc;
	}
	char text[64];
	const json_t *dedup = json_object_get(section, "deduplicate_heartbeat_logs");
	if (!json_text(dedup, text, sizeof(text)) || !value_parse_bool(text, &next.deduplicate))
		next.deduplicate = json_truthy(dedup);
	if (started_us == 0)
		started_us = clock_wall_us();
	json_decref(now.static_fields);
	now = next;
	held.text = NULL;
	last_heartbeat[0] = '\0';
	/* The filter of log.c must let through what any logger wants. */
	enum log_level lowest = now.level;
	for (unsigned i = 0; i < now.logger_count; i++)
		lowest = now.loggers[i].level < lowest ? now.loggers[i].level : lowest;
	log_set_level(lowest);
	log_set_sink(sink);
	return ERR_OK;
}
