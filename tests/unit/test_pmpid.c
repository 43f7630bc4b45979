/* worker/files/pmpid: what postmaster.pid says, and that only the file that was read is removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "worker/files/pmpid.h"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	assert_true(str_copy(dir, sizeof(dir), "/tmp/pgregent-test-XXXXXX"));
	return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
	(void)state;
	char path[128];
	snprintf(path, sizeof(path), "%s/postmaster.pid", dir);
	unlink(path);
	return rmdir(dir);
}

static void put(const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/postmaster.pid", dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_read(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int32_t pid;
		int64_t start;
		uint32_t port;
		const char *data_dir;
	} rows[] = {
		{ "123\n/data\n1700000000\n5432\n/tmp\nlocalhost\n  5432001    131081\nready   \n",
			123, 1700000000, 5432, "/data" },
		{ "-77\n/data\n1700000000\n", -77, 1700000000, 0, "/data" }, { "", 0, 0, 0, "" },
		{ "12", 0, 0, 0, "" }, { "12\n", 0, 0, 0, "" }, { "x\n/data\n1\n", 0, 0, 0, "" },
		{ "99999999999\n/data\n1\n", 0, 0, 0, "" },
		{ "-2147483648\n/data\n1\n", 0, 0, 0, "" }, /* has no positive counterpart */
	};
	struct err err = ERR_INIT;
	struct msg_pmpid m;
	assert_int_equal(pmpid_read(dir, &m, &err), ERR_OK);
	assert_int_equal(m.pid, 0);
	assert_true(m.file_id == 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		put(rows[i].text);
		assert_int_equal(pmpid_read(dir, &m, &err), ERR_OK);
		assert_true(m.file_id != 0);
		assert_int_equal(m.pid, rows[i].pid);
		assert_int_equal(m.start_time_s, rows[i].start);
		assert_int_equal(m.port, rows[i].port);
		assert_string_equal(m.data_dir, rows[i].data_dir);
	}
	assert_int_equal(pmpid_read("/nonexistent/dir", &m, &err), ERR_OK);
	assert_true(m.file_id == 0);
	assert_int_equal(pmpid_read("/dev/null", &m, &err), ERR_SYS);
}

static void test_remove(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	struct msg_pmpid m, again;
	put("123\n/data\n1700000000\n5432\n");
	assert_int_equal(pmpid_read(dir, &m, &err), ERR_OK);
	assert_int_equal(pmpid_remove(dir, m.file_id + 1, 123, &err), ERR_CONFLICT);
	assert_int_equal(pmpid_remove(dir, m.file_id, 124, &err), ERR_CONFLICT);
	/* Another postmaster wrote its own file since. */
	put("123\n/data\n1700000099\n5432\n/tmp\n");
	assert_int_equal(pmpid_remove(dir, m.file_id, 123, &err), ERR_CONFLICT);
	assert_int_equal(pmpid_read(dir, &again, &err), ERR_OK);
	assert_int_equal(pmpid_remove(dir, again.file_id, 123, &err), ERR_OK);
	assert_int_equal(pmpid_read(dir, &m, &err), ERR_OK);
	assert_true(m.file_id == 0);
	assert_int_equal(pmpid_remove(dir, again.file_id, 123, &err), ERR_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_remove, make_dir, remove_dir),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
