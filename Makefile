# The only door. Needs python3.11, pip, git, make and a C compiler; installs the rest itself.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HEAVY_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/heavy

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt proto dashboards lock bench clean

help: ## Show these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

setup: $(READY) ## Make the virtual environment (.venv) from the lock file

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not on the PATH; install Python 3.11 or newer, or call make PYTHON=python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(READY)

demo: $(READY) ## One question, eight trajectories, one answer, on this machine
	$(BIN)/heavy demo

test: $(READY) test-parts ## Every test, fast ones first
	$(BIN)/pytest tests/unit -n 2 --dist loadgroup
	$(BIN)/pytest tests/integration
	$(BIN)/pytest tests/e2e tests/chaos

check: $(READY) ## Format, lint, types, layers, protos, deployment files, dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint protos
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python deploy/proto.py --check
	$(BIN)/python -m deploy.boards --check
	$(BIN)/python deploy/check.py
	$(BIN)/vulture

fmt: $(READY) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY) ## Generate heavy/v1 from protos/heavy/v1
	$(BIN)/python deploy/proto.py

dashboards: $(READY) ## Write dashboards/ (Grafana boards, Prometheus alerts) from the metric names in the code
	$(BIN)/python -m deploy.boards

lock: $(READY) ## Resolve requirements.lock anew (needs uv on the PATH)
	uv pip compile --quiet --python-version 3.11 --universal --all-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-header pyproject.toml --output-file requirements.lock

bench: $(READY) ## Every benchmark; prints ratios, asserts nothing
	$(BIN)/python -m tests.bench

clean: ## Remove what make made here (the cache under HEAVY_CACHE_DIR stays)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

-include workers/engines/engines.mk workers/abacus/abacus.mk tests/parts.mk
