/* Stands in the worker's place (and, called pgregent-api, in api's) so that tests can drive the
 * supervisor alone. CONFIG is a file of key=value lines: data_dir, scope, name (printed by
 * --launch) and control, a Unix socket. A test writes one command per line to that socket; messages
 * of the supervisor are kept and handed out by `take`, one line each. The reply to a command ends
 * with a line "." */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/ipc.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"
#include "supervisor/guard.h"

#define SUP_FD	       3
#define PING_MS	       200
#define WORDS	       64
#define START_AGAIN_MS 300

static struct {
	enum ipc_role role;
	struct ipc_rx rx;
	struct buf inbox;
	int listen_fd, control_fd;
	char line[16384];
	size_t line_len;
	uint64_t next_id, lease_seq;
	int64_t lease_until_ms, ttl_ms;
	uint64_t generation;
	int64_t auto_lease_ms, auto_lease_at, auto_proof_ms, auto_proof_at, ping_at;
	uint32_t policy;
	/* On its own, from CONFIG, so that a worker that was killed goes on as a real one does. */
	int64_t ping_ms; /* a figure of the bench */
	int64_t config_ttl_ms, config_every_ms, unacked_since_ms, start_at_ms;
	char start[4096]; /* argv, separated by tabs */
	bool start_wanted, lease_acked;
	int lease_log;
	struct shm page; /* the supervisor's */
	int peers[ROLE_COUNT];
} w = { .inbox = BUF_INIT(1024 * 1024),
	.listen_fd = -1,
	.control_fd = -1,
	.next_id = 1,
	.lease_log = -1,
	.page = SHM_INIT };

static void note(const char *fmt, ...) PRINTF(1, 2);
static void note(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_addv(&w.inbox, fmt, ap);
	va_end(ap);
	buf_adds(&w.inbox, "\n");
}

static uint64_t tell(enum msg_type type, const void *payload, const void *tail, size_t tail_len)
{
	struct err err = ERR_INIT;
	uint64_t id = w.next_id++;
	if (ipc_send(SUP_FD, type, id, payload, tail, tail_len, NULL, 0, &err) != ERR_OK)
		note("SENDFAIL %s", err.text);
	return id;
}

/* ---- from the supervisor ---- */

static void on_job_output(const struct ipc_msg *m)
{
	const struct msg_job_output *o = m->payload;
	char text[LIMIT_JOB_OUTPUT + 1];
	memcpy(text, m->tail != NULL ? m->tail : "", m->tail_len);
	text[m->tail_len] = '\0';
	for (char *c = text; *c != '\0'; c++)
		*c = *c == '\n' ? '|' : *c;
	note("JOB_OUTPUT id=%" PRIu64 " job=%" PRIu64 " total=%u stream=%u len=%zu text=%s", m->id,
		o->job, o->total_bytes, o->stream, m->tail_len, text);
}

static void on_pg_event(const struct msg_pg_event *e)
{
	w.generation = e->generation;
	w.start_wanted = e->state == PG_PROC_NONE;
	note("PG_EVENT generation=%" PRIu64
	     " pid=%d state=%u kind=%u is_child=%u promote_sent=%u exit_class=%u "
	     "exit_code=%d stop_mode=%u unproven=%u text=%s",
		e->generation, e->pid, e->state, e->kind, e->is_child, e->promote_sent,
		e->exit_class, e->exit_code, e->stop_mode, e->unproven, e->text);
}

static void on_welcome(const struct msg_welcome *v)
{
	w.lease_seq = v->lease_seq;
	/* An answer to the one before must not be taken for one to this. */
	w.next_id = v->incarnation * 1000000 + 1;
	w.auto_lease_ms = w.config_every_ms > 0 ? w.config_every_ms : w.auto_lease_ms;
	w.ttl_ms = w.config_every_ms > 0 ? w.config_ttl_ms : w.ttl_ms;
	struct msg_ping ready = { .sent_at_ms = clock_boot_ms() };
	tell(MSG_READY, &ready, NULL, 0);
	note("WELCOME incarnation=%" PRIu64
	     " adopted=%u in_handover=%u pid1=%u data_dir=%s runtime_dir=%s",
		v->incarnation, v->adopted, v->in_handover, v->is_pid1, v->data_dir,
		v->runtime_dir);
}

static void on_page(struct ipc_msg *m)
{
	const struct msg_page *p = m->payload;
	struct err err = ERR_INIT;
	if (p->role == ROLE_SUPERVISOR && m->fd_count == 1) {
		shm_done(&w.page);
		if (shm_map(&w.page, m->fds[0], &err) != ERR_OK)
			note("PAGEFAIL %s", err.text);
	}
	note("PAGE role=%u incarnation=%" PRIu64, p->role, p->incarnation);
}

static void on_message(struct ipc_msg *m)
{
	const struct msg_answer *a = m->payload;
	const struct msg_lease_ack *k = m->payload;
	const struct msg_job_event *j = m->payload;
	const struct msg_order *o = m->payload;
	const struct msg_watchdog_state *d = m->payload;
	const struct msg_peer *p = m->payload;
	switch (m->type) {
	case MSG_WELCOME: on_welcome(m->payload); break;
	case MSG_PG_EVENT: on_pg_event(m->payload); break;
	case MSG_PAGE: on_page(m); break;
	case MSG_PING: w.ping_at = 0; break; /* the ttl has changed */
	case MSG_JOB_OUTPUT: on_job_output(m); break;
	case MSG_ANSWER:
		note("ANSWER id=%" PRIu64 " code=%u text=%s", m->id, a->code, a->text);
		break;
	case MSG_LEASE_ACK:
		w.lease_acked = k->accepted != 0;
		w.unacked_since_ms = 0;
		note("LEASE_ACK id=%" PRIu64 " seq=%" PRIu64 " accepted=%u fence_at=%" PRId64
		     " reason=%s",
			m->id, k->seq, k->accepted, k->fence_at_ms, k->reason);
		break;
	case MSG_PROOF_WANTED: note("PROOF_WANTED"); break;
	case MSG_JOB_EVENT:
		note("JOB_EVENT job=%" PRIu64
		     " pid=%d running=%u exit_class=%u exit_code=%d cancelled=%u timed_out=%u "
		     "name=%s",
			j->job, j->pid, j->running, j->exit_class, j->exit_code, j->cancelled,
			j->timed_out, j->name);
		break;
	case MSG_ORDER: note("ORDER kind=%u", o->kind); break;
	case MSG_WATCHDOG_STATE:
		note("WATCHDOG_STATE usable=%u armed=%u timeout=%" PRId64 " text=%s", d->usable,
			d->armed, d->timeout_ms, d->text);
		break;
	case MSG_PEER:
		note("PEER role=%u incarnation=%" PRIu64, p->role, p->incarnation);
		if (m->fd_count == 1 && p->role < ROLE_COUNT) {
			if (w.peers[p->role] > 0)
				close(w.peers[p->role]);
			w.peers[p->role] = m->fds[0];
			m->fd_count = 0;
		}
		break;
	default: note("%s", msg_type_name(m->type)); break;
	}
	for (int i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
}

static void on_supervisor(void)
{
	for (;;) {
		struct ipc_msg m;
		struct err err = ERR_INIT;
		enum err_code rc = ipc_recv(SUP_FD, ROLE_SUPERVISOR, w.role, &w.rx, &m, &err);
		if (rc == ERR_AGAIN)
			return;
		if (rc != ERR_OK)
			exit(3); /* the supervisor is gone */
		on_message(&m);
	}
}

/* ---- commands ---- */

static int64_t num(char *const *word, int count, int i)
{
	int64_t v = 0;
	if (i < count && !str_to_i64(word[i], &v))
		note("BADNUMBER %s", word[i]);
	return v;
}

/* What a store would know: written before the report leaves, with the wall clock of commit
 * timestamps. */
static void log_lease(const struct msg_lease *l)
{
	char line[96];
	if (w.lease_log >= 0 &&
		(!str_format(line, sizeof(line), "%" PRId64 " %" PRId64 "\n",
			 l->sent_at_ms + l->wall_offset_ms,
			 l->lease_until_ms + l->wall_offset_ms) ||
			write(w.lease_log, line, strlen(line)) != (ssize_t)strlen(line)))
		exit(4);
}

static uint64_t send_lease(int64_t ttl_ms, int64_t length_ms, uint32_t policy, bool pause_enforce)
{
	int64_t now_ms = clock_boot_ms();
	struct msg_lease l = { .seq = ++w.lease_seq,
		.sent_at_ms = now_ms,
		.ttl_ms = ttl_ms,
		.policy = policy,
		.pause_enforce = pause_enforce,
		.wall_offset_ms = clock_wall_us() / 1000 - now_ms };
	l.lease_until_ms = length_ms > 0 ? now_ms + length_ms : 0;
	w.lease_until_ms = l.lease_until_ms;
	w.ttl_ms = ttl_ms;
	w.policy = policy;
	if (w.unacked_since_ms == 0)
		w.unacked_since_ms = now_ms;
	log_lease(&l);
	return tell(MSG_LEASE, &l, NULL, 0);
}

static uint64_t send_proof(uint32_t kind)
{
	struct msg_proof p = { .generation = w.generation, .at_ms = clock_boot_ms(), .kind = kind };
	return tell(MSG_PROOF, &p, NULL, 0);
}

/* argv words as a tail: their number, then the strings. */
static void make_tail(struct buf *b, char *const *word, int count, int first)
{
	buf_addf(b, "%d", count - first);
	buf_add(b, "", 1);
	for (int i = first; i < count; i++)
		buf_add(b, word[i], strlen(word[i]) + 1);
}

static uint64_t cmd_start(char *const *word, int n) /* start KIND DEADLINE_MS UMASK argv... */
{
	AUTO(buf) tail = BUF_INIT(60000);
	struct msg_pg_start q = { .kind = (uint32_t)num(word, n, 1),
		.deadline_ms = clock_boot_ms() + num(word, n, 2),
		.umask = (uint32_t)num(word, n, 3) };
	q.lease_until_ms = q.kind == PG_START_PRIMARY ? w.lease_until_ms : 0;
	make_tail(&tail, word, n, 4);
	return tell(MSG_PG_START, &q, tail.data, tail.len);
}

static uint64_t cmd_job(char *const *word, int n) /* job NAME DEADLINE_MS GRACE_MS FLAGS argv... */
{
	AUTO(buf) tail = BUF_INIT(60000);
	int64_t deadline = num(word, n, 2);
	struct msg_job_start q = { .deadline_ms = deadline > 0 ? clock_boot_ms() + deadline : 0,
		.grace_ms = (uint32_t)num(word, n, 3),
		.flags = (uint32_t)num(word, n, 4) };
	if (!str_copy(q.name, sizeof(q.name), word[1]))
		return 0;
	make_tail(&tail, word, n, 5);
	return tell(MSG_JOB_START, &q, tail.data, tail.len);
}

static uint64_t cmd_stop(char *const *word, int n) /* stop MODE TIMEOUT_MS */
{
	struct msg_pg_stop q = { .generation = w.generation,
		.deadline_ms = clock_boot_ms() + 5000,
		.mode = (uint32_t)num(word, n, 1),
		.timeout_ms = num(word, n, 2) };
	return tell(MSG_PG_STOP, &q, NULL, 0);
}

static uint64_t cmd_signal(char *const *word, int n) /* signal SIGNO RESTS_ON_LEASE */
{
	struct msg_pg_signal q = { .generation = w.generation,
		.deadline_ms = clock_boot_ms() + 5000,
		.signo = (int32_t)num(word, n, 1),
		.lease_until_ms = num(word, n, 2) ? w.lease_until_ms : 0 };
	return tell(MSG_PG_SIGNAL, &q, NULL, 0);
}

static uint64_t cmd_promote(void)
{
	struct msg_pg_promote q = { .generation = w.generation,
		.deadline_ms = clock_boot_ms() + 5000,
		.lease_until_ms = w.lease_until_ms };
	return tell(MSG_PG_PROMOTE, &q, NULL, 0);
}

static uint64_t cmd_watchdog(char *const *word, int n) /* watchdog MODE DRIVER TIMEOUT_MS DEVICE */
{
	struct msg_watchdog_config q = { .mode = (uint32_t)num(word, n, 1),
		.driver = (uint32_t)num(word, n, 2),
		.timeout_ms = num(word, n, 3) };
	if (n < 5 || !str_copy(q.device, sizeof(q.device), word[4]))
		return 0;
	return tell(MSG_WATCHDOG_CONFIG, &q, NULL, 0);
}

static uint64_t cmd_text(enum msg_type type, const char *text)
{
	struct msg_notify q = { 0 };
	struct msg_upgrade u = { 0 };
	if (type == MSG_NOTIFY)
		return str_copy(q.text, sizeof(q.text), text) ? tell(type, &q, NULL, 0) : 0;
	return str_copy(u.path, sizeof(u.path), text) ? tell(type, &u, NULL, 0) : 0;
}

static uint64_t cmd_done(char *const *word, int n) /* done LEAVE EXIT_CODE */
{
	struct msg_shutdown_done q = { .leave_postgres = (uint32_t)num(word, n, 1),
		.exit_code = (uint32_t)num(word, n, 2) };
	return tell(MSG_SHUTDOWN_DONE, &q, NULL, 0);
}

static uint64_t cmd_id(enum msg_type type, char *const *word, int n)
{
	struct msg_job_id q = { .job = (uint64_t)num(word, n, 1) };
	return tell(type, &q, NULL, 0);
}

static void dump_environment(struct buf *out)
{
	for (char **e = environ; *e != NULL; e++)
		buf_addf(out, "ENV %s\n", *e);
}

static void dump_status(struct buf *out)
{
	for (unsigned i = 0; i < SUP_SCALAR_COUNT; i++)
		buf_addf(out, "%s%" PRId64, i == 0 ? "STATUS " : " ", shm_scalar_get(&w.page, i));
	buf_adds(out, "\n");
}

static void command(char *const *word, int n, struct buf *out)
{
	const char *c = word[0];
	uint64_t id = 0;
	if (str_eq(c, "take")) {
		buf_add(out, buf_str(&w.inbox), w.inbox.len);
		buf_reset(&w.inbox);
	} else if (str_eq(c, "lease")) { /* lease TTL LENGTH POLICY PAUSE_ENFORCE */
		id = send_lease(num(word, n, 1), num(word, n, 2), (uint32_t)num(word, n, 3),
			num(word, n, 4) != 0);
	} else if (str_eq(c, "autolease")) { /* autolease TTL EVERY_MS; 0 0 ends it */
		w.ttl_ms = num(word, n, 1);
		w.auto_lease_ms = num(word, n, 2);
		w.auto_lease_at = 0;
	} else if (str_eq(c, "autoproof")) {
		w.auto_proof_ms = num(word, n, 1);
		w.auto_proof_at = 0;
	} else if (str_eq(c, "proof")) {
		id = send_proof((uint32_t)num(word, n, 1));
	} else if (str_eq(c, "start")) {
		id = cmd_start(word, n);
	} else if (str_eq(c, "stop")) {
		id = cmd_stop(word, n);
	} else if (str_eq(c, "signal")) {
		id = cmd_signal(word, n);
	} else if (str_eq(c, "promote")) {
		id = cmd_promote();
	} else if (str_eq(c, "job")) {
		id = cmd_job(word, n);
	} else if (str_eq(c, "cancel")) {
		id = cmd_id(MSG_JOB_CANCEL, word, n);
	} else if (str_eq(c, "output")) {
		id = cmd_id(MSG_JOB_OUTPUT_GET, word, n);
	} else if (str_eq(c, "forget")) {
		id = cmd_id(MSG_JOB_FORGET, word, n);
	} else if (str_eq(c, "watchdog")) {
		id = cmd_watchdog(word, n);
	} else if (str_eq(c, "notify") && n > 1) {
		id = cmd_text(MSG_NOTIFY, word[1]);
	} else if (str_eq(c, "upgrade")) {
		id = cmd_text(MSG_UPGRADE, n > 1 ? word[1] : "");
	} else if (str_eq(c, "done")) {
		id = cmd_done(word, n);
	} else if (str_eq(c, "env")) {
		dump_environment(out);
	} else if (str_eq(c, "status")) {
		dump_status(out);
	} else if (str_eq(c, "garbage")) { /* bytes that are no message */
		id = send(SUP_FD, "garbage", 7, MSG_NOSIGNAL) == 7;
	} else if (str_eq(c, "exit")) {
		exit((int)num(word, n, 1));
	} else {
		buf_addf(out, "UNKNOWN %s\n", c);
	}
	buf_addf(out, "id=%" PRIu64 "\n.\n", id);
}

/* Words are separated by tabs, so that arguments may hold blanks. */
static int split(char *line, char **word)
{
	int n = 0;
	for (char *p = line; p != NULL && n < WORDS; n++) {
		word[n] = p;
		p = strchr(p, '\t');
		if (p != NULL)
			*p++ = '\0';
	}
	return n;
}

static void run_line(char *line)
{
	char *word[WORDS];
	int n = split(line, word);
	AUTO(buf) out = BUF_INIT(2 * 1024 * 1024);
	command(word, n, &out);
	for (size_t at = 0; at < out.len;) {
		ssize_t sent = send(w.control_fd, out.data + at, out.len - at, MSG_NOSIGNAL);
		if (sent <= 0)
			break;
		at += (size_t)sent;
	}
}

static void on_control(void)
{
	ssize_t n = read(w.control_fd, w.line + w.line_len, sizeof(w.line) - 1 - w.line_len);
	if (n <= 0) {
		close(w.control_fd);
		w.control_fd = -1;
		w.line_len = 0;
		return;
	}
	w.line_len += (size_t)n;
	char *end;
	while ((end = memchr(w.line, '\n', w.line_len)) != NULL) {
		*end = '\0';
		run_line(w.line);
		size_t used = (size_t)(end + 1 - w.line);
		memmove(w.line, end + 1, w.line_len - used);
		w.line_len -= used;
	}
}

/* ---- set-up ---- */

/* The value of a key of CONFIG, "" when it is not there. */
static void config_value(const char *path, const char *key, char *out, size_t size, bool print)
{
	char line[1024];
	FILE *f = fopen(path, "r");
	*out = '\0';
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (print && !str_starts(line, "control=") && !str_starts(line, "auto_") &&
			!str_starts(line, "lease_log="))
			puts(line);
		if (str_starts(line, key) && line[strlen(key)] == '=' &&
			!str_copy(out, size, line + strlen(key) + 1))
			exit(1);
	}
	if (f == NULL) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	fclose(f);
}

/* auto_ttl, auto_every: leases without being told; lease_log: where they are recorded; auto_start:
 * argv of the postmaster, started whenever there is none. */
static void read_automatic(const char *path)
{
	char value[LIMIT_PATH];
	config_value(path, "auto_ttl", value, sizeof(value), false);
	if (*value != '\0' && !str_to_i64(value, &w.config_ttl_ms))
		exit(1);
	config_value(path, "auto_every", value, sizeof(value), false);
	if (*value != '\0' && !str_to_i64(value, &w.config_every_ms))
		exit(1);
	config_value(path, "lease_log", value, sizeof(value), false);
	if (*value != '\0')
		w.lease_log = open(value, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	config_value(path, "auto_start", w.start, sizeof(w.start), false);
}

static void listen_control(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	if (!str_copy(sa.sun_path, sizeof(sa.sun_path), path))
		exit(1);
	unlink(path);
	w.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (w.listen_fd < 0 || bind(w.listen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
		listen(w.listen_fd, 4) < 0)
		exit(1);
}

static void start_by_config(void)
{
	char line[sizeof(w.start) + 32], *word[WORDS];
	if (!str_format(line, sizeof(line), "start\t%d\t8000\t63\t%s", PG_START_PRIMARY, w.start))
		exit(4);
	cmd_start(word, split(line, word));
}

static void tick(void)
{
	int64_t now_ms = clock_boot_ms();
	if (now_ms >= w.ping_at) {
		struct msg_ping p = { .sent_at_ms = now_ms };
		struct err err = ERR_INIT;
		if (ipc_send(SUP_FD, MSG_PING, 0, &p, NULL, 0, NULL, 0, &err) == ERR_CLOSED)
			exit(3);
		w.ping_at = now_ms + w.ping_ms;
	}
	/* A worker whose supervisor is silent stops renewing (DESIGN 2). */
	bool silent = w.config_every_ms > 0 && w.unacked_since_ms != 0 &&
		      now_ms > w.unacked_since_ms + 3 * guard_peer_interval_ms(w.ttl_ms);
	if (w.auto_lease_ms > 0 && now_ms >= w.auto_lease_at && !silent) {
		send_lease(w.ttl_ms, w.ttl_ms, POLICY_ENFORCE, false);
		w.auto_lease_at = now_ms + w.auto_lease_ms;
	}
	if (w.start[0] != '\0' && w.start_wanted && w.lease_acked && !silent &&
		now_ms >= w.start_at_ms) {
		start_by_config();
		w.start_at_ms = now_ms + START_AGAIN_MS;
	}
	if (w.auto_proof_ms > 0 && now_ms >= w.auto_proof_at) {
		send_proof(PROOF_RECOVERY_SQL);
		w.auto_proof_at = now_ms + w.auto_proof_ms;
	}
}

int main(int argc, char **argv)
{
	char value[LIMIT_PATH];
	bool api = strstr(argv[0], "api") != NULL;
	if (argc > 2 && str_eq(argv[1], "--launch")) {
		config_value(argv[2], "none", value, sizeof(value), true);
		return 0;
	}
	w.role = api ? ROLE_API : ROLE_WORKER;
	if (!api) {
		config_value(
			argc > 1 ? argv[1] : "/dev/null", "control", value, sizeof(value), false);
		listen_control(value);
		read_automatic(argc > 1 ? argv[1] : "/dev/null");
	}
	const char *ping = getenv("TESTWORKER_PING_MS");
	if (ping == NULL || !str_to_i64(ping, &w.ping_ms))
		w.ping_ms = PING_MS;
	struct msg_hello hello = { .proto = IPC_VERSION, .pid = getpid(), .version = "test" };
	tell(MSG_HELLO, &hello, NULL, 0);
	for (;;) {
		struct pollfd p[3] = { { .fd = SUP_FD, .events = POLLIN },
			{ .fd = w.listen_fd, .events = POLLIN },
			{ .fd = w.control_fd, .events = POLLIN } };
		if (poll(p, 3, 20) < 0 && errno != EINTR)
			return 1;
		if (p[0].revents != 0)
			on_supervisor();
		if (p[2].revents != 0)
			on_control();
		if (p[1].revents != 0) {
			if (w.control_fd >= 0)
				close(w.control_fd);
			w.control_fd = accept4(w.listen_fd, NULL, NULL, SOCK_CLOEXEC);
			w.line_len = 0;
		}
		tick();
	}
}
