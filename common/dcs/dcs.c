/* The store's interface: dispatch, choice of the backend, paths. See dcs.h. */
#include "common/dcs/dcs.h"

#include <stdio.h>
#include <string.h>

#include "common/core/str.h"
#include "common/dcs/etcd3.h"

static const struct dcs_ops *const backends[] = { &dcs_etcd3 };

/* The order in which the reference looks for a section (dcs 0). */
static const char *const sections[] = { "consul", "etcd", "etcd3", "exhibitor", "kubernetes",
	"raft", "zookeeper" };

const char *dcs_op_name(enum dcs_op_kind kind)
{
	static const char *const names[DCS_OP_COUNT] = { "read", "acquire leader", "renew leader",
		"adopt leader", "release leader", "touch member", "initialize race", "initialize",
		"cancel initialize", "config", "status", "failsafe", "history", "failover", "sync",
		"delete sync", "delete cluster" };
	return (unsigned)kind < DCS_OP_COUNT ? names[kind] : "?";
}

const struct dcs_ops *dcs_backend(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(backends); i++) {
		if (strcmp(backends[i]->name, name) == 0)
			return backends[i];
	}
	return NULL;
}

enum err_code dcs_choose(const json_t *local_tree, char out_backend[static 16], char *out_others,
	size_t others_len, struct err *err)
{
	out_backend[0] = '\0';
	if (others_len > 0)
		out_others[0] = '\0';
	for (unsigned i = 0; i < ARRAY_LEN(sections); i++) {
		if (json_object_get(local_tree, sections[i]) == NULL)
			continue;
		if (out_backend[0] == '\0') {
			snprintf(out_backend, 16, "%s", sections[i]);
		} else {
			size_t n = strlen(out_others);
			snprintf(out_others + n, others_len - n, "%s%s", n > 0 ? ", " : "",
				sections[i]);
		}
	}
	if (out_backend[0] == '\0')
		return err_set(err, ERR_NOTFOUND, 0,
			"Can not find suitable configuration of distributed configuration store: "
			"one of consul, etcd, "
			"etcd3, exhibitor, kubernetes, raft, zookeeper is needed");
	return ERR_OK;
}

enum err_code dcs_open(struct dcs **out, const struct dcs_config *cfg, struct loop *loop,
	struct http *http, struct err *err)
{
	const struct dcs_ops *ops = dcs_backend(cfg->backend);
	if (ops == NULL)
		return err_set(err, ERR_STATE, 0,
			"store %s is not built yet: this version has etcd3", cfg->backend);
	return ops->open(out, cfg, loop, http, err);
}

static const struct dcs_ops *ops_of(struct dcs *d)
{
	return ((struct dcs_base *)d)->ops;
}

enum err_code dcs_reconfigure(struct dcs *d, const struct dcs_config *cfg, struct err *err)
{
	return ops_of(d)->reconfigure(d, cfg, err);
}

uint64_t dcs_submit(struct dcs *d, const struct dcs_op *op, dcs_done_fn fn, void *arg)
{
	return ops_of(d)->submit(d, op, fn, arg);
}

void dcs_watch(struct dcs *d, dcs_watch_fn fn, void *arg)
{
	ops_of(d)->watch(d, fn, arg);
}

const char *dcs_session(struct dcs *d)
{
	return ops_of(d)->session(d);
}

bool dcs_owns(struct dcs *d, const char *session)
{
	return session[0] != '\0' && ops_of(d)->owns(d, session);
}

void dcs_close(struct dcs *d)
{
	if (d != NULL)
		ops_of(d)->close(d);
}

enum err_code dcs_prefix(const struct dcs_config *cfg, char *out, size_t out_len, struct err *err)
{
	char raw[3 * LIMIT_NAME];
	bool fits = cfg->citus_group >= 0
			    ? str_format(raw, sizeof(raw), "/%s/%s/%d/", cfg->namespace_,
				      cfg->scope, cfg->citus_group)
			    : str_format(raw, sizeof(raw), "/%s/%s/", cfg->namespace_, cfg->scope);
	size_t n = 0;
	if (!fits || strlen(raw) >= out_len)
		return err_set(err, ERR_LIMIT, 0, "namespace and scope are too long: %s %s",
			cfg->namespace_, cfg->scope);
	/* Runs of slashes collapse. */
	for (const char *p = raw; *p != '\0'; p++) {
		if (*p != '/' || n == 0 || out[n - 1] != '/')
			out[n++] = *p;
	}
	out[n] = '\0';
	return ERR_OK;
}
