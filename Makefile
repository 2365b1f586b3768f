# Fairlead: every target sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The folder dns/ at the root must never hide dnspython: keep the checkout off sys.path.
export PYTHONSAFEPATH := 1

.PHONY: install demo test lint types bench clean
install: $(STAMP)

$(STAMP): pyproject.toml setup.py $(wildcard */*.pxd) $(shell sed -n 's/^COMPILED.*//p' setup.py)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: install
	ONCE=$(ONCE) $(BIN)/python examples/demo.py

servers: install
	sh tests/get-servers.sh

test: install
	sh tests/get-servers.sh
	$(BIN)/pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	cd build/view && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p fairlead -p tests

bench: install
	$(BIN)/python bench/run.py

clean:
	rm -rf build $(VENV) .servers
