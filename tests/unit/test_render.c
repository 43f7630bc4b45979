/* worker/postgres/render: which file gets the recovery settings in which version, the slot and
 * session of a remote primary, and what a custom bootstrap writes meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "common/core/str.h"
#include "worker/postgres/conf_write.h"
#include "worker/postgres/render.h"

static struct settings set;
static struct pgctx p;
static struct render_texts t;

static json_t *js(const char *text)
{
	json_t *v = json_loads(text, 0, NULL);
	if (v == NULL)
		fail_msg("%s", text);
	return v;
}

static int set_up(void **state)
{
	(void)state;
	set = (struct settings){ .use_slots = true };
	p = (struct pgctx){ .set = &set,
		.major = 15,
		.name = "n-1",
		.database = "postgres",
		.data_dir = "/data",
		.config_dir = "/data",
		.conf_name = "postgresql",
		.pgpass = "/pgpass",
		.local_host = "localhost" };
	p.pg = js(
		"{\"listen\": \"127.0.0.1:5432\", \"parameters\": {\"nonsense\": 1},"
		"\"authentication\": {\"replication\": {\"username\": \"repl\", \"password\": "
		"\"x\"},"
		"\"superuser\": {\"username\": \"boss\"}}, \"pg_hba\": [\"host all all all md5\"],"
		"\"recovery_conf\": {\"restore_command\": \"get %f\"}}");
	t = (struct render_texts)RENDER_TEXTS_INIT;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	render_texts_done(&t);
	json_decref((json_t *)p.pg);
	json_decref((json_t *)p.standby);
	json_decref(p.custom_recovery);
	json_decref(p.pending_restart);
	return 0;
}

static void render(enum pg_role role, const struct pg_target *target)
{
	struct err err = ERR_INIT;
	render_texts_done(&t);
	t = (struct render_texts)RENDER_TEXTS_INIT;
	if (render_all(&p, role, target, NULL, &t, &err) != ERR_OK)
		fail_msg("%s", err.text);
}

static bool has(const struct buf *b, const char *text)
{
	return strstr(buf_str(b), text) != NULL;
}

static const struct pg_target
	none = { .kind = TARGET_NONE },
	member = { .kind = TARGET_MEMBER, .name = "n2", .host = "h2", .port = "5433" },
	remote = { .kind = TARGET_REMOTE, .name = "r", .host = "a,b", .port = "5432" };

static void test_versions(void **state)
{
	(void)state;
	render(PG_ROLE_REPLICA, &member);
	assert_true(has(&t.conf, "\n# recovery.conf\n") && has(&t.conf, "host=h2 port=5433"));
	assert_true(has(&t.conf, "primary_slot_name = 'n_1'\n"));
	assert_true(has(&t.conf, "passfile=/pgpass") && has(&t.pass, "h2:5433:*:repl:x"));
	assert_true(has(&t.conf, "restore_command = 'get %f'\n"));
	assert_false(has(&t.conf, "nonsense") || has(&t.conf, "standby_mode"));
	assert_int_equal(t.recovery.len, 0);
	/* Before 12 these are no settings: the server would not start. */
	p.major = 11;
	render(PG_ROLE_REPLICA, &member);
	assert_false(has(&t.conf, "recovery") || has(&t.conf, "primary_conninfo"));
	assert_true(conf_is_ours(buf_str(&t.recovery), t.recovery.len));
	assert_true(has(&t.recovery, "standby_mode = 'on'\n") &&
		    has(&t.recovery, "primary_conninfo = '") &&
		    has(&t.recovery, "restore_command = 'get %f'\n"));
	render(PG_ROLE_PRIMARY, &none);
	assert_int_equal(t.recovery.len, 0);
	assert_false(has(&t.conf, "restore_command"));
	p.major = 15;
	render(PG_ROLE_PRIMARY, &none);
	assert_true(has(&t.conf, "restore_command = 'get %f'\n"));
	assert_false(has(&t.conf, "primary_conninfo"));
}

static void test_remote(void **state)
{
	(void)state;
	static const struct {
		const char *standby, *slot;
	} rows[] = {
		{ "{\"host\": \"a,b\"}", NULL },
		{ "{\"host\": \"a,b\", \"primary_slot_name\": \"theirs\"}", "'theirs'" },
		/* Named, but empty: the member's own. */
		{ "{\"host\": \"a,b\", \"primary_slot_name\": \"\"}", "'n_1'" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		json_decref((json_t *)p.standby);
		p.standby = js(rows[i].standby);
		const char *slot =
			json_string_value(json_object_get(p.standby, "primary_slot_name"));
		assert_true(str_copy(
			set.standby_slot, sizeof(set.standby_slot), slot != NULL ? slot : ""));
		render(PG_ROLE_STANDBY_LEADER, &remote);
		assert_int_equal(has(&t.conf, "primary_slot_name"), rows[i].slot != NULL);
		if (rows[i].slot != NULL)
			assert_true(has(&t.conf, rows[i].slot));
		/* Whether a slot is used or not. */
		assert_true(has(&t.conf, "target_session_attrs=read-write"));
	}
	/* Known by its archive alone. */
	static const struct pg_target archive = { .kind = TARGET_REMOTE, .name = "r" };
	render(PG_ROLE_STANDBY_LEADER, &archive);
	assert_false(has(&t.conf, "primary_conninfo") || has(&t.conf, "primary_slot_name"));
}

static void test_custom_bootstrap(void **state)
{
	(void)state;
	p.bootstrapping = p.custom_bootstrap = true;
	render(PG_ROLE_PRIMARY, &none);
	assert_true(has(&t.hba, "local\tall\tboss\t\ttrust\n") &&
		    has(&t.hba, "host\treplication\trepl\t127.0.0.1/32\ttrust\n") &&
		    has(&t.hba, "host\tall\tboss\t::1/128\ttrust\n"));
	assert_false(has(&t.hba, "md5"));
	assert_true(has(&t.conf, "hba_file = '/data/pg_hba.conf'\n"));
	/* What the command left decides, also against ours. */
	p.keep_recovery = true;
	render(PG_ROLE_PRIMARY, &none);
	assert_true(render_keeps_recovery(&p) && render_custom_signal(&p) == NULL);
	assert_false(has(&t.conf, "restore_command"));
	p.keep_recovery = false;
	p.custom_recovery = js("{\"restore_command\": \"their %f\", \"standby_mode\": false}");
	render(PG_ROLE_PRIMARY, &none);
	assert_true(has(&t.conf, "restore_command = 'their %f'\n"));
	assert_false(has(&t.conf, "standby_mode"));
	assert_string_equal(render_custom_signal(&p), "recovery.signal");
	/* Its own again when it is made. */
	p.bootstrapping = false;
	render(PG_ROLE_PRIMARY, &none);
	assert_true(has(&t.hba, "host all all all md5\n"));
	assert_null(render_custom_signal(&p));
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = { T(test_versions), T(test_remote),
		T(test_custom_bootstrap) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
