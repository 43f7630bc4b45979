/* Operations of MSG_FILES_REQ / MSG_FILES_ANSWER between the worker and pgregent-files: one
 * request, one answer (which may come in several frames: `more`). Requests are carried out in
 * order; a slow one (marked S) runs beside the others in slices, one at a time: a second gets
 * REFUSED.
 *
 * Paths: zero-terminated; relative ones count from the data directory, "" is the data directory.
 * Tail = the strings named, one after the other, each with its zero; `bytes` last, without one.
 * Answer: OK, or FAILED / REFUSED with the reason in words as tail and sys_errno (ENOENT and so on,
 * 0 = none). A request whose answer never comes (files was killed on a slow disk) may or may not
 * have been carried out. */
#pragma once
#include <stdint.h>

enum files_op {
	FILES_NONE = 0,
	/* Answer: struct pg_files (common/model/pgstate.h), as it is in memory. */
	FILES_PROBE,
	/* Owner and mode as PostgreSQL wants them (own user, 0700 or 0750). REFUSED: what is wrong.
	 * value = mode, or -1 when the directory does not exist. */
	FILES_CHECK_DATA_DIR,
	/* path; offset, max_bytes (0 = FILES_READ_MAX). Answer: the bytes; value = size of the
	 * file. FAILED when more than max_bytes are there, unless arg has FILES_F_PARTIAL. */
	FILES_READ,
	/* path, bytes; mode (0 = as the data directory's, or the umask's outside of it); arg:
	 * FILES_F_*. Beside the file, synced, renamed; symbolic links are followed; in place where
	 * the directory cannot be written. Content over one frame: send pieces with FILES_F_MORE
	 * and offset = bytes sent before, all with the same path; each is answered (value = bytes
	 * held), nothing is written before the last. value of the last: 1 written, 0 same as
	 * before. */
	FILES_WRITE_ATOMIC,
	/* path, bytes; the same way, after the present content. */
	FILES_APPEND,
	/* path; mode. The file is empty afterwards; value 1 = it was not there. Signal files,
	   `promote`. */
	FILES_CREATE_EMPTY,
	/* path. A file or symbolic link; value 1 = removed, 0 = was not there. */
	FILES_REMOVE,
	/* path; mode (0 = as the data directory's); parents too. arg: FILES_F_TEST_WRITE,
	   FILES_F_SKIP_EMPTY. value 1 = made. */
	FILES_MKDIR,
	/* from, to. arg: FILES_F_IF_ABSENT: only if `to` does not exist (value 0 then). Both
	   directories are synced. */
	FILES_RENAME,
	/* path. Answer: entries without "." and "..", each a letter (f file, d directory, l link, o
	 * other), the name and a zero; value = their number. Sorted by name. */
	FILES_LIST,
	/* any number of paths (links are followed). Answer: struct files_stat for each. */
	FILES_STAT,
	/* arg = timeline. Answer: array of struct history_row (common/model/cluster.h), ascending;
	 * value = mtime of the file in microseconds. FAILED with ENOENT when there is no such file.
	 */
	FILES_HISTORY,
	/* S. path. value = bytes allocated below it, not following links. */
	FILES_SIZE,
	/* S. Remove what is in the data directory, in the targets of its WAL and tablespace links,
	 * and the directory itself where that is allowed. What cannot be removed is renamed as by
	 * FILES_RENAME_FAILED; value 1 = that was done. REFUSED while a process of PostgreSQL runs
	 * in it. */
	FILES_REMOVE_DATA_DIR,
	/* S. Rename the data directory and those link targets to <name>.failed, replacing older
	   ones. REFUSED as above. */
	FILES_RENAME_FAILED,
	/* S. path. Remove what is in the directory, keep it. */
	FILES_CLEAR_DIR,
	/* config_dir, names...: config_dir/name -> data_dir/name.backup. Missing ones are skipped;
	   value = copied. */
	FILES_BACKUP_CONFIGS,
	/* config_dir, names...: back, those that are missing; pg_ident.conf without a copy is made
	   empty. value = restored. */
	FILES_RESTORE_CONFIGS,
	/* names...: lines "name = ..." are taken out of postgresql.auto.conf; value = lines
	   removed. */
	FILES_AUTO_CONF_CLEAN,
	/* slot name, bytes: pg_replslot/<name>/state of a stopped server, replaced as a directory.
	 */
	FILES_REPL_SLOT_WRITE,
	/* Segments waiting to be archived: names (24 hexadecimal digits, may end in .partial)
	 * without ".ready", each with a zero, oldest first, at most arg (0 = FILES_ARCHIVE_MAX);
	 * value = how many there are. */
	FILES_ARCHIVE_LIST,
	/* name: <name>.ready becomes <name>.done. */
	FILES_ARCHIVE_DONE,
	/* arg = enum pg_mark (common/model/pgstate.h): remember, over every death, what is being
	 * done with the data directory; PG_MARK_NONE: nothing any more. */
	FILES_MARK,
	/* directories...; arg = port. The lock files of the Unix sockets in them (".s.PGSQL.<port>
	 * .lock") that a postmaster of our data directory left when it was killed: PostgreSQL takes
	 * the number in such a file, once it is in use again, for a server that runs. Removed is
	 * only what names our data directory, and only while no process uses that; everything else
	 * is left alone. value = removed. FAILED, REFUSED: the first that could not be judged or
	 * removed; the others were. */
	FILES_CLEAR_SOCKET_LOCKS,
	FILES_OP_COUNT,
};

#define FILES_READ_MAX	  (1024 * 1024)
#define FILES_WRITE_MAX	  (4 * 1024 * 1024)
#define FILES_ARCHIVE_MAX 1024
#define FILES_LIST_MAX	  65536 /* entries of one directory */
#define FILES_SOCKETS_MAX 64	/* directories of sockets; PostgreSQL listens on no more */

enum files_flag {
	FILES_F_MORE = 1u << 0, /* WRITE_ATOMIC: another piece follows */
	FILES_F_IF_CHANGED =
		1u << 1, /* WRITE_ATOMIC: leave a file with this content and mode alone */
	FILES_F_IF_ABSENT = 1u << 2,  /* RENAME */
	FILES_F_TEST_WRITE = 1u << 3, /* MKDIR: prove that files can be made there */
	FILES_F_SKIP_EMPTY =
		1u << 4, /* MKDIR: not below a data directory that is empty or not there yet */
	FILES_F_PARTIAL = 1u << 5, /* READ: the first max_bytes from offset on */
};

struct files_stat {
	int64_t size;
	int64_t mtime_us; /* since 1970 */
	uint64_t inode;
	uint32_t mode;	   /* type and permission bits; 0 = not there */
	int32_t sys_errno; /* why it could not be looked at; ENOENT = not there */
};
_Static_assert(sizeof(struct files_stat) == 32, "layout is the contract");
