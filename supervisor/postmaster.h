/* The postmaster: start behind a gate, stop modes and their bounds, adoption, end. Its state is
 * guard.pm_state; here is what the state machine does not need to know. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/ipc.h"
#include "supervisor/child.h"
#include "supervisor/fence.h"

/* A start goes through these, each at most until the request's deadline. */
enum start_stage {
	START_IDLE = 0,
	START_READ_PID,	  /* files was asked for postmaster.pid */
	START_REMOVE_PID, /* a stale one is being removed */
	START_END_FILES,  /* a promotion of the last generation: files must be gone before */
	START_GATE,	  /* forked; the dead-man has not acknowledged yet */
};

struct start_request {
	enum start_stage stage;
	uint64_t id;
	uint64_t incarnation; /* of the worker that asked */
	uint64_t hold_seq;
	struct msg_pg_start q;
	size_t tail_len;
	char tail[LIMIT_IPC_FRAME];
};

struct postmaster {
	uint64_t generation;		    /* of the present one, else of the last */
	pid_t pid;			    /* 0 = none */
	int pidfd, gate_fd, line_r, line_w; /* -1 = none */
	bool is_child;
	bool foreign; /* somebody else started it: it holds neither life file nor lifeline */
	int64_t started_at_ms;
	uint32_t stop_mode; /* enum pg_stop_mode, 0 = none */
	int64_t stop_timeout_ms;
	int64_t harder_at_ms;  /* next mode; 0 = never */
	struct exit_info exit; /* of the last one */
	bool known;	       /* postmaster.pid was judged at least once: "none" is a proof */
	bool unproven;
	char text[120];
	uint64_t ask_id;   /* of the last MSG_PMPID_READ or _REMOVE */
	ino_t asked_ino;   /* the directory that was locked when it was asked */
	int64_t ask_at_ms; /* next question while there is none */
	struct start_request start;
	struct fence fence;
	struct msg_pg_event told; /* last event sent */
	bool told_once;
	uint64_t fences;
};

struct sup;
struct guard_actions;
void postmaster_init(struct postmaster *pm);
/* Messages of the worker and of files. */
void postmaster_start(struct sup *s, const struct ipc_msg *m);
void postmaster_stop(struct sup *s, const struct ipc_msg *m);
void postmaster_signal(struct sup *s, const struct ipc_msg *m);
void postmaster_pmpid(struct sup *s, struct ipc_msg *m);
void postmaster_files_answer(struct sup *s, const struct ipc_msg *m);
/* Stop it ourselves. */
void postmaster_stop_self(struct sup *s, uint32_t mode, int64_t timeout_ms, const char *why);
/* What guard_step wants. */
void postmaster_begin_fence(struct sup *s, bool fence, const char *why);
void postmaster_level(struct sup *s, const struct guard_actions *a);
/* Its descriptors are closed: it has ended, or never began. */
void postmaster_forget(struct postmaster *pm);
/* It goes on without us. */
void postmaster_release(struct sup *s);
/* Events of the loop. */
bool postmaster_reaped(struct sup *s, pid_t pid, int status);
void postmaster_pidfd_ready(struct sup *s);
void postmaster_tick(struct sup *s, int64_t now_ms);
int64_t postmaster_next_ms(const struct sup *s);
/* MSG_PG_EVENT when something changed; always = to a new worker. */
void postmaster_tell(struct sup *s, bool always);
