# `make demo` and `make test` work from a bare checkout: both first make .venv, once.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# A configuration names data sets; this says where their files lie.
ifneq ($(wildcard ../shared/data/.),)
export METANAS_DATA ?= $(abspath ../shared/data)
endif

BENCHMARKS := meta_step same_accuracy sampler supernet scaling adapt latency profile

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types layers long bench clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s%s\n", $$1, $$2}' Makefile

setup: $(INSTALLED) ## make .venv and install everything, when that was not done yet

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "metanas needs Python 3.11 or newer and '$(PYTHON)' is not: name one, as in 'make setup PYTHON=python3.12'."; exit 1; }
	@echo "Installing into .venv: some minutes the first time."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) --upgrade pip
	@$(PIP) --editable '.[dev,parquet]'
	@$(LEARN2LEARN) || { \
	  echo "learn2learn could not be built (it needs a C compiler, see the lines above): its task sets are left out; 'make -B setup' tries again."; \
	  test -z "$$CI"; }
	@touch $@

# learn2learn 0.2.0 ships C files that do not compile on Python 3.11+, which `build_ext` makes anew, and asks for a
# NumPy below 2, hence --no-deps and, by name, what it imports.
LEARN2LEARN = { $(PIP) gym requests scipy tqdm && \
	$(PIP) --no-deps --config-settings=--build-option=build_ext learn2learn; }

demo: setup ## meta-train on glyphs, adapt to handwritten digits, write the report: about six minutes on two cores
	rm -rf runs/demo
	$(BIN)/metanas train configs/demo.yaml --out runs/demo
	$(BIN)/metanas evaluate runs/demo
	$(BIN)/metanas report runs/demo
	@echo "The report: $(abspath runs/demo/report.html)"

test: lint types layers ## all checks: lint, types, layers, then the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: setup ## ruff: rules and format
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

types: setup ## mypy, strict
	$(BIN)/python -m mypy

layers: setup ## import-linter: which module may import which
	$(BIN)/lint-imports --no-logo

long: setup ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

bench: setup ## the benchmarks of speed, each printing a table
	@for name in $(BENCHMARKS); do echo "benchmarks.$$name" && $(BIN)/python -m benchmarks.$$name || exit 1; done

clean: ## remove what was built or cached; .venv and runs stay
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
