# `make demo` and `make test` need nothing but Python 3.11 to 3.13 and a package index. Both may be repeated.
#
#   PYTHON=python3.12     the Python that .venv is made with
#   VENV=/some/where      another place for the environment
#   TORCH_INDEX=URL       where torch comes from when .venv is made; the index of the CPU-only builds (PyTorch's
#                         installation page names it) saves 4 GB of CUDA libraries
#   JOBS=2                processes of the tests
#   PYTEST_ARGS="-k int8" more arguments for pytest

VENV ?= .venv
JOBS ?= 2
EXTRAS := train,openvino,lite,fast,serve
SUPPORTED := import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
ifndef PYTHON
PYTHON := $(shell for it in python3 python3.13 python3.12 python3.11; do \
	$$it -c '$(SUPPORTED)' 2>/dev/null && echo $$it && break; done)
endif
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-all check deploy bench clean
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo       install what runs, then the main job on scikit-learn's digits: candidates, verdict, report, bundle
demo: $(VENV)/.runtime
	$(BIN)/torchstone demo

## make test       all tests that take seconds
test: $(VENV)/.dev
	@.ci/have initdb postgresql
	@.ci/have redis-server redis-server
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow" $(PYTEST_ARGS)

## make test-all   the slow ones, too
test-all: $(VENV)/.dev
	@.ci/have initdb postgresql
	@.ci/have redis-server redis-server
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

## make check      format, lint, types, layers
check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

## make deploy     the lock files are current, licences may be shipped, the Containerfile is clean
deploy: $(VENV)/.dev
	$(BIN)/python deploy/lock.py --check
	$(BIN)/python deploy/licences.py
	$(BIN)/hadolint deploy/Containerfile

## make bench      the measurements in benchmarks/ that need no images of yours, one after the other
bench: $(VENV)/.dev
	@for name in cold_start judge_cost self_judged augment label_errors; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

## make clean      caches and builds; .venv and runs/ stay (rm -rf .venv runs)
clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis htmlcov .coverage
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are older than pyproject.toml when the dependencies may have changed.
$(VENV)/.runtime: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with venv was found" >&2; \
		echo "hint: install one (Debian, Ubuntu: apt install python3-venv), or: make demo PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "'$(PYTHON)' is not a Python 3.11 to 3.13 with venv" >&2; exit 2; }
	@$(PIP) --version >/dev/null 2>&1 || { echo "$(PYTHON) -m venv $(VENV)"; $(PYTHON) -m venv $(VENV); }
	$(PIP) install --quiet --upgrade 'pip>=25.1'
ifneq ($(strip $(TORCH_INDEX)),)
	$(PIP) install --index-url '$(TORCH_INDEX)' 'torch>=2.6' 'torchvision>=0.21'
endif
	$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --editable '.[$(EXTRAS),litert,track,search]' --group dev
	@touch $@
