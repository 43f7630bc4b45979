/* pgregent-files as the receiver of what a supervisor or a worker sends (see fuzz_ipc.c): the whole
 * program but for its signals, on real files. Every name that it uses leads into a directory of our
 * own: the calls that take one are wrapped by the linker (--wrap), and one that would leave it by
 * ".." finds nothing. So an absolute name in a request can do no harm to the machine. */
#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/core/invariant.h"
#include "tests/fuzz/fuzz_ipc.h"

#define main files_main
#include "worker/files/main.c"
#undef main

static char jail[64];
static bool inside, changed; /* the program runs; it has changed something */
static int far_end = -1, worker_end = -1;

/* ---- names ----------------------------------------------------------------------------- */

/* Relative names (of openat and its like) stay as they are. */
static const char *jailed(const char *path, char out[static 2 * PATH_MAX])
{
	if (!inside)
		return path;
	for (const char *p = path; (p = strstr(p, "..")) != NULL; p += 2)
		if ((p == path || p[-1] == '/') && (p[2] == '\0' || p[2] == '/'))
			return "/nowhere/at/all";
	if (*path != '/')
		return path;
	snprintf(out, 2 * PATH_MAX, "%s%s", jail, path);
	return out;
}

#define WRAP(type, name, args, call, mark)                                                         \
	type __real_##name args;                                                                   \
	type __wrap_##name args;                                                                   \
	type __wrap_##name args                                                                    \
	{                                                                                          \
		char a[2 * PATH_MAX], b[2 * PATH_MAX];                                             \
		(void)a;                                                                           \
		(void)b;                                                                           \
		changed |= inside && (mark);                                                       \
		return __real_##name call;                                                         \
	}

WRAP(int, stat, (const char *p, struct stat *st), (jailed(p, a), st), false)
WRAP(int, lstat, (const char *p, struct stat *st), (jailed(p, a), st), false)
WRAP(int, fstatat, (int d, const char *p, struct stat *st, int f), (d, jailed(p, a), st, f), false)
WRAP(int, access, (const char *p, int m), (jailed(p, a), m), false)
WRAP(int, faccessat, (int d, const char *p, int m, int f), (d, jailed(p, a), m, f), false)
WRAP(int, rename, (const char *p, const char *q), (jailed(p, a), jailed(q, b)), true)
WRAP(int, renameat2, (int d, const char *p, int e, const char *q, unsigned f),
	(d, jailed(p, a), e, jailed(q, b), f), true)
WRAP(int, unlink, (const char *p), (jailed(p, a)), true)
WRAP(int, unlinkat, (int d, const char *p, int f), (d, jailed(p, a), f), true)
WRAP(int, mkdir, (const char *p, mode_t m), (jailed(p, a), m), true)
WRAP(int, rmdir, (const char *p), (jailed(p, a)), true)
WRAP(int, chmod, (const char *p, mode_t m), (jailed(p, a), m), true)
WRAP(DIR *, opendir, (const char *p), (jailed(p, a)), false)
WRAP(FILE *, fopen, (const char *p, const char *m), (jailed(p, a), m), true)
WRAP(ssize_t, readlink, (const char *p, char *out, size_t n), (jailed(p, a), out, n), false)
WRAP(int, symlink, (const char *p, const char *q), (jailed(p, a), jailed(q, b)), true)
WRAP(int, scandir,
	(const char *p, struct dirent ***l, int (*f)(const struct dirent *),
		int (*c)(const struct dirent **, const struct dirent **)),
	(jailed(p, a), l, f, c), false)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, mode_t mode);
int __wrap_open(const char *path, int flags, mode_t mode)
{
	char a[2 * PATH_MAX];
	changed |= inside && (flags & (O_CREAT | O_TRUNC | O_ACCMODE)) != 0;
	return __real_open(jailed(path, a), flags, mode);
}

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, mode_t mode);
int __wrap_openat(int dir, const char *path, int flags, mode_t mode)
{
	char a[2 * PATH_MAX];
	changed |= inside && (flags & (O_CREAT | O_TRUNC | O_ACCMODE)) != 0;
	return __real_openat(dir, jailed(path, a), flags, mode);
}

/* What it returns must be a name as the program knows it. */
char *__real_realpath(const char *path, char *out);
char *__wrap_realpath(const char *path, char *out);
char *__wrap_realpath(const char *path, char *out)
{
	char a[2 * PATH_MAX];
	char *real = __real_realpath(jailed(path, a), out);
	size_t len = strlen(jail);
	if (inside && real != NULL && strncmp(real, jail, len) == 0)
		memmove(real, real[len] != '\0' ? real + len : "/", strlen(real + len) + 2);
	return real;
}

int __real_mkostemp(char *template, int flags);
int __wrap_mkostemp(char *template, int flags);
int __wrap_mkostemp(char *template, int flags)
{
	char a[2 * PATH_MAX];
	const char *path = jailed(template, a);
	if (path == template)
		return __real_mkostemp(template, flags);
	if (path != a) {
		errno = ENOENT;
		return -1;
	}
	changed = true;
	int fd = __real_mkostemp(a, flags);
	memcpy(template, a + strlen(jail), strlen(template));
	return fd;
}

/* ---- what the program calls of others -------------------------------------------------- */

void last_fence_prepare(const char *data_dir, const char *runtime_dir, int sup_fd)
{
	INVARIANT(data_dir[0] == '/' && runtime_dir != NULL);
}

void last_fence_on_duty(void)
{
}

bool last_fence_due(void)
{
	return false;
}

void last_fence_run(last_fence_root_fn root)
{
	(void)root;
	abort();
}

/* ---- the program ----------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	return at->level == 0 ? 0 : remove(path);
}

static void write_file(const char *name, const char *text)
{
	char path[200];
	snprintf(path, sizeof(path), "%s%s", jail, name);
	FILE *f = fopen(path, "w");
	if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0)
		abort();
}

static void fill_jail(void)
{
	static const char *const dirs[] = { "/data", "/data/global", "/data/pg_wal",
		"/data/pg_tblspc", "/run", "/other" };
	char path[200];
	if (jail[0] == '\0') {
		snprintf(jail, sizeof(jail), "/tmp/fuzz-files.XXXXXX");
		if (mkdtemp(jail) == NULL)
			abort();
	}
	nftw(jail, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	for (unsigned i = 0; i < ARRAY_LEN(dirs); i++) {
		snprintf(path, sizeof(path), "%s%s", jail, dirs[i]);
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			abort();
	}
	write_file("/data/PG_VERSION", "15\n");
	write_file("/data/postgresql.conf", "port = 5432\n");
	write_file("/data/pg_hba.conf", "local all all trust\n");
	write_file("/data/postmaster.pid", "12345\n/data\n1700000000\n5432\n/tmp\n\n\n");
	write_file("/other/.s.PGSQL.5432.lock", "12345\n/data\n1700000000\n5432\n/other\n");
	write_file("/data/pg_wal/00000002.history", "1\t0/3000000\tno recovery target specified\n");
	snprintf(path, sizeof(path), "%s/data/pg_tblspc/16384", jail);
	char target[100];
	snprintf(target, sizeof(target), "%s/other", jail);
	if (symlink(target, path) < 0)
		abort();
	changed = false;
}

static void say(enum msg_type type, const void *payload, int fd)
{
	struct err err = ERR_INIT;
	if (ipc_send(far_end, type, 0, payload, NULL, 0, &fd, fd >= 0, &err) != ERR_OK)
		abort();
}

static void one_turn(void)
{
	struct err err = ERR_INIT;
	if (!files.ended && loop_turn(&files.loop, 0, &err) != ERR_OK)
		abort();
}

void target_start(void)
{
	int pair[2];
	struct err err = ERR_INIT;
	if (jail[0] == '\0' || changed)
		fill_jail();
	if (ipc_pair(pair, &err) != ERR_OK || dup2(pair[1], SUP_FD) < 0)
		abort();
	if (pair[1] != SUP_FD)
		close(pair[1]);
	far_end = pair[0];
	memset(&files, 0, sizeof(files));
	files.umask = 0077;
	files.parent = getppid();
	files.deadman_fd = files.signal_fd = -1;
	files.status = (struct shm)SHM_INIT;
	loop_init(&files.loop, NULL, NULL);
	if (loop_fd_set(&files.loop, SUP_FD, POLLIN, on_sup, NULL, &err) != ERR_OK)
		abort();
	inside = true;
	if (FUZZ_FROM != ROLE_WORKER)
		return;
	struct msg_welcome w = { .incarnation = 1, .data_dir = "/data", .runtime_dir = "/run" };
	struct msg_peer peer = { .role = ROLE_WORKER, .incarnation = 1 };
	say(MSG_WELCOME, &w, -1);
	if (ipc_pair(pair, &err) != ERR_OK)
		abort();
	say(MSG_PEER, &peer, pair[1]);
	close(pair[1]);
	worker_end = pair[0];
	one_turn();
}

void target_turn(void)
{
	one_turn();
	fuzz_drain(far_end);
	fuzz_drain(worker_end);
	/* A worker gone mad ends its own connection, never us. */
	INVARIANT(FUZZ_FROM != ROLE_WORKER || !files.ended);
	INVARIANT(!files.fence || (files.sup_gone && files.welcomed));
}

/* A new worker, or the end of the supervisor. */
void target_event(uint8_t what)
{
	int pair[2];
	struct err err = ERR_INIT;
	struct msg_peer peer = { .role = ROLE_WORKER, .incarnation = 2 };
	if (FUZZ_FROM == ROLE_SUPERVISOR && what % 4 == 0 && far_end >= 0) {
		close(far_end);
		far_end = -1;
	}
	if (FUZZ_FROM != ROLE_WORKER || ipc_pair(pair, &err) != ERR_OK)
		return;
	say(MSG_PEER, &peer, pair[1]);
	close(pair[1]);
	close(worker_end);
	worker_end = pair[0];
}

void target_end(void)
{
	inside = false;
	if (files.welcomed) {
		peer_done(&files.peer);
		ops_done(&files.ops);
	}
	shm_done(&files.status);
	loop_done(&files.loop);
	if (far_end >= 0)
		close(far_end);
	if (worker_end >= 0)
		close(worker_end);
	far_end = worker_end = -1;
}

int target_socket(void)
{
	return FUZZ_FROM == ROLE_WORKER ? worker_end : far_end;
}

enum ipc_role target_role(void)
{
	return ROLE_FILES;
}
