"""Malformed inputs of every kind through all stages: whatever scan makes of them, the counts add up down to the report."""

import json
import sys
from pathlib import Path

from outputs import assert_conserved, assert_sound, counters

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))  # the generator stands beside the tests of sources

from malformed import malformed

from pagepairs.config import ScanConfig
from pipeline.sources import find_units

INPUTS = 150


def test_malformed_inputs_come_through_to_the_report(tmp_path: Path, pagepairs) -> None:
    crawl = tmp_path / "crawl"
    taken = 0
    for seed in range(50_000, 50_000 + INPUTS):
        made = malformed(seed)
        path = crawl / str(seed) / made.name
        path.parent.mkdir(parents=True)
        path.write_bytes(made.data)
        try:
            find_units((str(path),), ScanConfig())
            taken += 1
        except ValueError:  # named and refused before the run, as sources' own tests assert
            path.unlink()
    assert taken > INPUTS / 2
    done = pagepairs("run", "--input", crawl, "--output", tmp_path / "out", "--encoder", "builtin")
    assert done.code in (0, 5), done.err
    assert "Traceback" not in done.err
    assert_conserved(tmp_path / "out")
    assert_sound(tmp_path / "out")
    found = counters(tmp_path / "out", "images")
    assert found["errors"] > 0
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert report["stages"]["scan"] == {name: found[name] for name in ("in", "kept", "dropped", "errors")}
    assert {entry.name for entry in tmp_path.iterdir()} == {"crawl", "out"}
