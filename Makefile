# What a new machine needs is Python 3.11 to 3.13, gcc and make; everything else is installed here.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint llm-test clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[local,baselines,dev]' --config-settings editable_mode=compat
	touch $@

# MOPE, MOTE and MAR on the demo store, with a real language model on this machine.
demo: install
	$(BIN)/mllm3rec models fetch smollm2-135m minilm
	$(BIN)/mllm3rec demo --out runs/demo
	$(BIN)/mllm3rec recommend demo --user S0001 --k 3

test: install lint
	$(BIN)/mllm3rec models fetch smollm2-135m minilm
	$(BIN)/pytest -q -n auto
	$(BIN)/pytest -q -m llm
	$(BIN)/pytest -q -m browser

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

llm-test: install
	$(BIN)/pytest -q -m llm

clean:
	rm -rf .venv build *.egg-info
