# The commands that CI runs. They need make and a Python from 3.11 on; the rest is made in .venv.
#
#   PYTHON=/path/to/python    the interpreter that .venv is made from
#   PYTEST_ARGS='-n 0'        more arguments for pytest (also: --cov, -k name, -x)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test suite check bench deep docs postgres llamacpp clean

VENV := .venv
BIN := $(VENV)/bin

# Pinned, as the tests name what it says; the file remembers what was installed.
LLAMACPP_VERSION := 2026.10.11549
LLAMACPP := .venv-llamacpp/.$(LLAMACPP_VERSION)

# Plain python3 if it is new enough, else the newest there is. "Runs" is part of the question: a
# version manager may put names on the PATH that answer only with an error.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## *\(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | \
	while IFS='|' read -r target what; do printf '%-12s %s\n' "$$target" "$$what"; done

run: $(VENV)/.core  ## let a tree of agents review the Python code in the folder DIR=...
	@$(BIN)/parallel-agent run examples/code_health/tree.py --artifacts artifacts "$(DIR)"

test: check suite  ## check, then the test suite

# Last, so that pytest's closing line is the last thing printed.
suite: $(VENV)/.dev
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

check: $(VENV)/.dev  ## format, lint, types, floors, spelling
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m codespell_lib

bench: $(VENV)/.dev  ## measure; BENCH_ARGS=... are passed on
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

deep: $(VENV)/.deep  ## thousands of examples, the slow tests, and every other supported Python found
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest -m 'deep or not deep' --timeout=3600 $(PYTEST_ARGS)
	@mine=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in 3.11 3.12 3.13; do \
		[ "$$version" != "$$mine" ] || continue; \
		python=$$($(call find_python,$$version)); \
		[ -n "$$python" ] || { echo "Python $$version: not found, skipped"; continue; }; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory suite VENV=.venv-$$version PYTHON="$$python" || exit 1; \
	done

docs: $(VENV)/.dev  ## run the examples in the docs, show the next changelog section
	@if [ -f tests/test_docs.py ]; then $(BIN)/python -m pytest tests/test_docs.py; fi
	$(BIN)/python -m towncrier build --draft

postgres:  ## install PostgreSQL from Debian, for the tests that need a server (they start it)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql; }

llamacpp: $(LLAMACPP)  ## install llama.cpp's server from PyPI, for the tests that need a real one (they start it)

clean:  ## remove everything that these targets made
	rm -rf .venv .venv-* artifacts build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Prints a path or nothing. pyenv keeps versions that are not on the PATH; ask it, too.
find_python = { python$(1) -c 'import sys; print(sys.executable)' \
	|| PYENV_VERSION=$$(pyenv whence python$(1) | tail -n 1) \
	python$(1) -c 'import sys; print(sys.executable)'; } 2>/dev/null

# Empty files in the environment remember what was installed into it. One environment for all:
# `run` asks for the core and the command line alone, which is quick; `test` adds the tools.
INSTALL = $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable

$(VENV)/.core: pyproject.toml $(VENV)/pyvenv.cfg
	@echo "Installing parallel-agent into $(VENV) ..."
	@$(INSTALL) '.[cli]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/pyvenv.cfg
	@echo "Installing parallel-agent and the development tools into $(VENV) (the first time takes a minute) ..."
	@$(INSTALL) '.[dev]'
	@touch $(VENV)/.core $@

$(VENV)/.deep: $(VENV)/.dev
	@echo "Installing the peers to compare with into $(VENV) ..."
	@$(INSTALL) '.[dev,deep]'
	@touch $@

# In an environment of its own: it is a server to our tests, and no library. Built, or not at all:
# compiling it here would take longer than all the tests.
$(LLAMACPP): | $(VENV)/pyvenv.cfg
	@echo "Installing llama.cpp into $(@D) ..."
	@$(BIN)/python -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--only-binary :all: xllamacpp==$(LLAMACPP_VERSION)
	@$(@D)/bin/python -c 'import xllamacpp'
	@touch $@

$(VENV)/pyvenv.cfg:
	@[ -n "$(PYTHON)" ] || { echo "No Python from 3.11 on was found. Install one, or: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is no Python from 3.11 on." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: its venv or ensurepip module is missing. On Debian and Ubuntu it is in the python3-venv package." >&2; exit 1; }
	@echo "Creating $(VENV) with $(PYTHON) ..."
	@"$(PYTHON)" -m venv --clear $(VENV)
