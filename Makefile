# `make` alone lists the targets. Times are for two CPU cores, after set-up.

VENV ?= .venv
OUT ?= out
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

# A Python that fits: $(PYTHON) if given, else the first of these that is 3.11 or newer and can make environments.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

# One thread a test process: the processes are the parallelism.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadgroup

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-quick test check lint types imports format proto proto-check tour bench bench-round bench-empty bench-folding bench-rules bench-robustness bench-growth bench-ledger bench-codecs bench-snapshots bench-peers bench-wan bench-scale bench-training bench-convergence fuzz faults soak model clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## .venv with everything (a few minutes, once; every target below does it when needed)

demo: $(STAMP)  ## four institutions train one GPT; result in out/demo (under 4 minutes)
	$(BIN)/llmasos demo --out $(OUT)/demo

demo-quick: $(STAMP)  ## the same with a smaller plan, out/demo-quick (about a minute)
	$(BIN)/llmasos demo --quick --out $(OUT)/demo-quick

test: $(STAMP)  ## all tests (20 minutes on two cores)
	$(PYTEST) tests

check: lint types imports proto-check test  ## everything that CI checks (test, and a minute more)

lint: $(STAMP)  ## ruff: style and formatting; only exact operations in the reducer (seconds)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m scripts.check_exactness

types: $(STAMP)  ## mypy, strict, on our packages (under a minute)
	$(BIN)/mypy

imports: $(STAMP)  ## import-linter: who may import whom (seconds)
	$(BIN)/lint-imports

format: $(STAMP)  ## ruff: put style and formatting right (seconds)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP)  ## generate common/wire/v1 from proto/ (seconds)
	$(BIN)/python scripts/make_proto.py

proto-check: $(STAMP)  ## is common/wire/v1 what proto/ says? (seconds)
	$(BIN)/python scripts/make_proto.py --check

tour: $(STAMP)  ## run a small federation and write its messages into docs/tour.md (seconds)
	$(BIN)/python -m scripts.make_tour

bench-ledger: $(STAMP)  ## appending beside plain SQLite, proofs in a tree of a million (minutes)
	$(BIN)/python benchmarks/ledger.py

bench-codecs: $(STAMP)  ## each codec's speed beside memcpy (under a minute)
	$(BIN)/python benchmarks/codecs.py

bench-snapshots: $(STAMP)  ## what snapshots cost local training (a minute)
	$(BIN)/python benchmarks/snapshots.py

bench-training: $(STAMP)  ## local training beside a hand-written loop and transformers' Trainer (two minutes)
	$(BIN)/python benchmarks/training.py

bench-convergence: $(STAMP)  ## federated beside central training, three seeds; table and plot in out/ (an hour)
	@mkdir -p $(OUT)
	nice -n 10 $(BIN)/python benchmarks/convergence.py --folder $(OUT)/convergence --plot $(OUT)/convergence.svg

bench-round: $(STAMP)  ## a round beside bare gRPC: 100, 400 and 1000 MB, table and plot in out/ (minutes)
	@mkdir -p $(OUT)
	$(BIN)/python benchmarks/round_cost.py --plot $(OUT)/round_cost.svg

bench-empty: $(STAMP)  ## 20 rounds that move nothing, beside fsync (under a minute)
	$(BIN)/python benchmarks/empty_rounds.py

bench-folding: $(STAMP)  ## the reducer alone beside memcpy, each codec (under a minute)
	$(BIN)/python benchmarks/folding.py

bench-robustness: $(STAMP)  ## what six attacks do to each aggregation rule; table and plot in out/ (minutes)
	@mkdir -p $(OUT)
	$(BIN)/python benchmarks/robustness.py --plot $(OUT)/robustness.svg

bench-rules: $(STAMP)  ## each aggregation rule beside the weighted mean, 4 to 64 deltas (minutes)
	$(BIN)/python benchmarks/rules.py

bench-growth: $(STAMP)  ## rounds over sizes, and over 4 to 64 simulated senders; table and plot in out/ (minutes)
	@mkdir -p $(OUT)
	$(BIN)/python benchmarks/growth.py --plot $(OUT)/growth.svg

bench: bench-round bench-empty bench-folding bench-growth bench-ledger bench-codecs  ## all of these, one after the other

fuzz: $(STAMP)  ## hostile bytes to every reader, FUZZ_SECONDS=60 each (minutes; needs the extra `fuzz`, and says so)
	$(BIN)/python -m tests.fuzz $(TARGETS)

SEED ?= 1
KILLS ?= 200
faults: $(STAMP)  ## kills and broken networks at random instants, SEED=1 KILLS=200: lost or wrong fails (10 minutes)
	$(BIN)/python -m tests.faults --seed $(SEED) --kills $(KILLS)

soak: $(STAMP)  ## 500 rounds of 8 participants with faults: memory, descriptors, threads, disk flat; plot in out/ (minutes)
	@mkdir -p $(OUT)
	$(BIN)/python -m tests.faults.soak --rounds 500 --participants 8 --seed $(SEED) --plot $(OUT)/soak.svg

model: $(STAMP)  ## every state of a small federation's rounds, by spin (Debian's package spin; two minutes, 1 GB)
	$(BIN)/python -m tests.model

bench-peers: $(STAMP)  ## a round's cost beside Flower and NVFLARE, which it installs in out/peers: 100 MB (10 minutes)
	$(BIN)/python -m benchmarks.peers --mb 100 --participants 4 --rounds 3 --folder $(OUT)/peers

bench-wan: $(STAMP)  ## transfers over 100 ms and 1 % loss beside iperf3, as root (minutes)
	$(BIN)/python -m benchmarks.wan --streams 1,4,8

bench-scale: $(STAMP)  ## 10, 100 and 1000 virtual institutions, beside Flower's FedAvg simulation (an hour or more)
	$(BIN)/python benchmarks/scale.py

clean:  ## remove results and caches; .venv stays
	rm -rf $(OUT) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamp is older than one of these when what must be installed, or compiled, has changed. An environment whose Python
# is gone (a moved folder, an upgraded system) is made anew.
$(STAMP): pyproject.toml constraints.txt scripts/hatch_build.py common/compiled/loops.c
	@python=''; for candidate in $(PYTHONS); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "error: none of these is a Python 3.11 or newer that can make environments: $(PYTHONS)" >&2; \
	  echo "  fix: install one (Debian: apt install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3" >&2; \
	  exit 2; fi; \
	if ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
	  echo "setting up $(VENV) with $$("$$python" --version); this takes a few minutes, once" >&2; \
	  "$$python" -m venv --clear $(VENV); fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev,evaluate,flower,notebook,tracking,tune]'
	@touch $@
