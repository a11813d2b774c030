# make demo | make test on a fresh machine; the rest is for daily work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGING := pyproject.toml setup.py $(wildcard src/crnn/native/*.[ch])
# threads that spin while they wait slow each other down on a busy machine
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-all install lint format bench clean

demo: $(VENV)/.demo  ## Train on the bundled recordings and write a report.
	$(BIN)/crnn train examples/digits --out runs/digits --overwrite

test: $(VENV)/.test lint  ## Everything that runs in minutes.
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.test lint
	$(BIN)/python -m pytest

install: $(VENV)/.all  ## Every extra, nothing else.

lint: $(VENV)/.test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: $(VENV)/.bench  ## Hours: every number that the docs quote.
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[audio]"
	touch $@

$(VENV)/.all: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	touch $@

$(VENV)/.test: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[all,test]"
	touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .mypy_cache
