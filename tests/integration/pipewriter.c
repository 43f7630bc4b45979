/* A writer that never waits for the server: statements are sent ahead in libpq's pipeline mode,
 * each a transaction of its own, so that a backend always finds more work in its socket. Such a
 * backend outlives its postmaster and goes on acknowledging; a fence that counts on PostgreSQL's
 * own check misses it. Usage: pipewriter <port> <member> <first value>. Reconnects for ever; ends
 * on SIGTERM. Prints one line for each acknowledgement: when sent, when acknowledged
 * (CLOCK_MONOTONIC, seconds), value, timeline. */
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Not as many as it can: several tests share the machine, and its disk with their stores. */
#define WINDOW	 8  /* statements on their way */
#define BATCH_MS 10 /* between new ones */
#define POLL_MS	 100
#define AGAIN_MS 50 /* between two attempts at a member that refuses */
#define INSERT_SQL                                                                                 \
	"INSERT INTO probe VALUES ($1, $2) RETURNING "                                             \
	"('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"

static struct writer {
	PGconn *conn;
	const char *member;
	int64_t next;
	struct {
		double sent;
		int64_t value;
	} sent[WINDOW]; /* a ring: the oldest is at first */
	unsigned first, count;
	char timeline[16];
} writer;

static volatile sig_atomic_t ending;

static void on_term(int signo)
{
	(void)signo;
	ending = 1;
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}

static bool send_one(struct writer *w)
{
	char value[24];
	snprintf(value, sizeof(value), "%lld", (long long)w->next);
	const char *params[] = { value, w->member };
	unsigned slot = (w->first + w->count) % WINDOW;
	w->sent[slot].sent = now_s();
	w->sent[slot].value = w->next;
	if (!PQsendQueryPrepared(w->conn, "ins", 2, params, NULL, NULL, 0) ||
		!PQpipelineSync(w->conn))
		return false;
	w->next++;
	w->count++;
	return true;
}

/* False: the server refuses or is gone; what is on its way has no known outcome. The commit, and
 * with it the acknowledgement, comes with the sync, not with the row. */
static bool take_results(struct writer *w)
{
	unsigned empty = 0;
	if (!PQconsumeInput(w->conn))
		return false;
	while (w->count > 0 && !PQisBusy(w->conn)) {
		PGresult *r = PQgetResult(w->conn);
		ExecStatusType status = PQresultStatus(r);
		if (status == PGRES_TUPLES_OK)
			snprintf(w->timeline, sizeof(w->timeline), "%s", PQgetvalue(r, 0, 0));
		PQclear(r);
		if (r == NULL) {
			if (++empty > 2) /* one stands between two statements */
				return false;
			continue;
		}
		empty = 0;
		if (status == PGRES_PIPELINE_SYNC) {
			printf("%.6f %.6f %lld %s\n", w->sent[w->first].sent, now_s(),
				(long long)w->sent[w->first].value, w->timeline);
			w->first = (w->first + 1) % WINDOW;
			w->count--;
		} else if (status != PGRES_TUPLES_OK) {
			return false;
		}
	}
	return true;
}

static bool open_connection(struct writer *w, const char *port)
{
	const char *keys[] = { "host", "port", "user", "dbname", "connect_timeout", "options",
		NULL };
	/* A standby refuses each of them: that fills no log. */
	const char *values[] = { "127.0.0.1", port, "postgres", "postgres", "2",
		"-c log_min_messages=fatal", NULL };
	w->conn = PQconnectdbParams(keys, values, 0);
	w->count = 0;
	if (PQstatus(w->conn) != CONNECTION_OK)
		return false;
	PGresult *r = PQprepare(w->conn, "ins", INSERT_SQL, 0, NULL);
	bool ok = PQresultStatus(r) == PGRES_COMMAND_OK;
	PQclear(r);
	return ok && PQsetnonblocking(w->conn, 1) == 0 && PQenterPipelineMode(w->conn);
}

static void write_until_refused(struct writer *w)
{
	double next = 0;
	while (!ending) {
		bool due = now_s() >= next;
		while (due && w->count < WINDOW) {
			if (!send_one(w))
				return;
		}
		if (due)
			next = now_s() + BATCH_MS / 1000.0;
		int unsent = PQflush(w->conn);
		if (unsent < 0)
			return;
		struct pollfd p = { .fd = PQsocket(w->conn),
			.events = (short)(POLLIN | (unsent ? POLLOUT : 0)) };
		if (poll(&p, 1, w->count < WINDOW ? BATCH_MS : POLL_MS) < 0 && errno != EINTR)
			return;
		if (!take_results(w))
			return;
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: pipewriter <port> <member> <first value>\n");
		return 2;
	}
	struct sigaction term = { .sa_handler = on_term };
	sigaction(SIGTERM, &term, NULL);
	writer.member = argv[2];
	writer.next = strtoll(argv[3], NULL, 10);
	while (!ending) {
		if (open_connection(&writer, argv[1]))
			write_until_refused(&writer);
		PQfinish(writer.conn);
		fflush(stdout);
		pause_ms(AGAIN_MS);
	}
	return 0;
}
