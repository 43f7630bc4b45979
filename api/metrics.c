/* GET /metrics. See metrics.h. */
#include "api/metrics.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/timestamp.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define STATE_VALUES                                                                               \
	"# Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, "     \
	"4=creating_replica, 5=running, 6=starting, 7=bootstrap_starting, 8=start_failed, "        \
	"9=restarting, 10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed\n"

struct writer {
	const struct metrics_input *in;
	struct buf *out;
};

static void sample(const struct writer *w, const char *name, const char *type, const char *help,
	const char *extra, const char *value)
{
	buf_addf(w->out, "# HELP %s %s\n%s# TYPE %s %s\n%s{scope=\"%s\",name=\"%s\"} %s\n", name,
		help, extra, name, type, name, w->in->scope, w->in->name, value);
}

static void count(
	const struct writer *w, const char *name, const char *type, const char *help, int64_t value)
{
	char text[32];
	snprintf(text, sizeof(text), "%" PRId64, value);
	sample(w, name, type, help, "", text);
}

static void flag(const struct writer *w, const char *name, const char *help, bool value)
{
	count(w, name, "gauge", help, value);
}

/* Seconds since 1970 with their fraction; 0 when the value is null, absent or unreadable. */
static void moment(const struct writer *w, const char *name, const char *help, const json_t *value)
{
	struct timestamp t = { 0 };
	char text[48];
	const char *s = json_string_value(value);
	if (s == NULL || !timestamp_parse(s, &t)) {
		sample(w, name, "gauge", help, "", "0");
		return;
	}
	snprintf(text, sizeof(text), "%" PRId64 ".%06d", t.wall_us / 1000000,
		(int)(t.wall_us % 1000000));
	sample(w, name, "gauge", help, "", text);
}

static int64_t number(const json_t *d, const char *path)
{
	return json_integer_value(json_path(d, path));
}

static bool is(const json_t *d, const char *key, const char *word)
{
	return str_eq(json_path_str(d, key), word);
}

/* 4.1.4 -> 040104 */
static void version(const struct writer *w)
{
	char text[32] = "";
	size_t len = 0;
	const char *p = w->in->patroni_version;
	while (*p != '\0' && len + 12 < sizeof(text)) {
		char *end;
		long part = strtol(p, &end, 10);
		if (end == p || part < 0 || part > 99)
			break;
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%02ld", part);
		p = *end == '.' ? end + 1 : end;
	}
	sample(w, "patroni_version", "gauge", "Version without periods.", "", len > 0 ? text : "0");
}

static int64_t failover_priority(const json_t *tags)
{
	if (json_truthy(json_object_get(tags, "nofailover")))
		return 0;
	const json_t *v = json_object_get(tags, "failover_priority");
	char text[32];
	int64_t n;
	return v != NULL && json_text(v, text, sizeof(text)) && str_to_i64(text, &n) ? n : 1;
}

static void postgres_part(const struct writer *w, const json_t *d)
{
	flag(w, "patroni_postgres_running", "1 if PostgreSQL is running.",
		is(d, "state", "running"));
	moment(w, "patroni_postmaster_start_time", "When PostgreSQL was started, epoch seconds.",
		json_object_get(d, "postmaster_start_time"));
	flag(w, "patroni_primary", "1 if PostgreSQL is not in recovery.", is(d, "role", "primary"));
	count(w, "patroni_xlog_location", "counter", "WAL position of a primary, bytes.",
		number(d, "xlog.location"));
	flag(w, "patroni_standby_leader", "1 if this node leads a standby cluster.",
		is(d, "role", "standby_leader"));
	flag(w, "patroni_replica", "1 if this node is a replica.", is(d, "role", "replica"));
	flag(w, "patroni_sync_standby", "1 if this node is a synchronous standby.",
		json_is_true(json_object_get(d, "sync_standby")));
	flag(w, "patroni_quorum_standby", "1 if this node is a quorum standby.",
		json_is_true(json_object_get(d, "quorum_standby")));
	count(w, "patroni_xlog_received_location", "counter", "WAL received by a replica, bytes.",
		number(d, "xlog.received_location"));
	count(w, "patroni_xlog_replayed_location", "counter", "WAL replayed by a replica, bytes.",
		number(d, "xlog.replayed_location"));
	moment(w, "patroni_xlog_replayed_timestamp", "Commit time last replayed, epoch seconds.",
		json_path(d, "xlog.replayed_timestamp"));
	flag(w, "patroni_xlog_paused", "1 if replay is paused.",
		json_is_true(json_path(d, "xlog.paused")));
	if (number(d, "server_version") >= 90600) {
		flag(w, "patroni_postgres_streaming", "1 if the replica streams.",
			is(d, "replication_state", "streaming"));
		flag(w, "patroni_postgres_in_archive_recovery",
			"1 if the replica replays from the archive.",
			is(d, "replication_state", "in archive recovery"));
	}
	count(w, "patroni_postgres_server_version", "gauge", "Server version, 0 if not known.",
		number(d, "server_version"));
}

void metrics_write(const struct metrics_input *in, struct buf *out)
{
	struct writer w = { in, out };
	const json_t *d = in->status;
	char state[16];
	version(&w);
	postgres_part(&w, d);
	flag(&w, "patroni_cluster_unlocked", "1 if no node holds the leader key.",
		json_is_true(json_object_get(d, "cluster_unlocked")));
	flag(&w, "patroni_failsafe_mode_is_active", "1 if failsafe mode is active.",
		json_is_true(json_object_get(d, "failsafe_mode_is_active")));
	flag(&w, "patroni_failsafe_mode_enabled", "1 if failsafe mode is enabled.",
		in->failsafe_enabled);
	flag(&w, "patroni_failsafe_member", "1 if this node is in the failsafe key.",
		in->failsafe_member);
	count(&w, "patroni_postgres_timeline", "gauge", "Timeline, 0 if not known.",
		number(d, "timeline"));
	count(&w, "patroni_dcs_last_seen", "gauge", "Last full read of the store, epoch seconds.",
		number(d, "dcs_last_seen"));
	flag(&w, "patroni_pending_restart", "1 if a setting waits for a restart.",
		json_is_true(json_object_get(d, "pending_restart")));
	flag(&w, "patroni_is_paused", "1 if the cluster is in maintenance mode.",
		json_is_true(json_object_get(d, "pause")));
	snprintf(state, sizeof(state), "%d", in->state);
	sample(&w, "patroni_postgres_state", "gauge", "State of PostgreSQL.", STATE_VALUES, state);
	count(&w, "patroni_failover_priority", "gauge", "Failover priority of this node.",
		failover_priority(in->tags));
}
