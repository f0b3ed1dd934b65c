# Everything a new machine needs is Python 3.11 or newer and this file: `make help`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install digits train test test-slow soak gpu gpu-pack lint format clean

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

# With .venv or, on a machine without a network, without; OUT= is the folder of results.
gpu: ## check and measure on a GPU, nine minutes a call, OUT=outputs/gpu: s9/benchmarks/README.md
	$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) -m s9.benchmarks.gpu out=$(or $(OUT),outputs/gpu) $(ARGS)

# All that s9 and pytest need but torch, torchvision, numpy, scipy, scikit-learn, matplotlib, pillow and opencv, which
# the GPU machine has; a test compares the list with pyproject.toml. The versions are those of .venv.
GPU_PYTHON ?= 3.12
GPU_WHEELS := \
	albucore albumentations annotated-types anyio captum certifi charset-normalizer click cwevals distro filelock \
	googleapis-common-protos h11 httpcore httpx hydra-core idna imagehash iniconfig jinja2 markdown-it-py markupsafe \
	mdurl omegaconf opentelemetry-api opentelemetry-exporter-http-transport opentelemetry-exporter-otlp-common \
	opentelemetry-exporter-otlp-proto-common opentelemetry-exporter-otlp-proto-http opentelemetry-proto \
	opentelemetry-sdk opentelemetry-semantic-conventions packaging platformdirs pluggy protobuf pydantic \
	pydantic-core pygments pytest pytest-timeout pywavelets pyyaml requests rich safetensors simsimd sniffio \
	stringzilla tqdm typing-extensions typing-inspection urllib3 wandb xxhash
PLATFORMS := $(addprefix --platform=,$(addsuffix _x86_64,manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014))
gpu-pack: $(STAMP) ## collect in .gpu what make gpu needs on a machine without a network: wheels, images
	rm -rf .gpu/wheels && mkdir -p .gpu/wheels
	$(RUN) -m pip freeze --exclude-editable > .gpu/versions.txt
	$(RUN) -m pip download --quiet --no-deps --only-binary=:all: --python-version=$(GPU_PYTHON) --implementation=cp \
		$(PLATFORMS) --constraint=.gpu/versions.txt --dest=.gpu/wheels $(GPU_WHEELS)
	$(RUN) -m pip wheel --quiet --no-deps --wheel-dir=.gpu/wheels --constraint=.gpu/versions.txt antlr4-python3-runtime
	test ! -d data/cifar10-images || tar -chJf .gpu/cifar10-images.tar.xz -C data cifar10-images
	@du -sh .gpu

lint: $(STAMP) ## format check, lint, types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

format: $(STAMP) ## format and mend what can be mended
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean: ## remove .venv and caches; outputs/ and data/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache s9.egg-info
