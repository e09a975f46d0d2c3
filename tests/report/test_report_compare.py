"""Two runs side by side: counts against a recount, settings, the page, and runs that cannot be compared."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selectolax.lexbor import LexborHTMLParser

from pagepairs.config import Config, ReportConfig, RunConfig, ScanConfig
from pagepairs.files import read_json, write_json, write_parquet
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import CANDIDATES, rows_to_table
from pipeline.commands import main, parse
from pipeline.report import write_report
from pipeline.report_page import make_commands
from pipeline.run import as_json
from pipeline.runners import pipeline_options
from pipeline.sources import SourceMap, find_units

LOW, HIGH = 0.45, 0.7


def rebuild(run: Any) -> list[dict[str, Any]]:
    """Gives a made run another band and fewer candidates; returns what its candidates are then."""
    rows, seen = [], set()
    for row in run.candidates:
        if int(row["a_id"][:2], 16) % 5 == 0:
            continue
        reason = "below_low" if row["similarity"] < LOW else "above_high" if row["similarity"] > HIGH else ""
        pair = (row["a_id"], row["b_id"])
        rows.append(row | {"reason": "on_another_page" if not reason and pair in seen else reason})
        seen.add(pair)
    folder = os.path.join(run.output, "candidates")
    reasons = [row["reason"] for row in rows]
    ledger = {"in": len(rows), "kept": reasons.count(""), "errors": 0, "encoder": "builtin"}
    ledger |= {"dropped": {name: reasons.count(name) for name in sorted(set(reasons) - {""})}}
    ledger |= {
        "histogram": {"low": -1.0, "high": 1.0, "counts": [0] * 200},
        "band": {"low": LOW, "high": HIGH, "source": "--low and --high"},
    }
    file = write_parquet(os.path.join(folder, "part-00000.parquet"), rows_to_table(rows, CANDIDATES))
    write_manifest(folder, Manifest(dataset="candidates", digest="1" * 64, files=(file,), counters=ledger))
    config = read_json(os.path.join(run.output, "config.json"))
    write_json(os.path.join(run.output, "config.json"), config | {"pair": {"low": LOW, "high": HIGH}})
    return rows


def verdicts(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        found.setdefault((row["a_id"], row["b_id"]), row["reason"])
    return found


@pytest.fixture
def compared(reported_run: Any, made_run: Any) -> tuple[Any, list[dict[str, Any]], dict[str, Any], LexborHTMLParser]:
    """The made run with another band, compared with the reported one."""
    rows = rebuild(made_run)
    locate = SourceMap(find_units((made_run.crawl,)), made_run.output)
    page = write_report(made_run.output, locate=locate, pipeline_options=pipeline_options((), 1), compare=reported_run.output)
    report = read_json(os.path.join(made_run.output, "report", "report.json"))
    return made_run, rows, report["compare"], LexborHTMLParser(Path(page).read_text(encoding="utf-8"))


def test_counts_equal_a_recount(compared: Any, reported_run: Any) -> None:
    _, rows, compare, page = compared
    this, other = verdicts(rows), verdicts(reported_run.candidates)
    kept = [{pair for pair, reason in side.items() if reason == ""} for side in (this, other)]
    assert compare["pairs"] == {"both": len(kept[0] & kept[1]), "only_this": len(kept[0] - kept[1]), "only_other": len(kept[1] - kept[0])}
    became = [this.get(pair, "not a candidate") for pair in kept[1] - kept[0]]
    assert compare["only_other_became"] == {name: became.count(name) for name in set(became)}
    assert set(became) == {"below_low", "above_high", "not a candidate"}
    assert compare["only_this_became"] == {}
    for side, found in ((rows, 0), (reported_run.candidates, 1)):
        once = {(row["a_id"], row["b_id"]): row["similarity"] for row in side}
        bins = np.floor((np.array(list(once.values()), np.float32).astype(np.float64) + 1) * 100).astype(int)
        assert compare["counts"][found] == np.bincount(bins, minlength=200).tolist()
    assert compare["bands"] == [[LOW, HIGH], [0.3, 0.9]]
    text = page.css_first("#compare").text()
    assert f"{len(kept[1] - kept[0]):,}" in text
    assert "in this run" in text


def test_stages_and_settings_are_those_of_both(compared: Any, reported_run: Any) -> None:
    run, rows, compare, page = compared
    candidates = {row["name"]: (row["this"], row["other"]) for row in compare["stages"]["candidates"]}
    for name, count in (("in", len), ("below_low", lambda side: sum(row["reason"] == "below_low" for row in side))):
        assert candidates[name] == (count(rows), count(reported_run.candidates))
    assert [row for row in compare["stages"]["scan"] if row["this"] != row["other"]] == []
    settings = {row["name"]: (row["this"], row["other"]) for row in compare["settings"]}
    assert settings["pair.low"] == ("0.45", "–")
    assert settings["run.output"] == (run.output, reported_run.output)
    assert "scan.max_bytes" not in settings
    assert len(page.css("#compare [data-chart=compare]")) == 1


def test_a_run_is_the_same_as_itself(reported_run: Any, made_run: Any) -> None:
    locate = SourceMap(find_units((made_run.crawl,)), made_run.output)
    write_report(made_run.output, locate=locate, pipeline_options=pipeline_options((), 1), compare=made_run.output)
    compare = read_json(os.path.join(made_run.output, "report", "report.json"))["compare"]
    assert (compare["pairs"]["only_this"], compare["pairs"]["only_other"], compare["settings"]) == (0, 0, [])


def test_an_incomplete_run_is_one_sentence(made_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(tmp_path / "other")
    assert main("report", ["--output", made_run.output, "--compare", other]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"pagepairs: --compare {other}: name the --output of a complete run; {other}/candidates has no manifest.json")
    assert message.count("\n") == 1


def test_the_flag_belongs_to_report_and_is_not_kept() -> None:
    config = Config(scan=ScanConfig(input=("crawl",)), run=RunConfig(output="out"), report=ReportConfig(compare="other"))
    assert "report" not in as_json(config)
    with pytest.raises(ValueError, match="no flag --compare"):
        parse("pair", ["--output", "out", "--compare", "b"])


@pytest.mark.parametrize(
    ("config", "output", "start"),
    [
        ({"scan": {"input": ["/crawl"]}}, "/out", "pagepairs run --config /out/config.json --output /out"),
        ({"scan": {"input": ["crawl"]}}, "/out", "cd '/my work' && pagepairs run --config /out/config.json --output /out"),
        ({"scan": {"input": ["s3://a/b"]}}, "out", "pagepairs run --config '/my work/out/config.json' --output '/my work/out'"),
        (
            {"pair": {"benchmark": ["index"]}},
            "gs://b/out",
            "cd '/my work' && pagepairs run --config gs://b/out/config.json --output gs://b/out",
        ),
        (
            {"embed": {"encoder": "tflite:net.tflite"}},
            "/o'x",
            "cd '/my work' && pagepairs run --config '/o'\"'\"'x/config.json' --output '/o'\"'\"'x'",
        ),
    ],
)
def test_commands_are_whole(config: dict[str, Any], output: str, start: str) -> None:
    [(_, run, _), (_, pair, _)] = make_commands(config, output, "/my work")
    assert run == start
    assert pair == start.replace("pagepairs run", "pagepairs pair")


def test_the_command_for_another_band_names_the_encoder_that_decided() -> None:
    embed = {"encoder": "dinov2-base,tflite:/n.tflite", "encoder_weights": ""}
    assert len(make_commands({"embed": embed}, "/out", "/", encoder="dinov2-base")) == 2
    [(_, run, _)] = make_commands({"embed": embed}, "/out", "/", encoder="tflite-n")
    assert run == "pagepairs run --config /out/config.json --output /out --encoder tflite:/n.tflite,dinov2-base"
    [(_, run, _)] = make_commands({"embed": embed | {"encoder_weights": "/w,"}}, "/out", "/", encoder="tflite-n")
    assert run.endswith(" --encoder tflite:/n.tflite,dinov2-base --encoder-weights ,/w")
