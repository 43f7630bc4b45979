/* The process of api and what its parts know of each other. One struct, owned by main.c. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "api/http.h"
#include "api/names.h"
#include "api/ports.h"
#include "api/settings.h"
#include "api/view.h"
#include "common/core/ipc.h"
#include "common/core/loop.h"

#define API_PENDING 64 /* commands that wait for the worker at a time */

/* The facts of PostgreSQL, asked for at most once at a time and shared (DESIGN 6). */
struct facts {
	uint64_t id; /* of the question under way, 0 = none */
	int64_t sent_at_ms;
	bool hanging; /* the question under way took over API_FACTS_MS: nobody waits for it */
	struct request *attached; /* arrived before it was sent */
	struct request *next;	  /* arrived after it was sent: they get a question of their own */
	struct loop_timer timer;
};

/* Commands that wait for the worker. */
struct pending {
	struct {
		uint64_t id; /* 0 = free */
		int64_t deadline_ms;
		struct request *request;
	} rows[API_PENDING];
	struct loop_timer timer;
};

struct api {
	struct loop loop;
	struct ipc_rx rx;
	struct view view;
	struct api_settings settings;
	bool configured; /* settings have been read */
	uint64_t settings_serial;
	int worker_fd; /* -1 = none */
	uint64_t next_id;
	struct facts facts;
	struct pending pending;
	struct names names;
	struct http http;
	struct ports ports;
};

/* serve.c: a request is complete; every one ends in exactly one reply_*. */
void serve_request(struct request *r);
/* serve.c: the facts are there (or NULL: they are not): answer. */
void serve_with_facts(struct request *r, const json_t *facts);
/* actions.c */
void action_start(struct request *r);
void action_answer(struct api *a, const struct ipc_msg *m);
void action_worker_gone(struct api *a);
void action_forget(struct request *r);
/* facts.c */
void facts_want(struct request *r);
void facts_flush(struct api *a); /* after each turn: ask for those that came in it */
bool facts_answer(struct api *a, const struct ipc_msg *m); /* false: not the facts' id */
void facts_worker_gone(struct api *a);			   /* or replaced */
void facts_forget(struct request *r);
/* link.c: the settings are served, or why not. */
void link_report(struct api *a, bool listening, const char *text);
/* link.c: send to the worker. ERR_CLOSED: there is none. */
MUST_USE enum err_code link_ask(struct api *a, enum api_kind kind, uint64_t id, int64_t deadline_ms,
	const char *tail, size_t len, struct err *err);
