# make run: set up, then the whole platform with a simulated fleet, on embedded parts.
# make test: set up, then every test that this machine can run.
# make kafka: bring Apache Kafka's jars from Maven Central, for `tpstream up --kafka apache` and for tests.
# make fault: stop, kill, fill and pause parts of a running platform, and hold the ledger against the store;
#   then the same on Apache Kafka in random order. FULL=1: each fault five times (docs/guarantees.md).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test kafka fault check fix bench lock clean setup system

run: setup
	@$(BIN)/tpstream up --simulate

setup: $(STAMP)

$(STAMP): requirements.txt setup.cfg pyproject.toml
	@echo "Making the virtual environment in $(VENV) (once; about a minute) …"
	@$(PYTHON) -m venv $(VENV) || { echo "Python 3.11 with venv is needed: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-virtualenv -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Installed."

system:
	@sh tests/system-packages.sh

test: setup system
	@$(BIN)/python -m pytest tests/unit tests/contract tests/integration tests/e2e

kafka:
	@sh deploy/kafka/jars.sh

fault: setup system
	@sh deploy/kafka/jars.sh || [ -z "$(FULL)" ]
	@$(BIN)/python -m pytest tests/fault
	@PYTHONPATH=tests $(BIN)/python -m fault.campaign $(if $(FULL),--full --write,--if-possible)

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python schemas/check.py
	@$(BIN)/python -m pytest tests/unit

fix: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup
	@$(BIN)/python -m benchmarks

lock:
	@rm -rf var/lock && $(PYTHON) -m venv var/lock
	@var/lock/bin/pip install --quiet setuptools wheel . -r requirements.in
	@var/lock/bin/pip freeze --all --exclude tpstream --exclude pip > requirements.txt

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache
