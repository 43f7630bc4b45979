/* Jobs: bounded child programs in eight static slots. Their output is drained into rings; the last
 * bytes are handed out on request. They are the supervisor's children, so they go on when the
 * worker dies. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/ipc.h"
#include "supervisor/child.h"

enum job_state { JOB_FREE = 0, JOB_RUNNING, JOB_TERM_SENT, JOB_KILL_SENT, JOB_ENDED };

struct job_stream {
	int fd;		/* read end, -1 = closed or not used */
	uint64_t total; /* bytes ever read */
	char ring[LIMIT_JOB_OUTPUT];
	char line[512]; /* for JOB_LOG_OUTPUT: the line so far */
	unsigned line_len;
};

struct job {
	enum job_state state;
	uint64_t id;
	pid_t pid;
	int64_t deadline_ms; /* 0 = none */
	int64_t kill_at_ms;  /* TERM_SENT: when KILL follows */
	uint32_t grace_ms, flags;
	bool cancelled, timed_out;
	struct exit_info exit;
	int64_t at_ms; /* of the state */
	char name[32];
	struct job_stream out[2]; /* [0] stdout or both, [1] stderr when kept apart */
};

#define JOB_UPGRADE_CHECK UINT64_MAX /* id of the supervisor's own job */

struct jobs {
	bool idle; /* no slot has a process or an open output: none need be looked at */
	struct job slot[LIMIT_JOBS];
};

struct sup;
void jobs_init(struct jobs *j);
void job_start(struct sup *s, const struct ipc_msg *m);
void job_cancel(struct sup *s, uint64_t id);
void job_forget(struct sup *s, uint64_t id);
void job_output_get(struct sup *s, const struct ipc_msg *m);
/* To a new worker: all that are known. */
void jobs_report(struct sup *s);
void jobs_tick(struct sup *s, int64_t now_ms);
int64_t jobs_next_ms(const struct jobs *j);
unsigned jobs_running(const struct jobs *j);
bool jobs_reaped(struct sup *s, pid_t pid, int status, int64_t now_ms);
/* Read what is there, bounded. */
void job_drain(struct job *j, struct job_stream *st);
/* A program of the supervisor's own, in a job slot (upgrade check). */
bool job_start_own(struct sup *s, uint64_t id, char *const *argv, int64_t deadline_ms);
/* End all: as cancel. */
void jobs_cancel_all(struct sup *s);

/* argv and environment of a message's tail, as pointers into it, over a base environment. Static
 * arrays: valid until the next call. */
struct args {
	char *argv[LIMIT_ARGS + 1];
	char *envp[2 * LIMIT_ARGS + 8];
};
MUST_USE enum err_code args_parse(
	struct args *a, const char *tail, size_t len, char *const *base_env, struct err *err);
