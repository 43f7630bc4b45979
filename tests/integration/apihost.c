/* Plays supervisor, dead-man and worker for one real pgregent-api, so that the API can be tested
 * alone. A test program; commands come as lines on standard input, what api sends goes as lines to
 * standard output. Usage: apihost <pgregent-api> <runtime dir> <data dir> */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/bigtail.h"
#include "common/core/clock.h"
#include "common/core/ipc.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"
#include "common/core/str.h"

#define ANSWERS 20

static struct host {
	pid_t api;
	int sup, worker, deadman; /* our ends */
	struct shm sup_page, worker_page;
	struct {
		int status, content; /* 0 = never */
		long long lsn;
		char *text;
	} answers[ANSWERS];
	int facts_delay_ms;
	struct {
		uint64_t id;
		int64_t at_ms;
	} late[64]; /* facts answers that are due later */
	unsigned facts_asked;
	struct ipc_rx rx;
} host;

static void die(const char *what, const struct err *err)
{
	fprintf(stderr, "apihost: %s: %s\n", what, err != NULL ? err->text : strerror(errno));
	exit(1);
}

static void check(enum err_code rc, const char *what, const struct err *err)
{
	if (rc != ERR_OK)
		die(what, err);
}

static void send_fd(enum msg_type type, const void *payload, int fd)
{
	struct err err = ERR_INIT;
	check(ipc_send(host.sup, type, 0, payload, NULL, 0, &fd, 1, &err), "send", &err);
}

static void send_page(enum ipc_role role, const struct shm *page)
{
	struct msg_page m = { .role = role, .incarnation = 1 };
	send_fd(MSG_PAGE, &m, page->fd);
}

static int connect_peer(enum ipc_role role)
{
	struct err err = ERR_INIT;
	int pair[2];
	check(ipc_pair(pair, &err), "pair", &err);
	struct msg_peer m = { .role = role, .incarnation = 1 };
	send_fd(MSG_PEER, &m, pair[0]);
	close(pair[0]);
	return pair[1];
}

static void start_api(char **argv)
{
	struct err err = ERR_INIT;
	int pair[2];
	check(ipc_pair(pair, &err), "pair", &err);
	host.api = fork();
	if (host.api < 0)
		die("fork", NULL);
	if (host.api == 0) {
		if (dup2(pair[1], 3) < 0)
			_exit(126);
		execl(argv[1], argv[1], (char *)NULL);
		_exit(127);
	}
	close(pair[1]);
	host.sup = pair[0];
	struct msg_welcome w = { .now_ms = clock_boot_ms(), .incarnation = 1 };
	if (!str_copy(w.runtime_dir, sizeof(w.runtime_dir), argv[2]) ||
		!str_copy(w.data_dir, sizeof(w.data_dir), argv[3]) ||
		!str_copy(w.scope, sizeof(w.scope), "demo") ||
		!str_copy(w.name, sizeof(w.name), "n1"))
		die("arguments", NULL);
	check(ipc_send(host.sup, MSG_WELCOME, 0, &w, NULL, 0, NULL, 0, &err), "welcome", &err);
	send_page(ROLE_SUPERVISOR, &host.sup_page);
	send_page(ROLE_WORKER, &host.worker_page);
	host.worker = connect_peer(ROLE_WORKER);
	host.deadman = connect_peer(ROLE_DEADMAN);
}

/* ---- worker -------------------------------------------------------------------------------------
 */

static void answer(uint64_t id, unsigned kind)
{
	struct err err = ERR_INIT;
	struct msg_api_answer a = { .status = (uint32_t)host.answers[kind].status,
		.content = (uint32_t)host.answers[kind].content,
		.lsn = host.answers[kind].lsn };
	const char *text = host.answers[kind].text != NULL ? host.answers[kind].text : "";
	AUTO_FD fd = -1;
	if (host.worker < 0 || host.answers[kind].status == 0)
		return;
	if (strlen(text) > BIGTAIL_FROM) {
		check(bigtail_make(text, strlen(text), &fd, &err), "long answer", &err);
		text = "";
	}
	check(ipc_send(host.worker, MSG_API_ANSWER, id, &a, text, strlen(text), &fd, fd >= 0, &err),
		"answer", &err);
}

static void on_request(const struct ipc_msg *m)
{
	const struct msg_api_req *q = m->payload;
	if (q->kind == API_PG_FACTS) {
		host.facts_asked++;
		if (host.facts_delay_ms == 0) {
			answer(m->id, API_PG_FACTS);
			return;
		}
		for (unsigned i = 0; i < ARRAY_LEN(host.late); i++) {
			if (host.late[i].id == 0) {
				host.late[i].id = m->id;
				host.late[i].at_ms = clock_boot_ms() + host.facts_delay_ms;
				return;
			}
		}
		return;
	}
	printf("req %u %.*s\n", q->kind, (int)m->tail_len, m->tail != NULL ? m->tail : "");
	if (q->kind < ANSWERS)
		answer(m->id, q->kind);
}

/* False: closed. */
static bool on_socket(int fd, enum ipc_role from_role)
{
	for (int i = 0; i < 64; i++) {
		struct err err = ERR_INIT;
		struct ipc_msg m;
		enum err_code rc = ipc_recv(fd, ROLE_API, from_role, &host.rx, &m, &err);
		if (rc == ERR_AGAIN)
			return true;
		if (rc != ERR_OK)
			return false;
		if (m.type == MSG_READY)
			printf("ready\n");
		else if (m.type == MSG_API_REQ)
			on_request(&m);
		else if (m.type == MSG_API_STATE)
			printf("state %u %s\n",
				((const struct msg_api_state *)m.payload)->listening,
				((const struct msg_api_state *)m.payload)->text);
	}
	return true;
}

/* ---- commands -----------------------------------------------------------------------------------
 */

static int64_t value_of(const char *text)
{
	int64_t v = 0;
	bool relative = text[0] == '+';
	if (!str_to_i64(text + relative, &v))
		die(text, NULL);
	return relative ? clock_boot_ms() + v : v;
}

static void new_page(void)
{
	struct err err = ERR_INIT;
	shm_done(&host.worker_page);
	host.worker_page = (struct shm)SHM_INIT;
	check(shm_create(&host.worker_page, "worker", DOC_WORKER_COUNT, LIMIT_SHM_DOC, &err),
		"page", &err);
}

static char *word(char **rest)
{
	char *w = *rest;
	char *blank = strchr(w, ' ');
	if (blank != NULL)
		*blank++ = '\0';
	*rest = blank != NULL ? blank : w + strlen(w);
	return w;
}

static void set_answer(char *rest)
{
	unsigned kind = (unsigned)value_of(word(&rest));
	if (kind >= ANSWERS)
		die("kind", NULL);
	host.answers[kind].status = (int)value_of(word(&rest));
	host.answers[kind].content = (int)value_of(word(&rest));
	host.answers[kind].lsn = value_of(word(&rest));
	free(host.answers[kind].text);
	host.answers[kind].text = strdup(rest);
}

static void command(char *line)
{
	struct err err = ERR_INIT;
	char *rest = line;
	const char *verb = word(&rest);
	if (strcmp(verb, "set") == 0) {
		unsigned i = (unsigned)value_of(word(&rest));
		shm_scalar_set(&host.worker_page, i, value_of(rest));
	} else if (strcmp(verb, "sup") == 0) {
		unsigned i = (unsigned)value_of(word(&rest));
		shm_scalar_set(&host.sup_page, i, value_of(rest));
	} else if (strcmp(verb, "doc") == 0) {
		unsigned i = (unsigned)value_of(word(&rest));
		check(shm_doc_write(
			      &host.worker_page, i, rest, strlen(rest), clock_boot_ms(), &err),
			"doc", &err);
	} else if (strcmp(verb, "settings") == 0) {
		struct msg_api_settings s = { .serial = 1 };
		check(ipc_send(host.worker, MSG_API_SETTINGS, 0, &s, rest, strlen(rest), NULL, 0,
			      &err),
			"settings", &err);
	} else if (strcmp(verb, "answer") == 0) {
		set_answer(rest);
	} else if (strcmp(verb, "facts-delay") == 0) {
		host.facts_delay_ms = (int)value_of(rest);
	} else if (strcmp(verb, "facts-asked") == 0) {
		printf("facts-asked %u\n", host.facts_asked);
	} else if (strcmp(verb, "worker-gone") == 0) {
		close(host.worker);
		host.worker = -1;
	} else if (strcmp(verb, "worker-new") == 0) {
		host.worker = connect_peer(ROLE_WORKER);
	} else if (strcmp(verb, "page-new") == 0) {
		new_page();
		send_page(ROLE_WORKER, &host.worker_page);
	} else if (strcmp(verb, "deadman-gone") == 0) {
		close(host.deadman);
		host.deadman = -1;
	} else if (strcmp(verb, "supervisor-gone") == 0) {
		close(host.sup);
		host.sup = -1;
	} else if (strcmp(verb, "order-end") == 0) {
		struct msg_order o = { .kind = ORDER_SHUTDOWN };
		check(ipc_send(host.sup, MSG_ORDER, 0, &o, NULL, 0, NULL, 0, &err), "order", &err);
	} else {
		die(verb, NULL);
	}
	printf("ok\n");
}

/* False: end of input. */
static bool read_commands(void)
{
	static char text[2 * 1024 * 1024];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, text + len, sizeof(text) - len - 1);
	if (n <= 0)
		return false;
	len += (size_t)n;
	char *end;
	while ((end = memchr(text, '\n', len)) != NULL) {
		*end = '\0';
		command(text);
		len -= (size_t)(end + 1 - text);
		memmove(text, end + 1, len);
	}
	return len < sizeof(text) - 1;
}

static int late_answers(void)
{
	int64_t now_ms = clock_boot_ms(), next_ms = now_ms + 200;
	for (unsigned i = 0; i < ARRAY_LEN(host.late); i++) {
		if (host.late[i].id == 0)
			continue;
		if (host.late[i].at_ms <= now_ms) {
			answer(host.late[i].id, API_PG_FACTS);
			host.late[i].id = 0;
		} else if (host.late[i].at_ms < next_ms) {
			next_ms = host.late[i].at_ms;
		}
	}
	return (int)(next_ms - now_ms);
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	if (argc != 4) {
		fprintf(stderr, "usage: apihost <pgregent-api> <runtime dir> <data dir>\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	host.sup_page = host.worker_page = (struct shm)SHM_INIT;
	check(shm_create(&host.sup_page, "supervisor", 0, 0, &err), "page", &err);
	new_page();
	start_api(argv);
	bool input = true;
	while (input) {
		struct pollfd p[3] = { { STDIN_FILENO, POLLIN, 0 }, { host.sup, POLLIN, 0 },
			{ host.worker, POLLIN, 0 } };
		if (poll(p, 3, late_answers()) < 0 && errno != EINTR)
			die("poll", NULL);
		if (p[1].revents != 0 && host.sup >= 0 && !on_socket(host.sup, ROLE_SUPERVISOR)) {
			close(host.sup);
			host.sup = -1;
		}
		if (p[2].revents != 0 && host.worker >= 0 && !on_socket(host.worker, ROLE_WORKER)) {
			close(host.worker);
			host.worker = -1;
		}
		int status;
		if (host.api > 0 && waitpid(host.api, &status, WNOHANG) == host.api) {
			printf("exit %d\n",
				WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
			host.api = 0;
		}
		if (p[0].revents != 0)
			input = read_commands();
	}
	if (host.api > 0) {
		kill(host.api, SIGTERM);
		waitpid(host.api, NULL, 0);
	}
	return 0;
}
