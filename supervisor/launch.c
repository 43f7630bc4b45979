/* Before the loop: arguments, environments, programs, instance, run-time directory. Supervisor
 * only. The configuration is read by pgregent-worker; no byte of it is parsed here but four
 * key=value lines. */
#include "supervisor/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/buf.h"
#include "common/core/clock.h"
#include "common/core/str.h"
#include "supervisor/spawn.h"

#define LAUNCH_MS     10000
#define LAUNCH_OUTPUT 8192 /* four lines of at most LIMIT_PATH */

/* ---- arguments ---- */

/* "--name VALUE" and "--name=VALUE"; true when argv[*i] was this option. */
static bool take_option(int argc, char **argv, int *i, const char *name, const char **out)
{
	size_t n = strlen(name);
	const char *a = argv[*i];
	if (strncmp(a, name, n) != 0 || (a[n] != '\0' && a[n] != '='))
		return false;
	*out = a[n] == '=' ? a + n + 1 : (*i + 1 < argc ? argv[++*i] : "");
	return true;
}

enum launch_mode launch_args(struct launch *l, int argc, char **argv, struct err *err)
{
	static const struct {
		const char *name;
		size_t offset;
	} options[] = {
		{ "--user", offsetof(struct launch, user) },
		{ "--data-dir", offsetof(struct launch, data_dir_option) },
		{ "--runtime-dir", offsetof(struct launch, runtime_dir_option) },
	};
	memset(l, 0, sizeof(*l));
	l->runtime_fd = -1;
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] != '-') {
			if (l->config != NULL)
				return LAUNCH_EXEC_WORKER; /* two files: the usage text is its
							      business */
			l->config = argv[i];
			continue;
		}
		if (str_eq(argv[i], "--upgrade-check")) {
			l->upgrade_check = true;
			continue;
		}
		bool known = false;
		for (unsigned o = 0; o < ARRAY_LEN(options) && !known; o++) {
			const char **slot = (const char **)((char *)l + options[o].offset);
			known = take_option(argc, argv, &i, options[o].name, slot);
			if (known && **slot == '\0') {
				err_set(err, ERR_INVAL, 0, "option %s needs a value",
					options[o].name);
				return LAUNCH_USAGE;
			}
		}
		if (!known)
			return LAUNCH_EXEC_WORKER;
	}
	return LAUNCH_RUN;
}

/* ---- programs ---- */

bool launch_program(const struct launch *l, const char *role, char *out, size_t out_len)
{
	return str_format(out, out_len, "%s/pgregent-%s", l->libexec, role);
}

enum err_code launch_find_programs(struct launch *l, struct err *err)
{
	char probe[LIMIT_PATH], own_dir[LIMIT_PATH];
	static const char deleted[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", l->self, sizeof(l->self) - 1);
	if (n < 0)
		return err_set(err, ERR_SYS, errno, "readlink /proc/self/exe (is /proc mounted?)");
	l->self[n] = '\0';
	if (str_ends(l->self, deleted)) /* replaced on disk while it ran */
		l->self[(size_t)n - strlen(deleted)] = '\0';
	if (!str_copy(own_dir, sizeof(own_dir), l->self))
		return err_set(err, ERR_LIMIT, 0, "path of this program");
	*strrchr(own_dir, '/') = '\0';
	const char *forced = getenv("PGREGENT_LIBEXEC");
	if (forced != NULL && *forced != '\0') {
		if (!str_copy(l->libexec, sizeof(l->libexec), forced))
			return err_set(
				err, ERR_LIMIT, 0, "PGREGENT_LIBEXEC is over %d bytes", LIMIT_PATH);
		return ERR_OK;
	}
	static const char *const places[] = { "%s", "%s/../lib/pgregent" };
	for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
		if (str_format(l->libexec, sizeof(l->libexec), places[i], own_dir) &&
			launch_program(l, "worker", probe, sizeof(probe)) &&
			access(probe, X_OK) == 0)
			return ERR_OK;
	}
	return err_set(err, ERR_NOTFOUND, 0,
		"pgregent-worker is neither in %s nor in %s/../lib/pgregent", own_dir, own_dir);
}

/* ---- environments ---- */

static bool starts_with_any(const char *s, const char *const *list)
{
	for (; *list != NULL; list++) {
		if (str_starts(s, *list))
			return true;
	}
	return false;
}

/* An entry of our own, kept for the life of the process. */
static char *env_entry(const char *name, const char *value)
{
	char *s = NULL;
	return asprintf(&s, "%s=%s", name, value) < 0 ? NULL : s;
}

static enum err_code environment_of_postgres(struct launch *l, unsigned count, struct err *err)
{
	static const char wrapped[] = "PG_MALLOC_ARENA_MAX=", plain[] = "MALLOC_ARENA_MAX=";
	l->env_pg = calloc(count + 1, sizeof(char *));
	if (l->env_pg == NULL)
		return err_set(err, ERR_NOMEM, 0, "environment");
	bool given = getenv("PG_MALLOC_ARENA_MAX") != NULL;
	for (unsigned i = 0, n = 0; i < count; i++) {
		if (str_starts(l->env_plain[i], wrapped))
			l->env_pg[n++] = l->env_plain[i] + strlen("PG_");
		else if (!given || !str_starts(l->env_plain[i], plain))
			l->env_pg[n++] = l->env_plain[i];
	}
	return ERR_OK;
}

enum err_code launch_environment(struct launch *l, const struct privs *p, struct err *err)
{
	static const char *const ours[] = { "NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID=",
		"LISTEN_", "PGREGENT_LIBEXEC=", "PGREGENT_HANDOVER=", "RUNTIME_DIRECTORY=", NULL };
	static const char *const secret[] = { "PATRONI_", "KUBERNETES_", NULL };
	static const char *const user[] = {
		"HOME=", "USER=", "LOGNAME=", "SHELL=", "XDG_RUNTIME_DIR=", "MAIL=", NULL
	};
	const char *socket = getenv("NOTIFY_SOCKET");
	if (socket != NULL && !str_copy(l->notify_socket, sizeof(l->notify_socket), socket))
		return err_set(err, ERR_LIMIT, 0, "NOTIFY_SOCKET is over %zu bytes",
			sizeof(l->notify_socket));
	unsigned n = 0, w = 0, q = 0;
	while (environ[n] != NULL)
		n++;
	if (n > LIMIT_ARGS)
		return err_set(err, ERR_LIMIT, 0, "over %d environment variables", LIMIT_ARGS);
	l->env_worker = calloc(n + 5, sizeof(char *));
	l->env_plain = calloc(n + 5, sizeof(char *));
	if (l->env_worker == NULL || l->env_plain == NULL)
		return err_set(err, ERR_NOMEM, 0, "environment");
	/* Root's home and login name are not those of the user that children run as. */
	if (p->root) {
		const char *const set[][2] = { { "HOME", p->home }, { "USER", p->user },
			{ "LOGNAME", p->user }, { "SHELL", p->shell } };
		for (unsigned i = 0; i < ARRAY_LEN(set); i++) {
			char *e = env_entry(set[i][0], set[i][1]);
			if (e == NULL)
				return err_set(err, ERR_NOMEM, 0, "environment");
			l->env_worker[w++] = l->env_plain[q++] = e;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		if (starts_with_any(environ[i], ours) ||
			(p->root && starts_with_any(environ[i], user)))
			continue;
		l->env_worker[w++] = environ[i];
		if (!starts_with_any(environ[i], secret))
			l->env_plain[q++] = environ[i];
	}
	return environment_of_postgres(l, q, err);
}

/* ---- the instance ---- */

static enum err_code take_line(struct launch *l, char *line, struct err *err)
{
	const struct {
		const char *key;
		char *out;
		size_t size;
	} keys[] = {
		{ "data_dir=", l->data_dir, sizeof(l->data_dir) },
		{ "scope=", l->scope, sizeof(l->scope) },
		{ "name=", l->name, sizeof(l->name) },
		{ "runtime_dir=", l->runtime_base, sizeof(l->runtime_base) },
	};
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
		if (!str_starts(line, keys[i].key))
			continue;
		if (!str_copy(keys[i].out, keys[i].size, line + strlen(keys[i].key)))
			return err_set(
				err, ERR_LIMIT, 0, "%s over %zu bytes", keys[i].key, keys[i].size);
		return ERR_OK;
	}
	return err_set(err, ERR_PROTO, 0, "pgregent-worker --launch printed \"%.60s\"", line);
}

/* All output until end of file or the deadline. */
static enum err_code read_output(int fd, char *out, size_t size, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + LAUNCH_MS;
	size_t len = 0;
	for (;;) {
		int64_t left = until_ms - clock_boot_ms();
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return err_set(err, ERR_TIMEOUT, 0,
				"pgregent-worker --launch: no answer within %d ms", LAUNCH_MS);
		ssize_t n = read(fd, out + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_SYS, errno, "pgregent-worker --launch: read");
		len += (size_t)n;
		out[len] = '\0';
		if (n == 0)
			return ERR_OK;
		if (len == size - 1)
			return err_set(err, ERR_LIMIT, 0,
				"pgregent-worker --launch printed over %zu bytes", size);
	}
}

static enum err_code run_launch(struct launch *l, const struct privs *p, char *out, size_t size,
	int *out_status, struct err *err)
{
	char path[LIMIT_PATH];
	int fds[2];
	if (!launch_program(l, "worker", path, sizeof(path)))
		return err_set(err, ERR_LIMIT, 0, "path of pgregent-worker");
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, ERR_SYS, errno, "pipe");
	AUTO_FD rd = fds[0];
	char *argv[] = { path, "--launch", (char *)l->config, NULL };
	struct spawn s = { .path = path,
		.argv = argv,
		.envp = l->env_worker,
		.fds = { -1, fds[1], 2 },
		.fd_count = 3,
		.gate_fd = -1,
		.kind = PRIV_HELPER,
		.umask = p->umask };
	pid_t pid;
	enum err_code rc = spawn_child(p, &s, &pid, NULL, err);
	close(fds[1]);
	if (rc != ERR_OK)
		return rc;
	rc = read_output(rd, out, size, err);
	if (rc != ERR_OK)
		kill(pid, SIGKILL);
	int status;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (rc == ERR_OK && status != 0) {
		*out_status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
		rc = err_set(err, ERR_INVAL, 0, "pgregent-worker --launch ended with status %d",
			*out_status);
	}
	return rc;
}

enum err_code launch_instance(struct launch *l, const struct privs *p, const char *known,
	int *out_status, struct err *err)
{
	static char out[LAUNCH_OUTPUT];
	*out_status = 1;
	enum err_code rc = ERR_OK;
	if (known == NULL)
		rc = run_launch(l, p, out, sizeof(out), out_status, err);
	else if (!str_copy(out, sizeof(out), known))
		rc = err_set(err, ERR_LIMIT, 0, "the instance of the program before");
	if (rc != ERR_OK)
		return rc;
	for (char *line = out, *next; *line != '\0'; line = next) {
		char *end = strchr(line, '\n');
		next = end != NULL ? end + 1 : line + strlen(line);
		if (end != NULL)
			*end = '\0';
		if ((rc = take_line(l, line, err)) != ERR_OK)
			return rc;
	}
	if (l->data_dir_option != NULL &&
		!str_copy(l->data_dir, sizeof(l->data_dir), l->data_dir_option))
		return err_set(err, ERR_LIMIT, 0, "--data-dir is over %d bytes", LIMIT_PATH);
	if (l->data_dir[0] != '/')
		return err_set(err, ERR_INVAL, 0, "data directory \"%s\": must be an absolute path",
			l->data_dir);
	/* /proc shows the working directory of a postmaster without links. */
	char *real = realpath(l->data_dir, NULL);
	bool fits = str_copy(l->data_real, sizeof(l->data_real), real != NULL ? real : l->data_dir);
	free(real);
	if (!fits)
		return err_set(err, ERR_LIMIT, 0, "data directory is over %d bytes", LIMIT_PATH);
	if (l->scope[0] == '\0' || l->name[0] == '\0')
		return err_set(err, ERR_INVAL, 0, "scope and name must not be empty");
	return ERR_OK;
}

/* ---- the run-time directory ---- */

/* Make (when missing) and open a directory; only its owner or root may be able to change it. */
static enum err_code open_dir(int at, const char *path, mode_t mode, const struct privs *p,
	bool chown_it, int *out_fd, struct err *err)
{
	bool made = mkdirat(at, path, mode) == 0;
	if (!made && errno != EEXIST)
		return err_set(err, ERR_SYS, errno, "mkdir %s", path);
	AUTO_FD fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "open %s", path);
	if (made &&
		(fchmod(fd, mode) < 0 || (chown_it && p->root && fchown(fd, p->uid, p->gid) < 0)))
		return err_set(err, ERR_SYS, errno, "set owner and mode of %s", path);
	if (!made && st.st_uid != p->uid && st.st_uid != geteuid())
		return err_set(
			err, ERR_DENIED, 0, "%s belongs to uid %u, not to us", path, st.st_uid);
	*out_fd = fd;
	fd = -1;
	return ERR_OK;
}

/* Candidate bases in the order in which pgregentctl looks for them. */
static bool base_at(
	const struct launch *l, const struct privs *p, unsigned i, char *out, size_t len)
{
	const char *e;
	switch (i) {
	case 0:
		e = l->runtime_dir_option != NULL ? l->runtime_dir_option : l->runtime_base;
		return *e != '\0' && str_copy(out, len, e);
	case 1:
		e = getenv("RUNTIME_DIRECTORY"); /* systemd: may be a list with colons; the first
						    counts */
		return e != NULL && *e == '/' && str_copy_n(out, len, e, strcspn(e, ":"));
	case 2: return str_copy(out, len, "/run/pgregent");
	case 3:
		e = getenv("XDG_RUNTIME_DIR");
		return e != NULL && *e == '/' && str_format(out, len, "%s/pgregent", e);
	default: return str_format(out, len, "/tmp/pgregent-%u", p->uid);
	}
}

#define BASE_COUNT 5
#define BASE_TMP   4

enum err_code launch_runtime_dir(struct launch *l, const struct privs *p, struct err *err)
{
	char sub[2 * LIMIT_NAME + 1], base[LIMIT_PATH];
	if (!str_format(sub, sizeof(sub), "%s.%s", l->scope, l->name))
		return err_set(err, ERR_LIMIT, 0, "scope and name are too long");
	for (char *c = sub; *c != '\0'; c++)
		*c = *c == '/' ? '_' : *c;
	enum err_code rc = ERR_NOTFOUND;
	for (unsigned i = 0; i < BASE_COUNT; i++) {
		if (!base_at(l, p, i, base, sizeof(base)))
			continue;
		AUTO_FD base_fd = -1;
		mode_t mode = i == BASE_TMP ? 0700 : 0755;
		rc = open_dir(AT_FDCWD, base, mode, p, i == BASE_TMP, &base_fd, err);
		if (rc == ERR_OK)
			rc = open_dir(base_fd, sub, 0755, p, true, &l->runtime_fd, err);
		if (rc == ERR_OK ||
			i == 0) /* what was asked for is taken or refused, never replaced */
			break;
	}
	if (rc != ERR_OK)
		return err_wrap(err, "run-time directory");
	/* A Unix socket's name has 108 bytes. */
	if (!str_format(l->runtime_dir,
		    sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/deadman.sock"), "%s/%s",
		    base, sub))
		return err_set(err, ERR_LIMIT, 0,
			"run-time directory %s/%s is too long for socket names", base, sub);
	return ERR_OK;
}
