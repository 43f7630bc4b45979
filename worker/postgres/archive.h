/* WAL segments of a stopped server: archived before pg_rewind or a single-user run can lose them,
 * and brought back for a pg_rewind that cannot ask the archive itself (ha 6.4, 6.6). Worker
 * process; the commands run as jobs. */
#pragma once
#include "worker/postgres/pgctx.h"

/* Value of a setting as the configuration files of a stopped server say (`postgres -C`). Result
 * false: not known. */
struct seq_setting {
	struct co co;
	struct pgctx *p;
	const char *name;
	int64_t timeout_ms; /* 0 = long enough for any machine */
	char value[LIMIT_CONNINFO];
};
void seq_setting_step(struct co *co);

/* Each segment that waits to be archived goes through archive_command; one that got there is marked
 * done. Result true also when some did not: what then is lost is said in the log, and a node that
 * never comes back would be no better. */
struct seq_archive {
	struct co co;
	struct pgctx *p;
	unsigned archived, failed;
	/* private */
	struct seq_setting setting;
	char command[LIMIT_CONNINFO], segment[40];
	struct buf names;
	size_t at;
	unsigned before, skipped;
	int64_t total, began_ms, lost_ms; /* lost_ms: time that failures took */
};
void seq_archive_step(struct co *co);

/* The segment with the last checkpoint of a server that was shut down: a primary that becomes a
 * standby of another cluster gives that cluster its last record this way, where it reads from the
 * archive alone (ha 4.2, step 8). Result true also when the command failed, which is logged. */
struct seq_archive_last {
	struct co co;
	struct pgctx *p;
	bool configured; /* out: archiving is on and has a command */
	/* private */
	struct seq_setting setting;
	char segment[25];
};
void seq_archive_last_step(struct co *co);
/* Name of the segment that holds a position. */
void archive_segment_name(char out[static 25], uint32_t tli, uint64_t lsn, uint32_t segment_size);

/* restore_command for one segment, into pg_wal; answered like co_job. */
void archive_fetch(
	struct co *co, const struct pgctx *p, const char *restore_command, const char *segment);
/* The segment that pg_rewind could not open, by its output; false: it names none. */
MUST_USE bool archive_missing_segment(const char *output, char out[static 25]);
/* pg_wal, before 10 pg_xlog. */
const char *archive_wal_dir(const struct pgctx *p);
