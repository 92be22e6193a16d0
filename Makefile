# Two commands for a newcomer: `make run` and `make test`. The others are for developers.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV_VERSION := 0.13.8
# A uv on the PATH is used; otherwise one is installed from PyPI into .uv, beside the project.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
VENV := .venv
# In a terminal, uv shows its progress: a first installation may take minutes.
QUIET := $(shell test -t 2 || echo --quiet)
export UV_PROJECT_ENVIRONMENT = $(VENV)
# SAM CLI sends no telemetry.
export SAM_CLI_TELEMETRY := 0
# Python keeps its bytecode: a stack is a dozen processes, and the tests start thousands.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup tensorflow browser run test quick check lint format schemas reference screenshots docs charts bench campaigns build deploy deploy-tensorflow clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

.uv/bin/uv:
	@echo "Installing uv $(UV_VERSION) from PyPI into .uv"
	@python3 -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.run: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	@echo "Installing the locked packages into $(VENV) (a minute or two where nothing is cached)"
	@$(UV) sync $(QUIET) --locked --inexact --extra local
	@touch $@

$(VENV)/.dev: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	@echo "Installing the locked packages and the development tools into $(VENV)"
	@$(UV) sync $(QUIET) --locked --inexact --extra local --group test --group lint
	@touch $(VENV)/.run $@

$(VENV)/.tensorflow: $(VENV)/.dev
	@echo "Installing TensorFlow into $(VENV) (0.6 GB to fetch, 1.6 GB on disk; for parity tests and training only)"
	@$(UV) sync $(QUIET) --locked --inexact --extra local --extra tensorflow --group test --group lint
	@touch $@

$(VENV)/.bench: $(VENV)/.tensorflow
	@$(UV) sync $(QUIET) --locked --inexact --extra local --extra tensorflow --group test --group lint --group charts --group bench
	@touch $@

$(VENV)/.charts: $(VENV)/.dev
	@echo "Installing Matplotlib into $(VENV)"
	@$(UV) sync $(QUIET) --locked --inexact --extra local --group test --group lint --group charts
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	@echo "Installing Sphinx into $(VENV)"
	@$(UV) sync $(QUIET) --locked --inexact --extra local --group docs
	@touch $@

setup: $(VENV)/.dev ## Create the environment for development

tensorflow: $(VENV)/.tensorflow ## Add TensorFlow to the environment, for training and parity tests

browser: ## Install Chromium, in which tests open the batch's report (Debian, as root)
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null \
	  || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)

run: $(VENV)/.run ## Predict one passenger with the shipped ensemble, on the local stack
	@$(VENV)/bin/ensemble run events/passenger.json

# With --dist loadfile, the replacement of a crashed worker may wait forever (pytest-xdist 3.8): end the run instead.
test: $(VENV)/.tensorflow ## Run every test
	@$(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --max-worker-restart 0

quick: $(VENV)/.dev ## Check style and types, and run the fast tests that need no stack: about a minute
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/pytest tests/unit tests/contract -m "not slow" -q --numprocesses auto --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder

check: $(VENV)/.dev ## Validate the manifest, its artifacts and the templates
	@$(VENV)/bin/ensemble check
	@$(VENV)/bin/sam validate --lint
	@$(VENV)/bin/sam validate --lint --template-file template-tensorflow.yaml

lint: $(VENV)/.dev ## Check style and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

format: $(VENV)/.dev ## Rewrite the code in the project's style
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

schemas: $(VENV)/.run ## Write the published JSON Schemas from the code
	@$(VENV)/bin/python -m stepensemble.publishing.schemas

reference: $(VENV)/.run ## Write docs/reference from the command line's help and the public docstrings
	@$(VENV)/bin/python docs/generate_reference.py

screenshots: $(VENV)/.run ## Write docs/screenshots: the terminal and the batch's report (needs Chromium: make browser)
	@$(VENV)/bin/python docs/take_screenshots.py

# Sphinx reports a warning for each page outside of the index and each link without a target; -W makes them errors.
docs: $(VENV)/.docs ## Build the site into build/docs
	@$(VENV)/bin/sphinx-build --quiet --fail-on-warning --fresh-env --keep-going --nitpicky --builder html \
	  --conf-dir docs --doctree-dir build/doctrees . build/docs
	@echo "open build/docs/index.html"

charts: $(VENV)/.charts ## Draw docs/charts and the tables beside them from the shipped models
	@$(VENV)/bin/python examples/titanic/charts.py

# Measurements come first; then everything that is computed, drawn and written from them.
BENCHMARKS := aggregation batch_speed in_process serving million growth footprint replay swap moto_speedups scale cost charts performance

bench: $(VENV)/.bench ## Run the benchmarks; write benchmarks/results and docs/performance.md
	@for name in $(BENCHMARKS); do $(VENV)/bin/python benchmarks/$$name.py || exit 1; done

CAMPAIGNS := executions batches publishers repeats connections

campaigns: $(VENV)/.dev ## Kill, pause, corrupt, race and repeat on local stacks, and check that every promise is kept
	@for name in $(CAMPAIGNS); do $(VENV)/bin/python campaigns/$$name.py || exit 1; done

build: $(VENV)/.dev ## Build the Lambda functions and layers, without Docker
	@PATH="$(abspath $(VENV)/bin):$(abspath .uv/bin):$$PATH" $(VENV)/bin/sam build

deploy: build ## Deploy to AWS: make deploy STAGE=dev
	@$(VENV)/bin/sam deploy --config-env $(or $(STAGE),dev)

deploy-tensorflow: $(VENV)/.dev ## Build the slots for TensorFlow with Docker, and deploy them beside a stack
	@$(VENV)/bin/sam build --template-file template-tensorflow.yaml --build-dir .aws-sam/tensorflow
	@$(VENV)/bin/sam deploy --config-file "$(CURDIR)/samconfig.toml" --config-env $(or $(STAGE),dev)-tensorflow \
	  --template-file .aws-sam/tensorflow/template.yaml --image-repository \
	  $(or $(REPOSITORY),$(error Which ECR repository? make deploy-tensorflow STAGE=dev REPOSITORY=its-uri))

clean: ## Remove what was built and every environment
	rm -rf .aws-sam build .venv .venv-* .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis
