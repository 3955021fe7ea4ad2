# A newcomer needs two commands: make demo, make test.
PYTHON ?= python3.11
BIN := .venv/bin
JAVA_17 ?= $(firstword $(wildcard /usr/lib/jvm/java-17-openjdk-*))
# What runs on Spark; the other tests do not know it.
SPARK_TESTS := tests/test_run.py tests/test_pca.py tests/test_incremental.py
LOCKS := src/verger/cloud/locks
COMPILE := $(BIN)/uv pip compile $(LOCKS)/cluster.in --constraint .venv/pins --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

.PHONY: demo test test-slow test-spark4 lint format docs slides lock clean

demo: .venv/installed
	$(BIN)/verger demo demo

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow -vv --timeout 1200 --numprocesses 3 --dist loadfile

# Spark 4 needs a Java 17 of the machine's: the one that comes with verger lacks a module of it.
test-spark4: .venv/installed-spark4
	PYTHONPATH=.venv/spark4 JAVA_HOME=$(JAVA_17) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(SPARK_TESTS)

.venv/installed-spark4: .venv/installed requirements-spark4.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target .venv/spark4 -r requirements-spark4.lock
	touch $@

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

# What a cluster gets follows the versions used here. Only up to 2025.2 do OpenVINO's wheels for arm64
# ask for no newer glibc than EMR has; and that one wants numpy 2.2.
# Spark 3.5 is what EMR 7 runs; of 3.5.8 all jars for S3 are on Maven Central.
lock: .venv/installed
	echo 'pyspark==3.5.8' | $(BIN)/uv pip compile pyproject.toml --group dev --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --constraint - --output-file requirements.lock --quiet
	sed -n 's/^\([a-z].*==[^ ;]*\).*/\1/p' requirements.lock > .venv/pins
	$(COMPILE) --python-platform x86_64-manylinux_2_34 --output-file $(LOCKS)/x86_64.lock
	sed -i 's/^numpy==.*/numpy==2.2.6/; s/^openvino==.*/openvino==2025.2.0/' .venv/pins
	$(COMPILE) --python-platform aarch64-manylinux_2_34 --output-file $(LOCKS)/arm64.lock

clean:
	rm -rf .venv demo build presentation/build presentation/node_modules
