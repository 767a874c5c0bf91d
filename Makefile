# `make train` and `make test` do all set-up on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable
ARGS ?=

# The accelerator to install for: cuda, tpu or none; by default the one that this machine has.
ifndef ACCELERATOR
ACCELERATOR := $(shell $(PYTHON) experiments/devices/accelerator.py)
endif
ifneq ($(words $(filter cuda tpu none,$(ACCELERATOR))) $(words $(ACCELERATOR)),1 1)
$(error ACCELERATOR must be cuda, tpu or none; got '$(ACCELERATOR)')
endif
ifneq ($(ACCELERATOR),none)
EXTRA := ,$(ACCELERATOR)
ON_IT := JAX_PLATFORMS=$(ACCELERATOR)
PRESET := --preset=paper
endif


.PHONY: train test test-all format check check-accelerators gpu-report docs notebooks release-check clean

# Another accelerator starts afresh, because JAX looks for the devices of every compiler that is installed. So
# does another Python.
MADE := .venv/.for-$(ACCELERATOR)-$(notdir $(PYTHON))
$(MADE):
	if ls .venv/.for-* >/dev/null 2>&1; then $(PYTHON) -m venv --clear .venv; \
	elif test ! -x $(BIN)/python; then $(PYTHON) -m venv .venv; fi
	touch $@

.venv/.train: pyproject.toml $(MADE)
	$(PIP) '.[train$(EXTRA)]'
	touch $@

.venv/.test: pyproject.toml $(MADE)
	$(PIP) '.[test$(EXTRA)]'
	touch $@ .venv/.train

.venv/.docs: pyproject.toml $(MADE)
	$(PIP) '.[docs]'
	touch $@

.venv/.release: pyproject.toml $(MADE)
	$(PIP) '.[release$(EXTRA)]'
	touch $@ .venv/.test .venv/.train

# Apart from .venv, for the same reason.
.venv-aot/.done: pyproject.toml
	test -x .venv-aot/bin/python || $(PYTHON) -m venv .venv-aot
	.venv-aot/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,aot-cuda,tpu]'
	touch $@

train: .venv/.train  ## The main job: S5 on Path-X, on images that the program draws itself.
	$(ON_IT) $(BIN)/python -m experiments.train --task=pathx $(PRESET) $(ARGS)

check: .venv/.test  ## Format, lint, types and spelling.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check
	$(BIN)/codespell

test: check docs  ## Checks, the documentation, doctests and the fast tier of tests.
	$(BIN)/python -m pytest -n auto --dist worksteal --doctest-modules s5jax experiments tests -m "not slow and not gpu" $(ARGS)

test-all: check  ## Everything that this machine can run.
	$(BIN)/python -m pytest -n auto --dist worksteal --doctest-modules s5jax experiments tests -m "not gpu" $(ARGS)

check-accelerators: .venv-aot/.done  ## Compiles for a GPU and a TPU that are not here; takes half an hour.
	JAX_PLATFORMS=cpu .venv-aot/bin/python -m experiments.bench --suite=compile $(ARGS)

gpu-report: .venv/.test  ## Measures times, memory and values on a GPU; takes ten minutes.
	$(BIN)/python -m experiments.bench --suite=gpu --json=results/bench/gpu.json $(ARGS)

format: .venv/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.docs  ## Builds docs/_build/html; a broken link or reference is an error.
	$(BIN)/python -m sphinx -E -n -q -W --keep-going docs docs/_build/html

release-check: .venv/.release  ## Builds dist/, checks its metadata, and tests a wheel in new environments.
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m pytest tests/test_wheel.py $(ARGS)

notebooks: .venv/.test  ## Runs the scripts in notebooks/ and writes their twins, with figures.
	$(BIN)/jupytext --to ipynb --execute notebooks/*.py

clean:
	rm -rf .venv .venv-aot
