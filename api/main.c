/* pgregent-api: the REST API over TCP, TLS and the local Unix socket (DESIGN 1, 6). Answers from
 * the shared pages, hands commands to the worker. Holds no credentials of store or database and
 * never waits before it answers a role or lease question. Descriptor 3 is the supervisor. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "api/link.h"
#include "common/core/last_fence.h"
#include "common/core/log.h"

static struct process {
	struct api api;
	struct link link;
	int signal_fd;
} process;

static void on_signal(struct loop *l, int fd, short revents, void *arg)
{
	struct signalfd_siginfo info;
	(void)l;
	(void)revents;
	(void)arg;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			link_signal(&process.link);
	}
}

static void after_turn(struct loop *l, void *arg)
{
	(void)l;
	(void)arg;
	facts_flush(&process.api);
	http_after_turn(&process.api.http);
}

static enum err_code setup_signals(struct err *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return err_set(err, ERR_SYS, errno, "sigprocmask");
	signal(SIGPIPE, SIG_IGN);
	process.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (process.signal_fd < 0)
		return err_set(err, ERR_SYS, errno, "signalfd");
	return loop_fd_set(&process.api.loop, process.signal_fd, POLLIN, on_signal, NULL, err);
}

static enum err_code setup(struct err *err)
{
	struct api *a = &process.api;
	umask(0077);
	loop_init(&a->loop, NULL, NULL);
	a->loop.after_turn = after_turn;
	a->worker_fd = -1;
	view_init(&a->view);
	names_init(&a->names, &a->loop);
	http_init(&a->http, a);
	ports_init(&a->ports, a);
	enum err_code rc = setup_signals(err);
	return rc == ERR_OK ? link_open(&process.link, a, err) : rc;
}

static void teardown(void)
{
	struct api *a = &process.api;
	http_done(&a->http);
	ports_done(&a->ports);
	names_done(&a->names);
	view_done(&a->view);
	settings_free(&a->settings);
	loop_done(&a->loop);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("pgregent-api %s\n", PGREGENT_VERSION);
		return 0;
	}
	struct stat st;
	if (argc != 1 || fstat(LINK_SUP_FD, &st) < 0 || !S_ISSOCK(st.st_mode)) {
		fprintf(stderr,
			"pgregent-api is started by pgregent, with its socket as descriptor %d\n",
			LINK_SUP_FD);
		return 2;
	}
	log_open("api: ", STDERR_FILENO, LOG_INFO);
	struct err err = ERR_INIT;
	enum err_code rc = setup(&err);
	if (rc == ERR_OK)
		rc = loop_run(&process.api.loop, &err);
	if (rc != ERR_OK)
		log_fatal("%s", err.text);
	teardown(); /* the ports are the next one's */
	if (process.link.fence && last_fence_due())
		last_fence_run(NULL);
	return rc == ERR_OK ? 0 : 1;
}
