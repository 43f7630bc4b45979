# Test targets. `make test` is the one that README and CI name: it installs what it needs, builds with
# sanitizers, runs unit, simulator and integration tests, and ends with "N passed, N failed".

deps-install:
	@tests/deps-install.sh

test: deps-install
	@tests/run-all.sh

unit:
	@$(MAKE) --no-print-directory SAN=1 unit-run
unit-run: all $(UNIT_BIN)
	@tests/run-unit.sh $(UNIT_BIN)

unit-bins: all $(UNIT_BIN)
integration-bins: all $(IT_BIN)
# A disk that stalls.
$(B)/tests/integration/stallfs: CPPFLAGS += $(shell pkg-config --cflags fuse3)
$(B)/tests/integration/stallfs: LIBS_EXT += $(shell pkg-config --libs fuse3)
sim-bin: $(SIM_BIN)
# The rules that a decision can name, as worker/ha writes them: coverage is judged against all of them.
$(B)/tests/sim/rule_list.inc: $(HA_SRC)
	@mkdir -p $(@D)
	@grep -oh '"\([A-OX][0-9]\{1,2\}\|[DE]-M\|O\|[0-9]\{1,2\}\.[0-9]\{1,2\}\)"' $^ | sort -uV | sed 's/$$/,/' >$@
$(B)/tests/sim/sim_rules.o: $(B)/tests/sim/rule_list.inc
$(B)/tests/sim/sim_rules.o: CPPFLAGS += -I$(B)

SEED ?=
sim:
	@$(MAKE) --no-print-directory SAN=0 sim-run
sim-run: $(SIM_BIN)
	@if [ -n "$(SIM_BIN)" ]; then $(SIM_BIN) $(if $(SEED),--seed $(SEED) $(if $(SCENARIO),--scenario tests/sim/scenarios/$(SCENARIO)) $(if $(V),-v),--short $(if $(FROM),--from $(FROM),$(if $(FRESH),--fresh))); fi
N ?= 10000
FROM ?=
sim-long: 
	@$(MAKE) --no-print-directory SAN=0 $(SIM_BIN:build/san/%=build/release/%)
	@$(SIM_BIN) --long $(N) $(if $(FROM),--from $(FROM))

# Scenarios, corpus and fresh histories of every profile; fails also when a rule of the table never decided.
sim-nightly:
	@$(MAKE) --no-print-directory SAN=0 sim-bin
	@nice -n 19 build/release/tests/sim/sim --nightly $(N) --from $(if $(FROM),$(FROM),$$(date +%s)000)

sim-mutations:
	@$(MAKE) --no-print-directory SAN=0 sim-bin
	@tests/sim/mutations.sh $(N_HISTORIES)

# Programs that Debian 12 does not have in the version that the tests need, from a newer Debian.
DEBS := build/debs
integration-debs: $(DEBS)/trixie/usr/bin/patroni $(DEBS)/pg17.ready
$(DEBS)/trixie/usr/bin/patroni:
	@tests/unpack-deb.sh trixie $(DEBS)/trixie patroni >$(DEBS).log 2>&1 || { tail -n 20 $(DEBS).log >&2; exit 1; }
# PostgreSQL and etcd of other suites: name, suite, packages. Ubuntu's where Debian has none. Without a network the tests that
# need one are skipped and named in the last lines; everything else that goes wrong is an error.
DEBS_pg13 := bullseye postgresql-13 postgresql-client-13
DEBS_pg14 := UBUNTU jammy postgresql-14 postgresql-client-14
DEBS_pg16 := UBUNTU noble postgresql-16 postgresql-client-16
DEBS_pg17 := trixie postgresql-17 postgresql-client-17
DEBS_pg18 := forky postgresql-18 postgresql-client-18
DEBS_etcd35 := trixie etcd-server etcd-client
VERSIONS ?= 13 14 16 17 18
ETCDS ?= 35
$(DEBS)/%.ready: tests/unpack-postgres.sh tests/unpack-deb.sh
	@tests/unpack-postgres.sh $(DEBS)/$* $(DEBS_$*)
	@[ -e $(DEBS)/$*.unavailable ] || touch $@
# The life of a cluster on each version; VERSIONS="17" and ETCDS="" for some of them.
integration-versions:
	@$(MAKE) --no-print-directory SAN=1 all integration-bins $(VERSIONS:%=$(DEBS)/pg%.ready) $(ETCDS:%=$(DEBS)/etcd%.ready)
	@PGREGENT_PG_VERSIONS="$(VERSIONS)" tests/run-integration.sh test_versions
	@set -e; for e in $(ETCDS); do PGREGENT_ETCD_BIN=$(CURDIR)/$(DEBS)/etcd$$e/usr/bin \
		tests/run-integration.sh "test_etcd or test_cluster"; done
integration:
	@$(MAKE) --no-print-directory SAN=1 integration-bins integration-debs
	@tests/run-integration.sh $(K)

# Parsers of bytes from outside under libFuzzer: needs clang. `make fuzz SECONDS=600` for longer, for each target.
SECONDS ?= 10
FUZZ_C := tests/fuzz/fuzz_parsers.c $(CORE_SRC) $(MODEL_SRC) $(addprefix worker/files/,pgcontrol.c pgdir.c fs.c tree.c) \
  $(addprefix worker/postgres/,conninfo.c controldata.c sync_names.c waldump.c)
build/fuzz/fuzz_parsers: $(FUZZ_C) $(wildcard common/*/*.h worker/*/*.h)
	@mkdir -p $(@D)/corpus
	@echo "  FUZZ $@"
	@clang -std=gnu17 -g -O1 -I. -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -o $@ $(FUZZ_C)
# The receiving ends of our sockets, one target for each sender: <receiver>_<sender>. System calls that
# would reach other processes or files are stubs.
FUZZ_IPC := $(addprefix build/fuzz/,supervisor_worker supervisor_files supervisor_api supervisor_deadman deadman_supervisor)
FUZZ_CC := clang -std=gnu17 -g -O1 -I. -D_GNU_SOURCE -DPGREGENT_VERSION='"$(VERSION)"' -fsanitize=fuzzer,address,undefined \
  -fno-sanitize-recover=undefined -Dkill=fuzz_kill -Dpidfd_open=fuzz_pidfd_open -Dpidfd_send_signal=fuzz_pidfd_send_signal \
  -Dopen=fuzz_open -Daccess=fuzz_access
FUZZ_SUP_C := $(filter-out supervisor/main.c supervisor/deadman.c supervisor/spawn.c supervisor/loop.c,$(wildcard supervisor/*.c)) \
  $(filter-out common/core/clock.c common/core/killtree.c common/core/last_fence.c,$(CORE_SRC))
FUZZ_DM_C := $(addprefix supervisor/,dm_core.c fence.c guard.c guard_events.c lifeline.c) $(filter common/%,$(FUZZ_SUP_C))
$(filter build/fuzz/supervisor_%,$(FUZZ_IPC)): tests/fuzz/fuzz_ipc_supervisor.c $(FUZZ_SUP_C)
$(filter build/fuzz/deadman_%,$(FUZZ_IPC)): tests/fuzz/fuzz_ipc_deadman.c $(FUZZ_DM_C)
$(FUZZ_IPC): tests/fuzz/fuzz_ipc.c $(wildcard tests/fuzz/*.h common/core/*.h supervisor/*.h)
	@mkdir -p $@.corpus
	@echo "  FUZZ $@"
	@$(FUZZ_CC) -DFUZZ_FROM=ROLE_$(shell echo $(lastword $(subst _, ,$@)) | tr a-z A-Z) -o $@ $(filter %.c,$^) -lcap

# The receivers that are helpers. pgregent-files works on real files, in a directory of the fuzzer's own: the
# calls that take a name are wrapped.
FUZZ_HELPERS := $(addprefix build/fuzz/,files_supervisor files_worker api_supervisor api_worker \
  worker_supervisor worker_files worker_api)
FUZZ_HELPER_CC := $(filter-out -Dopen=% -Daccess=%,$(FUZZ_CC)) $(shell $(PKG) --cflags libpq)
FUZZ_WRAP := stat lstat fstatat access faccessat rename renameat2 unlink unlinkat mkdir rmdir chmod opendir fopen \
  readlink symlink scandir open openat realpath mkostemp
FUZZ_INCLUDED := worker/files/main.c api/link.c worker/link.c # by the target, for what is static in them
FUZZ_CORE_C := $(filter common/%,$(FUZZ_SUP_C)) $(MODEL_SRC)
$(filter build/fuzz/files_%,$(FUZZ_HELPERS)): tests/fuzz/fuzz_ipc_files.c $(FUZZ_CORE_C) \
  $(wildcard worker/files/*.c)
$(filter build/fuzz/files_%,$(FUZZ_HELPERS)): FUZZ_LIBS := $(addprefix -Wl$(comma)--wrap=,$(FUZZ_WRAP))
$(filter build/fuzz/api_%,$(FUZZ_HELPERS)): tests/fuzz/fuzz_ipc_api.c $(FUZZ_CORE_C) common/ext/json.c common/config/value.c \
  common/dcs/decode.c $(addprefix api/,view.c facts.c actions.c settings.c validate.c timestamp.c snapshot.c health.c link.c)
$(filter build/fuzz/worker_%,$(FUZZ_HELPERS)): tests/fuzz/fuzz_ipc_worker.c $(FUZZ_CORE_C) common/ext/json.c \
  common/dcs/decode.c worker/requests.c worker/requests_handover.c worker/requests_config.c \
  worker/postgres/host.c worker/link.c
$(filter-out build/fuzz/files_%,$(FUZZ_HELPERS)): FUZZ_LIBS := $(shell $(PKG) --libs jansson) -lm
$(FUZZ_HELPERS): tests/fuzz/fuzz_ipc.c $(wildcard tests/fuzz/*.h common/core/*.h worker/*.h worker/*/*.h api/*.h)
	@mkdir -p $@.corpus
	@echo "  FUZZ $@"
	@$(FUZZ_HELPER_CC) -DFUZZ_FROM=ROLE_$(shell echo $(lastword $(subst _, ,$@)) | tr a-z A-Z) -o $@ \
		$(filter-out $(FUZZ_INCLUDED),$(filter %.c,$^)) $(FUZZ_LIBS)

FUZZ_ALL := $(notdir $(FUZZ_IPC) $(FUZZ_HELPERS))
fuzz: build/fuzz/fuzz_parsers $(FUZZ_IPC) $(FUZZ_HELPERS)
	@cd build/fuzz && mkdir -p corpus && ln -sfn corpus fuzz_parsers.corpus && for t in fuzz_parsers $(FUZZ_ALL); do \
		./$$t -max_total_time=$(SECONDS) -timeout=5 -max_len=8192 $$(case $$t in fuzz_parsers) ;; *) echo -dict=../../tests/fuzz/fuzz_ipc.dict ;; esac) \
			-print_final_stats=1 $$t.corpus 2>$$t.log || \
			{ tail -40 $$t.log; exit 1; }; \
		echo "$$t: $$(grep number_of_executed_units $$t.log), $$(grep -oE 'cov: [0-9]+' $$t.log | tail -1)"; done

lint:
	@tests/lint.sh
deps:
	@tests/check-deps.sh

.PHONY: deps-install test unit unit-run unit-bins integration-bins integration-debs integration-versions sim-bin sim sim-run sim-long sim-nightly sim-mutations integration fuzz lint deps

# The search includes guard.c itself and runs without sanitizers, for depth; test_guard runs with them.
$(B)/tests/unit/test_guard_search.o: OPT := -O3 -g
guard-mutations:
	@tests/guard-mutations.sh $(K)
# Does the bound of the search hide anything? DEPTH= moves from every start, K= a mutation's name.
guard-bound:
	@tests/guard-bound.sh $(K)
.PHONY: guard-mutations guard-bound

# Figures of DESIGN section 8, one program each.
bench-fence:
	@$(MAKE) --no-print-directory SAN=0 integration-bins
	@tests/bench/fence_latency.py
bench-supervisor:
	@$(MAKE) --no-print-directory SAN=0 all integration-bins
	@tests/bench/supervisor_bench.py
bench-cluster:
	@$(MAKE) --no-print-directory SAN=0 all
	@tests/bench/cluster_bench.py $(if $(RUNS),--runs $(RUNS)) $(if $(ONLY),--only $(ONLY))
bench: bench-fence bench-supervisor bench-cluster
.PHONY: bench bench-fence bench-supervisor bench-cluster

# Kills and stops of every process of a node, and of every pair, under load (tests/chaos). SEED= repeats a run.
ROUNDS ?= 1000
CONNECTIONS ?= 200
chaos: chaos-enforcers
chaos-enforcers:
	@$(MAKE) --no-print-directory SAN=0 all integration-bins
	@PGREGENT_BUILD=$(CURDIR)/build/release PYTHONDONTWRITEBYTECODE=1 tests/chaos/enforcers.py --rounds $(ROUNDS) --connections $(CONNECTIONS) $(if $(SEED),--seed $(SEED))
# An hour at ttl 5 with every processor busy: nothing may happen.
soak:
	@$(MAKE) --no-print-directory SAN=0 all
	@PYTHONDONTWRITEBYTECODE=1 tests/chaos/soak.py $(if $(MINUTES),--minutes $(MINUTES))
.PHONY: chaos chaos-enforcers soak
