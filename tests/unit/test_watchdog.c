/* The watchdog's testing driver on a real FIFO: what is written, when it is opened, closed and
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/watchdog.h"

struct fifo {
	char dir[64], path[80];
	int fd;
	struct watchdog w;
};

static int set_up(void **state)
{
	static struct fifo f;
	snprintf(f.dir, sizeof(f.dir), "/tmp/test_watchdog.XXXXXX");
	if (mkdtemp(f.dir) == NULL)
		return -1;
	snprintf(f.path, sizeof(f.path), "%s/dev", f.dir);
	if (mkfifo(f.path, 0600) < 0)
		return -1;
	f.fd = open(f.path, O_RDONLY | O_NONBLOCK);
	watchdog_init(&f.w);
	*state = &f;
	return f.fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	struct fifo *f = *state;
	watchdog_disarm(&f->w);
	if (f->fd >= 0)
		close(f->fd);
	unlink(f->path);
	return rmdir(f->dir);
}

static const char *written(struct fifo *f)
{
	static char text[256];
	ssize_t n = read(f->fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static struct msg_watchdog_config config_of(const struct fifo *f, uint32_t mode, int64_t timeout_ms)
{
	struct msg_watchdog_config c = {
		.mode = mode, .driver = WATCHDOG_DRIVER_TESTING, .timeout_ms = timeout_ms
	};
	snprintf(c.device, sizeof(c.device), "%s", f->path);
	return c;
}

static void test_life(void **state)
{
	struct fifo *f = *state;
	struct err err = ERR_INIT;
	struct msg_watchdog_state s;
	struct msg_watchdog_config c = config_of(f, WATCHDOG_REQUIRED, 16000);
	assert_false(watchdog_arm(&f->w, 21000)); /* mode off before the first configuration */
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_OK);
	watchdog_state(&f->w, &s);
	assert_true(s.usable && !s.armed);
	watchdog_feed(&f->w); /* closed: nothing */
	assert_true(watchdog_arm(&f->w, 21000));
	assert_false(watchdog_arm(&f->w, 21000));
	assert_string_equal(written(f), "Ctimeout=16\n");
	watchdog_feed(&f->w);
	watchdog_feed(&f->w);
	assert_string_equal(written(f), "11");
	watchdog_state(&f->w, &s);
	assert_true(s.armed);
	assert_int_equal(s.timeout_ms, 16000);
	c.timeout_ms = 15000; /* a new ttl: set at once, the device stays open */
	assert_int_equal(watchdog_configure(&f->w, &c, 20000, &err), ERR_OK);
	assert_string_equal(written(f), "Ctimeout=15\n");
	assert_true(watchdog_disarm(&f->w));
	assert_false(watchdog_disarm(&f->w));
	assert_string_equal(written(f), "V");
	watchdog_state(&f->w, &s);
	assert_true(s.usable && !s.armed);
	assert_int_equal(s.timeout_ms, 0);
}

static void test_off_closes(void **state)
{
	struct fifo *f = *state;
	struct err err = ERR_INIT;
	struct msg_watchdog_config c = config_of(f, WATCHDOG_AUTOMATIC, 16000);
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_OK);
	assert_true(watchdog_arm(&f->w, 21000));
	c.mode = WATCHDOG_OFF;
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_OK);
	assert_string_equal(written(f), "Ctimeout=16\nV");
	assert_false(watchdog_arm(&f->w, 21000));
}

static void test_too_late(void **state)
{
	/* A timeout that bites after ttl - 1 s protects nobody: closed again. */
	struct fifo *f = *state;
	struct err err = ERR_INIT;
	struct msg_watchdog_state s;
	struct msg_watchdog_config c = config_of(f, WATCHDOG_REQUIRED, 21000);
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_OK);
	assert_true(watchdog_arm(&f->w, 21000));
	assert_string_equal(written(f), "Ctimeout=21\nV");
	watchdog_state(&f->w, &s);
	assert_false(s.usable || s.armed);
	assert_non_null(strstr(s.text, "ttl"));
	assert_false(watchdog_arm(&f->w, 21000)); /* tried again, nothing new to tell */
}

static void test_no_device(void **state)
{
	struct fifo *f = *state;
	struct err err = ERR_INIT;
	struct msg_watchdog_state s;
	struct msg_watchdog_config c = config_of(f, WATCHDOG_REQUIRED, 16000);
	snprintf(c.device, sizeof(c.device), "%s/none", f->dir);
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_OK);
	watchdog_state(&f->w, &s);
	assert_false(s.usable);
	assert_true(watchdog_arm(&f->w, 21000));
	watchdog_state(&f->w, &s);
	assert_non_null(strstr(s.text, "No such file"));
	/* A FIFO that nobody reads is an error at once, not a wait. */
	c = config_of(f, WATCHDOG_AUTOMATIC, 16000);
	close(f->fd);
	f->fd = -1;
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_OK);
	assert_true(watchdog_arm(&f->w, 21000));
	watchdog_state(&f->w, &s);
	assert_false(s.armed);
}

static void test_refused(void **state)
{
	struct fifo *f = *state;
	struct err err = ERR_INIT;
	struct msg_watchdog_config c = config_of(f, 3, 16000);
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_INVAL);
	c = config_of(f, WATCHDOG_REQUIRED, 999);
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_INVAL);
	c = config_of(f, WATCHDOG_REQUIRED, 16000);
	c.driver = 9;
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_INVAL);
	c = config_of(f, WATCHDOG_REQUIRED, 16000);
	memset(c.device, 'x', sizeof(c.device));
	assert_int_equal(watchdog_configure(&f->w, &c, 21000, &err), ERR_INVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_off_closes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_late, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_device, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
