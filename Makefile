# Two commands on a fresh clone: `make demo` and `make test`. Each does all of its own set-up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test test-all mutate lint clean

# torch comes first and alone: then nothing that follows can ask for another build of it
$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@

demo: $(VENV)/.base
	$(BIN)/manymask segment src/manymask/serving/static/examples --model models/isic2018 --out demo/isic2018
	$(BIN)/manymask demo --out demo

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m ''

# about an hour on one core; a stopped run goes on
mutate: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutate.py --out build/mutation.jsonl --report docs/results/mutation.md

clean:
	rm -rf $(VENV) demo build dist src/*.egg-info
