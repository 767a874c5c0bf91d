# `make train` and `make test` do all set-up on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: train test test-all format check check-accelerators notebooks clean

.venv/.train: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train]'
	touch $@

.venv/.test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ .venv/.train

# Apart from .venv, because JAX looks for the devices of every compiler that is installed.
.venv-aot/.done: pyproject.toml
	test -x .venv-aot/bin/python || $(PYTHON) -m venv .venv-aot
	.venv-aot/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,aot-cuda,aot-tpu]'
	touch $@

train: .venv/.train  ## The main job: S5 on Path-X, on images that the program draws itself.
	$(BIN)/python -m experiments.train --task=pathx $(ARGS)

check: .venv/.test  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check

test: check  ## Checks, doctests and the fast tier of tests.
	$(BIN)/python -m pytest -n auto --dist worksteal --doctest-modules s5jax experiments tests -m "not slow and not gpu" $(ARGS)

test-all: check  ## Everything that this machine can run.
	$(BIN)/python -m pytest -n auto --dist worksteal --doctest-modules s5jax experiments tests -m "not gpu" $(ARGS)

check-accelerators: .venv-aot/.done  ## Compiles for a GPU and a TPU that are not here; takes half an hour.
	JAX_PLATFORMS=cpu .venv-aot/bin/python -m experiments.bench --suite=compile $(ARGS)

format: .venv/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: .venv/.test  ## Runs the scripts in notebooks/ and writes their twins, with figures.
	$(BIN)/jupytext --to ipynb --execute notebooks/*.py

clean:
	rm -rf .venv .venv-aot
