# `make demo` needs Python 3.11 or newer and nothing else; `make test` makes a virtual environment in .venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test programs doctor lint bench docs wheel clean python

demo: python
	@PYTHONPATH=src $(PYTHON) -m netwarren demo

doctor: python
	@PYTHONPATH=src $(PYTHON) -m netwarren doctor

test: $(STAMP)
	$(BIN)/python -m pytest -n 4 $(ARGS)

# The real programs of some tests and of the examples, which are skipped without them; as root, where there is apt-get.
programs: $(STAMP)
	@tools/install-programs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,examples]'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the README and docs show, and nothing else; `make test` runs it too.
docs: $(STAMP)
	$(BIN)/python -m pytest tests/docs $(ARGS)

# Everything side by side in one run of some ten minutes; writes docs/benchmarks.md. ARGS=--quick: all of it runs.
bench: $(STAMP)
	$(BIN)/python -m bench $(ARGS)

# The wheel, in an environment of its own, away from the clone.
wheel: $(STAMP)
	@set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$$place" .; \
	tools/make-venv $(PYTHON) "$$place/venv"; \
	"$$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$place"/netwarren-*.whl; \
	cd "$$place"; venv/bin/netwarren demo >/dev/null; venv/bin/netwarren --version

python:
	@test -n "$(PYTHON)" || { echo "netwarren needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }

$(STAMP): pyproject.toml constraints.txt | python
	@tools/make-venv $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
