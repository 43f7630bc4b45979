/* Lock files of Unix sockets before a start. See sockets.h. */
#include "worker/postgres/sockets.h"

#include <string.h>

#include "common/core/log.h"
#include "common/core/str.h"
#include "worker/files/files_msgs.h"

/* A start under a lease that runs down waits no longer for what is not needed as a rule. */
#define SETTING_MS 1000
#define FILES_MS   1000

/* ---- the list ---- */

static const char *skip_space(const char *p)
{
	return p + strspn(p, " \t\n\r\f\v");
}

/* p is past the first quote; NULL: there is no last one. Two in a row are one. */
static const char *quoted(const char *p, struct buf *name)
{
	for (; *p != '\0'; p++) {
		if (*p == '"' && *++p != '"')
			return p;
		buf_add(name, p, 1);
	}
	return NULL;
}

/* To the next comma, without the blanks before it; NULL: nothing is there. */
static const char *plain(const char *p, struct buf *name)
{
	size_t n = strcspn(p, ",");
	const char *end = p + n;
	while (n > 0 && strchr(" \t\n\r\f\v", p[n - 1]) != NULL)
		n--;
	buf_add(name, p, n);
	return n > 0 ? end : NULL;
}

bool sockets_split(const char *list, struct buf *out)
{
	const char *p = skip_space(list);
	if (*p == '\0')
		return true; /* TCP alone */
	for (;;) {
		AUTO(buf) name = BUF_INIT(LIMIT_CONNINFO);
		p = *p == '"' ? quoted(p + 1, &name) : plain(p, &name);
		if (p == NULL || name.failed)
			return false;
		if (name.len > 0 && name.data[0] != '@')
			buf_add(out, name.data, name.len + 1);
		p = skip_space(p);
		if (*p != ',')
			return *p == '\0' && !out->failed;
		p = skip_space(p + 1);
	}
}

/* ---- the sequence ---- */

static void ask_files(struct seq_sockets *s)
{
	uint64_t port;
	AUTO(buf) dirs = BUF_INIT(LIMIT_CONNINFO * 2);
	if (!str_to_u64(s->p->local_port, &port) || !sockets_split(s->setting.value, &dirs))
		co_wake(&s->co, co_ticket(&s->co), false, "port or directories are not understood");
	else if (dirs.len == 0)
		co_wake(&s->co, co_ticket(&s->co), true, "");
	else
		co_files(&s->co, FILES_CLEAR_SOCKET_LOCKS, 0, 0, port, dirs.data, dirs.len,
			FILES_MS);
}

/* Once for each state of things, not for each try to start. */
static void tell(const char *why)
{
	static char told[sizeof(((struct co *)0)->note)];
	if (strcmp(told, why) == 0)
		return;
	if (why[0] != '\0')
		log_warning("lock files of sockets: %s; PostgreSQL is started all the same", why);
	if (!str_copy(told, sizeof(told), why))
		told[0] = '\0';
}

void seq_sockets_step(struct co *co)
{
	struct seq_sockets *s = (struct seq_sockets *)co;
	CO_BEGIN(co);
	/* The server's own word: the directories may stand in any file that it includes, and the
	 * default is the builder's choice. */
	s->setting = (struct seq_setting){
		.p = s->p, .name = "unix_socket_directories", .timeout_ms = SETTING_MS
	};
	co_call(co, &s->setting.co, seq_setting_step);
	CO_WAIT(co);
	if (co->ok) {
		ask_files(s);
		CO_WAIT(co);
	}
	if (!co->cancelled)
		tell(co->ok ? "" : co->note);
	CO_RETURN(co, true, "looked at");
	CO_END(co);
}
