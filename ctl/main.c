/* pgregentctl, also under the name patronictl: options, commands, exit codes (ctl 1). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "ctl/ctl.h"

#define FORMATS "pretty|tsv|json|yaml|yml"
#define ROLES	"leader|primary|standby-leader|replica|standby|any"
#define GROUP                                                                                      \
	{                                                                                          \
		0, "group", NULL, true, NULL, "Citus group"                                        \
	}
#define FORCE                                                                                      \
	{                                                                                          \
		0, "force", NULL, false, NULL, "Do not ask for confirmation at any point"          \
	}
#define FORMAT                                                                                     \
	{                                                                                          \
		'f', "format", NULL, true, FORMATS, "Output format"                                \
	}
#define ROLE                                                                                       \
	{                                                                                          \
		'r', "role", NULL, true, ROLES, "Members with this role"                           \
	}
#define WAIT                                                                                       \
	{                                                                                          \
		0, "wait", NULL, false, NULL, "Wait until all members follow"                      \
	}
#define WATCH2                                                                                     \
	{                                                                                          \
		'W', "W", NULL, false, NULL, "Repeat every 2 seconds"                              \
	}
#define WATCH                                                                                      \
	{                                                                                          \
		'w', "watch", NULL, true, NULL, "Repeat at this interval in seconds"               \
	}
#define HELP                                                                                       \
	{                                                                                          \
		0, "help", NULL, false, NULL, "Show this message and exit."                        \
	}
#define SCHED                                                                                      \
	{                                                                                          \
		0, "scheduled", NULL, true, NULL, "Time to do it, ISO 8601; or now"                \
	}
#define END                                                                                        \
	{                                                                                          \
		0, NULL, NULL, false, NULL, NULL                                                   \
	}

static const struct opt global_opts[] = { { 'c', "config-file", NULL, true, NULL,
						  "Configuration file" },
	{ 'd', "dcs-url", "dcs", true, NULL, "The DCS connect url" },
	{ 'k', "insecure", NULL, false, NULL, "Do not verify certificates of the REST API" }, HELP,
	END };
static const struct opt list_opts[] = { GROUP,
	{ 'e', "extended", NULL, false, NULL, "Show some extra information" },
	{ 't', "timestamp", NULL, false, NULL, "Print timestamp" }, FORMAT, WATCH2, WATCH, HELP,
	END };
static const struct opt topology_opts[] = { GROUP, WATCH2, WATCH, HELP, END };
static const struct opt format_opts[] = { GROUP, FORMAT, HELP, END };
static const struct opt group_opts[] = { GROUP, HELP, END };
static const struct opt pause_opts[] = { GROUP, WAIT, HELP, END };
static const struct opt edit_opts[] = { GROUP, FORCE,
	{ 'q', "quiet", NULL, false, NULL, "Do not show changes" },
	{ 's', "set", NULL, true, NULL, "Set specific configuration value" },
	{ 'p', "pg", NULL, true, NULL, "Set specific PostgreSQL parameter value" },
	{ 0, "apply", NULL, true, NULL, "Apply configuration from file, - is stdin" },
	{ 0, "replace", NULL, true, NULL, "Replace configuration by file, - is stdin" }, HELP,
	END };
static const struct opt dsn_opts[] = { GROUP, ROLE,
	{ 'm', "member", NULL, true, NULL, "Name of the member" }, HELP, END };
static const struct opt switchover_opts[] = { GROUP, FORCE,
	{ 0, "leader", "primary", true, NULL, "The name of the current leader" },
	{ 0, "candidate", NULL, true, NULL, "The name of the candidate" }, SCHED, HELP, END };
static const struct opt failover_opts[] = { GROUP, FORCE,
	{ 0, "candidate", NULL, true, NULL, "The name of the candidate" }, HELP, END };
static const struct opt restart_opts[] = { GROUP, FORCE, ROLE,
	{ 0, "any", NULL, false, NULL, "Restart a single member only" },
	{ 0, "pending", NULL, false, NULL, "Restart if pending" },
	{ 0, "pg-version", NULL, true, NULL, "Restart if the PostgreSQL version is less" }, SCHED,
	{ 0, "timeout", NULL, true, NULL, "Fail over if the restart takes longer" }, HELP, END };
static const struct opt member_opts[] = { GROUP, FORCE, ROLE, HELP, END };
static const struct opt reinit_opts[] = { GROUP, FORCE,
	{ 0, "from-leader", NULL, false, NULL, "Get the copy from the leader" }, WAIT, HELP, END };
static const struct opt query_opts[] = { GROUP, { 0, "format", NULL, true, NULL, "Output format" },
	{ 'f', "file", NULL, true, NULL, "Execute the SQL commands from this file, - is stdin" },
	{ 0, "password", NULL, false, NULL, "Force password prompt" },
	{ 'U', "username", NULL, true, NULL, "Database user name" }, WATCH2, WATCH, ROLE,
	{ 'm', "member", NULL, true, NULL, "Query this member" },
	{ 0, "delimiter", NULL, true, NULL, "The column delimiter" },
	{ 'c', "command", NULL, true, NULL, "The SQL commands to execute" },
	{ 'd', "dbname", NULL, true, NULL, "Database name to connect to" }, HELP, END };
static const struct opt demote_opts[] = { FORCE,
	{ 0, "host", NULL, true, NULL, "Address of the remote node" },
	{ 0, "port", NULL, true, NULL, "Port of the remote node" },
	{ 0, "restore-command", NULL, true, NULL, "Command to restore WAL of the remote primary" },
	{ 0, "primary-slot-name", NULL, true, NULL, "Slot to use on the remote node" }, HELP, END };
static const struct opt upgrade_opts[] = { HELP, END };
static const struct opt promote_opts[] = { FORCE, HELP, END };

struct command {
	const char *name, *words, *help;
	const struct opt *opts;
	unsigned min_words, max_words;
	void (*run)(struct ctl *c, const struct args *a);
};

static const struct command commands[] = {
	{ "demote-cluster", "[CLUSTER_NAME]", "Demote cluster to a standby cluster", demote_opts, 0,
		1, cmd_demote_cluster },
	{ "dsn", "[CLUSTER_NAME]", "Generate a dsn for the provided member", dsn_opts, 0, 1,
		cmd_dsn },
	{ "edit-config", "[CLUSTER_NAME]", "Edit cluster configuration", edit_opts, 0, 1,
		cmd_edit_config },
	{ "failover", "[CLUSTER_NAME]", "Failover to a replica", failover_opts, 0, 1,
		cmd_failover },
	{ "flush", "CLUSTER_NAME [MEMBER_NAMES]... {restart|switchover}",
		"Discard scheduled events", member_opts, 2, ARGS_WORDS_MAX, cmd_flush },
	{ "history", "[CLUSTER_NAME]", "Show the history of failovers/switchovers", format_opts, 0,
		1, cmd_history },
	{ "list", "[CLUSTER_NAMES]...", "List the members of a cluster", list_opts, 0,
		ARGS_WORDS_MAX, cmd_list },
	{ "pause", "[CLUSTER_NAME]", "Disable auto failover", pause_opts, 0, 1, cmd_pause },
	{ "promote-cluster", "[CLUSTER_NAME]", "Promote a standby cluster", promote_opts, 0, 1,
		cmd_promote_cluster },
	{ "query", "[CLUSTER_NAME]", "Query a PostgreSQL member", query_opts, 0, 1, cmd_query },
	{ "reinit", "CLUSTER_NAME [MEMBER_NAMES]...", "Reinitialize cluster member", reinit_opts, 1,
		ARGS_WORDS_MAX, cmd_reinit },
	{ "reload", "CLUSTER_NAME [MEMBER_NAMES]...", "Reload cluster member configuration",
		member_opts, 1, ARGS_WORDS_MAX, cmd_reload },
	{ "remove", "CLUSTER_NAME", "Remove cluster from DCS", format_opts, 1, 1, cmd_remove },
	{ "restart", "CLUSTER_NAME [MEMBER_NAMES]...", "Restart cluster member", restart_opts, 1,
		ARGS_WORDS_MAX, cmd_restart },
	{ "resume", "[CLUSTER_NAME]", "Resume auto failover", pause_opts, 0, 1, cmd_resume },
	{ "show-config", "[CLUSTER_NAME]", "Show cluster configuration", group_opts, 0, 1,
		cmd_show_config },
	{ "switchover", "[CLUSTER_NAME]", "Switchover to a replica", switchover_opts, 0, 1,
		cmd_switchover },
	{ "topology", "[CLUSTER_NAMES]...", "Prints ASCII topology for given cluster",
		topology_opts, 0, ARGS_WORDS_MAX, cmd_topology },
	{ "upgrade", "[CLUSTER_NAME]", "Execute the new program of the agent on this node in place",
		upgrade_opts, 0, 1, cmd_upgrade },
	{ "version", "[CLUSTER_NAME] [MEMBER_NAMES]...", "Output version of the tool or a cluster",
		group_opts, 0, ARGS_WORDS_MAX, cmd_version },
};

static const char *prog_name = "pgregentctl";
static const struct command *current;

void fail(const char *fmt, ...)
{
	va_list ap;
	(void)fflush(stdout);
	va_start(ap, fmt);
	(void)fputs("Error: ", stderr);
	(void)vfprintf(stderr, fmt, ap);
	(void)fputs("\n", stderr);
	va_end(ap);
	exit(1);
}

static void print_usage(FILE *to)
{
	if (current != NULL)
		(void)fprintf(to, "Usage: %s %s [OPTIONS] %s\n", prog_name, current->name,
			current->words);
	else
		(void)fprintf(to, "Usage: %s [OPTIONS] COMMAND [ARGS]...\n", prog_name);
}

void fail_usage(const char *fmt, ...)
{
	va_list ap;
	(void)fflush(stdout);
	print_usage(stderr);
	(void)fprintf(stderr, "Try '%s%s%s --help' for help.\n\nError: ", prog_name,
		current != NULL ? " " : "", current != NULL ? current->name : "");
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	(void)fputs("\n", stderr);
	va_end(ap);
	exit(2);
}

static void print_options(const struct opt *opts)
{
	printf("\nOptions:\n");
	for (const struct opt *o = opts; o->name != NULL; o++) {
		char left[64];
		if (o->letter != '\0' && o->name[1] == '\0')
			(void)snprintf(left, sizeof(left), "-%c", o->letter);
		else if (o->letter != '\0')
			(void)snprintf(left, sizeof(left), "-%c, --%s%s", o->letter, o->name,
				o->takes_value ? " TEXT" : "");
		else
			(void)snprintf(left, sizeof(left), "--%s%s", o->name,
				o->takes_value ? " TEXT" : "");
		printf("  %-26s %s\n", left, o->help);
	}
}

static void print_help(void)
{
	print_usage(stdout);
	if (current != NULL) {
		printf("\n  %s\n", current->help);
		print_options(current->opts);
		return;
	}
	print_options(global_opts);
	printf("\nCommands:\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		printf("  %-18s %s\n", commands[i].name, commands[i].help);
}

static enum log_level level_of_environment(void)
{
	static const char *const names[] = { "LOGLEVEL", "PATRONI_LOGLEVEL", "PATRONI_LOG_LEVEL" };
	enum log_level level = LOG_WARNING;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *v = getenv(names[i]);
		if (v == NULL)
			continue;
		level = str_eq_nocase(v, "DEBUG")      ? LOG_DEBUG
			: str_eq_nocase(v, "INFO")     ? LOG_INFO
			: str_eq_nocase(v, "ERROR")    ? LOG_ERROR
			: str_eq_nocase(v, "CRITICAL") ? LOG_CRITICAL
						       : LOG_WARNING;
	}
	return level;
}

/* "<time> - <LEVEL> - <text>", as scripts know it (ctl 1). */
static void write_log(const struct log_record *r)
{
	static const char *const names[] = { [LOG_DEBUG] = "DEBUG",
		[LOG_INFO] = "INFO",
		[LOG_WARNING] = "WARNING",
		[LOG_ERROR] = "ERROR",
		[LOG_CRITICAL] = "CRITICAL" };
	time_t at = (time_t)(r->wall_us / 1000000);
	struct tm tm;
	char day[40];
	(void)localtime_r(&at, &tm);
	(void)strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &tm);
	(void)fprintf(stderr, "%s,%03d - %s - %s\n", day, (int)(r->wall_us / 1000 % 1000),
		names[r->level], r->text);
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	fail_usage("No such command '%s'.", name);
}

static void take_group(struct ctl *c, const struct args *a)
{
	const char *text = args_value(a, "group");
	int64_t n = -1;
	if (text != NULL && (!str_to_i64(text, &n) || n < 0 || n > 2147483647))
		fail_usage("Invalid value for '--group': '%s' is not a valid integer.", text);
	c->group = (int)n;
}

static void run(struct ctl *c, const struct command *cmd, int argc, char **argv)
{
	static struct args a;
	struct err err = ERR_INIT;
	current = cmd;
	enum err_code rc = args_read(&a, cmd->opts, false, argc, argv, &err);
	if (args_has(&a, "help")) {
		print_help();
		return;
	}
	if (rc != ERR_OK)
		fail_usage("%s", err.text);
	if (a.word_count < cmd->min_words)
		fail_usage("Missing argument '%s'.",
			a.word_count == 0 ? "CLUSTER_NAME" : "{restart|switchover}");
	if (a.word_count > cmd->max_words)
		fail_usage("Got unexpected extra argument (%s)", a.words[cmd->max_words]);
	take_group(c, &a);
	source_open(c);
	cmd->run(c, &a);
	source_close(c);
}

int main(int argc, char **argv)
{
	static struct args global;
	static struct ctl c;
	struct err err = ERR_INIT;
	const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
	if (argc > 0)
		prog_name = slash != NULL ? slash + 1 : argv[0];
	log_open("", 2, level_of_environment());
	log_set_sink(write_log);
	if (args_read(&global, global_opts, true, argc - 1, argv + 1, &err) != ERR_OK)
		fail_usage("%s", err.text);
	argc -= 1 + global.consumed;
	argv += 1 + global.consumed;
	if (args_has(&global, "help") || (argc == 0 && global.consumed == 0)) {
		print_help();
		return 0;
	}
	if (argc == 0)
		fail_usage("Missing command.");
	c.prog = prog_name;
	c.config_path = args_value(&global, "config-file");
	c.dcs_url = args_value(&global, "dcs-url");
	if (c.dcs_url == NULL)
		c.dcs_url = getenv("DCS_URL");
	c.insecure = args_has(&global, "insecure");
	run(&c, find_command(argv[0]), argc - 1, argv + 1);
	return fflush(stdout) != 0 ? 1 : c.status;
}
