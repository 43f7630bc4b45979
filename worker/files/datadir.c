/* Removing, setting aside, clearing, measuring. See datadir.h. */
#include "worker/files/datadir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/pmpid.h"

#define SLICE_ENTRIES 200 /* some milliseconds on a disk that works */
#define FAILED_SUFFIX ".failed"

/* ---- who runs here ------------------------------------------------------------------------------
 */

static bool runs_in(const char *pid, const char *real_dir)
{
	char link[64], cwd[LIMIT_PATH];
	if (!str_format(link, sizeof(link), "/proc/%s/cwd", pid))
		return false;
	ssize_t n = readlink(link, cwd, sizeof(cwd) - 1);
	if (n < 0)
		return false;
	cwd[n] = '\0';
	return strcmp(cwd, real_dir) == 0;
}

static bool is_postgres(const char *pid)
{
	char path[64], comm[32] = "";
	if (!str_format(path, sizeof(path), "/proc/%s/comm", pid))
		return false;
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return false;
	if (fgets(comm, sizeof(comm), f) == NULL)
		comm[0] = '\0';
	fclose(f);
	return str_starts(comm, "postgres") || str_starts(comm, "postmaster");
}

bool datadir_runs_in(pid_t pid, const char *data_dir)
{
	char text[16];
	char *real = realpath(data_dir, NULL);
	bool runs =
		real != NULL && str_format(text, sizeof(text), "%d", pid) && runs_in(text, real);
	free(real);
	return runs;
}

pid_t datadir_user(const char *data_dir)
{
	char *real = realpath(data_dir, NULL);
	if (real == NULL)
		return 0;
	struct msg_pmpid pm = { 0 };
	char owner[16] = "";
	if (pmpid_read(data_dir, &pm, NULL) == ERR_OK && pm.pid != 0)
		snprintf(owner, sizeof(owner), "%d", pm.pid < 0 ? -pm.pid : pm.pid);
	pid_t found = 0;
	DIR *proc = opendir("/proc");
	struct dirent *e;
	while (proc != NULL && found == 0 && (e = readdir(proc)) != NULL) {
		int64_t pid;
		if (!str_to_i64(e->d_name, &pid) || pid <= 0 || !runs_in(e->d_name, real))
			continue;
		if (strcmp(e->d_name, owner) == 0 || is_postgres(e->d_name))
			found = (pid_t)pid;
	}
	if (proc != NULL)
		closedir(proc);
	free(real);
	return found;
}

/* ---- targets ------------------------------------------------------------------------------------
 */

/* A link to the file system's root, or to a directory that holds the data directory, is a mistake,
 * and following it would be a worse one. */
static bool sane_target(const struct fs *fs, const char *path)
{
	size_t n = strlen(path);
	char *real = realpath(fs->data_dir, NULL);
	bool holds_data_dir =
		real != NULL && strncmp(real, path, n) == 0 && (real[n] == '/' || real[n] == '\0');
	free(real);
	return n > 1 && !holds_data_dir;
}

static void add_target(struct slow *s, const char *link)
{
	char name[LIMIT_PATH];
	ssize_t n = readlink(link, name, sizeof(name));
	if (n < 0)
		return; /* not a link: it lies below the data directory and goes with it */
	char *real = realpath(link, NULL);
	if (real == NULL) {
		if (errno != ENOENT)
			log_warning("%s: link cannot be followed: %s", link, strerror(errno));
		return;
	}
	if (!sane_target(s->fs, real))
		log_error("%s leads to %s: left alone", link, real);
	else if (s->target_count < DATADIR_TARGETS_MAX) {
		buf_add(&s->targets, real, strlen(real) + 1);
		s->target_count++;
	}
	free(real);
}

static enum err_code collect_targets(struct slow *s, struct err *err)
{
	char path[LIMIT_PATH + 300];
	static const char *const wal[] = { "pg_wal", "pg_xlog" };
	for (size_t i = 0; i < ARRAY_LEN(wal); i++) {
		snprintf(path, sizeof(path), "%s/%s", s->fs->data_dir, wal[i]);
		add_target(s, path);
	}
	snprintf(path, sizeof(path), "%s/pg_tblspc", s->fs->data_dir);
	DIR *dir = opendir(path);
	struct dirent *e;
	while (dir != NULL && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/pg_tblspc/%s", s->fs->data_dir, e->d_name);
		add_target(s, path);
	}
	if (dir != NULL)
		closedir(dir);
	buf_add(&s->targets, s->fs->data_dir, strlen(s->fs->data_dir) + 1);
	s->target_count++;
	return s->targets.failed ? err_set(err, ERR_LIMIT, 0, "too many tablespaces") : ERR_OK;
}

/* ---- starting -----------------------------------------------------------------------------------
 */

static enum err_code start_data_dir(struct slow *s, struct err *err)
{
	pid_t user = datadir_user(s->fs->data_dir);
	if (user != 0)
		return err_set(
			err, ERR_STATE, EBUSY, "process %d runs in %s", (int)user, s->fs->data_dir);
	if (strcmp(s->fs->data_dir, "/") == 0)
		return err_set(err, ERR_INVAL, 0, "%s cannot be a data directory", s->fs->data_dir);
	return collect_targets(s, err);
}

static enum err_code start_one(struct slow *s, const char *path, struct err *err)
{
	char full[LIMIT_PATH];
	enum err_code rc = fs_path(s->fs, path, full, err);
	if (rc != ERR_OK)
		return rc;
	rc = tree_open(&s->tree, full, s->kind == SLOW_SIZE ? TREE_SIZE : TREE_REMOVE, err);
	s->tree.keep_top = true;
	s->walking = rc == ERR_OK;
	return rc;
}

enum err_code slow_start(
	struct slow *s, enum slow_kind kind, const struct fs *fs, const char *path, struct err *err)
{
	*s = (struct slow){ .kind = kind,
		.fs = fs,
		.targets = BUF_INIT((size_t)DATADIR_TARGETS_MAX * LIMIT_PATH) };
	enum err_code rc = kind == SLOW_REMOVE || kind == SLOW_SET_ASIDE ? start_data_dir(s, err)
									 : start_one(s, path, err);
	if (rc != ERR_OK)
		slow_done(s);
	return rc;
}

void slow_done(struct slow *s)
{
	if (s->walking)
		tree_done(&s->tree);
	buf_done(&s->targets);
	s->walking = false;
	s->kind = SLOW_NONE;
}

/* ---- slices -------------------------------------------------------------------------------------
 */

static const char *current(const struct slow *s)
{
	return s->next < s->targets.len ? s->targets.data + s->next : NULL;
}

static void advance(struct slow *s)
{
	s->next += strlen(s->targets.data + s->next) + 1;
}

static bool is_data_dir(const struct slow *s, const char *target)
{
	return strcmp(target, s->fs->data_dir) == 0;
}

/* The top of a mount point, or below a parent that is not ours, stays; empty it is as good as gone.
 */
static bool only_top_left(const struct err *err, const struct tree *t)
{
	char lost[LIMIT_PATH + 16];
	snprintf(lost, sizeof(lost), "%s/lost+found", t->top);
	int e = err->sys_errno;
	return t->top_failed &&
	       (e == EBUSY || e == EACCES || e == EPERM || e == EROFS || e == ENOTDIR ||
		       (e == ENOTEMPTY && access(lost, F_OK) == 0));
}

/* What cannot be removed is set aside, so that the next clone finds an empty place (ha 8.4). */
static void fall_back(struct slow *s, const struct err *why)
{
	log_warning("%s; set aside as *" FAILED_SUFFIX, why->text);
	s->kind = SLOW_SET_ASIDE;
	s->value = 1;
	s->next = 0;
	s->walking = false;
}

static enum tree_step slice_remove(struct slow *s, struct err *err)
{
	const char *target = current(s);
	if (target == NULL)
		return TREE_DONE;
	if (!s->walking) {
		enum err_code rc = tree_open(&s->tree, target, TREE_REMOVE, err);
		if (rc == ERR_NOTFOUND) {
			advance(s);
			return TREE_MORE;
		}
		if (rc != ERR_OK) {
			fall_back(s, err);
			return TREE_MORE;
		}
		log_info("remove %s", target);
		s->walking = true;
		s->tree.keep_lost = true;
	}
	enum tree_step step = tree_slice(&s->tree, SLICE_ENTRIES, err);
	if (step == TREE_MORE)
		return step;
	s->walking = false;
	if (step == TREE_FAILED && !only_top_left(err, &s->tree)) {
		fall_back(s, err);
		return TREE_MORE;
	}
	advance(s);
	return TREE_MORE;
}

static bool failed_name(const char *target, char out[static LIMIT_PATH])
{
	size_t n = strlen(target);
	while (n > 1 && target[n - 1] == '/')
		n--;
	return str_format(out, LIMIT_PATH, "%.*s" FAILED_SUFFIX, (int)n, target);
}

/* Links in the data directory follow their targets, so that a directory set aside is still whole.
 */
static void relink(const char *link, const char *old_target, const char *new_target)
{
	char *real = realpath(link, NULL);
	bool same = real == NULL && errno == ENOENT; /* it led to what was just renamed */
	free(real);
	char now[LIMIT_PATH];
	ssize_t n = readlink(link, now, sizeof(now) - 1);
	if (!same || n < 0)
		return;
	now[n] = '\0';
	/* A relative link, or one by way of another, is left as it is: the name in the log tells.
	 */
	if (strcmp(now, old_target) != 0)
		return;
	if (unlink(link) < 0 || symlink(new_target, link) < 0)
		log_warning(
			"%s: link could not be moved to %s: %s", link, new_target, strerror(errno));
}

static void relink_all(const struct slow *s, const char *old_target, const char *new_target)
{
	char path[LIMIT_PATH + 300];
	snprintf(path, sizeof(path), "%s/pg_wal", s->fs->data_dir);
	relink(path, old_target, new_target);
	snprintf(path, sizeof(path), "%s/pg_tblspc", s->fs->data_dir);
	DIR *dir = opendir(path);
	struct dirent *e;
	while (dir != NULL && (e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/pg_tblspc/%s", s->fs->data_dir, e->d_name);
		relink(path, old_target, new_target);
	}
	if (dir != NULL)
		closedir(dir);
}

static enum tree_step set_aside(
	struct slow *s, const char *target, const char *failed, struct err *err)
{
	if (rename(target, failed) < 0 && errno != ENOENT) {
		err_set(err, ERR_SYS, errno, "rename %s to %s", target, failed);
		/* A tablespace that stays is a nuisance; a data directory that stays is a failure.
		 */
		if (is_data_dir(s, target))
			return TREE_FAILED;
		log_error("%s", err->text);
	} else {
		log_info("renamed %s to %s", target, failed);
		if (!is_data_dir(s, target))
			relink_all(s, target, failed);
		else if (fs_sync_dir_of(failed, err) != ERR_OK)
			return TREE_FAILED;
	}
	advance(s);
	return TREE_MORE;
}

/* For each target: an older <target>.failed goes first, in slices; then the rename. */
static enum tree_step slice_set_aside(struct slow *s, struct err *err)
{
	const char *target = current(s);
	if (target == NULL)
		return TREE_DONE;
	char failed[LIMIT_PATH];
	if (!failed_name(target, failed)) {
		err_set(err, ERR_LIMIT, ENAMETOOLONG, "%s" FAILED_SUFFIX, target);
		return TREE_FAILED;
	}
	if (!s->walking) {
		enum err_code rc = access(target, F_OK) < 0
					   ? ERR_NOTFOUND
					   : tree_open(&s->tree, failed, TREE_REMOVE, err);
		if (rc == ERR_NOTFOUND)
			return set_aside(s, target, failed, err);
		if (rc != ERR_OK)
			return TREE_FAILED;
		s->walking = true;
	}
	enum tree_step step = tree_slice(&s->tree, SLICE_ENTRIES, err);
	if (step == TREE_MORE)
		return TREE_MORE;
	s->walking = false;
	return step == TREE_DONE ? set_aside(s, target, failed, err) : TREE_FAILED;
}

enum tree_step slow_slice(struct slow *s, struct err *err)
{
	enum tree_step step;
	switch (s->kind) {
	case SLOW_SIZE:
	case SLOW_CLEAR:
		step = tree_slice(&s->tree, SLICE_ENTRIES, err);
		s->walking = step == TREE_MORE;
		s->value = (int64_t)(s->kind == SLOW_SIZE ? s->tree.bytes : s->tree.removed);
		break;
	case SLOW_REMOVE: step = slice_remove(s, err); break;
	case SLOW_SET_ASIDE: step = slice_set_aside(s, err); break;
	default: step = TREE_DONE; break;
	}
	if (step != TREE_MORE)
		slow_done(s);
	return step;
}
