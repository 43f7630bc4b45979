/* pgregent, the supervisor: forks, reaps, signals, counts the lease down and kills (DESIGN 1).
 * Until the loop it may exit on any error; inside it never while PostgreSQL runs. It has no
 * network, no JSON, no YAML, no libpq. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/invariant.h"
#include "common/core/killtree.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/sup.h"

static struct sup sup;
static struct killtree scratch;

/* A broken invariant ends this process; PostgreSQL must not outlive our ability to fence it. */
static void fence_and_die(void)
{
	struct killtree_report report;
	struct killtree_target t = { .root = sup.pm.pid,
		.root_pidfd = sup.pm.pidfd,
		.uid = sup.privs.uid,
		.gid = sup.privs.gid,
		.as_user = sup.privs.root,
		.life_dev = sup.life_dev,
		.life_ino = sup.life_ino };
	if (sup.pm.pid != 0)
		killtree_run(&scratch, &t, false, &report);
}

static enum err_code open_signals(struct sup *s, struct err *err)
{
	static const int taken[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD };
	static const int ignored[] = { SIGPIPE, SIGUSR1, SIGUSR2 };
	sigset_t set, all;
	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_LEN(taken); i++)
		sigaddset(&set, taken[i]);
	struct sigaction ign = { .sa_handler = SIG_IGN };
	for (unsigned i = 0; i < ARRAY_LEN(ignored); i++)
		sigaction(ignored[i], &ign, NULL);
	/* SIGCHLD may have been inherited as ignored: then nothing could be reaped. */
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigaction(SIGCHLD, &dfl, NULL);
	/* A broken program must still be able to die of its own fault; all else waits in the
	 * descriptor. */
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS,
		SIGALRM };
	sigfillset(&all);
	for (unsigned i = 0; i < ARRAY_LEN(faults); i++)
		sigdelset(&all, faults[i]);
	if (sigprocmask(SIG_SETMASK, &all, NULL) < 0)
		return err_set(err, ERR_SYS, errno, "sigprocmask");
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? err_set(err, ERR_SYS, errno, "signalfd") : ERR_OK;
}

/* 0, 1 and 2 must exist, or the first descriptor that we open becomes somebody's standard output.
 */
static enum err_code open_standard(struct err *err)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "open /dev/null");
	close(fd);
	return ERR_OK;
}

static enum err_code open_own(struct sup *s, struct err *err)
{
	s->timer_fd = clock_timerfd_new();
	s->wall_fd = clock_wall_set_fd_new();
	if (s->timer_fd < 0 || s->wall_fd < 0)
		return err_set(err, ERR_SYS, errno, "timerfd");
	enum err_code rc = shm_create(&s->page, "pgregent-supervisor", 0, 0, err);
	if (rc != ERR_OK)
		return rc;
	shm_scalar_set(&s->page, SUP_PID, getpid());
	s->pages[PAGE_SUPERVISOR] =
		(struct page){ .role = ROLE_SUPERVISOR, .incarnation = 1, .fd = s->page.fd };
	s->pages[PAGE_WORKER].fd = s->pages[PAGE_API].fd = s->log_fd = -1;
	return ERR_OK;
}

static void init(struct sup *s)
{
	s->now_ms = s->started_ms = clock_boot_ms();
	guard_init(&s->guard, GUARD_SUPERVISOR, s->now_ms);
	helpers_init(s);
	deadlink_init(&s->dm);
	postmaster_init(&s->pm);
	fence_init(&s->pm.fence, &scratch);
	s->scratch = &scratch;
	jobs_init(&s->jobs);
	watchdog_init(&s->watchdog);
	invariant_hook = fence_and_die;
}

/* Everything that may fail, in the order in which one needs the other. Returns the exit status, 0 =
 * go on. */
static int prepare(struct sup *s, struct err *err)
{
	int status = 1;
	/* While it takes over, the successor of an upgrade can still go back to the program before
	 * it. */
	handover_guard_start(s->argv);
	if (open_standard(err) != ERR_OK || launch_find_programs(&s->launch, err) != ERR_OK)
		return status;
	if (privs_lookup(&s->privs, s->launch.user, err) != ERR_OK ||
		privs_require(&s->privs, err) != ERR_OK)
		return status;
	if (launch_environment(&s->launch, &s->privs, err) != ERR_OK)
		return status;
	if (open_signals(s, err) != ERR_OK)
		return status;
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) {
		err_set(err, ERR_SYS, errno, "subreaper");
		return status;
	}
	if (launch_instance(&s->launch, &s->privs, handover_instance(), &status, err) != ERR_OK)
		return status;
	status = 1;
	if (launch_runtime_dir(&s->launch, &s->privs, err) != ERR_OK || open_own(s, err) != ERR_OK)
		return status;
	if (handover_lock(s, err) != ERR_OK)
		return status;
	/* With the start's capabilities: the dead-man's socket belongs to the user that it runs as.
	 */
	handover_inherit(s);
	if (privs_keep(&s->privs, err) != ERR_OK)
		return status;
	privs_harden(&s->privs, handover_oom_saved());
	return 0;
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	char worker[LIMIT_PATH];
	enum launch_mode mode = launch_args(&sup.launch, argc, argv, &err);
	if (mode == LAUNCH_USAGE) {
		fprintf(stderr, "pgregent: %s\n", err.text);
		return 2;
	}
	if (mode == LAUNCH_EXEC_WORKER) {
		if (launch_find_programs(&sup.launch, &err) == ERR_OK &&
			launch_program(&sup.launch, "worker", worker, sizeof(worker))) {
			argv[0] = worker;
			execv(worker, argv);
			err_set(&err, ERR_SYS, errno, "%s", worker);
		}
		fprintf(stderr, "pgregent: %s\n", err.text);
		return 1;
	}
	if (sup.launch.upgrade_check)
		return handover_check_say();
	log_open("supervisor: ", 2, LOG_INFO);
	sup.argv = argv;
	init(&sup);
	int status = prepare(&sup, &err);
	if (status != 0) {
		log_fatal("%s", err.text);
		handover_roll_back();
		return status;
	}
	notify_open(&sup.notify, sup.launch.notify_socket);
	handover_guard_end();
	log_info("supervisor of %s.%s pid=%d data_dir=%s runtime_dir=%s", sup.launch.scope,
		sup.launch.name, getpid(), sup.launch.data_dir, sup.launch.runtime_dir);
	status = sup_loop(&sup);
	log_info("supervisor ended status=%d", status);
	return status;
}
