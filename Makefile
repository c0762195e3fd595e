# What a new machine needs is Python 3.11 to 3.13, gcc and make; everything else is installed here.
PYTHON ?= python3
# The tests train SASRec, BERT4Rec and a tiny language model. On Linux PyPI's torch brings CUDA along, some gigabytes; an
# index of builds for the CPU makes it small: make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet
INSTALLED := .venv/.installed
TORCH_INSTALLED := .venv/.torch
DOCS_INSTALLED := .venv/.docs
NOTEBOOK_INSTALLED := .venv/.notebook

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format llm-test soak coverage docs notebook clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.* ## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## a .venv with the package and its tools

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[local,baselines,dev]' --config-settings editable_mode=compat
	touch $@

$(TORCH_INSTALLED): $(INSTALLED)
	$(PIP) '$(TORCH)' $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)')
	$(PIP) --editable '.[finetune]' --config-settings editable_mode=compat
	$(BIN)/python -c 'import torch; print("torch", torch.__version__)'
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(PIP) --editable '.[docs]' --config-settings editable_mode=compat
	touch $@

$(NOTEBOOK_INSTALLED): $(INSTALLED)
	$(PIP) --editable '.[notebook]' --config-settings editable_mode=compat
	touch $@

# MOPE, MOTE and MAR on the demo store, with a real language model on this machine.
demo: install ## one user, a compile and a comparison on the demo store, with a small model
	$(BIN)/mllm3rec models fetch smollm2-135m minilm
	$(BIN)/mllm3rec demo --out runs/demo

test: $(TORCH_INSTALLED) lint ## all tests: the package, a small model, the report in a browser
	$(BIN)/mllm3rec models fetch smollm2-135m minilm
	$(BIN)/pytest -q -n auto
	$(BIN)/pytest -q -m llm
	$(BIN)/pytest -q -m browser

lint: install ## style, types, and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format the code, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

llm-test: install ## the tests that ask the small model
	$(BIN)/pytest -q -m llm

soak: install ## long runs: faults, mutated files and answers, kills, signals, keys
	MLLM3REC_SOAK=1 MLLM3REC_FUZZ=20000 $(BIN)/pytest -q -s tests/fuzz tests/soak

coverage: $(TORCH_INSTALLED) ## lines and branches that the tests reach: total here, details in htmlcov/
	$(BIN)/pytest -q -n auto --cov --cov-report=term --cov-report=html --cov-fail-under=96

docs: $(DOCS_INSTALLED) ## the documentation with the API reference, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebook: $(NOTEBOOK_INSTALLED) ## run the notebook of the documentation again, and keep its outputs
	$(BIN)/mllm3rec models fetch smollm2-135m minilm
	TQDM_DISABLE=1 PYTHONWARNINGS='ignore:IProgress' $(BIN)/jupyter-execute --inplace --NbClient.record_timing=False docs/notebooks/*.ipynb

clean: ## remove what was installed and built
	rm -rf .venv build site htmlcov .coverage .coverage.* .import_linter_cache *.egg-info
