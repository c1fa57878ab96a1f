# Everything runs from .venv, which each target builds or brings up to date by itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   ?= build/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint lock weights parser clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# uv installs the locked versions in seconds; --compile-bytecode because this may be run where Python is told to write
# no .pyc files, and then every import of torch would compile it again (1.9 s -> 3.9 s).
$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	UV_NO_CONFIG=1 $(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --quiet -r requirements.lock
	UV_NO_CONFIG=1 $(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps -e .
	@touch $@

demo: $(READY) ## Draw a world, make its data set, pre-train on it, measure: build/demo
	$(BIN)/mvptr-data demo $(DEMO)

# A file's tests stay together, because they share what they have set up; each process computes with one thread.
test: $(READY) ## Run the test suite, on up to 4 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: $(READY) ## Run what the quick suite leaves out
	$(BIN)/python -m pytest -m slow

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(READY) ## Resolve requirements.lock again
	@{ echo "# Exact versions of every package the project is developed and tested with. Made by: make lock"; \
	  UV_NO_CONFIG=1 $(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-emit-index-url --no-annotate --no-header -c requirements.lock; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## Remove what was built, the environment included
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
