# make demo: a first run on a crawl that the project makes itself; make flink: the same on a Flink of this machine; make test: all tests.
# All install what they need into .venv.
PYTHON ?= python3.11
BIN := .venv/bin
CRAWL := demo/crawl.warc.gz
BENCHMARKS := sources scan isolate embed decode pair duplicates hashes contamination shard formats report run memory train_step reader metrics

# Versions other than those in the pom: make flink FLINK="-Dbeam=2.77.0 -Dflink=1.20"
FLINK ?=
EMPTY :=
# Jars of other versions stand in another folder, which the flags name.
JARS := demo/flink-jars$(subst =,-,$(subst $(EMPTY) $(EMPTY),,$(FLINK)))

.PHONY: demo flink test lint bench clean

demo: .venv/installed $(CRAWL)
	$(BIN)/pagepairs run --input $(CRAWL) --output demo/out --encoder builtin
	$(BIN)/python examples/check_crawl.py --truth demo/truth.jsonl --output demo/out
	@echo "Open the report: $(CURDIR)/demo/out/report/report.html"

flink: .venv/installed $(CRAWL) $(JARS)
	$(BIN)/python examples/flink.py --jars $(JARS) $(BIN)/pagepairs run --input $(CRAWL) --output demo/flink --encoder builtin
	$(BIN)/python examples/check_crawl.py --truth demo/truth.jsonl --output demo/flink

# Under its name when it is whole: what an interrupted Maven leaves does not count.
$(JARS): examples/flink.pom.xml
	rm -rf $@ $@.part
	mvn --batch-mode --quiet -f $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$@.part $(FLINK)
	mv $@.part $@
	touch $@

$(CRAWL): .venv/installed examples/make_crawl.py examples/crawl.py examples/scenes.py
	$(BIN)/python examples/make_crawl.py --output demo

test: .venv/installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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
