# Installs wheels for Lambda into a layer, in the versions of uv.lock, on any build machine. The layers' makefiles, which
# SAM runs in the project's root, include this file. To build for another machine than Lambda:
#   make build PYTHON_VERSION=3.11 PYTHON_PLATFORM=aarch64-apple-darwin
SHELL := /bin/bash
PYTHON_VERSION ?= 3.13
PYTHON_PLATFORM ?= x86_64-manylinux_2_28
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
SITE := $(ARTIFACTS_DIR)/python

# Lambda has boto3; only the command line needs rich and typer.
PRUNED := boto3 rich typer

# $(call install,EXTRAS,PRUNED): install the package's dependencies and those of the extras, without the pruned packages
install = set -o pipefail; \
	$(UV) export --quiet --locked --no-emit-project $(addprefix --extra ,$(1)) $(addprefix --prune ,$(PRUNED) $(2)) \
	| $(UV) pip install --quiet --requirements - --no-deps --only-binary :all: --target "$(SITE)" \
	  --python-version "$(PYTHON_VERSION)" --python-platform "$(PYTHON_PLATFORM)"

# Removes files that no code imports: stubs, tests, commands. Licences stay, in *.dist-info.
define tidy
	rm -rf "$(SITE)"/{.lock,bin,numpy/f2py}
	find "$(SITE)" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
	find "$(SITE)" -name '*.pyi' -exec rm -f {} +
endef
