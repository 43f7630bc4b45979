/* Configuration to bytes. Worker process. See render.h. */
#include "worker/postgres/render.h"

#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/postgres/argv.h"
#include "worker/postgres/conf_write.h"
#include "worker/postgres/params.h"

bool render_uses_base(const struct pgctx *p)
{
	const char *custom = json_path_str(p->pg, "custom_conf");
	return custom == NULL || custom[0] == '\0';
}

void render_recovery_names(struct buf *out)
{
	params_recovery_names(out);
}

static const char *role_suffix(enum pg_role role)
{
	return role == PG_ROLE_PRIMARY || role == PG_ROLE_PROMOTED ? "primary"
	       : role == PG_ROLE_STANDBY_LEADER			   ? "standby_leader"
								   : "replica";
}

void render_log_notes(const struct buf *notes)
{
	const char *p = buf_str(notes);
	while (*p != '\0') {
		size_t n = strcspn(p, "\n");
		if (n > 0)
			log_warning("%.*s", (int)n, p);
		p += n + (p[n] == '\n');
	}
}

/* Only while the new cluster is made: what is left of a failed one must not reach a later server.
 */
static const json_t *custom_recovery(const struct pgctx *p)
{
	return p->bootstrapping ? p->custom_recovery : NULL;
}

bool render_keeps_recovery(const struct pgctx *p)
{
	return p->bootstrapping && p->keep_recovery;
}

static bool custom_bootstrap(const struct pgctx *p)
{
	return p->bootstrapping && p->custom_bootstrap;
}

/* pg_hba and pg_ident lists of the role (config 1.8). */
static void render_lines(const struct pgctx *p, const char *key, enum pg_role role, struct buf *out)
{
	const json_t *file = params_get(json_object_get(p->pg, "parameters"),
		strcmp(key, "pg_hba") == 0 ? "hba_file" : "ident_file");
	if (!json_truthy(file) &&
		!conf_write_lines(conf_role_list(p->pg, key, role_suffix(role)), out))
		buf_reset(out); /* not ours to write */
}

/* While the script's copy is not ours yet, its own rules may not let us in, and let others in. */
static void bootstrap_hba(const struct pgctx *p, struct buf *out)
{
	static const char *const loopback[] = { "127.0.0.1", "::1" };
	const char *one[] = { p->local_host };
	bool named = strcmp(p->local_host, "localhost") == 0;
	const char *repl = pgctx_auth(p, "replication", "username");
	conf_write_bootstrap_hba(repl != NULL ? repl : "all",
		pgctx_auth(p, "superuser", "username"), named ? loopback : one,
		p->local_host[0] == '/' || p->local_host[0] == '\0' ? 0
		: named						    ? ARRAY_LEN(loopback)
								    : 1,
		out);
}

static enum err_code want_recovery(const struct pgctx *p, const struct pg_target *t,
	const json_t *conf, struct recovery *out, struct err *err)
{
	struct recovery_env e = { .major = p->major,
		.name = p->name,
		.database = p->database,
		.krbsrvname = json_path_str(p->pg, "krbsrvname"),
		.pgpass = p->pgpass,
		.auth = json_path(p->pg, "authentication.replication"),
		.conf = conf,
		.standby = p->standby,
		.use_slots = p->set->use_slots,
		.from = RECOVERY_FROM_NONE };
	/* A remote cluster known by its archive alone has no host: nothing is streamed. */
	if (t->kind != TARGET_NONE && t->host[0] != '\0') {
		e.from = t->kind == TARGET_REMOTE ? RECOVERY_FROM_REMOTE : RECOVERY_FROM_MEMBER;
		e.from_name = t->name;
		e.host = t->host;
		e.port = t->port[0] != '\0' ? t->port : NULL;
		e.slot = p->set->standby_slot;
		e.no_slot = json_object_get(p->standby, "primary_slot_name") == NULL;
	}
	return recovery_want(&e, out, err);
}

/* What a primary keeps for its next life as a standby; it does no harm now. */
static bool primary_recovery(const json_t *conf, struct recovery *out)
{
	static const char *const keep[] = { "restore_command", "archive_cleanup_command",
		"recovery_end_command" };
	memset(out, 0, sizeof(*out));
	out->settings = json_object();
	bool ok = out->settings != NULL;
	for (unsigned i = 0; i < ARRAY_LEN(keep); i++) {
		json_t *v = params_get(conf, keep[i]);
		if (v != NULL)
			ok = ok && params_set_new(out->settings, keep[i], json_incref(v));
	}
	return ok;
}

static void params_env_of(
	const struct pgctx *p, enum pg_role role, char *overlay, size_t len, struct params_env *env)
{
	memset(env, 0, sizeof(*env));
	env->scope = p->scope;
	env->listen = json_path_str(p->pg, "listen");
	env->config_dir = p->config_dir;
	env->major = p->major;
	env->sync_mode = settings_sync_mode(p->set) != SYNC_OFF;
	env->sync_strict_primary =
		p->set->sync_strict && (role == PG_ROLE_PRIMARY || role == PG_ROLE_PROMOTED);
	env->ssn = p->ssn_managed ? p->ssn : NULL;
	if (str_format(overlay, len, "parameters_%s", role_suffix(role)))
		env->overlay = overlay;
	env->hot_standby_feedback = p->hot_standby_feedback;
}

/* As written: what table A.2 drops or moves to a limit must not count as a difference. */
static bool as_written(const struct pgctx *p, struct recovery *r)
{
	AUTO(buf) text = BUF_INIT(LIMIT_CONNINFO * 4);
	AUTO(buf) note = BUF_INIT(1024);
	const char *key;
	json_t *v, *kept = json_object();
	bool ok = kept != NULL;
	json_object_foreach(r->settings, key, v)
	{
		buf_reset(&text);
		buf_reset(&note);
		if (params_check(key, v, p->major * 10000, true, &text, &note) == PARAM_KEEP)
			ok = ok && params_set_new(kept, key, json_string(buf_str(&text)));
	}
	json_decref(r->settings);
	r->settings = kept;
	conninfo_del(&r->conninfo, "password");
	conninfo_del(&r->conninfo, "passfile");
	return ok && !text.failed;
}

enum err_code render_recovery(
	struct pgctx *p, const struct pg_target *target, struct recovery *out, struct err *err)
{
	struct params_env env;
	char overlay[40];
	json_t *params = NULL, *recovery = NULL;
	AUTO(buf) notes = BUF_INIT(16384); /* told when the files are written */
	params_env_of(p, p->role, overlay, sizeof(overlay), &env);
	memset(out, 0, sizeof(*out));
	enum err_code rc = params_compute(p->pg, &env, &params, &recovery, &notes, err);
	if (rc == ERR_OK)
		rc = want_recovery(p, target, recovery, out, err);
	if (rc == ERR_OK && !as_written(p, out)) {
		recovery_done(out);
		rc = err_set(err, ERR_PARSE, 0, "recovery settings");
	}
	json_decref(params);
	json_decref(recovery);
	return rc;
}

static enum err_code recovery_lines(struct pgctx *p, enum pg_role role,
	const struct pg_target *target, const json_t *conf, struct render_texts *out,
	struct buf *lines, struct buf *notes, struct err *err)
{
	static struct recovery r; /* large */
	bool standby = role != PG_ROLE_PRIMARY && role != PG_ROLE_PROMOTED;
	enum err_code rc = ERR_OK;
	memset(&r, 0, sizeof(r));
	if (standby)
		rc = want_recovery(p, target, conf, &r, err);
	else if (custom_recovery(p) != NULL)
		rc = recovery_from_conf(custom_recovery(p), p->major, &r, err);
	else if (render_keeps_recovery(p) || p->major < 12)
		return ERR_OK;
	else if (!primary_recovery(conf, &r))
		rc = err_set(err, ERR_NOMEM, 0, "recovery settings");
	if (rc == ERR_OK)
		recovery_write(&r, p->major, p->pgpass, lines, &out->pass, notes);
	recovery_done(&r);
	return rc;
}

/* The table knows the settings of all supported versions: with any other name the server would not
 * start. */
static bool never_listed(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return false;
}

static enum err_code write_main(struct pgctx *p, const json_t *params, const char *lines,
	struct buf *out, struct buf *notes, struct err *err)
{
	char base[LIMIT_NAME + 16], hba[LIMIT_PATH + 16], ident[LIMIT_PATH + 16];
	struct conf_env env = { .version = p->major * 10000,
		.include = base,
		.hba_file = hba,
		.ident_file = ident,
		.custom_bootstrap = custom_bootstrap(p),
		.listed = never_listed };
	if (!str_format(base, sizeof(base), "%s.base.conf", p->conf_name) ||
		!str_format(hba, sizeof(hba), "%s/pg_hba.conf", p->config_dir) ||
		!str_format(ident, sizeof(ident), "%s/pg_ident.conf", p->config_dir))
		return err_set(err, ERR_LIMIT, 0, "configuration directory: path is too long");
	if (!render_uses_base(p))
		env.include = json_path_str(p->pg, "custom_conf");
	return conf_write_main(&env, params, lines, out, notes)
		       ? ERR_OK
		       : err_set(err, ERR_LIMIT, 0, "postgresql.conf is too long");
}

void render_texts_done(struct render_texts *t)
{
	buf_done(&t->conf);
	buf_done(&t->hba);
	buf_done(&t->ident);
	buf_done(&t->pass);
	buf_done(&t->recovery);
}

/* Files are rendered at each start, reload and change of a standby: what is wrong with the settings
 * is said once, and again when it is something else. */
static void notes_changed(struct pgctx *p, const struct buf *notes)
{
	uint64_t hash = 14695981039346656037u;
	for (const char *c = buf_str(notes); *c != '\0'; c++)
		hash = (hash ^ (unsigned char)*c) * 1099511628211u;
	if (hash != p->notes_hash)
		render_log_notes(notes);
	p->notes_hash = hash;
}

enum err_code render_all(struct pgctx *p, enum pg_role role, const struct pg_target *target,
	const struct pg_control *control, struct render_texts *out, struct err *err)
{
	struct params_env env;
	char overlay[40];
	json_t *params = NULL, *recovery = NULL, *diff = NULL;
	AUTO(buf) notes = BUF_INIT(16384);
	AUTO(buf) lines = BUF_INIT(LIMIT_CONNINFO * 8);
	params_env_of(p, role, overlay, sizeof(overlay), &env);
	enum err_code rc = params_compute(p->pg, &env, &params, &recovery, &notes, err);
	if (rc == ERR_OK && control != NULL && control->valid && role != PG_ROLE_PRIMARY)
		rc = params_floor(params, control, p->major, &diff, err);
	if (json_object_size(diff) > 0) {
		json_decref(p->pending_restart);
		p->pending_restart = json_incref(diff);
	}
	if (rc == ERR_OK)
		rc = recovery_lines(p, role, target, recovery, out, &lines, &notes, err);
	/* Before 12 they are a file of their own, and no settings. */
	bool own_file = p->major < 12;
	if (rc == ERR_OK)
		rc = write_main(
			p, params, own_file ? "" : buf_str(&lines), &out->conf, &notes, err);
	if (own_file && lines.len > 0)
		buf_addf(&out->recovery, "%s%s", conf_header, buf_str(&lines));
	if (custom_bootstrap(p))
		bootstrap_hba(p, &out->hba);
	else
		render_lines(p, "pg_hba", role, &out->hba);
	render_lines(p, "pg_ident", role, &out->ident);
	notes_changed(p, &notes);
	json_decref(params);
	json_decref(recovery);
	json_decref(diff);
	if (rc == ERR_OK && (out->conf.failed || out->hba.failed || out->ident.failed ||
				    out->pass.failed || out->recovery.failed || lines.failed))
		rc = err_set(err, ERR_LIMIT, 0, "a configuration file is too long");
	return rc;
}

static bool promotes_itself(const struct pgctx *p)
{
	const json_t *action = params_get(custom_recovery(p), "recovery_target_action");
	return json_is_string(action) && str_eq_nocase(json_string_value(action), "promote");
}

const char *render_custom_signal(const struct pgctx *p)
{
	if (custom_recovery(p) == NULL || p->major < 12)
		return NULL;
	struct recovery r = { .settings = (json_t *)custom_recovery(p) };
	return recovery_signal_file(&r, p->major);
}

enum err_code render_postmaster(struct pgctx *p, enum pg_role role,
	const struct pg_control *control, struct host_cmd *cmd, struct err *err)
{
	struct params_env env;
	char overlay[40], program[LIMIT_PATH];
	json_t *params = NULL, *recovery = NULL, *diff = NULL;
	AUTO(buf) notes = BUF_INIT(16384);
	char conf[LIMIT_PATH * 2];
	struct argv argv = ARGV_INIT;
	if (!pgctx_program(p, "postgres", program, sizeof(program)) ||
		!str_format(conf, sizeof(conf), "%s/%s.conf", p->config_dir, p->conf_name))
		return err_set(err, ERR_LIMIT, 0, "path of postgres is too long");
	params_env_of(p, role, overlay, sizeof(overlay), &env);
	enum err_code rc = params_compute(p->pg, &env, &params, &recovery, &notes, err);
	if (rc == ERR_OK && control->valid && role != PG_ROLE_PRIMARY)
		rc = params_floor(params, control, p->major, &diff, err);
	/* A cluster that promotes itself at its target is not read before. */
	if (rc == ERR_OK && (promotes_itself(p) || render_keeps_recovery(p)) &&
		!params_set_new(params, "hot_standby", json_string("off")))
		rc = err_set(err, ERR_NOMEM, 0, "command line");
	if (rc == ERR_OK)
		argv_postmaster(&argv, program, p->data_dir, conf, params);
	host_cmd_take(cmd, &argv);
	json_decref(params);
	json_decref(recovery);
	json_decref(diff);
	return rc;
}

/* The server marks a setting that its file changed. One that stands on the command line it never
 * marks: for these we compare ourselves (config 4.6). */
void render_pending_sql(struct buf *out)
{
	const char *comma = "";
	buf_adds(out, "SELECT name, setting, unit, vartype, pending_restart FROM "
		      "pg_catalog.pg_settings WHERE name <> 'hot_standby' AND (pending_restart OR "
		      "name IN (");
	for (unsigned i = 0; i < params_ours_count; i++) {
		if (!params_ours[i].cmdline)
			continue;
		buf_addf(out, "%s'%s'", comma, params_ours[i].name);
		comma = ", ";
	}
	buf_adds(out, "))");
}

static void add_pending(json_t *map, const json_t *params, const PGresult *res, int row)
{
	const char *name = PQgetvalue(res, row, 0), *vartype = PQgetvalue(res, row, 3);
	const char *unit = PQgetisnull(res, row, 2) ? NULL : PQgetvalue(res, row, 2);
	const char *setting = PQgetvalue(res, row, 1);
	const json_t *v = params_get(params, name);
	AUTO(buf) old = BUF_INIT(4096);
	AUTO(buf) text = BUF_INIT(4096);
	AUTO(buf) new_ = BUF_INIT(4096);
	if (v != NULL)
		params_text(v, &text);
	bool marked = PQgetvalue(res, row, 4)[0] == 't';
	bool differs = v != NULL && !params_equal(vartype, unit, setting, buf_str(&text));
	if (params_is_recovery(name) || (!marked && !differs))
		return;
	params_pretty(setting, vartype, unit, &old);
	if (v != NULL)
		params_pretty(buf_str(&text), vartype, unit, &new_);
	json_object_set_new(map, name,
		json_pack("{s:s,s:s}", "old_value", buf_str(&old), "new_value",
			v != NULL ? buf_str(&new_) : "?"));
}

void render_take_pending(struct pgctx *p, const PGresult *res)
{
	struct params_env env;
	struct err err = ERR_INIT;
	char overlay[40];
	json_t *params = NULL, *recovery = NULL, *map = json_object();
	AUTO(buf) notes = BUF_INIT(16384); /* told when the files were written */
	params_env_of(p, p->role, overlay, sizeof(overlay), &env);
	if (params_compute(p->pg, &env, &params, &recovery, &notes, &err) != ERR_OK)
		log_error("pending restart: %s", err.text);
	for (int i = 0; params != NULL && res != NULL && i < PQntuples(res); i++)
		add_pending(map, params, res, i);
	json_decref(params);
	json_decref(recovery);
	json_decref(p->pending_restart);
	p->pending_restart = NULL;
	if (json_object_size(map) > 0)
		p->pending_restart = map;
	else
		json_decref(map);
}
