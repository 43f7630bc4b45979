/* What stands in the JSON tails of the messages between worker and api (ipc_msgs.h). Scalars and
 * documents of the worker's page: shm_layout.h.
 *
 * API_SETTINGS (worker -> api; at start, at each change, and again when the certificate may have
 * changed, on SIGHUP and POST /reload): the keys of the restapi section as configuration and
 * environment give them (listen, connect_address, authentication {username, password}, certfile,
 * keyfile, keyfile_password, cafile, ciphers, verify_client, allowlist [..],
 * allowlist_include_members, http_extra_headers {..}, https_extra_headers {..},
 * request_queue_size, server_tokens), plus "scope", "name", "version" (ours), "patroni_version"
 * ("4.1.4"), "ttl" and "loop_wait" (seconds), "log_level" (python's number, may be absent).
 *
 * API_REQ (api -> worker), by kind; api has parsed and checked the body (rest 6 to 10) against the
 * page, what needs the store, the other members or the state machine is the worker's:
 *   PG_FACTS       no tail. Run the status query now. Answer 200: {"in_recovery": bool,
 *                  "postmaster_start_time": "..", "server_version": n, "xlog": {..}, "timeline":
 *                  n|null, "replication_state": ".."?, "replication": [..]?, "latest_end_lsn": n?},
 *                  the values as rest 3 prints them. Any other status: the query failed.
 *   CONFIG_PATCH, CONFIG_PUT  the body. Answer: rest 6 (200 without a tail: the new document is on
 *                  the page by then; 409, 502, 503 with API_PAGE).
 *   SWITCHOVER, FAILOVER  {"leader"?, "candidate"?, "scheduled_at"? (ISO 8601)}: lines 10-15 of
 *                  rest 8 held on the page's snapshot except the probe (15), which is the worker's.
 *   SWITCHOVER_DELETE, RESTART_DELETE, RELOAD, SIGTERM, UPGRADE, STATUS_LOCAL  no tail.
 *   RESTART        {"schedule"? (ISO 8601), "role"?, "postgres_version"?, "timeout"? (seconds),
 *                  "restart_pending"? (as sent)}
 *   REINITIALIZE   {"force": bool, "from_leader": bool}
 *   FAILSAFE       {"name", "conn_url", "api_url", "slots"?: {..}}. Answer 200 "Accepted", lsn.
 *   CITUS          the body. Answer 501: there is no coordinator here.
 * An answer's tail (or, when it is long, the memory whose descriptor comes instead) is the body;
 * with API_PAGE it is the explanation inside the error page. */
#pragma once
#include "common/core/limits.h"

/* A request body that can be forwarded: one message holds it. A longer one is refused with 413. */
#define API_BODY_MAX (LIMIT_IPC_FRAME - 1024)
/* api waits so long for the facts; then positions are left out (DESIGN 6). */
#define API_FACTS_MS 500
