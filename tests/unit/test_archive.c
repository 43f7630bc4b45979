/* worker/postgres/archive: which segment pg_rewind missed, by its words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "worker/postgres/archive.h"

static void test_missing(void **state)
{
	(void)state;
	static const struct {
		const char *text, *segment;
	} rows[] = {
		/* as pg_rewind 13, 12 and 9.6 say it */
		{ "pg_rewind: error: could not open file "
		  "\"/d/pg_wal/0000000A00006AA100000068\": No such file or directory\n",
			"0000000A00006AA100000068" },
		{ "pg_rewind: servers diverged at WAL location 0/3000000 on timeline 1\n"
		  "could not open file \"/d/pg_wal/000000010000000000000002\": No such file or "
		  "directory\n\npg_rewind: fatal: could not find previous WAL record\n",
			"000000010000000000000002" },
		{ "could not open file \"/d/pg_xlog/000000010000000000000002\": x",
			"000000010000000000000002" },
		/* the first one that is a segment */
		{ "could not open file \"/d/global/pg_control\": x\n"
		  "could not open file \"/d/pg_wal/000000010000000000000003\": x",
			"000000010000000000000003" },
		{ "could not open file \"/d/pg_wal/00000002.history\": x", NULL },
		{ "could not open file \"/d/other/000000010000000000000002\": x", NULL },
		{ "could not open file \"000000010000000000000002\": x", NULL },
		{ "could not open file \"/d/pg_wal/00000001000000000000000g\": x", NULL },
		{ "could not open file \"/d/pg_wal/000000010000000000000002", NULL },
		{ "could not open file \"", NULL },
		{ "pg_rewind: Done!\n", NULL },
		{ "", NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char out[25] = "";
		bool found = archive_missing_segment(rows[i].text, out);
		assert_int_equal(found, rows[i].segment != NULL);
		assert_string_equal(out, found ? rows[i].segment : "");
	}
}

static void test_name(void **state)
{
	(void)state;
	static const struct {
		uint32_t tli;
		uint64_t lsn;
		uint32_t size;
		const char *name;
	} rows[] = {
		{ 1, 0x1000028, 16u << 20, "000000010000000000000001" },
		{ 2, 0x90000A0, 16u << 20, "000000020000000000000009" },
		{ 0x1f, 0xFF000000, 16u << 20, "0000001F00000000000000FF" },
		{ 1, 0x100000000, 16u << 20, "000000010000000100000000" },
		{ 1, 0x3C0000000, 1u << 30, "000000010000000300000003" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char out[25];
		archive_segment_name(out, rows[i].tli, rows[i].lsn, rows[i].size);
		assert_string_equal(out, rows[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_missing),
		cmocka_unit_test(test_name) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
