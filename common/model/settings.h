/* The settings that decisions rest on (config 1.6, ha 0): plain values, already checked and
 * adjusted (config 3.4). Made by common/config/dynamic from the dynamic document and the local
 * tree. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/limits.h"
#include "common/model/cluster.h"

enum sync_mode { SYNC_OFF = 0, SYNC_PRIORITY, SYNC_QUORUM };
enum watchdog_mode { WATCHDOG_OFF = 0, WATCHDOG_AUTOMATIC, WATCHDOG_REQUIRED };

struct permanent_slot {
	char name[LIMIT_SLOT_NAME];
	bool logical;
	char database[LIMIT_SLOT_NAME], plugin[LIMIT_SLOT_NAME];
	char cluster_type[12]; /* "", "primary", "standby" */
};
struct ignore_slot {
	char name[LIMIT_SLOT_NAME], type[12], database[LIMIT_SLOT_NAME], plugin[LIMIT_SLOT_NAME];
};

struct settings {
	int64_t ttl_ms, loop_wait_ms, retry_timeout_ms;
	int64_t maximum_lag_on_failover; /* bytes */
	int64_t maximum_lag_on_syncnode; /* bytes; <= 0 off */
	int max_timelines_history;	 /* 0 = all */
	bool check_timeline;
	int64_t primary_start_timeout_ms; /* 0 = fail over at once */
	int64_t primary_stop_timeout_ms;  /* 0 = off; only while sync is on */
	int64_t primary_race_backoff_ms;
	enum sync_mode
		sync_mode; /* as configured; a standby cluster ignores it (settings_sync_mode) */
	bool sync_strict;
	int sync_node_count; /* >= 1 */
	bool failsafe_mode;
	bool pause, pause_enforce;
	int64_t member_slots_ttl_ms;
	bool use_slots;
	/* standby cluster (ha 9.1) */
	bool standby_cluster;
	char standby_host[LIMIT_URL], standby_port[LIMIT_PORTS], standby_slot[LIMIT_SLOT_NAME];
	bool standby_restore_command;
	/* rewind */
	bool use_pg_rewind, remove_on_rewind_failure, remove_on_diverged;
	/* watchdog */
	enum watchdog_mode watchdog_mode;
	int64_t watchdog_margin_ms;	  /* -1: ttl / 2 */
	bool custom_bootstrap;		  /* bootstrap.method is not initdb */
	bool custom_stands_by;		  /* its result may be a standby until somebody ends that */
	bool have_bootstrap;		  /* local configuration has a bootstrap section */
	bool no_leader_methods;		  /* some replica method works without a leader (ha K3) */
	struct tags tags;		  /* of this member */
	struct permanent_slot *permanent; /* owned */
	unsigned permanent_count;
	struct ignore_slot *ignore; /* owned */
	unsigned ignore_count;
};

static inline enum sync_mode settings_sync_mode(const struct settings *s)
{
	return s->standby_cluster ? SYNC_OFF : s->sync_mode;
}
void settings_done(struct settings *s); /* frees the arrays */
/* fence_margin = max(1 s, ttl / 20) (DESIGN 2). */
int64_t settings_fence_margin_ms(int64_t ttl_ms);
