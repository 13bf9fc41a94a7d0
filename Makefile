# The two commands that matter: `make demo` and `make test`. Both set up what they need on a fresh machine.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= $(HEADRACE_DATA)

.PHONY: demo demo-learning test test-s3 lint bench bench-accuracy format clean

# One environment with everything; a change of pyproject.toml renews it.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/headrace demo

# The learning path on Apache Kafka: needs Java 17 and, the first time, Maven.
demo-learning: $(VENV)/.installed
	$(BIN)/headrace demo --learning

# Unit, contract (in-memory, embedded and real Apache Kafka) and end-to-end tests.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow"

# The stores' contract on S3 too. Its packages are not in dev: beside the others pip looks through hundreds of boto3.
test-s3: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 's3fs>=2026.9' 'aiobotocore[boto3]>=3.10' 'moto[server]>=5.2'
	$(BIN)/python -m pytest tests/contract/store

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m headrace_schemas.asyncapi --check

# Model throughput on one thread. DATA (or HEADRACE_DATA) is a folder of NAME/*.jsonl (fields text and label).
bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/backends.py $(DATA)/ag_news

bench-accuracy: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/accuracy.py $(DATA)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
