# `make demo` and `make test` need nothing but Python and make: each does all of its own set-up in .venv.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN      := $(VENV)/bin
PIP      := $(BIN)/python -m pip install -q -c constraints.txt
PYTEST   := $(BIN)/python -m pytest
FAST     := not slow and not browser and not archive and not npm
# percent of src/manymask that `make coverage` requires; raise it when coverage rises, never lower it
COVERAGE := 90
# where pydoclint compares docstrings with signatures; ruff checks that there are docstrings (`pyproject.toml`)
DOCUMENTED := $(wildcard $(addprefix src/manymask/,nn models diffusion inference evaluation ensemble.py metrics.py \
              data/augment.py data/dihedral.py data/preparation.py data/raters.py data/resize.py data/store.py))

.DEFAULT_GOAL := help
.PHONY: help bench demo lint format unit test test-all coverage docs build smoke mutate clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  Options of pytest go in ARGS:  make unit ARGS="tests/nn -x"'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: then nothing that follows can ask for another build of it
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e '.[train,report]'
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) -e '.[test]'
	@touch $@

# an S3 server for tests/inference/test_buckets.py: its packages do not fit to those of the extras
$(VENV)/s3/bin/moto_server: | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/s3
	$(VENV)/s3/bin/python -m pip install -q 'moto[server,s3]==5.2.5'

$(VENV)/.docs: $(VENV)/.base
	$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.build: constraints.txt | $(BIN)/python
	$(PIP) build
	@touch $@

demo: $(VENV)/.base  ## segment the example images, then train and score on phantoms (minutes on a CPU)
	$(BIN)/manymask segment src/manymask/serving/static/examples --model isic2018 --out demo/isic2018
	$(BIN)/manymask demo --out demo

lint: $(VENV)/.test  ## ruff, mypy, the layers of the packages, and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pydoclint -q $(DOCUMENTED)

format: $(VENV)/.test  ## reformat, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(VENV)/.test  ## the fast tests: no browser, no archive, no npm, no lint
	$(PYTEST) -m '$(FAST)' $(ARGS)

# signals act on the whole process, so their tests have one of their own, without what all others have loaded
test: lint $(VENV)/s3/bin/moto_server  ## lint, then all tests except the slow ones
	$(PYTEST) --ignore=tests/test_signals.py --ignore=tests/training $(ARGS)
	$(PYTEST) tests/test_signals.py tests/training $(ARGS)

test-all: lint $(VENV)/s3/bin/moto_server  ## lint, then all tests, slow ones included
	$(PYTEST) -m '' $(ARGS)

coverage: $(VENV)/.test $(VENV)/s3/bin/moto_server  ## tests with coverage, which must not fall below the floor
	$(PYTEST) --cov=manymask --cov-report=term:skip-covered --cov-report=html:build/coverage --cov-fail-under=$(COVERAGE) $(ARGS)

docs: $(VENV)/.docs  ## the documentation site in build/site; warnings are errors
	$(BIN)/mkdocs build --strict --site-dir build/site

build: $(VENV)/.build  ## source distribution and wheel in dist, and the wheel of the models
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m build --wheel --outdir dist models

smoke:  ## run the wheel of `make build` in an environment without the checkout
	rm -rf build/smoke
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/python -m pip install -q -c constraints.txt dist/manymask-*.whl dist/manymask_models-*.whl
	cd build/smoke && bin/python -c 'import manymask; print(manymask.__version__, manymask.__file__)' && bin/manymask models
	cd build/smoke && bin/manymask segment "$(CURDIR)/src/manymask/serving/static/examples" -m isic2018 -n 2 -o out

bench: $(VENV)/.test  ## five masks beside other methods: time and memory, compared with the last run (an hour; ARGS=--quick)
	$(BIN)/python benchmarks/peers.py $(ARGS)

mutate: $(VENV)/.test  ## mutation tests: about an hour on one core; a stopped run goes on
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutate.py --out build/mutation.jsonl --report docs/results/mutation.md

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) demo build dist .coverage src/*.egg-info models/build models/*.egg-info
