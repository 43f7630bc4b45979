/* The watchdog device (DESIGN 2, Watchdog): held by the supervisor; guard_step says when to arm and
 * to feed. Drivers: the Linux device (ioctl), and `testing`, a FIFO that gets "Ctimeout=<n>\n"
 * after opening, "1" for each keepalive and "V" before closing. No wait: everything is
 * non-blocking, a full FIFO loses the keepalive. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "common/core/err.h"
#include "common/core/ipc_msgs.h"

enum watchdog_mode { WATCHDOG_OFF = 0, WATCHDOG_AUTOMATIC = 1, WATCHDOG_REQUIRED = 2 };
enum watchdog_driver {
	WATCHDOG_DRIVER_NONE = 0,
	WATCHDOG_DRIVER_LINUX = 1,
	WATCHDOG_DRIVER_TESTING = 2
};

struct watchdog {
	struct msg_watchdog_config config;
	int fd;		      /* -1 = closed */
	int64_t timeout_ms;   /* read back; 0 = closed */
	int64_t unfit_ttl_ms; /* opened under this ttl and found unfit: not opened again for it */
	bool can_disarm;
	bool failed; /* the last try to open failed: state_text says why */
	bool complained;
	char state_text[120];
};

void watchdog_init(struct watchdog *w);
/* A new configuration. While open, another device or driver closes it; another timeout is set at
 * once. `ttl_ms` is the one in force: a timeout read back that does not fit it is refused.
 * ERR_INVAL: a value that is not allowed. */
MUST_USE enum err_code watchdog_configure(struct watchdog *w,
	const struct msg_watchdog_config *config, int64_t ttl_ms, struct err *err);
/* Open and arm, when the mode wants it and it is closed. Returns true when its state changed (send
 * MSG_WATCHDOG_STATE, report GUARD_EV_WATCHDOG with timeout_ms). */
bool watchdog_arm(struct watchdog *w, int64_t ttl_ms);
/* Disarm and close; closed is allowed. True when it was open. A device that cannot be disarmed
 * stays armed and will bite: said in the log. */
bool watchdog_disarm(struct watchdog *w);
/* One keepalive. */
void watchdog_feed(struct watchdog *w);
/* For MSG_WATCHDOG_STATE. Closed: looks whether the device exists and may be written to. */
void watchdog_state(const struct watchdog *w, struct msg_watchdog_state *out);
