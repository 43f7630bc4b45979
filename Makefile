# One non-recursive Makefile. SAN=1 builds the same tree with sanitizers under build/san.
# Lists of sources are wildcards on purpose: a directory is a layer, a file in it belongs to it.

.DEFAULT_GOAL := all

VERSION  := 0.1.0
PREFIX   ?= /usr/local
DESTDIR  ?=
CC       ?= gcc
PKG      := pkg-config
SAN      ?= 0
.DEFAULT_GOAL := all

ifeq ($(SAN),1)
B        := build/san
OPT      := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LINKOPT  := -fsanitize=address,undefined
else
B        := build/release
OPT      := -O2 -g -D_FORTIFY_SOURCE=2
LINKOPT  :=
endif

WARN     := -Wall -Wextra -Wshadow -Wmissing-prototypes -Werror -Wvla -Wformat=2 -Wno-format-nonliteral -Wno-format-truncation
HARDEN   := -fPIE -fstack-protector-strong
CPPFLAGS += -I. -D_GNU_SOURCE -DPGREGENT_VERSION='"$(VERSION)"'
CFLAGS   += -std=gnu17 $(OPT) $(WARN) $(HARDEN) -MMD -MP
LDFLAGS  += -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LINKOPT)

# Which libraries a layer may use. The supervisor and the dead-man get libcap, nothing else.
LIBS_CAP  := $(shell $(PKG) --libs libcap)
# The symbol: common/ext/http.c.
LIBS_EXT  := $(shell $(PKG) --libs jansson yaml-0.1 libcurl libcares) -Wl,--export-dynamic-symbol=_gnutls_global_init_skip
LIBS_PQ   := $(shell $(PKG) --libs libpq)
LIBS_MHD  := $(shell $(PKG) --libs libmicrohttpd gnutls)
CFLAGS_EXT := $(shell $(PKG) --cflags jansson yaml-0.1 libcurl libcares libpq libmicrohttpd libcap)
CPPFLAGS += $(CFLAGS_EXT)

src = $(wildcard $(1)/*.c)
obj = $(patsubst %.c,$(B)/%.o,$(1))

CORE_SRC   := $(call src,common/core)
EXT_SRC    := $(call src,common/ext)
MODEL_SRC  := $(call src,common/model)
CONFIG_SRC := $(call src,common/config)
DCS_SRC    := $(call src,common/dcs)
HA_SRC     := $(call src,worker/ha)
PGS_SRC    := $(call src,worker/postgres)
FILES_SRC  := $(filter-out worker/files/main.c,$(call src,worker/files))
WORKER_SRC := $(filter-out worker/main.c,$(call src,worker))
SUP_SRC    := $(filter-out supervisor/main.c supervisor/deadman.c,$(call src,supervisor))
API_SRC    := $(filter-out api/main.c,$(call src,api))
CTL_SRC    := $(filter-out ctl/main.c,$(call src,ctl))
SIM_SRC    := $(filter-out tests/sim/sim_main.c,$(call src,tests/sim))

LIBNAMES := CORE EXT MODEL CONFIG DCS HA PGS FILES WORKER SUP API CTL SIM
define archive
$(1)_A := $$(if $$($(1)_SRC),$(B)/lib$(1).a)
$(B)/lib$(1).a: $$(call obj,$$($(1)_SRC))
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach n,$(LIBNAMES),$(eval $(call archive,$(n))))

# Later archives first: the linker resolves from left to right.
A_EXT    := $(EXT_A) $(MODEL_A) $(CORE_A)
A_WORKER := $(WORKER_A) $(HA_A) $(PGS_A) $(CONFIG_A) $(DCS_A) $(A_EXT)

PROGRAMS := $(strip \
  $(if $(wildcard supervisor/main.c),$(B)/pgregent) \
  $(if $(wildcard supervisor/deadman.c),$(B)/pgregent-deadman) \
  $(if $(wildcard worker/main.c),$(B)/pgregent-worker) \
  $(if $(wildcard worker/files/main.c),$(B)/pgregent-files) \
  $(if $(wildcard api/main.c),$(B)/pgregent-api) \
  $(if $(wildcard ctl/main.c),$(B)/pgregentctl))

.DEFAULT_GOAL := all
all: $(PROGRAMS)

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC  $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

link = @echo "  LD  $@"; $(CC) $(LDFLAGS) -o $@ $(1) $(2)

$(B)/pgregent: $(B)/supervisor/main.o $(SUP_A) $(CORE_A)
	$(call link,$^,$(LIBS_CAP))
$(B)/pgregent-deadman: $(B)/supervisor/deadman.o $(SUP_A) $(CORE_A)
	$(call link,$^,$(LIBS_CAP))
$(B)/pgregent-worker: $(B)/worker/main.o $(A_WORKER)
	$(call link,$^,$(LIBS_EXT) $(LIBS_PQ) -lm)
$(B)/pgregent-files: $(B)/worker/files/main.o $(FILES_A) $(MODEL_A) $(CORE_A)
	$(call link,$^,)
$(B)/pgregent-api: $(B)/api/main.o $(API_A) $(CONFIG_A) $(DCS_A) $(A_EXT)
	$(call link,$^,$(LIBS_EXT) $(LIBS_MHD) -lm)
$(B)/pgregentctl: $(B)/ctl/main.o $(CTL_A) $(CONFIG_A) $(DCS_A) $(A_EXT)
	$(call link,$^,$(LIBS_EXT) $(LIBS_PQ) -lm)

# Unit tests: one program for each tests/unit/test_*.c; every archive is offered, the linker takes what is used.
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(UNIT_SRC))
ALL_A    := $(SUP_A) $(API_A) $(CTL_A) $(A_WORKER) $(FILES_A) $(CONFIG_A) $(DCS_A) $(A_EXT)
$(B)/tests/unit/%: $(B)/tests/unit/%.o $(ALL_A)
	$(call link,$< -Wl$(comma)--start-group $(ALL_A) -Wl$(comma)--end-group,$(LIBS_EXT) $(LIBS_PQ) $(LIBS_MHD) $(LIBS_CAP) -lcmocka -lm)
comma := ,

# Small programs that the integration tests start (test worker, helpers): tests/integration/*.c
IT_SRC := $(wildcard tests/integration/*.c)
IT_BIN := $(patsubst tests/integration/%.c,$(B)/tests/integration/%,$(IT_SRC))
$(B)/tests/integration/%: $(B)/tests/integration/%.o $(ALL_A)
	$(call link,$< -Wl$(comma)--start-group $(ALL_A) -Wl$(comma)--end-group,$(LIBS_EXT) $(LIBS_PQ) $(LIBS_MHD) $(LIBS_CAP) -lm)

SIM_BIN := $(if $(wildcard tests/sim/sim_main.c),$(B)/tests/sim/sim)
$(B)/tests/sim/sim: $(B)/tests/sim/sim_main.o $(SIM_A) $(HA_A) $(SUP_A) $(MODEL_A) $(CORE_A)
	$(call link,$^,-lm)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.SECONDARY:

include tests/tests.mk

demo: deps-install
	@$(MAKE) --no-print-directory all
	@conf/demo.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pgregent
	install -m 755 $(wildcard $(B)/pgregent $(B)/pgregentctl) $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(wildcard $(B)/pgregent-worker $(B)/pgregent-files $(B)/pgregent-api $(B)/pgregent-deadman) $(DESTDIR)$(PREFIX)/lib/pgregent/
	if [ -e $(B)/pgregentctl ]; then ln -sf pgregentctl $(DESTDIR)$(PREFIX)/bin/patronictl; fi

clean:
	rm -rf build

.PHONY: all demo install clean
