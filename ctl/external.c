/* Programs of the user: editor and pager. See external.h. A value names one program, without
 * arguments, as the reference takes it. */
#include "ctl/external.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/core/limits.h"
#include "common/core/str.h"
#include "ctl/ctl.h"

/* A name with a slash is a path; others are looked for in PATH. */
static bool find(const char *name, char *out, size_t len)
{
	const char *path = getenv("PATH");
	if (name == NULL || name[0] == '\0')
		return false;
	if (strchr(name, '/') != NULL)
		return access(name, X_OK) == 0 && str_copy(out, len, name);
	for (const char *p = path != NULL ? path : "/usr/bin:/bin"; *p != '\0';) {
		size_t n = strcspn(p, ":");
		if (n > 0 && str_format(out, len, "%.*s/%s", (int)n, p, name) &&
			access(out, X_OK) == 0)
			return true;
		p += n + (p[n] == ':');
	}
	return false;
}

static bool find_first(const char *const names[3], char *out, size_t len)
{
	for (size_t i = 0; i < 3; i++)
		if (find(names[i], out, len))
			return true;
	return false;
}

static int ended(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int external_edit(const char *file)
{
	const char *const names[] = { getenv("EDITOR"), "editor", "vi" };
	char editor[LIMIT_PATH];
	if (!find_first(names, editor, sizeof(editor)))
		fail("EDITOR environment variable is not set. editor or vi are not available");
	(void)fflush(stdout);
	pid_t pid = fork();
	if (pid < 0)
		fail("The editor cannot be started");
	if (pid == 0) {
		(void)execl(editor, editor, file, (char *)NULL);
		_exit(127);
	}
	return ended(pid);
}

static void exec_pager(const char *pager)
{
	const char *base = strrchr(pager, '/') != NULL ? strrchr(pager, '/') + 1 : pager;
	/* Colours as they are, and no waiting where all fits on the screen. */
	if (strcmp(base, "less") == 0)
		(void)execl(pager, pager, "-FRX", (char *)NULL);
	else
		(void)execl(pager, pager, (char *)NULL);
	_exit(127);
}

void external_page(const char *text)
{
	const char *const names[] = { getenv("PAGER"), "less", "more" };
	char pager[LIMIT_PATH];
	int fds[2];
	if (!find_first(names, pager, sizeof(pager)))
		fail("No pager could be found. Either set PAGER environment variable with your "
		     "pager or install either \"less\" or \"more\" in the host.");
	(void)fflush(stdout);
	if (pipe(fds) != 0)
		fail("The pager cannot be started");
	pid_t pid = fork();
	if (pid < 0)
		fail("The pager cannot be started");
	if (pid == 0) {
		(void)dup2(fds[0], STDIN_FILENO);
		(void)close(fds[0]);
		(void)close(fds[1]);
		exec_pager(pager);
	}
	(void)close(fds[0]);
	/* One that is left early closes the pipe: no reason to end. */
	(void)signal(SIGPIPE, SIG_IGN);
	for (size_t len = strlen(text); len > 0;) {
		ssize_t n = write(fds[1], text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		text += n;
		len -= (size_t)n;
	}
	(void)close(fds[1]);
	(void)ended(pid);
}
