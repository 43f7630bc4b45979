/* Drives a store backend for the tests: one operation per line on standard input, one JSON document
 * per answer or watch event on standard output. Usage: dcstool BACKEND SECTION_JSON NAME SCOPE
 * TTL_MS RETRY_TIMEOUT_MS. Lines: "OP [key=value ...]" with keys value (no blanks), version,
 * create, leader_only, other, budget; "watch"; "unwatch"; "ttl MS"; end of input closes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/dcs/dcs.h"
#include "common/ext/http.h"

struct tool {
	struct loop loop;
	struct http *http;
	struct dcs *dcs;
	struct dcs_config cfg;
	struct buf in;
};
struct sent {
	struct tool *t;
	int64_t at_ms;
};

static const char *const ops[DCS_OP_COUNT] = { "read", "acquire", "renew", "adopt", "release",
	"touch", "init_race", "init_set", "init_cancel", "config", "status", "failsafe", "history",
	"failover", "sync", "delete_sync", "delete_cluster" };
static const char *const outcomes[] = { "ok", "conflict", "denied", "unknown" };

static void print(json_t *doc)
{
	char *text = json_dumps(doc, JSON_COMPACT);
	printf("%s\n", text);
	fflush(stdout);
	free(text);
	json_decref(doc);
}

static void add_cluster(json_t *doc, struct cluster *c)
{
	if (c == NULL)
		return;
	json_t *members = json_object();
	for (unsigned i = 0; i < c->member_count; i++)
		json_object_set_new(
			members, c->members[i].name, json_string(c->members[i].session));
	json_object_set_new(doc, "members", members);
	json_object_set_new(
		doc, "leader", c->leader_present ? json_string(c->leader) : json_null());
	json_object_set_new(doc, "leader_session", json_string(c->leader_session));
	json_object_set_new(doc, "leader_version", json_integer(c->leader_version));
	json_object_set_new(
		doc, "config", c->config_json != NULL ? json_string(c->config_json) : json_null());
	json_object_set_new(doc, "config_version", json_integer(c->config_version));
	json_object_set_new(doc, "sync_leader", json_string(c->sync_leader));
	json_object_set_new(doc, "sync_version", json_integer(c->sync_version));
	json_object_set_new(doc, "init", c->init_present ? json_string(c->init) : json_null());
	json_object_set_new(doc, "lsn", json_integer((json_int_t)c->last_lsn));
	cluster_free(c);
}

static void on_event(const struct dcs_event *ev, void *arg)
{
	struct sent *s = arg;
	int64_t now_ms = clock_boot_ms();
	json_t *doc = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:b,s:s,s:s}", "op", ops[ev->kind],
		"outcome", outcomes[ev->outcome], "took", (json_int_t)(now_ms - s->at_ms),
		"sent_after", (json_int_t)(ev->sent_at_ms - s->at_ms), "ttl",
		(json_int_t)ev->lease_ttl_ms, "version", (json_int_t)ev->version, "lease_gone",
		ev->lease_gone, "text", ev->text, "session", dcs_session(s->t->dcs));
	add_cluster(doc, ev->cluster);
	print(doc);
	free(s);
}

static void on_watch(const struct dcs_watch_event *ev, void *arg)
{
	(void)arg;
	json_t *doc = json_pack("{s:s,s:b,s:b,s:b,s:b}", "op", "watch", "current", ev->current,
		"leader_changed", ev->leader_changed, "config_changed", ev->config_changed,
		"members_changed", ev->members_changed);
	add_cluster(doc, ev->cluster);
	print(doc);
}

static bool take_option(struct dcs_op *op, const char *word)
{
	int64_t n = 0;
	if (str_starts(word, "value="))
		op->value = word + 6;
	else if (str_starts(word, "version=") && str_to_i64(word + 8, &n))
		op->version = n;
	else if (str_starts(word, "budget=") && str_to_i64(word + 7, &n))
		op->deadline_ms = clock_boot_ms() + n;
	else if (strcmp(word, "create") == 0)
		op->create = true;
	else if (strcmp(word, "leader_only") == 0)
		op->leader_only = true;
	else if (strcmp(word, "other") == 0)
		op->other_endpoint = true;
	else
		return false;
	return true;
}

static void command(struct tool *t, char *line)
{
	struct dcs_op op = { .kind = DCS_OP_COUNT };
	struct err err = ERR_INIT;
	char *save = NULL, *word = strtok_r(line, " ", &save);
	if (word == NULL)
		return;
	if (strcmp(word, "watch") == 0 || strcmp(word, "unwatch") == 0) {
		dcs_watch(t->dcs, word[0] == 'w' ? on_watch : NULL, t);
		return;
	}
	if (strcmp(word, "ttl") == 0) {
		if (!str_to_i64(strtok_r(NULL, " ", &save), &t->cfg.ttl_ms) ||
			dcs_reconfigure(t->dcs, &t->cfg, &err) != ERR_OK)
			log_error("ttl: %s", err.text);
		return;
	}
	for (unsigned i = 0; i < DCS_OP_COUNT; i++) {
		if (strcmp(word, ops[i]) == 0)
			op.kind = i;
	}
	bool ok = op.kind != DCS_OP_COUNT;
	while (ok && (word = strtok_r(NULL, " ", &save)) != NULL)
		ok = take_option(&op, word);
	struct sent *s = ok ? malloc(sizeof(*s)) : NULL;
	if (s == NULL) {
		log_error("not understood: %s", word);
		return;
	}
	*s = (struct sent){ t, clock_boot_ms() };
	dcs_submit(t->dcs, &op, on_event, s);
}

static void on_input(struct loop *l, int fd, short revents, void *arg)
{
	(void)revents;
	struct tool *t = arg;
	char bytes[4096];
	ssize_t n = read(fd, bytes, sizeof(bytes));
	if (n <= 0) {
		loop_stop(l);
		return;
	}
	buf_add(&t->in, bytes, (size_t)n);
	char *nl;
	while (t->in.len > 0 && (nl = memchr(t->in.data, '\n', t->in.len)) != NULL) {
		*nl = '\0';
		size_t len = (size_t)(nl - t->in.data) + 1;
		command(t, t->in.data);
		buf_consume(&t->in, len);
	}
}

static int run(struct tool *t, struct err *err)
{
	loop_init(&t->loop, http_loop_wait, &t->http);
	if (http_new(&t->http, &t->loop, err) != ERR_OK ||
		dcs_open(&t->dcs, &t->cfg, &t->loop, t->http, err) != ERR_OK ||
		loop_fd_set(&t->loop, 0, POLLIN, on_input, t, err) != ERR_OK ||
		loop_run(&t->loop, err) != ERR_OK)
		return 1;
	dcs_close(t->dcs);
	http_free(t->http);
	loop_done(&t->loop);
	buf_done(&t->in);
	return 0;
}

int main(int argc, char **argv)
{
	static struct tool t = { .in = BUF_INIT(1 << 20) };
	struct err err = ERR_INIT;
	json_error_t je;
	if (argc != 7)
		return 2;
	json_t *section = json_loads(argv[2], 0, &je);
	t.cfg = (struct dcs_config){
		.section = section, .namespace_ = "service", .loop_wait_ms = 1000, .citus_group = -1
	};
	if (!str_copy(t.cfg.backend, sizeof(t.cfg.backend), argv[1]) ||
		!str_copy(t.cfg.name, sizeof(t.cfg.name), argv[3]) ||
		!str_copy(t.cfg.scope, sizeof(t.cfg.scope), argv[4]) ||
		!str_to_i64(argv[5], &t.cfg.ttl_ms) ||
		!str_to_i64(argv[6], &t.cfg.retry_timeout_ms))
		return 2;
	log_open("dcstool: ", 2, LOG_DEBUG);
	int rc = run(&t, &err);
	if (rc != 0)
		log_error("%s", err.text);
	json_decref(section);
	return rc;
}
