/* worker/postgres/sockets: the list of directories, as PostgreSQL splits it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/ipc.h"
#include "worker/postgres/sockets.h"

static void test_split(void **state)
{
	(void)state;
	static const struct {
		const char *list;
		bool ok;
		const char *dirs; /* joined with | */
	} rows[] = {
		{ "", true, "" },
		{ " \t", true, "" },
		{ "/tmp", true, "/tmp" },
		{ "/var/run/postgresql, /tmp", true, "/var/run/postgresql|/tmp" },
		{ " /a b ,\n/c\t", true, "/a b|/c" },
		{ "\"/a,b\",\"/say \"\"x\"\"\" , \" /c \"", true, "/a,b|/say \"x\"| /c " },
		{ "/a\"b", true, "/a\"b" },
		{ "\"/a\"", true, "/a" },
		{ "@abstract, /tmp,\"@x\"", true, "/tmp" },
		{ "\"\",/tmp", true, "/tmp" },
		{ "relative", true, "relative" },
		{ "\"/a", false, "" },
		{ "\"/a\"b", false, "/a" },
		{ "/a,", false, "/a" },
		{ ",/a", false, "" },
		{ "/a,,/b", false, "/a" },
		{ "\"", false, "" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO(buf) out = BUF_INIT(8192);
		AUTO(buf) joined = BUF_INIT(8192);
		assert_int_equal(sockets_split(rows[i].list, &out), rows[i].ok);
		for (const char *d = NULL; (d = ipc_tail_next(out.data, out.len, d)) != NULL;)
			buf_addf(&joined, "%s%s", joined.len > 0 ? "|" : "", d);
		assert_string_equal(buf_str(&joined), rows[i].dirs);
	}
	/* No room for all of them. */
	AUTO(buf) small = BUF_INIT(6);
	assert_false(sockets_split("/aaa,/bbb", &small));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_split) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
