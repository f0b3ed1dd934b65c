# Everything a new machine needs is Python 3.11 or newer and this file: `make help`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install digits train test test-slow soak lint format clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18
	@echo
	@echo '  make train ARGS="model=strided aug=basic"'

install: $(STAMP) ## make .venv and install (the other targets do so by themselves)

# Runs again only when pyproject.toml changes.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("s9 needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

digits: $(STAMP) ## train on the embedded digits, about a minute: no download, no account
	$(RUN) -m s9.train data=digits aug=none trainer.epochs=8 trainer.batch_size=64 wandb=offline

train: $(STAMP) ## train: make train ARGS="model=strided aug=basic"
	$(RUN) -m s9.train $(ARGS)

test: $(STAMP) ## the tests that a person waits for: ten to seventeen minutes on two cores
	$(RUN) -m pytest -q -n 2 --dist loadfile -m "not slow" $(ARGS)

test-slow: $(STAMP) ## the other tests; those on CIFAR-10 run where S9_CIFAR10_IMAGES names the images
	$(RUN) -m pytest -q -n 2 --dist loadfile -m slow $(ARGS)

soak: $(STAMP) ## kill runs at 60 random instants and sweeps at 20, resume them, compare: half an hour at most
	$(RUN) tests/soak.py $(ARGS)
	$(RUN) -m tests.soak_sweep

lint: $(STAMP) ## format check, lint, types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(STAMP) ## format and mend what can be mended
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean: ## remove .venv and caches; outputs/ and data/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache s9.egg-info
