# Two commands: `make demo` and `make test`. Both set up what they need, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
MODEL := $(VENV)/.model-done

.PHONY: demo test lint format setup clean

demo: $(MODEL)
	$(BIN)/expunge run

test: $(SETUP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(SETUP)

# torch first and pinned: an unpinned one, asked for by another package, may bring another build
$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "expunge needs Python 3.10 or newer; try: make PYTHON=python3.11 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $@

$(MODEL): $(SETUP)
	$(BIN)/expunge models pull smollm2-135m
	$(BIN)/expunge models pull all-minilm-l6-v2
	@touch $@

clean:
	rm -rf $(VENV)
