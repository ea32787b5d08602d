# What a person types: `make run` and `make test`. Both work from a bare clone that has only python3, python3-venv
# and make; the environment goes to .venv and is made again only when a lock file or pyproject.toml changed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input
FILE   ?= backends.yaml
TESTS  ?= tests
ARGS   ?=

# Tests start `lb` more than a thousand times: without kept bytecode each start compiles every source anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test unit compiled test-compiled lint check types model model-e2e bench docs lock clean env dev-env bench-env

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: env ## start lb with demo backends (FILE=backends.yaml)
	@exec $(BIN)/lb run $(FILE) --demo $(ARGS)

PYTEST := $(BIN)/python -m pytest
# Most tests wait for processes more than they compute, so there are more of them at a time than processors; the long
# files come first.
JOBS ?= 4

# Tests that measure time come last, one at a time. Either part may be empty (pytest's exit status 5), but not both.
test: lint ## everything: ruff, mypy, import contracts, pytest (TESTS=tests/unit to pick)
	@$(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not timing" $(TESTS) $(ARGS); first=$$?; \
	case $$first in 0|5) ;; *) exit $$first;; esac; \
	$(PYTEST) -n 0 -m timing $(TESTS) $(ARGS); last=$$?; \
	case $$last in 5) exit $$first;; *) exit $$last;; esac

# They compute and wait for nothing: as many at a time as processors.
unit: dev-env ## the tests of single modules, without lint: half a minute
	@$(PYTEST) -n auto --dist worksteal -p no:schemathesis -m "not timing and not slow" tests/unit $(ARGS)

compiled: dev-env ## the hot modules compiled, in build/compiled; the checkout stays interpreted
	@$(BIN)/python -m build_backend.tree

# What runs there: whatever passes requests, and a part of what starts processes.
COMPILED := tests/unit tests/wire tests/worker $(addprefix tests/e2e/test_,serving.py drain.py switch.py reload.py)

test-compiled: compiled ## unit and wire tests, and a part of e2e, on the compiled form (TESTS=tests/unit to pick)
	cd build/compiled && PYTHONPATH="$$PWD" LB_EXPECT_FORM=compiled $(abspath $(BIN))/python -m pytest -n $(JOBS) \
	  --dist loadfile --no-loadscope-reorder -m "not timing" $(if $(filter-out tests,$(TESTS)),$(TESTS),$(COMPILED)) $(ARGS)

lint: dev-env ## ruff, formatting, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

model: dev-env ## random runs of all features against the promise, in one process (ARGS="--steps 200000 --seeds 500")
	$(BIN)/python -m tests.model $(ARGS)

model-e2e: dev-env ## the same with real processes, in real time (ARGS="--minutes 60")
	$(BIN)/python -m tests.model.e2e $(ARGS)

bench: bench-env ## compare with nginx, HAProxy, Envoy and Caddy (ARGS=--help)
	$(BIN)/python -m benchmarks $(ARGS)

docs: dev-env ## write the generated reference pages again
	@mkdir -p build
	$(BIN)/python -m lb.config.output.reference > build/page.md && mv build/page.md docs/configuration.md
	$(BIN)/python -m lb.control.reference

clean: ## remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# ── environment ──────────────────────────────────────────────────────────────────────────────────────────────────
# Three stamps: what `lb` needs, what its tests need as well, what the benchmarks' pictures need as well.
# pip installs nothing whose hash is not in the lock; the project itself goes in without build isolation, so that
# the build tool, too, is the locked one.

env: $(VENV)/.run
dev-env: $(VENV)/.dev
bench-env: $(VENV)/.bench

# A Python that was upgraded or moved away leaves a .venv that cannot start: such a one is made anew.
ifneq ($(shell $(BIN)/python -c 'print("ok")' 2>/dev/null),ok)
$(shell rm -f $(BIN)/python $(VENV)/.run $(VENV)/.dev $(VENV)/.bench)
endif

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lb needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments. On Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

define install
	$(PIP) install --quiet --require-hashes -r $(1)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(VENV)/.run: requirements.lock pyproject.toml build_backend/backend.py | $(BIN)/python
	$(call install,requirements.lock)

$(VENV)/.dev: requirements-dev.lock pyproject.toml build_backend/backend.py | $(BIN)/python
	$(call install,requirements-dev.lock)

$(VENV)/.bench: requirements-bench.lock $(VENV)/.dev
	$(call install,requirements-bench.lock)

# pip's own settings are set aside, so that a lock names what the public index offers: every wheel, for every
# supported Python, and the source as well.
COMPILE = env -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS PIP_CONFIG_FILE=/dev/null \
	CUSTOM_COMPILE_COMMAND='make lock' build/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	--no-header --no-emit-index-url --no-emit-trusted-host --no-emit-options --no-emit-find-links
PROJECT = --build-deps-for editable --extra grpc

lock: ## resolve the lock files again (ARGS=--upgrade)
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet pip-tools
	$(COMPILE) $(PROJECT) $(ARGS) --output-file requirements.lock pyproject.toml
	$(COMPILE) $(PROJECT) $(ARGS) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) $(PROJECT) $(ARGS) --extra dev --extra bench --constraint requirements-dev.lock --output-file requirements-bench.lock pyproject.toml
	$(COMPILE) $(ARGS) --constraint requirements-dev.lock --output-file examples/greeting-service/requirements.txt examples/greeting-service/requirements.in
	echo 'mypy>=2.4,<3' > build/lock/compile.in
	$(COMPILE) $(ARGS) --constraint requirements-dev.lock --output-file requirements-compile.lock build/lock/compile.in
