/* sd_notify without a library. Supervisor only. */
#include "supervisor/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/core/clock.h"
#include "common/core/log.h"
#include "common/core/str.h"

#define EXTEND_EVERY_MS 5000
#define EXTEND_BY                                                                                  \
	"EXTEND_TIMEOUT_USEC=30000000" /* a start may wait for the store without limit             \
					*/

void notify_open(struct notify *n, const char *socket_name)
{
	*n = (struct notify){ .fd = -1 };
	if (*socket_name == '\0')
		return;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = strlen(socket_name);
	if ((*socket_name != '/' && *socket_name != '@') ||
		!str_copy(sa.sun_path, sizeof(sa.sun_path), socket_name)) {
		log_warning("NOTIFY_SOCKET=%s is neither a path nor an abstract name", socket_name);
		return;
	}
	if (sa.sun_path[0] == '@')
		sa.sun_path[0] = '\0';
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (n->fd < 0 || connect(n->fd, (struct sockaddr *)&sa, size) < 0) {
		log_warning("NOTIFY_SOCKET=%s: %s", socket_name, strerror(errno));
		if (n->fd >= 0)
			close(n->fd);
		n->fd = -1;
	}
}

void notify_send(struct notify *n, const char *text)
{
	char line[256];
	if (n->fd < 0)
		return;
	if (str_eq(text, "READY=1"))
		n->ready = 1;
	bool fits = str_eq(text, "RELOADING=1")
			    ? str_format(line, sizeof(line), "%s\nMONOTONIC_USEC=%" PRId64, text,
				      clock_monotonic_us())
			    : str_copy(line, sizeof(line), text);
	if (fits && send(n->fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_warning("sd_notify %s: %s", text, strerror(errno));
}

void notify_tick(struct notify *n, int64_t now_ms)
{
	if (n->fd < 0 || n->ready != 0 || now_ms < n->extend_at_ms)
		return;
	notify_send(n, EXTEND_BY);
	n->extend_at_ms = now_ms + EXTEND_EVERY_MS;
}

int64_t notify_next_ms(const struct notify *n)
{
	return n->fd < 0 || n->ready != 0 ? INT64_MAX : n->extend_at_ms;
}
