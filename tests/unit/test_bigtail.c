/* Tails in a descriptor: what was written comes out, what is not sealed or too long is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/core/bigtail.h"

static void test_there_and_back(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 65535, 65536, 65537, 3 * 1024 * 1024 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct err err = ERR_INIT;
		AUTO_FD fd = -1;
		AUTO(buf) out = BUF_INIT(3 * 1024 * 1024);
		AUTO_FREE char *bytes = malloc(sizes[i] + 1);
		assert_non_null(bytes);
		for (size_t k = 0; k < sizes[i]; k++)
			bytes[k] = (char)(k * 7);
		assert_int_equal(bigtail_make(bytes, sizes[i], &fd, &err), ERR_OK);
		assert_int_equal(bigtail_read(fd, &out, &err), ERR_OK);
		assert_int_equal(out.len, sizes[i]);
		assert_memory_equal(buf_str(&out), bytes, sizes[i]);
		assert_int_equal(write(fd, "x", 1), -1); /* nobody changes it any more */
	}
}

static void test_refused(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	AUTO_FD fd = -1;
	AUTO(buf) small = BUF_INIT(9);
	assert_int_equal(bigtail_make("0123456789", 10, &fd, &err), ERR_OK);
	assert_int_equal(bigtail_read(fd, &small, &err), ERR_LIMIT);
	assert_int_equal(small.len, 0);
	AUTO_FD open_one = memfd_create("not sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	AUTO(buf) out = BUF_INIT(100);
	assert_int_equal(write(open_one, "abc", 3), 3);
	assert_int_equal(bigtail_read(open_one, &out, &err), ERR_PROTO);
	assert_int_equal(bigtail_read(STDIN_FILENO, &out, &err), ERR_PROTO);
	assert_int_equal(out.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
