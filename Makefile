# make demo and make test set everything up themselves: the venv is made when the lock file is newer than it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: venv demo test check bench peers cluster trackers clean lock docs

venv: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("ownchat needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV) (once, about two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv
	@$(BIN)/ownchat demo $(ARGS)
	@echo '(ownchat is $(BIN)/ownchat; for the short name: source $(BIN)/activate)'

# a process for each core, each with one thread; make test ARGS="-m ''" runs the slow ones, too
test: venv
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

# what CI runs beside the tests
check: venv
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/ruff format --check src tests benchmarks
	@$(BIN)/mypy

# beside TRL, transformers' Trainer and LitGPT; make bench ARGS="--data all --method all", see docs/benchmarks.md
bench: peers
	@$(BIN)/python benchmarks/train.py $(ARGS)

# TRL, whose losses ours are compared with, and what it needs
peers: venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock --requirement requirements-bench.lock

# daft and ray, for data.engine: ray; beside the exact versions of everything else
cluster: venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock --requirement requirements-cluster.lock

# tensorboard, wandb, mlflow and optuna, for train.trackers and ownchat sweep --sampler optuna
trackers: venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock --requirement requirements-trackers.lock

# the exact versions of an environment that was made from pyproject.toml; torch's local build tag differs by platform
lock: venv
	@$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu//; s/+cu[0-9]*//' | grep -v '^pip==' > requirements.lock

# the pages that are made from the code
docs: venv
	@$(BIN)/python -c 'from ownchat.config import options_page; print(options_page(), end="")' > docs/configuration.md

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
