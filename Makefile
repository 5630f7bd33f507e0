# Everything works on a bare machine with Python 3.11: each target sets up .venv first where that has not been done.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUNS := .venv/.runs
READY := .venv/.ready
LLAMA := .venv/.llama

.PHONY: setup demo test lint bench docs clean

setup: $(READY)

# linnet, and what proves its exports: enough for a first run.
$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "linnet needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) -e '.[gguf,hf]'
	touch $(RUNS)

# Everything that it is tested and compared with.
$(READY): $(RUNS)
	$(PIP) -e '.[dev]'
	touch $(READY)

# llama.cpp is built from source, in two minutes on two cores; without a compiler, its tests are skipped.
$(LLAMA): $(READY)
	@if command -v c++ >/dev/null; then \
	  echo "building llama-cpp-python for the tests of GGUF files"; \
	  CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1" $(PIP) -e '.[llama-cpp]' \
	    || echo "llama-cpp-python could not be built: the tests against llama.cpp are skipped"; \
	else echo "no C++ compiler: the tests against llama.cpp are skipped"; fi
	@touch $(LLAMA)

# A model that did not exist before, in about two minutes on two cores.
demo: $(RUNS)
	$(BIN)/linnet train configs/demo.yaml
	@echo
	@echo "Three stories by the model that was just made:"
	@$(BIN)/linnet generate runs/demo --num-samples 3 --seed 1 --temperature 0.8 --max-new-tokens 250
	@echo
	$(BIN)/linnet eval runs/demo
	@echo
	@echo "runs/demo holds the run: config.yaml, train.log, metrics.jsonl, samples.jsonl, checkpoints, tokenizer."
	@echo "Curves:        $(BIN)/tensorboard --logdir runs"
	@echo "More stories:  $(BIN)/linnet generate runs/demo --prompt 'One day'"
	@echo "Train longer:  $(BIN)/linnet train configs/demo.yaml --train.max_steps 4000 --train.max_seconds null --run_dir runs/longer"

test: $(LLAMA)
	$(BIN)/pytest -n 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/training.py

# The configuration reference, from the settings themselves.
docs: $(READY)
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
