# make demo    the whole story on synthetic people, then the explorer (APP=0: without it)
# make test    all tests, in two processes
# make app     the explorer on runs/ or demo/runs/
# make book    run all notebooks on the demo and write them as HTML pages into book/
# make bench   measure speed and memory
# make lint    ruff

PYTHON ?= python3
OUT ?= demo
APP ?= 1
BOOK ?= book
BIN := .venv/bin

.PHONY: demo test app notebooks book bench lint clean

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) was found and Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/lab demo --out $(OUT) $(if $(filter 0,$(APP)),--no-app)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

app: .venv/installed
	$(BIN)/lab app

notebooks: .venv/installed
	$(BIN)/jupyter lab notebooks

book: .venv/installed
	$(BIN)/python notebooks/book.py render --folder $(OUT) --out $(BOOK)

bench: .venv/installed
	$(BIN)/python benchmarks/evaluation.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv demo book .pytest_cache .ruff_cache
