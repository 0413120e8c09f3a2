# `make help` lists the targets. Each one sets up what it needs: .venv is built once, from the exact pins in
# requirements.lock, and again only when the pins, pyproject.toml or PYTHON change.

EXPERIMENT ?= quick
SCALE ?= cpu
# The studies of `make studies`, in an order in which those that read the records of others come behind them. Left out are
# those that take long by themselves: tricks, 15 minutes (make study NAME=tricks), and tuning_path, 50 minutes (make search).
LONG := tricks tuning_path
STUDIES ?= $(filter-out base regimes $(LONG),$(notdir $(basename $(sort $(wildcard conf/study/*.yaml))))) regimes
ARGS ?=
COUNT ?= 10000
PORT ?= 6006

# Without PYTHON=… an environment that stands keeps the interpreter that built it.
ifdef PYTHON
STAMP := .venv/.installed-$(subst /,_,$(PYTHON))
else
STAMP := $(firstword $(wildcard .venv/.installed-*) .venv/.installed-python3)
PYTHON := $(shell cat $(STAMP) 2>/dev/null || echo python3)
endif
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup train study studies search report benchmark test test-all fuzz audit lint format tensorboard lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables: EXPERIMENT=quick  ARGS="trainer.max_epochs=1 seed=3"  PYTHON=python3.12  PORT=6006  COUNT=10000  NAME=lr_range_test  SCALE=cpu'

setup: $(STAMP) ## build .venv from requirements.lock (the other targets do it by themselves)

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "onecycle: '$(PYTHON)' was not found. Install Python 3.11, 3.12 or 3.13, or name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "onecycle needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@echo "onecycle: building .venv (once; downloads about 3 GB on Linux)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo $(PYTHON) > $@

# Only here may a CIFAR that cannot be had be replaced by drawn images: a first try should run, anything else should stop.
train: $(STAMP) ## train: EXPERIMENT (quick) with the overrides in ARGS
	@$(BIN)/onecycle-train experiment=$(EXPERIMENT) data.fallback=synthetic $(ARGS)

study: $(STAMP) ## run the study NAME at SCALE (cpu, gpu, tiny), or go on with it, and draw its page
	@test -n "$(NAME)" || { echo "make study needs NAME=…, one of: $(STUDIES) $(LONG)"; exit 2; }
	@$(BIN)/onecycle-train study=$(NAME) study.scale=$(SCALE) $(ARGS)

studies: $(STAMP) ## run every study at SCALE but the long ones, tricks (make study NAME=tricks) and tuning_path (make search)
	@failed=; for name in $(STUDIES); do echo "== $$name"; $(BIN)/onecycle-train study=$$name study.scale=$(SCALE) $(ARGS) || failed="$$failed $$name"; done; \
		test -z "$$failed" || { echo "not complete:$$failed"; exit 1; }

search: $(STAMP) ## the study tuning_path: searches along the flat directions, beside random search and a grid
	@$(BIN)/onecycle-train study=tuning_path study.scale=$(SCALE) $(ARGS)

report: $(STAMP) ## draw the pages of all studies again from their records, without training
	@$(BIN)/python -m onecycle.studies.report

benchmark: $(STAMP) ## loader, step and start-up beside baselines: ARGS=--quick takes a minute or two
	@$(BIN)/python -m onecycle.benchmark $(ARGS)

test: $(STAMP) ## the fast tests (minutes)
	@$(BIN)/python -m pytest $(ARGS)

test-all: $(STAMP) ## every test, the slow ones too
	@$(BIN)/python -m pytest -m '' $(ARGS)

fuzz: $(STAMP) ## COUNT (10000) mutated inputs of each kind of file: record, config, image, checkpoint
	@$(BIN)/python tests/runs/test_fuzz.py --count $(COUNT) $(ARGS)

audit: $(STAMP) ## known vulnerabilities of the locked versions, and a software bill of materials in logs/audit
	@$(BIN)/python -m onecycle.audit $(ARGS)

lint: $(STAMP) ## ruff (lint, format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

tensorboard: $(STAMP) ## show every run in TensorBoard on PORT (6006)
	@$(BIN)/tensorboard --logdir logs --port $(PORT)

lock: $(STAMP) ## resolve pyproject.toml into requirements.lock anew (needs uv)
	@uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra dev pyproject.toml --output-file requirements.lock

clean: ## remove .venv and the caches of tools; logs/ and data/ stay
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
