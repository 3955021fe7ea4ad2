# A newcomer needs two commands: make demo, make test.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test test-slow lint format docs slides lock clean

demo: .venv/installed
	$(BIN)/verger demo demo

test: .venv/installed
	$(BIN)/python -m pytest

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Marp is a program for Node, which pip installs; it prints through a Chromium that is there.
slides: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --prefix presentation --no-audit --no-fund
	$(BIN)/python presentation/figures.py
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python presentation/slides.py

# The lock is complete, so nothing is resolved, and every file's hash is checked.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Spark 3.5 is what EMR 7 runs; of 3.5.8 all jars for S3 are on Maven Central.
lock: .venv/installed
	echo 'pyspark==3.5.8' | $(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --constraint - --output-file requirements.lock --quiet

clean:
	rm -rf .venv demo build presentation/build presentation/node_modules
