# `make` alone lists the targets. Needs Python 3.11 or newer; Kafka (for test, kafka, bench, chaos) needs Java 17.
# Nothing is installed outside this folder and nothing needs sudo.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first that is new enough and can make environments; 3.11 first, because the lock is made with it.
# Override it: make setup PYTHON=/opt/python/bin/python3
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

BIN := .venv/bin
STAMP := .venv/.installed
PYTEST := $(BIN)/python -m pytest

NODES ?= 1
PORT ?= 9092
SEEDS ?= 1000
# Tests with Kafka mostly wait, so three processes share them; tests of what is not measured run beside those that are.
FAULTS := tests/browser $(addprefix tests/integration/test_,brokers.py chaos.py process.py)
OPERATING := $(addprefix tests/integration/test_,console.py demo.py doctor.py history.py hostile.py local_kafka.py \
	operating.py operations.py orders_list.py outage.py receive.py reconcile.py refusals.py)
UNMEASURED := tests/test_layout.py $(addprefix tests/unit/,chaos kafka publisher sandbox scale sim tools web test_deploy.py)
HISTORIES ?= 100000
PROCESSES ?= 1
ARGS ?=

.PHONY: help setup demo test longer matrix check format lock dist kafka bench bench-peers scale chaos drills tools simulate year histories schemas clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv from the lock file (again only when it or pyproject.toml changed)

$(STAMP): pyproject.toml requirements.lock
	@if [ -z "$(PYTHON)" ]; then \
		echo "cartsync needs Python 3.11 or newer with the venv module; none was found on the PATH." >&2; \
		echo "Install it (Debian: python3.11 and python3.11-venv), or name one: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi
	@echo "setup: $$($(PYTHON) --version) in .venv, packages of requirements.lock (about a minute the first time)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## see it work: a worker, a shop and a provider, on this machine
	@$(BIN)/cartsync demo $(ARGS)

test: setup ## every test: the pure parts to 100 % coverage, then against a real Kafka (under 15 minutes)
	@echo "test 1/3: unit, scenarios, contract; simulation, model and shell beside them (what they say comes afterwards)"
	@$(BIN)/coverage erase
	@.ci/together .cartsync/simulation.log \
		'$(PYTEST) tests/simulation tests/model $(UNMEASURED) -m "not integration and not slow" --durations=5 -q $(ARGS)' \
		'$(BIN)/coverage run -m pytest -m "not integration and not slow" --durations=5 $(ARGS) \
			$(addprefix --ignore=,tests/simulation tests/model $(UNMEASURED))'
	@echo "test 2/3: coverage of worker.core, worker.model, worker.providers, schemas"
	@$(BIN)/coverage report
	@echo "test 3/3: integration, with a real Kafka; faults of brokers and processes with the console in a browser, and operating it, beside the rest"
	@.ci/together .cartsync/faults.log '$(PYTEST) $(FAULTS) -m "not slow" --durations=5 -q $(ARGS)' \
		.cartsync/operating.log '$(PYTEST) $(OPERATING) -m "not slow" --durations=5 -q $(ARGS)' \
		'$(PYTEST) -m "integration and not slow" $(addprefix --ignore=,$(FAULTS) $(OPERATING)) --durations=5 -v $(ARGS)'

longer: setup ## tests with a real Kafka that `make test` has no time for: migration, disks, dead letters, ACLs, clusters that lose brokers, the console beside a worker
	@$(PYTEST) -m "integration and slow" -q $(ARGS)

matrix: ## unit tests and scenarios under every other Python of 3.12 and newer on this machine
	@.ci/matrix

check: setup ## formatting, lint, types and the rules of the layout
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(PYTEST) -q tests/test_layout.py

format: setup ## let ruff format and repair what it can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: setup ## write requirements.lock anew (ARGS=--upgrade for the newest of everything)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "lock: make it with Python 3.11, the oldest that we support: its set is the largest")'
	@$(BIN)/pip-compile --quiet --extra dev --generate-hashes --allow-unsafe --strip-extras --no-build-isolation \
		--no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--output-file requirements.lock $(ARGS) pyproject.toml
	@$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
		--no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--output-file deploy/release/requirements.lock $(ARGS) deploy/release/requirements.in
	@if grep -n '://' requirements.lock deploy/release/requirements.lock; then echo "lock: an address has come in" >&2; exit 1; fi

dist: setup ## the wheel, its bill of materials (CycloneDX) and their sums, into dist/
	@PYTHON=$(PYTHON) deploy/release/make.sh

kafka: setup ## a Kafka on this machine until Ctrl-C (PORT=9092, NODES=3 for a cluster)
	@$(BIN)/python -m worker.tools.local_kafka --nodes $(NODES) --port $(PORT)

bench: setup ## throughput, latency and memory, each beside its limit (10 minutes; ARGS="--only reduce" for one row)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-peers: setup ## the consume row beside Quix Streams, where that is installed in .venv-quix (3 minutes)
	@$(BIN)/python -m tests.bench.peers $(ARGS)

scale: setup ## how it grows with workers, orders, accounts, latency, …: tables and pictures in deploy/SCALE.md (20 to 30 minutes; ARGS=--quick)
	@$(BIN)/python -m tests.scale $(ARGS)

chaos: setup ## kill, freeze and cut off workers, receivers and brokers; three providers, a hostile producer (25 minutes; CHAOS_ORDERS=2000 CHAOS_SECONDS=120 for less)
	@$(BIN)/python -m tests.chaos $(ARGS)

drills: setup ## each alert provoked on real processes, and its section of the runbook done (20 minutes; ARGS="--only CartsyncOrdersParked" for one)
	@$(BIN)/python -m tests.drills $(ARGS)

tools: ## programs that look at what deploy/ has, and the Prometheus of `make drills`, by Go and pip (10 minutes, once)
	@PYTHON=$(PYTHON) .ci/tools

simulate: setup ## many simulated days under faults: SEEDS=1000 (0 to 999), SEEDS=40-49, SEEDS=7,12
	@$(PYTEST) tests/simulation -m "" --timeout=0 --seeds=$(SEEDS) -q $(ARGS)

year: setup ## a year of daily reports in virtual time, 2,000 orders, two seeds (5 minutes): ARGS="--seeds 2,3 --days 90"
	@$(BIN)/python -m tests.simulation.year $(ARGS)

histories: setup ## random histories against a second model: HISTORIES=1000000 PROCESSES=2 (ARGS="--first 5000000" for other seeds)
	@$(BIN)/python -m tests.unit.core.hunt $(HISTORIES) --processes $(PROCESSES) $(ARGS)

schemas: setup ## write schemas/json anew from the types
	@$(BIN)/python -m schemas.generate

clean: ## remove everything that the other targets made
	@rm -rf .venv .venv-* .kafka .cartsync build dist *.egg-info .coverage .coverage.* htmlcov \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find worker schemas tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
