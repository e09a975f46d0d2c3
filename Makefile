# make demo: a first run on a crawl that the project makes itself; make test: all tests. Both install what they need into .venv.
PYTHON ?= python3.11
BIN := .venv/bin
CRAWL := demo/crawl.warc.gz

.PHONY: demo test lint bench clean

demo: .venv/installed $(CRAWL)
	$(BIN)/pagepairs run --input $(CRAWL) --output demo/out --encoder builtin
	$(BIN)/python examples/check_crawl.py --truth demo/truth.jsonl --output demo/out
	@echo "Open the report: $(CURDIR)/demo/out/report/report.html"

$(CRAWL): .venv/installed examples/make_crawl.py examples/crawl.py examples/scenes.py
	$(BIN)/python examples/make_crawl.py --output demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	for name in sources scan isolate pair shard formats embed decode report train_step reader run; do $(BIN)/python benchmarks/$$name.py || exit 1; done

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[examples]"
	touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv demo
