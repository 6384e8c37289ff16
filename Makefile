# Every target sets up what it needs in .venv; nothing has to be installed or activated by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test test-slow test-gpu check format clean

help:
	@echo "make demo       show what works on this machine"
	@echo "make test       the fast tests (CPU)"
	@echo "make test-slow  the slow tests (CPU)"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make check      ruff and mypy"
	@echo "make format     let ruff format and fix"

# torch first and pinned by constraints.txt, so that nothing later pulls another build of it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hourllava needs Python 3.11 or newer; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch numpy
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	@echo "--- a generated video of two minutes, watched once and asked (nano is not trained yet: its answer is noise)"
	$(BIN)/hourllava world make --out out/demo --videos 1 --minutes 2-2
	$(BIN)/hourllava ask out/demo/videos/marathonworld/train-0-00000.mp4 \
		"Which letter is shown first?" --max-new-tokens 16
	@echo "--- how far this library is from the released model"
	$(BIN)/python tests/parity/check.py tests/parity/golden

test: $(READY)
	$(BIN)/pytest -n auto

test-slow: $(READY)
	$(BIN)/pytest -n auto -m slow

test-gpu: $(READY)
	$(BIN)/pytest -m gpu

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
