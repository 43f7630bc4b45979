/* Finding and asking programs of PostgreSQL. See program.h. */
#include "common/config/program.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/limits.h"
#include "common/core/str.h"

#define VERSION_MS 5000 /* a program that says nothing by then is no postgres */

static bool executable(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && !S_ISDIR(st.st_mode) && access(path, X_OK) == 0;
}

bool program_find(const char *dir, const char *name, char *out, size_t out_len)
{
	if (strchr(name, '/') != NULL)
		return executable(name) && str_copy(out, out_len, name);
	if (dir != NULL && dir[0] != '\0')
		return str_format(out, out_len, "%s/%s", dir, name) && executable(out);
	const char *path = getenv("PATH");
	if (path == NULL)
		path = "/bin:/usr/bin";
	while (*path != '\0') {
		size_t n = strcspn(path, ":");
		if (str_format(out, out_len, "%.*s/%s", n > 0 ? (int)n : 1, n > 0 ? path : ".",
			    name) &&
			executable(out))
			return true;
		path += n + (path[n] == ':');
	}
	out[0] = '\0';
	return false;
}

/* What the program printed before it ended or the time was over; the child is reaped in any case.
 */
static enum err_code read_output(pid_t pid, int fd, char *out, size_t len, struct err *err)
{
	int64_t until_ms = clock_boot_ms() + VERSION_MS;
	size_t have = 0;
	bool ended = false;
	while (have + 1 < len && !ended) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left_ms = until_ms - clock_boot_ms();
		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) <= 0)
			break;
		ssize_t n = read(fd, out + have, len - 1 - have);
		ended = n <= 0;
		have += n > 0 ? (size_t)n : 0;
	}
	out[have] = '\0';
	if (!ended)
		kill(pid, SIGKILL);
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!ended || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, ERR_STATE, 0, "it ended with status %d", status);
	return ERR_OK;
}

static enum err_code ask(const char *path, char *out, size_t len, struct err *err)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(err, ERR_SYS, errno, "pipe");
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	char *argv[] = { (char *)path, "--version", NULL };
	pid_t pid;
	int failed = posix_spawn(&pid, path, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	enum err_code rc = failed != 0 ? err_set(err, ERR_SYS, failed, "%s", path)
				       : read_output(pid, fds[0], out, len, err);
	close(fds[0]);
	return rc;
}

/* "postgres (PostgreSQL) 15.4 (Debian ...)", "... 16beta1", "... 9.6.24": the first word that
 * begins with a digit, without its minor part. */
static bool major_of(const char *text, char *out, size_t len)
{
	const char *p = text;
	while (*p != '\0' && !(isdigit((unsigned char)*p) && p > text && p[-1] == ' '))
		p++;
	size_t n = strspn(p, "0123456789");
	int64_t first = 0;
	char word[16];
	if (n == 0 || !str_copy_n(word, sizeof(word), p, n) || !str_to_i64(word, &first))
		return false;
	if (first < 10 && p[n] == '.')
		n += 1 + strspn(p + n + 1, "0123456789");
	return str_copy_n(out, len, p, n);
}

enum err_code program_version(
	const char *dir, const char *name, char *out_major, size_t out_len, struct err *err)
{
	char path[LIMIT_PATH], text[512];
	if (!program_find(dir, name, path, sizeof(path)))
		return err_set(err, ERR_NOTFOUND, 0, "%s is not an executable in %s", name,
			dir != NULL && dir[0] != '\0' ? dir : "PATH");
	enum err_code rc = ask(path, text, sizeof(text), err);
	if (rc != ERR_OK)
		return err_wrap(err, "%s --version", path);
	if (!major_of(text, out_major, out_len))
		return err_set(err, ERR_PARSE, 0, "%s --version says: %.100s", path, text);
	return ERR_OK;
}

int32_t program_version_number(const char *major)
{
	char *end;
	long first = strtol(major, &end, 10);
	long second = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
	return first < 1 || first > 1000 ? 0 : (int32_t)(first * 10000 + second * 100);
}
