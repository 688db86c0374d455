# Every command of the project. Each makes its own environment in .venv from the lock file; none needs root.
# A bare Debian 12 needs: make python3 python3-venv git ca-certificates.

.DEFAULT_GOAL := help
.PHONY: help demo test lint types fmt gen lock sim sim-long bench bench-peers conformance clean
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := build/bench
PEERS_READY := $(PEERS)/venv/.ready
SEEDS ?= 500
FROM ?= 1
# Ours, but for error.proto: a table with a line for each reason, which `buf format` would take apart.
FORMATTED := --path rakit --exclude-path rakit/api/v1/error.proto

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install -y python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $$($(PYTHON) -V) is here (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "the venv module is missing: apt-get install -y python3-venv"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "making .venv failed: apt-get install -y python3-venv ca-certificates"; exit 1; }
	@echo "installing into .venv (once; a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## Three nodes take 336,776 real flights, lose their leader, and lose nothing
	@$(BIN)/rakit demo

test: $(READY) ## All tests
	@$(BIN)/python -m pytest -q -rs -n 2 --dist loadgroup tests

lint: $(READY) ## Style, layers, protos, generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@cd protos && ../$(BIN)/buf lint
	@cd protos && ../$(BIN)/buf format --diff --exit-code $(FORMATTED)
	@cd protos && ../$(BIN)/buf breaking --path rakit/api/v1 --against released.binpb
	@./.ci/generated-code-is-fresh

types: $(READY) ## mypy and basedpyright, both strict
	@$(BIN)/mypy
	@$(BIN)/basedpyright --warnings

fmt: $(READY) ## Format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@cd protos && ../$(BIN)/buf format -w $(FORMATTED)

gen: $(READY) ## Generate the Python code beside the protos
	@$(BIN)/python protos/generate.py

lock: $(READY) ## Resolve the dependencies anew
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --all-extras --group dev --no-emit-index-url --no-header --generate-hashes pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --extra node --constraint requirements.lock --no-emit-index-url --no-header --generate-hashes pyproject.toml -o deploy/requirements.lock

sim: $(READY) ## Simulate: SEED=7 replays one run (PLANT=name: with that bug), SEEDS=500 runs many
	@$(BIN)/python -m tests.sim $(if $(SEED),--seed $(SEED) $(if $(PLANT),--plant $(PLANT)),--seeds $(SEEDS))

sim-long: $(READY) ## 20,000 seeds on every core, or what is left of them after FROM=n
	@$(BIN)/python -m tests.sim --from $(FROM) --seeds $$((20001 - $(FROM)))

bench: $(READY) ## The figures of the README, on this machine
	@$(BIN)/rakit bench all

bench-peers: $(PEERS_READY) $(PEERS)/kafka ## rakit beside Kafka, JetStream and RabbitMQ; hours. ARGS="--help" tells what can be chosen
	@test -d /usr/lib/rabbitmq/bin || { echo "RabbitMQ is missing: apt-get install -y --no-install-recommends rabbitmq-server (and stop the service that it starts)"; exit 1; }
	@$(PEERS)/venv/bin/python -m tests.bench $(ARGS)

# The peers' clients live beside rakit in an environment of their own: nothing of rakit needs them.
$(PEERS_READY): requirements.lock pyproject.toml tests/bench/requirements.txt
	@$(PYTHON) -m venv $(PEERS)/venv
	@echo "installing into $(PEERS)/venv (once; a minute or two)"
	@$(PEERS)/venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(PEERS)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/bench/requirements.txt
	@$(PEERS)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS)/kafka: tests/bench/kafka/pom.xml
	@for each in java mvn; do command -v $$each >/dev/null || { echo "$$each is missing: apt-get install -y openjdk-17-jre-headless maven"; exit 1; }; done
	@mvn -q -B -f tests/bench/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$@ || { rm -rf $@; exit 1; }
	@touch $@

conformance: $(READY) ## Clients in every language, with nothing but stubs: LANGUAGES="go python" chooses
	@$(BIN)/python -m tests.conformance $(if $(LANGUAGES),--languages $(LANGUAGES)) $(if $(SCENARIOS),--scenarios $(SCENARIOS))

clean: ## Remove the environment and caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build/conformance build/bench/venv build/bench/kafka build/bench/data
