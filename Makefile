# Everything this project does by hand, and what CI calls.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The commands that recipes start (ssvi, snakemake) come from the environment made here.
AT_HAND := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)
CORES ?= all
STUDY ?= digits
# The versions that were tested; CONSTRAINTS= takes the newest that pyproject.toml allows.
CONSTRAINTS ?= ssvi/constraints.txt
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS))
# Seconds of a trial on a GPU, and the Python that plays it.
SECONDS ?= 570
PYTHON_GPU ?=
IMAGES ?=
DATA ?= data
GPU_FLAGS ?=

.PHONY: reproduce quick fashion learning test oracles lint format bench serving uncertainty scaling gpu faults slurm lock torch-versions same-numbers readme clean help

help: ## this list
	@grep -hE "^[a-z-]+:.*## " $(MAKEFILE_LIST) | sed "s/:.*## /\t/" | expand -t 16

$(BIN)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[pipeline]"
	touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	$(INSTALL) -e ".[dev]"
	touch $@

reproduce: $(BIN)/.installed ## train, evaluate and report the study (STUDY=digits, CORES=all)
	workflow/reproduce $(STUDY) $(CORES)

quick: $(BIN)/.installed ## the same, but only tables 1-2, figures 1 and 2 (left) and the IoU matrices
	workflow/reproduce $(STUDY) $(CORES) quick

fashion: $(BIN)/.installed ## the same of the study fashion, with all that tells how good its uncertainty is; 90 minutes on two cores
	workflow/reproduce fashion $(CORES)

learning: $(BIN)/.installed ## the same of the study learning: natural gradients, optimisers, starts and temperatures compared
	workflow/reproduce learning $(CORES)

lint: $(BIN)/.installed-dev ## ruff, snakefmt, snakemake --lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

test: lint ## lint and all tests
	$(BIN)/pytest -n 2

oracles: ## compare metrics with those of pytorch-ood, torch-uncertainty and crepes
	$(PYTHON) -m venv $(VENV)-oracles
	$(VENV)-oracles/bin/pip install --quiet --disable-pip-version-check -e ".[oracles]"
	$(VENV)-oracles/bin/pytest tests/core/test_oracles.py

format: $(BIN)/.installed-dev ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

bench: $(BIN)/.installed-dev ## how fast a step is, beside other packages, and what a run costs beyond its steps
	$(INSTALL) -e ".[bench]"
	$(BIN)/ssvi bench --repeats 9 --json benchmarks/records/speed.json
	$(BIN)/python benchmarks/overhead.py --json benchmarks/records/overhead.json

serving: $(BIN)/.installed ## what it costs to use a trained network: seconds of predictions, bytes of a file
	$(BIN)/python benchmarks/serving.py --json benchmarks/records/serving.json

uncertainty: $(BIN)/.installed ## what the uncertainty suite of a run costs: seconds, memory, bytes (with Fashion-MNIST: DATA=folder)
	$(BIN)/python -m benchmarks.uncertainty --data "$(DATA)" --json benchmarks/records/uncertainty.json

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
	$(INSTALL) -e ".[slurm]"
	tests/cluster/run

lock: ## write the newest versions that pyproject.toml allows into ssvi/constraints.txt; then make clean test
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check "uv>=0.8"
	$(VENV)-lock/bin/uv pip compile pyproject.toml --extra dev --extra bench --universal --python-version 3.11 --upgrade --quiet \
		--no-annotate --custom-compile-command "make lock" --output-file ssvi/constraints.txt
	rm -rf $(VENV)-lock

torch-versions: ## try the oldest, the newest and a middling PyTorch of pyproject.toml's range (TORCH="2.6.0 2.11.0 2.13.0")
	$(PYTHON) tests/versions/run.py $(TORCH)

same-numbers: $(BIN)/.installed ## train every method here and in another checkout (OLD=path), and compare all numbers
	$(BIN)/python tests/versions/same_numbers.py $(or $(OLD),$(error OLD=path of the other checkout)) .

readme: $(BIN)/.installed ## render README.md, docs/digits, docs/fashion, docs/learning and the benchmarks' picture
	$(BIN)/python -m benchmarks.readme

clean: ## remove the environments; results stay
	rm -rf $(VENV) $(VENV)-*
