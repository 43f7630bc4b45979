/* Checks of words, directories and programs. See checks.h; addresses are in checks_net.c. */
#include "common/config/checks.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config/program.h"
#include "common/config/validate.h"
#include "common/config/value.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"

#define CHECK(name)                                                                                \
	void check_##name(struct validate *v, const char *path, const json_t *value,               \
		const struct schema_row *row)

/* ---- words
 * ----------------------------------------------------------------------------------------- */

CHECK(name)
{
	(void)row;
	static const char reserved[] = "__patroni_strict_sync_replica_placeholder__";
	if (strcmp(json_string_value(value), reserved) == 0)
		validate_fail(v, path, value, "Node 'name' can't be set to '%s'", reserved);
}

static bool log_field_ok(const json_t *field)
{
	if (json_is_string(field))
		return true;
	void *first = json_is_object(field) ? json_object_iter((json_t *)field) : NULL;
	return first != NULL && json_object_size(field) == 1 &&
	       json_is_string(json_object_iter_value(first));
}

CHECK(log_format)
{
	(void)row;
	size_t i;
	json_t *item;
	if (json_is_string(value))
		return;
	if (!json_is_array(value)) {
		validate_fail(v, path, value, "Should be a string or a list");
		return;
	}
	if (json_array_size(value) == 0)
		validate_fail(v, path, value, "should contain at least one item");
	json_array_foreach((json_t *)value, i, item)
	{
		if (log_field_ok(item))
			continue;
		validate_fail(v, path, value,
			"each item should be a string or a dictionary with string values");
		return;
	}
}

CHECK(synchronous_mode)
{
	(void)row;
	char text[64];
	bool b;
	bool ok = json_text(value, text, sizeof(text)) &&
		  (value_parse_bool(text, &b) ||
			  (json_is_string(value) && strcasecmp(text, "quorum") == 0));
	if (!ok)
		validate_fail(v, path, value,
			"invalid value for synchronous_mode (allowed: on, off, quorum)");
}

CHECK(watchdog_mode)
{
	(void)row;
	const char *word = json_string_value(value);
	if (word == NULL && !json_is_boolean(value))
		validate_fail(v, path, value, "expected type is not a string");
	else if (word != NULL ? strcmp(word, "off") != 0 && strcmp(word, "automatic") != 0 &&
					strcmp(word, "required") != 0
			      : json_is_true(value))
		validate_fail(v, path, value, "Wrong value (allowed: off, automatic, required)");
}

CHECK(pod_ip)
{
	(void)row;
	struct in_addr four;
	struct in6_addr six;
	const char *ip = json_string_value(value);
	if (ip != NULL && (inet_aton(ip, &four) != 0 || inet_pton(AF_INET6, ip, &six) == 1))
		return;
	validate_fail(v, path, value, "Is not a valid ipv4 address");
	validate_fail(v, path, value, "Is not a valid ipv6 address");
}

static void check_port(struct validate *v, const char *at, const json_t *item)
{
	char name_at[160], port_at[160];
	const json_t *name = json_object_get(item, "name"), *port = json_object_get(item, "port");
	if (!json_is_object(item)) {
		validate_add(v, at, item, "is not a dictionary");
		return;
	}
	if (!str_format(name_at, sizeof(name_at), "%s.name", at) ||
		!str_format(port_at, sizeof(port_at), "%s.port", at))
		return;
	/* The element is shown whole, as the reference does. */
	if (!json_is_string(name))
		validate_add(
			v, name_at, item, name == NULL ? "is not defined." : "is not a string");
	if (!json_is_integer(port))
		validate_add(
			v, port_at, item, port == NULL ? "is not defined." : "is not an integer");
	else if (json_integer_value(port) > 65535)
		validate_fail(v, port_at, item, "Wrong value (allowed: an integer, at most 65535)");
}

CHECK(ports)
{
	(void)row;
	size_t i;
	json_t *item;
	if (!json_is_array(value))
		validate_add(v, path, value, "is not a list");
	else if (json_array_size(value) == 0)
		validate_add(v, path, value, "is an empty list");
	json_array_foreach((json_t *)value, i, item)
	{
		char at[128];
		if (str_format(at, sizeof(at), "%s.%zu", path, i))
			check_port(v, at, item);
	}
}

CHECK(http_codes)
{
	(void)row;
	size_t i;
	json_t *item;
	bool bad = false;
	if (json_is_integer(value) || json_is_boolean(value))
		return;
	json_array_foreach((json_t *)value, i, item) bad |= !json_is_integer(item);
	if (json_array_size(value) > 0 && !bad)
		return;
	validate_add(v, path, value, "is not an integer");
	if (!json_is_array(value))
		validate_add(v, path, value, "is not a list");
	else if (json_array_size(value) == 0)
		validate_add(v, path, value, "is an empty list");
	json_array_foreach((json_t *)value, i, item)
	{
		char at[128];
		if (!json_is_integer(item) && str_format(at, sizeof(at), "%s.%zu", path, i))
			validate_add(v, at, item, "is not an integer");
	}
}

/* ---- directories and programs
 * ---------------------------------------------------------------------- */

static const char *bin_dir_of(const struct validate *v)
{
	const char *dir = json_path_str(v->root, "postgresql.bin_dir");
	return dir != NULL ? dir : "";
}

static const char *bin_name_of(const struct validate *v, const char *program)
{
	const char *name = json_string_value(
		json_object_get(json_path(v->root, "postgresql.bin_name"), program));
	return name != NULL ? name : program;
}

CHECK(binary)
{
	(void)row;
	char found[LIMIT_PATH];
	const char *name = json_string_value(value), *dir = bin_dir_of(v);
	if (name[0] == '\0')
		validate_fail(v, path, value, "is an empty string");
	else if (!program_find(dir, name, found, sizeof(found)))
		validate_fail(v, path, value, "does not contain '%s' in '%s'", name,
			dir[0] != '\0' ? dir : "$PATH");
}

/* Also without a value: then the programs come from PATH. */
CHECK(bin_dir)
{
	(void)row;
	static const char *const needed[] = { "pg_ctl", "initdb", "pg_controldata", "pg_basebackup",
		"postgres", "pg_isready" };
	const char *dir = bin_dir_of(v);
	struct stat st;
	if (value != NULL && !json_is_string(value) && !json_is_null(value)) {
		validate_add(v, path, value, "is not a string");
		return;
	}
	if (dir[0] != '\0' && stat(dir, &st) < 0) {
		validate_add(v, path, NULL, "Directory '%s' does not exist.", dir);
		return;
	}
	if (dir[0] != '\0' && !S_ISDIR(st.st_mode)) {
		validate_add(v, path, NULL, "'%s' is not a directory.", dir);
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(needed); i++) {
		char found[LIMIT_PATH];
		const char *name = bin_name_of(v, needed[i]);
		if (!program_find(dir, name, found, sizeof(found)))
			validate_add(v, path, NULL, "does not contain '%s' in '%s'", name,
				dir[0] != '\0' ? dir : "$PATH");
	}
}

/* Nothing in it that PostgreSQL would mind. False with errno: it cannot be read. */
static bool dir_is_empty(const char *dir, bool *out_empty)
{
	char control[LIMIT_PATH];
	struct stat st;
	DIR *d = opendir(dir);
	if (d == NULL)
		return false;
	*out_empty = !(str_format(control, sizeof(control), "%s/global/pg_control", dir) &&
		       stat(control, &st) == 0);
	for (struct dirent *e; *out_empty && (e = readdir(d)) != NULL;)
		*out_empty = e->d_name[0] == '.' || strcmp(e->d_name, "lost+found") == 0;
	closedir(d);
	return true;
}

static bool read_version(const char *dir, char *out, size_t len)
{
	char path[LIMIT_PATH];
	if (!str_format(path, sizeof(path), "%s/PG_VERSION", dir))
		return false;
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, out, len - 1) : -1;
	if (n <= 0)
		return false;
	out[n] = '\0';
	out[strcspn(out, " \r\n\t")] = '\0';
	return out[0] != '\0';
}

static void check_cluster(struct validate *v, const char *path, const json_t *value)
{
	const char *dir = json_string_value(value);
	char have[32], wal[LIMIT_PATH], program[32];
	struct err err = ERR_INIT;
	struct stat st;
	if (!read_version(dir, have, sizeof(have))) {
		validate_fail(v, path, value, "doesn't look like a valid data directory");
		return;
	}
	const char *wal_name = program_version_number(have) >= 100000 ? "pg_wal" : "pg_xlog";
	if (!str_format(wal, sizeof(wal), "%s/%s", dir, wal_name) || stat(wal, &st) < 0 ||
		!S_ISDIR(st.st_mode)) {
		validate_fail(v, path, value,
			"data dir for the cluster is not empty, but doesn't contain \"%s\" "
			"directory",
			wal_name);
		return;
	}
	if (program_version(bin_dir_of(v), bin_name_of(v, "postgres"), program, sizeof(program),
		    &err) != ERR_OK)
		validate_fail(v, path, value, "%s", err.text);
	else if (strcmp(have, program) != 0)
		validate_fail(v, path, value,
			"data_dir directory postgresql version (%s) doesn't match with 'postgres "
			"--version' output (%s)",
			have, program);
}

CHECK(data_dir)
{
	(void)row;
	const char *dir = json_string_value(value);
	struct stat st;
	bool empty = true;
	if (dir[0] == '\0')
		validate_fail(v, path, value, "is an empty string");
	else if (stat(dir, &st) < 0)
		return;
	else if (!S_ISDIR(st.st_mode))
		validate_fail(v, path, value, "is not a directory");
	else if (!dir_is_empty(dir, &empty))
		validate_fail(v, path, value, "cannot be read: %m");
	else if (!empty)
		check_cluster(v, path, value);
}
