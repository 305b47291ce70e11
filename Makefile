# Every path here is relative and every command quoted, so that a checkout in a directory with spaces works.
# What a target needs is set up first; that takes no time when it is there already.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup demo test check crash bench peers-openstack test-versions lock wheel clean

# Which Python: make setup PYTHON=/path/to/python3.12 (default: the first good one on PATH).
export PYTHON
python = python=$$(sh tools/find-python) && PYTHONPATH= exec "$$python"
setup_run = @$(python) -m tools.setup run
setup_test = @$(python) -m tools.setup test

help: ## list the targets
	@echo 'Leeway: make TARGET [PYTHON=/path/to/python3.12]'
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name what; do printf '  %-16s %s\n' "$$name" "$$what"; done

setup: ## install what running and testing need, into .venv
	$(setup_test)

demo: ## two sandbox clouds, one workload, from quote to charge; Ctrl-C stops everything
	$(setup_run)
	@.venv/bin/leeway demo $(ARGS)

test: ## all tests that need no system packages (ARGS=... goes to pytest)
	$(setup_test)
	@.venv/bin/python -m pytest -n 2 $(ARGS)

check: ## the gates: format, lint, types, layers, dependencies, migrations
	$(setup_test)
	@.venv/bin/python -m tools.check

crash: ## workers killed and frozen at every step, and counted from the clouds' logs what came of it (ARGS=--long)
	$(setup_test)
	@.venv/bin/python -m tests.faults $(ARGS)

bench: ## figures, one JSON line each
	$(setup_test)
	@.venv/bin/python -m tests.bench $(ARGS)

peers-openstack: ## a real OpenStack from Debian packages, as root, and the tests against it
	$(setup_test)
	@sh tools/with-peer tests/peers/openstack $(ARGS)

test-versions: ## the unit tests on every Python that is found: 3.11, 3.12, 3.13
	@PYTHONS="$(PYTHONS)" sh tools/test-versions $(ARGS)

lock: ## write requirements/*.txt anew from pyproject.toml (UPGRADE=1: newest versions)
	@sh tools/lock

wheel: ## build dist/*.whl and try it in an environment of its own
	$(setup_test)
	@.venv/bin/python -m tools.check_wheel

clean: ## remove what set-up and tests made; keeps data (.leeway)
	@rm -rf .venv .venv-* dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
