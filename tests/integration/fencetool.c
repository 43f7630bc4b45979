/* Runs the real fence against a PostgreSQL that a test has started, and prints what it did as one
 * JSON line. fencetool PID LIFE_FILE [--sweep] [--uid U --gid G] [--connections N --conninfo TEXT]
 * [--bound MS]
 * --sweep: the postmaster has ended already. --connections: open so many first, every second one
 * inside a statement, two of them computing, so that the fence meets a busy server. Measures the
 * time until SIGKILL is pending on everything. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "supervisor/fence.h"

static struct killtree scratch;
static struct fence fence;

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "fencetool: %s: %s\n", what, why);
	return 2;
}

static int open_connections(int count, const char *conninfo)
{
	for (int i = 0; i < count; i++) {
		PGconn *c = PQconnectdb(conninfo);
		if (PQstatus(c) != CONNECTION_OK)
			return fail("connection", PQerrorMessage(c));
		/* Two compute; every second one inside a statement: the others wait for their
		 * client. */
		const char *sql = i < 4 ? "select count(*) from generate_series(1, 2000000000)"
					: "select pg_sleep(7200)";
		if (i % 2 == 0 && PQsendQuery(c, sql) != 1)
			return fail("statement", PQerrorMessage(c));
	}
	return 0;
}

static const char *option(int argc, char **argv, const char *name)
{
	for (int i = 3; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return i + 1 < argc ? argv[i + 1] : "";
	return NULL;
}

static long number(int argc, char **argv, const char *name, long otherwise)
{
	const char *text = option(argc, argv, name);
	return text != NULL ? strtol(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
	struct killtree_target t = { .root_pidfd = -1 };
	struct stat st;
	if (argc < 3)
		return fail("usage", "PID LIFE_FILE [options]");
	int life = open(argv[2], O_RDWR | O_CLOEXEC);
	if (life < 0 || fstat(life, &st) < 0)
		return fail(argv[2], strerror(errno));
	t.life_dev = st.st_dev;
	t.life_ino = st.st_ino;
	t.uid = (uid_t)number(argc, argv, "--uid", (long)geteuid());
	t.gid = (gid_t)number(argc, argv, "--gid", (long)getegid());
	t.as_user = t.uid != geteuid();
	if (option(argc, argv, "--sweep") == NULL) {
		t.root = (pid_t)strtol(argv[1], NULL, 10);
		t.root_pidfd = pidfd_open(t.root, 0);
		if (t.root_pidfd < 0)
			return fail("postmaster", strerror(errno));
	}
	if (option(argc, argv, "--conninfo") != NULL) {
		int rc = open_connections((int)number(argc, argv, "--connections", 1),
			option(argc, argv, "--conninfo"));
		if (rc != 0)
			return rc;
	}
	memset(&scratch, 0, sizeof(scratch));
	fence_init(&fence, &scratch);
	int64_t start_us = clock_boot_us(),
		bound_ms = clock_boot_ms() + number(argc, argv, "--bound", 10000);
	fence_start(&fence, &t, 1, life, "test", clock_boot_ms());
	int64_t killed_us = clock_boot_us() - start_us;
	struct killtree_report first = fence.last;
	enum fence_phase at_once = fence.phase;
	while (fence.phase != FENCE_PROVEN && clock_boot_ms() < bound_ms) {
		struct timespec ts = { .tv_nsec = 500000 };
		nanosleep(&ts, NULL);
		fence_step(&fence, clock_boot_ms());
	}
	printf("{\"backends_us\": %" PRId64 ", \"killed_us\": %" PRId64 ", \"proven_us\": %" PRId64
	       ", \"phase\": %d, \"phase_at_once\": %d, "
	       "\"signalled\": %u, \"passes\": %u, \"stopped\": %d, \"denied\": %u}\n",
		first.backends_us, killed_us, clock_boot_us() - start_us, (int)fence.phase,
		(int)at_once, first.signalled, first.passes, first.root_stopped, first.denied);
	return fence.phase == FENCE_PROVEN ? 0 : 1;
}
