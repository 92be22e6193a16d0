# Two commands for a newcomer: `make run` and `make test`. Everything else serves the developer.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV_VERSION := 0.13.8
# A uv on the PATH is used; otherwise one is installed from PyPI into .uv, beside the project.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
VENV := .venv
# Where a person watches, uv shows how far it is: a first installation may take minutes.
QUIET := $(shell test -t 2 || echo --quiet)
export UV_PROJECT_ENVIRONMENT = $(VENV)
# Nothing here calls home.
export SAM_CLI_TELEMETRY := 0
# A stack is a dozen processes, the tests are thousands: what one of them has compiled is kept for the next.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup tensorflow browser run test quick check lint format schemas pictures bench campaigns build deploy deploy-tensorflow clean

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
	@$(UV) sync $(QUIET) --locked --inexact --extra local --extra tensorflow --group test --group lint --group pictures --group bench
	@touch $@

$(VENV)/.pictures: $(VENV)/.dev
	@echo "Installing Matplotlib into $(VENV)"
	@$(UV) sync $(QUIET) --locked --inexact --extra local --group test --group lint --group pictures
	@touch $@

setup: $(VENV)/.dev ## Make the environment for development

tensorflow: $(VENV)/.tensorflow ## Add TensorFlow to it, for training and parity tests

browser: ## Install Chromium, in which tests look at the batch's report (Debian, as root)
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null \
	  || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)

run: $(VENV)/.run ## Ask the shipped ensemble about one passenger, on the local stack
	@$(VENV)/bin/ensemble run events/passenger.json

# With --dist loadfile, what replaces a worker that crashed may wait for ever (pytest-xdist 3.8): the run ends instead.
test: $(VENV)/.tensorflow ## Run every test
	@$(VENV)/bin/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

quick: $(VENV)/.dev ## Check style, types, and the tests that need no stack and take no seconds: a minute
	@$(MAKE) --no-print-directory lint
	@$(VENV)/bin/pytest tests/unit tests/contract -m "not slow" -q --numprocesses auto --maxprocesses 4 --dist loadfile

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

schemas: $(VENV)/.run ## Write the published JSON Schemas anew from the code
	@$(VENV)/bin/python -m stepensemble.publishing.schemas

pictures: $(VENV)/.pictures ## Draw docs/pictures and the table beside them anew from the shipped models
	@$(VENV)/bin/python examples/titanic/pictures.py

# What measures comes first; then what is reckoned, drawn and written from that.
BENCHMARKS := aggregation batch_speed in_process serving million growth footprint replay swap moto_speedups scale cost charts performance

bench: $(VENV)/.bench ## Measure speed, and write benchmarks/results and docs/performance.md
	@for name in $(BENCHMARKS); do $(VENV)/bin/python benchmarks/$$name.py || exit 1; done

CAMPAIGNS := executions batches publishers repeats connections

campaigns: $(VENV)/.dev ## Kill, pause, corrupt, race and repeat on local stacks, and look whether every promise is kept
	@for name in $(CAMPAIGNS); do $(VENV)/bin/python campaigns/$$name.py || exit 1; done

build: $(VENV)/.dev ## Build what Lambda gets, without Docker
	@PATH="$(abspath $(VENV)/bin):$(abspath .uv/bin):$$PATH" $(VENV)/bin/sam build

deploy: build ## Deploy to AWS: make deploy STAGE=dev
	@$(VENV)/bin/sam deploy --config-env $(or $(STAGE),dev)

deploy-tensorflow: $(VENV)/.dev ## Build the slots for TensorFlow with Docker, and deploy them beside a stack
	@$(VENV)/bin/sam build --template-file template-tensorflow.yaml --build-dir .aws-sam/tensorflow
	@$(VENV)/bin/sam deploy --config-file "$(CURDIR)/samconfig.toml" --config-env $(or $(STAGE),dev)-tensorflow \
	  --template-file .aws-sam/tensorflow/template.yaml --image-repository \
	  $(or $(REPOSITORY),$(error Which ECR repository? make deploy-tensorflow STAGE=dev REPOSITORY=its-uri))

clean: ## Remove what was built and every environment
	rm -rf .aws-sam .venv .venv-* .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis
