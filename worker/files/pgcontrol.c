/* pg_control. See pgcontrol.h. */
#include "worker/files/pgcontrol.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/core/buf.h"

/* Offsets of ControlFileData. PostgreSQL 17 put wal_level into a hole of the checkpoint copy, 18 a
 * flag behind the checksum version, which moves the CRC and nothing that is read here. */
enum {
	AT_SYSTEM_ID = 0,
	AT_VERSION = 8,
	AT_STATE = 16,
	AT_CHECKPOINT = 32,
	AT_REDO = 40,
	AT_TLI = 48,
	AT_MIN_RECOVERY = 136,
	AT_MIN_RECOVERY_TLI = 144,
	AT_WAL_LOG_HINTS = 176,
	AT_MAX_CONNECTIONS = 180,
	AT_MAX_WORKERS = 184,
	AT_MAX_WAL_SENDERS = 188,
	AT_MAX_PREPARED = 192,
	AT_MAX_LOCKS = 196,
	AT_WAL_SEGMENT = 228,
	AT_CHECKSUMS = 252,
};

static const struct {
	uint32_t version;
	size_t crc_at;
} layouts[] = {
	{ 1300, 288 }, /* 13 to 16 */
	{ 1700, 288 },
	{ 1800, 292 },
};

#define READ_TRIES 5

/* Castagnoli, reflected. Bit by bit: it runs over 300 bytes, a table would not pay. */
static uint32_t crc32c(const unsigned char *p, size_t n)
{
	uint32_t crc = 0xffffffffu;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
	}
	return ~crc;
}

static uint32_t u32(const unsigned char *p, size_t at)
{
	uint32_t v;
	memcpy(&v, p + at, sizeof(v));
	return v;
}

static uint64_t u64(const unsigned char *p, size_t at)
{
	uint64_t v;
	memcpy(&v, p + at, sizeof(v));
	return v;
}

static size_t crc_offset(uint32_t version)
{
	for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
		if (layouts[i].version == version)
			return layouts[i].crc_at;
	}
	return 0;
}

void pgcontrol_parse(const void *bytes, size_t len, struct pg_control *out)
{
	const unsigned char *p = bytes;
	int64_t read_at_ms = out->read_at_ms;
	memset(out, 0, sizeof(*out));
	out->read_at_ms = read_at_ms;
	out->fault = PG_CONTROL_SHORT;
	if (len < AT_VERSION + sizeof(uint32_t))
		return;
	/* These two stand at the same place in every version. */
	out->system_id = u64(p, AT_SYSTEM_ID);
	out->control_version = u32(p, AT_VERSION);
	size_t crc_at = crc_offset(out->control_version);
	out->fault = PG_CONTROL_VERSION_UNKNOWN;
	if (crc_at == 0)
		return;
	out->fault = PG_CONTROL_SHORT;
	if (len < crc_at + sizeof(uint32_t))
		return;
	out->fault = PG_CONTROL_CRC;
	if (crc32c(p, crc_at) != u32(p, crc_at) || u32(p, AT_STATE) > PG_DB_IN_PRODUCTION)
		return;
	out->state = (enum pg_db_state)u32(p, AT_STATE);
	out->checkpoint_lsn = u64(p, AT_CHECKPOINT);
	out->checkpoint_redo = u64(p, AT_REDO);
	out->checkpoint_tli = u32(p, AT_TLI);
	out->min_recovery_lsn = u64(p, AT_MIN_RECOVERY);
	out->min_recovery_tli = u32(p, AT_MIN_RECOVERY_TLI);
	out->wal_log_hints = p[AT_WAL_LOG_HINTS] != 0;
	out->max_connections = (int32_t)u32(p, AT_MAX_CONNECTIONS);
	out->max_worker_processes = (int32_t)u32(p, AT_MAX_WORKERS);
	out->max_wal_senders = (int32_t)u32(p, AT_MAX_WAL_SENDERS);
	out->max_prepared_xacts = (int32_t)u32(p, AT_MAX_PREPARED);
	out->max_locks_per_xact = (int32_t)u32(p, AT_MAX_LOCKS);
	out->wal_segment_size = u32(p, AT_WAL_SEGMENT);
	out->checksum_version = u32(p, AT_CHECKSUMS);
	out->fault = PG_CONTROL_GOOD;
	out->valid = true;
}

static void read_once(int dir_fd, struct pg_control *out)
{
	unsigned char bytes[512]; /* the used part lies in the first sector */
	AUTO_FD fd = openat(dir_fd, "global/pg_control", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		out->fault = errno == ENOENT || errno == ENOTDIR ? PG_CONTROL_ABSENT
								 : PG_CONTROL_UNREADABLE;
		return;
	}
	ssize_t n;
	do
		n = pread(fd, bytes, sizeof(bytes), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		out->fault = PG_CONTROL_UNREADABLE;
		return;
	}
	pgcontrol_parse(bytes, (size_t)n, out);
}

void pgcontrol_read(int dir_fd, struct pg_control *out)
{
	int64_t read_at_ms = out->read_at_ms;
	for (int i = 0; i < READ_TRIES; i++) {
		memset(out, 0, sizeof(*out));
		out->read_at_ms = read_at_ms;
		read_once(dir_fd, out);
		if (out->fault != PG_CONTROL_CRC && out->fault != PG_CONTROL_SHORT)
			return;
		/* The server writes the file in place, and no lock of its is open to us: it takes
		 * microseconds. */
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}
