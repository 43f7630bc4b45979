/* The process struct of the supervisor, and what its modules call of each other. One instance, in
 * main.c. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/ipc.h"
#include "common/core/limits.h"
#include "common/core/shm.h"
#include "common/core/shm_layout.h"
#include "supervisor/child.h"
#include "supervisor/deadlink.h"
#include "supervisor/guard.h"
#include "supervisor/handover.h"
#include "supervisor/job.h"
#include "supervisor/launch.h"
#include "supervisor/notify.h"
#include "supervisor/postmaster.h"
#include "supervisor/privs.h"
#include "supervisor/watchdog.h"

enum page_index { PAGE_SUPERVISOR, PAGE_WORKER, PAGE_API, PAGE_COUNT };

/* The last shared page of each writer; we only hand it on. */
struct page {
	enum ipc_role role;
	uint64_t incarnation;
	int fd; /* -1 = none yet */
};

/* Answers that may leave only when the dead-man has acknowledged the state they rest on. */
#define HOLD_MAX 16
struct hold {
	uint64_t seq;	      /* 0 = free */
	uint64_t id;	      /* of the request */
	uint64_t incarnation; /* of the worker that asked */
	uint64_t generation;  /* of the promotion that waits; 0 = a report of the lease */
	enum msg_type type;   /* MSG_LEASE_ACK, or MSG_ANSWER */
	struct msg_lease_ack ack;
	int64_t deadline_ms;
};

/* How we end. Every phase has a bound; the fence goes on in all of them. */
enum end_phase {
	END_NO = 0,
	END_ORDERED,  /* the worker was told; it stops PostgreSQL */
	END_POSTGRES, /* the worker is done, or gave up: PostgreSQL is stopped by us if it still
			 runs */
	END_HELPERS,  /* helpers and jobs get SIGTERM, later SIGKILL */
	END_DEADMAN,  /* it leaves last */
	END_DONE,
};
struct end {
	enum end_phase phase;
	bool leave_postgres;
	int exit_code;
	int64_t progress_ms;	  /* last sign that the worker is at it */
	int64_t until_ms;	  /* of END_POSTGRES and END_HELPERS */
	uint64_t worker_restarts; /* at the order */
};

struct sup {
	int64_t now_ms; /* of this loop turn */
	struct launch launch;
	struct privs privs;
	struct guard guard;
	struct guard_actions want; /* of the last guard_step */
	struct helper helpers[HELPER_COUNT];
	int64_t told_ttl_ms; /* that the helpers know */
	struct deadlink dm;
	struct postmaster pm;
	struct jobs jobs;
	struct watchdog watchdog;
	int64_t watchdog_again_ms; /* a device that could not be opened: not before this */
	struct notify notify;
	struct shm page;
	struct page pages[PAGE_COUNT];
	int log_fd; /* of the log file's writer, held by the log; -1 = none */
	struct hold holds[HOLD_MAX];
	struct end end;
	struct ipc_rx rx;
	int signal_fd, timer_fd, wall_fd;
	int64_t timer_at_ms; /* what timer_fd is set to; 0 = it has fired */
	int lock_fd, data_lock_fd, worker_lock_fd;
	int life_fd, life_dm_fd; /* two open file descriptions of it: ours, and the dead-man's */
	dev_t data_dev;		 /* the directory that data_lock_fd holds */
	ino_t data_ino;
	dev_t life_dev;
	ino_t life_ino;
	char **argv; /* as we were started, for an upgrade in place */
	struct killtree *scratch;
	bool inherited;
	int64_t started_ms; /* this program */
	bool reap_more;	    /* waitpid had more than one turn takes */
	struct upgrade {
		char path[LIMIT_PATH];
		uint64_t id;	  /* of the request */
		int64_t until_ms; /* after that it is given up */
		bool checked;	  /* waits for a moment at which nothing is lost */
	} upgrade;
};

/* dispatch: one guard event and everything it wants done. */
struct guard_actions sup_guard(struct sup *s, struct guard_event ev);
/* dispatch: all messages waiting on a helper's socket. */
void sup_receive(struct sup *s, struct helper *h);
/* dispatch: held answers whose state is acknowledged now, or whose time is up. */
void sup_holds_tick(struct sup *s, int64_t now_ms);
int64_t sup_holds_next_ms(const struct sup *s);
/* child: that process is ourselves, our parent, or one that we started. */
bool sup_is_related(const struct sup *s, pid_t pid);
/* status page */
void sup_publish(struct sup *s);
/* loop: until the process may end; returns the exit status. */
int sup_loop(struct sup *s);
