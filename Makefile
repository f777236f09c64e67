# The front door: thin on purpose. What is built is said in meson.build, how it is tested in tools/run-tests.

BUILD        ?= build
BUILD_ASAN   ?= build-asan
BUILD_POINTS ?= build-failpoints
BUILD_MUTANT ?= build-mutants
PREFIX       ?= /usr/local
DESTDIR      ?=
CC           := $(if $(filter default,$(origin CC)),gcc,$(CC))
FUZZ_SECONDS ?= 60
PYTHON       := /usr/bin/python3
MESON        := $(firstword $(wildcard /usr/bin/meson) meson)
RUN_TESTS     = $(PYTHON) tools/run-tests --build $(BUILD) --build-asan $(BUILD_ASAN) --build-failpoints $(BUILD_POINTS)

.NOTPARALLEL:
.PHONY: all build demo test test-quick test-mutants soak bench fuzz install format clean help

all: build

help:
	@echo 'make build        the command, the libraries and the examples, in $(BUILD)/'
	@echo 'make demo         reload a service under load for ten seconds and count what its clients lost'
	@echo 'make test         everything: unit, end to end, sanitizers, fuzz targets, style (under ten minutes)'
	@echo 'make test-quick   unit and end-to-end tests of the release build'
	@echo 'make soak         the long versions: 1,000 reloads in a row, random kills, upgrades, fuzzing (under 25 minutes)'
	@echo 'make test-mutants shows that the tests notice broken builds: tests/mutants (a few minutes)'
	@echo 'make fuzz         each fuzz target for FUZZ_SECONDS ($(FUZZ_SECONDS)) seconds'
	@echo 'make bench        CPU per request against a bare epoll server'
	@echo 'make install      to $$(DESTDIR)$$(PREFIX) ($(DESTDIR)$(PREFIX))'
	@echo 'make format       lay out every C file by .clang-format'
	@echo 'make clean        remove $(BUILD)/, $(BUILD_ASAN)/, $(BUILD_POINTS)/ and $(BUILD_MUTANT)/'

build:
	@tools/install-deps build
	@test -f $(BUILD)/build.ninja || CC=$(CC) $(MESON) setup --prefix $(PREFIX) $(BUILD)
	@ninja -C $(BUILD)

demo:
	@tools/install-deps build demo
	@$(MAKE) --no-print-directory build
	@$(PYTHON) bench/demo.py --build $(BUILD)

test:
	@tools/install-deps build test
	@CC=$(CC) $(RUN_TESTS)

test-quick:
	@tools/install-deps build test
	@CC=$(CC) $(RUN_TESTS) --quick

test-mutants:
	@tools/install-deps build test
	@$(PYTHON) tools/test-mutants --folder $(BUILD_MUTANT)

soak:
	@tools/install-deps build test
	@CC=$(CC) $(RUN_TESTS) --soak

fuzz:
	@tools/install-deps build test
	@$(RUN_TESTS) --fuzz $(FUZZ_SECONDS)

bench: build
	@$(PYTHON) bench/cpu.py --build $(BUILD)

install: build
	@$(MESON) configure $(BUILD) -Dprefix=$(PREFIX)
	@ninja -C $(BUILD)
	@DESTDIR='$(DESTDIR)' $(MESON) install -C $(BUILD) --no-rebuild

format:
	@tools/install-deps test
	@find include src tests bench examples -name '*.[ch]' -exec clang-format -i {} +

clean:
	rm -rf $(BUILD) $(BUILD_ASAN) $(BUILD_POINTS) $(BUILD_MUTANT)
