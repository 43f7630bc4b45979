/* Parsers that read bytes from outside, for libFuzzer: the first byte picks one. Built by `make
 * fuzz` with clang. What a parser accepts must satisfy the bound that its users rely on; anything
 * else is for the sanitizers to find. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/core/buf.h"
#include "common/core/invariant.h"
#include "common/core/ipc.h"
#include "common/model/history.h"
#include "common/model/pgstate.h"
#include "worker/files/pgcontrol.h"
#include "worker/files/pgdir.h"
#include "worker/postgres/conninfo.h"
#include "worker/postgres/controldata.h"
#include "worker/postgres/sync_names.h"
#include "worker/postgres/waldump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A frame, from every role to every other. */
static void fuzz_ipc(const char *bytes, size_t size)
{
	_Alignas(16) static char aligned[LIMIT_IPC_FRAME];
	if (size > sizeof(aligned))
		return;
	memcpy(aligned, bytes, size);
	for (unsigned from = 1; from < ROLE_COUNT; from++) {
		for (unsigned to = 1; to < ROLE_COUNT; to++) {
			struct ipc_msg m;
			unsigned count;
			if (ipc_check(aligned, size, (enum ipc_role)from, (enum ipc_role)to, &m,
				    NULL) != ERR_OK)
				continue;
			INVARIANT(sizeof(struct ipc_hdr) + msg_payload_size(m.type) + m.tail_len ==
				  size);
			INVARIANT(m.tail_len == 0 || msg_allows_tail(m.type));
			if (m.tail_len == 0 || !ipc_tail_valid(m.tail, m.tail_len, &count))
				continue;
			for (const char *s = NULL;
				(s = ipc_tail_next(m.tail, m.tail_len, s)) != NULL;)
				count--;
			INVARIANT(count == 0);
		}
	}
}

static void fuzz_history(const char *bytes, size_t size)
{
	static struct history_row rows[16];
	unsigned n = history_parse(bytes, size, rows, 16);
	INVARIANT(n <= 16);
	for (unsigned i = 0; i < n; i++)
		INVARIANT(
			rows[i].timeline > 0 && ipc_str_ok(rows[i].reason, sizeof(rows[i].reason)));
}

static void fuzz_pgcontrol(const char *bytes, size_t size)
{
	struct pg_control c = { 0 };
	pgcontrol_parse(bytes, size, &c);
	INVARIANT(c.valid == (c.fault == PG_CONTROL_GOOD));
	INVARIANT(!c.valid || (c.state <= PG_DB_IN_PRODUCTION && size >= 292));
}

/* What is written for a set of names reads back as that set. */
static void fuzz_sync_names(const char *text)
{
	static struct sync_names s, again;
	if (!sync_names_parse(text, &s)) {
		INVARIANT(s.type == SSN_OFF && s.count == 0);
		return;
	}
	INVARIANT(s.count <= LIMIT_SYNC_NAMES);
	AUTO(buf) out = BUF_INIT(1 << 20);
	if (!sync_names_write((const char(*)[LIMIT_NAME])s.names, s.count, s.num,
		    s.type == SSN_QUORUM, 150000, &out))
		return;
	bool empty_name = false;
	for (unsigned i = 0; i < s.count; i++)
		empty_name |= s.names[i][0] == '\0' || strcmp(s.names[i], "*") == 0;
	INVARIANT(sync_names_parse(buf_str(&out), &again));
	INVARIANT(empty_name || s.has_star || again.count == s.count);
}

static void fuzz_conninfo(const char *text)
{
	static struct conninfo c, again;
	if (!conninfo_parse(text, &c))
		return;
	AUTO(buf) out = BUF_INIT(1 << 20);
	AUTO(buf) pass = BUF_INIT(1 << 20);
	conninfo_format(&c, 17, &out);
	INVARIANT(conninfo_parse(buf_str(&out), &again));
	if (conninfo_pgpass(&c, &pass))
		INVARIANT(!pass.failed);
}

static void fuzz_texts(const char *text, size_t size)
{
	struct pg_control c = { 0 };
	struct waldump_record r = { 0 };
	char segment[25];
	if (controldata_parse(text, &c, NULL) == ERR_OK)
		INVARIANT(c.valid);
	if (waldump_record(text, &r))
		INVARIANT(ipc_str_ok(r.rmgr, sizeof(r.rmgr)) && ipc_str_ok(r.desc, sizeof(r.desc)));
	(void)waldump_checkpoint_end(text, text, r.lsn);
	if (waldump_missing_segment(text, segment))
		INVARIANT(strlen(segment) == 24);
	AUTO(buf) kept = BUF_INIT(1 << 20);
	static const char names[] = "primary_conninfo\0restore_command";
	int64_t dropped = pgdir_drop_settings(text, size, names, sizeof(names), &kept);
	INVARIANT(dropped > 0 ? kept.len < size : kept.len == size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0 || size > 65536)
		return 0;
	const char *bytes = (const char *)data + 1;
	size_t len = size - 1;
	AUTO_FREE char *text = malloc(len + 1);
	if (text == NULL)
		return 0;
	memcpy(text, bytes, len);
	text[len] = '\0';
	switch (data[0] % 6) {
	case 0: fuzz_ipc(bytes, len); break;
	case 1: fuzz_history(bytes, len); break;
	case 2: fuzz_pgcontrol(bytes, len); break;
	case 3: fuzz_sync_names(text); break;
	case 4: fuzz_conninfo(text); break;
	default: fuzz_texts(text, len); break;
	}
	return 0;
}
