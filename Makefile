# Valkeep's one-word jobs. Every target does all its own set-up on a fresh machine with Python >= 3.11 and make, as root or not:
# the virtual environment in .venv, the locked and hashed dependencies, the compiled wire and, where it needs them, server binaries.
#
#   make rehearse   the story in one command: a live Redis becomes a live Valkey, proven
#   make test       the tests (<= 10 minutes on 2 cores); make test-moves, test-drills and test-services are the rest
#   make check      format, lint, types, import contracts, tree and documentation checks
#   make help       the rest
#
# PYTHON=python3.12 make …    uses another interpreter for .venv.      ARGS='…' is passed on to rehearse, test and the like.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help venv build servers rehearse test test-moves test-drills test-services test-wire test-interpreted coverage check format lock bench-move fuzz soak clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?/\1\t/' | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'

# ---------------------------------------------------------------------------------------------------------------- set-up

# The stamp is newer than the lock that was installed; a changed lock or pyproject.toml installs again.
$(VENV)/.ready: requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Valkeep needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Remedy: PYTHON=/path/to/python3.11 make" >&2; exit 4; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "$(PYTHON) has no ensurepip, so it can make no virtual environment. Remedy: install the package python$$v-venv" \
	         "(Debian, Ubuntu: apt-get install python3-venv; Fedora has it in python3-pip), then make again." >&2; exit 4; }
	@test -x $(PY) && $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "the locked dependencies go into $(VENV), which takes a minute or two, once …"
	$(PY) -m pip install --quiet --require-hashes --requirement requirements/dev.lock
	VALKEEP_COMPILE=never $(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

venv: $(VENV)/.ready ## .venv with the locked dependencies and Valkeep itself, editable

build: $(VENV)/.ready ## compile the hot path in place; goes by the sources' hash, so it is quick and never stale
	@$(PY) setup.py --quiet build_ext --inplace

servers: venv ## fetch the test servers (Redis 7.0, 8.0; Valkey 8.0, 8.1, 9.1) into the cache
	@$(VENV)/bin/valkeep servers --fetch

# ------------------------------------------------------------------------------------------------------------------ jobs

rehearse: build servers ## the whole move on embedded servers, proven (ARGS='--html story.html')
	@$(VENV)/bin/valkeep rehearse --json build/rehearse/rehearsal.json --html build/rehearse/rehearsal.html $(ARGS)

test: build servers ## the tests; the wire suite also on its interpreted sources
	@.ci/tests $(ARGS)

test-moves: build servers ## whole migrations in production: links that break, push, files, scan, external targets, the way back
	@$(PY) -m pytest -n $(WORKERS) tests/moves $(ARGS)

test-drills: build servers ## whole drills, lies, client libraries, up and the pytest plugin, on real topologies
	@$(PY) -m pytest -n $(WORKERS) tests/drill $(ARGS)

test-services: build servers ## the Compose files and the compose runtime on real containers (root; needs Debian's docker.io)
	@.ci/services $(ARGS)

test-wire: build ## only the wire suite, compiled
	@$(PY) -m pytest -n $(WORKERS) $$(.ci/wire-tests) $(ARGS)

test-interpreted: build ## only the wire suite, on the interpreted sources
	@VALKEEP_TEST_WIRE=interpreted $(PY) -m pytest -n $(WORKERS) $$(.ci/wire-tests) $(ARGS)

coverage: build servers ## how much of the code the tests run, subprocesses included (takes longer than make test)
	@.ci/coverage $(ARGS)

check: build ## format, lint, types, import contracts, tree and documentation
	@$(PY) .ci/check.py $(ARGS)

format: venv ## let ruff format and fix what it can
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix --quiet .

# uv only writes the lock; nothing at run time needs it. No index address ends up in the file (checked by `make check`).
lock: ## write requirements/*.lock anew (needs uv on PATH)
	@command -v uv >/dev/null || { echo "make lock needs uv. Remedy: pip install uv" >&2; exit 4; }
	@for name in dev; do uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --no-annotate --custom-compile-command 'make lock' --extra local --extra clients pyproject.toml requirements/$$name.in --output-file requirements/$$name.lock; done

# A missing piece is said, with exit code 4, and not passed over.
define run-script
	@test -e $(1) || { echo "$(1) does not exist in this version, so 'make $@' can not run." >&2; exit 4; }
	@VALKEEP_COMPILE=require $(PY) setup.py --quiet build_ext --inplace
	@$(PY) $(1) $(ARGS)
endef

bench-move: build servers ## native full sync against the same through the gateway, interleaved, ratios
	$(call run-script,bench/move.py)

fuzz: build ## the long seeded mutator over wire (ARGS='--seconds 600')
	$(call run-script,tests/fuzz/mutate.py)

soak: build servers ## kill -9 at every step of the cut-over; drills that must not lie, also on a busy machine (takes an hour)
	$(call run-script,tests/soak/cutover.py)
	$(call run-script,tests/soak/links.py)
	$(call run-script,tests/soak/pushing.py)
	$(call run-script,tests/soak/files.py)
	$(call run-script,tests/soak/rollback.py)
	$(call run-script,tests/soak/drills.py)
	$(call run-script,tests/soak/scanning.py)
	$(call run-script,tests/soak/clusters.py)

clean: ## what builds leave behind
	@rm -rf build dist .cache .hypothesis src/*.egg-info; find src -name '*.so' -delete; find src tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## and the virtual environment
	@rm -rf $(VENV)
