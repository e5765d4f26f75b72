# Everything a developer types. Needs make and a Python of at least 3.11; the rest goes into .venv.
# `make test ARGS='-k receipt'` hands arguments on, PARALLEL= runs them one by one; `make venv PYTHON=/path/to/python` chooses the interpreter.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
PARALLEL ?= -n auto --dist loadfile --no-loadscope-reorder
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.14 python3.13 python3.12 python3.11 python3)

.PHONY: help venv run test lint format types architecture check coverage demo bench fuzz torture clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(READY) ## Make .venv and install inbox with all development tools

# The first that is new enough and really starts: a name on the PATH may be a shim with nothing behind it.
$(READY): pyproject.toml
	@for python in $(CANDIDATES); do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "making .venv with $$("$$python" --version) ($$(command -v "$$python"))"; \
			"$$python" -m venv --clear .venv && $(BIN)/python -m pip install --quiet --editable '.[dev]' && touch $@; \
			exit; \
		fi; \
	done; \
	echo "inbox needs Python 3.11 or newer with its venv module; tried: $(CANDIDATES)" >&2; \
	echo "On Debian and Ubuntu: apt install python3 python3-venv; or name one: make venv PYTHON=/path/to/python3" >&2; \
	exit 1

run: export STORAGE_BASE_PATH ?= $(CURDIR)/shared
run: export LOG_FORMAT ?= text
run: $(READY) ## Serve ./shared with the embedded database: drop a ZIP into shared/uploads
	@exec $(BIN)/inbox run $(ARGS)

test: $(READY) ## Run the whole suite, on SQLite and PostgreSQL
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

lint: $(READY) ## Check style and format (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## Mend style and format where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## Check the types (mypy, strict)
	$(BIN)/mypy

architecture: $(READY) ## Check that imports point down (import-linter)
	$(BIN)/lint-imports

coverage: ## Run the suite and demand 90 % of lines and branches
	@$(MAKE) test ARGS="--cov --cov-report=term-missing $(ARGS)"

check: lint types architecture coverage demo ## All of the above, as CI does it

demo: $(READY) ## Start the service in a temporary folder, drop a ZIP, check what comes of it
	$(BIN)/python examples/demo.py $(ARGS)

bench: $(READY) ## Measure: many small files through both databases
	$(BIN)/python benchmarks/run.py $(ARGS)

fuzz: $(READY) ## Drop mutated archives on the reader, a minute long or ARGS='--seconds 3600'
	$(BIN)/python tests/fuzzing/fuzz.py $(ARGS)

torture: $(READY) ## Kill and disturb replicas for five minutes or ARGS='--seconds 3600', and account for every file
	$(BIN)/python tests/torture/torture.py $(ARGS)

clean: ## Remove .venv, caches and build results; ./shared stays
	rm -rf .venv build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .fuzz
	find inbox tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
