/* Operations that know files of PostgreSQL by name: backups of the configuration,
 * postgresql.auto.conf, slot state, WAL archive status, timeline history. Run by pgregent-files.
 * Strings in `names` follow each other, each with its zero. */
#pragma once
#include <stdint.h>

#include "common/core/buf.h"
#include "common/core/err.h"
#include "worker/files/fs.h"

MUST_USE enum err_code pgdir_backup_configs(const struct fs *fs, const char *config_dir,
	const char *names, size_t len, int64_t *out_count, struct err *err);
MUST_USE enum err_code pgdir_restore_configs(const struct fs *fs, const char *config_dir,
	const char *names, size_t len, int64_t *out_count, struct err *err);
MUST_USE enum err_code pgdir_clean_auto_conf(
	const struct fs *fs, const char *names, size_t len, int64_t *out_count, struct err *err);
/* Pure part of it: lines of text without those that set one of the names; returns how many were
 * left out. */
int64_t pgdir_drop_settings(
	const char *text, size_t len, const char *names, size_t names_len, struct buf *out);
MUST_USE enum err_code pgdir_write_slot(
	const struct fs *fs, const char *slot, const void *bytes, size_t len, struct err *err);
MUST_USE enum err_code pgdir_archive_list(
	const struct fs *fs, unsigned max, struct buf *out, int64_t *out_count, struct err *err);
MUST_USE enum err_code pgdir_archive_done(
	const struct fs *fs, const char *segment, struct err *err);
/* struct history_row array into out. */
MUST_USE enum err_code pgdir_history(const struct fs *fs, uint64_t timeline, struct buf *out,
	int64_t *out_mtime_us, struct err *err);
