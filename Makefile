# Everything this project does by hand, and what CI calls.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The commands that recipes start (ssvi, snakemake) come from the environment made here.
export PATH := $(CURDIR)/$(BIN):$(PATH)
CORES ?= all
STUDY ?= digits

.PHONY: reproduce quick test lint format bench scale slurm readme clean help

help: ## this list
	@grep -hE "^[a-z]+:.*## " $(MAKEFILE_LIST) | sed "s/:.*## /\t/" | expand -t 12

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

reproduce: $(BIN)/.installed ## train, evaluate and report the study (STUDY=digits, CORES=all)
	workflow/reproduce $(STUDY) $(CORES)

quick: $(BIN)/.installed ## the same, but only tables 1-2, figures 1 and 2 (left) and the IoU matrices
	workflow/reproduce $(STUDY) $(CORES) quick

lint: $(BIN)/.installed-dev ## ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

test: lint ## lint and all tests
	$(BIN)/pytest -n 2

format: $(BIN)/.installed-dev ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

bench: $(BIN)/.installed-dev ## processor time of a run beyond its training steps
	$(BIN)/python benchmarks/overhead.py

scale: $(BIN)/.installed-dev ## what 5,000 finished runs cost to collect, plan and mirror
	$(BIN)/python benchmarks/scale.py

slurm: $(BIN)/.installed ## prove the SLURM profile on a real two-node Slurm on this machine
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[slurm]"
	tests/cluster/run

readme: $(BIN)/.installed ## render README.md and docs/digits from reports/digits
	$(BIN)/python -m ssvi.analysis.readme

clean: ## remove the environment; results stay
	rm -rf $(VENV)
