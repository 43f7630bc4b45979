/* Reading, applying and judging scenarios; reading the corpus. */
#include "tests/sim/sim_scenario.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

#define FILES_MAX 128

static bool wrong(const char *path, int line, const char *what, const char *word)
{
	fprintf(stderr, "%s:%d: %s: %s\n", path, line, what, word ? word : "(nothing)");
	return false;
}

static char *word(char **rest)
{
	char *w = strtok_r(NULL, " \t\n", rest);
	return w && w[0] != '#' ? w : NULL;
}

static int64_t ms(const char *text)
{
	return text ? (int64_t)(strtod(text, NULL) * 1000) : 0;
}

static bool read_fault(struct sim_scenario *sc, char **rest, const char **bad)
{
	struct sim_fault *f = &sc->faults[sc->fault_count];
	char *name = word(rest), *key;
	*f = (struct sim_fault){ .kind = FAULT_KINDS, .node = -1, .hit = -1 };
	*bad = name;
	for (int k = 0; name && k < FAULT_KINDS; k++)
		if (strcmp(name, fault_name((enum sim_fault_kind)k)) == 0)
			f->kind = (enum sim_fault_kind)k;
	if (f->kind == FAULT_KINDS || sc->fault_count + 1 >= SIM_FAULTS)
		return false;
	while ((key = word(rest)) != NULL) {
		char *value = word(rest);
		*bad = key;
		if (!value)
			return false;
		if (strcmp(key, "at") == 0)
			f->at_ms = ms(value);
		else if (strcmp(key, "for") == 0)
			f->for_ms = ms(value);
		else if (strcmp(key, "on") == 0)
			f->node = (int8_t)(strcmp(value, "leader") == 0 ? -1 : sim_index(value));
		else if (strcmp(key, "arg") == 0)
			f->arg = (uint32_t)strtoul(value, NULL, 0);
		else
			return false;
	}
	sc->fault_count++;
	return true;
}

static bool read_expect(struct sim_scenario *sc, char **rest)
{
	char *what = word(rest), *value = word(rest);
	if (!what)
		return false;
	if (strcmp(what, "no_failover") == 0)
		sc->promotions_min = 1, sc->promotions_max = 1;
	else if (strcmp(what, "failover") == 0)
		sc->promotions_min = 2;
	else if (strcmp(what, "leader") == 0 && value && sim_index(value) >= 0)
		sc->leader = value[0];
	else if (strcmp(what, "promotions") == 0 && value)
		sc->promotions_max = (int)strtol(value, NULL, 10);
	else if (strcmp(what, "outage") == 0 && value)
		sc->outage_max_ms = ms(value);
	else if (strcmp(what, "no_hand") == 0)
		sc->no_hand = true;
	else if (strcmp(what, "sync") == 0 && value)
		sc->sync_names = (unsigned)strtoul(value, NULL, 10);
	else
		return false;
	return true;
}

static bool read_setting(struct sim_scenario *sc, const char *key, const char *value)
{
	struct settings *set = &sc->set;
	struct {
		const char *key;
		int64_t *ms;
	} times[] = { { "ttl", &set->ttl_ms }, { "loop_wait", &set->loop_wait_ms },
		{ "retry_timeout", &set->retry_timeout_ms },
		{ "start_timeout", &set->primary_start_timeout_ms }, { "heal", &sc->heal_ms },
		{ "end", &sc->end_ms }, { "race_backoff", &set->primary_race_backoff_ms },
		{ "stop_timeout", &set->primary_stop_timeout_ms } };
	struct {
		const char *key;
		bool *flag;
	} flags[] = { { "strict", &set->sync_strict }, { "failsafe", &set->failsafe_mode },
		{ "check_timeline", &set->check_timeline }, { "empty", &sc->empty },
		{ "bootstrap", &set->have_bootstrap }, { "custom", &set->custom_bootstrap },
		{ "no_leader", &set->no_leader_methods }, { "standby", &set->standby_cluster },
		{ "remote", &sc->remote }, { "archiving", &sc->archiving },
		{ "short_copies", &sc->short_copies }, { "logical_slots", &sc->logical_slots },
		{ "use_pg_rewind", &set->use_pg_rewind },
		{ "remove_on_diverged", &set->remove_on_diverged } };
	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (strcmp(key, times[i].key) == 0) {
			*times[i].ms = ms(value);
			return true;
		}
	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (strcmp(key, flags[i].key) == 0) {
			*flags[i].flag = strtol(value, NULL, 10) != 0;
			return true;
		}
	if (strcmp(key, "members") == 0)
		sc->member_count = (unsigned)strtoul(value, NULL, 10);
	else if (strcmp(key, "loss") == 0) /* of a thousand requests so many come much later */
		sc->loss_per_mille = (unsigned)strtoul(value, NULL, 10);
	else if (strcmp(key, "duplicate") == 0)
		sc->dup_per_mille = (unsigned)strtoul(value, NULL, 10);
	else if (strcmp(key, "seed") == 0) /* the first of those that it is run with */
		sc->first_seed = strtoull(value, NULL, 10);
	else if (strcmp(key, "max_lag") == 0) /* maximum_lag_on_failover, bytes */
		set->maximum_lag_on_failover = strtoll(value, NULL, 10);
	else if (strcmp(key, "node_count") == 0)
		set->sync_node_count = (int)strtol(value, NULL, 10);
	else if (strcmp(key, "nofailover") == 0 && sim_index(value) >= 0)
		sc->nofailover |= 1u << sim_index(value);
	else if (strcmp(key, "patroni") == 0 && sim_index(value) >= 0)
		sc->patroni |= 1u << sim_index(value);
	else if (strcmp(key, "watchdog") == 0)
		set->watchdog_mode = strcmp(value, "required") == 0    ? WATCHDOG_REQUIRED
				     : strcmp(value, "automatic") == 0 ? WATCHDOG_AUTOMATIC
								       : WATCHDOG_OFF;
	else if (strcmp(key, "sync") == 0)
		set->sync_mode = strcmp(value, "quorum") == 0	  ? SYNC_QUORUM
				 : strcmp(value, "priority") == 0 ? SYNC_PRIORITY
								  : SYNC_OFF;
	else
		return false;
	return sc->member_count <= SIM_NODES;
}

static void defaults(struct sim_scenario *sc, const char *path)
{
	memset(sc, 0, sizeof(*sc));
	const char *base = strrchr(path, '/');
	snprintf(sc->name, sizeof(sc->name), "%s", base ? base + 1 : path);
	sc->first_seed = 1;
	sc->member_count = 3;
	sc->heal_ms = 420000;
	sc->end_ms = 600000;
	sc->promotions_min = sc->promotions_max = -1;
	sc->set = (struct settings){ .ttl_ms = 30000,
		.loop_wait_ms = 10000,
		.retry_timeout_ms = 10000,
		.maximum_lag_on_failover = 1048576,
		.maximum_lag_on_syncnode = -1,
		.primary_start_timeout_ms = 300000,
		.sync_node_count = 1,
		.member_slots_ttl_ms = 1800000,
		.use_slots = true,
		.use_pg_rewind = true,
		.remove_on_rewind_failure = true,
		.remove_on_diverged = true };
	sc->set.tags = (struct tags){ .failover_priority = 1, .sync_priority = 1 };
}

bool scenario_read(const char *path, struct sim_scenario *out)
{
	FILE *in = fopen(path, "r");
	char text[512];
	int line = 0;
	bool ok = in != NULL;
	if (!ok)
		return wrong(path, 0, "cannot be read", NULL);
	defaults(out, path);
	while (ok && fgets(text, sizeof(text), in)) {
		char *rest = NULL, *key = strtok_r(text, " \t\n", &rest);
		const char *bad = key;
		line++;
		if (!key || key[0] == '#')
			continue;
		if (strcmp(key, "fault") == 0)
			ok = read_fault(out, &rest, &bad);
		else if (strcmp(key, "expect") == 0)
			ok = read_expect(out, &rest);
		else {
			char *value = word(&rest), *from = word(&rest);
			bool two = value && from && sim_index(value) >= 0;
			if (two && strcmp(key, "replicatefrom") == 0)
				out->upstream[sim_index(value)] = from[0];
			else if (two && strcmp(key, "priority") == 0)
				out->priority[sim_index(value)] = (uint8_t)strtoul(from, NULL, 10);
			else
				ok = value && read_setting(out, key, value);
		}
		if (!ok)
			wrong(path, line, "not understood", bad);
	}
	fclose(in);
	return ok;
}

void scenario_apply(struct sim *s, const struct sim_scenario *sc)
{
	s->cfg.member_count = sc->member_count;
	s->cfg.heal_ms = sc->heal_ms;
	s->cfg.duration_ms = sc->end_ms;
	s->cfg.loss_per_mille = sc->loss_per_mille;
	s->cfg.dup_per_mille = sc->dup_per_mille;
	s->cfg.unanswered_per_mille = 0;
	s->settings[1] = sc->set;
	s->settings_count = 1;
	s->cfg.empty = sc->empty;
	s->cfg.remote = sc->remote || sc->set.standby_cluster;
	s->cfg.archiving = sc->archiving;
	s->cfg.short_copies = sc->short_copies;
	s->cfg.logical_slots = sc->logical_slots;
	s->cfg.backup = sc->set.no_leader_methods;
	if (sc->set.standby_cluster)
		snprintf(s->settings[1].standby_host, sizeof(s->settings[1].standby_host), "%s",
			"remote");
	s->settings[1].have_bootstrap |= sc->empty;
	for (unsigned i = 0; i < sc->member_count; i++) {
		node_init(s, (int)i);
		if (!s->nodes[i].clock_offset_ms)
			s->nodes[i].clock_offset_ms = 1000000;
		s->nodes[i].patroni = sc->patroni & (1u << i);
		s->nodes[i].tags.replicatefrom[0] = sc->upstream[i];
		if (sc->priority[i])
			s->nodes[i].tags.failover_priority = sc->priority[i];
		if (sc->nofailover & (1u << i)) {
			s->nodes[i].tags.nofailover = true;
			s->nodes[i].tags.failover_priority = 0;
		}
	}
	s->faults.count = sc->fault_count;
	memcpy(s->faults.list, sc->faults, sizeof(sc->faults));
}

void scenario_judge(struct sim *s, const struct sim_scenario *sc)
{
	int promotions = (int)s->promotions;
	if (sc->promotions_max >= 0 && promotions > sc->promotions_max)
		violation(s, "EXPECT", "%d promotions, at most %d expected", promotions,
			sc->promotions_max);
	if (sc->promotions_min >= 0 && promotions < sc->promotions_min)
		violation(s, "EXPECT", "%d promotions, at least %d expected", promotions,
			sc->promotions_min);
	int leader = dcs_leader_node(s);
	if (sc->leader && (leader < 0 || sim_name(leader)[0] != sc->leader))
		violation(s, "EXPECT", "%s leads at the end, %c expected", sim_name(leader),
			sc->leader);
	if (sc->outage_max_ms && s->checks.longest_outage_ms > sc->outage_max_ms)
		violation(s, "EXPECT",
			"no acknowledged commit for %" PRId64 " ms, at most %" PRId64 " expected",
			s->checks.longest_outage_ms, sc->outage_max_ms);
	if (sc->no_hand && s->checks.init_removed)
		violation(s, "EXPECT", "a failed bootstrap left /initialize behind");
	unsigned names =
		leader < 0 ? 0 : (unsigned)__builtin_popcount(s->nodes[leader].pg.ssn.names);
	if (sc->sync_names && names != sc->sync_names)
		violation(
			s, "EXPECT", "%u synchronous standbys, %u expected", names, sc->sync_names);
}

static int by_name(const void *x, const void *y)
{
	return strcmp(*(char *const *)x, *(char *const *)y);
}

bool scenario_each(struct sim *s, const char *dir, scenario_fn fn, struct run *r)
{
	DIR *d = opendir(dir);
	char *files[FILES_MAX];
	unsigned count = 0;
	bool good = true;
	struct dirent *e;
	(void)s;
	while (d && (e = readdir(d)) != NULL && count < FILES_MAX)
		if (strstr(e->d_name, ".sim"))
			files[count++] = strdup(e->d_name);
	if (d)
		closedir(d);
	qsort(files, count, sizeof(files[0]), by_name);
	for (unsigned i = 0; i < count; i++) {
		char path[512];
		struct sim_scenario sc;
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		free(files[i]);
		if (!scenario_read(path, &sc))
			exit(2); /* a scenario that is skipped silently would test nothing */
		for (uint64_t k = 0; k < SCENARIO_SEEDS; k++)
			good &= fn(r, sc.first_seed + k, &sc);
	}
	return good;
}

bool corpus_each(const char *path, corpus_fn fn, struct run *r)
{
	FILE *in = fopen(path, "r");
	char text[256];
	bool good = true;
	while (in && fgets(text, sizeof(text), in)) {
		char *end = NULL;
		uint64_t seed = strtoull(text, &end, 10);
		if (end != text)
			good &= fn(r, seed, NULL);
	}
	if (in)
		fclose(in);
	return good;
}
