/* Command line. See options.h. */
#include "worker/options.h"

#include <string.h>

#include "common/core/str.h"

const char options_usage[] =
	"usage: pgregent [-h] [--version] [--validate-config | --generate-sample-config |\n"
	"                --generate-config] [--dsn DSN] [--ignore-listen-port] [--print]\n"
	"                [configfile]\n"
	"\n"
	"  configfile                file or directory; without it the environment is used\n"
	"                            (PATRONI_CONFIGURATION, PATRONI_*)\n"
	"  -h, --help                this text\n"
	"  --version                 the version\n"
	"  --validate-config         check the configuration and exit\n"
	"  --generate-sample-config  write a sample configuration to configfile, else to stdout\n"
	"  --generate-config         the same from a running PostgreSQL\n"
	"  --dsn DSN                 with --generate-config: how to connect, as superuser\n"
	"  -i, --ignore-listen-port  with --validate-config: listen ports may be in use\n"
	"  -p, --print               with --validate-config: print the configuration, secrets too\n"
	"  --user NAME, --data-dir PATH, --runtime-dir PATH   of the supervisor\n";

static const struct {
	const char *name;
	char letter;
	enum option_mode mode; /* MODE_RUN: not a mode */
} known[] = {
	{ "help", 'h', MODE_HELP },
	{ "version", '\0', MODE_VERSION },
	{ "validate-config", '\0', MODE_VALIDATE },
	{ "generate-sample-config", '\0', MODE_GENERATE_SAMPLE },
	{ "generate-config", '\0', MODE_GENERATE },
	{ "launch", '\0', MODE_LAUNCH },
	{ "dsn", '\0', MODE_RUN },
	{ "ignore-listen-port", 'i', MODE_RUN },
	{ "print", 'p', MODE_RUN },
};

static int find_long(const char *name, size_t len, struct err *err)
{
	int found = -1;
	for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
		if (strncmp(known[i].name, name, len) != 0)
			continue;
		if (known[i].name[len] == '\0')
			return (int)i;
		if (found >= 0) {
			err_set(err, ERR_INVAL, 0,
				"ambiguous option: --%.*s could match --%s, --%s", (int)len, name,
				known[found].name, known[i].name);
			return -1;
		}
		found = (int)i;
	}
	if (found < 0)
		err_set(err, ERR_INVAL, 0, "unrecognized arguments: --%.*s", (int)len, name);
	return found;
}

static int find_letter(char letter, struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
		if (known[i].letter == letter)
			return (int)i;
	}
	err_set(err, ERR_INVAL, 0, "unrecognized arguments: -%c", letter);
	return -1;
}

static enum err_code apply(struct options *o, int which, struct err *err)
{
	enum option_mode mode = known[which].mode;
	if (mode == MODE_RUN) {
		o->ignore_listen_port |= known[which].letter == 'i';
		o->print |= known[which].letter == 'p';
	} else if (o->mode == MODE_HELP || o->mode == MODE_VERSION) {
		return ERR_OK; /* the first of these two counts, whatever comes behind it */
	} else if (o->mode != MODE_RUN && mode != MODE_HELP && mode != MODE_VERSION &&
		   mode != o->mode) {
		return err_set(err, ERR_INVAL, 0, "argument --%s: not allowed with another mode",
			known[which].name);
	} else {
		o->mode = mode;
	}
	return ERR_OK;
}

static enum err_code long_option(struct options *o, int argc, char **argv, int *i, struct err *err)
{
	const char *name = argv[*i] + 2, *eq = strchr(name, '=');
	size_t len = eq != NULL ? (size_t)(eq - name) : strlen(name);
	int which = find_long(name, len, err);
	if (which < 0)
		return err->code;
	if (strcmp(known[which].name, "dsn") != 0) {
		if (eq != NULL)
			return err_set(err, ERR_INVAL, 0, "argument --%s: takes no value",
				known[which].name);
		return apply(o, which, err);
	}
	if (eq == NULL && *i + 1 >= argc)
		return err_set(err, ERR_INVAL, 0, "argument --dsn: expected one argument");
	o->dsn = eq != NULL ? eq + 1 : argv[++*i];
	return ERR_OK;
}

enum err_code options_parse(struct options *o, int argc, char **argv, struct err *err)
{
	enum err_code rc = ERR_OK;
	bool only_names = false;
	memset(o, 0, sizeof(*o));
	for (int i = 1; rc == ERR_OK && i < argc; i++) {
		const char *a = argv[i];
		if (!only_names && strcmp(a, "--") == 0) {
			only_names = true;
		} else if (!only_names && a[0] == '-' && a[1] == '-') {
			rc = long_option(o, argc, argv, &i, err);
		} else if (!only_names && a[0] == '-' && a[1] != '\0') {
			for (const char *p = a + 1; rc == ERR_OK && *p != '\0'; p++) {
				int which = find_letter(*p, err);
				rc = which < 0 ? err->code : apply(o, which, err);
			}
		} else if (o->config != NULL) {
			rc = err_set(err, ERR_INVAL, 0, "unrecognized arguments: %s", a);
		} else {
			o->config = a;
		}
	}
	return rc;
}
