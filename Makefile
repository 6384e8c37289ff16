# Every target sets up what it needs in .venv; nothing has to be installed or activated by hand.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The docs are built without the library's own dependencies: docstrings are read, not imported.
DOCS_BIN := .venv-docs/bin
DOCS_READY := .venv-docs/.ready
# lmms-eval asks for other packages than the library does, so it has an environment of its own.
LMMS_BIN := .venv-lmms-eval/bin
LMMS_READY := .venv-lmms-eval/.ready
# Ray is large, and only slow tests start a cluster.
RAY_READY := $(VENV)/.ready-ray
# Tests run in as many processes as there are cores; one thread is enough for each of them.
test test-slow test-fuzz: export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Compiled modules are kept: tests start many processes that import the library.
test test-slow test-fuzz: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo serve test test-slow test-fuzz test-gpu test-browser check wheel format docs clean

help:
	@echo "make demo       an hour of new video, watched and asked in about a minute"
	@echo "make serve      a server with a page at http://127.0.0.1:8000"
	@echo "make test       the fast tests (CPU)"
	@echo "make test-slow  the slow tests (CPU)"
	@echo "make test-fuzz  damaged files of every kind through every door (CPU, some minutes)"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make test-browser  the page in Chromium"
	@echo "make check      ruff and mypy"
	@echo "make wheel      the wheel in dist, tried in an empty environment"
	@echo "make format     let ruff format and fix"
	@echo "make docs       build the documentation as a site, in site/"

# torch first and pinned by the constraints, so that nothing later pulls another build of it.
# --no-compile: pip would compile every module of every package, for a minute and a half; few of them are ever imported.
$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hourllava needs Python 3.11 or newer; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS) torch numpy
	$(BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $(READY)

$(DOCS_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	$(DOCS_BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > .venv-docs/requirements.txt
	$(DOCS_BIN)/pip install --quiet --no-compile --constraint constraints.txt --requirement .venv-docs/requirements.txt
	touch $(DOCS_READY)

# --no-deps: lmms-eval's own list demands av below 16 and torchvision, of which there is no CPU build; neither is used.
$(LMMS_READY): pyproject.toml $(CONSTRAINTS) lmms-eval-requirements.txt
	$(PYTHON) -m venv .venv-lmms-eval
	$(LMMS_BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS) torch numpy
	$(LMMS_BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[world]' --requirement lmms-eval-requirements.txt
	$(LMMS_BIN)/pip install --quiet --no-compile --no-deps lmms_eval==0.7.3 decord
	touch $(LMMS_READY)

$(RAY_READY): $(READY)
	$(BIN)/pip install --quiet --no-compile --constraint $(CONSTRAINTS) --editable '.[ray]'
	touch $(RAY_READY)

demo: $(READY)
	$(BIN)/hourllava demo $(if $(SEED),--seed $(SEED))
	@echo '(not on your PATH? The command is $(BIN)/hourllava in this folder.)'
	@echo
	@echo "How far this library is from the released model:"
	$(BIN)/python tests/parity/check.py tests/parity/golden

serve: $(READY)
	$(BIN)/hourllava serve

test: $(READY)
	$(BIN)/pytest -n auto

test-slow: $(READY) $(RAY_READY) $(DOCS_READY) $(LMMS_READY)
	$(BIN)/pytest -n auto -m "slow or hypothesis"

test-fuzz: $(READY)
	$(BIN)/pytest -n auto -m fuzz -rP

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

# Debian's Chromium and Node; two packages from npm go beside the tests.
PAGE_TESTS := tests/serving/page
$(PAGE_TESTS)/node_modules/.ready: $(PAGE_TESTS)/package.json
	{ command -v chromium || command -v google-chrome; } && command -v npm || \
		{ apt-get update -qq && apt-get install -y -qq chromium nodejs npm; }
	npm install --prefix $(PAGE_TESTS) --no-package-lock --no-audit --no-fund --silent
	touch $@

test-browser: $(READY) $(PAGE_TESTS)/node_modules/.ready
	$(BIN)/pytest -m browser $(PAGE_TESTS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Built, installed where nothing else is, and used: its commands, its shipped files, the nano model.
wheel: $(READY)
	rm -rf dist $(VENV)-wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install --quiet --no-compile --constraint $(CONSTRAINTS) torch numpy
	$(VENV)-wheel/bin/pip install --quiet --no-compile --constraint $(CONSTRAINTS) dist/*.whl
	cd $(VENV)-wheel && bin/hourllava info && bin/hourllava demo --minutes 1 --seed 1 --out demo
	rm -rf $(VENV)-wheel

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Strict: a page outside the navigation, a dead link or anchor, or anything loaded from another host ends it.
docs: $(DOCS_READY)
	$(DOCS_BIN)/zensical build --strict --clean
	$(DOCS_BIN)/python tests/site_check.py site

clean:
	rm -rf $(VENV) $(VENV)-wheel .venv-docs .venv-lmms-eval site .cache dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(PAGE_TESTS)/node_modules
