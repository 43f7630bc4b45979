/* The keeper's rules: when the leader key is adopted, renewed, re-sent, reported, released (DESIGN
 * 2). Pure, like all of worker/ha: events in, a few ordered actions out, no I/O, no clock.
 * worker/keeper.c carries the actions out, tests/sim runs the same object file. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/model/ha_plan.h"
#include "common/model/ha_view.h"

enum keeper_op {
	KEEPER_OP_NONE = 0,
	KEEPER_OP_RENEW,   /* lease kept alive AND the key proven mine afterwards */
	KEEPER_OP_ACQUIRE, /* create the key with my lease */
	KEEPER_OP_ADOPT,   /* compare-and-swap on .version: the key of my predecessor moves to my
			      lease */
	KEEPER_OP_TAKE,	   /* end of bootstrap: a renewal, or an acquire where it is not held; never
			      sent as such */
	KEEPER_OP_RELEASE, /* delete if held by my lease and, when .version is not 0, at that
			      revision */
};

enum keeper_event_kind {
	KEEPER_TICK = 0,   /* the time keeper_next_ms() named has come */
	KEEPER_CONFIG,	   /* timings, pause */
	KEEPER_VERDICT,	   /* of the HA decision whose view was taken at .at_ms */
	KEEPER_SNAPSHOT,   /* a current snapshot of the store */
	KEEPER_ACQUIRE,	   /* HA_ACQUIRE */
	KEEPER_TAKE,	   /* HA_TAKE_LEADER */
	KEEPER_RELEASE,	   /* HA_RELEASE; PostgreSQL was proven harmless before */
	KEEPER_ANSWER,	   /* outcome of a KEEPER_SEND */
	KEEPER_ACK,	   /* the supervisor's answer to a KEEPER_REPORT */
	KEEPER_FAILSAFE,   /* a complete failsafe round that was sent at .at_ms */
	KEEPER_SUPERVISOR, /* the supervisor fell silent, or is heard again */
	KEEPER_PROOF,	   /* a proof that the standby is one has just been sent */
	KEEPER_DOUBT,	   /* HA_RENEW: the supervisor may not stand on the lease any more */
};

struct keeper_event {
	enum keeper_event_kind kind;
	/* CONFIG */
	int64_t ttl_ms, loop_wait_ms, retry_timeout_ms;
	bool paused, pause_enforce;
	bool unproven; /* a standby runs, and its last proof is not fresh */
	/* VERDICT */
	enum ha_verdict verdict;
	int64_t at_ms; /* VERDICT, FAILSAFE */
	/* SNAPSHOT */
	bool leader_is_me, session_is_mine, no_leader; /* no_leader: the key is not there at all */
	int64_t leader_version, revision;
	/* ACQUIRE, TAKE, RELEASE */
	int64_t deadline_ms;
	/* ANSWER */
	enum keeper_op op;
	uint32_t epoch; /* as in the KEEPER_SEND */
	enum ha_outcome outcome;
	int64_t sent_at_ms, lease_ttl_ms, version;
	bool lease_gone;
	/* ACK */
	uint64_t seq;
	bool accepted;
	/* SUPERVISOR */
	bool alive;
};

enum keeper_action_kind {
	KEEPER_SEND = 1, /* submit .op; .other: on another endpoint and connection than the previous
			    one */
	KEEPER_REPORT,	 /* MSG_LEASE to the supervisor */
	KEEPER_DONE,	 /* result of KEEPER_ACQUIRE, TAKE, RELEASE: hand it to ha_step */
	KEEPER_SET_TTL, /* .ttl_ms: the store may be told of it now (dcs_reconfigure); not before */
	KEEPER_WAKE,	/* the lock changed in a way that the rules must see now */
	KEEPER_PROVE, /* ask PostgreSQL whether it is a standby; KEEPER_PROOF follows, or nothing */
};

struct keeper_action {
	enum keeper_action_kind kind;
	enum keeper_op op;
	uint32_t epoch;
	bool other, pause_enforce;
	uint32_t policy; /* enum lease_policy */
	int64_t version, deadline_ms;
	uint64_t seq;
	int64_t sent_at_ms, lease_until_ms, ttl_ms;
	enum ha_outcome outcome;
};

#define KEEPER_ACTIONS_MAX	8
#define KEEPER_OPEN_MAX		8    /* renewals under way at a time */
#define KEEPER_REGAIN_MS	500  /* for one answer, at most; a tenth of a short ttl */
#define KEEPER_REPEAT_MS	200  /* between repeats of a renewal that stays without an answer */
#define KEEPER_REPEAT_BUDGET_MS 1000 /* of a repeat: the next one follows soon */
#define KEEPER_ACK_WAIT_MS	500  /* a report without an answer is made again */

struct keeper_plan {
	struct keeper_action actions[KEEPER_ACTIONS_MAX];
	unsigned count;
};

enum keeper_phase {
	KEEPER_START = 0, /* no snapshot seen yet by this incarnation */
	KEEPER_IDLE,	  /* the key is not ours */
	KEEPER_ADOPTING,
	KEEPER_ACQUIRING,
	KEEPER_HOLDING,	  /* the key is ours, or was when we last looked */
	KEEPER_ZEROING,	  /* release asked: lease 0 reported, not acknowledged yet */
	KEEPER_RELEASING, /* the release is on its way */
	KEEPER_REGAINING, /* the key vanished under a lease that lasts: taken again, or lost */
};

/* Plain data, copied freely. Zero it, then keeper_init(). */
struct keeper {
	enum keeper_phase phase;
	int64_t ttl_ms, loop_wait_ms, retry_timeout_ms;
	bool paused, pause_enforce, supervisor_silent;
	/* The end of a pause waits for a proof: until then, and what comes then. */
	int64_t resume_at_ms; /* 0 = nothing waits */
	bool next_paused, next_pause_enforce;
	bool lost; /* proven lost, and the supervisor has not accepted lease 0 yet: PostgreSQL may
		      still write */
	enum ha_verdict verdict;
	int64_t verdict_at_ms;
	uint32_t epoch;	     /* answers to sends of an earlier epoch are void */
	int64_t key_version; /* revision of the key when it became ours */
	int64_t adopt_version;
	int64_t given_up_version; /* a release of this revision may still arrive; 0 = none */
	int64_t released_version; /* this revision was deleted by us; 0 = none */
	/* proven by the store */
	int64_t lease_sent_ms, lease_until_ms, lease_ttl_ms;
	int64_t failsafe_sent_ms, failsafe_until_ms;
	/* reports */
	uint64_t seq, ack_seq;
	int64_t report_sent_at_ms, report_until_ms, report_made_ms, acked_until_ms, last_sent_at_ms;
	uint32_t report_policy;
	int64_t store_ttl_ms; /* what the store was told last; 0 = nothing */
	uint64_t ttl_seq;     /* report whose acknowledgement lets a shorter ttl go out; 0 = none */
	/* renewals */
	int64_t renew_at_ms, resend_at_ms, unanswered_since_ms;
	int64_t regain_until_ms; /* REGAINING: without an answer until then it is lost */
	unsigned open;
	/* a command that waits for its end */
	enum keeper_op pending;
	int64_t pending_deadline_ms;
};

/* A new incarnation: seq and lease_until as the supervisor's welcome gave them. */
void keeper_init(struct keeper *k, uint64_t lease_seq, int64_t inherited_until_ms, int64_t now_ms);
void keeper_step(
	struct keeper *k, const struct keeper_event *ev, int64_t now_ms, struct keeper_plan *plan);
/* When to call with KEEPER_TICK; INT64_MAX = not before another event. */
int64_t keeper_next_ms(const struct keeper *k, int64_t now_ms);

/* What the view shows. */
enum ha_lock keeper_lock(const struct keeper *k, int64_t now_ms);
bool keeper_busy(const struct keeper *k); /* an acquire or adoption is under way */
/* A bootstrap wants the key: it has it, may ask for it, or must leave alone what is under way. */
enum keeper_key { KEEPER_KEY_MINE, KEEPER_KEY_ASK, KEEPER_KEY_WAIT };
enum keeper_key keeper_key_of(const struct keeper *k, int64_t now_ms);
int64_t keeper_lease_until_ms(const struct keeper *k);
int64_t keeper_gentle_ms(const struct keeper *k); /* 0 = no lease */
/* A verdict serves for 2 * loop_wait + retry_timeout (DESIGN 4). */
bool keeper_verdict_holds(const struct keeper *k, int64_t now_ms);
/* lease_until - fence_margin - ttl/6. */
int64_t keeper_gentle_of(int64_t lease_until_ms, int64_t ttl_ms);
