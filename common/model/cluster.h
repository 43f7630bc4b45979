/* One snapshot of the cluster as the store describes it (dcs 1). Plain values; made by
 * common/dcs/decode, freed by cluster_free. A snapshot is immutable once made: readers borrow it
 * until the next one replaces it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/limits.h"

/* Effective tags (config 1.12): the boolean, when given, beats the priority. */
struct tags {
	bool nofailover, noloadbalance, clonefrom, nosync, nostream;
	int failover_priority;		/* 0 when nofailover; default 1 */
	int sync_priority;		/* 0 when nosync; default 1 */
	char replicatefrom[LIMIT_NAME]; /* "" = none */
};

struct member {
	char name[LIMIT_NAME];
	char conn_url[LIMIT_URL], api_url[LIMIT_URL]; /* "" = none */
	char state[48], role[24], version[32], replication_state[32];
	uint64_t xlog_location, replay_lsn, receive_lsn; /* 0 = not given */
	int64_t timeline;				 /* 0 = not given */
	bool checkpoint_pending; /* "checkpoint_after_promote": false is there */
	bool pause, pending_restart;
	bool is_pgregent; /* the field "pgregent" is there: low ttl allowed (config 3.4) */
	bool is_patroni;  /* looks like a running Patroni: it has an address, and no such field */
	struct tags tags;
	char session[48];   /* lease or session that owns the key; "" = none */
	int64_t version_no; /* of the key, for write suppression */
	char *json;	    /* the value as stored; owned by the cluster */
};

struct slot_lsn {
	char name[LIMIT_SLOT_NAME];
	uint64_t lsn;
};

struct history_row {
	int64_t timeline;
	uint64_t lsn;
	char reason[200];
	char time[48];		     /* "" = not given */
	char new_leader[LIMIT_NAME]; /* "" = not given */
};

struct failsafe_member {
	char name[LIMIT_NAME];
	char api_url[LIMIT_URL];
};

struct cluster {
	/* initialize */
	bool init_present;
	int64_t init_version;
	char init[32]; /* "" while bootstrap runs, else the system identifier */
	/* config */
	bool config_present, config_valid;
	int64_t config_version; /* modify version; 0 = no valid config */
	char *config_json;	/* owned; NULL when absent or not valid */
	/* leader */
	bool leader_present; /* the key exists; unlocked = !leader_present || leader[0] == 0 */
	char leader[LIMIT_NAME];
	char leader_session[48];
	int64_t leader_version; /* mod_revision for compare-and-swap */
	/* status */
	bool status_present;
	uint64_t last_lsn;
	struct slot_lsn *slots; /* owned */
	unsigned slot_count;
	char (*retain_slots)[LIMIT_SLOT_NAME]; /* owned */
	unsigned retain_count;
	char *status_json; /* as stored, for write suppression; owned, may be NULL */
	/* failover */
	bool failover_present; /* a non-empty request is there */
	bool failover_key_exists;
	int64_t failover_version;
	char failover_leader[LIMIT_NAME], failover_candidate[LIMIT_NAME];
	bool failover_scheduled, failover_schedule_bad; /* bad: no zone or unparsable */
	int64_t failover_at_wall_us;
	char failover_at[48]; /* as it stands in the store, for display */
	/* sync */
	bool sync_key_exists;
	int64_t sync_version;
	char sync_leader[LIMIT_NAME]; /* "" = not active */
	int sync_quorum;
	char (*sync_voters)[LIMIT_NAME]; /* sorted; owned */
	unsigned sync_voter_count;
	/* history */
	bool history_present, history_valid;
	struct history_row *history; /* ascending; owned */
	unsigned history_count;
	char *history_json;
	/* failsafe */
	bool failsafe_present;		  /* a map */
	struct failsafe_member *failsafe; /* owned */
	unsigned failsafe_count;
	int64_t failsafe_version; /* for compare-and-swap; 0 = no key */
	char *failsafe_json;
	/* members, sorted by name */
	struct member *members; /* owned */
	unsigned member_count;
	/* of the snapshot */
	int64_t revision;   /* store revision it shows */
	int64_t read_at_ms; /* boot time just before it was asked for (or of the last proof that it
			       is current) */
};

static inline bool cluster_unlocked(const struct cluster *c)
{
	return !c->leader_present || c->leader[0] == '\0';
}

/* model/cluster.c */
/* The member other than `me` whose session holds the leader key, whatever name it bears; NULL =
 * there is none, or it cannot be told. */
const char *cluster_held_by_other(const struct cluster *c, const char *me);
const struct member *cluster_member_peek(
	const struct cluster *c, const char *name); /* NULL = none */
const struct member *cluster_leader_peek(
	const struct cluster *c); /* member entry of the leader, or NULL */
/* Whose replication slots are kept, and by whom (ha 7.2): other names, other nostream or
 * replicatefrom tags. Positions and states may differ. */
bool cluster_members_differ(const struct cluster *a, const struct cluster *b);
/* Cluster timeline (ha 0): last history row + 1; [] => 1; absent or broken => 0. */
int64_t cluster_timeline(const struct cluster *c);
bool cluster_init_valid(const struct cluster *c); /* at least 10 digits */
/* Name is sync leader or voter / voter; ASCII case does not count (ha 0). */
bool cluster_sync_matches(const struct cluster *c, const char *name);
bool cluster_sync_is_voter(const struct cluster *c, const char *name);
struct cluster *cluster_new(void); /* empty; NULL without memory */
struct cluster *cluster_clone(const struct cluster *c);
void cluster_free(struct cluster *c);
