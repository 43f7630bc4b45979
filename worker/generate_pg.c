/* --generate-config: what a running PostgreSQL says of itself (config 6.5). One-shot: it blocks on
 * libpq and on the terminal. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "common/config/generate.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/oneshot.h"
#include "worker/postgres/params.h"

#define CONNECT_SECONDS "10"
#define LINE_MAX_BYTES	8192

/* Connection words that authentication.superuser may hold (config 1.9). */
static const struct {
	const char *word, *variable;
	int version;	    /* of the server, from which on it is known */
	const char *preset; /* with a DSN that does not say it */
} words[] = {
	{ "user", "PGUSER", 0, NULL },
	{ "password", "PGPASSWORD", 0, NULL },
	{ "sslmode", "PGSSLMODE", 0, "prefer" },
	{ "sslcert", "PGSSLCERT", 0, NULL },
	{ "sslkey", "PGSSLKEY", 0, NULL },
	{ "sslpassword", NULL, 130000, NULL },
	{ "sslrootcert", "PGSSLROOTCERT", 0, NULL },
	{ "sslcrl", "PGSSLCRL", 0, NULL },
	{ "sslcrldir", "PGSSLCRLDIR", 140000, NULL },
	{ "gssencmode", "PGGSSENCMODE", 120000, "prefer" },
	{ "channel_binding", "PGCHANNELBINDING", 130000, "prefer" },
	{ "sslnegotiation", "PGSSLNEGOTIATION", 170000, "postgres" },
};

static const char *dsn_word(const PQconninfoOption *dsn, const char *word)
{
	for (; dsn != NULL && dsn->keyword != NULL; dsn++) {
		if (strcmp(dsn->keyword, word) == 0)
			return dsn->val;
	}
	return NULL;
}

static const char *os_user(void)
{
	static const char *const variables[] = { "LOGNAME", "USER" };
	for (unsigned i = 0; i < ARRAY_LEN(variables); i++) {
		const char *v = getenv(variables[i]);
		if (v != NULL && v[0] != '\0')
			return v;
	}
	const struct passwd *pw = getpwuid(getuid());
	return pw != NULL ? pw->pw_name : "postgres";
}

/* From the terminal without echo; without one from standard input. */
static enum err_code ask_password(char *out, size_t len, struct err *err)
{
	struct termios old, quiet;
	FILE *tty = fopen("/dev/tty", "r+e");
	FILE *in = tty != NULL ? tty : stdin;
	fputs("Please enter the user password:", tty != NULL ? tty : stderr);
	fflush(tty != NULL ? tty : stderr);
	bool echo = tcgetattr(fileno(in), &old) == 0;
	if (echo) {
		quiet = old;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(fileno(in), TCSAFLUSH, &quiet);
	}
	bool ok = fgets(out, (int)len, in) != NULL;
	if (echo)
		tcsetattr(fileno(in), TCSAFLUSH, &old);
	fputs("\n", tty != NULL ? tty : stderr);
	if (tty != NULL)
		fclose(tty);
	out[ok ? strcspn(out, "\r\n") : 0] = '\0';
	return ok ? ERR_OK
		  : err_set(err, ERR_STATE, 0,
			    "a password is needed: in the DSN, in PGPASSWORD, or on the terminal");
}

static enum err_code superuser(json_t **out, const PQconninfoOption *dsn, struct err *err)
{
	char password[1024];
	json_t *su = json_object();
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		const char *v = dsn_word(dsn, words[i].word);
		if (v == NULL && words[i].variable != NULL)
			v = getenv(words[i].variable);
		if (v == NULL && dsn != NULL)
			v = words[i].preset;
		if (v == NULL || v[0] == '\0')
			continue;
		bool user = strcmp(words[i].word, "user") == 0;
		json_object_set_new(su, user ? "username" : words[i].word, json_string(v));
	}
	if (json_object_get(su, "username") == NULL)
		json_object_set_new(su, "username", json_string(os_user()));
	if (json_object_get(su, "password") == NULL) {
		if (ask_password(password, sizeof(password), err) != ERR_OK) {
			json_decref(su);
			return err->code;
		}
		json_object_set_new(su, "password", json_string(password));
	}
	*out = su;
	return ERR_OK;
}

static PGconn *connect_server(const PQconninfoOption *dsn, const json_t *su)
{
	const char *keys[64], *values[64];
	unsigned n = 0;
	for (const PQconninfoOption *o = dsn; o != NULL && o->keyword != NULL; o++) {
		if (o->val == NULL || strcmp(o->keyword, "password") == 0 ||
			n >= ARRAY_LEN(keys) - 4)
			continue;
		keys[n] = o->keyword;
		values[n++] = o->val;
	}
	keys[n] = "password";
	values[n++] = json_path_str(su, "password");
	if (dsn_word(dsn, "connect_timeout") == NULL && getenv("PGCONNECT_TIMEOUT") == NULL) {
		keys[n] = "connect_timeout";
		values[n++] = CONNECT_SECONDS;
	}
	keys[n] = values[n] = NULL;
	return PQconnectdbParams(keys, values, 0);
}

/* ---- settings
 * -------------------------------------------------------------------------------------- */

static const char query[] =
	"SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings"
	" WHERE context <> 'internal'"
	" AND source IN ('configuration file', 'command line', 'environment variable')"
	" AND category <> 'Write-Ahead Log / Recovery Target'"
	" AND setting <> '(disabled)'"
	" OR name = ANY(pg_catalog.string_to_array($1, ','))";

/* Commands and places of files stay with the node: what the store says could run programs here. */
static bool is_local(const char *name)
{
	static const char *const list[] = { "archive_command", "restore_command",
		"archive_cleanup_command", "recovery_end_command", "ssl_passphrase_command",
		"hba_file", "ident_file", "config_file" };
	for (unsigned i = 0; i < ARRAY_LEN(list); i++) {
		if (strcmp(list[i], name) == 0)
			return true;
	}
	return false;
}

struct found {
	const char *listen, *port; /* borrowed of the result */
};

static void take_setting(json_t *config, const char *name, const char *value, struct found *f)
{
	json_t *pg = json_object_get(config, "postgresql");
	json_t *local = json_object_get(pg, "parameters");
	json_t *dynamic = json_path(config, "bootstrap.dcs.postgresql.parameters");
	if (strcmp(name, "data_directory") == 0)
		json_object_set_new(pg, "data_dir", json_string(value));
	else if (strcmp(name, "cluster_name") == 0 && value[0] != '\0')
		json_object_set_new(config, "scope", json_string(value));
	else if (strcmp(name, "listen_addresses") == 0)
		f->listen = value;
	else if (strcmp(name, "port") == 0)
		f->port = value;
	else
		json_object_set_new(is_local(name) ? local : dynamic, name, json_string(value));
}

static enum err_code take_settings(
	json_t *config, PGconn *conn, const PQconninfoOption *dsn, struct err *err)
{
	AUTO(buf) always = BUF_INIT(2048);
	buf_adds(&always, "hba_file,ident_file,config_file,data_directory");
	for (unsigned i = 0; i < params_ours_count; i++)
		buf_addf(&always, ",%s", params_ours[i].name);
	const char *args[] = { buf_str(&always) };
	PGresult *res = PQexecParams(conn, query, 1, NULL, args, NULL, NULL, 0);
	if (PQresultStatus(res) != PGRES_TUPLES_OK) {
		PQclear(res);
		return err_set(err, ERR_STATE, 0, "Failed to establish PostgreSQL connection: %s",
			PQerrorMessage(conn));
	}
	json_t *pg = json_object_get(config, "postgresql");
	struct found f = { .listen = "", .port = "5432" };
	if (json_object_get(pg, "parameters") == NULL)
		json_object_set_new(pg, "parameters", json_object());
	for (int i = 0; i < PQntuples(res); i++)
		take_setting(config, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), &f);
	const char *address = json_path_str(pg, "connect_address"), *port = dsn_word(dsn, "port");
	const char *colon = strrchr(address, ':');
	if (port == NULL)
		port = getenv("PGPORT");
	json_object_set_new(pg, "connect_address",
		json_sprintf("%.*s:%s", (int)(colon - address), address,
			port != NULL && port[0] != '\0' ? port : f.port));
	json_object_set_new(pg, "listen", json_sprintf("%s:%s", f.listen, f.port));
	PQclear(res);
	return ERR_OK;
}

/* ---- files
 * ----------------------------------------------------------------------------------------- */

static bool is_rule(const char *line, bool hba, int version)
{
	static const char *const types[] = { "local", "host", "hostssl", "hostnossl", "hostgssenc",
		"hostnogssenc", "include", "include_if_exists", "include_dir" };
	size_t n = strcspn(line, " \t");
	if (!hba)
		return line[0] != '\0' && line[0] != '#';
	for (unsigned i = 0; i < ARRAY_LEN(types) - (version >= 160000 ? 0 : 3); i++) {
		if (strlen(types[i]) == n && strncmp(types[i], line, n) == 0)
			return true;
	}
	return false;
}

/* The rules of a file that stands where it stands by default. */
static enum err_code take_file(
	json_t *config, const char *key, const char *setting, int version, struct err *err)
{
	char path[LIMIT_PATH], line[LINE_MAX_BYTES];
	json_t *pg = json_object_get(config, "postgresql");
	const char *have = json_path_str(json_object_get(pg, "parameters"), setting);
	if (!str_format(path, sizeof(path), "%s/%s.conf", json_path_str(pg, "data_dir"), key) ||
		!str_eq(have, path))
		return ERR_OK;
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return err_set(err, ERR_SYS, errno, "Failed to read %s.conf", key);
	json_t *list = json_array();
	while (fgets(line, sizeof(line), f) != NULL) {
		size_t end = strlen(line);
		while (end > 0 && isspace((unsigned char)line[end - 1]))
			line[--end] = '\0';
		const char *start = line + strspn(line, " \t");
		if (is_rule(start, strcmp(key, "pg_hba") == 0, version))
			json_array_append_new(list, json_string(start));
	}
	fclose(f);
	if (json_array_size(list) > 0)
		json_object_set(pg, key, list);
	json_decref(list);
	return ERR_OK;
}

static enum err_code take_bin_dir(json_t *config, struct err *err)
{
	char path[LIMIT_PATH], text[64], exe[LIMIT_PATH];
	json_t *pg = json_object_get(config, "postgresql");
	const char *dir = json_path_str(pg, "data_dir");
	int64_t pid = 0;
	if (!str_format(path, sizeof(path), "%s/postmaster.pid", dir))
		return err_set(err, ERR_LIMIT, 0, "data directory %s is too long", dir);
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return err_set(err, ERR_SYS, errno, "Error while reading postmaster.pid file");
	bool ok = fgets(text, sizeof(text), f) != NULL;
	fclose(f);
	text[ok ? strcspn(text, " \r\n") : 0] = '\0';
	if (!str_to_i64(text, &pid) || pid < 1)
		return err_set(err, ERR_PARSE, 0,
			"Failed to obtain postmaster pid from postmaster.pid file");
	snprintf(path, sizeof(path), "/proc/%lld/exe", (long long)pid);
	ssize_t n = readlink(path, exe, sizeof(exe) - 1);
	if (n < 0)
		return errno == ENOENT ? err_set(err, ERR_NOTFOUND, 0,
						 "Obtained postmaster pid doesn't exist.")
				       : err_set(err, ERR_SYS, errno, "%s", path);
	exe[n] = '\0';
	char *slash = strrchr(exe, '/');
	if (slash != NULL)
		*slash = '\0';
	json_object_set_new(pg, "bin_dir", json_string(exe));
	return ERR_OK;
}

static enum err_code enrich(
	json_t *config, PGconn *conn, json_t *su, const PQconninfoOption *dsn, struct err *err)
{
	if (PQstatus(conn) != CONNECTION_OK)
		return err_set(err, ERR_STATE, 0, "Failed to establish PostgreSQL connection: %s",
			PQerrorMessage(conn));
	int version = PQserverVersion(conn);
	const char *is_super = PQparameterStatus(conn, "is_superuser");
	if (!str_eq(is_super, "on"))
		return err_set(
			err, ERR_STATE, 0, "The provided user does not have superuser privilege");
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		if (version < words[i].version)
			json_object_del(su, words[i].word);
	}
	json_object_set_new(json_object_get(config, "postgresql"), "authentication",
		json_pack("{s:O,s:{s:s,s:s}}", "superuser", su, "replication", "username",
			GENERATE_UNKNOWN, "password", GENERATE_UNKNOWN));
	enum err_code rc = take_settings(config, conn, dsn, err);
	if (rc == ERR_OK)
		rc = take_file(config, "pg_hba", "hba_file", version, err);
	if (rc == ERR_OK)
		rc = take_file(config, "pg_ident", "ident_file", version, err);
	return rc == ERR_OK ? take_bin_dir(config, err) : rc;
}

enum err_code generate_from_server(json_t *config, const char *dsn_text, struct err *err)
{
	PQconninfoOption *dsn = NULL;
	char *why = NULL;
	json_t *su = NULL;
	if (dsn_text != NULL && dsn_text[0] != '\0') {
		dsn = PQconninfoParse(dsn_text, &why);
		PQfreemem(why);
		if (dsn == NULL)
			return err_set(err, ERR_PARSE, 0, "Failed to parse DSN string");
	}
	enum err_code rc = superuser(&su, dsn, err);
	if (rc == ERR_OK) {
		PGconn *conn = connect_server(dsn, su);
		rc = enrich(config, conn, su, dsn, err);
		PQfinish(conn);
	}
	json_decref(su);
	PQconninfoFree(dsn);
	return rc;
}
