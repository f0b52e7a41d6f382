# Everything runs in a virtual environment of its own, .venv, made on first use.
PYTHON ?= python3
EXTRAS ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-engines format clean

demo: $(VENV)/demo.stamp  ## The whole job on a made-up catalogue, with a report.
	$(BIN)/python -m tools.demo --output demo

test: $(VENV)/dev.stamp  ## Format, lint, types, tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	$(BIN)/pytest --numprocesses=2

test-engines: $(VENV)/dev.stamp  ## The shard job on other runners of Beam and on an object store, see docs/engines.md.
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[engines]'
	$(BIN)/pytest -m engines -rs tests/engines_test.py tests/export/predict_job_test.py

format: $(VENV)/dev.stamp  ## Puts the code into its form.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Removes the environment and the demo.
	rm -rf $(VENV) demo

$(VENV)/demo.stamp: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]' --constraint constraints.txt
	touch $@

$(VENV)/dev.stamp: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS),dev]' --constraint constraints.txt
	touch $@ $(VENV)/demo.stamp
