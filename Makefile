# A newcomer needs two commands: make demo, make test.
PYTHON ?=
BIN := .venv/bin
# What runs on Spark; the other tests do not know it.
# Java writes no archive of the classes of Spark 4, which starts without one.
SPARK_TESTS := tests/chain/test_run.py tests/chain/test_incremental.py $(filter-out %/test_archive.py,$(wildcard tests/spark/test_*.py))
# Certificates are those that the machine trusts, as elsewhere.
WITH_NODE := NODE_USE_SYSTEM_CA=1 PATH="$(CURDIR)/$(BIN):$$PATH"
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LOCKS := src/verger/cloud/jobs/locks
CLUSTER_PYTHON := 3.11
COMPILE := $(BIN)/uv pip compile --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet
CLUSTER := $(COMPILE) $(LOCKS)/cluster.in --constraint .venv/pins --python-version $(CLUSTER_PYTHON)

# What `make bench` measures, for instance: BENCH="FOLDER --images 400 --wide 4000 --json FILE".
BENCH ?= demo/images --images 300 --rounds 1
BENCHED := ray daft

.PHONY: demo test test-fast test-docs test-slow test-bench test-speed test-spark4 lint format docs slides lock bench clean

demo: .venv/runs
	$(BIN)/verger demo demo

# Processes of tests, side by side, would wait for one another's threads: it takes twice as long.
test test-fast test-slow test-bench test-spark4: export OPENBLAS_NUM_THREADS := 1

test: .venv/installed .cache/browser/ready
	$(BIN)/python -m pytest --numprocesses 3 --dist worksteal

test-fast: .venv/installed
	$(BIN)/python -m pytest -m fast --numprocesses 2 --dist worksteal

test-docs: .venv/installed .cache/browser/ready
	$(BIN)/python -m pytest -m docs --numprocesses 2

# Those of Connect are run by test-spark4.
test-slow: .venv/installed .cache/browser/ready
	$(BIN)/python -m pytest -m slow -vv --timeout 1200 --numprocesses 3 --dist loadfile --ignore tests/spark/test_connect.py

test-bench: .venv/installed .cache/browser/ready
	$(BIN)/python -m pytest -m bench -vv --timeout 1200 --numprocesses 2 --dist worksteal

test-speed: .venv/installed
	$(BIN)/python -m pytest -m speed -vv

# Spark 4.3 wants Python 3.11 or newer.
test-spark4: .venv/installed-spark4
	PYTHONPATH=.venv/spark4 $(BIN)/python -m pytest -m "not speed" --numprocesses 2 --dist loadfile $(SPARK_TESTS)

.venv/installed-spark4: .venv/installed requirements-spark4.lock
	tools/install.sh requirements-spark4.lock --upgrade --target .venv/spark4
	touch $@

# Each of verger's peers has an environment of its own.
bench: $(BENCHED:%=.cache/bench/%/installed)
	$(BIN)/python benchmarks/bench.py $(BENCH)

.cache/bench/%/installed: benchmarks/peers/%.lock .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	touch $@

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks:tests $(BIN)/mypy --follow-imports silent benchmarks/*.py
	$(BIN)/lint-imports --no-cache

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Marp is a program for Node, which pip installs; it prints through the browser of the tests.
slides: .venv/installed .cache/browser/ready
	$(WITH_NODE) npm ci --prefix presentation --no-audit --no-fund
	$(BIN)/python presentation/figures.py
	$(BIN)/python presentation/slides.py

# The locks are complete, so nothing is resolved, and every file's hash is checked.
.venv/runs: requirements.lock pyproject.toml
	PYTHON="$(PYTHON)" tools/make_venv.sh
	tools/install.sh requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

# What develops it is more than what runs it: TensorFlow, servers, linters.
.venv/installed: .venv/runs requirements-dev.lock
	tools/install.sh requirements-dev.lock
	touch $@

# The machine's browser, else Playwright's, else one from npm.
.cache/browser/ready: .venv/installed presentation/browser.py presentation/chromium/package-lock.json
	mkdir -p $(@D)
	$(BIN)/python presentation/browser.py
	touch $@

# One lock for every Python from 3.10 on, with markers. What a cluster gets follows its versions.
# Only up to 2025.2 do OpenVINO's wheels for arm64 ask for no newer glibc than EMR has; and that one
# wants numpy 2.2. Spark 3.5 is what EMR 7 runs; of 3.5.8 all jars for S3 are on Maven Central.
lock: .venv/installed
	echo 'pyspark==3.5.8' > .venv/constraints
	$(COMPILE) pyproject.toml --group dev --extra connect --extra tensorflow --universal --python-version 3.10 --constraint .venv/constraints --output-file requirements-dev.lock
	$(COMPILE) pyproject.toml --group build --universal --python-version 3.10 --constraint requirements-dev.lock --output-file requirements.lock
	$(BIN)/uv pip compile requirements-dev.lock --no-deps --python-version $(CLUSTER_PYTHON) --no-header --no-annotate --quiet --output-file .venv/pins
	$(CLUSTER) --python-platform x86_64-manylinux_2_34 --output-file $(LOCKS)/x86_64.lock
	sed -i 's/^numpy==.*/numpy==2.2.6/; s/^openvino==.*/openvino==2025.2.0/' .venv/pins
	$(CLUSTER) --python-platform aarch64-manylinux_2_34 --output-file $(LOCKS)/arm64.lock
	grep -E '^(openvino|pillow|numpy)==' requirements-dev.lock | tr -d '\\' >.venv/peers
	for peer in $(BENCHED); do $(COMPILE) benchmarks/peers/$$peer.in --universal --python-version 3.10 --constraint .venv/peers --output-file benchmarks/peers/$$peer.lock || exit 1; done

clean:
	rm -rf .venv .cache demo build presentation/build presentation/node_modules
