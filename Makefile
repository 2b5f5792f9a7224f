# Fledge: what a checkout can do. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test check format readers clean .venv

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
BIN := .venv/bin

help:  ## list what there is
	@awk -F ':.*## ' '/^[.a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: .venv  ## set up, fine-tune the built-in base on bundled data, show before and after
	@$(BIN)/fledge train recipes/quickstart.yaml
	@$(BIN)/fledge evaluate runs/quickstart --max-rows 8

test: .venv  ## set up if need be and run every test
	@GOMP_SPINCOUNT=1000 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

check: .venv  ## format, lint, strict types, house tests
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/pytest tests/house

format: .venv  ## put the code into shape
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

readers: .venv  ## environments with other versions, which read exports too; READERS="NAME ..." for some
	@$(BIN)/python bench/readers_setup.py $(if $(READERS),--only $(READERS))

clean:  ## remove the environment and every cache of the tools
	@rm -rf .venv .readers .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv: .venv/.complete  ## the set-up alone

# The mark is made last, so that a set-up that was cut short is taken up again.
.venv/.complete: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Fledge needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
		echo "Fledge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo none)" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { \
		echo "Python's venv module is missing or broken (on Debian: apt install python3-venv)" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
