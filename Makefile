# Two commands for a new user: `make fit` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
TORCH ?=
CONFIG ?= experiments/piqa.yaml

.PHONY: fit test check docs schema architecture methods backbone encoder vision rows clean

fit: $(VENV)/.installed
	$(BIN)/python -m smoa_lightning fit --config $(CONFIG) $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check . && $(BIN)/python -m mypy
	$(MAKE) docs

# The documentation site in site/; warnings are errors, and all links are checked.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	$(BIN)/python -m tools.site.links site

schema: $(VENV)/.installed
	$(BIN)/python -m tools.settings_schema

architecture: $(VENV)/bin/python
	$(BIN)/python -m tools.architecture

methods: $(VENV)/.installed
	$(BIN)/python -m tools.methods_page

backbone: $(VENV)/.installed
	$(BIN)/python -m tools.embedded.rebuild $(ARGS)

encoder: $(VENV)/.installed
	$(BIN)/python -m tools.embedded.rebuild_encoder $(ARGS)

vision: $(VENV)/.installed
	$(BIN)/python -m tools.embedded.rebuild_vision $(ARGS)

rows: $(VENV)/.installed
	$(BIN)/python -m tools.embedded.write_rows $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first, so that an index of CPU builds can be given for it alone: make fit TORCH="--index-url URL"
$(VENV)/.torch: $(VENV)/bin/python constraints.txt
	$(BIN)/python -m pip install --quiet $(TORCH) "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.installed-test $(VENV)/.installed-docs  # the extra has both

clean:
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
