/* The operations of files_msgs.h: arguments checked, carried out, answered. Run by pgregent-files.
 * No descriptors of its own but for the duration of a call; the connection is peer.c's. */
#pragma once
#include "common/core/buf.h"
#include "common/core/err.h"
#include "common/core/ipc_msgs.h"
#include "worker/files/datadir.h"
#include "worker/files/files_msgs.h"
#include "worker/files/fs.h"

/* Everything that lives from one request to the next; owned by the process struct. */
struct ops {
	struct fs fs;
	struct slow slow;
	bool slow_unanswered;	     /* the caller clears it when it has told the result */
	char write_path[LIMIT_PATH]; /* content that arrives in pieces */
	struct buf write_bytes;
};

struct ops_answer {
	int64_t value;
	struct buf data;
	bool later; /* a slow operation has begun: ops_slow_slice ends it */
};

void ops_init(struct ops *o, const char *data_dir, mode_t umask);
void ops_done(struct ops *o);
const char *ops_name(uint32_t op); /* "?" when unknown */
/* tail is what the request carried. */
MUST_USE enum err_code ops_run(struct ops *o, const struct msg_files_req *req, const char *tail,
	size_t tail_len, struct ops_answer *out, struct err *err);
/* How an error is told to the worker. */
enum answer_code ops_answer_code(enum err_code rc);
