/* postmaster.pid, read and removed for the supervisor, which proves whose pid it is (DESIGN 1:
 * "Which postmaster is ours"). Run by pgregent-files. Decides nothing: it says what the file says.
 */
#pragma once
#include "common/core/err.h"
#include "common/core/ipc_msgs.h"

/* No such file: ERR_OK with pid 0 and file_id 0. A file without a usable pid (empty, cut off by a
 * full disk): pid 0 with its file_id, so that the supervisor can have it removed once nobody is
 * left. Anything else that keeps the file from being read is an error, never "no such file". */
MUST_USE enum err_code pmpid_read(const char *data_dir, struct msg_pmpid *out, struct err *err);
/* The same of an open file that begins like it: the lock files of Unix sockets. Not a regular file:
 * ERR_INVAL. Nothing but reading is done with fd. */
MUST_USE enum err_code pmpid_read_fd(
	int fd, const char *name, struct msg_pmpid *out, struct err *err);
/* Remove the file only if it still is the one that was read (file_id) and still names that pid.
 * ERR_CONFLICT: it is another file by now. No such file: ERR_OK. The directory is synced, so that
 * the name does not come back. */
MUST_USE enum err_code pmpid_remove(
	const char *data_dir, uint64_t file_id, int32_t pid, struct err *err);
