/* pg_control read natively against what pg_controldata prints of a real data directory, and
 * pg_waldump on its last checkpoint. Needs the PostgreSQL programs: PG_BIN, or the newest below
 * /usr/lib/postgresql. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>
#include <cmocka.h>

#include "common/core/buf.h"
#include "common/core/str.h"
#include "worker/files/pgcontrol.h"
#include "worker/postgres/controldata.h"
#include "worker/postgres/waldump.h"

static char base[64], bin[256];

static void find_bin(void)
{
	const char *env = getenv("PG_BIN");
	glob_t g = { 0 };
	if (env != NULL)
		assert_true(str_copy(bin, sizeof(bin), env));
	else if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &g) == 0)
		assert_true(str_copy(bin, sizeof(bin), g.gl_pathv[g.gl_pathc - 1]));
	globfree(&g);
}

static void read_file(const char *path, struct buf *out)
{
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	char piece[4096];
	size_t n;
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
		buf_add(out, piece, n);
	fclose(f);
	unlink(path);
}

/* Runs a shell line as the user that may run PostgreSQL; out[0] gets its standard output, out[1]
 * its standard error. */
static void run(struct buf *out, const char *fmt, ...)
{
	char line[2048], path[2][80];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	snprintf(path[0], sizeof(path[0]), "%s.out", base);
	snprintf(path[1], sizeof(path[1]), "%s.err", base);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (freopen(path[0], "w", stdout) == NULL || freopen(path[1], "w", stderr) == NULL)
			_exit(126);
		if (geteuid() == 0)
			execlp("setpriv", "setpriv", "--reuid=postgres", "--regid=postgres",
				"--init-groups", "sh", "-c", line, NULL);
		else
			execlp("sh", "sh", "-c", line, NULL);
		_exit(127);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	read_file(path[0], &out[0]);
	read_file(path[1], &out[1]);
	if (status != 0)
		print_message("%s: status %d: %s\n", line, status, buf_str(&out[1]));
}

#define RUN_OUT                                                                                    \
	{                                                                                          \
		BUF_INIT(65536), BUF_INIT(65536)                                                   \
	}

static int setup(void **state)
{
	(void)state;
	find_bin();
	assert_true(bin[0] != '\0');
	assert_true(str_copy(base, sizeof(base), "/tmp/pgregent-test-XXXXXX"));
	assert_non_null(mkdtemp(base));
	if (geteuid() == 0)
		assert_int_equal(chmod(base, 0777), 0);
	struct buf out[2] = RUN_OUT;
	run(out, "%s/initdb -D %s/data -k -A trust --no-sync", bin, base);
	buf_done(&out[0]);
	buf_done(&out[1]);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	struct buf out[2] = RUN_OUT;
	run(out, "rm -rf %s/data", base);
	buf_done(&out[0]);
	buf_done(&out[1]);
	return rmdir(base);
}

static void read_both(struct pg_control *native, struct pg_control *printed)
{
	char dir[80];
	snprintf(dir, sizeof(dir), "%s/data", base);
	AUTO_FD fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	memset(native, 0, sizeof(*native));
	memset(printed, 0, sizeof(*printed));
	pgcontrol_read(fd, native);
	struct buf out[2] = RUN_OUT;
	run(out, "LC_ALL=C %s/pg_controldata %s/data", bin, base);
	struct err err = ERR_INIT;
	enum err_code rc = controldata_parse(buf_str(&out[0]), printed, &err);
	buf_done(&out[0]);
	buf_done(&out[1]);
	if (rc != ERR_OK)
		fail_msg("%s", err.text);
}

static void assert_same(const struct pg_control *a, const struct pg_control *b)
{
	assert_true(a->valid && b->valid);
	assert_int_equal(a->system_id, b->system_id);
	assert_int_equal(a->control_version, b->control_version);
	assert_int_equal(a->state, b->state);
	assert_int_equal(a->checkpoint_lsn, b->checkpoint_lsn);
	assert_int_equal(a->checkpoint_redo, b->checkpoint_redo);
	assert_int_equal(a->checkpoint_tli, b->checkpoint_tli);
	assert_int_equal(a->min_recovery_lsn, b->min_recovery_lsn);
	assert_int_equal(a->min_recovery_tli, b->min_recovery_tli);
	assert_int_equal(a->wal_log_hints, b->wal_log_hints);
	assert_int_equal(a->checksum_version, b->checksum_version);
	assert_int_equal(a->wal_segment_size, b->wal_segment_size);
	assert_int_equal(a->max_connections, b->max_connections);
	assert_int_equal(a->max_worker_processes, b->max_worker_processes);
	assert_int_equal(a->max_wal_senders, b->max_wal_senders);
	assert_int_equal(a->max_prepared_xacts, b->max_prepared_xacts);
	assert_int_equal(a->max_locks_per_xact, b->max_locks_per_xact);
}

static void test_fresh(void **state)
{
	(void)state;
	struct pg_control native, printed;
	read_both(&native, &printed);
	assert_same(&native, &printed);
	assert_int_equal(native.state, PG_DB_SHUTDOWNED);
	assert_int_equal(native.checksum_version, 1);
}

/* A single-user run with other settings: every field that a fresh directory leaves at a default
 * moves. */
static void test_changed(void **state)
{
	(void)state;
	struct pg_control native, printed;
	struct buf out[2] = RUN_OUT;
	run(out,
		"echo 'checkpoint' | %s/postgres --single -D %s/data -c max_connections=37 -c "
		"max_worker_processes=11 "
		"-c max_wal_senders=7 -c max_prepared_transactions=5 -c "
		"max_locks_per_transaction=77 "
		"-c wal_log_hints=on template1",
		bin, base);
	read_both(&native, &printed);
	assert_same(&native, &printed);
	assert_int_equal(native.max_connections, 37);
	assert_int_equal(native.max_worker_processes, 11);
	assert_int_equal(native.max_wal_senders, 7);
	assert_int_equal(native.max_prepared_xacts, 5);
	assert_int_equal(native.max_locks_per_xact, 77);
	assert_true(native.wal_log_hints);
	/* The end of the shutdown checkpoint, as the rewind check finds it. */
	buf_reset(&out[0]);
	buf_reset(&out[1]);
	char lsn[20];
	str_from_lsn(native.checkpoint_lsn, lsn);
	run(out, "cd %s/data && LC_ALL=C %s/pg_waldump -p pg_wal -t %u -s %s -n 2", base, bin,
		native.checkpoint_tli, lsn);
	struct waldump_record r;
	assert_true(waldump_record(buf_str(&out[0]), &r));
	assert_true(waldump_is_shutdown_checkpoint(&r, native.checkpoint_lsn));
	uint64_t end =
		waldump_checkpoint_end(buf_str(&out[0]), buf_str(&out[1]), native.checkpoint_lsn);
	assert_true(end > native.checkpoint_lsn && end < native.checkpoint_lsn + 256);
	buf_done(&out[0]);
	buf_done(&out[1]);
}

static void test_broken(void **state)
{
	(void)state;
	char path[96];
	unsigned char bytes[512];
	snprintf(path, sizeof(path), "%s/data/global/pg_control", base);
	AUTO_FD fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, bytes, sizeof(bytes)), sizeof(bytes));
	struct pg_control c = { .read_at_ms = 42 };
	pgcontrol_parse(bytes, sizeof(bytes), &c);
	assert_true(c.valid);
	assert_int_equal(c.read_at_ms, 42);
	/* Any single flipped bit below the CRC is seen. */
	for (size_t i = 12; i < 288; i++) {
		bytes[i] ^= 0x10;
		pgcontrol_parse(bytes, sizeof(bytes), &c);
		assert_false(c.valid);
		assert_int_equal(c.fault, PG_CONTROL_CRC);
		bytes[i] ^= 0x10;
	}
	pgcontrol_parse(bytes, 200, &c);
	assert_int_equal(c.fault, PG_CONTROL_SHORT);
	pgcontrol_parse(bytes, 0, &c);
	assert_int_equal(c.fault, PG_CONTROL_SHORT);
	bytes[8] ^= 1;
	pgcontrol_parse(bytes, sizeof(bytes), &c);
	assert_int_equal(c.fault, PG_CONTROL_VERSION_UNKNOWN);
	AUTO_FD nowhere = open("/tmp", O_RDONLY | O_DIRECTORY);
	pgcontrol_read(nowhere, &c);
	assert_int_equal(c.fault, PG_CONTROL_ABSENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fresh),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_broken),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
