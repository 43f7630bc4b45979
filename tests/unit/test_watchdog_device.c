/* The Linux driver of the watchdog, against a device that is emulated behind ioctl: watchdog.c is
 * included with that one call replaced. The emulation answers as the kernel's API document says
 * (timeouts rounded, refused, not supported; magic close; a keepalive that fails). What it cannot
 * show: that a real device resets the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define TTL_MS 30000

static struct device {
	char path[64];
	int timeout_s;	   /* in force */
	int granularity_s; /* a timeout is rounded up to it */
	int set_errno;	   /* SETTIMEOUT fails with it; 0 = works */
	int get_errno, keepalive_errno;
	uint32_t options;
	int keepalives, sets;
} dev;

static int emulated_ioctl(int fd, unsigned long request, void *arg)
{
	assert_true(fd >= 0);
	int *seconds = arg;
	int e = 0;
	switch (request) {
	case WDIOC_SETTIMEOUT:
		dev.sets++;
		e = dev.set_errno;
		if (e == 0) {
			int g = dev.granularity_s;
			*seconds = dev.timeout_s = (*seconds + g - 1) / g * g;
		}
		break;
	case WDIOC_GETTIMEOUT:
		e = dev.get_errno;
		if (e == 0)
			*seconds = dev.timeout_s;
		break;
	case WDIOC_GETSUPPORT:
		*(struct watchdog_info *)arg = (struct watchdog_info){ .options = dev.options };
		break;
	case WDIOC_KEEPALIVE:
		e = dev.keepalive_errno;
		dev.keepalives += e == 0;
		break;
	default: fail_msg("ioctl %lx", request);
	}
	errno = e;
	return e != 0 ? -1 : 0;
}

#define ioctl(fd, request, arg) emulated_ioctl(fd, request, (void *)(uintptr_t)(arg))
#include "supervisor/watchdog.c"

static int new_device(void **state)
{
	(void)state;
	dev = (struct device){ .timeout_s = 60, .granularity_s = 1, .options = WDIOF_MAGICCLOSE };
	snprintf(dev.path, sizeof(dev.path), "/tmp/test_watchdog_device.XXXXXX");
	int fd = mkstemp(dev.path);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

static int remove_device(void **state)
{
	(void)state;
	return unlink(dev.path);
}

static void configure(struct watchdog *w, int64_t timeout_ms)
{
	struct err err = ERR_INIT;
	struct msg_watchdog_config c = {
		.mode = WATCHDOG_REQUIRED, .driver = WATCHDOG_DRIVER_LINUX, .timeout_ms = timeout_ms
	};
	assert_true(str_copy(c.device, sizeof(c.device), dev.path));
	assert_int_equal(watchdog_configure(w, &c, TTL_MS, &err), ERR_OK);
}

static const char *written(void)
{
	static char text[32];
	int fd = open(dev.path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void test_life(void **state)
{
	(void)state;
	struct watchdog w;
	watchdog_init(&w);
	configure(&w, 25000);
	assert_true(watchdog_arm(&w, TTL_MS));
	assert_int_equal(w.timeout_ms, 25000);
	assert_int_equal(dev.timeout_s, 25);
	watchdog_feed(&w);
	watchdog_feed(&w);
	assert_int_equal(dev.keepalives, 2);
	assert_string_equal(written(), "");
	/* Another timeout while it is open: set at once, the device stays open. */
	configure(&w, 10000);
	assert_int_equal(dev.timeout_s, 10);
	assert_true(w.fd >= 0);
	assert_true(watchdog_disarm(&w));
	assert_string_equal(written(), "V"); /* the magic close, after which it may be closed */
	assert_int_equal(w.fd, -1);
}

/* What counts is what the device says, not what was asked for. */
static void test_read_back(void **state)
{
	(void)state;
	struct watchdog w;
	struct msg_watchdog_state st;
	watchdog_init(&w);
	dev.granularity_s = 16;
	configure(&w, 25000);
	assert_true(watchdog_arm(&w, 33000));
	assert_int_equal(w.timeout_ms, 32000);
	watchdog_disarm(&w);
	/* Rounded up beyond the ttl: it would bite after the lease has passed. */
	watchdog_init(&w);
	configure(&w, 25000);
	watchdog_arm(&w, TTL_MS);
	assert_int_equal(w.fd, -1);
	watchdog_state(&w, &st);
	assert_int_equal(st.usable, 0);
	assert_non_null(strstr(st.text, "32 s is not below the ttl"));
}

static void test_fixed_timeout(void **state)
{
	(void)state;
	static const int not_there[] = { ENOTTY, EOPNOTSUPP };
	for (unsigned i = 0; i < 2; i++) {
		struct watchdog w;
		watchdog_init(&w);
		dev.set_errno = not_there[i];
		dev.timeout_s = 20;
		configure(&w, 10000);
		assert_true(watchdog_arm(&w, TTL_MS));
		assert_int_equal(w.timeout_ms, 20000); /* the one that it has */
		watchdog_disarm(&w);
		dev.timeout_s = 60; /* too long, and cannot be changed */
		configure(&w, 10000);
		watchdog_arm(&w, TTL_MS);
		assert_int_equal(w.fd, -1);
	}
}

static void test_refusing_device(void **state)
{
	(void)state;
	struct watchdog w;
	struct msg_watchdog_state st;
	watchdog_init(&w);
	dev.set_errno = EINVAL;
	configure(&w, 25000);
	watchdog_arm(&w, TTL_MS);
	assert_int_equal(w.fd, -1);
	watchdog_state(&w, &st);
	assert_int_equal(st.usable, 0);
	assert_non_null(strstr(st.text, "timeout cannot be set or read"));
	assert_string_equal(written(), "V"); /* closed in order: opening it has started it */
	/* Not opened again and again: each time would start it anew. */
	int sets = dev.sets;
	dev.set_errno = 0;
	watchdog_arm(&w, TTL_MS);
	assert_int_equal(w.fd, -1);
	assert_int_equal(dev.sets, sets);
	/* Another ttl, or another configuration, is worth another look. */
	dev.get_errno = ENOTTY;
	watchdog_arm(&w, TTL_MS * 2);
	assert_int_equal(w.fd, -1);
	assert_int_equal(dev.sets, sets + 1);
	dev.get_errno = 0;
	configure(&w, 20000);
	assert_true(watchdog_arm(&w, TTL_MS * 2));
	assert_int_equal(w.timeout_ms, 20000);
	watchdog_disarm(&w);
}

static void test_no_way_out(void **state)
{
	(void)state;
	struct watchdog w;
	watchdog_init(&w);
	dev.options = 0;
	configure(&w, 25000);
	assert_true(watchdog_arm(&w, TTL_MS));
	assert_false(w.can_disarm);
	assert_true(watchdog_disarm(&w)); /* closed, said in the log, and it will bite */
	assert_int_equal(w.timeout_ms, 0);
}

static void test_failed_keepalive(void **state)
{
	(void)state;
	struct watchdog w;
	watchdog_init(&w);
	configure(&w, 25000);
	assert_true(watchdog_arm(&w, TTL_MS));
	dev.keepalive_errno = EIO;
	watchdog_feed(&w);
	assert_true(w.complained && w.fd >= 0); /* once in the log; tried again each time */
	dev.keepalive_errno = 0;
	watchdog_feed(&w);
	assert_false(w.complained);
	assert_int_equal(dev.keepalives, 1);
	watchdog_disarm(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, new_device, remove_device),
		cmocka_unit_test_setup_teardown(test_read_back, new_device, remove_device),
		cmocka_unit_test_setup_teardown(test_fixed_timeout, new_device, remove_device),
		cmocka_unit_test_setup_teardown(test_refusing_device, new_device, remove_device),
		cmocka_unit_test_setup_teardown(test_no_way_out, new_device, remove_device),
		cmocka_unit_test_setup_teardown(test_failed_keepalive, new_device, remove_device),
	};
	log_set_level(LOG_CRITICAL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
