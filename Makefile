# Everything this project does by hand, and what CI calls.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The commands that recipes start (ssvi, snakemake) come from the environment made here.
AT_HAND := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)
CORES ?= all
STUDY ?= digits
# Seconds of a trial on a GPU, and the Python that plays it.
SECONDS ?= 570
PYTHON_GPU ?=
IMAGES ?=
GPU_FLAGS ?=

.PHONY: reproduce quick test lint format bench scaling gpu faults slurm readme clean help

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

bench: $(BIN)/.installed-dev ## how fast a step is, beside other packages, and what a run costs beyond its steps
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[bench]"
	$(BIN)/ssvi bench --repeats 9 --json benchmarks/records/speed.json
	$(BIN)/python benchmarks/overhead.py --json benchmarks/records/overhead.json

scaling: $(BIN)/.installed-dev ## steps and workflow as they grow; that the fast path costs no accuracy
	$(BIN)/ssvi bench scaling --repeats 3 --json benchmarks/records/scaling.json
	$(BIN)/ssvi bench accuracy --json benchmarks/records/accuracy.json
	$(BIN)/python benchmarks/scale.py --json benchmarks/records/scale.json

gpu: export PATH := $(AT_HAND)
gpu: $(if $(PYTHON_GPU),,$(BIN)/.installed-dev) ## check, measure, train on a GPU (SECONDS=570, IMAGES=folder or tar, PYTHON_GPU=python3: without .venv, GPU_FLAGS)
	$(or $(PYTHON_GPU),$(BIN)/python) -m benchmarks.gpu --seconds $(SECONDS) $(if $(IMAGES),--images "$(IMAGES)") \
	    --json benchmarks/records/gpu.json $(GPU_FLAGS)

faults: $(BIN)/.installed-dev ## kill, fill, damage, double, malform: every trial of every fault, and a table of them
	$(BIN)/pytest -n 2 -m fault --all-trials

slurm: $(BIN)/.installed ## prove the SLURM profile, and that faults lose nothing, on a real two-node Slurm started here
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[slurm]"
	tests/cluster/run

readme: $(BIN)/.installed ## render README.md, docs/digits and the benchmarks' picture
	$(BIN)/python -m ssvi.analysis.readme

clean: ## remove the environment; results stay
	rm -rf $(VENV)
