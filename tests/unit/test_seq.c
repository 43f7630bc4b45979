/* Sequences of worker/postgres against a scripted supervisor and a scripted pgregent-files: which
 * jobs run, in which order, with which words, and what their answers lead to. No process is
 * started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"
#include "worker/postgres/bootstrap.h"
#include "worker/postgres/controljob.h"
#include "worker/postgres/sockets.h"

/* One expected request and its answer. */
struct step {
	const char *job;   /* name; NULL: a request to files */
	const char *words; /* of its argv, joined with |; a part is enough */
	int status;
	const char *out, *errors;
	uint32_t op; /* of files */
	const char *tail;
	size_t tail_len;
	int64_t value;
	int sys_errno;
};

static struct rig {
	struct loop loop;
	struct host host;
	struct pgctx pg;
	int sup, files;
	const struct step *steps;
	size_t count, at;
	uint64_t job; /* whose output is asked for */
	bool ended;
} r;

static struct ipc_rx rx;

static void joined(const char *tail, size_t len, char *out, size_t max)
{
	out[0] = '\0';
	for (const char *s = ipc_tail_next(tail, len, NULL); s != NULL;
		s = ipc_tail_next(tail, len, s)) {
		size_t n = strlen(out);
		assert_true(str_format(out + n, max - n, "%s%s", n > 0 ? "|" : "", s));
	}
}

static const struct step *next_step(void)
{
	assert_true(r.at < r.count);
	return &r.steps[r.at++];
}

static void send_sup(enum msg_type type, uint64_t id, const void *payload, const char *tail)
{
	struct err err = ERR_INIT;
	assert_int_equal(ipc_send(r.sup, type, id, payload, tail, tail != NULL ? strlen(tail) : 0,
				 NULL, 0, &err),
		ERR_OK);
}

static void on_job_start(const struct ipc_msg *m)
{
	static char words[65536];
	const struct msg_job_start *q = m->payload;
	const struct step *s = next_step();
	assert_non_null(s->job);
	assert_string_equal(q->name, s->job);
	joined(m->tail, m->tail_len, words, sizeof(words));
	if (s->words != NULL && strstr(words, s->words) == NULL)
		fail_msg("%s: \"%s\" not in \"%s\"", s->job, s->words, words);
	assert_string_equal(q->cwd, strcmp(s->job, "archive_command") == 0 ||
						    strcmp(s->job, "restore_command") == 0 ||
						    strcmp(s->job, "pg_rewind") == 0
					    ? "/data"
					    : "");
	struct msg_job_event e = { .job = m->id,
		.pid = 1,
		.exit_class = EXIT_CLASS_CODE,
		.exit_code = s->status,
		.flags = q->flags };
	assert_true(str_copy(e.name, sizeof(e.name), q->name));
	send_sup(MSG_JOB_EVENT, 0, &e, NULL);
	r.job = m->id;
}

static void on_sup(struct loop *l, int fd, short revents, void *arg)
{
	(void)l, (void)fd, (void)revents, (void)arg;
	struct ipc_msg m;
	struct err err = ERR_INIT;
	while (ipc_recv(r.sup, ROLE_WORKER, ROLE_SUPERVISOR, &rx, &m, &err) == ERR_OK) {
		if (m.type == MSG_JOB_START) {
			on_job_start(&m);
		} else if (m.type == MSG_JOB_OUTPUT_GET) {
			const struct step *s = &r.steps[r.at - 1];
			struct msg_job_output o = { .job = r.job, .stream = 1 };
			send_sup(MSG_JOB_OUTPUT, 0, &o, s->out != NULL ? s->out : "");
			o.stream = 2;
			send_sup(MSG_JOB_OUTPUT, 0, &o, s->errors != NULL ? s->errors : "");
		}
	}
}

static void on_files(struct loop *l, int fd, short revents, void *arg)
{
	(void)l, (void)fd, (void)revents, (void)arg;
	struct ipc_msg m;
	struct err err = ERR_INIT;
	while (ipc_recv(r.files, ROLE_WORKER, ROLE_FILES, &rx, &m, &err) == ERR_OK) {
		const struct msg_files_req *q = m.payload;
		const struct step *s = next_step();
		if (s->job != NULL)
			fail_msg("files op %u instead of job %s", q->op, s->job);
		assert_int_equal(q->op, s->op);
		if (s->words != NULL)
			assert_string_equal(m.tail, s->words);
		struct msg_files_answer a = { .op = q->op,
			.code = s->sys_errno != 0 ? ANSWER_FAILED : ANSWER_OK,
			.sys_errno = s->sys_errno,
			.value = s->value };
		assert_int_equal(ipc_send(r.files, MSG_FILES_ANSWER, m.id, &a, s->tail, s->tail_len,
					 NULL, 0, &err),
			ERR_OK);
	}
}

/* The worker's end, as link.c has it. */
static void on_worker(struct loop *l, int fd, short revents, void *arg)
{
	(void)l, (void)revents, (void)arg;
	static struct ipc_rx own;
	struct ipc_msg m;
	struct err err = ERR_INIT;
	while (ipc_recv(fd, ROLE_SUPERVISOR, ROLE_WORKER, &own, &m, &err) == ERR_OK)
		assert_true(host_message(&r.host, &m));
}

static void on_end(struct co *co, void *arg)
{
	(void)co, (void)arg;
	r.ended = true;
}

static int set_up(void **state)
{
	(void)state;
	int sup[2], files[2];
	struct err err = ERR_INIT;
	memset(&r, 0, sizeof(r));
	loop_init(&r.loop, NULL, NULL);
	host_init(&r.host, &r.loop);
	assert_int_equal(ipc_pair(sup, &err), ERR_OK);
	assert_int_equal(ipc_pair(files, &err), ERR_OK);
	r.sup = sup[0];
	r.files = files[0];
	assert_int_equal(loop_fd_set(&r.loop, sup[0], POLLIN, on_sup, NULL, &err), ERR_OK);
	assert_int_equal(loop_fd_set(&r.loop, sup[1], POLLIN, on_worker, NULL, &err), ERR_OK);
	assert_int_equal(loop_fd_set(&r.loop, files[0], POLLIN, on_files, NULL, &err), ERR_OK);
	host_set_supervisor(&r.host, sup[1]);
	host_set_files(&r.host, files[1]);
	pgctx_init(&r.pg, &r.host, &r.loop);
	assert_true(str_copy(r.pg.data_dir, sizeof(r.pg.data_dir), "/data"));
	assert_true(str_copy(r.pg.config_dir, sizeof(r.pg.config_dir), "/data"));
	assert_true(str_copy(r.pg.conf_name, sizeof(r.pg.conf_name), "postgresql"));
	assert_true(str_copy(r.pg.bin_dir, sizeof(r.pg.bin_dir), "/bin"));
	assert_true(str_copy(r.pg.database, sizeof(r.pg.database), "postgres"));
	assert_true(str_copy(r.pg.pgpass, sizeof(r.pg.pgpass), "/pgpass"));
	r.pg.major = 15;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	loop_fd_remove(&r.loop, r.host.sup_fd);
	close(r.host.sup_fd);
	pgctx_done(&r.pg);
	host_done(&r.host);
	loop_fd_remove(&r.loop, r.sup);
	loop_fd_remove(&r.loop, r.files);
	close(r.sup);
	close(r.files);
	loop_done(&r.loop);
	return 0;
}

/* All steps are used, and the result is this. */
static void play(struct co *co, co_fn step, const struct step *steps, size_t count, bool ok,
	const char *text)
{
	struct err err = ERR_INIT;
	r.steps = steps;
	r.count = count;
	co_start(co, &r.host, step, on_end, NULL);
	int64_t until_ms = clock_boot_ms() + 5000;
	while (!r.ended && clock_boot_ms() < until_ms)
		assert_int_equal(loop_turn(&r.loop, 100, &err), ERR_OK);
	assert_true(r.ended);
	if (co->result_ok != ok || strstr(co->result_text, text) == NULL)
		fail_msg("result %d \"%s\"", co->result_ok, co->result_text);
	assert_int_equal(r.at, r.count);
}
#define PLAY(co, step, steps, ok, text) play(co, step, steps, ARRAY_LEN(steps), ok, text)

/* Between the end of a sequence and the call of its done the loop still has its timer: whoever
 * cleared it then to start it anew left a timer without a function behind. */
static void ends_at_once(struct co *co)
{
	co_finish(co, true, "done");
}

static void test_busy_until_told(void **state)
{
	(void)state;
	struct err err = ERR_INIT;
	static struct co co;
	assert_false(co_busy(&co));
	co_start(&co, &r.host, ends_at_once, on_end, NULL);
	assert_false(co.active);
	assert_true(co_busy(&co));
	assert_false(r.ended);
	assert_int_equal(loop_turn(&r.loop, 100, &err), ERR_OK);
	assert_true(r.ended);
	assert_false(co_busy(&co));
}

/* ---- archive ---- */

#define S1 "000000010000000000000001"
#define S2 "000000010000000000000002"
static const struct files_stat there = { .mode = 0100600 }, absent = { .sys_errno = 2 };
#define STAT(s, name)                                                                              \
	{                                                                                          \
		.op = FILES_STAT, .words = "pg_wal/" name, .tail = (const char *)&(s),             \
		.tail_len = sizeof(s)                                                              \
	}

static void test_archive(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C",
			.words = "/bin/postgres|-D|/data|-C|archive_mode|--config-"
				 "file=/data/postgresql.conf",
			.out = "on\n" },
		{ .job = "postgres -C",
			.words = "|archive_command|",
			.out = "cp %p /a/%f && echo 100%%\n" },
		{ .op = FILES_ARCHIVE_LIST, .tail = S1 "\0" S2, .tail_len = 50, .value = 2 },
		STAT(there, S1),
		{ .job = "archive_command",
			.words = "/bin/sh|-c|cp pg_wal/" S1 " /a/" S1 " && echo 100%" },
		{ .op = FILES_ARCHIVE_DONE, .words = S1 },
		STAT(absent, S2),
	};
	struct seq_archive s = { .p = &r.pg };
	PLAY(&s.co, seq_archive_step, steps, true, "1 segments archived");
}

/* A refusal costs nobody else anything, and the node nothing. */
static void test_archive_refused(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "always\n" },
		{ .job = "postgres -C", .out = "false\n" },
		{ .op = FILES_ARCHIVE_LIST, .tail = S1 "\0" S2, .tail_len = 50, .value = 2 },
		STAT(there, S1),
		{ .job = "archive_command", .status = 1 },
		STAT(there, S2),
		{ .job = "archive_command" },
		{ .op = FILES_ARCHIVE_DONE, .words = S2 },
	};
	struct seq_archive s = { .p = &r.pg };
	PLAY(&s.co, seq_archive_step, steps, true, "1 segments archived");
	assert_int_equal(s.failed, 1);
}

static void test_archive_off(void **state)
{
	(void)state;
	static const struct step steps[] = { { .job = "postgres -C", .out = "off\n" } };
	struct seq_archive s = { .p = &r.pg };
	PLAY(&s.co, seq_archive_step, steps, true, "archive_mode is off");
}

/* ---- sockets ---- */

static void test_sockets(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C",
			.words = "|unix_socket_directories|",
			.out = "/run/a, \"/b\"\n" },
		{ .op = FILES_CLEAR_SOCKET_LOCKS, .words = "/run/a" },
	};
	struct seq_sockets s = { .p = &r.pg };
	assert_true(str_copy(r.pg.local_port, sizeof(r.pg.local_port), "5432"));
	PLAY(&s.co, seq_sockets_step, steps, true, "looked at");
}

/* Nobody is asked in vain, and nothing that goes wrong is a reason not to start. */
static void test_sockets_none(void **state)
{
	(void)state;
	static const struct step steps[] = { { .job = "postgres -C", .out = "\n" } };
	struct seq_sockets s = { .p = &r.pg };
	assert_true(str_copy(r.pg.local_port, sizeof(r.pg.local_port), "5432"));
	PLAY(&s.co, seq_sockets_step, steps, true, "looked at");
}

static void test_sockets_unknown(void **state)
{
	(void)state;
	static const struct step steps[] = { { .job = "postgres -C", .status = 1 } };
	struct seq_sockets s = { .p = &r.pg };
	PLAY(&s.co, seq_sockets_step, steps, true, "looked at");
}

static void test_sockets_refused(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "/tmp\n" },
		{ .op = FILES_CLEAR_SOCKET_LOCKS, .words = "/tmp", .sys_errno = 13 },
	};
	struct seq_sockets s = { .p = &r.pg };
	assert_true(str_copy(r.pg.local_port, sizeof(r.pg.local_port), "5432"));
	PLAY(&s.co, seq_sockets_step, steps, true, "looked at");
}

/* ---- pg_rewind ---- */

#define MISSING(name)                                                                              \
	"pg_rewind: rewinding from last common checkpoint at 0/2000028 on timeline 1\n"            \
	"pg_rewind: error: could not open file \"/data/pg_wal/" name                               \
	"\": No such file or directory\n"

static void test_rewind_fetches(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .words = "|restore_command|", .out = "cp /a/%f %p\n" },
		{ .job = "pg_rewind",
			.words = "/bin/pg_rewind|-D|/data|--source-server|",
			.status = 1,
			.out = MISSING(S2) },
		{ .job = "restore_command", .words = "/bin/sh|-c|cp /a/" S2 " pg_wal/" S2 },
		{ .job = "pg_rewind", .status = 1, .out = MISSING(S1) },
		{ .job = "restore_command", .words = "/a/" S1 },
		{ .job = "pg_rewind" },
	};
	struct seq_rewind_run s = { .p = &r.pg, .leader = { .host = "h", .port = "1" } };
	r.pg.major = 12;
	PLAY(&s.co, seq_rewind_run_step, steps, true, "done");
}

static void test_rewind_fetch_in_vain(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "true\n" },
		{ .job = "pg_rewind", .status = 1, .out = MISSING(S2) },
		{ .job = "restore_command" },
		{ .job = "pg_rewind", .status = 1, .out = MISSING(S2) },
	};
	struct seq_rewind_run s = { .p = &r.pg, .leader = { .host = "h", .port = "1" } };
	r.pg.major = 12;
	PLAY(&s.co, seq_rewind_run_step, steps, false, "pg_rewind failed");
	assert_true(s.touched);
}

static void test_rewind_fetch_fails(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "false\n" },
		{ .job = "pg_rewind", .status = 1, .out = MISSING(S2) },
		{ .job = "restore_command", .status = 1 },
	};
	struct seq_rewind_run s = { .p = &r.pg, .leader = { .host = "h", .port = "1" } };
	r.pg.major = 12;
	PLAY(&s.co, seq_rewind_run_step, steps, false, S2);
}

static void test_rewind_restores_itself(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "cp /a/%f %p\n" },
		{ .job = "pg_rewind",
			.words = "/bin/pg_rewind|--restore-target-wal|--config-file=/etc/"
				 "postgresql.conf|-D|/data|",
			.status = 1,
			.out = MISSING(S2) },
	};
	struct seq_rewind_run s = { .p = &r.pg, .leader = { .host = "h", .port = "1" } };
	assert_true(str_copy(r.pg.config_dir, sizeof(r.pg.config_dir), "/etc"));
	PLAY(&s.co, seq_rewind_run_step, steps, false, "pg_rewind failed");
}

/* 13 and 14 look into the data directory alone. */
static void test_rewind_14_outside(void **state)
{
	(void)state;
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "cp /a/%f %p\n" },
		{ .job = "pg_rewind",
			.words = "/bin/pg_rewind|-D|/data|",
			.status = 1,
			.out = MISSING(S2) },
		{ .job = "restore_command" },
		{ .job = "pg_rewind" },
	};
	struct seq_rewind_run s = { .p = &r.pg, .leader = { .host = "h", .port = "1" } };
	r.pg.major = 14;
	assert_true(str_copy(r.pg.config_dir, sizeof(r.pg.config_dir), "/etc"));
	PLAY(&s.co, seq_rewind_run_step, steps, true, "done");
}

/* ---- crash recovery ---- */

static void test_crash(void **state)
{
	(void)state;
	static const char opts[] = "/usr/bin/postgres \"-D\" \"/data\" \"--max_connections=60\"\n";
	static const struct pg_files was_primary = {
		.control = { .valid = true, .state = PG_DB_IN_PRODUCTION, .checkpoint_tli = 2 }
	};
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "off\n" },
		{ .op = FILES_CLEAR_DIR, .words = "pg_wal/archive_status" },
		{ .op = FILES_PROBE,
			.tail = (const char *)&was_primary,
			.tail_len = sizeof(was_primary) },
		{ .op = FILES_REMOVE, .words = "recovery.conf" },
		{ .op = FILES_REMOVE, .words = "recovery.signal" },
		{ .op = FILES_REMOVE, .words = "standby.signal" },
		{ .op = FILES_READ,
			.words = "postmaster.opts",
			.tail = opts,
			.tail_len = sizeof(opts) - 1 },
		{ .job = "crash recovery",
			.words = "/bin/postgres|--single|-D|/data|--config-file=/data/"
				 "postgresql.conf|-c|archive_command=false|-c|archive_mode=on|-c|"
				 "max_connections=60|template1" },
	};
	struct seq_crash s = { .p = &r.pg };
	PLAY(&s.co, seq_crash_step, steps, true, "done");
}

/* A standby's directory is good for pg_rewind only afterwards: the mark comes first (X42). */
static void test_crash_standby(void **state)
{
	(void)state;
	static const struct pg_files was_standby = {
		.control = { .valid = true,
			.state = PG_DB_SHUTDOWNED_IN_RECOVERY,
			.checkpoint_tli = 2,
			.min_recovery_tli = 3 },
	};
	static const struct step steps[] = {
		{ .job = "postgres -C", .out = "off\n" },
		{ .op = FILES_CLEAR_DIR, .words = "pg_wal/archive_status" },
		{ .op = FILES_PROBE,
			.tail = (const char *)&was_standby,
			.tail_len = sizeof(was_standby) },
		{ .op = FILES_MARK },
		{ .op = FILES_REMOVE, .words = "recovery.conf" },
		{ .op = FILES_REMOVE, .words = "recovery.signal" },
		{ .op = FILES_REMOVE, .words = "standby.signal" },
		{ .op = FILES_READ, .words = "postmaster.opts", .tail = "", .tail_len = 0 },
		{ .job = "crash recovery", .words = "/bin/postgres|--single|-D|/data|" },
	};
	struct seq_crash s = { .p = &r.pg };
	PLAY(&s.co, seq_crash_step, steps, true, "done");
}

/* ---- pg_controldata ---- */

static const char control_text[] = "pg_control version number:            1201\n"
				   "Catalog version number:               201909212\n"
				   "Database system identifier:           6921381712341234567\n"
				   "Database cluster state:               in archive recovery\n"
				   "Latest checkpoint location:           0/3000028\n"
				   "Latest checkpoint's REDO location:    0/3000000\n"
				   "Latest checkpoint's TimeLineID:       3\n"
				   "Minimum recovery ending location:     0/4000000\n"
				   "Min recovery ending loc's timeline:   4\n"
				   "wal_log_hints setting:                on\n"
				   "max_connections setting:              100\n"
				   "max_worker_processes setting:         8\n"
				   "max_wal_senders setting:              10\n"
				   "max_prepared_xacts setting:           0\n"
				   "max_locks_per_xact setting:           64\n"
				   "Bytes per WAL segment:                16777216\n"
				   "Data page checksum version:           1\n";

static struct seq_control control_of(uint32_t version, uint64_t system)
{
	return (struct seq_control){ .p = &r.pg,
		.files.control = { .fault = PG_CONTROL_VERSION_UNKNOWN,
			.control_version = version,
			.system_id = system,
			.read_at_ms = 7 } };
}

static void test_control(void **state)
{
	(void)state;
	static const struct step steps[] = { { .job = "pg_controldata",
		.words = "/bin/pg_controldata|/data|",
		.out = control_text } };
	struct seq_control s = control_of(1201, 6921381712341234567);
	PLAY(&s.co, seq_control_step, steps, true, "read");
	const struct pg_control *c = &s.files.control;
	assert_true(c->valid && c->fault == PG_CONTROL_GOOD && c->wal_log_hints);
	assert_int_equal(c->state, PG_DB_IN_ARCHIVE_RECOVERY);
	assert_int_equal(c->min_recovery_lsn, 0x4000000);
	assert_int_equal(c->min_recovery_tli, 4);
	assert_int_equal(c->max_connections, 100);
	assert_int_equal(c->read_at_ms, 7);
}

/* What is not vouched for is not known. */
static void test_control_refused(void **state)
{
	(void)state;
	static const struct {
		struct step step;
		uint32_t version;
		uint64_t system;
		const char *text;
	} rows[] = {
		{ { .out = control_text }, 1100, 6921381712341234567, "version" },
		{ { .out = control_text }, 1201, 1, "system" },
		{ { .out = control_text,
			  .errors = "pg_controldata: warning: calculated CRC checksum does not "
				    "match" },
			1201, 6921381712341234567, "vouch" },
		{ { .out = "WARNING: Calculated CRC checksum does not match value stored in "
			   "file.\n" },
			1201, 6921381712341234567, "vouch" },
		{ { .out = "pg_control version number: 1201\n" }, 1201, 6921381712341234567,
			"no usable line" },
		{ { .status = 1, .errors = "no such file" }, 1201, 6921381712341234567, "no such" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct step step = rows[i].step;
		step.job = "pg_controldata";
		struct seq_control s = control_of(rows[i].version, rows[i].system);
		r.at = 0;
		r.ended = false;
		play(&s.co, seq_control_step, &step, 1, false, rows[i].text);
		assert_false(s.files.control.valid);
		assert_int_not_equal(s.files.control.fault, PG_CONTROL_GOOD);
	}
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_busy_until_told),
		T(test_archive),
		T(test_archive_refused),
		T(test_archive_off),
		T(test_sockets),
		T(test_sockets_none),
		T(test_sockets_unknown),
		T(test_sockets_refused),
		T(test_rewind_fetches),
		T(test_rewind_fetch_in_vain),
		T(test_rewind_fetch_fails),
		T(test_rewind_restores_itself),
		T(test_rewind_14_outside),
		T(test_crash),
		T(test_crash_standby),
		T(test_control),
		T(test_control_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
