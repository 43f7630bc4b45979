/* query: SQL at one member (ctl 6.7). libpq is loaded here and only here: linked, it would cost
 * every other command the start of its libraries. */
#include <dlfcn.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "ctl/ctl.h"

#define SQL_MAX	    1048576
#define COLUMNS_MAX 1664 /* PostgreSQL's own bound for a target list */

enum { OID_BOOL = 16, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_OID = 26 };
enum { OID_FLOAT4 = 700, OID_FLOAT8 = 701, OID_TIMESTAMPTZ = 1184 };

struct libpq {
	__typeof__(PQconnectdbParams) *connect;
	__typeof__(PQstatus) *status;
	__typeof__(PQerrorMessage) *error;
	__typeof__(PQfinish) *finish;
	__typeof__(PQexec) *exec;
	__typeof__(PQresultStatus) *result_status;
	__typeof__(PQresultErrorField) *error_field;
	__typeof__(PQclear) *clear;
	__typeof__(PQntuples) *rows;
	__typeof__(PQnfields) *columns;
	__typeof__(PQfname) *name;
	__typeof__(PQftype) *type;
	__typeof__(PQgetisnull) *is_null;
	__typeof__(PQgetvalue) *value;
};

struct query {
	struct libpq pq;
	struct view v;
	const char *member, *role, *user, *database, *password;
	char *sql;
};

static void load_libpq(struct libpq *pq)
{
	void *lib = dlopen("libpq.so.5", RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL)
		fail("query needs PostgreSQL's client library: %s", dlerror());
	const struct {
		const char *name;
		void *slot;
	} wanted[] = { { "PQconnectdbParams", &pq->connect }, { "PQstatus", &pq->status },
		{ "PQerrorMessage", &pq->error }, { "PQfinish", &pq->finish },
		{ "PQexec", &pq->exec }, { "PQresultStatus", &pq->result_status },
		{ "PQresultErrorField", &pq->error_field }, { "PQclear", &pq->clear },
		{ "PQntuples", &pq->rows }, { "PQnfields", &pq->columns }, { "PQfname", &pq->name },
		{ "PQftype", &pq->type }, { "PQgetisnull", &pq->is_null },
		{ "PQgetvalue", &pq->value } };
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		void *f = dlsym(lib, wanted[i].name);
		if (f == NULL)
			fail("libpq.so.5 has no %s", wanted[i].name);
		memcpy(wanted[i].slot, &f, sizeof(f));
	}
}

static char *read_sql(const char *path)
{
	FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	if (f == NULL)
		fail_usage(
			"Invalid value for '-f' / '--file': '%s': No such file or directory", path);
	char *text = malloc(SQL_MAX + 1);
	if (text == NULL)
		fail("out of memory");
	size_t n = fread(text, 1, SQL_MAX + 1, f);
	if (ferror(f) || n > SQL_MAX || memchr(text, '\0', n) != NULL)
		fail("%s cannot be read, is larger than %d bytes, or is not text", path, SQL_MAX);
	text[n] = '\0';
	if (f != stdin)
		(void)fclose(f);
	return text;
}

static bool format_known(const char *format)
{
	return strcmp(format, "tsv") == 0 || strcmp(format, "pretty") == 0 ||
	       strcmp(format, "json") == 0 || strcmp(format, "yaml") == 0 ||
	       strcmp(format, "yml") == 0;
}

/* One row without header: when, and what (ctl 6.7). */
static void print_note(const char *note, const char *format, const char *delimiter)
{
	static const struct table_column fields[] = { { "Field 1", "Field 1", false },
		{ "Field 2", "Field 2", false } };
	char stamp[48];
	when_stamp(stamp, sizeof(stamp), 0);
	if (strcmp(format, "tsv") == 0) {
		printf("%s%s%s\n", stamp, delimiter, note);
		return;
	}
	if (!format_known(format))
		return;
	json_t *rows = json_pack("[[s,s]]", stamp, note);
	AUTO(buf) out = BUF_INIT(LIMIT_DCS_TREE);
	/* json and yaml have no titles to put the values under: one empty object. */
	bool pretty = strcmp(format, "pretty") == 0;
	struct table t = { .columns = fields, .column_count = pretty ? 2 : 0, .rows = rows };
	if (!table_write(&t, table_format_of(format), &out))
		fail("The note is too long");
	(void)fputs(buf_str(&out), stdout);
	json_decref(rows);
}

/* As the reference's driver gives it: numbers, booleans, None, and an offset with minutes. */
static json_t *cell(const struct libpq *pq, const PGresult *r, int row, int col)
{
	if (pq->is_null(r, row, col))
		return json_null();
	const char *text = pq->value(r, row, col);
	size_t len = strlen(text);
	int64_t n = 0;
	char *end = NULL, longer[80];
	switch (pq->type(r, col)) {
	case OID_BOOL: return json_boolean(text[0] == 't');
	case OID_INT2:
	case OID_INT4:
	case OID_INT8:
	case OID_OID: return str_to_i64(text, &n) ? json_integer(n) : json_string(text);
	case OID_FLOAT4:
	case OID_FLOAT8: {
		double d = strtod(text, &end);
		json_t *v = end != text && *end == '\0' ? json_real(d) : NULL;
		return v != NULL ? v : json_string(text); /* NaN, Infinity: text */
	}
	case OID_TIMESTAMPTZ:
		if (len > 3 && (text[len - 3] == '+' || text[len - 3] == '-') &&
			str_format(longer, sizeof(longer), "%s:00", text))
			return json_string(longer);
		return json_string(text);
	default: return json_string(text);
	}
}

static void print_delimited(const struct table *t, const char *delimiter)
{
	char text[64];
	size_t index, col;
	json_t *row, *v;
	for (unsigned i = 0; i < t->column_count; i++)
		printf("%s%s", i > 0 ? delimiter : "", t->columns[i].title);
	printf("\n");
	json_array_foreach(t->rows, index, row)
	{
		json_array_foreach(row, col, v)
		{
			const char *s = json_string_value(v);
			if (s == NULL && json_text(v, text, sizeof(text)))
				s = text;
			printf("%s%s", col > 0 ? delimiter : "", s != NULL ? s : "");
		}
		printf("\n");
	}
}

static void print_rows(
	const struct libpq *pq, const PGresult *r, const char *format, const char *delimiter)
{
	static struct table_column columns[COLUMNS_MAX];
	if (!format_known(format))
		return;
	int count = pq->columns(r);
	if (count > COLUMNS_MAX)
		fail("The result has more than %d columns", COLUMNS_MAX);
	for (int i = 0; i < count; i++)
		columns[i] = (struct table_column){ pq->name(r, i), pq->name(r, i), false };
	json_t *rows = json_array();
	for (int i = 0; i < pq->rows(r); i++) {
		json_t *row = json_array();
		for (int k = 0; k < count; k++)
			if (json_array_append_new(row, cell(pq, r, i, k)) != 0)
				fail("The result has a value that is no text in UTF-8");
		(void)json_array_append_new(rows, row);
	}
	struct table t = { .columns = columns, .column_count = (unsigned)count, .rows = rows };
	AUTO(buf) out = BUF_INIT(LIMIT_DCS_TREE);
	if (strcmp(format, "tsv") == 0)
		print_delimited(&t, delimiter);
	else if (!table_write(&t, table_format_of(format), &out))
		fail("The result is too large for format %s", format);
	else
		(void)fputs(buf_str(&out), stdout);
	json_decref(rows);
}

static const json_t *target(const struct query *q)
{
	size_t index;
	json_t *m;
	json_array_foreach(json_object_get(q->v.doc, "members"), index,
		m) if (member_str(m, "host")[0] != '\0' &&
		       (q->member != NULL
				       ? strcmp(member_str(m, "name"), q->member) == 0
				       : member_has_role(m,
						 q->role != NULL ? q->role : "leader"))) return m;
	return NULL;
}

static PGconn *connect_to(const struct query *q, const json_t *m)
{
	char port[16];
	put_format(port, sizeof(port), "%lld",
		(long long)json_integer_value(json_object_get(m, "port")));
	const char *const names[] = { "host", "port", "user", "password", "dbname",
		"fallback_application_name", "connect_timeout", NULL };
	/* What is NULL is left to libpq: its environment and ~/.pgpass. */
	const char *const values[] = { member_str(m, "host"), port, q->user, q->password,
		q->database, "Patroni ctl", "5", NULL };
	return q->pq.connect(names, values, 0);
}

/* Only these roles are asked of the server itself; the leader is whoever holds the key. */
static bool role_agrees(const struct query *q, PGconn *conn)
{
	if (q->role == NULL || strcmp(q->role, "any") == 0 || strcmp(q->role, "leader") == 0)
		return true;
	PGresult *r = q->pq.exec(conn, "SELECT pg_catalog.pg_is_in_recovery()");
	bool known = q->pq.result_status(r) == PGRES_TUPLES_OK && q->pq.rows(r) == 1;
	bool recovers = !known || q->pq.value(r, 0, 0)[0] == 't';
	q->pq.clear(r);
	return recovers == (strcmp(q->role, "primary") != 0);
}

static void note_error(const char *what, const char *format, const char *delimiter)
{
	AUTO(buf) text = BUF_INIT(LIMIT_DCS_TREE);
	buf_addf(&text, "ERROR, SQLSTATE: %s", what);
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] == '\n')
			text.data[i] = ' ';
	print_note(buf_str(&text), format, delimiter);
}

static void query_once(const struct query *q, const char *format, const char *delimiter)
{
	char note[LIMIT_NAME + 64] = "No connection is available";
	if (q->member != NULL)
		put_format(
			note, sizeof(note), "No connection to member %s is available", q->member);
	else if (q->role != NULL)
		put_format(note, sizeof(note), "No connection to role %s is available", q->role);
	const json_t *m = target(q);
	PGconn *conn = m != NULL ? connect_to(q, m) : NULL;
	if (conn == NULL) {
		print_note(note, format, delimiter);
		return;
	}
	if (q->pq.status(conn) != CONNECTION_OK) {
		note_error(q->pq.error(conn), format, delimiter);
	} else if (!role_agrees(q, conn)) {
		print_note(note, format, delimiter);
	} else {
		PGresult *r = q->pq.exec(conn, q->sql);
		const char *state = q->pq.error_field(r, PG_DIAG_SQLSTATE);
		if (q->pq.result_status(r) == PGRES_TUPLES_OK)
			print_rows(&q->pq, r, format, delimiter);
		else if (q->pq.result_status(r) == PGRES_COMMAND_OK)
			note_error("no results to fetch", format, delimiter);
		else
			note_error(state != NULL ? state : q->pq.error(conn), format, delimiter);
		q->pq.clear(r);
	}
	q->pq.finish(conn);
}

void cmd_query(struct ctl *c, const struct args *a)
{
	static struct query q;
	char password[256];
	const char *file = args_value(a, "file"), *command = args_value(a, "command");
	const char *format = args_value(a, "format"), *delimiter = args_value(a, "delimiter");
	if (file != NULL && command != NULL)
		fail("--file and --command are mutually exclusive options");
	if (file == NULL && command == NULL)
		fail("You need to specify either --command or --file");
	q.sql = file != NULL ? read_sql(file) : strdup(command);
	q.member = args_value(a, "member");
	q.role = args_value(a, "role");
	q.user = args_value(a, "username");
	q.database = args_value(a, "dbname");
	if (q.member != NULL && q.role != NULL)
		fail("--role and --member are mutually exclusive options");
	if (args_has(a, "password")) {
		prompt_hidden("Password", password, sizeof(password));
		q.password = password;
	}
	format = format != NULL ? format : "tsv";
	delimiter = delimiter != NULL ? delimiter : "\t";
	/* As the reference does: any format is taken, one that nobody knows prints nothing. */
	if (!format_known(format))
		(void)fprintf(stderr,
			"Warning: format %s is not one of pretty, tsv, json, yaml, yml: "
			"nothing will be shown\n",
			format);
	load_libpq(&q.pq);
	source_read(c, source_scope(c, a->word_count > 0 ? a->words[0] : NULL), &q.v);
	double seconds = watch_interval(a);
	int64_t at_us = clock_monotonic_us();
	for (;;) {
		query_once(&q, format, delimiter);
		if (fflush(stdout) != 0 || seconds <= 0)
			break;
		watch_sleep(seconds, &at_us);
	}
	free(q.sql);
	source_done(&q.v);
}
