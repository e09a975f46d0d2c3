# make demo: a first run on a crawl that the project makes itself; make flink: the same on a Flink of this machine; make test: all tests.
# All install what they need into .venv.
PYTHON ?= python3.11
BIN := .venv/bin
CRAWL := demo/crawl.warc.gz
BENCHMARKS := sources scan isolate embed decode pair duplicates hashes contamination shard formats report run memory train_step reader metrics

# Versions other than those in the pom: make flink FLINK="-Dbeam=2.77.0 -Dflink=1.20"
FLINK ?=

.PHONY: demo flink test lint bench clean

demo: .venv/installed $(CRAWL)
	$(BIN)/pagepairs run --input $(CRAWL) --output demo/out --encoder builtin
	$(BIN)/python examples/check_crawl.py --truth demo/truth.jsonl --output demo/out
	@echo "Open the report: $(CURDIR)/demo/out/report/report.html"

flink: .venv/installed $(CRAWL) demo/flink-jars
	$(BIN)/python examples/flink.py --jars demo/flink-jars $(BIN)/pagepairs run --input $(CRAWL) --output demo/flink --encoder builtin
	$(BIN)/python examples/check_crawl.py --truth demo/truth.jsonl --output demo/flink

demo/flink-jars: examples/flink.pom.xml
	mvn --batch-mode --quiet -f examples/flink.pom.xml dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$@ $(FLINK)

$(CRAWL): .venv/installed examples/make_crawl.py examples/crawl.py examples/scenes.py
	$(BIN)/python examples/make_crawl.py --output demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-dev
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[examples]"
	touch $@

.venv/installed-dev: pyproject.toml .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv demo
