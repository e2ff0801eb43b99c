# Each target makes what it needs and says what it does. The environments are remade when their lock changes.

VENV   := .venv
BIN    := $(VENV)/bin
SECOND := .venv-compiled
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# A stamp carries the digest of what was installed, so that an environment is touched only when that changes.
digest   = $(shell cat $(1) requirements-build.lock pyproject.toml | sha256sum | cut -c1-16)
RUNTIME := $(VENV)/.runtime-$(call digest,requirements.lock)
TEST    := $(VENV)/.test-$(call digest,requirements-test.lock)
BENCH   := $(VENV)/.bench-$(call digest,requirements-bench.lock)
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Hashes of every file of a version, so that one lock serves Python 3.11 to 3.13; no address, so that pip's own
# configuration says where packages come from.
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options
SOURCES := certs proxy injector demo benchmarks remora.py setup.py

.DEFAULT_GOAL := help
.PHONY: help demo test e2e check bench image compiled lock clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(RUNTIME) ## run the small mesh: three workloads, their sidecars, who may call whom (DEMO_ARGS=--once: once and out)
	@$(BIN)/remora demo $(DEMO_ARGS)

test: $(TEST) ## run every test that needs no root and no Debian package (TEST_ARGS goes to pytest)
	@echo "== tests without root"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not debian" $(TEST_ARGS)

e2e: $(TEST) ## run the tests that need root or Debian's programs, which it installs (TEST_ARGS goes to pytest)
	@echo "== tests with real programs"
	@.ci/run packages
	@$(BIN)/python -m pytest -m debian $(TEST_ARGS)

check: $(TEST) ## lint, format and types
	@echo "== ruff check";  $(BIN)/ruff check .
	@echo "== ruff format"; $(BIN)/ruff format --check .
	@echo "== mypy";        $(BIN)/mypy $(SOURCES)

bench: $(BENCH) ## measure hops beside other proxies, in five minutes (BENCH_ARGS=--full: everything; --list: what there is)
	@$(BIN)/remora bench run $(BENCH_ARGS)

image: $(RUNTIME) ## build the container image with podman or buildah (IMAGE_ARGS="--base IMAGE --tag NAME --compile")
	@$(BIN)/python -m injector.image.build $(IMAGE_ARGS)

compiled: $(TEST) ## compile the byte path with mypyc (needs a C compiler): a wheel in dist/, installed in .venv-compiled
	@echo "== compiling the byte path"
	@rm -rf build dist/remora-*-cp*.whl
	@REMORA_COMPILE=1 $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .
	@test -x $(SECOND)/bin/python || { echo "== making $(SECOND)"; $(BIN)/python -m venv $(SECOND); }
	@echo "== installing requirements.lock and the compiled wheel into $(SECOND)"
	@$(SECOND)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements.lock
	@$(SECOND)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-index --force-reinstall \
		dist/remora-*-cp*.whl
	@$(SECOND)/bin/remora version

lock: ## choose the versions of all dependencies and write them down with hashes (LOCK_ARGS=--upgrade)
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip --disable-pip-version-check --quiet install "pip-tools==7.6.2"
	@$(COMPILE) $(LOCK_ARGS) --output-file requirements.lock pyproject.toml
	@$(COMPILE) $(LOCK_ARGS) -c requirements.lock --extra test --output-file requirements-test.lock pyproject.toml
	@$(COMPILE) $(LOCK_ARGS) -c requirements.lock --extra bench --output-file requirements-bench.lock pyproject.toml
	@$(COMPILE) $(LOCK_ARGS) --only-build-deps --build-deps-for wheel --output-file requirements-build.lock pyproject.toml
	@echo "written: $$(ls requirements*.lock | xargs)"
	@rm -rf .venv-lock

clean: ## remove the environments and everything that was built
	@rm -rf $(VENV) $(SECOND) .venv-lock build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -prune -exec rm -rf {} +

define install
	@test -n "$(PYTHON)" -o -x $(BIN)/python || { echo "Remora needs Python 3.11 or newer with venv and pip (Debian:" \
		"apt-get install python3-venv); name one with make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "== making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "== installing $(1)"
	@$(PIP) install --require-hashes -r requirements-build.lock -r $(1)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(2)*; touch $@
endef

$(RUNTIME): ; $(call install,requirements.lock,$(VENV)/.runtime-)
$(TEST): ; $(call install,requirements-test.lock,$(VENV)/.test-)
$(BENCH): ; $(call install,requirements-bench.lock,$(VENV)/.bench-)
