# Every target installs what it needs by itself, into .venv. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
TYPESCRIPT := npm --prefix clients/typescript --silent
export PATH := $(CURDIR)/$(BIN):$(PATH)

##@ Use
.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## Run the server with demo people, conversations and tokens (ARGS="--help" tells more)
	@tools/setup.sh run
	exec $(BIN)/tidings-server serve --demo $(ARGS)

# USER is in every environment: only one given to make is meant.
ifneq ($(filter command line,$(origin USER)),)
CHAT_USER := $(USER)
else
CHAT_USER := alice
endif
.PHONY: chat
chat: ## Chat in the terminal with the demo server (USER=alice; ARGS="--device second" for another window)
	@tools/setup.sh run
	@$(BIN)/tidings-chat --user $(CHAT_USER) $(ARGS)

.PHONY: stack
stack: setup ## Run two servers on Cassandra and Redis (ARGS="--cassandra-nodes 3 --fresh")
	@$(BIN)/python -m tools.stack $(ARGS)

##@ Develop
.PHONY: setup
setup: ## Make .venv with everything to develop and test
	@tools/setup.sh dev

.PHONY: test
test: check ## Check everything, then run every test (ARGS="tests/unit -k name" runs only those)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-computing test-waiting
endif

# Two runs side by side: one keeps a core busy, the other waits for disks, processes and databases.
.PHONY: test-computing
test-computing:
	$(BIN)/python -m pytest tests/unit tests/simulation clients
	$(TYPESCRIPT) run test -- --project unit

.PHONY: test-waiting
test-waiting:
	$(BIN)/python -m pytest tests/contract tests/integration tests/faults
	$(TYPESCRIPT) run test -- --project integration

.PHONY: check
check: lint types imports proto typescript ## Lint, types, imports between layers, the contract and its generated code

.PHONY: lint
lint: setup ## Style and mistakes (ruff)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: setup ## Types (mypy, strict)
	$(BIN)/mypy
	$(BIN)/mypy clients/python/tests
	$(BIN)/mypy clients/terminal/tests

.PHONY: imports
imports: setup ## Imports between layers (import-linter)
	$(BIN)/lint-imports --no-logo

.PHONY: proto
proto: setup ## The contract: lint, breaking changes, drift of generated code (buf)
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	tools/generate.sh --check

.PHONY: typescript
typescript: setup ## Style, mistakes and types of the TypeScript SDK (Biome, tsc)
	$(TYPESCRIPT) run check

.PHONY: format
format: setup ## Format code and contract in place
	$(BIN)/ruff check --fix-only --exit-zero
	$(BIN)/ruff format
	$(BIN)/buf format --write
	$(TYPESCRIPT) run format

.PHONY: generate
generate: setup ## Generate code from proto/ and update its baseline
	tools/generate.sh

.PHONY: proto-baseline
proto-baseline: setup ## Generate, and accept a change that breaks clients
	tools/generate.sh --accept

.PHONY: requirements
requirements: setup ## Lock the dependencies again (ARGS="--upgrade" for newer ones)
	tools/lock.sh $(ARGS)
	@tools/setup.sh dev

##@ Measure
.PHONY: simulate
simulate: setup ## Simulate worlds of faults and check every invariant in each (SEEDS=5000)
	$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

.PHONY: bench
bench: setup ## Measure server CPU per message and delivery beside a pass-through server
	$(BIN)/python -m tools.bench $(ARGS)

.PHONY: faults
faults: setup ## Deal faults to servers on Cassandra and Redis under load and verify everything (ARGS="--quick")
	$(BIN)/python -m tools.faults $(ARGS)

.PHONY: replay
replay: setup ## Replay real conversations with many devices and verify every one of them
	$(BIN)/python -m tools.replay $(ARGS)

##@ Tidy
.PHONY: clean
clean: ## Remove .venv and what builds and tests left
	rm -rf .venv build dist clients/typescript/node_modules clients/typescript/dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
