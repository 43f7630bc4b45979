/* pgregent-worker: talks to the store, to PostgreSQL, to peers; decides; asks the supervisor for
 * process actions and pgregent-files for file actions (DESIGN 1, 4). Must not fork, touch the data
 * directory, or block. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/oneshot.h"
#include "worker/worker.h"

static struct worker worker; /* the process struct */

static void after_turn(struct loop *l, void *arg)
{
	struct worker *w = arg;
	(void)l;
	logfile_check(w);
	if (w->c_fresh && !w->name_checked)
		peers_check_name(w);
	if (w->slots_again && w->probe.facts.valid && !w->probe.pending)
		slots_sync(w);
}

static void on_pg_change(struct pgctx *p, void *arg)
{
	struct worker *w = arg;
	(void)p;
	publish_page(w);
	publish_member(w);
	config_save_cache(w);
}

static enum err_code job_environment(struct worker *w, struct err *err)
{
	/* What an ordinary login of this user has; nothing of ours (DESIGN 3). */
	static const char *const keep[] = { "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG",
		"LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC",
		"LC_TIME", "TZ", "TMPDIR", "PGTZ", "PG_OOM_ADJUST_FILE", "PG_OOM_ADJUST_VALUE",
		"LD_LIBRARY_PATH", "SSL_CERT_FILE", "KRB5_CONFIG", "KRB5_KTNAME" };
	static char text[ARRAY_LEN(keep)][LIMIT_CONNINFO];
	static const char *list[ARRAY_LEN(keep) + 1];
	unsigned n = 0;
	for (unsigned i = 0; i < ARRAY_LEN(keep); i++) {
		const char *v = getenv(keep[i]);
		if (v == NULL)
			continue;
		if (!str_format(text[n], sizeof(text[n]), "%s=%s", keep[i], v))
			return err_set(err, ERR_LIMIT, 0,
				"environment variable %s is longer than %d bytes", keep[i],
				LIMIT_CONNINFO);
		list[n] = text[n];
		n++;
	}
	w->host.job_env = list;
	return ERR_OK;
}

/* The parent-death signal looks like an order to end. It is one only while the supervisor lives:
 * without it the worker is a witness of the dead-man's end (link.c). */
static bool supervisor_alive(const struct worker *w)
{
	return getppid() == w->parent && !ipc_hung_up(w->sup_fd);
}

static void on_signal(struct loop *l, int fd, short revents, void *arg)
{
	(void)l;
	(void)revents;
	struct worker *w = arg;
	struct signalfd_siginfo info;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (supervisor_alive(w))
			_exit(0);
	}
}

static enum err_code open_signals(struct worker *w, struct err *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	w->parent = getppid();
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return err_set(err, ERR_SYS, errno, "sigprocmask");
	signal(SIGPIPE, SIG_IGN);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "signalfd");
	return loop_fd_set(&w->loop, fd, POLLIN, on_signal, w, err);
}

static enum err_code run(struct worker *w, const char *config, struct err *err)
{
	enum err_code rc;
	log_open("", 2, LOG_INFO);
	w->pid = getpid();
	w->logfile.fd = -1;
	rng_seed_random(&w->rng);
	loop_init(&w->loop, http_loop_wait, &w->http);
	w->loop.after_turn = after_turn;
	w->loop.after_arg = w;
	host_init(&w->host, &w->loop);
	if ((rc = open_signals(w, err)) != ERR_OK || (rc = link_hello(w, err)) != ERR_OK)
		return rc;
	if ((rc = http_new(&w->http, &w->loop, err)) != ERR_OK ||
		(rc = job_environment(w, err)) != ERR_OK)
		return rc;
	pgctx_init(&w->pg, &w->host, &w->loop);
	w->pg.on_change = on_pg_change;
	w->pg.on_change_arg = w;
	probe_init(&w->probe, &w->loop, observe_on_probe, w);
	pgc_init(&w->checkpoint_conn, &w->loop, "checkpoint");
	w->pg.probe = &w->probe;
	w->host.on_pg = observe_on_pg;
	w->host.on_pg_arg = w;
	if ((rc = config_start(w, config, err)) != ERR_OK || (rc = publish_start(w, err)) != ERR_OK)
		return rc;
	if ((rc = link_start(w, err)) != ERR_OK || (rc = store_start(w, err)) != ERR_OK)
		return rc;
	keeper_start(w);
	logfile_apply(w);
	log_info("pgregent-worker " PGREGENT_VERSION
		 " incarnation=%llu scope=%s name=%s ttl=%lld loop_wait=%lld",
		(unsigned long long)w->welcome.incarnation, w->welcome.scope, w->welcome.name,
		(long long)w->set.ttl_ms / 1000, (long long)w->set.loop_wait_ms / 1000);
	return loop_run(&w->loop, err);
}

/* -1: this is the daemon. */
static int one_shot(const struct options *o)
{
	switch (o->mode) {
	case MODE_RUN: return -1;
	case MODE_LAUNCH: return oneshot_launch(o->config);
	case MODE_VALIDATE: return oneshot_validate(o);
	case MODE_GENERATE_SAMPLE:
	case MODE_GENERATE: return oneshot_generate(o);
	case MODE_VERSION: return printf("pgregent %s\n", PGREGENT_VERSION) < 0;
	case MODE_HELP: return fputs(options_usage, stdout) < 0;
	}
	return 2;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	struct options options;
	if (options_parse(&options, argc, argv, &err) != ERR_OK) {
		fprintf(stderr, "%s\npgregent: error: %s\n", options_usage, err.text);
		return 2;
	}
	int status = one_shot(&options);
	if (status >= 0)
		return status;
	if (run(&worker, options.config, &err) != ERR_OK) {
		log_fatal("%s", err.text);
		/* A configuration that cannot work is the end of the agent, not a reason to try
		 * again for ever. */
		struct msg_shutdown_done m = { .leave_postgres = 1, .exit_code = 1 };
		link_send(&worker, MSG_SHUTDOWN_DONE, 0, &m, NULL, 0, NULL, 0);
		return 1;
	}
	return worker.exit_code;
}
