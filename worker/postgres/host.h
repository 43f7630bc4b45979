/* What the rest of the machine does for the worker: the supervisor starts, stops and signals
 * PostgreSQL and runs jobs; pgregent-files touches the data directory. Requests with exactly one
 * answer each, bounded by deadlines; the sequences of worker/postgres (start, stop, clone, ...) are
 * written on top of it. Nothing here decides. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/buf.h"
#include "common/core/ipc.h"
#include "common/core/loop.h"

#define HOST_REQUESTS_MAX 64

struct host;
/* The one answer of a request. Borrowed during the callback. */
struct host_reply {
	enum answer_code code; /* OK: done (a job: it ended with status 0) */
	const char *text;      /* why not; a job's output tail */
	int64_t value;	       /* files: value of the answer */
	int sys_errno;	       /* files */
	const char
		*data; /* files: tail of the answer; a job: its standard output when kept apart */
	size_t data_len;
	/* jobs */
	enum exit_class exit_class;
	int exit_code;
	bool cancelled, timed_out;
};
typedef void (*host_fn)(struct host *h, const struct host_reply *r, void *arg);

struct host_request {
	uint64_t id; /* 0 = free */
	enum msg_type type;
	host_fn fn;
	void *arg;
	struct loop_timer timer;
	struct host *host;
	struct buf data; /* continued answers of files; output of a job */
	struct buf out2;
	struct host_reply end;	      /* of a job that waits for its output */
	struct msg_job_event adopted; /* the last event of a job that was taken over */
	bool job_ended;
	uint32_t job_flags;
	unsigned outputs_due;
};

/* A job of an earlier worker, as the supervisor reports it. */
struct host_orphan {
	uint64_t id; /* 0 = free */
	bool ended;
	struct msg_job_event event;
};

struct host {
	struct loop *loop;
	int sup_fd, files_fd; /* -1 = not connected */
	uint64_t next_id;
	struct host_request requests[HOST_REQUESTS_MAX];
	struct host_orphan orphans[LIMIT_JOBS];
	struct msg_welcome welcome;
	struct msg_pg_event pg; /* last state of the postmaster */
	struct msg_watchdog_state watchdog;
	/* Called after h->pg changed. */
	void (*on_pg)(struct host *h, void *arg);
	void *on_pg_arg;
	const char *const
		*job_env; /* NULL-terminated "K=V" for jobs: PATH, HOME, LANG and the like */
};

void host_init(struct host *h, struct loop *loop);
void host_done(struct host *h);
/* New or lost connections; requests under way on a lost one are answered FAILED. */
void host_set_supervisor(struct host *h, int fd);
void host_set_files(struct host *h, int fd); /* -1 = gone; the fd is owned and watched here */
/* A message that came from the supervisor; false: not one of ours (the caller handles it). */
bool host_message(struct host *h, const struct ipc_msg *m);

/* One argv and environment for a process; zero-terminated strings in a buffer. */
struct host_cmd {
	struct buf argv, env;
	unsigned argc;
};
#define HOST_CMD_INIT                                                                              \
	{                                                                                          \
		.argv = BUF_INIT(LIMIT_IPC_FRAME), .env = BUF_INIT(LIMIT_IPC_FRAME)                \
	}
void host_cmd_arg(struct host_cmd *c, const char *arg);
void host_cmd_argf(struct host_cmd *c, const char *fmt, ...) PRINTF(2, 3);
/* The words of a, which is empty afterwards. */
struct argv;
void host_cmd_take(struct host_cmd *c, struct argv *a);
void host_cmd_env(struct host_cmd *c, const char *key, const char *value);
void host_cmd_done(struct host_cmd *c);

/* Every request: id of it (never 0), or 0 when it could not be sent; then fn is called with FAILED
 * from the loop. */
uint64_t host_pg_start(struct host *h, enum pg_start_kind kind, int64_t lease_until_ms,
	uint32_t umask_bits, const struct host_cmd *cmd, int64_t deadline_ms, host_fn fn,
	void *arg);
uint64_t host_pg_stop(
	struct host *h, enum pg_stop_mode mode, int64_t timeout_ms, host_fn fn, void *arg);
uint64_t host_pg_signal(struct host *h, int signo, int64_t lease_until_ms, host_fn fn, void *arg);
uint64_t host_pg_promote(
	struct host *h, int64_t lease_until_ms, int64_t deadline_ms, host_fn fn, void *arg);
/* Execute the supervisor's program anew, as it is on disk now. An answer OK is the last word of the
 * old one. */
uint64_t host_upgrade(struct host *h, host_fn fn, void *arg);
/* Answered when the job ended. timeout_ms 0 = no limit. cwd NULL = as ours. */
uint64_t host_job(struct host *h, const char *name, const struct host_cmd *cmd, const char *cwd,
	uint32_t flags, int64_t timeout_ms, uint32_t grace_ms, host_fn fn, void *arg);
void host_job_cancel(struct host *h, uint64_t job);
/* Wait for a job that an earlier worker began, under this name: running, or ended well with nobody
 * to hear of it. 0 = there is none. It has no time limit any more. */
bool host_job_there(const struct host *h, const char *name); /* would be adopted */
uint64_t host_job_adopt(struct host *h, const char *name, host_fn fn, void *arg);
/* A running job of an earlier worker that works on the data directory and was not adopted. NULL =
 * none; else its name. */
const char *host_orphan_peek(const struct host *h);
/* See worker/files/files_msgs.h for ops and tails. */
uint64_t host_files(struct host *h, uint32_t op, uint32_t mode, int64_t offset, int64_t max_bytes,
	uint64_t op_arg, const void *tail, size_t tail_len, int64_t timeout_ms, host_fn fn,
	void *arg);
/* Forget the callback of a request under way (its effect may still happen). */
void host_forget(struct host *h, uint64_t id);
