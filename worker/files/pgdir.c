/* Operations that know files of PostgreSQL by name. See pgdir.h. */
#include "worker/files/pgdir.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/core/ipc.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/model/history.h"
#include "worker/files/files_msgs.h"
#include "worker/files/tree.h"

/* ---- configuration files
 * -------------------------------------------------------------------------- */

static bool is_file(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static enum err_code config_names(const struct fs *fs, const char *config_dir, const char *name,
	char config[static LIMIT_PATH], char backup[static LIMIT_PATH], struct err *err)
{
	char dir[LIMIT_PATH];
	enum err_code rc = fs_path(fs, config_dir, dir, err);
	if (rc != ERR_OK)
		return rc;
	if (name[0] == '\0' || strchr(name, '/') != NULL)
		return err_set(err, ERR_INVAL, EINVAL,
			"configuration file \"%s\": a plain name is wanted", name);
	if (!str_format(config, LIMIT_PATH, "%s/%s", dir, name) ||
		!str_format(backup, LIMIT_PATH, "%s/%s.backup", fs->data_dir, name))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	return ERR_OK;
}

enum err_code pgdir_backup_configs(const struct fs *fs, const char *config_dir, const char *names,
	size_t len, int64_t *out_count, struct err *err)
{
	int64_t count = 0;
	for (const char *s = NULL; (s = ipc_tail_next(names, len, s)) != NULL;) {
		char config[LIMIT_PATH], backup[LIMIT_PATH];
		enum err_code rc = config_names(fs, config_dir, s, config, backup, err);
		if (rc != ERR_OK)
			return rc;
		if (!is_file(config))
			continue;
		rc = fs_copy(fs, config, backup, err);
		if (rc != ERR_OK)
			return rc;
		count++;
	}
	*out_count = count;
	return ERR_OK;
}

enum err_code pgdir_restore_configs(const struct fs *fs, const char *config_dir, const char *names,
	size_t len, int64_t *out_count, struct err *err)
{
	int64_t count = 0;
	for (const char *s = NULL; (s = ipc_tail_next(names, len, s)) != NULL;) {
		char config[LIMIT_PATH], backup[LIMIT_PATH];
		enum err_code rc = config_names(fs, config_dir, s, config, backup, err);
		if (rc != ERR_OK)
			return rc;
		if (is_file(config))
			continue;
		if (is_file(backup))
			rc = fs_copy(fs, backup, config, err);
		else if (strcmp(s, "pg_ident.conf") == 0)
			rc = fs_write(fs, config, "", 0, 0, err);
		else
			continue;
		if (rc != ERR_OK)
			return rc;
		count++;
	}
	*out_count = count;
	return ERR_OK;
}

/* "name = value" or "name value", as PostgreSQL reads it. */
static bool sets(const char *p, size_t n, const char *names, size_t names_len)
{
	while (n > 0 && isspace((unsigned char)*p)) {
		p++;
		n--;
	}
	size_t word = 0;
	while (word < n && (isalnum((unsigned char)p[word]) || p[word] == '_' || p[word] == '.'))
		word++;
	if (word == 0)
		return false;
	for (const char *s = NULL; (s = ipc_tail_next(names, names_len, s)) != NULL;) {
		if (strlen(s) == word && strncasecmp(s, p, word) == 0)
			return true;
	}
	return false;
}

int64_t pgdir_drop_settings(
	const char *text, size_t len, const char *names, size_t names_len, struct buf *out)
{
	int64_t dropped = 0;
	for (size_t at = 0; at < len;) {
		const char *nl = memchr(text + at, '\n', len - at);
		size_t n = nl != NULL ? (size_t)(nl - (text + at)) + 1 : len - at;
		if (sets(text + at, n, names, names_len))
			dropped++;
		else
			buf_add(out, text + at, n);
		at += n;
	}
	return dropped;
}

enum err_code pgdir_clean_auto_conf(
	const struct fs *fs, const char *names, size_t len, int64_t *out_count, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = fs_path(fs, "postgresql.auto.conf", path, err);
	if (rc != ERR_OK)
		return rc;
	*out_count = 0;
	AUTO(buf) text = BUF_INIT(LIMIT_CONFIG_FILE);
	rc = fs_read(path, 0, LIMIT_CONFIG_FILE + 1, &text, NULL, err);
	if (rc == ERR_NOTFOUND)
		return ERR_OK;
	if (rc != ERR_OK)
		return rc;
	AUTO(buf) kept = BUF_INIT(LIMIT_CONFIG_FILE);
	int64_t dropped = pgdir_drop_settings(buf_str(&text), text.len, names, len, &kept);
	if (kept.failed)
		return err_set(err, ERR_NOMEM, 0, "%s", path);
	if (dropped > 0)
		rc = fs_write(fs, path, buf_str(&kept), kept.len, 0, err);
	if (rc == ERR_OK)
		*out_count = dropped;
	return rc;
}

/* ---- replication slots
 * ---------------------------------------------------------------------------- */

static bool slot_name_ok(const char *s)
{
	size_t n = strlen(s);
	return n > 0 && n < LIMIT_SLOT_NAME &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

/* A slot directory holds a state file and some spill files: one bounded walk. */
static enum err_code remove_small_tree(const char *path, struct err *err)
{
	static struct tree tree; /* 20 KiB; one thread */
	enum err_code rc = tree_open(&tree, path, TREE_REMOVE, err);
	if (rc == ERR_NOTFOUND)
		return ERR_OK;
	if (rc != ERR_OK)
		return rc;
	enum tree_step step = tree_slice(&tree, 100000, err);
	tree_done(&tree);
	if (step == TREE_MORE)
		return err_set(err, ERR_LIMIT, 0, "%s holds too many files", path);
	return step == TREE_DONE ? ERR_OK : err->code;
}

enum err_code pgdir_write_slot(
	const struct fs *fs, const char *slot, const void *bytes, size_t len, struct err *err)
{
	if (!slot_name_ok(slot))
		return err_set(err, ERR_INVAL, EINVAL, "slot name \"%s\"", slot);
	char dir[LIMIT_PATH], temp[LIMIT_PATH], state[LIMIT_PATH];
	if (!str_format(dir, sizeof(dir), "%s/pg_replslot/%s", fs->data_dir, slot) ||
		!str_format(temp, sizeof(temp), "%s.tmp", dir) ||
		!str_format(state, sizeof(state), "%s/state", temp))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	enum err_code rc = remove_small_tree(temp, err);
	if (rc != ERR_OK)
		return rc;
	if (mkdir(temp, fs_dir_mode(fs, temp)) < 0 || chmod(temp, fs_dir_mode(fs, temp)) < 0)
		return err_set(err, ERR_SYS, errno, "make directory %s", temp);
	rc = fs_write(fs, state, bytes, len, 0, err);
	if (rc == ERR_OK)
		rc = remove_small_tree(dir, err);
	if (rc != ERR_OK)
		return rc;
	if (rename(temp, dir) < 0)
		return err_set(err, ERR_SYS, errno, "rename %s", temp);
	return fs_sync_dir_of(dir, err);
}

/* ---- archive status
 * ------------------------------------------------------------------------------- */

static bool segment_name_ok(const char *s, size_t n)
{
	if (n != 24 && !(n == 32 && strncmp(s + 24, ".partial", 8) == 0))
		return false;
	for (int i = 0; i < 24; i++) {
		if (!isdigit((unsigned char)s[i]) && (s[i] < 'A' || s[i] > 'F'))
			return false;
	}
	return true;
}

static enum err_code status_dir(const struct fs *fs, char out[static LIMIT_PATH], struct err *err)
{
	static const char *const wal[] = { "pg_wal", "pg_xlog" };
	for (size_t i = 0; i < ARRAY_LEN(wal); i++) {
		struct stat st;
		if (!str_format(out, LIMIT_PATH, "%s/%s/archive_status", fs->data_dir, wal[i]))
			return err_set(
				err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
		if (stat(out, &st) == 0 && S_ISDIR(st.st_mode))
			return ERR_OK;
	}
	return err_set(err, ERR_NOTFOUND, ENOENT, "%s/pg_wal/archive_status", fs->data_dir);
}

struct segment {
	char name[40];
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct segment *)a)->name, ((const struct segment *)b)->name);
}

enum err_code pgdir_archive_list(
	const struct fs *fs, unsigned max, struct buf *out, int64_t *out_count, struct err *err)
{
	char path[LIMIT_PATH];
	enum err_code rc = status_dir(fs, path, err);
	if (rc != ERR_OK)
		return rc;
	DIR *dir = opendir(path);
	if (dir == NULL)
		return err_set(err, ERR_SYS, errno, "open %s", path);
	AUTO(buf) found = BUF_INIT((size_t)FILES_LIST_MAX * sizeof(struct segment));
	struct dirent *e;
	while ((e = readdir(dir)) != NULL) {
		size_t n = strlen(e->d_name);
		if (n < 6 || strcmp(e->d_name + n - 6, ".ready") != 0 ||
			!segment_name_ok(e->d_name, n - 6))
			continue;
		struct segment s = { 0 };
		memcpy(s.name, e->d_name, n - 6);
		buf_add(&found, &s, sizeof(s));
	}
	closedir(dir);
	if (found.failed)
		return err_set(err, ERR_LIMIT, 0, "over %d files in %s", FILES_LIST_MAX, path);
	size_t count = found.len / sizeof(struct segment);
	if (count > 0)
		qsort(found.data, count, sizeof(struct segment), by_name);
	for (size_t i = 0; i < count && i < max; i++) {
		const char *name = found.data + i * sizeof(struct segment);
		buf_add(out, name, strlen(name) + 1);
	}
	*out_count = (int64_t)count;
	return ERR_OK;
}

enum err_code pgdir_archive_done(const struct fs *fs, const char *segment, struct err *err)
{
	if (!segment_name_ok(segment, strlen(segment)))
		return err_set(err, ERR_INVAL, EINVAL, "segment \"%s\"", segment);
	char path[LIMIT_PATH], ready[LIMIT_PATH + 48], done[LIMIT_PATH + 48];
	enum err_code rc = status_dir(fs, path, err);
	if (rc != ERR_OK)
		return rc;
	snprintf(ready, sizeof(ready), "%s/%s.ready", path, segment);
	snprintf(done, sizeof(done), "%s/%s.done", path, segment);
	if (rename(ready, done) < 0)
		return err_set(
			err, errno == ENOENT ? ERR_NOTFOUND : ERR_SYS, errno, "rename %s", ready);
	return fs_sync_dir_of(done, err);
}

/* ---- history
 * -------------------------------------------------------------------------------------- */

enum err_code pgdir_history(const struct fs *fs, uint64_t timeline, struct buf *out,
	int64_t *out_mtime_us, struct err *err)
{
	char path[LIMIT_PATH];
	AUTO(buf) text = BUF_INIT(FILES_READ_MAX);
	if (timeline == 0 || timeline > UINT32_MAX)
		return err_set(err, ERR_INVAL, EINVAL, "timeline %" PRIu64, timeline);
	if (!str_format(
		    path, sizeof(path), "%s/pg_wal/%08X.history", fs->data_dir, (unsigned)timeline))
		return err_set(err, ERR_LIMIT, ENAMETOOLONG, "path over %d bytes", LIMIT_PATH);
	enum err_code rc = fs_read(path, 0, FILES_READ_MAX + 1, &text, NULL, err);
	if (rc != ERR_OK)
		return rc;
	struct stat st;
	if (stat(path, &st) < 0)
		return err_set(err, ERR_SYS, errno, "stat %s", path);
	AUTO_FREE struct history_row *rows = malloc(LIMIT_HISTORY * sizeof(*rows));
	if (rows == NULL)
		return err_set(err, ERR_NOMEM, 0, "history");
	unsigned count = history_parse(buf_str(&text), text.len, rows, LIMIT_HISTORY);
	buf_add(out, rows, count * sizeof(*rows));
	*out_mtime_us = (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
	return ERR_OK;
}
