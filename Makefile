# `make` lists the commands. Each one sets up .venv by itself where that is not done yet.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := hecompile passes models tests examples
OLDEST := import sys; sys.exit(sys.version_info < (3, 11))

# The first interpreter that runs and is new enough; `make PYTHON=/path/to/python` overrides.
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c '$(OLDEST)' 2>/dev/null && { echo "$$python"; break; }; done)
endif

# Two test processes at a time; a file stays with one, so that its fixtures are built once.
TEST_JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint format golden operators bench performance clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## train, compile and run a CNN-LSTM on encrypted heartbeats
	@$(BIN)/hecompile demo $(ARGS)

test: $(STAMP) ## run the tests that take seconds (ARGS='-k name' selects)
	@$(PYTEST) $(ARGS)

test-slow: $(STAMP) ## run the tests that take minutes
	@$(PYTEST) -m slow $(ARGS)

lint: $(STAMP) ## check style, formatting and types
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy

format: $(STAMP) ## format the sources and mend what ruff can mend
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

golden: $(STAMP) ## rewrite the expected halves of the golden tests, then show what changed
	@$(BIN)/python -m pytest tests/golden --update-golden $(ARGS)
	@git --no-pager diff --stat -- tests/golden 2>/dev/null || true

operators: $(STAMP) ## write docs/operators.md from the ONNX standard's node tests
	@$(BIN)/python -m tests.conformance.table

bench: $(STAMP) ## measure the reference models beside plain TenSEAL programs
	@$(BIN)/python -m tests.benchmarks.run $(ARGS)

performance: $(STAMP) ## write docs/performance.md from what `make bench` measured
	@$(BIN)/python -m tests.benchmarks.performance $(ARGS)

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist *.egg-info demo-out bench-out \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find $(SOURCES) -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "hecompile needs Python 3.11 or newer and found none;" \
		"install one, or run make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -c '$(OLDEST)' || { echo "hecompile needs Python 3.11 or newer and" \
		"'$(PYTHON)' is not; run make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@echo "Installing into $(VENV) with $$($(PYTHON) --version); the first time takes some minutes ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev]'
	@touch $@
