# `make demo` and `make test` set up what they need in .venv. Nothing else has to be installed but Python >= 3.10.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint unit clean

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(READY)

demo: $(READY)
	$(BIN)/monai-spine phantom demo/studies --studies 3 --seed 7
	$(BIN)/monai-spine analyze demo/studies --output demo/results --overwrite
	@echo "Report: $(CURDIR)/demo/results/index.html"

test: lint unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest --numprocesses 2

clean:
	rm -rf $(VENV) demo
