# Two commands on a fresh machine with Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test coverage check slow gpu matrix docs docs-check
demo: .venv/installed ; rm -rf runs/demo && OMP_NUM_THREADS=1 $(BIN)/sasrec train --recipe recipes/ml-100k.toml --train_dir runs/demo && $(BIN)/sasrec recommend runs/demo --user 1
# The profile ci draws the same inputs at every run; `pytest tests/property` draws new ones.
# A file's tests run in one process, so that what they share is made once.
# Three processes on two cores, because many tests wait for programs that they started.
test: .venv/installed ; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --hypothesis-profile=ci
coverage: .venv/installed ; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --hypothesis-profile=ci
slow: .venv/installed ; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout=3600
# On a machine with an accelerator: parity with the CPU, bits, stalls, step times.
gpu: .venv/installed ; $(BIN)/python benchmarks/gpu.py
# The suite on each Python here (PYTHONS=…), with the pinned and with the newest releases (KINDS=…).
matrix: ; .ci/matrix
# The site, in build/docs: open build/docs/index.html.
docs: .venv/docs ; $(BIN)/python docs/tools/reference.py && $(BIN)/python -m sphinx -E -a -W --keep-going -q -b html docs build/docs
# Each command and snippet of the pages; SLOW=--slow adds those that take minutes.
docs-check: .venv/docs ; $(BIN)/python docs/tools/play.py --check $(SLOW)
check: .venv/installed ; $(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@
