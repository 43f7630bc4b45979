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
sim-bin: $(SIM_BIN)

SEED ?=
sim:
	@$(MAKE) --no-print-directory SAN=0 sim-run
sim-run: $(SIM_BIN)
	@if [ -n "$(SIM_BIN)" ]; then $(SIM_BIN) $(if $(SEED),--seed $(SEED) $(if $(SCENARIO),--scenario tests/sim/scenarios/$(SCENARIO)) $(if $(V),-v),--short $(if $(FRESH),--fresh)); fi
N ?= 10000
FROM ?=
sim-long: 
	@$(MAKE) --no-print-directory SAN=0 $(SIM_BIN:build/san/%=build/release/%)
	@$(SIM_BIN) --long $(N) $(if $(FROM),--from $(FROM))

sim-mutations:
	@$(MAKE) --no-print-directory SAN=0 sim-bin
	@tests/sim/mutations.sh $(N_HISTORIES)

integration:
	@$(MAKE) --no-print-directory SAN=1 integration-bins
	@tests/run-integration.sh $(K)

# Parsers of bytes from outside under libFuzzer: needs clang. `make fuzz SECONDS=600` for longer.
SECONDS ?= 10
FUZZ_C := tests/fuzz/fuzz_parsers.c $(CORE_SRC) $(MODEL_SRC) $(addprefix worker/files/,pgcontrol.c pgdir.c fs.c tree.c) \
  $(addprefix worker/postgres/,conninfo.c controldata.c sync_names.c waldump.c)
build/fuzz/fuzz_parsers: $(FUZZ_C) $(wildcard common/*/*.h worker/*/*.h)
	@mkdir -p $(@D)/corpus
	@echo "  FUZZ $@"
	@clang -std=gnu17 -g -O1 -I. -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -o $@ $(FUZZ_C)
fuzz: build/fuzz/fuzz_parsers
	@cd build/fuzz && ./fuzz_parsers -max_total_time=$(SECONDS) -timeout=5 -print_final_stats=1 corpus 2>fuzz.log || \
		{ tail -40 fuzz.log; exit 1; }
	@grep -E "number_of_executed_units|^Done" build/fuzz/fuzz.log

lint:
	@tests/lint.sh
deps:
	@tests/check-deps.sh

.PHONY: deps-install test unit unit-run unit-bins integration-bins sim-bin sim sim-run sim-long sim-mutations integration fuzz lint deps

# The search includes guard.c itself and runs without sanitizers, for depth; test_guard runs with them.
$(B)/tests/unit/test_guard_search.o: OPT := -O2 -g
guard-mutations:
	@tests/guard-mutations.sh $(K)
.PHONY: guard-mutations

# Figures of DESIGN section 8, one program each.
bench-fence:
	@$(MAKE) --no-print-directory SAN=0 integration-bins
	@tests/bench/fence_latency.py
.PHONY: bench-fence

# Kills and stops of every process of a node, and of every pair, under load (tests/chaos). SEED= repeats a run.
ROUNDS ?= 1000
CONNECTIONS ?= 200
chaos: chaos-enforcers
chaos-enforcers:
	@$(MAKE) --no-print-directory SAN=0 all integration-bins
	@PGREGENT_BUILD=$(CURDIR)/build/release PYTHONDONTWRITEBYTECODE=1 tests/chaos/enforcers.py --rounds $(ROUNDS) --connections $(CONNECTIONS) $(if $(SEED),--seed $(SEED))
.PHONY: chaos chaos-enforcers
