# Fairlead: every target sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
REQUESTS ?= 10000000
GIB    ?= 10
# A file's tests stay together: servers are started once for each. tests/conftest.py orders the files.
PARALLEL ?= -n 4 --dist loadfile --no-loadscope-reorder
# What is compiled (setup.py) is tested as plain sources, too, and sidecars made of them.
PURE   := tests/proxy tests/dns/test__datagrams.py tests/dns/test__fast.py tests/dns/test__limit.py tests/policy/test_decide.py \
	tests/policy/test_compile.py tests/policy/test_virtual_service_rows.py tests/policy/test_gateways.py tests/e2e/test_sidecar_from_manifests.py
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The folder dns/ at the root must never hide dnspython: keep the checkout off sys.path.
export PYTHONSAFEPATH := 1
# Sources are compiled once, not by each of the thousands of processes that tests start.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo servers test fuzz lint types bench soak clean
install: $(STAMP)

# Compiled modules are built again when they or their types change.
$(STAMP): pyproject.toml setup.py $(wildcard */*.pxd) $(patsubst %.pxd,%.py,$(wildcard */*.pxd))
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) 2>/dev/null || \
	  { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null && $(PYTHON) -m venv --clear $(VENV); } || \
	  { echo "make install: $(PYTHON) has no venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: install
	ONCE=$(ONCE) $(BIN)/python examples/demo.py

servers: install
	PYTHON=$(BIN)/python sh tests/get-servers.sh

test: install
	PYTHON=$(BIN)/python sh tests/get-servers.sh
	$(BIN)/pytest $(PARALLEL)
	FAIRLEAD_PURE=1 $(BIN)/pytest $(PARALLEL) $(PURE)

# At length: make fuzz SECONDS=600 ONLY=http1_requests
SECONDS ?= 60
fuzz: install
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) --only '$(ONLY)'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	cd build/view && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p fairlead -p tests -p bench

bench: install
	$(BIN)/python bench/run.py

soak: install
	$(BIN)/python bench/soak.py --requests $(REQUESTS)
	$(BIN)/python bench/memory.py --gib $(GIB)
	FAIRLEAD_PLANES_S=600 $(BIN)/pytest tests/e2e/test_control_planes.py -k nothing_is_lost

clean:
	rm -rf build $(VENV) .servers
