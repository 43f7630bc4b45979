/* See watchdog.h. Run by the supervisor. It decides nothing: guard_step says when, this says how.
 */
#include "supervisor/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/ipc.h"
#include "common/core/log.h"
#include "common/core/str.h"
#include "supervisor/guard.h"

void watchdog_init(struct watchdog *w)
{
	*w = (struct watchdog){ .fd = -1 };
}

static bool is_testing(const struct watchdog *w)
{
	return w->config.driver == WATCHDOG_DRIVER_TESTING;
}

static void set_text(struct watchdog *w, const char *what, int e)
{
	bool fits = e != 0 ? str_format(w->state_text, sizeof(w->state_text), "%s: %s", what,
				     strerror(e))
			   : str_copy(w->state_text, sizeof(w->state_text), what);
	if (!fits && !str_copy(w->state_text, sizeof(w->state_text), "failed"))
		w->state_text[0] = '\0';
}

/* ---- what the drivers differ in -------------------------------------------------------- */

static int write_all(int fd, const char *text)
{
	size_t len = strlen(text);
	ssize_t n = write(fd, text, len);
	if (n == (ssize_t)len)
		return 0;
	if (n >= 0)
		errno = EAGAIN;
	return -1;
}

/* The timeout in seconds that is in force afterwards, or -1 with errno. */
static int set_timeout(struct watchdog *w, int seconds)
{
	if (is_testing(w)) {
		char line[32];
		if (!str_format(line, sizeof(line), "Ctimeout=%d\n", seconds) ||
			write_all(w->fd, line) < 0)
			return -1;
		return seconds;
	}
	int got = seconds;
	if (ioctl(w->fd, WDIOC_SETTIMEOUT, &got) < 0 && errno != ENOTTY && errno != EOPNOTSUPP)
		return -1;
	if (ioctl(w->fd, WDIOC_GETTIMEOUT, &got) < 0)
		return -1;
	return got;
}

static bool has_magic_close(const struct watchdog *w)
{
	if (is_testing(w))
		return true;
	struct watchdog_info info = { 0 };
	return ioctl(w->fd, WDIOC_GETSUPPORT, &info) == 0 && (info.options & WDIOF_MAGICCLOSE) != 0;
}

static int keepalive(const struct watchdog *w)
{
	if (is_testing(w))
		return write_all(w->fd, "1");
	return ioctl(w->fd, WDIOC_KEEPALIVE, 0);
}

/* ---- state ----------------------------------------------------------------------------- */

bool watchdog_disarm(struct watchdog *w)
{
	if (w->fd < 0)
		return false;
	if (write_all(w->fd, "V") < 0)
		log_warning("watchdog: cannot be disarmed: %s", strerror(errno));
	else if (!w->can_disarm)
		log_warning("watchdog: %s cannot be stopped and will reset the machine unless "
			    "something feeds it",
			w->config.device);
	else
		log_info("watchdog: disarmed device=%s", w->config.device);
	close(w->fd);
	w->fd = -1;
	w->timeout_ms = 0;
	return true;
}

static bool give_up(struct watchdog *w, const char *what, int e)
{
	set_text(w, what, e);
	if (!w->complained) {
		if (w->config.mode == WATCHDOG_REQUIRED)
			log_error("watchdog: %s (mode required: no lease is taken)", w->state_text);
		else
			log_warning("watchdog: %s", w->state_text);
	}
	w->complained = true;
	w->failed = true;
	if (w->fd >= 0)
		watchdog_disarm(w);
	return true;
}

static int to_seconds(int64_t timeout_ms)
{
	return (int)(timeout_ms / 1000);
}

/* After opening, or with a new timeout. False: the device was closed again. */
static bool apply_timeout(struct watchdog *w, int64_t ttl_ms)
{
	int seconds = set_timeout(w, to_seconds(w->config.timeout_ms));
	if (seconds < 0) {
		give_up(w, "timeout cannot be set or read", errno);
		return false;
	}
	/* One that bites after the lease has passed protects nobody. */
	if (!guard_watchdog_fits((int64_t)seconds * 1000, ttl_ms)) {
		char text[100];
		if (!str_format(text, sizeof(text),
			    "its timeout of %d s is not below the ttl of %" PRId64 " ms by 1 s",
			    seconds, ttl_ms))
			text[0] = '\0';
		give_up(w, text, 0);
		return false;
	}
	w->timeout_ms = (int64_t)seconds * 1000;
	return true;
}

bool watchdog_arm(struct watchdog *w, int64_t ttl_ms)
{
	if (w->fd >= 0 || w->config.mode == WATCHDOG_OFF ||
		w->config.driver == WATCHDOG_DRIVER_NONE || w->unfit_ttl_ms == ttl_ms)
		return false;
	bool had_failed = w->failed;
	w->fd = open(w->config.device, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	if (w->fd < 0) {
		give_up(w, w->config.device, errno);
		return !had_failed;
	}
	w->can_disarm = has_magic_close(w);
	if (!apply_timeout(w, ttl_ms)) {
		/* Opening has started it: not again until something has changed. */
		w->unfit_ttl_ms = ttl_ms;
		return !had_failed;
	}
	w->failed = false;
	w->complained = false;
	w->state_text[0] = '\0';
	log_info("watchdog: armed device=%s timeout_ms=%" PRId64, w->config.device, w->timeout_ms);
	return true;
}

void watchdog_feed(struct watchdog *w)
{
	if (w->fd < 0)
		return;
	if (keepalive(w) == 0) {
		w->complained = false;
		return;
	}
	if (!w->complained)
		log_warning("watchdog: keepalive failed: %s", strerror(errno));
	w->complained = true;
}

enum err_code watchdog_configure(struct watchdog *w, const struct msg_watchdog_config *config,
	int64_t ttl_ms, struct err *err)
{
	if (config->mode > WATCHDOG_REQUIRED)
		return err_set(
			err, ERR_INVAL, 0, "watchdog mode %u, allowed are 0 to 2", config->mode);
	if (config->driver > WATCHDOG_DRIVER_TESTING)
		return err_set(err, ERR_INVAL, 0, "watchdog driver %u, allowed are 0 to 2",
			config->driver);
	if (!ipc_str_ok(config->device, sizeof(config->device)))
		return err_set(err, ERR_INVAL, 0, "watchdog device is not a string");
	if (config->mode != WATCHDOG_OFF &&
		(config->timeout_ms < 1000 || config->timeout_ms > LIMIT_LEASE_MS))
		return err_set(err, ERR_INVAL, 0,
			"watchdog timeout of %" PRId64 " ms, allowed are 1000 to %d",
			config->timeout_ms, LIMIT_LEASE_MS);
	bool other =
		config->driver != w->config.driver || !str_eq(config->device, w->config.device);
	if (w->fd >= 0 && (other || config->mode == WATCHDOG_OFF))
		watchdog_disarm(w);
	bool new_timeout = config->timeout_ms != w->config.timeout_ms;
	if (other || new_timeout || config->mode != w->config.mode)
		w->unfit_ttl_ms = 0;
	w->config = *config;
	w->failed = false;
	w->complained = false;
	if (w->fd >= 0 && new_timeout && apply_timeout(w, ttl_ms))
		log_info("watchdog: timeout changed timeout_ms=%" PRId64, w->timeout_ms);
	return ERR_OK;
}

void watchdog_state(const struct watchdog *w, struct msg_watchdog_state *out)
{
	*out = (struct msg_watchdog_state){ .armed = w->fd >= 0, .timeout_ms = w->timeout_ms };
	out->usable = w->fd >= 0;
	if (w->fd < 0 && w->config.mode != WATCHDOG_OFF && w->config.driver != WATCHDOG_DRIVER_NONE)
		out->usable = !w->failed && access(w->config.device, W_OK) == 0;
	memcpy(out->text, w->state_text, sizeof(out->text));
}
