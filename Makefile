.DEFAULT_GOAL := help
.PHONY: help run test test-slow faults check schema bench lock graphiql clean

BIN := .venv/bin
# Two processes: the tests of a file stay together on an engine, what needs none runs wherever there is time.
AT_ONCE := -n 2 --dist loadgroup

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Start the demo server (PORT=8080 picks the port, KEEP=1 keeps its data)
	@scripts/setup run
	@exec $(BIN)/plafond demo $(if $(PORT),--port $(PORT)) $(if $(filter 1,$(KEEP)),--keep)

test: ## Run the fast tests (ARGS="-k invoice" goes to pytest)
	@scripts/setup dev
	@$(BIN)/pytest -m "not slow" $(AT_ONCE) $(ARGS)

test-slow: ## Run the slow tests
	@scripts/setup dev
	@$(BIN)/pytest -m slow $(AT_ONCE) $(ARGS) || [ $$? -eq 5 ] # 5: there are none

faults: ## Kill servers and workers while usage comes and money moves: 100 rounds of each on each engine
	@scripts/setup dev
	@PLAFOND_FAULT_ROUNDS=$${PLAFOND_FAULT_ROUNDS:-100} $(BIN)/pytest -rP -m slow $(AT_ONCE) tests/faults/test_f01_usage.py tests/faults/test_f02_blind.py -k again_and_again $(ARGS)

check: ## Lint, formatting, types and the import directions
	@scripts/setup dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy -p plafond -p tests
	$(BIN)/lint-imports

schema: ## Write schema.graphql anew from the code
	@scripts/setup run
	@$(BIN)/plafond schema > schema.graphql.new || { rm -f schema.graphql.new; exit 1; }
	@mv schema.graphql.new schema.graphql

bench: ## Measure the server
	@scripts/setup run
	@$(BIN)/python -m bench $(ARGS)

# The second lock is held to the first, so that both name the same versions.
COMPILE := $(BIN)/uv pip compile -q pyproject.toml --all-extras --universal --generate-hashes --no-header --python-version 3.11
lock: ## Pin what pyproject.toml asks for (ARGS=--upgrade takes the newest)
	@scripts/setup dev
	@$(COMPILE) --group dev $(ARGS) -o requirements-dev.lock
	@$(COMPILE) --group build -c requirements-dev.lock -o requirements.lock

graphiql: ## Build the query editor that the server serves (needs Node.js)
	cd graphiql && npm ci && npm run build

clean: ## Remove the virtual environment, build results and caches; data stays
	rm -rf .venv dist graphiql/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +
