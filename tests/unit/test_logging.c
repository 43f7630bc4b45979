/* common/config/logging: templates, JSON, levels, the held line of a healthy cycle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/config/logging.h"
#include "common/core/str.h"
#include "common/ext/yaml.h"

#define WHEN 1767225601234567 /* 2026-01-01 00:00:01.234567 UTC */

static enum err_code apply(const char *section, struct buf *notes, struct err *err)
{
	json_auto_t *v = yaml_read(section, strlen(section), err);
	return logging_apply(v, notes, err);
}

static void expect(const char *section, const char *line)
{
	struct err err = ERR_INIT;
	AUTO(buf) notes = BUF_INIT(4096);
	AUTO(buf) out = BUF_INIT(8192);
	struct log_record r = { .level = LOG_WARNING,
		.text = "a \"b\"",
		.wall_us = WHEN,
		.file = "worker/ha/decide.c",
		.func = "fn",
		.line = 7 };
	if (apply(section, &notes, &err) != ERR_OK)
		fail_msg("%s: %s", section, err.text);
	logging_format(&r, &out);
	assert_string_equal(buf_str(&out), line);
}

static void test_formats(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{ "null", "2026-01-01 00:00:01,234 WARNING: a \"b\"" },
		{ "{format: '%(levelname)-8s|%(levelno)03d|%(lineno)d|%(name)s'}",
			"WARNING |030|7|patroni.ha" },
		{ "{format: '%(module)s %(filename)s %(pathname)s %(funcName)s 100%%'}",
			"decide decide.c worker/ha/decide.c fn 100%" },
		{ "{format: '%(asctime)s %(message)s', dateformat: '%H:%M'}", "00:00 a \"b\"" },
		{ "{format: '%(asctime)s %(message)s', dateformat: ''}",
			"2026-01-01 00:00:01,234 a \"b\"" },
		{ "{format: '%(msecs)d %(created).3f %(message).1s|'}", "234 1767225601.235 a|" },
		{ "{format: [message]}", "2026-01-01 00:00:01,234 WARNING: a \"b\"" },
		{ "{type: json}", "{\"asctime\": \"2026-01-01 00:00:01,234\", \"levelname\": "
				  "\"WARNING\", \"message\": \"a \\\"b\\\"\"}" },
		{ "{type: json, format: [message, {levelname: level}, lineno], static_fields: "
		  "{app: x}}",
			"{\"message\": \"a \\\"b\\\"\", \"level\": \"WARNING\", \"lineno\": 7, "
			"\"app\": \"x\"}" },
		{ "{type: json, format: 'x %(message)s y %(name)s'}",
			"{\"message\": \"a \\\"b\\\"\", \"name\": \"patroni.ha\"}" },
		{ "{type: JSON, format: '%(message)s'}", "a \"b\"" },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		expect(rows[i][0], rows[i][1]);
}

static void test_refused(void **state)
{
	(void)state;
	static const char *const rows[] = { "{level: LOUD}", "{level: 3}", "{format: '%s'}",
		"{format: '%(nonsense)s'}", "{format: '%(message)'}", "{format: '%(message)n'}",
		"{format: '%(message'}", "{format: '%(message)*d'}",
		"{format: '%(message)99999999999999999s'}" };
	expect("{format: '%(message)s!'}", "a \"b\"!");
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = ERR_INIT;
		AUTO(buf) notes = BUF_INIT(4096);
		AUTO(buf) out = BUF_INIT(4096);
		struct log_record r = { .level = LOG_INFO, .text = "x", .wall_us = WHEN };
		assert_int_equal(apply(rows[i], &notes, &err), ERR_INVAL);
		assert_non_null(strstr(err.text, "allowed"));
		/* What was in force stays. */
		logging_format(&r, &out);
		assert_string_equal(buf_str(&out), "x!");
	}
}

static void test_notes(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	AUTO(buf) notes = BUF_INIT(4096);
	assert_int_equal(apply("{type: json, format: [message, nonsense, {levelname: 3}, 5], "
			       "loggers: {patroni.ha: LOUD}, dateformat: 5}",
				 &notes, &err),
		ERR_OK);
	assert_non_null(strstr(buf_str(&notes), "field nonsense"));
	assert_non_null(strstr(buf_str(&notes), "log.format.levelname"));
	assert_non_null(strstr(buf_str(&notes), "each item"));
	assert_non_null(strstr(buf_str(&notes), "log.loggers.patroni.ha"));
	assert_non_null(strstr(buf_str(&notes), "log.dateformat"));
}

/* What a section lets through of a list of lines. */
static void run(const char *section, const char *const *lines, const char *shown)
{
	int fds[2];
	char out[4096];
	struct err err = ERR_INIT;
	AUTO(buf) notes = BUF_INIT(4096);
	assert_return_code(pipe(fds), 0);
	log_open("", fds[1], LOG_INFO);
	assert_int_equal(apply(section, &notes, &err), ERR_OK);
	for (; *lines != NULL; lines += 2) {
		enum log_level level = LOG_INFO;
		assert_true(logging_level(lines[0], &level));
		log_at(level, "worker/postgres/rewind.c", 1, "f", "%s", lines[1]);
	}
	log_at(LOG_CRITICAL, NULL, 0, NULL, "end");
	ssize_t n = read(fds[0], out, sizeof(out) - 1);
	assert_true(n > 0);
	out[n] = '\0';
	assert_string_equal(out, shown);
	close(fds[0]);
	close(fds[1]);
	log_open("", 2, LOG_INFO);
}

#define PLAIN "format: '%(message)s'"

static void test_levels(void **state)
{
	(void)state;
	static const char *const lines[] = { "DEBUG", "d", "INFO", "i", "ERROR", "e", NULL };
	run("{" PLAIN "}", lines, "i\ne\nend\n");
	run("{" PLAIN ", level: error}", lines, "e\nend\n");
	run("{" PLAIN ", level: DEBUG}", lines, "d\ni\ne\nend\n");
	run("{" PLAIN ", loggers: {patroni.postgresql: DEBUG}}", lines, "d\ni\ne\nend\n");
	run("{" PLAIN ", loggers: {patroni.postgresql: DEBUG, patroni.postgresql.rewind: ERROR}}",
		lines, "e\nend\n");
	run("{" PLAIN ", loggers: {patroni.postgres: DEBUG, urllib3: DEBUG}}", lines,
		"i\ne\nend\n");
}

static void test_heartbeats(void **state)
{
	(void)state;
	static const char *const calm[] = { "INFO", "Lock owner: a", "INFO", "no action. I am a",
		"INFO", "Lock owner: a", "INFO", "no action. I am a", NULL };
	static const char *const other[] = { "INFO", "Lock owner: a", "INFO", "demoting", "INFO",
		"Lock owner: b", "INFO", "PAUSE: no action. I am a", NULL };
	run("{" PLAIN "}", calm, "no action. I am a\nno action. I am a\nend\n");
	run("{" PLAIN ", deduplicate_heartbeat_logs: true}", calm, "no action. I am a\nend\n");
	run("{" PLAIN ", deduplicate_heartbeat_logs: true}", other,
		"Lock owner: a\ndemoting\nPAUSE: no action. I am a\nend\n");
	run("{" PLAIN ", level: DEBUG}", calm,
		"Lock owner: a\nno action. I am a\nLock owner: a\nno action. I am a\nend\n");
}

static int setup(void **state)
{
	(void)state;
	setenv("TZ", "UTC", 1);
	tzset();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_notes),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_heartbeats),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
