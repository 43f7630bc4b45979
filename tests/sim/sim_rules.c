/* What the decisions of all histories used: every rule that worker/ha can name, and no rule that
 * goes to and fro without a new fact. The list of rules is taken from the sources when this is
 * built (tests/tests.mk), so that none can be forgotten. */
#include <string.h>

#include "tests/sim/sim.h"

static const char *const listed[] = {
#include "tests/sim/rule_list.inc"
};
#define LISTED (sizeof(listed) / sizeof(listed[0]))

/* These say that the table has a hole: they must not fire, wherever they stand. */
static const char *const holes[] = { "A17", "X9" };

struct sim_coverage sim_coverage;
static uint64_t fired[LISTED];

#define HOT_TIMES     16 /* one decision with one effect, inside one loop_wait */
#define QUIET_TIMES   3
#define QUIET_CHANGES 6

static bool is_hole(const char *rule)
{
	for (unsigned i = 0; i < sizeof(holes) / sizeof(holes[0]); i++)
		if (strcmp(holes[i], rule) == 0)
			return true;
	return false;
}

static void cover(struct sim *s, int node, const struct ha_plan *plan)
{
	for (unsigned i = 0; i < LISTED; i++) {
		if (strcmp(listed[i], plan->rule) != 0)
			continue;
		fired[i]++;
		if (is_hole(plan->rule))
			violation(s, "RULE", "no rule decided for %s: %s", sim_name(node),
				plan->reason);
		return;
	}
	violation(s, "RULE", "a decision of %s names no rule of the table (%s): %s", sim_name(node),
		plan->rule, plan->reason);
}

/* What a plan does to the world: 0 = nothing but looking, telling and renewing. */
static uint64_t effect_of(const struct ha_plan *plan)
{
	uint64_t h = 0;
	for (unsigned i = 0; i < plan->count; i++) {
		const struct ha_action *a = &plan->actions[i];
		switch (a->kind) {
		case HA_TASK_START:
			if (a->task == TASK_REWIND_CHECK)
				break;
			h = h * 31 + 1000 + a->task;
			break;
		case HA_ACQUIRE:
		case HA_RELEASE:
		case HA_WRITE_SYNC:
		case HA_WRITE_INIT:
		case HA_CANCEL_INIT:
		case HA_TASK_CANCEL:
		case HA_STOP_PG:
		case HA_FOLLOW_RELOAD:
		case HA_SET_ROLE:
		case HA_RENAME_FAILED:
		case HA_CLEAR_MARK:
		case HA_EXIT: h = h * 31 + a->kind; break;
		default: break;
		}
	}
	for (const char *c = plan->rule; h && *c; c++)
		h = h * 131 + (unsigned char)*c;
	return h;
}

/* Faster than a loop_wait nothing is tried again and again, whatever is wrong outside. */
static void check_hot(struct sim *s, int node, const struct ha_plan *plan, uint64_t effect)
{
	struct sim_habit *h = &s->checks.habits[node];
	struct sim_deed *d = &h->deeds[effect % SIM_DEEDS];
	int64_t wait = worker_settings(s, node)->loop_wait_ms;
	if (d->effect != effect || d->epoch != s->checks.fact_epoch ||
		s->now_ms - d->since_ms > wait)
		*d = (struct sim_deed){
			.effect = effect, .epoch = s->checks.fact_epoch, .since_ms = s->now_ms
		};
	if (++d->count > HOT_TIMES)
		violation(s, "OSC", "%s does the same %u times within %" PRId64 " ms [%s]: %s",
			sim_name(node), d->count, s->now_ms - d->since_ms, plan->rule,
			plan->reason);
}

/* Nothing happens any more: nobody does one thing again and again, and reasons do not alternate. */
static void check_quiet(struct sim *s, int node, const struct ha_plan *plan, uint64_t effect)
{
	struct sim_habit *h = &s->checks.habits[node];
	if (effect && ++h->quiet_deeds > QUIET_TIMES && !s->checks.liveness_exempt)
		violation(s, "OSC", "%s acts %u times although nothing happens [%s]: %s",
			sim_name(node), h->quiet_deeds, plan->rule, plan->reason);
	if (plan->await != AWAIT_NONE)
		return;
	if (strcmp(h->rule, plan->rule) != 0 && ++h->changes > QUIET_CHANGES &&
		!s->checks.liveness_exempt)
		violation(s, "OSC", "%s goes to and fro between [%s] and [%s]: %s", sim_name(node),
			h->rule, plan->rule, plan->reason);
	memcpy(h->rule, plan->rule, sizeof(h->rule));
}

void rules_decided(struct sim *s, int node, const struct ha_plan *plan)
{
	uint64_t effect = effect_of(plan);
	cover(s, node, plan);
	if (effect)
		check_hot(s, node, plan, effect);
	/* A recovery that began before takes its time; whether it has diverged is asked once a
	 * cycle. */
	if (s->checks.quiet && s->nodes[node].pg.phase != PGP_RECOVERY)
		check_quiet(s, node, plan, effect);
}

void rules_new_fact(struct sim *s)
{
	s->checks.fact_epoch++;
}

void rules_news_for(struct sim *s, int node)
{
	s->checks.habits[node].changes = 0;
	s->checks.habits[node].quiet_deeds = 0;
}

unsigned rules_print(void)
{
	unsigned used = 0, wanted = 0;
	printf("rules:");
	for (unsigned i = 0; i < LISTED; i++) {
		if (is_hole(listed[i]))
			continue;
		wanted++;
		used += fired[i] > 0;
		if (fired[i])
			printf(" %s=%llu", listed[i], (unsigned long long)fired[i]);
	}
	printf("\n%u of %u rules decided (%.1f %%)%s", used, wanted, 100.0 * used / wanted,
		used < wanted ? "; unreached:" : "");
	for (unsigned i = 0; i < LISTED; i++)
		if (!fired[i] && !is_hole(listed[i]))
			printf(" %s", listed[i]);
	printf("\n%llu timeline numbers were used twice, %llu times with loss\n",
		(unsigned long long)sim_coverage.timelines_reused,
		(unsigned long long)sim_coverage.lost_by_reuse);
	return wanted - used;
}
