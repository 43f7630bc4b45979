/* --generate-config and --generate-sample-config: where the template comes from and where the text
 * goes (config 6.4, 6.5). One-shot: it may block. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config/generate.h"
#include "common/config/local.h"
#include "common/config/program.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/oneshot.h"

/* The host's name and its first address, IPv4 preferred. False: not known. */
static bool own_address(char *host, size_t host_len, char *address, size_t address_len)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *best;
	if (gethostname(host, host_len) < 0)
		return false;
	host[host_len - 1] = '\0';
	int rc = getaddrinfo(host, NULL, &hints, &list);
	if (rc != 0) {
		fprintf(stderr, "Failed to obtain address of %s: %s\n", host, gai_strerror(rc));
		return false;
	}
	best = list;
	for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
		if (a->ai_family == AF_INET) {
			best = a;
			break;
		}
	}
	rc = getnameinfo(best->ai_addr, best->ai_addrlen, address, (socklen_t)address_len, NULL, 0,
		NI_NUMERICHOST);
	freeaddrinfo(list);
	return rc == 0;
}

static enum err_code make_dirs(const char *path, struct err *err)
{
	char dir[LIMIT_PATH];
	if (!str_copy(dir, sizeof(dir), path))
		return err_set(err, ERR_LIMIT, 0, "%s: longer than %d bytes", path, LIMIT_PATH - 1);
	for (char *p = dir + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(dir, 0777) < 0 && errno != EEXIST)
			return err_set(err, ERR_SYS, errno, "%s", dir);
		*p = '/';
	}
	return ERR_OK;
}

static enum err_code write_text(const char *path, const struct buf *text, struct err *err)
{
	bool to_file = path != NULL && path[0] != '\0';
	if (to_file && make_dirs(path, err) != ERR_OK)
		return err->code;
	FILE *f = to_file ? fopen(path, "we") : stdout;
	if (f == NULL)
		return err_set(err, ERR_SYS, errno, "%s", path);
	bool ok = fwrite(text->data, 1, text->len, f) == text->len && fflush(f) == 0;
	int saved = errno;
	if (to_file && fclose(f) != 0) {
		ok = false;
		saved = errno;
	}
	return ok ? ERR_OK : err_set(err, ERR_SYS, saved, "%s", to_file ? path : "standard output");
}

static enum err_code sample(json_t *config, struct err *err)
{
	char major[32];
	const char *name = json_path_str(config, "postgresql.bin_name.postgres");
	enum err_code rc = program_version(json_path_str(config, "postgresql.bin_dir"),
		name != NULL ? name : "postgres", major, sizeof(major), err);
	if (rc != ERR_OK)
		return err_wrap(err, "Failed to get postgres version");
	return generate_sample(config, program_version_number(major))
		       ? ERR_OK
		       : err_set(err, ERR_NOMEM, 0, "sample configuration");
}

static enum err_code generate(const struct options *o, struct err *err)
{
	char host[LIMIT_NAME], address[128];
	struct local_config c;
	AUTO(buf) text = BUF_INIT(LIMIT_CONFIG_FILE);
	/* The file that is named is the output: the environment alone is read. */
	enum err_code rc = local_load(&c, NULL, err);
	if (rc != ERR_OK) {
		local_done(&c);
		return rc;
	}
	bool known = own_address(host, sizeof(host), address, sizeof(address));
	json_auto_t *config =
		generate_template(c.tree, known ? host : NULL, known ? address : NULL);
	local_done(&c);
	if (config == NULL)
		return err_set(err, ERR_NOMEM, 0, "configuration");
	rc = o->mode == MODE_GENERATE ? generate_from_server(config, o->dsn, err)
				      : sample(config, err);
	if (rc != ERR_OK)
		return rc;
	if (!generate_text(config, &text))
		return err_set(
			err, ERR_LIMIT, 0, "configuration is over %d bytes", LIMIT_CONFIG_FILE);
	return write_text(o->config, &text, err);
}

int oneshot_generate(const struct options *o)
{
	struct err err = ERR_INIT;
	if (generate(o, &err) == ERR_OK)
		return 0;
	fprintf(stderr, "%s\n", err.text);
	return 1;
}
