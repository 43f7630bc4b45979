/* worker/files: the operations on a real directory. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "common/model/cluster.h"
#include "common/model/history.h"
#include "common/model/pgstate.h"
#include "tests/unit/scratch.h"
#include "worker/files/ops.h"
#include "worker/files/pgdir.h"

static struct ops ops;

/* ---- helpers
 * ---------------------------------------------------------------------------------------- */

static void put(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "w");
	if (f == NULL)
		fail_msg("%s: %s", name, strerror(errno));
	fputs(text, f);
	fclose(f);
}

static void assert_content(const char *name, const char *expected)
{
	AUTO(buf) b = BUF_INIT(1 << 20);
	struct err err = ERR_INIT;
	if (fs_read(at(name), 0, 1 << 20, &b, NULL, &err) != ERR_OK)
		fail_msg("%s", err.text);
	assert_string_equal(buf_str(&b), expected);
}

static bool there(const char *name)
{
	struct stat st;
	return lstat(at(name), &st) == 0;
}

static void make(const char *name)
{
	assert_int_equal(mkdir(at(name), 0700), 0);
}

static struct ops_answer out;
static struct err err;

/* Strings of the tail are separated by |, its zero bytes. */
static enum err_code request(struct msg_files_req req, const char *tail, const char *bytes)
{
	AUTO(buf) t = BUF_INIT(1 << 20);
	for (const char *p = tail; p != NULL && *p != '\0'; p++)
		buf_add(&t, *p == '|' ? "" : p, 1);
	if (tail != NULL)
		buf_add(&t, "", 1);
	if (bytes != NULL)
		buf_adds(&t, bytes);
	buf_done(&out.data);
	out = (struct ops_answer){ .data = BUF_INIT(4 << 20) };
	err = (struct err)ERR_INIT;
	enum err_code rc = ops_run(&ops, &req, t.data, t.len, &out, &err);
	while (out.later) {
		enum tree_step step = slow_slice(&ops.slow, &err);
		if (step == TREE_MORE)
			continue;
		out.later = ops.slow_unanswered = false;
		out.value = ops.slow.value;
		rc = step == TREE_DONE ? ERR_OK : err.code;
	}
	return rc;
}

#define REQ(...) ((struct msg_files_req){ __VA_ARGS__ })

static int setup(void **state)
{
	(void)state;
	assert_true(str_copy(base, sizeof(base), "/tmp/pgregent-test-XXXXXX"));
	assert_non_null(mkdtemp(base));
	make("data");
	ops_init(&ops, at("data"), 0022);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	struct tree t;
	buf_done(&out.data);
	ops_done(&ops);
	assert_int_equal(tree_open(&t, base, TREE_REMOVE, &err), ERR_OK);
	enum tree_step step;
	while ((step = tree_slice(&t, 10, &err)) == TREE_MORE)
		;
	assert_int_equal(step, TREE_DONE);
	return 0;
}

/* ---- writing
 * ---------------------------------------------------------------------------------------- */

static void test_write(void **state)
{
	(void)state;
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), "postgresql.conf", "a\n"), ERR_OK);
	assert_content("data/postgresql.conf", "a\n");
	struct stat st;
	assert_int_equal(stat(at("data/postgresql.conf"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	ino_t before = st.st_ino;
	/* The same content is left alone; without the flag it is written anew. */
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC, .arg = FILES_F_IF_CHANGED),
				 "postgresql.conf", "a\n"),
		ERR_OK);
	assert_int_equal(out.value, 0);
	assert_int_equal(stat(at("data/postgresql.conf"), &st), 0);
	assert_int_equal(st.st_ino, before);
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC, .arg = FILES_F_IF_CHANGED),
				 "postgresql.conf", "b\n"),
		ERR_OK);
	assert_int_equal(out.value, 1);
	assert_content("data/postgresql.conf", "b\n");
	/* The group of the data directory reads what is below it. */
	assert_int_equal(chmod(at("data"), 0750), 0);
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), "g", ""), ERR_OK);
	assert_int_equal(stat(at("data/g"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	/* Outside of it our umask counts, or the mode asked for. */
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), at("outside"), "x"), ERR_OK);
	assert_int_equal(stat(at("outside"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	assert_int_equal(
		request(REQ(.op = FILES_WRITE_ATOMIC, .mode = 0600), at("pgpass"), "x"), ERR_OK);
	assert_int_equal(stat(at("pgpass"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* A link stays one, its target changes; also one that leads nowhere yet. */
	assert_int_equal(symlink("../target", at("data/link")), 0);
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), "link", "via link"), ERR_OK);
	assert_content("target", "via link");
	assert_int_equal(lstat(at("data/link"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), "link", "again"), ERR_OK);
	assert_content("target", "again");
	assert_int_equal(symlink("loop", at("data/loop")), 0);
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), "loop", "x"), ERR_SYS);
	assert_int_equal(err.sys_errno, ELOOP);
	make("data/dir");
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC), "dir", "x"), ERR_INVAL);
	assert_false(there("data/postgresql.conf.pgregent-new"));
	assert_int_equal(request(REQ(.op = FILES_APPEND), "outside", "1"), ERR_OK);
	assert_int_equal(request(REQ(.op = FILES_APPEND), "outside", "2"), ERR_OK);
	assert_content("data/outside", "12");
}

static void test_pieces(void **state)
{
	(void)state;
	put("data/f", "old");
	assert_int_equal(
		request(REQ(.op = FILES_WRITE_ATOMIC, .arg = FILES_F_MORE), "f", "12345"), ERR_OK);
	assert_int_equal(out.value, 5);
	assert_content("data/f", "old");
	/* Not the next piece, or of another file. */
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC, .offset = 4), "f", "x"), ERR_STATE);
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC, .offset = 5), "g", "x"), ERR_STATE);
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC, .offset = 5), "f", "6"), ERR_OK);
	assert_content("data/f", "123456");
	assert_int_equal(request(REQ(.op = FILES_WRITE_ATOMIC, .offset = 6), "f", "7"), ERR_STATE);
}

/* Without the right to make files beside it the file is written in place. Root may do everything:
 * as another user. */
static void test_in_place(void **state)
{
	(void)state;
	make("locked");
	put("locked/pg_hba.conf", "old");
	assert_int_equal(chmod(base, 0755), 0);
	assert_int_equal(chmod(at("locked/pg_hba.conf"), 0666), 0);
	assert_int_equal(chmod(at("locked"), 0555), 0);
	bool root = geteuid() == 0;
	if (root)
		assert_int_equal(seteuid(65534), 0);
	enum err_code rc = request(REQ(.op = FILES_WRITE_ATOMIC), at("locked/pg_hba.conf"), "new");
	enum err_code rc2 = request(REQ(.op = FILES_WRITE_ATOMIC), at("locked/other"), "new");
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(chmod(at("locked"), 0700), 0);
	assert_int_equal(rc, ERR_OK);
	assert_content("locked/pg_hba.conf", "new");
	assert_int_equal(rc2, ERR_SYS);
	assert_int_equal(ops_answer_code(rc2), ANSWER_FAILED);
}

/* ---- looking and small changes
 * ------------------------------------------------------------------------ */

static void test_small(void **state)
{
	(void)state;
	struct stat st;
	assert_int_equal(request(REQ(.op = FILES_CREATE_EMPTY), "standby.signal", NULL), ERR_OK);
	assert_int_equal(out.value, 1);
	assert_int_equal(request(REQ(.op = FILES_CREATE_EMPTY), "standby.signal", NULL), ERR_OK);
	assert_int_equal(out.value, 0);
	assert_int_equal(request(REQ(.op = FILES_REMOVE), "standby.signal", NULL), ERR_OK);
	assert_int_equal(out.value, 1);
	assert_int_equal(request(REQ(.op = FILES_REMOVE), "standby.signal", NULL), ERR_OK);
	assert_int_equal(out.value, 0);
	assert_int_equal(request(REQ(.op = FILES_READ), "standby.signal", NULL), ERR_NOTFOUND);
	assert_int_equal(err.sys_errno, ENOENT);
	put("data/f", "0123456789");
	assert_int_equal(request(REQ(.op = FILES_READ), "f", NULL), ERR_OK);
	assert_string_equal(buf_str(&out.data), "0123456789");
	assert_int_equal(out.value, 10);
	assert_int_equal(request(REQ(.op = FILES_READ, .max_bytes = 4), "f", NULL), ERR_LIMIT);
	assert_int_equal(
		request(REQ(.op = FILES_READ, .max_bytes = 4, .offset = 2, .arg = FILES_F_PARTIAL),
			"f", NULL),
		ERR_OK);
	assert_string_equal(buf_str(&out.data), "2345");
	assert_int_equal(request(REQ(.op = FILES_READ), "", NULL), ERR_INVAL);
	assert_int_equal(
		request(REQ(.op = FILES_RENAME, .arg = FILES_F_IF_ABSENT), "f|g", NULL), ERR_OK);
	assert_int_equal(out.value, 1);
	put("data/f", "new");
	assert_int_equal(
		request(REQ(.op = FILES_RENAME, .arg = FILES_F_IF_ABSENT), "f|g", NULL), ERR_OK);
	assert_int_equal(out.value, 0);
	assert_content("data/g", "0123456789");
	assert_int_equal(request(REQ(.op = FILES_RENAME), "f|g", NULL), ERR_OK);
	assert_content("data/g", "new");
	assert_int_equal(
		request(REQ(.op = FILES_MKDIR, .arg = FILES_F_TEST_WRITE), at("sock/a/b"), NULL),
		ERR_OK);
	assert_int_equal(out.value, 1);
	assert_int_equal(stat(at("sock/a/b"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(request(REQ(.op = FILES_MKDIR), "g/sub", NULL), ERR_SYS);
	assert_int_equal(request(REQ(.op = FILES_LIST), at("sock"), NULL), ERR_OK);
	assert_int_equal(out.data.len, 3);
	assert_memory_equal(out.data.data, "da", 3);
	assert_int_equal(request(REQ(.op = FILES_STAT), "g|nothing", NULL), ERR_OK);
	struct files_stat rows[2];
	assert_int_equal(out.data.len, sizeof(rows));
	memcpy(rows, out.data.data, sizeof(rows));
	assert_int_equal(rows[0].size, 3);
	assert_true(rows[0].mtime_us > 1600000000000000);
	assert_int_equal(rows[1].sys_errno, ENOENT);
	assert_int_equal(rows[1].mode, 0);
	assert_int_equal(request(REQ(.op = FILES_SIZE), at("sock"), NULL), ERR_OK);
}

static void test_bad_requests(void **state)
{
	(void)state;
	struct msg_files_req req = { .op = 9999 };
	assert_int_equal(ops_run(&ops, &req, NULL, 0, &out, &err), ERR_INVAL);
	req.op = 0;
	assert_int_equal(ops_run(&ops, &req, NULL, 0, &out, &err), ERR_INVAL);
	for (req.op = 1; req.op < FILES_OP_COUNT; req.op++) {
		assert_string_not_equal(ops_name(req.op), "?");
		/* A string without its end. */
		if (req.op != FILES_WRITE_ATOMIC)
			assert_int_equal(ops_run(&ops, &req, "abc", 3, &out, &err), ERR_INVAL);
	}
	assert_int_equal(request(REQ(.op = FILES_PROBE), "x", NULL), ERR_INVAL);
	assert_int_equal(request(REQ(.op = FILES_REPL_SLOT_WRITE), "../x", "y"), ERR_INVAL);
	assert_int_equal(request(REQ(.op = FILES_ARCHIVE_DONE), "../x", NULL), ERR_INVAL);
	assert_int_equal(request(REQ(.op = FILES_BACKUP_CONFIGS), "/tmp|../x", NULL), ERR_INVAL);
	assert_int_equal(request(REQ(.op = FILES_HISTORY, .arg = 0), NULL, NULL), ERR_INVAL);
	assert_int_equal(request(REQ(.op = FILES_READ, .max_bytes = -1), "x", NULL), ERR_INVAL);
}

static enum pg_mark probed_mark(void)
{
	struct pg_files p;
	assert_int_equal(request(REQ(.op = FILES_PROBE), NULL, NULL), ERR_OK);
	memcpy(&p, out.data.data, sizeof(p));
	return p.mark;
}

static void test_mark(void **state)
{
	(void)state;
	make("run");
	assert_true(str_copy(ops.fs.runtime_dir, sizeof(ops.fs.runtime_dir), at("run")));
	assert_int_equal(probed_mark(), PG_MARK_NONE);
	for (uint64_t m = PG_MARK_NONE + 1; m < PG_MARK_COUNT; m++) {
		assert_int_equal(request(REQ(.op = FILES_MARK, .arg = m), NULL, NULL), ERR_OK);
		assert_int_equal(probed_mark(), m);
	}
	/* Beside, so that the directory stays empty for initdb. */
	assert_true(there("data.unfinished"));
	assert_false(there("run/unfinished"));
	assert_int_equal(request(REQ(.op = FILES_MARK), NULL, NULL), ERR_OK);
	assert_int_equal(probed_mark(), PG_MARK_NONE);
	assert_false(there("data.unfinished"));
	assert_int_equal(request(REQ(.op = FILES_MARK), NULL, NULL), ERR_OK);
	assert_int_equal(
		request(REQ(.op = FILES_MARK, .arg = PG_MARK_COUNT), NULL, NULL), ERR_INVAL);
	/* The parent takes no file of that name: the run-time directory does. */
	make("data.unfinished");
	assert_int_equal(request(REQ(.op = FILES_MARK, .arg = PG_MARK_ROLES), NULL, NULL), ERR_OK);
	assert_true(there("run/unfinished"));
	assert_int_equal(probed_mark(), PG_MARK_ROLES);
	assert_int_equal(rmdir(at("data.unfinished")), 0);
	/* The better place again: the old word must not come back. */
	assert_int_equal(request(REQ(.op = FILES_MARK, .arg = PG_MARK_REWIND), NULL, NULL), ERR_OK);
	assert_false(there("run/unfinished"));
	assert_int_equal(probed_mark(), PG_MARK_REWIND);
	put("data.unfinished", "something of a later version\n");
	assert_int_equal(probed_mark(), PG_MARK_NONE);
}

static void test_probe(void **state)
{
	(void)state;
	struct pg_files p;
	assert_int_equal(request(REQ(.op = FILES_PROBE), NULL, NULL), ERR_OK);
	assert_int_equal(out.data.len, sizeof(p));
	memcpy(&p, out.data.data, sizeof(p));
	assert_true(p.valid && p.dir_exists && p.dir_readable && p.dir_empty && p.dir_mode_ok);
	assert_false(p.control.valid);
	assert_int_equal(p.control.fault, PG_CONTROL_ABSENT);
	put("data/.hidden", "");
	make("data/lost+found");
	assert_int_equal(request(REQ(.op = FILES_PROBE), NULL, NULL), ERR_OK);
	memcpy(&p, out.data.data, sizeof(p));
	assert_true(p.dir_empty);
	put("data/PG_VERSION", "15\n");
	put("data/standby.signal", "");
	assert_int_equal(chmod(at("data"), 0770), 0);
	assert_int_equal(request(REQ(.op = FILES_PROBE), NULL, NULL), ERR_OK);
	memcpy(&p, out.data.data, sizeof(p));
	assert_int_equal(p.major, 15);
	assert_true(p.standby_signal && !p.recovery_signal && !p.dir_empty && !p.dir_mode_ok);
	assert_false(p.promote);
	put("data/promote", "");
	assert_int_equal(request(REQ(.op = FILES_PROBE), NULL, NULL), ERR_OK);
	memcpy(&p, out.data.data, sizeof(p));
	assert_true(p.promote && p.standby_signal);
	assert_int_equal(unlink(at("data/promote")), 0);
	assert_int_equal(request(REQ(.op = FILES_CHECK_DATA_DIR), NULL, NULL), ERR_INVAL);
	assert_non_null(strstr(err.text, "0770"));
	assert_int_equal(chmod(at("data"), 0750), 0);
	assert_int_equal(request(REQ(.op = FILES_CHECK_DATA_DIR), NULL, NULL), ERR_OK);
	assert_int_equal(out.value, 0750);
	/* FILES_F_SKIP_EMPTY: nothing is made in a directory that initdb wants empty. */
	assert_int_equal(unlink(at("data/PG_VERSION")), 0);
	assert_int_equal(unlink(at("data/standby.signal")), 0);
	assert_int_equal(
		request(REQ(.op = FILES_MKDIR, .arg = FILES_F_SKIP_EMPTY), "stat_tmp", NULL),
		ERR_OK);
	assert_false(there("data/stat_tmp"));
	assert_int_equal(rename(at("data"), at("moved")), 0);
	assert_int_equal(request(REQ(.op = FILES_PROBE), NULL, NULL), ERR_OK);
	memcpy(&p, out.data.data, sizeof(p));
	assert_true(p.valid && !p.dir_exists && p.dir_empty);
	assert_int_equal(request(REQ(.op = FILES_CHECK_DATA_DIR), NULL, NULL), ERR_OK);
	assert_int_equal(out.value, -1);
}

/* ---- files of PostgreSQL
 * ------------------------------------------------------------------------------ */

static void test_history(void **state)
{
	(void)state;
	make("data/pg_wal");
	put("data/pg_wal/00000003.history", "1\t0/3000148\tno recovery target specified\n\n# "
					    "x\n2\t0/5000000\tswitch over\n3\tbad");
	assert_int_equal(request(REQ(.op = FILES_HISTORY, .arg = 3), NULL, NULL), ERR_OK);
	struct history_row rows[2];
	assert_int_equal(out.data.len, sizeof(rows));
	memcpy(rows, out.data.data, sizeof(rows));
	assert_int_equal(rows[0].timeline, 1);
	assert_int_equal(rows[0].lsn, 0x3000148);
	assert_string_equal(rows[0].reason, "no recovery target specified");
	assert_string_equal(rows[1].reason, "switch over");
	assert_true(out.value > 0);
	assert_int_equal(request(REQ(.op = FILES_HISTORY, .arg = 4), NULL, NULL), ERR_NOTFOUND);
	/* Of more rows than wanted the newest stay; a long reason is cut between characters. */
	char text[800] = "1\t0/1\ta\n2\t0/2\t";
	memset(text + strlen(text), 'x', 198);
	memcpy(text + strlen(text), "\xc3\xa4\xc3\xa4\n", 6);
	assert_int_equal(history_parse(text, strlen(text), rows, 1), 1);
	assert_int_equal(rows[0].timeline, 2);
	assert_int_equal(strlen(rows[0].reason), 198);
	assert_int_equal(history_parse(NULL, 0, rows, 2), 0);
	assert_int_equal(history_parse("1\t0/1\ta\tb\n0\t0/1\tx\n", 18, rows, 2), 0);
}

static void test_configs(void **state)
{
	(void)state;
	make("etc");
	put("etc/postgresql.conf", "conf");
	put("etc/pg_hba.conf", "hba");
	char tail[200];
	snprintf(tail, sizeof(tail),
		"%s|postgresql.conf|postgresql.base.conf|pg_hba.conf|pg_ident.conf", at("etc"));
	assert_int_equal(request(REQ(.op = FILES_BACKUP_CONFIGS), tail, NULL), ERR_OK);
	assert_int_equal(out.value, 2);
	assert_content("data/pg_hba.conf.backup", "hba");
	assert_int_equal(unlink(at("etc/pg_hba.conf")), 0);
	put("etc/postgresql.conf", "newer");
	assert_int_equal(request(REQ(.op = FILES_RESTORE_CONFIGS), tail, NULL), ERR_OK);
	assert_int_equal(out.value, 2);
	assert_content("etc/pg_hba.conf", "hba");
	assert_content("etc/pg_ident.conf", "");
	assert_content("etc/postgresql.conf", "newer");
	assert_false(there("etc/postgresql.base.conf"));
	put("data/postgresql.auto.conf", "# c\nwork_mem = '1MB'\n Primary_Conninfo = "
					 "'x'\nrestore_command='y'\nrestore_commands = 1\n"
					 "primary_slot_name 's'\nport = 1");
	assert_int_equal(request(REQ(.op = FILES_AUTO_CONF_CLEAN),
				 "primary_conninfo|restore_command|primary_slot_name", NULL),
		ERR_OK);
	assert_int_equal(out.value, 3);
	assert_content("data/postgresql.auto.conf",
		"# c\nwork_mem = '1MB'\nrestore_commands = 1\nport = 1");
	assert_int_equal(
		request(REQ(.op = FILES_AUTO_CONF_CLEAN), "primary_conninfo", NULL), ERR_OK);
	assert_int_equal(out.value, 0);
}

static void test_slot_and_archive(void **state)
{
	(void)state;
	make("data/pg_replslot");
	make("data/pg_replslot/s1");
	put("data/pg_replslot/s1/state", "old");
	put("data/pg_replslot/s1/xid-1.snap", "spill");
	assert_int_equal(request(REQ(.op = FILES_REPL_SLOT_WRITE), "s1", "state bytes"), ERR_OK);
	assert_content("data/pg_replslot/s1/state", "state bytes");
	assert_false(there("data/pg_replslot/s1/xid-1.snap"));
	assert_false(there("data/pg_replslot/s1.tmp"));
	assert_int_equal(request(REQ(.op = FILES_ARCHIVE_LIST), NULL, NULL), ERR_NOTFOUND);
	make("data/pg_wal");
	make("data/pg_wal/archive_status");
	put("data/pg_wal/archive_status/000000010000000000000003.ready", "");
	put("data/pg_wal/archive_status/000000010000000000000002.partial.ready", "");
	put("data/pg_wal/archive_status/000000010000000000000001.done", "");
	put("data/pg_wal/archive_status/00000002.history.ready", "");
	assert_int_equal(request(REQ(.op = FILES_ARCHIVE_LIST), NULL, NULL), ERR_OK);
	assert_int_equal(out.value, 2);
	assert_string_equal(out.data.data, "000000010000000000000002.partial");
	assert_string_equal(out.data.data + 33, "000000010000000000000003");
	assert_int_equal(request(REQ(.op = FILES_ARCHIVE_LIST, .arg = 1), NULL, NULL), ERR_OK);
	assert_int_equal(out.data.len, 33);
	assert_int_equal(
		request(REQ(.op = FILES_ARCHIVE_DONE), "000000010000000000000003", NULL), ERR_OK);
	assert_true(there("data/pg_wal/archive_status/000000010000000000000003.done"));
	assert_int_equal(
		request(REQ(.op = FILES_CLEAR_DIR), "pg_wal/archive_status", NULL), ERR_OK);
	assert_int_equal(out.value, 4);
	assert_true(there("data/pg_wal/archive_status"));
	assert_int_equal(rmdir(at("data/pg_wal/archive_status")), 0);
}

/* ---- the data directory as a whole
 * -------------------------------------------------------------------- */

static void fill_data_dir(void)
{
	make("wal");
	make("ts");
	make("ts/PG_15");
	make("precious");
	put("precious/keep", "k");
	put("wal/0001", "w");
	put("ts/PG_15/1", "t");
	make("data/global");
	make("data/base");
	for (int i = 0; i < 500; i++) {
		char name[40];
		snprintf(name, sizeof(name), "data/base/%d", i);
		put(name, "x");
	}
	make("data/pg_tblspc");
	assert_int_equal(symlink(at("wal"), at("data/pg_wal")), 0);
	assert_int_equal(symlink(at("ts"), at("data/pg_tblspc/16385")), 0);
	/* A link that PostgreSQL does not make is removed, never followed; nor is one to a parent
	 * of ours. */
	assert_int_equal(symlink(at("precious"), at("data/link")), 0);
	assert_int_equal(symlink("/", at("data/pg_tblspc/1")), 0);
}

static void test_remove(void **state)
{
	(void)state;
	fill_data_dir();
	assert_int_equal(request(REQ(.op = FILES_REMOVE_DATA_DIR), NULL, NULL), ERR_OK);
	assert_int_equal(out.value, 0);
	assert_false(there("data"));
	assert_false(there("wal"));
	assert_false(there("ts"));
	assert_content("precious/keep", "k");
	/* Nothing there: nothing to do. */
	assert_int_equal(request(REQ(.op = FILES_REMOVE_DATA_DIR), NULL, NULL), ERR_OK);
}

static void test_set_aside(void **state)
{
	(void)state;
	fill_data_dir();
	make("data.failed");
	put("data.failed/older", "");
	assert_int_equal(request(REQ(.op = FILES_RENAME_FAILED), NULL, NULL), ERR_OK);
	assert_false(there("data"));
	assert_true(there("data.failed/base/499"));
	assert_false(there("data.failed/older"));
	assert_true(there("wal.failed/0001"));
	/* The copy set aside is whole: its links lead to what was renamed with it. */
	assert_content("data.failed/pg_wal/0001", "w");
	assert_content("data.failed/pg_tblspc/16385/PG_15/1", "t");
}

/* A symbolic link as data directory: what is in it goes, the link stays for the next clone. */
static void test_remove_linked(void **state)
{
	(void)state;
	assert_int_equal(rmdir(at("data")), 0);
	make("real");
	put("real/PG_VERSION", "15");
	assert_int_equal(symlink(at("real"), at("data")), 0);
	assert_int_equal(request(REQ(.op = FILES_REMOVE_DATA_DIR), NULL, NULL), ERR_OK);
	assert_true(there("data"));
	assert_true(there("real"));
	assert_false(there("real/PG_VERSION"));
}

/* Something with the pid of postmaster.pid has its working directory here: no removal, no renaming.
 */
static void test_in_use(void **state)
{
	(void)state;
	char cwd[512], pid[64];
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	assert_int_equal(chdir(at("data")), 0);
	snprintf(pid, sizeof(pid), "%d\n%s\n1\n5432\n", getpid(), at("data"));
	put("data/postmaster.pid", pid);
	assert_int_equal(datadir_user(at("data")), getpid());
	assert_int_equal(request(REQ(.op = FILES_REMOVE_DATA_DIR), NULL, NULL), ERR_STATE);
	assert_int_equal(ops_answer_code(ERR_STATE), ANSWER_REFUSED);
	assert_int_equal(request(REQ(.op = FILES_RENAME_FAILED), NULL, NULL), ERR_STATE);
	assert_int_equal(chdir(cwd), 0);
	assert_true(there("data/postmaster.pid"));
	assert_int_equal(request(REQ(.op = FILES_REMOVE_DATA_DIR), NULL, NULL), ERR_OK);
	assert_false(there("data"));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_write),
		CASE(test_pieces),
		CASE(test_in_place),
		CASE(test_small),
		CASE(test_bad_requests),
		CASE(test_mark),
		CASE(test_probe),
		CASE(test_history),
		CASE(test_configs),
		CASE(test_slot_and_archive),
		CASE(test_remove),
		CASE(test_set_aside),
		CASE(test_remove_linked),
		CASE(test_in_use),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
