# Two commands are always true: `make run` and `make test`. Both do all the set-up.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Tests wait more than they compute: twice as many processes as cores.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --durations 10

.PHONY: help run test test-slow coverage torture lint bench docs servers clean

help:
	@echo "make run        set up, then the tour: an order page, 10,000 offers, 50 webhooks, an outage"
	@echo "make test       set up, then the tests (under six minutes)"
	@echo "make test-slow  the tests that need minutes or large inputs"
	@echo "make coverage   the tests again, with the lines that they run; names what no test calls"
	@echo "make torture    kill runs and deliveries in every way, 300 times: nothing may be lost"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make bench      measure against rivals, into benches/RESULTS.md"

$(READY): pyproject.toml requirements/dev.lock
	$(PYTHON) -c 'import sys; sys.exit("Yelpaze needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)
	$(BIN)/python examples/tour.py

servers: $(READY)
	sh scripts/servers.sh

test: $(READY) servers
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	sh scripts/servers.sh slow
	$(PYTEST) -m slow --timeout 900

coverage: $(READY) servers
	rm -rf .coverage .coverage.*
	$(PYTEST) -m "not slow" --timeout 240 --cov --cov-report=
	$(BIN)/coverage report --skip-covered --sort=cover
	$(BIN)/python scripts/uncalled.py

torture: $(READY) servers
	$(BIN)/python scripts/torture --rounds 200
	$(BIN)/python scripts/torture_hooks.py --rounds 100

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) servers
	$(BIN)/python benches/run.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
