# Each target sets up what it needs, in .venv, from constraints.txt. Python 3.11 and make are enough to start.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: demo test lint check clean

demo: $(READY)  ## train on 100 drawings with the demo teacher (6 to 25 minutes on two CPU cores)
	$(PY) train.py --kd=demo --data=demo

test: $(READY)  ## the test suite: CPU only, no network
	$(PY) -m pytest

lint: $(READY)  ## format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

check: lint test  ## what CI runs

$(READY): constraints.txt setup.py
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build
