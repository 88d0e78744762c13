# `make demo` and `make test` set everything up by themselves; they need Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow lint types check clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)  ## the whole chain on phantom images with the embedded base; no network, no GPU
	$(BIN)/python tools/demo.py --out demo

test: $(STAMP)  ## the default tests: offline, CPU
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(STAMP)  ## the tests that need minutes or much memory
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMP)
	$(BIN)/python -m mypy

check: lint types test

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache
