/* worker/ha/slots_plan: who needs a slot where. Members b, c, d beside a; names and expectations as
 * text. */
#include "tests/unit/ha_fixture.h"
#include "worker/ha/slots_plan.h"

struct world {
	struct cluster c;
	struct member members[4];
	struct settings set;
	struct permanent_slot permanent[4];
	struct slot_lsn status[4];
	char retain[2][LIMIT_SLOT_NAME];
	struct slots_in in;
};

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	static const char *const names[] = { "a", "b", "c", "d-1" };
	w->c.members = w->members;
	w->c.member_count = 4;
	for (unsigned i = 0; i < 4; i++) {
		FX_SET(w->members[i].name, names[i]);
		FX_SET(w->members[i].version, "4.1.4");
		w->members[i].xlog_location = 100 * (i + 1);
	}
	w->c.slots = w->status;
	w->c.retain_slots = w->retain;
	w->set.permanent = w->permanent;
	w->set.use_slots = true;
	w->set.member_slots_ttl_ms = 1800000;
	w->in = (struct slots_in){ .me = "a",
		.leader = "a",
		.leads = true,
		.c = &w->c,
		.set = &w->set,
		.server_version = 150000 };
	return w;
}

static void permanent(struct world *w, const char *name, bool logical, const char *type)
{
	struct permanent_slot *p = &w->permanent[w->set.permanent_count++];
	FX_SET(p->name, name);
	p->logical = logical;
	FX_SET(p->cluster_type, type);
	if (logical) {
		FX_SET(p->database, "postgres");
		FX_SET(p->plugin, "test_decoding");
	}
}

/* "b! c@50 x:l": ! expected active, @lsn, :l logical, :p permanent. */
static void expect_plan(struct world *w, const char *want)
{
	static struct slots_plan plan;
	char text[400] = "";
	slots_plan_make(&w->in, &plan);
	for (unsigned i = 0; i < plan.count; i++) {
		const struct slot_wanted *s = &plan.slot[i];
		char one[120];
		snprintf(one, sizeof(one), "%s%s%s%s", i > 0 ? " " : "", s->name,
			s->expected_active ? "!" : "",
			s->logical     ? ":l"
			: s->permanent ? ":p"
				       : "");
		fx_append(text, sizeof(text), one);
		if (s->lsn > 0) {
			snprintf(one, sizeof(one), "@%d", (int)s->lsn);
			fx_append(text, sizeof(text), one);
		}
	}
	assert_string_equal(text, want);
}

static void test_members(void **state)
{
	(void)state;
	struct world *w = world_new();
	expect_plan(w, "b! c! d_1!");
	w->c.slot_count = 1;
	w->status[0] = (struct slot_lsn){ .name = "c", .lsn = 50 };
	FX_SET(w->members[2].tags.replicatefrom,
		"b"); /* streams from b: its own position moves the slot */
	expect_plan(w, "b! c@300 d_1!");
	FX_SET(w->members[2].tags.replicatefrom, "gone");
	expect_plan(w, "b! c!@300 d_1!");
	/* A circle gives way to the leader (F2); who hangs on it does not stream from here. */
	FX_SET(w->members[1].tags.replicatefrom, "c");
	FX_SET(w->members[2].tags.replicatefrom, "b");
	FX_SET(w->members[3].tags.replicatefrom, "b");
	expect_plan(w, "b!@200 c!@300 d_1@400");
	FX_SET(w->members[1].tags.replicatefrom, "");
	FX_SET(w->members[3].tags.replicatefrom, "");
	FX_SET(w->members[2].tags.replicatefrom, "gone");
	w->members[1].tags.nostream = true;
	expect_plan(w, "c!@300 d_1!");
	/* Without the ability to advance, or a time to live, only what is used. */
	FX_SET(w->members[2].tags.replicatefrom, "b");
	w->set.member_slots_ttl_ms = 0;
	expect_plan(w, "d_1!");
	w->set.member_slots_ttl_ms = 1800000;
	w->in.server_version = 100000;
	expect_plan(w, "d_1!");
	w->in.server_version = 90300;
	expect_plan(w, "");
	free(w);
}

static void test_replica(void **state)
{
	(void)state;
	struct world *w = world_new();
	w->in.leader = "b";
	w->in.leads = false;
	w->c.slot_count = 2;
	w->status[0] = (struct slot_lsn){ .name = "b", .lsn = 70 };
	w->status[1] = (struct slot_lsn){ .name = "c", .lsn = 60 };
	FX_SET(w->members[3].tags.replicatefrom, "a");
	expect_plan(w, "b@70 c@60 d_1!@400");
	w->set.tags.nofailover = true;
	expect_plan(w, "d_1!@400");
	w->set.tags.nofailover = false;
	FX_SET(w->members[1].version, "3.3.2"); /* an old leader publishes no member slots */
	expect_plan(w, "b@200 c@300 d_1!@400");
	/* Heard outside of the store: the higher position counts. */
	static const struct slot_lsn said[] = { { .name = "b", .lsn = 150 },
		{ .name = "c", .lsn = 350 } };
	w->in.said = said;
	w->in.said_count = 2;
	expect_plan(w, "b@200 c@350 d_1!@400");
	w->in.said_count = 0;
	w->c.retain_count = 2;
	FX_SET(w->retain[0], "old");
	FX_SET(w->retain[1], "a");
	expect_plan(w, "b@200 c@300 d_1!@400 old");
	free(w);
}

static void test_permanent(void **state)
{
	(void)state;
	struct world *w = world_new();
	w->c.member_count = 1;
	permanent(w, "phys", false, "");
	permanent(w, "only_standby", false, "standby");
	permanent(w, "logi", true, "");
	permanent(w, "a", false, "");
	expect_plan(w, "phys!:p logi:l");
	w->set.standby_cluster = true;
	expect_plan(w, "phys!:p only_standby!:p");
	w->set.standby_cluster = false;
	w->in.leads = false;
	w->in.leader = "b";
	expect_plan(w, "phys:p logi:l");
	w->in.server_version = 100000;
	expect_plan(w, "");
	w->in.server_version = 150000;
	w->set.tags.nostream = true;
	expect_plan(w, "phys:p");
	w->set.tags.nofailover = true;
	expect_plan(w, "");
	free(w);
}

static void test_chain(void **state)
{
	(void)state;
	struct world *w = world_new();
	char name[LIMIT_SLOT_NAME];
	w->in.leader = "d-1";
	w->in.leads = false;
	FX_SET(w->set.tags.replicatefrom, "b");
	FX_SET(w->members[1].tags.replicatefrom, "c");
	assert_true(slots_name_on_primary(&w->in, "a", name));
	assert_string_equal(name, "c");
	FX_SET(w->members[2].tags.replicatefrom,
		"b"); /* b and c point at each other: both follow d-1 */
	assert_true(slots_name_on_primary(&w->in, "a", name));
	assert_string_equal(name, "b");
	w->in.leader = ""; /* nobody to give way to: the circle stays */
	assert_false(slots_name_on_primary(&w->in, "a", name));
	w->in.leader = "d-1";
	w->members[2].tags.replicatefrom[0] = '\0';
	w->members[2].tags.nostream = true;
	assert_false(slots_name_on_primary(&w->in, "a", name));
	free(w);
}

static void test_feedback(void **state)
{
	(void)state;
	struct world *w = world_new();
	w->in.leads = false;
	w->in.leader = "b";
	assert_false(slots_force_feedback(&w->in));
	permanent(w, "logi", true, "");
	assert_true(slots_force_feedback(&w->in));
	w->set.tags.nofailover = true;
	assert_false(slots_force_feedback(&w->in));
	FX_SET(w->members[2].tags.replicatefrom, "a");
	w->members[2].tags.nofailover = true;
	assert_false(slots_force_feedback(&w->in));
	FX_SET(w->members[3].tags.replicatefrom, "c"); /* two steps below */
	assert_true(slots_force_feedback(&w->in));
	w->set.standby_cluster = true;
	assert_false(slots_force_feedback(&w->in));
	free(w);
}

static void test_ignored(void **state)
{
	(void)state;
	struct ignore_slot ignore[2] = { { .name = "x" },
		{ .type = "logical", .plugin = "pgoutput" } };
	struct settings set = { .ignore = ignore, .ignore_count = 2 };
	struct pg_slot slot = { .name = "x" };
	assert_true(slots_ignored(&set, &slot));
	slot = (struct pg_slot){ .name = "y", .logical = true, .plugin = "pgoutput" };
	assert_true(slots_ignored(&set, &slot));
	slot.logical = false;
	assert_false(slots_ignored(&set, &slot));
	slot = (struct pg_slot){ .name = "y", .logical = true, .plugin = "other" };
	assert_false(slots_ignored(&set, &slot));
}

static void test_collision(void **state)
{
	(void)state;
	static struct slots_plan plan;
	struct world *w = world_new();
	FX_SET(w->members[2].name, "d.1");
	slots_plan_make(&w->in, &plan);
	assert_int_equal(plan.count, 2);
	assert_string_equal(plan.collision[0], "d.1");
	assert_string_equal(plan.collision[1], "d-1");
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_replica),
		cmocka_unit_test(test_permanent),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_feedback),
		cmocka_unit_test(test_ignored),
		cmocka_unit_test(test_collision),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
