/* The operations of files_msgs.h. See ops.h. */
#include "worker/files/ops.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/ipc.h"
#include "common/core/str.h"
#include "worker/files/mark.h"
#include "worker/files/pgdir.h"
#include "worker/files/probe.h"
#include "worker/files/socklock.h"

struct args {
	const struct msg_files_req *req;
	const char *str[2]; /* leading strings; those that are not there are NULL */
	const char *rest;   /* what follows them */
	size_t rest_len;
};

typedef enum err_code (*op_fn)(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err);

/* First string of a request as an absolute path. */
static enum err_code path_of(const struct ops *o, const struct args *a, int i,
	char out[static LIMIT_PATH], struct err *err)
{
	return fs_path(&o->fs, a->str[i], out, err);
}

static enum err_code op_probe(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	(void)a;
	(void)err;
	struct pg_files p;
	probe_read(&o->fs, &p);
	buf_add(&out->data, &p, sizeof(p));
	return ERR_OK;
}

static enum err_code op_check_data_dir(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	(void)a;
	return probe_check_dir(&o->fs, &out->value, err);
}

static enum err_code op_read(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc != ERR_OK)
		return rc;
	int64_t max = a->req->max_bytes != 0 ? a->req->max_bytes : FILES_READ_MAX;
	if (max < 0 || max > FILES_READ_MAX || a->req->offset < 0)
		return err_set(err, ERR_INVAL, EINVAL,
			"read of %" PRId64 " bytes at %" PRId64 ", limit %d", max, a->req->offset,
			FILES_READ_MAX);
	rc = fs_read(path, a->req->offset, (size_t)max, &out->data, &out->value, err);
	if (rc == ERR_OK && (a->req->arg & FILES_F_PARTIAL) == 0 &&
		out->value - a->req->offset > max)
		return err_set(err, ERR_LIMIT, EFBIG, "%s has %" PRId64 " bytes, limit %" PRId64,
			path, out->value, max);
	return rc;
}

static enum err_code op_write_atomic(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc != ERR_OK)
		return rc;
	if (a->req->offset == 0) {
		buf_reset(&o->write_bytes);
		if (!str_copy(o->write_path, sizeof(o->write_path), path))
			return err_set(
				err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	} else if (strcmp(o->write_path, path) != 0 ||
		   a->req->offset != (int64_t)o->write_bytes.len) {
		return err_set(err, ERR_STATE, 0,
			"%s: a piece at %" PRId64 " of content that is not held", path,
			a->req->offset);
	}
	buf_add(&o->write_bytes, a->rest, a->rest_len);
	if (o->write_bytes.failed)
		return err_set(
			err, ERR_LIMIT, EFBIG, "%s: content over %d bytes", path, FILES_WRITE_MAX);
	out->value = (int64_t)o->write_bytes.len;
	if (a->req->arg & FILES_F_MORE)
		return ERR_OK;
	const char *bytes = buf_str(&o->write_bytes);
	size_t len = o->write_bytes.len;
	out->value =
		!((a->req->arg & FILES_F_IF_CHANGED) && fs_same(path, bytes, len, a->req->mode));
	rc = out->value ? fs_write(&o->fs, path, bytes, len, a->req->mode, err) : ERR_OK;
	o->write_path[0] = '\0';
	buf_done(&o->write_bytes);
	return rc;
}

static enum err_code op_append(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	AUTO(buf) content = BUF_INIT(FILES_WRITE_MAX);
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc == ERR_OK)
		rc = fs_read(path, 0, FILES_WRITE_MAX + 1, &content, NULL, err);
	if (rc != ERR_OK && rc != ERR_NOTFOUND)
		return rc;
	buf_add(&content, a->rest, a->rest_len);
	if (content.failed)
		return err_set(
			err, ERR_LIMIT, EFBIG, "%s: content over %d bytes", path, FILES_WRITE_MAX);
	out->value = (int64_t)content.len;
	return fs_write(&o->fs, path, buf_str(&content), content.len, a->req->mode, err);
}

static enum err_code op_create_empty(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc != ERR_OK)
		return rc;
	struct stat st;
	out->value = stat(path, &st) < 0;
	if (out->value == 0 && st.st_size == 0 && S_ISREG(st.st_mode))
		return ERR_OK;
	return fs_write(&o->fs, path, "", 0, a->req->mode, err);
}

static enum err_code op_remove(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc != ERR_OK)
		return rc;
	if (unlink(path) < 0)
		return errno == ENOENT ? ERR_OK : err_set(err, ERR_SYS, errno, "remove %s", path);
	out->value = 1;
	return fs_sync_dir_of(path, err);
}

static enum err_code op_mkdir(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc != ERR_OK)
		return rc;
	if ((a->req->arg & FILES_F_SKIP_EMPTY) && fs_below_data_dir(&o->fs, path) &&
		fs_data_dir_empty(&o->fs))
		return ERR_OK;
	bool made = false;
	rc = fs_mkdir(&o->fs, path, a->req->mode, &made, err);
	out->value = made;
	if (rc == ERR_OK && (a->req->arg & FILES_F_TEST_WRITE))
		rc = fs_test_write(path, err);
	return rc;
}

static enum err_code op_rename(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char from[LIMIT_PATH], to[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, from, err);
	if (rc == ERR_OK)
		rc = path_of(o, a, 1, to, err);
	if (rc != ERR_OK)
		return rc;
	unsigned flags = (a->req->arg & FILES_F_IF_ABSENT) ? RENAME_NOREPLACE : 0;
	int n = renameat2(AT_FDCWD, from, AT_FDCWD, to, flags);
	if (n < 0 && errno == EINVAL && flags != 0) {
		/* A file system without that flag: nobody else makes files here. */
		if (access(to, F_OK) == 0)
			return ERR_OK;
		n = rename(from, to);
	}
	if (n < 0 && errno == EEXIST && flags != 0)
		return ERR_OK;
	if (n < 0)
		return err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_SYS, errno,
			"rename %s to %s", from, to);
	out->value = 1;
	rc = fs_sync_dir_of(to, err);
	return rc == ERR_OK ? fs_sync_dir_of(from, err) : rc;
}

static char entry_letter(const char *dir, const struct dirent *e)
{
	unsigned char type = e->d_type;
	if (type == DT_UNKNOWN) {
		char path[LIMIT_PATH + 300];
		struct stat st;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		type = lstat(path, &st) < 0 ? DT_UNKNOWN : (unsigned char)IFTODT(st.st_mode);
	}
	return type == DT_REG ? 'f' : type == DT_DIR ? 'd' : type == DT_LNK ? 'l' : 'o';
}

static enum err_code op_list(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = path_of(o, a, 0, path, err);
	if (rc != ERR_OK)
		return rc;
	struct dirent **entries;
	int n = scandir(path, &entries, NULL, alphasort);
	if (n < 0)
		return err_set(
			err, errno == ENOENT ? ERR_NOTFOUND : ERR_SYS, errno, "list %s", path);
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
			buf_addf(&out->data, "%c%s", entry_letter(path, entries[i]), name);
			buf_add(&out->data, "", 1);
			out->value++;
		}
		free(entries[i]);
	}
	free(entries);
	return out->value > FILES_LIST_MAX
		       ? err_set(err, ERR_LIMIT, 0, "over %d files in %s", FILES_LIST_MAX, path)
		       : ERR_OK;
}

static enum err_code op_stat(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	for (const char *s = NULL; (s = ipc_tail_next(a->rest, a->rest_len, s)) != NULL;) {
		char path[LIMIT_PATH];
		enum err_code rc = fs_path(&o->fs, s, path, err);
		if (rc != ERR_OK)
			return rc;
		struct stat st;
		struct files_stat row = { 0 };
		if (stat(path, &st) < 0)
			row.sys_errno = errno;
		else
			row = (struct files_stat){ .size = st.st_size,
				.inode = st.st_ino,
				.mode = st.st_mode,
				.mtime_us = (int64_t)st.st_mtim.tv_sec * 1000000 +
					    st.st_mtim.tv_nsec / 1000 };
		buf_add(&out->data, &row, sizeof(row));
		out->value++;
	}
	return ERR_OK;
}

static enum err_code op_history(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	return pgdir_history(&o->fs, a->req->arg, &out->data, &out->value, err);
}

static enum err_code op_slow(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	if (o->slow.kind != SLOW_NONE || o->slow_unanswered)
		return err_set(err, ERR_STATE, EBUSY, "another slow operation runs");
	enum slow_kind kind = a->req->op == FILES_SIZE		    ? SLOW_SIZE
			      : a->req->op == FILES_CLEAR_DIR	    ? SLOW_CLEAR
			      : a->req->op == FILES_REMOVE_DATA_DIR ? SLOW_REMOVE
								    : SLOW_SET_ASIDE;
	enum err_code rc =
		slow_start(&o->slow, kind, &o->fs, a->str[0] != NULL ? a->str[0] : "", err);
	out->later = o->slow_unanswered = rc == ERR_OK;
	return rc;
}

static enum err_code op_backup(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	return pgdir_backup_configs(&o->fs, a->str[0], a->rest, a->rest_len, &out->value, err);
}

static enum err_code op_restore(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	return pgdir_restore_configs(&o->fs, a->str[0], a->rest, a->rest_len, &out->value, err);
}

static enum err_code op_auto_conf(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	return pgdir_clean_auto_conf(&o->fs, a->rest, a->rest_len, &out->value, err);
}

static enum err_code op_slot(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	(void)out;
	return pgdir_write_slot(&o->fs, a->str[0], a->rest, a->rest_len, err);
}

static enum err_code op_archive_list(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	unsigned max = a->req->arg == 0 || a->req->arg > FILES_ARCHIVE_MAX ? FILES_ARCHIVE_MAX
									   : (unsigned)a->req->arg;
	return pgdir_archive_list(&o->fs, max, &out->data, &out->value, err);
}

static enum err_code op_archive_done(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	(void)out;
	return pgdir_archive_done(&o->fs, a->str[0], err);
}

static enum err_code op_mark(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	(void)out;
	return mark_set(&o->fs, a->req->arg, err);
}

static enum err_code op_socket_locks(
	struct ops *o, const struct args *a, struct ops_answer *out, struct err *err)
{
	return socklock_clear(&o->fs, a->req->arg, a->rest, a->rest_len, &out->value, err);
}

/* What a tail looks like: so many leading strings, and whether strings or bytes may follow them. */
enum rest { REST_NONE, REST_STRINGS, REST_BYTES };
static const struct op {
	const char *name;
	op_fn fn;
	unsigned strings;
	enum rest rest;
} table[FILES_OP_COUNT] = {
	[FILES_PROBE] = { "probe", op_probe, 0, REST_NONE },
	[FILES_CHECK_DATA_DIR] = { "check data directory", op_check_data_dir, 0, REST_NONE },
	[FILES_READ] = { "read", op_read, 1, REST_NONE },
	[FILES_WRITE_ATOMIC] = { "write", op_write_atomic, 1, REST_BYTES },
	[FILES_APPEND] = { "append", op_append, 1, REST_BYTES },
	[FILES_CREATE_EMPTY] = { "create", op_create_empty, 1, REST_NONE },
	[FILES_REMOVE] = { "remove", op_remove, 1, REST_NONE },
	[FILES_MKDIR] = { "make directory", op_mkdir, 1, REST_NONE },
	[FILES_RENAME] = { "rename", op_rename, 2, REST_NONE },
	[FILES_LIST] = { "list", op_list, 1, REST_NONE },
	[FILES_STAT] = { "stat", op_stat, 0, REST_STRINGS },
	[FILES_HISTORY] = { "history", op_history, 0, REST_NONE },
	[FILES_SIZE] = { "size", op_slow, 1, REST_NONE },
	[FILES_REMOVE_DATA_DIR] = { "remove data directory", op_slow, 0, REST_NONE },
	[FILES_RENAME_FAILED] = { "set data directory aside", op_slow, 0, REST_NONE },
	[FILES_CLEAR_DIR] = { "clear directory", op_slow, 1, REST_NONE },
	[FILES_BACKUP_CONFIGS] = { "back up configuration", op_backup, 1, REST_STRINGS },
	[FILES_RESTORE_CONFIGS] = { "restore configuration", op_restore, 1, REST_STRINGS },
	[FILES_AUTO_CONF_CLEAN] = { "clean postgresql.auto.conf", op_auto_conf, 0, REST_STRINGS },
	[FILES_REPL_SLOT_WRITE] = { "write slot", op_slot, 1, REST_BYTES },
	[FILES_ARCHIVE_LIST] = { "list archive status", op_archive_list, 0, REST_NONE },
	[FILES_ARCHIVE_DONE] = { "mark archived", op_archive_done, 1, REST_NONE },
	[FILES_MARK] = { "mark data directory", op_mark, 0, REST_NONE },
	[FILES_CLEAR_SOCKET_LOCKS] = { "clear socket lock files", op_socket_locks, 0,
		REST_STRINGS },
};

const char *ops_name(uint32_t op)
{
	return op < FILES_OP_COUNT && table[op].name != NULL ? table[op].name : "?";
}

void ops_init(struct ops *o, const char *data_dir, mode_t umask)
{
	memset(o, 0, sizeof(*o));
	o->fs.umask = umask;
	o->write_bytes = (struct buf)BUF_INIT(FILES_WRITE_MAX);
	if (!str_copy(o->fs.data_dir, sizeof(o->fs.data_dir), data_dir))
		o->fs.data_dir[0] = '\0'; /* cannot be: WELCOME was checked */
}

void ops_done(struct ops *o)
{
	slow_done(&o->slow);
	buf_done(&o->write_bytes);
}

static enum err_code parse(const struct op *op, const struct msg_files_req *req, const char *tail,
	size_t len, struct args *a, struct err *err)
{
	*a = (struct args){ .req = req };
	for (unsigned i = 0; i < op->strings; i++) {
		const char *zero = len > 0 ? memchr(tail, '\0', len) : NULL;
		if (zero == NULL)
			return err_set(err, ERR_INVAL, EINVAL, "%s: a string is missing", op->name);
		a->str[i] = tail;
		len -= (size_t)(zero + 1 - tail);
		tail = zero + 1;
	}
	unsigned count;
	if ((op->rest == REST_NONE && len > 0) ||
		(op->rest == REST_STRINGS && len > 0 && !ipc_tail_valid(tail, len, &count)))
		return err_set(
			err, ERR_INVAL, EINVAL, "%s: malformed tail of %zu bytes", op->name, len);
	a->rest = tail;
	a->rest_len = len;
	return ERR_OK;
}

enum err_code ops_run(struct ops *o, const struct msg_files_req *req, const char *tail,
	size_t tail_len, struct ops_answer *out, struct err *err)
{
	if (req->op >= FILES_OP_COUNT || table[req->op].fn == NULL)
		return err_set(err, ERR_INVAL, ENOSYS, "unknown operation %u", req->op);
	struct args a;
	enum err_code rc = parse(&table[req->op], req, tail, tail_len, &a, err);
	if (rc == ERR_OK)
		rc = table[req->op].fn(o, &a, out, err);
	if (rc == ERR_OK && out->data.failed)
		rc = err_set(err, ERR_LIMIT, EFBIG, "%s: answer over %zu bytes", ops_name(req->op),
			out->data.max);
	return rc;
}

enum answer_code ops_answer_code(enum err_code rc)
{
	switch (rc) {
	case ERR_OK: return ANSWER_OK;
	case ERR_STATE:
	case ERR_INVAL:
	case ERR_CONFLICT: return ANSWER_REFUSED;
	default: return ANSWER_FAILED;
	}
}
