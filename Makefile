# The two commands: make demo, make test. Everything is made inside this folder; `make clean` removes it again.
SHELL := /bin/sh
ROOT  := $(CURDIR)
VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready

# Nothing is written outside this folder: caches, temporary files and tools' home folders all lie in .cache.
export TMPDIR := $(ROOT)/.cache/tmp
export XDG_CACHE_HOME := $(ROOT)/.cache/xdg
export MPLCONFIGDIR := $(ROOT)/.cache/matplotlib
export IPYTHONDIR := $(ROOT)/.cache/ipython
export JUPYTER_CONFIG_DIR := $(ROOT)/.cache/jupyter
export JUPYTER_DATA_DIR := $(ROOT)/.cache/jupyter
export JUPYTER_RUNTIME_DIR := $(ROOT)/.cache/jupyter
export PYTHONPYCACHEPREFIX := $(ROOT)/.cache/pycache
# pip asks rustc for its version, where there is one, and rustup answers by writing into its home folder.
export RUSTUP_HOME := $(ROOT)/.cache/rustup
export HYPOTHESIS_STORAGE_DIRECTORY := $(ROOT)/.cache/hypothesis
export SPARK_SUBMIT_OPTS := -Djava.io.tmpdir=$(TMPDIR) -XX:-UsePerfData
export SPARK_LAUNCHER_OPTS := -XX:-UsePerfData

# Two or more processes, each with a Spark of its own: one alone leaves a third of two cores idle.
PYTEST := $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: help setup demo test test-fast chaos fuzz bench lint docs lock clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

setup: $(READY) ## .venv and jars, once

$(READY): requirements.lock requirements.build.lock setup.cfg pyproject.toml conf/jars.yaml conf/ivysettings.xml tools/find-python.sh
	@mkdir -p $(TMPDIR)
	@if [ ! -x $(PY) ]; then python=$$(sh tools/find-python.sh) && echo "setup: .venv with $$python" && "$$python" -m venv $(VENV); fi
	@echo "setup: packages of requirements.lock (about 400 MB the first time)"
	@# pyspark comes as source: it is built with the pinned setuptools, not with whatever an isolated build would download.
	@$(PY) -m pip install --quiet --no-cache-dir --no-deps --require-hashes --requirement requirements.build.lock
	@$(PY) -m pip install --quiet --no-cache-dir --no-deps --require-hashes --no-build-isolation --requirement requirements.lock
	@$(PY) -m pip install --quiet --no-cache-dir --no-deps --no-build-isolation --no-index --editable .
	@echo "setup: jars of conf/jars.yaml"
	@$(PY) -m pictures_spark.jars .cache
	@touch $@

demo: $(READY) ## from a synthetic archive to a delivered cohort
	@$(PY) -m pictures_spark.cli demo --conf-file conf/local.yaml

test: $(READY) lint ## ruff, mypy and the tests
	@$(PYTEST) --durations 15

test-fast: $(READY) ## the tests that need no Spark
	@$(PYTEST) -m "not spark"

chaos: $(READY) ## stop jobs at every boundary and finish them; every job by spark-submit; all hostile input
	@PICTURES_CHAOS=1 $(PYTEST) -m chaos

fuzz: $(READY) ## 200,000 mutated headers; PICTURES_FUZZ and PICTURES_FUZZ_SEED are their number and seed
	@PICTURES_FUZZ=$${PICTURES_FUZZ:-200000} $(PY) -m pytest -q -s tests/dicom/test_fuzz.py

bench: $(READY) ## ours against its peers, on an otherwise idle machine (10 GB below .cache)
	@$(PY) benchmarks/all.py

lint: $(READY) ## ruff and mypy
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

docs: $(READY) ## the generated pages of docs/
	@$(PY) -m pictures_spark.cli docs

lock: $(READY) ## pin every package again, with hashes (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	  --override requirements.override.txt --extra dev setup.cfg --output-file requirements.lock
	@grep -o '^setuptools==[^ ]*' requirements.lock | uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" - --output-file requirements.build.lock

clean: ## remove everything that was made
	@rm -rf .venv .cache .hypothesis data build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
