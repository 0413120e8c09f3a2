# `make help` lists the targets. Each target first builds .venv from the exact versions in requirements.lock, if it does not
# exist or if requirements.lock, pyproject.toml or PYTHON has changed.

EXPERIMENT ?= quick
SCALE ?= cpu
# The studies of `make studies`, in order: `regimes` reads the records of others and comes after them. The long ones are left
# out: tricks (make study NAME=tricks) and tuning_path (make search).
LONG := tricks tuning_path
STUDIES ?= $(filter-out base regimes $(LONG),$(notdir $(basename $(sort $(wildcard conf/study/*.yaml))))) regimes
ARGS ?=
PORT ?= 6006
LOGDIR ?= logs

# Without PYTHON=… an existing environment keeps the interpreter that built it.
ifdef PYTHON
STAMP := .venv/.installed-$(subst /,_,$(PYTHON))
else
STAMP := $(firstword $(wildcard .venv/.installed-*) .venv/.installed-python3)
PYTHON := $(shell cat $(STAMP) 2>/dev/null || echo python3)
endif
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
EXACTLY := --no-deps --require-hashes --requirement requirements.lock
# --strict: a version that the service does not know is an error. Without it pip-audit skips it and reports success.
AUDIT := $(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

.DEFAULT_GOAL := help
.PHONY: help setup train study plan studies search report runs docs bundle benchmark test test-all accept audit schema lint format tensorboard new lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables: EXPERIMENT=quick  ARGS="trainer.max_epochs=1 seed=3"  PYTHON=python3.12  PORT=6006  NAME=lr_range_test  SCALE=cpu'

setup: $(STAMP) ## build .venv from requirements.lock (the other targets do this themselves)

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "onecycle: '$(PYTHON)' was not found. Install Python 3.11, 3.12 or 3.13, or name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "onecycle needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@test ! -L .venv || { echo "onecycle: .venv is a link; building would empty the environment that it leads to. Remove the link or update that environment."; exit 2; }
	@echo "onecycle: building .venv (once; downloads about 3 GB on Linux)"
	@$(PYTHON) -m venv --clear .venv
	@awk '/^[^ ]/ { own = /^uv==/ } own' requirements.lock > .venv/uv.lock
	@$(PIP) --require-hashes --requirement .venv/uv.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode $(EXACTLY) \
		|| { echo "onecycle: uv does not read the configuration of pip; trying pip, which takes longer"; $(PIP) $(EXACTLY); }
	@$(PIP) --no-build-isolation --editable .
	@echo $(PYTHON) > $@

# Only this target replaces a CIFAR that is missing and cannot be downloaded by drawn images, so that a first try runs anywhere.
train: $(STAMP) ## train EXPERIMENT (quick) with the overrides in ARGS
	@$(BIN)/onecycle-train experiment=$(EXPERIMENT) data.fallback=synthetic $(ARGS)

study: $(STAMP) ## run or continue the study NAME at SCALE (cpu, gpu, tiny) and draw its page
	@test -n "$(NAME)" || { echo "make study needs NAME=…, one of: $(STUDIES) $(LONG)"; exit 2; }
	@$(BIN)/onecycle-train study=$(NAME) study.scale=$(SCALE) $(ARGS)

plan: $(STAMP) ## print runs, minutes and expected half widths of the study NAME at SCALE, without running it
	@test -n "$(NAME)" || { echo "make plan needs NAME=…, one of: $(STUDIES) $(LONG)"; exit 2; }
	@$(BIN)/onecycle-train study=$(NAME) study.scale=$(SCALE) study.plan=true $(ARGS)

studies: $(STAMP) ## run all studies at SCALE except the long ones: tricks and tuning_path
	@failed=; for name in $(STUDIES); do echo "== $$name"; $(BIN)/onecycle-train study=$$name study.scale=$(SCALE) $(ARGS) || failed="$$failed $$name"; done; \
		test -z "$$failed" || { echo "not complete:$$failed"; exit 1; }

search: $(STAMP) ## run the study tuning_path: coordinate searches compared with Optuna and a grid, from five starts
	@$(BIN)/onecycle-train study=tuning_path study.scale=$(SCALE) $(ARGS)

report: $(STAMP) ## draw the pages of all studies from their records, without training
	@$(BIN)/python -m onecycle.studies.report

docs: $(STAMP) ## write the tables and figures of docs/studies.md from the records
	@$(BIN)/python -m onecycle.studies.publish docs

bundle: $(STAMP) ## write the study NAME with its records, figures and LaTeX table into logs/studies/NAME.zip
	@test -n "$(NAME)" || { echo "make bundle needs NAME=…"; exit 2; }
	@$(BIN)/python -m onecycle.studies.publish bundle logs/studies/$(NAME)

runs: $(STAMP) ## a table of all runs below logs/; ARGS="sort=accuracy status=finished", ARGS=--help for more
	@$(BIN)/python -m onecycle runs $(ARGS)

benchmark: $(STAMP) ## measure loader, step and start-up against baselines; ARGS=--quick repeats less
	@$(BIN)/python -m onecycle.benchmark $(ARGS)

test: $(STAMP) ## run the fast tests
	@$(BIN)/python -m pytest $(ARGS)

test-all: $(STAMP) ## run all tests, including the slow ones
	@$(BIN)/python -m pytest -m '' $(ARGS)

accept: $(STAMP) ## compare a CUDA GPU with the CPU and with itself, and print what was measured (two minutes)
	@$(BIN)/python -m pytest tests/gpu -n 0 $(ARGS)

audit: $(STAMP) ## known vulnerabilities of the locked versions; bill of materials in logs/audit (needs the network)
	@mkdir -p logs/audit
	@status=0; $(AUDIT) --format cyclonedx-json --output logs/audit/sbom.json || status=$$?; \
		$(AUDIT) --format columns || status=$$?; exit $$status

schema: $(STAMP) ## write docs/configuration.md and conf/schema.json from the schema
	@$(BIN)/python -m onecycle.document

lint: $(STAMP) ## run ruff (lint, format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

tensorboard: $(STAMP) ## show the runs below LOGDIR (logs) in TensorBoard on PORT (6006)
	@echo "TensorBoard shows no curve while more than 40 runs are found and none is ticked: see docs/tensorboard.md"
	@$(BIN)/tensorboard --logdir $(LOGDIR) --port $(PORT)

new: $(STAMP) ## copy this project to DIR under the package name NAME; PARTS=train leaves out studies, searches, benchmark
	@test -n "$(NAME)" -a -n "$(DIR)" || { echo "make new needs NAME=… DIR=…"; exit 2; }
	@$(BIN)/python -m onecycle.new $(NAME) $(DIR) $(if $(PARTS),--parts $(PARTS))

lock: $(STAMP) ## resolve pyproject.toml into requirements.lock (needs the network)
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--extra dev pyproject.toml --output-file requirements.lock

clean: ## remove .venv and the caches of tools; keeps logs/ and data/
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
