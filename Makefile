# Every target sets itself up: the first one creates $(VENV) and installs the package with its development tools.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 8

$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## decode a prompt with the bundled model by three strategies
	$(VENV)/bin/python examples/demo.py $(ARGS)

test: $(STAMP)  ## run the tests (make test ARGS="-k beam")
	VENV=$(VENV) scripts/test $(ARGS)

check: $(STAMP)  ## formatting, linter, types, sizes
	VENV=$(VENV) scripts/check

bench: $(STAMP)  ## measure against transformers (minutes); ARGS="--help" lists the options
	$(VENV)/bin/treille bench core $(ARGS)

clean:  ## remove the environment and everything that tools have left behind
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/out
	find src tests scripts examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
