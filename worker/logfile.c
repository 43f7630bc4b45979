/* log.dir: starts the process that writes the file and connects the log to it (config 1.2). Nothing
 * here waits: while there is no writer, lines go to standard error. Worker process. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config/value.h"
#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "worker/worker.h"

#define START_MS      10000
#define AGAIN_MS      5000 /* between attempts to have a writer */
#define RECORD_BYTES  1024 /* what one line takes in the socket's queue, roughly */
#define DEFAULT_SIZE  25000000
#define DEFAULT_NUM   4
#define DEFAULT_QUEUE 1000

static int64_t number(const json_t *section, const char *key, int64_t def)
{
	const json_t *v = json_object_get(section, key);
	char text[64];
	int64_t n = def;
	if (v == NULL || json_is_null(v))
		return def;
	if (json_text(v, text, sizeof(text)) && value_parse_int(text, NULL, &n) && n >= 0)
		return n;
	log_warning(
		"log.%s: an integer, at least 0, is allowed; %lld is used", key, (long long)def);
	return def;
}

static const json_t *section(struct worker *w)
{
	return json_object_get(config_tree(w), "log");
}

static bool socket_path(const struct worker *w, char *out, size_t len)
{
	return str_format(out, len, "%s/log.sock", w->welcome.runtime_dir);
}

/* The other processes: theirs are lines of plain text, which have no place in a file of JSON. */
static void share(struct worker *w, int fd)
{
	const char *type = json_path_str(section(w), "type");
	if (type != NULL && strcmp(type, "json") == 0)
		fd = -1;
	if (link_send(w, MSG_LOG, 0, NULL, NULL, 0, &fd, fd >= 0) != ERR_OK)
		log_warning("log file: the other processes do not know of it");
}

static void to_stderr(struct worker *w)
{
	if (w->logfile.fd < 0)
		return;
	share(w, -1);
	log_reopen(2);
	close(w->logfile.fd);
	w->logfile.fd = -1;
}

static enum err_code connect_writer(struct worker *w, struct err *err)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	if (!socket_path(w, a.sun_path, sizeof(a.sun_path)))
		return err_set(err, ERR_LIMIT, 0, "run-time directory's name is too long");
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "socket");
	/* max_queue_size: what waits for the disk waits in the socket; more is dropped and counted.
	 */
	int64_t room = number(section(w), "max_queue_size", DEFAULT_QUEUE) * RECORD_BYTES;
	int bytes = room < 16384 ? 16384 : room > 64 * 1024 * 1024 ? 64 * 1024 * 1024 : (int)room;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		err_set(err, ERR_SYS, errno, "%s", a.sun_path);
		close(fd);
		return err->code;
	}
	to_stderr(w);
	w->logfile.fd = fd;
	log_reopen(fd);
	share(w, fd);
	return ERR_OK;
}

static void on_started(struct host *h, const struct host_reply *r, void *arg)
{
	struct worker *w = arg;
	struct err err = ERR_INIT;
	(void)h;
	w->logfile.starting = false;
	if (w->logfile.dir[0] == '\0')
		return;
	if (r->code != ANSWER_OK)
		log_error("log.dir %s: no log file: %s; lines go to standard error", w->logfile.dir,
			r->text);
	else if (connect_writer(w, &err) != ERR_OK)
		log_error("log.dir %s: %s", w->logfile.dir, err.text);
	else
		log_info("log file opened");
}

/* pgregent-files stands beside this program. */
static bool program(char *out, size_t len)
{
	ssize_t n = readlink("/proc/self/exe", out, len - 1);
	if (n < 0)
		return false;
	out[n] = '\0';
	char *slash = strrchr(out, '/');
	if (slash == NULL)
		return false;
	return str_copy(slash + 1, len - (size_t)(slash + 1 - out), "pgregent-files");
}

static void start(struct worker *w)
{
	char exe[LIMIT_PATH], socket[LIMIT_PATH], text[64];
	const json_t *s = section(w), *mode = json_object_get(s, "mode");
	int64_t bits = -1;
	struct host_cmd cmd = HOST_CMD_INIT;
	w->logfile.again_ms = clock_boot_ms() + AGAIN_MS;
	if (w->logfile.starting || !program(exe, sizeof(exe)) ||
		!socket_path(w, socket, sizeof(socket)))
		return;
	if (mode != NULL &&
		(!json_text(mode, text, sizeof(text)) || !value_parse_int(text, NULL, &bits) ||
			bits < 0 || bits > 0777)) {
		log_warning("log.mode: 0 to 0777 is allowed; the umask decides");
		bits = -1;
	}
	host_cmd_arg(&cmd, exe);
	host_cmd_arg(&cmd, "--log-writer");
	host_cmd_arg(&cmd, socket);
	host_cmd_arg(&cmd, w->logfile.dir);
	host_cmd_argf(&cmd, "%lld", (long long)number(s, "file_size", DEFAULT_SIZE));
	host_cmd_argf(&cmd, "%lld", (long long)number(s, "file_num", DEFAULT_NUM));
	host_cmd_argf(&cmd, "%lld", (long long)bits);
	w->logfile.starting = true;
	host_job(&w->host, "log file", &cmd, NULL, 0, START_MS, 1000, on_started, w);
	host_cmd_done(&cmd);
}

void logfile_apply(struct worker *w)
{
	const char *dir = json_path_str(section(w), "dir");
	if (dir == NULL || dir[0] == '\0') {
		w->logfile.dir[0] = '\0';
		to_stderr(w);
	} else if (!str_copy(w->logfile.dir, sizeof(w->logfile.dir), dir)) {
		log_error("log.dir %s: longer than %d bytes", dir, LIMIT_PATH - 1);
	} else {
		start(w); /* the new writer takes the place of the one that runs */
	}
}

void logfile_check(struct worker *w)
{
	if (w->logfile.dir[0] == '\0' || w->logfile.starting ||
		(w->logfile.fd >= 0 && !log_broken()) || clock_boot_ms() < w->logfile.again_ms)
		return;
	to_stderr(w);
	start(w);
}
